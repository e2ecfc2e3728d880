//! Contexts on upstreams: emulated providers, over real HTTP, by the providers' rules.

mod acceptance;

mod bill;
mod diagnostics;
mod every_provider;
mod failures;
mod fleets;
mod handles;
mod keep_warm;
mod ledger;
mod lessons;
mod money;
mod one_id;
mod routing;
mod warm;

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_emulators::{Emulator, RawRequest};
use holdfast_protocol::ContextId;
use holdfast_store::{AccountRecord, UpstreamStore};
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::say;

/// A text of about so many tokens by the emulators' count (four bytes each), different for each `seed`.
fn document(tokens: usize, seed: &str) -> String {
    let mut text = String::new();
    let mut line = 0;
    while text.len() < tokens * 4 {
        text.push_str(&format!(
            "Line {line} of document {seed}: the quick brown fox.\n"
        ));
        line += 1;
    }
    text
}

/// Creates a context on `model` that holds a document; returns its id.
async fn hold(client: &TestClient, model: &str, text: &str, fields: Value) -> String {
    let mut body = json!({"model": model, "messages": [say("system", text)]});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    client.post("/v1/context/create", &body).await.ok()["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Asks with a context.
async fn ask(client: &TestClient, context_id: &str, text: &str) -> Reply {
    let body = json!({"context_id": context_id, "messages": [say("user", text)]});
    client.post("/v1/chat/completions", &body).await
}

/// The status of a reply's receipt, with its reason.
fn outcome(reply: &Reply) -> (String, String) {
    let body = reply.clone().ok();
    let receipt = &body["context_cache"];
    (
        receipt["status"].as_str().unwrap().to_owned(),
        receipt["reason"].as_str().unwrap_or_default().to_owned(),
    )
}

/// Requests for answers that an emulator has seen.
fn chats(emulator: &Emulator, path_end: &str) -> usize {
    emulator
        .requests()
        .iter()
        .filter(|request| request.method == "POST" && request.path.ends_with(path_end))
        .count()
}

/// The receipt in a stream.
fn receipt(chunks: &[Value]) -> Value {
    let with_receipt = chunks
        .iter()
        .rfind(|chunk| chunk["context_cache"].is_object());
    with_receipt.unwrap()["context_cache"].clone()
}

/// The usage in a stream, which exactly one chunk carries.
fn usage_of(chunks: &[Value]) -> Value {
    let with_usage: Vec<&Value> = chunks
        .iter()
        .filter(|chunk| chunk["usage"].is_object())
        .collect();
    assert_eq!(with_usage.len(), 1, "{chunks:?}");
    with_usage[0]["usage"].clone()
}

/// Every name of a copy that an emulator has been asked for.
fn handle_names(emulator: &Emulator) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for request in emulator.requests() {
        let body = request.json().unwrap_or_default();
        for field in ["cachedContent", "previous_response_id", "context_id"] {
            names.extend(body[field].as_str().map(str::to_owned));
        }
    }
    names
}

/// Waits until an emulator's requests are so.
async fn until(emulator: &Emulator, what: &str, holds: impl Fn(&[RawRequest]) -> bool) {
    let mut in_flight = emulator.in_flight();
    let is_so = async {
        while !holds(&emulator.requests()) {
            in_flight.changed().await.unwrap();
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), is_so)
        .await
        .is_err()
    {
        let seen: Vec<String> = emulator
            .requests()
            .iter()
            .map(|request| format!("{} {}", request.method, request.path))
            .collect();
        panic!("{what}: waited in vain; seen: {seen:#?}");
    }
}

/// A gateway in front of one emulator, with the model `model`.
async fn gateway_for(
    emulator: &Emulator,
    provider: &str,
    base_path: &str,
    model: &str,
) -> TestGateway {
    let base_url = format!("{}{base_path}", emulator.url);
    let gateway = TestGateway::builder()
        .upstream(upstream(provider, &base_url, "key-1"))
        .route("model", &[(provider, model)])
        .start()
        .await;
    gateway.clock.follow_system();
    gateway
}

/// Asks with a context for a stream with usage; gives its chunks.
async fn post_stream(client: &TestClient, context_id: &str, text: &str) -> Vec<Value> {
    let body = json!({
        "context_id": context_id,
        "messages": [say("user", text)],
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    client.post("/v1/chat/completions", &body).await.chunks()
}

/// What a context has used and cost once so many chats are on its account, which is written a moment after they end.
async fn account(gateway: &TestGateway, context_id: &str, chats: u64) -> AccountRecord {
    let id: ContextId = context_id.parse().unwrap();
    let settled = async {
        loop {
            let record = gateway.store.account(&id).await.unwrap();
            if record.totals.requests >= chats && !record.currency.is_empty() {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let record = tokio::time::timeout(Duration::from_secs(10), settled).await;
    record.unwrap_or_else(|_| panic!("{context_id} has no account of {chats} chats with prices"))
}
