//! What the provider would have charged.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// One charged request. Token kinds are disjoint: each token is in exactly one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Charge {
    /// `chat`, `create` (a cache resource or a prefix), `prewarm`, `storage`; beside chat `embeddings`, `completions`,
    /// `images`, `speech`, `transcription`.
    pub kind: String,
    /// Whose key it was.
    pub account: String,
    /// As the request named it.
    pub model: String,
    /// Input tokens at full price.
    pub uncached_input: u64,
    /// Input tokens read from a cache.
    pub cache_read: u64,
    /// Input tokens written to a cache, by lifetime in seconds (0: the provider has no lifetimes).
    pub cache_write: BTreeMap<u64, u64>,
    /// Generated tokens, reasoning included.
    pub output: u64,
    /// For `storage`: tokens times milliseconds held.
    pub token_milliseconds: u64,
    /// False where an ordered fault kept the usage from the client: nobody but the provider knows these numbers.
    pub reported: bool,
}

impl Charge {
    /// All input tokens.
    pub fn input(&self) -> u64 {
        self.uncached_input + self.cache_read + self.cache_write.values().sum::<u64>()
    }
}

/// Every charge in the order of the requests.
#[derive(Debug, Default)]
pub struct Bill {
    charges: Mutex<Vec<Charge>>,
}

impl Bill {
    /// Adds a charge.
    pub fn add(&self, charge: Charge) {
        self.charges.lock().unwrap().push(charge);
    }

    /// All charges.
    pub fn charges(&self) -> Vec<Charge> {
        self.charges.lock().unwrap().clone()
    }

    /// Starts a new bill.
    pub fn clear(&self) {
        self.charges.lock().unwrap().clear();
    }

    /// The sum of those that `wanted` picks.
    pub fn total(&self, wanted: impl Fn(&Charge) -> bool) -> Charge {
        let mut total = Charge::default();
        for charge in self
            .charges
            .lock()
            .unwrap()
            .iter()
            .filter(|charge| wanted(charge))
        {
            total.uncached_input += charge.uncached_input;
            total.cache_read += charge.cache_read;
            for (ttl, tokens) in &charge.cache_write {
                *total.cache_write.entry(*ttl).or_default() += tokens;
            }
            total.output += charge.output;
            total.token_milliseconds += charge.token_milliseconds;
        }
        total
    }
}
