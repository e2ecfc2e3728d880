//! Removes expired contexts. For clients they are gone before; this frees what they hold.

use std::sync::Arc;
use std::time::Duration;

use holdfast_store::StoreError;
use tokio_util::sync::CancellationToken;

use super::Contexts;

/// How often the sweeper looks.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Contexts removed in one write.
const SWEEP_BATCH: u32 = 200;

impl Contexts {
    /// Sweeps until `stopping` is cancelled.
    pub(crate) async fn sweep_until(self: Arc<Self>, stopping: CancellationToken) {
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "expired contexts can't be removed now");
            }
        }
    }

    /// Removes all that has expired by now; returns how many.
    pub(crate) async fn sweep(&self) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let batch = self.store.sweep(self.now(), SWEEP_BATCH).await?;
            removed += batch.len() as u64;
            for context in &batch {
                self.forget(context);
            }
            self.events.contexts_expired(batch.len() as u64);
            if batch.len() < SWEEP_BATCH as usize {
                return Ok(removed);
            }
        }
    }
}
