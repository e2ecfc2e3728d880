//! The right to one turn of a session: a lock within this server and, where others may write to the store, a lease
//! there. The lease only keeps two servers from doing the same work; that no turn is lost is the version's doing.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::{ApiError, ContextId, UnixMillis};
use rand::RngExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::sessions::IdGuard;
use super::{Contexts, store_error};
use crate::app::{Clock, Store};

/// A server that was killed in the middle of a turn keeps others from the session for so long, milliseconds.
const LEASE_MS: UnixMillis = 15_000;

/// Well before the lease runs out.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// Between two looks at whether another server has finished its turn.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// A lease is given back after the turn that held it, and the next one must not be refused for that.
const GIVING_BACK: Duration = Duration::from_millis(250);

/// Holds a session until it is given back or dropped.
pub(crate) struct TurnGuard {
    lock: Option<IdGuard>,
    lease: Option<Lease>,
}

struct Lease {
    store: Arc<dyn Store>,
    tasks: TaskTracker,
    name: String,
    owner: String,
    renewal: JoinHandle<()>,
    stop: CancellationToken,
}

impl Contexts {
    /// Waits for its turn as long as the limits say.
    pub(super) async fn take_turn(&self, id: &ContextId) -> Result<TurnGuard, ApiError> {
        let wait = Duration::from_millis(self.limits.session_wait_ms);
        let is_shared = self.store.is_shared();
        let local_wait = if is_shared {
            wait.max(GIVING_BACK)
        } else {
            wait
        };
        let began = Instant::now();
        let lock = self
            .sessions
            .lock_within(id, local_wait)
            .await
            .ok_or_else(ApiError::context_busy)?;
        let lease = match is_shared {
            true => Some(self.lease(id, began + wait).await?),
            false => None,
        };
        Ok(TurnGuard {
            lock: Some(lock),
            lease,
        })
    }

    async fn lease(&self, id: &ContextId, until: Instant) -> Result<Lease, ApiError> {
        let name = format!("session {id}");
        // Of its own for each turn, so that giving one back late takes nothing from the next.
        let owner: [u8; 16] = rand::rng().random();
        let owner = data_encoding::HEXLOWER.encode(&owner);
        while !renew(&*self.store, &self.clock, &name, &owner)
            .await
            .map_err(store_error)?
        {
            if Instant::now() >= until {
                return Err(ApiError::context_busy());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let stop = CancellationToken::new();
        let renewal = {
            let stop = stop.clone();
            let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
            let (name, owner) = (name.clone(), owner.clone());
            async move {
                while tokio::time::timeout(RENEW_EVERY, stop.cancelled())
                    .await
                    .is_err()
                {
                    if let Err(error) = renew(&*store, &clock, &name, &owner).await {
                        tracing::debug!(%error, "a session's lease can't be renewed");
                    }
                }
            }
        };
        Ok(Lease {
            store: Arc::clone(&self.store),
            tasks: self.tasks.clone(),
            name,
            owner,
            renewal: tokio::spawn(renewal),
            stop,
        })
    }
}

async fn renew(
    store: &dyn Store,
    clock: &Clock,
    name: &str,
    owner: &str,
) -> Result<bool, holdfast_store::StoreError> {
    let now = clock();
    store.acquire_lease(name, owner, now + LEASE_MS, now).await
}

impl TurnGuard {
    /// Lets the next one through, here and elsewhere, and returns when that is done.
    pub(super) async fn give_back(mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back().await;
        }
    }
}

impl Lease {
    async fn give_back(self) {
        // First to its end: one that came later would take the lease again, for nobody.
        self.stop.cancel();
        let _ = self.renewal.await;
        if let Err(error) = self.store.release_lease(&self.name, &self.owner).await {
            tracing::debug!(%error, "a session's lease can't be given back, and runs out");
        }
    }
}

impl Drop for TurnGuard {
    /// The turn came to nothing. The lock waits for the lease, so that nobody here meets it.
    fn drop(&mut self) {
        let (Some(lease), lock) = (self.lease.take(), self.lock.take()) else {
            return;
        };
        lease.tasks.clone().spawn(async move {
            lease.give_back().await;
            drop(lock);
        });
    }
}
