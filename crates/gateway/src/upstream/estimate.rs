//! About how many tokens a text has, for models whose tokenizer is not here. Every number made of this is labelled an
//! estimate.

use holdfast_protocol::chat::{ContentPart, Message, Tool};

/// What a provider puts around a message, tokens.
const MESSAGE_FRAME: u64 = 4;

/// What an image takes, tokens; providers range from 85 to 1600.
const IMAGE: u64 = 800;

/// A text: four bytes of ASCII a token, three tokens for four characters of anything else.
pub(super) fn text(text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count() as u64;
    let other = text
        .chars()
        .filter(|character| !character.is_ascii())
        .count() as u64;
    ascii.div_ceil(4) + (other * 3).div_ceil(4)
}

/// A message.
pub(super) fn message(message: &Message) -> u64 {
    let content: u64 = message
        .content
        .iter()
        .map(|part| match part {
            ContentPart::Text { text: part } => text(part),
            ContentPart::ImageUrl { .. } => IMAGE,
            // Four bytes of base64 are three of the file; a page of text is about as many tokens as an image.
            ContentPart::File { url, .. } => IMAGE.max(url.len() as u64 / 50),
        })
        .sum();
    let calls: u64 = message
        .tool_calls
        .iter()
        .map(|call| text(&call.name) + text(&call.arguments) + MESSAGE_FRAME)
        .sum();
    content + calls + MESSAGE_FRAME
}

/// A function.
pub(super) fn tool(tool: &Tool) -> u64 {
    let description = tool.description.as_deref().map_or(0, text);
    let parameters = tool
        .parameters
        .as_ref()
        .map_or(0, |parameters| text(&parameters.to_string()));
    text(&tool.name) + description + parameters + MESSAGE_FRAME
}
