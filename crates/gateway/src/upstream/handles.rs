//! Copies of contexts that upstreams keep under names of their own: made once, found again after a restart, extended
//! while their context lives, dropped with it, made again when the upstream has lost them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use holdfast_protocol::context::Context;
use holdfast_protocol::upstream::{Failure, FailureKind, HoldCall, HttpCall, Markers};
use holdfast_protocol::usage::BilledUsage;
use holdfast_protocol::{ContextId, UnixMillis};
use holdfast_store::{HandleRecord, StoreError};
use rand::RngExt;
use rand::distr::Alphanumeric;
use tokio::sync::Mutex as AsyncMutex;

use super::pool::Worker;
use super::route::plan;
use super::{Shared, Target, UpstreamPrefix};
use crate::app::{Clock, Store};
use crate::ledger::Entry;

/// A copy that ends so soon is not used any more: the request could arrive after its end.
const MARGIN_MS: i64 = 10_000;

/// How long a replica may take to make a copy before another one tries.
const LEASE: Duration = Duration::from_secs(60);

/// How often a replica that waits for another one's copy looks for it.
const LEASE_POLL: Duration = Duration::from_millis(100);

/// Copies that end within this time are extended in the background, if their context lives longer.
const EXTEND_BEFORE_MS: i64 = 60_000;

/// Copies looked at in one round of the background work.
const ROUND_MAX: u32 = 100;

/// Calls under way at once in the background, at one place.
pub(super) const CALLS_AT_ONCE: usize = 8;

/// A copy younger than this may belong to a context that is still being created, and is no orphan.
const ORPHAN_AFTER_MS: i64 = 600_000;

/// Known handles kept in memory.
const KNOWN_MAX: usize = 20_000;

/// The shortest life to ask for, seconds.
const SECONDS_MIN: u32 = 60;

type Key = (ContextId, String);

/// All handles.
pub(crate) struct Handles {
    store: Arc<dyn Store>,
    clock: Clock,
    /// Names this process among replicas.
    owner: String,
    known: Mutex<HashMap<Key, HandleRecord>>,
    /// What the store did not take, to be given to it again.
    unsaved: Mutex<HashMap<Key, HandleRecord>>,
    /// Contexts that are gone and whose copies the store did not mark, to be marked again.
    undoomed: Mutex<HashSet<ContextId>>,
    making: Mutex<HashMap<Key, Arc<AsyncMutex<()>>>>,
    /// Contexts that went while a copy of them was being made.
    gone_meanwhile: Mutex<HashSet<ContextId>>,
    /// Why an upstream makes no copy of a prefix: it would say the same again.
    refused: Mutex<HashMap<Key, Failure>>,
    /// Answers that become handles when their turn is committed: the turn, and the handle.
    chained: Mutex<HashMap<ContextId, HandleRecord>>,
}

/// A handle to use.
#[derive(Debug, Clone)]
pub(crate) struct Ensured {
    pub(crate) record: HandleRecord,
    /// What making it took; `None`: it was there.
    pub(crate) made: Option<Made>,
}

/// What making a handle took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Made {
    /// Billed for the call.
    pub(crate) usage: Option<BilledUsage>,
    /// Whether there had been one before.
    pub(crate) again: bool,
}

impl Handles {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        let owner = rand::rng()
            .sample_iter(Alphanumeric)
            .take(16)
            .map(char::from)
            .collect();
        Handles {
            store,
            clock,
            owner,
            known: Mutex::default(),
            unsaved: Mutex::default(),
            undoomed: Mutex::default(),
            making: Mutex::default(),
            gone_meanwhile: Mutex::default(),
            refused: Mutex::default(),
            chained: Mutex::default(),
        }
    }

    /// The context's copy at `target`, made now if there is none. `stale` names one that the upstream has said is gone.
    /// However many ask, one copy is made.
    pub(super) async fn ensure(
        &self,
        shared: &Arc<Shared>,
        context: &Context,
        target: &Arc<Target>,
        prefix: &Arc<UpstreamPrefix>,
        stale: Option<&str>,
        entry: &Entry,
    ) -> Result<Ensured, Failure> {
        if let Some(record) = self.find(context, target, stale).await {
            return Ok(Ensured { record, made: None });
        }
        let refused = lock(&self.refused)
            .get(&(context.id.clone(), target.place.clone()))
            .cloned();
        if let Some(failure) = refused {
            return Err(failure);
        }
        let shared = Arc::clone(shared);
        let (context, target, prefix) = (context.clone(), Arc::clone(target), Arc::clone(prefix));
        let (stale, entry) = (stale.map(str::to_owned), entry.clone());
        // On a task of its own: a copy that is being made must be remembered also when nobody waits for it any more.
        let task = shared.tasks.clone().spawn(async move {
            let handles = &shared.handles;
            handles
                .ensure_alone(
                    &shared,
                    &context,
                    &target,
                    &prefix,
                    stale.as_deref(),
                    &entry,
                )
                .await
        });
        task.await.unwrap_or_else(|_| {
            Err(Failure::new(
                FailureKind::ServerError,
                "making a copy failed",
            ))
        })
    }

    async fn ensure_alone(
        &self,
        shared: &Arc<Shared>,
        context: &Context,
        target: &Arc<Target>,
        prefix: &Arc<UpstreamPrefix>,
        stale: Option<&str>,
        entry: &Entry,
    ) -> Result<Ensured, Failure> {
        let key = (context.id.clone(), target.place.clone());
        let own = Arc::clone(lock(&self.making).entry(key.clone()).or_default());
        let guard = own.lock_owned().await;
        let result = self
            .ensure_locked(shared, context, target, prefix, stale, entry)
            .await;
        drop(guard);
        if self.ends_making(&key)
            && let Err(error) = self.doom(&context.id).await
        {
            tracing::debug!(%error, "a handle can't be marked yet");
        }
        result
    }

    /// A copy has been made, or not. Answers whether its context has gone in the meantime.
    fn ends_making(&self, key: &Key) -> bool {
        let mut making = lock(&self.making);
        if making
            .get(key)
            .is_some_and(|own| Arc::strong_count(own) == 1)
        {
            making.remove(key);
        }
        let mut gone = lock(&self.gone_meanwhile);
        if making.keys().any(|(id, _)| *id == key.0) {
            gone.contains(&key.0)
        } else {
            gone.remove(&key.0)
        }
    }

    async fn ensure_locked(
        &self,
        shared: &Arc<Shared>,
        context: &Context,
        target: &Arc<Target>,
        prefix: &Arc<UpstreamPrefix>,
        stale: Option<&str>,
        entry: &Entry,
    ) -> Result<Ensured, Failure> {
        let again = stale.is_some() || self.knows_any(context, target).await;
        if let Some(record) = self.find(context, target, stale).await {
            return Ok(Ensured { record, made: None });
        }
        let lease = format!("handle/{}/{}", context.id, target.place);
        while !self.lease(&lease).await {
            tokio::time::sleep(LEASE_POLL).await;
            if let Some(record) = self.find(context, target, stale).await {
                return Ok(Ensured { record, made: None });
            }
        }
        // Whoever had the lease before may have made one.
        let made = match self.find(context, target, stale).await {
            Some(record) => Ok(Ensured { record, made: None }),
            None => match self.make(shared, context, target, prefix, entry).await {
                Ok((record, usage)) => Ok(Ensured {
                    record,
                    made: Some(Made { usage, again }),
                }),
                Err(failure) => Err(failure),
            },
        };
        if let Err(error) = self.store.release_lease(&lease, &self.owner).await {
            tracing::debug!(%error, "a lease can't be given back and runs out by itself");
        }
        made.inspect_err(|failure| self.refuse(context, target, failure))
    }

    fn refuse(&self, context: &Context, target: &Target, failure: &Failure) {
        let is_final = matches!(
            failure.kind,
            FailureKind::PrefixTooSmall | FailureKind::InvalidRequest | FailureKind::Filtered
        );
        if !is_final {
            return;
        }
        let mut refused = lock(&self.refused);
        if refused.len() >= KNOWN_MAX {
            refused.clear();
        }
        refused.insert((context.id.clone(), target.place.clone()), failure.clone());
    }

    /// While the store is away, this process alone decides.
    async fn lease(&self, name: &str) -> bool {
        let now = (self.clock)();
        let until = now + i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
        match self
            .store
            .acquire_lease(name, &self.owner, until, now)
            .await
        {
            Ok(is_ours) => is_ours,
            Err(error) => {
                tracing::warn!(%error, "a lease can't be taken; making the copy without");
                true
            }
        }
    }

    async fn make(
        &self,
        shared: &Arc<Shared>,
        context: &Context,
        target: &Arc<Target>,
        prefix: &UpstreamPrefix,
        entry: &Entry,
    ) -> Result<(HandleRecord, Option<BilledUsage>), Failure> {
        let now = (self.clock)();
        let ttl_seconds = life_seconds(context, target, now);
        let encoded = prefix
            .encode(target, Markers::default(), None)
            .map_err(|error| Failure::new(FailureKind::InvalidRequest, &error.message))?;
        let call = target
            .dialect
            .encode_hold(&HoldCall {
                model: &target.model,
                prefix: &encoded,
                tool_choice: prefix.content().tool_choice.as_ref(),
                ttl_seconds,
                expires_at_seconds: now.div_euclid(1000) + i64::from(ttl_seconds),
                cache_key: None,
                salt: None,
                tier_seconds: None,
                rules: &target.rules,
            })
            .map_err(|error| Failure::new(FailureKind::InvalidRequest, &error.message))?
            .ok_or_else(|| {
                Failure::new(FailureKind::InvalidRequest, "there are no handles here")
            })?;
        let body = target.call(call).await?;
        let held = target.dialect.decode_hold(&body, &target.rules)?;
        let name = held.handle.ok_or_else(Failure::malformed)?;
        // Their clock may be off: what we asked for, counted from before the call, is the safe bound.
        let asked = now + i64::from(ttl_seconds) * 1000;
        let record = HandleRecord {
            context: context.id.clone(),
            project: context.project.clone(),
            place: target.place.clone(),
            name,
            tokens: held.prefix_tokens,
            turns: 0,
            dropped_messages: 0,
            created_at: now,
            expires_at: asked,
        };
        self.remember(&record).await;
        if let Some(usage) = &held.usage {
            shared.events.upstream_usage(target, "create", usage, true);
        }
        plan::charge_handle(shared, target, context, &record, held.usage.as_ref(), entry);
        shared.events.handle_made(target);
        Ok((record, held.usage))
    }

    /// Keeps a new handle. While the store is away it lives in memory only, and if that is lost the upstream's own
    /// expiry bounds the leak.
    async fn remember(&self, record: &HandleRecord) {
        self.know(record);
        let key = (record.context.clone(), record.place.clone());
        match self.store.put_handle(record).await {
            Ok(()) => {
                lock(&self.unsaved).remove(&key);
            }
            Err(error) => {
                tracing::warn!(%error, "a handle can't be stored yet");
                let mut unsaved = lock(&self.unsaved);
                if unsaved.len() < KNOWN_MAX {
                    unsaved.insert(key, record.clone());
                }
            }
        }
    }

    /// Gives the store what it did not take while it was away. Handles first: only those it knows can be marked.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let unsaved: Vec<(Key, HandleRecord)> = lock(&self.unsaved)
            .iter()
            .take(ROUND_MAX as usize)
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect();
        for (key, record) in unsaved {
            self.store.put_handle(&record).await?;
            let mut unsaved = lock(&self.unsaved);
            if unsaved.get(&key) == Some(&record) {
                unsaved.remove(&key);
            }
        }
        let undoomed: Vec<ContextId> = {
            let unsaved = lock(&self.unsaved);
            let is_saved = |context: &&ContextId| unsaved.keys().all(|(id, _)| id != *context);
            let undoomed = lock(&self.undoomed);
            let saved = undoomed.iter().filter(is_saved);
            saved.take(ROUND_MAX as usize).cloned().collect()
        };
        for context in undoomed {
            self.store.doom_handles(&context).await?;
            lock(&self.undoomed).remove(&context);
        }
        Ok(())
    }

    /// Marks what nobody has marked, and forgets what has ended by itself.
    pub(super) async fn tidy(&self) -> Result<(), StoreError> {
        let now = (self.clock)();
        self.store.tidy_handles(now - ORPHAN_AFTER_MS, now).await
    }

    fn know(&self, record: &HandleRecord) {
        let mut known = lock(&self.known);
        if known.len() >= KNOWN_MAX {
            let now = (self.clock)();
            known.retain(|_, record| record.expires_at > now);
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
        }
        known.insert(
            (record.context.clone(), record.place.clone()),
            record.clone(),
        );
    }

    /// A copy that can be used, and for sessions one that stands for the same messages.
    async fn find(
        &self,
        context: &Context,
        target: &Target,
        stale: Option<&str>,
    ) -> Option<HandleRecord> {
        let now = (self.clock)();
        let is_usable = |record: &HandleRecord| {
            // One that lasts as long as its context is used to the end: another would be made for seconds.
            let margin = if record.expires_at < context.expires_at {
                MARGIN_MS
            } else {
                0
            };
            record.expires_at - margin > now
                && stale != Some(record.name.as_str())
                && stands_for(record, context)
        };
        let known = lock(&self.known)
            .get(&(context.id.clone(), target.place.clone()))
            .cloned();
        if let Some(record) = known
            && is_usable(&record)
        {
            return Some(record);
        }
        // Another replica may know a better one.
        match self.store.handles(&context.id).await {
            Ok(records) => {
                let record = records
                    .into_iter()
                    .find(|record| record.place == target.place && is_usable(record))?;
                self.know(&record);
                Some(record)
            }
            Err(error) => {
                tracing::warn!(%error, "handles can't be read");
                None
            }
        }
    }

    /// Whether there has been a copy, usable or not.
    async fn knows_any(&self, context: &Context, target: &Target) -> bool {
        if lock(&self.known).contains_key(&(context.id.clone(), target.place.clone())) {
            return true;
        }
        let records = self.store.handles(&context.id).await.unwrap_or_default();
        records.iter().any(|record| record.place == target.place)
    }

    /// An answer of a session that can be continued from, kept until its turn is committed.
    pub(super) fn chain(&self, record: HandleRecord) {
        let mut chained = lock(&self.chained);
        if chained.len() >= KNOWN_MAX {
            chained.clear();
        }
        chained.insert(record.context.clone(), record);
    }

    /// A turn begins: what an earlier one left that was never committed is not its past.
    pub(super) fn unchain(&self, context: &ContextId) {
        lock(&self.chained).remove(context);
    }

    /// A turn has been committed: its answer becomes the context's handle. What is answered is still to be stored, by
    /// [`Handles::store_chain`]; the next turn does not wait for that.
    pub(super) fn commit_chain(&self, context: &Context) -> Option<HandleRecord> {
        let record = lock(&self.chained)
            .remove(&context.id)
            .filter(|record| stands_for(record, context))?;
        self.know(&record);
        Some(record)
    }

    /// Stores what [`Handles::commit_chain`] gave.
    pub(super) async fn store_chain(&self, record: &HandleRecord) {
        self.remember(record).await;
    }

    /// The context is gone: its copies are marked to be dropped, now or when the store is back.
    pub(super) async fn doom(&self, context: &ContextId) -> Result<(), StoreError> {
        lock(&self.known).retain(|(id, _), _| id != context);
        lock(&self.refused).retain(|(id, _), _| id != context);
        lock(&self.chained).remove(context);
        if lock(&self.making).keys().any(|(id, _)| id == context) {
            lock(&self.gone_meanwhile).insert(context.clone());
        }
        let is_saved = lock(&self.unsaved).keys().all(|(id, _)| id != context);
        if is_saved {
            let marked = self.store.doom_handles(context).await;
            if marked.is_ok() {
                return marked;
            }
        }
        {
            let mut undoomed = lock(&self.undoomed);
            if undoomed.len() < KNOWN_MAX {
                undoomed.insert(context.clone());
            }
        }
        self.catch_up().await
    }

    /// One round of dropping at one place; answers whether there may be more to do at once.
    pub(super) async fn drop_doomed(
        &self,
        shared: &Shared,
        target: &Arc<Target>,
    ) -> Result<bool, StoreError> {
        // Two rounds at once would both tell the upstream.
        let _round = target.learnt.dropping.lock().await;
        let doomed = self
            .store
            .doomed(&target.place, (self.clock)(), ROUND_MAX)
            .await?;
        let is_full = doomed.len() == ROUND_MAX as usize;
        let mut drops = futures_util::stream::iter(doomed)
            .map(|record| async move { self.drop_one(shared, target, &record).await })
            .buffer_unordered(CALLS_AT_ONCE);
        let mut dropped = 0;
        while let Some(is_gone) = drops.next().await {
            dropped += u32::from(is_gone?);
        }
        Ok(dropped > 0 && is_full)
    }

    /// Answers whether the copy is gone.
    async fn drop_one(
        &self,
        shared: &Shared,
        target: &Target,
        record: &HandleRecord,
    ) -> Result<bool, StoreError> {
        if let Some(call) = target.dialect.encode_drop(&record.name)
            && let Err(failure) = target.call(call).await
        {
            let is_gone = matches!(
                failure.kind,
                FailureKind::HandleGone | FailureKind::ModelNotFound
            ) || failure.status == Some(404);
            if !is_gone {
                tracing::debug!(
                    upstream = target.name(),
                    failure = failure.kind.as_str(),
                    "a handle can't be dropped yet"
                );
                return Ok(false);
            }
        }
        shared.storage.ends(shared, target, record).await;
        self.store
            .remove_handle(&record.place, &record.name)
            .await?;
        Ok(true)
    }

    /// Copies at `place` that end soon and have not ended yet.
    pub(super) async fn expiring(&self, place: &str) -> Result<Vec<HandleRecord>, StoreError> {
        let now = (self.clock)();
        self.store
            .expiring(place, now, now + EXTEND_BEFORE_MS, ROUND_MAX)
            .await
    }

    /// A living context's copies, also those that have just ended.
    pub(super) async fn of(&self, context: &ContextId) -> Result<Vec<HandleRecord>, StoreError> {
        self.store.handles(context).await
    }

    /// Gives a copy as long a life as its context has. Answers whether it did: some copies can't be extended.
    pub(super) async fn extend(
        &self,
        record: &HandleRecord,
        context: &Context,
        target: &Target,
    ) -> Result<bool, Failure> {
        let now = (self.clock)();
        let ttl_seconds = life_seconds(context, target, now);
        let Some(call) = target.dialect.encode_extend(&record.name, ttl_seconds) else {
            return Ok(false);
        };
        target.call(call).await?;
        let extended = HandleRecord {
            expires_at: now + i64::from(ttl_seconds) * 1000,
            ..record.clone()
        };
        self.remember(&extended).await;
        Ok(true)
    }

    /// Forgets a copy that the upstream says is gone.
    pub(super) async fn lost(&self, record: &HandleRecord) {
        lock(&self.unsaved).retain(|_, unsaved| unsaved.name != record.name);
        if let Err(error) = self.store.remove_handle(&record.place, &record.name).await {
            tracing::debug!(%error, "a lost handle can't be removed");
        }
    }
}

impl Target {
    /// Sends a call that is answered at once, to where copies with names are; the body of a success.
    async fn call(&self, call: HttpCall) -> Result<bytes::Bytes, Failure> {
        self.call_at(self.upstream.pool.only(), call).await
    }

    /// The same, to a worker.
    pub(super) async fn call_at(
        &self,
        worker: &Worker,
        call: HttpCall,
    ) -> Result<bytes::Bytes, Failure> {
        let reply = worker.transport.send(call).await?;
        let (status, headers) = (reply.status, reply.headers.clone());
        let body = reply.whole().await?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        Err(self.dialect.failure(status, &header, &body))
    }
}

/// Whether a copy holds what the context holds now: only the initial messages, or exactly all turns.
fn stands_for(record: &HandleRecord, context: &Context) -> bool {
    record.turns == 0
        || (record.turns == context.turn_count
            && record.dropped_messages == context.dropped_messages)
}

/// What is left of the context's life, within what the provider allows, seconds.
fn life_seconds(context: &Context, target: &Target, now: UnixMillis) -> u32 {
    let left = (context.expires_at - now).max(0).div_euclid(1000) + 1;
    let left = u32::try_from(left).unwrap_or(u32::MAX).max(SECONDS_MIN);
    match target.rules.cache.handle_seconds_max {
        0 => left,
        max => left.min(max),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
