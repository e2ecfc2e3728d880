//! Parts of messages and of results.

use serde_json::{Map, Value, json};

use crate::chat::{ContentPart, Role};
use crate::dialect::cache;
use crate::dialect::fields::Fields;
use crate::error::{ApiError, ErrorKind};

/// The fields that a marker may have.
const MARKER_FIELDS: [&str; 2] = ["prompt_cache_breakpoint", "cache_control"];
/// Media types by the ending of a file's name.
const MEDIA_TYPES: &[(&str, &str)] = &[
    ("pdf", "application/pdf"),
    ("json", "application/json"),
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("csv", "text/csv"),
    ("html", "text/html"),
];

/// One part as it was read.
pub(super) struct Part {
    pub(super) content: ContentPart,
    /// As it is listed again, with its marker: so a message read from the list is cut at the same places.
    pub(super) listed: Value,
    /// Whether a marker stands on it, and for how long the prefix is then kept, seconds.
    pub(super) marker: Option<Option<u32>>,
}

/// Reads the part at `path` of what `role` says; results of tools are [`Role::Tool`]'s.
///
/// # Errors
/// `UnsupportedParameter` for what only OpenAI itself can take, other kinds for what nobody can.
pub(super) fn part(value: Value, path: String, role: Role) -> Result<Part, ApiError> {
    let marks = marks(&value);
    let mut fields = Fields::of_value(value, path, ErrorKind::InvalidMessage)?;
    let kind = fields.required_string("type")?;
    let is_answer = role == Role::Assistant;
    let (content, mut listed) = match (kind.as_str(), is_answer) {
        // Ark calls the parts of an answer input, too.
        ("output_text" | "input_text" | "text", true) => {
            let text = text(&mut fields, "text")?;
            let listed = json!({"type": "output_text", "text": text, "annotations": []});
            (ContentPart::Text { text }, listed)
        }
        ("refusal", true) => {
            let text = text(&mut fields, "refusal")?;
            let listed = json!({"type": "refusal", "refusal": text});
            (ContentPart::Text { text }, listed)
        }
        ("input_text" | "text", false) => {
            let text = text(&mut fields, "text")?;
            let listed = json!({"type": "input_text", "text": text});
            (ContentPart::Text { text }, listed)
        }
        ("input_image", false) => image(&mut fields)?,
        ("input_file", false) => file(&mut fields)?,
        ("output_text" | "refusal" | "input_image" | "input_file", _) => {
            let role = role.as_str();
            return Err(fields.invalid(
                "type",
                format!("can't stand in a message of the role {role}"),
            ));
        }
        _ => {
            return Err(ApiError::unsupported(
                &fields.path_of("type"),
                "is a kind of content that is not known here: use input_text, input_image or input_file",
            ));
        }
    };
    if is_answer {
        return Ok(Part {
            content,
            listed,
            marker: None,
        });
    }
    if let Value::Object(listed) = &mut listed {
        listed.extend(marks);
    }
    Ok(Part {
        content,
        listed,
        marker: cache::marker(&mut fields)?,
    })
}

fn marks(value: &Value) -> Map<String, Value> {
    let fields = MARKER_FIELDS.into_iter();
    fields
        .filter_map(|name| {
            let mark = value.get(name).filter(|mark| !mark.is_null())?;
            Some((name.to_owned(), mark.clone()))
        })
        .collect()
}

fn text(fields: &mut Fields, key: &str) -> Result<String, ApiError> {
    fields.text(key)?.ok_or_else(|| fields.missing(key))
}

fn image(fields: &mut Fields) -> Result<(ContentPart, Value), ApiError> {
    let Some(url) = fields.string("image_url")? else {
        return Err(by_id(fields).unwrap_or_else(|| fields.missing("image_url")));
    };
    // What is the default anyway is the same as nothing.
    let detail = fields.string("detail")?.filter(|detail| detail != "auto");
    let listed = json!({
        "type": "input_image",
        "detail": detail.as_deref().unwrap_or("auto"),
        "image_url": url,
    });
    Ok((ContentPart::ImageUrl { url, detail }, listed))
}

fn file(fields: &mut Fields) -> Result<(ContentPart, Value), ApiError> {
    let name = fields.string("filename")?;
    let data = fields.string("file_data")?;
    let url = fields.string("file_url")?;
    let mut listed = json!({"type": "input_file"});
    if let Some(name) = &name {
        listed["filename"] = name.as_str().into();
    }
    let known_type = media_type(name.as_deref().or(url.as_deref()).unwrap_or_default());
    let (url, media_type) = match (data, url) {
        (Some(data), _) => {
            listed["file_data"] = data.as_str().into();
            let url = match data.starts_with("data:") {
                true => data,
                false => {
                    let media_type = known_type.unwrap_or("application/octet-stream");
                    format!("data:{media_type};base64,{data}")
                }
            };
            (url, None)
        }
        (None, Some(url)) => {
            listed["file_url"] = url.as_str().into();
            (url, known_type.map(str::to_owned))
        }
        (None, None) => {
            return Err(by_id(fields).unwrap_or_else(|| fields.missing("file_data")));
        }
    };
    let content = ContentPart::File {
        url,
        media_type,
        name,
    };
    Ok((content, listed))
}

fn by_id(fields: &Fields) -> Option<ApiError> {
    fields.has("file_id").then(|| {
        ApiError::unsupported(
            &fields.path_of("file_id"),
            "names a file that the gateway does not have: send its data or its URL",
        )
    })
}

/// By the ending of a name, or of a URL's path.
fn media_type(name: &str) -> Option<&'static str> {
    let (_, ending) = name.split(['?', '#']).next()?.rsplit_once('.')?;
    let known = MEDIA_TYPES
        .iter()
        .find(|(known, _)| ending.eq_ignore_ascii_case(known))?;
    Some(known.1)
}
