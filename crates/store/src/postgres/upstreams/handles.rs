//! Copies of contexts at upstreams.

use holdfast_protocol::UnixMillis;
use holdfast_protocol::context::ContextId;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::StoreError;
use crate::columns::{integer, wrong_value};
use crate::postgres::failure::{Failure, failure};
use crate::postgres::rows::{small, text};
use crate::postgres::{OneAtATime, PostgresStore};
use crate::upstreams::HandleRecord;

/// What [`handle`] reads, for `concat!`.
macro_rules! handle_columns {
    () => {
        "place, name, context, project, tokens, turns, dropped_messages, created_at, expires_at"
    };
}

impl PostgresStore {
    pub(super) async fn try_put_handle(&self, handle: &HandleRecord) -> Result<(), Failure> {
        let tokens = handle
            .tokens
            .map(|tokens| integer("tokens", tokens))
            .transpose()?;
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        // Two replicas that make a copy each would not see the other's, and both would live.
        OneAtATime::HandlesOf
            .hold(&mut transaction, handle.context.as_str())
            .await?;
        sqlx::query(
            "UPDATE handles SET doomed = TRUE \
             WHERE context = $1 AND place = $2 AND name <> $3 AND NOT doomed AND $4 = 0",
        )
        .bind(handle.context.as_str())
        .bind(&handle.place)
        .bind(handle.name.as_bytes())
        .bind(i64::from(handle.turns))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(concat!(
            "INSERT INTO handles (",
            handle_columns!(),
            ", doomed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, FALSE) \
             ON CONFLICT (place, name) DO UPDATE SET context = excluded.context, project = excluded.project, \
             tokens = excluded.tokens, turns = excluded.turns, dropped_messages = excluded.dropped_messages, \
             created_at = excluded.created_at, expires_at = excluded.expires_at, doomed = FALSE"
        ))
        .bind(&handle.place)
        .bind(handle.name.as_bytes())
        .bind(handle.context.as_str())
        .bind(&handle.project)
        .bind(tokens)
        .bind(i64::from(handle.turns))
        .bind(i64::from(handle.dropped_messages))
        .bind(handle.created_at)
        .bind(handle.expires_at)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    pub(super) async fn try_handles(
        &self,
        context: &ContextId,
    ) -> Result<Vec<HandleRecord>, Failure> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            handle_columns!(),
            " FROM handles WHERE context = $1 AND NOT doomed ORDER BY place, turns DESC, created_at DESC"
        ))
        .bind(context.as_str())
        .fetch_all(&mut *self.connection().await?)
        .await?;
        handles(&rows)
    }

    pub(super) async fn try_remove_handle(&self, place: &str, name: &str) -> Result<(), Failure> {
        sqlx::query("DELETE FROM handles WHERE place = $1 AND name = $2")
            .bind(place)
            .bind(name.as_bytes())
            .execute(&mut *self.connection().await?)
            .await?;
        Ok(())
    }

    pub(super) async fn try_doom_handles(&self, context: &ContextId) -> Result<(), Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        OneAtATime::HandlesOf
            .hold(&mut transaction, context.as_str())
            .await?;
        sqlx::query("UPDATE handles SET doomed = TRUE WHERE context = $1")
            .bind(context.as_str())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    pub(super) async fn try_tidy_handles(
        &self,
        made_before: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        OneAtATime::TidyHandles.hold(&mut transaction, "").await?;
        sqlx::query(
            "UPDATE handles SET doomed = TRUE WHERE NOT doomed AND created_at < $1 \
             AND NOT EXISTS (SELECT 1 FROM contexts WHERE contexts.id = handles.context)",
        )
        .bind(made_before)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM handles WHERE doomed AND expires_at < $1")
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    pub(super) async fn try_doomed(
        &self,
        place: &str,
        now: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, Failure> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            handle_columns!(),
            " FROM handles WHERE doomed AND place = $1 AND expires_at >= $2 ORDER BY expires_at LIMIT $3"
        ))
        .bind(place)
        .bind(now)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.connection().await?)
        .await?;
        handles(&rows)
    }

    pub(super) async fn try_expiring(
        &self,
        place: &str,
        now: UnixMillis,
        before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, Failure> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            handle_columns!(),
            " FROM handles WHERE NOT doomed AND place = $1 AND expires_at > $2 AND expires_at < $3 \
             ORDER BY expires_at LIMIT $4"
        ))
        .bind(place)
        .bind(now)
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.connection().await?)
        .await?;
        handles(&rows)
    }
}

fn handles(rows: &[PgRow]) -> Result<Vec<HandleRecord>, Failure> {
    Ok(rows.iter().map(handle).collect::<Result<_, _>>()?)
}

fn handle(row: &PgRow) -> Result<HandleRecord, StoreError> {
    let context: &str = row.try_get("context").map_err(failure)?;
    let tokens: Option<i64> = row.try_get("tokens").map_err(failure)?;
    Ok(HandleRecord {
        context: context.parse().map_err(|_| wrong_value("context"))?,
        project: row.try_get("project").map_err(failure)?,
        place: row.try_get("place").map_err(failure)?,
        name: text(row, "name")?,
        tokens: tokens
            .map(|tokens| u64::try_from(tokens).map_err(|_| wrong_value("tokens")))
            .transpose()?,
        turns: small(row, "turns")?,
        dropped_messages: small(row, "dropped_messages")?,
        created_at: row.try_get("created_at").map_err(failure)?,
        expires_at: row.try_get("expires_at").map_err(failure)?,
    })
}
