//! What a request consumed, and what the cache did for it.

use rust_decimal::Decimal;
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
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// Tokens written to an upstream's cache, by the lifetime they were written for. Each lifetime has its own rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheWrites {
    /// For five minutes.
    pub m5: u64,
    /// For thirty minutes.
    pub m30: u64,
    /// For an hour.
    pub h1: u64,
    /// For twelve hours.
    pub h12: u64,
    /// For a time that the upstream does not name.
    pub other: u64,
}

impl CacheWrites {
    /// All of them.
    pub fn total(&self) -> u64 {
        // An upstream may report anything.
        [self.m30, self.h1, self.h12, self.other]
            .into_iter()
            .fold(self.m5, u64::saturating_add)
    }

    /// `tokens` written for `seconds`.
    pub fn of(seconds: Option<u32>, tokens: u64) -> Self {
        let mut writes = CacheWrites::default();
        match seconds {
            Some(300) => writes.m5 = tokens,
            Some(1_800) => writes.m30 = tokens,
            Some(3_600) => writes.h1 = tokens,
            Some(43_200) => writes.h12 = tokens,
            _ => writes.other = tokens,
        }
        writes
    }
}

/// What an upstream charges one request for, in one convention for all: `input_tokens` holds everything, and each token
/// is charged at exactly one rate (facts section 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BilledUsage {
    /// All input tokens: fresh, read and written.
    pub input_tokens: u64,
    /// Read from the upstream's cache.
    pub cache_read_tokens: u64,
    /// Written to it at a rate of their own. 0 where writing costs what input costs.
    pub cache_writes: CacheWrites,
    /// Generated tokens, reasoning included.
    pub output_tokens: u64,
    /// Of these, reasoning.
    pub reasoning_tokens: u64,
}

impl BilledUsage {
    /// Input tokens that were neither read nor written.
    ///
    /// `None`: the upstream's numbers contradict each other (more read and written than there was).
    pub fn fresh_tokens(&self) -> Option<u64> {
        self.input_tokens
            .checked_sub(self.cache_read_tokens)?
            .checked_sub(self.cache_writes.total())
    }

    /// What two requests take together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let writes = (self.cache_writes, other.cache_writes);
        BilledUsage {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            cache_read_tokens: self
                .cache_read_tokens
                .saturating_add(other.cache_read_tokens),
            cache_writes: CacheWrites {
                m5: writes.0.m5.saturating_add(writes.1.m5),
                m30: writes.0.m30.saturating_add(writes.1.m30),
                h1: writes.0.h1.saturating_add(writes.1.h1),
                h12: writes.0.h12.saturating_add(writes.1.h12),
                other: writes.0.other.saturating_add(writes.1.other),
            },
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
        }
    }

    /// Of two reports about the same request: running totals repeat, so the larger number of each field counts and
    /// nothing is ever added.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        BilledUsage {
            input_tokens: self.input_tokens.max(other.input_tokens),
            cache_read_tokens: self.cache_read_tokens.max(other.cache_read_tokens),
            cache_writes: CacheWrites {
                m5: self.cache_writes.m5.max(other.cache_writes.m5),
                m30: self.cache_writes.m30.max(other.cache_writes.m30),
                h1: self.cache_writes.h1.max(other.cache_writes.h1),
                h12: self.cache_writes.h12.max(other.cache_writes.h12),
                other: self.cache_writes.other.max(other.cache_writes.other),
            },
            output_tokens: self.output_tokens.max(other.output_tokens),
            reasoning_tokens: self.reasoning_tokens.max(other.reasoning_tokens),
        }
    }

    /// As clients are told.
    pub fn to_usage(&self) -> Usage {
        Usage {
            input_tokens: self.input_tokens,
            cached_input_tokens: self.cache_read_tokens.min(self.input_tokens),
            cache_write_tokens: self.cache_writes.total(),
            output_tokens: self.output_tokens,
            reasoning_tokens: self.reasoning_tokens,
        }
    }
}

/// What a request cost, and what it would have cost without any cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// Charged for it.
    pub cost: Decimal,
    /// Less than without a cache by this much; negative when the cache cost more than it saved.
    pub saved: Decimal,
    /// ISO 4217 code.
    pub currency: String,
    /// `Provider` where the upstream named the amount, else `Estimate`: counted tokens times catalog prices.
    pub source: Source,
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
    /// The configured upstream that answered; `None`: the embedded engine.
    pub upstream: Option<String>,
    /// What it cost and saved; `None` where no price is known, and on the embedded engine.
    pub money: Option<Money>,
    /// What brought the context about; `None`: a client created it by name.
    pub origin: Option<Origin>,
}

/// What brings about a context that no client created by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A marker in the request (`cache_control`, `prompt_cache_breakpoint`).
    Marker,
    /// The request's cache key.
    Key,
    /// The gateway, because requests begin alike (`auto_context`).
    Automatic,
}

impl Origin {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Marker => "marker",
            Origin::Key => "key",
            Origin::Automatic => "automatic",
        }
    }
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
        if let Some(origin) = self.origin {
            value.push_str("; origin=");
            value.push_str(origin.as_str());
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

impl Source {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Provider => "provider",
            Source::Engine => "engine",
            Source::Estimate => "estimate",
        }
    }
}
