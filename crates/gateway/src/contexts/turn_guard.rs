//! The right to one turn of a session: a lock within this server and, where others may write to the store, a lease. The lease only keeps two servers from doing the same work; that no turn is lost is the version's doing.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::{ApiError, ContextId};
use rand::RngExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::leases::{Leases, Place};
use super::sessions::IdGuard;
use super::{Contexts, store_error};

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
    leases: Arc<Leases>,
    place: Place,
    tasks: TaskTracker,
    id: ContextId,
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
        // Of its own for each turn, so that giving one back late takes nothing from the next.
        let owner: [u8; 16] = rand::rng().random();
        let owner = data_encoding::HEXLOWER.encode(&owner);
        let place = loop {
            if let Some(place) = self.leases.take(id, &owner).await.map_err(store_error)? {
                break place;
            }
            if Instant::now() >= until {
                return Err(ApiError::context_busy());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let stop = CancellationToken::new();
        let renewal = {
            let (leases, stop) = (Arc::clone(&self.leases), stop.clone());
            let (id, owner) = (id.clone(), owner.clone());
            async move {
                while tokio::time::timeout(RENEW_EVERY, stop.cancelled())
                    .await
                    .is_err()
                {
                    leases.renew(place, &id, &owner).await;
                }
            }
        };
        Ok(Lease {
            leases: Arc::clone(&self.leases),
            place,
            tasks: self.tasks.clone(),
            id: id.clone(),
            owner,
            renewal: tokio::spawn(renewal),
            stop,
        })
    }
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
        self.leases.leave(self.place, &self.id, &self.owner).await;
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
