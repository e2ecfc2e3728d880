//! Streamed answers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::frame::{Frame, FrameDecoder};
use super::{error, usage};
use crate::chat::{Delta, FinishReason, ReasoningSignature};
use crate::upstream::{AnswerDecoder, AnswerEnd, AnswerEvent, Failure, FailureKind};
use crate::usage::BilledUsage;

/// The most tool calls an answer may hold.
const TOOL_CALLS_MAX: u32 = 512;

type Events = Vec<Result<AnswerEvent, Failure>>;

/// Reads the events of one answer. There is always one choice.
pub(super) struct Decoder {
    frames: FrameDecoder,
    usage: Option<BilledUsage>,
    cache_reported: bool,
    /// Calls that are being written, by index of their block.
    open_calls: BTreeMap<u64, OpenCall>,
    calls: u32,
    has_finished: bool,
    has_ended: bool,
}

struct OpenCall {
    index: u32,
    has_fragments: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Decoder {
            frames: FrameDecoder::default(),
            usage: None,
            cache_reported: false,
            open_calls: BTreeMap::new(),
            calls: 0,
            has_finished: false,
            has_ended: false,
        }
    }

    fn read(&mut self, out: &mut Events) -> Result<(), Failure> {
        while !self.has_ended
            && let Some(frame) = self.frames.next()?
        {
            match frame {
                Frame::Event { name, body } => self.event(&name, &body, out)?,
                Frame::Exception { name, body } => return Err(error::of_exception(&name, &body)),
            }
        }
        Ok(())
    }

    fn event(&mut self, name: &str, body: &Value, out: &mut Events) -> Result<(), Failure> {
        match name {
            "contentBlockStart" if !self.has_finished => self.block_start(body, out)?,
            "contentBlockDelta" if !self.has_finished => self.block_delta(body, out),
            "contentBlockStop" if !self.has_finished => {
                let call = body["contentBlockIndex"]
                    .as_u64()
                    .and_then(|index| self.open_calls.remove(&index));
                if let Some(call) = call {
                    close_call(&call, out);
                }
            }
            "messageStop" if !self.has_finished => {
                let reason = finish_reason(body["stopReason"].as_str().unwrap_or_default())?;
                for call in std::mem::take(&mut self.open_calls).into_values() {
                    close_call(&call, out);
                }
                self.has_finished = true;
                out.push(Ok(AnswerEvent::Finish { choice: 0, reason }));
            }
            "metadata" => {
                if body["usage"].is_object() {
                    let reported = usage::decode(&body["usage"]);
                    self.cache_reported |= body["usage"]["cacheReadInputTokens"].is_number();
                    self.usage = Some(self.usage.unwrap_or_default().max(reported));
                }
                // The counts come last of all.
                if self.has_finished {
                    self.end(out);
                }
            }
            // `messageStart`, and whatever is new.
            _ => {}
        }
        Ok(())
    }

    fn block_start(&mut self, body: &Value, out: &mut Events) -> Result<(), Failure> {
        let Some(start) = body["start"].get("toolUse") else {
            return Ok(());
        };
        // Tools that run at the provider are never asked for.
        if start["type"] == "server_tool_use" {
            return Ok(());
        }
        let (Some(block_index), Some(id), Some(name)) = (
            body["contentBlockIndex"].as_u64(),
            start["toolUseId"].as_str(),
            start["name"].as_str(),
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
        Ok(())
    }

    fn block_delta(&mut self, body: &Value, out: &mut Events) {
        let delta = &body["delta"];
        if let Some(text) = non_empty(&delta["text"]) {
            let logprobs = Vec::new();
            push(Delta::Text { text, logprobs }, out);
        }
        if let Some(text) = non_empty(&delta["reasoningContent"]["text"]) {
            push(Delta::Reasoning { text }, out);
        }
        if let Some(seal) = non_empty(&delta["reasoningContent"]["signature"]) {
            let signature = ReasoningSignature::new("bedrock", &seal);
            push(Delta::ReasoningSignature { signature }, out);
        }
        let call = body["contentBlockIndex"]
            .as_u64()
            .and_then(|index| self.open_calls.get_mut(&index));
        if let (Some(call), Some(fragment)) = (call, non_empty(&delta["toolUse"]["input"])) {
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

    fn end(&mut self, out: &mut Events) {
        self.has_ended = true;
        out.push(if self.has_finished {
            Ok(AnswerEvent::Done(AnswerEnd {
                usage: self.usage,
                cache_reported: self.cache_reported,
                ..AnswerEnd::default()
            }))
        } else {
            Err(Failure::cut_short())
        });
    }
}

impl AnswerDecoder for Decoder {
    fn push(&mut self, bytes: &[u8]) -> Events {
        let mut out = Vec::new();
        if self.has_ended {
            return out;
        }
        self.frames.extend(bytes);
        if let Err(failure) = self.read(&mut out) {
            self.has_ended = true;
            out.push(Err(failure));
        }
        out
    }

    fn finish(&mut self) -> Events {
        let mut out = Vec::new();
        if !self.has_ended {
            self.end(&mut out);
        }
        out
    }

    fn usage_so_far(&self) -> Option<BilledUsage> {
        self.usage
    }
}

fn push(delta: Delta, out: &mut Events) {
    out.push(Ok(AnswerEvent::Delta { choice: 0, delta }));
}

/// A call without arguments has no fragments; clients expect an object all the same.
fn close_call(call: &OpenCall, out: &mut Events) {
    if !call.has_fragments {
        push(
            Delta::ToolCallArguments {
                index: call.index,
                fragment: "{}".to_owned(),
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
fn finish_reason(word: &str) -> Result<FinishReason, Failure> {
    match word {
        "max_tokens" | "model_context_window_exceeded" => Ok(FinishReason::Length),
        "tool_use" => Ok(FinishReason::ToolCalls),
        "guardrail_intervened" | "content_filtered" => Ok(FinishReason::ContentFilter),
        "malformed_model_output" | "malformed_tool_use" => Err(Failure::new(
            FailureKind::ServerError,
            "the model's output was malformed",
        )),
        _ => Ok(FinishReason::Stop),
    }
}
