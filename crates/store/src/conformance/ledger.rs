//! The ledger.

use std::collections::BTreeSet;

use holdfast_protocol::usage::{BilledUsage, CacheWrites};

use super::{NOW, in_parallel};
use crate::StoreError;
use crate::ledger::{
    GroupBy, GroupKey, LedgerFilter, LedgerGroup, LedgerRecord, LedgerStore, LedgerTotals, words,
};

pub mod agreement;

const DAY: i64 = 86_400_000;

/// A row of `project` with every field set.
pub fn sample_row(project: &str, id: &str, started_at: i64) -> LedgerRecord {
    LedgerRecord {
        id: format!("{project}-{id}"),
        kind: "chat".to_owned(),
        project: project.to_owned(),
        key_id: Some("key-1".to_owned()),
        surface: "openai".to_owned(),
        endpoint: "/v1/chat/completions".to_owned(),
        model: "model-a".to_owned(),
        requested_model: "models/Model \u{1F980}".to_owned(),
        upstream: Some("upstream-a".to_owned()),
        upstream_model: Some("vendor/model".to_owned()),
        context: Some("ctx-1".to_owned()),
        answer: Some("chatcmpl-1".to_owned()),
        request: "req-1".to_owned(),
        started_at,
        first_token_ms: Some(12),
        total_ms: 345,
        stream: true,
        outcome: words::COMPLETED.to_owned(),
        error: Some("none really".to_owned()),
        finish_reason: Some("stop".to_owned()),
        usage: BilledUsage {
            input_tokens: u64::from(u32::MAX) + 1000,
            cache_read_tokens: 100,
            cache_writes: CacheWrites {
                m5: 1,
                m30: 2,
                h1: 3,
                h12: 4,
                other: 5,
            },
            output_tokens: 20,
            reasoning_tokens: 7,
        },
        usage_source: "provider".to_owned(),
        cost: 1_234_567_890_123,
        saved: -99,
        currency: "USD".to_owned(),
        cost_source: "estimate".to_owned(),
        cache_status: Some(words::HIT.to_owned()),
        cache_reason: Some("a reason".to_owned()),
    }
}

fn of(project: &str) -> LedgerFilter {
    LedgerFilter {
        project: Some(project.to_owned()),
        ..LedgerFilter::default()
    }
}

async fn append(store: &dyn LedgerStore, rows: &[LedgerRecord]) {
    store.append(rows).await.expect("rows are added");
}

async fn all(store: &dyn LedgerStore, filter: &LedgerFilter) -> Vec<LedgerRecord> {
    let page = store.rows(filter, None, 10_000).await;
    page.expect("rows are read").rows
}

async fn total(store: &dyn LedgerStore, filter: &LedgerFilter) -> LedgerTotals {
    let page = store.query(filter, &[], None, 10).await;
    let mut page = page.expect("sums are made");
    assert_eq!(page.groups.len(), 1, "one group over all");
    assert_eq!(page.next_cursor, None);
    page.groups.remove(0).totals
}

async fn grouped(
    store: &dyn LedgerStore,
    filter: &LedgerFilter,
    group_by: &[GroupBy],
    limit: u32,
) -> Vec<LedgerGroup> {
    let mut groups = Vec::new();
    let mut cursor = None;
    loop {
        let page = store
            .query(filter, group_by, cursor.as_deref(), limit)
            .await
            .expect("groups are made");
        assert!(page.groups.len() <= limit as usize);
        groups.extend(page.groups);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return groups;
        }
    }
}

fn name(text: &str) -> GroupKey {
    GroupKey::Name(text.to_owned())
}

/// Nothing of a row is lost, whatever is absent.
pub async fn a_row_reads_back_whole(store: &dyn LedgerStore) {
    let full = sample_row("whole", "b", NOW);
    let bare = LedgerRecord {
        id: "whole-a".to_owned(),
        project: "whole".to_owned(),
        started_at: NOW,
        ..LedgerRecord::default()
    };
    append(store, &[bare.clone(), full.clone()]).await;
    assert_eq!(all(store, &of("whole")).await, [full, bare]);
    append(store, &[]).await;
}

/// A row that comes again, alone or among new ones, is not counted twice.
pub async fn a_row_counts_once(store: &dyn LedgerStore) {
    let first = sample_row("once", "1", NOW);
    let changed = LedgerRecord {
        cost: 1,
        started_at: NOW + 1,
        ..first.clone()
    };
    append(store, &[first.clone(), first.clone()]).await;
    append(store, &[changed, sample_row("once", "2", NOW)]).await;
    let sums = total(store, &of("once")).await;
    assert_eq!(sums.requests, 2);
    assert_eq!(sums.money["USD"].cost, 2 * i128::from(first.cost));
    assert!(all(store, &of("once")).await.contains(&first));
}

/// However many bring the same rows at once.
pub fn parallel_appends_count_once(store: &dyn LedgerStore) {
    let rows: Vec<LedgerRecord> = (0..20)
        .map(|number| sample_row("parallel", &number.to_string(), NOW))
        .collect();
    in_parallel(8, async |_| append(store, &rows).await);
    let sums = in_parallel(1, async |_| total(store, &of("parallel")).await);
    assert_eq!(sums[0].requests, 20);
}

/// Sums are those of the rows, in each currency, and beyond 64 bits.
pub async fn sums_are_those_of_the_rows(store: &dyn LedgerStore) {
    let row = |id: &str| sample_row("sums", id, NOW);
    let rows = [
        row("1"),
        LedgerRecord {
            outcome: words::CANCELLED.to_owned(),
            cache_status: Some(words::MISS.to_owned()),
            usage_source: words::ESTIMATE.to_owned(),
            cost: i64::MAX,
            saved: i64::MIN,
            ..row("2")
        },
        LedgerRecord {
            outcome: words::FAILED.to_owned(),
            cache_status: Some(words::REBUILT.to_owned()),
            cost: i64::MAX,
            saved: i64::MIN,
            ..row("3")
        },
        LedgerRecord {
            outcome: words::REFUSED.to_owned(),
            cache_status: Some(words::DEGRADED.to_owned()),
            currency: "CNY".to_owned(),
            ..row("4")
        },
        LedgerRecord {
            currency: String::new(),
            cost: 0,
            saved: 0,
            ..row("5")
        },
        LedgerRecord {
            kind: words::STORAGE.to_owned(),
            key_id: None,
            cost: 77,
            saved: -77,
            ..row("6")
        },
    ];
    append(store, &rows).await;
    let mut expected = LedgerTotals::default();
    for row in &rows {
        expected.add(&LedgerTotals::of(row));
    }
    assert_eq!(expected.requests, 5);
    assert_eq!(expected.money["USD"].storage_cost, 77);
    assert_eq!(total(store, &of("sums")).await, expected);
    let groups = grouped(store, &of("sums"), &[GroupBy::Model], 1).await;
    assert_eq!(groups.len(), 1, "currencies make no groups");
    assert_eq!(groups[0].totals, expected);
    let none = total(store, &of("nobody")).await;
    assert_eq!(none, LedgerTotals::default());
}

/// By time and by every name, in order, with each row in one group, and in pages of any size.
pub async fn groups_are_complete_and_in_order(store: &dyn LedgerStore) {
    let noon = NOW - NOW.rem_euclid(DAY) + DAY / 2;
    let mut rows = Vec::new();
    for day in 0..3 {
        for (number, model) in ["b", "a", ""].into_iter().enumerate() {
            rows.push(LedgerRecord {
                model: model.to_owned(),
                upstream: (number > 0).then(|| format!("up-{number}")),
                key_id: (number < 2).then(|| format!("key-{number}")),
                context: (number == 1).then(|| "ctx-9".to_owned()),
                ..sample_row("groups", &format!("{day}-{number}"), noon + day * DAY)
            });
        }
    }
    append(store, &rows).await;
    let filter = of("groups");
    let days = grouped(store, &filter, &[GroupBy::Day], 10).await;
    let starts: Vec<GroupKey> = days.iter().map(|group| group.keys[0].clone()).collect();
    let midnight = noon - DAY / 2;
    assert_eq!(
        starts,
        [0, 1, 2].map(|day| GroupKey::Time(midnight + day * DAY))
    );
    assert_eq!(days[0].totals.requests, 2, "one of three is nobody's");
    let hours = grouped(store, &filter, &[GroupBy::Hour], 10).await;
    assert_eq!(hours[0].keys, [GroupKey::Time(noon)]);
    let upstreams = grouped(store, &filter, &[GroupBy::Upstream], 10).await;
    let names: Vec<&GroupKey> = upstreams.iter().map(|group| &group.keys[0]).collect();
    assert_eq!(names, [&name(""), &name("up-1"), &name("up-2")]);
    for by in [GroupBy::Key, GroupBy::Context, GroupBy::Project] {
        let groups = grouped(store, &filter, &[by], 10).await;
        let expected = match by {
            GroupBy::Key => 3,
            GroupBy::Context => 2,
            _ => 1,
        };
        assert_eq!(groups.len(), expected, "{by:?}");
    }
    let by = [GroupBy::Model, GroupBy::Day];
    let whole = grouped(store, &filter, &by, 100).await;
    assert_eq!(whole.len(), 9);
    assert_eq!(whole[0].keys, [name(""), GroupKey::Time(midnight)]);
    assert!(whole.is_sorted_by(|a, b| a.keys < b.keys));
    for limit in 1..=9 {
        let paged = grouped(store, &filter, &by, limit).await;
        assert_eq!(paged, whole, "pages of {limit}");
    }
    let wrong = store.query(&filter, &by, Some("nonsense"), 1).await;
    assert!(matches!(wrong, Err(StoreError::NotFound)), "{wrong:?}");
}

/// Single rows come latest first, each once, also those that began together.
pub async fn rows_are_paged_latest_first(store: &dyn LedgerStore) {
    let mut rows = Vec::new();
    for number in 0..10 {
        rows.push(sample_row("paged", &number.to_string(), NOW + number / 3));
    }
    append(store, &rows).await;
    rows.reverse();
    for limit in [1, 2, 3, 4, 9, 10, 11] {
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = store.rows(&of("paged"), cursor.as_deref(), limit).await;
            let page = page.expect("rows are read");
            assert!(page.rows.len() <= limit as usize);
            seen.extend(page.rows);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
            // What comes later disturbs no page.
            let id = format!("later-{limit}-{}", seen.len());
            append(store, &[sample_row("paged", &id, NOW + DAY)]).await;
        }
        seen.retain(|row| row.started_at < NOW + DAY);
        assert_eq!(seen, rows, "pages of {limit}");
    }
    let wrong = store.rows(&of("paged"), Some("nonsense"), 1).await;
    assert!(matches!(wrong, Err(StoreError::NotFound)), "{wrong:?}");
}

/// Every field of a filter leaves out what it says, and times are half open.
pub async fn filters_leave_out_the_rest(store: &dyn LedgerStore) {
    let other = LedgerRecord {
        key_id: None,
        model: "model-b".to_owned(),
        upstream: None,
        context: None,
        ..sample_row("filters", "2", NOW + 10)
    };
    append(store, &[sample_row("filters", "1", NOW), other]).await;
    let some = |text: &str| Some(text.to_owned());
    let base = of("filters");
    let filters = [
        LedgerFilter {
            to: Some(NOW + 10),
            ..base.clone()
        },
        LedgerFilter {
            from: Some(NOW),
            to: Some(NOW + 1),
            ..base.clone()
        },
        LedgerFilter {
            key_id: some("key-1"),
            ..base.clone()
        },
        LedgerFilter {
            model: some("model-a"),
            ..base.clone()
        },
        LedgerFilter {
            upstream: some("upstream-a"),
            ..base.clone()
        },
        LedgerFilter {
            context: some("ctx-1"),
            ..base.clone()
        },
    ];
    for filter in filters {
        let rows = all(store, &filter).await;
        assert_eq!(rows.len(), 1, "{filter:?}");
        assert_eq!(rows[0].id, "filters-1", "{filter:?}");
        assert_eq!(total(store, &filter).await, LedgerTotals::of(&rows[0]));
    }
    let later = LedgerFilter {
        from: Some(NOW + 1),
        ..base.clone()
    };
    assert_eq!(all(store, &later).await[0].id, "filters-2");
    let projects: BTreeSet<String> = all(store, &LedgerFilter::default())
        .await
        .into_iter()
        .map(|row| row.project)
        .collect();
    assert!(projects.len() > 1, "without a project it is everybody's");
}

/// The oldest go first, no more than were asked for, and none that is not old enough. Run it last.
pub async fn the_old_are_erased(store: &dyn LedgerStore) {
    let rows: Vec<LedgerRecord> = (1..=5)
        .map(|number| sample_row("old", &number.to_string(), number))
        .collect();
    append(store, &rows).await;
    let erase = async |time, limit| {
        let erased = store.erase_before(time, limit).await;
        erased.expect("rows are erased")
    };
    assert_eq!(erase(4, 2).await, 2);
    let left: Vec<i64> = (all(store, &of("old")).await.iter())
        .map(|row| row.started_at)
        .collect();
    assert_eq!(left, [5, 4, 3]);
    assert_eq!(erase(4, 100).await, 1);
    assert_eq!(erase(4, 100).await, 0);
    assert_eq!(all(store, &of("old")).await.len(), 2);
}
