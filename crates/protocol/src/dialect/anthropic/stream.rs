//! Streamed answers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error;
use super::usage::Counts;
use crate::chat::{Delta, FinishReason, ReasoningSignature};
use crate::sse;
use crate::upstream::{AnswerDecoder, AnswerEnd, AnswerEvent, Failure};
use crate::usage::BilledUsage;

/// The largest event an upstream may send, bytes.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most tool calls an answer may hold.
const TOOL_CALLS_MAX: u32 = 512;

/// The longest reason of a cache miss that is kept, characters.
const MISS_REASON_MAX: usize = 64;
/// Longest name of an answer that is kept, characters.
const ANSWER_ID_MAX: usize = 200;

type Events = Vec<Result<AnswerEvent, Failure>>;

/// Reads the events of one answer. There is always one choice.
pub(super) struct Decoder {
    events: sse::Decoder,
    counts: Option<Counts>,
    /// Calls that are being written, by index of their block.
    open_calls: BTreeMap<u64, OpenCall>,
    calls: u32,
    answer_id: Option<String>,
    miss_reason: Option<String>,
    has_finished: bool,
    has_ended: bool,
}

struct OpenCall {
    index: u32,
    /// The arguments, if they came whole with the start of the block. Fragments replace them.
    input: String,
    has_fragments: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Decoder {
            events: sse::Decoder::new(EVENT_BYTES_MAX),
            counts: None,
            open_calls: BTreeMap::new(),
            calls: 0,
            answer_id: None,
            miss_reason: None,
            has_finished: false,
            has_ended: false,
        }
    }

    fn read(&mut self, event: &sse::Event, out: &mut Events) {
        if self.has_ended {
            return;
        }
        let data = event.data.trim();
        if data == "[DONE]" {
            return self.end(out);
        }
        let read = serde_json::from_str::<Value>(data)
            .map_err(|_| Failure::malformed())
            .and_then(|data| self.event(event.event.as_deref(), &data, out));
        if let Err(failure) = read {
            self.fail(failure, out);
        }
    }

    fn event(&mut self, name: Option<&str>, data: &Value, out: &mut Events) -> Result<(), Failure> {
        match data["type"].as_str().or(name).unwrap_or_default() {
            "message_start" => self.message(&data["message"]),
            "content_block_start" if !self.has_finished => self.block_start(data, out)?,
            "content_block_delta" if !self.has_finished => self.block_delta(data, out),
            "content_block_stop" if !self.has_finished => self.block_stop(data, out),
            "message_delta" => {
                self.message(data);
                if let Some(reason) = data["delta"]["stop_reason"].as_str()
                    && !self.has_finished
                {
                    self.close_calls(out);
                    self.has_finished = true;
                    out.push(Ok(AnswerEvent::Finish {
                        choice: 0,
                        reason: finish_reason(reason),
                    }));
                }
            }
            "message_stop" => self.end(out),
            "error" => return Err(error::of_event(&data["error"])),
            // `ping`, and whatever is new.
            _ => {}
        }
        Ok(())
    }

    /// The part of a message that may stand in its first and in its last event.
    fn message(&mut self, message: &Value) {
        let usage = &message["usage"];
        if usage.is_object() {
            self.counts.get_or_insert_default().merge(usage);
        }
        if let Some(id) = message["id"].as_str() {
            self.answer_id = Some(id.chars().take(ANSWER_ID_MAX).collect());
        }
        if let Some(reason) = message["diagnostics"]["cache_miss_reason"]["type"].as_str() {
            self.miss_reason = Some(reason.chars().take(MISS_REASON_MAX).collect());
        }
    }

    fn block_start(&mut self, data: &Value, out: &mut Events) -> Result<(), Failure> {
        let block = &data["content_block"];
        match block["type"].as_str() {
            Some("text") => push_text(&block["text"], out),
            Some("thinking") => push_reasoning(&block["thinking"], out),
            Some("tool_use") => {
                let (Some(block_index), Some(id), Some(name)) = (
                    data["index"].as_u64(),
                    block["id"].as_str(),
                    block["name"].as_str(),
                ) else {
                    return Err(Failure::malformed());
                };
                if self.calls == TOOL_CALLS_MAX {
                    return Err(Failure::malformed());
                }
                let index = self.calls;
                self.calls += 1;
                let call = OpenCall {
                    index,
                    input: match &block["input"] {
                        Value::Object(input) => Value::Object(input.clone()).to_string(),
                        _ => "{}".to_owned(),
                    },
                    has_fragments: false,
                };
                self.open_calls.insert(block_index, call);
                push(
                    Delta::ToolCallStart {
                        index,
                        id: id.to_owned(),
                        name: name.to_owned(),
                    },
                    out,
                );
            }
            // Redacted thinking, and tools that run at the provider, which are never asked for.
            _ => {}
        }
        Ok(())
    }

    fn block_delta(&mut self, data: &Value, out: &mut Events) {
        let delta = &data["delta"];
        match delta["type"].as_str() {
            Some("text_delta") => push_text(&delta["text"], out),
            Some("thinking_delta") => push_reasoning(&delta["thinking"], out),
            Some("input_json_delta") => {
                let call = data["index"]
                    .as_u64()
                    .and_then(|index| self.open_calls.get_mut(&index));
                if let (Some(call), Some(fragment)) = (call, non_empty(&delta["partial_json"])) {
                    call.has_fragments = true;
                    push(
                        Delta::ToolCallArguments {
                            index: call.index,
                            fragment,
                        },
                        out,
                    );
                }
            }
            Some("signature_delta") => {
                if let Some(seal) = non_empty(&delta["signature"]) {
                    let signature = ReasoningSignature::new("anthropic", &seal);
                    push(Delta::ReasoningSignature { signature }, out);
                }
            }
            // Citations.
            _ => {}
        }
    }

    fn block_stop(&mut self, data: &Value, out: &mut Events) {
        let call = data["index"]
            .as_u64()
            .and_then(|index| self.open_calls.remove(&index));
        if let Some(call) = call {
            close_call(call, out);
        }
    }

    fn close_calls(&mut self, out: &mut Events) {
        for call in std::mem::take(&mut self.open_calls).into_values() {
            close_call(call, out);
        }
    }

    fn end(&mut self, out: &mut Events) {
        if !self.has_finished {
            return self.fail(Failure::cut_short(), out);
        }
        self.has_ended = true;
        out.push(Ok(AnswerEvent::Done(AnswerEnd {
            usage: self.usage_so_far(),
            response_id: self.answer_id.take(),
            miss_reason: self.miss_reason.take(),
            cache_reported: self.counts.is_some_and(|counts| counts.cache_reported),
            ..AnswerEnd::default()
        })));
    }

    fn fail(&mut self, failure: Failure, out: &mut Events) {
        self.has_ended = true;
        out.push(Err(failure));
    }
}

impl AnswerDecoder for Decoder {
    fn push(&mut self, bytes: &[u8]) -> Events {
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

    fn finish(&mut self) -> Events {
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
        self.counts.as_ref().map(Counts::billed)
    }
}

fn push(delta: Delta, out: &mut Events) {
    out.push(Ok(AnswerEvent::Delta { choice: 0, delta }));
}

fn push_text(text: &Value, out: &mut Events) {
    if let Some(text) = non_empty(text) {
        let logprobs = Vec::new();
        push(Delta::Text { text, logprobs }, out);
    }
}

fn push_reasoning(text: &Value, out: &mut Events) {
    if let Some(text) = non_empty(text) {
        push(Delta::Reasoning { text }, out);
    }
}

/// A call without arguments has no fragments; clients expect an object all the same.
fn close_call(call: OpenCall, out: &mut Events) {
    if !call.has_fragments {
        push(
            Delta::ToolCallArguments {
                index: call.index,
                fragment: call.input,
            },
            out,
        );
    }
}

fn non_empty(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// Words that the dialect does not know end an answer as well as `end_turn` does.
fn finish_reason(word: &str) -> FinishReason {
    match word {
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}
