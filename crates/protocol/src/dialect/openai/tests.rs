#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod golden;
mod written;

use proptest::prelude::*;
use serde_json::{Value, json};
use utoipa::{PartialSchema, ToSchema};

use super::wire::{
    ChatCompletionRequest, ChatMessage, ContextCreateRequest, ContextForkRequest,
    ContextPatchRequest, TextCompletionRequest, TruncationStrategy,
};
use super::{
    decode_completion, decode_create, decode_fork, decode_patch, decode_request, encode_error,
};
use crate::context::{ContextMode, ForkContext};
use crate::error::{ApiError, ErrorKind};

fn create_with(field: &str, value: Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    body[field] = value;
    body.to_string().into_bytes()
}

#[test]
fn every_error_kind_has_its_status_code_and_type() {
    use ErrorKind::*;
    let table = [
        (InvalidJson, 400, "InvalidParameter", "BadRequest"),
        (MissingParameter, 400, "MissingParameter", "BadRequest"),
        (InvalidParameter, 400, "InvalidParameter", "BadRequest"),
        (
            UnsupportedParameter,
            400,
            "InvalidParameter.UnsupportedParameter",
            "BadRequest",
        ),
        (InvalidMessage, 400, "InvalidArgumentError", "BadRequest"),
        (
            UnknownRole,
            400,
            "InvalidArgumentError.UnknownRole",
            "BadRequest",
        ),
        (OutOfContext, 400, "OutofContextError", "BadRequest"),
        (
            PreviousResponseNotFound,
            400,
            "previous_response_not_found",
            "BadRequest",
        ),
        (Unauthenticated, 401, "AuthenticationError", "Unauthorized"),
        (PermissionDenied, 403, "AccessDenied", "Forbidden"),
        (
            ContextBusy,
            403,
            "OperationDenied.InvalidState",
            "Forbidden",
        ),
        (ContextNotFound, 404, "NotFound.context_id", "NotFound"),
        (
            ModelNotFound,
            404,
            "InvalidEndpointOrModel.NotFound",
            "NotFound",
        ),
        (NotFound, 404, "NotFound", "NotFound"),
        (
            MethodNotAllowed,
            405,
            "MethodNotAllowed",
            "MethodNotAllowed",
        ),
        (
            PayloadTooLarge,
            413,
            "RequestBodyTooLarge",
            "RequestEntityTooLarge",
        ),
        (BodyTimeout, 408, "RequestBodyTimeout", "RequestTimeout"),
        (
            HeadersTooLarge,
            431,
            "RequestHeaderTooLarge",
            "RequestHeaderFieldsTooLarge",
        ),
        (RateLimited, 429, "RateLimitExceeded", "TooManyRequests"),
        (Overloaded, 429, "ServerOverloaded", "TooManyRequests"),
        (Internal, 500, "InternalServiceError", "InternalServerError"),
        (Unavailable, 503, "ServiceUnavailable", "ServiceUnavailable"),
        (Timeout, 504, "RequestTimeout", "GatewayTimeout"),
    ];
    for (kind, status, code, type_word) in table {
        let (found, body) = encode_error(&ApiError::new(kind, "What happened."));
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(found, status, "{kind:?}");
        assert_eq!(
            body,
            json!({"error": {"code": code, "message": "What happened.", "param": null, "type": type_word}}),
        );
    }
}

#[test]
fn codes_carry_the_top_level_field_but_where_the_contract_fixes_the_bare_word() {
    let code = |error: &ApiError| {
        let (_, body) = encode_error(error);
        let body: Value = serde_json::from_slice(&body).unwrap();
        body["error"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(&ApiError::missing("model")), "MissingParameter.model");
    assert_eq!(
        code(&ApiError::invalid("tools[3].function.name", "is bad")),
        "InvalidParameter.tools"
    );
    assert_eq!(
        code(&ApiError::invalid("n", "is bad")),
        "InvalidParameter.n"
    );
    for bare in ["ttl", "truncation_strategy.type", "messages"] {
        assert_eq!(code(&ApiError::invalid(bare, "is bad")), "InvalidParameter");
    }
}

#[test]
fn a_missing_context_is_told_in_words_that_clients_match() {
    let (status, body) = encode_error(&ApiError::context_not_found());
    let text = String::from_utf8(body.to_vec()).unwrap().to_lowercase();
    assert_eq!(status, 404);
    for word in [
        "context",
        "not found",
        "expired",
        "\"param\":\"context_id\"",
    ] {
        assert!(text.contains(word), "{word}");
    }
}

#[test]
fn malformed_ids_are_answered_like_unknown_ones() {
    let body =
        json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "context_id": "chat"});
    let error = decode_request(body.to_string().as_bytes()).unwrap_err();
    assert_eq!(error, ApiError::context_not_found());
}

#[test]
fn unset_ttls_are_null_absent_and_empty() {
    for unset in [Value::Null, json!(""), json!("  ")] {
        assert_eq!(
            decode_create(&create_with("ttl", unset))
                .unwrap()
                .ttl_seconds,
            None
        );
    }
}

#[test]
fn forks_and_patches_take_the_same_ttl_forms() {
    assert_eq!(decode_fork(b"").unwrap(), ForkContext::default());
    assert_eq!(decode_fork(b" \n").unwrap(), ForkContext::default());
    assert_eq!(decode_fork(b"{}").unwrap(), ForkContext::default());
    assert_eq!(
        decode_fork(br#"{"at_turn": 2, "ttl": "90s", "mode": "common_prefix"}"#).unwrap(),
        ForkContext {
            at_turn: Some(2),
            ttl_seconds: Some(90),
            mode: Some(ContextMode::CommonPrefix),
        }
    );
    assert_eq!(
        decode_fork(br#"{"at_turn": -1}"#).unwrap_err().param,
        Some("at_turn".to_owned())
    );
    assert_eq!(decode_patch(br#"{"ttl": 60, "mode": "x"}"#).unwrap(), 60);
    assert_eq!(decode_patch(b"{}").unwrap_err(), ApiError::missing("ttl"));
}

#[test]
fn counts_are_bounded() {
    let messages: Vec<Value> = (0..=100_000)
        .map(|_| json!({"role": "user", "content": "x"}))
        .collect();
    let error = decode_create(&create_with("messages", messages.into())).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("messages"));

    let tools: Vec<Value> = (0..=512)
        .map(|index| json!({"type": "function", "function": {"name": format!("f{index}")}}))
        .collect();
    let error = decode_create(&create_with("tools", tools[..].into())).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("tools"));
    assert!(decode_create(&create_with("tools", tools[1..].into())).is_ok());

    let metadata = json!({"key": "x".repeat(16_384)});
    let error = decode_create(&create_with("metadata", metadata)).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("metadata"));

    let error = decode_create(&create_with("display_name", "x".repeat(513).into())).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("display_name"));
}

#[test]
fn every_documented_request_field_is_read() {
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    assert_reads::<ChatCompletionRequest>(&["mode"], chat.clone(), |body| {
        decode_request(body).map(|_| ())
    });
    assert_reads::<TextCompletionRequest>(&[], json!({"model": "m", "prompt": "x"}), |body| {
        decode_completion(body).map(|_| ())
    });
    assert_reads::<ContextCreateRequest>(&[], chat, |body| decode_create(body).map(|_| ()));
    assert_reads::<ContextForkRequest>(&[], json!({}), |body| decode_fork(body).map(|_| ()));
    assert_reads::<ContextPatchRequest>(&[], json!({"ttl": 60}), |body| {
        decode_patch(body).map(|_| ())
    });
    let message = json!({"role": "assistant", "content": "x"});
    assert_reads::<ChatMessage>(&[], message, |message| {
        let message: Value = serde_json::from_slice(message).unwrap();
        decode_create(&create_with("messages", json!([message]))).map(|_| ())
    });
    let truncation = json!({"type": "rolling_tokens"});
    assert_reads::<TruncationStrategy>(&[], truncation, |truncation| {
        let truncation: Value = serde_json::from_slice(truncation).unwrap();
        decode_create(&create_with("truncation_strategy", truncation)).map(|_| ())
    });
}

/// A field is read if some value in its place is an error, and ignored if none is.
fn assert_reads<T: ToSchema>(
    ignored: &[&str],
    body: Value,
    decode: impl Fn(&[u8]) -> Result<(), ApiError>,
) {
    assert!(decode(body.to_string().as_bytes()).is_ok());
    let schema = serde_json::to_value(<T as PartialSchema>::schema()).unwrap();
    for field in schema["properties"].as_object().unwrap().keys() {
        let is_read = [json!(1.5), json!([[]])].into_iter().any(|value| {
            let mut body = body.clone();
            body[field] = value;
            decode(body.to_string().as_bytes()).is_err()
        });
        assert_ne!(
            is_read,
            ignored.contains(&field.as_str()),
            "{}: {field}",
            T::name()
        );
    }
}

fn ttl_of(value: Value) -> Result<Option<u64>, ApiError> {
    decode_create(&create_with("ttl", value)).map(|create| create.ttl_seconds)
}

proptest! {
    #[test]
    fn all_forms_of_a_ttl_mean_the_same(seconds in 1_u64..=10_000_000) {
        for form in [
            json!(seconds),
            json!(seconds as f64),
            json!(seconds.to_string()),
            json!(format!("{seconds}s")),
            json!(format!("{seconds}.0")),
            json!(format!(" {seconds}.000s ")),
        ] {
            prop_assert_eq!(ttl_of(form.clone()).unwrap(), Some(seconds), "{}", form);
        }
    }

    #[test]
    fn what_is_no_positive_whole_number_is_no_ttl(seconds in 0_u64..1_000_000, tenths in 1_u32..10) {
        for form in [
            json!(-(seconds as i64)),
            json!(format!("-{seconds}")),
            json!(seconds as f64 + f64::from(tenths) / 10.0),
            json!(format!("{seconds}.{tenths}s")),
            json!(format!("{seconds}m")),
            json!(format!("+{seconds}")),
            json!(format!("{seconds}e1")),
            json!(true),
            json!([seconds]),
        ] {
            let error = ttl_of(form.clone()).unwrap_err();
            prop_assert_eq!(error.kind, ErrorKind::InvalidParameter);
            prop_assert_eq!(error.param.as_deref(), Some("ttl"), "{}", form);
        }
    }

    #[test]
    fn any_bytes_decode_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = (decode_completion(&body), decode_request(&body), decode_create(&body), decode_fork(&body), decode_patch(&body));
    }
}
