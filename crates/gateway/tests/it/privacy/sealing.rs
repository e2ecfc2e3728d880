//! The program with a data key: turning it on, turning it over, and starting without it.

use std::process::Output;

use holdfast_emulators::Emulator;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_testkit::TestClient;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{CANARY, files_with};
use crate::process::{Process, config};
use crate::say;

const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222222222222222222222222222";

fn with_keys(emulator: &Emulator, key: Option<&str>, previous: &[&str]) -> String {
    let mut text = config(&emulator.url, "key", &["m"]);
    text.push_str("\n[storage.encryption]\n");
    if let Some(key) = key {
        text.push_str(&format!("key = \"{key}\"\n"));
    }
    text.push_str(&format!("previous_keys = {previous:?}\n"));
    text
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("key", "key-1"), ("one", ONE), ("two", TWO)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

async fn store(client: &TestClient) -> String {
    let body = json!({"model": "m", "messages": [say("user", CANARY)], "mode": "session"});
    let made = client.post("/v1/context/create", &body).await.ok();
    made["id"].as_str().unwrap().to_owned()
}

/// Chats with it, for which it has to be read.
async fn is_there(client: &TestClient, id: &str) {
    let body = json!({"model": "m", "context_id": id, "messages": [say("user", "and?")]});
    client.post("/v1/chat/completions", &body).await.ok();
}

fn json_of(output: &Output) -> Value {
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refusal(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_key_is_turned_on_turned_over_and_dropped_while_the_server_goes_on() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let plain = config(&emulator.url, "key", &["m"]);
    let process = Process::start_in(folder(), &plain, |_| {}).await;
    let before = store(&process.client()).await;
    // No server could read what it seals.
    process.write_config(&with_keys(&emulator, Some("file:one"), &[]));
    let too_early = process.run(&["storage", "seal"]).await;
    assert!(refusal(&too_early).contains("no server has been started with this data key"));
    is_there(&process.client(), &before).await;
    let folder = process.stopped().await;
    assert!(!files_with(folder.path(), CANARY.as_bytes()).is_empty());

    // Turned on.
    let sealing = with_keys(&emulator, Some("file:one"), &[]);
    let process = Process::start_in(folder, &sealing, |_| {}).await;
    let client = process.client();
    let after = store(&client).await;
    let done = json_of(&process.run(&["storage", "seal", "--json"]).await);
    assert!(done["sealed"].as_u64().unwrap() >= 2, "{done}");
    let first_id = done["key"].as_str().unwrap().to_owned();
    for id in [&before, &after] {
        is_there(&client, id).await;
    }
    let folder = process.stopped().await;
    assert_eq!(
        files_with(folder.path(), CANARY.as_bytes()),
        [] as [std::path::PathBuf; 0]
    );

    // Without the key nothing starts, and it is said which one is missing.
    for text in [&plain, &with_keys(&emulator, Some("file:two"), &[])] {
        let refused =
            Process::run_alone(&folder, text, &["serve", "--listen", "127.0.0.1:0"]).await;
        let shown = refusal(&refused);
        assert!(shown.contains(&first_id) && !shown.contains(ONE), "{shown}");
    }

    // Turned over: the new one comes from a command.
    let turned = with_keys(&emulator, Some("command:cat two"), &["file:one"]);
    let process = Process::start_in(folder, &turned, |_| {}).await;
    let client = process.client();
    is_there(&client, &before).await;
    let done = json_of(&process.run(&["storage", "seal", "--json"]).await);
    assert_ne!(done["key"], first_id);
    assert!(done["sealed"].as_u64().unwrap() >= 4, "{done}");
    let again = json_of(&process.run(&["storage", "seal", "--json"]).await);
    assert_eq!(again["sealed"], 0, "{again}");
    let folder = process.stopped().await;

    // The old one is gone.
    std::fs::remove_file(folder.path().join("one")).unwrap();
    let alone = with_keys(&emulator, Some("file:two"), &[]);
    let process = Process::start_in(folder, &alone, |_| {}).await;
    for id in [&before, &after] {
        is_there(&process.client(), id).await;
    }
    assert!(!process.log().contains(TWO));
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_with_its_name() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let folder = folder();
    std::fs::write(folder.path().join("short"), "c2hvcnQ=").unwrap();
    for (key, about) in [
        ("file:short", "no data key"),
        ("file:nowhere", "nowhere can't be read"),
        ("env:NOT_SET", "NOT_SET is not set"),
        (ONE, "not written into the configuration"),
        ("command:false", "it has failed"),
    ] {
        let text = with_keys(&emulator, Some(key), &[]);
        let output =
            Process::run_alone(&folder, &text, &["serve", "--listen", "127.0.0.1:0"]).await;
        let shown = refusal(&output);
        assert!(
            shown.contains(about) && shown.contains("`key` in [storage.encryption]"),
            "{shown}"
        );
        assert!(
            !shown.contains(ONE) && !shown.contains("c2hvcnQ="),
            "{shown}"
        );
    }
}
