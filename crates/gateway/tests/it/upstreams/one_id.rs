//! What a context outlives, and what it shares with nobody.

use std::time::Duration;

use holdfast_emulators::Emulator;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::families::bedrock::Bedrock;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_store::KeyScope;
use holdfast_testkit::{TestGateway, upstream};
use serde_json::json;

use super::acceptance::{Marked, count, hit, rebuilt};
use super::{ask, chats, document, gateway_for, hold, outcome};

#[tokio::test]
async fn one_id_outlives_eviction_a_restart_another_key_and_the_loss_of_a_region() {
    let folder = tempfile::tempdir().unwrap();
    let (east, west) = (
        Emulator::start(Gemini::new()).await,
        Emulator::start(Gemini::new()).await,
    );
    let start = async |key: &str, clock: Option<&holdfast_testkit::TestClock>| {
        let mut second = upstream("gemini", &format!("{}/v1beta", west.url), "key-west");
        second.name = "west".to_owned();
        second.region = "west".to_owned();
        let mut builder = TestGateway::builder()
            .data_dir(folder.path())
            .upstream(upstream("gemini", &format!("{}/v1beta", east.url), key))
            .upstream(second)
            .route(
                "model",
                &[("gemini", "gemini-2.5-pro"), ("west", "gemini-2.5-pro")],
            );
        if let Some(clock) = clock {
            builder = builder.clock(clock);
        }
        builder.start().await
    };
    let creates = |emulator: &Emulator| chats(emulator, "/cachedContents");

    let gateway = start("key-1", None).await;
    gateway.clock.follow_system();
    let clock = gateway.clock.clone();
    let id = hold(&gateway.client(), "model", &document(3000, "a"), json!({})).await;
    let first = ask(&gateway.client(), &id, "What is on line 1?").await;
    assert_eq!(outcome(&first), hit());
    gateway.stop().await;

    // The handle is found again.
    let gateway = start("key-1", Some(&clock)).await;
    let client = gateway.client();
    assert_eq!(
        outcome(&ask(&client, &id, "What is on line 1?").await),
        hit()
    );
    assert_eq!(creates(&east), 1);
    east.evict_all();
    assert_eq!(
        outcome(&ask(&client, &id, "What is on line 1?").await),
        rebuilt("handle_gone")
    );
    assert_eq!(creates(&east), 2);
    gateway.stop().await;

    // Another key is another account.
    let gateway = start("key-2", Some(&clock)).await;
    let client = gateway.client();
    let reply = ask(&client, &id, "What is on line 1?").await;
    assert_eq!(outcome(&reply), rebuilt("failover"));
    assert_eq!(reply.answer(), first.answer());
    assert_eq!(
        outcome(&ask(&client, &id, "What is on line 1?").await),
        hit()
    );
    assert_eq!(creates(&east), 3);

    // The region is lost.
    let url = east.url.clone();
    drop(east);
    assert!(reqwest::get(&url).await.is_err());
    let reply = ask(&client, &id, "What is on line 1?").await;
    assert_eq!(outcome(&reply), rebuilt("failover"));
    assert_eq!(reply.answer(), first.answer());
    assert_eq!(
        outcome(&ask(&client, &id, "What is on line 1?").await),
        hit()
    );
    assert_eq!(creates(&west), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn equal_content_of_two_projects_shares_nothing_upstream() {
    let families: Vec<Marked> = vec![
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-5.6"),
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-4.1"),
        ("azure", Box::new(OpenAi::azure()), "/openai/v1", "gpt-5.6"),
        (
            "anthropic",
            Box::new(Anthropic::new()),
            "",
            "claude-opus-5-5",
        ),
        (
            "bedrock",
            Box::new(Bedrock::new()),
            "",
            "anthropic.claude-sonnet-5-5",
        ),
        (
            "gemini",
            Box::new(Gemini::new()),
            "/v1beta",
            "gemini-2.5-pro",
        ),
        (
            "ark",
            Box::new(Ark::new()),
            "/api/v3",
            "doubao-seed-2-1-pro-260915",
        ),
        (
            "qwen",
            Box::new(Compatible::qwen()),
            "/compatible-mode/v1",
            "qwen3.8-max",
        ),
        ("kimi", Box::new(Compatible::kimi()), "/v1", "kimi-k3"),
        (
            "minimax",
            Box::new(Anthropic::minimax()),
            "/anthropic",
            "MiniMax-M2.5",
        ),
        (
            "deepseek",
            Box::new(Compatible::deepseek_with(Duration::ZERO)),
            "",
            "deepseek-v4-pro",
        ),
        ("xai", Box::new(Compatible::xai()), "/v1", "grok-4.7"),
        (
            "mistral",
            Box::new(Compatible::mistral()),
            "/v1",
            "mistral-large-4",
        ),
        (
            "groq",
            Box::new(Compatible::groq()),
            "/openai/v1",
            "openai/gpt-oss-120b",
        ),
        (
            "fireworks",
            Box::new(Compatible::fireworks_dedicated()),
            "/inference/v1",
            "accounts/fireworks/models/kimi-k3",
        ),
        (
            "together",
            Box::new(Compatible::together()),
            "/v1",
            "deepseek-ai/DeepSeek-V4-Pro-0813",
        ),
        (
            "openrouter",
            Box::new(Compatible::openrouter()),
            "/api/v1",
            "anthropic/claude-sonnet-5-5",
        ),
        (
            "openrouter",
            Box::new(Compatible::openrouter()),
            "/api/v1",
            "deepseek/deepseek-v4-pro",
        ),
        ("vllm", Box::new(Compatible::vllm()), "/v1", "model"),
        ("sglang", Box::new(Compatible::sglang()), "/v1", "model"),
        (
            "llama-server",
            Box::new(Compatible::llama_server()),
            "/v1",
            "model",
        ),
    ];
    for (provider, family, base_path, model) in families {
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, provider, base_path, model).await;
        let mine = gateway.client();
        let theirs = gateway.client_of("other", &[KeyScope::Inference]).await;
        let text = document(5000, "a");
        let lazy = json!({"warm": "lazy"});
        let id = hold(&mine, "model", &text, lazy.clone()).await;
        // Thrice, because some caches learn only from a second request what is shared.
        for question in ["One?", "Two?", "Three?"] {
            ask(&mine, &id, question).await.ok();
        }
        emulator.clear_requests();
        let before = emulator.bill().total(|_| true).cache_read;
        let id = hold(&theirs, "model", &text, lazy).await;
        let reply = ask(&theirs, &id, "Three?").await;
        let expected = ("miss".to_owned(), "first_use".to_owned());
        assert_eq!(outcome(&reply), expected, "{provider} {model}");
        let is_handle = ["gemini", "ark"].contains(&provider);
        let read = emulator.bill().total(|_| true).cache_read - before;
        // What they read is their own handle, which they have just paid for.
        assert!(
            read < 100 || is_handle,
            "{provider} {model}: {read} tokens of another project"
        );
        if is_handle {
            let posts = count(&emulator, |request| request.method == "POST");
            assert_eq!(posts, 2, "{provider}: a copy of their own");
        }
        gateway.stop().await;
    }
}

/// A key that only routes leads some requests of two projects to the same machine.
#[tokio::test]
async fn where_a_key_only_routes_a_line_before_the_text_separates_projects() {
    let families: Vec<Marked> = vec![
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-4.1"),
        ("azure", Box::new(OpenAi::azure()), "/openai/v1", "gpt-4.1"),
        ("kimi", Box::new(Compatible::kimi()), "/v1", "kimi-k3"),
        (
            "mistral",
            Box::new(Compatible::mistral()),
            "/v1",
            "mistral-large-4",
        ),
    ];
    for (provider, family, base_path, model) in families {
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, provider, base_path, model).await;
        let theirs = gateway.client_of("other", &[KeyScope::Inference]).await;
        let mut first_texts = Vec::new();
        for client in [gateway.client(), gateway.client(), theirs] {
            let id = hold(&client, "model", &document(2000, "a"), json!({})).await;
            ask(&client, &id, "One?").await.ok();
            let body = emulator.requests().pop().unwrap().json().unwrap();
            first_texts.push(body["messages"][0].clone());
        }
        assert_eq!(first_texts[0], first_texts[1], "{provider}");
        assert_ne!(first_texts[0], first_texts[2], "{provider}");
        gateway.stop().await;
    }
}
