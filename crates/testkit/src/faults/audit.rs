//! The audit log's part of the switchboard.

use async_trait::async_trait;
use holdfast_store::{AuditEntry, AuditFilter, AuditOrder, AuditRecord, AuditStore, StoreError};

use super::{FaultyStore, Operation};

#[async_trait]
impl AuditStore for FaultyStore {
    async fn append_audit(&self, entry: &AuditEntry) -> Result<AuditRecord, StoreError> {
        self.run(Operation::AppendAudit, self.inner.append_audit(entry))
            .await
    }

    async fn audit_page(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        self.inner.audit_page(filter, order, after, limit).await
    }
}
