//! Sessions: turns are committed whole, once, and in order.

use holdfast_protocol::context::ContextContent;

use super::{
    LIFETIME, NOW, assert_conflict, in_parallel, insert, sample_append, sample_content,
    sample_context,
};
use crate::{ContextStore, StoreError};

const TASKS: u32 = 8;
const TURNS_PER_TASK: u32 = 5;

/// A turn changes the counters, the version and the expiry, and nothing else.
pub async fn append_changes_what_it_says(store: &dyn ContextStore) {
    let context = sample_context("append", NOW);
    insert(store, &context).await;

    let later = NOW + 60_000;
    let first = sample_append(1, later);
    let mut second = sample_append(2, later);
    second.expires_at = NOW + 1;
    let mut expected = context.clone();
    for append in [&first, &second] {
        expected.version += 1;
        expected.turn_count += 1;
        expected.dropped_messages = append.dropped_messages;
        expected.prefix_tokens = append.prefix_tokens;
        // The second asks for an earlier expiry, which is ignored.
        expected.expires_at = later + LIFETIME;
        let answer = store
            .append_turn("append", &context.id, expected.version - 1, append, later)
            .await
            .expect("appended");
        assert_eq!(answer, expected);
        let stored = store
            .get("append", &context.id, later)
            .await
            .expect("there");
        assert_eq!(stored, expected);
    }
    assert_eq!(
        store.content("append", &context.id).await.expect("there"),
        ContextContent {
            turns: vec![first.turn, second.turn],
            ..sample_content()
        }
    );
    assert!(
        store
            .get("append", &context.id, context.expires_at)
            .await
            .is_ok(),
        "the new expiry is in force"
    );
}

/// A version or number that does not follow is a conflict, and leaves the session as it was.
pub async fn a_refused_append_changes_nothing(store: &dyn ContextStore) {
    let context = sample_context("refused", NOW);
    insert(store, &context).await;
    let first = sample_append(1, NOW);
    let current = store
        .append_turn("refused", &context.id, 1, &first, NOW)
        .await
        .expect("appended");

    for (version, number) in [
        (1, 2),
        (3, 2),
        (0, 2),
        (u64::MAX, 2),
        (2, 1),
        (2, 3),
        (2, 0),
    ] {
        let append = sample_append(number, NOW + 1);
        assert_conflict(
            store
                .append_turn("refused", &context.id, version, &append, NOW + 1)
                .await,
        );
    }
    let stored = store.get("refused", &context.id, NOW).await.expect("there");
    assert_eq!(stored, current);
    let content = store.content("refused", &context.id).await.expect("there");
    assert_eq!(content.turns, [first.turn]);
}

/// Of tasks that read, append and try again on conflict, each gets each of its turns in, in one order for all.
pub async fn parallel_appends_make_each_turn_once(store: &dyn ContextStore) {
    let context = sample_context("parallel", NOW);
    insert(store, &context).await;
    let id = &context.id;

    let numbers = in_parallel(TASKS, async |_| {
        let mut numbers = Vec::new();
        while numbers.len() < TURNS_PER_TASK as usize {
            let current = store.get("parallel", id, NOW).await.expect("there");
            let append = sample_append(current.turn_count + 1, NOW);
            match store
                .append_turn("parallel", id, current.version, &append, NOW)
                .await
            {
                Ok(after) => {
                    assert_eq!(after.turn_count, append.turn.number);
                    numbers.push(append.turn.number);
                }
                Err(StoreError::Conflict) => {}
                Err(error) => panic!("{error}"),
            }
        }
        numbers
    });

    let turns = TASKS * TURNS_PER_TASK;
    let mut numbers = numbers.concat();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=turns).collect::<Vec<_>>());
    let content = store.content("parallel", id).await.expect("there");
    let expected: Vec<_> = (1..=turns)
        .map(|number| sample_append(number, NOW).turn)
        .collect();
    assert_eq!(content.turns, expected);
    let stored = store.get("parallel", id, NOW).await.expect("there");
    assert_eq!(stored.version, u64::from(turns) + 1);
    assert_eq!(stored.turn_count, turns);
}

/// Of parallel inserts of one id exactly one is acknowledged, and that one is what is stored.
pub async fn parallel_inserts_of_one_id_store_one(store: &dyn ContextStore) {
    let context = sample_context("race", NOW);
    let outcomes = in_parallel(TASKS, async |number| {
        let mut mine = context.clone();
        mine.display_name = Some(number.to_string());
        (store.insert(&mine, &sample_content()).await, mine)
    });
    let mut stored = Vec::new();
    for (outcome, mine) in outcomes {
        match outcome {
            Ok(()) => stored.push(mine),
            other => assert_conflict(other),
        }
    }
    assert_eq!(
        stored,
        [store.get("race", &context.id, NOW).await.expect("there")]
    );
}
