//! Caching as OpenAI's clients ask for it: what its two dialects read alike.

use serde_json::{Map, Value};

use super::fields::Fields;
use crate::chat::{CachePoint, CacheRequest, Message, Role};
use crate::error::ApiError;

/// Where a message has markers: after how many of its parts, and for how long the prefix is kept, seconds.
pub(super) type Cuts = Vec<(usize, Option<u32>)>;

/// The marker of a block: OpenAI's `prompt_cache_breakpoint`, or `cache_control` as clients of OpenRouter send it; with
/// the lifetime asked for.
pub(super) fn marker(fields: &mut Fields) -> Result<Option<Option<u32>>, ApiError> {
    let breakpoint = fields.object("prompt_cache_breakpoint")?;
    let control = fields.object("cache_control")?;
    let Some(mut marker) = breakpoint.or(control) else {
        return Ok(None);
    };
    let ttl = marker.string("ttl")?;
    Ok(Some(ttl.as_deref().and_then(ttl_seconds)))
}

/// A lifetime such as `30m`; `None`: not one that is known.
pub(super) fn ttl_seconds(word: &str) -> Option<u32> {
    let (unit_at, unit) = word.char_indices().last()?;
    let number: u32 = word[..unit_at].parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return None,
    };
    number.checked_mul(seconds).filter(|seconds| *seconds > 0)
}

/// Adds `message` to `messages` and its markers to `points`; a user's or system's message with one in its middle becomes
/// two.
pub(super) fn push_marked(
    mut message: Message,
    cuts: Cuts,
    messages: &mut Vec<Message>,
    points: &mut Vec<CachePoint>,
) {
    let can_split = !matches!(message.role, Role::Assistant | Role::Tool);
    let mut taken = 0;
    for (parts, ttl_seconds) in cuts {
        let is_end = parts - taken == message.content.len();
        if !is_end && can_split {
            let rest = message.content.split_off(parts - taken);
            let head = Message {
                content: std::mem::replace(&mut message.content, rest),
                ..message.clone()
            };
            taken = parts;
            messages.push(head);
        }
        let whole = usize::from(is_end || !can_split);
        points.push(CachePoint {
            messages: messages.len() + whole,
            ttl_seconds,
        });
    }
    messages.push(message);
}

/// What a request wants cached: its markers, and the fields `prompt_cache_key` and `prompt_cache_options` among `fields`.
pub(super) fn request(points: Vec<CachePoint>, fields: &Map<String, Value>) -> CacheRequest {
    let text = |name: &str| {
        fields
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let options = fields.get("prompt_cache_options");
    let option = |name: &str| {
        options
            .and_then(|options| options.get(name))
            .and_then(Value::as_str)
    };
    let key = text("prompt_cache_key").map(str::to_owned);
    let is_explicit = option("mode") == Some("explicit") || !points.is_empty();
    CacheRequest {
        automatic: (key.is_some() && !is_explicit).then(|| option("ttl").and_then(ttl_seconds)),
        points,
        key,
    }
}
