//! What a model takes of `reasoning` (Responses) and `reasoning_effort` (Chat).

use serde_json::Value;

use super::Checked;
use super::check::{bad_type, bad_value, invalid, unknown, unsupported};
use super::model;

/// Every word there is, for any model.
const WORDS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];
const SUMMARIES: &[&str] = &["auto", "concise", "detailed"];
const ENCRYPTED: &str = "reasoning.encrypted_content";
const INCLUDES: &[&str] = &[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    ENCRYPTED,
    "message.output_text.logprobs",
];

/// Checks `reasoning_effort` of a chat.
pub(super) fn chat(body: &Value) -> Checked<()> {
    word(body, &body["reasoning_effort"], "reasoning_effort")
}

/// Checks `reasoning` and `include` of a Responses request.
pub(super) fn response(body: &Value) -> Checked<()> {
    let is_reasoning = efforts(body).is_some();
    let reasoning = &body["reasoning"];
    for (name, value) in reasoning.as_object().into_iter().flatten() {
        let at = format!("reasoning.{name}");
        match name.as_str() {
            _ if value.is_null() => {}
            "effort" => word(body, value, &at)?,
            "summary" | "generate_summary" if !is_reasoning => return Err(unsupported(&at)),
            "summary" | "generate_summary" => {
                if !SUMMARIES.contains(&value.as_str().unwrap_or_default()) {
                    return Err(bad_value(value, &at, SUMMARIES));
                }
            }
            "context" | "mode" if !is_reasoning => return Err(unsupported(&at)),
            "context" | "mode" => {}
            _ => return Err(unknown(&at)),
        }
    }
    let include = match &body["include"] {
        Value::Null => return Ok(()),
        Value::Array(include) => include,
        _ => return Err(bad_type("include", "an array of strings")),
    };
    for (index, value) in include.iter().enumerate() {
        if !INCLUDES.contains(&value.as_str().unwrap_or_default()) {
            return Err(bad_value(value, &format!("include[{index}]"), INCLUDES));
        }
    }
    if wants_encrypted(body) && !is_reasoning {
        let message = "Encrypted content is not supported with this model.";
        return Err(invalid(message, Some("include"), None));
    }
    Ok(())
}

/// Whether the sealed form of the reasoning is asked for.
pub(super) fn wants_encrypted(body: &Value) -> bool {
    let include = body["include"].as_array();
    include.is_some_and(|include| include.iter().any(|value| value == ENCRYPTED))
}

/// Whether the model reasons at all for this request.
pub(super) fn reasons(body: &Value) -> bool {
    let is_off = body["reasoning"]["effort"] == "none" || body["reasoning_effort"] == "none";
    efforts(body).is_some() && !is_off
}

/// Whether the model can reason.
pub(super) fn can_reason(body: &Value) -> bool {
    efforts(body).is_some()
}

fn efforts(body: &Value) -> Option<&'static [&'static str]> {
    model::efforts(body["model"].as_str().unwrap_or_default())
}

fn word(body: &Value, value: &Value, at: &str) -> Checked<()> {
    if value.is_null() {
        return Ok(());
    }
    let Some(supported) = efforts(body) else {
        return Err(unsupported(at));
    };
    let word = value.as_str().unwrap_or_default();
    if !WORDS.contains(&word) {
        return Err(bad_value(value, at, WORDS));
    }
    if supported.contains(&word) {
        return Ok(());
    }
    let message = format!(
        "Unsupported value: '{at}' does not support '{word}' with this model. Supported values are: {}.",
        listed(supported)
    );
    Err(invalid(&message, Some(at), Some("unsupported_value")))
}

/// `'low', 'medium', and 'high'`.
fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    match quoted.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{}, and {last}", first.join(", ")),
        _ => quoted.concat(),
    }
}
