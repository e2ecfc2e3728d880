//! Prefixes, rendered once, and where their markers go.

use bytes::Bytes;
use serde::Serialize;

use crate::chat::{Message, Role};
use crate::dialect::openai::message::{Mark, check_message, markable_part, message_out};
use crate::dialect::openai::tools::tool_out;
use crate::error::ApiError;
use crate::provider::{Caching, Marker, ModelRules, Quirks};
use crate::upstream::{EncodedPrefix, PrefixParts};

/// The lifetime of `cache_control` that is not written out, seconds: the one every provider has.
const CACHE_CONTROL_SECONDS: u32 = 300;
/// The same of `prompt_cache_breakpoint` (facts section 2.1).
const BREAKPOINT_SECONDS: u32 = 1_800;
/// How every OpenAI breakpoint begins. Inside a JSON string its quotes would be escaped, so no text can look like it.
const BREAKPOINT: &[u8] = br#""prompt_cache_breakpoint":{"mode":"explicit""#;

pub(super) fn encode(
    parts: &PrefixParts<'_>,
    rules: &ModelRules,
) -> Result<EncodedPrefix, ApiError> {
    let quirks = &rules.quirks;
    for (index, message) in parts.initial.iter().enumerate() {
        check_message(message, quirks, || format!("messages[{index}]"))?;
    }
    for message in parts.history {
        check_message(message, quirks, || "context_id".to_owned()).map_err(|_| {
            ApiError::unsupported(
                "context_id",
                "is of a context that remembers an image, which this model's provider does not take",
            )
        })?;
    }

    let places = Places::of(parts, rules);
    let mut tools = Vec::new();
    for tool in parts.tools {
        append(&mut tools, &tool_out(tool));
    }
    let mut initial = Vec::new();
    if let Some(line) = parts.tenant_line {
        let line = Message::text(Role::System, line);
        append(&mut initial, &message_out(&line, quirks, None));
    }
    append_messages(&mut initial, parts.initial, quirks, |index| {
        places.initial.filter(|(at, _)| *at == index)
    });
    let mut history = Vec::new();
    append_messages(&mut history, parts.history, quirks, |index| {
        places
            .history
            .into_iter()
            .flatten()
            .find(|(at, _)| *at == index)
    });
    Ok(EncodedPrefix {
        tools: tools.into(),
        system: Bytes::new(),
        initial: initial.into(),
        history: history.into(),
    })
}

/// Appends an element of a JSON array.
pub(super) fn append(out: &mut Vec<u8>, element: &impl Serialize) {
    if !out.is_empty() {
        out.push(b',');
    }
    serde_json::to_writer(out, element)
        .expect("wire structs have string keys only and write to memory");
}

/// Whether OpenAI's breakpoints stand in the prefix. They stand at its ends, so it is searched from there.
pub(super) fn has_breakpoint(prefix: &EncodedPrefix) -> bool {
    [&prefix.history, &prefix.initial]
        .into_iter()
        .any(|messages| {
            messages
                .windows(BREAKPOINT.len())
                .rev()
                .any(|at| at == BREAKPOINT)
        })
}

/// The role of the prefix's last message; `None`: it has no messages.
pub(super) fn last_role(prefix: &EncodedPrefix) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct RoleOnly {
        role: String,
    }
    let messages = if prefix.history.is_empty() {
        &prefix.initial
    } else {
        &prefix.history
    };
    let array = std::io::Read::chain(&b"["[..], &messages[..]);
    let array = std::io::Read::chain(array, &b"]"[..]);
    let messages: Vec<RoleOnly> = serde_json::from_reader(array).ok()?;
    messages.into_iter().next_back().map(|message| message.role)
}

fn append_messages(
    out: &mut Vec<u8>,
    messages: &[Message],
    quirks: &Quirks,
    place: impl Fn(usize) -> Option<Place>,
) {
    for (index, message) in messages.iter().enumerate() {
        let mark = place(index).map(|(_, mark)| mark);
        append(out, &message_out(message, quirks, mark));
    }
}

/// A message's index and its marker.
type Place = (usize, Mark);

/// Which messages carry markers.
#[derive(Debug, Default)]
struct Places {
    initial: Option<Place>,
    /// Where an earlier request may have written an entry, and the end.
    history: [Option<Place>; 2],
}

impl Places {
    /// A message that can't carry a marker leaves it to the last one before it that can. Where there are more places
    /// than markers, the end of the initial messages comes first, because every chat meets it, then the newest end.
    fn of(parts: &PrefixParts<'_>, rules: &ModelRules) -> Self {
        let cache = &rules.cache;
        let Some(marker) = cache
            .marker
            .filter(|_| cache.caching == Caching::Breakpoint)
        else {
            return Places::default();
        };
        let last_markable = |messages: &[Message]| {
            messages
                .iter()
                .rposition(|message| markable_part(message, marker).is_some())
        };
        let place = |messages: &[Message], seconds| {
            let mark = Mark {
                marker,
                ttl: ttl_word(marker, seconds).filter(|_| cache.has_ttl),
            };
            Some((last_markable(messages)?, mark))
        };
        let mut left = cache.markers_max;
        let mut take = |place: Option<Place>| {
            let place = place.filter(|_| left > 0);
            left -= u8::from(place.is_some());
            place
        };

        let markers = parts.markers;
        let initial = take(
            markers
                .initial_seconds
                .and_then(|seconds| place(parts.initial, seconds)),
        );
        // Providers refuse lifetimes that grow towards the end.
        let history_seconds = markers.history_seconds.map(|seconds| {
            markers
                .initial_seconds
                .map_or(seconds, |initial| initial.min(seconds))
        });
        let end = take(history_seconds.and_then(|seconds| place(parts.history, seconds)));
        let earlier = parts
            .history
            .get(..parts.previous_history)
            .unwrap_or_default();
        let previous = history_seconds.and_then(|seconds| place(earlier, seconds));
        Places {
            initial,
            history: [take(previous), end],
        }
    }
}

/// The lifetime in the provider's word; `None` for the default.
fn ttl_word(marker: Marker, seconds: u32) -> Option<&'static str> {
    match marker {
        Marker::CacheControl => (seconds > CACHE_CONTROL_SECONDS).then_some("1h"),
        Marker::PromptCacheBreakpoint => (seconds > BREAKPOINT_SECONDS).then_some("12h"),
        Marker::CachePoint => None,
    }
}
