//! The audit log: whatever is done to projects, keys, configuration and storage is noted, or is not done.

use holdfast_emulators::Emulator;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_testkit::{Operation, TestClient, TestGateway};
use serde_json::{Value, json};

use crate::process::{Process, config};

async fn log(client: &TestClient, query: &str) -> Vec<Value> {
    let mut entries = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/admin/v1/audit?order=oldest&limit=2{query}{cursor}");
        let page = client.get(&path).await.ok();
        entries.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return entries,
        }
    }
}

fn field<'a>(entries: &'a [Value], name: &str) -> Vec<&'a str> {
    let texts = entries.iter().map(|entry| entry[name].as_str().unwrap());
    texts.collect()
}

#[tokio::test]
async fn every_act_is_noted_with_who_and_what_and_no_secret() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let made = client
        .post("/admin/v1/keys", &json!({"project": "team", "label": "ci"}))
        .await;
    let request = made.header("x-request-id").to_owned();
    let made = made.ok();
    let id = made["id"].as_str().unwrap();
    let path = format!("/admin/v1/keys/{id}");
    client.patch(&path, &json!({"label": "cd"})).await.ok();
    let rotated = client
        .post(&format!("{path}/rotate"), &json!({}))
        .await
        .ok();
    client.delete(&path).await.ok();
    let project = json!({"name": "other", "display_name": "Other"});
    client.post("/admin/v1/projects", &project).await.ok();
    client
        .patch("/admin/v1/projects/other", &json!({"models": ["tiny"]}))
        .await
        .ok();
    // Neither what is asked for nor what is wrong is an act.
    client.get("/admin/v1/keys").await.ok();
    client.delete("/admin/v1/keys/nobody").await.error(404);
    client.patch(&path, &json!({"label": 7})).await.error(400);

    let entries = log(&client, "").await;
    assert_eq!(
        field(&entries, "act"),
        [
            "key.create",
            "key.update",
            "key.rotate",
            "key.revoke",
            "project.create",
            "project.update"
        ]
    );
    assert_eq!(
        field(&entries, "target"),
        [id, id, id, id, "other", "other"]
    );
    assert_eq!(
        field(&entries, "project"),
        ["team", "team", "team", "team", "other", "other"]
    );
    let keys = client.get("/admin/v1/keys").await.ok();
    let own = keys["data"].as_array().unwrap().iter();
    let mut own = own.filter(|key| key["project"] == "default");
    let own = own.next().unwrap()["id"].as_str().unwrap();
    assert_eq!(field(&entries, "actor"), [own; 6]);
    assert_eq!(entries[0]["request_id"], request);
    assert_eq!(
        entries[0]["details"],
        json!({"set": {"project": "team", "label": "ci"}})
    );
    assert_eq!(entries[1]["details"], json!({"set": {"label": "cd"}}));
    let shown = json!(entries).to_string();
    for key in [&made, &rotated] {
        assert!(!shown.contains(key["key"].as_str().unwrap()));
    }

    let of_keys = log(&client, "&act=key.*").await;
    assert_eq!(of_keys, entries[..4]);
    assert_eq!(log(&client, "&act=key.rotate").await, entries[2..3]);
    assert_eq!(log(&client, "&actor=local").await, [] as [Value; 0]);
    let newest = client.get("/admin/v1/audit?limit=1").await.ok();
    assert_eq!(newest["data"][0], entries[5]);
    assert_eq!(newest["has_more"], true);
    for wrong in ["?order=up", "?cursor=x", "?limit=0"] {
        client
            .get(&format!("/admin/v1/audit{wrong}"))
            .await
            .error(400);
    }
}

#[tokio::test]
async fn only_operators_read_it() {
    let gateway = TestGateway::start().await;
    let client = gateway
        .client_of("team", &[holdfast_store::KeyScope::Inference])
        .await;
    client.get("/admin/v1/audit").await.error(403);
}

#[tokio::test]
async fn what_can_not_be_noted_is_not_done() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let key = client.post("/admin/v1/keys", &json!({})).await.ok();
    let path = format!("/admin/v1/keys/{}", key["id"].as_str().unwrap());
    let before = client.get("/admin/v1/keys").await.ok();
    gateway.store.break_down(&[Operation::AppendAudit]);
    for reply in [
        client
            .post("/admin/v1/keys", &json!({"project": "new"}))
            .await,
        client.patch(&path, &json!({"label": "x"})).await,
        client.post(&format!("{path}/rotate"), &json!({})).await,
        client.delete(&path).await,
        client
            .post("/admin/v1/projects", &json!({"name": "new"}))
            .await,
        client
            .patch("/admin/v1/projects/default", &json!({"display_name": "x"}))
            .await,
        client.post("/admin/v1/config/reload", &json!({})).await,
    ] {
        let message = reply.error(503)["message"].as_str().unwrap().to_owned();
        assert!(message.contains("audit log"), "{message}");
    }
    gateway.store.mend();
    assert_eq!(client.get("/admin/v1/keys").await.ok(), before);
    client.get("/admin/v1/projects/new").await.error(404);
    assert_eq!(log(&client, "").await.len(), 1);
}

#[tokio::test]
async fn what_fails_after_it_was_noted_is_noted_too() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    client
        .post("/admin/v1/projects", &json!({"name": "one"}))
        .await
        .ok();
    client
        .post("/admin/v1/projects", &json!({"name": "one"}))
        .await
        .error(400);
    client
        .post("/admin/v1/config/reload", &json!({}))
        .await
        .error(400);
    let entries = log(&client, "").await;
    assert_eq!(
        field(&entries, "act"),
        [
            "project.create",
            "project.create",
            "project.create.failed",
            "config.reload",
            "config.reload.failed"
        ]
    );
    assert_eq!(entries[2]["details"], json!({"entry": 2}));
}

#[tokio::test]
async fn the_command_line_follows_the_chain_with_a_server_and_without() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "key-1").unwrap();
    let text = config(&emulator.url, "key", &["m"]);
    let process = Process::start_in(folder, &text, |_| {}).await;
    let client = process.client();
    client
        .post("/admin/v1/keys", &json!({"label": "one"}))
        .await
        .ok();
    client
        .post("/admin/v1/config/reload", &json!({}))
        .await
        .ok();
    process.signal("HUP").await;
    process
        .logs_times("the configuration has been reloaded", 2)
        .await;

    let verify = |output: std::process::Output| {
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.success(), shown)
    };
    let (ok, online) = verify(process.run(&["audit", "verify", "--json"]).await);
    assert!(ok, "{online}");
    assert_eq!(online["entries"], 4);
    let head = online["head"].as_str().unwrap().to_owned();
    let folder = process.stopped().await;

    let run = async |arguments: &[&str]| Process::run_alone(&folder, &text, arguments).await;
    let made = run(&["key", "create", "--label", "two"]).await;
    assert!(made.status.success());
    let (ok, offline) = verify(run(&["audit", "verify", "--head", &head, "--json"]).await);
    assert!(ok, "{offline}");
    assert_eq!(offline["entries"], 5);
    let listed = run(&["audit", "list", "--json"]).await;
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    let actors = field(&listed, "actor");
    assert_eq!(
        (actors[0], actors[1], actors[4]),
        ("local", "signal", "config")
    );
    let exported = run(&["audit", "export", "--act", "key.*"]).await;
    assert_eq!(exported.stdout.split(|byte| *byte == b'\n').count(), 3 + 1);
    let (ok, shown) = verify(run(&["audit", "verify", "--head", &"7".repeat(64), "--json"]).await);
    assert!(
        !ok && shown["problem"].as_str().unwrap().contains("missing"),
        "{shown}"
    );

    // Somebody with an editor.
    let path = folder.path().join("data/holdfast.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes
        .windows(13)
        .position(|window| window == b"config.reload")
        .unwrap();
    bytes[at..at + 13].copy_from_slice(b"config.relaxd");
    std::fs::write(&path, bytes).unwrap();
    let (ok, shown) = verify(run(&["audit", "verify", "--json"]).await);
    let problem = shown["problem"].as_str().unwrap();
    assert!(!ok && problem.contains("has been changed"), "{shown}");
}
