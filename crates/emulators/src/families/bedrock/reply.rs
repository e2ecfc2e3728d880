//! Answers: one object, or the frames of a stream.

use bytes::Bytes;
use serde_json::{Value, json};

use super::frame::event;
use super::models::Caching;
use crate::families::anthropic::cache::{Settled, TTL_LONG_SECONDS, TTL_SHORT_SECONDS};
use crate::families::anthropic::generated::{Ending, Generated, Part, halves, signature};
use crate::faults::UsageFault;

/// What is told about a request beside its answer.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) settled: &'a Settled,
    pub(super) caching: Caching,
    pub(super) usage_fault: Option<UsageFault>,
}

impl Told<'_> {
    fn usage(&self, output_tokens: u64) -> Value {
        let (read, written) = (self.settled.read, self.settled.written());
        let total = self.settled.total() + output_tokens;
        let mut usage = json!({
            "inputTokens": self.settled.uncached,
            "outputTokens": output_tokens,
            "totalTokens": total,
        });
        if self.caching != Caching::None {
            let is_impossible = self.usage_fault == Some(UsageFault::Impossible);
            usage["cacheReadInputTokens"] = json!(if is_impossible { total + 1_000 } else { read });
            usage["cacheWriteInputTokens"] = json!(written);
        }
        if matches!(self.caching, Caching::Claude { .. }) {
            let details: Vec<Value> = [("1h", TTL_LONG_SECONDS), ("5m", TTL_SHORT_SECONDS)]
                .into_iter()
                .filter_map(|(ttl, seconds)| {
                    self.settled
                        .write
                        .get(&seconds)
                        .map(|tokens| json!({"ttl": ttl, "inputTokens": tokens}))
                })
                .collect();
            usage["cacheDetails"] = json!(details);
        }
        usage
    }

    /// The answer at once.
    pub(super) fn whole(&self, generated: &Generated) -> Value {
        let content: Vec<Value> = generated
            .parts
            .iter()
            .map(|part| match part {
                Part::Thinking(text) => {
                    json!({"reasoningContent": {"reasoningText": {"text": text, "signature": signature(text)}}})
                }
                Part::Text(pieces) => json!({"text": pieces.concat()}),
                Part::Call { id, name, arguments } => {
                    let input: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
                    json!({"toolUse": {"toolUseId": id, "name": name, "input": input}})
                }
            })
            .collect();
        let mut answer = json!({
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": stop_reason(&generated.ending),
            "metrics": {"latencyMs": 420},
        });
        if self.usage_fault != Some(UsageFault::Missing) {
            answer["usage"] = self.usage(generated.output_tokens);
        }
        answer
    }

    /// The answer as frames.
    pub(super) fn frames(&self, generated: &Generated) -> Vec<Bytes> {
        let mut frames = vec![padded("messageStart", json!({"role": "assistant"}))];
        for (index, part) in generated.parts.iter().enumerate() {
            // Only a call announces its block: text and reasoning begin with their first delta.
            if let Part::Call { id, name, .. } = part {
                let start = json!({"toolUse": {"toolUseId": id, "name": name}});
                frames.push(padded(
                    "contentBlockStart",
                    json!({"start": start, "contentBlockIndex": index}),
                ));
            }
            for delta in deltas(part) {
                frames.push(padded(
                    "contentBlockDelta",
                    json!({"delta": delta, "contentBlockIndex": index}),
                ));
            }
            frames.push(padded(
                "contentBlockStop",
                json!({"contentBlockIndex": index}),
            ));
        }
        frames.push(padded(
            "messageStop",
            json!({"stopReason": stop_reason(&generated.ending)}),
        ));
        let times = match self.usage_fault {
            Some(UsageFault::Missing) => 0,
            Some(UsageFault::Repeated) => 2,
            _ => 1,
        };
        let metadata =
            json!({"usage": self.usage(generated.output_tokens), "metrics": {"latencyMs": 420}});
        frames.extend((0..times).map(|_| padded("metadata", metadata.clone())));
        frames
    }
}

fn deltas(part: &Part) -> Vec<Value> {
    match part {
        Part::Thinking(text) => {
            let (first, second) = halves(text);
            let mut deltas: Vec<Value> = [first, second]
                .iter()
                .filter(|piece| !piece.is_empty())
                .map(|piece| json!({"reasoningContent": {"text": piece}}))
                .collect();
            deltas.push(json!({"reasoningContent": {"signature": signature(text)}}));
            deltas
        }
        Part::Text(pieces) => pieces.iter().map(|piece| json!({"text": piece})).collect(),
        Part::Call { arguments, .. } => {
            let (first, second) = halves(arguments);
            [first, second]
                .map(|piece| json!({"toolUse": {"input": piece}}))
                .to_vec()
        }
    }
}

/// With the padding `p` by which the service hides the lengths of what it sends.
fn padded(kind: &str, mut payload: Value) -> Bytes {
    let letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    payload["p"] = json!(letters[..1 + payload.to_string().len() % letters.len()]);
    event(kind, &payload)
}

fn stop_reason(ending: &Ending) -> &'static str {
    match ending {
        Ending::Complete => "end_turn",
        Ending::Calls => "tool_use",
        Ending::Cut => "max_tokens",
        Ending::Filtered => "content_filtered",
        Ending::Stopped(_) => "stop_sequence",
    }
}
