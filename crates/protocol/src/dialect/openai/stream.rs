//! Streamed answers to clients.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::encode_response;
use super::error::error_body;
use super::response::{finish_word, logprobs_body, usage_body};
use super::to_json;
use super::wire::{
    ChatCompletionChunk, ChunkChoice, ChunkDelta, ContextCacheBody, FunctionCallDelta,
    ToolCallDelta,
};
use crate::chat::{ChatEvent, ChatHead, ChatResponse, Delta, FinishReason};
use crate::dialect::{AnswerWriter, receipt};
use crate::error::ApiError;
use crate::sse;
use crate::usage::{Receipt, Usage};

/// Writes one answer as chat completion or as chunks.
#[derive(Debug)]
pub struct Writer {
    include_usage: bool,
    stream: Option<StreamEncoder>,
}

impl Writer {
    /// With `include_usage` a stream's counts come in an extra last chunk.
    pub fn new(include_usage: bool) -> Self {
        Writer {
            include_usage,
            stream: None,
        }
    }
}

impl AnswerWriter for Writer {
    fn whole(&mut self, response: &ChatResponse) -> Bytes {
        encode_response(response)
    }

    fn begin(&mut self, head: &ChatHead, _usage: &Usage) -> Bytes {
        self.stream = Some(StreamEncoder::new(head.clone(), self.include_usage));
        Bytes::new()
    }

    fn event(&mut self, event: &ChatEvent) -> Bytes {
        self.stream
            .as_mut()
            .map_or_else(Bytes::new, |stream| stream.event(event))
    }

    fn keep_alive(&mut self) -> Bytes {
        sse::Encoder::comment("still here")
    }

    fn error(&mut self, error: &ApiError) -> Bytes {
        self.stream = None;
        sse::Encoder::data(&to_json(&error_body(error)))
    }

    fn end(&mut self) -> Bytes {
        self.stream = None;
        sse::Encoder::data(b"[DONE]")
    }
}

/// Writes the events of one answer as server-sent events.
///
/// A `Finish` is held back until the next event. So the last one leaves together with `Done`: a session turn can be
/// committed between the two, before the client sees the end, and the receipt has a chunk to travel on.
#[derive(Debug)]
pub struct StreamEncoder {
    /// Written again and again with other choices.
    chunk: ChatCompletionChunk,
    include_usage: bool,
    started: BTreeSet<u32>,
    held_finish: Option<(u32, FinishReason)>,
}

impl StreamEncoder {
    /// An encoder for one answer. With `include_usage` the counts come in an extra last chunk.
    pub fn new(head: ChatHead, include_usage: bool) -> Self {
        StreamEncoder {
            chunk: ChatCompletionChunk {
                id: head.id,
                object: "chat.completion.chunk",
                created: head.created,
                model: head.model,
                choices: Vec::new(),
                usage: include_usage.then_some(None),
                context_cache: None,
            },
            include_usage,
            started: BTreeSet::new(),
            held_finish: None,
        }
    }

    /// The bytes to send for `event`: whole server-sent events, or none yet.
    pub fn event(&mut self, event: &ChatEvent) -> Bytes {
        let mut out = self.held_event(event);
        match event {
            ChatEvent::Wire(_)
            | ChatEvent::Delta {
                delta: Delta::ReasoningSignature { .. } | Delta::StopSequence { .. },
                ..
            } => {}
            ChatEvent::Delta { choice, delta } => {
                let logprobs = match delta {
                    Delta::Text { logprobs, .. } if !logprobs.is_empty() => {
                        Some(logprobs_body(logprobs))
                    }
                    _ => None,
                };
                let choice = ChunkChoice {
                    index: *choice,
                    delta: delta_body(delta, self.role(*choice)),
                    logprobs,
                    finish_reason: None,
                };
                out.extend_from_slice(&self.choice_chunk(choice, None));
            }
            ChatEvent::Finish { choice, reason } => self.held_finish = Some((*choice, *reason)),
            ChatEvent::Done { usage, receipt } => {
                if self.include_usage {
                    out.extend_from_slice(&self.usage_chunk(usage, receipt.as_ref()));
                }
            }
        }
        out.into()
    }

    /// The end of the stream.
    pub fn end(&mut self) -> Bytes {
        sse::Encoder::data(b"[DONE]")
    }

    /// A failure after the stream has begun. The stream ends with it; a `Finish` held back is not sent.
    pub fn error(&mut self, error: &ApiError) -> Bytes {
        self.held_finish = None;
        sse::Encoder::data(&to_json(&error_body(error)))
    }

    fn held_event(&mut self, next: &ChatEvent) -> Vec<u8> {
        let Some((index, reason)) = self.held_finish.take() else {
            return Vec::new();
        };
        let receipt = match next {
            ChatEvent::Done {
                receipt: Some(receipt),
                ..
            } if !self.include_usage => Some(receipt::context_cache(receipt)),
            _ => None,
        };
        let role = self.role(index);
        let choice = ChunkChoice {
            index,
            delta: ChunkDelta {
                role,
                // A choice that ends before it began is an empty text.
                content: role.map(|_| String::new()),
                ..ChunkDelta::default()
            },
            logprobs: None,
            finish_reason: Some(finish_word(reason)),
        };
        self.choice_chunk(choice, receipt).into()
    }

    /// `assistant` for the choice's first chunk.
    fn role(&mut self, choice: u32) -> Option<&'static str> {
        self.started.insert(choice).then_some("assistant")
    }

    fn choice_chunk(&mut self, choice: ChunkChoice, receipt: Option<ContextCacheBody>) -> Bytes {
        self.chunk.choices = vec![choice];
        self.chunk.context_cache = receipt;
        sse::Encoder::data(&to_json(&self.chunk))
    }

    fn usage_chunk(&mut self, usage: &Usage, receipt: Option<&Receipt>) -> Bytes {
        self.chunk.choices.clear();
        self.chunk.usage = Some(Some(usage_body(usage)));
        self.chunk.context_cache = receipt.map(receipt::context_cache);
        sse::Encoder::data(&to_json(&self.chunk))
    }
}

fn delta_body(delta: &Delta, role: Option<&'static str>) -> ChunkDelta {
    let mut body = ChunkDelta {
        role,
        ..ChunkDelta::default()
    };
    match delta {
        Delta::Text { text, .. } => body.content = Some(text.clone()),
        Delta::Reasoning { text } => body.reasoning_content = Some(text.clone()),
        Delta::Refusal { text } => body.refusal = Some(text.clone()),
        // Nothing in this dialect has a place for them.
        Delta::ReasoningSignature { .. } | Delta::StopSequence { .. } => {}
        Delta::ToolCallStart { index, id, name } => body.tool_calls.push(ToolCallDelta {
            index: *index,
            id: Some(id.clone()),
            kind: Some("function"),
            function: FunctionCallDelta {
                name: Some(name.clone()),
                arguments: String::new(),
            },
        }),
        Delta::ToolCallArguments { index, fragment } => body.tool_calls.push(ToolCallDelta {
            index: *index,
            id: None,
            kind: None,
            function: FunctionCallDelta {
                name: None,
                arguments: fragment.clone(),
            },
        }),
    }
    body
}
