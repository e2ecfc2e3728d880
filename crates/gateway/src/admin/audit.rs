//! The audit log, page by page.

use holdfast_protocol::ApiError;
use holdfast_store::{AuditFilter, AuditOrder, AuditRecord};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Admin, PAGE_MAX, key_not_found, store_error, wrong_cursor};

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditObject {
    /// 1 for the first entry, and one more for each.
    sequence: u64,
    /// `audit.entry`.
    #[schema(example = "audit.entry")]
    object: &'static str,
    /// When, Unix milliseconds.
    at_ms: i64,
    /// The id of a key, or `local`, `signal`, `config` or `start`.
    actor: String,
    /// What, such as `key.create`; one that failed after it was noted is noted again, as `key.create.failed`.
    act: String,
    /// The id of a key or the name of a project.
    target: String,
    /// Whose that is.
    project: Option<String>,
    /// The request that asked for it.
    request_id: Option<String>,
    /// What changed.
    #[schema(value_type = Object)]
    details: Value,
    /// SHA-256 of the entry before.
    previous_hash: String,
    /// SHA-256 of this one.
    hash: String,
}

impl From<AuditRecord> for AuditObject {
    fn from(record: AuditRecord) -> Self {
        let entry = record.entry;
        AuditObject {
            sequence: record.sequence,
            object: "audit.entry",
            at_ms: entry.at,
            actor: entry.actor,
            act: entry.act,
            target: entry.target,
            project: entry.project,
            request_id: entry.request,
            // What is no JSON was written by somebody else; shown as text it does not fit its hash.
            details: serde_json::from_str(&entry.details)
                .unwrap_or_else(|_| Value::String(entry.details)),
            previous_hash: record.previous.to_string(),
            hash: record.hash.to_string(),
        }
    }
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditList {
    /// `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// In the order that was asked for.
    data: Vec<AuditObject>,
    /// Whether another page follows.
    has_more: bool,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<String>,
}

impl Admin<'_> {
    /// At most `limit` entries after the one whose sequence is `cursor`.
    pub(crate) async fn list_audit(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<AuditList, ApiError> {
        let limit = limit.clamp(1, PAGE_MAX) as usize;
        let after = cursor
            .map(|cursor| cursor.parse().map_err(|_| wrong_cursor()))
            .transpose()?;
        let page = async |after, limit| {
            let page = self.audit.log.audit_page(filter, order, after, limit).await;
            page.map_err(|error| store_error(error, key_not_found))
        };
        let records = page(after, u32::try_from(limit).unwrap_or(PAGE_MAX)).await?;
        let last = records.last().map(|record| record.sequence);
        let has_more = records.len() == limit && !page(last, 1).await?.is_empty();
        Ok(AuditList {
            object: "list",
            has_more,
            next_cursor: last.filter(|_| has_more).map(|last| last.to_string()),
            data: records.into_iter().map(AuditObject::from).collect(),
        })
    }
}
