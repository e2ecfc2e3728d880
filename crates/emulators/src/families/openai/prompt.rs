//! A request as caches see it: the parts of the prompt in order, the markers on them, and all else that must match.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::families::chat_wire;
use crate::{Block, chain, tokens};

/// The marker on a block.
pub(super) const BREAKPOINT: &str = "prompt_cache_breakpoint";
/// `ttl: "30m"`, seconds.
pub(super) const TTL_30M: u64 = 1800;
/// `ttl: "12h"`, seconds.
pub(super) const TTL_12H: u64 = 43_200;

/// One part of the prompt.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Role, kind, and whatever else belongs to it but its text.
    pub head: String,
    /// What the model reads.
    pub text: String,
    /// Of the message.
    pub role: String,
    /// Whether its message ends here.
    pub ends_message: bool,
    /// The lifetime that an explicit breakpoint here asks for, seconds.
    pub marker: Option<u64>,
}

impl Part {
    fn tokens(&self) -> u64 {
        tokens(&self.text)
    }
}

/// Everything beside the parts that must be the same for an entry to match, in the order of diagnostics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facets {
    pub account: String,
    pub region: String,
    pub surface: &'static str,
    pub model: String,
    pub key: String,
    pub tools: String,
    pub parallel_tool_calls: bool,
    pub format: String,
    pub effort: String,
    pub verbosity: String,
    pub tier: String,
    pub context_management: String,
}

/// A prompt.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    pub facets: Facets,
    pub parts: Vec<Part>,
    /// Whether ends of messages are breakpoints too.
    pub is_implicit: bool,
    /// For breakpoints that name none, seconds.
    pub ttl: u64,
}

/// A place where an entry may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    /// Index of the part it follows.
    pub part: usize,
    /// Lifetime if written, seconds.
    pub ttl: u64,
    pub is_explicit: bool,
}

impl Prompt {
    /// A chat request's prompt.
    pub(super) fn of_chat(body: &Value, account: &str, region: &str) -> Prompt {
        let ttl = request_ttl(body);
        let mut parts = tools(body);
        for piece in chat_wire::pieces(&body["messages"], &[BREAKPOINT]) {
            let mut bare = piece.part.clone();
            if let Some(fields) = bare.as_object_mut() {
                fields.shift_remove(BREAKPOINT);
            }
            let text = chat_wire::part_text(&bare);
            let kind = bare["text"]
                .as_str()
                .and(bare["type"].as_str())
                .unwrap_or_default();
            parts.push(Part {
                head: format!("{}\n{kind}", piece.head),
                text,
                role: piece.role,
                ends_message: piece.ends_message,
                marker: marker(&piece.part, ttl),
            });
        }
        Prompt {
            facets: Facets {
                account: account.to_owned(),
                region: region.to_owned(),
                surface: "chat",
                model: text_of(&body["model"], ""),
                key: text_of(&body["prompt_cache_key"], ""),
                tools: body["tools"].to_string(),
                parallel_tool_calls: body["parallel_tool_calls"] != false,
                format: format_of(&body["response_format"]),
                effort: text_of(&body["reasoning_effort"], "default"),
                verbosity: text_of(&body["verbosity"], "medium"),
                tier: text_of(&body["service_tier"], "auto"),
                context_management: String::new(),
            },
            parts,
            is_implicit: body["prompt_cache_options"]["mode"] != "explicit",
            ttl,
        }
    }

    /// A Responses request's prompt: `items` are those of the chain before it and its own.
    pub(super) fn of_response(
        body: &Value,
        items: &[Value],
        account: &str,
        region: &str,
    ) -> Prompt {
        let ttl = request_ttl(body);
        let mut parts = tools(body);
        if let Some(text) = body["instructions"].as_str() {
            parts.push(Part {
                head: "developer\ntext".to_owned(),
                text: text.to_owned(),
                role: "developer".to_owned(),
                ends_message: true,
                marker: None,
            });
        }
        for item in items {
            parts.extend(item_parts(item, ttl));
        }
        Prompt {
            facets: Facets {
                account: account.to_owned(),
                region: region.to_owned(),
                surface: "responses",
                model: text_of(&body["model"], ""),
                key: text_of(&body["prompt_cache_key"], ""),
                tools: body["tools"].to_string(),
                parallel_tool_calls: body["parallel_tool_calls"] != false,
                format: format_of(&body["text"]["format"]),
                effort: text_of(&body["reasoning"]["effort"], "default"),
                verbosity: text_of(&body["text"]["verbosity"], "medium"),
                tier: text_of(&body["service_tier"], "auto"),
                context_management: body["context_management"].to_string(),
            },
            parts,
            is_implicit: body["prompt_cache_options"]["mode"] != "explicit",
            ttl,
        }
    }

    /// All its tokens.
    pub(super) fn tokens(&self) -> u64 {
        self.parts.iter().map(Part::tokens).sum()
    }

    /// Tokens up to the end of each part.
    pub(super) fn ends(&self) -> Vec<u64> {
        let mut sum = 0;
        self.parts
            .iter()
            .map(|part| {
                sum += part.tokens();
                sum
            })
            .collect()
    }

    /// The hash of each beginning.
    pub(super) fn hashes(&self) -> Vec<[u8; 32]> {
        let blocks: Vec<Block> = self
            .parts
            .iter()
            .map(|part| Block::sized(format!("{}\n{}", part.head, part.text), &part.text))
            .collect();
        chain(&format!("{:?}", self.facets), &blocks)
    }

    /// Every breakpoint of this request in the order of the prompt.
    pub(super) fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        let mut is_initial = true;
        for (index, part) in self.parts.iter().enumerate() {
            if let Some(ttl) = part.marker {
                points.push(Point {
                    part: index,
                    ttl,
                    is_explicit: true,
                });
            }
            let next = self.parts.get(index + 1).map(|next| next.role.as_str());
            let is_first = is_developer(&part.role);
            is_initial &= is_first || part.role == "tools";
            let is_eligible = match part.role.as_str() {
                "user" => true,
                "tool" => next != Some("tool"),
                _ => is_first && is_initial && !next.is_some_and(is_developer),
            };
            if self.is_implicit && part.ends_message && is_eligible {
                points.push(Point {
                    part: index,
                    ttl: self.ttl,
                    is_explicit: false,
                });
            }
        }
        points
    }

    /// The hash of each beginning that ends at a multiple of `interval` tokens, with that number of tokens. Blocks don't
    /// matter here: two texts that differ in their middle share their first tokens.
    pub(super) fn token_hashes(&self, interval: u64) -> Vec<(u64, [u8; 32])> {
        let mut hashes = Vec::new();
        let mut position = 0;
        // The model, account and format are in every hidden beginning; the key only routes.
        let facets = &self.facets;
        let salt = format!(
            "{:?}",
            (
                &facets.account,
                &facets.region,
                &facets.model,
                &facets.format
            )
        );
        let mut hasher = Sha256::new_with_prefix(salt);
        for part in &self.parts {
            hasher.update((part.head.len() as u64).to_le_bytes());
            hasher.update(part.head.as_bytes());
            let bytes = part.text.as_bytes();
            for index in 0..part.tokens() as usize {
                hasher
                    .update(&bytes[(index * 4).min(bytes.len())..(index * 4 + 4).min(bytes.len())]);
                position += 1;
                if position % interval == 0 {
                    hashes.push((position, hasher.clone().finalize().into()));
                }
            }
        }
        hashes
    }

    /// What routes this prompt among machines: its first 256 tokens and its key.
    pub(super) fn route(&self) -> [u8; 32] {
        let first = match self.token_hashes(256).first() {
            Some((_, hash)) => *hash,
            // Shorter prompts: all of it, which is never cached anyhow.
            None => self.hashes().last().copied().unwrap_or_default(),
        };
        let mut hasher = Sha256::new_with_prefix(first);
        hasher.update(self.facets.key.as_bytes());
        hasher.finalize().into()
    }
}

fn is_developer(role: &str) -> bool {
    matches!(role, "developer" | "system")
}

/// The lifetime of a `ttl` string, seconds.
pub(super) fn ttl_seconds(ttl: &Value) -> Option<u64> {
    match ttl.as_str() {
        Some("30m") => Some(TTL_30M),
        Some("12h") => Some(TTL_12H),
        _ => None,
    }
}

fn request_ttl(body: &Value) -> u64 {
    ttl_seconds(&body["prompt_cache_options"]["ttl"]).unwrap_or(TTL_30M)
}

fn marker(part: &Value, request_ttl: u64) -> Option<u64> {
    let breakpoint = part
        .get(BREAKPOINT)
        .filter(|breakpoint| breakpoint.is_object())?;
    Some(ttl_seconds(&breakpoint["ttl"]).unwrap_or(request_ttl))
}

fn tools(body: &Value) -> Vec<Part> {
    let tools = body["tools"].as_array().map_or(&[][..], Vec::as_slice);
    tools
        .iter()
        .map(|tool| Part {
            head: "tool".to_owned(),
            text: tool.to_string(),
            role: "tools".to_owned(),
            ends_message: false,
            marker: None,
        })
        .collect()
}

/// The parts of one Responses item. Reasoning of earlier turns isn't in the prompt.
fn item_parts(item: &Value, ttl: u64) -> Vec<Part> {
    let kind = item["type"].as_str().unwrap_or("message");
    let (role, content, head) = match kind {
        "message" => {
            let role = item["role"].as_str().unwrap_or_default();
            (role, &item["content"], role.to_owned())
        }
        "function_call_output" => ("tool", &item["output"], format!("tool {}", item["call_id"])),
        "reasoning" => return Vec::new(),
        _ => {
            let text = match kind {
                "function_call" => {
                    json!([item["call_id"], item["name"], item["arguments"]]).to_string()
                }
                _ => item.to_string(),
            };
            return vec![Part {
                head: format!("assistant {kind}"),
                text,
                role: "assistant".to_owned(),
                ends_message: true,
                marker: None,
            }];
        }
    };
    let of_text = |text: &str, marker| Part {
        head: format!("{head}\ntext"),
        text: text.to_owned(),
        role: role.to_owned(),
        ends_message: false,
        marker,
    };
    let mut parts: Vec<Part> = match content {
        Value::Array(content) => content
            .iter()
            .map(|part| match part["text"].as_str() {
                Some(text) => of_text(text, marker(part, ttl)),
                None => {
                    let mut bare = part.clone();
                    if let Some(fields) = bare.as_object_mut() {
                        fields.shift_remove(BREAKPOINT);
                    }
                    of_text(&bare.to_string(), marker(part, ttl))
                }
            })
            .collect(),
        content => vec![of_text(content.as_str().unwrap_or_default(), None)],
    };
    if let Some(first) = parts.first_mut() {
        first.head.push_str("\nfirst");
    }
    if let Some(last) = parts.last_mut() {
        last.ends_message = true;
    }
    parts
}

fn text_of(value: &Value, default: &str) -> String {
    value.as_str().unwrap_or(default).to_owned()
}

fn format_of(format: &Value) -> String {
    match format {
        Value::Null => json!({"type": "text"}).to_string(),
        format => format.to_string(),
    }
}
