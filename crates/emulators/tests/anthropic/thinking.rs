//! What may be said about thinking, what it may stand beside, and what is shown of it.

use super::*;

fn budget() -> Value {
    json!({"type": "enabled", "budget_tokens": 1024})
}

fn thoughtful() -> Answer {
    Answer {
        reasoning: "Hmm, so.".into(),
        ..Answer::text("Well, yes.")
    }
}

#[tokio::test]
async fn thinking_and_effort_are_checked() {
    let desk = Desk::new().await;
    let adaptive = json!({"type": "adaptive"});
    let cases = [
        (
            json!({"thinking": "on"}),
            "thinking: Input should be a valid dictionary",
        ),
        (
            json!({"thinking": {"type": "on"}}),
            "thinking: Input tag 'on' found using 'type'",
        ),
        (
            json!({"thinking": {"type": "enabled"}}),
            "thinking.enabled.budget_tokens: Field required",
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 1023}}),
            "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
        ),
        (
            json!({"thinking": {"type": "adaptive", "budget_tokens": 1024}}),
            "thinking.adaptive.budget_tokens: Extra inputs are not permitted",
        ),
        (
            json!({"thinking": {"type": "adaptive", "effort": "low"}}),
            "thinking.adaptive.effort: Extra inputs are not permitted",
        ),
        (
            json!({"thinking": {"type": "adaptive", "display": "full"}}),
            "thinking.adaptive.display: Input should be 'summarized' or 'omitted'",
        ),
        (
            json!({"thinking": budget(), "top_k": 5}),
            "`top_k` must be unset when thinking is enabled.",
        ),
        (
            json!({"thinking": budget(), "top_p": 0.9}),
            "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.",
        ),
        (
            json!({"thinking": adaptive, "temperature": 0.5}),
            "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.",
        ),
        (
            json!({"thinking": adaptive, "top_k": 5}),
            "`top_k` must be unset when thinking is enabled or in adaptive mode.",
        ),
        (
            json!({"thinking": adaptive, "tools": [tool("look")], "tool_choice": {"type": "any"}}),
            "Thinking may not be enabled when tool_choice forces tool use.",
        ),
        (
            json!({"output_config": {"effort": "minimal"}}),
            "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'",
        ),
        (
            json!({"output_config": {"effort": 3}}),
            "output_config.effort: Input should be",
        ),
    ];
    for (change, expected) in cases {
        let mut body = request(change.clone());
        body["max_tokens"] = json!(2048);
        let message = desk.refusal(&body).await;
        assert!(message.starts_with(expected), "{change}: {message}");
    }
    for change in [
        json!({"thinking": budget(), "temperature": 1, "top_p": 0.95, "max_tokens": 2048}),
        json!({"thinking": {"type": "between_tools"}, "output_config": {"effort": "xhigh"}}),
        json!({"thinking": {"type": "disabled"}, "temperature": 0.5, "top_k": 5, "top_p": 0.1}),
        json!({"output_config": {"effort": "max"}, "top_k": 5}),
    ] {
        desk.ok(&request(change)).await;
    }
}

#[tokio::test]
async fn some_models_take_no_budget() {
    let desk = Desk::of(Anthropic::new().refusing_budgets()).await;
    let with_budget = request(json!({"thinking": budget(), "max_tokens": 2048}));
    assert!(
        desk.refusal(&with_budget)
            .await
            .starts_with("\"thinking.type.enabled\" is not supported for this model.")
    );
    desk.ok(&request(json!({"thinking": {"type": "adaptive"}})))
        .await;
}

#[tokio::test]
async fn a_thought_is_there_when_it_may_be() {
    let kinds = |answer: &Value| -> Vec<String> {
        let content = answer["content"].as_array().unwrap();
        content
            .iter()
            .map(|block| block["type"].as_str().unwrap().to_owned())
            .collect()
    };
    let desk = Desk::of(Anthropic::new().thinking_only_when_asked()).await;
    let adaptive = json!({"thinking": {"type": "adaptive"}});
    for (change, expected) in [
        (json!({}), &["text"][..]),
        (json!({"thinking": {"type": "disabled"}}), &["text"]),
        (adaptive, &["thinking", "text"]),
    ] {
        desk.emulator.script().next(thoughtful());
        assert_eq!(kinds(&desk.ok(&request(change)).await), expected);
    }
}

#[tokio::test]
async fn an_omitted_thought_is_signed_and_charged() {
    let desk = Desk::new().await;
    let mut body = request(json!({"thinking": {"type": "adaptive", "display": "omitted"}}));
    desk.emulator.script().next(thoughtful());
    let answer = desk.ok(&body).await;
    let block = answer["content"][0].clone();
    assert_eq!(
        (&block["type"], &block["thinking"]),
        (&json!("thinking"), &json!(""))
    );
    let charge = desk.emulator.bill().charges()[0].clone();
    assert_eq!(charge.output, 2 + 3);
    desk.emulator.script().next(thoughtful());
    body["stream"] = json!(true);
    let events = desk.events(&body).await;
    let deltas: Vec<&str> = events
        .iter()
        .filter(|event| event["index"] == 0)
        .filter_map(|event| event["delta"]["type"].as_str())
        .collect();
    assert_eq!(deltas, ["signature_delta"]);
    // It goes back as it came.
    body["messages"] = json!([
        {"role": "user", "content": "Why?!"},
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": "And?"},
    ]);
    body["stream"] = json!(false);
    desk.ok(&body).await;
}

#[tokio::test]
async fn a_thought_is_part_of_the_prefix() {
    let desk = Desk::new().await;
    desk.emulator.script().next(thoughtful());
    let mut body = request(json!({"thinking": {"type": "adaptive"}}));
    let said = desk.ok(&body).await["content"].clone();
    let turns = |said: &Value| {
        json!([
            {"role": "user", "content": words("first ", 200)},
            {"role": "assistant", "content": said},
            {"role": "user", "content": [marked(text("And?"), "5m")]},
        ])
    };
    body["messages"] = turns(&said);
    let (_, _, written) = desk.counts(&body).await;
    assert_eq!(written, 200 + 2 + 3 + 1);
    assert_eq!(desk.counts(&body).await.1, written);
    let without = json!([said[1]]);
    body["messages"] = turns(&without);
    assert_eq!(desk.counts(&body).await, (0, 0, written - 2));
}
