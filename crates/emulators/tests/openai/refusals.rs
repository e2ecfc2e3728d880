//! What is refused, and how.

use holdfast_emulators::families::openai::OpenAi;
use serde_json::{Value, json};

use crate::{Client, marked, plain, text};

/// `base` with some fields replaced.
fn with(base: &Value, fields: Value) -> Value {
    let mut body = base.clone();
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn check(client: &Client, path: &str, cases: Vec<(Value, Option<&str>, Option<&str>)>) {
    for (body, param, code) in cases {
        let (status, answer) = client.send(path, &body).await;
        assert_eq!(status, 400, "{body}: {answer}");
        let error = &answer["error"];
        assert_eq!(error["type"], "invalid_request_error", "{body}");
        assert_eq!(
            (error["param"].as_str(), error["code"].as_str()),
            (param, code),
            "{body}: {error}"
        );
    }
    assert!(
        client.emulator.bill().charges().is_empty(),
        "a refusal costs nothing"
    );
}

#[tokio::test]
async fn chats_are_checked() {
    let client = Client::start(OpenAi::new()).await;
    let new = plain("gpt-5.6", "context", "one?");
    let old = plain("gpt-4o", "context", "one?");
    let marker = |value: Value| {
        json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "x", "prompt_cache_breakpoint": value},
        ]}]})
    };
    let message = |value: Value| json!({"messages": [value]});
    let at = "messages[0].content[0].prompt_cache_breakpoint";
    let mode_at = format!("{at}.mode");
    let ttl_at = format!("{at}.ttl");
    let text_tool = json!({"type": "function", "function": {"name": "get weather"}});
    let unanswered = json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"role": "user", "content": "y"},
    ]});
    let cases = vec![
        (with(&new, json!({"context_id": "ctx-1"})), None, None),
        (with(&new, json!({"caching": null})), None, None),
        (with(&new, json!({"model": null})), None, None),
        (
            with(&new, json!({"messages": []})),
            Some("messages"),
            Some("empty_array"),
        ),
        (
            with(&new, json!({"messages": null})),
            Some("messages"),
            Some("missing_required_parameter"),
        ),
        (
            with(&new, json!({"max_tokens": 5})),
            Some("max_tokens"),
            Some("unsupported_parameter"),
        ),
        (
            with(&new, json!({"max_completion_tokens": 0})),
            Some("max_completion_tokens"),
            Some("integer_below_min_value"),
        ),
        (
            with(&new, json!({"prompt_cache_key": "k".repeat(65)})),
            Some("prompt_cache_key"),
            Some("string_above_max_length"),
        ),
        (
            with(&new, json!({"stream_options": {"include_usage": true}})),
            Some("stream_options"),
            None,
        ),
        (
            with(&new, json!({"tools": []})),
            Some("tools"),
            Some("empty_array"),
        ),
        (
            with(&new, json!({"tools": [text_tool]})),
            Some("tools[0].function.name"),
            Some("invalid_value"),
        ),
        (
            with(&new, json!({"tool_choice": "auto"})),
            Some("tool_choice"),
            None,
        ),
        // Fields of the new era on old models.
        (
            with(&old, json!({"prompt_cache_options": {"mode": "implicit"}})),
            Some("prompt_cache_options"),
            Some("unsupported_parameter"),
        ),
        (
            with(&old, marker(json!({"mode": "explicit"}))),
            Some(at),
            Some("unsupported_parameter"),
        ),
        (
            with(&old, json!({"prompt_cache_retention": "24h"})),
            Some("prompt_cache_retention"),
            Some("unsupported_value"),
        ),
        (
            with(&new, json!({"prompt_cache_retention": "in_memory"})),
            Some("prompt_cache_retention"),
            Some("unsupported_value"),
        ),
        (
            with(
                &new,
                json!({"prompt_cache_retention": "24h", "prompt_cache_options": {"ttl": "30m"}}),
            ),
            Some("prompt_cache_retention"),
            Some("invalid_value"),
        ),
        // Chat's request lifetime is 30m only, and Responses' options aren't Chat's.
        (
            with(&new, json!({"prompt_cache_options": {"ttl": "12h"}})),
            Some("prompt_cache_options.ttl"),
            Some("invalid_value"),
        ),
        (
            with(&new, json!({"prompt_cache_options": {"prewarm": true}})),
            Some("prompt_cache_options.prewarm"),
            Some("unknown_parameter"),
        ),
        (
            with(&new, json!({"prompt_cache_options": {"mode": "auto"}})),
            Some("prompt_cache_options.mode"),
            Some("invalid_value"),
        ),
        (
            with(&new, marker(json!({"ttl": "30m"}))),
            Some(&mode_at),
            Some("missing_required_parameter"),
        ),
        (
            with(&new, marker(json!({"mode": "explicit", "ttl": "1h"}))),
            Some(&ttl_at),
            Some("invalid_value"),
        ),
        // Other dialects' ways.
        (
            with(
                &new,
                message(json!({"role": "user", "content": [
                    {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
                ]})),
            ),
            Some("messages[0].content[0].cache_control"),
            Some("unknown_parameter"),
        ),
        (
            with(
                &new,
                message(json!({"role": "assistant", "content": "x", "reasoning_content": "y"})),
            ),
            Some("messages[0].reasoning_content"),
            Some("unknown_parameter"),
        ),
        (
            with(&new, message(json!({"role": "cache", "content": "x"}))),
            Some("messages[0].role"),
            Some("invalid_value"),
        ),
        (
            with(
                &new,
                message(json!({"role": "user", "content": [{"type": "input_text", "text": "x"}]})),
            ),
            Some("messages[0].content[0].type"),
            Some("invalid_value"),
        ),
        // A history cut in the wrong place.
        (
            with(
                &new,
                message(json!({"role": "tool", "tool_call_id": "a", "content": "x"})),
            ),
            Some("messages.[0].role"),
            None,
        ),
        (with(&new, unanswered), Some("messages"), None),
    ];
    check(&client, "/v1/chat/completions", cases).await;
    let (_, answer) = client
        .send(
            "/v1/chat/completions",
            &with(&new, json!({"context_id": "ctx-1"})),
        )
        .await;
    assert_eq!(
        answer["error"]["message"],
        "Unrecognized request argument supplied: context_id"
    );
}

#[tokio::test]
async fn responses_are_checked() {
    let client = Client::start(OpenAi::new()).await;
    let new = json!({"model": "gpt-5.6", "input": "one?"});
    let item = |value: Value| json!({"input": [value]});
    let nested = json!({"type": "function", "function": {"name": "f"}});
    let cases = vec![
        (
            with(&new, json!({"messages": []})),
            Some("messages"),
            Some("unknown_parameter"),
        ),
        (
            with(&new, json!({"caching": {"type": "enabled"}})),
            Some("caching"),
            Some("unknown_parameter"),
        ),
        (
            json!({"model": "gpt-5.6"}),
            Some("input"),
            Some("missing_required_parameter"),
        ),
        (
            with(&new, json!({"max_output_tokens": 1})),
            Some("max_output_tokens"),
            Some("integer_below_min_value"),
        ),
        (
            with(&new, json!({"previous_response_id": "resp_absent"})),
            Some("previous_response_id"),
            Some("previous_response_not_found"),
        ),
        (
            with(
                &new,
                json!({"previous_response_id": "resp_a", "conversation": "conv_a"}),
            ),
            Some("conversation"),
            Some("mutually_exclusive_parameters"),
        ),
        (
            with(
                &new,
                json!({"model": "gpt-5.5", "prompt_cache_options": {"prewarm": true}}),
            ),
            Some("prompt_cache_options"),
            Some("unsupported_parameter"),
        ),
        (
            with(&new, json!({"prompt_cache_options": {"ttl": "5m"}})),
            Some("prompt_cache_options.ttl"),
            Some("invalid_value"),
        ),
        (
            with(&new, json!({"tools": [nested]})),
            Some("tools[0].name"),
            Some("missing_required_parameter"),
        ),
        (
            with(
                &new,
                item(
                    json!({"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}),
                ),
            ),
            Some("input[0].content[0].type"),
            Some("invalid_value"),
        ),
        (
            with(
                &new,
                item(json!({"role": "user", "content": [{"type": "text", "text": "x"}]})),
            ),
            Some("input[0].content[0].type"),
            Some("invalid_value"),
        ),
        (
            with(
                &new,
                item(json!({"role": "assistant", "content": [
                    {"type": "output_text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}},
                ]})),
            ),
            Some("input[0].content[0].prompt_cache_breakpoint"),
            Some("unknown_parameter"),
        ),
        (
            with(
                &new,
                item(json!({"type": "function_call_output", "call_id": "a", "output": "x"})),
            ),
            Some("input"),
            None,
        ),
        (
            with(
                &new,
                item(
                    json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}),
                ),
            ),
            Some("input"),
            None,
        ),
    ];
    check(&client, "/v1/responses", cases).await;
}

#[tokio::test]
async fn keys_paths_and_models_are_checked() {
    let client = Client::start(OpenAi::new()).await;
    let body = plain("gpt-4o", "context", "one?");
    let path = "/v1/chat/completions";
    let without = client.post(path, &body).send().await.unwrap();
    assert_eq!(without.status(), 401);
    let empty = client
        .post(path, &body)
        .header("authorization", "Bearer ")
        .send()
        .await
        .unwrap();
    assert_eq!(empty.status(), 401);
    let azure_way = client
        .post(path, &body)
        .header("api-key", "key-1")
        .send()
        .await
        .unwrap();
    assert_eq!(azure_way.status(), 401);
    assert_eq!(
        client.send("/chat/completions", &body).await.0,
        200,
        "the path without /v1"
    );
    let (status, answer) = client.send("/v1/context/create", &body).await;
    assert_eq!(
        (status, &answer["error"]["message"]),
        (404, &json!("Invalid URL (POST /v1/context/create)"))
    );
    let (status, answer) = client
        .send(path, &plain("claude-opus-5-5", "context", "one?"))
        .await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    let broken = client
        .http
        .post(format!("{}{path}", client.emulator.url))
        .bearer_auth("key-1")
        .body("{");
    assert_eq!(broken.send().await.unwrap().status(), 400);
    let models = client
        .http
        .get(format!("{}/v1/models", client.emulator.url))
        .bearer_auth("key-1");
    let models: Value = models.send().await.unwrap().json().await.unwrap();
    assert!(
        models["data"]
            .as_array()
            .unwrap()
            .iter()
            .any(|model| model["id"] == "gpt-5.6"),
        "{models}"
    );
}

#[tokio::test]
async fn what_is_allowed_is_not_refused() {
    let client = Client::start(OpenAi::new()).await;
    let mut body = marked(&text("abcd", 10), "one?");
    body = with(
        &body,
        json!({
            "prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
            "prompt_cache_key": "k".repeat(64),
            "temperature": null,
            "max_tokens": null,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
        }),
    );
    body["messages"][0]["content"][0]["prompt_cache_breakpoint"]["ttl"] = json!("12h");
    client.chat(&body).await;
    // More markers than are written are no error.
    let content = body["messages"][0]["content"].as_array_mut().unwrap();
    for _ in 0..10 {
        content.push(content[0].clone());
    }
    client.chat(&body).await;
    let old = with(
        &plain("gpt-4o", "context", "one?"),
        json!({"max_tokens": 5, "prompt_cache_retention": "in_memory"}),
    );
    client.chat(&old).await;
    client
        .chat(&with(
            &plain("gpt-5.6", "context", "one?"),
            json!({"prompt_cache_retention": "24h"}),
        ))
        .await;
}
