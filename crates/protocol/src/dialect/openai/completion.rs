//! OpenAI's older endpoint for raw text, `/completions`, towards clients.
//!
//! Written rules: prompts are texts, not lists of token ids; `suffix` and `logprobs` are refused; `best_of` must be `n`;
//! unknown fields are ignored.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde_json::Value;

use super::error::error_body;
use super::request::{CHOICES_MAX, decode_sampling, decode_stop};
use super::response::{finish_word, usage_body};
use super::wire::{TextChoice, TextCompletion, UsageBody};
use super::{to_json, without_models_prefix};
use crate::chat::{ChatEvent, ChatHead, ChatResponse, Delta};
use crate::completion::CompletionRequest;
use crate::dialect::AnswerWriter;
use crate::dialect::fields::Fields;
use crate::error::ApiError;
use crate::sse;
use crate::usage::Usage;

/// OpenAI's default for the length of an answer.
const MAX_TOKENS: u32 = 16;

/// Reads a request for a text completion.
///
/// # Errors
/// Not JSON, or a field that is missing, malformed, out of range or not supported.
pub fn decode_completion(body: &[u8]) -> Result<CompletionRequest, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let model = without_models_prefix(fields.required_string("model")?);
    let choices = fields.integer("n", 1..=CHOICES_MAX)?.unwrap_or(1);
    let prompts = decode_prompts(&mut fields)?;
    if prompts.len() as u64 * choices.unsigned_abs() > CHOICES_MAX.unsigned_abs() {
        return Err(fields.invalid(
            "n",
            format!("times the number of prompts may be at most {CHOICES_MAX}"),
        ));
    }
    if fields
        .integer("best_of", 1..=CHOICES_MAX)?
        .is_some_and(|best_of| best_of != choices)
    {
        return Err(ApiError::unsupported(
            "best_of",
            "must be the same as `n`: no answer is thrown away here",
        ));
    }
    if fields.string("suffix")?.is_some() {
        return Err(ApiError::unsupported(
            "suffix",
            "is not supported: text is continued at its end only",
        ));
    }
    if fields.has("logprobs") {
        return Err(ApiError::unsupported(
            "logprobs",
            "is not supported here; chat completions have it",
        ));
    }
    let include_usage = match fields.object("stream_options")? {
        Some(mut options) => options.boolean("include_usage")?,
        None => None,
    };
    // For the caller's own books.
    fields.string("user")?;
    Ok(CompletionRequest {
        model,
        prompts,
        echo: fields.boolean("echo")?.unwrap_or(false),
        sampling: decode_sampling(&mut fields)?,
        max_tokens: fields.count("max_tokens", 1)?.unwrap_or(MAX_TOKENS),
        stop: decode_stop(&mut fields)?,
        choices: u32::try_from(choices).unwrap_or(1),
        stream: fields.boolean("stream")?.unwrap_or(false),
        include_usage: include_usage.unwrap_or(false),
    })
}

fn decode_prompts(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let values = match fields.value("prompt") {
        None => return Err(fields.missing("prompt")),
        Some(Value::String(text)) if text.is_empty() => {
            return Err(fields.invalid("prompt", "must not be empty"));
        }
        Some(Value::String(text)) => return Ok(vec![text]),
        Some(Value::Array(values)) => values,
        Some(other) => {
            return Err(fields.wrong_type("prompt", "a string or an array of strings", &other));
        }
    };
    if values.is_empty() {
        return Err(fields.invalid("prompt", "must not be empty"));
    }
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            let key = format!("prompt[{index}]");
            match value {
                Value::String(text) if text.is_empty() => {
                    Err(fields.invalid(&key, "must not be empty"))
                }
                Value::String(text) => Ok(text),
                Value::Number(_) | Value::Array(_) => Err(ApiError::unsupported(
                    "prompt",
                    "must be text: prompts of token ids are not supported",
                )),
                other => Err(fields.wrong_type(&key, "a string", &other)),
            }
        })
        .collect()
}

/// Writes one answer as a text completion, whole or in chunks. There are no contexts here, and so no receipts, and no
/// turn whose commit an end would have to wait for.
#[derive(Debug)]
pub struct CompletionWriter {
    include_usage: bool,
    head: Option<ChatHead>,
}

impl CompletionWriter {
    /// With `include_usage` a stream's counts come in an extra last chunk.
    pub fn new(include_usage: bool) -> Self {
        CompletionWriter {
            include_usage,
            head: None,
        }
    }

    fn chunk(&self, choice: Option<TextChoice>, usage: Option<UsageBody>) -> Bytes {
        let Some(head) = &self.head else {
            return Bytes::new();
        };
        sse::Encoder::data(&to_json(&TextCompletion {
            id: head.id.clone(),
            object: "text_completion",
            created: head.created,
            model: head.model.clone(),
            choices: choice.into_iter().collect(),
            usage: self.include_usage.then_some(usage),
        }))
    }
}

impl AnswerWriter for CompletionWriter {
    fn whole(&mut self, response: &ChatResponse) -> Bytes {
        let choice = |choice: &crate::chat::Choice| TextChoice {
            text: choice.message.joined_text(),
            index: choice.index,
            logprobs: None,
            finish_reason: Some(finish_word(choice.finish_reason)),
        };
        to_json(&TextCompletion {
            id: response.id.clone(),
            object: "text_completion",
            created: response.created,
            model: response.model.clone(),
            choices: response.choices.iter().map(choice).collect(),
            usage: Some(Some(usage_body(&response.usage))),
        })
    }

    fn begin(&mut self, head: &ChatHead, _usage: &Usage) -> Bytes {
        self.head = Some(head.clone());
        Bytes::new()
    }

    fn event(&mut self, event: &ChatEvent) -> Bytes {
        let (index, text, finish_reason) = match event {
            ChatEvent::Delta {
                choice,
                delta: Delta::Text { text, .. },
            } => (*choice, text.clone(), None),
            ChatEvent::Finish { choice, reason } => {
                (*choice, String::new(), Some(finish_word(*reason)))
            }
            ChatEvent::Done { usage, .. } if self.include_usage => {
                return self.chunk(None, Some(usage_body(usage)));
            }
            // Raw text has nothing else.
            ChatEvent::Delta { .. } | ChatEvent::Done { .. } | ChatEvent::Wire(_) => {
                return Bytes::new();
            }
        };
        let choice = TextChoice {
            text,
            index,
            logprobs: None,
            finish_reason,
        };
        self.chunk(Some(choice), None)
    }

    fn keep_alive(&mut self) -> Bytes {
        sse::Encoder::comment("still here")
    }

    fn error(&mut self, error: &ApiError) -> Bytes {
        self.head = None;
        sse::Encoder::data(&to_json(&error_body(error)))
    }

    fn end(&mut self) -> Bytes {
        self.head = None;
        sse::Encoder::data(b"[DONE]")
    }
}
