//! Reads streamed chat completions.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::failure::failure_in_stream;
use super::logprobs;
use super::tool_calls::ToolCalls;
use super::usage::UsageReader;
use crate::chat::{Delta, FinishReason};
use crate::provider::ModelRules;
use crate::sse;
use crate::upstream::{AnswerDecoder, AnswerEnd, AnswerEvent, Failure, FailureKind};
use crate::usage::BilledUsage;

/// The largest event an upstream may send, bytes.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most choices an answer may have: OpenAI's largest `n`.
const CHOICES_MAX: usize = 128;
/// Most of an answer's id that goes into ids made from it, characters.
const ID_LENGTH_MAX: usize = 40;

/// Reads one answer. It is whole once every choice that has begun is finished and the stream ends, with or without
/// `[DONE]`; token counts may come anywhere, even after that.
#[derive(Debug)]
pub(in crate::dialect::openai) struct ChatDecoder {
    events: sse::Decoder,
    choices: BTreeMap<u32, ChoiceState>,
    usage: UsageReader,
    /// The answer's id, letters and digits only; empty until it is known.
    id: String,
    has_ended: bool,
}

#[derive(Debug, Default)]
struct ChoiceState {
    is_finished: bool,
    calls: ToolCalls,
}

type Events = Vec<Result<AnswerEvent, Failure>>;

impl ChatDecoder {
    /// `written_for_seconds`: the lifetime that the request asked the cache for, for counters of written tokens that do
    /// not name it; `None`: the shortest that the provider has.
    pub(in crate::dialect::openai) fn new(
        rules: &ModelRules,
        written_for_seconds: Option<u32>,
    ) -> Self {
        ChatDecoder {
            events: sse::Decoder::new(EVENT_BYTES_MAX),
            choices: BTreeMap::new(),
            usage: UsageReader::new(rules, written_for_seconds),
            id: String::new(),
            has_ended: false,
        }
    }

    fn read(&mut self, event: &sse::Event, out: &mut Events) {
        let data = event.data.trim();
        if self.has_ended || data.is_empty() {
            return;
        }
        if data == "[DONE]" {
            return self.end(out);
        }
        let read = match serde_json::from_str(data) {
            Ok(Value::Object(chunk)) => {
                self.chunk(chunk, event.event.as_deref() == Some("error"), out)
            }
            _ => Err(Failure::malformed()),
        };
        if let Err(failure) = read {
            self.fail(failure, out);
        }
    }

    fn fail(&mut self, failure: Failure, out: &mut Events) {
        self.has_ended = true;
        out.push(Err(failure));
    }

    fn end(&mut self, out: &mut Events) {
        let is_whole =
            !self.choices.is_empty() && self.choices.values().all(|choice| choice.is_finished);
        if !is_whole {
            return self.fail(Failure::cut_short(), out);
        }
        self.has_ended = true;
        out.push(Ok(AnswerEvent::Done(AnswerEnd {
            usage: self.usage.usage,
            charged_usd: self.usage.charged_usd,
            cache_reported: self.usage.cache_reported,
            ..AnswerEnd::default()
        })));
    }

    fn chunk(
        &mut self,
        mut chunk: Map<String, Value>,
        is_error_event: bool,
        out: &mut Events,
    ) -> Result<(), Failure> {
        self.usage.read(&chunk);
        if let Some(failure) = failure_in_stream(&chunk, is_error_event) {
            return Err(failure);
        }
        if self.id.is_empty()
            && let Some(id) = chunk.get("id").and_then(Value::as_str)
        {
            self.id = id
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .take(ID_LENGTH_MAX)
                .collect();
        }
        let choices = match chunk.get_mut("choices").map(Value::take) {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Array(choices)) if choices.len() <= CHOICES_MAX => choices,
            Some(_) => return Err(Failure::malformed()),
        };
        for (position, choice) in choices.iter().enumerate() {
            self.choice(position, choice, out)?;
        }
        Ok(())
    }

    fn choice(&mut self, position: usize, choice: &Value, out: &mut Events) -> Result<(), Failure> {
        let fields = choice.as_object().ok_or_else(Failure::malformed)?;
        // Kimi's older models report in the last choice.
        self.usage.read(fields);
        if let Some(error) = fields.get("error").and_then(Value::as_object)
            && let Some(failure) = failure_in_stream(error, true)
        {
            return Err(failure);
        }
        let index = match fields.get("index") {
            None | Some(Value::Null) => position as u64,
            Some(index) => index.as_u64().ok_or_else(Failure::malformed)?,
        };
        let index = u32::try_from(index)
            .ok()
            .filter(|index| (*index as usize) < CHOICES_MAX)
            .ok_or_else(Failure::malformed)?;
        let is_new = !self.choices.contains_key(&index);
        let state = self.choices.entry(index).or_default();
        if state.is_finished {
            return Ok(());
        }

        let mut deltas = Vec::new();
        // Some repeat the whole answer as a message at its end; only without any delta is that the answer.
        let said = fields
            .get("delta")
            .or_else(|| fields.get("message").filter(|_| is_new))
            .and_then(Value::as_object);
        let mut text = String::new();
        let mut calls = None;
        if let Some(said) = said {
            text = read_said(said, &mut deltas);
            calls = said.get("tool_calls").and_then(Value::as_array);
        }
        let logprobs = logprobs::read(choice);
        if !text.is_empty() || !logprobs.is_empty() {
            deltas.push(Delta::Text { text, logprobs });
        }
        for call in calls.into_iter().flatten() {
            state.calls.read(call, &mut deltas)?;
        }
        let finish = match fields.get("finish_reason").and_then(Value::as_str) {
            None | Some("") => None,
            Some(word) => Some(finish_reason(word)?),
        };
        if finish.is_some() {
            state.calls.finish(&self.id, index, &mut deltas)?;
            state.is_finished = true;
        }
        out.extend(deltas.into_iter().map(|delta| {
            Ok(AnswerEvent::Delta {
                choice: index,
                delta,
            })
        }));
        if let Some(reason) = finish {
            out.push(Ok(AnswerEvent::Finish {
                choice: index,
                reason,
            }));
        }
        Ok(())
    }
}

impl AnswerDecoder for ChatDecoder {
    fn push(&mut self, bytes: &[u8]) -> Vec<Result<AnswerEvent, Failure>> {
        let mut out = Vec::new();
        if self.has_ended {
            return out;
        }
        match self.events.push(bytes) {
            Ok(events) => {
                for event in events {
                    self.read(&event, &mut out);
                }
            }
            Err(_) => self.fail(Failure::malformed(), &mut out),
        }
        out
    }

    fn finish(&mut self) -> Vec<Result<AnswerEvent, Failure>> {
        let mut out = Vec::new();
        if let Some(event) = self.events.finish() {
            self.read(&event, &mut out);
        }
        if !self.has_ended {
            self.end(&mut out);
        }
        out
    }

    fn usage_so_far(&self) -> Option<BilledUsage> {
        self.usage.usage
    }
}

/// Reasoning goes to `deltas`; the text, a refusal's included, is returned.
fn read_said(said: &Map<String, Value>, deltas: &mut Vec<Delta>) -> String {
    // Some send both names with the same text.
    let reasoning = ["reasoning_content", "reasoning"]
        .into_iter()
        .find_map(|key| said.get(key)?.as_str().filter(|text| !text.is_empty()));
    if let Some(reasoning) = reasoning {
        deltas.push(Delta::Reasoning {
            text: reasoning.to_owned(),
        });
    }
    let mut text = match said.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => read_parts(parts, deltas),
        _ => String::new(),
    };
    if let Some(refusal) = said.get("refusal").and_then(Value::as_str) {
        text.push_str(refusal);
    }
    text
}

/// Mistral's reasoning models answer in parts.
fn read_parts(parts: &[Value], deltas: &mut Vec<Delta>) -> String {
    let mut text = String::new();
    let mut thinking = String::new();
    for part in parts {
        match part["type"].as_str() {
            Some("text") => text.push_str(part["text"].as_str().unwrap_or_default()),
            Some("thinking") => {
                for piece in part["thinking"].as_array().into_iter().flatten() {
                    thinking.push_str(piece["text"].as_str().unwrap_or_default());
                }
            }
            _ => {}
        }
    }
    if !thinking.is_empty() {
        deltas.push(Delta::Reasoning { text: thinking });
    }
    text
}

/// Words for an answer that broke off are failures: a turn that ended so must not be remembered. Any other word that is
/// not known ends an answer as well as `stop` does.
fn finish_reason(word: &str) -> Result<FinishReason, Failure> {
    match word {
        "length" | "max_tokens" | "model_length" => Ok(FinishReason::Length),
        "tool_calls" | "function_call" => Ok(FinishReason::ToolCalls),
        "content_filter" | "sensitive" => Ok(FinishReason::ContentFilter),
        "error" | "network_error" | "abort" => Err(Failure::new(
            FailureKind::ServerError,
            "the provider broke the answer off",
        )),
        "insufficient_system_resource" => Err(Failure::new(
            FailureKind::Overloaded,
            "the provider ran out of resources",
        )),
        _ => Ok(FinishReason::Stop),
    }
}
