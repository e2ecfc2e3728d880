//! The providers with an OpenAI-compatible chat route, over real HTTP: the rules that a gateway could break.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "compatible/automatic.rs"]
mod automatic;
#[path = "compatible/engines.rs"]
mod engines;
#[path = "compatible/openrouter.rs"]
mod openrouter;
#[path = "compatible/qwen.rs"]
mod qwen;
#[path = "compatible/reasoning.rs"]
mod reasoning;
#[path = "compatible/wire.rs"]
mod wire;

use std::time::Duration;

use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::{Charge, Emulator};
use serde_json::{Value, json};

/// An emulator and a client of one account.
struct Provider {
    emulator: Emulator,
    base: String,
    http: reqwest::Client,
}

/// An answer: status, headers, body.
struct Got {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Provider {
    async fn start(family: Compatible) -> Provider {
        let path = family.base_path();
        let emulator = Emulator::start(family).await;
        Provider {
            base: format!("{}{path}", emulator.url),
            emulator,
            http: reqwest::Client::new(),
        }
    }

    /// Sends with these headers; `authorization` is account `a` unless given.
    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Got {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, path);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", "Bearer a");
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        Got {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text().await.unwrap(),
        }
    }

    async fn chat_with(&self, headers: &[(&str, &str)], body: &Value) -> Got {
        let url = format!("{}/chat/completions", self.base);
        self.send("POST", &url, headers, Some(body)).await
    }

    /// A chat that must succeed; its usage.
    async fn usage(&self, body: &Value) -> Value {
        self.usage_with(&[], body).await
    }

    async fn usage_with(&self, headers: &[(&str, &str)], body: &Value) -> Value {
        let got = self.chat_with(headers, body).await;
        assert_eq!(got.status, 200, "{}", got.body);
        got.json()["usage"].clone()
    }

    /// Cached tokens that a chat reports.
    async fn cached(&self, body: &Value) -> u64 {
        cached(&self.usage(body).await)
    }

    fn last_charge(&self) -> Charge {
        self.emulator.bill().charges().pop().unwrap()
    }

    fn wait(&self, seconds: u64) {
        self.emulator.clock().advance(Duration::from_secs(seconds));
    }
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The JSON of every event's data, `[DONE]` left out.
    fn events(&self) -> Vec<Value> {
        self.body
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(str::trim)
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }

    /// The last usage that a stream carried beside its choices.
    fn stream_usage(&self) -> Option<Value> {
        self.events()
            .into_iter()
            .filter_map(|event| {
                event
                    .get("usage")
                    .filter(|usage| usage.is_object())
                    .cloned()
            })
            .next_back()
    }
}

fn cached(usage: &Value) -> u64 {
    usage["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap()
}

/// A text of so many tokens that begins like no text of another name.
fn text(name: &str, tokens: usize) -> String {
    let mut text = format!("{name:.<8}");
    text.push_str(&"word".repeat(tokens.saturating_sub(2)));
    text.truncate(tokens * 4);
    text
}

/// System text and question.
fn question(model: &str, system: &str, user: &str) -> Value {
    json!({"model": model, "messages": [
        {"role": "system", "content": system},
        {"role": "user", "content": user},
    ]})
}

/// A text part with a marker.
fn marked(text: &str) -> Value {
    json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}])
}

fn with(body: &Value, name: &str, value: Value) -> Value {
    let mut body = body.clone();
    body[name] = value;
    body
}
