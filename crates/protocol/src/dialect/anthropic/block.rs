//! Messages and tools as the API's blocks. The module above says by which rules.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::chat::{ContentPart, Message, Role, Tool, ToolCall};
use crate::dialect::blocks::Origin;
use crate::dialect::media::{File, Kind, Source};
use crate::dialect::pieces::elements;
use crate::error::ApiError;
use crate::provider::Quirks;

/// A marker's field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct CacheControl {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

impl CacheControl {
    /// Five minutes are the API's default and not written, because imitators know no other lifetime.
    pub(super) fn of(seconds: u32, has_ttl: bool) -> Self {
        CacheControl {
            r#type: "ephemeral",
            ttl: (has_ttl && seconds > 300).then_some("1h"),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    Text {
        text: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    /// Never the last one of a message, so that no marker goes on it: the API takes none there.
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    Image {
        source: BlockSource<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    Document {
        source: BlockSource<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    ToolUse {
        id: Cow<'a, str>,
        name: &'a str,
        input: Cow<'a, RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        content: Vec<Block<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum BlockSource<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Url { url: &'a str },
}

#[derive(Serialize)]
pub(super) struct ToolOut<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: Cow<'a, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
struct MessageOut<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

impl<'a> Block<'a> {
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Block::Text {
            text: text.into(),
            cache_control: None,
        }
    }

    pub(super) fn mark(&mut self, marker: CacheControl) {
        match self {
            Block::Text { cache_control, .. }
            | Block::Image { cache_control, .. }
            | Block::Document { cache_control, .. }
            | Block::ToolUse { cache_control, .. }
            | Block::ToolResult { cache_control, .. } => *cache_control = Some(marker),
            Block::Thinking { .. } => {}
        }
    }
}

/// How many messages at the beginning are `system`'s.
pub(super) fn leading_system(messages: &[Message]) -> usize {
    messages
        .iter()
        .take_while(|message| is_system(message.role))
        .count()
}

/// The blocks of `system` that leading messages give.
pub(super) fn system_blocks(messages: &[Message]) -> Result<Vec<Block<'_>>, ApiError> {
    let mut blocks = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let place = Place {
            origin: Origin::Request { first: 0 },
            index,
        };
        blocks.extend(place.texts(message)?);
    }
    Ok(blocks)
}

/// Elements of `messages`. `marker_after(n)` is the marker of the last block of the first `n` messages.
pub(super) fn messages(
    messages: &[Message],
    origin: Origin,
    quirks: &Quirks,
    marker_after: impl Fn(usize) -> Option<CacheControl>,
) -> Result<Bytes, ApiError> {
    let mut out: Vec<MessageOut<'_>> = Vec::new();
    let mut after_tool = false;
    for (index, message) in messages.iter().enumerate() {
        let blocks = Place { origin, index }.blocks(message, quirks)?;
        if !blocks.is_empty() {
            let is_tool = message.role == Role::Tool;
            match out.last_mut() {
                Some(last) if is_tool && after_tool => last.content.extend(blocks),
                _ => out.push(MessageOut {
                    role: if message.role == Role::Assistant {
                        "assistant"
                    } else {
                        "user"
                    },
                    content: blocks,
                }),
            }
            after_tool = is_tool;
        }
        if let Some(marker) = marker_after(index + 1)
            && let Some(last) = out
                .last_mut()
                .and_then(|message| message.content.last_mut())
        {
            last.mark(marker);
        }
    }
    Ok(elements(&out))
}

/// Elements of `tools`, the last one with `marker`.
pub(super) fn tools(tools: &[Tool], quirks: &Quirks, marker: Option<CacheControl>) -> Bytes {
    let mut out: Vec<ToolOut<'_>> = tools.iter().map(|tool| tool_out(tool, quirks)).collect();
    if let Some(last) = out.last_mut() {
        last.cache_control = marker;
    }
    elements(&out)
}

fn tool_out<'a>(tool: &'a Tool, quirks: &Quirks) -> ToolOut<'a> {
    let is_empty = |schema: &Value| schema.as_object().is_some_and(serde_json::Map::is_empty);
    ToolOut {
        name: &tool.name,
        description: tool.description.as_deref(),
        input_schema: match &tool.parameters {
            Some(schema) if !is_empty(schema) => Cow::Borrowed(schema),
            // The API wants a schema and a type in it.
            _ => Cow::Owned(json!({"type": "object", "properties": {}})),
        },
        strict: tool.strict.filter(|strict| *strict && quirks.json_schema),
        cache_control: None,
    }
}

fn is_system(role: Role) -> bool {
    matches!(role, Role::System | Role::Developer)
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// One message's position, for errors.
#[derive(Debug, Clone, Copy)]
struct Place {
    origin: Origin,
    index: usize,
}

impl Place {
    fn refuse(self, field: &str, problem: &str) -> ApiError {
        self.origin.refuse(self.index, field, problem)
    }

    fn blocks<'a>(self, message: &'a Message, quirks: &Quirks) -> Result<Vec<Block<'a>>, ApiError> {
        match message.role {
            Role::System | Role::Developer => {
                self.texts(message)?;
                let text = message.joined_text();
                Ok(if is_blank(&text) {
                    Vec::new()
                } else {
                    vec![Block::text(format!("<system>{text}</system>"))]
                })
            }
            Role::User => self.parts(message, quirks),
            Role::Assistant => {
                let mut blocks = self.texts(message)?;
                blocks.extend(message.refusal_text().map(Block::text));
                for (index, call) in message.tool_calls.iter().enumerate() {
                    blocks.push(self.tool_use(index, call)?);
                }
                // Thinking alone is no answer.
                if let Some(signature) = message.seal_of("anthropic").filter(|_| !blocks.is_empty())
                {
                    let thinking = message.reasoning.as_deref().unwrap_or_default();
                    let block = Block::Thinking {
                        thinking,
                        signature,
                    };
                    blocks.insert(0, block);
                }
                Ok(blocks)
            }
            Role::Tool => {
                let id = message
                    .tool_call_id
                    .as_deref()
                    .ok_or_else(|| self.refuse("tool_call_id", "is required"))?;
                Ok(vec![Block::ToolResult {
                    tool_use_id: tool_id(id),
                    content: self.parts(message, quirks)?,
                    cache_control: None,
                }])
            }
        }
    }

    /// The parts of a message that may hold text only.
    fn texts(self, message: &Message) -> Result<Vec<Block<'_>>, ApiError> {
        let mut blocks = Vec::new();
        for (index, part) in message.content.iter().enumerate() {
            match part {
                ContentPart::Text { text } if is_blank(text) => {}
                ContentPart::Text { text } => blocks.push(Block::text(text)),
                ContentPart::ImageUrl { .. } | ContentPart::File { .. } => {
                    return Err(self.refuse(
                        &format!("content[{index}]"),
                        "is an image or a file, which this model's provider takes in user and tool messages only",
                    ));
                }
            }
        }
        Ok(blocks)
    }

    fn parts<'a>(self, message: &'a Message, quirks: &Quirks) -> Result<Vec<Block<'a>>, ApiError> {
        let mut blocks = Vec::new();
        for (index, part) in message.content.iter().enumerate() {
            match part {
                ContentPart::Text { text } if is_blank(text) => {}
                ContentPart::Text { text } => blocks.push(Block::text(text)),
                ContentPart::ImageUrl { url, .. } => {
                    let source = image_source(url, quirks)
                        .map_err(|problem| self.refuse(&format!("content[{index}]"), problem))?;
                    blocks.push(Block::Image {
                        source,
                        cache_control: None,
                    });
                }
                ContentPart::File {
                    url,
                    media_type,
                    name,
                } => {
                    let document = File::of(url, media_type.as_deref(), name.as_deref())
                        .and_then(document)
                        .map_err(|problem| self.refuse(&format!("content[{index}]"), problem))?;
                    blocks.push(document);
                }
            }
        }
        Ok(blocks)
    }

    fn tool_use<'a>(self, index: usize, call: &'a ToolCall) -> Result<Block<'a>, ApiError> {
        let input = match (json_object(&call.arguments), self.origin) {
            (Some(input), _) => input,
            (None, Origin::History) => invalid_json(&call.arguments),
            (None, Origin::Request { .. }) => {
                return Err(self.refuse(
                    &format!("tool_calls[{index}].function.arguments"),
                    "must be a JSON object, because this model's provider takes nothing else",
                ));
            }
        };
        Ok(Block::ToolUse {
            id: tool_id(&call.id),
            name: &call.name,
            input,
            cache_control: None,
        })
    }
}

/// The text as it is, if it is a JSON object: re-serialising it might change the prefix.
fn json_object(arguments: &str) -> Option<Cow<'_, RawValue>> {
    let text = if is_blank(arguments) { "{}" } else { arguments };
    serde_json::from_str::<&RawValue>(text)
        .ok()
        .filter(|value| value.get().starts_with('{'))
        .map(Cow::Borrowed)
}

fn invalid_json(arguments: &str) -> Cow<'static, RawValue> {
    Cow::Owned(
        to_raw_value(&json!({ "INVALID_JSON": arguments }))
            .expect("a JSON value has string keys only"),
    )
}

fn tool_id(id: &str) -> Cow<'_, str> {
    let is_allowed = |symbol: char| symbol.is_ascii_alphanumeric() || matches!(symbol, '_' | '-');
    if id.chars().all(is_allowed) {
        return Cow::Borrowed(id);
    }
    id.chars()
        .map(|symbol| if is_allowed(symbol) { symbol } else { '_' })
        .collect::<String>()
        .into()
}

/// Text is taken as text already, and no other documents are known there.
fn document(file: File<'_>) -> Result<Block<'_>, &'static str> {
    let source = match (file.kind(), file.source) {
        (Kind::Pdf, Source::Base64(data)) => BlockSource::Base64 {
            media_type: "application/pdf",
            data,
        },
        (Kind::Pdf, Source::Url(url)) => BlockSource::Url { url },
        _ => {
            return Err(
                "must be a PDF or text, because this model's provider takes no other files",
            );
        }
    };
    Ok(Block::Document {
        source,
        title: file.name,
        cache_control: None,
    })
}

fn image_source<'a>(url: &'a str, quirks: &Quirks) -> Result<BlockSource<'a>, &'static str> {
    if !quirks.images {
        return Err("is an image, which this model does not take");
    }
    if let Some(rest) = url.strip_prefix("data:") {
        let (media_type, data) = rest
            .split_once(',')
            .and_then(|(head, data)| Some((head.strip_suffix(";base64")?, data)))
            .filter(|(media_type, data)| media_type.starts_with("image/") && !data.is_empty())
            .ok_or("must be an image in base64 where it is a `data:` URL")?;
        // Parameters may follow the type; `image/jpg` is a common slip.
        let media_type = match media_type.split(';').next().unwrap_or(media_type) {
            "image/jpg" => "image/jpeg",
            media_type => media_type,
        };
        return Ok(BlockSource::Base64 { media_type, data });
    }
    if !url.starts_with("https://") {
        return Err("must be a `data:` or `https:` URL");
    }
    if quirks.inline_images_only {
        return Err("must be a `data:` URL, because this model's provider fetches nothing");
    }
    Ok(BlockSource::Url { url })
}
