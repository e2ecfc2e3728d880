//! DashScope.

use holdfast_emulators::families::compatible::{Compatible, QwenOptions};
use serde_json::{Value, json};

use crate::{Got, Provider, cached, marked, question, text, with};

/// Before Qwen3.5 entries may end with any part.
const OLDER: &str = "qwen-plus";

fn details(usage: &Value) -> (u64, u64) {
    let details = &usage["prompt_tokens_details"];
    (
        details["cached_tokens"].as_u64().unwrap(),
        details["cache_creation_input_tokens"].as_u64().unwrap_or(0),
    )
}

fn marked_question(model: &str, system: &str, user: &str) -> Value {
    json!({"model": model, "messages": [
        {"role": "system", "content": marked(system)},
        {"role": "user", "content": user},
    ]})
}

#[tokio::test]
async fn a_marker_writes_once_and_serves_other_questions() {
    for model in [OLDER, "qwen3.7-max"] {
        let provider = Provider::start(Compatible::qwen()).await;
        let system = text("sys", 2000);
        let first = provider
            .usage(&marked_question(model, &system, "one?"))
            .await;
        assert_eq!(details(&first), (0, 2000), "{model}");
        assert_eq!(first["prompt_tokens_details"]["cache_type"], "ephemeral");
        assert_eq!(
            first["prompt_tokens_details"]["cache_creation"],
            json!({"ephemeral_5m_input_tokens": 2000})
        );
        assert_eq!(provider.last_charge().cache_write, [(300, 2000)].into());
        let second = provider
            .usage(&marked_question(model, &system, "another?"))
            .await;
        assert_eq!(details(&second), (2000, 0), "{model}");
        let charge = provider.last_charge();
        assert_eq!((charge.uncached_input, charge.cache_read), (2, 2000));
    }
}

#[tokio::test]
async fn below_1024_tokens_nothing_happens_and_nobody_complains() {
    let provider = Provider::start(Compatible::qwen()).await;
    let body = marked_question(OLDER, &text("sys", 1023), "one?");
    for _ in 0..2 {
        assert_eq!(details(&provider.usage(&body).await), (0, 0));
    }
}

#[tokio::test]
async fn an_entry_lives_five_minutes_from_its_last_use() {
    let provider = Provider::start(Compatible::qwen()).await;
    let body = marked_question(OLDER, &text("sys", 1500), "one?");
    provider.usage(&body).await;
    for _ in 0..3 {
        provider.wait(299);
        assert_eq!(details(&provider.usage(&body).await), (1500, 0));
    }
    provider.wait(301);
    assert_eq!(details(&provider.usage(&body).await), (0, 1500));
}

#[tokio::test]
async fn only_the_last_four_markers_count() {
    let provider = Provider::start(Compatible::qwen()).await;
    let parts: Vec<Value> = (0..5)
        .map(|number| json!({"type": "text", "text": text(&format!("part {number}"), 1100), "cache_control": {"type": "ephemeral"}}))
        .collect();
    let body = json!({"model": OLDER, "messages": [{"role": "user", "content": parts}]});
    assert_eq!(details(&provider.usage(&body).await), (0, 5500));
    // The first part's marker was the fifth from the end, so nothing ends there.
    let first = json!({"model": OLDER, "messages": [{"role": "user", "content": [parts[0]]}]});
    assert_eq!(details(&provider.usage(&first).await), (0, 1100));
    let second = json!({"model": OLDER, "messages": [{"role": "user", "content": parts[..2]}]});
    assert_eq!(details(&provider.usage(&second).await).0, 2200);
}

#[tokio::test]
async fn a_marker_looks_back_over_twenty_parts() {
    for (new, expected) in [(19, 1500), (20, 0)] {
        let provider = Provider::start(Compatible::qwen()).await;
        let first = json!({"role": "user", "content": marked(&text("sys", 1500))});
        provider
            .usage(&json!({"model": OLDER, "messages": [first]}))
            .await;
        let mut messages = vec![json!({"role": "user", "content": text("sys", 1500)})];
        for number in 1..=new {
            let content = format!("turn {number}");
            let content = if number == new {
                marked(&content)
            } else {
                json!(content)
            };
            messages.push(json!({"role": "user", "content": content}));
        }
        let usage = provider
            .usage(&json!({"model": OLDER, "messages": messages}))
            .await;
        assert_eq!(details(&usage).0, expected, "{new} parts later");
    }
}

#[tokio::test]
async fn explicit_and_implicit_entries_are_strangers() {
    let provider = Provider::start(Compatible::qwen()).await;
    let system = text("sys", 2000);
    provider
        .usage(&marked_question(OLDER, &system, "one?"))
        .await;
    let plain = question(OLDER, &system, "one?");
    let usage = provider.usage(&plain).await;
    assert_eq!(
        cached(&usage),
        0,
        "an implicit request read an explicit entry"
    );
    assert_eq!(usage["prompt_tokens_details"].get("cache_type"), None);
    let again = provider.usage(&plain).await;
    assert_eq!(cached(&again), 1984, "whole steps of 64 tokens");
    assert_eq!(again["prompt_tokens_details"].get("cache_type"), None);
}

#[tokio::test]
async fn the_implicit_cache_needs_256_tokens_and_promises_nothing() {
    let provider = Provider::start(Compatible::qwen()).await;
    for (tokens, expected) in [(250, 0), (320, 320)] {
        let body = question(OLDER, &text("sys", tokens), "one?");
        provider.usage(&body).await;
        assert_eq!(provider.cached(&body).await, expected);
    }
    let never = QwenOptions {
        implicit_hits: 0.0,
        ..QwenOptions::default()
    };
    let provider = Provider::start(Compatible::qwen_with(never)).await;
    let body = question(OLDER, &text("sys", 2000), "one?");
    provider.usage(&body).await;
    assert_eq!(provider.cached(&body).await, 0);
    let marked = marked_question(OLDER, &text("sys", 2000), "one?");
    provider.usage(&marked).await;
    assert_eq!(
        provider.cached(&marked).await,
        2000,
        "explicit hits are guaranteed"
    );
}

#[tokio::test]
async fn a_marker_on_a_tool_is_ignored() {
    let provider = Provider::start(Compatible::qwen()).await;
    let mut body = question(OLDER, &text("sys", 2000), "one?");
    body["tools"] = json!([{"type": "function", "function": {"name": "f", "parameters": {}}, "cache_control": {"type": "ephemeral"}}]);
    let usage = provider.usage(&body).await;
    assert_eq!(usage["prompt_tokens_details"].get("cache_type"), None);
    assert!(provider.last_charge().cache_write.is_empty());
}

#[tokio::test]
async fn tools_are_in_front_of_what_a_marker_ends() {
    let provider = Provider::start(Compatible::qwen()).await;
    let body = marked_question(OLDER, &text("sys", 2000), "one?");
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    provider.usage(&with(&body, "tools", tools.clone())).await;
    assert_eq!(
        details(&provider.usage(&body).await).0,
        0,
        "other tools, other prefix"
    );
    assert!(details(&provider.usage(&with(&body, "tools", tools)).await).0 > 2000);
}

#[tokio::test]
async fn from_qwen35_on_system_messages_are_one_message_and_a_marker_counts_at_its_end() {
    let body = |model: &str, date: &str| {
        json!({"model": model, "messages": [
            {"role": "system", "content": marked(&text("sys", 2000))},
            {"role": "user", "content": "hello"},
            {"role": "system", "content": date},
            {"role": "user", "content": "one?"},
        ]})
    };
    for (model, expected) in [(OLDER, 2000), ("qwen3.7-max", 0)] {
        let provider = Provider::start(Compatible::qwen()).await;
        provider.usage(&body(model, "It is Monday.")).await;
        let usage = provider.usage(&body(model, "It is Tuesday.")).await;
        assert_eq!(details(&usage).0, expected, "{model}");
    }
}

#[tokio::test]
async fn qwen4_has_an_hour_and_a_marker_for_the_request() {
    let provider = Provider::start(Compatible::qwen()).await;
    let system = text("sys", 2000);
    let mut body = marked_question("qwen4-max", &system, "one?");
    body["messages"][0]["content"][0]["cache_control"]["ttl"] = json!("1h");
    let usage = provider.usage(&body).await;
    let creation = json!({"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 2000});
    assert_eq!(usage["prompt_tokens_details"]["cache_creation"], creation);
    provider.wait(3599);
    assert_eq!(details(&provider.usage(&body).await), (2000, 0));

    let automatic = with(
        &question("qwen4-max", &text("other", 2000), "one?"),
        "cache_control",
        json!({"type": "ephemeral"}),
    );
    assert_eq!(details(&provider.usage(&automatic).await), (0, 2001));
    assert_eq!(details(&provider.usage(&automatic).await), (2001, 0));

    // Older models take both without a word and do what they always do.
    body["model"] = json!("qwen3.7-max");
    provider.usage(&body).await;
    assert_eq!(provider.last_charge().cache_write, [(300, 2000)].into());
    provider
        .usage(&with(&automatic, "model", json!("qwen3.7-max")))
        .await;
    assert!(provider.last_charge().cache_write.is_empty());
}

#[tokio::test]
async fn unknown_fields_are_taken_but_an_added_empty_field_is_another_prefix() {
    let provider = Provider::start(Compatible::qwen()).await;
    let mut body = marked_question(OLDER, &text("sys", 2000), "one?");
    body["prompt_cache_key"] = json!("k");
    body["prompt_cache_options"] = json!({"mode": "explicit"});
    provider.usage(&body).await;
    assert_eq!(details(&provider.usage(&body).await).0, 2000);
    body["messages"][0]["name"] = json!("");
    assert_eq!(details(&provider.usage(&body).await).0, 0);
}

async fn respond(provider: &Provider, headers: &[(&str, &str)], body: &Value) -> Got {
    let url = format!("{}/responses", provider.base);
    provider.send("POST", &url, headers, Some(body)).await
}

const SESSION: [(&str, &str); 1] = [("x-dashscope-session-cache", "enable")];

#[tokio::test]
async fn a_session_reads_what_its_last_turn_wrote() {
    let provider = Provider::start(Compatible::qwen()).await;
    let first = json!({"model": "qwen3.7-max", "input": [
        {"role": "system", "content": text("sys", 2000)},
        {"role": "user", "content": [{"type": "input_text", "text": "one?"}]},
    ]});
    let got = respond(&provider, &SESSION, &first).await.json();
    assert_eq!(got["usage"]["input_tokens_details"]["cached_tokens"], 0);
    assert_eq!(provider.last_charge().cache_write, [(300, 2001)].into());
    let second =
        json!({"model": "qwen3.7-max", "previous_response_id": got["id"], "input": "and?"});
    let got = respond(&provider, &SESSION, &second).await.json();
    assert_eq!(got["usage"]["input_tokens_details"]["cached_tokens"], 2001);
    // Without the header the whole conversation is billed again, though nobody sent it.
    let got = respond(&provider, &[], &second).await.json();
    assert_eq!(got["usage"]["input_tokens_details"]["cached_tokens"], 0);
    assert!(provider.last_charge().uncached_input > 2000);
}

#[tokio::test]
async fn response_ids_live_seven_days_and_belong_to_an_account() {
    let provider = Provider::start(Compatible::qwen()).await;
    let first = respond(
        &provider,
        &[],
        &json!({"model": "m", "input": "one?", "odd": 7}),
    )
    .await
    .json();
    assert_eq!(first["odd"], 7, "unknown fields come back");
    let url = format!(
        "{}/responses/{}",
        provider.base,
        first["id"].as_str().unwrap()
    );
    assert_eq!(
        provider.send("GET", &url, &[], None).await.json()["id"],
        first["id"]
    );
    let next = json!({"model": "m", "input": "two?", "previous_response_id": first["id"]});
    let foreign = respond(&provider, &[("authorization", "Bearer b")], &next).await;
    assert_eq!(foreign.status, 400);
    provider.wait(7 * 24 * 3600 - 60);
    assert_eq!(respond(&provider, &[], &next).await.status, 200);
    provider.wait(120);
    let gone = respond(&provider, &[], &next).await;
    assert_eq!(gone.status, 400);
    let gone = gone.json();
    assert_eq!(gone["code"], "InvalidParameter");
    assert!(
        gone["message"]
            .as_str()
            .unwrap()
            .starts_with("Not found previous_response_id: resp_")
    );
    assert_eq!(gone.get("error"), None);

    let unstored = json!({"model": "m", "input": "one?", "store": false});
    let id = respond(&provider, &[], &unstored).await.json()["id"].clone();
    let next = json!({"model": "m", "input": "two?", "previous_response_id": id});
    assert_eq!(respond(&provider, &[], &next).await.status, 400);
}

#[tokio::test]
async fn a_response_stream_has_comments_and_fails_inside() {
    let provider = Provider::start(Compatible::qwen()).await;
    let got = respond(
        &provider,
        &[],
        &json!({"model": "m", "input": "one?", "stream": true}),
    )
    .await;
    assert!(got.body.contains("\n:HTTP_STATUS/200\n"));
    assert!(!got.body.contains("[DONE]"));
    let last = got.events().pop().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["usage"]["input_tokens"], 1);

    let gone =
        json!({"model": "m", "input": "one?", "stream": true, "previous_response_id": "resp_none"});
    let got = respond(&provider, &[], &gone).await;
    assert_eq!(got.status, 200);
    let last = got.events().pop().unwrap();
    assert_eq!(last["type"], "response.failed");
    assert_eq!(last["response"]["error"]["code"], "InvalidParameter");
    assert_eq!(provider.emulator.bill().charges().len(), 1);
}

#[tokio::test]
async fn parallel_first_calls_write_twice() {
    let late = std::time::Duration::from_secs(2);
    let provider = Provider::start(Compatible::qwen().late_writes(late)).await;
    let body = marked_question(OLDER, &text("sys", 2000), "one?");
    for _ in 0..2 {
        assert_eq!(details(&provider.usage(&body).await), (0, 2000));
    }
    provider.wait(3);
    assert_eq!(details(&provider.usage(&body).await), (2000, 0));
}
