//! The response object.

use serde_json::{Map, Value, json};

use super::Surface;
use super::echo::Echo;
use super::output::{self, finished_values};
use crate::chat::{ChatHead, ChatResponse, FinishReason};
use crate::dialect::receipt;
use crate::error::{ApiError, ErrorKind};
use crate::usage::{Receipt, Usage};

/// What a response object says that neither request nor answer know.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseHead {
    /// `resp_...`; the ids of its items are made of it.
    pub id: String,
    /// What it repeats of the request.
    pub echo: Echo,
}

/// The whole response object: what is sent, and what is kept for those who ask for it later.
pub fn response_object(head: &ResponseHead, response: &ChatResponse) -> Value {
    let chat = ChatHead {
        id: response.id.clone(),
        created: response.created,
        model: response.model.clone(),
    };
    let reason = response
        .choices
        .first()
        .map_or(FinishReason::Stop, |choice| choice.finish_reason);
    let end = End::Finished {
        reason,
        usage: &response.usage,
        receipt: response.receipt.as_ref(),
    };
    object(head, &chat, output_items(head, response), &end)
}

/// The items of an answer, in the form in which they are also input of a later request.
pub fn output_items(head: &ResponseHead, response: &ChatResponse) -> Vec<Value> {
    let Some(choice) = response.choices.first() else {
        return Vec::new();
    };
    let surface = head.echo.surface;
    let items = output::of_choice(&head.id, choice, surface);
    finished_values(&items, choice.finish_reason, surface)
}

/// How far an answer has come.
pub(super) enum End<'a> {
    InProgress,
    Finished {
        reason: FinishReason,
        usage: &'a Usage,
        receipt: Option<&'a Receipt>,
    },
    Failed(&'a ApiError),
}

impl End<'_> {
    pub(super) fn status(&self) -> &'static str {
        match self {
            End::InProgress => "in_progress",
            End::Finished { reason, .. } if output::is_cut(*reason) => "incomplete",
            End::Finished { .. } => "completed",
            End::Failed(_) => "failed",
        }
    }
}

/// The object with the items `output`.
pub(super) fn object(
    head: &ResponseHead,
    chat: &ChatHead,
    output: Vec<Value>,
    end: &End<'_>,
) -> Value {
    let surface = head.echo.surface;
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| {
        if surface == Surface::OpenAi || !value.is_null() {
            object.insert(name.to_owned(), value);
        }
    };
    set("id", head.id.as_str().into());
    set("object", "response".into());
    set("created_at", chat.created.into());
    set("status", end.status().into());
    let error = match end {
        End::Failed(error) => json!({"code": error_code(error.kind), "message": error.message}),
        _ => Value::Null,
    };
    set("error", error);
    set("incomplete_details", incomplete(end, surface));
    set("model", chat.model.as_str().into());
    set("output", output.into());
    for (name, value) in &head.echo.fields {
        set(name, value.clone());
    }
    match end {
        End::Finished { usage, receipt, .. } => {
            set("usage", usage_body(usage, surface));
            if let Some(receipt) = receipt {
                set("context_cache", json!(receipt::context_cache(receipt)));
            }
        }
        End::InProgress | End::Failed(_) => set("usage", Value::Null),
    }
    Value::Object(object)
}

fn incomplete(end: &End<'_>, surface: Surface) -> Value {
    let reason = match (end, surface) {
        (
            End::Finished {
                reason: FinishReason::ContentFilter,
                ..
            },
            _,
        ) => "content_filter",
        (
            End::Finished {
                reason: FinishReason::Length,
                ..
            },
            Surface::OpenAi,
        ) => "max_output_tokens",
        (
            End::Finished {
                reason: FinishReason::Length,
                ..
            },
            Surface::Ark,
        ) => "length",
        _ => return Value::Null,
    };
    json!({"reason": reason})
}

/// Counts by OpenAI's convention: what was read from a cache and written to it is among the input tokens.
fn usage_body(usage: &Usage, surface: Surface) -> Value {
    let cached = usage.cached_input_tokens.min(usage.input_tokens);
    let mut details = json!({"cached_tokens": cached});
    // Ark has no such count.
    if surface == Surface::OpenAi {
        // In a session an answer is written, too, and is no part of the input.
        let written = usage.cache_write_tokens.min(usage.input_tokens - cached);
        details["cache_write_tokens"] = written.into();
    }
    json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": details,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens(),
    })
}

/// OpenAI's codes for failures of an answer; there are few.
pub(super) fn error_code(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::RateLimited | ErrorKind::Overloaded => "rate_limit_exceeded",
        // OpenAI's word for an account without credit.
        ErrorKind::BudgetExhausted => "insufficient_quota",
        kind if kind.status() == 400 => "invalid_prompt",
        _ => "server_error",
    }
}
