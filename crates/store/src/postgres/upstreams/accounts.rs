//! What contexts have used and cost.

use holdfast_protocol::context::ContextId;

use crate::columns::integer;
use crate::postgres::PostgresStore;
use crate::postgres::failure::Failure;
use crate::rows::accounts::account;
use crate::upstreams::{AccountChange, AccountRecord};

impl PostgresStore {
    pub(super) async fn try_change_accounts(
        &self,
        changes: &[&AccountChange],
    ) -> Result<(), Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
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
            // The context's row is held, so that a context that is being deleted is waited for and then left out.
            let mut query = sqlx::query(
                "INSERT INTO accounts AS a (context, requests, hits, rebuilds, misses, degraded, input_tokens, \
                 cache_read_tokens, cache_write_tokens, output_tokens, pings, cost, ping_cost, storage_cost, saved, \
                 currency, home, last_used_at) \
                 SELECT sequence, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17 \
                 FROM contexts WHERE id = $18 FOR KEY SHARE \
                 ON CONFLICT (context) DO UPDATE SET \
                 requests = a.requests + excluded.requests, hits = a.hits + excluded.hits, \
                 rebuilds = a.rebuilds + excluded.rebuilds, misses = a.misses + excluded.misses, \
                 degraded = a.degraded + excluded.degraded, input_tokens = a.input_tokens + excluded.input_tokens, \
                 cache_read_tokens = a.cache_read_tokens + excluded.cache_read_tokens, \
                 cache_write_tokens = a.cache_write_tokens + excluded.cache_write_tokens, \
                 output_tokens = a.output_tokens + excluded.output_tokens, pings = a.pings + excluded.pings, \
                 cost = a.cost + excluded.cost, ping_cost = a.ping_cost + excluded.ping_cost, \
                 storage_cost = a.storage_cost + excluded.storage_cost, saved = a.saved + excluded.saved, \
                 currency = CASE a.currency WHEN '' THEN excluded.currency ELSE a.currency END, \
                 home = coalesce(excluded.home, a.home), \
                 last_used_at = coalesce(excluded.last_used_at, a.last_used_at)",
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
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    pub(super) async fn try_account(&self, context: &ContextId) -> Result<AccountRecord, Failure> {
        let row = sqlx::query(
            "SELECT requests, hits, rebuilds, misses, degraded, input_tokens, cache_read_tokens, \
             cache_write_tokens, output_tokens, pings, cost, ping_cost, storage_cost, saved, currency, home, \
             last_used_at FROM accounts JOIN contexts ON sequence = context WHERE contexts.id = $1",
        )
        .bind(context.as_str())
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        match row {
            Some(row) => Ok(account(&row)?),
            None => Ok(AccountRecord::default()),
        }
    }
}
