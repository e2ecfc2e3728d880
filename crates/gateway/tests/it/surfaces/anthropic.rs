//! Anthropic's Messages, on the engine and on upstreams.

use holdfast_emulators::Emulator;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use reqwest::Method;
use serde_json::{Value, json};

use super::words;
use crate::{expected, say};

async fn message(client: &TestClient, fields: Value) -> Reply {
    let mut body = json!({"model": "tiny", "max_tokens": 16, "temperature": 0});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    client.post("/v1/messages", &body).await
}

/// Fresh, read and written prompt tokens.
fn counts(reply: &Reply) -> (u64, u64, u64) {
    let usage = reply.ok()["usage"].clone();
    let number = |name: &str| usage[name].as_u64().unwrap();
    (
        number("input_tokens"),
        number("cache_read_input_tokens"),
        number("cache_creation_input_tokens"),
    )
}

fn marked(text: &str) -> Value {
    json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral"}})
}

/// The events of a stream: name and data.
fn events(text: &str) -> Vec<(String, Value)> {
    let events = text.split("\n\n").filter(|event| !event.is_empty());
    events
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            (
                name.strip_prefix("event: ").unwrap().to_owned(),
                serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn the_model_sees_the_messages() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let reply = message(
        &client,
        json!({"system": "Be brief.", "messages": [say("user", "hi")]}),
    )
    .await;
    let body = reply.ok();
    let wanted = expected(&client, &[say("system", "Be brief."), say("user", "hi")]).await;
    assert!(wanted.starts_with(body["content"][0]["text"].as_str().unwrap()));
    assert_eq!(
        (
            &body["type"],
            &body["role"],
            &body["model"],
            &body["stop_reason"]
        ),
        (
            &json!("message"),
            &json!("assistant"),
            &json!("tiny"),
            &json!("max_tokens")
        )
    );
    assert_eq!(body["usage"]["output_tokens"], 16);
    assert!(body["id"].as_str().unwrap().starts_with("msg_"));
    assert!(reply.header("request-id").starts_with("req-"));

    let count = json!({"model": "tiny", "system": "Be brief.", "messages": [say("user", "hi")]});
    let counted = client.post("/v1/messages/count_tokens", &count).await.ok();
    assert_eq!(counted["input_tokens"], body["usage"]["input_tokens"]);
}

#[tokio::test]
async fn a_stream_says_the_same_in_the_order_of_the_dialect() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let fields = json!({"messages": [say("user", "hi")]});
    let whole = message(&client, fields.clone()).await.ok();
    let mut streamed = fields;
    streamed["stream"] = json!(true);
    let reply = message(&client, streamed).await;
    assert_eq!(reply.header("content-type"), "text/event-stream");
    let events = events(&reply.text());
    let mut names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    assert_eq!(
        names,
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    let text: String = events
        .iter()
        .filter_map(|(_, data)| data["delta"]["text"].as_str())
        .collect();
    assert_eq!(text, whole["content"][0]["text"]);
    let delta = &events[events.len() - 2].1;
    assert_eq!(delta["usage"], whole["usage"]);
    assert_eq!(delta["delta"]["stop_reason"], whole["stop_reason"]);
    assert!(events.iter().all(|(name, data)| data["type"] == *name));
}

#[tokio::test]
async fn a_marker_makes_a_context_on_the_engine() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let ask = async |question: &str| {
        message(
            &client,
            json!({"system": [marked(&words(40))], "messages": [say("user", question)]}),
        )
        .await
    };
    let first = ask("one").await;
    let (fresh, read, written) = counts(&first);
    assert!(written > 200 && read == 0, "{written}, {read}");
    assert_eq!(
        first.ok()["usage"]["cache_creation"]["ephemeral_5m_input_tokens"],
        written
    );
    let second = ask("two").await;
    assert_eq!(counts(&second), (fresh, written, 0));
    assert_eq!(
        second.header("x-context-cache"),
        "hit; tier=kv; origin=marker"
    );

    // The request's own marker, which moves with the conversation.
    let turn = json!({"cache_control": {"type": "ephemeral", "ttl": "1h"}, "messages": [say("user", &words(40)), say("assistant", "yes"), say("user", "go on")]});
    let (_, read, written) = counts(&message(&client, turn.clone()).await);
    assert!(read == 0 && written > 200);
    let mut next = turn;
    let messages = next["messages"].as_array_mut().unwrap();
    messages.extend([say("assistant", "done"), say("user", "and more")]);
    let (_, read, more) = counts(&message(&client, next).await);
    assert_eq!(read, written, "what the turn before has written");
    assert!(more > 0);
}

#[tokio::test]
async fn a_stored_context_is_named_by_its_id() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = crate::create(&client, json!({})).await;
    let reply = message(
        &client,
        json!({"context_id": id, "messages": [say("user", "hi")]}),
    )
    .await;
    let asked = json!({"context_id": id, "messages": [say("user", "hi")], "temperature": 0, "max_tokens": 16});
    let wanted = client.post("/v1/chat/completions", &asked).await;
    assert_eq!(reply.ok()["content"][0]["text"], wanted.answer());
    assert!(counts(&reply).1 > 0);

    // With a tool that only Anthropic runs it can't go on as it came.
    let refused = json!({"context_id": id, "messages": [say("user", "hi")], "tools": [{"type": "web_search_20250305", "name": "web_search"}]});
    let refused = message(&client, refused).await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn errors_are_in_the_dialect() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let ask = |fields: Value| message(&client, fields);
    let hi = json!([say("user", "hi")]);
    let cases = [
        (ask(json!({"messages": hi, "model": "nobody"})).await, 404, "not_found_error"),
        (ask(json!({"messages": [], })).await, 400, "invalid_request_error"),
        (ask(json!({"messages": hi, "context_id": "ctx-1"})).await, 404, "not_found_error"),
        (
            ask(json!({"messages": hi, "tools": [{"type": "web_search_20250305", "name": "web_search"}]})).await,
            400,
            "invalid_request_error",
        ),
        (
            client.without_key().post("/v1/messages", &json!({})).await,
            401,
            "authentication_error",
        ),
        (client.get("/v1/messages").await, 405, "invalid_request_error"),
        (client.get("/v1/messages/batches").await, 404, "not_found_error"),
    ];
    for (reply, status, kind) in cases {
        assert_eq!(reply.status, status, "{}", reply.text());
        let body = reply.json();
        assert_eq!(body["type"], "error", "{body}");
        assert_eq!(body["error"]["type"], kind, "{body}");
        assert!(!reply.header("request-id").is_empty());
    }
}

#[tokio::test]
async fn anthropic_itself_gets_the_request_as_it_came() {
    let emulator = Emulator::start(Anthropic::new()).await;
    let gateway = TestGateway::builder()
        .upstream(upstream("anthropic", &emulator.url, "key"))
        .route("claude", &[("anthropic", "claude-sonnet-4-6")])
        .start()
        .await;
    let client = gateway.client();
    let body =
        r#"{"model":"claude", "max_tokens":16,"temperature":1.0e0,"system":[{"type":"text","text":"#
            .to_owned()
            + &json!(words(3000)).to_string()
            + r#","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"hi\u00e9"}]}"#;
    let ask = async || {
        let request = client
            .request(Method::POST, "/v1/messages")
            .header("content-type", "application/json")
            .header("anthropic-beta", "context-1m-2025-08-07")
            .body(body.clone());
        Reply::of(request).await
    };
    let (_, read, written) = counts(&ask().await);
    assert!(read == 0 && written > 1024, "{written}");
    let (_, read, again) = counts(&ask().await);
    assert_eq!((read, again), (written, 0));

    let sent = emulator.requests();
    let sent = sent.last().unwrap();
    assert_eq!(sent.header("anthropic-beta"), Some("context-1m-2025-08-07"));
    let sent = String::from_utf8(sent.body.to_vec()).unwrap();
    // The tenant's line is first among the blocks; what the client wrote keeps its bytes.
    for part in [
        r#""model":"claude-sonnet-4-6""#,
        r#""temperature":1.0e0"#,
        r"hi\u00e9",
    ] {
        assert!(sent.contains(part), "{part}");
    }
    assert!(sent.contains(
        &body[body.find("{\"type\":\"text\"").unwrap()..body.find("],\"messages\"").unwrap()]
    ));
}

#[tokio::test]
async fn markers_save_on_another_provider_s_model() {
    let emulator = Emulator::start(OpenAi::new()).await;
    let gateway = TestGateway::builder()
        .upstream(upstream("openai", &format!("{}/v1", emulator.url), "key"))
        .route("gpt", &[("openai", "gpt-5.6")])
        .start()
        .await;
    let client = gateway.client();
    let ask = async |question: &str| {
        message(
            &client,
            json!({"model": "gpt", "system": [marked(&words(6000))], "messages": [say("user", question)]}),
        )
        .await
    };
    let (_, _, written) = counts(&ask("one").await);
    assert!(written > 1024);
    let (_, read, again) = counts(&ask("two").await);
    assert_eq!((read, again), (written, 0));
}
