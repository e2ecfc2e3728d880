//! Calls and streams on disk, each with the expected result beside it. `UPDATE_GOLDEN=1` writes the results anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::{Scene, create_of, decode, request_of, rules};
use crate::chat::Message;
use crate::dialect::openai::encode_error;
use crate::error::ApiError;
use crate::provider::ModelRules;
use crate::upstream::{HttpCall, Markers, Method};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/upstream/openai")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap_or_else(|error| panic!("fixture {name}: {error}"))
}

/// Names of all inputs with this beginning and end, without the end.
fn cases(beginning: &str, end: &str) -> Vec<String> {
    let names: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names
        .iter()
        .filter(|name| name.starts_with(beginning))
        .filter_map(|name| Some(name.strip_suffix(end)?.to_owned()))
        .collect()
}

fn check(case: &str, found: &str) {
    let path = folder().join(format!("{case}.expected.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, found).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == found,
        "{case} differs; if that is right, write it with UPDATE_GOLDEN=1\n--- expected\n{expected}\n--- found\n{found}",
    );
}

fn messages(value: &Value) -> Vec<Message> {
    create_of(&serde_json::json!({ "messages": value }), "m").messages
}

fn scene(case: &Value) -> Scene {
    let model = case["model"].as_str().unwrap();
    let seconds = |key: &str| case["markers"][key].as_u64().map(|value| value as u32);
    let text = |key: &str| case[key].as_str().map(str::to_owned);
    let number = |key: &str| case[key].as_u64().map(|value| value as u32);
    Scene {
        create: case.get("create").map(|create| create_of(create, model)),
        turns: case["turns"]
            .as_array()
            .into_iter()
            .flatten()
            .map(messages)
            .collect(),
        markers: Markers {
            initial_seconds: seconds("initial"),
            history_seconds: seconds("history"),
        },
        tenant_line: text("tenant_line"),
        cache_key: text("cache_key"),
        salt: text("salt"),
        tier_seconds: number("tier_seconds"),
        max_tokens: number("max_tokens"),
        ..Scene::new(case["provider"].as_str().unwrap(), model)
    }
}

fn show_call(call: &HttpCall) -> String {
    assert_eq!(call.method, Method::Post);
    let mut text = format!("POST {}\n", call.path);
    for (name, value) in &call.headers {
        writeln!(text, "{name}: {value}").unwrap();
    }
    let body = call.body.concat();
    let _: Value = serde_json::from_slice(&body).unwrap();
    writeln!(text, "{}", String::from_utf8(body).unwrap()).unwrap();
    text
}

fn show_error(error: &ApiError) -> String {
    assert!(
        !error.message.contains("secret words"),
        "an error repeats what the client wrote"
    );
    let (status, body) = encode_error(error);
    format!("{status} {}\n", String::from_utf8_lossy(&body))
}

#[test]
fn calls_are_written_as_expected() {
    for case in cases("request_", ".json") {
        let input: Value = serde_json::from_slice(&read(&format!("{case}.json"))).unwrap();
        let scene = scene(&input);
        let chat = scene.chat(request_of(&input["chat"], &scene.model));
        assert_eq!(case.contains("_error_"), chat.is_err(), "{case}");
        let mut text = match &chat {
            Ok(call) => show_call(call),
            Err(error) => show_error(error),
        };
        if chat.is_ok()
            && let Some(hold) = scene.hold()
        {
            text.push_str("\nhold: ");
            text.push_str(&show_call(&hold));
        }
        check(&case, &text);
    }
}

/// The provider and model are in the comment that a stream begins with.
fn stream(case: &str) -> (ModelRules, Vec<u8>) {
    let bytes = read(&format!("{case}.sse"));
    let text = String::from_utf8(bytes.clone()).unwrap();
    let words: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
    (rules(words[1], words[2]), bytes)
}

#[test]
fn streams_are_read_as_expected() {
    for case in cases("stream_", ".sse") {
        let (rules, bytes) = stream(&case);
        let events = decode(&rules, &[&bytes]);
        assert_eq!(
            case.contains("_error_"),
            events.iter().any(Result::is_err),
            "{case}: {events:?}"
        );
        let mut text = String::new();
        for event in &events {
            match event {
                Ok(event) => writeln!(text, "{event:?}").unwrap(),
                Err(failure) => {
                    writeln!(text, "{failure:?}").unwrap();
                    text.push_str(&show_error(&failure.to_api_error()));
                }
            }
        }
        check(&case, &text);
    }
}

#[test]
fn streams_mean_the_same_wherever_they_are_cut() {
    for case in cases("stream_", ".sse") {
        let (rules, bytes) = stream(&case);
        let whole = decode(&rules, &[&bytes]);
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(
                decode(&rules, &[first, second]),
                whole,
                "{case} cut at {cut}"
            );
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(decode(&rules, &single), whole, "{case} byte by byte");
    }
}

#[test]
fn no_expectation_is_left_over() {
    let inputs = cases("request_", ".json").len() + cases("stream_", ".sse").len();
    assert!(inputs > 60, "fixtures are missing");
    assert_eq!(fs::read_dir(folder()).unwrap().count(), 2 * inputs);
}
