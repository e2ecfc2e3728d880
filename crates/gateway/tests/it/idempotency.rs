//! Requests that come twice.

use std::time::Duration;

use holdfast_testkit::{Action, Gate, Operation, Reply, TestClient, TestGateway};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{create, say};

async fn send(client: &TestClient, body: &Value, key: Option<&str>) -> Reply {
    let mut request = client
        .request(Method::POST, "/v1/chat/completions")
        .json(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    Reply::of(request).await
}

async fn turns(client: &TestClient, id: &str) -> Value {
    client.get(&format!("/v1/context/{id}")).await.ok()["turns"].clone()
}

fn text_of(chunks: &[Value]) -> String {
    chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect()
}

#[tokio::test]
async fn with_a_key_a_repetition_gets_the_same_answer_and_no_second_turn() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let body = json!({"context_id": id, "messages": [say("user", "hi")]});
    let first = send(&client, &body, Some("a")).await;
    let second = send(&client, &body, Some("a")).await;
    assert_eq!(first.ok(), second.ok());
    assert_eq!(
        first.header("x-context-cache"),
        second.header("x-context-cache")
    );
    assert_eq!(turns(&client, &id).await, 1);

    send(&client, &body, Some("b")).await.ok();
    assert_eq!(turns(&client, &id).await, 2);
    let other = json!({"context_id": id, "messages": [say("user", "something else")]});
    assert_eq!(
        send(&client, &other, Some("a")).await.error(400)["param"],
        "Idempotency-Key"
    );

    gateway.clock.advance(Duration::from_secs(30));
    send(&client, &body, Some("a")).await.ok();
    assert_eq!(turns(&client, &id).await, 3);
}

#[tokio::test]
async fn a_streamed_answer_is_repeated_as_a_stream() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let body = json!({
        "context_id": id, "messages": [say("user", "hi")], "stream": true, "stream_options": {"include_usage": true},
    });
    let first = send(&client, &body, Some("a")).await.chunks();
    let second = send(&client, &body, Some("a")).await.chunks();
    assert_eq!(text_of(&first), text_of(&second));
    assert_eq!(first[0]["id"], second[0]["id"]);
    assert_eq!(first.last(), second.last());
    assert_eq!(turns(&client, &id).await, 1);
}

#[tokio::test]
async fn without_a_key_saying_the_same_twice_is_two_turns() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let body = json!({"context_id": id, "messages": [say("user", "hi")]});
    send(&client, &body, None).await.ok();
    send(&client, &body, None).await.ok();
    assert_eq!(turns(&client, &id).await, 2);
}

#[tokio::test]
async fn an_answer_that_was_lost_after_the_commit_is_given_again() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.session_wait_ms = 60_000)
        .start()
        .await;
    let client = gateway.client();
    for is_stream in [false, true] {
        let id = create(&client, json!({"mode": "session"})).await;
        // Drawn texts have any length.
        let body = json!({
            "context_id": id, "messages": [say("user", "hi")], "stream": is_stream, "temperature": 0,
        });
        // The client leaves while its turn is being committed.
        let gate = Gate::default();
        gateway
            .store
            .plan(Operation::AppendTurn, [Action::Wait(gate.clone())]);
        let lost = tokio::spawn({
            let (client, body) = (client.clone(), body.clone());
            async move { send(&client, &body, None).await }
        });
        gate.reached().await;
        lost.abort();
        assert!(lost.await.unwrap_err().is_cancelled());
        wait_until_idle(&client, 0).await;
        gate.open();

        let again = send(&client, &body, None).await;
        let text = if is_stream {
            text_of(&again.chunks())
        } else {
            again.answer()
        };
        assert_eq!(text.len(), 16);
        assert_eq!(turns(&client, &id).await, 1, "stream: {is_stream}");
        // That one arrived, so the same words are a new turn now.
        send(&client, &body, None).await;
        assert_eq!(turns(&client, &id).await, 2, "stream: {is_stream}");
    }
}

/// Waits until the server has noticed that the other clients are gone.
async fn wait_until_idle(client: &TestClient, others: u64) {
    let expected = format!("holdfast_http_requests_in_flight {}", others + 1);
    while !client
        .get("/metrics")
        .await
        .text()
        .lines()
        .any(|line| line == expected)
    {
        tokio::task::yield_now().await;
    }
}
