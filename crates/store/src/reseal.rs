//! Sealing anew what is stored under another key than the present one, or under none: a few rows at a time, beside
//! servers that go on. Each step is one transaction over rows that are locked or versioned by the database, so that no
//! change of theirs is lost, and a step that is never followed by another one leaves everything readable.

use holdfast_seal::{KeyId, Keyring, Place, sealed_with};

use crate::StoreError;
use crate::rows::Columns;
use crate::sealed::{self, opened, place};

/// The tables with sealed columns, in the order in which they are gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Contexts,
    Contents,
    Turns,
    Responses,
    Conversations,
}

impl Table {
    fn after(self) -> Option<Table> {
        match self {
            Table::Contexts => Some(Table::Contents),
            Table::Contents => Some(Table::Turns),
            Table::Turns => Some(Table::Responses),
            Table::Responses => Some(Table::Conversations),
            Table::Conversations => None,
        }
    }
}

/// How far a run has come. [`ResealPosition::default`] is its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResealPosition {
    pub(crate) table: Table,
    /// Row number of the last one that was looked at; of a turn, that of its context.
    pub(crate) row: i64,
    /// Of a turn: its number.
    pub(crate) number: i64,
}

impl Default for ResealPosition {
    fn default() -> Self {
        ResealPosition::start(Table::Contexts)
    }
}

impl ResealPosition {
    fn start(table: Table) -> Self {
        ResealPosition {
            table,
            row: i64::MIN,
            number: i64::MIN,
        }
    }

    /// What follows a step that looked at `looked_at` of `limit` rows.
    pub(crate) fn next(self, looked_at: usize, limit: u32) -> Option<ResealPosition> {
        if looked_at >= limit as usize {
            return Some(self);
        }
        self.table.after().map(ResealPosition::start)
    }
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResealStep {
    /// Rows that were looked at.
    pub looked_at: u64,
    /// Of these, rows that were sealed anew.
    pub sealed: u64,
    /// Where the next step begins; `None` after the last one.
    pub next: Option<ResealPosition>,
}

/// Refuses a database in which something may be sealed with a key that is not there.
pub(crate) fn check(keys: &Keyring, used: &[KeyId]) -> Result<(), StoreError> {
    match used.iter().find(|id| !keys.opens(**id)) {
        Some(id) => Err(StoreError::Corrupt(format!(
            "it is sealed with the data key {id}, which is not configured"
        ))),
        None => Ok(()),
    }
}

/// The value as it would be stored now; `None` where it already is.
pub(crate) fn resealed(
    keys: &Keyring,
    place: &Place<'_>,
    stored: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    if keys.is_current(stored) {
        return Ok(None);
    }
    let plain = opened(keys.open(place, stored.to_vec()))?;
    Ok(Some(keys.seal(place, plain)))
}

/// A row of which three columns are sealed apart.
pub(crate) struct Parts {
    /// Each with what binds it to its place.
    columns: [(&'static str, &'static str); 3],
}

/// Of a stored response.
pub(crate) const RESPONSE: Parts = Parts {
    columns: [
        ("messages", sealed::RESPONSE_MESSAGES),
        ("input", sealed::RESPONSE_INPUT),
        ("body", sealed::RESPONSE_BODY),
    ],
};

/// Of a conversation.
pub(crate) const CONVERSATION: Parts = Parts {
    columns: [
        ("metadata", sealed::CONVERSATION_METADATA),
        ("messages", sealed::CONVERSATION_MESSAGES),
        ("items", sealed::CONVERSATION_ITEMS),
    ],
};

impl Parts {
    /// The columns as they would be stored now, each `None` where it already is; `None` where all are.
    pub(crate) fn resealed(
        &self,
        keys: &Keyring,
        row: &impl Columns,
    ) -> Result<Option<[Option<Vec<u8>>; 3]>, StoreError> {
        let (id, project) = (row.word("id")?, row.word("project")?);
        let mut parts = [None, None, None];
        for (part, (column, kind)) in parts.iter_mut().zip(self.columns) {
            *part = resealed(keys, &place(kind, &project, &id), &row.bytes(column)?)?;
        }
        Ok(parts.iter().any(Option::is_some).then_some(parts))
    }
}

/// Whether a context's words are stored as they would be now.
pub(crate) fn words_are_current(keys: &Keyring, sealed: Option<&[u8]>) -> bool {
    sealed.and_then(sealed_with) == keys.current()
}
