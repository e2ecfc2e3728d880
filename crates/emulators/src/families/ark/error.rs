//! Ark's error envelope (facts 2.5).

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{Reply, sse, sse_event};

/// Every message ends with the id of the request.
const REQUEST_ID: &str = "Request id: 021764000000000000000000000000000000000000000000emula";

const FAILED: &str = "The service encountered an unexpected internal error.";

/// An error by status, code and type.
pub(super) fn error(status: u16, code: &str, kind: &str, param: &str, message: &str) -> Reply {
    Reply::json(status, &value(code, kind, param, message))
}

/// `400 InvalidParameter`, in the words Ark uses for it.
pub(super) fn invalid<T>(param: &str, why: &str) -> Result<T, Box<Reply>> {
    Err(Box::new(error(
        400,
        "InvalidParameter",
        "BadRequest",
        param,
        &format!("The parameter `{param}` specified in the request are not valid: {why}."),
    )))
}

/// `400 MissingParameter`.
pub(super) fn missing<T>(param: &str) -> Result<T, Box<Reply>> {
    Err(Box::new(error(
        400,
        "MissingParameter",
        "BadRequest",
        param,
        &format!("The request failed because it is missing `{param}` parameter."),
    )))
}

/// The body isn't what the request type says. Ark decodes strictly, and says it in its decoder's words.
pub(super) fn undecodable<T>(why: &str) -> Result<T, Box<Reply>> {
    Err(Box::new(error(
        400,
        "InvalidParameter",
        "BadRequest",
        "",
        why,
    )))
}

/// An id that is unknown, expired or somebody else's. Ark's own code for it isn't published: facts 2.5 and 8 leave
/// open whether the status is 400 or 404, but for `NotFound` in the code.
pub(super) fn handle_not_found(status: u16, param: &str, what: &str, id: &str) -> Box<Reply> {
    let message =
        format!("The {what} `{id}` specified in the request is not found or has expired.");
    Box::new(if status == 400 {
        error(
            400,
            &format!("InvalidParameter.{what}NotFound"),
            "BadRequest",
            param,
            &message,
        )
    } else {
        error(
            status,
            &format!("{what}NotFound"),
            "NotFound",
            param,
            &message,
        )
    })
}

/// A model that doesn't exist. Its code contains `NotFound` as well, and it says nothing about a handle.
pub(super) fn no_model(model: &str) -> Box<Reply> {
    Box::new(error(
        404,
        "InvalidEndpointOrModel.NotFound",
        "NotFound",
        "model",
        &format!("The model or endpoint {model} does not exist or you do not have access to it."),
    ))
}

/// A failure by HTTP status.
pub(super) fn failure(status: u16) -> Reply {
    let (code, kind, message) = match status {
        400 => (
            "InvalidParameter",
            "BadRequest",
            "A parameter specified in the request is not valid.",
        ),
        401 => (
            "AuthenticationError",
            "Unauthorized",
            "The API key or AK/SK in the request is missing or invalid.",
        ),
        403 => (
            "AccessDenied",
            "Forbidden",
            "You do not have permission to access the requested resource.",
        ),
        404 => (
            "InvalidEndpointOrModel.NotFound",
            "NotFound",
            "The model or endpoint does not exist or you do not have access to it.",
        ),
        429 => (
            "ModelAccountTpmRateLimitExceeded",
            "TooManyRequests",
            "The Tokens Per Minute (TPM) limit of the associated model for your account has been exceeded.",
        ),
        503 => (
            "ServiceUnavailable",
            "ServiceUnavailable",
            "The service is temporarily unavailable.",
        ),
        _ => ("InternalServiceError", "InternalServerError", FAILED),
    };
    error(status, code, kind, "", message)
}

/// The error inside a stream of chat chunks.
pub(super) fn in_chat_stream() -> Bytes {
    sse(&value(
        "InternalServiceError",
        "InternalServerError",
        "",
        FAILED,
    ))
}

/// The error inside a stream of Responses events.
pub(super) fn in_responses_stream() -> Bytes {
    let data = json!({
        "type": "error",
        "code": "InternalServiceError",
        "message": format!("{FAILED} {REQUEST_ID}"),
        "param": "",
        "sequence_number": 0,
    });
    sse_event("error", &data)
}

fn value(code: &str, kind: &str, param: &str, message: &str) -> Value {
    json!({"error": {
        "code": code,
        "message": format!("{message} {REQUEST_ID}"),
        "param": param,
        "type": kind,
    }})
}
