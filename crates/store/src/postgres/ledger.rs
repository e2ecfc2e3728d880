//! The ledger in PostgreSQL.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use sqlx::{Postgres, QueryBuilder};

use super::PostgresStore;
use super::failure::Failure;
use crate::StoreError;
use crate::ledger::statements::{COLUMNS, COUNTS, key_expression};
use crate::ledger::{
    GroupBy, GroupKey, LEDGER_PAGE_MAX, LedgerFilter, LedgerGroup, LedgerGroups, LedgerRecord,
    LedgerRows, LedgerStore, LedgerTotals, group_cursor, paged, read_group_cursor, read_row_cursor,
    row_cursor,
};

mod append;
mod rows;

/// Most rows that one transaction erases, so that none takes long, however many are old.
const ERASED_AT_ONCE_MAX: u32 = 5_000;

/// What [`rows::totals`] reads beside the counts. PostgreSQL's sums of `bigint` are `numeric`, which holds any of them:
/// amounts stay so, and come as text; tokens beyond 63 bits are an error, as in SQLite.
const SUMS: &str = "currency, \
     sum(input_tokens)::bigint AS input_tokens, sum(cache_read_tokens)::bigint AS cache_read_tokens, \
     sum(cache_write_5m_tokens)::bigint AS cache_write_5m_tokens, \
     sum(cache_write_30m_tokens)::bigint AS cache_write_30m_tokens, \
     sum(cache_write_1h_tokens)::bigint AS cache_write_1h_tokens, \
     sum(cache_write_12h_tokens)::bigint AS cache_write_12h_tokens, \
     sum(cache_write_other_tokens)::bigint AS cache_write_other_tokens, \
     sum(output_tokens)::bigint AS output_tokens, sum(reasoning_tokens)::bigint AS reasoning_tokens, \
     sum(cost)::text AS cost, sum(saved)::text AS saved, \
     sum(CASE WHEN kind = 'storage' THEN cost ELSE 0 END)::text AS storage_cost";

#[async_trait]
impl LedgerStore for PostgresStore {
    async fn append(&self, rows: &[LedgerRecord]) -> Result<(), StoreError> {
        let rows = append::in_order(rows);
        if rows.is_empty() {
            return Ok(());
        }
        self.attempt(|| self.try_append(&rows)).await
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
            .transpose()?
            .unwrap_or_default();
        let limit = limit.clamp(1, LEDGER_PAGE_MAX);
        let mut groups = self
            .attempt(|| self.try_groups(filter, group_by, &after, limit + 1))
            .await?;
        if group_by.is_empty() && groups.is_empty() {
            groups.push(LedgerGroup {
                keys: Vec::new(),
                totals: LedgerTotals::default(),
            });
        }
        let (groups, next_cursor) = paged(groups, limit as usize, |last| {
            group_cursor(group_by, &last.keys)
        });
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
        let rows = self
            .attempt(|| self.try_rows(filter, before.as_ref(), limit + 1))
            .await?;
        let (rows, next_cursor) = paged(rows, limit as usize, row_cursor);
        Ok(LedgerRows { rows, next_cursor })
    }

    async fn erase_before(&self, time: UnixMillis, limit: u32) -> Result<u64, StoreError> {
        let mut erased = 0;
        let mut left = limit;
        loop {
            let most = left.min(ERASED_AT_ONCE_MAX);
            left -= most;
            let gone = self.attempt(|| self.try_erase_before(time, most)).await?;
            erased += gone;
            if gone < u64::from(most) || left == 0 {
                return Ok(erased);
            }
        }
    }
}

impl PostgresStore {
    /// At most `most` groups behind the keys `after`.
    async fn try_groups(
        &self,
        filter: &LedgerFilter,
        group_by: &[GroupBy],
        after: &[GroupKey],
        most: u32,
    ) -> Result<Vec<LedgerGroup>, Failure> {
        let mut query = groups_statement(filter, group_by, after, most);
        // Hardly the same statement twice, so that it would only drive others out of those that are kept prepared.
        let found = query
            .build()
            .persistent(false)
            .fetch_all(&mut *self.connection().await?)
            .await?;
        let mut groups: Vec<LedgerGroup> = Vec::new();
        for row in &found {
            let keys = rows::keys(row, group_by)?;
            let totals = rows::totals(row)?;
            match groups.last_mut() {
                Some(last) if last.keys == keys => last.totals.add(&totals),
                _ => groups.push(LedgerGroup { keys, totals }),
            }
        }
        Ok(groups)
    }

    /// At most `most` rows that are older than the one at `before`.
    async fn try_rows(
        &self,
        filter: &LedgerFilter,
        before: Option<&(UnixMillis, String)>,
        most: u32,
    ) -> Result<Vec<LedgerRecord>, Failure> {
        let mut query = QueryBuilder::<Postgres>::new("SELECT ");
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
            .push_bind(i64::from(most));
        let found = query
            .build()
            .persistent(false)
            .fetch_all(&mut *self.connection().await?)
            .await?;
        Ok(found.iter().map(rows::record).collect::<Result<_, _>>()?)
    }

    async fn try_erase_before(&self, time: UnixMillis, most: u32) -> Result<u64, Failure> {
        // What another replica is erasing at the moment is left to it. The list is made once and not for each row.
        let erased = sqlx::query(
            "WITH old AS MATERIALIZED (SELECT id FROM ledger WHERE started_at < $1 \
               ORDER BY started_at, id LIMIT $2 FOR UPDATE SKIP LOCKED) \
             DELETE FROM ledger USING old WHERE ledger.id = old.id",
        )
        .bind(time)
        .bind(i64::from(most))
        .execute(&mut *self.connection().await?)
        .await?;
        Ok(erased.rows_affected())
    }
}

/// A group has a row for each currency, so that groups are numbered and not rows.
fn groups_statement(
    filter: &LedgerFilter,
    group_by: &[GroupBy],
    after: &[GroupKey],
    most: u32,
) -> QueryBuilder<Postgres> {
    let keys: String = (0..group_by.len())
        .map(|number| format!("key_{number}, "))
        .collect();
    let mut query = QueryBuilder::<Postgres>::new("WITH sums AS (SELECT ");
    for (number, by) in group_by.iter().enumerate() {
        query.push(key_expression(*by));
        query.push(format_args!(" AS key_{number}, "));
    }
    query.push(COUNTS).push(", ").push(SUMS);
    push_filter(&mut query, filter);
    push_after(&mut query, group_by, after);
    query.push(format_args!(
        " GROUP BY {keys}currency), \
         numbered AS (SELECT sums.*, dense_rank() OVER (ORDER BY {keys}TRUE) AS number FROM sums) \
         SELECT * FROM numbered WHERE number <= "
    ));
    query.push_bind(i64::from(most));
    query.push(format_args!(" ORDER BY {keys}currency"));
    query
}

fn push_after(query: &mut QueryBuilder<Postgres>, group_by: &[GroupBy], after: &[GroupKey]) {
    if after.is_empty() {
        return;
    }
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

fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &LedgerFilter) {
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
        match wanted {
            // PostgreSQL can't even be asked for such a text.
            Some(wanted) if wanted.contains('\0') => {
                query.push(" AND FALSE");
            }
            Some(wanted) => {
                query.push(format_args!(" AND {column} = "));
                query.push_bind(wanted);
            }
            None => {}
        }
    }
}
