//! Responses: chains, storage, prewarming, diagnostics.

use std::time::Duration;

use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Answer, Emulator};
use serde_json::{Value, json};

use crate::{Client, Usage, text};

fn developer(context: &str, ttl: Option<&str>) -> Value {
    let mut marker = json!({"mode": "explicit"});
    if let Some(ttl) = ttl {
        marker["ttl"] = json!(ttl);
    }
    json!({"role": "developer", "content": [
        {"type": "input_text", "text": context, "prompt_cache_breakpoint": marker},
    ]})
}

fn user(question: &str) -> Value {
    json!({"role": "user", "content": question})
}

async fn method(client: &Client, method: reqwest::Method, key: &str, id: &str) -> (u16, Value) {
    let url = format!("{}/v1/responses/{id}", client.emulator.url);
    let response = client
        .http
        .request(method, url)
        .bearer_auth(key)
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_chain_bills_all_of_it_again_and_reads_what_was_written() {
    let client = Client::start(OpenAi::new()).await;
    client.emulator.script().next(Answer::text("four"));
    let first = client
        .respond(&json!({"model": "gpt-5.6", "input": text("abcd", 2000)}))
        .await;
    assert_eq!(
        Usage::of(&first["usage"]),
        Usage {
            input: 2000,
            read: 0,
            written: 2000
        }
    );
    assert_eq!(first["output"][0]["content"][0]["text"], "four");
    let second = client
        .respond(&json!({"model": "gpt-5.6", "input": "more", "previous_response_id": first["id"]}))
        .await;
    assert_eq!(
        Usage::of(&second["usage"]),
        Usage {
            input: 2002,
            read: 2000,
            written: 2
        }
    );
    // The chain is the same prompt as its items replayed.
    let replay = json!({"model": "gpt-5.6", "input": [
        user(&text("abcd", 2000)),
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "four"}]},
        user("more"),
    ]});
    assert_eq!(
        Usage::of(&client.respond(&replay).await["usage"]).read,
        2002
    );
}

#[tokio::test]
async fn a_chain_may_branch_and_outlives_the_cache() {
    let client = Client::start(OpenAi::new()).await;
    let first = client
        .respond(&json!({"model": "gpt-5.6", "input": [developer(&text("abcd", 2000), None)]}))
        .await;
    client.emulator.clock().advance(Duration::from_secs(86_400));
    for question in ["one?", "two?"] {
        let body =
            json!({"model": "gpt-5.6", "input": question, "previous_response_id": first["id"]});
        let usage = Usage::of(&client.respond(&body).await["usage"]);
        assert_eq!(usage.read, if question == "one?" { 0 } else { 2000 });
    }
    client
        .emulator
        .clock()
        .advance(Duration::from_secs(30 * 86_400));
    let body = json!({"model": "gpt-5.6", "input": "three?", "previous_response_id": first["id"]});
    assert_eq!(
        client.send("/v1/responses", &body).await.0,
        400,
        "stored for thirty days"
    );
}

#[tokio::test]
async fn responses_are_read_deleted_and_kept_from_others() {
    let client = Client::start(OpenAi::new()).await;
    let stored = client
        .respond(&json!({"model": "gpt-5.6", "input": "one?"}))
        .await;
    let id = stored["id"].as_str().unwrap();
    assert_eq!(
        method(&client, reqwest::Method::GET, "key-1", id).await,
        (200, stored.clone())
    );
    assert_eq!(
        method(&client, reqwest::Method::GET, "key-2", id).await.0,
        404
    );
    assert_eq!(
        method(&client, reqwest::Method::DELETE, "key-2", id)
            .await
            .0,
        404
    );
    let chained = json!({"model": "gpt-5.6", "input": "two?", "previous_response_id": id});
    let (status, answer) = client.send_as("key-2", "/v1/responses", &chained).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("previous_response_not_found"))
    );
    assert_eq!(client.send("/v1/responses", &chained).await.0, 200);
    let (status, deleted) = method(&client, reqwest::Method::DELETE, "key-1", id).await;
    assert_eq!((status, &deleted["deleted"]), (200, &json!(true)));
    assert_eq!(
        method(&client, reqwest::Method::DELETE, "key-1", id)
            .await
            .0,
        404
    );
    assert_eq!(client.send("/v1/responses", &chained).await.0, 400);
}

#[tokio::test]
async fn nothing_is_kept_without_storage_or_after_an_eviction() {
    let zero = Client::start(OpenAi::new().zero_retention()).await;
    let plain = Client::start(OpenAi::new()).await;
    for (client, store) in [(&zero, true), (&plain, false)] {
        let answer = client
            .respond(&json!({"model": "gpt-5.6", "input": "one?", "store": store}))
            .await;
        assert_eq!(answer["store"], false);
        let id = answer["id"].as_str().unwrap();
        assert_eq!(
            method(client, reqwest::Method::GET, "key-1", id).await.0,
            404
        );
    }
    let kept = plain
        .respond(&json!({"model": "gpt-5.6", "input": "one?"}))
        .await;
    plain.emulator.evict_all();
    assert_eq!(
        method(
            &plain,
            reqwest::Method::GET,
            "key-1",
            kept["id"].as_str().unwrap()
        )
        .await
        .0,
        404
    );
}

#[tokio::test]
async fn prewarming_writes_and_says_nothing() {
    let client = Client::start(OpenAi::new()).await;
    client
        .emulator
        .script()
        .next(Answer::text("not for the prewarming"));
    let context = text("abcd", 2000);
    let mut body = json!({
        "model": "gpt-5.6",
        "input": [developer(&context, None)],
        "prompt_cache_options": {"mode": "explicit", "prewarm": true, "ttl": "12h"},
    });
    let warmed = client.respond(&body).await;
    assert_eq!(
        (&warmed["output"], &warmed["usage"]["output_tokens"]),
        (&json!([]), &json!(0))
    );
    let details = &warmed["usage"]["input_tokens_details"];
    assert_eq!(details["cache_write_tokens"], 2000);
    assert_eq!(
        details["cache_write_tokens_details"],
        json!({"ttl_30m_tokens": 0, "ttl_12h_tokens": 2000})
    );
    let charge = &client.emulator.bill().charges()[0];
    assert_eq!(
        (
            charge.kind.as_str(),
            charge.cache_write[&43_200],
            charge.output
        ),
        ("prewarm", 2000, 0)
    );

    client
        .emulator
        .clock()
        .advance(Duration::from_secs(11 * 3600));
    body["prompt_cache_options"] = json!({"mode": "explicit"});
    body["input"].as_array_mut().unwrap().push(user("one?"));
    let answer = client.respond(&body).await;
    assert_eq!(
        Usage::of(&answer["usage"]),
        Usage {
            input: 2001,
            read: 2000,
            written: 0
        }
    );
    assert_eq!(
        answer["output"][0]["content"][0]["text"],
        "not for the prewarming"
    );
}

#[tokio::test]
async fn diagnostics_name_the_reason_of_a_miss() {
    let client = Client::start(OpenAi::new()).await;
    let base = json!({
        "model": "gpt-5.6",
        "input": [developer(&text("abcd", 2000), None), user("one?")],
        "prompt_cache_key": "tenant-1",
    });
    let first = client.respond(&base).await;
    assert!(
        first.get("prompt_cache_diagnostics").is_none(),
        "only where asked for"
    );
    let compared = |field: &str, value: Value| {
        let mut body = base.clone();
        body[field] = value;
        body["prompt_cache_options"] = json!({"comparison_response_id": first["id"]});
        body
    };
    for (field, value, reason) in [
        ("model", json!("gpt-6-luna"), "model_changed"),
        (
            "prompt_cache_key",
            json!("tenant-2"),
            "prompt_cache_key_changed",
        ),
        (
            "tools",
            json!([{"type": "function", "name": "f"}]),
            "tools_changed",
        ),
        (
            "text",
            json!({"format": {"type": "json_object"}}),
            "text_format_changed",
        ),
        ("text", json!({"verbosity": "low"}), "verbosity_changed"),
        (
            "reasoning",
            json!({"effort": "high"}),
            "reasoning_effort_changed",
        ),
        ("service_tier", json!("flex"), "service_tier_changed"),
        ("input", json!(text("wxyz", 2000)), "input_changed"),
    ] {
        let answer = client.respond(&compared(field, value)).await;
        let diagnostics = &answer["prompt_cache_diagnostics"];
        assert_eq!(
            (&diagnostics["type"], &diagnostics["reason"]),
            (&json!("cache_miss"), &json!(reason))
        );
        assert_eq!(
            diagnostics["cache_missed_tokens"],
            answer["usage"]["input_tokens"]
        );
    }
    let hit = client.respond(&compared("metadata", json!({}))).await;
    assert_eq!(
        hit["prompt_cache_diagnostics"],
        json!({"type": "cache_hit"})
    );
    let mut unknown = compared("metadata", json!({}));
    unknown["prompt_cache_options"]["comparison_response_id"] = json!("resp_absent");
    let answer = client.respond(&unknown).await;
    assert_eq!(
        answer["prompt_cache_diagnostics"],
        json!({"type": "comparison_response_not_found"})
    );
}

#[tokio::test]
async fn a_call_is_answered_in_the_next_link() {
    let client = Client::start(OpenAi::new()).await;
    let body = json!({
        "model": "gpt-5.6",
        "input": "weather?",
        "tools": [{"type": "function", "name": "weather", "parameters": {}}],
        "tool_choice": {"type": "function", "name": "weather"},
    });
    let first = client.respond(&body).await;
    let call = &first["output"][0];
    assert_eq!(
        (&call["type"], &call["name"], &call["arguments"]),
        (&json!("function_call"), &json!("weather"), &json!("{}"))
    );
    let mut next =
        json!({"model": "gpt-5.6", "previous_response_id": first["id"], "input": "and?"});
    assert_eq!(
        client.send("/v1/responses", &next).await.0,
        400,
        "the call has no output"
    );
    next["input"] =
        json!([{"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}]);
    assert_eq!(client.send("/v1/responses", &next).await.0, 200);
}

#[tokio::test]
async fn the_stream_tells_the_response_in_numbered_events() {
    let client = Client::start(OpenAi::new()).await;
    let mut answer = Answer::call("f", r#"{"a":1}"#);
    answer.text = "Two words".to_owned();
    answer.reasoning = "Some thought".to_owned();
    client.emulator.script().next(answer);
    let body = json!({
        "model": "gpt-5.6",
        "input": "one?",
        "stream": true,
        "reasoning": {"summary": "auto"},
        "tools": [{"type": "function", "name": "f"}],
    });
    let events = events(&client, &body).await;
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names, expected);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let joined = |name: &str| -> String {
        events
            .iter()
            .filter(|event| event["type"] == name)
            .map(|event| event["delta"].as_str().unwrap())
            .collect()
    };
    assert_eq!(joined("response.output_text.delta"), "Two words");
    assert_eq!(
        joined("response.function_call_arguments.delta"),
        r#"{"a":1}"#
    );
    let done: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "response.output_item.done")
        .map(|event| &event["item"])
        .collect();
    let last = &events.last().unwrap()["response"];
    assert_eq!(json!(done), last["output"]);
    assert!(events[0]["response"]["usage"].is_null());
    assert_eq!(last["status"], "completed");
    let id = last["id"].as_str().unwrap();
    assert_eq!(
        method(&client, reqwest::Method::GET, "key-1", id).await.1,
        *last,
        "what was streamed is stored"
    );
}

#[tokio::test]
async fn a_limit_makes_the_response_incomplete() {
    let client = Client::start(OpenAi::new()).await;
    client
        .emulator
        .script()
        .next(Answer::text("word ".repeat(100)));
    let body =
        json!({"model": "gpt-5.6", "input": "one?", "stream": true, "max_output_tokens": 16});
    let events = events(&client, &body).await;
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(
        last["response"]["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
    assert_eq!(last["response"]["usage"]["output_tokens"], 16);
    assert_eq!(charged_output(&client.emulator), 16);
}

fn charged_output(emulator: &Emulator) -> u64 {
    emulator.bill().total(|_| true).output
}

async fn events(client: &Client, body: &Value) -> Vec<Value> {
    let frames = client.stream("/v1/responses", body).await;
    frames
        .iter()
        .map(|frame| {
            let (event, data) = frame.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(event, format!("event: {}", data["type"].as_str().unwrap()));
            data
        })
        .collect()
}
