//! What keys, projects and models may use within a minute and at the same time.

use std::time::Duration;

use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::{Emulator, Fault};
use holdfast_store::{KeyScope, LimitSettings};
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use crate::{ask, create, say};

/// A gateway whose keys may use so much.
async fn per_key(change: impl FnOnce(&mut LimitSettings)) -> TestGateway {
    TestGateway::builder()
        .limits(|limits| change(&mut limits.per_key))
        .start()
        .await
}

async fn chat(client: &TestClient, max_tokens: u32) -> Reply {
    let body = json!({"model": "tiny", "messages": [say("user", "hi")], "max_tokens": max_tokens});
    client.post("/v1/chat/completions", &body).await
}

/// A header with a number.
fn number(reply: &Reply, name: &str) -> u64 {
    let text = reply.header(name);
    text.parse()
        .unwrap_or_else(|_| panic!("`{name}` is `{text}`"))
}

/// How many tokens of the limit are left; looking takes none.
async fn tokens_left(client: &TestClient) -> u64 {
    let reply = client.get("/v1/models").await;
    reply.ok();
    number(&reply, "x-ratelimit-remaining-tokens")
}

/// What a chat in OpenAI's dialect has used but for what was read from a cache.
fn used(reply: &Reply) -> u64 {
    let usage = &reply.ok()["usage"];
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
    usage["total_tokens"].as_u64().unwrap() - cached.unwrap_or(0)
}

#[tokio::test]
async fn every_dialect_says_what_is_left_and_when_to_come_back() {
    let openai = json!({"model": "tiny", "messages": [say("user", "hi")], "max_tokens": 4});
    let responses = json!({"model": "tiny", "input": "hi", "max_output_tokens": 4, "store": false});
    let google = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 4}});
    let text = json!({"model": "tiny", "prompt": "hi", "max_tokens": 4});
    let context = json!({"model": "tiny", "messages": [say("user", "hi")]});
    let cached = json!({"model": "models/tiny", "contents": google["contents"]});
    for (path, body) in [
        ("/v1/chat/completions", &openai),
        ("/api/v3/chat/completions", &openai),
        ("/v1/messages", &openai),
        ("/v1/responses", &responses),
        ("/api/v3/responses", &responses),
        ("/v1beta/models/tiny:generateContent", &google),
        ("/v1/completions", &text),
        ("/v1/context/create", &context),
        ("/api/v3/context/create", &context),
        ("/v1beta/cachedContents", &cached),
    ] {
        let gateway = per_key(|limits| {
            limits.requests_per_minute = Some(2);
            limits.tokens_per_minute = Some(1000);
        })
        .await;
        let client = gateway.client();
        for left in [1, 0] {
            let reply = client.post(path, body).await;
            reply.ok();
            let [limit, remaining, tokens] = match path {
                "/v1/messages" => [
                    "anthropic-ratelimit-requests-limit",
                    "anthropic-ratelimit-requests-remaining",
                    "anthropic-ratelimit-tokens-remaining",
                ],
                _ => [
                    "x-ratelimit-limit-requests",
                    "x-ratelimit-remaining-requests",
                    "x-ratelimit-remaining-tokens",
                ],
            };
            assert_eq!(
                (number(&reply, limit), number(&reply, remaining)),
                (2, left),
                "{path}"
            );
            assert!((900..1000).contains(&number(&reply, tokens)), "{path}");
            if path == "/v1/messages" {
                let reset = reply.header("anthropic-ratelimit-requests-reset");
                let now = gateway.clock.now() / 1000;
                let at: i64 = reset.parse::<jiff::Timestamp>().unwrap().as_second();
                assert!((now + 29..now + 62).contains(&at), "{reset}");
            } else {
                let reset = if left == 1 { "30s" } else { "1m0s" };
                assert_eq!(reply.header("x-ratelimit-reset-requests"), reset, "{path}");
            }
        }
        let refused = client.post(path, body).await;
        assert_eq!(refused.status, 429, "{path}");
        assert_eq!(refused.header("retry-after"), "30", "{path}");
        let told = refused.json();
        match path {
            "/v1/messages" => {
                assert_eq!(told["error"]["type"], "rate_limit_error");
                assert_eq!(
                    number(&refused, "anthropic-ratelimit-requests-remaining"),
                    0
                );
            }
            path if path.starts_with("/v1beta") => {
                assert_eq!(told["error"]["status"], "RESOURCE_EXHAUSTED");
                assert_eq!(told["error"]["details"][0]["retryDelay"], "30s");
            }
            _ => {
                assert_eq!(told["error"]["code"], "RateLimitExceeded", "{path}");
                assert_eq!(number(&refused, "x-ratelimit-remaining-requests"), 0);
            }
        }
        // It comes back bit by bit; what was refused has taken nothing.
        gateway.clock.advance(Duration::from_secs(30));
        client.post(path, body).await.ok();
        assert_eq!(client.post(path, body).await.status, 429, "{path}");
    }
}

#[tokio::test]
async fn without_a_limit_there_is_no_header() {
    let gateway = TestGateway::start().await;
    let reply = chat(&gateway.client(), 4).await;
    reply.ok();
    for name in ["limit", "remaining", "reset"] {
        for what in ["requests", "tokens"] {
            assert_eq!(reply.header(&format!("x-ratelimit-{name}-{what}")), "");
        }
    }
}

#[tokio::test]
async fn what_counts_is_what_was_used_and_not_what_could_have_been() {
    let gateway = per_key(|limits| limits.tokens_per_minute = Some(10_000)).await;
    let client = gateway.client();
    let reply = chat(&client, 500).await;
    // While it ran, all that it could use was taken.
    assert!(number(&reply, "x-ratelimit-remaining-tokens") <= 9500);
    let mut left = 10_000 - used(&reply);
    assert_eq!(tokens_left(&client).await, left);

    let body = json!({"model": "tiny", "messages": [say("user", "hi")], "stream": true, "stream_options": {"include_usage": true}});
    let reply = client.post("/v1/chat/completions", &body).await;
    let chunks = reply.chunks();
    left -= chunks.last().unwrap()["usage"]["total_tokens"]
        .as_u64()
        .unwrap();
    assert_eq!(tokens_left(&client).await, left);

    // Looking at what a request would use, and being refused, uses nothing.
    let count = json!({"model": "tiny", "messages": [say("user", "hi")]});
    client.post("/v1/messages/count_tokens", &count).await.ok();
    let wrong = json!({"model": "tiny", "messages": [say("user", "hi")], "max_tokens": 0});
    client.post("/v1/chat/completions", &wrong).await.error(400);
    ask(&client, "ctx-none", "hi").await.error(404);
    assert_eq!(tokens_left(&client).await, left);
}

#[tokio::test]
async fn what_a_context_holds_counts_once_and_reading_it_does_not() {
    let gateway = per_key(|limits| limits.tokens_per_minute = Some(10_000)).await;
    let client = gateway.client();
    let text = "Much to remember. ".repeat(100);
    let id = create(&client, json!({"messages": [say("system", &text)]})).await;
    let stored = 10_000 - tokens_left(&client).await;
    assert!(stored > 100, "{stored}");
    let reply = ask(&client, &id, "hi").await;
    let cached = reply.ok()["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
    assert_eq!(cached, stored);
    assert_eq!(tokens_left(&client).await, 10_000 - stored - used(&reply));
}

#[tokio::test]
async fn a_request_that_can_never_fit_is_told_so() {
    let gateway = per_key(|limits| limits.tokens_per_minute = Some(1000)).await;
    let client = gateway.client();
    let refused = chat(&client, 5000).await;
    let error = refused.error(429);
    assert_eq!(error["code"], "RateLimitExceeded");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("1000 tokens per minute")
    );
    assert_eq!(refused.header("x-should-retry"), "false");
    assert_eq!(refused.header("retry-after"), "");
    chat(&client, 500).await.ok();
}

#[tokio::test]
async fn a_stream_runs_until_its_end_or_until_its_client_leaves() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let gateway = TestGateway::builder()
        .limits(|limits| limits.per_key.concurrent_requests = Some(1))
        .upstream(upstream("vllm", &format!("{}/v1", emulator.url), "key"))
        .route("routed", &[("vllm", "m")])
        .start()
        .await;
    let client = gateway.client();
    let body = json!({"model": "routed", "messages": [say("user", "hi")], "stream": true});
    emulator
        .faults()
        .next(Fault::SlowDrip(Duration::from_secs(2)));
    let request = client.request(reqwest::Method::POST, "/v1/chat/completions");
    let running = request.json(&body).send().await.unwrap();
    assert_eq!(running.status(), 200);
    let refused = client.get("/v1/models").await;
    let error = refused.error(429);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("1 requests at the same time")
    );
    assert_eq!(refused.header("retry-after"), "1");
    // Who manages the server and who watches it are not in anybody's way.
    client.get("/admin/v1/keys").await.ok();
    client.get("/healthz").await.ok();
    let shown = client.get("/metrics").await.text();
    let line = r#"holdfast_limit_refusals_total{limit="concurrent",of="key"} 1"#;
    assert!(shown.contains(line), "{shown}");

    drop(running);
    let left = async {
        while client.get("/v1/models").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), left)
        .await
        .unwrap();
    // One after the other there is always room, however the one before ended.
    for stream in [true, false, true] {
        let body = json!({"model": "tiny", "messages": [say("user", "hi")], "stream": stream});
        assert_eq!(client.post("/v1/chat/completions", &body).await.status, 200);
        let body = json!({"model": "none", "messages": [say("user", "hi")]});
        client.post("/v1/chat/completions", &body).await.error(404);
    }
}

#[tokio::test]
async fn an_answer_that_fails_gives_its_tokens_back() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let gateway = TestGateway::builder()
        .limits(|limits| limits.per_project.tokens_per_minute = Some(1000))
        .upstream(upstream("vllm", &format!("{}/v1", emulator.url), "key"))
        .route("routed", &[("vllm", "m")])
        .start()
        .await;
    let client = gateway.client();
    for _ in 0..3 {
        emulator.faults().next(Fault::Status(400, None));
        let body = json!({"model": "routed", "messages": [say("user", "hi")], "max_tokens": 900});
        let reply = client.post("/v1/chat/completions", &body).await;
        assert_eq!(reply.status, 400, "{}", reply.text());
    }
    assert_eq!(tokens_left(&client).await, 1000);
}

#[tokio::test]
async fn limits_of_keys_projects_and_models_hold_together() {
    let gateway = TestGateway::builder()
        .limits(|limits| {
            limits.per_key.requests_per_minute = Some(100);
            let model = LimitSettings {
                requests_per_minute: Some(3),
                ..LimitSettings::default()
            };
            limits.per_model.insert("tiny".to_owned(), model);
        })
        .start()
        .await;
    let admin = gateway.client();
    let limits = json!({"requests_per_minute": 4, "concurrent_requests": 7});
    let project = json!({"name": "team", "limits": limits});
    let made = admin.post("/admin/v1/projects", &project).await.ok();
    assert_eq!(made["limits"]["requests_per_minute"], 4);
    let mut clients = Vec::new();
    for requests in [2, 50] {
        let key = json!({"project": "team", "limits": {"requests_per_minute": requests}});
        let made = admin.post("/admin/v1/keys", &key).await.ok();
        assert_eq!(made["limits"]["requests_per_minute"], requests);
        clients.push(admin.with_key(made["key"].as_str().unwrap()));
    }
    let limit = |reply: &Reply| number(reply, "x-ratelimit-limit-requests");
    let refused_for = |reply: &Reply, whose: &str| {
        let error = reply.error(429);
        let message = error["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with(&format!("This {whose}")), "{message}");
    };
    // The key's own limit is the tightest.
    let reply = chat(&clients[0], 4).await;
    assert_eq!((reply.status, limit(&reply)), (200, 2));
    clients[0].get("/v1/models").await.ok();
    refused_for(&clients[0].get("/v1/models").await, "key");
    // Its neighbour has what is left of the project's.
    let reply = clients[1].get("/v1/models").await;
    assert_eq!((reply.status, limit(&reply)), (200, 4));
    assert_eq!(chat(&clients[1], 4).await.status, 200);
    refused_for(&clients[1].get("/v1/models").await, "project");
    // The model is everybody's.
    let other = gateway.client_of("other", &[KeyScope::Inference]).await;
    let reply = chat(&other, 4).await;
    assert_eq!((reply.status, limit(&reply)), (200, 3));
    refused_for(&chat(&other, 4).await, "model");
    let body = json!({"model": "doubao-pro-32k", "messages": [say("user", "hi")]});
    other.post("/v1/chat/completions", &body).await.ok();

    // A changed limit counts from the next request on, with what was used before.
    let raise = json!({"limits": {"requests_per_minute": 9}});
    admin.patch("/admin/v1/projects/team", &raise).await.ok();
    let reply = clients[1].get("/v1/models").await;
    assert_eq!((reply.status, limit(&reply)), (200, 9));
    assert_eq!(number(&reply, "x-ratelimit-remaining-requests"), 4);
    let lift: Value = json!({"limits": null});
    admin.patch("/admin/v1/projects/team", &lift).await.ok();
    let reply = clients[1].get("/v1/models").await;
    assert_eq!((reply.status, limit(&reply)), (200, 50));
}
