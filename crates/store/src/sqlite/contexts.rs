//! Contexts in SQLite.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::context::{Context, ContextContent, ContextId, ContextPage, Turn};
use holdfast_seal::Keyring;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

use super::SqliteStore;
use super::failure::{failure, insert_failure};
use super::rows::{self, context_columns};
use crate::columns::integer;
use crate::cursor::Cursor;
use crate::{AppendTurn, ContextStore, LIST_LIMIT_MAX, LivingContext, StoreError};

#[async_trait]
impl ContextStore for SqliteStore {
    /// The service holds a lock on its data directory, so that no other one works on the same file.
    fn is_shared(&self) -> bool {
        false
    }

    async fn insert(&self, context: &Context, content: &ContextContent) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        insert(&mut transaction, &self.keys, context, content).await?;
        transaction.commit().await.map_err(failure)
    }

    async fn get(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            context_columns!(),
            " FROM contexts WHERE id = ? AND project = ? AND expires_at > ?"
        ))
        .bind(id.as_str())
        .bind(project)
        .bind(now)
        .fetch_optional(&self.readers)
        .await
        .map_err(failure)?;
        rows::context(&self.keys, &row.ok_or(StoreError::NotFound)?)
    }

    async fn content(&self, project: &str, id: &ContextId) -> Result<ContextContent, StoreError> {
        // One statement sees one state: no turn can be committed or context deleted between its halves.
        let rows = sqlx::query(
            "SELECT 0 AS number, coalesce(contents.sealed, contents.initial) AS messages, 0 AS committed_at \
             FROM contexts JOIN contents ON contents.context = contexts.sequence \
             WHERE contexts.id = ?1 AND contexts.project = ?2 \
             UNION ALL \
             SELECT turns.number, coalesce(turns.sealed, turns.messages), turns.committed_at \
             FROM contexts JOIN turns ON turns.context = contexts.sequence \
             WHERE contexts.id = ?1 AND contexts.project = ?2 \
             ORDER BY number",
        )
        .bind(id.as_str())
        .bind(project)
        .fetch_all(&self.readers)
        .await
        .map_err(failure)?;
        rows::content(&self.keys, project, id, &rows)
    }

    async fn touch(
        &self,
        project: &str,
        id: &ContextId,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.touch_with_others(project, id, expires_at, now).await
    }

    async fn append_turn(
        &self,
        project: &str,
        id: &ContextId,
        expected_version: u64,
        append: &AppendTurn,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        let place = (project, id, append.turn.number);
        let messages = rows::turn_text(&self.keys, place, &append.turn.messages)?;
        let prefix_tokens = integer("prefix_tokens", append.prefix_tokens)?;
        let expected_version = i64::try_from(expected_version).map_err(|_| StoreError::Conflict)?;

        let mut transaction = self.begin().await?;
        let row = sqlx::query(concat!(
            "UPDATE contexts SET version = version + 1, turn_count = turn_count + 1, \
             dropped_messages = ?, prefix_tokens = ?, expires_at = max(expires_at, ?) \
             WHERE id = ? AND project = ? AND expires_at > ? AND version = ? AND turn_count + 1 = ? \
             RETURNING sequence, ",
            context_columns!()
        ))
        .bind(append.dropped_messages)
        .bind(prefix_tokens)
        .bind(append.expires_at)
        .bind(id.as_str())
        .bind(project)
        .bind(now)
        .bind(expected_version)
        .bind(append.turn.number)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failure)?;
        let Some(row) = row else {
            check_living(&mut transaction, project, id, now).await?;
            return Err(StoreError::Conflict);
        };
        let context = rows::context(&self.keys, &row)?;
        let sequence: i64 = row.try_get("sequence").map_err(failure)?;
        insert_turn(&mut transaction, sequence, &append.turn, messages).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(context)
    }

    async fn set_ttl(
        &self,
        project: &str,
        id: &ContextId,
        ttl_seconds: u32,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        let row = sqlx::query(concat!(
            "UPDATE contexts SET ttl_seconds = ?, expires_at = ? \
             WHERE id = ? AND project = ? AND expires_at > ? RETURNING ",
            context_columns!()
        ))
        .bind(ttl_seconds)
        .bind(expires_at)
        .bind(id.as_str())
        .bind(project)
        .bind(now)
        .fetch_optional(&self.writer)
        .await
        .map_err(failure)?;
        rows::context(&self.keys, &row.ok_or(StoreError::NotFound)?)
    }

    async fn list(
        &self,
        project: &str,
        cursor: Option<&str>,
        limit: u32,
        now: UnixMillis,
    ) -> Result<ContextPage, StoreError> {
        let limit = limit.clamp(1, LIST_LIMIT_MAX);
        // Without a cursor the list begins before everything: no context is newer than the end of time.
        let (created_at, before) = match cursor {
            Some(text) => {
                let cursor = Cursor::decode(project, text)?;
                (cursor.created_at, cursor.id.to_string())
            }
            None => (UnixMillis::MAX, String::new()),
        };
        let rows = sqlx::query(concat!(
            "SELECT ",
            context_columns!(),
            " FROM contexts WHERE project = ? AND (created_at, id) < (?, ?) AND expires_at > ? \
             AND implicit IS NULL ORDER BY created_at DESC, id DESC LIMIT ?"
        ))
        .bind(project)
        .bind(created_at)
        .bind(before)
        .bind(now)
        .bind(limit + 1)
        .fetch_all(&self.readers)
        .await
        .map_err(failure)?;
        let contexts = rows
            .iter()
            .map(|row| rows::context(&self.keys, row))
            .collect::<Result<_, _>>()?;
        Ok(crate::page(project, contexts, limit as usize))
    }

    async fn delete(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut connection = self.writer.acquire().await.map_err(failure)?;
        // Set before the deletion, so that a caller who gives up in between does not leave content in the log.
        self.scrub_due.store(true, Ordering::Relaxed);
        let outcome =
            sqlx::query("DELETE FROM contexts WHERE id = ? AND project = ? AND expires_at > ?")
                .bind(id.as_str())
                .bind(project)
                .bind(now)
                .execute(&mut *connection)
                .await
                .map_err(failure)?;
        if outcome.rows_affected() == 0 {
            return Err(StoreError::NotFound);
        }
        self.scrub(&connection).await;
        Ok(())
    }

    async fn sweep(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, StoreError> {
        let mut connection = self.writer.acquire().await.map_err(failure)?;
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failure)?;
        let rows = sqlx::query(concat!(
            "DELETE FROM contexts WHERE sequence IN \
             (SELECT sequence FROM contexts WHERE expires_at <= ? ORDER BY expires_at, id LIMIT ?) \
             RETURNING ",
            context_columns!()
        ))
        .bind(now)
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failure)?;
        if !rows.is_empty() {
            self.scrub_due.store(true, Ordering::Relaxed);
        }
        transaction.commit().await.map_err(failure)?;
        self.scrub(&connection).await;

        let mut contexts = readable(&self.keys, &rows);
        contexts.sort_unstable_by(|left, right| {
            (left.expires_at, &left.id).cmp(&(right.expires_at, &right.id))
        });
        Ok(contexts)
    }

    async fn living(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            context_columns!(),
            " FROM contexts WHERE expires_at > ? ORDER BY created_at DESC, id DESC LIMIT ?"
        ))
        .bind(now)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(failure)?;
        Ok(readable(&self.keys, &rows))
    }

    async fn census(&self, now: UnixMillis) -> Result<Vec<LivingContext>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, project, model, prefix_tokens, implicit, made_by FROM contexts WHERE expires_at > ?",
        )
        .bind(now)
        .fetch_all(&self.readers)
        .await
        .map_err(failure)?;
        // One damaged row must not keep the others from being counted; the start has named it.
        Ok(rows
            .iter()
            .filter_map(|row| rows::living_context(&self.keys, row).ok())
            .collect())
    }
}

/// Stores a context with its content inside the caller's transaction.
pub(super) async fn insert(
    transaction: &mut SqliteConnection,
    keys: &Keyring,
    context: &Context,
    content: &ContextContent,
) -> Result<(), StoreError> {
    let (initial, sealed) = rows::initial_text(keys, context, &content.initial)?;
    let row = rows::insert_context(keys, context)?
        .fetch_one(&mut *transaction)
        .await
        .map_err(insert_failure)?;
    let sequence: i64 = row.try_get("sequence").map_err(failure)?;
    sqlx::query("INSERT INTO contents (context, initial, sealed) VALUES (?, ?, ?)")
        .bind(sequence)
        .bind(initial)
        .bind(sealed)
        .execute(&mut *transaction)
        .await
        .map_err(failure)?;
    for turn in &content.turns {
        let place = (context.project.as_str(), &context.id, turn.number);
        let messages = rows::turn_text(keys, place, &turn.messages)?;
        insert_turn(transaction, sequence, turn, messages).await?;
    }
    Ok(())
}

async fn insert_turn(
    transaction: &mut SqliteConnection,
    sequence: i64,
    turn: &Turn,
    (messages, sealed): rows::TextOrSealed,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO turns (context, number, committed_at, messages, sealed) VALUES (?, ?, ?, ?, ?)",
    )
        .bind(sequence)
        .bind(turn.number)
        .bind(turn.committed_at)
        .bind(messages)
        .bind(sealed)
        .execute(transaction)
        .await
        .map_err(insert_failure)?;
    Ok(())
}

/// Tells a context that can't be changed this way from one that is not there.
pub(super) async fn check_living(
    connection: &mut SqliteConnection,
    project: &str,
    id: &ContextId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query("SELECT 1 FROM contexts WHERE id = ? AND project = ? AND expires_at > ?")
        .bind(id.as_str())
        .bind(project)
        .bind(now)
        .fetch_optional(connection)
        .await
        .map_err(failure)?
        .map(|_| ())
        .ok_or(StoreError::NotFound)
}

/// Leaves out rows that can't be read: one damaged row must stop neither the sweep nor the start of the gateway.
fn readable(keys: &Keyring, rows: &[SqliteRow]) -> Vec<Context> {
    rows.iter()
        .filter_map(|row| {
            rows::context(keys, row)
                .inspect_err(|error| {
                    let id = rows::context_id(row).ok();
                    tracing::warn!(
                        context_id = id.as_ref().map(tracing::field::display),
                        %error,
                        "a stored context was skipped"
                    );
                })
                .ok()
        })
        .collect()
}
