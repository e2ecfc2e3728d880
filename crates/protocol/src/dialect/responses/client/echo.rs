//! What a response object repeats of its request.

use serde_json::{Map, Number, Value};

use super::Surface;

/// The fields that Ark's clients know. Some of them take a field that is there and null for a bad value.
const ARK_FIELDS: &[&str] = &[
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "caching",
    "expire_at",
    "thinking",
];
/// The fields that only they know.
const ARK_OWN_FIELDS: &[&str] = &["caching", "expire_at", "thinking"];

/// A request's fields in the form that its response object repeats them in.
#[derive(Debug, Clone, PartialEq)]
pub struct Echo {
    pub(super) surface: Surface,
    pub(super) fields: Map<String, Value>,
}

impl Echo {
    pub(super) fn new(surface: Surface) -> Self {
        Echo {
            surface,
            fields: Map::new(),
        }
    }

    /// Sets the time at which the response is no longer kept, unix seconds: where the request left it to the server.
    pub fn set_expires_at(&mut self, seconds: i64) {
        self.set("expire_at", seconds);
    }

    /// Sets a field, if clients of the surface know it. An unset one is null for OpenAI's and left out for Ark's.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        let is_told = match self.surface {
            Surface::OpenAi => !ARK_OWN_FIELDS.contains(&name),
            Surface::Ark => ARK_FIELDS.contains(&name) && !value.is_null(),
        };
        if is_told {
            self.fields.insert(name.to_owned(), value);
        }
    }
}

/// The number as the client wrote it, as far as 32 bits tell.
pub(super) fn number(value: Option<f32>) -> Value {
    let shortest = value.and_then(|value| value.to_string().parse().ok());
    shortest.and_then(Number::from_f64).into()
}
