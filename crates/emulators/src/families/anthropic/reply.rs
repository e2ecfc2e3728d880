//! Answers: one message, or the events of a stream.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::cache::{Settled, TTL_LONG_SECONDS, TTL_SHORT_SECONDS};
use super::generated::{Ending, Generated, Part, halves, signature};
use crate::faults::UsageFault;
use crate::reply::sse_event;

/// What is told about a request beside its answer.
#[derive(Debug, Clone)]
pub(super) struct Told<'a> {
    pub(super) id: &'a str,
    pub(super) model: &'a str,
    pub(super) settled: &'a Settled,
    /// Whether the usage divides writes by lifetime.
    pub(super) divides_writes: bool,
    pub(super) usage_fault: Option<UsageFault>,
    /// The `diagnostics` object, for a request that asked.
    pub(super) diagnostics: Option<Value>,
}

impl Told<'_> {
    fn usage(&self, output_tokens: u64) -> Value {
        let written = self.settled.written();
        let of = |ttl: u64| self.settled.write.get(&ttl).copied().unwrap_or_default();
        let mut usage = json!({
            "input_tokens": self.settled.uncached,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": self.settled.read,
            "output_tokens": output_tokens,
            "service_tier": "standard",
        });
        if self.divides_writes {
            // Parts that are more than their sum: the only contradiction that counts which exclude each other can hold.
            let excess = if self.usage_fault == Some(UsageFault::Impossible) {
                1_000_000
            } else {
                0
            };
            usage["cache_creation"] = json!({
                "ephemeral_5m_input_tokens": of(TTL_SHORT_SECONDS) + excess,
                "ephemeral_1h_input_tokens": of(TTL_LONG_SECONDS),
            });
        } else if self.usage_fault == Some(UsageFault::Impossible) {
            usage["input_tokens"] = json!(-1);
        }
        usage
    }

    fn message(&self, content: Vec<Value>, generated: Option<&Generated>) -> Value {
        let mut message = json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": generated.map(|generated| stop_reason(&generated.ending)),
            "stop_sequence": generated.and_then(|generated| stop_sequence(&generated.ending)),
        });
        if self.usage_fault != Some(UsageFault::Missing) {
            // A stream begins with one token, whatever will come.
            message["usage"] = self.usage(generated.map_or(1, |generated| generated.output_tokens));
        }
        if let Some(diagnostics) = &self.diagnostics {
            message["diagnostics"] = diagnostics.clone();
        }
        message
    }

    /// The message at once.
    pub(super) fn whole(&self, generated: &Generated) -> Value {
        let content = generated
            .parts
            .iter()
            .map(|part| match part {
                Part::Thinking(text) => {
                    json!({"type": "thinking", "thinking": text, "signature": signature(text)})
                }
                Part::Text(pieces) => json!({"type": "text", "text": pieces.concat()}),
                Part::Call {
                    id,
                    name,
                    arguments,
                } => {
                    let input: Value =
                        serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
                    json!({"type": "tool_use", "id": id, "name": name, "input": input})
                }
            })
            .collect();
        self.message(content, Some(generated))
    }

    /// The message as events.
    pub(super) fn events(&self, generated: &Generated) -> Vec<Bytes> {
        let mut events = vec![event(
            "message_start",
            json!({"message": self.message(Vec::new(), None)}),
        )];
        let mut has_pinged = false;
        for (index, part) in generated.parts.iter().enumerate() {
            let (start, deltas) = block_events(part);
            events.push(event(
                "content_block_start",
                json!({"index": index, "content_block": start}),
            ));
            if !has_pinged {
                events.push(event("ping", json!({})));
                has_pinged = true;
            }
            for delta in deltas {
                events.push(event(
                    "content_block_delta",
                    json!({"index": index, "delta": delta}),
                ));
            }
            events.push(event("content_block_stop", json!({"index": index})));
            if self.usage_fault == Some(UsageFault::Repeated) {
                let delta = json!({"stop_reason": null, "stop_sequence": null});
                events.push(event(
                    "message_delta",
                    json!({"delta": delta, "usage": self.usage(generated.output_tokens)}),
                ));
            }
        }
        let mut last = json!({"delta": {
            "stop_reason": stop_reason(&generated.ending),
            "stop_sequence": stop_sequence(&generated.ending),
            "stop_details": null,
        }});
        if self.usage_fault != Some(UsageFault::Missing) {
            // The counts of the beginning once more, which whoever adds them up counts twice.
            let mut usage = self.usage(generated.output_tokens);
            if self.usage_fault != Some(UsageFault::Repeated) {
                let fields = usage.as_object_mut().unwrap();
                fields.shift_remove("cache_creation");
                fields.shift_remove("service_tier");
            }
            last["usage"] = usage;
        }
        events.push(event("message_delta", last));
        events.push(event("message_stop", json!({})));
        events
    }
}

fn stop_reason(ending: &Ending) -> &'static str {
    match ending {
        Ending::Complete => "end_turn",
        Ending::Calls => "tool_use",
        Ending::Cut => "max_tokens",
        Ending::Filtered => "refusal",
        Ending::Stopped(_) => "stop_sequence",
    }
}

fn stop_sequence(ending: &Ending) -> Option<&str> {
    match ending {
        Ending::Stopped(sequence) => Some(sequence),
        _ => None,
    }
}

fn event(name: &str, rest: Value) -> Bytes {
    let mut data = Map::from_iter([("type".to_owned(), Value::from(name))]);
    data.extend(rest.as_object().unwrap().clone());
    sse_event(name, &Value::Object(data))
}

fn block_events(part: &Part) -> (Value, Vec<Value>) {
    match part {
        Part::Thinking(text) => {
            let (first, second) = halves(text);
            let mut deltas: Vec<Value> = [first, second]
                .iter()
                .filter(|piece| !piece.is_empty())
                .map(|piece| json!({"type": "thinking_delta", "thinking": piece}))
                .collect();
            deltas.push(json!({"type": "signature_delta", "signature": signature(text)}));
            (
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                deltas,
            )
        }
        Part::Text(pieces) => (
            json!({"type": "text", "text": ""}),
            pieces
                .iter()
                .map(|piece| json!({"type": "text_delta", "text": piece}))
                .collect(),
        ),
        Part::Call {
            id,
            name,
            arguments,
        } => {
            // The service streams no JSON at all for a call without arguments: what is joined is empty, not `{}`.
            let pieces = if arguments == "{}" {
                vec![""]
            } else {
                let (first, second) = halves(arguments);
                vec![first, second]
            };
            let deltas = pieces
                .iter()
                .map(|piece| json!({"type": "input_json_delta", "partial_json": piece}))
                .collect();
            (
                json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
                deltas,
            )
        }
    }
}
