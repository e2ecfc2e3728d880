//! Responses and conversations in PostgreSQL.
//!
//! Whoever changes a tree of responses locks its first row, then the conversation, and looks at both only after that:
//! a statement sees what was committed when it began, not when it got its locks.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;

mod conversations;
mod trees;

use super::failure::{Failure, insert_failure};
use super::rows::count;
use super::{OneAtATime, PostgresStore};
use crate::StoreError;
use crate::columns::integer;
use crate::responses::{
    Chain, ConversationRecord, HeadChange, ItemsChange, ResponseRecord, ResponseStore,
    ResponseUsage,
};
use crate::rows::responses::{self as rows, response_columns};
use crate::sealed::{StoredResponse, stored_bytes_max};

#[async_trait]
impl ResponseStore for PostgresStore {
    async fn insert_response(
        &self,
        record: &ResponseRecord,
        head: Option<&HeadChange>,
    ) -> Result<(), StoreError> {
        self.attempt(|| self.try_insert_response(record, head))
            .await
    }

    async fn response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ResponseRecord, StoreError> {
        self.attempt(|| self.try_response(project, id, now)).await
    }

    async fn chain(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
        limit: u32,
        bytes_max: u64,
    ) -> Result<Chain, StoreError> {
        self.attempt(|| self.try_chain(project, id, now, limit, bytes_max))
            .await
    }

    async fn delete_response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.attempt(|| self.try_delete_response(project, id, now))
            .await
    }

    async fn insert_conversation(&self, record: &ConversationRecord) -> Result<(), StoreError> {
        self.attempt(|| self.try_insert_conversation(record)).await
    }

    async fn conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        self.attempt(|| self.try_conversation(project, id, now))
            .await
    }

    async fn set_conversation_metadata(
        &self,
        project: &str,
        id: &str,
        metadata: &[u8],
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        self.attempt(|| self.try_set_metadata(project, id, metadata, now))
            .await
    }

    async fn set_conversation_items(
        &self,
        project: &str,
        id: &str,
        change: &ItemsChange,
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        self.attempt(|| self.try_set_items(project, id, change, now))
            .await
    }

    async fn delete_conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.attempt(|| self.try_delete_conversation(project, id, now))
            .await
    }

    async fn sweep_responses(&self, now: UnixMillis, limit: u32) -> Result<u64, StoreError> {
        // One transaction for each kind: a turn locks a tree before its conversation, and so must this.
        let limit = u64::from(limit);
        let removed = self
            .attempt(|| self.try_sweep_conversations(now, limit))
            .await?;
        let left = limit.saturating_sub(removed);
        let ended = self.attempt(|| self.try_end_expired(now, left)).await?;
        Ok(removed + ended)
    }

    async fn responses_usage(&self, project: &str) -> Result<ResponseUsage, StoreError> {
        match self.attempt(|| self.try_usage(project)).await {
            // A name that PostgreSQL can't hold is no project's.
            Err(StoreError::NotFound) => Ok(ResponseUsage::default()),
            usage => usage,
        }
    }
}

impl PostgresStore {
    async fn try_insert_response(
        &self,
        record: &ResponseRecord,
        head: Option<&HeadChange>,
    ) -> Result<(), Failure> {
        let project = &record.project;
        let stored = StoredResponse::of(&self.keys, record);
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        if let Some(id) = &record.previous {
            trees::lock_tree_of(&mut transaction, project, id).await?;
        }
        let conversation = match head {
            Some(change) => Some(conversations::unmoved(&mut transaction, project, change).await?),
            None => None,
        };
        let previous = match &record.previous {
            Some(id) => {
                Some(trees::living(&mut transaction, project, id, record.created_at).await?)
            }
            None => None,
        };
        let sequence: i64 = sqlx::query_scalar(
            "INSERT INTO responses (id, project, previous, tree, kept, created_at, expires_at, bytes, model, \
             conversation, messages, input, body) \
             VALUES ($1, $2, $3, $4, FALSE, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING sequence",
        )
        .bind(&record.id)
        .bind(project)
        .bind(previous.as_ref().map(|previous| previous.sequence))
        .bind(previous.as_ref().map(|previous| previous.tree))
        .bind(record.created_at)
        .bind(record.expires_at)
        .bind(integer("bytes", record.bytes())?)
        .bind(record.model.as_bytes())
        .bind(&record.conversation)
        .bind(stored.messages)
        .bind(stored.input)
        .bind(stored.body)
        .fetch_one(&mut *transaction)
        .await
        .map_err(insert_failure)?;
        if let Some(conversation) = conversation {
            sqlx::query(
                "UPDATE conversations SET head = $1, expires_at = greatest(expires_at, $2) WHERE sequence = $3",
            )
            .bind(sequence)
            .bind(record.expires_at)
            .bind(conversation)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn try_response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ResponseRecord, Failure> {
        let row = sqlx::query(concat!(
            "SELECT ",
            response_columns!(),
            " FROM responses WHERE id = $1 AND project = $2 AND NOT kept AND expires_at > $3"
        ))
        .bind(id)
        .bind(project)
        .bind(now)
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(rows::response(
            &self.keys,
            &row.ok_or(StoreError::NotFound)?,
        )?)
    }

    async fn try_chain(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
        limit: u32,
        bytes_max: u64,
    ) -> Result<Chain, Failure> {
        // The way up stops as soon as it is too long, and then no messages are read: `length` needs none of them.
        let rows = sqlx::query(
            "WITH RECURSIVE chain (sequence, previous, number, bytes) AS ( \
               SELECT sequence, previous, 1::bigint, length(messages)::bigint FROM responses \
               WHERE id = $1 AND project = $2 AND NOT kept AND expires_at > $3 \
               UNION ALL \
               SELECT r.sequence, r.previous, chain.number + 1, chain.bytes + length(r.messages) \
               FROM chain JOIN responses AS r ON r.sequence = chain.previous AND r.project = $2 \
               WHERE chain.number <= $4 AND chain.bytes <= $5), \
             length_of (whole) AS (SELECT max(number) <= $4 AND max(bytes) <= $5 FROM chain) \
             SELECT length_of.whole, id, model, chain.previous IS NOT NULL AS continues, \
               CASE WHEN length_of.whole THEN messages END AS messages \
             FROM length_of CROSS JOIN chain JOIN responses USING (sequence) ORDER BY number DESC",
        )
        .bind(id)
        .bind(project)
        .bind(now)
        .bind(i64::from(limit))
        .bind(stored_bytes_max(bytes_max, limit))
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows::chain(&self.keys, project, bytes_max, &rows)?)
    }

    async fn try_delete_response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        trees::lock_tree_of(&mut transaction, project, id).await?;
        let response = trees::living(&mut transaction, project, id, now).await?;
        trees::end_with_expired(&mut transaction, &response, now).await?;
        Ok(transaction.commit().await?)
    }

    async fn try_end_expired(&self, now: UnixMillis, limit: u64) -> Result<u64, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        OneAtATime::SweepResponses
            .hold(&mut transaction, "")
            .await?;
        let ended = trees::end_expired(&mut transaction, now, limit).await?;
        // What each change has added, added up; a project without anything has no row.
        sqlx::query(
            "WITH many AS (SELECT project FROM response_usage GROUP BY project HAVING count(*) > 1), \
             parts AS (DELETE FROM response_usage USING many WHERE response_usage.project = many.project \
               RETURNING response_usage.*) \
             INSERT INTO response_usage (project, responses, conversations, bytes) \
             SELECT project, sum(responses), sum(conversations), sum(bytes) FROM parts GROUP BY project \
             HAVING sum(responses) <> 0 OR sum(conversations) <> 0 OR sum(bytes) <> 0",
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ended)
    }

    async fn try_usage(&self, project: &str) -> Result<ResponseUsage, Failure> {
        let row = sqlx::query(
            "SELECT coalesce(sum(responses), 0)::bigint AS responses, \
             coalesce(sum(conversations), 0)::bigint AS conversations, \
             coalesce(sum(bytes), 0)::bigint AS bytes FROM response_usage WHERE project = $1",
        )
        .bind(project)
        .fetch_one(&mut *self.connection().await?)
        .await?;
        Ok(ResponseUsage {
            responses: count(&row, "responses")?,
            conversations: count(&row, "conversations")?,
            bytes: count(&row, "bytes")?,
        })
    }
}
