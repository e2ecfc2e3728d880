//! The ledger: one row for each request, and for each thing that is charged for without one. Rows are added and, when
//! they are old, erased; none is ever changed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use data_encoding::BASE32_DNSSEC;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::usage::BilledUsage;
use serde::{Deserialize, Serialize};

use crate::StoreError;

pub(crate) mod statements;

/// Most groups or rows in one page of the ledger.
pub const LEDGER_PAGE_MAX: u32 = 10_000;

/// Longest cursor that is looked at, bytes; what it is made of is bounded by whoever writes rows.
const CURSOR_BYTES_MAX: usize = 4096;

/// Words that rows are counted by. Others are stored as they are and counted as requests only.
pub mod words {
    /// `outcome`: the whole answer was given.
    pub const COMPLETED: &str = "completed";
    /// `outcome`: the client left.
    pub const CANCELLED: &str = "cancelled";
    /// `outcome`: an error of the gateway or of an upstream, also in the middle of a stream.
    pub const FAILED: &str = "failed";
    /// `outcome`: the request can't be answered, by its own fault or because of a limit.
    pub const REFUSED: &str = "refused";
    /// `cache_status`: see [`CacheStatus`](holdfast_protocol::usage::CacheStatus), whose words these are.
    pub const HIT: &str = "hit";
    /// See `HIT`.
    pub const REBUILT: &str = "rebuilt";
    /// See `HIT`.
    pub const MISS: &str = "miss";
    /// See `HIT`.
    pub const DEGRADED: &str = "degraded";
    /// `kind`: a copy of a context that was kept at an upstream for an hour or a part of one.
    pub const STORAGE: &str = "storage";
    /// `usage_source` and `cost_source`: reckoned by the gateway.
    pub const ESTIMATE: &str = "estimate";
}

/// One row. Amounts are trillionths of the currency unit, times milliseconds. No text has a NUL.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerRecord {
    /// Made by the gateway and never used again: a row that comes twice is one row.
    pub id: String,
    /// `chat`, `create`, the name of another endpoint, or `warm`, `ping`, `attempt` and `storage`, which are nobody's
    /// request.
    pub kind: String,
    /// The tenant.
    pub project: String,
    /// Public id of the key; `None`: nobody's request.
    pub key_id: Option<String>,
    /// The dialect in which the request came; empty without one.
    pub surface: String,
    /// The route's template; empty without a request.
    pub endpoint: String,
    /// The configured model; empty where the request named none that exists.
    pub model: String,
    /// The model as the request named it.
    pub requested_model: String,
    /// The upstream that answered or was asked last; `None`: the embedded engine, or nobody was asked.
    pub upstream: Option<String>,
    /// What the upstream calls the model.
    pub upstream_model: Option<String>,
    /// The context that was used or made.
    pub context: Option<String>,
    /// Id of the answer, as the client got it.
    pub answer: Option<String>,
    /// Id of the HTTP request; empty without one.
    pub request: String,
    /// When the request came.
    pub started_at: UnixMillis,
    /// From there to the first token.
    pub first_token_ms: Option<u64>,
    /// From there to the end.
    pub total_ms: u64,
    /// Whether the answer was a stream.
    pub stream: bool,
    /// One of [`words`], or `replayed`.
    pub outcome: String,
    /// The kind of error, for the outcomes `failed` and `refused`.
    pub error: Option<String>,
    /// Why the answer ended.
    pub finish_reason: Option<String>,
    /// Tokens that are charged for, by kind.
    pub usage: BilledUsage,
    /// Who counted them: `provider`, `engine` or `estimate`; empty where there are none.
    pub usage_source: String,
    /// What was charged, trillionths.
    pub cost: i64,
    /// What sending everything fresh would have cost more; may be negative. Trillionths.
    pub saved: i64,
    /// ISO 4217 code of both; empty where nothing has a price.
    pub currency: String,
    /// Who says what was charged: `provider` or `estimate`; empty where nothing has a price.
    pub cost_source: String,
    /// What the context's cache did; one of [`words`].
    pub cache_status: Option<String>,
    /// Why, where it was no plain hit.
    pub cache_reason: Option<String>,
}

impl LedgerRecord {
    /// Input tokens that were neither read from a cache nor written to one.
    pub fn fresh_tokens(&self) -> u64 {
        self.usage.fresh_tokens().unwrap_or(0)
    }

    /// Whether it stands for a client's request.
    pub fn is_request(&self) -> bool {
        self.key_id.is_some()
    }
}

/// Which rows are meant. Rows must be what every field says that is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerFilter {
    /// Started then or later.
    pub from: Option<UnixMillis>,
    /// Started before.
    pub to: Option<UnixMillis>,
    /// Of this project.
    pub project: Option<String>,
    /// By this key.
    pub key_id: Option<String>,
    /// For this configured model.
    pub model: Option<String>,
    /// Answered by this upstream.
    pub upstream: Option<String>,
    /// On this context.
    pub context: Option<String>,
}

impl LedgerFilter {
    /// Whether a row is meant.
    pub fn includes(&self, row: &LedgerRecord) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| value == Some(wanted))
        };
        self.from.is_none_or(|from| row.started_at >= from)
            && self.to.is_none_or(|to| row.started_at < to)
            && is(&self.project, Some(&row.project))
            && is(&self.key_id, row.key_id.as_deref())
            && is(&self.model, Some(&row.model))
            && is(&self.upstream, row.upstream.as_deref())
            && is(&self.context, row.context.as_deref())
    }
}

/// What rows can be grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupBy {
    /// The day in UTC.
    Day,
    /// The hour.
    Hour,
    /// The tenant.
    Project,
    /// The key.
    Key,
    /// The configured model.
    Model,
    /// The upstream.
    Upstream,
    /// The context.
    Context,
}

impl GroupBy {
    /// All of them.
    pub const ALL: [GroupBy; 7] = [
        GroupBy::Day,
        GroupBy::Hour,
        GroupBy::Project,
        GroupBy::Key,
        GroupBy::Model,
        GroupBy::Upstream,
        GroupBy::Context,
    ];

    /// Its word in queries and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            GroupBy::Day => "day",
            GroupBy::Hour => "hour",
            GroupBy::Project => "project",
            GroupBy::Key => "key",
            GroupBy::Model => "model",
            GroupBy::Upstream => "upstream",
            GroupBy::Context => "context",
        }
    }

    /// The other way round.
    pub fn parse(word: &str) -> Option<Self> {
        GroupBy::ALL.into_iter().find(|by| by.as_str() == word)
    }

    /// For [`GroupBy::Day`] and [`GroupBy::Hour`]: how long one is, milliseconds.
    pub fn period_ms(self) -> Option<i64> {
        match self {
            GroupBy::Day => Some(86_400_000),
            GroupBy::Hour => Some(3_600_000),
            _ => None,
        }
    }
}

/// What the rows of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GroupKey {
    /// When the day or hour begins.
    Time(UnixMillis),
    /// A name; empty where rows have none.
    Name(String),
}

/// Sums over rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerTotals {
    /// Rows that stand for a client's request.
    pub requests: u64,
    /// Of these, by outcome.
    pub completed: u64,
    /// See `completed`.
    pub cancelled: u64,
    /// See `completed`.
    pub failed: u64,
    /// See `completed`.
    pub refused: u64,
    /// Requests on contexts, by what the cache did.
    pub hits: u64,
    /// See `hits`.
    pub rebuilds: u64,
    /// See `hits`.
    pub misses: u64,
    /// See `hits`.
    pub degraded: u64,
    /// Rows whose tokens are an estimate.
    pub estimated: u64,
    /// Tokens by kind.
    pub usage: BilledUsage,
    /// Amounts by currency; currencies are never added up. Without those of rows that have no price.
    pub money: BTreeMap<String, LedgerMoney>,
}

/// Sums of amounts in one currency, trillionths. The amounts of many rows can be more than 64 bits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerMoney {
    /// Charged, storage included.
    pub cost: i128,
    /// Of `cost`, for keeping copies at upstreams.
    pub storage_cost: i128,
    /// Against sending everything fresh each time, with `storage_cost` taken off.
    pub saved: i128,
}

impl LedgerTotals {
    /// Adds those of other rows.
    pub fn add(&mut self, other: &LedgerTotals) {
        self.requests += other.requests;
        self.completed += other.completed;
        self.cancelled += other.cancelled;
        self.failed += other.failed;
        self.refused += other.refused;
        self.hits += other.hits;
        self.rebuilds += other.rebuilds;
        self.misses += other.misses;
        self.degraded += other.degraded;
        self.estimated += other.estimated;
        self.usage = self.usage.plus(other.usage);
        for (currency, money) in &other.money {
            let sum = self.money.entry(currency.clone()).or_default();
            sum.cost += money.cost;
            sum.storage_cost += money.storage_cost;
            sum.saved += money.saved;
        }
    }

    /// Those of one row.
    pub fn of(row: &LedgerRecord) -> Self {
        let is = |word: &str| u64::from(row.is_request() && row.outcome == word);
        let did =
            |word: &str| u64::from(row.is_request() && row.cache_status.as_deref() == Some(word));
        let mut money = BTreeMap::new();
        if !row.currency.is_empty() {
            let cost = i128::from(row.cost);
            let is_storage = row.kind == words::STORAGE;
            money.insert(
                row.currency.clone(),
                LedgerMoney {
                    cost,
                    storage_cost: if is_storage { cost } else { 0 },
                    saved: row.saved.into(),
                },
            );
        }
        LedgerTotals {
            requests: u64::from(row.is_request()),
            completed: is(words::COMPLETED),
            cancelled: is(words::CANCELLED),
            failed: is(words::FAILED),
            refused: is(words::REFUSED),
            hits: did(words::HIT),
            rebuilds: did(words::REBUILT),
            misses: did(words::MISS),
            degraded: did(words::DEGRADED),
            estimated: u64::from(row.usage_source == words::ESTIMATE),
            usage: row.usage,
            money,
        }
    }
}

/// A group of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerGroup {
    /// One for each [`GroupBy`] of the query, in its order.
    pub keys: Vec<GroupKey>,
    /// Sums over its rows.
    pub totals: LedgerTotals,
}

/// Some of a query's groups, by their keys in ascending order; names are compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerGroups {
    /// The groups.
    pub groups: Vec<LedgerGroup>,
    /// Where the next page begins; `None`: this is the last one.
    pub next_cursor: Option<String>,
}

/// Some rows, the latest begun first, and among those begun together the largest id first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerRows {
    /// The rows.
    pub rows: Vec<LedgerRecord>,
    /// Where the next page begins; `None`: this is the last one.
    pub next_cursor: Option<String>,
}

/// Keeps the ledger. Once a method has returned `Ok`, its effect survives `kill -9` and power loss (not in memory).
#[async_trait]
pub trait LedgerStore: Send + Sync {
    /// Adds rows in one transaction. One whose id is there already is left out, and that is no error.
    async fn append(&self, rows: &[LedgerRecord]) -> Result<(), StoreError>;

    /// Sums over the rows that `filter` means, in groups; without `group_by` over all of them, as one group, which is
    /// there also when there are no rows. At most `limit` groups (1..=[`LEDGER_PAGE_MAX`]; others count as the nearest).
    ///
    /// # Errors
    /// `NotFound` for a cursor that did not come from this query.
    async fn query(
        &self,
        filter: &LedgerFilter,
        group_by: &[GroupBy],
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<LedgerGroups, StoreError>;

    /// The rows that `filter` means. At most `limit`, as in [`LedgerStore::query`].
    ///
    /// # Errors
    /// `NotFound` for a cursor that did not come from such a query.
    async fn rows(
        &self,
        filter: &LedgerFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<LedgerRows, StoreError>;

    /// Erases at most `limit` rows that started before `time`, the oldest first; answers how many.
    async fn erase_before(&self, time: UnixMillis, limit: u32) -> Result<u64, StoreError>;
}

/// The position behind a group, as the text that clients send back. It is no secret and grants nothing.
pub(crate) fn group_cursor(group_by: &[GroupBy], keys: &[GroupKey]) -> String {
    let names: Vec<&str> = group_by.iter().map(|by| by.as_str()).collect();
    encode(&(names, keys))
}

/// The keys of the last group of the page before.
pub(crate) fn read_group_cursor(
    group_by: &[GroupBy],
    text: &str,
) -> Result<Vec<GroupKey>, StoreError> {
    let (names, keys): (Vec<String>, Vec<GroupKey>) = decode(text)?;
    let is_time = |by: &GroupBy| by.period_ms().is_some();
    let fits = names.iter().eq(group_by.iter().map(|by| by.as_str()))
        && keys.len() == group_by.len()
        && (group_by.iter().zip(&keys))
            .all(|(by, key)| is_time(by) == matches!(key, GroupKey::Time(_)));
    if fits {
        Ok(keys)
    } else {
        Err(StoreError::NotFound)
    }
}

/// The position behind a row.
pub(crate) fn row_cursor(row: &LedgerRecord) -> String {
    encode(&(row.started_at, &row.id))
}

/// Start and id of the last row of the page before.
pub(crate) fn read_row_cursor(text: &str) -> Result<(UnixMillis, String), StoreError> {
    decode(text)
}

fn encode(position: &impl Serialize) -> String {
    let text = serde_json::to_vec(position).expect("numbers and texts can be written as JSON");
    BASE32_DNSSEC.encode(&text)
}

fn decode<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, StoreError> {
    if text.len() > CURSOR_BYTES_MAX {
        return Err(StoreError::NotFound);
    }
    let bytes = BASE32_DNSSEC
        .decode(text.as_bytes())
        .map_err(|_| StoreError::NotFound)?;
    serde_json::from_slice(&bytes).map_err(|_| StoreError::NotFound)
}

/// Makes a page of at most `limit`; one more in `items` says that another page follows.
pub(crate) fn paged<T>(
    mut items: Vec<T>,
    limit: usize,
    cursor: impl FnOnce(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(cursor);
    (items, next_cursor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_cursor_is_of_one_query_only() {
        let by = [GroupBy::Day, GroupBy::Model];
        let keys = vec![GroupKey::Time(86_400_000), GroupKey::Name("m".to_owned())];
        let text = group_cursor(&by, &keys);
        assert_eq!(read_group_cursor(&by, &text).unwrap(), keys);
        for other in [&by[..1], &[GroupBy::Model, GroupBy::Day], &[]] {
            assert!(read_group_cursor(other, &text).is_err());
        }
        for wrong in ["", "nonsense", &text[1..], &"a".repeat(10_000)] {
            assert!(read_group_cursor(&by, wrong).is_err());
            assert!(read_row_cursor(wrong).is_err());
        }
        assert!(read_row_cursor(&text).is_err());
    }

    #[test]
    fn a_row_of_an_older_version_can_be_read() {
        let row: LedgerRecord = serde_json::from_str(r#"{"id": "a", "unknown": 1}"#).unwrap();
        assert_eq!(row.id, "a");
    }
}
