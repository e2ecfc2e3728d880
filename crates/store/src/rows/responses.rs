//! Rows to responses and conversations.

use super::Columns;
use crate::StoreError;
use crate::responses::{Chain, ChainLink, ConversationRecord, ResponseRecord};

/// What [`response`] reads, for `concat!`.
macro_rules! response_columns {
    () => {
        "id, project, previous, created_at, expires_at, model, conversation, messages, input, body, \
         (SELECT before.id FROM responses AS before WHERE before.sequence = responses.previous) AS reference"
    };
}
pub(crate) use response_columns;

/// What [`reference`] reads of a conversation, for `concat!`.
macro_rules! head_columns {
    () => {
        "head AS previous, \
         (SELECT responses.id FROM responses WHERE responses.sequence = head) AS reference"
    };
}
pub(crate) use head_columns;

/// What [`conversation`] reads, for `concat!`.
macro_rules! conversation_columns {
    () => {
        concat!(
            "id, project, created_at, expires_at, metadata, messages, items, ",
            $crate::rows::responses::head_columns!()
        )
    };
}
pub(crate) use conversation_columns;

pub(crate) fn response(row: &impl Columns) -> Result<ResponseRecord, StoreError> {
    Ok(ResponseRecord {
        id: row.word("id")?,
        project: row.word("project")?,
        model: row.text("model")?,
        previous: reference(row)?,
        conversation: row.optional_word("conversation")?,
        input: row.bytes("input")?,
        messages: row.bytes("messages")?,
        body: row.bytes("body")?,
        created_at: row.number("created_at")?,
        expires_at: row.number("expires_at")?,
    })
}

pub(crate) fn conversation(row: &impl Columns) -> Result<ConversationRecord, StoreError> {
    Ok(ConversationRecord {
        id: row.word("id")?,
        project: row.word("project")?,
        metadata: row.bytes("metadata")?,
        items: row.bytes("items")?,
        messages: row.bytes("messages")?,
        head: reference(row)?,
        created_at: row.number("created_at")?,
        expires_at: row.number("expires_at")?,
    })
}

/// From rows of a way up, oldest first, each of which says whether the whole of it was short enough.
pub(crate) fn chain<R: Columns>(rows: &[R]) -> Result<Chain, StoreError> {
    let oldest = rows.first().ok_or(StoreError::NotFound)?;
    if !oldest.flag("whole")? {
        return Ok(Chain::TooLong);
    }
    if oldest.flag("continues")? {
        return Err(broken());
    }
    let links = rows.iter().map(|row| {
        Ok(ChainLink {
            id: row.word("id")?,
            model: row.text("model")?,
            messages: row.bytes("messages")?,
        })
    });
    Ok(Chain::Whole(links.collect::<Result<_, StoreError>>()?))
}

/// The id of the response that the row points at.
pub(crate) fn reference(row: &impl Columns) -> Result<Option<String>, StoreError> {
    match (
        row.optional_number("previous")?,
        row.optional_word("reference")?,
    ) {
        (Some(_), None) => Err(broken()),
        (_, id) => Ok(id),
    }
}

fn broken() -> StoreError {
    StoreError::Corrupt("a response that others continue from is missing".to_owned())
}
