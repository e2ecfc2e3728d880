#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::{CompletionWriter, decode_completion};
use crate::ApiError;
use crate::chat::{ChatEvent, ChatHead, ChatResponse, Choice, Delta, FinishReason, Message, Role};
use crate::dialect::AnswerWriter;
use crate::dialect::openai::encode_error;
use crate::usage::Usage;

const REQUESTS: &[&str] = &[
    "request_text",
    "request_everything",
    "request_all_null",
    "request_error_no_model",
    "request_error_no_prompt",
    "request_error_empty_prompt",
    "request_error_no_prompts",
    "request_error_empty_prompt_inside",
    "request_error_prompt_type",
    "request_error_tokens",
    "request_error_many_tokens",
    "request_error_too_many_choices",
    "request_error_best_of",
    "request_error_suffix",
    "request_error_logprobs",
    "request_error_max_tokens",
];

const WRITTEN: &[&str] = &[
    "written_whole.json",
    "written_stream.sse",
    "written_stream_usage.sse",
    "written_stream_error.sse",
];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/client/completions")
        .join(name)
}

/// Compares with the file of this name; `UPDATE_GOLDEN=1` writes it.
fn check(name: &str, found: &[u8]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(fixture(name), found).unwrap();
        return;
    }
    let expected = fs::read(fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(
        String::from_utf8_lossy(&expected),
        String::from_utf8_lossy(found),
        "{name} differs; if that is right, write it with UPDATE_GOLDEN=1"
    );
}

#[test]
fn requests_decode_as_expected() {
    for case in REQUESTS {
        let body = fs::read(fixture(&format!("{case}.json"))).unwrap();
        let decoded = decode_completion(&body);
        assert_eq!(decoded.is_err(), case.contains("_error_"), "{case}");
        let text = match decoded {
            Ok(request) => format!("{request:#?}\n"),
            Err(error) => {
                assert!(!error.message.contains("secret words"), "{case}");
                let (status, body) = encode_error(&error);
                format!("{status} {}\n", String::from_utf8_lossy(&body))
            }
        };
        check(&format!("{case}.expected.txt"), text.as_bytes());
    }
}

fn head() -> ChatHead {
    ChatHead {
        id: "cmpl-1".to_owned(),
        created: 1_732_304_000,
        model: "m".to_owned(),
    }
}

fn usage() -> Usage {
    Usage {
        input_tokens: 4,
        output_tokens: 5,
        ..Usage::default()
    }
}

fn events() -> Vec<ChatEvent> {
    let text = |choice, text: &str| ChatEvent::Delta {
        choice,
        delta: Delta::Text {
            text: text.to_owned(),
            logprobs: Vec::new(),
        },
    };
    let finish = |choice, reason| ChatEvent::Finish { choice, reason };
    let stop = ChatEvent::Delta {
        choice: 0,
        delta: Delta::StopSequence {
            text: "END".to_owned(),
        },
    };
    vec![
        text(0, "你"),
        text(1, "data: [DONE]\n\n"),
        finish(1, FinishReason::Length),
        stop,
        finish(0, FinishReason::Stop),
        ChatEvent::Done {
            usage: usage(),
            receipt: None,
        },
    ]
}

fn stream(include_usage: bool, events: &[ChatEvent], failure: Option<ApiError>) -> Vec<u8> {
    let mut writer = CompletionWriter::new(include_usage);
    let mut bytes = writer.begin(&head(), &Usage::default()).to_vec();
    for event in events {
        bytes.extend_from_slice(&writer.event(event));
    }
    bytes.extend_from_slice(&match failure {
        Some(error) => writer.error(&error),
        None => writer.end(),
    });
    bytes
}

#[test]
fn answers_are_written_as_expected() {
    let choice = |index, text: &str, finish_reason| Choice {
        index,
        message: Message::text(Role::Assistant, text),
        finish_reason,
        logprobs: None,
        stop_sequence: None,
    };
    let whole = ChatResponse {
        id: head().id,
        created: head().created,
        model: head().model,
        choices: vec![
            choice(0, "ab", FinishReason::Stop),
            choice(1, "", FinishReason::Length),
        ],
        usage: usage(),
        receipt: None,
    };
    let written: [Vec<u8>; 4] = [
        CompletionWriter::new(false).whole(&whole).to_vec(),
        stream(false, &events(), None),
        stream(true, &events(), None),
        stream(false, &events()[..2], Some(ApiError::internal())),
    ];
    for (name, bytes) in WRITTEN.iter().zip(written) {
        check(name, &bytes);
    }
}

#[test]
fn every_fixture_is_used() {
    let mut used: BTreeSet<String> = WRITTEN.iter().map(|name| (*name).to_owned()).collect();
    for case in REQUESTS {
        used.insert(format!("{case}.json"));
        used.insert(format!("{case}.expected.txt"));
    }
    let found: BTreeSet<String> = fs::read_dir(fixture(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, used);
}
