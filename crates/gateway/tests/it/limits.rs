//! Bounds, at their edges.

use std::time::Duration;

use holdfast_testkit::{Action, Gate, Operation, TestGateway};
use serde_json::{Value, json};

use crate::{ask, create, say};

/// A create request of exactly so many bytes.
fn body_of(bytes: usize) -> String {
    let frame = json!({"model": "tiny", "messages": [say("user", "")]}).to_string();
    json!({"model": "tiny", "messages": [say("user", &"x".repeat(bytes - frame.len()))]})
        .to_string()
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.body_bytes_max = 2000)
        .start()
        .await;
    let client = gateway.client();
    let post = |body: String| client.post_text("/v1/context/create", "application/json", body);
    post(body_of(2000)).await.ok();
    let error = post(body_of(2001)).await.error(413);
    assert!(
        error["message"].as_str().unwrap().contains("2000"),
        "{error}"
    );
    post(body_of(500_000)).await.error(413);

    // Without a length in the head.
    let chunks = |bytes: usize| {
        let body = body_of(bytes).into_bytes();
        reqwest::Body::wrap_stream(futures_util::stream::iter(
            body.chunks(700)
                .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
                .collect::<Vec<_>>(),
        ))
    };
    client
        .post_text("/v1/context/create", "application/json", chunks(2000))
        .await
        .ok();
    client
        .post_text("/v1/context/create", "application/json", chunks(2001))
        .await
        .error(413);
}

#[tokio::test]
async fn requests_beyond_the_bound_in_flight_are_refused_at_once() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.connections_max = 1)
        .start()
        .await;
    let client = gateway.client();
    let gate = Gate::default();
    gateway
        .store
        .plan(Operation::Insert, [Action::Wait(gate.clone())]);
    let first = tokio::spawn({
        let client = client.clone();
        let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
        async move { client.post("/v1/context/create", &body).await }
    });
    gate.reached().await;
    let refused = client.get("/v1/models").await;
    refused.error(429);
    assert_eq!(refused.header("retry-after"), "1");
    // Monitoring must see a full server.
    client.get("/healthz").await.ok();
    client.get("/readyz").await.ok();
    gate.open();
    first.await.unwrap().ok();
    client.get("/v1/models").await.ok();
}

#[tokio::test]
async fn a_full_queue_is_a_429_and_a_failed_create_leaves_nothing() {
    let gateway = TestGateway::builder()
        .engine(|engine| engine.queue_max = 0)
        .start()
        .await;
    let client = gateway.client();
    let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
    for path in ["/v1/chat/completions", "/v1/context/create"] {
        let reply = client.post(path, &body).await;
        assert_eq!(reply.error(429)["code"], "ServerOverloaded", "{path}");
        assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
    assert_eq!(client.get("/v1/context").await.ok()["data"], json!([]));
    assert!(
        client
            .get("/metrics")
            .await
            .text()
            .contains("holdfast_contexts_living 0")
    );
}

#[tokio::test]
async fn a_project_has_a_bounded_number_of_contexts() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.contexts_per_project_max = 2)
        .start()
        .await;
    let client = gateway.client();
    let body = json!({"model": "tiny", "messages": [say("user", "hi")], "ttl": 60});
    let first = client.post("/v1/context/create", &body).await.ok();
    client.post("/v1/context/create", &body).await.ok();
    client.post("/v1/context/create", &body).await.error(429);
    client
        .post(
            &format!("/v1/context/{}/fork", first["id"].as_str().unwrap()),
            &json!({}),
        )
        .await
        .error(429);
    gateway
        .client_of("other", &[holdfast_store::KeyScope::Inference])
        .await
        .post("/v1/context/create", &body)
        .await
        .ok();

    client
        .delete(&format!("/v1/context/{}", first["id"].as_str().unwrap()))
        .await
        .ok();
    client.post("/v1/context/create", &body).await.ok();
    client.post("/v1/context/create", &body).await.error(429);
    // What has expired does not count, swept or not.
    gateway.clock.advance(Duration::from_secs(60));
    client.post("/v1/context/create", &body).await.ok();
}

#[tokio::test]
async fn a_project_has_a_bounded_number_of_tokens_in_contexts() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.context_tokens_per_project_max = 100)
        .start()
        .await;
    let client = gateway.client();
    // Eight tokens of frame.
    let body = |tokens: usize| json!({"model": "tiny", "messages": [say("user", &"x".repeat(tokens - 8))]});
    client.post("/v1/context/create", &body(60)).await.ok();
    client
        .post("/v1/context/create", &body(41))
        .await
        .error(429);
    client.post("/v1/context/create", &body(40)).await.ok();
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.request_seconds_max = 1)
        .start()
        .await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let gate = Gate::default();
    gateway.clock.advance(Duration::from_secs(1));
    gateway.store.plan(Operation::Touch, [Action::Wait(gate)]);
    ask(&client, &id, "hi").await.error(504);
    ask(&client, &id, "hi").await.ok();
    assert_eq!(
        client.get(&format!("/v1/context/{id}")).await.ok()["turns"],
        Value::from(1)
    );
}
