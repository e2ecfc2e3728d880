//! Spending and reservations in PostgreSQL, for all replicas together.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use sqlx::{PgConnection, Row};

use super::failure::{Failure, failure};
use super::{OneAtATime, PostgresStore};
use crate::budgets::{
    Allows, BudgetStore, DAY_AMOUNT_MAX, NOTICE_KEPT_MS, Reservation, Reserved, Span, Tally, add,
    spending,
};
use crate::columns::wrong_value;
use crate::{LedgerRecord, StoreError};

/// Adds what new rows of the ledger have cost.
pub(super) async fn spend<'a>(
    connection: &mut PgConnection,
    rows: impl IntoIterator<Item = &'a LedgerRecord>,
) -> Result<(), Failure> {
    let (mut spenders, mut days, mut currencies, mut amounts) = (vec![], vec![], vec![], vec![]);
    for (place, amount) in spending(rows) {
        spenders.push(place.spender);
        days.push(place.day);
        currencies.push(place.currency);
        amounts.push(amount);
    }
    if spenders.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO spending AS held (spender, day, currency, amount) \
         SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[]) \
         ON CONFLICT (spender, day, currency) \
         DO UPDATE SET amount = least(held.amount::numeric + excluded.amount, $5)::bigint",
    )
    .bind(spenders)
    .bind(days)
    .bind(currencies)
    .bind(amounts)
    .bind(DAY_AMOUNT_MAX)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes away the reservations of requests whose rows are in the ledger.
pub(super) async fn settle<'a>(
    connection: &mut PgConnection,
    ids: impl Iterator<Item = &'a str>,
) -> Result<(), Failure> {
    let ids: Vec<&str> = ids.collect();
    sqlx::query("DELETE FROM reservations WHERE id = ANY ($1)")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// One statement for both sums: what moves from one to the other is seen in one of them.
async fn tally(
    connection: &mut PgConnection,
    span: &Span,
    now: UnixMillis,
) -> Result<Vec<Tally>, Failure> {
    let rows = sqlx::query(
        "SELECT currency, sum(spent)::text AS spent, sum(reserved)::text AS reserved FROM ( \
             SELECT currency, amount AS spent, 0 AS reserved FROM spending WHERE spender = $1 AND day >= $2 \
             UNION ALL \
             SELECT currency, 0, amount FROM reservations WHERE spender = $1 AND expires_at > $3 \
         ) AS amounts GROUP BY currency ORDER BY currency",
    )
    .bind(span.spender.to_text())
    .bind(span.from_day.unwrap_or(i64::MIN))
    .bind(now)
    .fetch_all(connection)
    .await?;
    let mut tallies = Vec::with_capacity(rows.len());
    for row in rows {
        let amount = |column: &str| -> Result<i128, StoreError> {
            let text: &str = row.try_get(column).map_err(failure)?;
            text.parse().map_err(|_| wrong_value(column))
        };
        let currency: &str = row.try_get("currency")?;
        add(
            &mut tallies,
            currency,
            amount("spent")?,
            amount("reserved")?,
        );
    }
    Ok(tallies)
}

async fn tallies(
    connection: &mut PgConnection,
    spans: &[Span],
    now: UnixMillis,
) -> Result<Vec<Vec<Tally>>, Failure> {
    let mut all = Vec::with_capacity(spans.len());
    for span in spans {
        all.push(tally(connection, span, now).await?);
    }
    Ok(all)
}

impl PostgresStore {
    async fn try_reserve(
        &self,
        reservation: &Reservation,
        spans: &[Span],
        now: UnixMillis,
        allows: Allows<'_>,
    ) -> Result<Reserved, Failure> {
        let mut spenders: Vec<String> = reservation
            .spenders
            .iter()
            .map(crate::budgets::Spender::to_text)
            .collect();
        // In one order, so that nobody waits in a circle.
        spenders.sort_unstable();
        spenders.dedup();
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        for spender in &spenders {
            OneAtATime::SpendingOf
                .hold(&mut transaction, spender)
                .await?;
        }
        let tallies = tallies(&mut transaction, spans, now).await?;
        let is_made = allows(&tallies);
        if is_made {
            sqlx::query(
                "INSERT INTO reservations AS held (spender, id, owner, currency, amount, expires_at) \
                 SELECT spender, $2, $3, $4, $5, $6 FROM unnest($1::text[]) AS spenders (spender) \
                 ON CONFLICT (spender, id) DO UPDATE SET \
                     amount = least(held.amount::numeric + excluded.amount, $7)::bigint, \
                     expires_at = greatest(held.expires_at, excluded.expires_at)",
            )
            .bind(&spenders)
            .bind(&reservation.id)
            .bind(&reservation.owner)
            .bind(reservation.currency.to_string())
            .bind(reservation.amount)
            .bind(reservation.expires_at)
            .bind(DAY_AMOUNT_MAX)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(Reserved { is_made, tallies })
    }

    async fn try_tallies(
        &self,
        spans: &[Span],
        now: UnixMillis,
    ) -> Result<Vec<Vec<Tally>>, Failure> {
        tallies(&mut *self.connection().await?, spans, now).await
    }

    async fn try_remove(&self, statement: &'static str, what: &str) -> Result<u64, Failure> {
        let removed = sqlx::query(statement)
            .bind(what)
            .execute(&mut *self.connection().await?)
            .await?;
        Ok(removed.rows_affected())
    }

    async fn try_sweep_reservations(&self, now: UnixMillis) -> Result<u64, Failure> {
        let mut connection = self.connection().await?;
        sqlx::query("DELETE FROM notices WHERE given_at <= $1")
            .bind(now - NOTICE_KEPT_MS)
            .execute(&mut *connection)
            .await?;
        let swept = sqlx::query("DELETE FROM reservations WHERE expires_at <= $1")
            .bind(now)
            .execute(&mut *connection)
            .await?;
        Ok(swept.rows_affected())
    }

    async fn try_notice_is_new(&self, notice: &str, now: UnixMillis) -> Result<bool, Failure> {
        let given = sqlx::query(
            "INSERT INTO notices (notice, given_at) VALUES ($1, $2) ON CONFLICT (notice) DO NOTHING",
        )
        .bind(notice)
        .bind(now)
        .execute(&mut *self.connection().await?)
        .await?;
        Ok(given.rows_affected() > 0)
    }
}

#[async_trait]
impl BudgetStore for PostgresStore {
    async fn reserve(
        &self,
        reservation: &Reservation,
        spans: &[Span],
        now: UnixMillis,
        allows: Allows<'_>,
    ) -> Result<Reserved, StoreError> {
        self.attempt(|| self.try_reserve(reservation, spans, now, allows))
            .await
    }

    async fn tallies(
        &self,
        spans: &[Span],
        now: UnixMillis,
    ) -> Result<Vec<Vec<Tally>>, StoreError> {
        self.attempt(|| self.try_tallies(spans, now)).await
    }

    async fn release_of(&self, owner: &str) -> Result<u64, StoreError> {
        let statement = "DELETE FROM reservations WHERE owner = $1";
        self.attempt(|| self.try_remove(statement, owner)).await
    }

    async fn sweep_reservations(&self, now: UnixMillis) -> Result<u64, StoreError> {
        self.attempt(|| self.try_sweep_reservations(now)).await
    }

    async fn notice_is_new(&self, notice: &str, now: UnixMillis) -> Result<bool, StoreError> {
        self.attempt(|| self.try_notice_is_new(notice, now)).await
    }
}
