//! Chat Completions and implicit caching.

use holdfast_emulators::families::ark::Ark;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn implicit_caching_is_by_exact_prefix_and_off_beside_the_explicit() {
    let client = ark(Ark::new()).await;
    let chat = |system: &str, question: &str| {
        json!({"model": MODEL, "messages": [
            {"role": "system", "content": system}, {"role": "user", "content": question},
        ]})
    };
    let cached = |answer: &Value| {
        answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    let long = "x".repeat(1024 * 4);
    let path = "/chat/completions";
    assert_eq!(cached(&client.ok(path, &chat(&long, "a")).await), 0);
    let answer = client.ok(path, &chat(&long, "b")).await;
    assert_eq!(cached(&answer), 1024);
    assert_eq!(answer["usage"]["prompt_tokens"], 1025);
    assert_eq!(
        cached(&client.ok(path, &chat(&format!("y{long}"), "b")).await),
        0
    );
    let short = "x".repeat(1023 * 4);
    client.ok(path, &chat(&short, "aaaa")).await;
    assert_eq!(cached(&client.ok(path, &chat(&short, "b")).await), 0);
    let old = with(chat(&long, "a"), "model", json!("doubao-seed-1-8-251228"));
    client.ok(path, &old).await;
    assert_eq!(cached(&client.ok(path, &old).await), 0);
    let client = Client {
        key: "bob",
        ..client
    };
    assert_eq!(cached(&client.ok(path, &chat(&long, "b")).await), 0);

    let body = json!({"model": MODEL, "input": [
        {"role": "system", "content": long}, {"role": "user", "content": "a"},
    ]});
    client.ok("/responses", &body).await;
    let read = |answer: &Value| {
        answer["usage"]["input_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    assert!(read(&client.ok("/responses", &body).await) >= 1024);
    let explicit = with(body, "caching", json!({"type": "enabled"}));
    assert_eq!(read(&client.ok("/responses", &explicit).await), 0);
}

#[tokio::test]
async fn a_chat_streams_with_usage_when_asked() {
    let client = ark(Ark::new()).await;
    let body =
        json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": true});
    let text = client.post_text("/chat/completions", &body).await;
    assert!(text.ends_with("data: [DONE]\n\n") && !text.contains("prompt_tokens"));
    let asked = with(body, "stream_options", json!({"include_usage": true}));
    let text = client.post_text("/chat/completions", &asked).await;
    assert!(text.contains("\"prompt_tokens\":1"));
    let orphan = json!({"model": MODEL, "messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]});
    assert_invalid(
        &client.post("/chat/completions", &orphan).await,
        "messages.tool_call_id",
    );
}
