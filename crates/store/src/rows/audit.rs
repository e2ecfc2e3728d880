//! Rows to entries of the audit log.

use super::Columns;
use crate::StoreError;
use crate::audit::{AuditEntry, AuditHash, AuditRecord};
use crate::columns::wrong_value;

/// What [`record`] reads, for `concat!`.
macro_rules! audit_columns {
    () => {
        "sequence, at, actor, act, target, project, request, details, previous, hash"
    };
}
pub(crate) use audit_columns;

pub(crate) fn record(row: &impl Columns) -> Result<AuditRecord, StoreError> {
    Ok(AuditRecord {
        sequence: row.count("sequence")?,
        entry: AuditEntry {
            at: row.number("at")?,
            actor: row.word("actor")?,
            act: row.word("act")?,
            target: row.word("target")?,
            project: row.optional_word("project")?,
            request: row.optional_word("request")?,
            details: row.word("details")?,
        },
        previous: hash(row, "previous")?,
        hash: hash(row, "hash")?,
    })
}

pub(crate) fn head(row: &impl Columns) -> Result<(u64, AuditHash), StoreError> {
    Ok((row.count("sequence")?, hash(row, "hash")?))
}

/// The act of a filter, as an exact one and as a beginning.
pub(crate) fn act(filter: Option<&str>) -> (Option<&str>, Option<&str>) {
    match filter {
        None => (None, None),
        Some(act) => match act.strip_suffix('*') {
            Some(beginning) => (None, Some(beginning)),
            None => (Some(act), None),
        },
    }
}

fn hash(row: &impl Columns, column: &str) -> Result<AuditHash, StoreError> {
    let bytes = row.bytes(column)?;
    let bytes = bytes.try_into().map_err(|_| wrong_value(column))?;
    Ok(AuditHash(bytes))
}
