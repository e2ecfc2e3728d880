//! The audit log in PostgreSQL. A lock of the database lets one replica append at a time, so that each entry follows the
//! one before it.

use async_trait::async_trait;

use super::failure::Failure;
use super::{OneAtATime, PostgresStore};
use crate::StoreError;
use crate::audit::{AUDIT_PAGE_MAX, AuditEntry, AuditFilter, AuditOrder, AuditRecord, AuditStore};
use crate::columns::integer;
use crate::rows::audit::{self as rows, audit_columns};

#[async_trait]
impl AuditStore for PostgresStore {
    async fn append_audit(&self, entry: &AuditEntry) -> Result<AuditRecord, StoreError> {
        self.attempt(|| self.try_append_audit(entry)).await
    }

    async fn audit_page(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        self.attempt(|| self.try_audit_page(filter, order, after, limit))
            .await
    }
}

impl PostgresStore {
    async fn try_append_audit(&self, entry: &AuditEntry) -> Result<AuditRecord, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        OneAtATime::AppendAudit.hold(&mut transaction, "").await?;
        let head = sqlx::query("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1")
            .fetch_optional(&mut *transaction)
            .await?;
        let head = head.as_ref().map(rows::head).transpose()?;
        let record = AuditRecord::after(head, entry.clone());
        sqlx::query(concat!(
            "INSERT INTO audit (",
            audit_columns!(),
            ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
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
        .await?;
        transaction.commit().await?;
        Ok(record)
    }

    async fn try_audit_page(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, Failure> {
        let statement = match order {
            AuditOrder::Newest => concat!(
                "SELECT ",
                audit_columns!(),
                " FROM audit WHERE ($1::bigint IS NULL OR sequence < $1) AND ($2::text IS NULL OR act = $2) \
                 AND ($3::text IS NULL OR starts_with(act, $3)) AND ($4::text IS NULL OR actor = $4) \
                 ORDER BY sequence DESC LIMIT $5"
            ),
            AuditOrder::Oldest => concat!(
                "SELECT ",
                audit_columns!(),
                " FROM audit WHERE ($1::bigint IS NULL OR sequence > $1) AND ($2::text IS NULL OR act = $2) \
                 AND ($3::text IS NULL OR starts_with(act, $3)) AND ($4::text IS NULL OR actor = $4) \
                 ORDER BY sequence LIMIT $5"
            ),
        };
        let (act, beginning) = rows::act(filter.act.as_deref());
        let rows = sqlx::query(statement)
            .bind(after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)))
            .bind(act)
            .bind(beginning)
            .bind(&filter.actor)
            .bind(i64::from(limit.clamp(1, AUDIT_PAGE_MAX)))
            .fetch_all(&mut *self.connection().await?)
            .await?;
        Ok(rows.iter().map(rows::record).collect::<Result<_, _>>()?)
    }
}
