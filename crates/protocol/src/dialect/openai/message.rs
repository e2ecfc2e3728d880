//! Messages: from clients, and to upstreams of this dialect.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::MESSAGES_MAX;
use crate::chat::{CachePoint, ContentPart, Message, Role, ToolCall};
use crate::dialect::cache::{self, Cuts};
use crate::dialect::fields::Fields;
use crate::dialect::media::{self, File, Kind, Source};
use crate::error::{ApiError, ErrorKind};
use crate::provider::{Marker, Quirks};

const TOOL_CALLS_MAX: usize = 512;
const PARTS_MAX: usize = 100_000;

/// The field `messages`, at least one. Markers in them mean nothing here: a context is a prefix already.
pub(super) fn decode_messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let messages = decode_all(fields)?;
    Ok(messages.into_iter().map(|(message, _)| message).collect())
}

/// The field `messages` with its markers; a user's or system's message with one in its middle becomes two.
pub(super) fn decode_marked(
    fields: &mut Fields,
) -> Result<(Vec<Message>, Vec<CachePoint>), ApiError> {
    let mut messages = Vec::new();
    let mut points = Vec::new();
    for (message, cuts) in decode_all(fields)? {
        cache::push_marked(message, cuts, &mut messages, &mut points);
    }
    Ok((messages, points))
}

fn decode_all(fields: &mut Fields) -> Result<Vec<(Message, Cuts)>, ApiError> {
    let values = fields
        .array("messages", MESSAGES_MAX)?
        .ok_or_else(|| fields.missing("messages"))?;
    if values.is_empty() {
        return Err(fields.invalid("messages", "must hold at least one message"));
    }
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            let path = format!("messages[{index}]");
            decode_message(Fields::of_value(value, path, ErrorKind::InvalidMessage)?)
        })
        .collect()
}

fn decode_message(mut fields: Fields) -> Result<(Message, Cuts), ApiError> {
    let role = decode_role(&mut fields)?;
    let tool_calls = decode_tool_calls(&mut fields)?;
    if role != Role::Assistant && !tool_calls.is_empty() {
        return Err(fields.invalid("tool_calls", "are for assistant messages only"));
    }
    let refusal = fields.string("refusal")?;
    let says_something = !tool_calls.is_empty() || refusal.is_some();
    let (content, cuts) = decode_content(&mut fields, says_something)?;
    let tool_call_id = fields.string("tool_call_id")?;
    let reasoning = fields.string("reasoning_content")?;
    let message = Message {
        role,
        content,
        name: fields.string("name")?,
        tool_calls,
        tool_call_id: tool_call_id.filter(|_| role == Role::Tool),
        reasoning: reasoning.filter(|_| role == Role::Assistant),
        reasoning_signature: None,
        refusal: refusal.filter(|_| role == Role::Assistant),
    };
    Ok((message, cuts))
}

fn decode_role(fields: &mut Fields) -> Result<Role, ApiError> {
    match fields.required_string("role")?.as_str() {
        "system" => Ok(Role::System),
        "developer" => Ok(Role::Developer),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        _ => Err(ApiError::unknown_role(&fields.path_of("role"))),
    }
}

/// Beside tool calls or a refusal, no content and empty content are the same.
fn decode_content(
    fields: &mut Fields,
    has_tool_calls: bool,
) -> Result<(Vec<ContentPart>, Cuts), ApiError> {
    let path = fields.path_of("content");
    let content = match fields.value("content") {
        None if has_tool_calls => Vec::new(),
        None => return Err(fields.missing("content")),
        Some(Value::String(text)) if has_tool_calls && text.is_empty() => Vec::new(),
        Some(Value::String(text)) => vec![ContentPart::Text { text }],
        Some(Value::Array(parts)) if parts.is_empty() && !has_tool_calls => {
            return Err(fields.invalid("content", "must have at least one part"));
        }
        Some(Value::Array(parts)) if parts.len() > PARTS_MAX => {
            return Err(fields.invalid("content", format!("may have at most {PARTS_MAX} parts")));
        }
        Some(Value::Array(values)) => {
            let mut parts = Vec::with_capacity(values.len());
            let mut cuts = Vec::new();
            for (index, value) in values.into_iter().enumerate() {
                let path = format!("{path}[{index}]");
                let mut fields = Fields::of_value(value, path, ErrorKind::InvalidMessage)?;
                let marker = cache::marker(&mut fields)?;
                parts.push(decode_part(fields)?);
                cuts.extend(marker.map(|ttl_seconds| (index + 1, ttl_seconds)));
            }
            return Ok((parts, cuts));
        }
        Some(other) => {
            return Err(fields.wrong_type("content", "a string or an array of parts", &other));
        }
    };
    Ok((content, Vec::new()))
}

fn decode_part(mut fields: Fields) -> Result<ContentPart, ApiError> {
    match fields.required_string("type")?.as_str() {
        "text" => {
            let text = fields.text("text")?.ok_or_else(|| fields.missing("text"))?;
            Ok(ContentPart::Text { text })
        }
        // An assistant's refusal that a client sends back with the history is text to the model.
        "refusal" => {
            let text = fields
                .text("refusal")?
                .ok_or_else(|| fields.missing("refusal"))?;
            Ok(ContentPart::Text { text })
        }
        "image_url" => decode_image(fields),
        "file" => decode_file(fields),
        "input_audio" => decode_audio(fields),
        _ => Err(ApiError::unsupported(
            &fields.path_of("type"),
            "is a kind of content that is not supported: use `text`, `image_url`, `file` or `input_audio`",
        )),
    }
}

fn decode_image(mut fields: Fields) -> Result<ContentPart, ApiError> {
    let path = fields.path_of("image_url");
    match fields.value("image_url") {
        Some(Value::String(url)) if !url.is_empty() => {
            Ok(ContentPart::ImageUrl { url, detail: None })
        }
        None | Some(Value::String(_)) => Err(fields.missing("image_url")),
        Some(value) => {
            let mut image = Fields::of_value(value, path, ErrorKind::InvalidMessage)?;
            Ok(ContentPart::ImageUrl {
                url: image.required_string("url")?,
                detail: image.string("detail")?,
            })
        }
    }
}

fn decode_file(mut fields: Fields) -> Result<ContentPart, ApiError> {
    let mut file = fields
        .object("file")?
        .ok_or_else(|| fields.missing("file"))?;
    if file.has("file_id") {
        return Err(ApiError::unsupported(
            &file.path_of("file_id"),
            "names a file that the gateway does not have: send `file_data`",
        ));
    }
    let name = file.string("filename")?;
    let data = file.required_string("file_data")?;
    Ok(media::part(
        media::url_of_data(data, name.as_deref()),
        None,
        name,
    ))
}

fn decode_audio(mut fields: Fields) -> Result<ContentPart, ApiError> {
    let mut audio = fields
        .object("input_audio")?
        .ok_or_else(|| fields.missing("input_audio"))?;
    let format = audio.required_string("format")?;
    let data = audio.required_string("data")?;
    let media_type = format!("audio/{format}");
    Ok(ContentPart::File {
        url: format!("data:{media_type};base64,{data}"),
        media_type: Some(media_type),
        name: None,
    })
}

fn decode_tool_calls(fields: &mut Fields) -> Result<Vec<ToolCall>, ApiError> {
    let values = fields
        .array("tool_calls", TOOL_CALLS_MAX)?
        .unwrap_or_default();
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            let path = fields.path_of(&format!("tool_calls[{index}]"));
            decode_tool_call(Fields::of_value(value, path, ErrorKind::InvalidMessage)?)
        })
        .collect()
}

fn decode_tool_call(mut fields: Fields) -> Result<ToolCall, ApiError> {
    let id = fields.required_string("id")?;
    let mut function = fields
        .object("function")?
        .ok_or_else(|| fields.missing("function"))?;
    let name = function.required_string("name")?;
    let arguments = match function.value("arguments") {
        None => String::new(),
        Some(Value::String(text)) => text,
        // Some clients send the parsed arguments back.
        Some(value @ Value::Object(_)) => value.to_string(),
        Some(other) => return Err(function.wrong_type("arguments", "a string", &other)),
    };
    Ok(ToolCall {
        id,
        name,
        arguments,
    })
}

/// A marker on a block of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// How it is written.
    pub(super) marker: Marker,
    /// The lifetime in the provider's word; `None`: the provider's default.
    pub(super) ttl: Option<&'static str>,
}

/// Checks that an upstream of these quirks takes the message at `path`.
pub(super) fn check_message(
    message: &Message,
    quirks: &Quirks,
    path: impl Fn() -> String,
) -> Result<(), ApiError> {
    for (index, part) in message.content.iter().enumerate() {
        let problem = match part {
            ContentPart::Text { .. } => None,
            ContentPart::ImageUrl { .. } if !quirks.images => {
                Some("is an image, which this model's provider does not take")
            }
            ContentPart::ImageUrl { url, .. }
                if quirks.inline_images_only && !url.starts_with("data:") =>
            {
                Some("must be sent inline (`data:`): this model's provider fetches no images")
            }
            ContentPart::ImageUrl { .. } => None,
            ContentPart::File { .. } if message.role != Role::User => {
                Some("is a file, which this model's provider takes in user messages only")
            }
            ContentPart::File {
                url,
                media_type,
                name,
            } => File::of(url, media_type.as_deref(), name.as_deref())
                .and_then(|file| file_out(file, quirks))
                .err(),
        };
        let Some(problem) = problem else {
            continue;
        };
        let part = format!("{}.content[{index}]", path());
        return Err(ApiError::unsupported(&part, problem));
    }
    Ok(())
}

/// The part of the message that can carry a marker, the last of them; `None`: there is none.
pub(super) fn markable_part(message: &Message, marker: Marker) -> Option<usize> {
    message.content.iter().rposition(|part| match part {
        // An empty text is no block to any provider.
        ContentPart::Text { text } => !text.is_empty() && marker != Marker::CachePoint,
        ContentPart::ImageUrl { .. } | ContentPart::File { .. } => {
            marker == Marker::PromptCacheBreakpoint
        }
    })
}

#[derive(Serialize)]
pub(super) struct MessageOut<'a> {
    role: &'static str,
    content: Option<ContentOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCallOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ContentOut<'a> {
    Text(&'a str),
    Parts(Vec<PartOut<'a>>),
}

#[derive(Serialize)]
struct PartOut<'a> {
    #[serde(flatten)]
    block: BlockOut<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControlOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_breakpoint: Option<BreakpointOut>,
}

impl<'a> PartOut<'a> {
    /// Without a marker.
    fn plain(block: BlockOut<'a>) -> Self {
        PartOut {
            block,
            cache_control: None,
            prompt_cache_breakpoint: None,
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum BlockOut<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageOut<'a> },
    File { file: FileOut<'a> },
    InputAudio { input_audio: AudioOut<'a> },
}

#[derive(Serialize)]
struct FileOut<'a> {
    filename: Cow<'a, str>,
    /// A `data:` URL.
    file_data: String,
}

#[derive(Serialize)]
struct AudioOut<'a> {
    data: &'a str,
    format: &'static str,
}

#[derive(Serialize)]
struct CacheControlOut {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

#[derive(Serialize)]
struct BreakpointOut {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

#[derive(Serialize)]
struct ImageOut<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct ToolCallOut<'a> {
    id: &'a str,
    r#type: &'static str,
    function: FunctionCallOut<'a>,
}

#[derive(Serialize)]
struct FunctionCallOut<'a> {
    name: &'a str,
    arguments: &'a str,
}

/// The message for an upstream of these quirks, with a marker on its last markable part where one is given.
pub(super) fn message_out<'a>(
    message: &'a Message,
    quirks: &Quirks,
    mark: Option<Mark>,
) -> MessageOut<'a> {
    let marked = mark.and_then(|mark| Some((markable_part(message, mark.marker)?, mark)));
    MessageOut {
        role: match message.role {
            Role::Developer if !quirks.developer_role => Role::System.as_str(),
            role => role.as_str(),
        },
        content: match (&message.content[..], message.refusal_text()) {
            ([], None) => None,
            ([], Some(refusal)) => Some(ContentOut::Text(refusal)),
            ([ContentPart::Text { text }], None) if marked.is_none() => {
                Some(ContentOut::Text(text))
            }
            (parts, refusal) => {
                let mut parts = parts_out(parts, marked, quirks);
                parts.extend(refusal.map(|text| PartOut::plain(BlockOut::Text { text })));
                Some(ContentOut::Parts(parts))
            }
        },
        name: message.name.as_deref(),
        reasoning_content: message
            .reasoning
            .as_deref()
            .filter(|_| quirks.reasoning_history),
        tool_calls: message.tool_calls.iter().map(tool_call_out).collect(),
        tool_call_id: message.tool_call_id.as_deref(),
    }
}

fn parts_out<'a>(
    parts: &'a [ContentPart],
    marked: Option<(usize, Mark)>,
    quirks: &Quirks,
) -> Vec<PartOut<'a>> {
    parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            let mark = marked.and_then(|(at, mark)| (at == index).then_some(mark));
            let mark_of = |marker| mark.filter(|mark| mark.marker == marker);
            PartOut {
                block: block_out(part, quirks),
                cache_control: mark_of(Marker::CacheControl).map(|mark| CacheControlOut {
                    r#type: "ephemeral",
                    ttl: mark.ttl,
                }),
                prompt_cache_breakpoint: mark_of(Marker::PromptCacheBreakpoint).map(|mark| {
                    BreakpointOut {
                        mode: "explicit",
                        ttl: mark.ttl,
                    }
                }),
            }
        })
        .collect()
}

fn block_out<'a>(part: &'a ContentPart, quirks: &Quirks) -> BlockOut<'a> {
    match part {
        ContentPart::Text { text } => BlockOut::Text { text },
        ContentPart::ImageUrl { url, detail } => BlockOut::ImageUrl {
            image_url: ImageOut {
                url,
                detail: detail.as_deref(),
            },
        },
        // What can't be sent was refused by `check_message`; an upstream would say so of an empty text.
        ContentPart::File {
            url,
            media_type,
            name,
        } => File::of(url, media_type.as_deref(), name.as_deref())
            .and_then(|file| file_out(file, quirks))
            .unwrap_or(BlockOut::Text { text: "" }),
    }
}

fn file_out<'a>(file: File<'a>, quirks: &Quirks) -> Result<BlockOut<'a>, &'static str> {
    let Source::Base64(data) = file.source else {
        return Err("must be a `data:` URL, because this model's provider fetches no files");
    };
    match (file.kind(), file.media_type) {
        (Kind::Sound, _) if !quirks.sound => {
            Err("is sound, which this model's provider does not take")
        }
        (Kind::Sound, Some(media_type)) => Ok(BlockOut::InputAudio {
            input_audio: AudioOut {
                data,
                format: sound_format(media_type)
                    .ok_or("is sound that this model's provider does not take: send wav or mp3")?,
            },
        }),
        (Kind::Video, _) => Err("is a video, which this model's provider does not take"),
        _ if !quirks.documents => Err("is a document, which this model's provider does not take"),
        (_, None) => {
            Err("is a document of a kind that nobody names: give it a media type or a name")
        }
        (_, Some(media_type)) => Ok(BlockOut::File {
            file: FileOut {
                filename: file.file_name(),
                file_data: format!("data:{media_type};base64,{data}"),
            },
        }),
    }
}

fn sound_format(media_type: &str) -> Option<&'static str> {
    match media_type.to_ascii_lowercase().as_str() {
        "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => Some("wav"),
        "audio/mp3" | "audio/mpeg" => Some("mp3"),
        _ => None,
    }
}

fn tool_call_out(call: &ToolCall) -> ToolCallOut<'_> {
    ToolCallOut {
        id: &call.id,
        r#type: "function",
        function: FunctionCallOut {
            name: &call.name,
            arguments: &call.arguments,
        },
    }
}
