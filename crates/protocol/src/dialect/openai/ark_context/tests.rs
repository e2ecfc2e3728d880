#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;

use super::ArkContextUpstream;
use crate::dialect::upstream_cases::run;
use crate::provider::UpstreamDialectName;
use crate::upstream::{FailureKind, UpstreamDialect};

#[test]
fn fixtures() {
    run(
        &ArkContextUpstream,
        UpstreamDialectName::ArkContext,
        "ark_context",
        "ark",
        "ep-20260101-abc",
    );
}

#[test]
fn a_lost_context_is_known_in_every_form() {
    let kind = |status, code: &str, message: &str, param: Option<&str>| {
        let body = json!({"error": {"code": code, "message": message, "param": param, "type": "BadRequest"}});
        let failure = ArkContextUpstream.failure(status, &|_| None, body.to_string().as_bytes());
        assert_eq!(failure.status, Some(status));
        failure.kind
    };
    for (status, code, message, param) in [
        (404, "NotFound.context_id", "", None),
        (400, "NotFound", "", None),
        (
            400,
            "InvalidParameter",
            "The context has gone.",
            Some("context_id"),
        ),
        (400, "InvalidArgument", "The context_id has expired.", None),
    ] {
        assert_eq!(
            kind(status, code, message, param),
            FailureKind::HandleGone,
            "{code}"
        );
    }
    assert_eq!(
        kind(
            404,
            "InvalidEndpointOrModel.NotFound",
            "The model does not exist.",
            None
        ),
        FailureKind::ModelNotFound
    );
    assert_eq!(
        kind(
            400,
            "InvalidParameter",
            "temperature is bad",
            Some("temperature")
        ),
        FailureKind::InvalidRequest
    );
    assert_eq!(
        kind(429, "RateLimitExceeded", "", None),
        FailureKind::RateLimited
    );
}
