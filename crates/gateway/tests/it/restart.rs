//! Contexts on disk, over restarts.

use holdfast_testkit::TestGateway;
use serde_json::json;

use crate::{ask, create, expected, say};

#[tokio::test]
async fn contexts_sessions_keys_and_state_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = || TestGateway::builder().data_dir(folder.path());
    let gateway = start().start().await;
    let client = gateway.client();
    let prefix = create(&client, json!({})).await;
    let session = create(
        &client,
        json!({"mode": "session", "messages": [say("user", "Another text.")]}),
    )
    .await;
    let answer = ask(&client, &session, "one").await.answer();
    let gone = create(&client, json!({})).await;
    client.delete(&format!("/v1/context/{gone}")).await.ok();
    let (clock, key) = (gateway.clock.clone(), client.key().to_owned());
    gateway.stop().await;

    let gateway = start().clock(&clock).start().await;
    let client = gateway.client();
    let with_old_key = client
        .without_key()
        .request(reqwest::Method::GET, "/v1/models")
        .bearer_auth(&key);
    holdfast_testkit::Reply::of(with_old_key).await.ok();

    let reply = ask(&client, &prefix, "hi").await;
    let messages = [
        say("system", "Be brief."),
        say("user", "The text."),
        say("user", "hi"),
    ];
    assert_eq!(reply.answer(), expected(&client, &messages).await);
    assert_eq!(
        reply.json()["context_cache"]["status"],
        "hit",
        "{}",
        reply.header("x-context-cache")
    );
    assert!(
        reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
            > 0
    );

    let reply = ask(&client, &session, "two").await;
    let messages = [
        say("user", "Another text."),
        say("user", "one"),
        say("assistant", &answer),
        say("user", "two"),
    ];
    assert_eq!(reply.answer(), expected(&client, &messages).await);
    assert_eq!(reply.json()["context_cache"]["status"], "hit");
    ask(&client, &gone, "hi").await.error(404);
    assert!(
        client
            .get("/metrics")
            .await
            .text()
            .contains("holdfast_contexts_living 2")
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_context_whose_state_was_lost_is_rebuilt_once() {
    let folder = tempfile::tempdir().unwrap();
    let start = || TestGateway::builder().data_dir(folder.path());
    let gateway = start().start().await;
    let id = create(&gateway.client(), json!({})).await;
    let clock = gateway.clock.clone();
    gateway.stop().await;
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();

    let gateway = start().clock(&clock).start().await;
    let client = gateway.client();
    let messages = [
        say("system", "Be brief."),
        say("user", "The text."),
        say("user", "hi"),
    ];
    let reply = ask(&client, &id, "hi").await;
    assert_eq!(reply.answer(), expected(&client, &messages).await);
    assert_ne!(reply.json()["context_cache"]["status"], "hit");
    assert_eq!(
        reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"],
        0
    );
    let reply = ask(&client, &id, "hi").await;
    assert_eq!(reply.json()["context_cache"]["status"], "hit");
    gateway.stop().await;
}
