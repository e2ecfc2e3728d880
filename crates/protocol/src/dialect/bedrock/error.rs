//! Failures: error answers, and exceptions within a stream.

use serde_json::Value;

use crate::upstream::{Failure, FailureKind};

/// An answer with an error status. `error_type` is the header `x-amzn-errortype`, where there is one.
pub(super) fn of_response(status: u16, error_type: Option<&str>, body: &[u8]) -> Failure {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = error_type
        .or_else(|| body["__type"].as_str())
        .unwrap_or_default();
    let message = message_of(&body);
    match kind_of(name, message) {
        Some(kind) => Failure {
            status: Some(status),
            ..Failure::new(kind, message)
        },
        None => Failure::of_status(status, message),
    }
}

/// An exception of this name within a stream, which began with status 200.
pub(super) fn of_exception(name: &str, body: &Value) -> Failure {
    let message = message_of(body);
    Failure::new(
        kind_of(name, message).unwrap_or(FailureKind::ServerError),
        message,
    )
}

fn message_of(body: &Value) -> &str {
    // API Gateway in front of some of AWS's services writes it with a capital.
    body["message"]
        .as_str()
        .or_else(|| body["Message"].as_str())
        .unwrap_or_default()
}

fn kind_of(name: &str, message: &str) -> Option<FailureKind> {
    // `ValidationException:http://...` in headers, `com.amazon.coral.service#ValidationException` in bodies, and
    // `validationException` in streams.
    let name = name.split(':').next().unwrap_or_default();
    let name = name.rsplit('#').next().unwrap_or_default();
    let kind = match name.to_ascii_lowercase().as_str() {
        "validationexception" => of_validation(message),
        "throttlingexception" | "servicequotaexceededexception" => FailureKind::RateLimited,
        "serviceunavailableexception" | "modelnotreadyexception" => FailureKind::Overloaded,
        "modeltimeoutexception" => FailureKind::Timeout,
        // `InternalServerException` says no more than its status.
        "modelstreamerrorexception" | "modelerrorexception" => FailureKind::ServerError,
        "resourcenotfoundexception" => FailureKind::ModelNotFound,
        "accessdeniedexception"
        | "unrecognizedclientexception"
        | "expiredtokenexception"
        | "invalidsignatureexception"
        | "incompletesignatureexception"
        | "missingauthenticationtokenexception" => FailureKind::Unauthorized,
        _ => return None,
    };
    Some(kind)
}

/// The API has one exception for all of these and tells them apart in words only.
fn of_validation(message: &str) -> FailureKind {
    let message = message.to_ascii_lowercase();
    let has = |words: &str| message.contains(words);
    if has("prompt caching") || has("cachepoint") || has("cache_control") || has("cache point") {
        FailureKind::MarkerRefused
    } else if has("signature") && has("thinking") {
        FailureKind::SealRefused
    } else if has("too long") || has("too many input tokens") || has("exceed context limit") {
        FailureKind::PromptTooLong
    } else if has("model identifier") || has("on-demand throughput") {
        FailureKind::ModelNotFound
    } else {
        FailureKind::InvalidRequest
    }
}
