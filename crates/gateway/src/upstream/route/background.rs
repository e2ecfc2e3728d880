//! What goes on without a request: pings, longer lives for handles, dropping what nobody needs any more.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::context::{Context, KeepWarm};
use holdfast_protocol::price;
use holdfast_protocol::upstream::FailureKind;
use holdfast_protocol::{ContextId, UnixMillis};
use rust_decimal::Decimal;
use rust_decimal::prelude::FromPrimitive;

use super::plan;
use crate::upstream::warmth::{Kept, UseKind};
use crate::upstream::{Shared, Target};

/// How often it looks.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// Rounds between two looks at the store.
const STORE_ROUNDS: u32 = 5;

/// A handle is given longer when less than this share of its context's life is left to it.
const EXTEND_BELOW_PERCENT: i64 = 50;

/// Runs until the service stops.
pub(crate) async fn run(shared: Arc<Shared>, targets: Vec<Arc<Target>>) {
    let writing = Arc::clone(&shared);
    let accounts = async move { writing.accounts.write_until(writing.stopping.clone()).await };
    tokio::join!(accounts, tend_until(shared, targets));
}

async fn tend_until(shared: Arc<Shared>, targets: Vec<Arc<Target>>) {
    let mut ticks = tokio::time::interval(ROUND_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut round = 0_u32;
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        keep_warm(&shared).await;
        if round.is_multiple_of(STORE_ROUNDS) {
            tend_handles(&shared, &targets).await;
        }
        round = round.wrapping_add(1);
    }
}

/// One round of everything.
pub(crate) async fn tend(shared: &Arc<Shared>, targets: &[Arc<Target>]) {
    keep_warm(shared).await;
    tend_handles(shared, targets).await;
}

/// Refreshes the copies of contexts that want it, where it pays.
async fn keep_warm(shared: &Arc<Shared>) {
    let _round = shared.warmth.round.lock().await;
    let now = (shared.clock)();
    for kept in shared.warmth.due(now) {
        let (context, target) = (&kept.context, &kept.target);
        let stored = shared.store.get(&context.project, &context.id, now).await;
        // A copy that outlives its context needs nothing.
        let is_needed =
            stored.is_ok_and(|stored| stored.expires_at > kept.refreshed_at + kept.lifetime_ms);
        if !is_needed || !pays(shared, &kept, now) {
            shared.warmth.let_go(&context.id, &target.place);
            continue;
        }
        match plan::hold(shared, target, context, &kept.prefix, UseKind::Ping).await {
            Ok(_) => shared.events.pinged(target),
            Err(failure) => {
                shared.warmth.let_go(&context.id, &target.place);
                tracing::info!(
                    upstream = target.name(),
                    failure = failure.kind.as_str(),
                    "a context can't be kept warm any longer"
                );
            }
        }
    }
}

/// The break-even rule (facts section 5.4): a ping costs a read of the prefix, and saves writing it again if the context
/// is used before the copy would have ended.
fn pays(shared: &Shared, kept: &Kept, now: UnixMillis) -> bool {
    match kept.context.policy.keep_warm {
        KeepWarm::Off => return false,
        KeepWarm::Always => return true,
        KeepWarm::Auto => {}
    }
    // Without prices nobody can tell, and then nothing is spent.
    let Some(price) = kept.target.price(shared) else {
        return false;
    };
    let tier = kept.target.rules.cache.tier_for(kept.context.ttl_seconds);
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

/// Longer lives for handles whose contexts live on; an end for those whose contexts are gone.
async fn tend_handles(shared: &Arc<Shared>, targets: &[Arc<Target>]) {
    match shared.handles.expiring().await {
        Ok(records) => {
            let now = (shared.clock)();
            for record in records {
                let context = shared
                    .store
                    .get(&record.project, &record.context, now)
                    .await;
                if let Ok(context) = context {
                    extend(shared, targets, &context).await;
                }
            }
        }
        Err(error) => tracing::debug!(%error, "handles can't be looked through now"),
    }
    drop_doomed(shared, targets).await;
}

async fn drop_doomed(shared: &Shared, targets: &[Arc<Target>]) {
    loop {
        match shared.handles.drop_doomed(targets).await {
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
    let home = shared.warmth.home(&context.id);
    let now = (shared.clock)();
    let left = context.expires_at - now;
    for record in records {
        let is_short = (record.expires_at - now) * 100 < left * EXTEND_BELOW_PERCENT;
        let is_late = record.expires_at < context.expires_at && record.expires_at - now < 60_000;
        let Some(target) = targets.iter().find(|target| target.place == record.place) else {
            continue;
        };
        // What a context has left behind elsewhere ends by itself.
        let is_left = home.as_ref().is_some_and(|home| *home != record.place);
        if record.expires_at <= now || is_left || !(is_short || is_late) {
            continue;
        }
        match shared.handles.extend(&record, context, target).await {
            Ok(false) => {}
            Ok(true) => {
                let tokens = record.tokens.unwrap_or(context.prefix_tokens);
                let ms = context.expires_at - record.expires_at;
                plan::add_storage(shared, target, context, tokens, ms);
            }
            Err(failure) if failure.kind == FailureKind::HandleGone => {
                shared.handles.lost(&record).await;
            }
            Err(failure) => tracing::debug!(
                upstream = target.name(),
                failure = failure.kind.as_str(),
                "a handle can't be extended now"
            ),
        }
    }
}

/// A context is gone: its copies go, too.
pub(super) async fn release(shared: &Arc<Shared>, targets: &[Arc<Target>], context: &ContextId) {
    if let Err(error) = shared.handles.doom(context).await {
        tracing::warn!(%error, "a context's handles can't be marked; they end by themselves");
        return;
    }
    drop_doomed(shared, targets).await;
}
