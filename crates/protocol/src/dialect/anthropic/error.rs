//! Failures: error answers, and errors within a stream.

use serde_json::Value;

use crate::upstream::{Failure, FailureKind};

/// An answer with an error status.
pub(super) fn of_response(status: u16, body: &[u8]) -> Failure {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &body["error"];
    let message = error["message"].as_str().unwrap_or_default();
    match kind_of(error) {
        // The type says no more than "ours"; the status may.
        Some(FailureKind::ServerError) | None => Failure::of_status(status, message),
        Some(kind) => Failure {
            status: Some(status),
            ..Failure::new(kind, message)
        },
    }
}

/// The `error` object of an `error` event. The stream began with status 200, so only its words say what it is.
pub(super) fn of_event(error: &Value) -> Failure {
    let message = error["message"].as_str().unwrap_or_default();
    Failure::new(kind_of(error).unwrap_or(FailureKind::ServerError), message)
}

fn kind_of(error: &Value) -> Option<FailureKind> {
    let kind = match error["type"].as_str()? {
        "invalid_request_error" => of_invalid_request(error["message"].as_str().unwrap_or("")),
        "authentication_error" | "permission_error" | "billing_error" => FailureKind::Unauthorized,
        "not_found_error" => FailureKind::ModelNotFound,
        "request_too_large" => FailureKind::PromptTooLong,
        "rate_limit_error" => FailureKind::RateLimited,
        "timeout_error" => FailureKind::Timeout,
        "api_error" => FailureKind::ServerError,
        "overloaded_error" => FailureKind::Overloaded,
        _ => return None,
    };
    Some(kind)
}

/// The API has one type for all of these and tells them apart in words only.
fn of_invalid_request(message: &str) -> FailureKind {
    let message = message.to_ascii_lowercase();
    let has = |words: &str| message.contains(words);
    if has("cache_control") {
        FailureKind::MarkerRefused
    } else if has("signature") && has("thinking") {
        FailureKind::SealRefused
    } else if has("prompt is too long") || has("exceed context limit") || has("context window") {
        FailureKind::PromptTooLong
    } else if has("credit balance") {
        FailureKind::Unauthorized
    } else if has("content filtering policy") {
        FailureKind::Filtered
    } else {
        FailureKind::InvalidRequest
    }
}
