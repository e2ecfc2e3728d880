//! The gateway through its front door: real HTTP, the deterministic toy engine, a clock that tests move.
//!
//! The toy engine's answer depends on every token before it, so "the model saw exactly these messages" is tested by
//! comparing with a plain chat of these messages.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod auth;
mod budgets;
mod chaos;
mod chat;
mod contexts;
mod create;
mod doctor;
mod errors;
mod expiry;
mod fork;
mod idempotency;
mod keys;
mod ledger;
mod limits;
mod openapi;
mod operations;
mod outage;
mod privacy;
mod process;
mod rate_limits;
mod reload;
mod replicas;
mod restart;
mod scopes;
mod sessions;
mod shared;
mod streams;
mod surfaces;
mod takeover;
mod telemetry;
mod tenancy;
mod tls;
mod truncation;
mod upstreams;
mod webhooks;

use holdfast_testkit::{Reply, TestClient};
use serde_json::{Value, json};

/// A message.
fn say(role: &str, text: &str) -> Value {
    json!({"role": role, "content": text})
}

/// Creates a context on the model `tiny` with these fields besides; returns its id.
async fn create(client: &TestClient, fields: Value) -> String {
    let mut body = json!({"model": "tiny", "messages": [say("system", "Be brief."), say("user", "The text.")]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    client.post("/v1/context/create", &body).await.ok()["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Waits until a session's next state has been computed: that happens in the background, makes way for requests, and a
/// fork waits for the very same state.
async fn settle(client: &TestClient, context_id: &str) {
    let path = format!("/v1/context/{context_id}/fork");
    let fork = client.post(&path, &json!({})).await.ok();
    let fork = fork["id"].as_str().unwrap();
    client.delete(&format!("/v1/context/{fork}")).await.ok();
}

/// Asks with a context and greedily; gives the whole reply.
async fn ask(client: &TestClient, context_id: &str, text: &str) -> Reply {
    let body = json!({"context_id": context_id, "messages": [say("user", text)], "temperature": 0});
    client.post("/v1/chat/completions", &body).await
}

/// What the model answers greedily to exactly these messages.
async fn expected(client: &TestClient, messages: &[Value]) -> String {
    let body = json!({"model": "tiny", "messages": messages, "temperature": 0});
    client.post("/v1/chat/completions", &body).await.answer()
}
