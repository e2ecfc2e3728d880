//! Golden fixtures: requests as they are understood.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod property;
mod resources;

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::Value;

use super::{Request, Surface, decode_request};
use crate::UnixMillis;
use crate::error::ApiError;

const NOW: UnixMillis = 1_800_000_000_000;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/client/responses")
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

fn surface_of(name: &str) -> Surface {
    match name.contains("ark_") {
        true => Surface::Ark,
        false => Surface::OpenAi,
    }
}

fn shown(error: &ApiError) -> String {
    let param = error.param.as_deref().unwrap_or("-");
    format!("{:?} {param}\n{}\n", error.kind, error.message)
}

/// The names of all requests, and their bodies.
fn requests() -> Vec<(String, Bytes)> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("request_") && name.ends_with(".json"))
        .collect();
    names.sort();
    let read = |name: String| {
        let body = Bytes::from(fs::read(folder().join(&name)).unwrap());
        (name, body)
    };
    names.into_iter().map(read).collect()
}

fn decoded(name: &str) -> Request {
    let body = Bytes::from(fs::read(folder().join(name)).unwrap());
    decode_request(&body, surface_of(name), NOW).unwrap()
}

#[test]
fn requests_are_understood() {
    let requests = requests();
    assert!(requests.len() > 80);
    for (name, body) in requests {
        let found = match decode_request(&body, surface_of(&name), NOW) {
            Ok(mut request) => {
                assert!(!name.starts_with("request_error"), "{name} is accepted");
                let original = request.chat.original.take();
                let only = original.as_ref().and_then(|original| original.only.clone());
                assert_eq!(only.is_some(), name.starts_with("request_only"), "{name}");
                let mut found = format!("{:#?}\n", request.chat);
                let Request {
                    instructions_end,
                    input,
                    previous_response_id,
                    conversation,
                    store,
                    expires_at,
                    caching,
                    echo,
                    ..
                } = request;
                let more = [
                    ("instructions_end", format!("{instructions_end}")),
                    ("previous_response_id", format!("{previous_response_id:?}")),
                    ("conversation", format!("{conversation:?}")),
                    ("store", format!("{store}")),
                    ("expires_at", format!("{expires_at:?}")),
                    ("caching", format!("{caching:?}")),
                    ("input", format!("{:#}", Value::Array(input))),
                    ("echo", format!("{:#}", Value::Object(echo.fields))),
                    ("goes on as it is", format!("{}", original.is_some())),
                ];
                for (field, value) in more {
                    writeln!(found, "{field}: {value}").unwrap();
                }
                if let Some(error) = only {
                    write!(found, "elsewhere: {}", shown(&error)).unwrap();
                }
                found
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
fn only_stateless_requests_go_on_as_they_are() {
    let original = |name: &str| decoded(name).chat.original;
    let body = original("request_stateless.json").unwrap().body;
    assert_eq!(body, requests_body("request_stateless.json"));
    for name in [
        "request_text.json",
        "request_previous.json",
        "request_conversation.json",
        "request_context.json",
        "request_ark_options.json",
    ] {
        assert_eq!(original(name), None, "{name}");
    }
}

fn requests_body(name: &str) -> Bytes {
    fs::read(folder().join(name)).unwrap().into()
}
