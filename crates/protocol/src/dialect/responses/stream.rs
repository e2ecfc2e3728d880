//! Streamed answers of both.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::items::Flavour;
use super::{error, usage};
use crate::chat::{Delta, FinishReason, ReasoningSignature, TokenLogprob};
use crate::provider::ModelRules;
use crate::sse;
use crate::upstream::{AnswerDecoder, AnswerEnd, AnswerEvent, Failure, FailureKind};
use crate::usage::BilledUsage;

/// The largest event an upstream may send, bytes.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most tool calls of an answer.
const CALLS_MAX: usize = 512;
/// What stands for the log probability of a token that is too unlikely to say.
const LOGPROB_MIN: f32 = -9999.0;

type Events = Vec<Result<AnswerEvent, Failure>>;

/// A call whose item has begun.
#[derive(Debug)]
struct Call {
    index: u32,
    /// Whether any of its arguments came as deltas; then the whole of them at its end is no news.
    has_arguments: bool,
}

/// Reads one answer. `response.completed` or one of its kin is its end; anything after that is not read.
#[derive(Debug)]
pub(super) struct ResponsesDecoder {
    events: sse::Decoder,
    rules: ModelRules,
    flavour: Flavour,
    /// By `output_index`.
    calls: BTreeMap<u64, Call>,
    /// Output items and parts whose text came as deltas.
    texts: BTreeSet<(u64, u64)>,
    end: AnswerEnd,
    ended: bool,
}

impl ResponsesDecoder {
    pub(super) fn new(rules: &ModelRules, flavour: Flavour) -> Self {
        ResponsesDecoder {
            events: sse::Decoder::new(EVENT_BYTES_MAX),
            rules: rules.clone(),
            flavour,
            calls: BTreeMap::new(),
            texts: BTreeSet::new(),
            end: AnswerEnd::default(),
            ended: false,
        }
    }

    fn read(&mut self, event: &sse::Event, out: &mut Events) {
        if self.ended || event.data.trim() == "[DONE]" {
            return;
        }
        let result = match serde_json::from_str(&event.data) {
            Ok(Value::Object(mut fields)) => {
                // Both carry the type; the name is for those who leave it out of the data.
                if let (false, Some(name)) = (fields.contains_key("type"), &event.event) {
                    fields.insert("type".to_owned(), name.clone().into());
                }
                self.event(&fields, out)
            }
            _ => Err(Failure::malformed()),
        };
        if let Err(failure) = result {
            self.ended = true;
            out.push(Err(failure));
        }
    }

    fn event(&mut self, event: &Map<String, Value>, out: &mut Events) -> Result<(), Failure> {
        let kind = event
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        match kind {
            "response.created" | "response.in_progress" | "response.queued" => {
                self.note(event);
            }
            "response.output_text.delta" | "response.refusal.delta" => {
                self.texts.insert(place(event));
                self.text(event, "delta", out);
            }
            "response.output_text.done" if !self.texts.contains(&place(event)) => {
                self.text(event, "text", out);
            }
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
                if let Some(text) = text_of(event, "delta") {
                    push(out, Delta::Reasoning { text });
                }
            }
            "response.output_item.added" => self.item_begins(event, out)?,
            "response.function_call_arguments.delta" => {
                if let Some(fragment) = text_of(event, "delta") {
                    self.arguments(event, fragment, out)?;
                }
            }
            "response.function_call_arguments.done" => {
                self.arguments_end(event, event, out)?;
            }
            "response.output_item.done" => {
                self.item_begins(event, out)?;
                if let Some(item) = object(event, "item") {
                    self.arguments_end(event, item, out)?;
                    if let Some(seal) = text_of(item, "encrypted_content") {
                        let signature = ReasoningSignature::new("responses", &seal);
                        push(out, Delta::ReasoningSignature { signature });
                    }
                }
            }
            "response.completed"
            | "response.incomplete"
            | "response.failed"
            | "response.cancelled" => return self.response_ends(event, kind, out),
            "error" => return Err(error::of_event(event, self.flavour)),
            "" if event.contains_key("error") || event.contains_key("code") => {
                return Err(error::of_event(event, self.flavour));
            }
            _ => {}
        }
        Ok(())
    }

    /// What any event with a response object tells.
    fn note(&mut self, event: &Map<String, Value>) {
        let Some(response) = object(event, "response") else {
            return;
        };
        // OpenAI is never asked to store an answer.
        let is_stored = response.get("store").is_none_or(|store| *store != false);
        if self.flavour == Flavour::Ark && is_stored {
            self.end.response_id = text_of(response, "id").or(self.end.response_id.take());
        }
        if let Some(report) = usage::billed(response, &self.rules) {
            self.end.usage = Some(self.end.usage.unwrap_or_default().max(report));
        }
        self.end.cache_reported |= usage::reports_cache(response);
        if let Some(reason) = usage::miss_reason(response) {
            self.end.miss_reason = Some(reason);
        }
    }

    fn text(&mut self, event: &Map<String, Value>, key: &str, out: &mut Events) {
        let text = text_of(event, key).unwrap_or_default();
        let logprobs: Vec<TokenLogprob> = event
            .get("logprobs")
            .and_then(Value::as_array)
            .map(|tokens| tokens.iter().map(token_logprob).collect())
            .unwrap_or_default();
        if !text.is_empty() || !logprobs.is_empty() {
            push(out, Delta::Text { text, logprobs });
        }
    }

    fn item_begins(&mut self, event: &Map<String, Value>, out: &mut Events) -> Result<(), Failure> {
        let Some(item) = object(event, "item") else {
            return Ok(());
        };
        let number = number(event, "output_index");
        if item.get("type").is_none_or(|kind| kind != "function_call")
            || self.calls.contains_key(&number)
        {
            return Ok(());
        }
        if self.calls.len() >= CALLS_MAX {
            return Err(Failure::malformed());
        }
        let id = text_of(item, "call_id").or_else(|| text_of(item, "id"));
        let name = text_of(item, "name");
        let (Some(id), Some(name)) = (id, name) else {
            return Err(Failure::malformed());
        };
        let index = u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
        self.calls.insert(
            number,
            Call {
                index,
                has_arguments: false,
            },
        );
        push(out, Delta::ToolCallStart { index, id, name });
        Ok(())
    }

    fn arguments(
        &mut self,
        event: &Map<String, Value>,
        fragment: String,
        out: &mut Events,
    ) -> Result<(), Failure> {
        let call = self
            .calls
            .get_mut(&number(event, "output_index"))
            .ok_or_else(Failure::malformed)?;
        call.has_arguments = true;
        let index = call.index;
        push(out, Delta::ToolCallArguments { index, fragment });
        Ok(())
    }

    /// `holder` has all arguments of the call that ends; they are news where none came before.
    fn arguments_end(
        &mut self,
        event: &Map<String, Value>,
        holder: &Map<String, Value>,
        out: &mut Events,
    ) -> Result<(), Failure> {
        let is_news = self
            .calls
            .get(&number(event, "output_index"))
            .is_some_and(|call| !call.has_arguments);
        match text_of(holder, "arguments") {
            Some(whole) if is_news => self.arguments(event, whole, out),
            _ => Ok(()),
        }
    }

    fn response_ends(
        &mut self,
        event: &Map<String, Value>,
        kind: &str,
        out: &mut Events,
    ) -> Result<(), Failure> {
        self.note(event);
        let response = object(event, "response").ok_or_else(Failure::malformed)?;
        let status = text_of(response, "status").unwrap_or_default();
        let reason = match (kind, status.as_str()) {
            ("response.failed", _) | (_, "failed") => {
                return Err(error::of_response(response, self.flavour));
            }
            ("response.cancelled", _) | (_, "cancelled") => {
                return Err(Failure::new(
                    FailureKind::ServerError,
                    "the answer was cancelled",
                ));
            }
            ("response.incomplete", _) | (_, "incomplete") => match incomplete_reason(response) {
                Some("content_filter") => FinishReason::ContentFilter,
                // A limit is all else that leaves an answer incomplete.
                _ => FinishReason::Length,
            },
            _ if !self.calls.is_empty() => FinishReason::ToolCalls,
            _ => FinishReason::Stop,
        };
        self.ended = true;
        out.push(Ok(AnswerEvent::Finish { choice: 0, reason }));
        out.push(Ok(AnswerEvent::Done(self.end.clone())));
        Ok(())
    }
}

impl AnswerDecoder for ResponsesDecoder {
    fn push(&mut self, bytes: &[u8]) -> Events {
        let mut out = Vec::new();
        if self.ended {
            return out;
        }
        match self.events.push(bytes) {
            Ok(events) => {
                for event in events {
                    self.read(&event, &mut out);
                }
            }
            Err(_) => {
                self.ended = true;
                out.push(Err(Failure::malformed()));
            }
        }
        out
    }

    fn finish(&mut self) -> Events {
        let mut out = Vec::new();
        if self.ended {
            return out;
        }
        if let Some(event) = self.events.finish() {
            self.read(&event, &mut out);
        }
        if !self.ended {
            self.ended = true;
            out.push(Err(Failure::cut_short()));
        }
        out
    }

    fn usage_so_far(&self) -> Option<BilledUsage> {
        self.end.usage
    }
}

fn push(out: &mut Events, delta: Delta) {
    out.push(Ok(AnswerEvent::Delta { choice: 0, delta }));
}

fn object<'a>(holder: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    holder.get(key).and_then(Value::as_object)
}

/// A string that is not empty.
fn text_of(holder: &Map<String, Value>, key: &str) -> Option<String> {
    let text = holder.get(key)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(holder: &Map<String, Value>, key: &str) -> u64 {
    holder.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn place(event: &Map<String, Value>) -> (u64, u64) {
    (
        number(event, "output_index"),
        number(event, "content_index"),
    )
}

fn incomplete_reason(response: &Map<String, Value>) -> Option<&str> {
    object(response, "incomplete_details")?
        .get("reason")?
        .as_str()
}

fn token_logprob(value: &Value) -> TokenLogprob {
    let (token, bytes, logprob) = token_of(value);
    let top = value.get("top_logprobs").and_then(Value::as_array);
    TokenLogprob {
        token,
        bytes,
        logprob,
        top: top
            .map(|top| top.iter().map(token_of).collect())
            .unwrap_or_default(),
    }
}

fn token_of(value: &Value) -> (String, Vec<u8>, f32) {
    let token = value
        .get("token")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let bytes = value.get("bytes").and_then(Value::as_array).map(|bytes| {
        bytes
            .iter()
            .filter_map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
            .collect()
    });
    let logprob = value.get("logprob").and_then(Value::as_f64);
    (
        token.to_owned(),
        bytes.unwrap_or_else(|| token.as_bytes().to_vec()),
        logprob
            .map(|logprob| logprob as f32)
            .filter(|logprob| logprob.is_finite())
            .unwrap_or(LOGPROB_MIN),
    )
}
