//! What upstreams charge, on its way into the ledger: into the row of the request it was for, or where there is none, or
//! none any more, into one of its own.

use holdfast_protocol::Context;
use holdfast_protocol::usage::{BilledUsage, Money, Source};
use holdfast_store::LedgerRecord;
use rust_decimal::Decimal;

use super::accounts::trillionths;
use super::{Shared, Target};
use crate::ledger::{Charge, Entry};

/// An attempt whose cost can't be in its request's row.
const ATTEMPT: &str = "attempt";

/// A copy that was made or written without a request that waited for it.
const WARM: &str = "warm";

/// A copy that was kept warm.
const PING: &str = "ping";

/// Whose request something is charged for.
#[derive(Debug, Clone)]
pub(super) struct Payer {
    /// The request's row.
    pub(super) entry: Entry,
    /// The tenant.
    pub(super) project: String,
    /// The configured model.
    pub(super) model: String,
}

/// A charge with these counts, and money where there is a price.
pub(super) fn charge(usage: &BilledUsage, source: Source, money: Option<&Money>) -> Charge {
    let amount =
        |amount: fn(&Money) -> Decimal| money.map_or(0, |money| trillionths(amount(money)));
    // Counts that contradict each other are nobody's.
    let is_sound = usage.fresh_tokens().is_some();
    Charge {
        usage: *usage,
        source: if is_sound { source } else { Source::Estimate },
        cost: amount(|money| money.cost),
        saved: amount(|money| money.saved),
        currency: money.map_or_else(String::new, |money| money.currency.clone()),
        cost_source: money.map_or(Source::Estimate, |money| money.source),
    }
}

/// Money of which nothing was saved: what was done brought no answer.
pub(super) fn spent(shared: &Shared, target: &Target, usage: &BilledUsage) -> Option<Money> {
    let price = target.price(shared)?;
    let cost = price.cost(usage);
    Some(Money {
        cost,
        saved: -cost,
        currency: price.currency.to_string(),
        source: Source::Estimate,
    })
}

/// What an answer cost, and saved against one without a cache.
pub(super) fn priced(shared: &Shared, target: &Target, usage: &BilledUsage) -> Option<Money> {
    let price = target.price(shared)?;
    let cost = price.cost(usage);
    Some(Money {
        cost,
        saved: price.baseline(usage) - cost,
        currency: price.currency.to_string(),
        source: Source::Estimate,
    })
}

/// Puts a charge for a request into the ledger.
pub(super) fn bill(
    shared: &Shared,
    target: &Target,
    payer: &Payer,
    context: Option<&Context>,
    charge: &Charge,
) {
    if payer.entry.charge(charge) {
        return;
    }
    let row = LedgerRecord {
        project: payer.project.clone(),
        key_id: key_of(&payer.entry),
        model: payer.model.clone(),
        context: context.map(|context| context.id.to_string()),
        ..row(target, ATTEMPT)
    };
    shared.ledger.charge_apart(row, charge);
}

/// Puts what a copy of a context costs into the ledger: into the row of the request that waits for it, where there is
/// one.
pub(super) fn bill_copy(
    shared: &Shared,
    target: &Target,
    entry: &Entry,
    context: &Context,
    is_ping: bool,
    charge: &Charge,
) {
    if entry.charge(charge) {
        return;
    }
    let row = LedgerRecord {
        project: context.project.clone(),
        key_id: key_of(entry),
        model: context.model.clone(),
        context: Some(context.id.to_string()),
        ..row(target, if is_ping { PING } else { WARM })
    };
    shared.ledger.charge_apart(row, charge);
}

/// Whose budgets pay for it, too, where there was a request.
fn key_of(entry: &Entry) -> Option<String> {
    entry.payer().map(|payer| payer.key_id.clone())
}

/// A row of this kind for what `target` charges.
pub(super) fn row(target: &Target, kind: &str) -> LedgerRecord {
    LedgerRecord {
        kind: kind.to_owned(),
        upstream: Some(target.name().to_owned()),
        upstream_model: Some(target.model.clone()),
        ..LedgerRecord::default()
    }
}
