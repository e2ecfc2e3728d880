//! Google's errors: as an answer with an error status, and in the middle of a stream.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::upstream::{Failure, FailureKind};

#[derive(Deserialize)]
struct ErrorBody {
    error: GoogleError,
}

/// `google.rpc.Status`.
#[derive(Deserialize)]
pub(super) struct GoogleError {
    code: Option<u16>,
    message: Option<String>,
    status: Option<String>,
    details: Option<Vec<Detail>>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(rename = "retryDelay")]
    retry_delay: Option<String>,
    reason: Option<String>,
}

pub(super) fn failure(
    status: u16,
    header: &dyn Fn(&str) -> Option<String>,
    body: &[u8],
) -> Failure {
    match of_body(body) {
        Some(error) => error.failure(Some(status), header),
        None => Failure::of_status(status, "").with_retry_after(header),
    }
}

/// The error in `body`, where it is one. Streams without `alt=sse` are arrays, and so are their errors.
pub(super) fn of_body(body: &[u8]) -> Option<GoogleError> {
    let body = match serde_json::from_slice(body).ok()? {
        Value::Array(bodies) => bodies.into_iter().next()?,
        body => body,
    };
    // serde would read a struct from an array, too.
    let body = body.is_object().then_some(body)?;
    let body: ErrorBody = serde_json::from_value(body).ok()?;
    Some(body.error)
}

impl GoogleError {
    /// Sorts it. `status` is that of the answer; an error in a stream has only its own `code`.
    pub(super) fn failure(
        self,
        status: Option<u16>,
        header: &dyn Fn(&str) -> Option<String>,
    ) -> Failure {
        let answered = status;
        let status = answered.or(self.code).unwrap_or(500);
        let message = self.message.as_deref().unwrap_or_default();
        let mut failure = Failure::of_status(status, message).with_retry_after(header);
        failure.status = answered;
        if let Some(kind) = self.kind(status) {
            failure.kind = kind;
        }
        let details = self.details.unwrap_or_default();
        if let Some(delay) = details
            .iter()
            .find_map(|detail| seconds(detail.retry_delay.as_deref()?))
        {
            failure.retry_after = Some(delay);
        }
        failure
    }

    /// What the words say beyond the status.
    fn kind(&self, status: u16) -> Option<FailureKind> {
        let text = self.message.as_deref().unwrap_or_default().to_lowercase();
        let has_reason = |wanted| {
            self.details
                .iter()
                .flatten()
                .any(|detail| detail.reason.as_deref() == Some(wanted))
        };
        if matches!(status, 400 | 403 | 404) {
            let is_about_cache = names_cached_content(&text);
            if is_about_cache && is_too_small(&text) {
                return Some(FailureKind::PrefixTooSmall);
            }
            if is_about_cache && !names_system_instruction(&text) {
                return Some(FailureKind::HandleGone);
            }
            if is_too_small(&text) && text.contains("caching") {
                return Some(FailureKind::PrefixTooSmall);
            }
        }
        if status == 400 && text.contains("thought") && text.contains("signature") {
            return Some(FailureKind::SealRefused);
        }
        if status == 400 && (has_reason("API_KEY_INVALID") || text.contains("api key not valid")) {
            return Some(FailureKind::Unauthorized);
        }
        if status == 400
            && text.contains("token")
            && (text.contains("exceeds the maximum") || text.contains("exceeds the limit"))
        {
            return Some(FailureKind::PromptTooLong);
        }
        match self.status.as_deref()? {
            "RESOURCE_EXHAUSTED" => Some(FailureKind::RateLimited),
            "UNAVAILABLE" => Some(FailureKind::Overloaded),
            "DEADLINE_EXCEEDED" => Some(FailureKind::Timeout),
            // Billing is off or the region is not served: for the operator, and another upstream may do.
            "FAILED_PRECONDITION" => Some(FailureKind::Unauthorized),
            _ => None,
        }
    }
}

/// `/cached?\s*content/` in lower-case text: how cache errors are told from others (facts 2.4).
fn names_cached_content(text: &str) -> bool {
    text.match_indices("cache").any(|(at, found)| {
        let rest = &text[at + found.len()..];
        let rest = rest.strip_prefix('d').unwrap_or(rest);
        rest.trim_start().starts_with("content")
    })
}

/// `/system[_\s]instruction/`: a request that says beside a cache what belongs into it. Making the cache anew would not
/// help.
fn names_system_instruction(text: &str) -> bool {
    text.match_indices("system").any(|(at, found)| {
        let mut rest = text[at + found.len()..].chars();
        rest.next()
            .is_some_and(|symbol| symbol == '_' || symbol.is_whitespace())
            && rest.as_str().starts_with("instruction")
    })
}

fn is_too_small(text: &str) -> bool {
    ["too small", "minimum token count", "min_total_token_count"]
        .iter()
        .any(|words| text.contains(words))
}

/// A `google.protobuf.Duration`: `"35s"`, `"1.5s"`.
fn seconds(duration: &str) -> Option<Duration> {
    let seconds: f64 = duration.strip_suffix('s')?.parse().ok()?;
    (0.0..=86_400.0)
        .contains(&seconds)
        .then(|| Duration::from_secs_f64(seconds))
}
