//! Requests, answers, streams, errors.

use super::*;

#[tokio::test]
async fn what_the_service_refuses() {
    let desk = Desk::new().await;
    let user = |content: Value| json!({"role": "user", "content": content});
    let assistant = |content: Value| json!({"role": "assistant", "content": content});
    let picture = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}});
    let cases: Vec<(Value, &str)> = vec![
        (
            json!({"prompt_cache_key": "x"}),
            "prompt_cache_key: Extra inputs are not permitted",
        ),
        (
            json!({"metadata": {"trace": 1}}),
            "metadata.trace: Extra inputs are not permitted",
        ),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"temperature": 1.5}), "temperature: range: 0..1"),
        (
            json!({"stop_sequences": ["\n"]}),
            "stop_sequences: each stop sequence must contain non-whitespace",
        ),
        (
            json!({"messages": []}),
            "messages: at least one message is required",
        ),
        (
            json!({"messages": [assistant(json!("Hi"))]}),
            "messages: first message must use the \"user\" role",
        ),
        (
            json!({"messages": [{"role": "system", "content": "Hi"}]}),
            "messages: Unexpected role \"system\"",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "Hi"}]}),
            "messages: Unexpected role \"tool\"",
        ),
        (
            json!({"messages": [user(json!(""))]}),
            "messages.0: all messages must have non-empty content",
        ),
        (
            json!({"messages": [user(json!([]))]}),
            "messages.0: all messages must have non-empty content",
        ),
        (
            json!({"messages": [user(json!([text("")]))]}),
            "messages: text content blocks must be non-empty",
        ),
        (
            json!({"messages": [user(json!([marked(text(""), "5m")]))]}),
            "messages.0.content.0.text.cache_control: cache_control cannot be set for empty text blocks",
        ),
        (
            json!({"system": [text("")]}),
            "system: text content blocks must be non-empty",
        ),
        (
            json!({"messages": [user(json!([text("x"), picture]))]}),
            "messages.0.content.1.image.source.base64.data",
        ),
        (
            json!({"messages": [user(json!([{"type": "image_url"}]))]}),
            "messages.0.content.0: Input tag 'image_url'",
        ),
        (
            json!({"messages": [user(json!([{"type": "text", "text": "x", "name": 1}]))]}),
            "messages.0.content.0.text.name: Extra inputs are not permitted",
        ),
        (
            json!({"messages": [user(json!("x")), assistant(json!([
                {"type": "thinking", "thinking": "x", "signature": "y", "cache_control": {"type": "ephemeral"}}
            ])), user(json!("x"))]}),
            "messages.1.content.0.thinking.cache_control: Extra inputs are not permitted",
        ),
        (
            json!({"messages": [user(json!("x")), assistant(json!([
                {"type": "thinking", "thinking": "x", "signature": "made up"}, text("y")
            ])), user(json!("x"))]}),
            "messages.1.content.0: Invalid `signature` in `thinking` block",
        ),
        (
            json!({"system": [marked(text("x"), "30m")]}),
            "system.0.cache_control.ephemeral.ttl: Input should be '5m' or '1h'",
        ),
        (
            json!({"tools": [{"name": "look"}]}),
            "tools.0.custom.input_schema: Field required",
        ),
        (
            json!({"tools": [{"name": "look at", "input_schema": {"type": "object"}}]}),
            "tools.0.custom.name: String should match pattern",
        ),
        (
            json!({"tools": [tool("look"), tool("look")]}),
            "tools: Tool names must be unique.",
        ),
        (
            json!({"tool_choice": {"type": "auto"}}),
            "tool_choice may only be specified while providing `tools`.",
        ),
        (
            json!({"tools": [tool("look")], "tool_choice": {"type": "tool", "name": "other"}}),
            "Tool 'other' not found in provided tools",
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 1024}),
            "`max_tokens` must be greater than `thinking.budget_tokens`.",
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048, "temperature": 0.5}),
            "`temperature` may only be set to 1 when thinking is enabled.",
        ),
    ];
    for (change, expected) in cases {
        let message = desk.refusal(&request(change.clone())).await;
        assert!(message.starts_with(expected), "{change}: {message}");
    }
    for field in ["model", "messages", "max_tokens"] {
        let mut body = request(json!({}));
        body.as_object_mut().unwrap().remove(field);
        assert_eq!(
            desk.refusal(&body).await,
            format!("{field}: Field required")
        );
    }
    assert!(desk.emulator.bill().charges().is_empty());
}

#[tokio::test]
async fn calls_and_results_must_pair() {
    let desk = Desk::new().await;
    let conversation = |turns: Vec<(&str, Vec<Value>)>| {
        let mut messages = vec![json!({"role": "user", "content": "Look."})];
        messages.extend(
            turns
                .into_iter()
                .map(|(role, content)| json!({"role": role, "content": content})),
        );
        request(json!({"messages": messages, "tools": [tool("look")]}))
    };
    let two_calls = ("assistant", vec![call("t1"), call("t2")]);
    desk.ok(&conversation(vec![
        two_calls.clone(),
        ("user", vec![result("t2"), result("t1"), text("So?")]),
    ]))
    .await;
    // Messages of one role are one turn.
    desk.ok(&conversation(vec![
        two_calls.clone(),
        ("user", vec![result("t1")]),
        ("user", vec![result("t2")]),
    ]))
    .await;
    let unanswered =
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: ";
    let orphan = "unexpected `tool_use_id` found in `tool_result` blocks: t9.";
    for (turns, expected) in [
        (
            vec![two_calls.clone(), ("user", vec![result("t1")])],
            unanswered,
        ),
        (
            vec![two_calls.clone(), ("user", vec![text("So?")])],
            unanswered,
        ),
        (
            vec![
                two_calls.clone(),
                ("user", vec![text("So?"), result("t1"), result("t2")]),
            ],
            unanswered,
        ),
        (vec![two_calls.clone()], unanswered),
        (
            vec![
                ("assistant", vec![text("No.")]),
                ("user", vec![result("t9")]),
            ],
            orphan,
        ),
        (
            vec![
                two_calls.clone(),
                ("user", vec![result("t1"), result("t2"), result("t9")]),
            ],
            orphan,
        ),
        (
            vec![("assistant", vec![call("t1"), call("t1")])],
            "`tool_use` ids must be unique",
        ),
        (
            vec![("user", vec![call("t1")])],
            "`tool_use` blocks are not permitted within `user` turns",
        ),
    ] {
        let message = desk.refusal(&conversation(turns.clone())).await;
        assert!(message.contains(expected), "{turns:?}: {message}");
    }
    let mut without_tools =
        conversation(vec![two_calls, ("user", vec![result("t1"), result("t2")])]);
    without_tools.as_object_mut().unwrap().remove("tools");
    assert!(
        desk.refusal(&without_tools)
            .await
            .ends_with("must define tools")
    );
}

#[tokio::test]
async fn headers_and_paths_are_checked() {
    let desk = Desk::new().await;
    let url = format!("{}/v1/messages", desk.emulator.url);
    let body = request(json!({}));
    let (status, error) = answer(
        desk.http
            .post(&url)
            .header("anthropic-version", "2023-06-01")
            .body(body.to_string()),
    )
    .await;
    assert_eq!(
        (status, error["error"]["type"].as_str()),
        (401, Some("authentication_error"))
    );
    let bearer = desk
        .http
        .post(&url)
        .bearer_auth("key-a")
        .header("anthropic-version", "2023-06-01");
    assert_eq!(answer(bearer.body(body.to_string())).await.0, 401);
    let (status, error) = answer(
        desk.http
            .post(&url)
            .header("x-api-key", "key-a")
            .body(body.to_string()),
    )
    .await;
    assert_eq!(
        (status, error["error"]["message"].as_str()),
        (400, Some("anthropic-version: header is required"))
    );
    let (status, error) = answer(desk.request("/v1/chat/completions", &body)).await;
    assert_eq!(
        (status, error["error"]["type"].as_str()),
        (404, Some("not_found_error"))
    );
    let (status, error) = desk.send(&request(json!({"model": "gpt-6"}))).await;
    assert_eq!(
        (status, error["error"]["message"].as_str()),
        (404, Some("model: gpt-6"))
    );

    let long = request(json!({"model": "claude-haiku-4-5", "system": words("long ", 200_001)}));
    assert_eq!(
        desk.refusal(&long).await,
        "prompt is too long: 200003 tokens > 200000 maximum"
    );
    let huge = request(json!({"system": words("huge ", 8 * 1024 * 1024)}));
    let (status, error) = desk.send(&huge).await;
    assert_eq!(
        (status, error["error"]["type"].as_str()),
        (413, Some("request_too_large"))
    );
}

#[tokio::test]
async fn tokens_are_counted_and_models_listed() {
    let desk = Desk::new().await;
    let mut body = with_system("One?");
    let (status, error) = answer(desk.request("/v1/messages/count_tokens", &body)).await;
    assert_eq!(
        (status, error["error"]["message"].as_str()),
        (400, Some("max_tokens: Extra inputs are not permitted"))
    );
    body.as_object_mut().unwrap().remove("max_tokens");
    let (_, count) = answer(desk.request("/v1/messages/count_tokens", &body)).await;
    assert_eq!(count, json!({"input_tokens": 201}));
    assert_eq!(
        desk.counts(&with_system("One?")).await.1,
        0,
        "counting writes nothing"
    );

    let get = |path: &str| {
        desk.http
            .get(format!("{}{path}", desk.emulator.url))
            .header("x-api-key", "key-a")
            .header("anthropic-version", "2023-06-01")
    };
    let (_, first) = answer(get("/v1/models?limit=5")).await;
    assert_eq!(
        (first["data"].as_array().unwrap().len(), &first["has_more"]),
        (5, &json!(true))
    );
    let after = first["last_id"].as_str().unwrap();
    let (_, rest) = answer(get(&format!("/v1/models?limit=1000&after_id={after}"))).await;
    assert_eq!(rest["has_more"], false);
    assert!(
        rest["data"]
            .as_array()
            .unwrap()
            .iter()
            .all(|model| model["id"] != after)
    );
    assert_eq!(
        answer(get("/v1/models/claude-opus-5-5")).await.1["id"],
        "claude-opus-5-5"
    );
    assert_eq!(answer(get("/v1/models/gpt-6")).await.0, 404);
}

#[tokio::test]
async fn a_stream_has_the_documented_events_and_the_same_usage() {
    let desk = Desk::new().await;
    let script = Answer {
        text: "Well, yes.".into(),
        reasoning: "Hmm, so.".into(),
        ..Answer::call("look", r#"{"at":"it"}"#)
    };
    desk.emulator.script().next(script.clone());
    desk.emulator.script().next(script);
    let mut body = with_system("One?");
    body["tools"] = json!([tool("look")]);
    let whole = desk.ok(&body).await;
    body["stream"] = json!(true);
    desk.emulator.evict_all();
    let events = desk.events(&body).await;
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    let thinking = ["content_block_start", "ping"]
        .into_iter()
        .chain(["content_block_delta"; 3])
        .chain(["content_block_stop"]);
    let two_deltas = [
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
    ];
    let expected: Vec<&str> = ["message_start"]
        .into_iter()
        .chain(thinking)
        .chain(two_deltas)
        .chain(two_deltas)
        .chain(["message_delta", "message_stop"])
        .collect();
    assert_eq!(kinds, expected);

    let start = &events[0]["message"];
    assert_eq!(
        (
            &start["content"],
            &start["stop_reason"],
            &start["usage"]["output_tokens"]
        ),
        (&json!([]), &Value::Null, &json!(1))
    );
    assert_eq!(counts(&start["usage"]), counts(&whole["usage"]));
    assert_eq!(
        start["usage"]["cache_creation"],
        whole["usage"]["cache_creation"]
    );
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "tool_use");
    assert_eq!(
        end["usage"]["output_tokens"],
        whole["usage"]["output_tokens"]
    );
    assert_eq!(counts(&end["usage"]), counts(&whole["usage"]));

    // Put together, the stream is the whole answer.
    let mut content: Vec<Value> = Vec::new();
    for event in &events {
        let append = |block: &mut Value, field: &str, piece: &Value| {
            block[field] = json!(format!(
                "{}{}",
                block[field].as_str().unwrap_or_default(),
                piece.as_str().unwrap()
            ));
        };
        match event["type"].as_str().unwrap() {
            "content_block_start" => content.push(event["content_block"].clone()),
            "content_block_delta" => {
                let (block, delta) = (content.last_mut().unwrap(), &event["delta"]);
                match delta["type"].as_str().unwrap() {
                    "text_delta" => append(block, "text", &delta["text"]),
                    "thinking_delta" => append(block, "thinking", &delta["thinking"]),
                    "signature_delta" => append(block, "signature", &delta["signature"]),
                    "input_json_delta" => append(block, "input", &delta["partial_json"]),
                    other => panic!("{other}"),
                }
            }
            _ => {}
        }
    }
    content[2]["input"] = serde_json::from_str(content[2]["input"].as_str().unwrap()).unwrap();
    content[2]["id"] = whole["content"][2]["id"].clone();
    assert_eq!(json!(content), whole["content"]);
}

#[tokio::test]
async fn thinking_goes_back_signed_and_first() {
    let desk = Desk::new().await;
    desk.emulator.script().next(Answer {
        reasoning: "Hmm.".into(),
        ..Answer::call("look", "{}")
    });
    let thinking = json!({"type": "enabled", "budget_tokens": 1024});
    let mut body =
        request(json!({"max_tokens": 2048, "thinking": thinking, "tools": [tool("look")]}));
    let mut content = desk.ok(&body).await["content"].clone();
    assert_eq!(
        (&content[0]["type"], &content[1]["type"]),
        (&json!("thinking"), &json!("tool_use"))
    );
    let id = content[1]["id"].as_str().unwrap().to_owned();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": content}));
    messages.push(json!({"role": "user", "content": [result(&id)]}));
    desk.ok(&body).await;
    content.as_array_mut().unwrap().remove(0);
    body["messages"][1]["content"] = content;
    assert!(
        desk.refusal(&body)
            .await
            .contains("Expected `thinking` or `redacted_thinking`, but found `tool_use`")
    );
}

#[tokio::test]
async fn a_call_without_arguments_streams_no_json() {
    let desk = Desk::new().await;
    let body =
        request(json!({"stream": true, "tools": [tool("look")], "tool_choice": {"type": "any"}}));
    let events = desk.events(&body).await;
    let pieces: String = events
        .iter()
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(pieces, "");
    assert_eq!(events[1]["content_block"]["input"], json!({}));
}

#[tokio::test]
async fn limits_of_the_answer_are_kept() {
    let desk = Desk::new().await;
    let text = "One two three four five six.";
    for (change, reason, said) in [
        (json!({}), "end_turn", text),
        (json!({"max_tokens": 2}), "max_tokens", "One two "),
        (
            json!({"stop_sequences": ["five", "three"]}),
            "stop_sequence",
            "One two ",
        ),
    ] {
        desk.emulator.script().next(Answer::text(text));
        let answer = desk.ok(&request(change)).await;
        assert_eq!(
            (
                answer["stop_reason"].as_str(),
                answer["content"][0]["text"].as_str()
            ),
            (Some(reason), Some(said))
        );
        assert_eq!(
            answer["stop_sequence"].as_str(),
            (reason == "stop_sequence").then_some("three")
        );
    }
    desk.emulator.script().next(Answer {
        filtered: true,
        ..Answer::text("No.")
    });
    assert_eq!(desk.ok(&request(json!({}))).await["stop_reason"], "refusal");
    let desk = Desk::of(Anthropic::new().refusing_prefill()).await;
    let messages =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well"}]);
    assert!(
        desk.refusal(&request(json!({"messages": messages})))
            .await
            .contains("prefill")
    );
}

#[tokio::test]
async fn ordered_failures_come_in_the_envelope() {
    let desk = Desk::new().await;
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ] {
        desk.emulator.faults().next(Fault::Status(status, Some(7)));
        let response = desk
            .request("/v1/messages", &with_system("One?"))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                response.headers()["retry-after"].to_str().unwrap()
            ),
            (status, "7")
        );
        assert!(response.headers().contains_key("request-id"));
        let error: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(
            (error["type"].as_str(), error["error"]["type"].as_str()),
            (Some("error"), Some(kind))
        );
    }
    desk.emulator.faults().next(Fault::ErrorInside(3));
    let mut body = with_system("One?");
    body["stream"] = json!(true);
    let events = desk.events(&body).await;
    assert_eq!(events.len(), 4);
    assert_eq!(events[3]["error"]["type"], "overloaded_error");
    assert!(!desk.emulator.bill().charges()[0].reported);
    // What was written before the stream broke is there, paid for.
    assert_eq!(desk.counts(&with_system("One?")).await.1, 200);
}

#[tokio::test]
async fn usage_can_be_missing_repeated_or_impossible() {
    let desk = Desk::new().await;
    let mut body = with_system("One?");
    desk.emulator
        .faults()
        .next(Fault::Usage(UsageFault::Missing));
    assert!(desk.ok(&body).await.get("usage").is_none());
    desk.emulator.evict_all();
    desk.emulator
        .faults()
        .next(Fault::Usage(UsageFault::Impossible));
    let usage = desk.ok(&body).await["usage"].clone();
    let (five_minutes, hour) = by_ttl(&usage);
    assert!(five_minutes + hour > usage["cache_creation_input_tokens"].as_u64().unwrap());
    assert_eq!(desk.emulator.bill().charges()[1].cache_write[&300], 200);

    body["stream"] = json!(true);
    desk.emulator
        .faults()
        .next(Fault::Usage(UsageFault::Missing));
    let events = desk.events(&body).await;
    assert!(
        events
            .iter()
            .all(|event| event.get("usage").is_none() && event["message"].get("usage").is_none())
    );
    desk.emulator
        .faults()
        .next(Fault::Usage(UsageFault::Repeated));
    let events = desk.events(&body).await;
    let deltas: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "message_delta")
        .collect();
    assert_eq!(deltas.len(), 2);
    assert!(
        deltas
            .iter()
            .all(|delta| counts(&delta["usage"]) == (1, 200, 0))
    );
}
