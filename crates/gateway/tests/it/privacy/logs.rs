//! Logs have no words and no credentials, however much is logged.

use holdfast_emulators::Emulator;
use holdfast_emulators::families::compatible::Compatible;
use serde_json::json;

use super::CANARY;
use crate::process::{KEY, Process, config};
use crate::say;

#[tokio::test]
async fn nothing_that_was_said_and_no_key_is_in_the_log_at_any_level() {
    const UPSTREAM_KEY: &str = "upstream-key-that-nobody-sees";
    let emulator = Emulator::start(Compatible::vllm()).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), UPSTREAM_KEY).unwrap();
    let text = format!(
        "[log]\nlevel = \"trace\"\n{}",
        config(&emulator.url, "key", &["m"])
    );
    let process = Process::start_in(folder, &text, |_| {}).await;
    let client = process.client();
    let messages = json!([say("system", CANARY), say("user", CANARY)]);
    let body = json!({"model": "m", "messages": messages, "metadata": {"about": CANARY}});
    let context = client.post("/v1/context/create", &body).await.ok();
    for stream in [false, true] {
        let body = json!({"model": "m", "messages": [say("user", CANARY)], "stream": stream,
            "context_id": context["id"]});
        client.post("/v1/chat/completions", &body).await;
        let body = json!({"model": "m", "input": CANARY, "stream": stream});
        client.post("/v1/responses", &body).await;
    }
    // What goes wrong tempts to quote what went wrong.
    for body in [
        json!({"model": CANARY, "messages": messages}),
        json!({"model": "m", "messages": CANARY}),
        json!({"model": "m", "messages": [{"role": CANARY, "content": CANARY}]}),
        json!({"model": "m", "messages": messages, "temperature": CANARY}),
        json!(CANARY),
    ] {
        client.post("/v1/chat/completions", &body).await;
    }
    drop(emulator);
    let body = json!({"model": "m", "messages": messages});
    client.post("/v1/chat/completions", &body).await;
    let made = client
        .post("/admin/v1/keys", &json!({"label": "made here"}))
        .await
        .ok();
    let made_key = made["key"].as_str().unwrap();
    client.get("/v1/models").await.ok();

    process.signal("TERM").await;
    let path = process.path("log");
    let log = std::fs::read_to_string(&path).unwrap();
    assert!(log.contains("TRACE"), "it logs everything");
    for secret in [CANARY, KEY, UPSTREAM_KEY, made_key] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{secret}: {lines:#?}");
    }
}
