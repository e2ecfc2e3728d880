//! Conversations. Whoever changes one locks it first and reads it after that, so that its head is one that is there.

use holdfast_protocol::UnixMillis;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::trees;
use crate::StoreError;
use crate::columns::integer;
use crate::postgres::failure::{Failure, insert_failure};
use crate::postgres::{OneAtATime, PostgresStore};
use crate::responses::{ConversationRecord, HeadChange, ItemsChange};
use crate::rows::responses::{self as rows, conversation_columns, head_columns};
use crate::sealed::{CONVERSATION_METADATA, StoredConversation, place};

impl PostgresStore {
    pub(super) async fn try_insert_conversation(
        &self,
        record: &ConversationRecord,
    ) -> Result<(), Failure> {
        let stored = StoredConversation::of(&self.keys, record);
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        let head = match &record.head {
            Some(id) => {
                let (project, now) = (&record.project, record.created_at);
                trees::lock_tree_of(&mut transaction, project, id).await?;
                Some(trees::living(&mut transaction, project, id, now).await?)
            }
            None => None,
        };
        sqlx::query(
            "INSERT INTO conversations (id, project, head, created_at, expires_at, bytes, metadata, messages, items) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
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
        Ok(transaction.commit().await?)
    }

    pub(super) async fn try_conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ConversationRecord, Failure> {
        let mut connection = self.connection().await?;
        let row = living(&mut connection, project, id, now).await?;
        Ok(rows::conversation(&self.keys, &row)?)
    }

    pub(super) async fn try_set_metadata(
        &self,
        project: &str,
        id: &str,
        metadata: &[u8],
        now: UnixMillis,
    ) -> Result<ConversationRecord, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        lock(&mut transaction, project, id).await?;
        let row = living(&mut transaction, project, id, now).await?;
        let mut record = rows::conversation(&self.keys, &row)?;
        record.metadata = metadata.to_vec();
        let place = place(CONVERSATION_METADATA, project, id);
        sqlx::query("UPDATE conversations SET metadata = $1, bytes = $2 WHERE sequence = $3")
            .bind(self.keys.seal(&place, record.metadata.clone()))
            .bind(integer("bytes", record.bytes())?)
            .bind(row.try_get::<i64, _>("sequence")?)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(record)
    }

    pub(super) async fn try_set_items(
        &self,
        project: &str,
        id: &str,
        change: &ItemsChange,
        now: UnixMillis,
    ) -> Result<ConversationRecord, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        lock(&mut transaction, project, id).await?;
        let row = living(&mut transaction, project, id, now).await?;
        let mut record = rows::conversation(&self.keys, &row)?;
        if record.items != change.expected {
            return Err(StoreError::Conflict.into());
        }
        record.items.clone_from(&change.items);
        record.messages.clone_from(&change.messages);
        let stored = StoredConversation::of(&self.keys, &record);
        sqlx::query(
            "UPDATE conversations SET items = $1, messages = $2, bytes = $3 WHERE sequence = $4",
        )
        .bind(stored.items)
        .bind(stored.messages)
        .bind(integer("bytes", record.bytes())?)
        .bind(row.try_get::<i64, _>("sequence")?)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(record)
    }

    pub(super) async fn try_delete_conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), Failure> {
        let outcome = sqlx::query(
            "DELETE FROM conversations WHERE id = $1 AND project = $2 AND expires_at > $3",
        )
        .bind(id)
        .bind(project)
        .bind(now)
        .execute(&mut *self.connection().await?)
        .await?;
        match outcome.rows_affected() {
            0 => Err(StoreError::NotFound.into()),
            _ => Ok(()),
        }
    }

    pub(super) async fn try_sweep_conversations(
        &self,
        now: UnixMillis,
        limit: u64,
    ) -> Result<u64, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        OneAtATime::SweepResponses
            .hold(&mut transaction, "")
            .await?;
        let outcome = sqlx::query(
            "DELETE FROM conversations WHERE sequence IN \
             (SELECT sequence FROM conversations WHERE expires_at <= $1 ORDER BY expires_at, id LIMIT $2)",
        )
        .bind(now)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(outcome.rows_affected())
    }
}

/// The row number of a conversation that is there, locked, and has the expected head.
pub(super) async fn unmoved(
    connection: &mut PgConnection,
    project: &str,
    change: &HeadChange,
) -> Result<i64, Failure> {
    lock(connection, project, &change.conversation).await?;
    let row = sqlx::query(concat!(
        "SELECT sequence, ",
        head_columns!(),
        " FROM conversations WHERE id = $1 AND project = $2 AND expires_at > $3"
    ))
    .bind(&change.conversation)
    .bind(project)
    .bind(change.now)
    .fetch_optional(connection)
    .await?
    .ok_or(StoreError::NotFound)?;
    if rows::reference(&row)? != change.expected {
        return Err(StoreError::Conflict.into());
    }
    Ok(row.try_get("sequence")?)
}

/// Waits until nobody else changes the conversation. It may be gone by then.
async fn lock(connection: &mut PgConnection, project: &str, id: &str) -> Result<(), Failure> {
    sqlx::query("SELECT 1 FROM conversations WHERE id = $1 AND project = $2 FOR UPDATE")
        .bind(id)
        .bind(project)
        .execute(connection)
        .await?;
    Ok(())
}

/// The row of a conversation that is there.
async fn living(
    connection: &mut PgConnection,
    project: &str,
    id: &str,
    now: UnixMillis,
) -> Result<PgRow, Failure> {
    let row = sqlx::query(concat!(
        "SELECT sequence, ",
        conversation_columns!(),
        " FROM conversations WHERE id = $1 AND project = $2 AND expires_at > $3"
    ))
    .bind(id)
    .bind(project)
    .bind(now)
    .fetch_optional(connection)
    .await?;
    Ok(row.ok_or(StoreError::NotFound)?)
}
