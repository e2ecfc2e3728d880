//! Those about copies with names: Gemini's and Ark's.

use std::time::Duration;

use holdfast_emulators::Emulator;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_testkit::{TestGateway, upstream};
use serde_json::{Value, json};

use super::super::{ask, chats, document, gateway_for, hold, outcome, post_stream, receipt};
use super::{Provider, SEED, bodies, chat, weather};
use crate::say;

/// litellm #17696, #12212.
#[tokio::test]
async fn a_marker_meant_for_claude_does_not_become_a_failing_gemini_create() {
    let emulator = Emulator::start(Gemini::new()).await;
    let gateway = gateway_for(&emulator, "gemini", "/v1beta", "gemini-3.8-flash").await;
    let client = gateway.client();
    let marked = json!({"role": "system", "content": [
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]});
    let body = json!({"model": "model", "messages": [marked, say("user", "Hello.")]});
    chat(&client, body).await.ok();
    assert_eq!(chats(&emulator, "/cachedContents"), 0);

    let body = json!({"model": "model", "messages": [marked], "on_too_small": "replay"});
    let id = client.post("/v1/context/create", &body).await.ok()["id"].clone();
    let reply = ask(&client, id.as_str().unwrap(), "Hello.").await;
    assert_eq!(outcome(&reply).0, "degraded");
    gateway.stop().await;
}

/// litellm #17304, vercel/ai #3333, langchain-google #978.
#[tokio::test]
async fn nothing_that_belongs_into_a_gemini_cache_stands_beside_it() {
    let emulator = Emulator::start(Gemini::new()).await;
    let gateway = gateway_for(&emulator, "gemini", "/v1beta", "gemini-2.5-pro").await;
    let client = gateway.client();
    let fields = json!({"tools": [weather()], "tool_choice": "auto"});
    let id = hold(&client, "model", &document(3000, "a"), fields).await;
    let with = |fields: Value| {
        let mut body = json!({"context_id": id, "messages": [say("user", "Hello.")]});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        chat(&client, body)
    };
    for fields in [
        json!({}),
        json!({"tools": [weather()]}),
        json!({"tool_choice": "auto"}),
        json!({"messages": [say("system", "In one word."), say("user", "Hello.")]}),
    ] {
        assert_eq!(outcome(&with(fields.clone()).await).0, "hit", "{fields}");
    }
    for body in bodies(&emulator, ":streamGenerateContent") {
        assert!(body["cachedContent"].is_string());
        for field in ["systemInstruction", "tools", "toolConfig"] {
            assert!(body[field].is_null(), "{field} of {body}");
        }
    }
    emulator.clear_requests();
    // A choice that the cache was not made with is honoured without it.
    let reply = with(json!({"tool_choice": "none"})).await;
    let expected = ("degraded".to_owned(), "tool_choice_differs".to_owned());
    assert_eq!(outcome(&reply), expected);
    let body = &bodies(&emulator, ":streamGenerateContent")[0];
    assert!(body["cachedContent"].is_null());
    assert_eq!(body["toolConfig"]["functionCallingConfig"]["mode"], "NONE");
    gateway.stop().await;
}

/// litellm #16961: what `generateContent` accepts, `cachedContents` may refuse.
#[tokio::test]
async fn tool_schemas_are_the_same_in_a_cache_and_beside_it() {
    let emulator = Emulator::start(Gemini::new()).await;
    let gateway = gateway_for(&emulator, "gemini", "/v1beta", "gemini-2.5-pro").await;
    let client = gateway.client();
    let fields = json!({"tools": [weather()]});
    let id = hold(&client, "model", &document(3000, "a"), fields).await;
    assert_eq!(outcome(&ask(&client, &id, "Hello.").await).0, "hit");
    let body = json!({"model": "model", "tools": [weather()], "messages": [say("user", "Hello.")]});
    chat(&client, body).await.ok();
    let held = &bodies(&emulator, "/cachedContents")[0]["tools"];
    let sent = &bodies(&emulator, ":streamGenerateContent")[1]["tools"];
    assert!(held.is_array());
    assert_eq!(held, sent);
    gateway.stop().await;
}

/// litellm PR#37277: listing caches with each request.
#[tokio::test]
async fn handles_are_remembered_and_never_listed() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(Gemini::new()).await;
    let base_url = format!("{}/v1beta", emulator.url);
    let start = || {
        TestGateway::builder()
            .data_dir(folder.path())
            .upstream(upstream("gemini", &base_url, "key"))
            .route("model", &[("gemini", "gemini-2.5-pro")])
    };
    let gateway = start().start().await;
    gateway.clock.follow_system();
    let clock = gateway.clock.clone();
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    for question in ["One?", "Two?", "Three?"] {
        ask(&client, &id, question).await.ok();
    }
    gateway.stop().await;
    let gateway = start().clock(&clock).start().await;
    ask(&gateway.client(), &id, "Four?").await.ok();
    gateway.stop().await;
    let requests = emulator.requests();
    assert!(requests.iter().all(|request| request.method == "POST"));
    assert_eq!(requests.len(), 5);
}

/// hermes-agent PR#70528: the retry was missing where answers are streamed. Some providers say so with status 200.
#[tokio::test]
async fn a_lost_handle_is_made_again_for_streams_too() {
    let families: Vec<Provider> = vec![
        (
            "gemini",
            Box::new(Gemini::new()),
            "/v1beta",
            "gemini-2.5-pro",
        ),
        ("ark", Box::new(Ark::new()), "/api/v3", SEED),
    ];
    for (provider, family, base_path, model) in families {
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, provider, base_path, model).await;
        let client = gateway.client();
        let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
        emulator.evict_all();
        let chunks = post_stream(&client, &id, "One?").await;
        let receipt = receipt(&chunks);
        assert_eq!(receipt["status"], "rebuilt", "{provider}: {receipt}");
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert!(text.starts_with("You sent me"), "{provider}");
        gateway.stop().await;
    }
}

/// eino-ext #770, claude-code-hub #1023, veadk-python PR#443.
#[tokio::test]
async fn ark_gets_no_field_that_it_does_not_know_and_no_schema_beside_its_cache() {
    let emulator = Emulator::start(Ark::new()).await;
    let gateway = gateway_for(&emulator, "ark", "/api/v3", SEED).await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    let question = [say("user", "Hello.")];
    let unknown = json!({
        "context_id": id, "messages": question, "prompt_cache_key": "mine", "prompt_cache_retention": "24h",
        "user": "me", "metadata": {"a": "b"},
    });
    assert_eq!(outcome(&chat(&client, unknown).await).0, "hit");

    let asked = emulator.requests().len();
    let schema =
        json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}});
    let body = json!({"context_id": id, "messages": question, "response_format": schema});
    let error = chat(&client, body).await.error(400);
    assert_eq!(error["param"], "response_format", "{error}");
    let new = emulator.requests().split_off(asked);
    assert!(
        new.iter().all(|request| request.method == "DELETE"),
        "it was sent"
    );
    let body =
        json!({"context_id": id, "messages": question, "response_format": {"type": "json_object"}});
    assert_eq!(outcome(&chat(&client, body).await).0, "hit");
    gateway.stop().await;
}

/// veadk-python PR#443: the end was computed once, and later every turn failed.
#[tokio::test]
async fn the_end_of_an_ark_handle_is_counted_from_when_it_is_made() {
    let emulator = Emulator::start(Ark::new()).await;
    let gateway = gateway_for(&emulator, "ark", "/api/v3", SEED).await;
    let client = gateway.client();
    let fields = json!({"mode": "session", "ttl": 86_400});
    let id = hold(&client, "model", &document(3000, "a"), fields).await;
    for day in 0..4 {
        let wait = Duration::from_secs(80_000);
        gateway.clock.advance(wait);
        emulator.clock().advance(wait);
        ask(&client, &id, &format!("Day {day}?")).await.ok();
    }
    let ends: Vec<i64> = bodies(&emulator, "/responses")
        .iter()
        .filter(|body| body["caching"]["prefix"] == true)
        .map(|body| body["expire_at"].as_i64().unwrap())
        .collect();
    assert!(ends.len() >= 3, "{ends:?}");
    assert!(
        ends.windows(2).all(|pair| pair[1] >= pair[0] + 80_000),
        "{ends:?}"
    );
    gateway.stop().await;
}
