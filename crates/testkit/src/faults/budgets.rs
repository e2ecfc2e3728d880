//! The budgets' part of the switchboard.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_store::{Allows, BudgetStore, Reservation, Reserved, Span, StoreError, Tally};

use super::{FaultyStore, Operation};

#[async_trait]
impl BudgetStore for FaultyStore {
    async fn reserve(
        &self,
        reservation: &Reservation,
        spans: &[Span],
        now: UnixMillis,
        allows: Allows<'_>,
    ) -> Result<Reserved, StoreError> {
        self.run(
            Operation::ReserveBudget,
            self.inner.reserve(reservation, spans, now, allows),
        )
        .await
    }

    async fn tallies(
        &self,
        spans: &[Span],
        now: UnixMillis,
    ) -> Result<Vec<Vec<Tally>>, StoreError> {
        self.inner.tallies(spans, now).await
    }

    async fn release_of(&self, owner: &str) -> Result<u64, StoreError> {
        self.inner.release_of(owner).await
    }

    async fn sweep_reservations(&self, now: UnixMillis) -> Result<u64, StoreError> {
        self.inner.sweep_reservations(now).await
    }

    async fn notice_is_new(&self, notice: &str, now: UnixMillis) -> Result<bool, StoreError> {
        self.inner.notice_is_new(notice, now).await
    }
}
