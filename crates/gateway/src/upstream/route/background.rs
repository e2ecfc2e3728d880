//! What goes on without a request: pings, longer lives for handles, dropping what nobody needs any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use holdfast_protocol::context::{Context, KeepWarm};
use holdfast_protocol::price;
use holdfast_protocol::upstream::FailureKind;
use holdfast_protocol::{ContextId, UnixMillis};
use holdfast_store::{HandleRecord, StoreError};
use rust_decimal::Decimal;
use rust_decimal::prelude::FromPrimitive;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::plan;
use crate::ledger::Entry;
use crate::upstream::handles::CALLS_AT_ONCE;
use crate::upstream::warmth::{Kept, UseKind};
use crate::upstream::{Shared, Target};

/// How often it looks.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// Rounds between two looks at the store.
const STORE_ROUNDS: u32 = 5;

/// Rounds between two looks for what was left behind.
const TIDY_ROUNDS: u32 = 60;

/// A handle is given longer when less than this share of its context's life is left to it.
const EXTEND_BELOW_PERCENT: i64 = 50;

/// What needs no upstream, until the service stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let accounts = shared.accounts.write_until(shared.stopping.clone());
    tokio::join!(accounts, keep_until(&shared));
}

/// What is done at these upstreams, until `ended` is cancelled.
pub(crate) async fn tend_until(
    shared: Arc<Shared>,
    targets: Vec<Arc<Target>>,
    ended: CancellationToken,
) {
    let places = places(&targets);
    // An upstream that hangs holds up nobody but itself.
    let tending = places
        .iter()
        .map(|target| tend_place(&shared, target, ended.clone()));
    let tidying = tidy_until(&shared, &places, ended.clone());
    tokio::join!(tidying, join_all(tending));
}

async fn tend_place(shared: &Arc<Shared>, target: &Arc<Target>, ended: CancellationToken) {
    let mut rounds = Rounds::new(ended);
    while let Some(round) = rounds.next().await {
        keep_warm(shared, target).await;
        if round.is_multiple_of(STORE_ROUNDS) {
            tend_handles(shared, target).await;
        }
    }
}

async fn tidy_until(shared: &Shared, places: &[Arc<Target>], ended: CancellationToken) {
    let mut rounds = Rounds::new(ended);
    while let Some(round) = rounds.next().await {
        if round.is_multiple_of(TIDY_ROUNDS) {
            tidy(shared, places).await;
        }
    }
}

async fn keep_until(shared: &Shared) {
    let mut rounds = Rounds::new(shared.stopping.clone());
    while let Some(round) = rounds.next().await {
        if round.is_multiple_of(STORE_ROUNDS) {
            catch_up(shared).await;
        }
    }
}

struct Rounds {
    ticks: Interval,
    ended: CancellationToken,
    round: u32,
}

impl Rounds {
    fn new(ended: CancellationToken) -> Self {
        let mut ticks = tokio::time::interval(ROUND_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Rounds {
            ticks,
            ended,
            round: 0,
        }
    }

    /// The next round's number when it begins; `None` when there are no more.
    async fn next(&mut self) -> Option<u32> {
        tokio::select! {
            () = self.ended.cancelled() => None,
            _ = self.ticks.tick() => {
                let round = self.round;
                self.round = round.wrapping_add(1);
                Some(round)
            }
        }
    }
}

/// One round of everything.
pub(crate) async fn tend(shared: &Arc<Shared>, targets: &[Arc<Target>]) {
    catch_up(shared).await;
    let places = places(targets);
    tidy(shared, &places).await;
    let tending = places.iter().map(|target| async move {
        keep_warm(shared, target).await;
        tend_handles(shared, target).await;
    });
    join_all(tending).await;
}

/// One target for each place.
fn places(targets: &[Arc<Target>]) -> Vec<Arc<Target>> {
    let mut seen = HashSet::new();
    let mut places = targets.to_vec();
    places.retain(|target| seen.insert(target.place.clone()));
    places
}

async fn catch_up(shared: &Shared) {
    if let Err(error) = shared.handles.catch_up().await {
        tracing::debug!(%error, "the store does not take handles yet");
    }
}

/// Forgets what has ended, once it has been charged for to its end.
async fn tidy(shared: &Shared, places: &[Arc<Target>]) {
    for target in places {
        if let Err(error) = shared.storage.accrue(shared, target).await {
            tracing::debug!(%error, "storage at upstreams is accrued later");
            return;
        }
    }
    if let Err(error) = shared.handles.tidy().await {
        tracing::debug!(%error, "handles can't be tidied now");
    }
}

/// Refreshes the copies at one place of contexts that want it, where it pays.
async fn keep_warm(shared: &Arc<Shared>, target: &Arc<Target>) {
    let _round = target.learnt.pinging.lock().await;
    let now = (shared.clock)();
    let due = shared.warmth.due(&target.place, now);
    futures_util::stream::iter(due)
        .for_each_concurrent(CALLS_AT_ONCE, |kept| {
            keep_one_warm(shared, target, kept, now)
        })
        .await;
}

async fn keep_one_warm(shared: &Arc<Shared>, target: &Arc<Target>, kept: Kept, now: UnixMillis) {
    let context = &kept.context;
    let place = target.place_of(&kept.worker);
    let Some(seat) = target.upstream.pool.seat_at(&kept.worker) else {
        // Its next use will be elsewhere.
        shared.warmth.let_go(&context.id, &place);
        return;
    };
    let is_needed = match shared.store.get(&context.project, &context.id, now).await {
        // A copy that outlives its context needs nothing.
        Ok(stored) => stored.expires_at > kept.refreshed_at + kept.lifetime_ms,
        Err(StoreError::NotFound) => false,
        Err(error) => {
            tracing::debug!(%error, "a ping waits for the store");
            return;
        }
    };
    if !is_needed || !pays(shared, target, &kept, now) {
        shared.warmth.let_go(&context.id, &place);
        return;
    }
    match plan::hold(
        shared,
        target,
        &seat.worker,
        context,
        &kept.prefix,
        UseKind::Ping,
        &Entry::none(),
    )
    .await
    {
        Ok(_) => shared.events.pinged(target),
        Err(failure) => {
            shared.warmth.let_go(&context.id, &place);
            tracing::info!(
                upstream = target.name(),
                failure = failure.kind.as_str(),
                "a context can't be kept warm any longer"
            );
        }
    }
}

/// The break-even rule (facts section 5.4): a ping costs a read of the prefix, and saves writing it again if the context
/// is used before the copy would have ended.
fn pays(shared: &Shared, target: &Target, kept: &Kept, now: UnixMillis) -> bool {
    match kept.context.policy.keep_warm {
        KeepWarm::Off => return false,
        KeepWarm::Always => return true,
        KeepWarm::Auto => {}
    }
    // Without prices nobody can tell, and then nothing is spent.
    let Some(price) = target.price(shared) else {
        return false;
    };
    let tier = target.rules.cache.tier_for(kept.context.ttl_seconds);
    let (Some(read), Some(write)) = (price.read_multiple(), price.write_multiple(tier)) else {
        return false;
    };
    let probability = kept.uses.probability_within(kept.lifetime_ms, now);
    let Some(probability) = Decimal::from_f64(probability) else {
        return false;
    };
    kept.pings < price::pings_max(write, read)
        && kept.uses.count > 0
        && price::ping_pays(probability, write, read)
}

/// At one place, longer lives for handles whose contexts live on, and an end for those whose contexts are gone.
async fn tend_handles(shared: &Arc<Shared>, target: &Arc<Target>) {
    match shared.handles.expiring(&target.place).await {
        Ok(records) => {
            let now = (shared.clock)();
            futures_util::stream::iter(records)
                .for_each_concurrent(CALLS_AT_ONCE, |record| async move {
                    let (project, id) = (&record.project, &record.context);
                    if let Ok(context) = shared.store.get(project, id, now).await {
                        extend_one(shared, target, &context, &record).await;
                    }
                })
                .await;
        }
        Err(error) => tracing::debug!(%error, "handles can't be looked through now"),
    }
    drop_doomed(shared, target).await;
}

async fn drop_doomed(shared: &Shared, target: &Arc<Target>) {
    loop {
        match shared.handles.drop_doomed(shared, target).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::debug!(%error, "handles can't be dropped now");
                return;
            }
        }
    }
}

/// Gives a context's copies as long as the context has, where they would end much earlier.
pub(super) async fn extend(shared: &Arc<Shared>, targets: &[Arc<Target>], context: &Context) {
    let Ok(records) = shared.handles.of(&context.id).await else {
        return;
    };
    for record in records {
        if let Some(target) = targets.iter().find(|target| target.place == record.place) {
            extend_one(shared, target, context, &record).await;
        }
    }
}

async fn extend_one(
    shared: &Arc<Shared>,
    target: &Arc<Target>,
    context: &Context,
    record: &HandleRecord,
) {
    let now = (shared.clock)();
    let left = context.expires_at - now;
    let is_short = (record.expires_at - now) * 100 < left * EXTEND_BELOW_PERCENT;
    let is_late = record.expires_at < context.expires_at && record.expires_at - now < 60_000;
    // What a context has left behind elsewhere ends by itself.
    let home = shared.warmth.home(&context.id);
    let is_left = home.is_some_and(|home| home != record.place);
    if record.expires_at <= now || is_left || !(is_short || is_late) {
        return;
    }
    match shared.handles.extend(record, context, target).await {
        Ok(false) => {}
        Ok(true) => {
            let tokens = record.tokens.unwrap_or(context.prefix_tokens);
            let ms = context.expires_at - record.expires_at;
            plan::add_storage(shared, target, context, tokens, ms);
        }
        Err(failure) if failure.kind == FailureKind::HandleGone => {
            shared.storage.ends(shared, target, record).await;
            shared.handles.lost(record).await;
        }
        Err(failure) => tracing::debug!(
            upstream = target.name(),
            failure = failure.kind.as_str(),
            "a handle can't be extended now"
        ),
    }
}

/// A context is gone: its copies go, too.
pub(super) async fn release(shared: &Arc<Shared>, targets: &[Arc<Target>], context: &ContextId) {
    if let Err(error) = shared.handles.doom(context).await {
        tracing::warn!(%error, "a context's handles can't be marked yet");
        return;
    }
    join_all(targets.iter().map(|target| drop_doomed(shared, target))).await;
}
