//! Token counts, and the answer to a call that warmed a prefix.

use serde_json::Value;

use crate::dialect::fields::whole;
use crate::upstream::{Failure, Held};
use crate::usage::{BilledUsage, CacheWrites};

/// The counters as the API reports them. Here `input` holds only what was neither read nor written (facts 5.5).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    input: u64,
    cache_read: u64,
    cache_written: u64,
    written_5m: u64,
    written_1h: u64,
    output: u64,
    thinking: u64,
    /// Whether there was a counter for tokens read, were it 0.
    pub(super) cache_reported: bool,
}

impl Counts {
    /// Takes in one more report. Later ones repeat running totals, some of them without the fields of the first.
    pub(super) fn merge(&mut self, usage: &Value) {
        self.cache_reported |= usage["cache_read_input_tokens"].is_number();
        let creation = &usage["cache_creation"];
        for (count, reported) in [
            (&mut self.input, &usage["input_tokens"]),
            (&mut self.cache_read, &usage["cache_read_input_tokens"]),
            (
                &mut self.cache_written,
                &usage["cache_creation_input_tokens"],
            ),
            (&mut self.written_5m, &creation["ephemeral_5m_input_tokens"]),
            (&mut self.written_1h, &creation["ephemeral_1h_input_tokens"]),
            (&mut self.output, &usage["output_tokens"]),
            (
                &mut self.thinking,
                &usage["output_tokens_details"]["thinking_tokens"],
            ),
        ] {
            *count = (*count).max(tokens(reported));
        }
    }

    pub(super) fn billed(&self) -> BilledUsage {
        let cache_writes = CacheWrites {
            h1: self.written_1h,
            // What the report does not split by lifetime counts as written for the default one.
            m5: self
                .written_5m
                .max(self.cache_written.saturating_sub(self.written_1h)),
            ..CacheWrites::default()
        };
        BilledUsage {
            input_tokens: self.input + self.cache_read + cache_writes.total(),
            cache_read_tokens: self.cache_read,
            cache_writes,
            output_tokens: self.output,
            reasoning_tokens: self.thinking.min(self.output),
        }
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
    let message: Value = serde_json::from_slice(body).map_err(|_| Failure::malformed())?;
    if message["type"] != "message" {
        return Err(Failure::malformed());
    }
    let usage = message
        .get("usage")
        .filter(|usage| usage.is_object())
        .map(|usage| {
            let mut counts = Counts::default();
            counts.merge(usage);
            counts.billed()
        });
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
