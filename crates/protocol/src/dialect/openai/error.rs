//! The error envelope, with Ark's codes where Ark has one (contract section 3.1).

use bytes::Bytes;

use super::to_json;
use super::wire::{ErrorBody, ErrorDetail};
use crate::error::{ApiError, ErrorKind};

/// HTTP status and body. The request's id is a header's and not repeated here.
pub fn encode_error(error: &ApiError) -> (u16, Bytes) {
    (error.kind.status(), to_json(&error_body(error)))
}

pub(super) fn error_body(error: &ApiError) -> ErrorBody {
    ErrorBody {
        error: ErrorDetail {
            code: code(error),
            message: error.message.clone(),
            param: error.param.clone(),
            kind: type_word(error.kind),
        },
    }
}

fn code(error: &ApiError) -> String {
    let word = match error.kind {
        ErrorKind::MissingParameter => return with_field("MissingParameter", error),
        ErrorKind::InvalidParameter => return invalid_parameter(error),
        ErrorKind::InvalidJson => "InvalidParameter",
        ErrorKind::UnsupportedParameter => "InvalidParameter.UnsupportedParameter",
        ErrorKind::InvalidMessage => "InvalidArgumentError",
        ErrorKind::UnknownRole => "InvalidArgumentError.UnknownRole",
        ErrorKind::OutOfContext => "OutofContextError",
        // OpenAI's own word: its clients send the whole conversation again when they read it.
        ErrorKind::PreviousResponseNotFound => "previous_response_not_found",
        ErrorKind::Unauthenticated => "AuthenticationError",
        ErrorKind::PermissionDenied => "AccessDenied",
        ErrorKind::ContextBusy => "OperationDenied.InvalidState",
        ErrorKind::ContextNotFound => "NotFound.context_id",
        ErrorKind::ModelNotFound => "InvalidEndpointOrModel.NotFound",
        ErrorKind::NotFound => "NotFound",
        ErrorKind::MethodNotAllowed => "MethodNotAllowed",
        ErrorKind::PayloadTooLarge => "RequestBodyTooLarge",
        ErrorKind::BodyTimeout => "RequestBodyTimeout",
        ErrorKind::HeadersTooLarge => "RequestHeaderTooLarge",
        ErrorKind::BudgetExhausted => "BudgetExceeded",
        ErrorKind::RateLimited => "RateLimitExceeded",
        ErrorKind::Overloaded => "ServerOverloaded",
        ErrorKind::Internal => "InternalServiceError",
        ErrorKind::BadGateway => "UpstreamError",
        ErrorKind::Unavailable => "ServiceUnavailable",
        ErrorKind::Timeout => "RequestTimeout",
    };
    word.to_owned()
}

/// For a bad ttl, a misplaced truncation strategy and a prefix that is too small the contract fixes the bare word
/// (sections 1.4 and 6, rows 11 and 20).
fn invalid_parameter(error: &ApiError) -> String {
    match top_level_field(error) {
        Some("ttl" | "truncation_strategy" | "messages") => "InvalidParameter".to_owned(),
        _ => with_field("InvalidParameter", error),
    }
}

fn with_field(word: &str, error: &ApiError) -> String {
    match top_level_field(error) {
        Some(field) => format!("{word}.{field}"),
        None => word.to_owned(),
    }
}

fn top_level_field(error: &ApiError) -> Option<&str> {
    error
        .param
        .as_deref()
        .and_then(|param| param.split(['.', '[']).next())
        .filter(|field| !field.is_empty())
}

fn type_word(kind: ErrorKind) -> &'static str {
    match kind.status() {
        401 => "Unauthorized",
        402 => "PaymentRequired",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        408 => "RequestTimeout",
        413 => "RequestEntityTooLarge",
        429 => "TooManyRequests",
        431 => "RequestHeaderFieldsTooLarge",
        500 => "InternalServerError",
        502 => "BadGateway",
        503 => "ServiceUnavailable",
        504 => "GatewayTimeout",
        _ => "BadRequest",
    }
}
