//! Removes expired contexts. For clients they are gone before; this frees what they hold.

use holdfast_store::StoreError;

use super::Contexts;

/// Contexts removed in one write.
const SWEEP_BATCH: u32 = 200;

impl Contexts {
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
