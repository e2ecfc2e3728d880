//! Volcengine Ark, over HTTP: each rule that a gateway could trip on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::{Charge, Emulator};
use reqwest::Method;
use serde_json::{Value, json};

#[path = "ark/chat.rs"]
mod chat;
#[path = "ark/contexts.rs"]
mod contexts;
#[path = "ark/media.rs"]
mod media;
#[path = "ark/reasoning.rs"]
mod reasoning;
#[path = "ark/responses.rs"]
mod responses;

const MODEL: &str = "doubao-seed-2-1-pro-260915";
/// Has the Context API only.
const OLD_MODEL: &str = "doubao-1-5-pro-32k-250115";

struct Client {
    emulator: Emulator,
    http: reqwest::Client,
    key: &'static str,
}

async fn ark(family: Ark) -> Client {
    Client {
        emulator: Emulator::start(family).await,
        http: reqwest::Client::new(),
        key: "alice",
    }
}

impl Client {
    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}/api/v3{path}", self.emulator.url))
            .bearer_auth(self.key)
    }

    async fn send(&self, method: Method, path: &str) -> (u16, Value) {
        let response = self.request(method, path).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self
            .request(Method::POST, path)
            .json(body)
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn post_text(&self, path: &str, body: &Value) -> String {
        let response = self
            .request(Method::POST, path)
            .json(body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), 200);
        response.text().await.unwrap()
    }

    async fn respond(&self, body: &Value) -> (u16, Value) {
        self.post("/responses", body).await
    }

    async fn ok(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    fn charges(&self, kind: &str) -> Vec<Charge> {
        let charges = self.emulator.bill().charges();
        charges
            .into_iter()
            .filter(|charge| charge.kind == kind)
            .collect()
    }

    fn now(&self) -> i64 {
        self.emulator.clock().now_seconds()
    }
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

#[track_caller]
fn assert_error(answer: &(u16, Value), status: u16, code: &str, param: &str) {
    assert_eq!(answer.0, status, "{}", answer.1);
    let error = &answer.1["error"];
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!(code), &json!(param)),
        "{error}"
    );
    assert!(error["message"].as_str().unwrap().contains("Request id: "));
    assert!(error["type"].is_string());
}

#[track_caller]
fn assert_invalid(answer: &(u16, Value), param: &str) {
    assert_error(answer, 400, "InvalidParameter", param);
}
