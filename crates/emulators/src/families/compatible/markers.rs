//! Caches with entries only where a marker stood: Qwen's explicit cache, and Claude and the newer OpenAI models behind
//! OpenRouter.

use std::collections::{BTreeMap, HashMap};

use super::prompt::Prompt;
use crate::chain;

/// A marker on a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marker {
    /// Index of the part it stands on.
    pub(super) part: usize,
    /// Lifetime of what it writes, seconds.
    pub(super) ttl_seconds: u64,
}

/// How a request meets the entries.
pub(super) struct MarkerLookup<'a> {
    pub(super) now_ms: i64,
    /// When what it writes can be read.
    pub(super) visible_ms: i64,
    pub(super) salt: &'a str,
    pub(super) prompt: &'a Prompt,
    /// Ascending.
    pub(super) markers: &'a [Marker],
    /// Where entries are looked for: which parts.
    pub(super) positions: &'a [bool],
    /// How many parts back from a marker, itself the first one.
    pub(super) lookback: usize,
    /// Smallest prefix that is written, tokens.
    pub(super) min: u64,
    /// An ordered miss.
    pub(super) is_missed: bool,
}

/// Tokens read, and written by lifetime in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MarkerHit {
    pub(super) read: u64,
    pub(super) write: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone)]
struct Entry {
    visible_ms: i64,
    expires_ms: i64,
    ttl_ms: i64,
}

/// The entries.
#[derive(Debug, Default)]
pub(super) struct MarkerCache {
    entries: HashMap<[u8; 32], Entry>,
}

impl MarkerCache {
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Reads the longest entry that a marker reaches and writes one at each marker.
    pub(super) fn meet(&mut self, lookup: &MarkerLookup<'_>) -> MarkerHit {
        let now_ms = lookup.now_ms;
        self.entries.retain(|_, entry| entry.expires_ms > now_ms);
        let hashes = chain(lookup.salt, &lookup.prompt.blocks());
        let ends = lookup.prompt.ends();
        let mut hit = MarkerHit::default();
        for marker in lookup.markers.iter().filter(|_| !lookup.is_missed) {
            let oldest = (marker.part + 1).saturating_sub(lookup.lookback);
            let found = (oldest..=marker.part).rev().find(|part| {
                lookup.positions[*part]
                    && self
                        .entries
                        .get(&hashes[*part])
                        .is_some_and(|entry| entry.visible_ms <= now_ms)
            });
            if let Some(part) = found {
                hit.read = hit.read.max(ends[part]);
                let entry = self.entries.get_mut(&hashes[part]).unwrap();
                entry.expires_ms = now_ms + entry.ttl_ms;
            }
        }
        let mut reached = hit.read;
        for marker in lookup.markers {
            let end = ends[marker.part];
            if end < lookup.min {
                continue;
            }
            let ttl_ms = i64::try_from(marker.ttl_seconds).unwrap() * 1000;
            if end <= reached {
                continue;
            }
            *hit.write.entry(marker.ttl_seconds).or_default() += end - reached;
            reached = end;
            // Life counts from the request's start, not from when the entry can be read.
            let expires_ms = now_ms + ttl_ms;
            self.entries
                .entry(hashes[marker.part])
                .and_modify(|entry| {
                    entry.ttl_ms = entry.ttl_ms.max(ttl_ms);
                    entry.expires_ms = entry.expires_ms.max(expires_ms);
                })
                .or_insert(Entry {
                    visible_ms: lookup.visible_ms,
                    expires_ms,
                    ttl_ms,
                });
        }
        hit
    }
}
