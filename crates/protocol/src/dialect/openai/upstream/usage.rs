//! Token counts as this dialect's many speakers report them (facts section 5.5). In all of them the prompt's total
//! includes what was read from and written to the cache.

use std::str::FromStr;

use rust_decimal::Decimal;
use serde_json::{Map, Number, Value};

use crate::dialect::fields::whole;
use crate::provider::ModelRules;
use crate::usage::{BilledUsage, CacheWrites};

/// What has been reported about one answer.
#[derive(Debug)]
pub(super) struct UsageReader {
    /// xAI counts reasoning beside the output.
    is_reasoning_outside_output: bool,
    /// The lifetime of writes whose report does not name it, seconds.
    written_for_seconds: Option<u32>,
    pub(super) usage: Option<BilledUsage>,
    /// Whether any counter of cached tokens was there.
    pub(super) cache_reported: bool,
    pub(super) charged_usd: Option<Decimal>,
}

impl UsageReader {
    /// `written_for_seconds`: what the request asked for; `None`: the provider's shortest lifetime, its default.
    pub(super) fn new(rules: &ModelRules, written_for_seconds: Option<u32>) -> Self {
        UsageReader {
            is_reasoning_outside_output: rules.quirks.reasoning_outside_output,
            written_for_seconds: written_for_seconds
                .or_else(|| rules.cache.tiers_seconds.first().copied()),
            usage: None,
            cache_reported: false,
            charged_usd: None,
        }
    }

    /// Reads `usage` and `timings` of a whole answer, of a chunk, or of a choice in one.
    pub(super) fn read(&mut self, holder: &Map<String, Value>) {
        if let Some(usage) = holder.get("usage").and_then(Value::as_object) {
            self.read_usage(usage);
        }
        if let Some(timings) = holder.get("timings").and_then(Value::as_object) {
            self.read_timings(timings);
        }
    }

    fn read_usage(&mut self, usage: &Map<String, Value>) {
        let details = object(usage, "prompt_tokens_details");
        let cached = [
            details.and_then(|details| tokens(details, "cached_tokens")),
            // DeepSeek's own name.
            tokens(usage, "prompt_cache_hit_tokens"),
            // Older Kimi models, Together.
            tokens(usage, "cached_tokens"),
        ]
        .into_iter()
        .flatten()
        .max();
        let reasoning = object(usage, "completion_tokens_details")
            .and_then(|details| tokens(details, "reasoning_tokens"))
            .unwrap_or(0);
        let completion = tokens(usage, "completion_tokens").unwrap_or(0);
        self.add(
            BilledUsage {
                input_tokens: tokens(usage, "prompt_tokens").unwrap_or(0),
                cache_read_tokens: cached.unwrap_or(0),
                cache_writes: details
                    .map(|details| self.writes(details))
                    .unwrap_or_default(),
                output_tokens: if self.is_reasoning_outside_output {
                    completion + reasoning
                } else {
                    completion
                },
                reasoning_tokens: reasoning,
            },
            cached.is_some(),
        );
        if let Some(cost) = usage
            .get("cost")
            .and_then(Value::as_number)
            .and_then(amount)
        {
            self.charged_usd = Some(self.charged_usd.map_or(cost, |known| known.max(cost)));
        }
    }

    /// llama-server: `cache_n` tokens were reused, `prompt_n` computed.
    fn read_timings(&mut self, timings: &Map<String, Value>) {
        let Some(reused) = tokens(timings, "cache_n") else {
            return;
        };
        let computed = tokens(timings, "prompt_n").unwrap_or(0);
        self.add(
            BilledUsage {
                input_tokens: reused + computed,
                cache_read_tokens: reused,
                output_tokens: tokens(timings, "predicted_n").unwrap_or(0),
                ..BilledUsage::default()
            },
            true,
        );
    }

    fn writes(&self, details: &Map<String, Value>) -> CacheWrites {
        let total = ["cache_write_tokens", "cache_creation_input_tokens"]
            .into_iter()
            .find_map(|key| tokens(details, key));
        let by_lifetime = CacheWrites {
            m5: lifetime(details, "cache_creation", "ephemeral_5m_input_tokens"),
            h1: lifetime(details, "cache_creation", "ephemeral_1h_input_tokens"),
            m30: lifetime(details, "cache_write_tokens_details", "ttl_30m_tokens"),
            h12: lifetime(details, "cache_write_tokens_details", "ttl_12h_tokens"),
            other: 0,
        };
        match total {
            // A split that does not add up says less than the sum.
            Some(total) if total != by_lifetime.total() => {
                CacheWrites::of(self.written_for_seconds, total)
            }
            _ => by_lifetime,
        }
    }

    fn add(&mut self, report: BilledUsage, cache_reported: bool) {
        self.cache_reported |= cache_reported;
        self.usage = Some(match self.usage {
            Some(known) => known.max(report),
            None => report,
        });
    }
}

fn object<'a>(holder: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    holder.get(key).and_then(Value::as_object)
}

fn lifetime(details: &Map<String, Value>, split: &str, key: &str) -> u64 {
    object(details, split)
        .and_then(|split| tokens(split, key))
        .unwrap_or(0)
}

/// Counts beyond 32 bits are nonsense, and sums of those within can't overflow.
fn tokens(holder: &Map<String, Value>, key: &str) -> Option<u64> {
    let count = whole(holder.get(key)?.as_number()?)?;
    u32::try_from(count).ok().map(u64::from)
}

fn amount(number: &Number) -> Option<Decimal> {
    let text = number.to_string();
    Decimal::from_str(&text)
        .or_else(|_| Decimal::from_scientific(&text))
        .ok()
        .filter(|amount| !amount.is_sign_negative())
}
