//! Events at a receiver, over HTTP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::{Emulator, Fault};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

use crate::process::{Process, config};
use crate::say;

const SECRET: &str = "a-secret-of-the-receiver";

/// A program that is told of events, and refuses the first attempt of each.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<(HeaderMap, Bytes)>>>);

impl Receiver {
    async fn start() -> (Receiver, String) {
        let receiver = Receiver::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let take = async |State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes| {
            let mut seen = receiver.0.lock().unwrap();
            let is_new = seen
                .iter()
                .all(|(known, _)| known["webhook-id"] != headers["webhook-id"]);
            seen.push((headers, body));
            match is_new {
                true => StatusCode::INTERNAL_SERVER_ERROR,
                false => StatusCode::NO_CONTENT,
            }
        };
        let router = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (receiver, url)
    }

    /// Waits for so many attempts of an event; gives its body.
    async fn got(&self, kind: &str, attempts: usize) -> Value {
        let found = async {
            loop {
                let bodies: Vec<Value> = {
                    let seen = self.0.lock().unwrap();
                    let bodies = seen.iter().map(|(headers, body)| {
                        check_signature(headers, body);
                        serde_json::from_slice::<Value>(body).unwrap()
                    });
                    bodies.filter(|body| body["type"] == kind).collect()
                };
                if bodies.len() >= attempts {
                    return bodies[0].clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(15), found).await;
        waited.unwrap_or_else(|_| panic!("no {kind}"))
    }
}

fn check_signature(headers: &HeaderMap, body: &[u8]) {
    let text = |name: &str| headers[name].to_str().unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(text("webhook-id").as_bytes());
    mac.update(b".");
    mac.update(text("webhook-timestamp").as_bytes());
    mac.update(b".");
    mac.update(body);
    let expected = format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()));
    assert_eq!(text("webhook-signature"), expected);
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "key-one").unwrap();
    std::fs::write(folder.path().join("secret"), SECRET).unwrap();
    folder
}

fn webhook(url: &str, more: &str) -> String {
    format!("\n[[webhooks]]\nurl = \"{url}\"\nsecret = \"file:secret\"\n{more}")
}

#[tokio::test]
async fn an_upstream_that_goes_down_and_comes_back_is_told_signed_and_again_until_taken() {
    let (receiver, url) = Receiver::start().await;
    let (other, other_url) = Receiver::start().await;
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text =
        config(&emulator.url, "key", &["m"]).replace("breaker_open_s = 600", "breaker_open_s = 1");
    let only = "events = [\"upstream_up\"]\n";
    let text = format!("{text}{}{}", webhook(&url, ""), webhook(&other_url, only));
    let process = Process::start_in(folder(), &text, |_| {}).await;
    let client = process.client();
    let body = json!({"model": "m", "messages": [say("user", "secret words")]});

    emulator.faults().next(Fault::Status(500, None));
    client.post("/v1/chat/completions", &body).await.error(502);
    let event = receiver.got("upstream_down", 2).await;
    assert_eq!(event["data"], json!({"upstream": "u"}));
    assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));

    let answered = async {
        while client.post("/v1/chat/completions", &body).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answered)
        .await
        .unwrap();
    receiver.got("upstream_up", 2).await;
    other.got("upstream_up", 2).await;
    for (_, body) in other.0.lock().unwrap().iter() {
        assert!(!String::from_utf8_lossy(body).contains("upstream_down"));
    }
    for (_, body) in receiver.0.lock().unwrap().iter() {
        assert!(!String::from_utf8_lossy(body).contains("secret words"));
    }
}

#[tokio::test]
async fn a_reload_that_fails_is_told_with_its_place() {
    let (receiver, url) = Receiver::start().await;
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = config(&emulator.url, "key", &["m"]);
    let text = format!("{text}{}", webhook(&url, ""));
    let process = Process::start_in(folder(), &text, |_| {}).await;
    process.write_config("[server]\nlisten = 1\n");
    process.signal("HUP").await;
    let event = receiver.got("reload_failed", 1).await;
    let message = event["data"]["message"].as_str().unwrap();
    assert!(message.contains("holdfast.toml:2:10"), "{message}");
}
