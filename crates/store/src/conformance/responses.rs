//! Responses and the trees they form; the modules below have how they end, and conversations.

use holdfast_protocol::UnixMillis;

use super::{LIFETIME, NOW, assert_conflict, assert_not_found, in_parallel};
use crate::{Chain, ChainLink, ResponseRecord, ResponseStore, ResponseUsage, StoreError};

pub mod agreement;
pub mod conversations;
pub mod endings;

/// A response with every field set but `previous`; its id is in its bytes.
pub fn sample_response(project: &str, id: &str) -> ResponseRecord {
    ResponseRecord {
        id: id.to_owned(),
        project: project.to_owned(),
        model: "sample-model".to_owned(),
        previous: None,
        conversation: Some(format!("conversation of {id}")),
        input: format!("[\"input of {id}, Größe \\u0000 大小\"]").into_bytes(),
        messages: format!("[\"messages of {id}\"]").into_bytes(),
        body: format!("{{\"zebra\": 1, \"body of\": \"{id}\"}}").into_bytes(),
        created_at: NOW,
        expires_at: NOW + LIFETIME,
    }
}

/// [`sample_response`] that continues `previous`, in its project and with its times.
pub fn sample_continuation(previous: &ResponseRecord, id: &str) -> ResponseRecord {
    ResponseRecord {
        previous: Some(previous.id.clone()),
        created_at: previous.created_at,
        expires_at: previous.expires_at,
        ..sample_response(&previous.project, id)
    }
}

async fn insert(store: &dyn ResponseStore, record: &ResponseRecord) {
    store
        .insert_response(record, None)
        .await
        .expect("a new response is stored");
}

async fn usage(store: &dyn ResponseStore, project: &str) -> ResponseUsage {
    let usage = store.responses_usage(project).await;
    usage.expect("the store answers")
}

/// The chain of `last`, a response that is there at `now`, without bounds.
async fn chain(store: &dyn ResponseStore, last: &ResponseRecord, now: UnixMillis) -> Chain {
    let chain = store.chain(&last.project, &last.id, now, u32::MAX, u64::MAX);
    chain.await.expect("it is there")
}

fn whole(records: &[&ResponseRecord]) -> Chain {
    let links = records.iter().map(|record| ChainLink {
        id: record.id.clone(),
        model: record.model.clone(),
        messages: record.messages.clone(),
    });
    Chain::Whole(links.collect())
}

/// Asserts that for clients of `project` the id is as good as unknown.
async fn assert_gone(store: &dyn ResponseStore, project: &str, id: &str, now: UnixMillis) {
    assert_not_found(store.response(project, id, now).await);
    assert_not_found(store.chain(project, id, now, u32::MAX, u64::MAX).await);
    assert_not_found(store.delete_response(project, id, now).await);
    let continued = ResponseRecord {
        previous: Some(id.to_owned()),
        created_at: now,
        expires_at: now + LIFETIME,
        ..sample_response(project, "of what is gone")
    };
    assert_not_found(store.insert_response(&continued, None).await);
    assert_not_found(store.response(project, &continued.id, now).await);
}

/// Nothing of a response is lost.
pub async fn a_response_reads_back_whole(store: &dyn ResponseStore) {
    let full = sample_response("r-whole", "r-whole-1");
    let next = ResponseRecord {
        model: "another \u{0} \u{1F980}".to_owned(),
        conversation: None,
        created_at: NOW + 1,
        expires_at: NOW + 2 * LIFETIME,
        ..sample_continuation(&full, "r-whole-2")
    };
    let empty = ResponseRecord {
        conversation: None,
        input: Vec::new(),
        messages: Vec::new(),
        body: Vec::new(),
        ..sample_response("r-whole", "r-whole-3")
    };
    let records = [full, next, empty];
    for record in &records {
        insert(store, record).await;
    }
    for record in &records {
        let stored = store.response("r-whole", &record.id, NOW).await;
        assert_eq!(stored.expect("there"), *record);
    }
}

/// A second insert of an id is refused, whoever asks, and changes nothing.
pub async fn a_response_id_is_stored_once(store: &dyn ResponseStore) {
    let record = sample_response("r-once", "r-once-1");
    insert(store, &record).await;
    let before = usage(store, "r-once").await;

    let other = sample_response("r-once-other", "r-once-1");
    assert_conflict(store.insert_response(&other, None).await);
    assert_conflict(store.insert_response(&record, None).await);
    let after_itself = sample_continuation(&record, "r-once-1");
    assert_conflict(store.insert_response(&after_itself, None).await);

    assert_not_found(store.response("r-once-other", "r-once-1", NOW).await);
    let stored = store.response("r-once", "r-once-1", NOW).await;
    assert_eq!(stored.expect("there"), record);
    assert_eq!(usage(store, "r-once").await, before);
    assert_eq!(usage(store, "r-once-other").await, ResponseUsage::default());
}

/// No method tells a foreign response from one that does not exist, or changes it.
pub async fn foreign_responses_are_unknown(store: &dyn ResponseStore) {
    let record = sample_response("r-owner", "r-owner-1");
    insert(store, &record).await;
    for (project, id) in [
        ("r-stranger", "r-owner-1"),
        ("r-owner", "r-owner-2"),
        ("", "r-owner-1"),
        ("r-owner", ""),
        ("r-owner", "r-owner-1\u{0}"),
        ("r-owner\u{0}", "r-owner-1"),
    ] {
        assert_gone(store, project, id, NOW).await;
    }
    let stored = store.response("r-owner", "r-owner-1", NOW).await;
    assert_eq!(stored.expect("there"), record);
    assert_eq!(chain(store, &record, NOW).await, whole(&[&record]));
    for project in ["r-stranger", "r-owner\u{0}"] {
        assert_eq!(usage(store, project).await, ResponseUsage::default());
    }
}

/// Several may continue from one, and each has only its own way to the first.
pub async fn responses_branch(store: &dyn ResponseStore) {
    let first = sample_response("r-branch", "r-branch-1");
    let left = ResponseRecord {
        model: "left".to_owned(),
        ..sample_continuation(&first, "r-branch-left")
    };
    let right = sample_continuation(&first, "r-branch-right");
    let further = sample_continuation(&left, "r-branch-further");
    let again = sample_continuation(&left, "r-branch-again");
    for record in [&first, &left, &right, &further, &again] {
        insert(store, record).await;
    }
    for expected in [
        &[&first] as &[_],
        &[&first, &left],
        &[&first, &right],
        &[&first, &left, &further],
        &[&first, &left, &again],
    ] {
        let last = expected[expected.len() - 1];
        assert_eq!(chain(store, last, NOW).await, whole(expected));
    }
}

/// A chain that is longer than asked for, by one response or one byte, is not given at all.
pub async fn chains_are_bounded(store: &dyn ResponseStore) {
    let mut records = vec![sample_response("r-bounds", "r-bounds-0")];
    for number in 1..5 {
        let next = sample_continuation(&records[number - 1], &format!("r-bounds-{number}"));
        records.push(next);
    }
    let bytes: usize = records.iter().map(|record| record.messages.len()).sum();
    let bytes = bytes as u64;
    for record in &records {
        insert(store, record).await;
    }
    let ask = async |limit, bytes_max| {
        let chain = store.chain("r-bounds", "r-bounds-4", NOW, limit, bytes_max);
        chain.await.expect("it is there")
    };
    let all: Vec<&ResponseRecord> = records.iter().collect();
    assert_eq!(ask(5, bytes).await, whole(&all));
    for (limit, bytes_max) in [
        (4, bytes),
        (5, bytes - 1),
        (1, bytes),
        (0, bytes),
        (5, 0),
        (0, 0),
    ] {
        assert_eq!(ask(limit, bytes_max).await, Chain::TooLong);
    }
    let unknown = store.chain("r-bounds", "r-bounds-5", NOW, 0, 0).await;
    assert_not_found(unknown);
}

/// A response is continued from up to the last moment of its life, by its own project, and its age then is no matter.
pub async fn only_what_is_there_is_continued(store: &dyn ResponseStore) {
    let first = sample_response("r-continue", "r-continue-1");
    insert(store, &first).await;
    let end = first.expires_at;
    let at = |created_at, id: &str| ResponseRecord {
        created_at,
        expires_at: created_at + LIFETIME,
        ..sample_continuation(&first, id)
    };
    let before = usage(store, "r-continue").await;
    for now in [end, end + 1] {
        let late = at(now, "r-continue-late");
        assert_not_found(store.insert_response(&late, None).await);
    }
    let foreign = ResponseRecord {
        project: "r-continue-other".to_owned(),
        ..at(NOW, "r-continue-foreign")
    };
    assert_not_found(store.insert_response(&foreign, None).await);
    let itself = ResponseRecord {
        previous: Some("r-continue-self".to_owned()),
        ..at(NOW, "r-continue-self")
    };
    assert_not_found(store.insert_response(&itself, None).await);
    assert_eq!(usage(store, "r-continue").await, before);

    let last = at(end - 1, "r-continue-2");
    insert(store, &last).await;
    assert_eq!(chain(store, &last, end).await, whole(&[&first, &last]));
}

/// Of parallel inserts of one id exactly one is acknowledged, and that one is what is stored.
pub async fn parallel_inserts_of_one_response_store_one(store: &dyn ResponseStore) {
    let first = sample_response("r-race", "r-race-1");
    insert(store, &first).await;
    let outcomes = in_parallel(8, async |number| {
        let mut mine = sample_continuation(&first, "r-race-2");
        mine.model = number.to_string();
        (store.insert_response(&mine, None).await, mine)
    });
    let mut stored = Vec::new();
    for (outcome, mine) in outcomes {
        match outcome {
            Ok(()) => stored.push(mine),
            Err(error) => assert_conflict::<()>(Err(error)),
        }
    }
    let winner = store.response("r-race", "r-race-2", NOW).await;
    assert_eq!(stored, [winner.expect("there")]);
    assert_eq!(usage(store, "r-race").await.responses, 2);
}

/// Parallel turns on one response are branches: all are stored.
pub async fn parallel_continuations_are_branches(store: &dyn ResponseStore) {
    let first = sample_response("r-fan", "r-fan");
    insert(store, &first).await;
    let outcomes: Vec<Result<(), StoreError>> = in_parallel(8, async |number| {
        let mine = sample_continuation(&first, &format!("r-fan-{number}"));
        store.insert_response(&mine, None).await?;
        assert_eq!(chain(store, &mine, NOW).await, whole(&[&first, &mine]));
        Ok(())
    });
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(usage(store, "r-fan").await.responses, 9);
}
