//! What each context has used and cost: collected in memory, written together a few times a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_protocol::ContextId;
use holdfast_store::{AccountChange, AccountRecord, StoreError};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use tokio_util::sync::CancellationToken;

use crate::app::Store;

/// How often changes are written.
const WRITE_EVERY: Duration = Duration::from_millis(250);

/// Trillionths in a unit of money.
const TRILLION: i64 = 1_000_000_000_000;

/// Changes that have not been written yet.
pub(crate) struct Accounts {
    store: Arc<dyn Store>,
    pending: Mutex<HashMap<ContextId, AccountChange>>,
}

impl Accounts {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Accounts {
            store,
            pending: Mutex::default(),
        }
    }

    /// Adds a change.
    pub(super) fn add(&self, change: AccountChange) {
        let mut pending = self.lock();
        match pending.get_mut(&change.context) {
            None => {
                pending.insert(change.context.clone(), change);
            }
            Some(known) => {
                known.add = known.add.plus(change.add);
                if known.currency.is_empty() {
                    known.currency = change.currency;
                }
                known.home = change.home.or(known.home.take());
                known.last_used_at = change.last_used_at.or(known.last_used_at);
            }
        }
    }

    /// A context's account with everything up to now.
    pub(crate) async fn of(&self, context: &ContextId) -> Result<AccountRecord, StoreError> {
        self.write().await?;
        self.store.account(context).await
    }

    /// Writes what has come together.
    pub(crate) async fn write(&self) -> Result<(), StoreError> {
        let changes: Vec<AccountChange> = std::mem::take(&mut *self.lock()).into_values().collect();
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
            if let Err(error) = self.write().await {
                tracing::warn!(%error, "accounts of contexts can't be written now");
            }
            if is_over {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ContextId, AccountChange>> {
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
