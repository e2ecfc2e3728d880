//! Google's error envelope.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::Reply;

/// The canonical codes that occur.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    InvalidArgument,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    ResourceExhausted,
    Internal,
    Unavailable,
    DeadlineExceeded,
    Unknown,
}

impl Status {
    fn http(self) -> u16 {
        match self {
            Status::InvalidArgument => 400,
            Status::Unauthenticated => 401,
            Status::PermissionDenied => 403,
            Status::NotFound => 404,
            Status::ResourceExhausted => 429,
            Status::Internal | Status::Unknown => 500,
            Status::Unavailable => 503,
            Status::DeadlineExceeded => 504,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Status::InvalidArgument => "INVALID_ARGUMENT",
            Status::Unauthenticated => "UNAUTHENTICATED",
            Status::PermissionDenied => "PERMISSION_DENIED",
            Status::NotFound => "NOT_FOUND",
            Status::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Status::Internal => "INTERNAL",
            Status::Unavailable => "UNAVAILABLE",
            Status::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Status::Unknown => "UNKNOWN",
        }
    }
}

pub(super) fn error(status: Status, message: &str) -> Reply {
    Reply::json(status.http(), &value(status, message, None))
}

pub(super) fn error_with_details(status: Status, message: &str, details: Value) -> Reply {
    Reply::json(status.http(), &value(status, message, Some(details)))
}

/// `400 INVALID_ARGUMENT`, the most frequent one.
pub(super) fn invalid<T>(message: impl AsRef<str>) -> Result<T, Box<Reply>> {
    Err(Box::new(error(Status::InvalidArgument, message.as_ref())))
}

fn value(status: Status, message: &str, details: Option<Value>) -> Value {
    let mut value = json!({
        "error": {"code": status.http(), "message": message, "status": status.name()}
    });
    if let Some(details) = details {
        value["error"]["details"] = details;
    }
    value
}

/// A failure by HTTP status, in the words the service uses for it.
pub(super) fn failure(status: u16) -> Reply {
    match status {
        400 => error(
            Status::InvalidArgument,
            "Request contains an invalid argument.",
        ),
        401 => unauthenticated(),
        403 => error(
            Status::PermissionDenied,
            "The caller does not have permission",
        ),
        404 => error(Status::NotFound, "Requested entity was not found."),
        429 => error_with_details(
            Status::ResourceExhausted,
            "Resource has been exhausted (e.g. check quota).",
            json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}]),
        ),
        503 => error(
            Status::Unavailable,
            "The model is overloaded. Please try again later.",
        ),
        504 => error(
            Status::DeadlineExceeded,
            "Deadline expired before operation could complete.",
        ),
        500 => error(
            Status::Internal,
            "An internal error has occurred. Please retry or report in \
             https://developers.generativeai.google/guide/troubleshooting",
        ),
        _ => error(Status::Unknown, "Unknown error."),
    }
}

pub(super) fn unauthenticated() -> Reply {
    error_with_details(
        Status::Unauthenticated,
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid \
         authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project.",
        json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "ACCESS_TOKEN_TYPE_UNSUPPORTED",
            "domain": "googleapis.com"
        }]),
    )
}

/// The error inside a stream of server-sent events: a bare JSON object in a chunk of its own, without `data:`. Google's
/// JavaScript SDK reads it so.
pub(super) fn in_event_stream() -> Bytes {
    let value = value(
        Status::Unavailable,
        "The model is overloaded. Please try again later.",
        None,
    );
    format!("{value:#}\r\n").into()
}

/// The same as an event, as relays and proxies before Google send it.
pub(super) fn as_event() -> Bytes {
    let value = value(
        Status::Unavailable,
        "The model is overloaded. Please try again later.",
        None,
    );
    format!("data: {value}\r\n\r\n").into()
}

/// The error inside a stream that is a JSON array: its last element.
pub(super) fn in_array_stream() -> Bytes {
    let value = value(
        Status::Unavailable,
        "The model is overloaded. Please try again later.",
        None,
    );
    format!(",\r\n{value:#}\n]").into()
}
