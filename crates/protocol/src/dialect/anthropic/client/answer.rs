//! Answers, whole and as streams.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::error;
use crate::chat::{ChatEvent, ChatHead, ChatResponse, Delta, FinishReason, ReasoningSignature};
use crate::dialect::AnswerWriter;
use crate::error::ApiError;
use crate::sse;
use crate::usage::Usage;

/// Writes one answer as a message, or as the events of one. There is one choice in this dialect.
#[derive(Debug)]
pub struct Writer {
    writes_for_hour: bool,
    stream: Stream,
}

#[derive(Debug, Default)]
struct Stream {
    /// The block that is open, and how many there were before it.
    open: Option<Open>,
    blocks: u32,
    has_pinged: bool,
    stop_sequence: Option<String>,
    finish: Option<FinishReason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Thinking,
    Text,
    /// By the call's number.
    Tool(u32),
}

impl Writer {
    /// With `writes_for_hour`, what a cache was written is counted as written for an hour, else for five minutes.
    pub fn new(writes_for_hour: bool) -> Self {
        Writer {
            writes_for_hour,
            stream: Stream::default(),
        }
    }

    /// Counts by Anthropic's convention: cached tokens are not among the input tokens.
    pub(super) fn usage(&self, usage: &Usage) -> Value {
        let read = usage.cached_input_tokens.min(usage.input_tokens);
        // In a session an answer is written, too, and is no part of the prompt.
        let written = usage.cache_write_tokens.min(usage.input_tokens - read);
        let (m5, h1) = match self.writes_for_hour {
            true => (0, written),
            false => (written, 0),
        };
        json!({
            "input_tokens": usage.input_tokens - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": m5, "ephemeral_1h_input_tokens": h1},
            "output_tokens": usage.output_tokens,
            "service_tier": "standard",
        })
    }
}

/// What `count_tokens` answers.
pub fn encode_count(input_tokens: u64) -> Bytes {
    Bytes::from(json!({"input_tokens": input_tokens}).to_string())
}

impl AnswerWriter for Writer {
    fn whole(&mut self, response: &ChatResponse) -> Bytes {
        let mut content = Vec::new();
        let choice = response.choices.first();
        let mut stop = (Value::Null, Value::Null);
        if let Some(choice) = choice {
            let message = &choice.message;
            if message.reasoning.is_some() || message.reasoning_signature.is_some() {
                content.push(json!({
                    "type": "thinking",
                    "thinking": message.reasoning.as_deref().unwrap_or_default(),
                    "signature": message.reasoning_signature.as_ref().map_or("", seal),
                }));
            }
            let text = message.joined_text();
            for text in [
                text.as_str(),
                message.refusal.as_deref().unwrap_or_default(),
            ] {
                if !text.is_empty() {
                    content.push(json!({"type": "text", "text": text}));
                }
            }
            for call in &message.tool_calls {
                content.push(json!({
                    "type": "tool_use",
                    "id": call.id,
                    "name": call.name,
                    "input": input(&call.arguments),
                }));
            }
            stop = stop_fields(choice.finish_reason, choice.stop_sequence.as_deref());
        }
        let (stop_reason, stop_sequence) = stop;
        let message = json!({
            "id": message_id(&response.id),
            "type": "message",
            "role": "assistant",
            "model": response.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": stop_sequence,
            "stop_details": null,
            "usage": self.usage(&response.usage),
        });
        Bytes::from(message.to_string())
    }

    fn begin(&mut self, head: &ChatHead, usage: &Usage) -> Bytes {
        let message = json!({
            "id": message_id(&head.id),
            "type": "message",
            "role": "assistant",
            "model": head.model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": self.usage(usage),
        });
        event("message_start", json!({"message": message}))
    }

    fn event(&mut self, event: &ChatEvent) -> Bytes {
        let mut out = BytesMut::new();
        match event {
            ChatEvent::Delta { choice: 0, delta } => self.stream.delta(delta, &mut out),
            ChatEvent::Finish { choice: 0, reason } => self.stream.finish = Some(*reason),
            ChatEvent::Done { usage, .. } => {
                self.stream.close(&mut out);
                let reason = self.stream.finish.unwrap_or(FinishReason::Stop);
                let (stop_reason, stop_sequence) =
                    stop_fields(reason, self.stream.stop_sequence.as_deref());
                out.extend_from_slice(&self::event(
                    "message_delta",
                    json!({
                        "delta": {
                            "stop_reason": stop_reason,
                            "stop_sequence": stop_sequence,
                            "stop_details": null,
                        },
                        "usage": self.usage(usage),
                    }),
                ));
            }
            ChatEvent::Delta { .. } | ChatEvent::Finish { .. } | ChatEvent::Wire(_) => {}
        }
        out.freeze()
    }

    fn keep_alive(&mut self) -> Bytes {
        event("ping", json!({}))
    }

    fn error(&mut self, error: &ApiError) -> Bytes {
        sse::Encoder::encode(&sse::Event {
            event: Some("error".to_owned()),
            data: error::body(error).to_string(),
            ..sse::Event::default()
        })
    }

    fn end(&mut self) -> Bytes {
        event("message_stop", json!({}))
    }
}

impl Stream {
    fn delta(&mut self, delta: &Delta, out: &mut BytesMut) {
        match delta {
            // The text of these tokens is still held back.
            Delta::Text { text, .. } if text.is_empty() => {}
            Delta::Text { text, .. } | Delta::Refusal { text } => {
                self.open(Open::Text, || json!({"type": "text", "text": ""}), out);
                self.block_delta(json!({"type": "text_delta", "text": text}), out);
            }
            Delta::Reasoning { text } => {
                self.open_thinking(out);
                self.block_delta(json!({"type": "thinking_delta", "thinking": text}), out);
            }
            Delta::ReasoningSignature { signature } => {
                self.open_thinking(out);
                let signature = seal(signature);
                self.block_delta(
                    json!({"type": "signature_delta", "signature": signature}),
                    out,
                );
            }
            Delta::ToolCallStart { index, id, name } => {
                let block = || json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.open(Open::Tool(*index), block, out);
            }
            Delta::ToolCallArguments { index, fragment } => {
                // Blocks come one after the other here, as calls do at every provider.
                if self.open == Some(Open::Tool(*index)) && !fragment.is_empty() {
                    let delta = json!({"type": "input_json_delta", "partial_json": fragment});
                    self.block_delta(delta, out);
                }
            }
            Delta::StopSequence { text } => self.stop_sequence = Some(text.clone()),
        }
    }

    fn open_thinking(&mut self, out: &mut BytesMut) {
        let block = || json!({"type": "thinking", "thinking": "", "signature": ""});
        self.open(Open::Thinking, block, out);
    }

    fn open(&mut self, kind: Open, block: impl FnOnce() -> Value, out: &mut BytesMut) {
        if self.open == Some(kind) {
            return;
        }
        self.close(out);
        self.open = Some(kind);
        let start = json!({"index": self.blocks, "content_block": block()});
        out.extend_from_slice(&event("content_block_start", start));
        if !self.has_pinged {
            self.has_pinged = true;
            out.extend_from_slice(&event("ping", json!({})));
        }
    }

    fn block_delta(&self, delta: Value, out: &mut BytesMut) {
        let delta = json!({"index": self.blocks, "delta": delta});
        out.extend_from_slice(&event("content_block_delta", delta));
    }

    fn close(&mut self, out: &mut BytesMut) {
        if self.open.take().is_some() {
            let stop = json!({"index": self.blocks});
            out.extend_from_slice(&event("content_block_stop", stop));
            self.blocks += 1;
        }
    }
}

/// An event; `type` is first in its data, as at Anthropic.
fn event(name: &'static str, fields: Value) -> Bytes {
    let mut data = json!({"type": name});
    if let (Value::Object(data), Value::Object(fields)) = (&mut data, fields) {
        data.extend(fields);
    }
    sse::Encoder::encode(&sse::Event {
        event: Some(name.to_owned()),
        data: data.to_string(),
        ..sse::Event::default()
    })
}

/// A call's arguments as the object that the dialect wants; a length limit may have cut them.
fn input(arguments: &str) -> Value {
    match serde_json::from_str(arguments) {
        Ok(Value::Object(input)) => Value::Object(input),
        _ if arguments.trim().is_empty() => json!({}),
        _ => json!({"INVALID_JSON": arguments}),
    }
}

/// A seal for a client of this dialect: Anthropic's own as it came, others with their maker's name.
fn seal(signature: &ReasoningSignature) -> &str {
    signature.of("anthropic").unwrap_or(&signature.0)
}

fn stop_fields(reason: FinishReason, stop_sequence: Option<&str>) -> (Value, Value) {
    let word = match reason {
        FinishReason::Stop if stop_sequence.is_some() => "stop_sequence",
        FinishReason::Stop => "end_turn",
        FinishReason::Length => "max_tokens",
        FinishReason::ToolCalls => "tool_use",
        FinishReason::ContentFilter => "refusal",
    };
    (word.into(), stop_sequence.into())
}

fn message_id(id: &str) -> String {
    format!("msg_{}", id.strip_prefix("chatcmpl-").unwrap_or(id))
}
