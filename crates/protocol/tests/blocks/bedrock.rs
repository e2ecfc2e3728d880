//! Bedrock Converse: what the fixtures do not show.

use holdfast_protocol::dialect::upstream;
use holdfast_protocol::provider::{self, Caching, Marker, UpstreamDialectName};
use holdfast_protocol::upstream::{AnswerEvent, FailureKind};
use holdfast_protocol::usage::CacheWrites;
use serde_json::json;

use crate::support::{BEDROCK_CLAUDE, Case, decode, frames};

const DIALECT: UpstreamDialectName = UpstreamDialectName::BedrockConverse;

#[test]
fn errors_are_sorted_by_type_and_words() {
    use FailureKind::*;
    let table = [
        (
            400,
            "ValidationException",
            "The model returned the following errors: x",
            InvalidRequest,
        ),
        (
            400,
            "ValidationException",
            "Input is too long for requested model.",
            PromptTooLong,
        ),
        (
            400,
            "ValidationException",
            "prompt is too long: 210000 tokens > 200000 maximum",
            PromptTooLong,
        ),
        (
            400,
            "ValidationException",
            "Extended TTL prompt caching is only supported for Anthropic models",
            MarkerRefused,
        ),
        (
            400,
            "ValidationException",
            "The provided model identifier is invalid.",
            ModelNotFound,
        ),
        (400, "ServiceQuotaExceededException", "x", RateLimited),
        (403, "AccessDeniedException", "x", Unauthorized),
        (403, "UnrecognizedClientException", "x", Unauthorized),
        (404, "ResourceNotFoundException", "x", ModelNotFound),
        (408, "ModelTimeoutException", "x", Timeout),
        (424, "ModelErrorException", "x", ServerError),
        (429, "ThrottlingException", "x", RateLimited),
        (429, "ModelNotReadyException", "x", Overloaded),
        (500, "InternalServerException", "x", ServerError),
        (503, "ServiceUnavailableException", "x", Overloaded),
        (403, "", "x", Unauthorized),
    ];
    for (status, name, message, expected) in table {
        let header = |found: &str| {
            (found == "x-amzn-errortype").then(|| format!("{name}:http://internal.amazon.com/"))
        };
        let body = json!({ "message": message }).to_string();
        let failure = upstream(DIALECT).failure(status, &header, body.as_bytes());
        assert_eq!(failure.kind, expected, "{status} {name} {message}");
        assert_eq!(failure.message, message);

        let body =
            json!({"__type": format!("com.amazon.coral.service#{name}"), "Message": message});
        let failure = upstream(DIALECT).failure(status, &|_| None, body.to_string().as_bytes());
        assert_eq!(
            failure.kind, expected,
            "{status} {name} {message} in the body"
        );
        assert_eq!(failure.message, message);
    }
}

#[test]
fn a_frame_with_a_wrong_checksum_or_length_is_refused() {
    let good = frames("event messageStart {\"role\":\"assistant\"}");
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        let events = decode(DIALECT, &[&bad]);
        let failure = events[0].as_ref().unwrap_err();
        // A length that is larger than the frame waits for what never comes.
        let expected = [FailureKind::Malformed, FailureKind::CutShort];
        assert!(
            expected.contains(&failure.kind),
            "byte {position}: {events:?}"
        );
        if position >= 4 {
            assert_eq!(failure.kind, FailureKind::Malformed, "byte {position}");
        }
    }
}

#[test]
fn a_frame_larger_than_the_bound_is_refused_before_it_is_read() {
    let length = 16 * 1024 * 1024 + 1_u32;
    let events = decode(DIALECT, &[&length.to_be_bytes()]);
    assert_eq!(events[0].as_ref().unwrap_err().kind, FailureKind::Malformed);
}

#[test]
fn cache_details_count_only_where_they_add_up() {
    let usage = |details: serde_json::Value| {
        let metadata = json!({"usage": {"inputTokens": 10, "outputTokens": 1, "cacheReadInputTokens": 1_000,
            "cacheWriteInputTokens": 100, "cacheDetails": details}});
        let stream = frames(&format!(
            "event messageStop {{\"stopReason\":\"end_turn\"}}\nevent metadata {metadata}"
        ));
        let events = decode(DIALECT, &[&stream]);
        let Some(Ok(AnswerEvent::Done(end))) = events.last() else {
            panic!("{events:?}");
        };
        let usage = end.usage.unwrap();
        assert_eq!(usage.input_tokens, 1_110);
        assert_eq!(usage.fresh_tokens(), Some(10));
        usage.cache_writes
    };
    assert_eq!(
        usage(json!([{"ttl": "1h", "inputTokens": 60}, {"ttl": "5m", "inputTokens": 40}])),
        CacheWrites {
            h1: 60,
            m5: 40,
            ..CacheWrites::default()
        }
    );
    let all_default = CacheWrites::of(Some(300), 100);
    assert_eq!(
        usage(json!([{"ttl": "1h", "inputTokens": 60}])),
        all_default
    );
    assert_eq!(usage(json!(null)), all_default);
    assert_eq!(
        usage(json!([{"ttl": "1h", "inputTokens": 160}])),
        all_default
    );
}

#[test]
fn a_warming_call_tells_the_size_of_the_prefix() {
    let rules = (provider::by_name("bedrock").unwrap().rules)(DIALECT, BEDROCK_CLAUDE);
    let body = json!({"output": {"message": {"role": "assistant", "content": [{"text": "x"}]}}, "stopReason": "max_tokens",
        "usage": {"inputTokens": 4, "outputTokens": 1, "totalTokens": 5_005, "cacheReadInputTokens": 0,
            "cacheWriteInputTokens": 5_000, "cacheDetails": [{"ttl": "1h", "inputTokens": 5_000}]}});
    let held = upstream(DIALECT)
        .decode_hold(body.to_string().as_bytes(), &rules)
        .unwrap();
    assert_eq!(held.prefix_tokens, Some(5_000));
    assert_eq!(
        held.usage.unwrap().cache_writes,
        CacheWrites::of(Some(3_600), 5_000)
    );
    for body in ["", "[]", "{}", "{\"message\":\"x\"}"] {
        let failure = upstream(DIALECT)
            .decode_hold(body.as_bytes(), &rules)
            .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Malformed);
    }
}

#[test]
fn long_and_foreign_call_ids_become_what_the_api_takes() {
    let id = format!("call/{}", "x".repeat(80));
    let case = Case::from_json(&json!({
        "provider": "bedrock", "model": BEDROCK_CLAUDE,
        "chat": {"messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "a/b:c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": id, "content": "y"},
            {"role": "tool", "tool_call_id": "a/b:c", "content": "y"},
        ]},
    }));
    let body = case.body();
    let ids = |message: usize, kind: &str| -> Vec<String> {
        body["messages"][message]["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| block[kind]["toolUseId"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(1, "toolUse"), ["x".repeat(64), "a_b_c".to_owned()]);
    assert_eq!(ids(1, "toolUse"), ids(2, "toolResult"));
}

#[test]
fn models_have_their_rules() {
    let provider = provider::by_name("bedrock").unwrap();
    for (model, min_tokens, has_ttl) in [
        ("us.anthropic.claude-opus-5-5", 512, true),
        ("anthropic.claude-sonnet-4-6-v1:0", 1_024, true),
        ("eu.anthropic.claude-opus-4-7", 4_096, true),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", 4_096, true),
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", 1_024, false),
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-5-5",
            512,
            true,
        ),
        ("amazon.nova-pro-v1:0", 1_024, false),
    ] {
        let cache = (provider.rules)(DIALECT, model).cache;
        assert_eq!(cache.caching, Caching::Breakpoint, "{model}");
        assert_eq!(cache.marker, Some(Marker::CachePoint), "{model}");
        assert_eq!(cache.min_tokens, min_tokens, "{model}");
        assert_eq!(cache.has_ttl, has_ttl, "{model}");
        assert_eq!(cache.tiers_seconds.contains(&3_600), has_ttl, "{model}");
    }
    for (model, caching) in [
        ("amazon.nova-2-lite-v1:0", Caching::Automatic),
        ("anthropic.claude-3-haiku-20240307-v1:0", Caching::Replay),
        ("amazon.titan-text-express-v1", Caching::Replay),
        ("meta.llama4-maverick-17b-instruct-v1:0", Caching::Replay),
        ("openai.gpt-5-6", Caching::Replay),
    ] {
        assert_eq!(
            (provider.rules)(DIALECT, model).cache.caching,
            caching,
            "{model}"
        );
    }
    let responses = UpstreamDialectName::OpenaiResponses;
    let cache = (provider.rules)(responses, "openai.gpt-5-6").cache;
    assert_eq!(cache.marker, Some(Marker::PromptCacheBreakpoint));
    assert_eq!(cache.tiers_seconds, [1_800]);
}
