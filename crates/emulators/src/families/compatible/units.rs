//! DeepSeek's disk cache: whole prefix units, persisted at the end of what was asked, at the end of what was answered,
//! and where several requests were seen to begin alike (facts 2.8).

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};

use super::prompt::{common_prefix, update};

/// Requests that a new one is compared with.
const RECENT_MAX: usize = 256;
/// Common beginnings inside a text are cut to whole ones of these (the unit of the 2024 text).
const COMMON_STEP: usize = 64;
/// The smallest unit.
const UNIT_TOKENS_MIN: usize = 64;
/// "Hours to days": a day of idleness.
const IDLE_MS: i64 = 24 * 3600 * 1000;

#[derive(Debug, Clone)]
struct Unit {
    visible_ms: i64,
    expires_ms: i64,
}

#[derive(Debug)]
struct Request {
    salt: String,
    tokens: Vec<u64>,
    /// Ends of its parts.
    ends: Vec<u64>,
}

/// The units, and what was asked lately.
#[derive(Debug, Default)]
pub(super) struct Units {
    units: HashMap<String, HashMap<(usize, [u8; 32]), Unit>>,
    recent: VecDeque<Request>,
}

/// A request that meets the units.
pub(super) struct UnitLookup<'a> {
    pub(super) now_ms: i64,
    pub(super) visible_ms: i64,
    pub(super) salt: &'a str,
    pub(super) prompt: &'a [u64],
    /// Ends of its parts.
    pub(super) ends: Vec<u64>,
    pub(super) answer: &'a [u64],
    pub(super) is_missed: bool,
}

impl Units {
    pub(super) fn clear(&mut self) {
        self.units.clear();
        self.recent.clear();
    }

    /// Reads the longest unit that the prompt begins with, in full; persists its own.
    pub(super) fn meet(&mut self, lookup: &UnitLookup<'_>) -> u64 {
        let units = self.units.entry(lookup.salt.to_owned()).or_default();
        units.retain(|_, unit| unit.expires_ms > lookup.now_ms);
        let mut lengths: Vec<usize> = units
            .keys()
            .map(|(length, _)| *length)
            .filter(|length| *length <= lookup.prompt.len())
            .collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut read = 0;
        if !lookup.is_missed {
            for (length, hash) in prefix_hashes(lookup.prompt, &lengths) {
                if let Some(unit) = units.get_mut(&(length, hash))
                    && unit.visible_ms <= lookup.now_ms
                {
                    read = length;
                    unit.expires_ms = lookup.now_ms + IDLE_MS;
                }
            }
        }
        let whole = [lookup.prompt, lookup.answer].concat();
        let mut wanted = vec![lookup.prompt.len(), whole.len()];
        wanted.extend(self.common(lookup));
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|length| *length >= UNIT_TOKENS_MIN);
        let units = self.units.entry(lookup.salt.to_owned()).or_default();
        for key in prefix_hashes(&whole, &wanted) {
            units.entry(key).or_insert(Unit {
                visible_ms: lookup.visible_ms,
                expires_ms: lookup.now_ms + IDLE_MS,
            });
        }
        self.recent.push_front(Request {
            salt: lookup.salt.to_owned(),
            tokens: lookup.prompt.to_vec(),
            ends: lookup.ends.clone(),
        });
        self.recent.truncate(RECENT_MAX);
        read as u64
    }

    /// Where this prompt and an earlier one part: at the last part they share and at the last whole step.
    fn common(&self, lookup: &UnitLookup<'_>) -> Vec<usize> {
        let shared = |request: &Request| common_prefix(&request.tokens, lookup.prompt);
        let Some((request, length)) = self
            .recent
            .iter()
            .filter(|request| request.salt == lookup.salt)
            .map(|request| (request, shared(request)))
            .max_by_key(|(_, length)| *length)
        else {
            return Vec::new();
        };
        let at_part = lookup
            .ends
            .iter()
            .filter(|end| request.ends.contains(end))
            .filter_map(|end| usize::try_from(*end).ok())
            .rfind(|end| *end <= length);
        at_part
            .into_iter()
            .chain([length / COMMON_STEP * COMMON_STEP])
            .collect()
    }
}

/// The hashes of the beginnings of these lengths (ascending).
fn prefix_hashes(tokens: &[u64], lengths: &[usize]) -> Vec<(usize, [u8; 32])> {
    let mut hasher = Sha256::new();
    let mut done = 0;
    lengths
        .iter()
        .map(|length| {
            update(&mut hasher, &tokens[done..*length]);
            done = *length;
            (*length, hasher.clone().finalize().into())
        })
        .collect()
}
