//! A context's prefix: markers, and the bytes that serve every turn.
//!
//! Roles must alternate, so a message may begin in one part of the prompt and go on in the next: the user's document
//! in the initial messages, the user's question in the request. The parts are kept as whole elements all the same. A
//! part whose first message goes on with the last one before it begins with a block instead of [`OPEN`], and [`open`]
//! takes the end off the part before. That needs no parsing, because every message ends with its role.

use bytes::Bytes;

use super::block::{self, Block, CachePoint, ToolOut};
use crate::chat::{Message, Role};
use crate::dialect::blocks::{MarkerPlan, Origin};
use crate::dialect::pieces::{elements, to_json};
use crate::error::ApiError;
use crate::provider::{Marker, ModelRules, Quirks};
use crate::upstream::{EncodedPrefix, PrefixParts};

/// Most markers that the API takes (facts 2.12).
const MARKERS_MAX: u8 = 4;

/// How every message begins. No block begins so.
const OPEN: &[u8] = br#"{"content":["#;

/// Who speaks, as the API sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    User,
    Assistant,
}

impl Speaker {
    fn of(role: Role) -> Self {
        if role == Role::Assistant {
            Speaker::Assistant
        } else {
            Speaker::User
        }
    }

    /// How every message of this speaker ends.
    fn close(self) -> &'static [u8] {
        match self {
            Speaker::User => br#"],"role":"user"}"#,
            Speaker::Assistant => br#"],"role":"assistant"}"#,
        }
    }

    /// Whose message is the last of an encoded part.
    pub(super) fn last_of(part: &[u8]) -> Option<Self> {
        [Speaker::User, Speaker::Assistant]
            .into_iter()
            .find(|speaker| part.ends_with(speaker.close()))
    }
}

pub(super) fn encode(
    parts: &PrefixParts<'_>,
    rules: &ModelRules,
) -> Result<EncodedPrefix, ApiError> {
    let plan = MarkerPlan::of(parts, rules, Marker::CachePoint, MARKERS_MAX);
    let point = |seconds| CachePoint::of(seconds, rules.cache.has_ttl);
    let initial_point = plan.initial_seconds.map(point);
    let history_point = plan.history_seconds.map(point);
    let system_length = block::leading_system(parts.initial);
    let (system, initial) = parts.initial.split_at(system_length);

    let origin = Origin::Request {
        first: system_length,
    };
    let initial = messages(initial, origin, &rules.quirks, None, |count| {
        initial_point.filter(|_| count == initial.len())
    })?;
    let before = Speaker::last_of(&initial);
    let history = messages(
        parts.history,
        Origin::History,
        &rules.quirks,
        before,
        |count| {
            let is_end = count == parts.history.len() || Some(count) == plan.previous;
            history_point.filter(|_| is_end)
        },
    )?;

    let mut system_blocks: Vec<Block<'_>> = parts
        .tenant_line
        .map(|line| Block::Text(line.into()))
        .into_iter()
        .collect();
    system_blocks.extend(block::system_blocks(system)?);
    let mut tools: Vec<ToolOut<'_>> = parts
        .tools
        .iter()
        .map(|tool| block::tool_out(tool, &rules.quirks))
        .collect();
    if let Some(point) = initial_point
        && initial.is_empty()
    {
        if !system_blocks.is_empty() {
            system_blocks.push(Block::CachePoint(point));
        } else if !tools.is_empty() {
            tools.push(ToolOut::CachePoint(point));
        }
    }
    Ok(EncodedPrefix {
        tools: elements(&tools),
        system: elements(&system_blocks),
        initial,
        history,
    })
}

/// Elements of `messages` that follow a message of `before`. `point_after(n)` is the marker after the first `n`.
pub(super) fn messages(
    messages: &[Message],
    origin: Origin,
    quirks: &Quirks,
    before: Option<Speaker>,
    point_after: impl Fn(usize) -> Option<CachePoint>,
) -> Result<Bytes, ApiError> {
    let mut out = Vec::new();
    let mut speaking = before;
    let mut ends_with_point = false;
    for (index, message) in messages.iter().enumerate() {
        let speaker = Speaker::of(message.role);
        for block in block::blocks(message, origin, index, quirks)? {
            if let Some(last) = speaking
                && !out.is_empty()
            {
                if last != speaker {
                    out.extend_from_slice(last.close());
                }
                out.push(b',');
            }
            if speaking != Some(speaker) {
                out.extend_from_slice(OPEN);
            }
            speaking = Some(speaker);
            out.extend_from_slice(&to_json(&block));
            ends_with_point = false;
        }
        if let Some(point) = point_after(index + 1)
            && !out.is_empty()
            && !ends_with_point
        {
            out.push(b',');
            out.extend_from_slice(&to_json(&Block::CachePoint(point)));
            ends_with_point = true;
        }
    }
    if let Some(last) = speaking
        && !out.is_empty()
    {
        out.extend_from_slice(last.close());
    }
    Ok(out.into())
}

/// The parts with the ends taken off where the next part goes on with the same message.
pub(super) fn open(parts: [&Bytes; 3]) -> Vec<Bytes> {
    let mut out: Vec<Bytes> = Vec::new();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        if let Some(last) = out.last_mut()
            && !part.starts_with(OPEN)
            && let Some(speaker) = Speaker::last_of(last)
        {
            last.truncate(last.len() - speaker.close().len());
        }
        out.push(part.clone());
    }
    out
}
