//! Token counts, and the answer to a call that warmed a prefix.

use serde_json::Value;

use crate::dialect::fields::whole;
use crate::upstream::{Failure, Held};
use crate::usage::{BilledUsage, CacheWrites};

/// Reads a `usage` object, whose `inputTokens` hold only what was neither read nor written (facts 5.5).
pub(super) fn decode(usage: &Value) -> BilledUsage {
    let read = tokens(&usage["cacheReadInputTokens"]);
    let written = tokens(&usage["cacheWriteInputTokens"]);
    BilledUsage {
        input_tokens: tokens(&usage["inputTokens"]) + read + written,
        cache_read_tokens: read,
        cache_writes: cache_writes(&usage["cacheDetails"], written),
        output_tokens: tokens(&usage["outputTokens"]),
        reasoning_tokens: 0,
    }
}

/// The details are worth something only where they add up (facts 2.12); else all counts as written for the default
/// lifetime.
fn cache_writes(details: &Value, written: u64) -> CacheWrites {
    let mut writes = CacheWrites::default();
    for detail in details.as_array().into_iter().flatten() {
        let count = tokens(&detail["inputTokens"]);
        let sum = match detail["ttl"].as_str() {
            Some("5m") => &mut writes.m5,
            Some("1h") => &mut writes.h1,
            _ => &mut writes.other,
        };
        *sum = sum.saturating_add(count);
    }
    let total = writes
        .m5
        .checked_add(writes.h1)
        .and_then(|sum| sum.checked_add(writes.other));
    if total == Some(written) {
        writes
    } else {
        CacheWrites::of(Some(300), written)
    }
}

/// A count; 0 where it is absent or nonsense. Beyond 32 bits it is nonsense, and sums of these can't overflow.
fn tokens(value: &Value) -> u64 {
    value
        .as_number()
        .and_then(whole)
        .and_then(|count| u32::try_from(count).ok())
        .map_or(0, u64::from)
}

pub(super) fn decode_hold(body: &[u8]) -> Result<Held, Failure> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| Failure::malformed())?;
    if !answer["output"].is_object() {
        return Err(Failure::malformed());
    }
    let usage = answer
        .get("usage")
        .filter(|usage| usage.is_object())
        .map(decode);
    Ok(Held {
        prefix_tokens: usage.map(|usage| {
            // What was read and written ends at the last marker, which is where the prefix ends. Below the minimum
            // neither happens, and the whole request is the nearest there is to count.
            match usage.cache_read_tokens + usage.cache_writes.total() {
                0 => usage.input_tokens,
                held => held,
            }
        }),
        usage,
        ..Held::default()
    })
}
