//! Providers that cache by themselves, Kimi and DeepSeek.

use std::time::Duration;

use holdfast_emulators::Answer;
use holdfast_emulators::families::compatible::Compatible;
use serde_json::{Value, json};

use crate::{Provider, cached, question, text, with};

fn kimi_details(usage: &Value) -> (u64, u64) {
    let details = &usage["prompt_tokens_details"];
    (
        details["cached_tokens"].as_u64().unwrap(),
        details["cache_write_tokens"].as_u64().unwrap(),
    )
}

#[tokio::test]
async fn kimi_k3_charges_for_writes_nobody_asked_for() {
    let provider = Provider::start(Compatible::kimi()).await;
    let system = text("sys", 1000);
    let usage = provider
        .usage(&question("kimi-k3", &system, &text("one", 100)))
        .await;
    assert_eq!(
        kimi_details(&usage),
        (0, 1024),
        "whole chunks of 256 tokens"
    );
    assert_eq!(provider.last_charge().cache_write, [(300, 1024)].into());
    assert_eq!(provider.last_charge().uncached_input, 76);
    let usage = provider
        .usage(&question("kimi-k3", &system, &text("two", 100)))
        .await;
    assert_eq!(kimi_details(&usage), (768, 256));
    let charge = provider.last_charge();
    assert_eq!((charge.uncached_input, charge.cache_read), (76, 768));
    assert_eq!(charge.cache_write, [(300, 256)].into());
}

#[tokio::test]
async fn kimi_k2_reads_without_having_paid() {
    let provider = Provider::start(Compatible::kimi()).await;
    let body = question("kimi-k2.6", &text("sys", 1024), "one?");
    let usage = provider.usage(&body).await;
    assert_eq!(
        usage["prompt_tokens_details"].get("cache_write_tokens"),
        None
    );
    let usage = provider.usage(&body).await;
    assert_eq!(
        (cached(&usage), usage["cached_tokens"].as_u64()),
        (1024, Some(1024))
    );
    assert!(
        provider
            .emulator
            .bill()
            .total(|_| true)
            .cache_write
            .is_empty()
    );
    let stream = provider
        .chat_with(&[], &with(&body, "stream", json!(true)))
        .await;
    let last = stream.events().pop().unwrap();
    assert_eq!(last["choices"][0]["usage"]["cached_tokens"], 1024, "{last}");
}

#[tokio::test]
async fn kimi_keeps_the_tier_of_the_write_while_it_is_used() {
    let provider = Provider::start(Compatible::kimi()).await;
    let body = question("kimi-k3", &text("sys", 1024), "one?");
    let long = with(
        &body,
        "prompt_cache_options",
        json!({"mode": "implicit", "ttl": "1h"}),
    );
    provider.usage(&long).await;
    assert_eq!(provider.last_charge().cache_write, [(3600, 1024)].into());
    provider.wait(3500);
    assert_eq!(provider.cached(&body).await, 1024);
    provider.wait(3500);
    assert_eq!(provider.cached(&body).await, 1024, "use renews");
    provider.wait(3601);
    assert_eq!(provider.cached(&body).await, 0);
    provider.wait(299);
    assert_eq!(
        provider.cached(&body).await,
        1024,
        "written for five minutes this time"
    );
    provider.wait(301);
    assert_eq!(provider.cached(&body).await, 0);
}

#[tokio::test]
async fn kimi_refuses_breakpoints_and_other_lifetimes() {
    let provider = Provider::start(Compatible::kimi()).await;
    let mut marked = question("kimi-k3", "s", "u");
    marked["messages"][0]["content"] =
        json!([{"type": "text", "text": "s", "prompt_cache_breakpoint": {"mode": "explicit"}}]);
    let plain = question("kimi-k3", "s", "u");
    for body in [
        marked,
        with(&plain, "prompt_cache_options", json!({"mode": "explicit"})),
        with(&plain, "prompt_cache_options", json!({"ttl": "30m"})),
    ] {
        assert_eq!(provider.chat_with(&[], &body).await.status, 400, "{body}");
    }
}

#[tokio::test]
async fn kimi_caches_above_256_tokens_by_key_and_effort() {
    let provider = Provider::start(Compatible::kimi()).await;
    let small = question("kimi-k3", &text("sys", 256), "one?");
    assert_eq!(
        kimi_details(&provider.usage(&small).await).1,
        256,
        "257 tokens"
    );
    let small = question("kimi-k3", &text("small", 255), "one?");
    assert_eq!(
        kimi_details(&provider.usage(&small).await).1,
        0,
        "256 tokens"
    );
    let body = with(
        &question("kimi-k3", &text("big", 1024), "one?"),
        "prompt_cache_key",
        json!("a"),
    );
    provider.usage(&body).await;
    assert_eq!(provider.cached(&body).await, 1024);
    assert_eq!(
        provider
            .cached(&with(&body, "tool_choice", json!("none")))
            .await,
        1024
    );
    assert_eq!(
        provider
            .cached(&with(&body, "prompt_cache_key", json!("b")))
            .await,
        0
    );
    assert_eq!(
        provider
            .cached(&with(&body, "reasoning_effort", json!("low")))
            .await,
        0
    );
}

/// A request that says nothing in return, so that only its input makes units.
fn one_token(body: &Value) -> Value {
    with(body, "max_tokens", json!(1))
}

#[tokio::test]
async fn deepseek_hits_whole_units_only() {
    let provider = Provider::start(Compatible::deepseek()).await;
    let system = text("sys", 500);
    let ask = |user: &str| one_token(&question("deepseek-v4-pro", &system, user));
    let usage = provider.usage(&ask("B")).await;
    assert_eq!(usage["prompt_cache_miss_tokens"], 501);
    provider.wait(6);
    // A+B is a unit, A is none yet.
    assert_eq!(
        provider.usage(&ask("C")).await["prompt_cache_hit_tokens"],
        0
    );
    // Now A was seen twice.
    provider.wait(6);
    let usage = provider.usage(&ask("D")).await;
    assert_eq!(usage["prompt_cache_hit_tokens"], 500);
    assert_eq!(usage["prompt_cache_miss_tokens"], 1);
    assert_eq!(cached(&usage), 500);
}

#[tokio::test]
async fn a_deepseek_request_that_ends_with_the_prefix_persists_it() {
    let provider = Provider::start(Compatible::deepseek()).await;
    let system = text("sys", 500);
    let prefix = json!({"model": "m", "messages": [{"role": "system", "content": system}]});
    provider.usage(&one_token(&prefix)).await;
    let ask = |user: &str| one_token(&question("m", &system, user));
    assert_eq!(
        provider.cached(&ask("B")).await,
        0,
        "units take seconds to build"
    );
    provider.wait(6);
    assert_eq!(provider.cached(&ask("C")).await, 500);
}

#[tokio::test]
async fn deepseek_persists_what_it_answered() {
    let provider = Provider::start(Compatible::deepseek_with(Duration::ZERO)).await;
    provider.emulator.script().next(Answer {
        text: "an answer of some length".to_owned(),
        reasoning: "hm".to_owned(),
        ..Answer::default()
    });
    let first = question("m", &text("sys", 500), "B");
    let answer = provider.chat_with(&[], &first).await.json();
    assert_eq!(answer["choices"][0]["message"]["reasoning_content"], "hm");
    let mut next = first;
    let messages = next["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "an answer of some length"}));
    messages.push(json!({"role": "user", "content": "C"}));
    assert_eq!(provider.cached(&one_token(&next)).await, 500 + 1 + 6);
}

#[tokio::test]
async fn zhipu_takes_effect_later() {
    let provider = Provider::start(Compatible::zhipu()).await;
    let body = question("glm-5.3", &text("sys", 1024), "one?");
    provider.usage(&body).await;
    assert_eq!(provider.cached(&body).await, 0);
    provider.wait(11);
    assert_eq!(provider.cached(&body).await, 1024);
}

#[tokio::test]
async fn minimax_wants_512_tokens() {
    let provider = Provider::start(Compatible::minimax()).await;
    for (tokens, expected) in [(500, 0), (576, 576)] {
        let body = question("MiniMax-M3", &text("sys", tokens), "one?");
        provider.usage(&body).await;
        assert_eq!(provider.cached(&body).await, expected);
    }
}

#[tokio::test]
async fn xai_finds_entries_on_the_server_of_the_conversation() {
    let provider = Provider::start(Compatible::xai()).await;
    let body = question("grok-4.7", &text("sys", 1024), "one?");
    let to = async |conversation: &str| {
        let usage = provider
            .usage_with(&[("x-grok-conv-id", conversation)], &body)
            .await;
        cached(&usage)
    };
    assert_eq!(to("c1").await, 0);
    assert_eq!(to("c1").await, 1025, "a full hit can equal the prompt");
    assert_eq!(to("c2").await, 0);
    // Without the header, and with OpenAI's key instead, requests wander.
    let keyed = with(&body, "prompt_cache_key", json!("c1"));
    for _ in 0..4 {
        assert_eq!(provider.cached(&keyed).await, 0);
    }
}

#[tokio::test]
async fn xai_counts_thinking_outside_the_output() {
    let provider = Provider::start(Compatible::xai()).await;
    provider.emulator.script().next(Answer {
        text: "12345678".to_owned(),
        reasoning: "x".repeat(40),
        ..Answer::default()
    });
    let usage = provider.usage(&question("grok-4.7", "s", "u")).await;
    assert_eq!(usage["completion_tokens"], 2);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 10);
    assert_eq!(usage["total_tokens"], 14);
    assert_eq!(usage["prompt_tokens_details"]["text_tokens"], 2);
    assert_eq!(provider.last_charge().output, 12);
}

#[tokio::test]
async fn mistral_wants_its_key() {
    let provider = Provider::start(Compatible::mistral()).await;
    let body = question("mistral-large-4", &text("sys", 640), "one?");
    let keyed = with(&body, "prompt_cache_key", json!("k"));
    provider.usage(&keyed).await;
    assert_eq!(provider.cached(&keyed).await, 640);
    assert_eq!(provider.cached(&body).await, 0);
}

#[tokio::test]
async fn groq_caches_gpt_oss_for_two_idle_hours() {
    let provider = Provider::start(Compatible::groq()).await;
    let body = question("openai/gpt-oss-120b", &text("sys", 1024), "one?");
    assert_eq!(
        provider.usage(&body).await.get("prompt_tokens_details"),
        None
    );
    provider.wait(7100);
    assert_eq!(provider.cached(&body).await, 1024);
    provider.wait(7300);
    provider.usage(&body).await;
    assert_eq!(provider.last_charge().cache_read, 0);
    let other = with(&body, "model", json!("llama-3.3-70b-versatile"));
    provider.usage(&other).await;
    provider.usage(&other).await;
    assert_eq!(provider.last_charge().cache_read, 0);
}

#[tokio::test]
async fn fireworks_keeps_entries_in_replicas_and_counts_in_headers() {
    for family in [
        Compatible::fireworks(),
        Compatible::fireworks_headers_only(),
    ] {
        let provider = Provider::start(family).await;
        let body = question("m", &text("sys", 1024), "one?");
        for (field, value) in [("user", "u"), ("prompt_cache_key", "k")] {
            let body = with(&body, field, json!(value));
            let first = provider.chat_with(&[], &body).await;
            assert_eq!(
                first.header("fireworks-cached-prompt-tokens"),
                "0",
                "{field}"
            );
            let second = provider.chat_with(&[], &body).await;
            assert_eq!(
                second.header("fireworks-cached-prompt-tokens"),
                "1024",
                "{field}"
            );
            assert_eq!(second.header("fireworks-prompt-tokens"), "1025");
        }
        let headers = [("x-session-affinity", "s")];
        provider.chat_with(&headers, &body).await;
        let stream = provider
            .chat_with(&headers, &with(&body, "stream", json!(true)))
            .await;
        assert_eq!(stream.header("fireworks-cached-prompt-tokens"), "1024");
        let wandering = provider.chat_with(&[], &body).await;
        assert_eq!(wandering.header("fireworks-cached-prompt-tokens"), "0");
    }
    let provider = Provider::start(Compatible::fireworks_headers_only()).await;
    let usage = provider.usage(&question("m", "s", "u")).await;
    assert_eq!(usage.get("prompt_tokens_details"), None);
}

#[tokio::test]
async fn a_dedicated_fireworks_deployment_separates_nobody_by_itself() {
    let provider = Provider::start(Compatible::fireworks_dedicated()).await;
    let body = with(
        &question("m", &text("sys", 1024), "one?"),
        "user",
        json!("u"),
    );
    provider.usage(&body).await;
    let other = [("authorization", "Bearer b")];
    assert_eq!(cached(&provider.usage_with(&other, &body).await), 1024);
    let isolated = [
        ("authorization", "Bearer b"),
        ("x-prompt-cache-isolation-key", "b"),
    ];
    assert_eq!(cached(&provider.usage_with(&isolated, &body).await), 0);
}

#[tokio::test]
async fn together_may_count_at_the_top() {
    let provider = Provider::start(Compatible::together_top_level()).await;
    let body = question("m", &text("sys", 640), "one?");
    provider.usage(&body).await;
    let usage = provider.usage(&body).await;
    assert_eq!(usage["cached_tokens"], 640);
    assert_eq!(usage.get("prompt_tokens_details"), None);
}

#[tokio::test]
async fn a_change_in_the_beginning_spoils_all_that_follows() {
    let provider = Provider::start(Compatible::minimax()).await;
    let body = question("m", &text("sys", 1024), "one?");
    provider.usage(&body).await;
    let mut changed = body.clone();
    changed["messages"][0]["content"] = json!(format!("!{}", text("sys", 1024)));
    assert_eq!(provider.cached(&changed).await, 0);
    let mut role = body.clone();
    role["messages"][0]["role"] = json!("user");
    assert_eq!(provider.cached(&role).await, 0);
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    assert_eq!(provider.cached(&with(&body, "tools", tools)).await, 0);
    assert_eq!(provider.cached(&body).await, 1024);
}

#[tokio::test]
async fn deepseek_finds_a_common_beginning_inside_a_message() {
    let provider = Provider::start(Compatible::deepseek_with(Duration::ZERO)).await;
    let ask = |question: &str| {
        let content = format!("{}{question}", text("doc", 500));
        let body = json!({"model": "m", "messages": [{"role": "user", "content": content}]});
        one_token(&body)
    };
    for (question, expected) in [("first?", 0), ("second?", 0), ("third?", 448)] {
        assert_eq!(
            provider.cached(&ask(question)).await,
            expected,
            "{question}"
        );
    }
}
