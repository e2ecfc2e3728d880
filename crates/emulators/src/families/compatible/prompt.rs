//! A prompt as the provider's tokenizer sees it.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::chat_wire;
use crate::Block;

/// One content part (or one tool) of a prompt.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its identity and size.
    pub(super) block: Block,
    /// `system`, `user`, ...; `tool definition` for a tool.
    pub(super) role: String,
    /// Whether a message ends here. A tool never ends one: providers render tools before the system text.
    pub(super) ends_message: bool,
    /// The part as sent, markers included.
    pub(super) value: Value,
}

/// The parts in the order in which the provider reads them: tools, then messages.
#[derive(Debug, Clone, Default)]
pub(super) struct Prompt {
    pub(super) parts: Vec<Part>,
}

/// The role given to a tool's part.
pub(super) const TOOL_DEFINITION: &str = "tool definition";

/// Fields that steer caching and are no content.
pub(super) const MARKERS: &[&str] = &["cache_control", "prompt_cache_breakpoint"];

impl Prompt {
    /// Reads `tools` and `messages` of a request. `ignored` are fields of messages that the provider's template leaves
    /// out (thinking text, `refusal`).
    pub(super) fn read(body: &Value, ignored: &[&str]) -> Prompt {
        let mut parts: Vec<Part> = chat_wire::tool_blocks(body)
            .into_iter()
            .zip(body["tools"].as_array().into_iter().flatten())
            .map(|(block, tool)| Part {
                block,
                role: TOOL_DEFINITION.to_owned(),
                ends_message: false,
                value: tool.clone(),
            })
            .collect();
        let mut messages = body["messages"].clone();
        for message in messages.as_array_mut().into_iter().flatten() {
            if let Some(fields) = message.as_object_mut() {
                fields.retain(|name, _| !ignored.contains(&name.as_str()));
            }
        }
        parts.extend(
            chat_wire::pieces(&messages, MARKERS)
                .into_iter()
                .map(|piece| Part {
                    block: piece.block,
                    role: piece.role,
                    ends_message: piece.ends_message,
                    value: piece.part,
                }),
        );
        Prompt { parts }
    }

    /// All system messages as one at the beginning, behind the tools.
    pub(super) fn merge_system(&mut self) {
        let rank = |part: &Part| match part.role.as_str() {
            TOOL_DEFINITION => 0,
            "system" => 1,
            _ => 2,
        };
        self.parts.sort_by_key(rank);
        let system = self.parts.iter().filter(|part| rank(part) == 1).count();
        for (number, part) in self
            .parts
            .iter_mut()
            .filter(|part| rank(part) == 1)
            .enumerate()
        {
            part.ends_message = number + 1 == system;
        }
    }

    /// Its size.
    pub(super) fn tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.block.tokens).sum()
    }

    /// The parts' blocks.
    pub(super) fn blocks(&self) -> Vec<Block> {
        self.parts.iter().map(|part| part.block.clone()).collect()
    }

    /// The tokens before the end of each part.
    pub(super) fn ends(&self) -> Vec<u64> {
        let mut total = 0;
        self.parts
            .iter()
            .map(|part| {
                total += part.block.tokens;
                total
            })
            .collect()
    }

    /// One number per token: four bytes of text each. The first token of a part also stands for everything about the
    /// part that is no text, so that equal texts of different roles differ from their first token on.
    pub(super) fn token_ids(&self) -> Vec<u64> {
        let mut ids = Vec::new();
        for part in &self.parts {
            let text = match part.role.as_str() {
                TOOL_DEFINITION => part.block.content.clone(),
                _ => chat_wire::part_text(&without_markers(&part.value)),
            };
            let mut opening = Sha256::new();
            opening.update(part.role.as_bytes());
            if part.role != TOOL_DEFINITION {
                // The block's content is role, the message's other fields, the part: a line each.
                opening.update(part.block.content.lines().nth(1).unwrap_or_default());
                opening.update(without_text(&part.value).to_string());
            }
            let opening = u64::from_le_bytes(opening.finalize()[..8].try_into().unwrap());
            let start = ids.len();
            ids.extend(text.as_bytes().chunks(4).map(token_id));
            if ids.len() == start {
                ids.push(0);
            }
            ids[start] ^= opening;
            debug_assert_eq!((ids.len() - start) as u64, part.block.tokens);
        }
        ids
    }
}

fn token_id(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(bytes.len() as u64, |id, byte| (id << 8) | u64::from(*byte))
}

fn without_markers(part: &Value) -> Value {
    let mut part = part.clone();
    if let Some(fields) = part.as_object_mut() {
        fields.retain(|name, _| !MARKERS.contains(&name.as_str()));
    }
    part
}

fn without_text(part: &Value) -> Value {
    let mut part = without_markers(part);
    if part["text"].is_string() {
        part["text"] = json!(null);
    }
    part
}

/// How many tokens two sequences share from the first one on.
pub(super) fn common_prefix(a: &[u64], b: &[u64]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Feeds tokens to a hash.
pub(super) fn update(hasher: &mut Sha256, tokens: &[u64]) {
    for token in tokens {
        hasher.update(token.to_le_bytes());
    }
}
