//! Pictures and documents: where they come from, and of which kind they are.

use serde_json::{Map, Value};

use super::check::{Refused, field, no_extra};

const PICTURES: &[&str] = &["image/jpeg", "image/png", "image/gif", "image/webp"];

/// Checks a block of type `image`.
pub(super) fn picture(path: &str, block: &Map<String, Value>) -> Refused<()> {
    let (kind, path, source) = source(path, block)?;
    match kind {
        "base64" => base64(
            &path,
            source,
            PICTURES,
            "'image/jpeg', 'image/png', 'image/gif' or 'image/webp'",
        ),
        "url" => url(&path, source),
        "file" => file(&path, source),
        _ => Err(unknown_tag(&path, kind)),
    }
}

/// Checks a block of type `document`.
pub(super) fn document(path: &str, block: &Map<String, Value>) -> Refused<()> {
    for name in ["title", "context"] {
        if field(block, name).is_some_and(|value| !value.is_string()) {
            return Err(format!("{path}.{name}: Input should be a valid string"));
        }
    }
    let (kind, path, source) = source(path, block)?;
    match kind {
        "base64" => base64(&path, source, &["application/pdf"], "'application/pdf'"),
        "text" => {
            no_extra(&path, source, &["type", "media_type", "data"])?;
            if source
                .get("media_type")
                .is_none_or(|kind| kind != "text/plain")
            {
                return Err(format!("{path}.media_type: Input should be 'text/plain'"));
            }
            match source.get("data").and_then(Value::as_str) {
                None => Err(format!("{path}.data: Input should be a valid string")),
                Some("") => Err(format!(
                    "{path}.data: String should have at least 1 character"
                )),
                Some(_) => Ok(()),
            }
        }
        "content" => no_extra(&path, source, &["type", "content"]),
        "url" => url(&path, source),
        "file" => file(&path, source),
        _ => Err(unknown_tag(&path, kind)),
    }
}

/// The kind of a block's source, its path in error texts, and its fields.
fn source<'a>(
    path: &str,
    block: &'a Map<String, Value>,
) -> Refused<(&'a str, String, &'a Map<String, Value>)> {
    let source = block
        .get("source")
        .and_then(Value::as_object)
        .ok_or(format!("{path}.source: Field required"))?;
    let kind = source
        .get("type")
        .and_then(Value::as_str)
        .ok_or(format!("{path}.source.type: Field required"))?;
    Ok((kind, format!("{path}.source.{kind}"), source))
}

fn base64(
    path: &str,
    source: &Map<String, Value>,
    media_types: &[&str],
    expected: &str,
) -> Refused<()> {
    no_extra(path, source, &["type", "media_type", "data"])?;
    let text = |name: &str| source.get(name).and_then(Value::as_str).unwrap_or_default();
    if !media_types.contains(&text("media_type")) {
        return Err(format!("{path}.media_type: Input should be {expected}"));
    }
    let data = text("data");
    if data.is_empty() || data_encoding::BASE64.decode(data.as_bytes()).is_err() {
        return Err(format!("{path}.data: Invalid base64 data"));
    }
    Ok(())
}

fn url(path: &str, source: &Map<String, Value>) -> Refused<()> {
    no_extra(path, source, &["type", "url"])?;
    let url = source
        .get("url")
        .and_then(Value::as_str)
        .ok_or(format!("{path}.url: Field required"))?;
    if url.starts_with("https://") {
        return Ok(());
    }
    Err(format!("{path}.url: Only HTTPS URLs are supported."))
}

fn file(path: &str, source: &Map<String, Value>) -> Refused<()> {
    no_extra(path, source, &["type", "file_id"])?;
    match source.get("file_id").and_then(Value::as_str) {
        Some(id) if !id.is_empty() => Ok(()),
        _ => Err(format!("{path}.file_id: Field required")),
    }
}

fn unknown_tag(path: &str, kind: &str) -> String {
    format!("{path}: Input tag '{kind}' found using 'type' does not match any of the expected tags")
}
