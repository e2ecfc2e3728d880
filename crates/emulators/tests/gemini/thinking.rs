//! What `thinkingConfig` may say to which model, and signatures on texts.

use holdfast_emulators::Answer;
use holdfast_emulators::families::gemini::Gemini;
use serde_json::{Value, json};

use super::*;

fn thinking(config: Value) -> Value {
    let mut body = question();
    body["generationConfig"] = json!({"thinkingConfig": config});
    body
}

async fn ask(client: &Client, model: &str, body: Value) -> (u16, Value) {
    let base = match client.base {
        "/v1beta" => "/models",
        _ => "/publishers/google/models",
    };
    client
        .post(&format!("{base}/{model}:generateContent"), body)
        .await
}

#[tokio::test]
async fn levels_and_budgets_go_by_the_model() {
    let client = gemini(Gemini::new()).await;
    let none = "Budget 0 is invalid. This model only works in thinking mode.";
    let no_level = "Thinking level is not supported for this model.";
    for (model, config, expected) in [
        (
            "gemini-2.0-flash",
            json!({"thinkingBudget": 0}),
            "Thinking is not enabled for models/gemini-2.0-flash",
        ),
        (
            "gemini-1.5-pro",
            json!({"includeThoughts": true}),
            "Thinking is not enabled for models/gemini-1.5-pro",
        ),
        (
            "gemini-2.5-flash",
            json!({"thinkingLevel": "LOW"}),
            no_level,
        ),
        ("gemini-2.5-pro", json!({"thinkingLevel": "HIGH"}), no_level),
        ("gemini-2.5-pro", json!({"thinkingBudget": 0}), none),
        (
            "gemini-2.5-pro",
            json!({"thinkingBudget": 127}),
            "The thinking budget 127 is invalid. Please choose a value between 128 and 32768.",
        ),
        (
            "gemini-2.5-pro",
            json!({"thinkingBudget": 32_769}),
            "between 128 and 32768",
        ),
        (
            "gemini-2.5-flash",
            json!({"thinkingBudget": 24_577}),
            "The thinking budget 24577 is invalid. Please choose a value between 0 and 24576.",
        ),
        (
            "gemini-2.5-flash",
            json!({"thinkingBudget": -2}),
            "between 0 and 24576",
        ),
        (
            "gemini-2.5-flash-lite",
            json!({"thinkingBudget": 500}),
            "between 512 and 24576",
        ),
        (
            "gemini-3.1-pro-preview",
            json!({"thinkingLevel": "MINIMAL"}),
            "Thinking level MINIMAL is not supported for this model.",
        ),
        ("gemini-3.1-pro-preview", json!({"thinkingBudget": 0}), none),
        (
            "gemini-3.8-flash",
            json!({"thinkingLevel": "LOW", "thinkingBudget": 5}),
            "You can only set only one of thinking budget and thinking level.",
        ),
        (
            "gemini-3.8-flash",
            json!({"thinkingLevel": "NONE"}),
            "Invalid value at 'generation_config.thinking_config.thinking_level'",
        ),
        (
            "gemini-3.8-flash",
            json!({"effort": "low"}),
            "Unknown name \"effort\" at 'generation_config.thinking_config'",
        ),
    ] {
        assert_invalid(&ask(&client, model, thinking(config)).await, expected);
    }
    for (model, config) in [
        ("gemini-2.5-pro", json!({"thinkingBudget": 128})),
        ("gemini-2.5-pro", json!({"thinkingBudget": -1})),
        ("gemini-2.5-flash", json!({"thinkingBudget": 0})),
        ("gemini-2.5-flash-lite", json!({"thinkingBudget": 0})),
        ("gemini-3.8-flash", json!({"thinkingLevel": "minimal"})),
        ("gemini-3.8-flash", json!({"thinkingBudget": 1024})),
        ("gemini-3.1-pro-preview", json!({"thinkingLevel": "MEDIUM"})),
        ("gemini-4-argon", json!({"thinkingLevel": "HIGH"})),
        ("gemini-2.0-flash", Value::Null),
    ] {
        let (status, answer) = ask(&client, model, thinking(config)).await;
        assert_eq!(status, 200, "{model}: {answer}");
    }
    let client = vertex(Gemini::vertex("test-token")).await;
    assert_invalid(
        &ask(
            &client,
            "gemini-2.0-flash",
            thinking(json!({"thinkingBudget": 0})),
        )
        .await,
        "thinking is not supported by this model",
    );
}

#[tokio::test]
async fn a_model_thinks_unless_it_must_not() {
    let client = gemini(Gemini::new()).await;
    for (model, config, tokens) in [
        ("gemini-2.5-flash", json!({}), 2),
        ("gemini-2.5-flash", json!({"thinkingBudget": 0}), 0),
        ("gemini-2.0-flash", Value::Null, 0),
    ] {
        client.emulator.script().next(Answer {
            reasoning: "Hmm, so.".to_owned(),
            ..Answer::text("Yes.")
        });
        let (_, answer) = ask(&client, model, thinking(config)).await;
        let counted = answer["usageMetadata"]["thoughtsTokenCount"].as_u64();
        assert_eq!(counted.unwrap_or(0), tokens, "{model}");
        let part = &answer["candidates"][0]["content"]["parts"][0];
        assert_eq!(
            (&part["text"], part.get("thoughtSignature")),
            (&json!("Yes."), None)
        );
    }
}

#[tokio::test]
async fn a_signature_on_a_text_comes_back_as_it_went() {
    let client = gemini(Gemini::new()).await;
    client.emulator.script().next(Answer::text("one two"));
    let chunks = client.stream(question()).await;
    let last = &chunks.last().unwrap()["candidates"][0]["content"]["parts"][0];
    assert_eq!(last["text"], "");
    let signature = last["thoughtSignature"].clone();
    assert!(signature.is_string());
    assert!(
        !json!(chunks[..chunks.len() - 1])
            .to_string()
            .contains("thoughtSignature")
    );

    let body = |part: Value| json!({"contents": [user("x"), {"role": "model", "parts": [{"text": "one two"}, part]}, user("y")]});
    let signed = |signature: &Value| json!({"text": "", "thoughtSignature": signature});
    assert_eq!(client.generate(body(signed(&signature))).await.0, 200);
    for wrong in [
        json!("AAAA"),
        json!(signature.as_str().unwrap().replacen('A', "B", 1)),
    ] {
        assert_invalid(
            &client.generate(body(signed(&wrong))).await,
            "Corrupted thought signature.",
        );
    }
    assert_invalid(
        &client.generate(body(signed(&json!("not base64!")))).await,
        "(TYPE_BYTES)",
    );
    client.emulator.script().next(Answer::text("one two"));
    let (_, whole) = client.generate(question()).await;
    let part = whole["candidates"][0]["content"]["parts"][0].clone();
    assert_eq!(client.generate(body(part)).await.0, 200);
}
