//! The Gemini API and Vertex AI, over HTTP: each rule that a gateway could trip on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::{Charge, Emulator};
use reqwest::Method;
use serde_json::{Value, json};

#[path = "gemini/answers.rs"]
mod answers;
#[path = "gemini/caches.rs"]
mod caches;
#[path = "gemini/media.rs"]
mod media;
#[path = "gemini/requests.rs"]
mod requests;
#[path = "gemini/thinking.rs"]
mod thinking;
#[path = "gemini/vertex.rs"]
mod vertex;

/// A model whose caches hold 1024 tokens at least, and which signs its thoughts.
const MODEL: &str = "gemini-3.5-flash-lite";
const VERTEX_BASE: &str = "/v1/projects/test-project/locations/us-central1";

struct Client {
    emulator: Emulator,
    http: reqwest::Client,
    header: (&'static str, String),
    base: &'static str,
}

async fn gemini(family: Gemini) -> Client {
    Client {
        emulator: Emulator::start(family).await,
        http: reqwest::Client::new(),
        header: ("x-goog-api-key", "alice".to_owned()),
        base: "/v1beta",
    }
}

async fn vertex(family: Gemini) -> Client {
    Client {
        header: ("authorization", "Bearer test-token".to_owned()),
        base: VERTEX_BASE,
        ..gemini(family).await
    }
}

impl Client {
    async fn send_as(
        &self,
        header: (&str, &str),
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, String) {
        let url = format!("{}{}{path}", self.emulator.url, self.base);
        let mut request = self.http.request(method, url).header(header.0, header.1);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (status, text) = self
            .send_as((self.header.0, &self.header.1), method, path, body)
            .await;
        (status, serde_json::from_str(&text).unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(Method::POST, path, Some(&body)).await
    }

    async fn generate(&self, body: Value) -> (u16, Value) {
        self.post(&self.model_path("generateContent"), body).await
    }

    fn model_path(&self, method: &str) -> String {
        match self.base {
            "/v1beta" => format!("/models/{MODEL}:{method}"),
            _ => format!("/publishers/google/models/{MODEL}:{method}"),
        }
    }

    fn model_name(&self) -> String {
        match self.base {
            "/v1beta" => format!("models/{MODEL}"),
            _ => format!(
                "projects/test-project/locations/us-central1/publishers/google/models/{MODEL}"
            ),
        }
    }

    /// A cache of 1100 tokens of system text, 4 of a user's, and a tool.
    async fn create(&self, more: Value) -> Value {
        let mut body = self.cache_body();
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (status, cache) = self.post("/cachedContents", body).await;
        assert_eq!(status, 200, "{cache}");
        cache
    }

    fn cache_body(&self) -> Value {
        json!({
            "model": self.model_name(),
            "systemInstruction": {"parts": [{"text": "s".repeat(4400)}]},
            "contents": [user(&"u".repeat(16))],
        })
    }

    fn charges(&self, kind: &str) -> Vec<Charge> {
        let charges = self.emulator.bill().charges();
        charges
            .into_iter()
            .filter(|charge| charge.kind == kind)
            .collect()
    }

    async fn stream(&self, body: Value) -> Vec<Value> {
        let path = format!("{}?alt=sse", self.model_path("streamGenerateContent"));
        let (status, text) = self
            .send_as(
                (self.header.0, &self.header.1),
                Method::POST,
                &path,
                Some(&body),
            )
            .await;
        assert_eq!(status, 200, "{text}");
        text.split("\r\n\r\n")
            .filter(|event| !event.is_empty())
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }
}

fn user(text: &str) -> Value {
    json!({"role": "user", "parts": [{"text": text}]})
}

fn model(text: &str) -> Value {
    json!({"role": "model", "parts": [{"text": text}]})
}

fn question() -> Value {
    json!({"contents": [user("What?")]})
}

#[track_caller]
fn assert_error(answer: &(u16, Value), code: u16, status: &str, part: &str) {
    assert_eq!(answer.0, code, "{}", answer.1);
    let error = &answer.1["error"];
    assert_eq!(error["code"], code);
    assert_eq!(error["status"], status);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(part), "{message}");
}

#[track_caller]
fn assert_invalid(answer: &(u16, Value), part: &str) {
    assert_error(answer, 400, "INVALID_ARGUMENT", part);
}
