//! Handles, accounts and leases in SQLite.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::context::ContextId;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::failure::failure;
use crate::StoreError;
use crate::columns::{integer, wrong_value};
use crate::rows::accounts::account;
use crate::upstreams::{AccountChange, AccountRecord, HandleRecord, UpstreamStore};

/// What [`handle`] reads, for `concat!`.
macro_rules! handle_columns {
    () => {
        "place, name, context, project, tokens, turns, dropped_messages, created_at, expires_at"
    };
}

#[async_trait]
impl UpstreamStore for SqliteStore {
    async fn put_handle(&self, handle: &HandleRecord) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "UPDATE handles SET doomed = 1 \
             WHERE context = ? AND place = ? AND name <> ? AND doomed = 0 AND ? = 0",
        )
        .bind(handle.context.as_str())
        .bind(&handle.place)
        .bind(&handle.name)
        .bind(handle.turns)
        .execute(&mut *transaction)
        .await
        .map_err(failure)?;
        sqlx::query(concat!(
            "INSERT OR REPLACE INTO handles (",
            handle_columns!(),
            ", doomed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)"
        ))
        .bind(&handle.place)
        .bind(&handle.name)
        .bind(handle.context.as_str())
        .bind(&handle.project)
        .bind(
            handle
                .tokens
                .map(|tokens| integer("tokens", tokens))
                .transpose()?,
        )
        .bind(handle.turns)
        .bind(handle.dropped_messages)
        .bind(handle.created_at)
        .bind(handle.expires_at)
        .execute(&mut *transaction)
        .await
        .map_err(failure)?;
        transaction.commit().await.map_err(failure)
    }

    async fn handles(&self, context: &ContextId) -> Result<Vec<HandleRecord>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            handle_columns!(),
            " FROM handles WHERE context = ? AND doomed = 0 ORDER BY place, turns DESC, created_at DESC"
        ))
        .bind(context.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(failure)?;
        rows.iter().map(handle).collect()
    }

    async fn remove_handle(&self, place: &str, name: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM handles WHERE place = ? AND name = ?")
            .bind(place)
            .bind(name)
            .execute(&self.writer)
            .await
            .map_err(failure)?;
        Ok(())
    }

    async fn doom_handles(&self, context: &ContextId) -> Result<(), StoreError> {
        sqlx::query("UPDATE handles SET doomed = 1 WHERE context = ?")
            .bind(context.as_str())
            .execute(&self.writer)
            .await
            .map_err(failure)?;
        Ok(())
    }

    async fn tidy_handles(
        &self,
        made_before: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "UPDATE handles SET doomed = 1 \
             WHERE doomed = 0 AND created_at < ? AND context NOT IN (SELECT id FROM contexts)",
        )
        .bind(made_before)
        .execute(&mut *transaction)
        .await
        .map_err(failure)?;
        sqlx::query("DELETE FROM handles WHERE doomed = 1 AND expires_at < ?")
            .bind(now)
            .execute(&mut *transaction)
            .await
            .map_err(failure)?;
        transaction.commit().await.map_err(failure)
    }

    async fn doomed(
        &self,
        place: &str,
        now: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            handle_columns!(),
            " FROM handles WHERE doomed = 1 AND place = ? AND expires_at >= ? ORDER BY expires_at LIMIT ?"
        ))
        .bind(place)
        .bind(now)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(failure)?;
        rows.iter().map(handle).collect()
    }

    async fn expiring(
        &self,
        place: &str,
        now: UnixMillis,
        before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            handle_columns!(),
            " FROM handles WHERE doomed = 0 AND place = ? AND expires_at > ? AND expires_at < ? \
             ORDER BY expires_at LIMIT ?"
        ))
        .bind(place)
        .bind(now)
        .bind(before)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(failure)?;
        rows.iter().map(handle).collect()
    }

    async fn change_accounts(&self, changes: &[AccountChange]) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for change in changes {
            let add = &change.add;
            let add = [
                integer("requests", add.requests)?,
                integer("hits", add.hits)?,
                integer("rebuilds", add.rebuilds)?,
                integer("misses", add.misses)?,
                integer("degraded", add.degraded)?,
                integer("input_tokens", add.input_tokens)?,
                integer("cache_read_tokens", add.cache_read_tokens)?,
                integer("cache_write_tokens", add.cache_write_tokens)?,
                integer("output_tokens", add.output_tokens)?,
                integer("pings", add.pings)?,
                add.cost,
                add.ping_cost,
                add.storage_cost,
                add.saved,
            ];
            let mut query = sqlx::query(
                "INSERT INTO accounts (context, requests, hits, rebuilds, misses, degraded, input_tokens, \
                 cache_read_tokens, cache_write_tokens, output_tokens, pings, cost, ping_cost, storage_cost, saved, \
                 currency, home, last_used_at) \
                 SELECT sequence, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM contexts WHERE id = ? \
                 ON CONFLICT (context) DO UPDATE SET \
                 requests = requests + excluded.requests, hits = hits + excluded.hits, \
                 rebuilds = rebuilds + excluded.rebuilds, misses = misses + excluded.misses, \
                 degraded = degraded + excluded.degraded, input_tokens = input_tokens + excluded.input_tokens, \
                 cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens, \
                 cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens, \
                 output_tokens = output_tokens + excluded.output_tokens, pings = pings + excluded.pings, \
                 cost = cost + excluded.cost, ping_cost = ping_cost + excluded.ping_cost, \
                 storage_cost = storage_cost + excluded.storage_cost, saved = saved + excluded.saved, \
                 currency = CASE currency WHEN '' THEN excluded.currency ELSE currency END, \
                 home = coalesce(excluded.home, home), last_used_at = coalesce(excluded.last_used_at, last_used_at)",
            );
            for value in add {
                query = query.bind(value);
            }
            query
                .bind(&change.currency)
                .bind(&change.home)
                .bind(change.last_used_at)
                .bind(change.context.as_str())
                .execute(&mut *transaction)
                .await
                .map_err(failure)?;
        }
        transaction.commit().await.map_err(failure)
    }

    async fn account(&self, context: &ContextId) -> Result<AccountRecord, StoreError> {
        let row = sqlx::query(
            "SELECT accounts.* FROM accounts JOIN contexts ON sequence = context WHERE contexts.id = ?",
        )
        .bind(context.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(failure)?;
        row.as_ref()
            .map_or_else(|| Ok(AccountRecord::default()), account)
    }

    async fn acquire_lease(
        &self,
        name: &str,
        owner: &str,
        until: UnixMillis,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let outcome = sqlx::query(
            "INSERT INTO leases (name, owner, until) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE \
             SET owner = excluded.owner, until = excluded.until WHERE owner = excluded.owner OR leases.until <= ?",
        )
        .bind(name)
        .bind(owner)
        .bind(until)
        .bind(now)
        .execute(&self.writer)
        .await
        .map_err(failure)?;
        Ok(outcome.rows_affected() > 0)
    }

    async fn release_lease(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM leases WHERE name = ? AND owner = ?")
            .bind(name)
            .bind(owner)
            .execute(&self.writer)
            .await
            .map_err(failure)?;
        Ok(())
    }
}

fn handle(row: &SqliteRow) -> Result<HandleRecord, StoreError> {
    let context: String = row.try_get("context").map_err(failure)?;
    let tokens: Option<i64> = row.try_get("tokens").map_err(failure)?;
    Ok(HandleRecord {
        context: context.parse().map_err(|_| wrong_value("context"))?,
        project: row.try_get("project").map_err(failure)?,
        place: row.try_get("place").map_err(failure)?,
        name: row.try_get("name").map_err(failure)?,
        tokens: tokens
            .map(|tokens| u64::try_from(tokens).map_err(|_| wrong_value("tokens")))
            .transpose()?,
        turns: row.try_get("turns").map_err(failure)?,
        dropped_messages: row.try_get("dropped_messages").map_err(failure)?,
        created_at: row.try_get("created_at").map_err(failure)?,
        expires_at: row.try_get("expires_at").map_err(failure)?,
    })
}
