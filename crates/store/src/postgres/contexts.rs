//! Contexts in PostgreSQL.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::context::{Context, ContextContent, ContextId, ContextPage, Turn};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use super::failure::{Failure, insert_failure};
use super::rows::{self, context_columns};
use crate::columns::integer;
use crate::cursor::Cursor;
use crate::{AppendTurn, ContextStore, LIST_LIMIT_MAX, LivingContext, StoreError};

#[async_trait]
impl ContextStore for PostgresStore {
    fn is_shared(&self) -> bool {
        true
    }

    async fn insert(&self, context: &Context, content: &ContextContent) -> Result<(), StoreError> {
        self.attempt(|| self.try_insert(context, content)).await
    }

    async fn get(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        self.attempt(|| self.try_get(project, id, now)).await
    }

    async fn content(&self, project: &str, id: &ContextId) -> Result<ContextContent, StoreError> {
        self.attempt(|| self.try_content(project, id)).await
    }

    async fn touch(
        &self,
        project: &str,
        id: &ContextId,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.attempt(|| self.try_touch(project, id, expires_at, now))
            .await
    }

    async fn append_turn(
        &self,
        project: &str,
        id: &ContextId,
        expected_version: u64,
        append: &AppendTurn,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        self.attempt(|| self.try_append_turn(project, id, expected_version, append, now))
            .await
    }

    async fn set_ttl(
        &self,
        project: &str,
        id: &ContextId,
        ttl_seconds: u32,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        self.attempt(|| self.try_set_ttl(project, id, ttl_seconds, expires_at, now))
            .await
    }

    async fn list(
        &self,
        project: &str,
        cursor: Option<&str>,
        limit: u32,
        now: UnixMillis,
    ) -> Result<ContextPage, StoreError> {
        let limit = limit.clamp(1, LIST_LIMIT_MAX);
        let cursor = cursor
            .map(|text| Cursor::decode(project, text))
            .transpose()?;
        let contexts = self
            .attempt(|| self.try_list(project, cursor.as_ref(), limit, now))
            .await?;
        Ok(crate::page(project, contexts, limit as usize))
    }

    async fn delete(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.attempt(|| self.try_delete(project, id, now)).await
    }

    async fn sweep(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, StoreError> {
        // Once more and again: somebody may have sealed everything with another key, and forgotten this one, while this
        // replica goes on with it.
        self.use_data_key().await?;
        self.attempt(|| self.try_sweep(now, limit)).await
    }

    async fn living(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, StoreError> {
        self.attempt(|| self.try_living(now, limit)).await
    }

    async fn census(&self, now: UnixMillis) -> Result<Vec<LivingContext>, StoreError> {
        self.attempt(|| self.try_census(now)).await
    }
}

impl PostgresStore {
    async fn try_insert(&self, context: &Context, content: &ContextContent) -> Result<(), Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        let row = rows::insert_context(&self.keys, context)?
            .fetch_one(&mut *transaction)
            .await
            .map_err(insert_failure)?;
        let sequence: i64 = row.try_get("sequence")?;
        sqlx::query("INSERT INTO contents (context, initial) VALUES ($1, $2)")
            .bind(sequence)
            .bind(rows::initial_json(&self.keys, context, &content.initial)?)
            .execute(&mut *transaction)
            .await?;
        for turn in &content.turns {
            let place = (context.project.as_str(), &context.id, turn.number);
            let messages = rows::turn_json(&self.keys, place, &turn.messages)?;
            insert_turn(&mut transaction, sequence, turn, messages).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn try_get(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<Context, Failure> {
        let row = sqlx::query(concat!(
            "SELECT ",
            context_columns!(),
            " FROM contexts WHERE id = $1 AND project = $2 AND expires_at > $3"
        ))
        .bind(id.as_str())
        .bind(project)
        .bind(now)
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(rows::context(
            &self.keys,
            &row.ok_or(StoreError::NotFound)?,
        )?)
    }

    async fn try_content(&self, project: &str, id: &ContextId) -> Result<ContextContent, Failure> {
        // One statement sees one state: no turn can be committed or context deleted between its halves.
        let rows = sqlx::query(
            "SELECT 0::bigint AS number, contents.initial AS messages, 0::bigint AS committed_at \
             FROM contexts JOIN contents ON contents.context = contexts.sequence \
             WHERE contexts.id = $1 AND contexts.project = $2 \
             UNION ALL \
             SELECT turns.number, turns.messages, turns.committed_at \
             FROM contexts JOIN turns ON turns.context = contexts.sequence \
             WHERE contexts.id = $1 AND contexts.project = $2 \
             ORDER BY number",
        )
        .bind(id.as_str())
        .bind(project)
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows::content(&self.keys, project, id, &rows)?)
    }

    async fn try_touch(
        &self,
        project: &str,
        id: &ContextId,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), Failure> {
        let mut connection = self.connection().await?;
        let outcome = sqlx::query(
            "UPDATE contexts SET expires_at = $1 WHERE id = $2 AND project = $3 AND expires_at > $4 \
             AND expires_at < $1 AND expiry = 'sliding'",
        )
        .bind(expires_at)
        .bind(id.as_str())
        .bind(project)
        .bind(now)
        .execute(&mut *connection)
        .await?;
        match outcome.rows_affected() {
            0 => check_living(&mut connection, project, id, now).await,
            _ => Ok(()),
        }
    }

    async fn try_append_turn(
        &self,
        project: &str,
        id: &ContextId,
        expected_version: u64,
        append: &AppendTurn,
        now: UnixMillis,
    ) -> Result<Context, Failure> {
        let place = (project, id, append.turn.number);
        let messages = rows::turn_json(&self.keys, place, &append.turn.messages)?;
        let prefix_tokens = integer("prefix_tokens", append.prefix_tokens)?;
        let expected_version = i64::try_from(expected_version).map_err(|_| StoreError::Conflict)?;

        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        // It waits for whoever has the row, and then looks at the version once more.
        let row = sqlx::query(concat!(
            "UPDATE contexts SET version = version + 1, turn_count = turn_count + 1, \
             dropped_messages = $1, prefix_tokens = $2, expires_at = greatest(expires_at, $3) \
             WHERE id = $4 AND project = $5 AND expires_at > $6 AND version = $7 AND turn_count + 1 = $8 \
             RETURNING sequence, ",
            context_columns!()
        ))
        .bind(i64::from(append.dropped_messages))
        .bind(prefix_tokens)
        .bind(append.expires_at)
        .bind(id.as_str())
        .bind(project)
        .bind(now)
        .bind(expected_version)
        .bind(i64::from(append.turn.number))
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            check_living(&mut transaction, project, id, now).await?;
            return Err(StoreError::Conflict.into());
        };
        let context = rows::context(&self.keys, &row)?;
        let sequence: i64 = row.try_get("sequence")?;
        insert_turn(&mut transaction, sequence, &append.turn, messages).await?;
        transaction.commit().await?;
        Ok(context)
    }

    async fn try_set_ttl(
        &self,
        project: &str,
        id: &ContextId,
        ttl_seconds: u32,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<Context, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        let row = sqlx::query(concat!(
            "UPDATE contexts SET ttl_seconds = $1, expires_at = $2 \
             WHERE id = $3 AND project = $4 AND expires_at > $5 RETURNING ",
            context_columns!()
        ))
        .bind(i64::from(ttl_seconds))
        .bind(expires_at)
        .bind(id.as_str())
        .bind(project)
        .bind(now)
        .fetch_optional(&mut *transaction)
        .await?;
        let context = rows::context(&self.keys, &row.ok_or(StoreError::NotFound)?)?;
        transaction.commit().await?;
        Ok(context)
    }

    async fn try_list(
        &self,
        project: &str,
        cursor: Option<&Cursor>,
        limit: u32,
        now: UnixMillis,
    ) -> Result<Vec<Context>, Failure> {
        // Without a cursor the list begins before everything: no context is newer than the end of time.
        let (created_at, before) = cursor.map_or((UnixMillis::MAX, ""), |cursor| {
            (cursor.created_at, cursor.id.as_str())
        });
        let rows = sqlx::query(concat!(
            "SELECT ",
            context_columns!(),
            " FROM contexts WHERE project = $1 AND (created_at, id) < ($2, $3) AND expires_at > $4 \
             AND implicit IS NULL ORDER BY created_at DESC, id DESC LIMIT $5"
        ))
        .bind(project)
        .bind(created_at)
        .bind(before)
        .bind(now)
        .bind(i64::from(limit) + 1)
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows
            .iter()
            .map(|row| rows::context(&self.keys, row))
            .collect::<Result<_, _>>()?)
    }

    async fn try_delete(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<(), Failure> {
        let outcome =
            sqlx::query("DELETE FROM contexts WHERE id = $1 AND project = $2 AND expires_at > $3")
                .bind(id.as_str())
                .bind(project)
                .bind(now)
                .execute(&mut *self.connection().await?)
                .await?;
        match outcome.rows_affected() {
            0 => Err(StoreError::NotFound.into()),
            _ => Ok(()),
        }
    }

    async fn try_sweep(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        // What another replica is sweeping is left to it.
        let rows = sqlx::query(concat!(
            "DELETE FROM contexts WHERE sequence IN \
             (SELECT sequence FROM contexts WHERE expires_at <= $1 ORDER BY expires_at, id LIMIT $2 \
              FOR UPDATE SKIP LOCKED) \
             RETURNING ",
            context_columns!()
        ))
        .bind(now)
        .bind(i64::from(limit))
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;

        let mut contexts = rows::readable(&self.keys, &rows);
        contexts.sort_unstable_by(|left, right| {
            (left.expires_at, &left.id).cmp(&(right.expires_at, &right.id))
        });
        Ok(contexts)
    }

    async fn try_living(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, Failure> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            context_columns!(),
            " FROM contexts WHERE expires_at > $1 ORDER BY created_at DESC, id DESC LIMIT $2"
        ))
        .bind(now)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows::readable(&self.keys, &rows))
    }

    async fn try_census(&self, now: UnixMillis) -> Result<Vec<LivingContext>, Failure> {
        let rows = sqlx::query(
            "SELECT id, project, model, prefix_tokens, implicit, made_by FROM contexts WHERE expires_at > $1",
        )
        .bind(now)
        .fetch_all(&mut *self.connection().await?)
        .await?;
        // One damaged row must not keep the others from being counted; the start has named it.
        Ok(rows
            .iter()
            .filter_map(|row| rows::living_context(&self.keys, row).ok())
            .collect())
    }
}

async fn insert_turn(
    connection: &mut PgConnection,
    sequence: i64,
    turn: &Turn,
    messages: Vec<u8>,
) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO turns (context, number, committed_at, messages) VALUES ($1, $2, $3, $4)",
    )
    .bind(sequence)
    .bind(i64::from(turn.number))
    .bind(turn.committed_at)
    .bind(messages)
    .execute(connection)
    .await
    .map_err(insert_failure)?;
    Ok(())
}

/// Tells a context that can't be changed this way from one that is not there.
async fn check_living(
    connection: &mut PgConnection,
    project: &str,
    id: &ContextId,
    now: UnixMillis,
) -> Result<(), Failure> {
    let row =
        sqlx::query("SELECT 1 FROM contexts WHERE id = $1 AND project = $2 AND expires_at > $3")
            .bind(id.as_str())
            .bind(project)
            .bind(now)
            .fetch_optional(connection)
            .await?;
    match row {
        Some(_) => Ok(()),
        None => Err(StoreError::NotFound.into()),
    }
}
