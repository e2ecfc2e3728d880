//! Files and sound in messages.

use serde_json::Value;

use super::Checked;
use super::error::{invalid, missing};

/// What the stub tokenizer counts for a picture, a film, a document or a sound.
pub(super) const MEDIA_TOKENS: u64 = 1_000;

/// Checks a part `input_file`: a PDF that comes along, by address or by id.
pub(super) fn input_file(part: &Value) -> Checked<()> {
    let given = ["file_data", "file_url", "file_id"].map(|name| !part[name].is_null());
    match given.iter().filter(|is_given| **is_given).count() {
        0 => return missing("input.content.file_data"),
        1 => {}
        _ => {
            return invalid(
                "input.content.file_data",
                "only one of file_data, file_url and file_id can be set",
            );
        }
    }
    if !part["file_url"].is_null() && !is_address(&part["file_url"]) {
        return invalid("input.content.file_url", "expected a URL");
    }
    if part["file_data"].is_null() {
        return Ok(());
    }
    let content = part["file_data"]
        .as_str()
        .and_then(|data| data.strip_prefix("data:application/pdf;base64,"));
    if !content.is_some_and(is_base64) {
        return invalid(
            "input.content.file_data",
            "expected a data URL of type application/pdf in base64",
        );
    }
    if part["filename"].as_str().is_none_or(str::is_empty) {
        return missing("input.content.filename");
    }
    Ok(())
}

/// Checks a part `input_audio` of Responses: an address (or a data URL), or the id of a file.
pub(super) fn input_audio(part: &Value) -> Checked<()> {
    if part["file_id"].is_string() || is_address(&part["audio_url"]) {
        return Ok(());
    }
    if part["audio_url"].is_null() {
        return missing("input.content.audio_url");
    }
    invalid("input.content.audio_url", "expected a URL or a data URL")
}

/// Checks the parts of a chat's message: pictures, films and sound come from users only.
pub(super) fn chat_parts(role: &str, parts: &[Value]) -> Checked<()> {
    for part in parts {
        let kind = part["type"].as_str().unwrap_or_default();
        match kind {
            "text" if part["text"].is_string() => {}
            "text" => return missing("messages.content.text"),
            "image_url" | "video_url" if role == "user" => {}
            "input_audio" if role == "user" => chat_audio(&part["input_audio"])?,
            _ => {
                return invalid(
                    "messages.content.type",
                    &format!("content type `{kind}` does not fit role `{role}`"),
                );
            }
        }
    }
    Ok(())
}

fn chat_audio(audio: &Value) -> Checked<()> {
    const PARAM: &str = "messages.content.input_audio";
    match (&audio["url"], &audio["data"]) {
        (Value::Null, Value::Null) => missing(&format!("{PARAM}.data")),
        (url, Value::Null) if is_address(url) => Ok(()),
        (Value::Null, Value::String(data)) if is_base64(data) => {
            if audio["format"].is_string() {
                Ok(())
            } else {
                missing(&format!("{PARAM}.format"))
            }
        }
        (Value::Null, _) => invalid(&format!("{PARAM}.data"), "expected base64"),
        _ => invalid(
            &format!("{PARAM}.url"),
            "expected a URL, and no data beside it",
        ),
    }
}

fn is_address(value: &Value) -> bool {
    let Some(text) = value.as_str() else {
        return false;
    };
    text.starts_with("https://")
        || text.starts_with("http://")
        || text
            .strip_prefix("data:")
            .and_then(|rest| rest.split_once(";base64,"))
            .is_some_and(|(_, content)| is_base64(content))
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && data_encoding::BASE64.decode(text.as_bytes()).is_ok()
}
