//! Rows to responses and conversations.

use holdfast_seal::Keyring;

use super::Columns;
use crate::StoreError;
use crate::responses::{Chain, ChainLink, ConversationRecord, ResponseRecord};
use crate::sealed::{self, opened, place};

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

pub(crate) fn response(keys: &Keyring, row: &impl Columns) -> Result<ResponseRecord, StoreError> {
    let (project, id) = (row.word("project")?, row.word("id")?);
    let bytes = |column, kind| opened(keys.open(&place(kind, &project, &id), row.bytes(column)?));
    Ok(ResponseRecord {
        model: row.text("model")?,
        previous: reference(row)?,
        conversation: row.optional_word("conversation")?,
        input: bytes("input", sealed::RESPONSE_INPUT)?,
        messages: bytes("messages", sealed::RESPONSE_MESSAGES)?,
        body: bytes("body", sealed::RESPONSE_BODY)?,
        created_at: row.number("created_at")?,
        expires_at: row.number("expires_at")?,
        id,
        project,
    })
}

pub(crate) fn conversation(
    keys: &Keyring,
    row: &impl Columns,
) -> Result<ConversationRecord, StoreError> {
    let (project, id) = (row.word("project")?, row.word("id")?);
    let bytes = |column, kind| opened(keys.open(&place(kind, &project, &id), row.bytes(column)?));
    Ok(ConversationRecord {
        metadata: bytes("metadata", sealed::CONVERSATION_METADATA)?,
        items: bytes("items", sealed::CONVERSATION_ITEMS)?,
        messages: bytes("messages", sealed::CONVERSATION_MESSAGES)?,
        head: reference(row)?,
        created_at: row.number("created_at")?,
        expires_at: row.number("expires_at")?,
        id,
        project,
    })
}

/// From rows of a way up in `project`, oldest first, each of which says whether the whole of it was short enough.
pub(crate) fn chain<R: Columns>(
    keys: &Keyring,
    project: &str,
    bytes_max: u64,
    rows: &[R],
) -> Result<Chain, StoreError> {
    let oldest = rows.first().ok_or(StoreError::NotFound)?;
    if !oldest.flag("whole")? {
        return Ok(Chain::TooLong);
    }
    if oldest.flag("continues")? {
        return Err(broken());
    }
    let links = rows.iter().map(|row| {
        let id = row.word("id")?;
        let place = place(sealed::RESPONSE_MESSAGES, project, &id);
        Ok(ChainLink {
            model: row.text("model")?,
            messages: opened(keys.open(&place, row.bytes("messages")?))?,
            id,
        })
    });
    let links = links.collect::<Result<Vec<ChainLink>, StoreError>>()?;
    // The statement has made room for what sealing may have added.
    let bytes: usize = links.iter().map(|link| link.messages.len()).sum();
    match bytes as u64 <= bytes_max {
        true => Ok(Chain::Whole(links)),
        false => Ok(Chain::TooLong),
    }
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
