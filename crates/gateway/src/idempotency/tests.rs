#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use holdfast_protocol::chat::{ChatResponse, Choice, FinishReason};
use holdfast_protocol::{ContextId, Message, Role, Usage};

use super::{Delivery, DeliveryGuard, Fingerprint, KEEP_MS, Replays};

fn response(text: &str) -> Arc<ChatResponse> {
    Arc::new(ChatResponse {
        id: "chatcmpl-1".into(),
        created: 0,
        model: "m".into(),
        choices: vec![Choice {
            index: 0,
            message: Message::text(Role::Assistant, text),
            finish_reason: FinishReason::Stop,
            logprobs: None,
            stop_sequence: None,
        }],
        usage: Usage::default(),
        receipt: None,
    })
}

fn id() -> ContextId {
    ContextId::new(0, [1; 16])
}

fn record(replays: &Replays, fingerprint: &Fingerprint, text: &str, now: i64) -> DeliveryGuard {
    let delivery = Arc::new(Delivery::default());
    replays
        .recorder(fingerprint.clone(), Arc::clone(&delivery))
        .record(response(text), now);
    DeliveryGuard::new(delivery)
}

fn find(replays: &Replays, fingerprint: &Fingerprint, now: i64) -> Option<String> {
    let found = replays.find(fingerprint, &Arc::default(), now).unwrap();
    found.map(|response| response.choices[0].message.joined_text())
}

#[test]
fn without_a_key_only_a_lost_answer_is_given_again() {
    let replays = Replays::new();
    let fingerprint = Fingerprint::new(&id(), None, b"body");
    let delivery = record(&replays, &fingerprint, "a", 0);
    assert_eq!(
        find(&replays, &fingerprint, 1),
        None,
        "it is still being written"
    );
    drop(delivery);
    assert_eq!(find(&replays, &fingerprint, 1).as_deref(), Some("a"));

    record(&replays, &fingerprint, "b", 2).written();
    assert_eq!(find(&replays, &fingerprint, 3), None, "it was written out");
}

#[test]
fn a_repetition_that_arrives_ends_the_matter() {
    let replays = Replays::new();
    let fingerprint = Fingerprint::new(&id(), None, b"body");
    drop(record(&replays, &fingerprint, "a", 0));
    let second = Arc::new(Delivery::default());
    assert!(replays.find(&fingerprint, &second, 1).unwrap().is_some());
    DeliveryGuard::new(second).written();
    assert_eq!(find(&replays, &fingerprint, 2), None);
}

#[test]
fn with_a_key_the_answer_is_given_again_for_thirty_seconds() {
    let replays = Replays::new();
    let fingerprint = Fingerprint::new(&id(), Some("key"), b"body");
    record(&replays, &fingerprint, "a", 0).written();
    assert_eq!(
        find(&replays, &fingerprint, KEEP_MS - 1).as_deref(),
        Some("a")
    );
    assert_eq!(find(&replays, &fingerprint, KEEP_MS), None);
    assert_eq!(replays.records().bytes, 0);
}

#[test]
fn a_key_belongs_to_one_body_and_one_context() {
    let replays = Replays::new();
    record(
        &replays,
        &Fingerprint::new(&id(), Some("key"), b"body"),
        "a",
        0,
    )
    .written();
    let other_body = Fingerprint::new(&id(), Some("key"), b"other");
    assert!(replays.find(&other_body, &Arc::default(), 1).is_err());
    let other_context = Fingerprint::new(&ContextId::new(0, [2; 16]), Some("key"), b"body");
    assert_eq!(find(&replays, &other_context, 1), None);
}
