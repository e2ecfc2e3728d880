//! Errors in Anthropic's envelope.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::error::{ApiError, ErrorKind};

/// Anthropic's own status for "too many for now", which its SDKs retry.
const OVERLOADED: u16 = 529;

/// Status and body.
pub fn encode_error(error: &ApiError) -> (u16, Bytes) {
    let status = match error.kind {
        ErrorKind::Overloaded => OVERLOADED,
        kind => kind.status(),
    };
    (status, Bytes::from(body(error).to_string()))
}

/// `{"type": "error", "error": {...}}`
pub(super) fn body(error: &ApiError) -> Value {
    json!({"type": "error", "error": {"type": type_word(error.kind), "message": error.message}})
}

fn type_word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidJson
        | ErrorKind::MissingParameter
        | ErrorKind::InvalidParameter
        | ErrorKind::UnsupportedParameter
        | ErrorKind::InvalidMessage
        | ErrorKind::UnknownRole
        | ErrorKind::OutOfContext
        | ErrorKind::PreviousResponseNotFound
        | ErrorKind::MethodNotAllowed => "invalid_request_error",
        ErrorKind::Unauthenticated => "authentication_error",
        ErrorKind::PermissionDenied | ErrorKind::ContextBusy => "permission_error",
        ErrorKind::ContextNotFound | ErrorKind::ModelNotFound | ErrorKind::NotFound => {
            "not_found_error"
        }
        ErrorKind::PayloadTooLarge | ErrorKind::HeadersTooLarge => "request_too_large",
        ErrorKind::BudgetExhausted => "billing_error",
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::Overloaded | ErrorKind::Unavailable => "overloaded_error",
        ErrorKind::Internal | ErrorKind::BadGateway => "api_error",
        ErrorKind::Timeout | ErrorKind::BodyTimeout => "timeout_error",
    }
}
