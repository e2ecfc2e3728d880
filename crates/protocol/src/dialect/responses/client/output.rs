//! Items of an answer, whole or growing.

use serde_json::{Value, json};

use super::Surface;
use super::echo::number;
use crate::chat::{Choice, FinishReason, ReasoningSignature, TokenLogprob};

/// The log probability that stands for "too small to tell"; JSON has no minus infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// An item and its id.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) id: String,
    pub(super) item: Item,
}

#[derive(Debug)]
pub(super) enum Item {
    Reasoning {
        text: String,
        seal: Option<String>,
    },
    Message {
        parts: Vec<Part>,
    },
    Call {
        call_id: String,
        name: String,
        arguments: String,
    },
}

/// A part of a message.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: PartKind,
    pub(super) text: String,
    pub(super) logprobs: Vec<TokenLogprob>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartKind {
    Text,
    Refusal,
}

impl PartKind {
    /// Words of refusal as a client of `surface` takes them.
    pub(super) fn refusal(surface: Surface) -> Self {
        match surface {
            Surface::OpenAi => PartKind::Refusal,
            Surface::Ark => PartKind::Text,
        }
    }
}

impl Part {
    pub(super) fn new(kind: PartKind) -> Self {
        Part {
            kind,
            text: String::new(),
            logprobs: Vec::new(),
        }
    }

    pub(super) fn value(&self, surface: Surface) -> Value {
        let Part {
            kind,
            text,
            logprobs,
        } = self;
        match (kind, surface) {
            (PartKind::Refusal, _) => json!({"type": "refusal", "refusal": text}),
            (PartKind::Text, Surface::Ark) => {
                json!({"type": "output_text", "text": text, "annotations": []})
            }
            (PartKind::Text, Surface::OpenAi) => json!({
                "type": "output_text",
                "annotations": [],
                "logprobs": logprobs_body(logprobs, true),
                "text": text,
            }),
        }
    }
}

impl Output {
    /// Makes the id of the `number`th item of its kind in the response `response_id`.
    pub(super) fn new(response_id: &str, number: usize, item: Item) -> Self {
        let rest = bare(response_id);
        let id = match (&item, number) {
            (Item::Reasoning { .. }, 0) => format!("rs_{rest}"),
            (Item::Reasoning { .. }, _) => format!("rs_{rest}_{number}"),
            (Item::Message { .. }, 0) => format!("msg_{rest}"),
            (Item::Message { .. }, _) => format!("msg_{rest}_{number}"),
            (Item::Call { .. }, _) => format!("fc_{rest}_{number}"),
        };
        Output { id, item }
    }

    pub(super) fn value(&self, status: &str, surface: Surface) -> Value {
        let id = &self.id;
        match &self.item {
            Item::Reasoning { text, seal } => {
                let summary: &[Value] = match text.is_empty() {
                    true => &[],
                    false => &[summary_part(text)],
                };
                let mut item = json!({"id": id, "type": "reasoning", "summary": summary});
                if let Some(seal) = seal {
                    item["encrypted_content"] = seal.as_str().into();
                }
                if surface == Surface::Ark {
                    item["status"] = status.into();
                }
                item
            }
            Item::Message { parts } => {
                let parts: Vec<Value> = parts.iter().map(|part| part.value(surface)).collect();
                json!({
                    "id": id,
                    "type": "message",
                    "status": status,
                    "content": parts,
                    "role": "assistant",
                })
            }
            Item::Call {
                call_id,
                name,
                arguments,
            } => json!({
                "id": id,
                "type": "function_call",
                "status": status,
                "arguments": arguments,
                "call_id": call_id,
                "name": name,
            }),
        }
    }
}

/// The items of a finished choice: its thinking, its message, its calls.
pub(super) fn of_choice(response_id: &str, choice: &Choice, surface: Surface) -> Vec<Output> {
    let message = &choice.message;
    let mut items = Vec::new();
    if message.reasoning.is_some() || message.reasoning_signature.is_some() {
        let item = Item::Reasoning {
            text: message.reasoning.clone().unwrap_or_default(),
            seal: message.reasoning_signature.as_ref().map(seal),
        };
        items.push(Output::new(response_id, 0, item));
    }
    let text = message.joined_text();
    let logprobs = choice.logprobs.clone().unwrap_or_default();
    let mut parts = Vec::new();
    if !text.is_empty() || !logprobs.is_empty() {
        parts.push(Part {
            kind: PartKind::Text,
            text,
            logprobs,
        });
    }
    if let Some(refusal) = &message.refusal {
        let kind = PartKind::refusal(surface);
        match parts.last_mut().filter(|part| part.kind == kind) {
            Some(part) => part.text.push_str(refusal),
            None => parts.push(Part {
                text: refusal.clone(),
                ..Part::new(kind)
            }),
        }
    }
    if parts.is_empty() && items.is_empty() && message.tool_calls.is_empty() {
        parts.push(Part::new(PartKind::Text));
    }
    if !parts.is_empty() {
        items.push(Output::new(response_id, 0, Item::Message { parts }));
    }
    for (number, call) in message.tool_calls.iter().enumerate() {
        let item = Item::Call {
            call_id: call.id.clone(),
            name: call.name.clone(),
            arguments: whole_arguments(&call.arguments).to_owned(),
        };
        items.push(Output::new(response_id, number, item));
    }
    items
}

/// Items as they are when the answer has ended; what was cut is the last of them.
pub(super) fn finished_values(
    items: &[Output],
    reason: FinishReason,
    surface: Surface,
) -> Vec<Value> {
    let last = items.len().saturating_sub(1);
    let items = items.iter().enumerate();
    items
        .map(|(index, output)| {
            let status = match index == last && is_cut(reason) {
                true => "incomplete",
                false => "completed",
            };
            output.value(status, surface)
        })
        .collect()
}

pub(super) fn is_cut(reason: FinishReason) -> bool {
    matches!(reason, FinishReason::Length | FinishReason::ContentFilter)
}

/// Clients parse the arguments of a call, and no text at all is no JSON.
pub(super) fn whole_arguments(arguments: &str) -> &str {
    match arguments.trim().is_empty() {
        true => "{}",
        false => arguments,
    }
}

pub(super) fn summary_part(text: &str) -> Value {
    json!({"type": "summary_text", "text": text})
}

/// A seal for a client of this dialect: OpenAI's own as it came, others with their maker's name.
pub(super) fn seal(signature: &ReasoningSignature) -> String {
    let own = signature.of("responses");
    own.unwrap_or(&signature.0).to_owned()
}

/// An id without the letters that say of what it is.
pub(super) fn bare(id: &str) -> &str {
    id.split_once('_').map_or(id, |(_, rest)| rest)
}

/// Log probabilities; those of events have no bytes.
pub(super) fn logprobs_body(logprobs: &[TokenLogprob], with_bytes: bool) -> Value {
    let body = |token: &str, bytes: &[u8], logprob: f32| {
        let logprob = number(Some(logprob.max(LOGPROB_MIN)));
        let mut body = json!({"token": token, "logprob": logprob});
        if with_bytes {
            body["bytes"] = bytes.into();
        }
        body
    };
    let tokens = logprobs.iter().map(|token| {
        let top = token.top.iter();
        let top: Vec<Value> = top
            .map(|(text, bytes, logprob)| body(text, bytes, *logprob))
            .collect();
        let mut token = body(&token.token, &token.bytes, token.logprob);
        token["top_logprobs"] = top.into();
        token
    });
    Value::Array(tokens.collect())
}
