//! Fields that Ark knows. It decodes requests strictly: any other field is an error, at whatever depth.

use serde_json::Value;

use super::Checked;
use super::error::undecodable;

/// What may stand in a place.
pub(super) enum Shape {
    /// Anything: free JSON (a schema, a tool's arguments), or a scalar that is checked elsewhere.
    Any,
    /// An object with these fields; a value of another type passes, for it is checked elsewhere.
    Object(&'static [(&'static str, &'static Shape)]),
    /// A list of these; a value of another type passes.
    List(&'static Shape),
}

use Shape::{Any, List, Object};

const ANY: &Shape = &Any;

/// `POST /responses`.
pub(super) const RESPONSES: &Shape = &Object(&[
    ("model", ANY),
    ("input", &List(INPUT_ITEM)),
    ("instructions", ANY),
    ("previous_response_id", ANY),
    ("stream", ANY),
    ("store", ANY),
    ("caching", &Object(&[("type", ANY), ("prefix", ANY)])),
    ("expire_at", ANY),
    ("thinking", TYPE_ONLY),
    ("reasoning", &Object(&[("effort", ANY), ("summary", ANY)])),
    ("text", &Object(&[("format", TEXT_FORMAT)])),
    ("temperature", ANY),
    ("top_p", ANY),
    ("max_output_tokens", ANY),
    ("max_tool_calls", ANY),
    ("tools", &List(RESPONSES_TOOL)),
    ("tool_choice", ANY),
    ("parallel_tool_calls", ANY),
    ("include", ANY),
    ("service_tier", ANY),
    ("context_management", ANY),
]);

const TYPE_ONLY: &Shape = &Object(&[("type", ANY)]);

const TEXT_FORMAT: &Shape = &Object(&[
    ("type", ANY),
    ("name", ANY),
    ("description", ANY),
    ("schema", ANY),
    ("strict", ANY),
]);

/// The fields of all kinds of items together.
const INPUT_ITEM: &Shape = &Object(&[
    ("type", ANY),
    ("id", ANY),
    ("status", ANY),
    ("role", ANY),
    ("content", &List(INPUT_PART)),
    ("partial", ANY),
    ("call_id", ANY),
    ("name", ANY),
    ("arguments", ANY),
    ("output", ANY),
    ("summary", ANY),
]);

const INPUT_PART: &Shape = &Object(&[
    ("type", ANY),
    ("text", ANY),
    ("annotations", ANY),
    ("image_url", ANY),
    ("file_id", ANY),
    ("detail", ANY),
    ("image_pixel_limit", ANY),
    ("video_url", ANY),
    ("fps", ANY),
    ("audio_url", ANY),
    ("file_url", ANY),
    ("file_data", ANY),
    ("filename", ANY),
]);

const RESPONSES_TOOL: &Shape = &Object(&[
    ("type", ANY),
    ("name", ANY),
    ("description", ANY),
    ("parameters", ANY),
    ("strict", ANY),
    // Of built-in tools.
    ("limit", ANY),
    ("sources", ANY),
    ("max_keyword", ANY),
    ("user_location", ANY),
    ("knowledge_resource_id", ANY),
    ("server_label", ANY),
    ("server_url", ANY),
]);

/// `POST /chat/completions`.
pub(super) const CHAT: &Shape = &Object(&[
    ("model", ANY),
    ("messages", &List(MESSAGE)),
    ("thinking", TYPE_ONLY),
    ("reasoning_effort", ANY),
    ("stream", ANY),
    ("stream_options", STREAM_OPTIONS),
    ("max_tokens", ANY),
    ("max_completion_tokens", ANY),
    ("service_tier", ANY),
    ("stop", ANY),
    ("response_format", RESPONSE_FORMAT),
    ("frequency_penalty", ANY),
    ("presence_penalty", ANY),
    ("repetition_penalty", ANY),
    ("temperature", ANY),
    ("top_p", ANY),
    ("top_k", ANY),
    ("n", ANY),
    ("logprobs", ANY),
    ("top_logprobs", ANY),
    ("logit_bias", ANY),
    ("tools", &List(CHAT_TOOL)),
    ("tool_choice", ANY),
    ("parallel_tool_calls", ANY),
    ("function_call", ANY),
    ("user", ANY),
]);

/// `POST /context/chat/completions`.
pub(super) const CONTEXT_CHAT: &Shape = &Object(&[
    ("context_id", ANY),
    ("model", ANY),
    ("messages", &List(MESSAGE)),
    ("stream", ANY),
    ("stream_options", STREAM_OPTIONS),
    ("max_tokens", ANY),
    ("stop", ANY),
    ("response_format", RESPONSE_FORMAT),
    ("frequency_penalty", ANY),
    ("presence_penalty", ANY),
    ("temperature", ANY),
    ("top_p", ANY),
    ("logprobs", ANY),
    ("top_logprobs", ANY),
    ("logit_bias", ANY),
    ("user", ANY),
    // Known, so that they are refused for what they are.
    ("tools", ANY),
    ("tool_choice", ANY),
]);

/// `POST /context/create`.
pub(super) const CONTEXT_CREATE: &Shape = &Object(&[
    ("model", ANY),
    ("messages", &List(MESSAGE)),
    ("mode", ANY),
    ("ttl", ANY),
    (
        "truncation_strategy",
        &Object(&[
            ("type", ANY),
            ("last_history_tokens", ANY),
            ("rolling_tokens", ANY),
            ("max_window_tokens", ANY),
            ("rolling_window_tokens", ANY),
        ]),
    ),
]);

const STREAM_OPTIONS: &Shape = &Object(&[("include_usage", ANY), ("chunk_include_usage", ANY)]);

const RESPONSE_FORMAT: &Shape = &Object(&[
    ("type", ANY),
    ("schema", ANY),
    (
        "json_schema",
        &Object(&[
            ("name", ANY),
            ("description", ANY),
            ("schema", ANY),
            ("strict", ANY),
        ]),
    ),
]);

const MESSAGE: &Shape = &Object(&[
    ("role", ANY),
    ("content", &List(CHAT_PART)),
    ("reasoning_content", ANY),
    ("name", ANY),
    ("tool_calls", &List(TOOL_CALL)),
    ("tool_call_id", ANY),
    ("function_call", ANY),
]);

const CHAT_PART: &Shape = &Object(&[
    ("type", ANY),
    ("text", ANY),
    ("image_url", ANY),
    ("video_url", ANY),
    (
        "input_audio",
        &Object(&[("url", ANY), ("data", ANY), ("format", ANY)]),
    ),
]);

const TOOL_CALL: &Shape = &Object(&[
    ("id", ANY),
    ("type", ANY),
    ("index", ANY),
    ("function", &Object(&[("name", ANY), ("arguments", ANY)])),
]);

const CHAT_TOOL: &Shape = &Object(&[
    ("type", ANY),
    (
        "function",
        &Object(&[
            ("name", ANY),
            ("description", ANY),
            ("parameters", ANY),
            ("strict", ANY),
        ]),
    ),
]);

/// Refuses the first field that isn't known.
pub(super) fn check(value: &Value, shape: &Shape) -> Checked<()> {
    match unknown_field(value, shape) {
        Some(name) => undecodable(&format!("json: unknown field \"{name}\"")),
        None => Ok(()),
    }
}

fn unknown_field<'a>(value: &'a Value, shape: &Shape) -> Option<&'a str> {
    match (shape, value) {
        (Object(fields), Value::Object(object)) => object.iter().find_map(|(name, value)| {
            match fields.iter().find(|(known, _)| known == name) {
                Some((_, shape)) => unknown_field(value, shape),
                None => Some(name.as_str()),
            }
        }),
        (List(shape), Value::Array(values)) => {
            values.iter().find_map(|value| unknown_field(value, shape))
        }
        _ => None,
    }
}
