//! Spending and reservations in memory.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;

use super::{MemoryStore, State};
use crate::StoreError;
use crate::budgets::{
    Allows, BudgetStore, NOTICE_KEPT_MS, Reservation, Reserved, Span, Tally, add,
};

impl State {
    fn tallies(&self, spans: &[Span], now: UnixMillis) -> Vec<Vec<Tally>> {
        let tally = |span: &Span| {
            let mut tallies = Vec::new();
            let spender = span.spender.to_text();
            for (place, amount) in &self.spending {
                let counts = span.from_day.is_none_or(|from| place.day >= from);
                if place.spender == spender && counts {
                    add(&mut tallies, &place.currency, i128::from(*amount), 0);
                }
            }
            self.running.add_to(&mut tallies, &span.spender, now);
            tallies
        };
        spans.iter().map(tally).collect()
    }
}

#[async_trait]
impl BudgetStore for MemoryStore {
    async fn reserve(
        &self,
        reservation: &Reservation,
        spans: &[Span],
        now: UnixMillis,
        allows: Allows<'_>,
    ) -> Result<Reserved, StoreError> {
        let mut state = self.state();
        let tallies = state.tallies(spans, now);
        let is_made = allows(&tallies);
        if is_made {
            state.running.insert(reservation);
        }
        Ok(Reserved { is_made, tallies })
    }

    async fn tallies(
        &self,
        spans: &[Span],
        now: UnixMillis,
    ) -> Result<Vec<Vec<Tally>>, StoreError> {
        Ok(self.state().tallies(spans, now))
    }

    async fn release_of(&self, owner: &str) -> Result<u64, StoreError> {
        Ok(self.state().running.release_of(owner))
    }

    async fn sweep_reservations(&self, now: UnixMillis) -> Result<u64, StoreError> {
        let mut state = self.state();
        state
            .notices
            .retain(|_, given_at| *given_at > now - NOTICE_KEPT_MS);
        Ok(state.running.sweep(now))
    }

    async fn notice_is_new(&self, notice: &str, now: UnixMillis) -> Result<bool, StoreError> {
        let given = self.state().notices.insert(notice.to_owned(), now);
        Ok(given.is_none())
    }
}
