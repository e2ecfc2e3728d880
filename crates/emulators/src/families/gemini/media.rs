//! Pictures, documents, sound and films, inline or by address.

use serde_json::Value;

use super::Checked;
use super::error::invalid;

/// What the types of media begin with that the models take.
const MEDIA_TYPES: &[&str] = &["text/", "image/", "audio/", "video/"];
const PDF: &str = "application/pdf";

/// Checks the blob or the address that a part holds, if it holds one.
pub(super) fn check(part: &Value, place: &str) -> Checked<()> {
    for (name, field, content) in [
        ("inlineData", "inline_data", "data"),
        ("fileData", "file_data", "fileUri"),
    ] {
        let media = &part[name];
        if media.is_null() {
            continue;
        }
        let media_type = media["mimeType"].as_str().unwrap_or_default();
        if media_type.is_empty() {
            return invalid(format!(
                "{place}.{field}.mime_type: mime_type must not be empty.\n"
            ));
        }
        // Parameters (`;codecs=opus`) don't matter.
        let kind = media_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        if kind != PDF && !MEDIA_TYPES.iter().any(|start| kind.starts_with(start)) {
            return invalid(format!("Unsupported MIME type: {media_type}"));
        }
        if media[content].as_str().is_none_or(str::is_empty) {
            let content = if content == "data" {
                "data"
            } else {
                "file_uri"
            };
            return invalid(format!(
                "{place}.{field}.{content}: {content} must not be empty.\n"
            ));
        }
    }
    Ok(())
}
