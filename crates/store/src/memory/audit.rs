//! The audit log in memory.

use async_trait::async_trait;

use super::MemoryStore;
use crate::StoreError;
use crate::audit::{AUDIT_PAGE_MAX, AuditEntry, AuditFilter, AuditOrder, AuditRecord, AuditStore};

#[async_trait]
impl AuditStore for MemoryStore {
    async fn append_audit(&self, entry: &AuditEntry) -> Result<AuditRecord, StoreError> {
        let log = &mut self.state().audit;
        let head = log.last().map(|record| (record.sequence, record.hash));
        let record = AuditRecord::after(head, entry.clone());
        log.push(record.clone());
        Ok(record)
    }

    async fn audit_page(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let limit = limit.clamp(1, AUDIT_PAGE_MAX) as usize;
        let state = self.state();
        let taken = |record: &&AuditRecord| filter.takes(&record.entry);
        let page = match order {
            AuditOrder::Newest => {
                let records = state.audit.iter().rev();
                let records =
                    records.filter(|record| after.is_none_or(|after| record.sequence < after));
                records.filter(taken).take(limit).cloned().collect()
            }
            AuditOrder::Oldest => {
                let records = state.audit.iter();
                let records =
                    records.filter(|record| after.is_none_or(|after| record.sequence > after));
                records.filter(taken).take(limit).cloned().collect()
            }
        };
        Ok(page)
    }
}
