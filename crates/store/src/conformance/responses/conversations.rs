//! Conversations and their heads.

use super::{insert, sample_continuation, sample_response, usage};
use crate::conformance::{LIFETIME, NOW, assert_conflict, assert_not_found, in_parallel};
use crate::{
    ConversationRecord, HeadChange, ItemsChange, ResponseRecord, ResponseStore, ResponseUsage,
};

/// A conversation without a head.
pub fn sample_conversation(project: &str, id: &str) -> ConversationRecord {
    ConversationRecord {
        id: id.to_owned(),
        project: project.to_owned(),
        metadata: format!("{{\"topic\": \"of {id}\"}}").into_bytes(),
        items: format!("[\"items of {id} \\u0000\"]").into_bytes(),
        messages: format!("[\"messages of {id}\"]").into_bytes(),
        head: None,
        created_at: NOW,
        expires_at: NOW + LIFETIME,
    }
}

fn head(conversation: &str, expected: Option<&str>) -> HeadChange {
    HeadChange {
        conversation: conversation.to_owned(),
        expected: expected.map(str::to_owned),
        now: NOW,
    }
}

async fn begin(store: &dyn ResponseStore, record: &ConversationRecord) {
    store
        .insert_conversation(record)
        .await
        .expect("a new conversation is stored");
}

async fn there(store: &dyn ResponseStore, project: &str, id: &str) -> ConversationRecord {
    let stored = store.conversation(project, id, NOW).await;
    stored.expect("it is there")
}

/// Asserts that for clients of `project` the id is as good as unknown.
async fn assert_gone(store: &dyn ResponseStore, project: &str, id: &str, now: i64) {
    assert_not_found(store.conversation(project, id, now).await);
    assert_not_found(
        store
            .set_conversation_metadata(project, id, b"{}", now)
            .await,
    );
    let change = ItemsChange {
        expected: sample_conversation(project, id).items,
        items: b"[]".to_vec(),
        messages: b"[]".to_vec(),
    };
    assert_not_found(
        store
            .set_conversation_items(project, id, &change, now)
            .await,
    );
    assert_not_found(store.delete_conversation(project, id, now).await);
    let response = sample_response(project, "in what is gone");
    let change = HeadChange {
        now,
        ..head(id, None)
    };
    assert_not_found(store.insert_response(&response, Some(&change)).await);
    assert_not_found(store.response(project, &response.id, NOW).await);
}

/// Nothing of a conversation is lost, also when it begins at a response.
pub async fn a_conversation_reads_back_whole(store: &dyn ResponseStore) {
    let response = sample_response("c-whole", "c-whole-response");
    insert(store, &response).await;
    let plain = sample_conversation("c-whole", "c-whole-1");
    let headed = ConversationRecord {
        head: Some(response.id.clone()),
        created_at: NOW + 1,
        ..sample_conversation("c-whole", "c-whole-2")
    };
    for record in [&plain, &headed] {
        begin(store, record).await;
        assert_eq!(there(store, "c-whole", &record.id).await, *record);
    }
    let headless = ConversationRecord {
        head: Some("c-whole-unknown".to_owned()),
        ..sample_conversation("c-whole", "c-whole-3")
    };
    assert_not_found(store.insert_conversation(&headless).await);
    let foreign = ConversationRecord {
        head: Some(response.id.clone()),
        ..sample_conversation("c-whole-other", "c-whole-3")
    };
    assert_not_found(store.insert_conversation(&foreign).await);
}

/// A second insert of an id is refused, whoever asks, and changes nothing.
pub async fn a_conversation_id_is_stored_once(store: &dyn ResponseStore) {
    let record = sample_conversation("c-once", "c-once-1");
    begin(store, &record).await;
    let other = ConversationRecord {
        items: Vec::new(),
        ..sample_conversation("c-once-other", "c-once-1")
    };
    assert_conflict(store.insert_conversation(&other).await);
    assert_conflict(store.insert_conversation(&record).await);
    assert_eq!(there(store, "c-once", "c-once-1").await, record);
    assert_eq!(usage(store, "c-once").await.conversations, 1);
    assert_eq!(usage(store, "c-once-other").await, ResponseUsage::default());
}

/// Foreign, unknown, expired and deleted conversations take one way out.
pub async fn foreign_and_expired_conversations_are_unknown(store: &dyn ResponseStore) {
    let record = sample_conversation("c-owner", "c-owner-1");
    begin(store, &record).await;
    for (project, id, now) in [
        ("c-stranger", "c-owner-1", NOW),
        ("c-owner", "c-owner-2", NOW),
        ("", "c-owner-1", NOW),
        ("c-owner", "c-owner-1", record.expires_at),
        ("c-owner", "c-owner-1", record.expires_at + 1),
    ] {
        assert_gone(store, project, id, now).await;
    }
    assert_eq!(there(store, "c-owner", "c-owner-1").await, record);
    let last = store
        .conversation("c-owner", "c-owner-1", record.expires_at - 1)
        .await;
    assert_eq!(last.expect("there"), record);
}

/// Metadata and initial items are replaced and nothing else; items only by who has seen what is there.
pub async fn parts_of_a_conversation_are_replaced(store: &dyn ResponseStore) {
    let mut record = sample_conversation("c-parts", "c-parts-1");
    begin(store, &record).await;
    record.metadata = b"{\"now\": \"longer than it was before\"}".to_vec();
    let answer = store
        .set_conversation_metadata("c-parts", "c-parts-1", &record.metadata, NOW)
        .await;
    assert_eq!(answer.expect("there"), record);

    let change = ItemsChange {
        expected: record.items.clone(),
        items: b"[1]".to_vec(),
        messages: b"[\"one\"]".to_vec(),
    };
    record.items.clone_from(&change.items);
    record.messages.clone_from(&change.messages);
    let answer = store
        .set_conversation_items("c-parts", "c-parts-1", &change, NOW)
        .await;
    assert_eq!(answer.expect("there"), record);
    let outdated = store
        .set_conversation_items("c-parts", "c-parts-1", &change, NOW)
        .await;
    assert_conflict(outdated);
    assert_eq!(there(store, "c-parts", "c-parts-1").await, record);
    assert_eq!(usage(store, "c-parts").await.bytes, record.bytes());
}

/// A response moves the head from where it was made, and the expiry forward; any other changes nothing.
pub async fn heads_move_only_as_expected(store: &dyn ResponseStore) {
    let mut record = sample_conversation("c-heads", "c-heads");
    begin(store, &record).await;
    let first = ResponseRecord {
        expires_at: NOW + LIFETIME - 1,
        ..sample_response("c-heads", "c-heads-1")
    };
    let second = ResponseRecord {
        expires_at: NOW + 3 * LIFETIME,
        ..sample_continuation(&first, "c-heads-2")
    };
    for wrong in [Some("c-heads-1"), Some("")] {
        let change = head("c-heads", wrong);
        assert_conflict(store.insert_response(&first, Some(&change)).await);
    }
    for (response, expected) in [(&first, None), (&second, Some("c-heads-1"))] {
        let change = head("c-heads", expected);
        store
            .insert_response(response, Some(&change))
            .await
            .expect("it follows");
        record.head = Some(response.id.clone());
        record.expires_at = record.expires_at.max(response.expires_at);
        assert_eq!(there(store, "c-heads", "c-heads").await, record);
    }
    let before = usage(store, "c-heads").await;
    let late = sample_continuation(&first, "c-heads-late");
    for wrong in [None, Some("c-heads-1"), Some("c-heads-unknown")] {
        let change = head("c-heads", wrong);
        assert_conflict(store.insert_response(&late, Some(&change)).await);
    }
    let change = head("c-heads", Some("c-heads-2"));
    assert_conflict(store.insert_response(&first, Some(&change)).await);
    let lost = ResponseRecord {
        previous: Some("c-heads-unknown".to_owned()),
        ..late.clone()
    };
    assert_not_found(store.insert_response(&lost, Some(&change)).await);
    assert_not_found(store.response("c-heads", "c-heads-late", NOW).await);
    assert_eq!(there(store, "c-heads", "c-heads").await, record);
    assert_eq!(usage(store, "c-heads").await, before);
}

/// Of parallel turns on one conversation exactly one becomes its head, and no other is stored.
pub async fn parallel_turns_move_the_head_once(store: &dyn ResponseStore) {
    begin(store, &sample_conversation("c-race", "c-race")).await;
    let outcomes = in_parallel(8, async |number| {
        let response = sample_response("c-race", &format!("c-race-{number}"));
        let change = head("c-race", None);
        match store.insert_response(&response, Some(&change)).await {
            Ok(()) => Some(response.id),
            Err(error) => {
                assert_conflict::<()>(Err(error));
                None
            }
        }
    });
    let stored: Vec<String> = outcomes.into_iter().flatten().collect();
    assert_eq!(stored.len(), 1);
    let conversation = there(store, "c-race", "c-race").await;
    assert_eq!(conversation.head.as_ref(), stored.first());
    assert_eq!(usage(store, "c-race").await.responses, 1);
}

/// When a conversation's head ends, the conversation goes on from the nearest response before it that lives.
pub async fn a_head_that_ends_goes_back(store: &dyn ResponseStore) {
    let start = NOW - 800 * LIFETIME;
    let mut responses = vec![ResponseRecord {
        created_at: start,
        expires_at: start + 10,
        ..sample_response("c-back", "c-back-1")
    }];
    for number in 2..=5 {
        let last = &responses[responses.len() - 1];
        responses.push(sample_continuation(last, &format!("c-back-{number}")));
    }
    for response in &responses {
        insert(store, response).await;
    }
    let conversation = |id: &str, head: &str| ConversationRecord {
        head: Some(head.to_owned()),
        created_at: start,
        ..sample_conversation("c-back", id)
    };
    begin(store, &conversation("c-back-last", "c-back-5")).await;
    begin(store, &conversation("c-back-other", "c-back-4")).await;
    let delete = async |id: &str| {
        let deleted = store.delete_response("c-back", id, start).await;
        deleted.expect("it is there");
    };
    let heads = async || {
        let last = there(store, "c-back", "c-back-last").await.head;
        (last, there(store, "c-back", "c-back-other").await.head)
    };
    let at = |last: &str, other: &str| (Some(last.to_owned()), Some(other.to_owned()));
    assert_eq!(heads().await, at("c-back-5", "c-back-4"));
    delete("c-back-3").await;
    assert_eq!(heads().await, at("c-back-5", "c-back-4"));
    delete("c-back-5").await;
    assert_eq!(heads().await, at("c-back-4", "c-back-4"));
    delete("c-back-4").await;
    assert_eq!(heads().await, at("c-back-2", "c-back-2"), "3 is gone too");
    assert_eq!(usage(store, "c-back").await.responses, 2);
    let swept = store.sweep_responses(start + 10, 10).await;
    assert_eq!(swept.expect("swept"), 2);
    assert_eq!(heads().await, (None, None));
}

/// A deleted or swept conversation leaves its responses alone, and its id is free.
pub async fn responses_outlive_their_conversation(store: &dyn ResponseStore) {
    let start = NOW - 700 * LIFETIME;
    let deleted = sample_conversation("c-outlive", "c-outlive-deleted");
    let swept = ConversationRecord {
        created_at: start,
        expires_at: start + 1,
        ..sample_conversation("c-outlive", "c-outlive-swept")
    };
    let mut responses = Vec::new();
    for conversation in [&deleted, &swept] {
        begin(store, conversation).await;
        let response = ResponseRecord {
            expires_at: conversation.expires_at,
            conversation: Some(conversation.id.clone()),
            ..sample_response("c-outlive", &format!("in {}", conversation.id))
        };
        let change = HeadChange {
            now: conversation.created_at,
            ..head(&conversation.id, None)
        };
        let inserted = store.insert_response(&response, Some(&change)).await;
        inserted.expect("it follows");
        responses.push(response);
    }
    let removed = store
        .delete_conversation("c-outlive", &deleted.id, NOW)
        .await;
    removed.expect("it is there");
    let ended = store.sweep_responses(start, 10).await;
    assert_eq!(ended.expect("swept"), 0);
    let ended = store.sweep_responses(start + 1, 1).await;
    assert_eq!(ended.expect("swept"), 1, "the conversation");
    assert_eq!(usage(store, "c-outlive").await.conversations, 0);
    assert_eq!(usage(store, "c-outlive").await.responses, 2);
    let ended = store.sweep_responses(start + 1, 1).await;
    assert_eq!(ended.expect("swept"), 1, "the response in it");
    for conversation in [&deleted, &swept] {
        assert_gone(store, "c-outlive", &conversation.id, start).await;
    }
    let stored = store.response("c-outlive", &responses[0].id, NOW).await;
    assert_eq!(stored.expect("it stays"), responses[0]);
    assert_eq!(usage(store, "c-outlive").await.bytes, responses[0].bytes());
    begin(store, &deleted).await;
    assert_eq!(there(store, "c-outlive", &deleted.id).await, deleted);
}
