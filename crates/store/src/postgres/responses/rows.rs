//! Rows to responses and conversations.

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::StoreError;
use crate::postgres::failure::failure;
use crate::postgres::rows::text;
use crate::responses::{Chain, ChainLink, ConversationRecord, ResponseRecord};

/// What [`response`] reads, for `concat!`.
macro_rules! response_columns {
    () => {
        "id, project, previous, created_at, expires_at, model, conversation, messages, input, body, \
         (SELECT before.id FROM responses AS before WHERE before.sequence = responses.previous) AS reference"
    };
}
pub(super) use response_columns;

/// What [`reference`] reads of a conversation, for `concat!`.
macro_rules! head_columns {
    () => {
        "head AS previous, \
         (SELECT responses.id FROM responses WHERE responses.sequence = head) AS reference"
    };
}
pub(super) use head_columns;

/// What [`conversation`] reads, for `concat!`.
macro_rules! conversation_columns {
    () => {
        concat!(
            "id, project, created_at, expires_at, metadata, messages, items, ",
            $crate::postgres::responses::rows::head_columns!()
        )
    };
}
pub(super) use conversation_columns;

pub(super) fn response(row: &PgRow) -> Result<ResponseRecord, StoreError> {
    Ok(ResponseRecord {
        id: row.try_get("id").map_err(failure)?,
        project: row.try_get("project").map_err(failure)?,
        model: text(row, "model")?,
        previous: reference(row)?,
        conversation: row.try_get("conversation").map_err(failure)?,
        input: row.try_get("input").map_err(failure)?,
        messages: row.try_get("messages").map_err(failure)?,
        body: row.try_get("body").map_err(failure)?,
        created_at: row.try_get("created_at").map_err(failure)?,
        expires_at: row.try_get("expires_at").map_err(failure)?,
    })
}

pub(super) fn conversation(row: &PgRow) -> Result<ConversationRecord, StoreError> {
    Ok(ConversationRecord {
        id: row.try_get("id").map_err(failure)?,
        project: row.try_get("project").map_err(failure)?,
        metadata: row.try_get("metadata").map_err(failure)?,
        items: row.try_get("items").map_err(failure)?,
        messages: row.try_get("messages").map_err(failure)?,
        head: reference(row)?,
        created_at: row.try_get("created_at").map_err(failure)?,
        expires_at: row.try_get("expires_at").map_err(failure)?,
    })
}

/// From rows of a way up, oldest first, each of which says whether the whole of it was short enough.
pub(super) fn chain(rows: &[PgRow]) -> Result<Chain, StoreError> {
    let oldest = rows.first().ok_or(StoreError::NotFound)?;
    if !oldest.try_get::<bool, _>("whole").map_err(failure)? {
        return Ok(Chain::TooLong);
    }
    if oldest.try_get("continues").map_err(failure)? {
        return Err(broken());
    }
    let links = rows.iter().map(|row| {
        Ok(ChainLink {
            id: row.try_get("id").map_err(failure)?,
            model: text(row, "model")?,
            messages: row.try_get("messages").map_err(failure)?,
        })
    });
    Ok(Chain::Whole(links.collect::<Result<_, StoreError>>()?))
}

/// The id of the response that the row points at.
pub(super) fn reference(row: &PgRow) -> Result<Option<String>, StoreError> {
    let id: Option<String> = row.try_get("reference").map_err(failure)?;
    let sequence: Option<i64> = row.try_get("previous").map_err(failure)?;
    match (sequence, id) {
        (Some(_), None) => Err(broken()),
        (_, id) => Ok(id),
    }
}

fn broken() -> StoreError {
    StoreError::Corrupt("a response that others continue from is missing".to_owned())
}
