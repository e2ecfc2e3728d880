//! Many rows in one statement.

use std::collections::HashSet;

use sqlx::{Postgres, QueryBuilder};

use crate::StoreError;
use crate::columns::integer;
use crate::ledger::LedgerRecord;
use crate::ledger::statements::COLUMNS;
use crate::postgres::failure::Failure;
use crate::postgres::{PostgresStore, budgets};

impl PostgresStore {
    pub(super) async fn try_append(&self, rows: &[&LedgerRecord]) -> Result<(), Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = PostgresStore::begin(&mut connection).await?;
        let appended: HashSet<String> = statement(rows)?
            .build_query_scalar()
            .fetch_all(&mut *transaction)
            .await?
            .into_iter()
            .collect();
        let new = rows.iter().filter(|row| appended.contains(&row.id));
        budgets::spend(&mut transaction, new.copied()).await?;
        budgets::settle(&mut transaction, rows.iter().map(|row| row.id.as_str())).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Each id once, with its first row; in the order of ids, so that of those who bring the same rows at the same time
/// nobody holds what another one waits for.
pub(super) fn in_order(rows: &[LedgerRecord]) -> Vec<&LedgerRecord> {
    let mut rows: Vec<&LedgerRecord> = rows.iter().collect();
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    rows.dedup_by(|a, b| a.id == b.id);
    rows
}

/// An array for each column, so that the statement is the same for any number of rows, and without their limit: a
/// statement can have 65,535 values.
fn statement(rows: &[&LedgerRecord]) -> Result<QueryBuilder<Postgres>, StoreError> {
    let texts =
        |of: fn(&LedgerRecord) -> &str| -> Vec<&str> { rows.iter().map(|row| of(row)).collect() };
    let optional = |of: fn(&LedgerRecord) -> &Option<String>| -> Vec<Option<&str>> {
        rows.iter().map(|row| of(row).as_deref()).collect()
    };
    let amounts =
        |of: fn(&LedgerRecord) -> i64| -> Vec<i64> { rows.iter().map(|row| of(row)).collect() };
    let counts = |column: &str, of: fn(&LedgerRecord) -> u64| -> Result<Vec<i64>, StoreError> {
        rows.iter().map(|row| integer(column, of(row))).collect()
    };
    let first_token_ms = rows
        .iter()
        .map(|row| {
            let ms = row.first_token_ms;
            ms.map(|ms| integer("first_token_ms", ms)).transpose()
        })
        .collect::<Result<Vec<Option<i64>>, StoreError>>()?;
    let streams: Vec<bool> = rows.iter().map(|row| row.stream).collect();

    let mut query = QueryBuilder::<Postgres>::new("INSERT INTO ledger (");
    query.push(COLUMNS).push(") SELECT * FROM unnest(");
    let mut values = query.separated(", ");
    values
        .push_bind(texts(|row| &row.id))
        .push_bind(texts(|row| &row.kind))
        .push_bind(texts(|row| &row.project))
        .push_bind(optional(|row| &row.key_id))
        .push_bind(texts(|row| &row.surface))
        .push_bind(texts(|row| &row.endpoint))
        .push_bind(texts(|row| &row.model))
        .push_bind(texts(|row| &row.requested_model))
        .push_bind(optional(|row| &row.upstream))
        .push_bind(optional(|row| &row.upstream_model))
        .push_bind(optional(|row| &row.context))
        .push_bind(optional(|row| &row.answer))
        .push_bind(texts(|row| &row.request))
        .push_bind(amounts(|row| row.started_at))
        .push_bind(first_token_ms)
        .push_bind(counts("total_ms", |row| row.total_ms)?)
        .push_bind(streams)
        .push_bind(texts(|row| &row.outcome))
        .push_bind(optional(|row| &row.error))
        .push_bind(optional(|row| &row.finish_reason));
    for (column, of) in TOKENS {
        values.push_bind(counts(column, of)?);
    }
    values
        .push_bind(texts(|row| &row.usage_source))
        .push_bind(amounts(|row| row.cost))
        .push_bind(amounts(|row| row.saved))
        .push_bind(texts(|row| &row.currency))
        .push_bind(texts(|row| &row.cost_source))
        .push_bind(optional(|row| &row.cache_status))
        .push_bind(optional(|row| &row.cache_reason));
    query.push(") ON CONFLICT (id) DO NOTHING RETURNING id");
    Ok(query)
}

/// How many tokens of a kind a row has.
type Tokens = fn(&LedgerRecord) -> u64;

/// The columns of tokens, in their order among all columns.
const TOKENS: [(&str, Tokens); 9] = [
    ("input_tokens", |row| row.usage.input_tokens),
    ("cache_read_tokens", |row| row.usage.cache_read_tokens),
    ("cache_write_5m_tokens", |row| row.usage.cache_writes.m5),
    ("cache_write_30m_tokens", |row| row.usage.cache_writes.m30),
    ("cache_write_1h_tokens", |row| row.usage.cache_writes.h1),
    ("cache_write_12h_tokens", |row| row.usage.cache_writes.h12),
    ("cache_write_other_tokens", |row| {
        row.usage.cache_writes.other
    }),
    ("output_tokens", |row| row.usage.output_tokens),
    ("reasoning_tokens", |row| row.usage.reasoning_tokens),
];
