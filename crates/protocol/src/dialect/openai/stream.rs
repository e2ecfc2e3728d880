//! Streamed answers: to clients, and from upstreams of this dialect.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

use super::error::error_body;
use super::response::{
    context_cache_body, decode_finish_reason, decode_logprobs, decode_usage, finish_word,
    logprobs_body, malformed_answer, upstream_object, usage_body,
};
use super::to_json;
use super::wire::{
    ChatCompletionChunk, ChunkChoice, ChunkDelta, ContextCacheBody, FunctionCallDelta,
    ToolCallDelta,
};
use crate::chat::{ChatEvent, ChatHead, Delta, FinishReason};
use crate::dialect::fields::Fields;
use crate::error::{ApiError, ErrorKind};
use crate::sse;
use crate::usage::{Receipt, Usage};

/// The largest event an upstream may send, bytes.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most tool calls a chunk may carry.
const TOOL_CALLS_MAX: usize = 512;

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
            } if !self.include_usage => Some(context_cache_body(receipt)),
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
        self.chunk.context_cache = receipt.map(context_cache_body);
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

/// Reads an upstream's server-sent events, which may arrive cut anywhere.
#[derive(Debug)]
pub struct StreamDecoder {
    events: sse::Decoder,
    /// Choices seen, and whether each has finished.
    choices: BTreeMap<u32, bool>,
    tool_calls: BTreeSet<(u32, u32)>,
    usage: Option<Usage>,
    ended: bool,
}

impl Default for StreamDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamDecoder {
    /// A decoder for one answer.
    pub fn new() -> Self {
        StreamDecoder {
            events: sse::Decoder::new(EVENT_BYTES_MAX),
            choices: BTreeMap::new(),
            tool_calls: BTreeSet::new(),
            usage: None,
            ended: false,
        }
    }

    /// The events that `bytes` complete. An error is the last thing the stream gives.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Result<ChatEvent, ApiError>> {
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
            Err(_) => self.fail(malformed_answer(), &mut out),
        }
        out
    }

    /// What remains when the upstream's bytes have ended: an answer whose choices have all finished is whole even
    /// without `[DONE]`; any other was cut short.
    pub fn finish(&mut self) -> Vec<Result<ChatEvent, ApiError>> {
        let mut out = Vec::new();
        if let Some(event) = self.events.finish() {
            self.read(&event, &mut out);
        }
        if !self.ended {
            self.done(&mut out);
        }
        out
    }

    /// Whether the upstream gave token counts; without, those of `Done` are zero.
    pub fn usage_reported(&self) -> bool {
        self.usage.is_some()
    }

    fn read(&mut self, event: &sse::Event, out: &mut Vec<Result<ChatEvent, ApiError>>) {
        if self.ended {
            return;
        }
        if event.data.trim() == "[DONE]" {
            return self.done(out);
        }
        let read =
            Fields::of_body(event.data.as_bytes()).and_then(|fields| self.chunk(fields, out));
        match read {
            Ok(None) => {}
            Ok(Some(error)) => self.fail(error, out),
            Err(_) => self.fail(malformed_answer(), out),
        }
    }

    fn fail(&mut self, error: ApiError, out: &mut Vec<Result<ChatEvent, ApiError>>) {
        self.ended = true;
        out.push(Err(error));
    }

    fn done(&mut self, out: &mut Vec<Result<ChatEvent, ApiError>>) {
        if self.choices.is_empty() || self.choices.values().any(|finished| !finished) {
            let cut_short = ApiError::new(
                ErrorKind::Internal,
                "The upstream ended the answer before it was finished.",
            );
            return self.fail(cut_short, out);
        }
        self.ended = true;
        out.push(Ok(ChatEvent::Done {
            usage: self.usage.unwrap_or_default(),
            receipt: None,
        }));
    }

    /// Reads one chunk; `Some` is the failure it reports.
    fn chunk(
        &mut self,
        mut fields: Fields,
        out: &mut Vec<Result<ChatEvent, ApiError>>,
    ) -> Result<Option<ApiError>, ApiError> {
        if fields.value("error").is_some() {
            // The upstream's own words may hold what a client must not see.
            return Ok(Some(ApiError::new(
                ErrorKind::Internal,
                "The upstream ended the answer with an error. The log has the details under this request's id.",
            )));
        }
        if let Some(usage) = decode_usage(&mut fields)? {
            self.usage = Some(usage);
        }
        for choice in fields.array("choices", usize::MAX)?.unwrap_or_default() {
            self.choice(upstream_object(choice)?, out)?;
        }
        Ok(None)
    }

    fn choice(
        &mut self,
        mut fields: Fields,
        out: &mut Vec<Result<ChatEvent, ApiError>>,
    ) -> Result<(), ApiError> {
        let choice = fields.count("index", 0)?.unwrap_or(0);
        if *self.choices.entry(choice).or_insert(false) {
            return Ok(());
        }
        let mut deltas = Vec::new();
        let logprobs = decode_logprobs(&mut fields)?.unwrap_or_default();
        let mut text = String::new();
        let mut tool_calls = Vec::new();
        if let Some(mut delta) = fields.object("delta")? {
            if let Some(text) = delta.string("reasoning_content")? {
                deltas.push(Delta::Reasoning { text });
            }
            text = delta.string("content")?.unwrap_or_default();
            tool_calls = delta
                .array("tool_calls", TOOL_CALLS_MAX)?
                .unwrap_or_default();
        }
        if !text.is_empty() || !logprobs.is_empty() {
            deltas.push(Delta::Text { text, logprobs });
        }
        for call in tool_calls {
            self.tool_call(choice, call, &mut deltas)?;
        }
        out.extend(
            deltas
                .into_iter()
                .map(|delta| Ok(ChatEvent::Delta { choice, delta })),
        );
        if let Some(reason) = decode_finish_reason(&mut fields)? {
            self.choices.insert(choice, true);
            out.push(Ok(ChatEvent::Finish { choice, reason }));
        }
        Ok(())
    }

    fn tool_call(
        &mut self,
        choice: u32,
        call: Value,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), ApiError> {
        let mut call = upstream_object(call)?;
        let index = call.count("index", 0)?.unwrap_or(0);
        let id = call.string("id")?;
        let Some(mut function) = call.object("function")? else {
            return Ok(());
        };
        let name = function.string("name")?;
        if self.tool_calls.insert((choice, index)) {
            deltas.push(Delta::ToolCallStart {
                index,
                id: id.ok_or_else(malformed_answer)?,
                name: name.ok_or_else(malformed_answer)?,
            });
        }
        if let Some(fragment) = function.string("arguments")? {
            deltas.push(Delta::ToolCallArguments { index, fragment });
        }
        Ok(())
    }
}
