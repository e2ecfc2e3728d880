//! Fixtures on disk: each input has its expected result beside it. `UPDATE_GOLDEN=1` writes the results anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use holdfast_protocol::error::ApiError;
use holdfast_protocol::provider::UpstreamDialectName;
use holdfast_protocol::upstream::HttpCall;

use crate::support::{Case, Events, body_text, decode, frames};

const ANTHROPIC_REQUESTS: &[&str] = &[
    "chat_reasoned",
    "chat_reasoned_by_budget",
    "chat_reasoned_beside_temperature",
    "chat_unsealed_tool_loop",
    "chat_files",
    "chat_error_sound",
    "chat_error_document_kind",
    "chat_without_context",
    "chat_everything",
    "chat_document_and_question",
    "chat_session",
    "chat_tools_and_results",
    "chat_images",
    "chat_minimax",
    "chat_error_temperature",
    "chat_error_choices",
    "chat_error_logprobs",
    "chat_error_logit_bias",
    "chat_error_json_object",
    "chat_error_arguments",
    "chat_error_assistant_image",
    "chat_error_image_url",
    "chat_error_blank",
];

const BEDROCK_REQUESTS: &[&str] = &[
    "chat_reasoned",
    "chat_reasoned_by_budget",
    "chat_files",
    "chat_error_file_url",
    "chat_error_sound",
    "chat_without_context",
    "chat_everything",
    "chat_document_and_question",
    "chat_session",
    "chat_tools_and_results",
    "chat_images",
    "chat_nova",
    "chat_error_temperature",
    "chat_error_tool_choice_none",
    "chat_error_parallel_tool_calls",
    "chat_error_arguments",
    "chat_error_image_url",
];

const ANTHROPIC_STREAMS: &[&str] = &[
    "stream_text",
    "stream_tools",
    "stream_thinking",
    "stream_refusal",
    "stream_miss_reason",
    "stream_without_stop",
    "stream_imitator",
    "stream_error_overloaded",
    "stream_error_cut_short",
    "stream_error_not_json",
];

const BEDROCK_STREAMS: &[&str] = &[
    "stream_text",
    "stream_tools",
    "stream_reasoning",
    "stream_guardrail",
    "stream_without_metadata",
    "stream_error_throttled",
    "stream_error_validation",
    "stream_error_unknown",
    "stream_error_malformed_output",
    "stream_error_cut_short",
];

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/upstream")
        .join(name)
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap_or_else(|error| panic!("fixture {name}: {error}"))
}

fn check(name: &str, found: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(fixture(name), found).unwrap();
        return;
    }
    let expected = String::from_utf8(read(name)).unwrap();
    assert!(
        expected == found,
        "{name} differs; if that is right, write it with UPDATE_GOLDEN=1\n--- expected\n{expected}\n--- found\n{found}",
    );
}

fn show_call(call: &HttpCall) -> String {
    let mut text = format!("{:?} {}\n", call.method, call.path);
    for (name, value) in &call.headers {
        writeln!(text, "{name}: {value}").unwrap();
    }
    writeln!(text, "\n{}", body_text(call)).unwrap();
    text
}

fn show_error(error: &ApiError) -> String {
    assert!(
        !error.message.contains("secret words"),
        "an error repeats what the client wrote"
    );
    format!(
        "error {:?} {:?}\n{}\n",
        error.kind, error.param, error.message
    )
}

fn show_events(events: &Events) -> String {
    let mut text = String::new();
    for event in events {
        match event {
            Ok(event) => writeln!(text, "{event:?}").unwrap(),
            Err(failure) => writeln!(text, "{failure:?}").unwrap(),
        }
    }
    text
}

fn requests() -> impl Iterator<Item = String> {
    let anthropic = ANTHROPIC_REQUESTS
        .iter()
        .map(|case| format!("anthropic/{case}"));
    anthropic.chain(
        BEDROCK_REQUESTS
            .iter()
            .map(|case| format!("bedrock/{case}")),
    )
}

/// Name, file, dialect and bytes of every stream.
pub(crate) fn streams() -> Vec<(String, UpstreamDialectName, Vec<u8>)> {
    let mut streams = Vec::new();
    for case in ANTHROPIC_STREAMS {
        let name = format!("anthropic/{case}");
        let bytes = read(&format!("{name}.sse"));
        streams.push((name, UpstreamDialectName::Anthropic, bytes));
    }
    for case in BEDROCK_STREAMS {
        let name = format!("bedrock/{case}");
        let lines = String::from_utf8(read(&format!("{name}.frames"))).unwrap();
        streams.push((name, UpstreamDialectName::BedrockConverse, frames(&lines)));
    }
    streams
}

#[test]
fn requests_encode_as_expected() {
    for name in requests() {
        let json: serde_json::Value =
            serde_json::from_slice(&read(&format!("{name}.json"))).unwrap();
        let case = Case::from_json(&json);
        let mut text = match case.chat() {
            Ok(call) => show_call(&call),
            Err(error) => show_error(&error),
        };
        assert_eq!(
            name.contains("_error_"),
            text.starts_with("error"),
            "{name}: {text}"
        );
        if json["hold"] == true {
            text.push_str("\nhold:\n");
            text.push_str(&show_call(&case.hold().unwrap()));
        }
        check(&format!("{name}.expected.txt"), &text);
    }
}

#[test]
fn streams_decode_as_expected() {
    for (name, dialect, bytes) in streams() {
        let events = decode(dialect, &[&bytes]);
        assert_eq!(
            name.contains("_error_"),
            events.iter().any(Result::is_err),
            "{name}"
        );
        check(&format!("{name}.expected.txt"), &show_events(&events));
    }
}

#[test]
fn streams_mean_the_same_wherever_they_are_cut() {
    for (name, dialect, bytes) in streams() {
        let whole = decode(dialect, &[&bytes]);
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(
                decode(dialect, &[first, second]),
                whole,
                "{name} cut at {cut}"
            );
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode(dialect, &single), whole, "{name} byte by byte");
    }
}

#[test]
fn every_fixture_is_used() {
    for (folder, requests, streams, extension) in [
        ("anthropic", ANTHROPIC_REQUESTS, ANTHROPIC_STREAMS, "sse"),
        ("bedrock", BEDROCK_REQUESTS, BEDROCK_STREAMS, "frames"),
    ] {
        let mut used: BTreeSet<String> = BTreeSet::new();
        for (cases, extension) in [(requests, "json"), (streams, extension)] {
            for case in cases {
                used.insert(format!("{case}.{extension}"));
                used.insert(format!("{case}.expected.txt"));
            }
        }
        let found: BTreeSet<String> = fs::read_dir(fixture(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let unused: Vec<_> = found.difference(&used).collect();
        assert!(unused.is_empty(), "fixtures that no test names: {unused:?}");
    }
}
