//! Two replicas that do everything at the same time.

use holdfast_protocol::UnixMillis;

use super::*;
use crate::conformance::responses::conversations::sample_conversation;
use crate::conformance::responses::{sample_continuation, sample_response};
use crate::{
    Account, AccountChange, Chain, ConversationRecord, HandleRecord, HeadChange, ResponseRecord,
    ResponseStore, UpstreamStore,
};

/// Several tasks on each of two stores; what each does depends on its number only.
async fn together<F>(
    options: &PostgresOptions,
    tasks: u64,
    work: impl Fn(Arc<PostgresStore>, u64) -> F,
) -> Arc<PostgresStore>
where
    F: Future<Output = ()> + Send + 'static,
{
    let stores = [
        Arc::new(PostgresStore::open(options).await.unwrap()),
        Arc::new(PostgresStore::open(options).await.unwrap()),
    ];
    let mut running = JoinSet::new();
    for number in 0..tasks {
        running.spawn(work(Arc::clone(&stores[(number % 2) as usize]), number));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let [one, _] = stores;
    one
}

/// Numbers that look random and are the same in every run.
fn next(state: &mut u64, end: u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % end
}

#[track_caller]
fn done_or_refused<T>(result: Result<T, StoreError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(StoreError::NotFound | StoreError::Conflict) => None,
        Err(error) => panic!("{error}"),
    }
}

async fn step(store: &PostgresStore, state: &mut u64, now: UnixMillis) {
    let response = format!("resp_{}", next(state, 30));
    let conversation = format!("conv_{}", next(state, 3));
    match next(state, 12) {
        0..=5 => {
            let stored = store.conversation("alpha", &conversation, now).await;
            let head = done_or_refused(stored).and_then(|stored| stored.head);
            let (previous, change) = match next(state, 4) {
                0 => (None, None),
                1 => (Some(format!("resp_{}", next(state, 30))), None),
                2 => (head.clone(), Some(head)),
                _ => (Some(format!("resp_{}", next(state, 30))), Some(head)),
            };
            let record = ResponseRecord {
                previous,
                created_at: now,
                expires_at: now + 1 + next(state, 60) as i64,
                ..sample_response("alpha", &response)
            };
            let change = change.map(|expected| HeadChange {
                conversation,
                expected,
                now,
            });
            done_or_refused(store.insert_response(&record, change.as_ref()).await);
        }
        6..=7 => drop(done_or_refused(
            store.delete_response("alpha", &response, now).await,
        )),
        8 => {
            let record = ConversationRecord {
                head: (next(state, 2) == 0).then_some(response),
                created_at: now,
                expires_at: now + 1 + next(state, 40) as i64,
                ..sample_conversation("alpha", &conversation)
            };
            done_or_refused(store.insert_conversation(&record).await);
        }
        9 => {
            let metadata = vec![b' '; next(state, 50) as usize];
            let set = store.set_conversation_metadata("alpha", &conversation, &metadata, now);
            done_or_refused(set.await);
        }
        10 => drop(done_or_refused(
            store.delete_conversation("alpha", &conversation, now).await,
        )),
        _ => drop(store.sweep_responses(now, 5).await.unwrap()),
    }
    let response = format!("resp_{}", next(state, 30));
    let chain = store.chain("alpha", &response, now, 100, 1 << 20);
    if let Some(Chain::Whole(links)) = done_or_refused(chain.await) {
        assert!(!links.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_stay_whole_whatever_is_done_to_them_at_once() {
    let options = options().await;
    let store = together(&options, 8, |store, number| async move {
        let mut state = number;
        for round in 0..150 {
            step(&store, &mut state, NOW + round / 4).await;
        }
    })
    .await;
    for (what, wrong) in [
        (
            "kept for nothing",
            "SELECT count(*) FROM responses WHERE kept \
             AND sequence NOT IN (SELECT previous FROM responses WHERE previous IS NOT NULL)",
        ),
        (
            "heads that have ended",
            "SELECT count(*) FROM conversations JOIN responses ON responses.sequence = head WHERE kept",
        ),
        (
            "trees without their first",
            "SELECT count(*) FROM responses WHERE (previous IS NULL) <> (tree IS NULL) \
             OR tree NOT IN (SELECT sequence FROM responses)",
        ),
        (
            "bytes that were not counted",
            "SELECT (SELECT coalesce(sum(bytes), 0) FROM responses) \
             + (SELECT coalesce(sum(bytes), 0) FROM conversations) \
             - (SELECT coalesce(sum(bytes), 0) FROM response_usage)",
        ),
        (
            "rows that were not counted",
            "SELECT (SELECT count(*) FROM responses) + (SELECT count(*) FROM conversations) \
             - (SELECT coalesce(sum(responses + conversations), 0) FROM response_usage)",
        ),
    ] {
        let wrong = format!("SELECT ({wrong})::bigint");
        let wrong: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(wrong))
            .fetch_one(&store.pool)
            .await
            .unwrap();
        assert_eq!(wrong, 0, "{what}");
    }
    let made = count(&store, "SELECT max(sequence) FROM responses").await;
    assert!(made > 100, "enough was possible: {made}");
    store.sweep_responses(NOW + LIFETIME, 10_000).await.unwrap();
    let left = "SELECT (SELECT count(*) FROM responses) + (SELECT count(*) FROM conversations) \
                + (SELECT count(*) FROM response_usage)";
    assert_eq!(count(&store, left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_moves_while_others_look_is_never_missing() {
    let options = options().await;
    let first = PostgresStore::open(&options).await.unwrap();
    let conversation = ConversationRecord {
        expires_at: NOW + LIFETIME,
        ..sample_conversation("alpha", "conv")
    };
    first.insert_conversation(&conversation).await.unwrap();
    let store = together(&options, 6, |store, number| async move {
        for round in 0..40 {
            let id = format!("resp_{number}_{round}");
            let stored = store.conversation("alpha", "conv", NOW).await.unwrap();
            let mut record = sample_response("alpha", &id);
            record.previous = stored.head.clone();
            let change = HeadChange {
                conversation: "conv".to_owned(),
                expected: stored.head,
                now: NOW,
            };
            match number {
                0 | 1 => {
                    let set = store.set_conversation_metadata("alpha", "conv", b"{}", NOW);
                    set.await.unwrap();
                }
                _ => {
                    let inserted = store.insert_response(&record, Some(&change)).await;
                    if done_or_refused(inserted).is_some() && round % 3 == 0 {
                        store.delete_response("alpha", &id, NOW).await.unwrap();
                    }
                }
            }
        }
    })
    .await;
    store.conversation("alpha", "conv", NOW).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_accounts_and_deletions_of_both_replicas_get_along() {
    let options = options().await;
    let first = PostgresStore::open(&options).await.unwrap();
    let contexts: Arc<Vec<Context>> = Arc::new(
        (0..12)
            .map(|age| sample_context("alpha", NOW + age))
            .collect(),
    );
    for context in contexts.iter() {
        first.insert(context, &sample_content()).await.unwrap();
    }
    let shared = Arc::clone(&contexts);
    let store = together(&options, 8, move |store, number| {
        let contexts = Arc::clone(&shared);
        async move {
            let mut state = number;
            for _ in 0..30 {
                let change = |context: &Context| AccountChange {
                    context: context.id.clone(),
                    add: Account {
                        requests: 1,
                        ..Account::default()
                    },
                    currency: String::new(),
                    home: None,
                    last_used_at: None,
                };
                let mut changes: Vec<_> = contexts.iter().map(change).collect();
                changes.rotate_left(next(&mut state, 12) as usize);
                store.change_accounts(&changes).await.unwrap();
                let context = &contexts[next(&mut state, 12) as usize];
                if let Some(row) = done_or_refused(store.get("alpha", &context.id, NOW).await) {
                    let append = sample_append(row.turn_count + 1, NOW);
                    let appended = store.append_turn("alpha", &row.id, row.version, &append, NOW);
                    done_or_refused(appended.await);
                }
                // The first half of them goes.
                let goes = &contexts[next(&mut state, 6) as usize];
                done_or_refused(store.delete("alpha", &goes.id, NOW).await);
            }
        }
    })
    .await;
    for context in &contexts[6..] {
        let account = store.account(&context.id).await.unwrap();
        assert_eq!(account.totals.requests, 8 * 30);
        let row = store.get("alpha", &context.id, NOW).await.unwrap();
        let content = store.content("alpha", &context.id).await.unwrap();
        let numbers: Vec<u32> = content.turns.iter().map(|turn| turn.number).collect();
        assert_eq!(numbers, (1..=row.turn_count).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_expired_context_is_swept_by_one_replica() {
    let options = options().await;
    let first = PostgresStore::open(&options).await.unwrap();
    for age in 0..60 {
        let context = sample_context("alpha", NOW + age);
        first.insert(&context, &sample_content()).await.unwrap();
    }
    let swept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let all = Arc::clone(&swept);
    together(&options, 6, move |store, _| {
        let all = Arc::clone(&all);
        async move {
            loop {
                let swept = store.sweep(NOW + 2 * LIFETIME, 7).await.unwrap();
                if swept.is_empty() {
                    break;
                }
                let ids = swept.into_iter().map(|context| context.id.to_string());
                all.lock().unwrap().extend(ids);
            }
        }
    })
    .await;
    let mut ids = swept.lock().unwrap().clone();
    assert_eq!(ids.len(), 60);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 60, "none twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_copies_made_at_once_one_lives() {
    let options = options().await;
    let context = sample_context("alpha", NOW).id;
    let of = context.clone();
    let store = together(&options, 8, move |store, number| {
        let handle = HandleRecord {
            context: of.clone(),
            project: "alpha".to_owned(),
            place: "place".to_owned(),
            name: format!("copy {number}"),
            tokens: None,
            turns: 0,
            dropped_messages: 0,
            created_at: NOW,
            expires_at: NOW + LIFETIME,
        };
        async move { store.put_handle(&handle).await.unwrap() }
    })
    .await;
    assert_eq!(store.handles(&context).await.unwrap().len(), 1);
    assert_eq!(store.doomed("place", NOW, 10).await.unwrap().len(), 7);
}

#[tokio::test]
async fn a_caller_who_gives_up_at_any_step_leaves_nothing_half_done() {
    let mut options = options().await;
    options.connections_max = 2;
    let store = PostgresStore::open(&options).await.unwrap();
    let context = sample_context("alpha", NOW);
    store.insert(&context, &sample_content()).await.unwrap();
    let previous = sample_response("alpha", "resp");
    store.insert_response(&previous, None).await.unwrap();
    for polls in 1..40 {
        let row = store.get("alpha", &context.id, NOW).await.unwrap();
        let append = sample_append(row.turn_count + 1, NOW);
        let next = sample_continuation(&previous, &format!("resp_{polls}"));
        let mut appending =
            Box::pin(store.append_turn("alpha", &context.id, row.version, &append, NOW));
        let mut inserting = Box::pin(store.insert_response(&next, None));
        let mut left = polls;
        std::future::poll_fn(|task| {
            let ready =
                appending.as_mut().poll(task).is_ready() | inserting.as_mut().poll(task).is_ready();
            left -= 1;
            match ready || left == 0 {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
        drop((appending, inserting));
        let row = store.get("alpha", &context.id, NOW).await.unwrap();
        let content = store.content("alpha", &context.id).await.unwrap();
        // Both are read in one go only by chance; a commit that was on its way may come in between.
        assert!(content.turns.len() >= row.turn_count as usize);
        let again = store.get("alpha", &context.id, NOW).await.unwrap();
        assert!(content.turns.len() <= again.turn_count as usize);
    }
}
