//! Anthropic's rules, over real HTTP: what a gateway gets wrong must fail here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use holdfast_emulators::families::anthropic::{Anthropic, LONG_TTL_BETA};
use holdfast_emulators::{Answer, Emulator, Fault, UsageFault};
use serde_json::{Value, json};

#[path = "anthropic/cache.rs"]
mod cache;
#[path = "anthropic/documents.rs"]
mod documents;
#[path = "anthropic/imitators.rs"]
mod imitators;
#[path = "anthropic/thinking.rs"]
mod thinking;
#[path = "anthropic/wire.rs"]
mod wire;

const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// A client of an emulator in which everything from 100 tokens on is cached.
struct Desk {
    emulator: Emulator,
    http: reqwest::Client,
    path: &'static str,
}

impl Desk {
    async fn new() -> Self {
        Self::of(Anthropic::new().cache_tokens_min(100)).await
    }

    async fn of(family: Anthropic) -> Self {
        Desk {
            emulator: Emulator::start(family).await,
            http: reqwest::Client::new(),
            path: "/v1/messages",
        }
    }

    fn request(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.http
            .post(format!("{}{path}", self.emulator.url))
            .header("x-api-key", "key-a")
            .header("anthropic-version", "2023-06-01")
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    async fn send(&self, body: &Value) -> (u16, Value) {
        answer(self.request(self.path, body)).await
    }

    async fn ok(&self, body: &Value) -> Value {
        let (status, answer) = self.send(body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn refusal(&self, body: &Value) -> String {
        let (status, answer) = self.send(body).await;
        assert_eq!(status, 400, "{answer}");
        assert_eq!(answer["type"], "error");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
        assert!(answer["request_id"].as_str().unwrap().starts_with("req_"));
        answer["error"]["message"].as_str().unwrap().to_owned()
    }

    /// Uncached, read and written tokens.
    async fn counts(&self, body: &Value) -> (u64, u64, u64) {
        counts(&self.ok(body).await["usage"])
    }

    async fn events(&self, body: &Value) -> Vec<Value> {
        let response = self.request(self.path, body).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        events(&response.text().await.unwrap())
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (
        status,
        serde_json::from_str(&response.text().await.unwrap()).unwrap(),
    )
}

/// The data of each event, whose name must be its type.
fn events(text: &str) -> Vec<Value> {
    text.split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        })
        .collect()
}

fn counts(usage: &Value) -> (u64, u64, u64) {
    let count = |name: &str| usage[name].as_u64().unwrap();
    (
        count("input_tokens"),
        count("cache_read_input_tokens"),
        count("cache_creation_input_tokens"),
    )
}

fn by_ttl(usage: &Value) -> (u64, u64) {
    let count = |name: &str| usage["cache_creation"][name].as_u64().unwrap();
    (
        count("ephemeral_5m_input_tokens"),
        count("ephemeral_1h_input_tokens"),
    )
}

/// A text of so many tokens.
fn words(seed: &str, tokens: usize) -> String {
    seed.repeat(tokens * 4)[..tokens * 4].to_owned()
}

fn text(text: impl Into<String>) -> Value {
    json!({"type": "text", "text": text.into()})
}

fn marked(mut block: Value, ttl: &str) -> Value {
    block["cache_control"] = json!({"type": "ephemeral", "ttl": ttl});
    block
}

fn request(fields: Value) -> Value {
    let mut body = json!({
        "model": "claude-opus-5-5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Why?!"}],
    });
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// A marked system text of 200 tokens and a question.
fn with_system(question: &str) -> Value {
    request(json!({
        "system": [marked(text(words("system ", 200)), "5m")],
        "messages": [{"role": "user", "content": question}],
    }))
}

fn tool(name: &str) -> Value {
    json!({"name": name, "description": words("tool ", 100), "input_schema": {"type": "object"}})
}

fn call(id: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": "look", "input": {"b": 1, "a": 2}})
}

fn result(id: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": "seen"})
}
