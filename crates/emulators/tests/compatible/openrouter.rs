//! OpenRouter.

use holdfast_emulators::families::compatible::{Compatible, ProviderFlip};
use serde_json::{Value, json};

use crate::{Provider, marked, question, text, with};

const CLAUDE: &str = "anthropic/claude-sonnet-5-5";

fn details(usage: &Value) -> (u64, u64) {
    let details = &usage["prompt_tokens_details"];
    (
        details["cached_tokens"].as_u64().unwrap(),
        details["cache_write_tokens"].as_u64().unwrap(),
    )
}

fn marked_question(model: &str, user: &str) -> Value {
    json!({"model": model, "messages": [
        {"role": "system", "content": marked(&text("sys", 2000))},
        {"role": "user", "content": user},
    ]})
}

/// Who served a chat, and its details.
async fn served(
    provider: &Provider,
    headers: &[(&str, &str)],
    body: &Value,
) -> (String, (u64, u64)) {
    let got = provider.chat_with(headers, body).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let got = got.json();
    (
        got["provider"].as_str().unwrap().to_owned(),
        details(&got["usage"]),
    )
}

#[tokio::test]
async fn a_session_keeps_to_one_provider_until_ten_idle_minutes() {
    for (headers, field) in [
        (&[][..], Some("session_id")),
        (&[("x-session-id", "s")][..], None),
        (&[][..], Some("prompt_cache_key")),
    ] {
        let provider = Provider::start(Compatible::openrouter()).await;
        // An hour of life, so that only stickiness ends.
        let ask = |user: &str| {
            let mut body = marked_question(CLAUDE, user);
            body["messages"][0]["content"][0]["cache_control"]["ttl"] = json!("1h");
            match field {
                Some(field) => with(&body, field, json!("s")),
                None => body,
            }
        };
        let (first, used) = served(&provider, headers, &ask("one?")).await;
        assert_eq!(used, (0, 2000));
        assert_eq!(provider.last_charge().cache_write, [(3600, 2000)].into());
        for user in ["two?", "three?"] {
            provider.wait(590);
            assert_eq!(
                served(&provider, headers, &ask(user)).await,
                (first.clone(), (2000, 0))
            );
        }
        provider.wait(601);
        let (second, used) = served(&provider, headers, &ask("four?")).await;
        assert_ne!(second, first);
        assert_eq!(used, (0, 2000), "written again elsewhere");
    }
}

#[tokio::test]
async fn the_body_names_the_session_before_the_header_does() {
    let provider = Provider::start(Compatible::openrouter()).await;
    let body = with(&marked_question(CLAUDE, "one?"), "session_id", json!("s"));
    let (first, _) = served(&provider, &[("x-session-id", "t")], &body).await;
    assert_eq!(
        served(&provider, &[("x-session-id", "v")], &body).await,
        (first, (2000, 0))
    );
    let long = with(&body, "session_id", json!("x".repeat(257)));
    assert_eq!(provider.chat_with(&[], &long).await.status, 400);
}

#[tokio::test]
async fn an_unnamed_conversation_sticks_by_its_beginning() {
    let provider = Provider::start(Compatible::openrouter()).await;
    let (first, _) = served(&provider, &[], &marked_question(CLAUDE, "one?")).await;
    let mut next = marked_question(CLAUDE, "one?");
    let messages = next["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "yes"}));
    messages.push(json!({"role": "user", "content": "go on"}));
    assert_eq!(
        served(&provider, &[], &next).await,
        (first.clone(), (2000, 0))
    );
    // Same context, other question: another conversation, another provider, and the write is paid again.
    let (other, used) = served(&provider, &[], &marked_question(CLAUDE, "two?")).await;
    assert_ne!(other, first);
    assert_eq!(used, (0, 2000));
}

#[tokio::test]
async fn an_order_pins_and_isnt_sticky() {
    let provider = Provider::start(Compatible::openrouter()).await;
    let pin = json!({"order": ["Amazon Bedrock"], "allow_fallbacks": false});
    for (user, expected) in [
        ("one?", (0, 2000)),
        ("two?", (2000, 0)),
        ("three?", (2000, 0)),
    ] {
        let body = with(&marked_question(CLAUDE, user), "provider", pin.clone());
        assert_eq!(
            served(&provider, &[], &body).await,
            ("Amazon Bedrock".to_owned(), expected)
        );
    }
}

#[tokio::test]
async fn a_flip_writes_again_elsewhere_and_sticks_there() {
    let flip = ProviderFlip::default();
    let provider = Provider::start(Compatible::openrouter_with(&flip)).await;
    let ask = |user: &str| with(&marked_question(CLAUDE, user), "session_id", json!("s"));
    let (first, _) = served(&provider, &[], &ask("one?")).await;
    flip.next();
    let (second, used) = served(&provider, &[], &ask("two?")).await;
    assert_ne!(second, first);
    assert_eq!(used, (0, 2000));
    assert_eq!(
        served(&provider, &[], &ask("three?")).await,
        (second, (2000, 0))
    );
}

#[tokio::test]
async fn markers_are_translated_for_openai_without_their_lifetime() {
    let provider = Provider::start(Compatible::openrouter()).await;
    let ask = |user: &str| {
        let mut body = with(
            &marked_question("openai/gpt-5.6", user),
            "session_id",
            json!("s"),
        );
        body["messages"][0]["content"][0]["cache_control"]["ttl"] = json!("1h");
        body
    };
    let (_, used) = served(&provider, &[], &ask(&text("one", 50))).await;
    assert_eq!(used, (0, 2050), "the end of the prompt is written as well");
    assert_eq!(provider.last_charge().cache_write, [(1800, 2050)].into());
    let (_, used) = served(&provider, &[], &ask(&text("two", 50))).await;
    assert_eq!(used, (2000, 50));

    // Without a marker only the whole prompt is an entry.
    let plain = |user: &str| {
        with(
            &question("openai/gpt-5.6", &text("plain", 2000), user),
            "session_id",
            json!("p"),
        )
    };
    served(&provider, &[], &plain("one?")).await;
    let (_, used) = served(&provider, &[], &plain("two?")).await;
    assert_eq!(used, (0, 2001));
}

#[tokio::test]
async fn claude_takes_four_markers_and_one_for_the_request() {
    let provider = Provider::start(Compatible::openrouter()).await;
    let parts: Vec<Value> = (0..5)
        .map(|number| marked(&format!("part {number}"))[0].clone())
        .collect();
    let body = json!({"model": CLAUDE, "messages": [{"role": "user", "content": parts}]});
    assert_eq!(provider.chat_with(&[], &body).await.status, 400);
    let mut body = with(
        &question(CLAUDE, &text("sys", 1000), "one?"),
        "session_id",
        json!("s"),
    );
    body["cache_control"] = json!({"type": "ephemeral"});
    assert_eq!(served(&provider, &[], &body).await.1, (0, 1001));
    assert_eq!(served(&provider, &[], &body).await.1, (1001, 0));
}

#[tokio::test]
async fn the_cost_is_in_the_usage_and_the_discount_at_generation() {
    let provider = Provider::start(Compatible::openrouter()).await;
    let body = with(&marked_question(CLAUDE, "one?"), "max_tokens", json!(1));
    let body = with(&body, "session_id", json!("s"));
    let mut discounts = Vec::new();
    for expected in [
        (2.0 + 2000.0 * 2.5 + 10.0) / 1e6,
        (2.0 + 2000.0 * 0.1 + 10.0) / 1e6,
    ] {
        let got = provider.chat_with(&[], &body).await.json();
        let cost = got["usage"]["cost"].as_f64().unwrap();
        assert!((cost - expected).abs() < 1e-12, "{cost} is not {expected}");
        let url = format!(
            "{}/generation?id={}",
            provider.base,
            got["id"].as_str().unwrap()
        );
        let generation = provider.send("GET", &url, &[], None).await.json();
        assert_eq!(generation["data"]["total_cost"], got["usage"]["cost"]);
        discounts.push(generation["data"]["cache_discount"].as_f64().unwrap());
    }
    assert!(discounts[0] < 0.0 && discounts[1] > 0.0, "{discounts:?}");
}

#[tokio::test]
async fn a_stream_carries_comments_and_a_failure_is_a_chunk() {
    let provider = Provider::start(Compatible::openrouter()).await;
    let body = with(&question(CLAUDE, "s", "u"), "stream", json!(true));
    let got = provider.chat_with(&[], &body).await;
    assert!(got.body.starts_with(": "));
    provider
        .emulator
        .faults()
        .next(holdfast_emulators::Fault::ErrorInside(3));
    let last = provider.chat_with(&[], &body).await.events().pop().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "error");
    assert_eq!(last["error"]["code"], "server_error");
}
