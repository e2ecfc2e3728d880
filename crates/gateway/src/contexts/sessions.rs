//! Locks by context id: one turn at a time in a session, one loader at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_protocol::ContextId;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// A lock for each id that somebody holds or waits for.
#[derive(Default)]
pub(super) struct IdLocks {
    locks: Mutex<HashMap<ContextId, Arc<AsyncMutex<()>>>>,
}

/// Holds the lock of one id until it is dropped.
pub(crate) struct IdGuard {
    locks: Arc<IdLocks>,
    id: ContextId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl IdLocks {
    /// Waits for the lock.
    pub(super) async fn lock(self: &Arc<Self>, id: &ContextId) -> IdGuard {
        let mut waiting = self.ticket(id);
        let lock = self.entry(id);
        waiting.guard = Some(lock.lock_owned().await);
        waiting
    }

    /// Waits at most so long. The waiters get it in the order in which they came.
    pub(super) async fn lock_within(
        self: &Arc<Self>,
        id: &ContextId,
        wait: Duration,
    ) -> Option<IdGuard> {
        if wait.is_zero() {
            let mut guard = self.ticket(id);
            guard.guard = Some(self.entry(id).try_lock_owned().ok()?);
            return Some(guard);
        }
        tokio::time::timeout(wait, self.lock(id)).await.ok()
    }

    fn ticket(self: &Arc<Self>, id: &ContextId) -> IdGuard {
        IdGuard {
            locks: Arc::clone(self),
            id: id.clone(),
            guard: None,
        }
    }

    fn entry(&self, id: &ContextId) -> Arc<AsyncMutex<()>> {
        Arc::clone(self.map().entry(id.clone()).or_default())
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<ContextId, Arc<AsyncMutex<()>>>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for IdGuard {
    fn drop(&mut self) {
        self.guard = None;
        let mut map = self.locks.map();
        // Nobody else can get at the lock while the map is held, so a count of one means nobody wants it.
        if map
            .get(&self.id)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            map.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests;
