//! What one project stores no other can read, name, guess or tell apart.

use std::time::Duration;

use holdfast_store::KeyScope;
use holdfast_testkit::{Reply, TestGateway};
use serde_json::json;

use crate::{ask, create};

#[tokio::test]
async fn unknown_expired_deleted_foreign_and_malformed_ids_are_answered_alike() {
    let gateway = TestGateway::start().await;
    let mine = gateway.client();
    let theirs = gateway.client_of("other", &[KeyScope::Inference]).await;

    let expired = create(&mine, json!({"ttl": 5})).await;
    gateway.clock.advance(Duration::from_secs(5));
    let swept = create(&mine, json!({"ttl": 1})).await;
    gateway.clock.advance(Duration::from_secs(1));
    let deleted = create(&mine, json!({})).await;
    mine.delete(&format!("/v1/context/{deleted}")).await.ok();
    let foreign = create(&theirs, json!({})).await;
    let foreign_session = create(&theirs, json!({"mode": "session"})).await;
    gateway.app.sweep().await.unwrap();
    let unknown = format!("{}x", &foreign[..foreign.len() - 1]);

    let ids = [
        &expired,
        &swept,
        &deleted,
        &foreign,
        &foreign_session,
        &unknown,
        "nonsense",
        "ctx-1",
    ]
    .map(ToOwned::to_owned);
    let mut bodies = Vec::new();
    for id in ids {
        let path = format!("/v1/context/{id}");
        let replies = [
            mine.get(&path).await,
            mine.patch(&path, &json!({"ttl": 60})).await,
            mine.delete(&path).await,
            mine.post(&format!("{path}/fork"), &json!({})).await,
            ask(&mine, &id, "hi").await,
            mine.post("/api/v3/context/chat/completions", &json!({"model": "tiny", "context_id": id, "messages": [{"role": "user", "content": "hi"}]})).await,
        ];
        for reply in replies {
            reply.error(404);
            bodies.push((id.clone(), comparable(&reply)));
        }
    }
    for (id, body) in &bodies {
        assert_eq!(body, &bodies[0].1, "{id}");
    }
    // Nothing of this has touched what belongs to the others.
    ask(&theirs, &foreign, "hi").await.ok();
    ask(&theirs, &foreign_session, "hi").await.ok();
}

fn comparable(reply: &Reply) -> (u16, String, Vec<String>) {
    let mut headers: Vec<String> = reply.headers.keys().map(ToString::to_string).collect();
    headers.sort();
    (reply.status, reply.text(), headers)
}

#[tokio::test]
async fn a_list_shows_one_project_s_contexts_only() {
    let gateway = TestGateway::start().await;
    let mine = gateway.client();
    let theirs = gateway.client_of("other", &[KeyScope::Inference]).await;
    let id = create(&mine, json!({})).await;
    create(&theirs, json!({})).await;
    let list = mine.get("/v1/context").await.ok();
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|context| &context["id"])
        .collect();
    assert_eq!(ids, [&json!(id)]);
}

#[tokio::test]
async fn projects_do_not_share_the_state_of_equal_prefixes() {
    let gateway = TestGateway::start().await;
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "the same"}]});
    gateway
        .client()
        .post("/v1/context/create", &body)
        .await
        .ok();
    let theirs = gateway.client_of("other", &[KeyScope::Inference]).await;
    let usage = theirs.post("/v1/context/create", &body).await.ok()["usage"].take();
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
}

#[tokio::test]
async fn keys_of_one_project_share_its_contexts() {
    let gateway = TestGateway::start().await;
    let id = create(&gateway.client(), json!({})).await;
    let colleague = gateway.client_of("default", &[KeyScope::Inference]).await;
    ask(&colleague, &id, "hi").await.ok();
}
