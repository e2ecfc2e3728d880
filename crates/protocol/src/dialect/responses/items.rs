//! Messages as items of `input`.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use crate::chat::{ContentPart, Message, Role, ToolCall};
use crate::dialect::media::{File, Kind, Source};
use crate::dialect::pieces::elements;
use crate::error::ApiError;
use crate::provider::Quirks;

/// Whose Responses API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    OpenAi,
    Ark,
}

/// A place for a breakpoint: number of the message, and of its content part.
type Place = (usize, usize);

/// A breakpoint on a content block.
#[derive(Debug, Clone, Copy, Serialize)]
struct Breakpoint {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Message {
        role: &'static str,
        content: Content<'a>,
    },
    Call {
        r#type: &'static str,
        call_id: &'a str,
        name: &'a str,
        arguments: &'a str,
    },
    Result {
        r#type: &'static str,
        call_id: &'a str,
        output: Content<'a>,
    },
    /// Always before what it led to: the API refuses it alone.
    Reasoning {
        r#type: &'static str,
        summary: Vec<Block<'a>>,
        encrypted_content: &'a str,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(String),
    Blocks(Vec<Block<'a>>),
}

#[derive(Serialize, Default)]
struct Block<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<Cow<'a, str>>,
    /// A `data:` URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_data: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    video_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_breakpoint: Option<Breakpoint>,
}

/// Where markers go in one list of messages.
#[derive(Debug, Default)]
pub(super) struct Marks {
    places: Vec<Place>,
    ttl: Option<&'static str>,
}

impl Marks {
    /// At the end of each of `parts`, all of them beginnings of one list, on the last block that can carry a marker;
    /// none at the ends of those that hold no such block. `ttl_seconds` as in [`ttl_word`].
    pub(super) fn at_ends(parts: &[&[Message]], ttl_seconds: Option<u32>) -> Self {
        let mut places: Vec<Place> = parts
            .iter()
            .filter_map(|part| last_markable(part))
            .collect();
        places.dedup();
        Marks {
            places,
            ttl: ttl_seconds.map(ttl_word),
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    fn at(&self, place: Place) -> Option<Breakpoint> {
        self.places.contains(&place).then_some(Breakpoint {
            mode: "explicit",
            ttl: self.ttl,
        })
    }
}

/// The lifetime's name; there are two (facts 2.1).
pub(super) fn ttl_word(seconds: u32) -> &'static str {
    if seconds <= 1_800 { "30m" } else { "12h" }
}

fn last_markable(messages: &[Message]) -> Option<Place> {
    messages
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, message)| message.role != Role::Assistant)
        .find_map(|(index, message)| {
            let part = message.content.iter().rposition(|part| match part {
                ContentPart::Text { text } => !text.is_empty(),
                ContentPart::ImageUrl { .. } | ContentPart::File { .. } => true,
            })?;
            Some((index, part))
        })
}

/// Items for `messages`, the first of which is number `first_index` of its request.
pub(super) fn items(
    messages: &[Message],
    first_index: usize,
    marks: &Marks,
    flavour: Flavour,
    quirks: &Quirks,
) -> Result<Bytes, ApiError> {
    let mut out = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let writer = Writer {
            message,
            index,
            number: first_index + index,
            marks,
            flavour,
            quirks,
        };
        writer.write(&mut out)?;
    }
    Ok(elements(&out))
}

/// Elements of two parts of an array as one.
pub(super) fn joined(first: &Bytes, second: &Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second.clone(),
        (_, true) => first.clone(),
        _ => [first, &b","[..], second].concat().into(),
    }
}

/// An error about a remembered message, which no field of the request names.
pub(super) fn history_refused(_: ApiError) -> ApiError {
    ApiError::unsupported(
        "context_id",
        "is of a context that remembers something this model's provider does not take",
    )
}

/// An item for a line of system text.
pub(super) fn system_item(line: &str) -> Bytes {
    elements(&[Item::Message {
        role: "system",
        content: Content::Text(line.to_owned()),
    }])
}

struct Writer<'a, 'b> {
    message: &'a Message,
    /// In the list of messages.
    index: usize,
    /// In the client's request.
    number: usize,
    marks: &'b Marks,
    flavour: Flavour,
    quirks: &'b Quirks,
}

impl<'a> Writer<'a, '_> {
    fn write(&self, out: &mut Vec<Item<'a>>) -> Result<(), ApiError> {
        match self.message.role {
            Role::System => out.push(self.message_item("system")?),
            Role::Developer if self.quirks.developer_role => {
                out.push(self.message_item("developer")?);
            }
            Role::Developer => out.push(self.message_item("system")?),
            Role::User => out.push(self.message_item("user")?),
            Role::Assistant => {
                out.extend(self.reasoning_item());
                if !self.message.content.is_empty() || self.message.refusal_text().is_some() {
                    out.push(self.message_item("assistant")?);
                }
                out.extend(self.message.tool_calls.iter().map(call_item));
            }
            Role::Tool => out.push(self.result_item()?),
        }
        Ok(())
    }

    /// Sealed reasoning, which OpenAI alone can read. Reasoning alone is no answer.
    fn reasoning_item(&self) -> Option<Item<'a>> {
        let message = self.message;
        let says_nothing = message.content.is_empty()
            && message.refusal_text().is_none()
            && message.tool_calls.is_empty();
        if self.flavour != Flavour::OpenAi || says_nothing {
            return None;
        }
        let encrypted_content = message.seal_of("responses")?;
        let text = message.reasoning.as_deref();
        let summary = text.filter(|text| !text.is_empty()).map(|text| Block {
            r#type: "summary_text",
            text: Some(text),
            ..Block::default()
        });
        Some(Item::Reasoning {
            r#type: "reasoning",
            summary: summary.into_iter().collect(),
            encrypted_content,
        })
    }

    fn message_item(&self, role: &'static str) -> Result<Item<'a>, ApiError> {
        let refusal = self.message.refusal_text();
        let content = match (&self.message.content[..], refusal, self.flavour) {
            ([ContentPart::Text { text }], None, Flavour::Ark) => Content::Text(text.clone()),
            ([], Some(refusal), Flavour::Ark) => Content::Text(refusal.to_owned()),
            // Ark calls the blocks of an answer input, too.
            (_, refusal, Flavour::Ark) => {
                let mut blocks = self.blocks("input_text")?;
                blocks.extend(refusal.map(|refusal| Block {
                    r#type: "input_text",
                    text: Some(refusal),
                    ..Block::default()
                }));
                Content::Blocks(blocks)
            }
            (_, refusal, Flavour::OpenAi) if role == "assistant" => {
                let mut blocks = self.blocks("output_text")?;
                blocks.extend(refusal.map(|refusal| Block {
                    r#type: "refusal",
                    refusal: Some(refusal),
                    ..Block::default()
                }));
                Content::Blocks(blocks)
            }
            (_, _, Flavour::OpenAi) => Content::Blocks(self.blocks("input_text")?),
        };
        Ok(Item::Message { role, content })
    }

    fn result_item(&self) -> Result<Item<'a>, ApiError> {
        let call_id = self.message.tool_call_id.as_deref().ok_or_else(|| {
            ApiError::invalid(
                &format!("messages[{}].tool_call_id", self.number),
                "is required with this model",
            )
        })?;
        let output = match self.flavour {
            // Always blocks, so that a marker that comes or goes leaves the rest as it was.
            Flavour::OpenAi if !self.message.content.is_empty() => {
                Content::Blocks(self.blocks("input_text")?)
            }
            Flavour::Ark if self.message.has_media() => {
                return Err(ApiError::unsupported(
                    &format!("messages[{}].content", self.number),
                    "holds an image or a file, which this model does not take in results of tools",
                ));
            }
            _ => Content::Text(self.message.joined_text()),
        };
        Ok(Item::Result {
            r#type: "function_call_output",
            call_id,
            output,
        })
    }

    fn blocks(&self, text_type: &'static str) -> Result<Vec<Block<'a>>, ApiError> {
        self.message
            .content
            .iter()
            .enumerate()
            .map(|(position, part)| {
                let prompt_cache_breakpoint = self.marks.at((self.index, position));
                match part {
                    ContentPart::Text { text } => Ok(Block {
                        r#type: text_type,
                        text: Some(text),
                        prompt_cache_breakpoint,
                        ..Block::default()
                    }),
                    ContentPart::ImageUrl { url, detail } => {
                        self.check_image(position, url)?;
                        Ok(Block {
                            r#type: "input_image",
                            image_url: Some(url),
                            detail: Some(detail.as_deref().unwrap_or("auto")),
                            prompt_cache_breakpoint,
                            ..Block::default()
                        })
                    }
                    ContentPart::File {
                        url,
                        media_type,
                        name,
                    } => {
                        let block = File::of(url, media_type.as_deref(), name.as_deref())
                            .and_then(|file| self.file(url, file))
                            .map_err(|problem| self.refused(position, problem))?;
                        Ok(Block {
                            prompt_cache_breakpoint,
                            ..block
                        })
                    }
                }
            })
            .collect()
    }

    fn file(&self, url: &'a str, file: File<'a>) -> Result<Block<'a>, &'static str> {
        match (self.message.role, self.flavour) {
            (Role::User, _) | (Role::Tool, Flavour::OpenAi) => {}
            _ => return Err("is a file, which this model's provider takes in user messages only"),
        }
        match (file.kind(), self.flavour) {
            (Kind::Sound, Flavour::Ark) => Ok(Block {
                r#type: "input_audio",
                audio_url: Some(url),
                ..Block::default()
            }),
            (Kind::Video, Flavour::Ark) => Ok(Block {
                r#type: "input_video",
                video_url: Some(url),
                ..Block::default()
            }),
            (Kind::Sound | Kind::Video, Flavour::OpenAi) => Err(
                "is sound or a video, which this model's provider does not take on the interface that the gateway uses",
            ),
            (kind, Flavour::Ark) if kind != Kind::Pdf => {
                Err("must be a PDF or text, because this model's provider takes no other documents")
            }
            _ => Ok(match file.source {
                Source::Url(_) => Block {
                    r#type: "input_file",
                    file_url: Some(url),
                    ..Block::default()
                },
                Source::Base64(data) => Block {
                    r#type: "input_file",
                    filename: Some(file.file_name()),
                    file_data: Some(match file.media_type {
                        Some(media_type) => format!("data:{media_type};base64,{data}").into(),
                        None => url.into(),
                    }),
                    ..Block::default()
                },
            }),
        }
    }

    fn refused(&self, position: usize, problem: &str) -> ApiError {
        let field = format!("messages[{}].content[{position}]", self.number);
        ApiError::unsupported(&field, problem)
    }

    fn check_image(&self, position: usize, url: &str) -> Result<(), ApiError> {
        let problem = if self.message.role == Role::Assistant {
            "is an image, which this model does not take in assistant messages"
        } else if !self.quirks.images {
            "is an image, which this model can't see"
        } else if self.quirks.inline_images_only && !url.starts_with("data:") {
            "is not a data URL, and this model's provider fetches nothing"
        } else {
            return Ok(());
        };
        Err(self.refused(position, problem))
    }
}

fn call_item(call: &ToolCall) -> Item<'_> {
    Item::Call {
        r#type: "function_call",
        call_id: &call.id,
        name: &call.name,
        arguments: match call.arguments.as_str() {
            "" => "{}",
            arguments => arguments,
        },
    }
}
