//! Spending in SQLite. Reservations stay in memory: the file belongs to one process, and with it end the requests that
//! hold them.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use sqlx::{Row, SqliteConnection};

use super::SqliteStore;
use super::failure::failure;
use crate::budgets::{
    Allows, BudgetStore, DAY_AMOUNT_MAX, NOTICE_KEPT_MS, ROW_AMOUNT_MAX, Reservation, Reserved,
    Running, Span, Tally, add, spending,
};
use crate::{LedgerRecord, StoreError};

/// Sums of many amounts can be more than an integer of SQLite holds, so they are made in two parts.
const AMOUNT_PART: i128 = 1_000_000_000;

/// Adds what new rows of the ledger have cost.
pub(super) async fn spend(
    connection: &mut SqliteConnection,
    rows: Vec<&LedgerRecord>,
) -> Result<(), StoreError> {
    for (place, amount) in spending(rows) {
        sqlx::query(
            "INSERT INTO spending (spender, day, currency, amount) VALUES (?, ?, ?, ?) \
             ON CONFLICT (spender, day, currency) DO UPDATE SET amount = min(min(amount, ?) + excluded.amount, ?)",
        )
        .bind(place.spender)
        .bind(place.day)
        .bind(place.currency)
        .bind(amount.min(ROW_AMOUNT_MAX * 10))
        .bind(DAY_AMOUNT_MAX)
        .bind(DAY_AMOUNT_MAX)
        .execute(&mut *connection)
        .await
        .map_err(failure)?;
    }
    Ok(())
}

impl SqliteStore {
    async fn tallies_with(
        &self,
        running: &Running,
        spans: &[Span],
        now: UnixMillis,
    ) -> Result<Vec<Vec<Tally>>, StoreError> {
        let mut all = Vec::with_capacity(spans.len());
        for span in spans {
            let rows = sqlx::query(
                "SELECT currency, sum(amount / 1000000000) AS high, sum(amount % 1000000000) AS low FROM spending \
                 WHERE spender = ? AND day >= ? GROUP BY currency ORDER BY currency",
            )
            .bind(span.spender.to_text())
            .bind(span.from_day.unwrap_or(i64::MIN))
            .fetch_all(&self.readers)
            .await
            .map_err(failure)?;
            let mut tallies = Vec::with_capacity(rows.len());
            for row in rows {
                let currency: String = row.try_get("currency").map_err(failure)?;
                let high: i64 = row.try_get("high").map_err(failure)?;
                let low: i64 = row.try_get("low").map_err(failure)?;
                let spent = i128::from(high) * AMOUNT_PART + i128::from(low);
                add(&mut tallies, &currency, spent, 0);
            }
            running.add_to(&mut tallies, &span.spender, now);
            all.push(tallies);
        }
        Ok(all)
    }
}

#[async_trait]
impl BudgetStore for SqliteStore {
    async fn reserve(
        &self,
        reservation: &Reservation,
        spans: &[Span],
        now: UnixMillis,
        allows: Allows<'_>,
    ) -> Result<Reserved, StoreError> {
        let mut running = self.running.lock().await;
        let tallies = self.tallies_with(&running, spans, now).await?;
        let is_made = allows(&tallies);
        if is_made {
            running.insert(reservation);
        }
        Ok(Reserved { is_made, tallies })
    }

    async fn tallies(
        &self,
        spans: &[Span],
        now: UnixMillis,
    ) -> Result<Vec<Vec<Tally>>, StoreError> {
        let running = self.running.lock().await;
        self.tallies_with(&running, spans, now).await
    }

    async fn release_of(&self, owner: &str) -> Result<u64, StoreError> {
        Ok(self.running.lock().await.release_of(owner))
    }

    async fn sweep_reservations(&self, now: UnixMillis) -> Result<u64, StoreError> {
        sqlx::query("DELETE FROM notices WHERE given_at <= ?")
            .bind(now - NOTICE_KEPT_MS)
            .execute(&self.writer)
            .await
            .map_err(failure)?;
        Ok(self.running.lock().await.sweep(now))
    }

    async fn notice_is_new(&self, notice: &str, now: UnixMillis) -> Result<bool, StoreError> {
        let given = sqlx::query(
            "INSERT INTO notices (notice, given_at) VALUES (?, ?) ON CONFLICT (notice) DO NOTHING",
        )
        .bind(notice)
        .bind(now)
        .execute(&self.writer)
        .await
        .map_err(failure)?;
        Ok(given.rows_affected() > 0)
    }
}
