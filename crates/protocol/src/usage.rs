//! What a request consumed, and what the cache did for it.

use serde::{Deserialize, Serialize};

use crate::context::ContextId;

/// Token counts of one request. Each token is counted at exactly one rate:
/// `input_tokens = cached_input_tokens + cache_write_tokens_billed_as_input + fresh`, so cached tokens are *included*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// All prompt tokens, the cached ones included.
    pub input_tokens: u64,
    /// Prompt tokens read from a cache; never more than `input_tokens`.
    pub cached_input_tokens: u64,
    /// Prompt or answer tokens newly written to a cache by this request.
    pub cache_write_tokens: u64,
    /// Generated tokens, reasoning included.
    pub output_tokens: u64,
    /// Of the generated tokens, those spent on reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// `input_tokens + output_tokens`.
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens + self.output_tokens
    }
}

/// What the context did for a request. Sent as header `x-context-cache` and as `context_cache` beside `usage`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The context used.
    pub context_id: ContextId,
    /// The outcome in one word.
    pub status: CacheStatus,
    /// Why, when `status` is not a plain hit: a short word such as `state_lost`, `state_corrupt`, `first_use`,
    /// `truncated`, `template_not_prefix_stable`, `below_minimum`.
    pub reason: Option<String>,
    /// Where the prefix was found.
    pub tier: Option<CacheTier>,
    /// Tokens of the stored prefix this request continued from.
    pub prefix_tokens: u64,
    /// Of these, tokens that were not computed again.
    pub cached_tokens: u64,
    /// Tokens newly written to the context by this request (session turns).
    pub written_tokens: u64,
    /// Who says so.
    pub source: Source,
    /// Milliseconds from admission by the backend to the first token, where the backend knows it.
    pub first_token_ms: Option<u64>,
}

impl Receipt {
    /// The value of the `x-context-cache` header: `hit`, or `rebuilt; reason=state_lost`, with `tier=` where known.
    pub fn header_value(&self) -> String {
        let mut value = self.status.as_str().to_owned();
        if let Some(reason) = &self.reason {
            value.push_str("; reason=");
            value.push_str(reason);
        }
        if let Some(tier) = self.tier {
            value.push_str("; tier=");
            value.push_str(tier.as_str());
        }
        value
    }
}

/// The outcome of a cache look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheStatus {
    /// The prefix was there and was used.
    Hit,
    /// It had been lost and was computed again, once; the next request hits.
    Rebuilt,
    /// The prefix was computed by this request, which counts as its first use.
    Miss,
    /// The request was answered without a cache where one was wanted.
    Degraded,
}

impl CacheStatus {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            CacheStatus::Hit => "hit",
            CacheStatus::Rebuilt => "rebuilt",
            CacheStatus::Miss => "miss",
            CacheStatus::Degraded => "degraded",
        }
    }
}

/// Where the embedded engine found a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheTier {
    /// In the KV cache: shared with no copy.
    Kv,
    /// As serialised state in memory.
    Ram,
    /// As a checksummed file.
    Disk,
}

impl CacheTier {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            CacheTier::Kv => "kv",
            CacheTier::Ram => "ram",
            CacheTier::Disk => "disk",
        }
    }
}

/// Who measured a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The upstream's own usage report.
    Provider,
    /// The embedded engine's own count.
    Engine,
    /// Holdfast's estimate.
    Estimate,
}
