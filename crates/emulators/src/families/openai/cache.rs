//! Entries of both eras.

use std::collections::{BTreeMap, HashMap, VecDeque};

use sha2::{Digest, Sha256};

use super::prompt::{Point, Prompt};

/// The smallest prefix that is cached, tokens (facts 2.1).
const MIN_TOKENS: u64 = 1024;
/// Breakpoints, the latest of a request, at which entries are looked for (facts 2.1, reference).
const LOOKUPS_MAX: usize = 80;
/// Explicit breakpoints at which one request writes, beside the implicit one or alone (facts 2.1).
const WRITES_BESIDE_IMPLICIT: usize = 3;
const WRITES_ALONE: usize = 4;

/// Machines that older models run on. Facts don't say how many.
const MACHINES: u64 = 16;
/// Requests with one beginning and key, in a minute, after which others go to the next machine (facts 2.1).
const REQUESTS_PER_MINUTE: usize = 15;
/// Reported cached tokens of older models are rounded down to a multiple of this (facts 2.1).
const FLOOR: u64 = 128;
/// `in_memory`: idle at least 5 minutes, an hour in all (facts 2.1).
const MEMORY_IDLE_MS: i64 = 300_000;
const MEMORY_MS_MAX: i64 = 3_600_000;
/// `24h`.
const DAY_MS: i64 = 86_400_000;
/// Entries after which those past their time are dropped.
const ENTRIES_SWEEP: usize = 200_000;

/// What a request found and wrote.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// Tokens read.
    pub read: u64,
    /// Tokens written by lifetime, seconds.
    pub writes: BTreeMap<u64, u64>,
}

impl Found {
    /// All tokens written.
    pub(super) fn written(&self) -> u64 {
        self.writes.values().sum()
    }
}

#[derive(Default)]
pub(super) struct Caches {
    explicit: HashMap<[u8; 32], Entry>,
    routed: HashMap<[u8; 32], RoutedEntry>,
    recent: HashMap<[u8; 32], VecDeque<i64>>,
}

struct Entry {
    ttl_ms: i64,
    visible_ms: i64,
    expires_ms: i64,
}

struct RoutedEntry {
    created_ms: i64,
    used_ms: i64,
    is_day: bool,
}

impl RoutedEntry {
    fn is_live(&self, now_ms: i64) -> bool {
        if self.is_day {
            now_ms - self.used_ms < DAY_MS
        } else {
            now_ms - self.used_ms < MEMORY_IDLE_MS && now_ms - self.created_ms < MEMORY_MS_MAX
        }
    }
}

impl Caches {
    /// gpt-5.6 and later. An entry keeps the lifetime it was written with: finding it again refreshes that, and a marker
    /// that asks for a longer one doesn't change it.
    pub(super) fn explicit(
        &mut self,
        prompt: &Prompt,
        now_ms: i64,
        visible_ms: i64,
        is_missed: bool,
    ) -> Found {
        let points = prompt.points();
        let ends = prompt.ends();
        let hashes = prompt.hashes();
        let key = |point: &Point| -> [u8; 32] {
            // The end of a message isn't the same place as a marker on its last block.
            let kind = if point.is_explicit {
                b"marker"
            } else {
                b"finish"
            };
            Sha256::new_with_prefix(hashes[point.part])
                .chain_update(kind)
                .finalize()
                .into()
        };
        let found = points[points.len().saturating_sub(LOOKUPS_MAX)..]
            .iter()
            .rev()
            .find_map(|point| {
                let entry = self.explicit.get_mut(&key(point))?;
                let is_live = now_ms >= entry.visible_ms && now_ms < entry.expires_ms;
                (is_live && !is_missed).then(|| {
                    entry.expires_ms = now_ms + entry.ttl_ms;
                    ends[point.part]
                })
            });
        let mut position = found.unwrap_or(0);
        let mut result = Found {
            read: position,
            writes: BTreeMap::new(),
        };
        for point in written(&points, prompt.is_implicit) {
            let end = ends[point.part];
            if end < MIN_TOKENS {
                continue;
            }
            let ttl_ms = i64::try_from(point.ttl * 1000).unwrap();
            let key = key(point);
            match self.explicit.get_mut(&key) {
                Some(entry) if now_ms < entry.expires_ms => {
                    if end > result.read {
                        // Missed, or not readable yet as between parallel first requests: paid for once more.
                        entry.ttl_ms = entry.ttl_ms.max(ttl_ms);
                        entry.visible_ms = entry.visible_ms.min(visible_ms);
                    }
                    entry.expires_ms = now_ms + entry.ttl_ms;
                }
                _ => {
                    self.explicit.insert(
                        key,
                        Entry {
                            ttl_ms,
                            visible_ms,
                            expires_ms: now_ms + ttl_ms,
                        },
                    );
                }
            }
            if end > position {
                *result.writes.entry(point.ttl).or_default() += end - position;
                position = end;
            }
        }
        if self.explicit.len() > ENTRIES_SWEEP {
            self.explicit.retain(|_, entry| now_ms < entry.expires_ms);
        }
        result
    }

    /// Older models.
    pub(super) fn routed(
        &mut self,
        prompt: &Prompt,
        interval: u64,
        is_day: bool,
        now_ms: i64,
        is_missed: bool,
    ) -> Found {
        let route = prompt.route();
        let recent = self.recent.entry(route).or_default();
        while recent.front().is_some_and(|time| now_ms - time >= 60_000) {
            recent.pop_front();
        }
        let overflow = (recent.len() / REQUESTS_PER_MINUTE) as u64;
        recent.push_back(now_ms);
        let home = u64::from_le_bytes(route[..8].try_into().unwrap());
        let machine = (home % MACHINES + overflow) % MACHINES;
        let mut read = 0;
        let mut is_whole = true;
        for (position, hash) in prompt.token_hashes(interval) {
            if position < MIN_TOKENS {
                continue;
            }
            let key: [u8; 32] = Sha256::new_with_prefix(hash)
                .chain_update(machine.to_le_bytes())
                .finalize()
                .into();
            match self
                .routed
                .get_mut(&key)
                .filter(|entry| entry.is_live(now_ms))
            {
                Some(entry) => {
                    entry.used_ms = now_ms;
                    entry.is_day |= is_day;
                    // The last token is always computed.
                    if is_whole && position < prompt.tokens() {
                        read = position;
                    }
                }
                None => {
                    is_whole = false;
                    self.routed.insert(
                        key,
                        RoutedEntry {
                            created_ms: now_ms,
                            used_ms: now_ms,
                            is_day,
                        },
                    );
                }
            }
        }
        if self.routed.len() > ENTRIES_SWEEP {
            self.routed.retain(|_, entry| entry.is_live(now_ms));
        }
        let read = if is_missed { 0 } else { read / FLOOR * FLOOR };
        Found {
            read,
            writes: BTreeMap::new(),
        }
    }
}

/// The breakpoints at which a request writes, in the order of the prompt.
fn written(points: &[Point], is_implicit: bool) -> Vec<&Point> {
    let explicit_max = if is_implicit {
        WRITES_BESIDE_IMPLICIT
    } else {
        WRITES_ALONE
    };
    let explicit = points
        .iter()
        .rev()
        .filter(|point| point.is_explicit)
        .take(explicit_max);
    let implicit = points.iter().rev().find(|point| !point.is_explicit);
    let mut written: Vec<&Point> = explicit.chain(implicit).collect();
    written.sort_by_key(|point| (point.part, !point.is_explicit));
    written
}
