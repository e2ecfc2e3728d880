//! Health, readiness, metrics, graceful stop.

use std::time::Duration;

use holdfast_testkit::{Action, Gate, Operation, TestGateway};
use serde_json::json;

use crate::process::{Process, config};
use crate::{ask, create};

#[tokio::test]
async fn health_and_readiness_need_no_key() {
    let gateway = TestGateway::start().await;
    let client = gateway.client().without_key();
    assert_eq!(client.get("/healthz").await.ok()["status"], "ok");
    assert_eq!(client.get("/readyz").await.ok()["status"], "ok");

    gateway.store.break_down(&[Operation::PageProjects]);
    let reply = client.get("/readyz").await;
    assert_eq!(
        (reply.status, &reply.json()["store"]),
        (503, &json!("unavailable"))
    );
    assert_eq!(client.get("/healthz").await.status, 200);
    gateway.store.mend();

    gateway.engine.stop().await;
    let reply = client.get("/readyz").await;
    assert_eq!(
        (reply.status, &reply.json()["engines"]),
        (503, &json!("stopped"))
    );
}

/// The value of a sample of the metrics.
fn sample(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    let line = line.unwrap_or_else(|| panic!("no sample {name} in {metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn metrics_count_requests_tokens_and_what_contexts_did() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let usage = ask(&client, &id, "secret words").await.ok()["usage"].take();
    client.get("/v1/context/nobody").await.error(404);
    client.get("/somewhere/else").await.error(404);

    let metrics = client.without_key().get("/metrics").await.text();
    let count = |name: &str| sample(&metrics, name);
    assert_eq!(
        count(
            r#"holdfast_http_requests_total{method="POST",route="/v1/chat/completions",status="200"}"#
        ),
        1.0
    );
    assert_eq!(
        count(
            r#"holdfast_http_requests_total{method="GET",route="/v1/context/{id}",status="404"}"#
        ),
        1.0
    );
    assert_eq!(
        count(r#"holdfast_http_requests_total{method="GET",route="unmatched",status="404"}"#),
        1.0
    );
    assert_eq!(
        count(r#"holdfast_http_request_duration_seconds_count{route="/v1/chat/completions"}"#),
        1.0
    );
    assert_eq!(
        count("holdfast_http_requests_in_flight"),
        1.0,
        "the request for the metrics itself"
    );
    let cached = usage["prompt_tokens_details"]["cached_tokens"]
        .as_f64()
        .unwrap();
    assert_eq!(
        count(r#"holdfast_tokens_total{model="tiny",kind="cached"}"#),
        cached
    );
    assert_eq!(
        count(r#"holdfast_tokens_total{model="tiny",kind="fresh"}"#),
        usage["prompt_tokens"].as_f64().unwrap() - cached
    );
    assert_eq!(
        count(r#"holdfast_tokens_total{model="tiny",kind="output"}"#),
        usage["completion_tokens"].as_f64().unwrap()
    );
    assert_eq!(
        count(r#"holdfast_context_uses_total{model="tiny",result="hit"}"#),
        1.0
    );
    assert_eq!(count("holdfast_contexts_created_total"), 1.0);
    assert_eq!(count("holdfast_contexts_living"), 1.0);
    assert_eq!(count("holdfast_session_turns_committed_total"), 1.0);
    let prefix = client.get(&format!("/v1/context/{id}")).await.ok()["prefix_tokens"]
        .as_f64()
        .unwrap();
    assert_eq!(count("holdfast_contexts_living_tokens"), prefix);
    for engine_metric in [
        "engine_queued_requests",
        "engine_running_requests",
        "engine_kv_used_tokens",
        "engine_kv_size_tokens",
        "engine_pinned_prefixes",
        "engine_state_ram_bytes",
        "engine_state_disk_bytes",
        "engine_prefill_tokens_total",
        "engine_decode_tokens_total",
        "engine_restored_tokens_total",
        "engine_cached_tokens_total",
        "engine_prefix_rebuilds_total",
        "engine_queue_full_total",
    ] {
        count(&format!(r#"holdfast_{engine_metric}{{model="tiny"}}"#));
    }
    assert!(metrics.ends_with("# EOF\n"));
    for private in ["secret words", "Be brief", client.key(), &id, "somewhere"] {
        assert!(!metrics.contains(private), "{private}");
    }
}

#[tokio::test]
async fn stopping_lets_a_running_request_finish() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({})).await;
    let gate = Gate::default();
    gateway.clock.advance(Duration::from_secs(1));
    gateway
        .store
        .plan(Operation::Touch, [Action::Wait(gate.clone())]);
    let running = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, &id, "hi").await }
    });
    gate.reached().await;
    let stopping = tokio::spawn(gateway.stop());
    gate.open();
    running.await.unwrap().ok();
    stopping.await.unwrap();
    assert!(
        client
            .request(reqwest::Method::GET, "/healthz")
            .send()
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_connection_that_says_nothing_holds_up_no_stop() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "key-1").unwrap();
    let config = config("http://127.0.0.1:9", "key", &["m"]);
    let process = Process::start_in(folder, &config, |_| {}).await;
    let address = process.url.trim_start_matches("http://");
    let silent = tokio::net::TcpStream::connect(address).await.unwrap();
    // Accepted after the silent one.
    process.client().get("/v1/models").await.ok();
    process.signal("TERM").await;
    assert_eq!(process.ended().await, 0, "well before `drain_seconds`");
    drop(silent);
}
