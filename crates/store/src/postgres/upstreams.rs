//! Handles, accounts and leases in PostgreSQL.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::context::ContextId;

use super::PostgresStore;
use super::failure::Failure;
use crate::StoreError;
use crate::upstreams::{AccountChange, AccountRecord, HandleRecord, UpstreamStore};

mod accounts;
mod handles;

#[async_trait]
impl UpstreamStore for PostgresStore {
    async fn put_handle(&self, handle: &HandleRecord) -> Result<(), StoreError> {
        self.attempt(|| self.try_put_handle(handle)).await
    }

    async fn handles(&self, context: &ContextId) -> Result<Vec<HandleRecord>, StoreError> {
        self.attempt(|| self.try_handles(context)).await
    }

    async fn remove_handle(&self, place: &str, name: &str) -> Result<(), StoreError> {
        self.attempt(|| self.try_remove_handle(place, name)).await
    }

    async fn doom_handles(&self, context: &ContextId) -> Result<(), StoreError> {
        self.attempt(|| self.try_doom_handles(context)).await
    }

    async fn tidy_handles(
        &self,
        made_before: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.attempt(|| self.try_tidy_handles(made_before, now))
            .await
    }

    async fn doomed(
        &self,
        place: &str,
        now: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, StoreError> {
        self.attempt(|| self.try_doomed(place, now, limit)).await
    }

    async fn expiring(
        &self,
        place: &str,
        now: UnixMillis,
        before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, StoreError> {
        self.attempt(|| self.try_expiring(place, now, before, limit))
            .await
    }

    async fn change_accounts(&self, changes: &[AccountChange]) -> Result<(), StoreError> {
        // Each replica changes several at once; in one order for all, they do not wait for each other in a circle.
        let mut ordered: Vec<&AccountChange> = changes.iter().collect();
        ordered.sort_by(|left, right| left.context.cmp(&right.context));
        self.attempt(|| self.try_change_accounts(&ordered)).await
    }

    async fn account(&self, context: &ContextId) -> Result<AccountRecord, StoreError> {
        self.attempt(|| self.try_account(context)).await
    }

    async fn acquire_lease(
        &self,
        name: &str,
        owner: &str,
        until: UnixMillis,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        self.attempt(|| self.try_acquire_lease(name, owner, until, now))
            .await
    }

    async fn release_lease(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        self.attempt(|| self.try_release_lease(name, owner)).await
    }
}

impl PostgresStore {
    async fn try_acquire_lease(
        &self,
        name: &str,
        owner: &str,
        until: UnixMillis,
        now: UnixMillis,
    ) -> Result<bool, Failure> {
        let outcome = sqlx::query(
            "INSERT INTO leases (name, owner, until) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE \
             SET owner = excluded.owner, until = excluded.until \
             WHERE leases.owner = excluded.owner OR leases.until <= $4",
        )
        .bind(name)
        .bind(owner)
        .bind(until)
        .bind(now)
        .execute(&mut *self.connection().await?)
        .await?;
        Ok(outcome.rows_affected() > 0)
    }

    async fn try_release_lease(&self, name: &str, owner: &str) -> Result<(), Failure> {
        sqlx::query("DELETE FROM leases WHERE name = $1 AND owner = $2")
            .bind(name)
            .bind(owner)
            .execute(&mut *self.connection().await?)
            .await?;
        Ok(())
    }
}
