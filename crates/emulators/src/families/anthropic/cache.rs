//! A prompt cache whose boundaries the client marks: entries exist only where a marker stood, and a marker finds
//! entries a limited number of positions before it (facts 2.3 and section 4). Anthropic's own API, the services that
//! imitate it and Bedrock share these rules.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use crate::blocks::{Block, chain};

/// Positions that a marker looks at, itself included (facts 2.3).
pub(crate) const LOOKBACK_POSITIONS: usize = 20;
/// Markers that one request may carry (facts 2.3).
pub(crate) const MARKERS_MAX: usize = 4;
/// The lifetime of a marker that names none, seconds.
pub(crate) const TTL_SHORT_SECONDS: u64 = 300;
/// The longer lifetime, seconds.
pub(crate) const TTL_LONG_SECONDS: u64 = 3600;

/// Live entries beyond which expired ones are swept.
const SWEEP_ABOVE: usize = 50_000;

/// How a block counts when a marker looks back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// A position of its own.
    Single,
    /// A tool's call or result: a run of these is one position.
    ToolTraffic,
    /// Not a block but a setting that the hash of everything after it depends on. No entry can end here.
    Hidden,
}

/// One step of the rendered prompt.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) block: Block,
    pub(crate) kind: StepKind,
}

impl Step {
    /// A setting that everything after it depends on.
    pub(crate) fn hidden(content: String) -> Self {
        Step {
            block: Block { content, tokens: 0 },
            kind: StepKind::Hidden,
        }
    }
}

/// A marker after the step of that index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) step: usize,
    pub(crate) ttl_seconds: u64,
}

/// What limits one request's use of the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Shorter prefixes are neither written nor found.
    pub(crate) tokens_min: u64,
    pub(crate) lookback_positions: usize,
    /// When the request began: lifetimes count from here.
    pub(crate) now_ms: i64,
    /// When what it writes can be read.
    pub(crate) visible_ms: i64,
}

/// How a request's input divides. The three are disjoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Settled {
    pub(crate) uncached: u64,
    pub(crate) read: u64,
    /// By lifetime in seconds.
    pub(crate) write: BTreeMap<u64, u64>,
}

impl Settled {
    pub(crate) fn written(&self) -> u64 {
        self.write.values().sum()
    }

    pub(crate) fn total(&self) -> u64 {
        self.uncached + self.read + self.written()
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    ttl_ms: i64,
    expires_ms: i64,
    visible_ms: i64,
}

impl Entry {
    fn is_live(&self, now_ms: i64) -> bool {
        now_ms < self.expires_ms
    }

    fn is_readable(&self, now_ms: i64) -> bool {
        self.is_live(now_ms) && self.visible_ms <= now_ms
    }
}

/// The entries of every account, told apart by the salt of their hashes.
#[derive(Debug, Default)]
pub(crate) struct MarkerCache {
    entries: Mutex<HashMap<[u8; 32], Entry>>,
}

impl MarkerCache {
    pub(crate) fn clear(&self) {
        self.entries.lock().unwrap().clear();
    }

    /// Reads and writes for one request. A read renews the entries it found for their own lifetime; an entry is written
    /// at each marker behind the longest prefix found, and the tokens up to it are charged at that marker's lifetime.
    pub(crate) fn settle(
        &self,
        salt: &str,
        steps: &[Step],
        marks: &[Mark],
        limits: Limits,
    ) -> Settled {
        let blocks: Vec<Block> = steps.iter().map(|step| step.block.clone()).collect();
        let hashes = chain(salt, &blocks);
        let sums: Vec<u64> = blocks
            .iter()
            .scan(0, |sum, block| {
                *sum += block.tokens;
                Some(*sum)
            })
            .collect();
        let total = sums.last().copied().unwrap_or_default();
        let mut marks = marks.to_vec();
        marks.retain(|mark| sums[mark.step] >= limits.tokens_min);
        marks.sort_by_key(|mark| mark.step);

        let mut entries = self.entries.lock().unwrap();
        if entries.len() > SWEEP_ABOVE {
            entries.retain(|_, entry| entry.is_live(limits.now_ms));
        }
        let found: Vec<usize> = marks
            .iter()
            .filter_map(|mark| {
                candidates(steps, mark.step, limits.lookback_positions).find(|step| {
                    entries
                        .get(&hashes[*step])
                        .is_some_and(|entry| entry.is_readable(limits.now_ms))
                })
            })
            .collect();
        for step in &found {
            let entry = entries.get_mut(&hashes[*step]).unwrap();
            entry.expires_ms = entry.expires_ms.max(limits.now_ms + entry.ttl_ms);
        }

        let longest = found.iter().copied().max();
        let mut settled = Settled {
            read: longest.map_or(0, |step| sums[step]),
            ..Settled::default()
        };
        let mut charged = settled.read;
        for mark in marks
            .iter()
            .filter(|mark| longest.is_none_or(|step| mark.step > step))
        {
            *settled.write.entry(mark.ttl_seconds).or_default() += sums[mark.step] - charged;
            charged = sums[mark.step];
            let ttl_ms = i64::try_from(mark.ttl_seconds).unwrap() * 1000;
            let mut entry = Entry {
                ttl_ms,
                expires_ms: limits.now_ms + ttl_ms,
                visible_ms: limits.visible_ms,
            };
            // A second call that wrote the same before the first became readable doesn't make it readable later.
            if let Some(other) = entries
                .get(&hashes[mark.step])
                .filter(|other| other.is_live(limits.now_ms))
            {
                entry.visible_ms = entry.visible_ms.min(other.visible_ms);
                entry.expires_ms = entry.expires_ms.max(other.expires_ms);
                entry.ttl_ms = entry.ttl_ms.max(other.ttl_ms);
            }
            entries.insert(hashes[mark.step], entry);
        }
        settled.write.retain(|_, tokens| *tokens > 0);
        settled.uncached = total - charged;
        settled
    }
}

/// The steps at which a marker looks for an entry, nearest first.
fn candidates(steps: &[Step], from: usize, positions_max: usize) -> impl Iterator<Item = usize> {
    let mut positions = 0;
    let mut is_in_run = false;
    (0..=from)
        .rev()
        .filter(|step| steps[*step].kind != StepKind::Hidden)
        .take_while(move |step| {
            let is_traffic = steps[*step].kind == StepKind::ToolTraffic;
            if !(is_traffic && is_in_run) {
                positions += 1;
            }
            is_in_run = is_traffic;
            positions <= positions_max
        })
}
