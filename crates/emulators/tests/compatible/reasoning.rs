//! The fields that say how much a model is to think.

use holdfast_emulators::Answer;

use super::*;

const OSS: &str = "openai/gpt-oss-120b";

fn asking(model: &str, fields: &Value) -> Value {
    let mut body = question(model, "s", "u");
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn each_provider_refuses_what_its_field_does_not_know() {
    let typed = |kind: &str| json!({"thinking": {"type": kind}});
    let effort = |word: &str| json!({"reasoning_effort": word});
    let reasoning = |fields: Value| json!({"reasoning": fields});
    let cases: Vec<(Compatible, &str, Value, &str)> = vec![
        (
            Compatible::qwen(),
            "qwen-plus",
            json!({"enable_thinking": "yes"}),
            "enable_thinking",
        ),
        (
            Compatible::qwen(),
            "qwen-plus",
            json!({"thinking_budget": 0}),
            "thinking_budget",
        ),
        (
            Compatible::qwen(),
            "qwen-plus",
            json!({"thinking_budget": "low"}),
            "thinking_budget",
        ),
        (
            Compatible::deepseek(),
            "deepseek-v4-pro",
            typed("adaptive"),
            "thinking.type",
        ),
        (
            Compatible::kimi(),
            "kimi-k3",
            typed("auto"),
            "thinking.type",
        ),
        (
            Compatible::zhipu(),
            "glm-5.3",
            json!({"thinking": "enabled"}),
            "thinking must be an object",
        ),
        (
            Compatible::groq(),
            OSS,
            effort("minimal"),
            "reasoning_effort must be one of `low`, `medium`, `high`",
        ),
        (
            Compatible::groq(),
            "llama-3.3-70b-versatile",
            effort("low"),
            "not supported with this model",
        ),
        (
            Compatible::xai(),
            "grok-4.7",
            effort("low"),
            "Model grok-4.7 does not support parameter reasoningEffort.",
        ),
        (
            Compatible::xai(),
            "grok-3-mini",
            effort("medium"),
            "reasoning_effort must be one of `low`, `high`",
        ),
        (
            Compatible::vllm(),
            "model",
            effort("none"),
            "reasoning_effort",
        ),
        (
            Compatible::vllm(),
            "model",
            json!({"chat_template_kwargs": []}),
            "chat_template_kwargs",
        ),
        (
            Compatible::sglang(),
            "model",
            effort("xhigh"),
            "reasoning_effort",
        ),
        (
            Compatible::openrouter(),
            "openai/gpt-5.6",
            json!({"reasoning": "low"}),
            "expected object",
        ),
        (
            Compatible::openrouter(),
            "openai/gpt-5.6",
            reasoning(json!({"effort": "utmost"})),
            "reasoning.effort",
        ),
        (
            Compatible::openrouter(),
            "openai/gpt-5.6",
            reasoning(json!({"max_tokens": 0})),
            "reasoning.max_tokens",
        ),
        (
            Compatible::openrouter(),
            "openai/gpt-5.6",
            reasoning(json!({"budget": 5})),
            "reasoning.budget",
        ),
        (
            Compatible::openrouter(),
            "openai/gpt-5.6",
            reasoning(json!({"effort": "low", "max_tokens": 5})),
            "\"reasoning.effort\" and \"reasoning.max_tokens\"",
        ),
    ];
    for (family, model, fields, expected) in cases {
        let provider = Provider::start(family).await;
        let got = provider.chat_with(&[], &asking(model, &fields)).await;
        assert_eq!(got.status, 400, "{fields}: {}", got.body);
        let said = got.body.replace("\\\"", "\"");
        assert!(said.contains(expected), "{fields}: {said}");
        assert!(provider.emulator.bill().charges().is_empty());
    }
}

#[tokio::test]
async fn what_its_field_knows_is_taken_and_can_switch_thinking_off() {
    let cases: Vec<(Compatible, &str, Value, bool)> = vec![
        (
            Compatible::qwen(),
            "qwen-plus",
            json!({"enable_thinking": true, "thinking_budget": 50}),
            true,
        ),
        (
            Compatible::qwen(),
            "qwen-plus",
            json!({"enable_thinking": false}),
            false,
        ),
        (
            Compatible::deepseek(),
            "deepseek-v4-pro",
            json!({"thinking": {"type": "enabled"}}),
            true,
        ),
        (
            Compatible::kimi(),
            "kimi-k3",
            json!({"thinking": {"type": "disabled"}}),
            false,
        ),
        (
            Compatible::zhipu(),
            "glm-5.3",
            json!({"thinking": {"type": "disabled"}}),
            false,
        ),
        (
            Compatible::groq(),
            OSS,
            json!({"reasoning_effort": "high"}),
            true,
        ),
        (
            Compatible::xai(),
            "grok-3-mini",
            json!({"reasoning_effort": "high"}),
            true,
        ),
        (
            Compatible::vllm(),
            "model",
            json!({"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": true}}),
            true,
        ),
        (
            Compatible::sglang(),
            "model",
            json!({"chat_template_kwargs": {"enable_thinking": false}}),
            false,
        ),
        (
            Compatible::openrouter(),
            "openai/gpt-5.6",
            json!({"reasoning": {"max_tokens": 2000}}),
            true,
        ),
        (
            Compatible::openrouter(),
            "openai/gpt-5.6",
            json!({"reasoning": {"effort": "xhigh", "exclude": false}}),
            true,
        ),
        (
            Compatible::openrouter(),
            "openai/gpt-5.6",
            json!({"reasoning": {"enabled": false}}),
            false,
        ),
    ];
    for (family, model, fields, has_thought) in cases {
        let provider = Provider::start(family).await;
        provider.emulator.script().next(Answer {
            reasoning: "Hmm, so.".to_owned(),
            ..Answer::text("Yes.")
        });
        let got = provider.chat_with(&[], &asking(model, &fields)).await;
        assert_eq!(got.status, 200, "{fields}: {}", got.body);
        assert_eq!(got.body.contains("Hmm, so."), has_thought, "{fields}");
        let output = if has_thought { 3 } else { 1 };
        assert_eq!(provider.last_charge().output, output, "{fields}");
    }
}

#[tokio::test]
async fn a_refusal_is_said_like_anything_else() {
    let provider = Provider::start(Compatible::deepseek()).await;
    let refusal = Answer::refusal("No, never.");
    provider.emulator.script().next(refusal);
    let got = provider
        .chat_with(&[], &question("deepseek-v4-pro", "s", "u"))
        .await;
    let message = &got.json()["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["refusal"]),
        (&json!("No, never."), &Value::Null)
    );
}
