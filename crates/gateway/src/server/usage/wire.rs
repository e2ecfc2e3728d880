//! What `/usage` answers.

use holdfast_protocol::usage::BilledUsage;
use holdfast_store::{GroupBy, GroupKey, LedgerGroup, LedgerMoney, LedgerRecord, LedgerTotals};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// Digits behind the point of an amount in trillionths.
const AMOUNT_DIGITS: usize = 12;

/// A page of groups, and the sums over all of them.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::server) struct UsagePage {
    /// `usage`.
    #[schema(example = "usage")]
    pub(super) object: &'static str,
    /// Requests are counted from here on.
    #[schema(example = "2026-11-01T00:00:00Z")]
    pub(super) from: String,
    /// Those that began then or later are not; null: up to now.
    pub(super) to: Option<String>,
    /// In the order of the request.
    pub(super) group_by: Vec<&'static str>,
    /// By the groups' names and times, ascending.
    pub(super) data: Vec<UsageGroup>,
    /// Sums over everything that was asked for, not only this page.
    pub(super) totals: UsageTotals,
    /// Whether there are more groups.
    pub(super) has_more: bool,
    /// For the next page.
    pub(super) next_cursor: Option<String>,
}

/// A group. It has the fields that the request groups by; null where its requests have no such thing.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::server) struct UsageGroup {
    /// The day in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-11-30")]
    day: Option<String>,
    /// When the hour begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-11-30T05:00:00Z")]
    hour: Option<String>,
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<String>,
    /// Public id of the key; null: pings, storage and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    key: Option<Option<String>>,
    /// The model; null: the requests named none that exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    model: Option<Option<String>>,
    /// The upstream; null: the embedded engine, or nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    upstream: Option<Option<String>>,
    /// The context; null: the requests had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    context: Option<Option<String>>,
    /// Sums over its requests.
    #[serde(flatten)]
    totals: UsageTotals,
}

/// Sums.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::server) struct UsageTotals {
    /// Clients' requests.
    requests: u64,
    /// Of these, answered whole.
    completed: u64,
    /// Left by their clients.
    cancelled: u64,
    /// Ended by an error of the gateway or of an upstream.
    failed: u64,
    /// Refused for a reason of their own, or because of a limit.
    refused: u64,
    /// Requests on contexts that found them cached.
    hits: u64,
    /// That had them computed or written again.
    rebuilds: u64,
    /// That were their first use.
    misses: u64,
    /// That were answered without a cache where one was wanted.
    degraded: u64,
    /// Hits among requests on contexts, 0 to 1.
    hit_rate: f64,
    #[serde(flatten)]
    tokens: Tokens,
    /// How many of the counts that are summed up are estimates.
    estimated: u64,
    /// Amounts by currency. Empty where nothing has a price.
    money: Vec<Money>,
}

/// Tokens that are charged for, each at one rate.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Tokens {
    /// All input: fresh, read and written.
    input_tokens: u64,
    /// Input that was neither read from a cache nor written to one.
    fresh_tokens: u64,
    /// Read from a cache.
    cached_tokens: u64,
    /// Written to one at a rate of their own.
    cache_write_tokens: u64,
    /// The same by lifetime.
    cache_writes: CacheWrites,
    /// Generated, reasoning included.
    output_tokens: u64,
    /// Of these, reasoning.
    reasoning_tokens: u64,
}

/// Tokens written to caches, by lifetime.
#[derive(Debug, Default, Serialize, ToSchema)]
struct CacheWrites {
    /// Five minutes.
    #[serde(rename = "5m")]
    m5: u64,
    /// Thirty minutes.
    #[serde(rename = "30m")]
    m30: u64,
    /// An hour.
    #[serde(rename = "1h")]
    h1: u64,
    /// Twelve hours.
    #[serde(rename = "12h")]
    h12: u64,
    /// A lifetime that the upstream does not name.
    other: u64,
}

/// Amounts as decimal numbers in texts.
#[derive(Debug, Serialize, ToSchema)]
struct Money {
    /// ISO 4217 code.
    #[schema(example = "USD")]
    currency: String,
    /// Charged, storage included.
    #[schema(example = "1.25")]
    cost: String,
    /// Of `cost`, for keeping copies of contexts at upstreams.
    storage_cost: String,
    /// What sending everything fresh each time would have cost more; may be negative.
    saved: String,
}

/// A page of single requests.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::server) struct RequestPage {
    /// `list`.
    #[schema(example = "list")]
    pub(super) object: &'static str,
    /// The latest first.
    pub(super) data: Vec<RequestRow>,
    /// Whether there are more.
    pub(super) has_more: bool,
    /// For the next page.
    pub(super) next_cursor: Option<String>,
}

/// One request, or one charge that is nobody's request.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::server) struct RequestRow {
    /// The row's id.
    id: String,
    /// `usage.request`.
    #[schema(example = "usage.request")]
    object: &'static str,
    /// `chat`, `create` or the name of another endpoint; `warm`, `ping`, `attempt` and `storage` are nobody's request.
    kind: String,
    /// The tenant.
    project: String,
    /// Public id of the key.
    key: Option<String>,
    /// The dialect: `openai`, `ark`, `responses`, `anthropic` or `gemini`.
    surface: Option<String>,
    /// The path's template.
    endpoint: Option<String>,
    /// The configured model.
    model: Option<String>,
    /// The model as the request named it.
    requested_model: Option<String>,
    /// The upstream that answered or was asked last; null: the embedded engine, or nobody was asked.
    upstream: Option<String>,
    /// What the upstream calls the model.
    upstream_model: Option<String>,
    /// The context.
    context_id: Option<String>,
    /// The answer's id.
    answer_id: Option<String>,
    /// What `x-request-id` said.
    request_id: Option<String>,
    /// When it came.
    #[schema(example = "2026-11-30T05:17:07.123Z")]
    started_at: String,
    /// From there to the first token, milliseconds.
    first_token_ms: Option<u64>,
    /// From there to the end, milliseconds.
    total_ms: u64,
    /// Whether the answer was a stream.
    stream: bool,
    /// `completed`, `cancelled`, `failed`, `refused`, or `replayed` for a lost answer that was given again.
    outcome: String,
    /// The kind of error.
    error: Option<String>,
    /// Why the answer ended.
    finish_reason: Option<String>,
    #[serde(flatten)]
    tokens: Tokens,
    /// Who counted the tokens: `provider`, `engine` or `estimate`.
    usage_source: Option<String>,
    /// Charged.
    cost: Option<String>,
    /// What sending everything fresh would have cost more.
    saved: Option<String>,
    /// ISO 4217 code.
    currency: Option<String>,
    /// Who says what it cost: `provider` or `estimate`.
    cost_source: Option<String>,
    /// What the context's cache did: `hit`, `rebuilt`, `miss` or `degraded`.
    cache_status: Option<String>,
    /// Why it was no plain hit.
    cache_reason: Option<String>,
}

impl UsageGroup {
    pub(super) fn of(group_by: &[GroupBy], group: LedgerGroup) -> Self {
        let mut body = UsageGroup {
            totals: UsageTotals::of(&group.totals),
            ..UsageGroup::default()
        };
        for (by, key) in group_by.iter().zip(group.keys) {
            match (by, key) {
                (GroupBy::Day, GroupKey::Time(time)) => {
                    body.day = Some(rfc3339(time).chars().take(10).collect());
                }
                (GroupBy::Hour, GroupKey::Time(time)) => body.hour = Some(rfc3339(time)),
                (GroupBy::Project, GroupKey::Name(name)) => body.project = Some(name),
                (GroupBy::Key, GroupKey::Name(name)) => body.key = Some(present(name)),
                (GroupBy::Model, GroupKey::Name(name)) => body.model = Some(present(name)),
                (GroupBy::Upstream, GroupKey::Name(name)) => body.upstream = Some(present(name)),
                (GroupBy::Context, GroupKey::Name(name)) => body.context = Some(present(name)),
                // A store gives times for times and names for names.
                _ => {}
            }
        }
        body
    }
}

impl UsageTotals {
    pub(super) fn of(totals: &LedgerTotals) -> Self {
        let uses = totals.hits + totals.rebuilds + totals.misses + totals.degraded;
        UsageTotals {
            requests: totals.requests,
            completed: totals.completed,
            cancelled: totals.cancelled,
            failed: totals.failed,
            refused: totals.refused,
            hits: totals.hits,
            rebuilds: totals.rebuilds,
            misses: totals.misses,
            degraded: totals.degraded,
            hit_rate: match uses {
                0 => 0.0,
                uses => (totals.hits as f64 / uses as f64 * 10_000.0).round() / 10_000.0,
            },
            tokens: Tokens::of(&totals.usage),
            estimated: totals.estimated,
            money: totals.money.iter().map(Money::of).collect(),
        }
    }
}

impl Tokens {
    fn of(usage: &BilledUsage) -> Self {
        Tokens {
            input_tokens: usage.input_tokens,
            fresh_tokens: usage.fresh_tokens().unwrap_or(0),
            cached_tokens: usage.cache_read_tokens,
            cache_write_tokens: usage.cache_writes.total(),
            cache_writes: CacheWrites {
                m5: usage.cache_writes.m5,
                m30: usage.cache_writes.m30,
                h1: usage.cache_writes.h1,
                h12: usage.cache_writes.h12,
                other: usage.cache_writes.other,
            },
            output_tokens: usage.output_tokens,
            reasoning_tokens: usage.reasoning_tokens,
        }
    }
}

impl Money {
    fn of((currency, money): (&String, &LedgerMoney)) -> Self {
        Money {
            currency: currency.clone(),
            cost: decimal(money.cost),
            storage_cost: decimal(money.storage_cost),
            saved: decimal(money.saved),
        }
    }
}

impl RequestRow {
    pub(super) fn of(row: LedgerRecord) -> Self {
        let has_price = !row.currency.is_empty();
        let amount = |amount: i64| has_price.then(|| decimal(amount.into()));
        RequestRow {
            object: "usage.request",
            tokens: Tokens::of(&row.usage),
            cost: amount(row.cost),
            saved: amount(row.saved),
            started_at: rfc3339(row.started_at),
            id: row.id,
            kind: row.kind,
            project: row.project,
            key: row.key_id,
            surface: present(row.surface),
            endpoint: present(row.endpoint),
            model: present(row.model),
            requested_model: present(row.requested_model),
            upstream: row.upstream,
            upstream_model: row.upstream_model,
            context_id: row.context,
            answer_id: row.answer,
            request_id: present(row.request),
            first_token_ms: row.first_token_ms,
            total_ms: row.total_ms,
            stream: row.stream,
            outcome: row.outcome,
            error: row.error,
            finish_reason: row.finish_reason,
            usage_source: present(row.usage_source),
            currency: present(row.currency),
            cost_source: present(row.cost_source),
            cache_status: row.cache_status,
            cache_reason: row.cache_reason,
        }
    }
}

fn present(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// A time in UTC; milliseconds only where there are some.
pub(super) fn rfc3339(time: i64) -> String {
    Timestamp::from_millisecond(time).map_or_else(|_| time.to_string(), |time| time.to_string())
}

/// Trillionths as a decimal number without zeros at its end.
fn decimal(trillionths: i128) -> String {
    let sign = if trillionths < 0 { "-" } else { "" };
    let digits = format!(
        "{:0width$}",
        trillionths.unsigned_abs(),
        width = AMOUNT_DIGITS + 1
    );
    let (whole, part) = digits.split_at(digits.len() - AMOUNT_DIGITS);
    let part = part.trim_end_matches('0');
    if part.is_empty() {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        for (trillionths, text) in [
            (0, "0"),
            (1, "0.000000000001"),
            (-1, "-0.000000000001"),
            (1_250_000_000_000, "1.25"),
            (-12_000_000_000_000, "-12"),
            (100_000_000_000_000_000_000_000, "100000000000"),
        ] {
            assert_eq!(decimal(trillionths), text);
        }
    }
}
