//! Two implementations of the same sums, one by statements and one row by row, over the same many rows.

use holdfast_protocol::usage::{BilledUsage, CacheWrites};

use super::{DAY, sample_row};
use crate::conformance::NOW;
use crate::conformance::numbers::Numbers;
use crate::ledger::{GroupBy, LedgerFilter, LedgerRecord, LedgerStore, words};
use crate::{MemoryStore, StoreError};

/// By bytes their order is another one than in any language.
const NAMES: [&str; 9] = ["", "a", "B", "b", "\u{e4}", "Z", "_a", "a b", "\u{1F980}"];

fn name(numbers: &mut Numbers) -> String {
    numbers.one_of(&NAMES).to_owned()
}

fn maybe<T>(numbers: &mut Numbers, value: impl FnOnce(&mut Numbers) -> T) -> Option<T> {
    (numbers.below(3) > 0).then(|| value(numbers))
}

fn time(numbers: &mut Numbers) -> i64 {
    NOW + numbers.below(3 * DAY as u64) as i64 / 1000 * 1000
}

fn amount(numbers: &mut Numbers) -> i64 {
    let small = numbers.below(1_000_000_000_000) as i64;
    numbers.one_of(&[0, small, -small, i64::MAX, i64::MIN])
}

/// Few ids, so that many come again, and with other contents.
fn row(numbers: &mut Numbers) -> LedgerRecord {
    let outcomes = [
        words::COMPLETED,
        words::CANCELLED,
        words::FAILED,
        words::REFUSED,
        "replayed",
    ];
    let statuses = [
        words::HIT,
        words::REBUILT,
        words::MISS,
        words::DEGRADED,
        "unheard of",
    ];
    let mut tokens = || numbers.below(1 << 30) << 10;
    let usage = BilledUsage {
        input_tokens: tokens(),
        cache_read_tokens: tokens(),
        cache_writes: CacheWrites {
            m5: tokens(),
            m30: tokens(),
            h1: tokens(),
            h12: tokens(),
            other: tokens(),
        },
        output_tokens: tokens(),
        reasoning_tokens: tokens(),
    };
    LedgerRecord {
        id: format!("{}{}", name(numbers), numbers.below(60)),
        kind: numbers.one_of(&["chat", words::STORAGE]).to_owned(),
        project: name(numbers),
        key_id: maybe(numbers, name),
        model: name(numbers),
        upstream: maybe(numbers, name),
        context: maybe(numbers, name),
        started_at: time(numbers),
        first_token_ms: maybe(numbers, |numbers| numbers.below(5000)),
        stream: numbers.below(2) == 0,
        outcome: numbers.one_of(&outcomes).to_owned(),
        usage,
        usage_source: numbers.one_of(&["provider", words::ESTIMATE]).to_owned(),
        cost: amount(numbers),
        saved: amount(numbers),
        currency: numbers.one_of(&["", "CNY", "USD", "usd"]).to_owned(),
        cache_status: maybe(numbers, |numbers| numbers.one_of(&statuses).to_owned()),
        ..sample_row("", "", 0)
    }
}

/// Mostly open. What no row can have is asked for, too.
fn filter(numbers: &mut Numbers) -> LedgerFilter {
    let mut wanted = || match numbers.below(60) {
        0 => Some("a\0".to_owned()),
        1 => Some("nobody".to_owned()),
        2..=12 => Some(name(numbers)),
        _ => None,
    };
    LedgerFilter {
        project: wanted(),
        key_id: wanted(),
        model: wanted(),
        upstream: wanted(),
        context: wanted(),
        from: (numbers.below(4) == 0).then(|| time(numbers)),
        to: (numbers.below(4) == 0).then(|| time(numbers)),
    }
}

/// Goes through all pages of one query in both, and counts them.
async fn same_pages(
    (memory, store): (&MemoryStore, &dyn LedgerStore),
    filter: &LedgerFilter,
    group_by: Option<&[GroupBy]>,
    limit: u32,
) -> u32 {
    let mut pages = 0;
    let mut cursor: Option<String> = None;
    loop {
        let after = cursor.as_deref();
        let (expected, answered, next) = match group_by {
            Some(by) => {
                let expected = memory.query(filter, by, after, limit).await;
                let answered = store.query(filter, by, after, limit).await;
                let next = expected
                    .as_ref()
                    .ok()
                    .and_then(|page| page.next_cursor.clone());
                (format!("{expected:?}"), format!("{answered:?}"), next)
            }
            None => {
                let expected = memory.rows(filter, after, limit).await;
                let answered = store.rows(filter, after, limit).await;
                let next = expected
                    .as_ref()
                    .ok()
                    .and_then(|page| page.next_cursor.clone());
                (format!("{expected:?}"), format!("{answered:?}"), next)
            }
        };
        assert_eq!(
            expected, answered,
            "{filter:?} by {group_by:?}, page {pages}"
        );
        pages += 1;
        cursor = next;
        if cursor.is_none() {
            return pages;
        }
    }
}

/// Adds and erases rows that look random, and are the same in every run, in `store`, which is empty, and in a
/// `MemoryStore`: both give the same pages of the same sums and rows after each of `steps` steps.
pub async fn agrees_with_memory(store: &dyn LedgerStore, steps: u32) {
    let memory = MemoryStore::new();
    let mut numbers = Numbers(11);
    let mut pages = 0;
    let mut erased = 0;
    for number in 0..steps {
        let rows: Vec<LedgerRecord> = (0..numbers.below(12)).map(|_| row(&mut numbers)).collect();
        memory.append(&rows).await.expect("memory takes rows");
        store.append(&rows).await.expect("rows are added");
        if numbers.below(5) == 0 {
            let (time, limit) = (time(&mut numbers), numbers.below(9) as u32);
            let expected = memory.erase_before(time, limit).await;
            let answered = store.erase_before(time, limit).await;
            assert_eq!(
                format!("{expected:?}"),
                format!("{answered:?}"),
                "step {number}"
            );
            erased += expected.expect("memory erases rows");
        }
        let both = (&memory, store);
        let filter = filter(&mut numbers);
        let group_by: Vec<GroupBy> = (0..numbers.below(4))
            .map(|_| numbers.one_of(&GroupBy::ALL))
            .collect();
        let limit = numbers.one_of(&[0, 1, 7, 40, 300, u32::MAX]);
        // One at a time is for short lists.
        let limit = if number < 10 { limit } else { limit.max(7) };
        pages += same_pages(both, &filter, Some(&group_by), limit).await;
        pages += same_pages(both, &filter, None, limit).await;
    }
    assert!(pages > 3 * steps, "there was more than one page: {pages}");
    assert!(erased > u64::from(steps / 4), "rows were erased: {erased}");
}

/// For databases: what 64 bits with a sign can't hold is refused, neither cut off nor wrapped around.
pub async fn too_many_tokens_are_refused(store: &dyn LedgerStore) {
    let row = |id: &str, output_tokens: u64| LedgerRecord {
        usage: BilledUsage {
            output_tokens,
            ..BilledUsage::default()
        },
        ..sample_row("tokens", id, NOW)
    };
    let most = i64::MAX.unsigned_abs();
    let beyond = store.append(&[row("1", 1), row("2", most + 1)]).await;
    assert!(matches!(beyond, Err(StoreError::Corrupt(_))), "{beyond:?}");
    let all = LedgerFilter::default();
    let nothing = store.rows(&all, None, 10).await.expect("rows are read");
    assert_eq!(nothing.rows, [], "all rows are added or none");

    let rows = [row("1", most), row("2", 1)];
    store.append(&rows).await.expect("rows are added");
    let sums = store.query(&all, &[], None, 10).await;
    assert!(matches!(sums, Err(StoreError::Corrupt(_))), "{sums:?}");
    let back = store.rows(&all, None, 10).await.expect("rows are read");
    assert_eq!(back.rows.len(), 2, "each by itself can be read");
}
