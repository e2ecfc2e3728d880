//! A new configuration for a running server.

use std::time::Duration;

use futures_util::future::join_all;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::{Emulator, Fault};
use holdfast_testkit::{Reply, TestClient};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, config};
use crate::{ask, say};

const RELOAD: &str = "/admin/v1/config/reload";

/// A folder with a key file.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "key-one").unwrap();
    folder
}

async fn scene(models: &[&str]) -> (Emulator, Process, TestClient) {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = config(&emulator.url, "key", models);
    let process = Process::start_in(folder(), &text, |_| {}).await;
    let client = process.client();
    (emulator, process, client)
}

async fn chat(client: &TestClient, model: &str) -> Reply {
    let body = json!({"model": model, "messages": [say("user", "hi")]});
    client.post("/v1/chat/completions", &body).await
}

async fn reload(client: &TestClient) -> Value {
    client.post(RELOAD, &json!({})).await.ok()
}

/// The keys that an emulator has been shown, oldest first.
fn keys(emulator: &Emulator) -> Vec<String> {
    let requests = emulator.requests();
    let bearers = requests.iter().filter_map(|request| request.bearer());
    bearers.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_new_route_appears_an_old_one_goes_and_contexts_stay() {
    let (emulator, process, client) = scene(&["old", "stays"]).await;
    let body = json!({"model": "stays", "messages": [say("system", &"Some text. ".repeat(200))]});
    let created = client.post("/v1/context/create", &body).await.ok();
    let id = created["id"].as_str().unwrap();
    ask(&client, id, "one").await.ok();
    chat(&client, "new").await.error(404);

    process.write_config(&config(&emulator.url, "key", &["new", "stays"]));
    assert_eq!(reload(&client).await["needs_restart"], json!([]));
    chat(&client, "new").await.ok();
    chat(&client, "old").await.error(404);
    let again = ask(&client, id, "two").await.ok();
    assert_eq!(again["context_cache"]["status"], "hit", "{again}");
}

#[tokio::test]
async fn a_signal_reloads_too() {
    let (emulator, process, client) = scene(&["old"]).await;
    process.write_config(&config(&emulator.url, "key", &["new"]));
    process.signal("HUP").await;
    process.logs("the configuration has been reloaded").await;
    chat(&client, "new").await.ok();
    chat(&client, "old").await.error(404);
}

#[tokio::test]
async fn the_command_line_reloads_and_shows_what_needs_a_restart() {
    let (emulator, process, client) = scene(&["old"]).await;
    let text = config(&emulator.url, "key", &["new"]);
    process.write_config(&format!(
        "{text}\n[server]\ndrain_seconds = 7\n[log]\nformat = \"json\"\nlevel = \"debug\"\n"
    ));
    let output = process.run(&["config", "reload"]).await;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(
        shown.contains("needs a restart: server.drain_seconds"),
        "{shown}"
    );
    assert!(shown.contains("needs a restart: log.format"), "{shown}");
    chat(&client, "new").await.ok();
    process.logs("DEBUG").await;

    process.write_config("[server]\nlisten = 1\n");
    let output = process.run(&["config", "reload"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(":2:"));
}

#[tokio::test]
async fn a_models_engine_that_does_not_run_needs_a_restart() {
    let (emulator, process, client) = scene(&["routed"]).await;
    let text = config(&emulator.url, "key", &["routed"]);
    process.write_config(&format!(
        "{text}\n[[engines]]\nname = \"e\"\n[[models]]\nname = \"local\"\nengine = \"e\"\n"
    ));
    let answer = reload(&client).await;
    assert_eq!(
        answer["needs_restart"],
        json!(["engines.e", "models.local"])
    );
    chat(&client, "routed").await.ok();
    chat(&client, "local").await.error(404);
}

#[tokio::test]
async fn a_key_is_replaced_while_a_stream_runs() {
    let (emulator, process, client) = scene(&["m"]).await;
    emulator
        .faults()
        .next(Fault::SlowDrip(Duration::from_millis(100)));
    let body = json!({"model": "m", "messages": [say("user", "hi")], "stream": true});
    let mut stream = client
        .request(reqwest::Method::POST, "/v1/chat/completions")
        .json(&body)
        .send()
        .await
        .unwrap();
    let mut text = stream.chunk().await.unwrap().unwrap().to_vec();

    std::fs::write(process.path("key"), "key-two").unwrap();
    reload(&client).await;
    chat(&client, "m").await.ok();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    assert_eq!(keys(&emulator), ["key-one", "key-two"]);
}

#[tokio::test]
async fn a_file_with_an_error_changes_nothing_and_its_place_is_told() {
    let (emulator, process, client) = scene(&["m"]).await;
    let sound = config(&emulator.url, "key", &["new"]);
    let broken = format!("{sound}\n[server]\nrequest_seconds_max = \"secret-value\"\n");
    process.write_config(&broken);
    let line = broken.lines().count();
    let error = client.post(RELOAD, &json!({})).await.error(400);
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("holdfast.toml:{line}:23: ")),
        "{message}"
    );
    assert!(message.contains("nothing has changed"), "{message}");
    chat(&client, "m").await.ok();
    chat(&client, "new").await.error(404);

    process.signal("HUP").await;
    process.logs_times("everything stays as it was", 2).await;
    assert!(
        process
            .log()
            .contains(&format!("holdfast.toml:{line}:23: "))
    );
    chat(&client, "m").await.ok();

    // A file that is gone is an error, too, and not the defaults.
    std::fs::remove_file(process.path("holdfast.toml")).unwrap();
    client.post(RELOAD, &json!({})).await.error(400);
    process.write_config(&sound);
    reload(&client).await;
    chat(&client, "new").await.ok();
    let metrics = client.get("/metrics").await.text();
    assert!(metrics.contains("holdfast_config_reloads_total{result=\"ok\"} 1"));
    assert!(metrics.contains("holdfast_config_reloads_total{result=\"failed\"} 3"));
}

#[tokio::test]
async fn the_breaker_of_an_upstream_that_did_not_change_stays() {
    let (emulator, process, client) = scene(&["m"]).await;
    emulator.faults().next(Fault::Status(500, None));
    chat(&client, "m").await.error(502);
    let open = "holdfast_upstream_breaker_open{upstream=\"u\",model=\"m\"} 1";
    assert!(client.get("/metrics").await.text().contains(open));

    process.write_config(&config(&emulator.url, "key", &["m", "n"]));
    reload(&client).await;
    chat(&client, "n").await.error(503);
    assert!(client.get("/metrics").await.text().contains(open));

    // With another key it is another account, about which nothing is known.
    std::fs::write(process.path("key"), "key-two").unwrap();
    reload(&client).await;
    chat(&client, "m").await.ok();
}

#[tokio::test]
async fn reloads_at_the_same_time_drop_no_request() {
    let (emulator, process, client) = scene(&["m"]).await;
    let texts = [
        config(&emulator.url, "key", &["m", "a"]),
        config(&emulator.url, "key", &["m", "b"]),
    ];
    let reloads = (0..8).map(|round| {
        process.write_config(&texts[round % 2]);
        reload(&client)
    });
    let chats = (0..24).map(|_| chat(&client, "m"));
    let (_, replies) = tokio::join!(join_all(reloads), join_all(chats));
    for reply in replies {
        reply.ok();
    }
    process.write_config(&texts[0]);
    reload(&client).await;
    chat(&client, "a").await.ok();
    chat(&client, "b").await.error(404);
}

#[tokio::test]
async fn limits_apply_from_the_next_request_on() {
    let (emulator, process, client) = scene(&["m"]).await;
    chat(&client, "m").await.ok();
    let text = config(&emulator.url, "key", &["m"]);
    process.write_config(&format!("{text}\n[server]\nbody_bytes_max = 1024\n"));
    reload(&client).await;
    let body = json!({"model": "m", "messages": [say("user", &"x".repeat(2000))]});
    client.post("/v1/chat/completions", &body).await.error(413);
    chat(&client, "m").await.ok();
}

#[tokio::test]
async fn what_was_used_counts_under_new_limits_and_redis_needs_a_restart() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = config(&emulator.url, "key", &["m"]);
    let limited =
        |requests: u32| format!("{text}\n[limits.per_key]\nrequests_per_minute = {requests}\n");
    let process = Process::start_in(folder(), &limited(100), |_| {}).await;
    let client = process.client();
    for _ in 0..100 {
        client.get("/v1/models").await.ok();
    }
    let redis = "[shared]\nurl = \"redis://127.0.0.1:9\"\n";
    process.write_config(&format!("{}{redis}", limited(2)));
    assert_eq!(reload(&client).await["needs_restart"], json!(["shared"]));
    let refused = client.get("/v1/models").await;
    refused.error(429);
    assert_eq!(refused.header("x-ratelimit-limit-requests"), "2");
}

#[tokio::test]
async fn only_administrators_reload() {
    let (_emulator, process, client) = scene(&["m"]).await;
    let made = client.post("/admin/v1/keys", &json!({})).await.ok();
    let key = made["key"].as_str().unwrap().to_owned();
    let other = TestClient::new(&process.url, Some(key));
    other.post(RELOAD, &json!({})).await.error(403);
    other
        .without_key()
        .post(RELOAD, &json!({}))
        .await
        .error(401);
}
