//! The ledger in SQLite.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::usage::{BilledUsage, CacheWrites};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::SqliteStore;
use super::budgets::spend;
use super::failure::failure;
use super::rows::count;
use crate::StoreError;
use crate::columns::integer;
use crate::ledger::statements::{COLUMNS, COUNTS, key_expression};
use crate::ledger::{
    GroupBy, GroupKey, LEDGER_PAGE_MAX, LedgerFilter, LedgerGroup, LedgerGroups, LedgerMoney,
    LedgerRecord, LedgerRows, LedgerStore, LedgerTotals, group_cursor, paged, read_group_cursor,
    read_row_cursor, row_cursor,
};

/// Sums of many amounts can be more than an integer of SQLite holds, so they are made in two parts.
const AMOUNT_PART: i128 = 1_000_000_000;

/// What [`totals`] reads beside the counts.
const SUMS: &str = "currency, \
     sum(input_tokens) AS input_tokens, sum(cache_read_tokens) AS cache_read_tokens, \
     sum(cache_write_5m_tokens) AS cache_write_5m_tokens, sum(cache_write_30m_tokens) AS cache_write_30m_tokens, \
     sum(cache_write_1h_tokens) AS cache_write_1h_tokens, sum(cache_write_12h_tokens) AS cache_write_12h_tokens, \
     sum(cache_write_other_tokens) AS cache_write_other_tokens, sum(output_tokens) AS output_tokens, \
     sum(reasoning_tokens) AS reasoning_tokens, \
     sum(cost / 1000000000) AS cost_high, sum(cost % 1000000000) AS cost_low, \
     sum(saved / 1000000000) AS saved_high, sum(saved % 1000000000) AS saved_low, \
     sum(CASE WHEN kind = 'storage' THEN cost / 1000000000 ELSE 0 END) AS storage_cost_high, \
     sum(CASE WHEN kind = 'storage' THEN cost % 1000000000 ELSE 0 END) AS storage_cost_low";

#[async_trait]
impl LedgerStore for SqliteStore {
    async fn append(&self, rows: &[LedgerRecord]) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let mut new = Vec::new();
        for row in rows {
            let appended = append_one(row)?
                .build()
                .execute(&mut *transaction)
                .await
                .map_err(failure)?;
            if appended.rows_affected() > 0 {
                new.push(row);
            }
        }
        spend(&mut transaction, new).await?;
        let mut running = self.running.lock().await;
        transaction.commit().await.map_err(failure)?;
        running.settle(rows.iter().map(|row| row.id.as_str()));
        Ok(())
    }

    async fn query(
        &self,
        filter: &LedgerFilter,
        group_by: &[GroupBy],
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<LedgerGroups, StoreError> {
        let after = cursor
            .map(|text| read_group_cursor(group_by, text))
            .transpose()?;
        let limit = limit.clamp(1, LEDGER_PAGE_MAX) as usize;
        let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
        for (number, by) in group_by.iter().enumerate() {
            query.push(key_expression(*by));
            query.push(format_args!(" AS key_{number}, "));
        }
        query.push(COUNTS).push(", ").push(SUMS);
        push_filter(&mut query, filter);
        if let Some(after) = after.filter(|after| !after.is_empty()) {
            push_after(&mut query, group_by, after);
        }
        query.push(" GROUP BY ");
        push_keys(&mut query, group_by);
        query.push("currency ORDER BY ");
        push_keys(&mut query, group_by);
        query.push("currency");

        // A group has a row for each currency, so that the number of rows in a page is not known beforehand.
        let mut groups: Vec<LedgerGroup> = Vec::new();
        let mut found = query.build().fetch(&self.readers);
        while let Some(row) = found.try_next().await.map_err(failure)? {
            let keys = group_by
                .iter()
                .enumerate()
                .map(|(number, by)| key(&row, number, *by))
                .collect::<Result<Vec<GroupKey>, StoreError>>()?;
            let totals = totals(&row)?;
            let has_all = groups.len() > limit;
            match groups.last_mut() {
                Some(last) if last.keys == keys => last.totals.add(&totals),
                _ if has_all => break,
                _ => groups.push(LedgerGroup { keys, totals }),
            }
        }
        if group_by.is_empty() && groups.is_empty() {
            groups.push(LedgerGroup {
                keys: Vec::new(),
                totals: LedgerTotals::default(),
            });
        }
        let (groups, next_cursor) = paged(groups, limit, |last| group_cursor(group_by, &last.keys));
        Ok(LedgerGroups {
            groups,
            next_cursor,
        })
    }

    async fn rows(
        &self,
        filter: &LedgerFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<LedgerRows, StoreError> {
        let before = cursor.map(read_row_cursor).transpose()?;
        let limit = limit.clamp(1, LEDGER_PAGE_MAX);
        let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
        query.push(COLUMNS);
        push_filter(&mut query, filter);
        if let Some((started_at, id)) = before {
            query
                .push(" AND (started_at, id) < (")
                .push_bind(started_at);
            query.push(", ").push_bind(id).push(")");
        }
        query
            .push(" ORDER BY started_at DESC, id DESC LIMIT ")
            .push_bind(limit + 1);
        let rows = query
            .build()
            .fetch_all(&self.readers)
            .await
            .map_err(failure)?;
        let rows = rows
            .iter()
            .map(record)
            .collect::<Result<Vec<_>, StoreError>>()?;
        let (rows, next_cursor) = paged(rows, limit as usize, row_cursor);
        Ok(LedgerRows { rows, next_cursor })
    }

    async fn erase_before(&self, time: UnixMillis, limit: u32) -> Result<u64, StoreError> {
        let erased = sqlx::query(
            "DELETE FROM ledger WHERE sequence IN \
             (SELECT sequence FROM ledger WHERE started_at < ? ORDER BY started_at, id LIMIT ?)",
        )
        .bind(time)
        .bind(limit)
        .execute(&self.writer)
        .await
        .map_err(failure)?;
        Ok(erased.rows_affected())
    }
}

fn append_one(row: &LedgerRecord) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let usage = &row.usage;
    let writes = &usage.cache_writes;
    let first_token_ms = row
        .first_token_ms
        .map(|ms| integer("first_token_ms", ms))
        .transpose()?;
    let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO ledger (");
    query.push(COLUMNS).push(") VALUES (");
    let mut values = query.separated(", ");
    values
        .push_bind(row.id.clone())
        .push_bind(row.kind.clone())
        .push_bind(row.project.clone())
        .push_bind(row.key_id.clone())
        .push_bind(row.surface.clone())
        .push_bind(row.endpoint.clone())
        .push_bind(row.model.clone())
        .push_bind(row.requested_model.clone())
        .push_bind(row.upstream.clone())
        .push_bind(row.upstream_model.clone())
        .push_bind(row.context.clone())
        .push_bind(row.answer.clone())
        .push_bind(row.request.clone())
        .push_bind(row.started_at)
        .push_bind(first_token_ms)
        .push_bind(integer("total_ms", row.total_ms)?)
        .push_bind(row.stream)
        .push_bind(row.outcome.clone())
        .push_bind(row.error.clone())
        .push_bind(row.finish_reason.clone())
        .push_bind(integer("input_tokens", usage.input_tokens)?)
        .push_bind(integer("cache_read_tokens", usage.cache_read_tokens)?)
        .push_bind(integer("cache_write_5m_tokens", writes.m5)?)
        .push_bind(integer("cache_write_30m_tokens", writes.m30)?)
        .push_bind(integer("cache_write_1h_tokens", writes.h1)?)
        .push_bind(integer("cache_write_12h_tokens", writes.h12)?)
        .push_bind(integer("cache_write_other_tokens", writes.other)?)
        .push_bind(integer("output_tokens", usage.output_tokens)?)
        .push_bind(integer("reasoning_tokens", usage.reasoning_tokens)?)
        .push_bind(row.usage_source.clone())
        .push_bind(row.cost)
        .push_bind(row.saved)
        .push_bind(row.currency.clone())
        .push_bind(row.cost_source.clone())
        .push_bind(row.cache_status.clone())
        .push_bind(row.cache_reason.clone());
    query.push(") ON CONFLICT (id) DO NOTHING");
    Ok(query)
}

fn push_keys(query: &mut QueryBuilder<Sqlite>, group_by: &[GroupBy]) {
    for number in 0..group_by.len() {
        query.push(format_args!("key_{number}, "));
    }
}

fn push_after(query: &mut QueryBuilder<Sqlite>, group_by: &[GroupBy], after: Vec<GroupKey>) {
    query.push(" AND (");
    let mut expressions = query.separated(", ");
    for by in group_by {
        expressions.push(key_expression(*by));
    }
    query.push(") > (");
    let mut values = query.separated(", ");
    for key in after {
        match key {
            GroupKey::Time(time) => values.push_bind(time),
            GroupKey::Name(name) => values.push_bind(name),
        };
    }
    query.push(")");
}

fn push_filter(query: &mut QueryBuilder<Sqlite>, filter: &LedgerFilter) {
    query.push(" FROM ledger WHERE TRUE");
    if let Some(from) = filter.from {
        query.push(" AND started_at >= ").push_bind(from);
    }
    if let Some(to) = filter.to {
        query.push(" AND started_at < ").push_bind(to);
    }
    let columns = [
        ("project", &filter.project),
        ("key_id", &filter.key_id),
        ("model", &filter.model),
        ("upstream", &filter.upstream),
        ("context", &filter.context),
    ];
    for (column, wanted) in columns {
        if let Some(wanted) = wanted {
            query.push(format_args!(" AND {column} = "));
            query.push_bind(wanted.clone());
        }
    }
}

fn key(row: &SqliteRow, number: usize, by: GroupBy) -> Result<GroupKey, StoreError> {
    let column = format!("key_{number}");
    Ok(match by.period_ms() {
        Some(_) => GroupKey::Time(row.try_get(column.as_str()).map_err(failure)?),
        None => GroupKey::Name(row.try_get(column.as_str()).map_err(failure)?),
    })
}

fn totals(row: &SqliteRow) -> Result<LedgerTotals, StoreError> {
    let amount = |name: &str| -> Result<i128, StoreError> {
        let part = |part: &str| {
            let column = format!("{name}_{part}");
            row.try_get::<i64, _>(column.as_str()).map_err(failure)
        };
        Ok(i128::from(part("high")?) * AMOUNT_PART + i128::from(part("low")?))
    };
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
            cost: amount("cost")?,
            storage_cost: amount("storage_cost")?,
            saved: amount("saved")?,
        };
        totals.money.insert(currency, money);
    }
    Ok(totals)
}

fn usage(row: &SqliteRow) -> Result<BilledUsage, StoreError> {
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

fn record(row: &SqliteRow) -> Result<LedgerRecord, StoreError> {
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
        first_token_ms: first_token_ms.and_then(|ms| u64::try_from(ms).ok()),
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
