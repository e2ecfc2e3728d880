//! How events are written.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::Surface;
use super::object::error_code;
use super::output::{Part, PartKind, logprobs_body};
use crate::error::ApiError;
use crate::sse;

/// Events written and not yet sent.
#[derive(Debug, Default)]
pub(super) struct Events {
    bytes: BytesMut,
    sequence_number: u64,
}

impl Events {
    /// An event; `type` and its number are first in its data, as at OpenAI.
    pub(super) fn push(&mut self, name: &'static str, fields: Value) {
        let mut data = json!({"type": name, "sequence_number": self.sequence_number});
        self.sequence_number += 1;
        if let (Value::Object(data), Value::Object(fields)) = (&mut data, fields) {
            data.extend(fields);
        }
        self.bytes.extend_from_slice(&encode(name, &data));
    }

    /// The end of the part `number` of the message at `place`.
    pub(super) fn part_ends(&mut self, place: Value, number: usize, part: &Part, surface: Surface) {
        let mut fields = place;
        fields["content_index"] = number.into();
        let mut done = fields.clone();
        let name = match part.kind {
            PartKind::Text => {
                done["text"] = part.text.as_str().into();
                if surface == Surface::OpenAi {
                    done["logprobs"] = logprobs_body(&part.logprobs, false);
                }
                "response.output_text.done"
            }
            PartKind::Refusal => {
                done["refusal"] = part.text.as_str().into();
                "response.refusal.done"
            }
        };
        self.push(name, done);
        fields["part"] = part.value(surface);
        self.push("response.content_part.done", fields);
    }

    /// What was written since the last time.
    pub(super) fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }
}

/// A failure before there is a response.
pub(super) fn failure(error: &ApiError) -> Bytes {
    let data = json!({
        "type": "error",
        "sequence_number": 0,
        "code": error_code(error.kind),
        "message": error.message,
        "param": error.param,
    });
    encode("error", &data)
}

fn encode(name: &str, data: &Value) -> Bytes {
    sse::Encoder::encode(&sse::Event {
        event: Some(name.to_owned()),
        data: data.to_string(),
        ..sse::Event::default()
    })
}

/// Where something in an item belongs.
pub(super) fn place(id: &str, index: usize) -> Value {
    json!({"item_id": id, "output_index": index})
}
