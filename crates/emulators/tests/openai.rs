//! The emulated OpenAI and Azure OpenAI over real HTTP, and through them the core that all families share.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "openai/azure.rs"]
mod azure;
#[path = "openai/beside.rs"]
mod beside;
#[path = "openai/breakpoints.rs"]
mod breakpoints;
#[path = "openai/faults.rs"]
mod faults;
#[path = "openai/media.rs"]
mod media;
#[path = "openai/reasoning.rs"]
mod reasoning;
#[path = "openai/refusals.rs"]
mod refusals;
#[path = "openai/responses.rs"]
mod responses;
#[path = "openai/routed.rs"]
mod routed;
#[path = "openai/wire.rs"]
mod wire;

use holdfast_emulators::{Emulator, Family};
use serde_json::{Value, json};

/// A client with one key.
pub(crate) struct Client {
    pub(crate) emulator: Emulator,
    pub(crate) http: reqwest::Client,
}

impl Client {
    pub(crate) async fn start(family: impl Family) -> Client {
        Client {
            emulator: Emulator::start(family).await,
            http: reqwest::Client::new(),
        }
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.http
            .post(format!("{}{path}", self.emulator.url))
            .json(body)
    }

    pub(crate) async fn send_as(&self, key: &str, path: &str, body: &Value) -> (u16, Value) {
        let response = self.post(path, body).bearer_auth(key).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(crate) async fn send(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send_as("key-1", path, body).await
    }

    /// A chat that must work: its usage.
    pub(crate) async fn chat(&self, body: &Value) -> Usage {
        self.chat_as("key-1", body).await
    }

    pub(crate) async fn chat_as(&self, key: &str, body: &Value) -> Usage {
        let (status, answer) = self.send_as(key, "/v1/chat/completions", body).await;
        assert_eq!(status, 200, "{answer}");
        Usage::of(&answer["usage"])
    }

    /// A response that must work: all of it.
    pub(crate) async fn respond(&self, body: &Value) -> Value {
        let (status, answer) = self.send("/v1/responses", body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The frames of a stream, as text.
    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Vec<String> {
        let response = self
            .post(path, body)
            .bearer_auth("key-1")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = response.text().await.unwrap();
        text.split_terminator("\n\n").map(str::to_owned).collect()
    }
}

/// What a usage says, in either shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) read: u64,
    pub(crate) written: u64,
}

impl Usage {
    pub(crate) fn of(usage: &Value) -> Usage {
        let (input, details) = match usage["prompt_tokens"].as_u64() {
            Some(input) => (input, &usage["prompt_tokens_details"]),
            None => (
                usage["input_tokens"].as_u64().unwrap(),
                &usage["input_tokens_details"],
            ),
        };
        Usage {
            input,
            read: details["cached_tokens"].as_u64().unwrap(),
            written: details["cache_write_tokens"].as_u64().unwrap_or(0),
        }
    }
}

/// A text of so many tokens; different `seed`s differ from the first token on.
pub(crate) fn text(seed: &str, tokens: usize) -> String {
    assert!(seed.len() == 4);
    seed.repeat(tokens)
}

/// A developer message with a marker, and a question.
pub(crate) fn marked(context: &str, question: &str) -> Value {
    json!({
        "model": "gpt-5.6",
        "messages": [
            {"role": "developer", "content": [
                {"type": "text", "text": context, "prompt_cache_breakpoint": {"mode": "explicit"}},
            ]},
            {"role": "user", "content": question},
        ],
    })
}

/// The same without a marker.
pub(crate) fn plain(model: &str, context: &str, question: &str) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "developer", "content": context}, {"role": "user", "content": question}],
    })
}
