//! A scripted answer within the limits of a request: what the model generated, before a wire format words it.

use crate::blocks::{hash_hex, tokens};
use crate::script::Answer;

/// What a request leaves to the answer.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    pub(crate) tokens_max: u64,
    pub(crate) stop_sequences: Vec<&'a str>,
    pub(crate) may_think: bool,
    /// Otherwise the thinking is charged and signed, and its text stays away.
    pub(crate) shows_thinking: bool,
}

/// A block of the answer.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Thinking(String),
    /// In pieces, one for each delta.
    Text(Vec<String>),
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

/// Why the answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Complete,
    Calls,
    Cut,
    Filtered,
    Stopped(String),
}

/// A finished answer.
#[derive(Debug, Clone)]
pub(crate) struct Generated {
    pub(crate) parts: Vec<Part>,
    pub(crate) ending: Ending,
    pub(crate) output_tokens: u64,
}

/// What a request for no tokens gets.
impl Default for Generated {
    fn default() -> Self {
        Generated {
            parts: Vec::new(),
            ending: Ending::Cut,
            output_tokens: 0,
        }
    }
}

impl Generated {
    /// `answer`, as far as there is room. `call_id` names the calls.
    pub(crate) fn new(answer: &Answer, room: &Room<'_>, call_id: impl Fn(usize) -> String) -> Self {
        let mut left = room.tokens_max;
        let mut is_cut = answer.cut;
        let mut output_tokens = 0;
        let mut parts = Vec::new();
        let mut take = |text: &str| -> Option<String> {
            if text.is_empty() || left == 0 {
                is_cut |= !text.is_empty();
                return None;
            }
            let bytes_max = usize::try_from(left.saturating_mul(4)).unwrap_or(usize::MAX);
            let kept = &text[..text.floor_char_boundary(bytes_max)];
            is_cut |= kept.len() < text.len();
            left = left.saturating_sub(tokens(kept));
            output_tokens += tokens(kept);
            Some(kept.to_owned())
        };
        if room.may_think {
            parts.extend(take(&answer.reasoning).map(|text| {
                Part::Thinking(if room.shows_thinking {
                    text
                } else {
                    String::new()
                })
            }));
        }
        let (text, stopped_by) = until_stop(&answer.text, &room.stop_sequences);
        parts.extend(take(text).map(|text| Part::Text(Answer::text(text).pieces())));
        for (index, call) in answer
            .tool_calls
            .iter()
            .enumerate()
            .filter(|_| stopped_by.is_none())
        {
            // A call that doesn't fit isn't sent by halves.
            let whole = format!("{}{}", call.name, call.arguments);
            if take(&whole).is_some_and(|kept| kept == whole) {
                parts.push(Part::Call {
                    id: call_id(index),
                    name: call.name.clone(),
                    arguments: call.arguments.clone(),
                });
            }
        }
        let calls = parts.iter().any(|part| matches!(part, Part::Call { .. }));
        let ending = match stopped_by {
            _ if answer.filtered => Ending::Filtered,
            _ if is_cut => Ending::Cut,
            Some(sequence) => Ending::Stopped(sequence.to_owned()),
            None if calls => Ending::Calls,
            None => Ending::Complete,
        };
        Generated {
            parts,
            ending,
            output_tokens: output_tokens.max(1),
        }
    }
}

fn until_stop<'a, 'b>(text: &'a str, sequences: &[&'b str]) -> (&'a str, Option<&'b str>) {
    sequences
        .iter()
        .filter_map(|sequence| text.find(sequence).map(|at| (at, *sequence)))
        .min()
        .map_or((text, None), |(at, sequence)| (&text[..at], Some(sequence)))
}

/// What the service signs thinking with; it takes back only what it signed.
pub(crate) fn signature(thinking: &str) -> String {
    format!("sig{}", hash_hex(&format!("thinking:{thinking}")))
}

/// Two pieces of a text.
pub(crate) fn halves(text: &str) -> (&str, &str) {
    text.split_at(text.floor_char_boundary(text.len() / 2))
}
