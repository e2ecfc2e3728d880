//! Messages as `contents` and `systemInstruction`.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::call_id;
use crate::chat::{ContentPart, Message, Role};
use crate::dialect::media;
use crate::dialect::pieces::elements;
use crate::error::{ApiError, ErrorKind};
use crate::provider::Quirks;

#[derive(Serialize)]
struct Content<'a> {
    role: &'static str,
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Part<'a> {
    Text {
        text: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        thought_signature: Option<&'a str>,
    },
    Inline {
        inline_data: Inline<'a>,
    },
    File {
        file_data: File<'a>,
    },
    Call {
        function_call: Call<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        thought_signature: Option<String>,
    },
    Response {
        function_response: Response<'a>,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inline<'a> {
    mime_type: &'a str,
    data: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<&'a str>,
    file_uri: &'a str,
}

impl Part<'_> {
    fn text(text: impl Into<String>) -> Self {
        Part::Text {
            text: text.into(),
            thought_signature: None,
        }
    }
}

#[derive(Serialize)]
struct Call<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    args: ObjectOr<Arguments>,
}

#[derive(Serialize)]
struct Response<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    response: ObjectOr<TextResult>,
}

/// A JSON object as it was written, or something in its place.
#[derive(Serialize)]
#[serde(untagged)]
enum ObjectOr<T> {
    Object(Box<RawValue>),
    Other(T),
}

#[derive(Serialize)]
struct Arguments {
    arguments: String,
}

#[derive(Serialize)]
struct TextResult {
    result: String,
}

/// Names of the functions called so far, by the call's id: Google wants them with the results.
#[derive(Default)]
pub(super) struct Calls<'a> {
    names: HashMap<&'a str, &'a str>,
}

impl<'a> Calls<'a> {
    /// Those of `messages`, which came before.
    pub(super) fn of(messages: impl Iterator<Item = &'a Message>) -> Self {
        let mut calls = Calls::default();
        messages.for_each(|message| calls.note(message));
        calls
    }

    fn note(&mut self, message: &'a Message) {
        for call in &message.tool_calls {
            self.names.insert(&call.id, &call.name);
        }
    }
}

/// How many messages at the beginning are system texts.
pub(super) fn leading_system(messages: &[Message]) -> usize {
    messages
        .iter()
        .take_while(|message| is_system(message))
        .count()
}

fn is_system(message: &Message) -> bool {
    matches!(message.role, Role::System | Role::Developer)
}

/// Elements of `systemInstruction.parts` for `messages`, all of them system texts.
pub(super) fn system_parts(
    tenant_line: Option<&str>,
    messages: &[Message],
) -> Result<Bytes, ApiError> {
    let mut parts = Vec::new();
    if let Some(line) = tenant_line {
        parts.push(Part::text(line));
    }
    for (index, message) in messages.iter().enumerate() {
        for part in &message.content {
            match part {
                ContentPart::Text { text } if text.is_empty() => {}
                ContentPart::Text { text } => parts.push(Part::text(text)),
                ContentPart::ImageUrl { .. } | ContentPart::File { .. } => {
                    return Err(image_misplaced(index, "system messages"));
                }
            }
        }
    }
    Ok(elements(&parts))
}

/// Elements of `contents` for `messages`, the first of which is number `first_index` of its request. `calls` knows the
/// calls before them.
pub(super) fn contents<'a>(
    messages: &'a [Message],
    first_index: usize,
    calls: &mut Calls<'a>,
    quirks: &Quirks,
) -> Result<Bytes, ApiError> {
    let mut out: Vec<Content<'a>> = Vec::new();
    let mut after_result = false;
    let mut after_answer = false;
    for (index, message) in messages.iter().enumerate() {
        let index = first_index + index;
        let is_result = message.role == Role::Tool;
        let parts = match message.role {
            Role::System | Role::Developer => vec![wrapped_system(message, index)?],
            Role::User => user_parts(message, index, quirks)?,
            Role::Assistant => {
                calls.note(message);
                assistant_parts(message, index, quirks)?
            }
            Role::Tool => vec![result_part(message, index, calls)?],
        };
        let role = match message.role {
            Role::Assistant => "model",
            _ => "user",
        };
        match out.last_mut() {
            // An answer without text and calls says nothing.
            _ if parts.is_empty() => {}
            // Google wants as many results in one content as there were calls, and both sides by turns. What an answer
            // stands between stays apart, or else a later turn would change an earlier one's bytes.
            Some(last) if role == "user" && !after_answer && is_result == after_result => {
                last.parts.extend(parts);
            }
            _ => out.push(Content { role, parts }),
        }
        after_answer = message.role == Role::Assistant;
        after_result = is_result;
    }
    Ok(elements(&out))
}

fn wrapped_system<'a>(message: &Message, index: usize) -> Result<Part<'a>, ApiError> {
    if message.has_media() {
        return Err(image_misplaced(index, "system messages"));
    }
    Ok(Part::text(format!(
        "<system>{}</system>",
        message.joined_text()
    )))
}

fn user_parts<'a>(
    message: &'a Message,
    index: usize,
    quirks: &Quirks,
) -> Result<Vec<Part<'a>>, ApiError> {
    let mut parts = said_parts(message, index, quirks)?;
    if parts.is_empty() {
        parts.push(Part::text(""));
    }
    Ok(parts)
}

/// Text and images; empty texts, which Google refuses, are left out.
fn said_parts<'a>(
    message: &'a Message,
    index: usize,
    quirks: &Quirks,
) -> Result<Vec<Part<'a>>, ApiError> {
    message
        .content
        .iter()
        .enumerate()
        .filter(|(_, part)| !matches!(part, ContentPart::Text { text } if text.is_empty()))
        .map(|(position, part)| match part {
            ContentPart::Text { text } => Ok(Part::text(text)),
            ContentPart::ImageUrl { url, .. } => {
                image_part(url, quirks).map_err(|problem| (position, problem))
            }
            ContentPart::File {
                url,
                media_type,
                name,
            } => media::File::of(url, media_type.as_deref(), name.as_deref())
                .and_then(file_part)
                .map_err(|problem| (position, problem)),
        })
        .map(|part| {
            part.map_err(|(position, problem)| {
                ApiError::unsupported(&format!("messages[{index}].content[{position}]"), problem)
            })
        })
        .collect()
}

fn assistant_parts<'a>(
    message: &'a Message,
    index: usize,
    quirks: &Quirks,
) -> Result<Vec<Part<'a>>, ApiError> {
    let mut parts = said_parts(message, index, quirks)?;
    parts.extend(message.refusal_text().map(Part::text));
    if let Some(seal) = message.seal_of("gemini") {
        seal_last_text(&mut parts, seal);
    }
    for call in &message.tool_calls {
        let carried = call_id::decode(&call.id);
        let args = match object(&call.arguments) {
            Some(object) => ObjectOr::Object(object),
            None => ObjectOr::Other(Arguments {
                arguments: call.arguments.clone(),
            }),
        };
        parts.push(Part::Call {
            function_call: Call {
                id: carried.id,
                name: &call.name,
                args,
            },
            thought_signature: carried.signature,
        });
    }
    Ok(parts)
}

/// The seal of the thoughts before an answer's text comes with the text's last part, or with a part of its own.
fn seal_last_text<'a>(parts: &mut Vec<Part<'a>>, seal: &'a str) {
    let last = parts.iter_mut().rev().find_map(|part| match part {
        Part::Text {
            thought_signature, ..
        } => Some(thought_signature),
        _ => None,
    });
    match last {
        Some(signature) => *signature = Some(seal),
        None => parts.push(Part::Text {
            text: String::new(),
            thought_signature: Some(seal),
        }),
    }
}

fn result_part<'a>(
    message: &'a Message,
    index: usize,
    calls: &Calls<'a>,
) -> Result<Part<'a>, ApiError> {
    if message.has_media() {
        return Err(image_misplaced(index, "results of tools"));
    }
    let id = message.tool_call_id.as_deref();
    let name = id
        .and_then(|id| calls.names.get(id).copied())
        .or(message.name.as_deref())
        .ok_or_else(|| {
            ApiError::invalid(
                &format!("messages[{index}].tool_call_id"),
                "must be the id of a call in a message before it",
            )
        })?;
    let text = message.joined_text();
    let response = match object(&text) {
        Some(object) if !text.trim().is_empty() => ObjectOr::Object(object),
        _ => ObjectOr::Other(TextResult { result: text }),
    };
    Ok(Part::Response {
        function_response: Response {
            id: id.and_then(|id| call_id::decode(id).id),
            name,
            response,
        },
    })
}

/// `text` if it is a JSON object; no text is an empty one.
fn object(text: &str) -> Option<Box<RawValue>> {
    let text = text.trim();
    let text = if text.is_empty() { "{}" } else { text };
    if !text.starts_with('{') {
        return None;
    }
    serde_json::from_str::<&RawValue>(text)
        .ok()
        .map(ToOwned::to_owned)
}

fn image_part<'a>(url: &'a str, quirks: &Quirks) -> Result<Part<'a>, &'static str> {
    if !quirks.images {
        return Err("is an image, which this model can't see");
    }
    if let Some(rest) = url.strip_prefix("data:") {
        let (head, data) = rest.split_once(',').ok_or("is not a whole data URL")?;
        let mime_type = head
            .strip_suffix(";base64")
            .ok_or("is a data URL that is not in base64")?;
        let mime_type = mime_type.split(';').next().unwrap_or_default();
        if mime_type.is_empty() {
            return Err("is a data URL without a media type");
        }
        return Ok(Part::Inline {
            inline_data: Inline { mime_type, data },
        });
    }
    if quirks.inline_images_only {
        return Err("is not a data URL, and this model's provider fetches nothing");
    }
    if !["https://", "http://", "gs://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Err("is neither a data URL nor one that this model's provider fetches");
    }
    Ok(Part::File {
        file_data: File {
            // Vertex AI does not look for itself.
            mime_type: media::type_of_name(url),
            file_uri: url,
        },
    })
}

/// Documents, sound and video; the API has one form for all of them.
fn file_part(file: media::File<'_>) -> Result<Part<'_>, &'static str> {
    let named = "is of a kind that nobody names: give it a media type or a name with an ending";
    match file.source {
        media::Source::Base64(data) => Ok(Part::Inline {
            inline_data: Inline {
                mime_type: file.media_type.ok_or(named)?,
                data,
            },
        }),
        media::Source::Url(file_uri) => Ok(Part::File {
            file_data: File {
                mime_type: Some(file.media_type.ok_or(named)?),
                file_uri,
            },
        }),
    }
}

fn image_misplaced(index: usize, place: &str) -> ApiError {
    let field = format!("messages[{index}].content");
    ApiError::new(
        ErrorKind::UnsupportedParameter,
        format!("`{field}` holds an image or a file, which this model does not take in {place}"),
    )
    .with_param(field)
}
