//! When a cache pays. Multipliers are multiples of a model's input rate: `write_mult` for writing a token to the cache,
//! `read_mult` for reading it (see [`super::Rates::write_mult`] and [`super::Rates::read_mult`]).
//!
//! Derived in facts section 5.4, whose figures are the tests.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::Serialize;

use super::{MILLISECONDS_PER_HOUR, Price, ReadKind, amount};

/// How a provider keeps a prefix, as far as money is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// A copy made by a call of its own, at the price of input, and kept at the price of storage.
    Handle,
    /// Written by the first turn, for this lifetime.
    Breakpoint {
        /// Seconds.
        lifetime_seconds: u32,
        /// Whether reading it renews its life.
        is_sliding: bool,
    },
    /// Kept by the provider of its own accord.
    Automatic {
        /// How long at least, where the provider says so, seconds.
        lifetime_seconds: Option<u32>,
    },
}

/// What a context is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Tokens of the context.
    pub prefix_tokens: u64,
    /// New prompt tokens of a turn.
    pub question_tokens: u64,
    /// Generated tokens of a turn.
    pub answer_tokens: u64,
    /// How long the context is kept, seconds. `None`: so long that what it costs to make it does not count.
    pub life_seconds: Option<u64>,
}

/// What a context would cost and from when it pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// For making the copy. With [`Holding::Handle`] in addition to all turns; otherwise the first turn pays it in place
    /// of reading the prefix.
    pub create: Decimal,
    /// For keeping it an hour.
    pub hold_per_hour: Decimal,
    /// For a turn that reads the prefix from the cache.
    pub turn_with: Decimal,
    /// For the same turn with every token fresh.
    pub turn_without: Decimal,
    /// From so many turns an hour, evenly spaced, the context costs no more than sending everything every time.
    /// 0: always. `None`: never.
    pub pays_from_turns_per_hour: Option<Decimal>,
}

impl Price {
    /// What a context would cost and from when it pays.
    pub fn estimate(&self, holding: Holding, workload: &Workload) -> Estimate {
        let prefix = workload.prefix_tokens;
        let rates = self.rates_for(prefix.saturating_add(workload.question_tokens));
        let (reads, lifetime_seconds) = match holding {
            Holding::Handle => (ReadKind::Explicit, None),
            Holding::Breakpoint {
                lifetime_seconds, ..
            } => (ReadKind::Explicit, Some(lifetime_seconds)),
            Holding::Automatic { lifetime_seconds } => (ReadKind::Implicit, lifetime_seconds),
        };
        let read = amount(rates.read(reads), prefix);
        let turn = amount(rates.input, workload.question_tokens)
            .saturating_add(amount(rates.output, workload.answer_tokens));
        let turn_with = turn.saturating_add(read);
        let turn_without = turn.saturating_add(amount(rates.input, prefix));
        // The first turn writes what it sends, a handle is made without a question.
        let create = match holding {
            Holding::Handle => amount(self.rates_for(prefix).input, prefix),
            Holding::Breakpoint { .. } | Holding::Automatic { .. } => {
                amount(rates.write(lifetime_seconds), prefix)
            }
        };
        let hold_per_hour = match holding {
            Holding::Handle => self.storage(prefix, MILLISECONDS_PER_HOUR),
            Holding::Breakpoint { .. } | Holding::Automatic { .. } => Decimal::ZERO,
        };
        let saving = turn_without.saturating_sub(turn_with);
        let pays_from = match holding {
            Holding::Handle => self.handle_pays_from(workload, create, hold_per_hour, saving),
            Holding::Breakpoint { .. } | Holding::Automatic { .. } => {
                let is_sliding = !matches!(
                    holding,
                    Holding::Breakpoint {
                        is_sliding: false,
                        ..
                    }
                );
                let fee = create.saturating_sub(amount(rates.input, prefix));
                entry_pays_from(
                    lifetime_seconds,
                    is_sliding,
                    workload.life_seconds,
                    create.saturating_sub(read),
                    fee,
                    saving,
                )
            }
        };
        Estimate {
            create: create.normalize(),
            hold_per_hour,
            turn_with: turn_with.normalize(),
            turn_without: turn_without.normalize(),
            pays_from_turns_per_hour: pays_from.map(|turns| turns.normalize()),
        }
    }

    fn handle_pays_from(
        &self,
        workload: &Workload,
        create: Decimal,
        hold_per_hour: Decimal,
        saving: Decimal,
    ) -> Option<Decimal> {
        let per_hour = match workload.life_seconds.filter(|seconds| *seconds > 0) {
            None => hold_per_hour,
            Some(seconds) => {
                let kept = self.storage(workload.prefix_tokens, seconds.saturating_mul(1000));
                an_hour_of(create.saturating_add(kept), seconds)
            }
        };
        turns_that_earn(per_hour, saving)
    }
}

/// For entries that turns write and read themselves. `write_extra` is what writing the prefix costs above reading it,
/// `fee` what it costs above sending it as fresh input.
fn entry_pays_from(
    lifetime_seconds: Option<u32>,
    is_sliding: bool,
    life_seconds: Option<u64>,
    write_extra: Decimal,
    fee: Decimal,
    saving: Decimal,
) -> Option<Decimal> {
    if fee <= Decimal::ZERO && saving >= Decimal::ZERO {
        return Some(Decimal::ZERO);
    }
    let life_seconds = life_seconds.filter(|seconds| *seconds > 0);
    // An entry that outlives the context needs no turns to stay alive.
    let lifetime_seconds = lifetime_seconds
        .map(u64::from)
        .filter(|lifetime| *lifetime > 0 && life_seconds.is_none_or(|life| *lifetime < life));
    // Below one turn in a lifetime each turn finds the entry gone and writes it again.
    let alive_from =
        lifetime_seconds.map_or(Decimal::ZERO, |seconds| an_hour_of(Decimal::ONE, seconds));
    let written_every_seconds = if is_sliding {
        life_seconds
    } else {
        lifetime_seconds.or(life_seconds)
    };
    let per_hour =
        written_every_seconds.map_or(Decimal::ZERO, |seconds| an_hour_of(write_extra, seconds));
    turns_that_earn(per_hour, saving).map(|turns| turns.max(alive_from))
}

/// What comes up once in `seconds`, for an hour.
fn an_hour_of(amount: Decimal, seconds: u64) -> Decimal {
    amount
        .saturating_mul(Decimal::from(3600))
        .checked_div(Decimal::from(seconds))
        .unwrap_or(Decimal::MAX)
}

fn turns_that_earn(per_hour: Decimal, saving: Decimal) -> Option<Decimal> {
    if per_hour <= Decimal::ZERO && saving >= Decimal::ZERO {
        return Some(Decimal::ZERO);
    }
    if saving <= Decimal::ZERO {
        return None;
    }
    per_hour.checked_div(saving)
}

/// Reads after one write until both together cost no more than fresh input would have:
/// `(write_mult - 1) / (1 - read_mult)`, rounded up.
///
/// `None`: never, because reads are no cheaper than input.
pub fn pays_for_write_reads(write_mult: Decimal, read_mult: Decimal) -> Option<u32> {
    let fee = write_mult.saturating_sub(Decimal::ONE);
    if fee <= Decimal::ZERO {
        return Some(0);
    }
    let earned = Decimal::ONE.saturating_sub(read_mult);
    if earned <= Decimal::ZERO {
        return None;
    }
    fee.checked_div(earned)?.ceil().to_u32()
}

/// Reads an hour from which storage pays: `storage / ((1 - read_mult) * input)`, with the storage price for a million
/// tokens and an hour and the input rate for a million tokens. The price of making the copy is left out; a
/// [`Price::estimate`] with a life has it.
///
/// `None`: never.
pub fn pays_for_storage_reads_per_hour(
    storage_per_mtok_hour: Decimal,
    input: Decimal,
    read_mult: Decimal,
) -> Option<Decimal> {
    let earned = Decimal::ONE.saturating_sub(read_mult).saturating_mul(input);
    turns_that_earn(storage_per_mtok_hour, earned)
}

/// Pings (requests that do nothing but renew an entry's life) which cost no more than writing the entry again:
/// `(write_mult - read_mult) / read_mult`, rounded down. A keep-warm that has sent so many since the last use stops.
///
/// Where reads are free there is no bound: `u32::MAX`.
pub fn pings_max(write_mult: Decimal, read_mult: Decimal) -> u32 {
    let spared = write_mult.saturating_sub(read_mult);
    if spared <= Decimal::ZERO {
        return 0;
    }
    spared
        .checked_div(read_mult)
        .and_then(|pings| pings.floor().to_u32())
        .unwrap_or(u32::MAX)
}

/// As [`pings_max`], where the next use would be the last one (or writing costs what input costs): the alternative is
/// then not a write but fresh input.
pub fn pings_max_before_last_use(read_mult: Decimal) -> u32 {
    pings_max(Decimal::ONE, read_mult)
}

/// Whether one more ping pays when the context is used within the next window with this `probability`:
/// `probability * (write_mult - read_mult) > read_mult`. A keep-warm stops at the first window for which it does not.
pub fn ping_pays(probability: Decimal, write_mult: Decimal, read_mult: Decimal) -> bool {
    probability.saturating_mul(write_mult.saturating_sub(read_mult)) > read_mult
}

/// As [`ping_pays`], where the next use would be the last one.
pub fn ping_pays_before_last_use(probability: Decimal, read_mult: Decimal) -> bool {
    ping_pays(probability, Decimal::ONE, read_mult)
}

/// Pings that keep an entry alive from one use to the next, `gap_ms` later, when each buys `window_ms`: the entry's
/// lifetime less a margin for clocks and the time a request takes. The use itself is the last renewal.
///
/// `None`: a window of 0 bridges no gap.
pub fn pings_for_gap(gap_ms: u64, window_ms: u64) -> Option<u64> {
    if window_ms == 0 {
        return None;
    }
    Some(gap_ms.div_ceil(window_ms).saturating_sub(1))
}

/// How many pings a longer lifetime costs as much as: `(longer - shorter) / read_mult`. A gap that fewer pings bridge is
/// bridged more cheaply by pings.
///
/// `None`: pings are free.
pub fn pings_per_longer_tier(
    write_mult: Decimal,
    longer_write_mult: Decimal,
    read_mult: Decimal,
) -> Option<Decimal> {
    longer_write_mult
        .saturating_sub(write_mult)
        .checked_div(read_mult)
}
