//! llama.cpp's slots: each holds the tokens it saw last; a prompt reuses what it shares with its slot (facts 3.3).

use std::collections::{HashMap, VecDeque};

use super::prompt::common_prefix;

/// Prompts that the RAM cache keeps.
const RAM_MAX: usize = 16;
/// A slot that would keep less than this share of what it holds is saved to RAM first.
const KEEP_MIN: f64 = 0.5;

/// How a server was started.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaServerOptions {
    /// `--parallel`.
    pub slots: usize,
    /// `--slot-prompt-similarity`: an idle slot is chosen for its content from this share of the prompt on.
    pub similarity_min: f64,
    /// `--slots`: `GET /slots` is answered.
    pub shows_slots: bool,
    /// `--slot-save-path`: slots can be saved, restored and erased.
    pub saves_slots: bool,
    /// `--cache-ram`: prompts evicted from slots stay in host memory.
    pub ram_cache: bool,
}

impl Default for LlamaServerOptions {
    fn default() -> Self {
        LlamaServerOptions {
            slots: 4,
            similarity_min: 0.1,
            shows_slots: true,
            saves_slots: true,
            ram_cache: true,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Slot {
    tokens: Vec<u64>,
    used: u64,
}

/// A prompt's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotHit {
    pub(super) slot: usize,
    /// Tokens reused.
    pub(super) reused: u64,
}

/// The slots, the RAM cache and the saved files.
#[derive(Debug)]
pub(super) struct Slots {
    options: LlamaServerOptions,
    slots: Vec<Slot>,
    ram: VecDeque<Vec<u64>>,
    files: HashMap<String, Vec<u64>>,
    uses: u64,
}

impl Slots {
    pub(super) fn new(options: LlamaServerOptions) -> Self {
        Slots {
            slots: vec![Slot::default(); options.slots.max(1)],
            options,
            ram: VecDeque::new(),
            files: HashMap::new(),
            uses: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Slots::new(self.options.clone());
    }

    /// Tokens held by each slot.
    pub(super) fn sizes(&self) -> Vec<usize> {
        self.slots.iter().map(|slot| slot.tokens.len()).collect()
    }

    /// Computes a prompt in the wanted slot, or in the one that fits best; the slot then also holds the answer.
    pub(super) fn meet(
        &mut self,
        wanted: Option<usize>,
        is_reuse_on: bool,
        prompt: &[u64],
        answer: &[u64],
    ) -> SlotHit {
        self.uses += 1;
        let index = match wanted {
            Some(index) => self.index(index),
            None => self.choose(prompt),
        };
        if self.options.ram_cache && is_reuse_on {
            self.swap_with_ram(index, prompt);
        }
        let slot = &mut self.slots[index];
        let shared = if is_reuse_on {
            common_prefix(&slot.tokens, prompt)
        } else {
            0
        };
        slot.tokens = [prompt, answer].concat();
        slot.used = self.uses;
        SlotHit {
            slot: index,
            // At least one token is computed, or there would be nothing to sample from.
            reused: shared.min(prompt.len().saturating_sub(1)) as u64,
        }
    }

    /// A number out of bounds wraps around [?], which is how llama.cpp treats `id_slot`.
    pub(super) fn index(&self, wanted: usize) -> usize {
        wanted % self.slots.len()
    }

    /// Keeps a copy under a name; how many tokens.
    pub(super) fn save(&mut self, index: usize, name: &str) -> usize {
        let tokens = self.slots[index].tokens.clone();
        let count = tokens.len();
        self.files.insert(name.to_owned(), tokens);
        count
    }

    /// Loads a copy; how many tokens, or `None` without a file of that name.
    pub(super) fn restore(&mut self, index: usize, name: &str) -> Option<usize> {
        let tokens = self.files.get(name)?.clone();
        let count = tokens.len();
        self.slots[index].tokens = tokens;
        Some(count)
    }

    /// Empties a slot; how many tokens it held.
    pub(super) fn erase(&mut self, index: usize) -> usize {
        std::mem::take(&mut self.slots[index].tokens).len()
    }

    fn choose(&self, prompt: &[u64]) -> usize {
        let similar = self
            .slots
            .iter()
            .enumerate()
            .map(|(index, slot)| (common_prefix(&slot.tokens, prompt), index))
            .max_by_key(|(shared, index)| (*shared, std::cmp::Reverse(*index)))
            .filter(|(shared, _)| {
                *shared as f64 >= self.options.similarity_min * prompt.len() as f64 && *shared > 0
            });
        match similar {
            Some((_, index)) => index,
            None => {
                let least_recent = self
                    .slots
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, slot)| slot.used);
                least_recent.map_or(0, |(index, _)| index)
            }
        }
    }

    fn swap_with_ram(&mut self, index: usize, prompt: &[u64]) {
        let slot = &mut self.slots[index];
        let shared = common_prefix(&slot.tokens, prompt);
        if (shared as f64) >= KEEP_MIN * slot.tokens.len() as f64 && !slot.tokens.is_empty() {
            return;
        }
        let best = self
            .ram
            .iter()
            .enumerate()
            .map(|(position, tokens)| (common_prefix(tokens, prompt), position))
            .max()
            .filter(|(in_ram, _)| *in_ram > shared);
        let evicted = std::mem::take(&mut slot.tokens);
        match best {
            Some((_, position)) => {
                slot.tokens = self.ram.remove(position).unwrap_or_default();
            }
            None => slot.tokens.extend(&evicted[..shared]),
        }
        if !evicted.is_empty() {
            self.ram.push_front(evicted);
            self.ram.truncate(RAM_MAX);
        }
    }
}
