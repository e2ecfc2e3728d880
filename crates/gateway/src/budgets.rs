//! What keys and projects may spend.
//!
//! Before an upstream is asked, the most that the request may cost is reserved ([`Budgets::reserve`]), unless that would
//! break a hard limit. The reservation ends when the request's row is in the ledger, in the same transaction that counts
//! what the request did cost: there is nothing to release and nothing to forget. What a process that was killed has
//! left behind goes when it starts again, or lapses.

mod money;
mod standing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_protocol::price::{Currency, Decimal};
use holdfast_protocol::{ApiError, ErrorKind};
use holdfast_store::{Budget, Reservation, Span, Spender, StoreError, Tally};
use tokio_util::task::TaskTracker;

use crate::app::{Clock, Store};
use crate::auth::Terms;
use crate::events::Events;
use crate::ledger::{Entry, Ledger};

pub use money::Rates;
use money::trillionths;
pub(crate) use standing::Standing;

/// How long a reservation outlives the longest request: its row is on the way to the ledger by then.
const GRACE: Duration = Duration::from_secs(60);

/// Budgets of which the last standing is remembered for the time that the store is away.
const REMEMBERED_MAX: usize = 10_000;

/// Whose budgets hold for a request.
#[derive(Debug, Clone)]
pub(crate) struct Payer {
    /// The tenant.
    pub(crate) project: String,
    /// Public id of the key.
    pub(crate) key_id: String,
    /// What an operator has decided about both.
    pub(crate) terms: Arc<Terms>,
}

impl Payer {
    /// Each budget with its spender.
    fn budgets(&self) -> impl Iterator<Item = (Spender, &Budget)> {
        let own = self.terms.budgets.iter();
        let shared = self.terms.project.budgets.iter();
        own.map(|budget| (Spender::Key(self.key_id.clone()), budget))
            .chain(shared.map(|budget| (Spender::Project(self.project.clone()), budget)))
    }
}

/// Settings of all budgets.
#[derive(Debug, Clone, Default)]
pub struct BudgetOptions {
    /// Of currencies in which budgets are not kept.
    pub rates: Rates,
    /// The longest that a request may take.
    pub request_time_max: Duration,
    /// Names this gateway among those that share a store, the same after each start.
    pub owner: String,
}

/// The budgets of this gateway.
pub(crate) struct Budgets {
    store: Arc<dyn Store>,
    events: Arc<Events>,
    ledger: Arc<Ledger>,
    clock: Clock,
    tasks: TaskTracker,
    options: BudgetOptions,
    remembered: Arc<Mutex<HashMap<Span, Remembered>>>,
}

/// What a span had spent and reserved when the store last said so, and what was begun without the store since.
#[derive(Debug, Clone, Default)]
struct Remembered {
    tallies: Vec<Tally>,
    since: Vec<Tally>,
}

/// Why a request may not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// The number of the budget that it would break.
    UsedUp(usize),
    /// There is no rate from this currency to the budget's.
    NoRate(String, Currency),
}

impl Budgets {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        events: Arc<Events>,
        ledger: Arc<Ledger>,
        clock: Clock,
        tasks: TaskTracker,
        options: BudgetOptions,
    ) -> Self {
        Budgets {
            store,
            events,
            ledger,
            clock,
            tasks,
            options,
            remembered: Arc::default(),
        }
    }

    /// The same budgets with other settings; the owner stays.
    pub(crate) fn reloaded(&self, options: BudgetOptions) -> Self {
        Budgets {
            store: Arc::clone(&self.store),
            events: Arc::clone(&self.events),
            ledger: Arc::clone(&self.ledger),
            clock: Arc::clone(&self.clock),
            tasks: self.tasks.clone(),
            options: BudgetOptions {
                owner: self.options.owner.clone(),
                ..options
            },
            remembered: Arc::clone(&self.remembered),
        }
    }

    /// Takes back what the process before this one has left behind.
    pub(crate) async fn resume(&self) -> Result<(), StoreError> {
        let released = self.store.release_of(&self.options.owner).await?;
        if released > 0 {
            tracing::info!(
                released,
                "reservations of requests that ended with a crash are released"
            );
        }
        Ok(())
    }

    /// Removes reservations that have lapsed.
    pub(crate) async fn sweep(&self) -> Result<(), StoreError> {
        self.store
            .sweep_reservations((self.clock)())
            .await
            .map(drop)
    }

    /// Reserves the most of `costs`, what a request may cost at each upstream that may answer it. Without budgets, and for
    /// what is free, nothing is asked of the store.
    ///
    /// # Errors
    /// `BudgetExhausted`; `Unavailable` when the store is away and nothing is known of a hard budget.
    pub(crate) async fn reserve(
        &self,
        entry: &Entry,
        costs: &[(Currency, Decimal)],
    ) -> Result<(), ApiError> {
        let Some(payer) = entry.payer() else {
            return Ok(());
        };
        let now = (self.clock)();
        let standings: Vec<Standing> = payer
            .budgets()
            .map(|(spender, budget)| Standing::of(spender, budget, now))
            .collect();
        let cost = self.options.rates.dearest(costs);
        let (Some((currency, cost)), false) = (cost, standings.is_empty()) else {
            return Ok(());
        };
        if cost.is_zero() {
            return Ok(());
        }
        let spans: Vec<Span> = standings.iter().map(|it| it.span.clone()).collect();
        let request_time_max = self.options.request_time_max + GRACE;
        let reservation = Reservation {
            id: entry.row_id().unwrap_or_default().to_owned(),
            owner: self.options.owner.clone(),
            spenders: spans.iter().map(|span| span.spender.clone()).collect(),
            amount: trillionths(cost),
            currency,
            expires_at: now + i64::try_from(request_time_max.as_millis()).unwrap_or(i64::MAX / 2),
        };
        let allows =
            |tallies: &[Vec<Tally>]| self.check(&standings, tallies, currency, cost).is_ok();
        let mut asked = self.store.reserve(&reservation, &spans, now, &allows).await;
        if asked.as_ref().is_ok_and(|reserved| !reserved.is_made) {
            // Requests that have just ended may be on their way to the ledger, with less than was reserved for them.
            self.ledger.flush().await;
            asked = self.store.reserve(&reservation, &spans, now, &allows).await;
        }
        let tallies = match asked {
            Ok(reserved) => {
                self.remember(&spans, &reserved.tallies);
                reserved.tallies
            }
            Err(StoreError::Unavailable(_)) => {
                self.reserve_from_memory(&standings, &spans, currency, cost)?
            }
            Err(error) => {
                tracing::error!(%error, "budgets can't be read");
                return Err(ApiError::internal());
            }
        };
        if let Err(refusal) = self.check(&standings, &tallies, currency, cost) {
            return Err(self.refused(&payer, &standings, &tallies, &refusal, (currency, cost)));
        }
        self.warn(entry, &payer, &standings, &tallies);
        Ok(())
    }

    /// How the budgets of a payer stand.
    pub(crate) async fn standings(
        &self,
        payer: &Payer,
    ) -> Result<Vec<(Standing, Budget, Option<Decimal>, Option<Decimal>)>, StoreError> {
        let now = (self.clock)();
        let all: Vec<(Standing, Budget)> = payer
            .budgets()
            .map(|(spender, budget)| (Standing::of(spender, budget, now), budget.clone()))
            .collect();
        let spans: Vec<Span> = all.iter().map(|(it, _)| it.span.clone()).collect();
        let tallies = self.store.tallies(&spans, now).await?;
        let with = |((standing, budget), tallies): ((Standing, Budget), Vec<Tally>)| {
            let sum = |of: fn(&Tally) -> i128| {
                self.options
                    .rates
                    .sum(
                        tallies.iter().map(|it| (it.currency.as_str(), of(it))),
                        budget.currency,
                    )
                    .ok()
            };
            let (spent, reserved) = (sum(|it| it.spent), sum(|it| it.reserved));
            (standing, budget, spent, reserved)
        };
        Ok(all.into_iter().zip(tallies).map(with).collect())
    }

    /// Whether a request of this cost fits everywhere.
    fn check(
        &self,
        standings: &[Standing],
        tallies: &[Vec<Tally>],
        currency: Currency,
        cost: Decimal,
    ) -> Result<(), Refusal> {
        for (number, (standing, tallies)) in standings.iter().zip(tallies).enumerate() {
            let Some(hard) = standing.hard else { continue };
            let rates = &self.options.rates;
            let cost = rates
                .convert(cost, &currency.to_string(), standing.currency)
                .ok_or_else(|| Refusal::NoRate(currency.to_string(), standing.currency))?;
            let used = self.used(standing, tallies)?;
            if used.saturating_add(cost) > hard {
                return Err(Refusal::UsedUp(number));
            }
        }
        Ok(())
    }

    /// What is spent and reserved, in the budget's currency.
    fn used(&self, standing: &Standing, tallies: &[Tally]) -> Result<Decimal, Refusal> {
        let amounts = tallies
            .iter()
            .map(|it| (it.currency.as_str(), it.spent + it.reserved));
        let sum = self.options.rates.sum(amounts, standing.currency);
        sum.map_err(|currency| Refusal::NoRate(currency, standing.currency))
    }

    /// While the store is away what it said last counts, and everything that has begun since as if it had cost all that
    /// it may.
    fn reserve_from_memory(
        &self,
        standings: &[Standing],
        spans: &[Span],
        currency: Currency,
        cost: Decimal,
    ) -> Result<Vec<Vec<Tally>>, ApiError> {
        let mut remembered = self.remembered();
        let mut all = Vec::with_capacity(spans.len());
        for (span, standing) in spans.iter().zip(standings) {
            let tallies = match (remembered.get(span), standing.hard) {
                (Some(known), _) => known.tallies.iter().chain(&known.since).cloned().collect(),
                (None, None) => Vec::new(),
                (None, Some(_)) => {
                    return Err(ApiError::unavailable(
                        "The store of budgets is away, and this one has not been seen lately. Try again.",
                    ));
                }
            };
            all.push(tallies);
        }
        if self.check(standings, &all, currency, cost).is_ok() {
            for span in spans {
                if let Some(known) = remembered.get_mut(span) {
                    add(&mut known.since, currency, trillionths(cost));
                }
            }
        }
        Ok(all)
    }

    fn remember(&self, spans: &[Span], tallies: &[Vec<Tally>]) {
        let mut remembered = self.remembered();
        if remembered.len() + spans.len() > REMEMBERED_MAX {
            // Rare and harmless: whoever comes back while the store is there is remembered again.
            remembered.clear();
        }
        for (span, tallies) in spans.iter().zip(tallies) {
            let known = Remembered {
                tallies: tallies.clone(),
                since: Vec::new(),
            };
            remembered.insert(span.clone(), known);
        }
    }

    fn refused(
        &self,
        payer: &Payer,
        standings: &[Standing],
        tallies: &[Vec<Tally>],
        refusal: &Refusal,
        (currency, cost): (Currency, Decimal),
    ) -> ApiError {
        let (standing, message) = match refusal {
            Refusal::NoRate(from, to) => {
                tracing::error!(%from, %to, "a budget can't be kept: `budgets.exchange_rates` lacks a rate");
                let message = format!(
                    "A budget in {to} holds for this request, which is charged in {from}, and the gateway has no \
                     exchange rate between them."
                );
                (standings.first(), message)
            }
            Refusal::UsedUp(number) => {
                let standing = standings.get(*number);
                let left = standing.and_then(|standing| {
                    let used = self.used(standing, tallies.get(*number)?).ok()?;
                    Some((standing.hard? - used).max(Decimal::ZERO))
                });
                let what = standing.map_or_else(String::new, Standing::name);
                let hard = standing.and_then(|it| it.hard).unwrap_or_default();
                let budget_currency = standing.map_or(currency, |it| it.currency);
                let message = format!(
                    "This request may cost up to {} {currency}, and of {what} of {} {budget_currency} {} \
                     {budget_currency} are left.{}",
                    shown(cost),
                    shown(hard),
                    shown(left.unwrap_or_default()),
                    standing.map_or_else(String::new, Standing::when_again),
                );
                (standing, message)
            }
        };
        if let Some(standing) = standing {
            self.events.budget_refused(standing.is_of_key());
            self.tell(payer, standing, true);
        }
        let mut error = ApiError::new(ErrorKind::BudgetExhausted, message);
        error.should_retry = Some(false);
        error
    }

    /// Says on the answer, and once to the operator, that a soft limit has been passed.
    fn warn(&self, entry: &Entry, payer: &Payer, standings: &[Standing], tallies: &[Vec<Tally>]) {
        for (standing, tallies) in standings.iter().zip(tallies) {
            let Some(soft) = standing.soft else { continue };
            // What is reserved will mostly cost less, and a warning should be true.
            let spent = tallies.iter().map(|it| (it.currency.as_str(), it.spent));
            let Ok(spent) = self.options.rates.sum(spent, standing.currency) else {
                continue;
            };
            if spent >= soft {
                entry.warn(standing.warning(spent));
                self.events.budget_warned(standing.is_of_key());
                self.tell(payer, standing, false);
            }
        }
    }

    /// Tells receivers of events, once for each budget and period, whichever replica notices first.
    fn tell(&self, payer: &Payer, standing: &Standing, is_refusal: bool) {
        let data = standing.event(payer);
        let notice = standing.notice(is_refusal);
        let (store, events, now) = (
            Arc::clone(&self.store),
            Arc::clone(&self.events),
            (self.clock)(),
        );
        if !events.has_webhooks() {
            return;
        }
        self.tasks.spawn(async move {
            match store.notice_is_new(&notice, now).await {
                Ok(true) => events.budget_event(is_refusal, data),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "a budget's event can't be told"),
            }
        });
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<Span, Remembered>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(tallies: &mut Vec<Tally>, currency: Currency, reserved: i64) {
    let code = currency.to_string();
    match tallies.iter_mut().find(|it| it.currency == code) {
        Some(tally) => tally.reserved += i128::from(reserved),
        None => tallies.push(Tally {
            currency: code,
            spent: 0,
            reserved: i128::from(reserved),
        }),
    }
}

/// An amount for people: not more than six decimals, which is finer than any price for a token.
fn shown(amount: Decimal) -> Decimal {
    amount.round_dp(6).normalize()
}

#[cfg(test)]
mod tests;
