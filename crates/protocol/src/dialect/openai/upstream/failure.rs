//! Errors of this dialect and of its imitators, sorted by what to do next.

use serde_json::{Map, Value};

use crate::upstream::{Failure, FailureKind};

/// Of an error's text, what is looked at for known phrases, characters. Providers may quote a whole prompt.
const TEXT_SEEN_MAX: usize = 4_000;
/// The longest name of a field that is believed, bytes.
const PARAM_BYTES_MAX: usize = 200;

/// Codes and types, lower case, and what they mean whatever the status is.
const BY_CODE: &[(&str, FailureKind)] = &[
    ("context_length_exceeded", FailureKind::PromptTooLong),
    ("exceed_context_size_error", FailureKind::PromptTooLong),
    ("string_above_max_length", FailureKind::PromptTooLong),
    ("rate_limit_exceeded", FailureKind::RateLimited),
    ("rate_limit_reached_error", FailureKind::RateLimited),
    ("rate_limit_error", FailureKind::RateLimited),
    ("insufficient_quota", FailureKind::RateLimited),
    ("exceeded_current_quota_error", FailureKind::RateLimited),
    ("limit_requests", FailureKind::RateLimited),
    ("limit_burst_rate", FailureKind::RateLimited),
    ("engine_overloaded_error", FailureKind::Overloaded),
    ("overloaded_error", FailureKind::Overloaded),
    ("server_overloaded", FailureKind::Overloaded),
    ("serveroverloaded", FailureKind::Overloaded),
    ("service_unavailable", FailureKind::Overloaded),
    ("content_filter", FailureKind::Filtered),
    ("content_policy_violation", FailureKind::Filtered),
    ("responsibleaipolicyviolation", FailureKind::Filtered),
    ("data_inspection_failed", FailureKind::Filtered),
    ("datainspectionfailed", FailureKind::Filtered),
    ("invalid_prompt", FailureKind::Filtered),
    // Zhipu numbers its errors.
    ("1301", FailureKind::Filtered),
    ("1211", FailureKind::ModelNotFound),
    ("1261", FailureKind::PromptTooLong),
    ("model_not_found", FailureKind::ModelNotFound),
    ("model_not_exist", FailureKind::ModelNotFound),
    ("modelnotfound", FailureKind::ModelNotFound),
    ("model_decommissioned", FailureKind::ModelNotFound),
    ("deploymentnotfound", FailureKind::ModelNotFound),
    ("invalid_api_key", FailureKind::Unauthorized),
    ("invalidapikey", FailureKind::Unauthorized),
    ("authentication_error", FailureKind::Unauthorized),
    ("invalid_authentication_error", FailureKind::Unauthorized),
    ("permission_error", FailureKind::Unauthorized),
    ("arrearage", FailureKind::Unauthorized),
];

/// Phrases of messages, lower case, for providers whose codes say nothing. Only believed of a request that was refused.
const BY_PHRASE: &[(&str, FailureKind)] = &[
    ("maximum context length", FailureKind::PromptTooLong),
    ("maximum prompt length", FailureKind::PromptTooLong),
    ("context window", FailureKind::PromptTooLong),
    ("available context size", FailureKind::PromptTooLong),
    ("exceeded model token limit", FailureKind::PromptTooLong),
    ("range of input length", FailureKind::PromptTooLong),
    ("prompt is too long", FailureKind::PromptTooLong),
    ("content exists risk", FailureKind::Filtered),
    ("model not exist", FailureKind::ModelNotFound),
    ("is not a valid model id", FailureKind::ModelNotFound),
    ("incorrect api key", FailureKind::Unauthorized),
];

/// Fields of caching. A complaint that names one of them is mended by leaving them out.
const CACHE_FIELDS: &[&str] = &["prompt_cache", "cache_control", "cache_salt"];

/// An answer with an error status.
pub(in crate::dialect::openai) fn failure(
    status: u16,
    header: &dyn Fn(&str) -> Option<String>,
    body: &[u8],
) -> Failure {
    let said = match serde_json::from_slice::<Value>(body) {
        Ok(value) => Said::of(&value).unwrap_or_default(),
        Err(_) => Said::of_text(body),
    };
    Failure {
        status: Some(status),
        ..said.sorted(status)
    }
    .with_retry_after(header)
}

/// The failure that a chunk of a stream with status 200 reports, if it does. `is_error_event`: its event is so named.
pub(super) fn failure_in_stream(
    chunk: &Map<String, Value>,
    is_error_event: bool,
) -> Option<Failure> {
    let is_failure = is_error_event
        || chunk.get("error").is_some_and(is_set)
        || chunk.get("object").and_then(Value::as_str) == Some("error")
        || (!chunk.contains_key("choices")
            && is_set_at(chunk, "code")
            && is_set_at(chunk, "message"));
    if !is_failure {
        return None;
    }
    let said = Said::of_object(chunk).unwrap_or_default();
    let status = said.status_in_stream();
    Some(said.sorted(status))
}

/// What an upstream said of a failure.
#[derive(Debug, Default)]
struct Said {
    /// Code and type, lower case; either may be empty.
    codes: [String; 2],
    message: String,
    /// Further text that is looked at but not told.
    detail: String,
    param: Option<String>,
}

impl Said {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Object(object) => Self::of_object(object),
            Value::Array(values) => Self::of_object(values.first()?.as_object()?),
            _ => None,
        }
    }

    /// `{"error": {..}}`, `{"error": ".."}` or the fields themselves.
    fn of_object(object: &Map<String, Value>) -> Option<Self> {
        match object.get("error") {
            Some(Value::Object(error)) => Some(Self::of_fields(error)),
            Some(Value::String(message)) => Some(Said {
                message: message.clone(),
                ..Self::of_fields(object)
            }),
            _ => Some(Self::of_fields(object)),
        }
    }

    fn of_fields(fields: &Map<String, Value>) -> Self {
        let message = ["message", "detail", "msg"]
            .into_iter()
            .find_map(|key| fields.get(key).filter(|value| is_set(value)));
        let detail = fields
            .get("metadata")
            .and_then(|metadata| metadata.get("raw"))
            .map(text_of)
            .unwrap_or_default();
        let code = |key: &str| fields.get(key).map(text_of).unwrap_or_default();
        Said {
            codes: [code("code"), code("type")].map(|code| code.to_lowercase()),
            message: message.map(text_of).unwrap_or_default(),
            detail,
            param: fields
                .get("param")
                .and_then(Value::as_str)
                .filter(|param| !param.is_empty() && param.len() <= PARAM_BYTES_MAX)
                .map(str::to_owned),
        }
    }

    /// A body that is no JSON. Markup of some proxy between is of use to nobody.
    fn of_text(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        Said {
            message: if text.starts_with('<') {
                String::new()
            } else {
                text.to_owned()
            },
            ..Said::default()
        }
    }

    fn sorted(self, status: u16) -> Failure {
        Failure {
            kind: self.kind(status),
            param: self.param.clone(),
            ..Failure::new(FailureKind::ServerError, &self.message)
        }
    }

    fn kind(&self, status: u16) -> FailureKind {
        let by_code = BY_CODE
            .iter()
            .find(|(code, _)| self.codes.iter().any(|said| said == code));
        if let Some((_, kind)) = by_code {
            return *kind;
        }
        if self.codes[0].starts_with("throttling") {
            return FailureKind::RateLimited;
        }
        let was_refused = matches!(status, 400 | 404 | 413 | 422);
        if was_refused {
            let text: String = self
                .message
                .chars()
                .take(TEXT_SEEN_MAX)
                .chain([' '])
                .chain(self.detail.chars().take(TEXT_SEEN_MAX))
                .collect::<String>()
                .to_lowercase();
            if let Some((_, kind)) = BY_PHRASE.iter().find(|(phrase, _)| text.contains(phrase)) {
                return *kind;
            }
            let param = self.param.as_deref().unwrap_or_default();
            if CACHE_FIELDS
                .iter()
                .any(|field| param.contains(field) || text.contains(field))
            {
                return FailureKind::MarkerRefused;
            }
        }
        Failure::of_status(status, "").kind
    }

    /// The status that an error inside a stream would have had; 500 where nothing tells.
    fn status_in_stream(&self) -> u16 {
        let number = self
            .codes
            .iter()
            .find_map(|code| code.parse().ok().filter(|code| (400..600).contains(code)));
        number.unwrap_or_else(|| match self.codes[1].as_str() {
            "invalid_request_error" | "badrequesterror" | "badrequest" => 400,
            _ if self.codes[0].starts_with("invalidparameter") => 400,
            _ => 500,
        })
    }
}

fn is_set_at(object: &Map<String, Value>, key: &str) -> bool {
    object.get(key).is_some_and(is_set)
}

/// Neither null nor empty nor false.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(object) => !object.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
