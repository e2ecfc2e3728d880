//! What OpenAI refuses, on the raw JSON.

use serde_json::Value;

use super::model::{self, Era};
use super::prompt::{BREAKPOINT, ttl_seconds};
use super::{Checked, Host, effort, media};
use crate::families::chat_wire;
use crate::{RawRequest, Reply};

/// Longest `prompt_cache_key` and `safety_identifier`, characters (facts 2.1).
const KEY_CHARS_MAX: usize = 64;
/// Smallest `max_output_tokens` of Responses.
const OUTPUT_TOKENS_MIN: u64 = 16;

const CHAT_FIELDS: &[&str] = &[
    "messages",
    "model",
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];
const RESPONSES_FIELDS: &[&str] = &[
    "background",
    "context_management",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];
const MESSAGE_FIELDS: &[&str] = &[
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "refusal",
    "audio",
    "function_call",
];
const ROLES: &[&str] = &[
    "system",
    "assistant",
    "user",
    "function",
    "tool",
    "developer",
];
/// The parts of a user's message.
const CHAT_PARTS: &[&str] = &["text", "image_url", "input_audio", "file"];
const ASSISTANT_PARTS: &[&str] = &["text", "refusal"];
/// The parts of all other messages.
const TEXT_PARTS: &[&str] = &["text"];

/// A 400.
pub(super) fn invalid(message: &str, param: Option<&str>, code: Option<&str>) -> Box<Reply> {
    Box::new(chat_wire::error(
        400,
        message,
        "invalid_request_error",
        param,
        code,
    ))
}

pub(super) fn unknown(param: &str) -> Box<Reply> {
    invalid(
        &format!("Unknown parameter: '{param}'."),
        Some(param),
        Some("unknown_parameter"),
    )
}

pub(super) fn unsupported(param: &str) -> Box<Reply> {
    let message = format!("Unsupported parameter: '{param}' is not supported with this model.");
    invalid(&message, Some(param), Some("unsupported_parameter"))
}

pub(super) fn bad_value(value: &Value, param: &str, supported: &[&str]) -> Box<Reply> {
    let shown = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    let supported: Vec<String> = supported.iter().map(|name| format!("'{name}'")).collect();
    let message = format!(
        "Invalid value: '{shown}'. Supported values are: {}.",
        supported.join(", ")
    );
    invalid(&message, Some(param), Some("invalid_value"))
}

pub(super) fn missing(param: &str) -> Box<Reply> {
    invalid(
        &format!("Missing required parameter: '{param}'."),
        Some(param),
        Some("missing_required_parameter"),
    )
}

pub(super) fn bad_type(param: &str, expected: &str) -> Box<Reply> {
    invalid(
        &format!("Invalid type for '{param}': expected {expected}."),
        Some(param),
        Some("invalid_type"),
    )
}

fn empty_array(param: &str) -> Box<Reply> {
    let message = format!(
        "Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    );
    invalid(&message, Some(param), Some("empty_array"))
}

fn below_minimum(param: &str, minimum: u64, value: &Value) -> Box<Reply> {
    let message = format!(
        "Invalid '{param}': integer below minimum value. Expected a value >= {minimum}, but got {value} instead."
    );
    invalid(&message, Some(param), Some("integer_below_min_value"))
}

/// The body as a JSON object.
pub(super) fn body(request: &RawRequest) -> Checked<Value> {
    request.json().filter(Value::is_object).ok_or_else(|| {
        let message = "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your \
                       HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid \
                       JSON.)";
        invalid(message, None, None)
    })
}

/// What Chat and Responses refuse alike. Returns the model's era.
pub(super) fn common(body: &Value, is_chat: bool, host: Host) -> Checked<Era> {
    let fields = if is_chat {
        CHAT_FIELDS
    } else {
        RESPONSES_FIELDS
    };
    for name in body.as_object().unwrap().keys() {
        if !fields.contains(&name.as_str()) {
            return Err(if is_chat {
                invalid(
                    &format!("Unrecognized request argument supplied: {name}"),
                    None,
                    None,
                )
            } else {
                unknown(name)
            });
        }
    }
    let Some(name) = body["model"].as_str().filter(|name| !name.is_empty()) else {
        return Err(invalid("you must provide a model parameter", None, None));
    };
    model::check(name)?;
    let era = model::era(name);
    for field in ["prompt_cache_key", "safety_identifier"] {
        match &body[field] {
            Value::Null => {}
            Value::String(text) if text.chars().count() <= KEY_CHARS_MAX => {}
            Value::String(text) => {
                let message = format!(
                    "Invalid '{field}': string too long. Expected a string with maximum length {KEY_CHARS_MAX}, but got \
                     a string with length {} instead.",
                    text.chars().count()
                );
                return Err(invalid(
                    &message,
                    Some(field),
                    Some("string_above_max_length"),
                ));
            }
            _ => return Err(bad_type(field, "a string")),
        }
    }
    for field in ["stream", "store", "parallel_tool_calls"] {
        if !body[field].is_null() && !body[field].is_boolean() {
            return Err(bad_type(field, "a boolean"));
        }
    }
    if !body["stream_options"].is_null() && body["stream"] != true {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(invalid(message, Some("stream_options"), None));
    }
    tools(body, is_chat)?;
    cache_options(body, is_chat, era, host)?;
    retention(body, name, era)?;
    Ok(era)
}

fn tools(body: &Value, is_chat: bool) -> Checked<()> {
    let tools = match &body["tools"] {
        Value::Null => {
            for field in ["tool_choice", "parallel_tool_calls"] {
                if is_chat && !body[field].is_null() {
                    let message = format!(
                        "Invalid value for '{field}': '{field}' is only allowed when 'tools' are specified."
                    );
                    return Err(invalid(&message, Some(field), None));
                }
            }
            return Ok(());
        }
        Value::Array(tools) => tools,
        _ => return Err(bad_type("tools", "an array of objects")),
    };
    if is_chat && tools.is_empty() {
        return Err(empty_array("tools"));
    }
    for (index, tool) in tools.iter().enumerate() {
        let at = format!("tools[{index}]");
        for marker in [BREAKPOINT, "cache_control"] {
            if tool.get(marker).is_some() {
                return Err(unknown(&format!("{at}.{marker}")));
            }
        }
        if tool["type"] != "function" {
            if !is_chat && tool["type"].is_string() {
                continue;
            }
            return Err(bad_value(
                &tool["type"],
                &format!("{at}.type"),
                &["function", "custom"],
            ));
        }
        let (function, at) = if is_chat {
            (&tool["function"], format!("{at}.function"))
        } else {
            (tool, at)
        };
        if !function.is_object() {
            return Err(missing(&at));
        }
        let at = format!("{at}.name");
        let Some(name) = function["name"].as_str() else {
            return Err(missing(&at));
        };
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
            let message = format!(
                "Invalid '{at}': string does not match pattern. Expected a string that matches the pattern \
                 '^[a-zA-Z0-9_-]+$'."
            );
            return Err(invalid(&message, Some(&at), Some("invalid_value")));
        }
    }
    Ok(())
}

fn cache_options(body: &Value, is_chat: bool, era: Era, host: Host) -> Checked<()> {
    let options = &body["prompt_cache_options"];
    if options.is_null() {
        return Ok(());
    }
    if era != Era::Breakpoints || host == Host::AzureProvisioned {
        return Err(unsupported("prompt_cache_options"));
    }
    let Some(fields) = options.as_object() else {
        return Err(bad_type("prompt_cache_options", "an object"));
    };
    for (name, value) in fields {
        let at = format!("prompt_cache_options.{name}");
        match name.as_str() {
            "mode" if value == "implicit" || value == "explicit" || value.is_null() => {}
            "mode" => return Err(bad_value(value, &at, &["implicit", "explicit"])),
            "ttl" if value.is_null() || value == "30m" => {}
            "ttl" if value == "12h" && !is_chat && host == Host::OpenAi => {}
            "ttl" if is_chat || host != Host::OpenAi => {
                return Err(bad_value(value, &at, &["30m"]));
            }
            "ttl" => return Err(bad_value(value, &at, &["30m", "12h"])),
            "prewarm" if !is_chat && (value.is_boolean() || value.is_null()) => {}
            "prewarm" if !is_chat => return Err(bad_type(&at, "a boolean")),
            "comparison_response_id" if !is_chat && (value.is_string() || value.is_null()) => {}
            "comparison_response_id" if !is_chat => return Err(bad_type(&at, "a string")),
            _ => return Err(unknown(&at)),
        }
    }
    Ok(())
}

fn retention(body: &Value, name: &str, era: Era) -> Checked<()> {
    let field = "prompt_cache_retention";
    let retention = &body[field];
    if retention.is_null() {
        return Ok(());
    }
    if retention != "24h" && retention != "in_memory" {
        return Err(bad_value(retention, field, &["in_memory", "24h"]));
    }
    // The documents disagree on this one (facts 2.1); refusing is the safer of the two to test against.
    if !body["prompt_cache_options"]["ttl"].is_null() {
        let message =
            "'prompt_cache_retention' cannot be used together with 'prompt_cache_options.ttl'.";
        return Err(invalid(message, Some(field), Some("invalid_value")));
    }
    let is_allowed = match era {
        Era::Breakpoints => retention == "24h",
        Era::Routed {
            has_day,
            has_memory,
            ..
        } => {
            if retention == "24h" {
                has_day
            } else {
                has_memory
            }
        }
    };
    if is_allowed {
        return Ok(());
    }
    let message = format!(
        "Invalid value for 'prompt_cache_retention': {retention} is not supported with model '{name}'."
    );
    Err(invalid(&message, Some(field), Some("unsupported_value")))
}

/// The marker of a block, where it has one.
pub(super) fn breakpoint(
    part: &Value,
    at: &str,
    can_mark: bool,
    era: Era,
    host: Host,
) -> Checked<()> {
    let Some(marker) = part.get(BREAKPOINT) else {
        return Ok(());
    };
    let at = format!("{at}.{BREAKPOINT}");
    if !can_mark {
        return Err(unknown(&at));
    }
    if marker.is_null() {
        return Ok(());
    }
    if era != Era::Breakpoints || host == Host::AzureProvisioned {
        return Err(unsupported(&at));
    }
    let Some(fields) = marker.as_object() else {
        return Err(bad_type(&at, "an object"));
    };
    if let Some(name) = fields
        .keys()
        .find(|name| !["mode", "ttl"].contains(&name.as_str()))
    {
        return Err(unknown(&format!("{at}.{name}")));
    }
    match fields.get("mode") {
        None => return Err(missing(&format!("{at}.mode"))),
        Some(mode) if mode == "explicit" => {}
        Some(mode) => return Err(bad_value(mode, &format!("{at}.mode"), &["explicit"])),
    }
    let ttl = &marker["ttl"];
    if ttl.is_null() || ttl == "30m" || (host == Host::OpenAi && ttl_seconds(ttl).is_some()) {
        return Ok(());
    }
    let supported: &[&str] = if host == Host::OpenAi {
        &["30m", "12h"]
    } else {
        &["30m"]
    };
    Err(bad_value(ttl, &format!("{at}.ttl"), supported))
}

/// The other fields of a part: each part holds its type, the field named by it, and perhaps a marker.
pub(super) fn part_fields(part: &Value, at: &str, allowed: &[&str]) -> Checked<()> {
    let known = |name: &str| name == "type" || name == BREAKPOINT || allowed.contains(&name);
    match part
        .as_object()
        .into_iter()
        .flatten()
        .find(|(name, _)| !known(name))
    {
        Some((name, _)) => Err(unknown(&format!("{at}.{name}"))),
        None => Ok(()),
    }
}

/// What is special to Chat Completions.
pub(super) fn chat(body: &Value, era: Era, host: Host) -> Checked<()> {
    let name = body["model"].as_str().unwrap_or_default();
    if model::is_reasoning(name) && !body["max_tokens"].is_null() {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
                       'max_completion_tokens' instead.";
        return Err(invalid(
            message,
            Some("max_tokens"),
            Some("unsupported_parameter"),
        ));
    }
    for field in ["max_tokens", "max_completion_tokens", "n"] {
        limit(body, field, 1)?;
    }
    effort::chat(body)?;
    let format = &body["response_format"];
    if format["type"] == "json_schema" && !format["json_schema"]["name"].is_string() {
        return Err(missing("response_format.json_schema.name"));
    }
    let messages = match &body["messages"] {
        Value::Null => return Err(missing("messages")),
        Value::Array(messages) if messages.is_empty() => return Err(empty_array("messages")),
        Value::Array(messages) => messages,
        _ => return Err(bad_type("messages", "an array of objects")),
    };
    for (index, message) in messages.iter().enumerate() {
        chat_message(message, &format!("messages[{index}]"), era, host)?;
    }
    chat_calls(messages)
}

/// Responses needs at least sixteen tokens for an output.
pub(super) fn response_limit(body: &Value) -> Checked<()> {
    limit(body, "max_output_tokens", OUTPUT_TOKENS_MIN)
}

fn limit(body: &Value, field: &str, minimum: u64) -> Checked<()> {
    match &body[field] {
        Value::Null => Ok(()),
        value => match value.as_i64() {
            None => Err(bad_type(field, "an integer")),
            Some(number) if number < minimum.cast_signed() => {
                Err(below_minimum(field, minimum, value))
            }
            Some(_) => Ok(()),
        },
    }
}

fn chat_message(message: &Value, at: &str, era: Era, host: Host) -> Checked<()> {
    let Some(fields) = message.as_object() else {
        return Err(bad_type(at, "an object"));
    };
    if let Some(name) = fields
        .keys()
        .find(|name| !MESSAGE_FIELDS.contains(&name.as_str()))
    {
        return Err(unknown(&format!("{at}.{name}")));
    }
    let Some(role) = message["role"].as_str() else {
        return Err(missing(&format!("{at}.role")));
    };
    if !ROLES.contains(&role) {
        return Err(bad_value(&message["role"], &format!("{at}.role"), ROLES));
    }
    let parts = match &message["content"] {
        Value::String(_) => return Ok(()),
        Value::Null if role == "assistant" => return Ok(()),
        Value::Array(parts) if parts.is_empty() => {
            return Err(empty_array(&format!("{at}.content")));
        }
        Value::Array(parts) => parts,
        Value::Null => {
            return Err(invalid(
                &format!(
                    "Invalid value for 'content': expected a string, got null. ({at}.content)"
                ),
                Some(&format!("{at}.content")),
                None,
            ));
        }
        _ => {
            return Err(bad_type(
                &format!("{at}.content"),
                "one of a string or array of objects",
            ));
        }
    };
    for (index, part) in parts.iter().enumerate() {
        let at = format!("{at}.content[{index}]");
        let kind = part["type"].as_str().unwrap_or_default();
        let kinds = match role {
            "user" => CHAT_PARTS,
            "assistant" => ASSISTANT_PARTS,
            _ => TEXT_PARTS,
        };
        if !kinds.contains(&kind) {
            return Err(bad_value(&part["type"], &format!("{at}.type"), kinds));
        }
        part_fields(part, &at, &[kind])?;
        if part.get(kind).is_none() {
            return Err(missing(&format!("{at}.{kind}")));
        }
        let inner_at = format!("{at}.{kind}");
        match kind {
            "file" => media::chat_file(&part[kind], &inner_at)?,
            "input_audio" => media::chat_audio(&part[kind], &inner_at)?,
            "text" | "refusal" if !part[kind].is_string() => {
                return Err(bad_type(&inner_at, "a string"));
            }
            _ => {}
        }
        breakpoint(part, &at, CHAT_PARTS.contains(&kind), era, host)?;
    }
    Ok(())
}

/// Every call is answered right after it, and nothing else is.
fn chat_calls(messages: &[Value]) -> Checked<()> {
    let mut open: Vec<&str> = Vec::new();
    let unanswered = |open: &[&str]| {
        let message = format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each \
             'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            open.join(", ")
        );
        Err(invalid(&message, Some("messages"), None))
    };
    for (index, message) in messages.iter().enumerate() {
        if message["role"] == "tool" {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            let Some(position) = open.iter().position(|call| *call == id) else {
                let message = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message \
                               with 'tool_calls'.";
                return Err(invalid(
                    message,
                    Some(&format!("messages.[{index}].role")),
                    None,
                ));
            };
            open.swap_remove(position);
            continue;
        }
        if !open.is_empty() {
            return unanswered(&open);
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            open.push(call["id"].as_str().unwrap_or_default());
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        unanswered(&open)
    }
}
