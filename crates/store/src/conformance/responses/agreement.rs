//! Two implementations of the same trees, one by statements and one by pointers, under the same many steps.

use holdfast_protocol::UnixMillis;

use super::conversations::sample_conversation;
use super::sample_response;
use crate::conformance::NOW;
use crate::conformance::numbers::Numbers;
use crate::{ConversationRecord, HeadChange, MemoryStore, ResponseRecord, ResponseStore};

const PROJECT: &str = "alpha";

impl Numbers {
    fn response(&mut self) -> String {
        format!("resp_{}", self.below(40))
    }

    fn conversation(&mut self) -> String {
        format!("conv_{}", self.below(4))
    }
}

enum Step {
    Insert(ResponseRecord, Option<HeadChange>),
    Delete(String),
    Begin(ConversationRecord),
    End(String),
    Sweep(u32),
}

/// One that is there, if a few tries find one.
async fn living(numbers: &mut Numbers, store: &MemoryStore, now: UnixMillis) -> String {
    let mut id = numbers.response();
    for _ in 0..5 {
        if store.response(PROJECT, &id, now).await.is_ok() {
            break;
        }
        id = numbers.response();
    }
    id
}

/// Mostly steps that are possible, and some that are not.
async fn next_step(numbers: &mut Numbers, store: &MemoryStore, now: UnixMillis) -> Step {
    match numbers.below(12) {
        0..=5 => {
            let conversation = numbers.conversation();
            let stored = store.conversation(PROJECT, &conversation, now).await;
            let head = stored.ok().and_then(|stored| stored.head);
            let (previous, change) = match numbers.below(4) {
                0 => (None, None),
                1 => (Some(living(numbers, store, now).await), None),
                2 => (head.clone(), Some(head)),
                _ => (Some(numbers.response()), Some(head)),
            };
            let record = ResponseRecord {
                previous,
                created_at: now,
                expires_at: now + 1 + numbers.below(60) as i64,
                ..sample_response(PROJECT, &numbers.response())
            };
            let change = change.map(|expected| HeadChange {
                conversation,
                expected,
                now,
            });
            Step::Insert(record, change)
        }
        6..=7 => Step::Delete(numbers.response()),
        8..=9 => {
            let head = numbers.response();
            Step::Begin(ConversationRecord {
                head: (numbers.below(2) == 0).then_some(head),
                created_at: now,
                expires_at: now + 1 + numbers.below(40) as i64,
                ..sample_conversation(PROJECT, &numbers.conversation())
            })
        }
        10 => Step::End(numbers.conversation()),
        _ => Step::Sweep(numbers.below(6) as u32),
    }
}

async fn take(store: &dyn ResponseStore, step: &Step, now: UnixMillis) -> String {
    match step {
        Step::Insert(record, head) => {
            let done = store.insert_response(record, head.as_ref()).await;
            format!("{done:?}")
        }
        Step::Delete(id) => format!("{:?}", store.delete_response(PROJECT, id, now).await),
        Step::Begin(record) => format!("{:?}", store.insert_conversation(record).await),
        Step::End(id) => format!("{:?}", store.delete_conversation(PROJECT, id, now).await),
        Step::Sweep(limit) => format!("{:?}", store.sweep_responses(now, *limit).await),
    }
}

async fn look(
    store: &dyn ResponseStore,
    response: &str,
    conversation: &str,
    bounds: (u32, u64),
    now: UnixMillis,
) -> String {
    let usage = store.responses_usage(PROJECT).await;
    let chain = store
        .chain(PROJECT, response, now, bounds.0, bounds.1)
        .await;
    let response = store.response(PROJECT, response, now).await;
    let conversation = store.conversation(PROJECT, conversation, now).await;
    format!("{usage:?} {chain:?} {response:?} {conversation:?}")
}

/// Takes `steps` that look random, and are the same in every run, on `store`, which is empty, and on a `MemoryStore`:
/// both answer and hold the same after each. `after_each` may look at `store` in between.
pub async fn agrees_with_memory(
    store: &dyn ResponseStore,
    steps: u32,
    mut after_each: impl AsyncFnMut(),
) {
    let memory = MemoryStore::new();
    let mut numbers = Numbers(7);
    let mut now = NOW;
    let mut done = 0;
    for number in 0..steps {
        now += numbers.below(4) as i64 / 3;
        let step = next_step(&mut numbers, &memory, now).await;
        let (expected, answered) = (
            take(&memory, &step, now).await,
            take(store, &step, now).await,
        );
        assert_eq!(expected, answered, "step {number}");
        done += u32::from(expected.starts_with("Ok"));
        let (response, conversation) = (numbers.response(), numbers.conversation());
        let bounds = (numbers.below(12) as u32, numbers.below(250));
        assert_eq!(
            look(&memory, &response, &conversation, bounds, now).await,
            look(store, &response, &conversation, bounds, now).await,
            "after step {number}"
        );
        after_each().await;
    }
    assert!(done > steps / 3, "enough was possible: {done}");
}
