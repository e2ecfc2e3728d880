//! Responses and conversations in SQLite.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};

mod trees;

use super::SqliteStore;
use super::failure::{failure, insert_failure};
use super::rows::count;
use crate::StoreError;
use crate::columns::integer;
use crate::responses::{
    Chain, ConversationRecord, HeadChange, ItemsChange, ResponseRecord, ResponseStore,
    ResponseUsage,
};
use crate::rows::responses::{self as rows, conversation_columns, head_columns, response_columns};
use crate::sealed::{
    CONVERSATION_METADATA, StoredConversation, StoredResponse, place, stored_bytes_max,
};

#[async_trait]
impl ResponseStore for SqliteStore {
    async fn insert_response(
        &self,
        record: &ResponseRecord,
        head: Option<&HeadChange>,
    ) -> Result<(), StoreError> {
        let stored = StoredResponse::of(&self.keys, record);
        let mut transaction = self.begin().await?;
        let conversation = match head {
            Some(change) => {
                Some(unmoved_conversation(&mut transaction, &record.project, change).await?)
            }
            None => None,
        };
        let previous = match &record.previous {
            Some(id) => {
                let (project, now) = (&record.project, record.created_at);
                Some(trees::living(&mut transaction, project, id, now).await?)
            }
            None => None,
        };
        let sequence: i64 = sqlx::query_scalar(
            "INSERT INTO responses (id, project, previous, tree, kept, created_at, expires_at, bytes, model, \
             conversation, messages, input, body) \
             VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING sequence",
        )
        .bind(&record.id)
        .bind(&record.project)
        .bind(previous.as_ref().map(|previous| previous.sequence))
        .bind(previous.as_ref().map(|previous| previous.tree))
        .bind(record.created_at)
        .bind(record.expires_at)
        .bind(integer("bytes", record.bytes())?)
        .bind(&record.model)
        .bind(&record.conversation)
        .bind(stored.messages)
        .bind(stored.input)
        .bind(stored.body)
        .fetch_one(&mut *transaction)
        .await
        .map_err(insert_failure)?;
        if let Some(conversation) = conversation {
            sqlx::query(
                "UPDATE conversations SET head = ?, expires_at = max(expires_at, ?) WHERE sequence = ?",
            )
            .bind(sequence)
            .bind(record.expires_at)
            .bind(conversation)
            .execute(&mut *transaction)
            .await
            .map_err(failure)?;
        }
        transaction.commit().await.map_err(failure)
    }

    async fn response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ResponseRecord, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            response_columns!(),
            " FROM responses WHERE id = ? AND project = ? AND kept = 0 AND expires_at > ?"
        ))
        .bind(id)
        .bind(project)
        .bind(now)
        .fetch_optional(&self.readers)
        .await
        .map_err(failure)?;
        rows::response(&self.keys, &row.ok_or(StoreError::NotFound)?)
    }

    async fn chain(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
        limit: u32,
        bytes_max: u64,
    ) -> Result<Chain, StoreError> {
        // The way up stops as soon as it is too long, and then no messages are read: `length` needs none of them.
        let rows = sqlx::query(
            "WITH RECURSIVE chain (sequence, previous, number, bytes) AS ( \
               SELECT sequence, previous, 1, length(messages) FROM responses \
               WHERE id = ?1 AND project = ?2 AND kept = 0 AND expires_at > ?3 \
               UNION ALL \
               SELECT r.sequence, r.previous, number + 1, chain.bytes + length(r.messages) \
               FROM chain JOIN responses AS r ON r.sequence = chain.previous AND r.project = ?2 \
               WHERE number <= ?4 AND chain.bytes <= ?5), \
             whole (whole) AS (SELECT max(number) <= ?4 AND max(bytes) <= ?5 FROM chain) \
             SELECT whole, id, model, chain.previous IS NOT NULL AS continues, \
               CASE WHEN whole THEN messages END AS messages \
             FROM whole, chain JOIN responses USING (sequence) ORDER BY number DESC",
        )
        .bind(id)
        .bind(project)
        .bind(now)
        .bind(limit)
        .bind(stored_bytes_max(bytes_max, limit))
        .fetch_all(&self.readers)
        .await
        .map_err(failure)?;
        rows::chain(&self.keys, project, bytes_max, &rows)
    }

    async fn delete_response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut connection = self.writer.acquire().await.map_err(failure)?;
        // Set before the deletion, so that a caller who gives up in between does not leave content in the log.
        self.scrub_due.store(true, Ordering::Relaxed);
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failure)?;
        let response = trees::living(&mut transaction, project, id, now).await?;
        trees::end_with_expired(&mut transaction, &response, now).await?;
        transaction.commit().await.map_err(failure)?;
        self.scrub(&connection).await;
        Ok(())
    }

    async fn insert_conversation(&self, record: &ConversationRecord) -> Result<(), StoreError> {
        let stored = StoredConversation::of(&self.keys, record);
        let mut transaction = self.begin().await?;
        let head = match &record.head {
            Some(id) => {
                let (project, now) = (&record.project, record.created_at);
                Some(trees::living(&mut transaction, project, id, now).await?)
            }
            None => None,
        };
        sqlx::query(
            "INSERT INTO conversations (id, project, head, created_at, expires_at, bytes, metadata, messages, items) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&record.id)
        .bind(&record.project)
        .bind(head.map(|head| head.sequence))
        .bind(record.created_at)
        .bind(record.expires_at)
        .bind(integer("bytes", record.bytes())?)
        .bind(stored.metadata)
        .bind(stored.messages)
        .bind(stored.items)
        .execute(&mut *transaction)
        .await
        .map_err(insert_failure)?;
        transaction.commit().await.map_err(failure)
    }

    async fn conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            conversation_columns!(),
            " FROM conversations WHERE id = ? AND project = ? AND expires_at > ?"
        ))
        .bind(id)
        .bind(project)
        .bind(now)
        .fetch_optional(&self.readers)
        .await
        .map_err(failure)?;
        rows::conversation(&self.keys, &row.ok_or(StoreError::NotFound)?)
    }

    async fn set_conversation_metadata(
        &self,
        project: &str,
        id: &str,
        metadata: &[u8],
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        let mut connection = self.writer.acquire().await.map_err(failure)?;
        // What was there before is deleted.
        self.scrub_due.store(true, Ordering::Relaxed);
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failure)?;
        let row = living_conversation(&mut transaction, project, id, now).await?;
        let mut record = rows::conversation(&self.keys, &row)?;
        record.metadata = metadata.to_vec();
        let place = place(CONVERSATION_METADATA, project, id);
        sqlx::query("UPDATE conversations SET metadata = ?, bytes = ? WHERE sequence = ?")
            .bind(self.keys.seal(&place, record.metadata.clone()))
            .bind(integer("bytes", record.bytes())?)
            .bind(row.try_get::<i64, _>("sequence").map_err(failure)?)
            .execute(&mut *transaction)
            .await
            .map_err(failure)?;
        transaction.commit().await.map_err(failure)?;
        self.scrub(&connection).await;
        Ok(record)
    }

    async fn set_conversation_items(
        &self,
        project: &str,
        id: &str,
        change: &ItemsChange,
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        let mut connection = self.writer.acquire().await.map_err(failure)?;
        self.scrub_due.store(true, Ordering::Relaxed);
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failure)?;
        let row = living_conversation(&mut transaction, project, id, now).await?;
        let mut record = rows::conversation(&self.keys, &row)?;
        if record.items != change.expected {
            return Err(StoreError::Conflict);
        }
        record.items.clone_from(&change.items);
        record.messages.clone_from(&change.messages);
        let stored = StoredConversation::of(&self.keys, &record);
        sqlx::query(
            "UPDATE conversations SET items = ?, messages = ?, bytes = ? WHERE sequence = ?",
        )
        .bind(stored.items)
        .bind(stored.messages)
        .bind(integer("bytes", record.bytes())?)
        .bind(row.try_get::<i64, _>("sequence").map_err(failure)?)
        .execute(&mut *transaction)
        .await
        .map_err(failure)?;
        transaction.commit().await.map_err(failure)?;
        self.scrub(&connection).await;
        Ok(record)
    }

    async fn delete_conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut connection = self.writer.acquire().await.map_err(failure)?;
        self.scrub_due.store(true, Ordering::Relaxed);
        let outcome = sqlx::query(
            "DELETE FROM conversations WHERE id = ? AND project = ? AND expires_at > ?",
        )
        .bind(id)
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

    async fn sweep_responses(&self, now: UnixMillis, limit: u32) -> Result<u64, StoreError> {
        let mut connection = self.writer.acquire().await.map_err(failure)?;
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failure)?;
        let removed = sqlx::query(
            "DELETE FROM conversations WHERE sequence IN \
             (SELECT sequence FROM conversations WHERE expires_at <= ? ORDER BY expires_at, id LIMIT ?)",
        )
        .bind(now)
        .bind(limit)
        .execute(&mut *transaction)
        .await
        .map_err(failure)?
        .rows_affected();
        let left = u64::from(limit).saturating_sub(removed);
        let swept = removed + trees::end_expired(&mut transaction, now, left).await?;
        if swept > 0 {
            self.scrub_due.store(true, Ordering::Relaxed);
        }
        transaction.commit().await.map_err(failure)?;
        self.scrub(&connection).await;
        Ok(swept)
    }

    async fn responses_usage(&self, project: &str) -> Result<ResponseUsage, StoreError> {
        let row = sqlx::query(
            "SELECT responses, conversations, bytes FROM response_usage WHERE project = ?",
        )
        .bind(project)
        .fetch_optional(&self.readers)
        .await
        .map_err(failure)?;
        row.map_or_else(
            || Ok(ResponseUsage::default()),
            |row| {
                Ok(ResponseUsage {
                    responses: count(&row, "responses")?,
                    conversations: count(&row, "conversations")?,
                    bytes: count(&row, "bytes")?,
                })
            },
        )
    }
}

/// The row of a conversation that is there.
async fn living_conversation(
    connection: &mut SqliteConnection,
    project: &str,
    id: &str,
    now: UnixMillis,
) -> Result<SqliteRow, StoreError> {
    sqlx::query(concat!(
        "SELECT sequence, ",
        conversation_columns!(),
        " FROM conversations WHERE id = ? AND project = ? AND expires_at > ?"
    ))
    .bind(id)
    .bind(project)
    .bind(now)
    .fetch_optional(connection)
    .await
    .map_err(failure)?
    .ok_or(StoreError::NotFound)
}

/// The row number of a conversation that is there and has the expected head.
async fn unmoved_conversation(
    connection: &mut SqliteConnection,
    project: &str,
    change: &HeadChange,
) -> Result<i64, StoreError> {
    let row = sqlx::query(concat!(
        "SELECT sequence, ",
        head_columns!(),
        " FROM conversations WHERE id = ? AND project = ? AND expires_at > ?"
    ))
    .bind(&change.conversation)
    .bind(project)
    .bind(change.now)
    .fetch_optional(connection)
    .await
    .map_err(failure)?
    .ok_or(StoreError::NotFound)?;
    if rows::reference(&row)? != change.expected {
        return Err(StoreError::Conflict);
    }
    row.try_get("sequence").map_err(failure)
}
