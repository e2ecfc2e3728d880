//! The Responses API.

use std::time::Duration;

use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::{Answer, Fault, UsageFault};
use reqwest::Method;
use serde_json::{Value, json};

use super::*;

const HOUR_MS: u64 = 3_600_000;

/// A prefix of 300 tokens.
fn prefix() -> Value {
    json!({
        "model": MODEL,
        "input": [{"role": "system", "content": "s".repeat(1200)}],
        "caching": {"type": "enabled", "prefix": true},
        "thinking": {"type": "disabled"},
    })
}

fn turn(previous: &Value, text: &str) -> Value {
    json!({
        "model": MODEL,
        "previous_response_id": previous["id"],
        "input": [{"role": "user", "content": text}],
        "caching": {"type": "enabled"},
        "thinking": {"type": "disabled"},
    })
}

fn function_tool() -> Value {
    json!([{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}])
}

#[tokio::test]
async fn a_prefix_is_created_once_and_branched_from() {
    let client = ark(Ark::new()).await;
    let created = client.ok("/responses", &prefix()).await;
    assert!(created["id"].as_str().unwrap().starts_with("resp_"));
    assert_eq!(created["output"], json!([]));
    assert_eq!(
        created["caching"],
        json!({"type": "enabled", "prefix": true})
    );
    assert_eq!(created["usage"]["input_tokens"], 300);
    assert_eq!(created["usage"]["input_tokens_details"]["cached_tokens"], 0);
    let lifetime = created["expire_at"].as_i64().unwrap() - created["created_at"].as_i64().unwrap();
    assert_eq!(lifetime, 259_200);

    for text in ["aaaa", "bbbbbbbb"] {
        let answer = client.ok("/responses", &turn(&created, text)).await;
        let own = text.len() as u64 / 4;
        assert_eq!(answer["usage"]["input_tokens"], 300 + own);
        assert_eq!(
            answer["usage"]["input_tokens_details"]["cached_tokens"],
            300
        );
        assert_eq!(
            answer["output"][0]["content"][0]["text"],
            format!("You sent me {} tokens.", 300 + own)
        );
        assert_eq!(answer["previous_response_id"], created["id"]);
    }
    let create = &client.charges("create")[0];
    assert_eq!(
        (create.uncached_input, create.cache_read, create.output),
        (300, 0, 0)
    );
    let chat = &client.charges("chat")[1];
    assert_eq!((chat.uncached_input, chat.cache_read), (2, 300));
}

#[tokio::test]
async fn a_session_is_a_chain_and_thinking_is_not_in_it() {
    let client = ark(Ark::new()).await;
    client.emulator.script().next(Answer {
        reasoning: "hmm ".repeat(10),
        ..Answer::text("12345678")
    });
    let first = json!({"model": MODEL, "input": "abcd", "caching": {"type": "enabled"}});
    let first = client.ok("/responses", &first).await;
    assert_eq!(first["output"][0]["type"], "reasoning");
    assert_eq!(
        first["usage"]["output_tokens_details"]["reasoning_tokens"],
        10
    );
    assert_eq!(first["usage"]["output_tokens"], 12);
    let mut second = turn(&first, "efgh");
    second.as_object_mut().unwrap().remove("thinking");
    let second = client.ok("/responses", &second).await;
    // 1 asked and 2 answered are read, 1 is new.
    assert_eq!(second["usage"]["input_tokens_details"]["cached_tokens"], 3);
    assert_eq!(second["usage"]["input_tokens"], 4);
    let mut third = turn(&second, "ijkl");
    third["thinking"] = json!({"type": "enabled"});
    let third = client.ok("/responses", &third).await;
    assert_eq!(
        third["usage"]["input_tokens_details"]["cached_tokens"],
        4 + 6
    );
}

#[tokio::test]
async fn a_prefix_below_the_minimum_is_refused() {
    let client = ark(Ark::new()).await;
    let small = with(prefix(), "input", json!("s".repeat(255 * 4)));
    let answer = client.respond(&small).await;
    assert_invalid(&answer, "caching.prefix");
    assert!(
        answer.1["error"]["message"]
            .as_str()
            .unwrap()
            .contains("cannot be created")
    );
    let enough = with(prefix(), "input", json!("s".repeat(256 * 4)));
    assert_eq!(client.respond(&enough).await.0, 200);
    assert_eq!(client.charges("create").len(), 1);
}

#[tokio::test]
async fn caching_excludes_other_features() {
    let client = ark(Ark::new()).await;
    let schema =
        json!({"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}});
    let now = client.now();
    for (field, value, param) in [
        ("instructions", json!("Be brief."), "instructions"),
        ("text", schema.clone(), "caching"),
        ("tools", json!([{"type": "web_search"}]), "tools"),
        ("store", json!(false), "store"),
        ("service_tier", json!("flex"), "store"),
        ("stream", json!(true), "stream"),
        ("expire_at", json!(now + 604_900), "expire_at"),
        ("expire_at", json!(now - 1), "expire_at"),
        ("expire_at", json!("tomorrow"), "expire_at"),
        ("caching", json!({"type": "on"}), "caching.type"),
        (
            "caching",
            json!({"type": "disabled", "prefix": true}),
            "caching.prefix",
        ),
        ("model", json!(OLD_MODEL), "caching"),
        ("thinking", json!({"type": "maybe"}), "thinking.type"),
    ] {
        assert_invalid(&client.respond(&with(prefix(), field, value)).await, param);
    }
    // Even switched off, beside a schema; left out it is fine.
    let plain = json!({"model": MODEL, "input": "x", "text": schema});
    let off = with(plain.clone(), "caching", json!({"type": "disabled"}));
    assert_invalid(&client.respond(&off).await, "caching");
    assert_eq!(client.respond(&plain).await.0, 200);
    let object = with(prefix(), "text", json!({"format": {"type": "json_object"}}));
    assert_eq!(client.respond(&object).await.0, 200);
    assert_eq!(
        client
            .respond(&with(prefix(), "tools", function_tool()))
            .await
            .0,
        200
    );
    let longest = with(prefix(), "expire_at", json!(client.now() + 604_800));
    assert_eq!(client.respond(&longest).await.0, 200);
}

#[tokio::test]
async fn a_chain_keeps_its_model_its_thinking_and_its_tools() {
    let client = ark(Ark::new()).await;
    let created = client
        .ok("/responses", &with(prefix(), "tools", function_tool()))
        .await;
    let good = turn(&created, "x");
    for (field, value) in [
        ("thinking", json!({"type": "enabled"})),
        ("thinking", Value::Null),
        ("tools", function_tool()),
        ("model", json!("doubao-seed-2-1-lite-260915")),
        ("instructions", json!("Be brief.")),
    ] {
        assert_invalid(
            &client.respond(&with(good.clone(), field, value)).await,
            field,
        );
    }
    let forced = with(good, "tool_choice", json!("required"));
    let called = client.ok("/responses", &forced).await;
    let call = &called["output"][0];
    assert_eq!(
        (&call["type"], &call["name"]),
        (&json!("function_call"), &json!("f"))
    );

    assert_invalid(&client.respond(&turn(&called, "so?")).await, "input");
    let output =
        |id: &Value| json!([{"type": "function_call_output", "call_id": id, "output": "{}"}]);
    let wrong = with(turn(&called, ""), "input", output(&json!("call_other")));
    assert_invalid(&client.respond(&wrong).await, "input.call_id");
    let right = with(turn(&called, ""), "input", output(&call["call_id"]));
    let answered = client.ok("/responses", &right).await;
    let cached = answered["usage"]["input_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap();
    assert_eq!(
        cached,
        called["usage"]["input_tokens"].as_u64().unwrap() + 1
    );
}

#[tokio::test]
async fn the_end_is_fixed_and_unknown_foreign_and_expired_are_the_same() {
    let mut client = ark(Ark::new()).await;
    let expire_at = client.now() + 7200;
    let created = client
        .ok("/responses", &with(prefix(), "expire_at", json!(expire_at)))
        .await;
    assert_eq!(created["expire_at"], expire_at);
    client.emulator.clock().advance(Duration::from_secs(7000));
    assert_eq!(client.respond(&turn(&created, "x")).await.0, 200);
    let path = format!("/responses/{}", created["id"].as_str().unwrap());
    let (status, read) = client.send(Method::GET, &path).await;
    assert_eq!((status, &read), (200, &created));

    client.key = "mallory";
    let foreign = client.respond(&turn(&created, "x")).await;
    assert_error(
        &foreign,
        404,
        "PreviousResponseNotFound",
        "previous_response_id",
    );
    assert_error(
        &client.send(Method::GET, &path).await,
        404,
        "ResponseNotFound",
        "response_id",
    );
    assert_error(
        &client.send(Method::DELETE, &path).await,
        404,
        "ResponseNotFound",
        "response_id",
    );

    // The use at 7000 s hasn't extended it.
    client.key = "alice";
    client.emulator.clock().advance(Duration::from_secs(201));
    let expired = client.respond(&turn(&created, "x")).await;
    assert_eq!(expired, foreign);
    let unknown = client.respond(&turn(&json!({"id": "resp_0"}), "x")).await;
    assert_error(
        &unknown,
        404,
        "PreviousResponseNotFound",
        "previous_response_id",
    );
    assert_eq!(client.charges("chat").len(), 1);

    let client = ark(Ark::new().gone_is_400()).await;
    let created = client.ok("/responses", &prefix()).await;
    client.emulator.evict_all();
    let evicted = client.respond(&turn(&created, "x")).await;
    assert_error(
        &evicted,
        400,
        "InvalidParameter.PreviousResponseNotFound",
        "previous_response_id",
    );
}

#[tokio::test]
async fn a_response_can_be_deleted_or_never_kept() {
    let client = ark(Ark::new()).await;
    let created = client.ok("/responses", &prefix()).await;
    let path = format!("/responses/{}", created["id"].as_str().unwrap());
    let (status, deleted) = client.send(Method::DELETE, &path).await;
    assert_eq!((status, &deleted["deleted"]), (200, &json!(true)));
    assert_eq!(client.respond(&turn(&created, "x")).await.0, 404);

    let body = json!({"model": MODEL, "input": "x", "store": false});
    let unkept = client.ok("/responses", &body).await;
    assert_eq!(
        (&unkept["store"], unkept.get("expire_at")),
        (&json!(false), None)
    );
    let next = json!({"model": MODEL, "input": "y", "previous_response_id": unkept["id"]});
    assert_eq!(client.respond(&next).await.0, 404);
    let body = json!({"model": MODEL, "input": "xxxx"});
    let kept = client.ok("/responses", &body).await;
    let next = json!({"model": MODEL, "input": "yyyy", "previous_response_id": kept["id"]});
    let next = client.ok("/responses", &next).await;
    // State without a cache: what was said before is input again, at full price.
    assert_eq!(next["usage"]["input_tokens"], 1 + 6 + 1);
    assert_eq!(next["usage"]["input_tokens_details"]["cached_tokens"], 0);
}

#[tokio::test]
async fn storage_is_charged_in_hours_begun() {
    let family = Ark::new();
    let client = ark(family.clone()).await;
    let created = client.ok("/responses", &prefix()).await;
    client.emulator.clock().advance(Duration::from_secs(3700));
    let path = format!("/responses/{}", created["id"].as_str().unwrap());
    client.send(Method::DELETE, &path).await;
    let storage = client.charges("storage");
    assert_eq!(storage.len(), 1);
    assert_eq!(storage[0].token_milliseconds, 300 * 2 * HOUR_MS);

    client.emulator.bill().clear();
    let expire_at = client.now() + 5400;
    let created = client
        .ok("/responses", &with(prefix(), "expire_at", json!(expire_at)))
        .await;
    let turned = client.ok("/responses", &turn(&created, "aaaa")).await;
    let written = 1 + turned["usage"]["output_tokens"].as_u64().unwrap();
    client.emulator.clock().advance(Duration::from_secs(60));
    let settle = || family.settle_storage(client.emulator.bill(), client.emulator.clock().now_ms());
    settle();
    settle();
    let total = client
        .emulator
        .bill()
        .total(|charge| charge.kind == "storage");
    assert_eq!(total.token_milliseconds, (300 + written) * HOUR_MS);
    // The prefix ends after an hour and a half; the turn has an end of its own, after three days.
    client
        .emulator
        .clock()
        .advance(Duration::from_secs(4 * 86_400));
    settle();
    let total = client
        .emulator
        .bill()
        .total(|charge| charge.kind == "storage");
    assert_eq!(total.token_milliseconds, (300 * 2 + written * 72) * HOUR_MS);
}

#[tokio::test]
async fn unknown_fields_are_refused_at_any_depth() {
    let client = ark(Ark::new()).await;
    let deep = |field: &str, value: Value| with(prefix(), field, value);
    for (path, body, name) in [
        (
            "/responses",
            deep("prompt_cache_key", json!("k")),
            "prompt_cache_key",
        ),
        ("/responses", deep("metadata", json!({})), "metadata"),
        (
            "/responses",
            deep("caching", json!({"type": "enabled", "ttl": 60})),
            "ttl",
        ),
        (
            "/responses",
            deep(
                "input",
                json!([{"role": "user", "content": [{"type": "input_text", "text": "x", "cache_control": {}}]}]),
            ),
            "cache_control",
        ),
        (
            "/chat/completions",
            json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "prompt_cache_key": "k"}),
            "prompt_cache_key",
        ),
        (
            "/chat/completions",
            json!({"model": MODEL, "messages": [], "context_id": "ctx-1"}),
            "context_id",
        ),
        (
            "/context/create",
            json!({"model": "ep-1", "messages": [], "tools": []}),
            "tools",
        ),
        (
            "/context/chat/completions",
            json!({"model": "ep-1", "thinking": {}}),
            "thinking",
        ),
    ] {
        let (status, answer) = client.post(path, &body).await;
        assert_eq!(status, 400);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("json: unknown field \"{name}\"")),
            "{message}"
        );
    }
}

#[tokio::test]
async fn input_is_checked() {
    let client = ark(Ark::new()).await;
    let body = |input: Value| json!({"model": MODEL, "input": input});
    for (input, code, param) in [
        (json!([]), "MissingParameter", "input"),
        (json!(""), "MissingParameter", "input"),
        (
            json!([{"role": "tool", "content": "x"}]),
            "InvalidParameter",
            "input.role",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text", "text": "x"}]}]),
            "InvalidParameter",
            "input.content",
        ),
        (
            json!([{"role": "assistant", "content": "x"}]),
            "MissingParameter",
            "partial",
        ),
        (
            json!([{"type": "function_call_output", "output": "x"}]),
            "MissingParameter",
            "input.call_id",
        ),
    ] {
        assert_error(&client.respond(&body(input)).await, 400, code, param);
    }
    let partial = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "partial": true}]);
    assert_eq!(client.respond(&body(partial)).await.0, 200);
    let model = client
        .respond(&json!({"model": "gpt-5.6", "input": "x"}))
        .await;
    assert_error(&model, 404, "InvalidEndpointOrModel.NotFound", "model");
    assert_error(
        &client.post("/nothing", &json!({})).await,
        404,
        "InvalidAction",
        "",
    );
    let client = Client {
        key: "invalid-key",
        ..client
    };
    assert_error(
        &client.respond(&body(json!("x"))).await,
        401,
        "AuthenticationError",
        "",
    );
}

#[tokio::test]
async fn a_response_streams_as_events() {
    let client = ark(Ark::new()).await;
    let created = client
        .ok("/responses", &with(prefix(), "tools", function_tool()))
        .await;
    let answer = Answer {
        tool_calls: Answer::call("f", r#"{"a":1}"#).tool_calls,
        ..Answer::text("one two")
    };
    client.emulator.script().next(answer.clone());
    let body = turn(&created, "x");
    let whole = client.ok("/responses", &body).await;
    client.emulator.script().next(answer);
    let text = client
        .post_text("/responses", &with(body.clone(), "stream", json!(true)))
        .await;
    let events: Vec<Value> = text
        .split("\n\n")
        .filter(|event| !event.is_empty())
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: ").unwrap(), data["type"]);
            data
        })
        .collect();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let joined = |kind: &str| -> String {
        events
            .iter()
            .filter(|event| event["type"] == kind)
            .filter_map(|event| event["delta"].as_str())
            .collect()
    };
    assert_eq!(events[0]["type"], "response.created");
    assert_eq!(events[0]["response"].get("usage"), None);
    assert_eq!(joined("response.output_text.delta"), "one two");
    assert_eq!(
        joined("response.function_call_arguments.delta"),
        r#"{"a":1}"#
    );
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["usage"], whole["usage"]);
    let charges = client.charges("chat");
    assert_eq!(charges[0], charges[1]);

    let short = with(
        with(body.clone(), "stream", json!(true)),
        "max_output_tokens",
        json!(1),
    );
    let text = client.post_text("/responses", &short).await;
    assert!(text.contains("event: response.incomplete\n"));
    assert!(text.contains(r#""incomplete_details":{"reason":"length"}"#));
    client.emulator.faults().next(Fault::ErrorInside(3));
    let text = client
        .post_text("/responses", &with(body.clone(), "stream", json!(true)))
        .await;
    assert!(
        text.contains("event: error\ndata: {\"type\":\"error\",\"code\":\"InternalServiceError\"")
    );
    assert!(!text.contains("response.completed"));
    client
        .emulator
        .faults()
        .next(Fault::Usage(UsageFault::Missing));
    let text = client
        .post_text("/responses", &with(body.clone(), "stream", json!(true)))
        .await;
    assert!(!text.contains("\"usage\""));
    client
        .emulator
        .faults()
        .next(Fault::Usage(UsageFault::Impossible));
    let (_, answer) = client.respond(&body).await;
    let usage = &answer["usage"];
    assert!(
        usage["input_tokens_details"]["cached_tokens"].as_u64() > usage["input_tokens"].as_u64()
    );
}
