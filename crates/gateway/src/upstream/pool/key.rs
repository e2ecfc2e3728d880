//! What a request goes to the same worker by.

use std::io::Write;

use holdfast_protocol::chat::{Message, Role, Tool};
use holdfast_protocol::compose::ComposedRequest;

use super::Digest;
use crate::upstream::estimate;

/// Instructions from this size on are what is worth finding again, tokens. Shorter ones are often the same in all of an
/// application's chats, which would then all go to one worker.
const INSTRUCTIONS_TOKENS_MIN: u64 = 512;

/// By what a worker is chosen.
pub(crate) enum Key {
    /// By this digest: the same goes to the same worker.
    Prefix(Digest),
    /// By nothing: where the least is under way.
    Any,
}

impl Key {
    /// `digest` in the name of a tenant, whose `fleet_key` nobody else knows.
    pub(in crate::upstream) fn of(fleet_key: &[u8; 32], digest: &Digest) -> Self {
        Key::Prefix(*blake3::keyed_hash(fleet_key, digest).as_bytes())
    }
}

/// Names messages and tools.
pub(in crate::upstream) fn digest(messages: &[Message], tools: &[Tool]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    // What can't be written as JSON is left out, which makes the digest less telling and nothing else.
    let _ = serde_json::to_writer(&mut hasher, tools);
    let _ = hasher.write_all(b"\n");
    let _ = serde_json::to_writer(&mut hasher, messages);
    *hasher.finalize().as_bytes()
}

/// Names what a chat without a context begins with: its instructions, and where these are short its first message, too,
/// which all later requests of the same conversation repeat. `None` where it begins with nothing.
pub(in crate::upstream) fn beginning(composed: &ComposedRequest) -> Option<Digest> {
    let messages = &composed.new;
    let is_instruction =
        |message: &&Message| matches!(message.role, Role::System | Role::Developer);
    let instructions = messages.iter().take_while(is_instruction).count();
    let tools: u64 = composed.tools.iter().map(estimate::tool).sum();
    let tokens: u64 = messages[..instructions].iter().map(estimate::message).sum();
    let length = match tokens + tools >= INSTRUCTIONS_TOKENS_MIN {
        true => instructions,
        false => messages.len().min(instructions + 1),
    };
    let is_empty = length == 0 && composed.tools.is_empty();
    (!is_empty).then(|| digest(&messages[..length], &composed.tools))
}
