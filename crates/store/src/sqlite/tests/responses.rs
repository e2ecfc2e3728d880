//! Responses and conversations on disk: what stays after a crash, what does not after a deletion, and damage.

use super::damage::{assert_corrupt, assert_unavailable};
use super::erasure::occurrences;
use super::*;
use crate::conformance::responses::conversations::sample_conversation;
use crate::conformance::responses::{sample_continuation, sample_response};
use crate::{
    Chain, ConversationRecord, HeadChange, ItemsChange, ResponseRecord, ResponseStore,
    ResponseUsage,
};

/// A conversation of two turns, the first of which was deleted.
async fn filled(store: &SqliteStore) -> (ConversationRecord, ResponseRecord, ResponseRecord) {
    let mut conversation = sample_conversation("alpha", "conv_1");
    store.insert_conversation(&conversation).await.unwrap();
    let first = sample_response("alpha", "resp_1");
    let second = sample_continuation(&first, "resp_2");
    for (response, expected) in [(&first, None), (&second, Some("resp_1"))] {
        let head = turn(expected);
        store.insert_response(response, Some(&head)).await.unwrap();
    }
    store.delete_response("alpha", "resp_1", NOW).await.unwrap();
    conversation.head = Some("resp_2".to_owned());
    (conversation, first, second)
}

fn turn(expected: Option<&str>) -> HeadChange {
    HeadChange {
        conversation: "conv_1".to_owned(),
        expected: expected.map(str::to_owned),
        now: NOW,
    }
}

async fn messages(store: &SqliteStore, id: &str) -> Vec<Vec<u8>> {
    let chain = store.chain("alpha", id, NOW, 10_000, u64::MAX).await;
    match chain.unwrap() {
        Chain::Whole(links) => links.into_iter().map(|link| link.messages).collect(),
        Chain::TooLong => panic!("it is within the bounds"),
    }
}

async fn assert_filled(
    store: &SqliteStore,
    (conversation, first, second): &(ConversationRecord, ResponseRecord, ResponseRecord),
) {
    let stored = store.conversation("alpha", "conv_1", NOW).await.unwrap();
    assert_eq!(stored, *conversation);
    let stored = store.response("alpha", "resp_2", NOW).await.unwrap();
    assert_eq!(stored, *second);
    let expected = [first.messages.clone(), second.messages.clone()];
    assert_eq!(messages(store, "resp_2").await, expected);
    let usage = ResponseUsage {
        responses: 2,
        conversations: 1,
        bytes: conversation.bytes() + second.bytes() + first.messages.len() as u64,
    };
    assert_eq!(store.responses_usage("alpha").await.unwrap(), usage);
}

#[tokio::test]
async fn reopening_keeps_responses_and_conversations() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let expected = filled(&store).await;
    store.close().await;
    assert_unavailable(store.response("alpha", "resp_2", NOW).await, "closed");
    let store = SqliteStore::open(&path).await.unwrap();
    assert_filled(&store, &expected).await;
}

#[tokio::test]
async fn an_acknowledged_response_is_there_without_close() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut expected = filled(&store).await;
    expected.0.metadata = b"{}".to_vec();
    store
        .set_conversation_metadata("alpha", "conv_1", b"{}", NOW)
        .await
        .unwrap();
    // What a killed process leaves: the files as they are at this moment.
    let (_other_directory, copy) = directory();
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(with_suffix(&path, suffix), with_suffix(&copy, suffix)).unwrap();
    }
    let recovered = SqliteStore::open(&copy).await.unwrap();
    assert_filled(&recovered, &expected).await;
}

#[tokio::test]
async fn what_a_deletion_removes_is_in_no_file() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    // Of many sizes, so that some rows share a page and some fill several; each with one that continues from it.
    let record = |number: usize| {
        let fill = |mark: &str| mark.repeat(1 + number * 37 % 500).into_bytes();
        ResponseRecord {
            input: fill("words-of-the-question"),
            body: fill("words-of-the-answer"),
            messages: fill("words-of-both"),
            ..sample_response("alpha", &format!("resp_{number}"))
        }
    };
    for number in 0..40 {
        let first = record(number);
        let second = ResponseRecord {
            messages: b"[]".to_vec(),
            ..sample_continuation(&first, &format!("resp_{number}_next"))
        };
        store.insert_response(&first, None).await.unwrap();
        store.insert_response(&second, None).await.unwrap();
    }
    let counts = || {
        [
            "words-of-the-question",
            "words-of-the-answer",
            "words-of-both",
        ]
        .map(|mark| occurrences(&path, mark))
    };
    assert!(counts().iter().all(|count| *count > 40), "it is readable");
    for step in 0..40 {
        let id = format!("resp_{}", step * 7 % 40);
        store.delete_response("alpha", &id, NOW).await.unwrap();
    }
    let [question, answer, both] = counts();
    assert_eq!((question, answer), (0, 0));
    assert!(both > 40, "living responses continue from it");
    for step in 0..20 {
        let id = format!("resp_{}_next", step * 7 % 40);
        store.delete_response("alpha", &id, NOW).await.unwrap();
    }
    let ended = store.sweep_responses(NOW + LIFETIME, 100).await.unwrap();
    assert_eq!(ended, 20);
    assert_eq!(counts(), [0, 0, 0]);
    assert_eq!(count(&store, "SELECT count(*) FROM responses").await, 0);
}

#[tokio::test]
async fn replaced_and_removed_parts_of_conversations_are_in_no_file() {
    const MARK: &str = "words-of-the-conversation";
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let marked = MARK.repeat(1000).into_bytes();
    let conversation = |id: &str| ConversationRecord {
        metadata: marked.clone(),
        items: marked.clone(),
        messages: marked.clone(),
        ..sample_conversation("alpha", id)
    };
    for id in ["conv_1", "conv_2", "conv_3"] {
        store.insert_conversation(&conversation(id)).await.unwrap();
    }
    assert!(occurrences(&path, MARK) >= 9000);
    let change = ItemsChange {
        expected: marked.clone(),
        items: b"[]".to_vec(),
        messages: b"[]".to_vec(),
    };
    store
        .set_conversation_metadata("alpha", "conv_1", b"{}", NOW)
        .await
        .unwrap();
    store
        .set_conversation_items("alpha", "conv_1", &change, NOW)
        .await
        .unwrap();
    store
        .delete_conversation("alpha", "conv_2", NOW)
        .await
        .unwrap();
    assert!(occurrences(&path, MARK) < 3010, "one is left");
    assert_eq!(store.sweep_responses(NOW + LIFETIME, 10).await.unwrap(), 2);
    assert_eq!(occurrences(&path, MARK), 0);
}

#[tokio::test]
async fn a_long_chain_goes_at_once() {
    let (_directory, store) = opened().await;
    // Everything but the last has been deleted before.
    run(
        &store,
        "INSERT INTO responses WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < 5000) \
         SELECT n, 'resp_' || n, 'alpha', nullif(n - 1, 0), CASE WHEN n > 1 THEN 1 END, n < 5000, \
         0, 9000000000000, 2, 'm', NULL, x'5b5d', x'', x'' FROM n",
    )
    .await;
    let last = "resp_5000";
    assert_eq!(messages(&store, last).await.len(), 5000);
    let too_long = store.chain("alpha", last, NOW, 4999, u64::MAX).await;
    assert_eq!(too_long.unwrap(), Chain::TooLong);
    let usage = store.responses_usage("alpha").await.unwrap();
    assert_eq!((usage.responses, usage.bytes), (5000, 10_000));
    store.delete_response("alpha", last, NOW).await.unwrap();
    assert_eq!(count(&store, "SELECT count(*) FROM responses").await, 0);
    let usage = store.responses_usage("alpha").await.unwrap();
    assert_eq!(usage, ResponseUsage::default());
}

#[tokio::test]
async fn damaged_responses_are_corrupt_and_can_be_swept() {
    for damage in [
        "DELETE FROM responses WHERE id = 'resp_1'",
        "UPDATE responses SET previous = 77 WHERE id = 'resp_2'",
        "UPDATE responses SET project = 'beta' WHERE id = 'resp_1'",
    ] {
        let (_directory, store) = opened().await;
        filled(&store).await;
        run(&store, "PRAGMA foreign_keys = OFF").await;
        run(&store, damage).await;
        let chain = store.chain("alpha", "resp_2", NOW, 10, u64::MAX).await;
        assert_corrupt(chain, "missing");
        let later = NOW + 10 * LIFETIME;
        assert_eq!(store.sweep_responses(later, 10).await.unwrap(), 2);
        let left = "SELECT count(*) FROM responses WHERE kept = 0";
        assert_eq!(count(&store, left).await, 0);
    }
}

#[tokio::test]
async fn references_to_nothing_are_corrupt() {
    let (_directory, store) = opened().await;
    filled(&store).await;
    run(&store, "PRAGMA foreign_keys = OFF").await;
    run(
        &store,
        "UPDATE responses SET previous = 77 WHERE id = 'resp_2'",
    )
    .await;
    run(&store, "UPDATE conversations SET head = 77").await;
    let response = store.response("alpha", "resp_2", NOW).await;
    assert_corrupt(response, "missing");
    let conversation = store.conversation("alpha", "conv_1", NOW).await;
    assert_corrupt(conversation, "missing");
    let next = sample_response("alpha", "resp_3");
    let refused = store
        .insert_response(&next, Some(&turn(Some("resp_2"))))
        .await;
    assert_corrupt(refused, "missing");
    run(&store, "UPDATE response_usage SET bytes = -1").await;
    assert_corrupt(store.responses_usage("alpha").await, "bytes");
}

#[tokio::test]
async fn responses_are_neither_written_to_nor_removed_from_a_read_only_database() {
    let (_directory, store) = opened().await;
    let expected = filled(&store).await;
    let write_everything = async || {
        let next = sample_continuation(&expected.2, "resp_3");
        let change = ItemsChange {
            expected: expected.0.items.clone(),
            items: b"[]".to_vec(),
            messages: b"[]".to_vec(),
        };
        let other = sample_conversation("alpha", "conv_2");
        let metadata = store.set_conversation_metadata("alpha", "conv_1", b"{}", NOW);
        let items = store.set_conversation_items("alpha", "conv_1", &change, NOW);
        let head = turn(Some("resp_2"));
        vec![
            store.insert_response(&next, Some(&head)).await,
            store.insert_conversation(&other).await,
            metadata.await.map(drop),
            items.await.map(drop),
            store.delete_response("alpha", "resp_2", NOW).await,
            store.delete_conversation("alpha", "conv_2", NOW).await,
            store.sweep_responses(NOW + LIFETIME, 10).await.map(drop),
        ]
    };
    run(&store, "PRAGMA query_only = ON").await;
    for result in write_everything().await {
        assert_unavailable(result, "the database is read-only");
    }
    assert_filled(&store, &expected).await;
    run(&store, "PRAGMA query_only = OFF").await;
    for result in write_everything().await {
        result.unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_leaves_neither_response_nor_head_behind() {
    let (_directory, store) = opened().await;
    let expected = filled(&store).await;
    let long = ResponseRecord {
        body: b"long ".repeat(100_000),
        ..sample_continuation(&expected.2, "resp_3")
    };
    let metadata = b"long ".repeat(100_000);
    let limit = "PRAGMA max_page_count = 1";
    let head = turn(Some("resp_2"));
    run(&store, limit).await;
    let refused = store.insert_response(&long, Some(&head)).await;
    assert_unavailable(refused, "the disk is full");
    run(&store, limit).await;
    let refused = store.set_conversation_metadata("alpha", "conv_1", &metadata, NOW);
    assert_unavailable(refused.await, "the disk is full");
    assert_filled(&store, &expected).await;
    // SQLite undid the statement only, so the connection is still the same, and so is its limit.
    run(&store, "PRAGMA max_page_count = 1000000").await;
    store.insert_response(&long, Some(&head)).await.unwrap();
}
