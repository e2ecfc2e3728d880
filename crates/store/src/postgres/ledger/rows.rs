//! Rows of PostgreSQL to rows and sums of the ledger.

use holdfast_protocol::usage::{BilledUsage, CacheWrites};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::StoreError;
use crate::columns::wrong_value;
use crate::ledger::{GroupBy, GroupKey, LedgerMoney, LedgerRecord, LedgerTotals};
use crate::postgres::failure::failure;
use crate::postgres::rows::count;

/// The keys of a group.
pub(super) fn keys(row: &PgRow, group_by: &[GroupBy]) -> Result<Vec<GroupKey>, StoreError> {
    let key = |(number, by): (usize, &GroupBy)| {
        let column = format!("key_{number}");
        Ok(match by.period_ms() {
            Some(_) => GroupKey::Time(row.try_get(column.as_str()).map_err(failure)?),
            None => GroupKey::Name(row.try_get(column.as_str()).map_err(failure)?),
        })
    };
    group_by.iter().enumerate().map(key).collect()
}

/// Sums of a group in one currency.
pub(super) fn totals(row: &PgRow) -> Result<LedgerTotals, StoreError> {
    let currency: String = row.try_get("currency").map_err(failure)?;
    let mut totals = LedgerTotals {
        requests: count(row, "requests")?,
        completed: count(row, "completed")?,
        cancelled: count(row, "cancelled")?,
        failed: count(row, "failed")?,
        refused: count(row, "refused")?,
        hits: count(row, "hits")?,
        rebuilds: count(row, "rebuilds")?,
        misses: count(row, "misses")?,
        degraded: count(row, "degraded")?,
        estimated: count(row, "estimated")?,
        usage: usage(row)?,
        ..LedgerTotals::default()
    };
    if !currency.is_empty() {
        let money = LedgerMoney {
            cost: large(row, "cost")?,
            storage_cost: large(row, "storage_cost")?,
            saved: large(row, "saved")?,
        };
        totals.money.insert(currency, money);
    }
    Ok(totals)
}

/// A row as it was added.
pub(super) fn record(row: &PgRow) -> Result<LedgerRecord, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column).map_err(failure);
    let optional = |column: &str| row.try_get::<Option<String>, _>(column).map_err(failure);
    let amount = |column: &str| row.try_get::<i64, _>(column).map_err(failure);
    let first_token_ms: Option<i64> = row.try_get("first_token_ms").map_err(failure)?;
    Ok(LedgerRecord {
        id: text("id")?,
        kind: text("kind")?,
        project: text("project")?,
        key_id: optional("key_id")?,
        surface: text("surface")?,
        endpoint: text("endpoint")?,
        model: text("model")?,
        requested_model: text("requested_model")?,
        upstream: optional("upstream")?,
        upstream_model: optional("upstream_model")?,
        context: optional("context")?,
        answer: optional("answer")?,
        request: text("request")?,
        started_at: amount("started_at")?,
        first_token_ms: first_token_ms
            .map(|ms| u64::try_from(ms).map_err(|_| wrong_value("first_token_ms")))
            .transpose()?,
        total_ms: count(row, "total_ms")?,
        stream: row.try_get("stream").map_err(failure)?,
        outcome: text("outcome")?,
        error: optional("error")?,
        finish_reason: optional("finish_reason")?,
        usage: usage(row)?,
        usage_source: text("usage_source")?,
        cost: amount("cost")?,
        saved: amount("saved")?,
        currency: text("currency")?,
        cost_source: text("cost_source")?,
        cache_status: optional("cache_status")?,
        cache_reason: optional("cache_reason")?,
    })
}

fn usage(row: &PgRow) -> Result<BilledUsage, StoreError> {
    Ok(BilledUsage {
        input_tokens: count(row, "input_tokens")?,
        cache_read_tokens: count(row, "cache_read_tokens")?,
        cache_writes: CacheWrites {
            m5: count(row, "cache_write_5m_tokens")?,
            m30: count(row, "cache_write_30m_tokens")?,
            h1: count(row, "cache_write_1h_tokens")?,
            h12: count(row, "cache_write_12h_tokens")?,
            other: count(row, "cache_write_other_tokens")?,
        },
        output_tokens: count(row, "output_tokens")?,
        reasoning_tokens: count(row, "reasoning_tokens")?,
    })
}

/// A `numeric` without a fraction, which comes as text.
fn large(row: &PgRow, column: &str) -> Result<i128, StoreError> {
    let text: &str = row.try_get(column).map_err(failure)?;
    text.parse().map_err(|_| wrong_value(column))
}
