//! Errors of both, sorted by what to do next.

use serde_json::{Map, Value};

use super::items::Flavour;
use crate::upstream::{Failure, FailureKind};

/// Of an error's text, what is looked at for known words, characters. Providers may quote a whole prompt.
const TEXT_SEEN_MAX: usize = 4_000;
/// The longest name of a field that is believed, bytes.
const PARAM_BYTES_MAX: usize = 200;

/// Codes, lower case, and what they mean whatever the status is.
const BY_CODE: &[(&str, FailureKind)] = &[
    ("previous_response_not_found", FailureKind::HandleGone),
    ("context_length_exceeded", FailureKind::PromptTooLong),
    ("outofcontexterror", FailureKind::PromptTooLong),
    ("rate_limit_exceeded", FailureKind::RateLimited),
    ("insufficient_quota", FailureKind::RateLimited),
    ("server_error", FailureKind::ServerError),
    ("server_overloaded", FailureKind::Overloaded),
    ("serveroverloaded", FailureKind::Overloaded),
    ("service_unavailable", FailureKind::Overloaded),
    ("content_filter", FailureKind::Filtered),
    ("content_policy_violation", FailureKind::Filtered),
    ("invalid_prompt", FailureKind::Filtered),
    ("model_not_found", FailureKind::ModelNotFound),
    ("modelnotopen", FailureKind::ModelNotFound),
    ("invalid_api_key", FailureKind::Unauthorized),
    ("authenticationerror", FailureKind::Unauthorized),
];

/// An answer with an error status.
pub(super) fn failure(
    status: u16,
    header: &dyn Fn(&str) -> Option<String>,
    body: &[u8],
    flavour: Flavour,
) -> Failure {
    let said = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(object)) => Said::of(&object),
        _ => Said::default(),
    };
    Failure {
        status: Some(status),
        ..said.sorted(status, flavour)
    }
    .with_retry_after(header)
}

/// The failure that an event of a stream, or a part of one, reports.
pub(super) fn of_event(event: &Map<String, Value>, flavour: Flavour) -> Failure {
    let said = Said::of(event);
    let status = said.status_in_stream();
    said.sorted(status, flavour)
}

/// The failure that a response object with the status `failed` reports.
pub(super) fn of_response(response: &Map<String, Value>, flavour: Flavour) -> Failure {
    of_event(response, flavour)
}

/// What an upstream said of a failure; codes and type in lower case.
#[derive(Debug, Default)]
struct Said {
    code: String,
    kind: String,
    message: String,
    param: Option<String>,
}

impl Said {
    /// Of `{"error": {..}}`, or of the fields themselves.
    fn of(object: &Map<String, Value>) -> Self {
        let fields = match object.get("error") {
            Some(Value::Object(error)) => error,
            _ => object,
        };
        let text = |key: &str| match fields.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        Said {
            code: text("code").to_lowercase(),
            kind: text("type").to_lowercase(),
            message: text("message"),
            param: Some(text("param"))
                .filter(|param| !param.is_empty() && param.len() <= PARAM_BYTES_MAX),
        }
    }

    fn sorted(self, status: u16, flavour: Flavour) -> Failure {
        Failure {
            param: self.param.clone(),
            ..Failure::new(self.sort(status, flavour), &self.message)
        }
    }

    fn sort(&self, status: u16, flavour: Flavour) -> FailureKind {
        if let Some((_, kind)) = BY_CODE.iter().find(|(code, _)| *code == self.code) {
            return *kind;
        }
        if matches!(status, 400 | 403 | 404 | 413 | 422) {
            let text: String = self.message.chars().take(TEXT_SEEN_MAX).collect();
            let text = text.to_lowercase();
            let by_words = match flavour {
                Flavour::OpenAi => self.openai_words(&text),
                Flavour::Ark => self.ark_words(status, &text),
            };
            if let Some(kind) = by_words {
                return kind;
            }
        }
        Failure::of_status(status, "").kind
    }

    fn openai_words(&self, text: &str) -> Option<FailureKind> {
        if has_any(text, &["context window", "maximum context length"]) {
            return Some(FailureKind::PromptTooLong);
        }
        if self.code == "invalid_encrypted_content" || text.contains("encrypted content") {
            return Some(FailureKind::SealRefused);
        }
        if self.names("prompt_cache") || text.contains("prompt_cache") {
            return Some(FailureKind::MarkerRefused);
        }
        None
    }

    /// The exact codes for lost ids and small prefixes are not documented (facts 8), so several forms count.
    fn ark_words(&self, status: u16, text: &str) -> Option<FailureKind> {
        if has_any(&self.code, &["sensitivecontent", "riskdetection"]) {
            return Some(FailureKind::Filtered);
        }
        if self.code.starts_with("invalidendpointormodel") {
            return Some(FailureKind::ModelNotFound);
        }
        let names_response = self.names("previous_response_id")
            || has_any(text, &["previous_response_id", "previous response"]);
        let says_gone = has_any(text, &["not found", "expired", "not exist", "deleted"]);
        if (self.code.contains("notfound") && matches!(status, 400 | 404))
            || (names_response && says_gone)
        {
            return Some(FailureKind::HandleGone);
        }
        if status != 400 {
            return None;
        }
        if has_any(
            text,
            &[
                "context length",
                "context window",
                "max message tokens",
                "input length",
            ],
        ) {
            return Some(FailureKind::PromptTooLong);
        }
        let names_expiry = self.names("expire_at") || text.contains("expire_at");
        let says_small = has_any(
            text,
            &[
                "too small",
                "too short",
                "at least",
                "less than",
                "minimum",
                "fewer than",
            ],
        );
        if says_small && has_any(text, &["prefix", "cach"]) && !names_expiry {
            return Some(FailureKind::PrefixTooSmall);
        }
        let names_caching = ["caching", "thinking", "store"]
            .iter()
            .any(|field| self.names(field));
        if names_expiry || names_caching || has_any(text, &["caching", "thinking"]) {
            return Some(FailureKind::MarkerRefused);
        }
        None
    }

    fn names(&self, field: &str) -> bool {
        self.param
            .as_deref()
            .is_some_and(|param| param.contains(field))
    }

    /// The status that an error inside a stream would have had; 500 where nothing tells.
    fn status_in_stream(&self) -> u16 {
        if let Ok(status) = self.code.parse()
            && (400..600).contains(&status)
        {
            return status;
        }
        match self.kind.as_str() {
            "invalid_request_error" | "badrequest" => 400,
            _ if self.code.starts_with("invalid") || self.code.contains("notfound") => 400,
            _ if has_any(&self.code, &["sensitivecontent", "riskdetection"]) => 400,
            _ if has_any(&self.code, &["ratelimit", "limitexceeded"]) => 429,
            _ => 500,
        }
    }
}

fn has_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}
