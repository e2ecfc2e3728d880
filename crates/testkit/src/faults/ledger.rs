//! The ledger's part of the switchboard.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_store::{
    GroupBy, LedgerFilter, LedgerGroups, LedgerRecord, LedgerRows, LedgerStore, StoreError,
};

use super::{FaultyStore, Operation};

#[async_trait]
impl LedgerStore for FaultyStore {
    async fn append(&self, rows: &[LedgerRecord]) -> Result<(), StoreError> {
        self.run(Operation::AppendLedger, self.inner.append(rows))
            .await
    }

    async fn query(
        &self,
        filter: &LedgerFilter,
        group_by: &[GroupBy],
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<LedgerGroups, StoreError> {
        self.run(
            Operation::QueryLedger,
            self.inner.query(filter, group_by, cursor, limit),
        )
        .await
    }

    async fn rows(
        &self,
        filter: &LedgerFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<LedgerRows, StoreError> {
        self.run(
            Operation::QueryLedger,
            self.inner.rows(filter, cursor, limit),
        )
        .await
    }

    async fn erase_before(&self, time: UnixMillis, limit: u32) -> Result<u64, StoreError> {
        self.inner.erase_before(time, limit).await
    }
}
