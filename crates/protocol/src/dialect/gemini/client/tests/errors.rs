use std::time::Duration;

use serde_json::{Value, json};

use super::super::{StreamForm, Writer, encode_error};
use crate::dialect::AnswerWriter;
use crate::dialect::openai;
use crate::error::{ApiError, ErrorFacts, ErrorKind};
use crate::upstream::{Failure, FailureKind};

fn of(error: &ApiError) -> (u16, Value) {
    let (status, body) = encode_error(error);
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    (status, body["error"].take())
}

#[test]
fn each_kind_of_error_has_a_code_and_its_word() {
    for (kind, code, word) in [
        (ErrorKind::InvalidJson, 400, "INVALID_ARGUMENT"),
        (ErrorKind::MissingParameter, 400, "INVALID_ARGUMENT"),
        (ErrorKind::InvalidParameter, 400, "INVALID_ARGUMENT"),
        (ErrorKind::UnsupportedParameter, 400, "INVALID_ARGUMENT"),
        (ErrorKind::InvalidMessage, 400, "INVALID_ARGUMENT"),
        (ErrorKind::UnknownRole, 400, "INVALID_ARGUMENT"),
        (ErrorKind::OutOfContext, 400, "INVALID_ARGUMENT"),
        (ErrorKind::Unauthenticated, 401, "UNAUTHENTICATED"),
        (ErrorKind::PermissionDenied, 403, "PERMISSION_DENIED"),
        (ErrorKind::ModelNotFound, 404, "NOT_FOUND"),
        (ErrorKind::NotFound, 404, "NOT_FOUND"),
        (ErrorKind::MethodNotAllowed, 405, "UNIMPLEMENTED"),
        (ErrorKind::PayloadTooLarge, 413, "INVALID_ARGUMENT"),
        (ErrorKind::RateLimited, 429, "RESOURCE_EXHAUSTED"),
        (ErrorKind::Overloaded, 429, "RESOURCE_EXHAUSTED"),
        (ErrorKind::Internal, 500, "INTERNAL"),
        (ErrorKind::BadGateway, 503, "UNAVAILABLE"),
        (ErrorKind::Unavailable, 503, "UNAVAILABLE"),
        (ErrorKind::ContextBusy, 503, "UNAVAILABLE"),
        (ErrorKind::Timeout, 504, "DEADLINE_EXCEEDED"),
    ] {
        let (status, error) = of(&ApiError::new(kind, "What is wrong."));
        assert_eq!(status, code);
        let expected = json!({"code": code, "message": "What is wrong.", "status": word});
        assert_eq!(error, expected);
    }
}

#[test]
fn a_context_that_is_not_there_is_denied() {
    let (status, error) = of(&ApiError::context_not_found());
    assert_eq!((status, &error["code"]), (403, &json!(403)));
    assert_eq!(error["status"], "PERMISSION_DENIED");
    assert_eq!(
        error["message"],
        "CachedContent not found (or permission denied)"
    );
}

#[test]
fn a_pause_is_told_in_whole_seconds() {
    let error = ApiError::rate_limited("Too many.", Duration::from_millis(1_001));
    let (_, error) = of(&error);
    let expected =
        json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"}]);
    assert_eq!(error["details"], expected);
}

#[test]
fn what_clients_look_for_is_said_in_googles_words() {
    let plain = ApiError::invalid("messages", "are few");
    let small = ErrorFacts::TooSmall {
        tokens: Some(896),
        min_tokens: Some(1_024),
    };
    let small = plain.clone().with_facts(small);
    assert_eq!(
        of(&small).1["message"],
        "Cached content is too small. total_token_count=896, min_total_token_count=1024"
    );
    let refused = Failure::new(FailureKind::PrefixTooSmall, "at least 256 tokens").to_api_error();
    let message = of(&refused).1["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("Cached content is too small. "),
        "{message}"
    );
    assert!(message.ends_with("at least 256 tokens"), "{message}");
    let other = ErrorFacts::OtherModel {
        requested: "a".to_owned(),
        held: "b".to_owned(),
    };
    let other = plain.clone().with_facts(other);
    assert_eq!(
        of(&other).1["message"],
        "Model used by GenerateContent request (models/a) and CachedContent (models/b) has to be the same."
    );
    // Other surfaces say what they always said.
    for error in [small, other] {
        assert_eq!(openai::encode_error(&error), openai::encode_error(&plain));
    }
}

#[test]
fn a_failure_in_a_stream_is_an_element_of_it() {
    let error = ApiError::timeout("Too late.");
    let body = r#"{"error":{"code":504,"message":"Too late.","status":"DEADLINE_EXCEEDED"}}"#;
    assert_eq!(
        Writer::new(StreamForm::Sse, false).error(&error),
        format!("data: {body}\r\n\r\n")
    );
    assert_eq!(
        Writer::new(StreamForm::Array, false).error(&error),
        format!("{body}]")
    );
}
