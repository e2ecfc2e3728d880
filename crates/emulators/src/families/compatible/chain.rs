//! Prefix caches that cut the prompt in pieces of equal size and keep a hash for each beginning: vLLM's blocks, SGLang's
//! pages, and every hosted provider that caches by itself.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::prompt::update;

type Hash = [u8; 32];

/// What differs between such caches. Tokens everywhere.
#[derive(Debug, Clone)]
pub(super) struct ChainRules {
    /// The size of a piece.
    pub(super) step: u64,
    /// Smallest prompt that is cached and smallest hit.
    pub(super) min: u64,
    /// An entry unused for so long is gone, milliseconds; `None`: it stays until room is needed.
    pub(super) idle_ms: Option<i64>,
    /// The last token is computed always, so a hit ends before it.
    pub(super) recomputes_last: bool,
    /// The very end of a prompt is an entry, wherever it falls.
    pub(super) has_exact_end: bool,
    /// Most pieces; the ones longest unused go first, and of one prompt the last ones first.
    pub(super) capacity: usize,
}

/// One prompt that meets the cache.
pub(super) struct Lookup<'a> {
    pub(super) now_ms: i64,
    /// When what it writes can be read.
    pub(super) visible_ms: i64,
    /// What separates it from other caches: account, model, replica, salt.
    pub(super) salt: &'a str,
    pub(super) prompt: &'a [u64],
    /// What is kept behind the prompt: the answer, where the cache keeps it.
    pub(super) tail: &'a [u64],
    /// An ordered miss.
    pub(super) is_missed: bool,
    /// Instead of the rule's.
    pub(super) idle_ms: Option<i64>,
}

/// What the cache did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ChainHit {
    /// Tokens read.
    pub(super) read: u64,
    /// Tokens of the prompt behind them that are entries now.
    pub(super) written: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    visible_ms: i64,
    expires_ms: Option<i64>,
    idle_ms: Option<i64>,
    used: u64,
    depth: usize,
}

/// The entries.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) rules: ChainRules,
    entries: HashMap<Hash, Entry>,
    uses: u64,
}

impl Chain {
    pub(super) fn new(rules: ChainRules) -> Self {
        Chain {
            rules,
            entries: HashMap::new(),
            uses: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Reads the longest known beginning, writes the rest.
    pub(super) fn meet(&mut self, lookup: &Lookup<'_>) -> ChainHit {
        let size = lookup.prompt.len() as u64;
        if size < self.rules.min || self.rules.step == 0 {
            return ChainHit::default();
        }
        self.uses += 1;
        let ends = self.ends(lookup);
        let limit = if self.rules.recomputes_last {
            size - 1
        } else {
            size
        };
        let mut read = 0;
        if !lookup.is_missed {
            for (end, hash) in &ends {
                // An exact end of another prompt is no step of this one, so a gap there breaks nothing.
                let is_step = end % self.rules.step == 0;
                match self.entries.get(hash) {
                    Some(entry) if entry.is_readable(lookup.now_ms) && *end <= limit => read = *end,
                    _ if is_step => break,
                    _ => {}
                }
            }
        }
        if read < self.rules.min {
            read = 0;
        }
        let idle_ms = lookup.idle_ms.or(self.rules.idle_ms);
        for (depth, (_, hash)) in ends.iter().enumerate() {
            let entry = self
                .entries
                .entry(*hash)
                .and_modify(|entry| {
                    if !entry.is_alive(lookup.now_ms) {
                        entry.visible_ms = lookup.visible_ms;
                        entry.idle_ms = idle_ms;
                    }
                })
                .or_insert(Entry {
                    visible_ms: lookup.visible_ms,
                    expires_ms: None,
                    idle_ms,
                    used: 0,
                    depth,
                });
            entry.used = self.uses;
            entry.expires_ms = entry
                .idle_ms
                .map(|idle_ms| lookup.now_ms.max(entry.visible_ms) + idle_ms);
        }
        self.shrink();
        let covered = ends
            .iter()
            .map(|(end, _)| *end)
            .filter(|end| *end <= size)
            .max();
        ChainHit {
            read,
            written: covered.unwrap_or(0).saturating_sub(read),
        }
    }

    /// Where entries of this prompt are, and their hashes; ascending.
    fn ends(&self, lookup: &Lookup<'_>) -> Vec<(u64, Hash)> {
        let step = usize::try_from(self.rules.step).unwrap();
        let mut hasher = Sha256::new();
        hasher.update(lookup.salt.as_bytes());
        let all: Vec<u64> = [lookup.prompt, lookup.tail].concat();
        let mut ends = Vec::new();
        for (number, piece) in all.chunks(step).enumerate() {
            let start = number * step;
            let end = start + piece.len();
            if self.rules.has_exact_end
                && (start + 1..end.min(start + step)).contains(&lookup.prompt.len())
            {
                let mut exact = hasher.clone();
                update(&mut exact, &piece[..lookup.prompt.len() - start]);
                ends.push((lookup.prompt.len() as u64, exact.finalize().into()));
            }
            if piece.len() == step {
                update(&mut hasher, piece);
                ends.push((end as u64, hasher.clone().finalize().into()));
            } else if self.rules.has_exact_end && end == lookup.prompt.len() {
                let mut exact = hasher.clone();
                update(&mut exact, piece);
                ends.push((end as u64, exact.finalize().into()));
            }
        }
        ends
    }

    fn shrink(&mut self) {
        if self.entries.len() <= self.rules.capacity {
            return;
        }
        let mut order: Vec<(u64, std::cmp::Reverse<usize>, Hash)> = self
            .entries
            .iter()
            .map(|(hash, entry)| (entry.used, std::cmp::Reverse(entry.depth), *hash))
            .collect();
        order.sort_unstable();
        for (_, _, hash) in &order[..self.entries.len() - self.rules.capacity] {
            self.entries.remove(hash);
        }
    }
}

impl Entry {
    fn is_alive(&self, now_ms: i64) -> bool {
        self.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms)
    }

    fn is_readable(&self, now_ms: i64) -> bool {
        self.is_alive(now_ms) && self.visible_ms <= now_ms
    }
}
