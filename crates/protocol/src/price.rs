//! Prices and what they make of counted tokens.
//!
//! Decimal arithmetic throughout: no amount ever passes through a binary fraction, and nothing is rounded on the way.
//! Formulas: facts section 5.4; which token counts as what: facts section 5.5. Where prices come from is the gateway's
//! business.

mod break_even;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub use break_even::{
    Estimate, Holding, Workload, pays_for_storage_reads_per_hour, pays_for_write_reads, ping_pays,
    ping_pays_before_last_use, pings_for_gap, pings_max, pings_max_before_last_use,
    pings_per_longer_tier,
};
/// Exact decimal numbers, as every crate of Holdfast uses them for money.
pub use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::usage::{BilledUsage, CacheWrites, Money, Source};

const PER_MILLION: Decimal = Decimal::from_parts(1, 0, 0, false, 6);
const MILLISECONDS_PER_HOUR: u64 = 3_600_000;

/// What one model costs at one provider. All rates are per million tokens, in `currency`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Of every amount that follows from this price.
    pub currency: Currency,
    /// For prompts up to the first tier's threshold.
    pub rates: Rates,
    /// For longer prompts, in ascending order of their thresholds.
    pub tiers: Vec<Tier>,
    /// For keeping a handle; `None`: free.
    pub storage: Option<StoragePrice>,
}

/// What each kind of token costs, per million.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// Prompt tokens that were neither read from a cache nor written to one at a rate of their own.
    pub input: Decimal,
    /// Generated tokens, reasoning included.
    pub output: Decimal,
    /// Prompt tokens read from the provider's cache. Equal to `input` where reads are no cheaper.
    pub cached_read: Decimal,
    /// Those read where a marker or a handle asked for it, at providers that charge these differently (Qwen: 0.1
    /// instead of 0.2 times `input`, facts 2.6). `None`: as `cached_read`.
    pub cached_read_explicit: Option<Decimal>,
    /// Prompt tokens written to the cache, by the lifetime they were written for, seconds. Empty: a write costs what
    /// input costs. A listed 0 means the same: no extra fee, not free input (facts section 7).
    pub writes: BTreeMap<u32, Decimal>,
}

/// Rates for long prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// They hold for the whole request when its prompt, cached tokens included, is longer than this.
    pub above_tokens: u64,
    /// All of them change.
    pub rates: Rates,
}

/// What it costs to keep a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoragePrice {
    /// For a million tokens kept for an hour.
    pub per_mtok_hour: Decimal,
    /// Whether a begun hour counts as a whole one (Ark, facts 2.5).
    pub is_whole_hours: bool,
}

/// An ISO 4217 code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// Text that is no ISO 4217 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a currency is three capital letters such as USD or CNY")]
pub struct NotACurrency;

/// Which of a provider's caches a read came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadKind {
    /// The one the provider fills by itself.
    Implicit,
    /// One that a marker or a handle asked for.
    Explicit,
}

/// What a request costs by the price list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Charged for it.
    pub cost: Decimal,
    /// What it would have cost with every input token fresh.
    pub baseline: Decimal,
    /// `false`: the report had more tokens read and written than there were. The cost is then on the safe side: each
    /// token once, writes at their rate and everything else as fresh input, so that nothing is claimed to be saved.
    /// To be logged, and never to be passed off as the provider's number.
    pub is_consistent: bool,
}

impl Charge {
    /// Less than without a cache by this much; negative when writing to the cache cost more than reading it saved.
    pub fn saved(&self) -> Decimal {
        self.baseline.saturating_sub(self.cost).normalize()
    }
}

impl Price {
    /// A price without tiers and storage.
    pub fn flat(currency: Currency, rates: Rates) -> Self {
        Price {
            currency,
            rates,
            tiers: Vec::new(),
            storage: None,
        }
    }

    /// The rates for a prompt of this size, cached tokens included.
    pub fn rates_for(&self, input_tokens: u64) -> &Rates {
        self.tiers
            .iter()
            .filter(|tier| input_tokens > tier.above_tokens)
            .max_by_key(|tier| tier.above_tokens)
            .map_or(&self.rates, |tier| &tier.rates)
    }

    /// What a request costs, each token at exactly one rate.
    pub fn charge(&self, usage: &BilledUsage, reads: ReadKind) -> Charge {
        let writes = written(&usage.cache_writes);
        let written_tokens = writes
            .iter()
            .fold(0, |sum: u64, (_, tokens)| sum.saturating_add(*tokens));
        let held_tokens = usage.cache_read_tokens.checked_add(written_tokens);
        let is_consistent = held_tokens.is_some_and(|held| held <= usage.input_tokens);
        let input_tokens = usage.input_tokens.max(held_tokens.unwrap_or(u64::MAX));
        let rates = self.rates_for(input_tokens);

        let output = amount(rates.output, usage.output_tokens);
        let mut cost = output;
        let mut add = |rate, tokens| cost = cost.saturating_add(amount(rate, tokens));
        for (lifetime_seconds, tokens) in writes {
            let rate = rates.write(lifetime_seconds);
            let rate = if is_consistent {
                rate
            } else {
                rate.max(rates.input)
            };
            add(rate, tokens);
        }
        let not_written = input_tokens.saturating_sub(written_tokens);
        if is_consistent {
            add(rates.read(reads), usage.cache_read_tokens);
            add(rates.input, not_written - usage.cache_read_tokens);
        } else {
            add(rates.input, not_written);
        }
        Charge {
            cost: cost.normalize(),
            baseline: amount(rates.input, input_tokens)
                .saturating_add(output)
                .normalize(),
            is_consistent,
        }
    }

    /// [`Charge::cost`] alone.
    pub fn cost(&self, usage: &BilledUsage, reads: ReadKind) -> Decimal {
        self.charge(usage, reads).cost
    }

    /// What a request would have cost with every input token fresh.
    pub fn baseline(&self, usage: &BilledUsage) -> Decimal {
        self.charge(usage, ReadKind::Implicit).baseline
    }

    /// A request's money as the receipt shows it. Where the provider has named its amount in US dollars and the price
    /// list is in US dollars, too, that amount counts and only the baseline is by the list.
    pub fn money(
        &self,
        usage: &BilledUsage,
        reads: ReadKind,
        charged_usd: Option<Decimal>,
    ) -> Money {
        let mut charge = self.charge(usage, reads);
        let charged = charged_usd.filter(|_| self.currency == Currency::USD);
        if let Some(charged) = charged {
            charge.cost = charged;
        }
        Money {
            saved: charge.saved(),
            cost: charge.cost,
            currency: self.currency.to_string(),
            source: if charged.is_some() {
                Source::Provider
            } else {
                Source::Estimate
            },
        }
    }

    /// What it costs to keep a handle of so many tokens for so long.
    pub fn storage(&self, tokens: u64, milliseconds: u64) -> Decimal {
        let Some(storage) = self.storage else {
            return Decimal::ZERO;
        };
        let per_hour = amount(storage.per_mtok_hour, tokens);
        if storage.is_whole_hours {
            let hours = milliseconds.div_ceil(MILLISECONDS_PER_HOUR);
            return per_hour.saturating_mul(Decimal::from(hours)).normalize();
        }
        // One division at the end, because an hour's third has no exact decimal.
        (per_hour.saturating_mul(Decimal::from(milliseconds))
            / Decimal::from(MILLISECONDS_PER_HOUR))
        .normalize()
    }
}

impl Rates {
    /// Input, output and reads; a write costs what input costs.
    pub fn new(input: Decimal, output: Decimal, cached_read: Decimal) -> Self {
        Rates {
            input,
            output,
            cached_read,
            cached_read_explicit: None,
            writes: BTreeMap::new(),
        }
    }

    /// The rate of a read.
    pub fn read(&self, kind: ReadKind) -> Decimal {
        match kind {
            ReadKind::Implicit => self.cached_read,
            ReadKind::Explicit => self.cached_read_explicit.unwrap_or(self.cached_read),
        }
    }

    /// The rate of a write for a lifetime, seconds: the shortest listed one that lasts as long, else the longest. A
    /// lifetime that nobody named counts as the shortest, as it does in the providers' own reports (facts 5.5).
    pub fn write(&self, lifetime_seconds: Option<u32>) -> Decimal {
        self.writes
            .range(lifetime_seconds.unwrap_or(0)..)
            .next()
            .or_else(|| self.writes.last_key_value())
            .map(|(_, rate)| *rate)
            .filter(|rate| !rate.is_zero())
            .unwrap_or(self.input)
    }

    /// A read's rate as a multiple of `input`; `None` where input is free.
    pub fn read_mult(&self, kind: ReadKind) -> Option<Decimal> {
        self.read(kind).checked_div(self.input)
    }

    /// A write's rate as a multiple of `input`; `None` where input is free.
    pub fn write_mult(&self, lifetime_seconds: Option<u32>) -> Option<Decimal> {
        self.write(lifetime_seconds).checked_div(self.input)
    }
}

impl Currency {
    /// US dollars.
    pub const USD: Currency = Currency(*b"USD");
    /// Chinese yuan.
    pub const CNY: Currency = Currency(*b"CNY");

    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Currency {
    type Err = NotACurrency;

    fn from_str(text: &str) -> Result<Self, NotACurrency> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Currency(code)),
            _ => Err(NotACurrency),
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = NotACurrency;

    fn try_from(text: String) -> Result<Self, NotACurrency> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.as_str().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Tokens at a rate per million. Multiplied before it is divided, so that it stays exact.
fn amount(rate: Decimal, tokens: u64) -> Decimal {
    rate.saturating_mul(Decimal::from(tokens))
        .saturating_mul(PER_MILLION)
}

fn written(writes: &CacheWrites) -> [(Option<u32>, u64); 5] {
    [
        (Some(300), writes.m5),
        (Some(1_800), writes.m30),
        (Some(3_600), writes.h1),
        (Some(43_200), writes.h12),
        (None, writes.other),
    ]
}
