//! Sealing anew in PostgreSQL. Rows are locked while they are read and written, so that no change of a server is lost.

use holdfast_protocol::context::ContextId;
use holdfast_seal::KeyId;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::PostgresStore;
use super::failure::Failure;
use super::rows;
use crate::StoreError;
use crate::columns::wrong_value;
use crate::reseal::{
    CONVERSATION, RESPONSE, ResealPosition, ResealStep, Table, resealed, words_are_current,
};
use crate::rows::Columns;
use crate::sealed::{self, Words};

impl PostgresStore {
    /// Seals at most `limit` rows from `position` on as they would be now, and says where to go on. Servers may go on
    /// meanwhile, if they have the same keys.
    ///
    /// # Errors
    /// `Corrupt` when a row can't be opened.
    pub async fn reseal(
        &self,
        position: ResealPosition,
        limit: u32,
    ) -> Result<ResealStep, StoreError> {
        self.attempt(|| self.try_reseal(position, limit)).await
    }

    /// The data keys that something here may be sealed with.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn data_keys(&self) -> Result<Vec<KeyId>, StoreError> {
        let ids = self.attempt(|| self.try_data_keys()).await?;
        ids.iter()
            .map(|id| KeyId::from_bytes(id).ok_or_else(|| wrong_value("id")))
            .collect()
    }

    /// Takes down that something may be sealed with the present key from now on.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn use_data_key(&self) -> Result<(), StoreError> {
        match self.keys.current() {
            Some(id) => self.attempt(|| self.try_use_data_key(id)).await,
            None => Ok(()),
        }
    }

    /// Forgets all data keys but the present one, after everything has been sealed anew.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn forget_other_data_keys(&self) -> Result<(), StoreError> {
        self.attempt(|| self.try_forget_other_data_keys()).await
    }

    async fn try_reseal(
        &self,
        position: ResealPosition,
        limit: u32,
    ) -> Result<ResealStep, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        let rows = rows_from(&mut transaction, position, limit).await?;
        let (mut at, mut sealed) = (position, 0);
        for row in &rows {
            at.row = row.try_get("row")?;
            at.number = row.try_get("number")?;
            sealed += u64::from(self.reseal_row(&mut transaction, at, row).await?);
        }
        transaction.commit().await?;
        Ok(ResealStep {
            looked_at: rows.len() as u64,
            sealed,
            next: at.next(rows.len(), limit),
        })
    }

    async fn try_data_keys(&self) -> Result<Vec<Vec<u8>>, Failure> {
        let ids = sqlx::query_scalar("SELECT id FROM data_keys ORDER BY id")
            .fetch_all(&mut *self.connection().await?)
            .await?;
        Ok(ids)
    }

    async fn try_use_data_key(&self, id: KeyId) -> Result<(), Failure> {
        sqlx::query("INSERT INTO data_keys (id) VALUES ($1) ON CONFLICT DO NOTHING")
            .bind(id.as_bytes())
            .execute(&mut *self.connection().await?)
            .await?;
        Ok(())
    }

    async fn try_forget_other_data_keys(&self) -> Result<(), Failure> {
        let current = self.keys.current();
        sqlx::query("DELETE FROM data_keys WHERE id IS DISTINCT FROM $1")
            .bind(current.as_ref().map(KeyId::as_bytes))
            .execute(&mut *self.connection().await?)
            .await?;
        Ok(())
    }

    async fn reseal_row(
        &self,
        connection: &mut PgConnection,
        at: ResealPosition,
        row: &PgRow,
    ) -> Result<bool, Failure> {
        match at.table {
            Table::Contexts => self.reseal_context(connection, at, row).await,
            Table::Contents | Table::Turns => self.reseal_messages(connection, at, row).await,
            Table::Responses | Table::Conversations => self.reseal_parts(connection, at, row).await,
        }
    }

    async fn reseal_context(
        &self,
        connection: &mut PgConnection,
        at: ResealPosition,
        row: &PgRow,
    ) -> Result<bool, Failure> {
        let keys = &self.keys;
        let (id, project) = (rows::context_id(row)?, row.word("project")?);
        let stored: Option<Vec<u8>> = row.try_get("sealed")?;
        let digest = row.optional_word("implicit")?;
        let digest_bytes = digest.as_deref().map(sealed::digest_bytes).transpose()?;
        let digest_is_current =
            digest_bytes.is_none_or(|bytes| words_are_current(keys, bytes.as_deref()));
        if words_are_current(keys, stored.as_deref()) && digest_is_current {
            return Ok(false);
        }
        let words = match stored {
            Some(stored) => Words::open(keys, &project, id.as_str(), stored)?,
            None => rows::words(row)?,
        };
        let sealed = words.seal(keys, &project, id.as_str())?;
        let words = match sealed {
            Some(_) => Words::default(),
            None => words,
        };
        let digest = sealed::open_digest(keys, &project, &id, digest)?;
        let tool_choice = words.tool_choice.as_ref();
        sqlx::query(
            "UPDATE contexts SET display_name = $1, metadata = $2, tools = $3, tool_choice = $4, \
             implicit = $5, sealed = $6 WHERE sequence = $7",
        )
        .bind(words.display_name.map(String::into_bytes))
        .bind(rows::to_json("metadata", &words.metadata)?)
        .bind(rows::to_json("tools", &words.tools)?)
        .bind(
            tool_choice
                .map(|choice| rows::to_json("tool_choice", choice))
                .transpose()?,
        )
        .bind(sealed::seal_digest(
            keys,
            &project,
            id.as_str(),
            digest.as_deref(),
        ))
        .bind(sealed)
        .bind(at.row)
        .execute(connection)
        .await?;
        Ok(true)
    }

    /// Of a context's beginning, or of one of its turns.
    async fn reseal_messages(
        &self,
        connection: &mut PgConnection,
        at: ResealPosition,
        row: &PgRow,
    ) -> Result<bool, Failure> {
        let (id, project): (ContextId, String) = (rows::context_id(row)?, row.word("project")?);
        let (place, statement) = match at.table {
            Table::Turns => (
                sealed::turn(&project, id.as_str(), rows::small(row, "turn")?),
                "UPDATE turns SET messages = $1 WHERE context = $2 AND number = $3",
            ),
            _ => (
                sealed::initial(&project, id.as_str()),
                "UPDATE contents SET initial = $1 WHERE context = $2 AND $3::bigint IS NOT NULL",
            ),
        };
        let Some(messages) = resealed(&self.keys, &place, &row.bytes("messages")?)? else {
            return Ok(false);
        };
        sqlx::query(statement)
            .bind(messages)
            .bind(at.row)
            .bind(at.number)
            .execute(connection)
            .await?;
        Ok(true)
    }

    /// Of a stored response, or of a conversation.
    async fn reseal_parts(
        &self,
        connection: &mut PgConnection,
        at: ResealPosition,
        row: &PgRow,
    ) -> Result<bool, Failure> {
        let (parts, statement) = match at.table {
            Table::Responses => (
                RESPONSE,
                "UPDATE responses SET messages = coalesce($1, messages), input = coalesce($2, input), \
                 body = coalesce($3, body) WHERE sequence = $4",
            ),
            _ => (
                CONVERSATION,
                "UPDATE conversations SET metadata = coalesce($1, metadata), \
                 messages = coalesce($2, messages), items = coalesce($3, items) WHERE sequence = $4",
            ),
        };
        let Some(resealed) = parts.resealed(&self.keys, row)? else {
            return Ok(false);
        };
        let mut update = sqlx::query(statement);
        for part in resealed {
            update = update.bind(part);
        }
        update.bind(at.row).execute(connection).await?;
        Ok(true)
    }
}

/// The next rows of the position's table, as they are stored, locked, each with its `row` and `number`.
async fn rows_from(
    connection: &mut PgConnection,
    position: ResealPosition,
    limit: u32,
) -> Result<Vec<PgRow>, Failure> {
    let statement = match position.table {
        Table::Contexts => {
            "SELECT sequence AS row, 0::bigint AS number, id, project, display_name, metadata, tools, tool_choice, \
             implicit, sealed FROM contexts WHERE sequence > $1 AND $2::bigint IS NOT NULL \
             ORDER BY sequence LIMIT $3 FOR NO KEY UPDATE"
        }
        Table::Contents => {
            "SELECT contents.context AS row, 0::bigint AS number, id, project, contents.initial AS messages \
             FROM contents JOIN contexts ON contexts.sequence = contents.context \
             WHERE contents.context > $1 AND $2::bigint IS NOT NULL \
             ORDER BY contents.context LIMIT $3 FOR NO KEY UPDATE OF contents"
        }
        Table::Turns => {
            "SELECT turns.context AS row, turns.number, turns.number AS turn, id, project, turns.messages \
             FROM turns JOIN contexts ON contexts.sequence = turns.context \
             WHERE (turns.context, turns.number) > ($1, $2) \
             ORDER BY turns.context, turns.number LIMIT $3 FOR NO KEY UPDATE OF turns"
        }
        Table::Responses => {
            "SELECT sequence AS row, 0::bigint AS number, id, project, messages, input, body FROM responses \
             WHERE sequence > $1 AND $2::bigint IS NOT NULL ORDER BY sequence LIMIT $3 FOR NO KEY UPDATE"
        }
        Table::Conversations => {
            "SELECT sequence AS row, 0::bigint AS number, id, project, metadata, messages, items FROM conversations \
             WHERE sequence > $1 AND $2::bigint IS NOT NULL ORDER BY sequence LIMIT $3 FOR NO KEY UPDATE"
        }
    };
    Ok(sqlx::query(statement)
        .bind(position.row)
        .bind(position.number)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?)
}
