//! The switch and the levels of thinking, and thoughts of earlier turns.

use holdfast_emulators::Answer;
use holdfast_emulators::families::ark::Ark;
use serde_json::{Value, json};

use super::*;

fn thoughtful() -> Answer {
    Answer {
        reasoning: "Hmm, so.".to_owned(),
        ..Answer::text("Yes.")
    }
}

fn chat() -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}]})
}

fn response() -> Value {
    json!({"model": MODEL, "input": "x"})
}

#[tokio::test]
async fn both_routes_know_the_same_words() {
    let client = ark(Ark::new()).await;
    for thinking in [json!({"type": "adaptive"}), json!({}), json!("enabled")] {
        for (path, body) in [("/chat/completions", chat()), ("/responses", response())] {
            let body = with(body, "thinking", thinking.clone());
            assert_invalid(&client.post(path, &body).await, "thinking.type");
        }
    }
    let unknown = with(
        chat(),
        "thinking",
        json!({"type": "enabled", "budget_tokens": 1024}),
    );
    let (_, answer) = client.post("/chat/completions", &unknown).await;
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("json: unknown field \"budget_tokens\"")
    );
    for word in ["none", "xhigh", "max", "LOW"] {
        let body = with(chat(), "reasoning_effort", json!(word));
        assert_invalid(
            &client.post("/chat/completions", &body).await,
            "reasoning_effort",
        );
        let body = with(response(), "reasoning", json!({"effort": word}));
        assert_invalid(&client.respond(&body).await, "reasoning.effort");
    }
    for word in ["minimal", "low", "medium", "high"] {
        let body = with(chat(), "reasoning_effort", json!(word));
        client.ok("/chat/completions", &body).await;
        let body = with(response(), "reasoning", json!({"effort": word}));
        client.ok("/responses", &body).await;
    }
    for kind in ["enabled", "disabled", "auto"] {
        client
            .ok(
                "/chat/completions",
                &with(chat(), "thinking", json!({"type": kind})),
            )
            .await;
    }
}

#[tokio::test]
async fn the_least_effort_is_none() {
    let client = ark(Ark::new()).await;
    for (field, value, has_thought) in [
        ("thinking", json!({"type": "enabled"}), true),
        ("thinking", json!({"type": "disabled"}), false),
        ("reasoning_effort", json!("low"), true),
        ("reasoning_effort", json!("minimal"), false),
    ] {
        client.emulator.script().next(thoughtful());
        let answer = client
            .ok("/chat/completions", &with(chat(), field, value))
            .await;
        let message = &answer["choices"][0]["message"];
        assert_eq!(
            message.get("reasoning_content").is_some(),
            has_thought,
            "{field}"
        );
    }
    client.emulator.script().next(thoughtful());
    let body = with(response(), "reasoning", json!({"effort": "minimal"}));
    let answer = client.ok("/responses", &body).await;
    assert_eq!(answer["output"][0]["type"], "message");
}

#[tokio::test]
async fn thoughts_go_back_as_a_summary_and_not_sealed() {
    let client = ark(Ark::new()).await;
    let body = |item: Value| {
        json!({"model": MODEL, "input": [
            {"role": "user", "content": "x"},
            item,
            {"role": "assistant", "content": "y", "partial": true},
        ]})
    };
    let summary = json!([{"type": "summary_text", "text": "Hmm."}]);
    let item = json!({"type": "reasoning", "summary": summary});
    client.ok("/responses", &body(item.clone())).await;
    let bare = json!({"type": "reasoning"});
    assert_error(
        &client.respond(&body(bare)).await,
        400,
        "MissingParameter",
        "input.summary",
    );
    let sealed = with(item, "encrypted_content", json!("gAAA"));
    let (status, answer) = client.respond(&body(sealed)).await;
    assert_eq!(status, 400);
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("unknown field \"encrypted_content\"")
    );
}
