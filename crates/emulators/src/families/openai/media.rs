//! Files and sound in messages.

use serde_json::Value;

use super::Checked;
use super::check::{bad_type, bad_value, invalid, missing, unknown};

/// Checks the `file` of a chat's part.
pub(super) fn chat_file(file: &Value, at: &str) -> Checked<()> {
    let Some(fields) = file.as_object() else {
        return Err(bad_type(at, "an object"));
    };
    if let Some(name) = fields
        .keys()
        .find(|name| !["file_data", "file_id", "filename"].contains(&name.as_str()))
    {
        return Err(unknown(&format!("{at}.{name}")));
    }
    one_of(file, at, &["file_data", "file_id"])
}

/// Checks a part `input_file` of Responses.
pub(super) fn input_file(part: &Value, at: &str) -> Checked<()> {
    if let Some(url) = part["file_url"].as_str()
        && !(url.starts_with("https://") || url.starts_with("http://"))
    {
        let at = format!("{at}.file_url");
        let message = format!(
            "Invalid '{at}'. Expected a valid URL, but got a value with an invalid format."
        );
        return Err(invalid(&message, Some(&at), Some("invalid_value")));
    }
    one_of(part, at, &["file_data", "file_url", "file_id"])
}

/// Exactly one of `names`; a file that comes along has a name.
fn one_of(file: &Value, at: &str, names: &[&str]) -> Checked<()> {
    let given: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !file[*name].is_null())
        .collect();
    match given[..] {
        [] => return Err(missing(&format!("{at}.{}", names[0]))),
        [name] if !file[name].is_string() => {
            return Err(bad_type(&format!("{at}.{name}"), "a string"));
        }
        [_] => {}
        [one, other, ..] => {
            let message = format!(
                "Mutually exclusive parameters: '{at}.{one}' and '{at}.{other}'. Ensure you are only providing one of them."
            );
            return Err(invalid(
                &message,
                Some(&format!("{at}.{other}")),
                Some("mutually_exclusive_parameters"),
            ));
        }
    }
    let Some(data) = file["file_data"].as_str() else {
        return Ok(());
    };
    data_url(data, &format!("{at}.file_data"))?;
    match file["filename"].as_str() {
        Some(name) if !name.is_empty() => Ok(()),
        _ => Err(missing(&format!("{at}.filename"))),
    }
}

fn data_url(data: &str, at: &str) -> Checked<()> {
    let expected =
        "Expected a base64-encoded data URL (e.g. 'data:application/pdf;base64,aGVsbG8=')";
    let refuse = |found: &str| {
        let message = format!("Invalid '{at}'. {expected}, but got {found}.");
        Err(invalid(&message, Some(at), Some("invalid_value")))
    };
    let Some(rest) = data.strip_prefix("data:") else {
        return refuse("a value without the 'data:' prefix");
    };
    match rest.split_once(";base64,") {
        Some((media_type, content)) if media_type.contains('/') && is_base64(content) => Ok(()),
        _ => refuse("a value that is no data URL in base64"),
    }
}

/// Checks the `input_audio` of a chat's part.
pub(super) fn chat_audio(audio: &Value, at: &str) -> Checked<()> {
    let Some(fields) = audio.as_object() else {
        return Err(bad_type(at, "an object"));
    };
    if let Some(name) = fields
        .keys()
        .find(|name| !["data", "format"].contains(&name.as_str()))
    {
        return Err(unknown(&format!("{at}.{name}")));
    }
    for name in ["data", "format"] {
        if audio[name].is_null() {
            return Err(missing(&format!("{at}.{name}")));
        }
    }
    if audio["format"] != "wav" && audio["format"] != "mp3" {
        return Err(bad_value(
            &audio["format"],
            &format!("{at}.format"),
            &["wav", "mp3"],
        ));
    }
    if audio["data"].as_str().is_some_and(is_base64) {
        return Ok(());
    }
    let at = format!("{at}.data");
    let message = format!("Invalid '{at}'. Expected a base64-encoded string.");
    Err(invalid(&message, Some(&at), Some("invalid_value")))
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && data_encoding::BASE64.decode(text.as_bytes()).is_ok()
}
