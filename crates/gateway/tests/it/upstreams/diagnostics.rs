//! Anthropic says why its cache missed to whoever names the answer before.

use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::{Emulator, RawRequest};
use holdfast_testkit::{TestGateway, upstream};
use serde_json::{Value, json};

use super::acceptance::{hit, rebuilt};
use super::{ask, document, hold, outcome};

/// What each of three chats says of the answer before it.
async fn named(is_asked: Option<bool>) -> Vec<Value> {
    let emulator = Emulator::start(Anthropic::new()).await;
    let mut options = upstream("anthropic", &emulator.url, "key-1");
    options.cache.diagnostics = is_asked;
    let gateway = TestGateway::builder()
        .upstream(options)
        .route("model", &[("anthropic", "claude-opus-5-5")])
        .start()
        .await;
    gateway.clock.follow_system();
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    ask(&client, &id, "One?").await.ok();
    assert_eq!(outcome(&ask(&client, &id, "Two?").await), hit());
    emulator.evict_all();
    // The provider says that the messages have changed, as they do with each question. It is no reason.
    let again = ask(&client, &id, "Three?").await;
    assert_eq!(outcome(&again), rebuilt("evicted"));
    gateway.stop().await;
    let requests = emulator.requests();
    let bodies = requests.iter().filter_map(RawRequest::json);
    bodies
        .map(|body| body["diagnostics"]["previous_message_id"].clone())
        .collect()
}

#[tokio::test]
async fn each_chat_names_the_answer_before_it() {
    let names = named(None).await;
    assert_eq!(names[0], Value::Null);
    assert!(names[1].as_str().unwrap().starts_with("msg_"), "{names:?}");
    assert!(names[2].as_str().unwrap().starts_with("msg_"), "{names:?}");
    assert_ne!(names[1], names[2]);
}

#[tokio::test]
async fn whoever_does_not_want_it_does_not_ask() {
    assert_eq!(
        named(Some(false)).await,
        [Value::Null, Value::Null, Value::Null]
    );
}
