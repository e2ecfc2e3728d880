//! Deleted and expired means gone from every file.

use std::path::Path;
use std::time::Duration;

use holdfast_seal::{DataKey, Keyring};
use holdfast_testkit::{Operation, TestClient, TestGateway};
use serde_json::{Value, json};

use super::{CANARY, files_with_canary};
use crate::{ask, create, say};

/// What was made by [`say_everything`].
struct Made {
    contexts: Vec<String>,
    responses: Vec<String>,
    conversations: Vec<String>,
}

fn id(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}

/// Says the canary in every way there is.
async fn say_everything(client: &TestClient) -> Made {
    let messages = json!([say("system", CANARY), say("user", CANARY)]);
    let tools = json!([{"type": "function", "function": {"name": CANARY, "parameters": {}}}]);
    let prefix = create(
        client,
        json!({"messages": messages, "tools": tools, "metadata": {"about": CANARY}, "display_name": CANARY}),
    )
    .await;
    let session = create(client, json!({"mode": "session", "messages": messages})).await;
    ask(client, &prefix, CANARY).await.ok();
    for _ in 0..3 {
        ask(client, &session, CANARY).await.ok();
    }
    let fork = client
        .post(&format!("/v1/context/{session}/fork"), &json!({}))
        .await
        .ok();

    let respond = async |fields: Value| {
        let mut body = json!({"model": "tiny", "max_output_tokens": 8, "input": CANARY, "instructions": CANARY,
            "metadata": {"about": CANARY}});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        client.post("/v1/responses", &body).await.ok()
    };
    let first = respond(json!({})).await;
    let second = respond(json!({"previous_response_id": id(&first)})).await;
    let item = json!({"type": "message", "role": "user", "content": CANARY});
    let conversation = client
        .post(
            "/v1/conversations",
            &json!({"items": [item], "metadata": {"about": CANARY}}),
        )
        .await
        .ok();
    let third = respond(json!({"conversation": id(&conversation)})).await;
    Made {
        contexts: vec![prefix, session, id(&fork)],
        responses: vec![id(&first), id(&second), id(&third)],
        conversations: vec![id(&conversation)],
    }
}

async fn delete_everything(client: &TestClient, made: &Made) {
    for (path, ids) in [
        ("/v1/context", &made.contexts),
        ("/v1/responses", &made.responses),
        ("/v1/conversations", &made.conversations),
    ] {
        for id in ids {
            client.delete(&format!("{path}/{id}")).await.ok();
        }
    }
}

/// Waits until what the engine had to write or remove is done.
async fn settle(gateway: &TestGateway) {
    gateway.app.sweep().await.unwrap();
    gateway.engine.demote_all(true).await;
}

fn assert_nothing_is_left(folder: &Path) {
    let files = files_with_canary(folder);
    assert!(files.is_empty(), "{files:?}");
}

#[tokio::test]
async fn what_is_deleted_is_in_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = TestGateway::builder().data_dir(folder.path()).start().await;
    let client = gateway.client();
    let made = say_everything(&client).await;
    settle(&gateway).await;
    let files = files_with_canary(folder.path());
    for part in ["holdfast.db", ".kv"] {
        let has = |file: &std::path::PathBuf| file.to_string_lossy().contains(part);
        assert!(files.iter().any(has), "{part} had it: {files:?}");
    }
    delete_everything(&client, &made).await;
    settle(&gateway).await;
    gateway.stop().await;
    assert_nothing_is_left(folder.path());
}

#[tokio::test]
async fn what_has_expired_is_in_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = TestGateway::builder().data_dir(folder.path()).start().await;
    say_everything(&gateway.client()).await;
    settle(&gateway).await;
    assert!(!files_with_canary(folder.path()).is_empty());
    gateway.clock.advance(Duration::from_secs(400 * 86_400));
    settle(&gateway).await;
    gateway.stop().await;
    assert_nothing_is_left(folder.path());
}

#[tokio::test]
async fn what_is_sealed_is_in_no_file_at_any_time() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keyring::new(Some(DataKey::new([5; 32])), &[]);
    let start = || TestGateway::builder().data_dir(folder.path()).sealed(&keys);
    let gateway = start().start().await;
    let client = gateway.client();
    let made = say_everything(&client).await;
    settle(&gateway).await;
    assert_nothing_is_left(folder.path());
    let clock = gateway.clock.clone();
    gateway.stop().await;
    assert_nothing_is_left(folder.path());

    // Everything is found again, the engine's state included.
    let gateway = start().clock(&clock).start().await;
    let client = gateway.client();
    let reply = ask(&client, &made.contexts[0], CANARY).await;
    assert_eq!(reply.json()["context_cache"]["status"], "hit");
    for id in &made.responses {
        let response = client.get(&format!("/v1/responses/{id}")).await.ok();
        assert_eq!(response["metadata"]["about"], CANARY);
    }
    delete_everything(&client, &made).await;
    gateway.stop().await;
    assert_nothing_is_left(folder.path());
}

#[tokio::test]
async fn the_ledger_and_what_waits_for_it_has_no_words() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keyring::new(Some(DataKey::new([5; 32])), &[]);
    // Sealed, so that a word that is found can only be the ledger's.
    let builder = TestGateway::builder().data_dir(folder.path()).sealed(&keys);
    let gateway = builder.start().await;
    gateway.store.break_down(&[Operation::AppendLedger]);
    let client = gateway.client();
    say_everything(&client).await;
    let wrong = json!({"model": "no-such-model", "messages": [say("user", CANARY)]});
    client.post("/v1/chat/completions", &wrong).await;
    let spooled = std::fs::read_dir(folder.path().join("spool")).unwrap();
    assert!(spooled.count() > 0);
    assert!(files_with_canary(&folder.path().join("state")).is_empty());
    gateway.store.mend();
    gateway.app.write_ledger().await.unwrap();
    settle(&gateway).await;
    gateway.stop().await;
    assert_nothing_is_left(folder.path());
}
