//! Leases of sessions, so that two servers do not work on the same turn: in the Redis that servers share while it
//! answers, else in the store.
//!
//! Two servers may look in different places for a moment, one of them cut off from Redis. Then both work, and the version
//! that a turn is committed against lets one of them through.

use std::sync::Arc;

use holdfast_protocol::{ContextId, UnixMillis};
use holdfast_store::StoreError;
use redis::Script;

use crate::app::{Clock, Store};
use crate::shared::Shared;

/// A server that was killed in the middle of a turn keeps others from the session for so long, milliseconds.
const LEASE_MS: UnixMillis = 15_000;

/// Where leases are.
pub(super) struct Leases {
    store: Arc<dyn Store>,
    clock: Clock,
    shared: Option<SharedLeases>,
}

struct SharedLeases {
    shared: Arc<Shared>,
    take: Script,
    leave: Script,
}

/// Where a lease has been taken, and is renewed and given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Shared,
    Store,
}

impl Leases {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock, shared: Option<Arc<Shared>>) -> Self {
        // One server alone has no use for either.
        let shared = shared.filter(|_| store.is_shared());
        Leases {
            store,
            clock,
            shared: shared.map(|shared| SharedLeases {
                shared,
                take: Script::new(include_str!("leases/take.lua")),
                leave: Script::new(include_str!("leases/leave.lua")),
            }),
        }
    }

    /// Takes a session's lease for `owner`; `None`: somebody else has it.
    pub(super) async fn take(
        &self,
        id: &ContextId,
        owner: &str,
    ) -> Result<Option<Place>, StoreError> {
        if let Some(shared) = &self.shared
            && let Some(is_taken) = shared.take(id, owner).await
        {
            return Ok(is_taken.then_some(Place::Shared));
        }
        let is_taken = self.take_stored(id, owner).await?;
        Ok(is_taken.then_some(Place::Store))
    }

    /// Keeps it from running out.
    pub(super) async fn renew(&self, place: Place, id: &ContextId, owner: &str) {
        let renewed = match (place, &self.shared) {
            (Place::Shared, Some(shared)) => Ok(shared.take(id, owner).await.unwrap_or(false)),
            _ => self.take_stored(id, owner).await,
        };
        if !renewed.unwrap_or(false) {
            tracing::debug!(context.id = %id, "a session's lease can't be renewed");
        }
    }

    /// Lets the next one have it.
    pub(super) async fn leave(&self, place: Place, id: &ContextId, owner: &str) {
        match (place, &self.shared) {
            (Place::Shared, Some(shared)) => shared.leave(id, owner).await,
            _ => {
                if let Err(error) = self.store.release_lease(&name(id), owner).await {
                    tracing::debug!(%error, "a session's lease can't be given back, and runs out");
                }
            }
        }
    }

    async fn take_stored(&self, id: &ContextId, owner: &str) -> Result<bool, StoreError> {
        let now = (self.clock)();
        self.store
            .acquire_lease(&name(id), owner, now + LEASE_MS, now)
            .await
    }
}

impl SharedLeases {
    /// `None`: it is away.
    async fn take(&self, id: &ContextId, owner: &str) -> Option<bool> {
        let mut script = self.take.prepare_invoke();
        script.key(self.key(id)).arg(owner).arg(LEASE_MS);
        self.shared.run::<i64>(&script).await.ok().map(|it| it == 1)
    }

    async fn leave(&self, id: &ContextId, owner: &str) {
        let mut script = self.leave.prepare_invoke();
        script.key(self.key(id)).arg(owner);
        if self.shared.run::<i64>(&script).await.is_err() {
            tracing::debug!(context.id = %id, "a session's lease can't be given back, and runs out");
        }
    }

    fn key(&self, id: &ContextId) -> String {
        self.shared.key("turn", id.as_str())
    }
}

fn name(id: &ContextId) -> String {
    format!("session {id}")
}
