//! The ledger in memory.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;

use super::MemoryStore;
use crate::ledger::{
    GroupBy, GroupKey, LEDGER_PAGE_MAX, LedgerFilter, LedgerGroup, LedgerGroups, LedgerRecord,
    LedgerRows, LedgerStore, LedgerTotals, group_cursor, paged, read_group_cursor, read_row_cursor,
    row_cursor,
};
use crate::{StoreError, budgets};

/// All rows, by start and id, and where each id is.
#[derive(Default)]
pub(super) struct Ledger {
    rows: BTreeMap<(UnixMillis, String), LedgerRecord>,
    started_at: HashMap<String, UnixMillis>,
}

#[async_trait]
impl LedgerStore for MemoryStore {
    async fn append(&self, rows: &[LedgerRecord]) -> Result<(), StoreError> {
        let mut state = self.state();
        let state = &mut *state;
        let ledger = &mut state.ledger;
        for row in rows {
            if ledger.started_at.contains_key(&row.id) {
                continue;
            }
            for (place, amount) in budgets::spending([row]) {
                let sum = state.spending.entry(place).or_default();
                *sum = sum.saturating_add(amount).min(budgets::DAY_AMOUNT_MAX);
            }
            ledger.started_at.insert(row.id.clone(), row.started_at);
            let place = (row.started_at, row.id.clone());
            ledger.rows.insert(place, row.clone());
        }
        state.running.settle(rows.iter().map(|row| row.id.as_str()));
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
        let mut groups: BTreeMap<Vec<GroupKey>, LedgerTotals> = BTreeMap::new();
        if group_by.is_empty() {
            groups.entry(Vec::new()).or_default();
        }
        for row in self.state().ledger.rows.values() {
            if !filter.includes(row) {
                continue;
            }
            let keys: Vec<GroupKey> = group_by.iter().map(|by| key(*by, row)).collect();
            if after.as_ref().is_some_and(|after| keys <= *after) {
                continue;
            }
            groups.entry(keys).or_default().add(&LedgerTotals::of(row));
        }
        let groups = groups
            .into_iter()
            .take(limit + 1)
            .map(|(keys, totals)| LedgerGroup { keys, totals })
            .collect();
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
        let limit = limit.clamp(1, LEDGER_PAGE_MAX) as usize;
        let state = self.state();
        let rows = &state.ledger.rows;
        let older = match before {
            Some(before) => rows.range(..before),
            None => rows.range::<(UnixMillis, String), _>(..),
        };
        let rows = older
            .rev()
            .map(|(_, row)| row)
            .filter(|row| filter.includes(row))
            .take(limit + 1)
            .cloned()
            .collect();
        let (rows, next_cursor) = paged(rows, limit, row_cursor);
        Ok(LedgerRows { rows, next_cursor })
    }

    async fn erase_before(&self, time: UnixMillis, limit: u32) -> Result<u64, StoreError> {
        let ledger = &mut self.state().ledger;
        let mut erased = 0;
        while erased < u64::from(limit)
            && let Some(oldest) = ledger.rows.first_entry()
            && oldest.key().0 < time
        {
            let (_, id) = oldest.remove_entry().0;
            ledger.started_at.remove(&id);
            erased += 1;
        }
        Ok(erased)
    }
}

fn key(by: GroupBy, row: &LedgerRecord) -> GroupKey {
    if let Some(period_ms) = by.period_ms() {
        return GroupKey::Time(row.started_at - row.started_at.rem_euclid(period_ms));
    }
    let name = match by {
        GroupBy::Project => Some(&row.project),
        GroupBy::Key => row.key_id.as_ref(),
        GroupBy::Model => Some(&row.model),
        GroupBy::Upstream => row.upstream.as_ref(),
        GroupBy::Context => row.context.as_ref(),
        GroupBy::Day | GroupBy::Hour => None,
    };
    GroupKey::Name(name.cloned().unwrap_or_default())
}
