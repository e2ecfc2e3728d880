//! What a response object says of itself.

use serde_json::{Map, Value};

use crate::provider::ModelRules;
use crate::upstream::Failure;
use crate::usage::{BilledUsage, CacheWrites};

/// The response object that is a body.
pub(super) fn response_of(body: &[u8]) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(response)) => Ok(response),
        _ => Err(Failure::malformed()),
    }
}

/// Its `usage` (facts 5.5); `input_tokens` includes what was read and written.
pub(super) fn billed(response: &Map<String, Value>, rules: &ModelRules) -> Option<BilledUsage> {
    let usage = response.get("usage")?.as_object()?;
    let details = object(usage, "input_tokens_details");
    Some(BilledUsage {
        input_tokens: tokens(usage, "input_tokens").unwrap_or(0),
        cache_read_tokens: details
            .and_then(|details| tokens(details, "cached_tokens"))
            .unwrap_or(0),
        cache_writes: details
            .map(|details| writes(details, rules))
            .unwrap_or_default(),
        output_tokens: tokens(usage, "output_tokens").unwrap_or(0),
        reasoning_tokens: object(usage, "output_tokens_details")
            .and_then(|details| tokens(details, "reasoning_tokens"))
            .unwrap_or(0),
    })
}

/// Whether the response has a counter of cached tokens.
pub(super) fn reports_cache(response: &Map<String, Value>) -> bool {
    object(response, "usage")
        .and_then(|usage| object(usage, "input_tokens_details"))
        .is_some_and(|details| tokens(details, "cached_tokens").is_some())
}

/// Why there was no hit, where the response says so.
pub(super) fn miss_reason(response: &Map<String, Value>) -> Option<String> {
    let diagnostics = object(response, "prompt_cache_diagnostics")?;
    if diagnostics.get("type")? != "cache_miss" {
        return None;
    }
    Some(diagnostics.get("reason")?.as_str()?.to_owned())
}

fn writes(details: &Map<String, Value>, rules: &ModelRules) -> CacheWrites {
    let split = object(details, "cache_write_tokens_details");
    let of = |key| split.and_then(|split| tokens(split, key)).unwrap_or(0);
    let by_lifetime = CacheWrites {
        m30: of("ttl_30m_tokens"),
        h12: of("ttl_12h_tokens"),
        ..CacheWrites::default()
    };
    match tokens(details, "cache_write_tokens") {
        // Without a split that adds up they count for the shortest lifetime, the provider's default.
        Some(total) if total != by_lifetime.total() => {
            CacheWrites::of(rules.cache.tiers_seconds.first().copied(), total)
        }
        _ => by_lifetime,
    }
}

fn object<'a>(holder: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    holder.get(key).and_then(Value::as_object)
}

/// Counts beyond 32 bits are nonsense, and sums of those within can't overflow.
fn tokens(holder: &Map<String, Value>, key: &str) -> Option<u64> {
    holder
        .get(key)?
        .as_u64()
        .filter(|count| *count <= u64::from(u32::MAX))
}
