//! Images, documents, sound and video: within the request, or by URL.

use std::borrow::Cow;

use crate::chat::ContentPart;
use crate::dialect::fields::Fields;
use crate::dialect::media;
use crate::error::ApiError;

/// Where only Google's own servers find a file, or make something of it.
const AT_GOOGLE: &[&str] = &[
    "gs://",
    "files/",
    "https://generativelanguage.googleapis.com/",
    "https://www.youtube.com/",
    "https://youtube.com/",
    "https://youtu.be/",
];

/// `inlineData`.
pub(super) fn inline(mut blob: Fields) -> Result<ContentPart, ApiError> {
    let media_type = blob.required_string("mimeType")?;
    let data = blob.required_string("data")?;
    let data =
        standard_base64(&data).ok_or_else(|| blob.invalid("data", "must be bytes in base64"))?;
    let url = format!("data:{media_type};base64,{data}");
    part(url, Some(media_type), &mut blob)
}

/// `fileData`.
pub(super) fn file(mut file: Fields) -> Result<ContentPart, ApiError> {
    let url = file.required_string("fileUri")?;
    if AT_GOOGLE.iter().any(|start| url.starts_with(start)) {
        return Err(ApiError::unsupported(
            &file.path_of("fileUri"),
            "names something that only Google itself can fetch",
        ));
    }
    if !url.starts_with("https://") {
        return Err(ApiError::unsupported(
            &file.path_of("fileUri"),
            "must be an https: URL",
        ));
    }
    let media_type = file
        .string("mimeType")?
        .or_else(|| media::type_of_name(&url).map(str::to_owned));
    part(url, media_type, &mut file)
}

fn part(
    url: String,
    media_type: Option<String>,
    fields: &mut Fields,
) -> Result<ContentPart, ApiError> {
    Ok(media::part(url, media_type, fields.string("displayName")?))
}

/// Base64 of either alphabet, padded or not, as what data URLs have: Google's own clients write the other one.
pub(super) fn standard_base64(text: &str) -> Option<Cow<'_, str>> {
    let bare = text.trim_end_matches('=');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let is_known = |byte: u8| is_plain(byte) || matches!(byte, b'-' | b'_');
    if text.len() - bare.len() > 2 || bare.len() % 4 == 1 || !bare.bytes().all(is_known) {
        return None;
    }
    if text.len().is_multiple_of(4) && bare.bytes().all(is_plain) {
        return Some(text.into());
    }
    let mut standard = bare.replace('-', "+").replace('_', "/");
    while !standard.len().is_multiple_of(4) {
        standard.push('=');
    }
    Some(standard.into())
}
