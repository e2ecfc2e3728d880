//! Fixed and sliding expiry, to the millisecond.

use std::time::Duration;

use holdfast_protocol::ContextId;
use holdfast_store::ContextStore;
use holdfast_testkit::TestGateway;
use serde_json::json;

use crate::{ask, create};

#[tokio::test]
async fn a_fixed_expiry_is_not_moved_by_use_and_is_exact() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"model": "gemini-2.0-flash", "ttl": 300})).await;
    gateway.clock.advance(Duration::from_millis(299_999));
    ask(&client, &id, "hi").await.ok();
    gateway.clock.advance(Duration::from_millis(1));
    ask(&client, &id, "hi").await.error(404);
    client.get(&format!("/v1/context/{id}")).await.error(404);
    client
        .patch(&format!("/v1/context/{id}"), &json!({"ttl": 300}))
        .await
        .error(404);
}

#[tokio::test]
async fn a_sliding_expiry_is_renewed_by_use_and_is_exact() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for mode in ["session", "common_prefix"] {
        let used = create(&client, json!({"mode": mode, "ttl": 7200})).await;
        let unused = create(&client, json!({"mode": mode, "ttl": 7200})).await;
        gateway.clock.advance(Duration::from_secs(3600));
        ask(&client, &used, "hi").await.ok();
        gateway.clock.advance(Duration::from_secs(3600));
        ask(&client, &unused, "hi").await.error(404);
        // Looking at it is no use.
        let context = client.get(&format!("/v1/context/{used}")).await.ok();
        assert_eq!(
            context["expires_at"].as_i64().unwrap(),
            gateway.clock.now() / 1000 + 3600
        );
        gateway.clock.advance(Duration::from_millis(3_599_999));
        client.get(&format!("/v1/context/{used}")).await.ok();
        gateway.clock.advance(Duration::from_millis(1));
        ask(&client, &used, "hi").await.error(404);
    }
}

#[tokio::test]
async fn a_refused_request_does_not_renew() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"ttl": 100})).await;
    gateway.clock.advance(Duration::from_secs(60));
    let body = json!({"context_id": id, "messages": []});
    client.post("/v1/chat/completions", &body).await.error(400);
    let body = json!({"context_id": id, "model": "doubao-pro-32k", "messages": [{"role": "user", "content": "hi"}]});
    client.post("/v1/chat/completions", &body).await.error(400);
    gateway.clock.advance(Duration::from_secs(40));
    client.get(&format!("/v1/context/{id}")).await.error(404);
}

#[tokio::test]
async fn the_sweeper_frees_what_expired_contexts_hold() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let short = create(&client, json!({"ttl": 10})).await;
    let long = create(
        &client,
        json!({"ttl": 100, "messages": [{"role": "user", "content": "other"}]}),
    )
    .await;
    gateway.clock.advance(Duration::from_secs(10));
    assert_eq!(gateway.app.sweep().await.unwrap(), 1);
    let content = |id: &str| {
        let id: ContextId = id.parse().unwrap();
        let store = gateway.store.clone();
        async move { store.content("default", &id).await }
    };
    assert!(content(&short).await.is_err());
    assert!(content(&long).await.is_ok());
    assert_eq!(gateway.app.sweep().await.unwrap(), 0);
    ask(&client, &long, "hi").await.ok();
}
