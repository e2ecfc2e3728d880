//! Fixtures on disk: each input has its expected result beside it. `UPDATE_GOLDEN=1` writes the results anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use super::written;
use crate::chat::{ChatEvent, ChatHead, ChatRequest};
use crate::compose::compose;
use crate::dialect::openai::{
    OpenAiUpstream, StreamEncoder, decode_create, decode_request, encode_error,
};
use crate::error::ApiError;
use crate::provider::{CacheRules, ModelRules, Quirks};
use crate::upstream::{AnswerEvent, ChatCall, Failure, UpstreamDialect};

const CREATES: &[&str] = &[
    "create_seed_http",
    "create_seed_curl",
    "create_seed_go",
    "create_ark_sdk",
    "create_ark_go_sdk",
    "create_rolling_windows",
    "create_singular_alias",
    "create_tools_and_labels",
    "create_error_ttl_zero",
    "create_error_ttl_fraction",
    "create_error_ttl_type",
    "create_error_mode",
    "create_error_no_messages",
    "create_error_missing_model",
    "create_error_truncation_type",
    "create_error_tool_choice",
];

const REQUESTS: &[&str] = &[
    "request_seed_style",
    "request_ark_all_null",
    "request_ark_go_sdk",
    "request_model_from_context",
    "request_stateless_empty_id",
    "request_everything",
    "request_deprecated_functions",
    "request_empty_forms",
    "request_error_truncated_json",
    "request_error_not_object",
    "request_error_deep_nesting",
    "request_without_model",
    "request_error_missing_messages",
    "request_error_malformed_context_id",
    "request_error_no_role",
    "request_error_unknown_role",
    "request_error_null_content",
    "request_error_part_without_text",
    "request_error_part_text_type",
    "request_error_part_kind",
    "request_error_no_parts",
    "request_error_image_without_url",
    "request_error_user_tool_calls",
    "request_error_message_not_object",
    "request_error_temperature_range",
    "request_error_temperature_type",
    "request_error_n_zero",
    "request_error_n_too_many",
    "request_error_max_tokens_zero",
    "request_error_max_tokens_fraction",
    "request_error_stop_too_many",
    "request_error_stop_empty",
    "request_error_top_logprobs_alone",
    "request_error_logit_bias_range",
    "request_error_logit_bias_key",
    "request_error_tool_kind",
    "request_error_tool_name",
    "request_error_tool_twice",
    "request_error_tools_and_functions",
    "request_error_tool_choice_word",
    "request_error_response_format",
    "request_error_schema_missing",
    "request_error_stream_type",
];

const STREAMS: &[&str] = &[
    "stream_text",
    "stream_crlf_two_choices",
    "stream_cr_usage_on_finish",
    "stream_tool_calls",
    "stream_logprobs",
    "stream_without_done",
    "stream_error_in_between",
    "stream_error_cut_short",
    "stream_error_not_json",
];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/openai")
        .join(name)
}

fn read(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap_or_else(|error| panic!("fixture {name}: {error}"))
}

fn check(name: &str, found: &[u8]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(fixture(name), found).unwrap();
        return;
    }
    let expected = read(name);
    assert!(
        expected == found,
        "{name} differs; if that is right, write it with UPDATE_GOLDEN=1\n--- expected\n{}\n--- found\n{}",
        String::from_utf8_lossy(&expected),
        String::from_utf8_lossy(found),
    );
}

fn show_error(error: &ApiError) -> String {
    let (status, body) = encode_error(error);
    assert!(
        !error.message.contains("secret words"),
        "an error repeats what the client wrote"
    );
    format!("{status} {}\n", String::from_utf8_lossy(&body))
}

#[test]
fn creates_decode_as_expected() {
    for case in CREATES {
        let text = match decode_create(&read(&format!("{case}.json"))) {
            Ok(create) => format!("{create:#?}\n"),
            Err(error) => show_error(&error),
        };
        assert_eq!(
            case.contains("_error_"),
            !text.starts_with("CreateContext"),
            "{case}"
        );
        check(&format!("{case}.expected.txt"), text.as_bytes());
    }
}

/// An upstream that takes all that this dialect can say.
fn rules() -> ModelRules {
    ModelRules {
        cache: CacheRules::replay(),
        quirks: Quirks {
            developer_role: true,
            passes_unknown_fields: true,
            ..Quirks::default()
        },
    }
}

/// The request as it goes on to an upstream of the same dialect, as model `m`.
fn encode_request(request: ChatRequest) -> Vec<u8> {
    let composed = compose(None, request, 32_768, 0).unwrap();
    let call = ChatCall {
        model: "m",
        prefix: None,
        handle: None,
        chain: None,
        composed: &composed,
        max_tokens: composed.request.max_tokens,
        cache_key: None,
        salt: None,
        tier_seconds: None,
        previous_answer: None,
        rules: &rules(),
    };
    let call = OpenAiUpstream.encode_chat(&call).unwrap();
    assert_eq!(call.path, "/chat/completions");
    call.body.concat()
}

#[test]
fn requests_go_on_as_they_came() {
    for case in REQUESTS {
        let text = match decode_request(&read(&format!("{case}.json"))) {
            Ok(request) => {
                let encoded = encode_request(request.clone());
                let expected = ChatRequest {
                    model: Some("m".to_owned()),
                    context_id: None,
                    stream: true,
                    include_usage: true,
                    ..request.clone()
                };
                assert_eq!(
                    decode_request(&encoded).unwrap(),
                    expected,
                    "{case}: what is encoded does not decode to the same"
                );
                format!(
                    "{request:#?}\n\nencoded:\n{}\n",
                    String::from_utf8_lossy(&encoded)
                )
            }
            Err(error) => show_error(&error),
        };
        assert_eq!(
            case.contains("_error_"),
            !text.starts_with("ChatRequest"),
            "{case}"
        );
        check(&format!("{case}.expected.txt"), text.as_bytes());
    }
}

fn decode_stream(pieces: &[&[u8]]) -> Vec<Result<AnswerEvent, Failure>> {
    let mut decoder = OpenAiUpstream.decoder(&rules());
    let mut events: Vec<_> = pieces
        .iter()
        .flat_map(|piece| decoder.push(piece))
        .collect();
    events.extend(decoder.finish());
    events
}

/// What a client is told of an upstream's answer.
fn told(events: &[Result<AnswerEvent, Failure>]) -> Vec<Result<ChatEvent, ApiError>> {
    events
        .iter()
        .map(|event| match event.clone() {
            Ok(AnswerEvent::Delta { choice, delta }) => Ok(ChatEvent::Delta { choice, delta }),
            Ok(AnswerEvent::Finish { choice, reason }) => Ok(ChatEvent::Finish { choice, reason }),
            Ok(AnswerEvent::Done(end)) => Ok(ChatEvent::Done {
                usage: end.usage.unwrap_or_default().to_usage(),
                receipt: None,
            }),
            Err(failure) => Err(failure.to_api_error()),
        })
        .collect()
}

fn encode_stream(events: &[Result<ChatEvent, ApiError>], include_usage: bool) -> Vec<u8> {
    let head = ChatHead {
        id: "chatcmpl-1".to_owned(),
        created: 1_732_304_000,
        model: "m".to_owned(),
    };
    let mut encoder = StreamEncoder::new(head, include_usage);
    let mut bytes = Vec::new();
    for event in events {
        match event {
            Ok(event) => bytes.extend_from_slice(&encoder.event(event)),
            Err(error) => {
                bytes.extend_from_slice(&encoder.error(error));
                return bytes;
            }
        }
    }
    bytes.extend_from_slice(&encoder.end());
    bytes
}

#[test]
fn streams_decode_and_encode_as_expected() {
    for case in STREAMS {
        let bytes = read(&format!("{case}.sse"));
        let events = told(&decode_stream(&[&bytes]));
        assert_eq!(
            case.contains("_error_"),
            events.iter().any(Result::is_err),
            "{case}"
        );
        let mut text = String::new();
        for event in &events {
            match event {
                Ok(event) => writeln!(text, "{event:?}").unwrap(),
                Err(error) => text.push_str(&show_error(error)),
            }
        }
        for include_usage in [true, false] {
            let encoded = encode_stream(&events, include_usage);
            write!(
                text,
                "\nencoded, include_usage {include_usage}:\n{}",
                String::from_utf8_lossy(&encoded)
            )
            .unwrap();
            if include_usage && !case.contains("_error_") {
                assert_eq!(told(&decode_stream(&[&encoded])), events, "{case}");
            }
        }
        check(&format!("{case}.expected.txt"), text.as_bytes());
    }
}

#[test]
fn streams_mean_the_same_wherever_they_are_cut() {
    for case in STREAMS {
        let bytes = read(&format!("{case}.sse"));
        let whole = decode_stream(&[&bytes]);
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(
                decode_stream(&[first, second]),
                whole,
                "{case} cut at {cut}"
            );
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode_stream(&single), whole, "{case} byte by byte");
    }
}

#[test]
fn answers_are_written_as_expected() {
    for (name, bytes) in written::all() {
        check(name, &bytes);
    }
}

#[test]
fn every_fixture_is_used() {
    let mut used: BTreeSet<String> = BTreeSet::new();
    for case in [CREATES, REQUESTS].concat() {
        used.insert(format!("{case}.json"));
        used.insert(format!("{case}.expected.txt"));
    }
    for case in STREAMS {
        used.insert(format!("{case}.sse"));
        used.insert(format!("{case}.expected.txt"));
    }
    used.extend(written::all().into_iter().map(|(name, _)| name.to_owned()));
    let found: BTreeSet<String> = fs::read_dir(fixture(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let unused: Vec<_> = found.difference(&used).collect();
    assert!(unused.is_empty(), "fixtures that no test names: {unused:?}");
}
