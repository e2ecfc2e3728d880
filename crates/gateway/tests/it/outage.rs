//! The store goes away and comes back.

use holdfast_store::KeyScope;
use holdfast_testkit::{Operation, TestGateway};
use serde_json::json;

use crate::{ask, create, expected, say};

const ALL: [Operation; 6] = [
    Operation::Insert,
    Operation::Get,
    Operation::Content,
    Operation::Touch,
    Operation::AppendTurn,
    Operation::KeyByHash,
];

#[tokio::test]
async fn known_keys_and_open_prefixes_go_on_and_the_rest_says_clearly_what_is_missing() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let stranger = gateway.client_of("default", &[KeyScope::Inference]).await;
    let neighbour = gateway.client_of("other", &[KeyScope::Inference]).await;
    neighbour.get("/v1/models").await.ok();
    let prefix = create(&client, json!({})).await;
    let session = create(&client, json!({"mode": "session"})).await;

    gateway.store.break_down(&ALL);
    let messages = [
        say("system", "Be brief."),
        say("user", "The text."),
        say("user", "hi"),
    ];
    assert_eq!(
        ask(&client, &prefix, "hi").await.answer(),
        expected(&client, &messages).await
    );
    ask(&neighbour, &prefix, "hi").await.error(503);
    stranger.get("/v1/models").await.error(503);
    ask(&client, &session, "hi").await.error(503);
    let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
    let refused = client.post("/v1/context/create", &body).await;
    assert!(
        refused.error(503)["message"]
            .as_str()
            .unwrap()
            .contains("store")
    );
    client.post("/v1/chat/completions", &body).await.ok();

    gateway.store.mend();
    ask(&client, &session, "hi").await.ok();
    stranger.get("/v1/models").await.ok();
    assert_eq!(
        client.get("/v1/context").await.ok()["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn an_expired_context_is_gone_also_while_the_store_is_away() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"ttl": 10, "model": "gemini-2.0-flash"})).await;
    gateway.store.break_down(&ALL);
    ask(&client, &id, "hi").await.ok();
    gateway.clock.advance(std::time::Duration::from_secs(10));
    ask(&client, &id, "hi").await.error(404);
}
