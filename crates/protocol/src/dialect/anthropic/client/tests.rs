//! Golden fixtures: requests as they are understood, answers as they are written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use super::{Writer, decode_count, decode_request, encode_error};
use crate::chat::{ChatEvent, ChatHead, ChatResponse, Delta, FinishReason, ReasoningSignature};
use crate::collect::ResponseBuilder;
use crate::dialect::AnswerWriter;
use crate::error::{ApiError, ErrorKind};
use crate::usage::Usage;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/client/anthropic")
}

fn check(name: &str, found: &str) {
    let path = folder().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, found).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == found,
        "{name} differs; if that is right, write it with UPDATE_GOLDEN=1\n--- expected\n{expected}\n--- found\n{found}"
    );
}

fn shown(error: &ApiError) -> String {
    let (status, body) = encode_error(error);
    let param = error.param.as_deref().unwrap_or("-");
    format!("{status} {param}\n{}\n", String::from_utf8_lossy(&body))
}

#[test]
fn requests_are_understood() {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("request_") && name.ends_with(".json"))
        .collect();
    names.sort();
    assert!(names.len() > 20);
    for name in names {
        let body = Bytes::from(fs::read(folder().join(&name)).unwrap());
        let found = match decode_request(&body) {
            Ok(mut request) => {
                assert!(!name.starts_with("request_error"), "{name} is accepted");
                let original = request.chat.original.take();
                let goes_on = request.chat.context_id.is_none() && !name.contains("foreign_seal");
                assert_eq!(original.is_some(), goes_on, "{name}");
                assert!(
                    original
                        .as_ref()
                        .is_none_or(|original| original.body == body)
                );
                match original.and_then(|original| original.only) {
                    None => format!("{request:#?}\n"),
                    Some(error) => format!("{request:#?}\nelsewhere {}", shown(&error)),
                }
            }
            Err(error) => {
                assert!(name.starts_with("request_error"), "{name}: {error}");
                shown(&error)
            }
        };
        check(&name.replace(".json", ".expected.txt"), &found);
    }
}

#[test]
fn counting_needs_no_length() {
    let body = Bytes::from_static(
        br#"{"model":"m","system":"S","messages":[{"role":"user","content":"x"}]}"#,
    );
    let request = decode_count(&body).unwrap();
    assert_eq!(request.messages.len(), 2);
    assert_eq!(request.max_tokens, None);
}

fn delta(delta: Delta) -> ChatEvent {
    ChatEvent::Delta { choice: 0, delta }
}

fn text(text: &str) -> ChatEvent {
    delta(Delta::Text {
        text: text.to_owned(),
        logprobs: Vec::new(),
    })
}

fn call(index: u32, id: &str, fragments: &[&str]) -> Vec<ChatEvent> {
    let start = Delta::ToolCallStart {
        index,
        id: id.to_owned(),
        name: "get_weather".to_owned(),
    };
    let fragments = fragments.iter().map(|fragment| Delta::ToolCallArguments {
        index,
        fragment: (*fragment).to_owned(),
    });
    [start].into_iter().chain(fragments).map(delta).collect()
}

fn finish(reason: FinishReason) -> ChatEvent {
    ChatEvent::Finish { choice: 0, reason }
}

fn answers() -> Vec<(&'static str, Vec<ChatEvent>)> {
    let thinking = Delta::Reasoning {
        text: "Let me see.".to_owned(),
    };
    let seal = |dialect| {
        delta(Delta::ReasoningSignature {
            signature: ReasoningSignature::new(dialect, "c2ln"),
        })
    };
    let calls = [
        call(0, "toolu_1", &["{\"city\":", "\"Oslo\"}"]),
        call(1, "toolu_2", &[]),
    ];
    vec![
        (
            "text",
            vec![text("Hel"), text("lo."), finish(FinishReason::Stop)],
        ),
        (
            "tools",
            [text("I look.")]
                .into_iter()
                .chain(calls.into_iter().flatten())
                .chain([finish(FinishReason::ToolCalls)])
                .collect(),
        ),
        (
            "thinking",
            vec![
                delta(thinking.clone()),
                seal("anthropic"),
                text("Four."),
                finish(FinishReason::Stop),
            ],
        ),
        (
            "foreign_seal",
            vec![
                delta(thinking),
                seal("gemini"),
                text("Four."),
                finish(FinishReason::Length),
            ],
        ),
        (
            "stop_sequence",
            vec![
                text("One"),
                delta(Delta::StopSequence {
                    text: "END".to_owned(),
                }),
                finish(FinishReason::Stop),
            ],
        ),
        (
            "refusal",
            vec![
                delta(Delta::Refusal {
                    text: "I can't.".to_owned(),
                }),
                finish(FinishReason::ContentFilter),
            ],
        ),
        ("nothing", vec![finish(FinishReason::Stop)]),
    ]
}

fn head() -> ChatHead {
    ChatHead {
        id: "chatcmpl-1".to_owned(),
        created: 1_800_000_000,
        model: "claude".to_owned(),
    }
}

fn usage() -> Usage {
    Usage {
        input_tokens: 1_000,
        cached_input_tokens: 700,
        cache_write_tokens: 200,
        output_tokens: 20,
        reasoning_tokens: 0,
    }
}

fn collected(events: &[ChatEvent]) -> ChatResponse {
    let mut builder = ResponseBuilder::new(head());
    for event in events {
        builder.event(event);
    }
    builder.finish().unwrap()
}

#[test]
fn answers_are_written() {
    for (name, mut events) in answers() {
        events.push(ChatEvent::Done {
            usage: usage(),
            receipt: None,
        });
        let mut writer = Writer::new(name == "tools");
        let mut stream = writer.begin(&head(), &Usage::default()).to_vec();
        for event in &events {
            stream.extend_from_slice(&writer.event(event));
        }
        stream.extend_from_slice(&writer.end());
        check(
            &format!("stream_{name}.sse"),
            std::str::from_utf8(&stream).unwrap(),
        );
        let whole = Writer::new(name == "tools").whole(&collected(&events));
        let whole: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        check(&format!("whole_{name}.json"), &format!("{whole:#}\n"));
    }
}

#[test]
fn counts_are_exclusive_and_never_below_zero() {
    let usage = Usage {
        input_tokens: 10,
        cached_input_tokens: 8,
        // The answer of a session's turn is written, too.
        cache_write_tokens: 30,
        ..Usage::default()
    };
    let counts = Writer::new(false).usage(&usage);
    assert_eq!(counts["input_tokens"], 0);
    assert_eq!(counts["cache_read_input_tokens"], 8);
    assert_eq!(counts["cache_creation_input_tokens"], 2);
}

#[test]
fn a_failure_in_a_stream_is_an_error_event() {
    let error = ApiError::overloaded(std::time::Duration::from_secs(1));
    let bytes = Writer::new(false).error(&error);
    assert!(bytes.starts_with(
        b"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\""
    ));
    assert_eq!(
        Writer::new(false).keep_alive(),
        "event: ping\ndata: {\"type\":\"ping\"}\n\n"
    );
}

#[test]
fn each_kind_of_error_has_a_type_that_its_status_allows() {
    let kinds = [
        (ErrorKind::InvalidParameter, 400, "invalid_request_error"),
        (ErrorKind::Unauthenticated, 401, "authentication_error"),
        (ErrorKind::PermissionDenied, 403, "permission_error"),
        (ErrorKind::ModelNotFound, 404, "not_found_error"),
        (ErrorKind::PayloadTooLarge, 413, "request_too_large"),
        (ErrorKind::RateLimited, 429, "rate_limit_error"),
        (ErrorKind::Internal, 500, "api_error"),
        (ErrorKind::Timeout, 504, "timeout_error"),
        (ErrorKind::Overloaded, 529, "overloaded_error"),
    ];
    for (kind, status, word) in kinds {
        let (found, body) = encode_error(&ApiError::new(kind, "What is wrong."));
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(found, status);
        assert_eq!(body["error"]["type"], word);
        assert_eq!(body["error"]["message"], "What is wrong.");
    }
}
