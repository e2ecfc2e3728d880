//! What each context has used and cost: collected in memory, written together a few times a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_protocol::ContextId;
use holdfast_store::{AccountChange, AccountRecord, StoreError};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use tokio_util::sync::CancellationToken;

use crate::app::Store;

/// How often changes are written.
const WRITE_EVERY: Duration = Duration::from_millis(250);

/// How long a change may wait for its context to be stored.
const STORED_WITHIN: Duration = Duration::from_secs(60);

/// Trillionths in a unit of money.
const TRILLION: i64 = 1_000_000_000_000;

/// Changes that have not been written yet.
pub(crate) struct Accounts {
    store: Arc<dyn Store>,
    pending: Mutex<HashMap<ContextId, Pending>>,
}

/// All changes to one account since the last time.
struct Pending {
    change: AccountChange,
    /// Its context may not be stored before, and what comes earlier would be lost.
    not_before: Option<Instant>,
}

impl Accounts {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Accounts {
            store,
            pending: Mutex::default(),
        }
    }

    /// Adds a change to the account of a context that is stored.
    pub(super) fn add(&self, change: AccountChange) {
        self.put(change, None);
    }

    /// Adds a change that may come before its context is stored: what its creation costs.
    pub(super) fn add_early(&self, change: AccountChange) {
        self.put(change, Some(Instant::now() + STORED_WITHIN));
    }

    /// A context is stored now.
    pub(super) fn stored(&self, context: &ContextId) {
        if let Some(pending) = self.lock().get_mut(context) {
            pending.not_before = None;
        }
    }

    fn put(&self, change: AccountChange, not_before: Option<Instant>) {
        let mut pending = self.lock();
        match pending.get_mut(&change.context) {
            None => {
                let context = change.context.clone();
                pending.insert(context, Pending { change, not_before });
            }
            Some(Pending {
                change: known,
                not_before: known_not_before,
            }) => {
                known.add = known.add.plus(change.add);
                if known.currency.is_empty() {
                    known.currency = change.currency;
                }
                known.home = change.home.or(known.home.take());
                known.last_used_at = change.last_used_at.or(known.last_used_at);
                *known_not_before = known_not_before.and(not_before);
            }
        }
    }

    /// A context's account with everything up to now.
    pub(crate) async fn of(&self, context: &ContextId) -> Result<AccountRecord, StoreError> {
        self.write(|id, _| id == context).await?;
        self.store.account(context).await
    }

    /// Writes what has come together.
    async fn write(&self, is_due: impl Fn(&ContextId, &Pending) -> bool) -> Result<(), StoreError> {
        let changes: Vec<AccountChange> = self
            .lock()
            .extract_if(|id, pending| is_due(id, pending))
            .map(|(_, pending)| pending.change)
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let written = self.store.change_accounts(&changes).await;
        if written.is_err() {
            // Kept for the next time; the store may be away for a moment only.
            for change in changes {
                self.add(change);
            }
        }
        written
    }

    /// Writes until `stopping` is cancelled, and once more then.
    pub(super) async fn write_until(&self, stopping: CancellationToken) {
        let mut ticks = tokio::time::interval(WRITE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_over = tokio::select! {
                () = stopping.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let now = Instant::now();
            let is_due = |_: &ContextId, pending: &Pending| {
                is_over
                    || pending
                        .not_before
                        .is_none_or(|not_before| not_before <= now)
            };
            if let Err(error) = self.write(is_due).await {
                tracing::warn!(%error, "accounts of contexts can't be written now");
            }
            if is_over {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ContextId, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An amount in trillionths; amounts beyond nine million are not met in one context.
pub(super) fn trillionths(amount: Decimal) -> i64 {
    (amount * Decimal::from(TRILLION))
        .round()
        .to_i64()
        .unwrap_or(i64::MAX)
}

/// The amount that `trillionths` stand for.
pub(crate) fn amount(trillionths: i64) -> Decimal {
    Decimal::from(trillionths) / Decimal::from(TRILLION)
}
