//! Messages and tools as the API's blocks. The module above says by which rules.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::chat::{ContentPart, Message, Role, Tool, ToolCall};
use crate::dialect::blocks::Origin;
use crate::dialect::media::{File, Source};
use crate::error::ApiError;
use crate::provider::Quirks;

/// The longest id of a call that the API takes, characters.
const TOOL_ID_LENGTH_MAX: usize = 64;
/// The longest name of a document that is written, characters; the API takes 200.
const DOCUMENT_NAME_MAX: usize = 180;
/// What kinds of documents are called, by their media types.
const DOCUMENTS: &[(&str, &str)] = &[
    ("application/pdf", "pdf"),
    ("text/plain", "txt"),
    ("text/markdown", "md"),
    ("text/csv", "csv"),
    ("text/html", "html"),
    ("application/msword", "doc"),
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "docx",
    ),
    ("application/vnd.ms-excel", "xls"),
    (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xlsx",
    ),
];

/// A marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct CachePoint {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

impl CachePoint {
    /// Five minutes are the API's default and not written, because models that know no other lifetime refuse the field.
    pub(super) fn of(seconds: u32, has_ttl: bool) -> Self {
        CachePoint {
            r#type: "default",
            ttl: (has_ttl && seconds > 300).then_some("1h"),
        }
    }
}

/// An element of a message's content, of `system` or of a tool's result.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Block<'a> {
    Text(Cow<'a, str>),
    ReasoningContent(ReasoningContent<'a>),
    Image(Image<'a>),
    Document(Document<'a>),
    ToolUse(ToolUse<'a>),
    ToolResult(ToolResult<'a>),
    CachePoint(CachePoint),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReasoningContent<'a> {
    reasoning_text: ReasoningText<'a>,
}

#[derive(Serialize)]
struct ReasoningText<'a> {
    text: &'a str,
    signature: &'a str,
}

#[derive(Serialize)]
pub(super) struct Image<'a> {
    format: &'static str,
    source: BlobSource<'a>,
}

#[derive(Serialize)]
pub(super) struct Document<'a> {
    format: &'static str,
    name: String,
    source: BlobSource<'a>,
}

#[derive(Serialize)]
struct BlobSource<'a> {
    /// Base64.
    bytes: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolUse<'a> {
    tool_use_id: Cow<'a, str>,
    name: &'a str,
    input: Cow<'a, RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolResult<'a> {
    tool_use_id: Cow<'a, str>,
    content: Vec<Block<'a>>,
}

/// An element of the tools.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ToolOut<'a> {
    ToolSpec(ToolSpec<'a>),
    CachePoint(CachePoint),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolSpec<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: InputSchema<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
struct InputSchema<'a> {
    json: Cow<'a, Value>,
}

pub(super) fn tool_out<'a>(tool: &'a Tool, quirks: &Quirks) -> ToolOut<'a> {
    ToolOut::ToolSpec(ToolSpec {
        name: &tool.name,
        description: tool.description.as_deref(),
        input_schema: InputSchema {
            json: match &tool.parameters {
                Some(schema) if !schema.as_object().is_some_and(Map::is_empty) => {
                    Cow::Borrowed(schema)
                }
                // The API wants a schema and a type in it.
                _ => Cow::Owned(json!({"type": "object", "properties": {}})),
            },
        },
        strict: tool.strict.filter(|strict| *strict && quirks.json_schema),
    })
}

/// How many messages at the beginning are `system`'s.
pub(super) fn leading_system(messages: &[Message]) -> usize {
    messages
        .iter()
        .take_while(|message| matches!(message.role, Role::System | Role::Developer))
        .count()
}

/// The blocks of `system` that leading messages give.
pub(super) fn system_blocks(messages: &[Message]) -> Result<Vec<Block<'_>>, ApiError> {
    let mut blocks = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let origin = Origin::Request { first: 0 };
        blocks.extend(Place { origin, index }.texts(message)?);
    }
    Ok(blocks)
}

/// The content of one message; empty if nothing of it can be sent.
pub(super) fn blocks<'a>(
    message: &'a Message,
    origin: Origin,
    index: usize,
    quirks: &Quirks,
) -> Result<Vec<Block<'a>>, ApiError> {
    Place { origin, index }.blocks(message, quirks)
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
                    vec![Block::Text(format!("<system>{text}</system>").into())]
                })
            }
            Role::User => self.parts(message, quirks),
            Role::Assistant => {
                let mut blocks = self.texts(message)?;
                let refusal = message.refusal_text();
                blocks.extend(refusal.map(|refusal| Block::Text(refusal.into())));
                for (index, call) in message.tool_calls.iter().enumerate() {
                    blocks.push(self.tool_use(index, call)?);
                }
                // Thinking alone is no answer.
                if let Some(signature) = message.seal_of("bedrock").filter(|_| !blocks.is_empty()) {
                    let text = message.reasoning.as_deref().unwrap_or_default();
                    let reasoning_text = ReasoningText { text, signature };
                    blocks.insert(
                        0,
                        Block::ReasoningContent(ReasoningContent { reasoning_text }),
                    );
                }
                Ok(blocks)
            }
            Role::Tool => {
                let id = message
                    .tool_call_id
                    .as_deref()
                    .ok_or_else(|| self.refuse("tool_call_id", "is required"))?;
                Ok(vec![Block::ToolResult(ToolResult {
                    tool_use_id: tool_id(id),
                    content: self.parts(message, quirks)?,
                })])
            }
        }
    }

    /// The parts of a message that may hold text only.
    fn texts(self, message: &Message) -> Result<Vec<Block<'_>>, ApiError> {
        let mut blocks = Vec::new();
        for (index, part) in message.content.iter().enumerate() {
            match part {
                ContentPart::Text { text } if is_blank(text) => {}
                ContentPart::Text { text } => blocks.push(Block::Text(text.into())),
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
        let mut has_text = false;
        for (index, part) in message.content.iter().enumerate() {
            match part {
                ContentPart::Text { text } if is_blank(text) => {}
                ContentPart::Text { text } => {
                    has_text = true;
                    blocks.push(Block::Text(text.into()));
                }
                ContentPart::ImageUrl { url, .. } => {
                    let image = image(url, quirks)
                        .map_err(|problem| self.refuse(&format!("content[{index}]"), problem))?;
                    blocks.push(Block::Image(image));
                }
                ContentPart::File {
                    url,
                    media_type,
                    name,
                } => {
                    let document = File::of(url, media_type.as_deref(), name.as_deref())
                        .and_then(document)
                        .map_err(|problem| self.refuse(&format!("content[{index}]"), problem))?;
                    blocks.push(Block::Document(document));
                }
            }
        }
        // The API takes no message of documents without a text.
        let named = blocks.iter().find_map(|block| match block {
            Block::Document(document) if !has_text => Some(document.name.clone()),
            _ => None,
        });
        blocks.extend(named.map(|name| Block::Text(name.into())));
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
        Ok(Block::ToolUse(ToolUse {
            tool_use_id: tool_id(&call.id),
            name: &call.name,
            input,
        }))
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
    // The service's present description allows `.` and `:` as well, earlier ones did not.
    let is_allowed = |symbol: char| symbol.is_ascii_alphanumeric() || matches!(symbol, '_' | '-');
    if id.len() <= TOOL_ID_LENGTH_MAX && id.chars().all(is_allowed) {
        return Cow::Borrowed(id);
    }
    let surplus = id.chars().count().saturating_sub(TOOL_ID_LENGTH_MAX);
    id.chars()
        .skip(surplus)
        .map(|symbol| if is_allowed(symbol) { symbol } else { '_' })
        .collect::<String>()
        .into()
}

fn document(file: File<'_>) -> Result<Document<'_>, &'static str> {
    let Source::Base64(bytes) = file.source else {
        return Err(
            "must be a `data:` URL in base64, because this model's provider fetches nothing",
        );
    };
    let media_type = file.media_type.unwrap_or_default().to_ascii_lowercase();
    let format = DOCUMENTS.iter().find(|(known, _)| *known == media_type);
    let (_, format) = format.ok_or(
        "must be a PDF, text, CSV, HTML, Markdown, Word or Excel document: this model's provider takes no other files",
    )?;
    Ok(Document {
        format,
        name: document_name(&file, bytes),
        source: BlobSource { bytes },
    })
}

/// The API allows few characters in names and each name once, so what the document holds is in it, too. It is the same
/// on every turn.
fn document_name(file: &File<'_>, bytes: &str) -> String {
    let is_allowed = |symbol: &char| {
        symbol.is_ascii_alphanumeric() || matches!(symbol, ' ' | '-' | '(' | ')' | '[' | ']')
    };
    let name = file.file_name();
    let name = name.rsplit_once('.').map_or(&*name, |(name, _)| name);
    let symbols = name
        .chars()
        .map(|symbol| Some(symbol).filter(is_allowed).unwrap_or(' '));
    let name: String = symbols.take(DOCUMENT_NAME_MAX).collect();
    let mut words: Vec<&str> = name.split_whitespace().collect();
    if words.is_empty() {
        words.push("document");
    }
    // FNV-1a.
    let digest = bytes.bytes().fold(0x811c_9dc5_u32, |digest, byte| {
        (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{} {digest:08x}", words.join(" "))
}

fn image<'a>(url: &'a str, quirks: &Quirks) -> Result<Image<'a>, &'static str> {
    if !quirks.images {
        return Err("is an image, which this model does not take");
    }
    let (media_type, bytes) = url
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(','))
        .and_then(|(head, data)| Some((head.strip_suffix(";base64")?, data)))
        .filter(|(_, data)| !data.is_empty())
        .ok_or("must be a `data:` URL in base64, because this model's provider fetches nothing")?;
    // Parameters may follow the type; `image/jpg` is a common slip.
    let format = match media_type.split(';').next().unwrap_or(media_type) {
        "image/png" => "png",
        "image/jpeg" | "image/jpg" => "jpeg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        _ => return Err("must be a PNG, JPEG, GIF or WebP image"),
    };
    Ok(Image {
        format,
        source: BlobSource { bytes },
    })
}
