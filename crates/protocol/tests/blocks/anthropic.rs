//! Anthropic Messages: what the fixtures do not show.

use std::time::Duration;

use holdfast_protocol::dialect::upstream;
use holdfast_protocol::provider::{self, UpstreamDialectName};
use holdfast_protocol::upstream::{AnswerEvent, FailureKind};
use holdfast_protocol::usage::{BilledUsage, CacheWrites};
use serde_json::json;

use crate::support::{CLAUDE, Case, decode, header};

const DIALECT: UpstreamDialectName = UpstreamDialectName::Anthropic;

#[test]
fn errors_are_sorted_by_type_and_words() {
    use FailureKind::*;
    let table = [
        (
            400,
            "invalid_request_error",
            "messages: at least one message is required",
            InvalidRequest,
        ),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
            PromptTooLong,
        ),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
            PromptTooLong,
        ),
        (
            400,
            "invalid_request_error",
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
            MarkerRefused,
        ),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the API.",
            Unauthorized,
        ),
        (
            400,
            "invalid_request_error",
            "Output blocked by content filtering policy",
            Filtered,
        ),
        (
            401,
            "authentication_error",
            "invalid x-api-key",
            Unauthorized,
        ),
        (402, "billing_error", "x", Unauthorized),
        (403, "permission_error", "x", Unauthorized),
        (404, "not_found_error", "model: nope", ModelNotFound),
        (
            413,
            "request_too_large",
            "Request exceeds the maximum size",
            PromptTooLong,
        ),
        (429, "rate_limit_error", "x", RateLimited),
        (500, "api_error", "Internal server error", ServerError),
        (504, "timeout_error", "x", Timeout),
        (529, "overloaded_error", "Overloaded", Overloaded),
        // The words count, whatever the status says.
        (500, "overloaded_error", "Overloaded", Overloaded),
        (529, "what_is_this", "x", Overloaded),
    ];
    for (status, kind, message, expected) in table {
        let body = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"});
        let failure = upstream(DIALECT).failure(status, &|_| None, body.to_string().as_bytes());
        assert_eq!(failure.kind, expected, "{status} {kind} {message}");
        assert_eq!(failure.message, message);
        assert_eq!(failure.status, Some(status));
    }
    let failure = upstream(DIALECT).failure(502, &|_| None, b"<html>Bad gateway</html>");
    assert_eq!(failure.kind, ServerError);
    assert_eq!(failure.message, "");
}

#[test]
fn a_rate_limit_says_for_how_long() {
    let header = |name: &str| (name == "retry-after").then(|| "17".to_owned());
    let failure = upstream(DIALECT).failure(429, &header, b"{}");
    assert_eq!(failure.kind, FailureKind::RateLimited);
    assert_eq!(failure.retry_after, Some(Duration::from_secs(17)));
}

#[test]
fn errors_in_a_stream_have_their_kind_without_a_status() {
    for (kind, expected) in [
        ("overloaded_error", FailureKind::Overloaded),
        ("rate_limit_error", FailureKind::RateLimited),
        ("api_error", FailureKind::ServerError),
        ("never_heard_of", FailureKind::ServerError),
    ] {
        let data = json!({"type": "error", "error": {"type": kind, "message": "x"}});
        let stream = format!("event: error\ndata: {data}\n\n");
        let events = decode(DIALECT, &[stream.as_bytes()]);
        assert_eq!(events.len(), 1);
        let failure = events[0].as_ref().unwrap_err();
        assert_eq!((failure.kind, failure.status), (expected, None));
    }
}

#[test]
fn an_event_larger_than_the_bound_is_refused() {
    let piece = [b'x'; 1024 * 1024];
    let pieces: Vec<&[u8]> = std::iter::once(&b"data: "[..])
        .chain(std::iter::repeat_n(&piece[..], 17))
        .collect();
    let events = decode(DIALECT, &pieces);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].as_ref().unwrap_err().kind, FailureKind::Malformed);
}

#[test]
fn tool_calls_are_bounded() {
    let stream: String = (0..=512)
        .map(|index| {
            let block = json!({"type": "tool_use", "id": "t", "name": "f", "input": {}});
            let data =
                json!({"type": "content_block_start", "index": index, "content_block": block});
            format!("data: {data}\n\n")
        })
        .collect();
    let events = decode(DIALECT, &[stream.as_bytes()]);
    assert_eq!(events.len(), 513);
    assert_eq!(
        events[512].as_ref().unwrap_err().kind,
        FailureKind::Malformed
    );
}

#[test]
fn usage_is_known_before_the_end() {
    let dialect = upstream(DIALECT);
    let rules = (provider::by_name("anthropic").unwrap().rules)(DIALECT, CLAUDE);
    let mut decoder = dialect.decoder(&rules);
    assert_eq!(decoder.usage_so_far(), None);
    decoder.push(
        b"data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7,\"cache_read_input_tokens\":100,\"output_tokens\":1}}}\n\n",
    );
    let usage = decoder.usage_so_far().unwrap();
    assert_eq!((usage.input_tokens, usage.cache_read_tokens), (107, 100));
}

#[test]
fn nonsense_counts_do_not_spoil_an_answer() {
    let stream = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":18446744073709551615,\
                  \"cache_read_input_tokens\":-5,\"cache_creation_input_tokens\":\"x\",\"output_tokens\":3.0}}}\n\n\
                  data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n";
    let events = decode(DIALECT, &[stream.as_bytes()]);
    let Some(Ok(AnswerEvent::Done(end))) = events.last() else {
        panic!("{events:?}");
    };
    let expected = BilledUsage {
        output_tokens: 3,
        ..BilledUsage::default()
    };
    assert_eq!(end.usage, Some(expected));
}

#[test]
fn a_warming_call_tells_the_size_of_the_prefix() {
    let rules = (provider::by_name("anthropic").unwrap().rules)(DIALECT, CLAUDE);
    let decode_hold = |usage: serde_json::Value| {
        let body = json!({"id": "msg_1", "type": "message", "content": [], "usage": usage});
        upstream(DIALECT)
            .decode_hold(body.to_string().as_bytes(), &rules)
            .unwrap()
    };
    let held = decode_hold(
        json!({"input_tokens": 4, "cache_creation_input_tokens": 5_000,
        "cache_creation": {"ephemeral_1h_input_tokens": 5_000}, "output_tokens": 0}),
    );
    assert_eq!(held.prefix_tokens, Some(5_000));
    assert_eq!(
        held.usage.unwrap().cache_writes,
        CacheWrites::of(Some(3_600), 5_000)
    );
    assert_eq!((held.handle, held.expires_at), (None, None));
    let held = decode_hold(json!({"input_tokens": 300, "output_tokens": 0}));
    assert_eq!(held.prefix_tokens, Some(300));
    for body in ["", "[]", "{}", "{\"type\":\"error\"}"] {
        let failure = upstream(DIALECT)
            .decode_hold(body.as_bytes(), &rules)
            .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Malformed);
    }
}

#[test]
fn what_caches_by_itself_gets_no_markers() {
    let case = Case::from_json(&json!({
        "provider": "minimax", "model": "MiniMax-M3",
        "create": {"messages": [{"role": "system", "content": "long"}]},
        "markers": {"initial": 300},
    }));
    assert!(!case.body().to_string().contains("cache_control"));
    let marked = Case::from_json(&json!({
        "provider": "minimax", "model": "MiniMax-M2.5",
        "create": {"messages": [{"role": "system", "content": "long"}]},
        "markers": {"initial": 300},
    }));
    assert!(marked.body().to_string().contains("cache_control"));
}

#[test]
fn the_markers_that_matter_most_are_set_first() {
    let markers = |markers_max: u8| {
        let case = Case::from_json(&json!({
            "provider": "anthropic", "model": CLAUDE, "markers_max": markers_max,
            "create": {"messages": [{"role": "user", "content": "initial"}]},
            "history": [
                {"role": "assistant", "content": "h1"}, {"role": "user", "content": "h2"},
                {"role": "assistant", "content": "h3"}, {"role": "user", "content": "h4"},
            ],
            "previous_history": 2,
            "markers": {"initial": 300, "history": 300},
        }));
        let body = case.body();
        let marked: Vec<String> = body["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| &message["content"][0])
            .filter(|block| block.get("cache_control").is_some())
            .map(|block| block["text"].as_str().unwrap().to_owned())
            .collect();
        marked
    };
    assert_eq!(markers(0), [""; 0]);
    assert_eq!(markers(1), ["initial"]);
    assert_eq!(markers(2), ["initial", "h4"]);
    assert_eq!(markers(3), ["initial", "h2", "h4"]);
    assert_eq!(markers(4), ["initial", "h2", "h4"]);
}

#[test]
fn the_key_goes_where_the_rules_say() {
    use holdfast_protocol::provider::RequestField;
    let mut case = Case::from_json(&json!({"provider": "anthropic", "model": CLAUDE}));
    assert!(!case.body().to_string().contains("key-of-the-context"));
    case.rules.cache.key = Some(RequestField::Header("x-session"));
    case.rules.cache.salt = Some(RequestField::Body("salt"));
    assert_eq!(
        header(&case.chat().unwrap(), "x-session"),
        Some("key-of-the-context")
    );
    assert_eq!(case.body()["salt"], "salt-of-the-tenant");
}

#[test]
fn models_have_their_minimum() {
    let provider = provider::by_name("anthropic").unwrap();
    for (model, tokens) in [
        ("claude-opus-5-5-20260901", 512),
        ("claude-sonnet-5-5", 512),
        ("claude-sonnet-5", 1_024),
        ("claude-sonnet-4-6", 1_024),
        ("claude-opus-4-8", 1_024),
        ("claude-opus-4-7", 2_048),
        ("claude-haiku-4-5", 4_096),
        ("claude-3-5-haiku-latest", 2_048),
        ("something-new", 1_024),
    ] {
        let rules = (provider.rules)(DIALECT, model);
        assert_eq!(rules.cache.min_tokens, tokens, "{model}");
        assert_eq!(rules.cache.tiers_seconds, [300, 3_600]);
    }
}
