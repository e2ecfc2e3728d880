//! Errors in Google's envelope.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::error::{ApiError, ErrorFacts, ErrorKind};

/// Status and body.
pub fn encode_error(error: &ApiError) -> (u16, Bytes) {
    let (code, _) = status(error.kind);
    (code, body(error).to_string().into())
}

/// `{"error": {...}}`
pub(super) fn body(error: &ApiError) -> Value {
    let (code, word) = status(error.kind);
    let mut body = json!({"error": {"code": code, "message": message(error), "status": word}});
    if let Some(pause) = error.retry_after {
        // Google's clients look here and not at the header.
        let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
        body["error"]["details"] = json!([{
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{seconds}s"),
        }]);
    }
    body
}

/// Code and word, as `google.rpc.Code` pairs them where it knows the code.
fn status(kind: ErrorKind) -> (u16, &'static str) {
    match kind {
        ErrorKind::InvalidJson
        | ErrorKind::MissingParameter
        | ErrorKind::InvalidParameter
        | ErrorKind::UnsupportedParameter
        | ErrorKind::InvalidMessage
        | ErrorKind::UnknownRole
        | ErrorKind::OutOfContext
        | ErrorKind::PreviousResponseNotFound => (400, "INVALID_ARGUMENT"),
        ErrorKind::Unauthenticated => (401, "UNAUTHENTICATED"),
        // Google does not tell a foreign cache from one that is not there.
        ErrorKind::PermissionDenied | ErrorKind::ContextNotFound => (403, "PERMISSION_DENIED"),
        ErrorKind::ModelNotFound | ErrorKind::NotFound => (404, "NOT_FOUND"),
        ErrorKind::MethodNotAllowed => (405, "UNIMPLEMENTED"),
        ErrorKind::PayloadTooLarge => (413, "INVALID_ARGUMENT"),
        ErrorKind::BodyTimeout => (408, "DEADLINE_EXCEEDED"),
        ErrorKind::HeadersTooLarge => (431, "INVALID_ARGUMENT"),
        // Google has no code for it; clients repeat a 429, which would be in vain.
        ErrorKind::BudgetExhausted => (402, "RESOURCE_EXHAUSTED"),
        ErrorKind::RateLimited | ErrorKind::Overloaded => (429, "RESOURCE_EXHAUSTED"),
        ErrorKind::Internal => (500, "INTERNAL"),
        // The one of Google's codes that means: send the same again. Its clients do, for a busy session, too.
        ErrorKind::BadGateway | ErrorKind::Unavailable | ErrorKind::ContextBusy => {
            (503, "UNAVAILABLE")
        }
        ErrorKind::Timeout => (504, "DEADLINE_EXCEEDED"),
    }
}

/// In the words that clients look for (contract section 4.5).
fn message(error: &ApiError) -> String {
    if error.kind == ErrorKind::ContextNotFound {
        return "CachedContent not found (or permission denied)".to_owned();
    }
    match error.facts.as_deref() {
        Some(ErrorFacts::TooSmall {
            tokens: Some(tokens),
            min_tokens: Some(min_tokens),
        }) => format!(
            "Cached content is too small. total_token_count={tokens}, min_total_token_count={min_tokens}"
        ),
        Some(ErrorFacts::TooSmall { .. }) => {
            format!("Cached content is too small. {}", error.message)
        }
        Some(ErrorFacts::OtherModel { requested, held }) => format!(
            "Model used by GenerateContent request (models/{requested}) and CachedContent (models/{held}) has to be \
             the same."
        ),
        None => error.message.clone(),
    }
}
