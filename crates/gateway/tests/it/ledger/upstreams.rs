//! Requests that upstreams answer, or do not.

use std::time::Duration;

use holdfast::app::UpstreamOptions;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Emulator, Fault};
use holdfast_testkit::{TestClient, TestGateway, upstream};
use reqwest::Method;
use serde_json::{Value, json};

use super::{rows, rows_after, totals};
use crate::say;

/// A gateway before two upstreams, the second of which is asked when the first fails.
struct Scene {
    first: Emulator,
    second: Emulator,
    gateway: TestGateway,
    client: TestClient,
}

impl Scene {
    async fn new(change: impl Fn(&mut UpstreamOptions)) -> Scene {
        let first = Emulator::start(OpenAi::new()).await;
        let second = Emulator::start(OpenAi::new()).await;
        let mut builder = TestGateway::builder();
        for (name, emulator) in [("a", &first), ("b", &second)] {
            let mut options = upstream("openai", &format!("{}/v1", emulator.url), "key-1");
            options.name = name.to_owned();
            options.retry.retries_max = 1;
            change(&mut options);
            builder = builder.upstream(options);
        }
        let gateway = builder
            .route("model", &[("a", "gpt-4.1"), ("b", "gpt-4.1")])
            .route("vectors", &[("a", "text-embedding-3-small")])
            .route("voice", &[("a", "gpt-4o-mini-tts")])
            .start()
            .await;
        gateway.clock.follow_system();
        let client = gateway.client();
        Scene {
            first,
            second,
            gateway,
            client,
        }
    }

    async fn chat(&self, stream: bool) -> u16 {
        let body = json!({"model": "model", "messages": [say("user", "hi")], "stream": stream});
        self.client.post("/v1/chat/completions", &body).await.status
    }
}

fn check(row: &Value, expected: Value) {
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&row[field], value, "`{field}` of {row}");
    }
}

#[tokio::test]
async fn an_answer_has_its_upstream_its_price_and_its_source() {
    let scene = Scene::new(|_| {}).await;
    for stream in [false, true] {
        assert_eq!(scene.chat(stream).await, 200);
    }
    for row in rows(&scene.client).await {
        check(
            &row,
            json!({
                "outcome": "completed", "upstream": "a", "upstream_model": "gpt-4.1", "model": "model",
                "usage_source": "provider", "currency": "USD", "cost_source": "estimate", "finish_reason": "stop",
            }),
        );
        assert!(row["cost"].as_str().unwrap().parse::<f64>().unwrap() > 0.0);
    }
    let totals = totals(&scene.client).await;
    assert_eq!(totals["money"][0]["currency"], "USD");
}

#[tokio::test]
async fn requests_that_pass_through_have_rows() {
    let scene = Scene::new(|_| {}).await;
    let client = &scene.client;
    let vectors = json!({"model": "vectors", "input": "hi there"});
    client.post("/v1/embeddings", &vectors).await.ok();
    let speech = json!({"model": "voice", "input": "hi", "voice": "alloy"});
    let spoken = client.post("/v1/audio/speech", &speech).await;
    assert_eq!(spoken.status, 200);
    scene.first.faults().next(Fault::Status(400, None));
    client.post("/v1/embeddings", &vectors).await.error(400);
    let rows = rows_after(client, 3).await;
    let find = |kind: &str, outcome: &str| {
        let mut rows = rows.iter();
        let found = rows.find(|row| row["kind"] == kind && row["outcome"] == outcome);
        found.unwrap_or_else(|| panic!("no {outcome} {kind}"))
    };
    let row = find("embeddings", "completed");
    check(
        row,
        json!({"upstream": "a", "usage_source": "provider", "output_tokens": 0}),
    );
    assert!(row["input_tokens"].as_u64().unwrap() > 0);
    find("audio_speech", "completed");
    check(
        find("embeddings", "refused"),
        json!({"upstream": "a", "input_tokens": 0}),
    );
}

#[tokio::test]
async fn a_fallback_is_one_row_of_the_upstream_that_answered() {
    let scene = Scene::new(|_| {}).await;
    for stream in [false, true] {
        for _ in 0..2 {
            scene.first.faults().next(Fault::Status(500, None));
        }
        assert_eq!(scene.chat(stream).await, 200);
    }
    let rows = rows(&scene.client).await;
    assert_eq!(rows.len(), 2);
    for row in &rows {
        check(
            row,
            json!({"upstream": "b", "outcome": "completed", "usage_source": "provider"}),
        );
    }
    assert_eq!(scene.second.bill().charges().len(), 2);
}

#[tokio::test]
async fn what_every_attempt_was_charged_is_in_one_row() {
    let scene = Scene::new(|options| {
        options.timeouts.first_byte = Duration::from_millis(700);
    })
    .await;
    assert_eq!(scene.chat(false).await, 200);
    let plain = rows(&scene.client).await[0]["input_tokens"]
        .as_u64()
        .unwrap();
    scene
        .first
        .faults()
        .next(Fault::SlowStart(Duration::from_secs(60)));
    assert_eq!(scene.chat(false).await, 200);
    let rows = rows(&scene.client).await;
    assert_eq!(rows.len(), 2);
    let row = rows
        .iter()
        .find(|row| row["usage_source"] == "estimate")
        .unwrap();
    check(row, json!({"outcome": "completed"}));
    assert!(row["input_tokens"].as_u64().unwrap() > plain, "{row}");
}

#[tokio::test]
async fn upstreams_that_fail_make_one_failed_row() {
    let scene = Scene::new(|_| {}).await;
    for stream in [false, true] {
        for emulator in [&scene.first, &scene.second] {
            for _ in 0..2 {
                emulator.faults().next(Fault::Status(500, None));
            }
        }
        assert!(scene.chat(stream).await >= 500);
    }
    let rows = rows(&scene.client).await;
    assert_eq!(rows.len(), 2);
    for row in &rows {
        check(
            row,
            json!({"outcome": "failed", "upstream": "b", "input_tokens": 0, "cost": null}),
        );
        assert!(row["error"].is_string(), "{row}");
    }
}

#[tokio::test]
async fn streams_that_break_off_are_labelled_and_estimated() {
    let scene = Scene::new(|_| {}).await;
    scene.first.faults().next(Fault::CutAfter(3));
    assert_eq!(scene.chat(true).await, 200);
    let rows = rows_after(&scene.client, 1).await;
    check(
        &rows[0],
        json!({"outcome": "failed", "usage_source": "estimate", "stream": true}),
    );
    assert!(rows[0]["error"].is_string());
    assert!(rows[0]["cost"].is_string());

    scene
        .first
        .faults()
        .next(Fault::SlowDrip(Duration::from_millis(50)));
    let body = json!({"model": "model", "messages": [say("user", "hi")], "stream": true});
    let request = scene.client.request(Method::POST, "/v1/chat/completions");
    let mut response = request.json(&body).send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    drop(response);
    let rows = rows_after(&scene.client, 2).await;
    let row = rows
        .iter()
        .find(|row| row["outcome"] == "cancelled")
        .unwrap();
    check(row, json!({"usage_source": "estimate", "error": null}));
    assert!(row["input_tokens"].as_u64().unwrap() > 0);
    scene.gateway.stop().await;
}

#[tokio::test]
async fn copies_that_are_made_and_kept_are_rows_of_their_kinds() {
    let emulator = Emulator::start(Anthropic::new()).await;
    let gateway = TestGateway::builder()
        .upstream(upstream("anthropic", &emulator.url, "key-1"))
        .route("model", &[("anthropic", "claude-sonnet-4-6")])
        .start()
        .await;
    gateway.clock.follow_system();
    let client = gateway.client();
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(600);
    let body = json!({
        "model": "model", "messages": [say("system", &text)], "warm": "prewarm", "keep_warm": "always", "ttl": 86_400,
    });
    let id = client.post("/v1/context/create", &body).await.ok()["id"].take();
    let created = rows(&client).await;
    check(
        &created[0],
        json!({"kind": "create", "context_id": id, "upstream": "anthropic", "usage_source": "provider"}),
    );
    assert!(
        created[0]["cache_write_tokens"].as_u64().unwrap() > 1000,
        "{}",
        created[0]
    );
    assert!(created[0]["saved"].as_str().unwrap().starts_with('-'));
    // A copy lives for an hour, and is refreshed half a minute before its end.
    let almost = Duration::from_secs(3_580);
    gateway.clock.advance(almost);
    emulator.clock().advance(almost);
    gateway.app.tend_upstreams().await;
    let rows = rows(&client).await;
    let ping = rows.iter().find(|row| row["kind"] == "ping").unwrap();
    check(
        ping,
        json!({"context_id": id, "key": null, "request_id": null, "project": "default"}),
    );
    let totals = totals(&client).await;
    assert_eq!(totals["requests"], 1, "a ping is nobody's request");
}
