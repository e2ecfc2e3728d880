//! Copies of contexts that upstreams keep under names of their own: made once, found again after a restart, extended
//! while their context lives, dropped with it, made again when the upstream has lost them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_protocol::context::Context;
use holdfast_protocol::upstream::{Failure, FailureKind, HoldCall, HttpCall, Markers};
use holdfast_protocol::usage::BilledUsage;
use holdfast_protocol::{ContextId, UnixMillis};
use holdfast_store::{HandleRecord, StoreError};
use rand::RngExt;
use rand::distr::Alphanumeric;
use tokio::sync::Mutex as AsyncMutex;

use super::{Shared, Target, UpstreamPrefix};
use crate::app::{Clock, Store};

/// A copy that ends so soon is not used any more: the request could arrive after its end.
const MARGIN_MS: i64 = 10_000;

/// How long a replica may take to make a copy before another one tries.
const LEASE: Duration = Duration::from_secs(60);

/// How often a replica that waits for another one's copy looks for it.
const LEASE_POLL: Duration = Duration::from_millis(100);

/// Copies that end within this time are extended in the background, if their context lives longer.
const EXTEND_BEFORE_MS: i64 = 60_000;

/// Calls made in one round of the background work.
const ROUND_MAX: u32 = 100;

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
    making: Mutex<HashMap<Key, Arc<AsyncMutex<()>>>>,
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
            making: Mutex::default(),
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
        let stale = stale.map(str::to_owned);
        // On a task of its own: a copy that is being made must be remembered also when nobody waits for it any more.
        let task = shared.tasks.clone().spawn(async move {
            let handles = &shared.handles;
            handles
                .ensure_alone(&shared, &context, &target, &prefix, stale.as_deref())
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
    ) -> Result<Ensured, Failure> {
        let key = (context.id.clone(), target.place.clone());
        let own = Arc::clone(lock(&self.making).entry(key.clone()).or_default());
        let guard = own.lock_owned().await;
        let result = self
            .ensure_locked(shared, context, target, prefix, stale)
            .await;
        drop(guard);
        let mut making = lock(&self.making);
        if making
            .get(&key)
            .is_some_and(|own| Arc::strong_count(own) == 1)
        {
            making.remove(&key);
        }
        result
    }

    async fn ensure_locked(
        &self,
        shared: &Arc<Shared>,
        context: &Context,
        target: &Arc<Target>,
        prefix: &Arc<UpstreamPrefix>,
        stale: Option<&str>,
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
        let made = self.make(shared, context, target, prefix).await;
        if let Err(error) = self.store.release_lease(&lease, &self.owner).await {
            tracing::debug!(%error, "a lease can't be given back and runs out by itself");
        }
        let (record, usage) = made.inspect_err(|failure| self.refuse(context, target, failure))?;
        Ok(Ensured {
            record,
            made: Some(Made { usage, again }),
        })
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
        shared.events.handle_made(target);
        Ok((record, held.usage))
    }

    /// Keeps a new handle. While the store is away it lives in memory only, and if that is lost the upstream's own
    /// expiry bounds the leak.
    async fn remember(&self, record: &HandleRecord) {
        self.know(record);
        if let Err(error) = self.store.put_handle(record).await {
            tracing::warn!(%error, "a handle can't be stored");
        }
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
        let key = (context.id.clone(), target.place.clone());
        let known = lock(&self.known).get(&key).cloned();
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
                lock(&self.known).insert(key, record.clone());
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

    /// The context is gone: its copies are dropped, now or when the upstream can be reached.
    pub(super) async fn doom(&self, context: &ContextId) -> Result<(), StoreError> {
        lock(&self.known).retain(|(id, _), _| id != context);
        lock(&self.refused).retain(|(id, _), _| id != context);
        lock(&self.chained).remove(context);
        self.store.doom_handles(context).await
    }

    /// One round of dropping; answers whether there may be more to do at once.
    pub(super) async fn drop_doomed(&self, targets: &[Arc<Target>]) -> Result<bool, StoreError> {
        let doomed = self.store.doomed((self.clock)(), ROUND_MAX).await?;
        let mut dropped = 0;
        for record in &doomed {
            // An account that is not configured any more can't be told; the upstream's own expiry does it.
            let Some(target) = targets.iter().find(|target| target.place == record.place) else {
                continue;
            };
            let gone = match target.dialect.encode_drop(&record.name) {
                None => true,
                Some(call) => match target.call(call).await {
                    Ok(_) => true,
                    Err(failure) => {
                        tracing::debug!(
                            upstream = target.name(),
                            failure = failure.kind.as_str(),
                            "a handle can't be dropped yet"
                        );
                        matches!(
                            failure.kind,
                            FailureKind::HandleGone | FailureKind::ModelNotFound
                        ) || failure.status == Some(404)
                    }
                },
            };
            if gone {
                self.store
                    .remove_handle(&record.place, &record.name)
                    .await?;
                dropped += 1;
            }
        }
        Ok(dropped > 0 && doomed.len() == ROUND_MAX as usize)
    }

    /// Copies that end soon and have not ended yet.
    pub(super) async fn expiring(&self) -> Result<Vec<HandleRecord>, StoreError> {
        let now = (self.clock)();
        self.store
            .expiring(now, now + EXTEND_BEFORE_MS, ROUND_MAX)
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
        if let Err(error) = self.store.remove_handle(&record.place, &record.name).await {
            tracing::debug!(%error, "a lost handle can't be removed");
        }
    }
}

impl Target {
    /// Sends a call that is answered at once; the body of a success.
    pub(super) async fn call(&self, call: HttpCall) -> Result<bytes::Bytes, Failure> {
        let reply = self.upstream.transport.send(call).await?;
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
