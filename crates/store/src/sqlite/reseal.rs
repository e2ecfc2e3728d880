//! Sealing anew in SQLite.

use std::sync::atomic::Ordering;

use holdfast_protocol::context::ContextId;
use holdfast_seal::KeyId;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::SqliteStore;
use super::failure::failure;
use super::rows;
use crate::StoreError;
use crate::columns::{json, wrong_value};
use crate::reseal::{CONVERSATION, RESPONSE, ResealPosition, ResealStep, Table, words_are_current};
use crate::rows::Columns;
use crate::sealed::{self, Words, opened};

impl SqliteStore {
    /// Seals at most `limit` rows from `position` on as they would be now, and says where to go on. Another process may
    /// use the database meanwhile, if it has the same keys.
    ///
    /// # Errors
    /// `Corrupt` when a row can't be opened.
    pub async fn reseal(
        &self,
        position: ResealPosition,
        limit: u32,
    ) -> Result<ResealStep, StoreError> {
        // What is sealed now was readable before, and would stay so in the log.
        self.scrub_due.store(true, Ordering::Relaxed);
        let mut transaction = self.begin().await?;
        let rows = rows_from(&mut transaction, position, limit).await?;
        let (mut at, mut sealed) = (position, 0);
        for row in &rows {
            at.row = row.try_get("row").map_err(failure)?;
            at.number = row.try_get("number").map_err(failure)?;
            sealed += u64::from(self.reseal_row(&mut transaction, at, row).await?);
        }
        transaction.commit().await.map_err(failure)?;
        Ok(ResealStep {
            looked_at: rows.len() as u64,
            sealed,
            next: at.next(rows.len(), limit),
        })
    }

    /// Takes what was readable before out of the log, if nobody reads at the moment; says whether it is out.
    ///
    /// # Errors
    /// The database is busy or closed.
    pub async fn empty_log(&self) -> Result<bool, StoreError> {
        let connection = self.writer.acquire().await.map_err(failure)?;
        self.scrub(&connection).await;
        Ok(!self.scrub_due.load(Ordering::Relaxed))
    }

    /// The data keys that something here may be sealed with.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn data_keys(&self) -> Result<Vec<KeyId>, StoreError> {
        let ids: Vec<Vec<u8>> = sqlx::query_scalar("SELECT id FROM data_keys ORDER BY id")
            .fetch_all(&self.readers)
            .await
            .map_err(failure)?;
        ids.iter()
            .map(|id| KeyId::from_bytes(id).ok_or_else(|| wrong_value("id")))
            .collect()
    }

    /// Takes down that something may be sealed with the present key from now on.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn use_data_key(&self) -> Result<(), StoreError> {
        let Some(id) = self.keys.current() else {
            return Ok(());
        };
        sqlx::query("INSERT INTO data_keys (id) VALUES (?) ON CONFLICT DO NOTHING")
            .bind(id.as_bytes())
            .execute(&self.writer)
            .await
            .map_err(failure)?;
        Ok(())
    }

    /// Forgets all data keys but the present one, after everything has been sealed anew.
    ///
    /// # Errors
    /// The database can't be written.
    pub async fn forget_other_data_keys(&self) -> Result<(), StoreError> {
        let current = self.keys.current();
        sqlx::query("DELETE FROM data_keys WHERE id IS NOT ?")
            .bind(current.as_ref().map(KeyId::as_bytes))
            .execute(&self.writer)
            .await
            .map_err(failure)?;
        Ok(())
    }

    async fn reseal_row(
        &self,
        connection: &mut SqliteConnection,
        at: ResealPosition,
        row: &SqliteRow,
    ) -> Result<bool, StoreError> {
        match at.table {
            Table::Contexts => self.reseal_context(connection, at, row).await,
            Table::Contents | Table::Turns => self.reseal_messages(connection, at, row).await,
            Table::Responses | Table::Conversations => self.reseal_parts(connection, at, row).await,
        }
    }

    async fn reseal_context(
        &self,
        connection: &mut SqliteConnection,
        at: ResealPosition,
        row: &SqliteRow,
    ) -> Result<bool, StoreError> {
        let keys = &self.keys;
        let (id, project) = (rows::context_id(row)?, row.word("project")?);
        let stored: Option<Vec<u8>> = row.try_get("sealed").map_err(failure)?;
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
        let tool_choice = words
            .tool_choice
            .as_ref()
            .map(|choice| json("tool_choice", serde_json::to_string(choice)))
            .transpose()?;
        sqlx::query(
            "UPDATE contexts SET display_name = ?, metadata = ?, tools = ?, tool_choice = ?, \
             implicit = ?, sealed = ? WHERE sequence = ?",
        )
        .bind(words.display_name)
        .bind(json("metadata", serde_json::to_string(&words.metadata))?)
        .bind(json("tools", serde_json::to_string(&words.tools))?)
        .bind(tool_choice)
        .bind(sealed::seal_digest(
            keys,
            &project,
            id.as_str(),
            digest.as_deref(),
        ))
        .bind(sealed)
        .bind(at.row)
        .execute(connection)
        .await
        .map_err(failure)?;
        Ok(true)
    }

    /// Of a context's beginning, or of one of its turns.
    async fn reseal_messages(
        &self,
        connection: &mut SqliteConnection,
        at: ResealPosition,
        row: &SqliteRow,
    ) -> Result<bool, StoreError> {
        let stored = row.bytes("messages")?;
        if self.keys.is_current(&stored) {
            return Ok(false);
        }
        let (id, project): (ContextId, String) = (rows::context_id(row)?, row.word("project")?);
        let (place, statement) = match at.table {
            Table::Turns => (
                sealed::turn(
                    &project,
                    id.as_str(),
                    u32::try_from(at.number).map_err(|_| wrong_value("number"))?,
                ),
                "UPDATE turns SET messages = ?, sealed = ? WHERE context = ? AND number = ?",
            ),
            _ => (
                sealed::initial(&project, id.as_str()),
                "UPDATE contents SET initial = ?, sealed = ? WHERE context = ? AND ? IS NOT NULL",
            ),
        };
        let plain = opened(self.keys.open(&place, stored))?;
        let text = String::from_utf8(plain).map_err(|_| wrong_value("messages"))?;
        let (text, sealed) = rows::text_or_sealed(&self.keys, &place, text);
        sqlx::query(statement)
            .bind(text)
            .bind(sealed)
            .bind(at.row)
            .bind(at.number)
            .execute(connection)
            .await
            .map_err(failure)?;
        Ok(true)
    }

    /// Of a stored response, or of a conversation.
    async fn reseal_parts(
        &self,
        connection: &mut SqliteConnection,
        at: ResealPosition,
        row: &SqliteRow,
    ) -> Result<bool, StoreError> {
        let (parts, statement) = match at.table {
            Table::Responses => (
                RESPONSE,
                "UPDATE responses SET messages = coalesce(?, messages), input = coalesce(?, input), \
                 body = coalesce(?, body) WHERE sequence = ?",
            ),
            _ => (
                CONVERSATION,
                "UPDATE conversations SET metadata = coalesce(?, metadata), \
                 messages = coalesce(?, messages), items = coalesce(?, items) WHERE sequence = ?",
            ),
        };
        let Some(resealed) = parts.resealed(&self.keys, row)? else {
            return Ok(false);
        };
        let mut update = sqlx::query(statement);
        for part in resealed {
            update = update.bind(part);
        }
        update
            .bind(at.row)
            .execute(connection)
            .await
            .map_err(failure)?;
        Ok(true)
    }
}

/// The next rows of the position's table, as they are stored, each with its `row` and `number`.
async fn rows_from(
    connection: &mut SqliteConnection,
    position: ResealPosition,
    limit: u32,
) -> Result<Vec<SqliteRow>, StoreError> {
    let statement = match position.table {
        Table::Contexts => {
            "SELECT sequence AS row, 0 AS number, id, project, display_name, metadata, tools, tool_choice, implicit, \
             sealed FROM contexts WHERE sequence > ?1 ORDER BY sequence LIMIT ?3"
        }
        Table::Contents => {
            "SELECT contents.context AS row, 0 AS number, id, project, \
             coalesce(contents.sealed, contents.initial) AS messages \
             FROM contents JOIN contexts ON contexts.sequence = contents.context \
             WHERE contents.context > ?1 ORDER BY contents.context LIMIT ?3"
        }
        Table::Turns => {
            "SELECT turns.context AS row, turns.number, id, project, \
             coalesce(turns.sealed, turns.messages) AS messages \
             FROM turns JOIN contexts ON contexts.sequence = turns.context \
             WHERE (turns.context, turns.number) > (?1, ?2) ORDER BY turns.context, turns.number LIMIT ?3"
        }
        Table::Responses => {
            "SELECT sequence AS row, 0 AS number, id, project, messages, input, body FROM responses \
             WHERE sequence > ?1 ORDER BY sequence LIMIT ?3"
        }
        Table::Conversations => {
            "SELECT sequence AS row, 0 AS number, id, project, metadata, messages, items FROM conversations \
             WHERE sequence > ?1 ORDER BY sequence LIMIT ?3"
        }
    };
    sqlx::query(statement)
        .bind(position.row)
        .bind(position.number)
        .bind(limit)
        .fetch_all(connection)
        .await
        .map_err(failure)
}
