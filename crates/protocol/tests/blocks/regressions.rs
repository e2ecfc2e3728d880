//! Lessons of other gateways (facts 6), by the report that taught them.

use holdfast_protocol::dialect::upstream;
use holdfast_protocol::provider::UpstreamDialectName;
use holdfast_protocol::upstream::AnswerEvent;
use holdfast_protocol::usage::{BilledUsage, CacheWrites};
use serde_json::{Value, json};

use crate::support::{BEDROCK_CLAUDE, BEDROCK_NOVA, CLAUDE, Case, decode, frames, header};

const ANTHROPIC: UpstreamDialectName = UpstreamDialectName::Anthropic;

fn anthropic_stream(start: &Value, end: &Value) -> BilledUsage {
    let start = json!({"type": "message_start", "message": {"usage": start}});
    let end = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end});
    let stop = json!({"type": "message_stop"});
    let stream = format!("data: {start}\n\ndata: {end}\n\ndata: {stop}\n\n");
    match decode(ANTHROPIC, &[stream.as_bytes()]).pop() {
        Some(Ok(AnswerEvent::Done(end))) => end.usage.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn litellm_9812_written_tokens_are_billed_once() {
    let start = json!({"input_tokens": 50, "cache_creation_input_tokens": 1_000, "cache_read_input_tokens": 200,
        "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600}, "output_tokens": 1});
    // The last event repeats the totals without the split.
    let end = json!({"input_tokens": 50, "cache_creation_input_tokens": 1_000, "cache_read_input_tokens": 200,
        "output_tokens": 9});
    let usage = anthropic_stream(&start, &end);
    let expected = BilledUsage {
        input_tokens: 1_250,
        cache_read_tokens: 200,
        cache_writes: CacheWrites {
            m5: 400,
            h1: 600,
            ..CacheWrites::default()
        },
        output_tokens: 9,
        reasoning_tokens: 0,
    };
    assert_eq!(usage, expected);
    assert_eq!(usage.fresh_tokens(), Some(50));
    // Without a split at all they are not lost either.
    let usage = anthropic_stream(
        &json!({"input_tokens": 50, "cache_creation_input_tokens": 1_000, "output_tokens": 1}),
        &json!({"output_tokens": 9}),
    );
    assert_eq!(usage.cache_writes, CacheWrites::of(Some(300), 1_000));
    assert_eq!(usage.fresh_tokens(), Some(50));
}

#[test]
fn litellm_11364_a_stream_costs_what_a_whole_answer_costs() {
    let usage = json!({"input_tokens": 50, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 100_000,
        "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 0}, "output_tokens": 503});
    let case = Case::from_json(&json!({"provider": "anthropic", "model": CLAUDE}));
    let whole = json!({"type": "message", "content": [], "usage": usage});
    let whole = case
        .dialect
        .decode_hold(whole.to_string().as_bytes(), &case.rules)
        .unwrap();
    assert_eq!(
        whole.usage,
        Some(anthropic_stream(&usage, &json!({"output_tokens": 503})))
    );

    let usage = json!({"inputTokens": 12, "outputTokens": 5, "totalTokens": 5_317, "cacheReadInputTokens": 5_000,
        "cacheWriteInputTokens": 300, "cacheDetails": [{"ttl": "1h", "inputTokens": 300}]});
    let case = Case::from_json(&json!({"provider": "bedrock", "model": BEDROCK_CLAUDE}));
    let whole = json!({"output": {"message": {}}, "usage": usage});
    let whole = case
        .dialect
        .decode_hold(whole.to_string().as_bytes(), &case.rules)
        .unwrap();
    let stream = frames(&format!(
        "event messageStop {{\"stopReason\":\"end_turn\"}}\nevent metadata {}",
        json!({ "usage": usage })
    ));
    match decode(UpstreamDialectName::BedrockConverse, &[&stream]).pop() {
        Some(Ok(AnswerEvent::Done(end))) => assert_eq!(end.usage, whole.usage),
        other => panic!("{other:?}"),
    }
}

fn after_a_tool_result(provider: &str, model: &str) -> Case {
    Case::from_json(&json!({
        "provider": provider, "model": model,
        "create": {"messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": "y"},
        ]},
        "markers": {"initial": 3_600},
    }))
}

#[test]
fn portkey_1762_a_point_stands_beside_the_tool_result_and_keeps_its_lifetime() {
    let body = after_a_tool_result("bedrock", BEDROCK_CLAUDE).body();
    let content = &body["messages"][2]["content"];
    assert_eq!(content[0]["toolResult"]["content"], json!([{"text": "y"}]));
    assert_eq!(
        content[1],
        json!({"cachePoint": {"type": "default", "ttl": "1h"}})
    );

    let body = after_a_tool_result("anthropic", CLAUDE).body();
    let block = &body["messages"][2]["content"][0];
    assert_eq!(block["type"], "tool_result");
    assert_eq!(
        block["cache_control"],
        json!({"type": "ephemeral", "ttl": "1h"})
    );
    assert_eq!(block["content"], json!([{"type": "text", "text": "y"}]));
}

#[test]
fn timothy_756_nova_never_gets_a_lifetime() {
    let case = Case::from_json(&json!({
        "provider": "bedrock", "model": BEDROCK_NOVA,
        "create": {"messages": [{"role": "system", "content": "long"}]},
        "history": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        "markers": {"initial": 3_600, "history": 3_600},
    }));
    for call in [case.chat().unwrap(), case.hold().unwrap()] {
        let body = String::from_utf8(call.body.concat()).unwrap();
        assert_eq!(body.matches("cachePoint").count(), 2);
        assert!(!body.contains("ttl"));
    }
}

#[test]
fn strands_3571_lifetimes_never_grow_towards_the_end() {
    for (provider, model, marker) in [
        ("anthropic", CLAUDE, "cache_control"),
        ("bedrock", BEDROCK_CLAUDE, "cachePoint"),
    ] {
        let case = Case::from_json(&json!({
            "provider": provider, "model": model,
            "create": {
                "messages": [{"role": "system", "content": "long"}],
                "tools": [{"type": "function", "function": {"name": "f"}}],
            },
            "history": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
            // What would be refused: five minutes, then an hour.
            "markers": {"initial": 300, "history": 3_600},
        }));
        let body = case.body().to_string();
        assert_eq!(body.matches(marker).count(), 2, "{provider}");
        assert!(!body.contains("1h"), "{provider}");
    }
}

#[test]
fn vercel_ai_4335_markers_survive_whatever_the_last_block_is() {
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}});
    for last in [
        json!({"role": "system", "content": "x"}),
        json!({"role": "user", "content": "x"}),
        json!({"role": "user", "content": [{"type": "text", "text": "x"}, image]}),
        json!({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": ""}]}),
        json!({"role": "assistant", "content": "x"}),
        json!({"role": "assistant", "content": "x", "reasoning_content": "hm", "tool_calls": [call]}),
        json!({"role": "tool", "tool_call_id": "c", "content": "x"}),
        // Nothing of these is sent, so the marker stands on what is before.
        json!({"role": "user", "content": ""}),
        json!({"role": "assistant", "content": "", "reasoning_content": "hm"}),
        json!({"role": "developer", "content": "  "}),
    ] {
        for (provider, model, marker) in [
            ("anthropic", CLAUDE, "cache_control"),
            ("bedrock", BEDROCK_CLAUDE, "cachePoint"),
        ] {
            for first in ["system", "user"] {
                let case = Case::from_json(&json!({
                    "provider": provider, "model": model,
                    "create": {"messages": [{"role": first, "content": "before"}, last]},
                    "markers": {"initial": 300},
                }));
                let body = case.body().to_string();
                assert_eq!(
                    body.matches(marker).count(),
                    1,
                    "{provider}: {last}: {body}"
                );
            }
        }
    }
}

#[test]
fn agent_afk_757_an_hour_is_asked_for_with_its_header() {
    let beta = |initial: u32, history: u32, has_history: bool| {
        let history_messages = if has_history {
            json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])
        } else {
            json!([])
        };
        let mut case = json!({
            "provider": "anthropic", "model": CLAUDE,
            "create": {"messages": [{"role": "system", "content": "long"}]},
            "markers": {"initial": initial, "history": history},
        });
        if has_history {
            case["history"] = history_messages;
        }
        let case = Case::from_json(&case);
        let chat = case.chat().unwrap();
        let hold = case.hold().unwrap();
        assert_eq!(
            header(&chat, "anthropic-beta"),
            header(&hold, "anthropic-beta")
        );
        assert_eq!(header(&chat, "anthropic-version"), Some("2023-06-01"));
        header(&chat, "anthropic-beta").map(str::to_owned)
    };
    let wanted = Some("extended-cache-ttl-2025-04-11".to_owned());
    assert_eq!(beta(3_600, 300, false), wanted);
    assert_eq!(beta(3_600, 300, true), wanted);
    assert_eq!(beta(3_600, 3_600, true), wanted);
    assert_eq!(beta(300, 3_600, true), None);
    assert_eq!(beta(300, 300, false), None);
}

#[test]
fn an_hour_is_seen_wherever_its_marker_stands() {
    for create in [
        json!({"messages": [{"role": "user", "content": "x"}]}),
        json!({"messages": [{"role": "system", "content": "x"}]}),
        json!({"messages": [{"role": "user", "content": ""}], "tools": [{"type": "function", "function": {"name": "f"}}]}),
    ] {
        let case = Case::from_json(&json!({
            "provider": "anthropic", "model": CLAUDE, "create": create, "markers": {"initial": 3_600},
        }));
        assert!(
            header(&case.chat().unwrap(), "anthropic-beta").is_some(),
            "{create}"
        );
    }
    let case = Case::from_json(&json!({
        "provider": "anthropic", "model": CLAUDE,
        "create": {"messages": [{"role": "system", "content": "x"}]},
        "history": [{"role": "user", "content": "x"}],
        "markers": {"history": 3_600},
    }));
    assert!(header(&case.chat().unwrap(), "anthropic-beta").is_some());
}

#[test]
fn arguments_keep_their_bytes() {
    let arguments = "{\"z\": 1,\n \"a\":  2.50, \"z\": 1e2}";
    for (provider, model) in [("anthropic", CLAUDE), ("bedrock", BEDROCK_CLAUDE)] {
        let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}});
        let case = Case::from_json(&json!({
            "provider": provider, "model": model,
            "create": {"messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": null, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": "y"},
            ]},
        }));
        let body = String::from_utf8(case.chat().unwrap().body.concat()).unwrap();
        assert!(body.contains(&format!("\"input\":{arguments}")), "{body}");
    }
}

#[test]
fn a_prefix_is_sent_without_being_copied() {
    let case = Case::from_json(&json!({
        "provider": "bedrock", "model": BEDROCK_CLAUDE,
        "create": {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "document"}]},
        "markers": {"initial": 300},
    }));
    let prefix = case.prefix().unwrap().unwrap();
    let chat = upstream(UpstreamDialectName::BedrockConverse)
        .encode_chat(&holdfast_protocol::upstream::ChatCall {
            model: BEDROCK_CLAUDE,
            prefix: Some(&prefix),
            handle: None,
            chain: None,
            composed: &case.composed,
            max_tokens: None,
            cache_key: None,
            salt: None,
            tier_seconds: None,
            previous_answer: None,
            rules: &case.rules,
        })
        .unwrap();
    for stored in [&prefix.system, &prefix.initial] {
        let is_shared = |piece: &bytes::Bytes| piece.as_ptr() == stored.as_ptr();
        assert!(chat.body.iter().any(is_shared));
    }
}
