//! The audit log in SQLite. There is one writer at a time, so that each entry follows the one before it.

use async_trait::async_trait;

use super::SqliteStore;
use super::failure::failure;
use crate::StoreError;
use crate::audit::{AUDIT_PAGE_MAX, AuditEntry, AuditFilter, AuditOrder, AuditRecord, AuditStore};
use crate::columns::integer;
use crate::rows::audit::{self as rows, audit_columns};

#[async_trait]
impl AuditStore for SqliteStore {
    async fn append_audit(&self, entry: &AuditEntry) -> Result<AuditRecord, StoreError> {
        let mut transaction = self.begin().await?;
        let head = sqlx::query("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1")
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failure)?;
        let head = head.as_ref().map(rows::head).transpose()?;
        let record = AuditRecord::after(head, entry.clone());
        sqlx::query(concat!(
            "INSERT INTO audit (",
            audit_columns!(),
            ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        ))
        .bind(integer("sequence", record.sequence)?)
        .bind(entry.at)
        .bind(&entry.actor)
        .bind(&entry.act)
        .bind(&entry.target)
        .bind(&entry.project)
        .bind(&entry.request)
        .bind(&entry.details)
        .bind(record.previous.0.as_slice())
        .bind(record.hash.0.as_slice())
        .execute(&mut *transaction)
        .await
        .map_err(failure)?;
        transaction.commit().await.map_err(failure)?;
        Ok(record)
    }

    async fn audit_page(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let statement = match order {
            AuditOrder::Newest => concat!(
                "SELECT ",
                audit_columns!(),
                " FROM audit WHERE (?1 IS NULL OR sequence < ?1) AND (?2 IS NULL OR act = ?2) \
                 AND (?3 IS NULL OR substr(act, 1, length(?3)) = ?3) AND (?4 IS NULL OR actor = ?4) \
                 ORDER BY sequence DESC LIMIT ?5"
            ),
            AuditOrder::Oldest => concat!(
                "SELECT ",
                audit_columns!(),
                " FROM audit WHERE (?1 IS NULL OR sequence > ?1) AND (?2 IS NULL OR act = ?2) \
                 AND (?3 IS NULL OR substr(act, 1, length(?3)) = ?3) AND (?4 IS NULL OR actor = ?4) \
                 ORDER BY sequence LIMIT ?5"
            ),
        };
        let (act, beginning) = rows::act(filter.act.as_deref());
        let rows = sqlx::query(statement)
            .bind(after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)))
            .bind(act)
            .bind(beginning)
            .bind(&filter.actor)
            .bind(limit.clamp(1, AUDIT_PAGE_MAX))
            .fetch_all(&self.readers)
            .await
            .map_err(failure)?;
        rows.iter().map(rows::record).collect()
    }
}
