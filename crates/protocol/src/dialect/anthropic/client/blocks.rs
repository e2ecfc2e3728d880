//! Messages and their blocks.

use serde_json::Value;

use super::request::marker_seconds;
use crate::chat::{CachePoint, ContentPart, Message, ReasoningSignature, Role, ToolCall};
use crate::dialect::fields::{Fields, invalid, wrong_type};
use crate::dialect::media;
use crate::error::{ApiError, ErrorKind};

const KIND: ErrorKind = ErrorKind::InvalidMessage;
const BLOCKS_MAX: usize = 100_000;
/// Dialects whose seals clients of this one may bring back.
const FOREIGN_SEALS: &[&str] = &["gemini:", "responses:", "bedrock:", "anthropic:"];

/// Messages as they are read, with the places of markers.
#[derive(Default)]
pub(super) struct Conversation {
    pub(super) messages: Vec<Message>,
    pub(super) points: Vec<CachePoint>,
    /// Blocks with a marker.
    pub(super) markers: usize,
    /// The first thing that only Anthropic itself can do.
    pub(super) only: Option<ApiError>,
    /// Whether another upstream's seal is in it, which Anthropic would refuse.
    pub(super) has_foreign_seals: bool,
}

impl Conversation {
    /// Notes what only Anthropic itself can do; the request goes on without it, to be refused by everybody else.
    pub(super) fn tolerate(&mut self, result: Result<(), ApiError>) -> Result<(), ApiError> {
        match result {
            Err(error) if error.kind == ErrorKind::UnsupportedParameter => {
                self.only.get_or_insert(error);
                Ok(())
            }
            result => result,
        }
    }

    pub(super) fn mark_tools(&mut self, seconds: u32) {
        self.markers += 1;
        // What stands in `system` follows the tools, and was read before them.
        self.points.insert(
            0,
            CachePoint {
                messages: 0,
                ttl_seconds: Some(seconds),
            },
        );
    }

    /// The field `system`.
    pub(super) fn system(&mut self, system: Value) -> Result<(), ApiError> {
        let blocks = match system {
            Value::String(text) if text.is_empty() => return Ok(()),
            Value::String(text) => {
                self.messages.push(Message::text(Role::System, text));
                return Ok(());
            }
            Value::Array(blocks) => blocks,
            other => {
                return Err(wrong_type(
                    KIND,
                    "system",
                    "a string or an array of text blocks",
                    &other,
                ));
            }
        };
        let mut draft = Draft::new(Role::System);
        for (index, block) in blocks.into_iter().enumerate() {
            let mut block = Fields::of_value(block, format!("system[{index}]"), KIND)?;
            if block.required_string("type")? != "text" {
                return Err(block.invalid("type", "must be text"));
            }
            let text = block.text("text")?.ok_or_else(|| block.missing("text"))?;
            draft.text(text);
            self.mark(&mut draft, &mut block)?;
        }
        self.flush(&mut draft);
        Ok(())
    }

    /// An element of `messages`.
    pub(super) fn message(&mut self, message: Value, index: usize) -> Result<(), ApiError> {
        let path = format!("messages[{index}]");
        let mut fields = Fields::of_value(message, path.clone(), KIND)?;
        let role = match fields.required_string("role")?.as_str() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            _ => {
                return Err(invalid(
                    ErrorKind::UnknownRole,
                    &format!("{path}.role"),
                    "must be user, assistant or system",
                ));
            }
        };
        let content = fields
            .value("content")
            .ok_or_else(|| fields.missing("content"))?;
        let mut draft = Draft::new(role);
        match content {
            Value::String(text) => draft.text(text),
            Value::Array(blocks) if blocks.len() > BLOCKS_MAX => {
                return Err(
                    fields.invalid("content", format!("may have at most {BLOCKS_MAX} blocks"))
                );
            }
            Value::Array(blocks) => {
                for (number, block) in blocks.into_iter().enumerate() {
                    let path = format!("{path}.content[{number}]");
                    let mut block = Fields::of_value(block, path, KIND)?;
                    let read = self.block(&mut draft, &mut block);
                    self.tolerate(read)?;
                    self.mark(&mut draft, &mut block)?;
                }
            }
            other => {
                return Err(fields.wrong_type("content", "a string or an array of blocks", &other));
            }
        }
        // The whole message may have been markers' parts or results of tools.
        self.flush(&mut draft);
        Ok(())
    }

    fn block(&mut self, draft: &mut Draft, block: &mut Fields) -> Result<(), ApiError> {
        let kind = block.required_string("type")?;
        match (kind.as_str(), draft.message.role) {
            ("text", _) => {
                let text = block.text("text")?.ok_or_else(|| block.missing("text"))?;
                draft.text(text);
            }
            ("image", Role::User) => draft.part(image(block)?),
            ("document", Role::User) => {
                for part in document(block)? {
                    draft.part(part);
                }
            }
            ("tool_result", Role::User) => {
                self.flush(draft);
                let mut result = Message::text(Role::Tool, "");
                result.tool_call_id = Some(block.required_string("tool_use_id")?);
                result.content = result_content(block)?;
                self.messages.push(result);
            }
            ("tool_use", Role::Assistant) => {
                let input = block.map("input")?.unwrap_or_default();
                draft.message.tool_calls.push(ToolCall {
                    id: block.required_string("id")?,
                    name: block.required_string("name")?,
                    arguments: Value::Object(input).to_string(),
                });
                draft.is_used = true;
            }
            ("thinking", Role::Assistant) => {
                let text = block.text("thinking")?.unwrap_or_default();
                draft
                    .message
                    .reasoning
                    .get_or_insert_default()
                    .push_str(&text);
                if let Some(seal) = block.string("signature")? {
                    let seal = signature(seal);
                    self.has_foreign_seals |= seal.of("anthropic").is_none();
                    draft.message.reasoning_signature = Some(seal);
                    draft.seals += 1;
                }
                draft.is_used = true;
            }
            ("redacted_thinking", Role::Assistant) => draft.seals += 1,
            (
                "image" | "document" | "tool_result" | "tool_use" | "thinking"
                | "redacted_thinking",
                role,
            ) => {
                return Err(block.invalid(
                    "type",
                    format!("can't stand in a message of the role {}", role.as_str()),
                ));
            }
            _ => {
                return Err(ApiError::unsupported(
                    &block.path_of("type"),
                    "is of something that Anthropic does itself, or is not known here",
                ));
            }
        }
        Ok(())
    }

    /// Ends the message at a marker.
    fn mark(&mut self, draft: &mut Draft, block: &mut Fields) -> Result<(), ApiError> {
        let Some(seconds) = marker_seconds(block)? else {
            return Ok(());
        };
        self.markers += 1;
        draft.marker = Some(seconds);
        // An assistant's message is one whatever it is made of: its marker counts at its end.
        if draft.message.role != Role::Assistant {
            self.flush(draft);
        }
        Ok(())
    }

    fn flush(&mut self, draft: &mut Draft) {
        let next = Draft::new(draft.message.role);
        let Draft {
            mut message,
            marker,
            is_used,
            seals,
        } = std::mem::replace(draft, next);
        // A seal is for one block, not for all that was thought.
        if seals > 1 {
            message.reasoning_signature = None;
        }
        if is_used {
            self.messages.push(message);
        }
        if let Some(seconds) = marker {
            self.points.push(CachePoint {
                messages: self.messages.len(),
                ttl_seconds: Some(seconds),
            });
        }
    }
}

/// A message being read.
struct Draft {
    message: Message,
    marker: Option<u32>,
    is_used: bool,
    /// Sealed blocks of thinking, those included that nobody can read.
    seals: usize,
}

impl Draft {
    fn new(role: Role) -> Self {
        let mut message = Message::text(role, "");
        message.content.clear();
        Draft {
            message,
            marker: None,
            is_used: false,
            seals: 0,
        }
    }

    fn text(&mut self, text: String) {
        self.part(ContentPart::Text { text });
    }

    fn part(&mut self, part: ContentPart) {
        self.message.content.push(part);
        self.is_used = true;
    }
}

fn signature(seal: String) -> ReasoningSignature {
    match FOREIGN_SEALS.iter().any(|tag| seal.starts_with(tag)) {
        true => ReasoningSignature(seal),
        false => ReasoningSignature::new("anthropic", &seal),
    }
}

fn image(block: &mut Fields) -> Result<ContentPart, ApiError> {
    let mut source = block
        .object("source")?
        .ok_or_else(|| block.missing("source"))?;
    let url = match source.required_string("type")?.as_str() {
        "base64" => data_url(&mut source)?,
        "url" => source.required_string("url")?,
        _ => return Err(unknown_source(&source)),
    };
    Ok(ContentPart::ImageUrl { url, detail: None })
}

fn data_url(source: &mut Fields) -> Result<String, ApiError> {
    let media_type = source.required_string("media_type")?;
    let data = source.required_string("data")?;
    Ok(format!("data:{media_type};base64,{data}"))
}

fn unknown_source(source: &Fields) -> ApiError {
    ApiError::unsupported(
        &source.path_of("type"),
        "must be base64 or url: files by id are at Anthropic",
    )
}

fn document(block: &mut Fields) -> Result<Vec<ContentPart>, ApiError> {
    let title = block.string("title")?;
    let context = block.string("context")?;
    let mut source = block
        .object("source")?
        .ok_or_else(|| block.missing("source"))?;
    let text = |text: String| ContentPart::Text { text };
    // What the API takes by URL are PDFs.
    let file = |url: String, name| media::part(url, Some("application/pdf".to_owned()), name);
    let mut parts: Vec<ContentPart> = context.map(text).into_iter().collect();
    match source.required_string("type")?.as_str() {
        "base64" => parts.push(file(data_url(&mut source)?, title)),
        "url" => parts.push(file(source.required_string("url")?, title)),
        "text" => {
            parts.extend(title.map(text));
            parts.push(text(source.required_string("data")?));
        }
        "content" => {
            parts.extend(title.map(text));
            parts.extend(parts_of(&mut source)?);
        }
        _ => return Err(unknown_source(&source)),
    }
    Ok(parts)
}

/// A result's content: a string, blocks, or nothing.
fn result_content(block: &mut Fields) -> Result<Vec<ContentPart>, ApiError> {
    let parts = parts_of(block)?;
    Ok(match parts.is_empty() {
        true => vec![ContentPart::Text {
            text: String::new(),
        }],
        false => parts,
    })
}

/// `content` that is a string or blocks of text, images and documents.
fn parts_of(block: &mut Fields) -> Result<Vec<ContentPart>, ApiError> {
    let blocks = match block.value("content") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(vec![ContentPart::Text { text }]),
        Some(Value::Array(blocks)) => blocks,
        Some(other) => {
            return Err(block.wrong_type("content", "a string or an array of blocks", &other));
        }
    };
    let mut parts = Vec::new();
    for (number, inner) in blocks.into_iter().enumerate() {
        let path = block.path_of(&format!("content[{number}]"));
        let mut inner = Fields::of_value(inner, path, KIND)?;
        match inner.required_string("type")?.as_str() {
            "text" => parts.push(ContentPart::Text {
                text: inner.text("text")?.ok_or_else(|| inner.missing("text"))?,
            }),
            "image" => parts.push(image(&mut inner)?),
            // A document in a document ends here: only its own text could be one more level.
            "document" => {
                let mut source = inner
                    .object("source")?
                    .ok_or_else(|| inner.missing("source"))?;
                parts.push(match source.required_string("type")?.as_str() {
                    "text" => ContentPart::Text {
                        text: source.required_string("data")?,
                    },
                    "base64" => media::part(data_url(&mut source)?, None, inner.string("title")?),
                    "url" => {
                        let pdf = Some("application/pdf".to_owned());
                        media::part(source.required_string("url")?, pdf, inner.string("title")?)
                    }
                    _ => return Err(unknown_source(&source)),
                });
            }
            _ => {
                return Err(ApiError::unsupported(
                    &inner.path_of("type"),
                    "must be text, image or document",
                ));
            }
        }
    }
    Ok(parts)
}
