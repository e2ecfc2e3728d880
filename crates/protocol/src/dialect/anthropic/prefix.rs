//! A context's prefix: markers and the bytes that serve every turn.

use bytes::Bytes;

use super::block::{self, Block, CacheControl};
use crate::dialect::blocks::{MarkerPlan, Origin};
use crate::dialect::pieces::elements;
use crate::error::ApiError;
use crate::provider::{Marker, ModelRules};
use crate::upstream::{EncodedPrefix, PrefixParts};

/// Most markers that the API takes (facts 2.3).
const MARKERS_MAX: u8 = 4;

/// How the JSON of a block ends that carries a marker for an hour.
const ONE_HOUR_BLOCK_END: &[u8] = br#""cache_control":{"type":"ephemeral","ttl":"1h"}}"#;

pub(super) fn encode(
    parts: &PrefixParts<'_>,
    rules: &ModelRules,
) -> Result<EncodedPrefix, ApiError> {
    let plan = MarkerPlan::of(parts, rules, Marker::CacheControl, MARKERS_MAX);
    let marker = |seconds| CacheControl::of(seconds, rules.cache.has_ttl);
    let initial_marker = plan.initial_seconds.map(marker);
    let history_marker = plan.history_seconds.map(marker);
    let system_length = block::leading_system(parts.initial);
    let (system, initial) = parts.initial.split_at(system_length);

    let origin = Origin::Request {
        first: system_length,
    };
    let initial = block::messages(initial, origin, &rules.quirks, |count| {
        initial_marker.filter(|_| count == initial.len())
    })?;
    let history = block::messages(parts.history, Origin::History, &rules.quirks, |count| {
        let is_end = count == parts.history.len() || Some(count) == plan.previous;
        history_marker.filter(|_| is_end)
    })?;

    let mut blocks: Vec<Block<'_>> = parts.tenant_line.map(Block::text).into_iter().collect();
    blocks.extend(block::system_blocks(system)?);
    let system_marker = initial_marker.filter(|_| initial.is_empty());
    let tools_marker = system_marker.filter(|_| blocks.is_empty());
    if let (Some(marker), Some(last)) = (system_marker, blocks.last_mut()) {
        last.mark(marker);
    }
    Ok(EncodedPrefix {
        tools: block::tools(parts.tools, &rules.quirks, tools_marker),
        system: elements(&blocks),
        initial,
        history,
    })
}

/// Whether a marker in the prefix asks for an hour. Markers stand at the ends of the parts, and one at the history's
/// previous end never stands alone, so nothing needs to be searched.
pub(super) fn asks_for_one_hour(prefix: &EncodedPrefix) -> bool {
    let ends_so = |part: &Bytes, after: &[u8]| {
        part.strip_suffix(after)
            .is_some_and(|part| part.ends_with(ONE_HOUR_BLOCK_END))
    };
    ends_so(&prefix.tools, b"")
        || ends_so(&prefix.system, b"")
        || ends_so(&prefix.initial, b"]}")
        || ends_so(&prefix.history, b"]}")
}
