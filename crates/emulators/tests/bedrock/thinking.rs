//! `additionalModelRequestFields`: thinking, effort and `top_k`, by the maker of the model.

use super::*;

fn asking(fields: Value) -> Value {
    json!({
        "messages": [user(json!([{"text": "x"}]))],
        "inferenceConfig": {"maxTokens": 4096},
        "additionalModelRequestFields": fields,
    })
}

fn budget() -> Value {
    json!({"thinking": {"type": "enabled", "budget_tokens": 1024}})
}

fn thoughtful() -> Answer {
    Answer {
        reasoning: "Hmm, so.".into(),
        ..Answer::call("look", "{}")
    }
}

#[tokio::test]
async fn claude_has_the_rules_of_its_own_api() {
    let desk = Desk::new().await;
    let returned = "The model returned the following errors: ";
    let with = |mut body: Value, field: &str, name: &str, value: Value| {
        body[field][name] = value;
        body
    };
    let forced = json!({"tools": [tool("look")], "toolChoice": {"any": {}}});
    let mut forced_budget = asking(budget());
    forced_budget["toolConfig"] = forced;
    for (body, expected) in [
        (
            asking(json!({"reasoning_effort": "low"})),
            "reasoning_effort: Extra inputs are not permitted",
        ),
        (
            asking(json!({"thinking": {"type": "enabled"}})),
            "thinking.enabled.budget_tokens: Field required",
        ),
        (
            asking(json!({"thinking": {"type": "on"}})),
            "thinking: Input tag 'on' found using 'type'",
        ),
        (
            asking(json!({"output_config": {"effort": "minimal"}})),
            "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'",
        ),
        (asking(json!({"top_k": "5"})), "top_k: Input should be"),
        (
            asking(json!({"top_k": 5, "thinking": {"type": "adaptive"}})),
            "`top_k` must be unset when thinking is enabled or in adaptive mode.",
        ),
        (
            with(
                asking(budget()),
                "inferenceConfig",
                "temperature",
                json!(0.5),
            ),
            "`temperature` may only be set to 1 when thinking is enabled.",
        ),
        (
            with(asking(budget()), "inferenceConfig", "topP", json!(0.5)),
            "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.",
        ),
        (
            with(
                asking(budget()),
                "inferenceConfig",
                "maxTokens",
                json!(1024),
            ),
            "`max_tokens` must be greater than `thinking.budget_tokens`.",
        ),
        (
            forced_budget,
            "Thinking may not be enabled when tool_choice forces tool use.",
        ),
    ] {
        let message = desk.refusal(CLAUDE, &body).await;
        assert!(
            message.starts_with(&format!("{returned}{expected}")),
            "{body}: {message}"
        );
    }
    assert_eq!(
        desk.refusal(CLAUDE, &asking(json!([1]))).await,
        "The value at additionalModelRequestFields must be an object."
    );
    for fields in [
        json!({"top_k": 5}),
        budget(),
        json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}),
        json!({"thinking": {"type": "disabled"}, "top_k": 5}),
    ] {
        desk.ok(CLAUDE, &asking(fields)).await;
    }
}

#[tokio::test]
async fn other_makers_know_their_own_fields_only() {
    let desk = Desk::new().await;
    for (model, fields, key) in [
        (NOVA, json!({"top_k": 5}), "top_k"),
        (NOVA, budget(), "thinking"),
        (NOVA, json!({"inferenceConfig": {"topP": 5}}), "topP"),
        ("openai.gpt-oss-120b-1:0", budget(), "thinking"),
        ("meta.llama4-maverick-v1:0", json!({"top_k": 5}), "top_k"),
        (
            "deepseek.v3-v1:0",
            json!({"reasoning_effort": "low"}),
            "reasoning_effort",
        ),
    ] {
        let message = desk.refusal(model, &asking(fields)).await;
        assert!(
            message.contains(&format!("extraneous key [{key}] is not permitted")),
            "{model}: {message}"
        );
    }
    for (model, fields) in [
        (NOVA, json!({"reasoningConfig": {"type": "auto"}})),
        (
            NOVA,
            json!({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "max"}}),
        ),
        (
            "openai.gpt-oss-120b-1:0",
            json!({"reasoning_effort": "minimal"}),
        ),
    ] {
        let message = desk.refusal(model, &asking(fields)).await;
        assert!(message.contains("is not a valid enum value"), "{message}");
    }
    for (model, fields) in [
        (NOVA, json!({"inferenceConfig": {"topK": 5}})),
        (
            NOVA,
            json!({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}),
        ),
        (
            "openai.gpt-oss-120b-1:0",
            json!({"reasoning_effort": "high"}),
        ),
        ("meta.llama4-maverick-v1:0", json!({})),
    ] {
        desk.ok(model, &asking(fields)).await;
    }
}

#[tokio::test]
async fn thinking_goes_back_signed_and_first() {
    let desk = Desk::new().await;
    desk.emulator.script().next(thoughtful());
    let mut body = asking(budget());
    body["toolConfig"] = json!({"tools": [tool("look")]});
    let said = desk.ok(CLAUDE, &body).await["output"]["message"].clone();
    let id = said["content"][1]["toolUse"]["toolUseId"].clone();
    let result = json!({"toolResult": {"toolUseId": id, "content": [{"text": "seen"}]}});
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(said.clone());
    messages.push(user(json!([result])));
    desk.ok(CLAUDE, &body).await;
    let mut without = body.clone();
    without["messages"][1]["content"]
        .as_array_mut()
        .unwrap()
        .remove(0);
    assert!(
        desk.refusal(CLAUDE, &without)
            .await
            .contains("Expected `thinking` or `redacted_thinking`, but found `tool_use`")
    );
    without["additionalModelRequestFields"] = Value::Null;
    desk.ok(CLAUDE, &without).await;
    // Nor does a user think.
    body["messages"] = json!([user(said["content"].clone())]);
    body["messages"][0]["content"]
        .as_array_mut()
        .unwrap()
        .truncate(1);
    assert!(
        desk.refusal(CLAUDE, &body)
            .await
            .contains("`thinking` blocks are not permitted within `user` turns")
    );
}

#[tokio::test]
async fn a_thought_is_there_when_it_may_be() {
    let desk = Desk::of(Bedrock::new().thinking_only_when_asked()).await;
    for (fields, has_thought) in [
        (json!({}), false),
        (json!({"thinking": {"type": "disabled"}}), false),
        (json!({"thinking": {"type": "adaptive"}}), true),
    ] {
        desk.emulator.script().next(thoughtful());
        let answer = desk.ok(CLAUDE, &asking(fields)).await;
        let first = &answer["output"]["message"]["content"][0];
        assert_eq!(first.get("reasoningContent").is_some(), has_thought);
    }
    let omitted = asking(json!({"thinking": {"type": "adaptive", "display": "omitted"}}));
    desk.emulator.script().next(thoughtful());
    let events = desk.events(&omitted).await;
    let delta = &events[1].1["delta"]["reasoningContent"];
    assert_eq!(delta.get("text"), None);
    assert!(delta["signature"].is_string());
}
