//! What Responses refuses.

use serde_json::{Value, json};

use super::check::{bad_type, bad_value, breakpoint, invalid, missing, part_fields};
use super::model::Era;
use super::{Checked, Host, media};

const INPUT_PARTS: &[&str] = &["input_text", "input_image", "input_file"];
const OUTPUT_PARTS: &[&str] = &["output_text", "refusal"];
const ROLES: &[&str] = &["assistant", "system", "developer", "user"];
const ITEMS: &[&str] = &[
    "message",
    "function_call",
    "function_call_output",
    "reasoning",
];

/// Fields of their own shape.
pub(super) fn request(body: &Value) -> Checked<()> {
    for field in ["reasoning", "text"] {
        if !body[field].is_null() && !body[field].is_object() {
            return Err(bad_type(field, "an object"));
        }
    }
    if !body["instructions"].is_null() && !body["instructions"].is_string() {
        return Err(bad_type("instructions", "a string"));
    }
    let format = &body["text"]["format"];
    if format["type"] == "json_schema" {
        for field in ["name", "schema"] {
            if format[field].is_null() {
                return Err(missing(&format!("text.format.{field}")));
            }
        }
    }
    Ok(())
}

/// The request's own items, a string among them as a message.
pub(super) fn items(body: &Value, era: Era, host: Host) -> Checked<Vec<Value>> {
    let items = match &body["input"] {
        Value::String(text) => {
            return Ok(vec![json!({
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": text}],
            })]);
        }
        Value::Array(items) => items,
        Value::Null if !body["previous_response_id"].is_null() => return Ok(Vec::new()),
        Value::Null => return Err(missing("input")),
        _ => return Err(bad_type("input", "one of a string or array of objects")),
    };
    for (index, item) in items.iter().enumerate() {
        let at = format!("input[{index}]");
        if !item.is_object() {
            return Err(bad_type(&at, "an object"));
        }
        match item["type"].as_str().unwrap_or("message") {
            "message" => message(item, &at, era, host)?,
            "function_call" => {
                for field in ["call_id", "name", "arguments"] {
                    if !item[field].is_string() {
                        return Err(missing(&format!("{at}.{field}")));
                    }
                }
            }
            "function_call_output" => {
                if !item["call_id"].is_string() {
                    return Err(missing(&format!("{at}.call_id")));
                }
                match &item["output"] {
                    Value::String(_) => {}
                    Value::Array(parts) => {
                        content(parts, &format!("{at}.output"), INPUT_PARTS, era, host)?
                    }
                    _ => return Err(missing(&format!("{at}.output"))),
                }
            }
            "reasoning" => {}
            _ => return Err(bad_value(&item["type"], &format!("{at}.type"), ITEMS)),
        }
    }
    Ok(items.clone())
}

fn message(item: &Value, at: &str, era: Era, host: Host) -> Checked<()> {
    let role = item["role"].as_str().unwrap_or_default();
    if !ROLES.contains(&role) {
        return Err(bad_value(&item["role"], &format!("{at}.role"), ROLES));
    }
    let kinds = if role == "assistant" {
        OUTPUT_PARTS
    } else {
        INPUT_PARTS
    };
    match &item["content"] {
        Value::String(_) => Ok(()),
        Value::Array(parts) => content(parts, &format!("{at}.content"), kinds, era, host),
        _ => Err(missing(&format!("{at}.content"))),
    }
}

fn content(parts: &[Value], at: &str, kinds: &[&str], era: Era, host: Host) -> Checked<()> {
    for (index, part) in parts.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let kind = part["type"].as_str().unwrap_or_default();
        if !kinds.contains(&kind) {
            return Err(bad_value(&part["type"], &format!("{at}.type"), kinds));
        }
        let (needed, allowed): (&str, &[&str]) = match kind {
            "input_text" => ("text", &["text"]),
            "output_text" => ("text", &["text", "annotations", "logprobs"]),
            "refusal" => ("refusal", &["refusal"]),
            "input_image" => ("", &["image_url", "file_id", "detail"]),
            _ => (
                "",
                &["file_id", "filename", "file_data", "file_url", "detail"],
            ),
        };
        if !needed.is_empty() && !part[needed].is_string() {
            return Err(missing(&format!("{at}.{needed}")));
        }
        part_fields(part, &at, allowed)?;
        if kind == "input_file" {
            media::input_file(part, &at)?;
        }
        breakpoint(part, &at, INPUT_PARTS.contains(&kind), era, host)?;
    }
    Ok(())
}

/// Every call has its output somewhere later, and every output its call.
pub(super) fn calls(items: &[Value]) -> Checked<()> {
    let mut open: Vec<&str> = Vec::new();
    for item in items {
        let id = item["call_id"].as_str().unwrap_or_default();
        match item["type"].as_str() {
            Some("function_call") => open.push(id),
            Some("function_call_output") => match open.iter().position(|call| *call == id) {
                Some(position) => {
                    open.swap_remove(position);
                }
                None => {
                    let message =
                        format!("No tool call found for function call output with call_id {id}.");
                    return Err(invalid(&message, Some("input"), None));
                }
            },
            _ => {}
        }
    }
    match open.first() {
        None => Ok(()),
        Some(id) => Err(invalid(
            &format!("No tool output found for function call {id}."),
            Some("input"),
            None,
        )),
    }
}
