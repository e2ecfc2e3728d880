//! Parts of messages and of results.

use serde_json::{Map, Value, json};

use crate::chat::{ContentPart, Role};
use crate::dialect::cache;
use crate::dialect::fields::Fields;
use crate::dialect::media;
use crate::error::{ApiError, ErrorKind};

/// The fields that a marker may have.
const MARKER_FIELDS: [&str; 2] = ["prompt_cache_breakpoint", "cache_control"];
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
        ("input_audio", false) => audio(&mut fields)?,
        ("input_video", false) => video(&mut fields)?,
        (
            "output_text" | "refusal" | "input_image" | "input_file" | "input_audio"
            | "input_video",
            _,
        ) => {
            let role = role.as_str();
            return Err(fields.invalid(
                "type",
                format!("can't stand in a message of the role {role}"),
            ));
        }
        _ => {
            return Err(ApiError::unsupported(
                &fields.path_of("type"),
                "is a kind of content that is not known here: use input_text, input_image, input_file, input_audio or input_video",
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
    let url = match (data, url) {
        (Some(data), _) => {
            listed["file_data"] = data.as_str().into();
            media::url_of_data(data, name.as_deref())
        }
        (None, Some(url)) => {
            listed["file_url"] = url.as_str().into();
            url
        }
        (None, None) => {
            return Err(by_id(fields).unwrap_or_else(|| fields.missing("file_data")));
        }
    };
    Ok((media::part(url, None, name), listed))
}

/// OpenAI's form, with the bytes, or Ark's, with a URL.
fn audio(fields: &mut Fields) -> Result<(ContentPart, Value), ApiError> {
    if let Some(url) = fields.string("audio_url")? {
        let listed = json!({"type": "input_audio", "audio_url": url});
        return Ok((sound_or_video(url, "audio/mpeg"), listed));
    }
    let Some(mut audio) = fields.object("input_audio")? else {
        return Err(by_id(fields).unwrap_or_else(|| fields.missing("input_audio")));
    };
    let data = audio.required_string("data")?;
    let format = audio.required_string("format")?;
    let url = format!("data:audio/{format};base64,{data}");
    let listed = json!({"type": "input_audio", "input_audio": {"data": data, "format": format}});
    Ok((media::part(url, None, None), listed))
}

/// Ark's.
fn video(fields: &mut Fields) -> Result<(ContentPart, Value), ApiError> {
    let Some(url) = fields.string("video_url")? else {
        return Err(by_id(fields).unwrap_or_else(|| fields.missing("video_url")));
    };
    let listed = json!({"type": "input_video", "video_url": url});
    Ok((sound_or_video(url, "video/mp4"), listed))
}

/// What the URL does not say is taken to be the commonest.
fn sound_or_video(url: String, commonest: &str) -> ContentPart {
    media::part(url, Some(commonest.to_owned()), None)
}

fn by_id(fields: &Fields) -> Option<ApiError> {
    fields.has("file_id").then(|| {
        ApiError::unsupported(
            &fields.path_of("file_id"),
            "names a file that the gateway does not have: send its data or its URL",
        )
    })
}
