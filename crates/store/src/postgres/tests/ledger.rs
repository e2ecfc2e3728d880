//! The ledger as in memory, many rows at a time, and several replicas that write and erase at once.

use std::sync::Arc;

use super::*;
use crate::conformance::ledger::agreement::{agrees_with_memory, too_many_tokens_are_refused};
use crate::conformance::ledger::sample_row;
use crate::{LedgerFilter, LedgerRecord, LedgerStore};

fn sample_rows(number: i64) -> Vec<LedgerRecord> {
    (0..number)
        .map(|number| sample_row("alpha", &number.to_string(), NOW + number))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_conforms() {
    conformance::ledger(&opened().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_conform() {
    conformance::budgets(&opened().await).await;
}

#[tokio::test]
async fn the_ledger_is_as_in_memory_at_every_step() {
    agrees_with_memory(&opened().await, 200).await;
}

#[tokio::test]
async fn more_tokens_than_can_be_counted_are_refused() {
    too_many_tokens_are_refused(&opened().await).await;
}

#[tokio::test]
async fn any_number_of_rows_is_added_and_erased() {
    let store = opened().await;
    // More values than a statement can have, and more rows than are erased at once.
    let rows = sample_rows(12_000);
    for _ in 0..2 {
        store.append(&rows).await.unwrap();
        assert_eq!(count(&store, "SELECT count(*) FROM ledger").await, 12_000);
    }
    assert_eq!(store.erase_before(i64::MAX, 11_000).await.unwrap(), 11_000);
    let left = count(&store, "SELECT min(started_at) FROM ledger").await;
    assert_eq!(left, NOW + 11_000, "the oldest went first");
    assert_eq!(store.erase_before(NOW, u32::MAX).await.unwrap(), 0);
    let erased = store.erase_before(i64::MAX, u32::MAX).await.unwrap();
    assert_eq!(erased, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_rows_in_other_orders_are_no_deadlock() {
    let options = options().await;
    let database = options.url.rsplit('/').next().unwrap();
    // A deadlock that nobody resolves is an error, instead of a retry that goes unnoticed.
    let unresolved = format!("ALTER DATABASE {database} SET deadlock_timeout = '1h'");
    let server = PostgresServer::shared();
    server.run_sql("postgres", &unresolved).await;
    let store = Arc::new(PostgresStore::open(&options).await.unwrap());
    for round in 0..20 {
        let mut appending = JoinSet::new();
        for task in 0..8 {
            let mut rows: Vec<LedgerRecord> = (0..100)
                .map(|number| sample_row("alpha", &format!("{round}-{number}"), NOW))
                .collect();
            rows.rotate_left(task * 12);
            if task % 2 == 0 {
                rows.reverse();
            }
            let store = store.clone();
            appending.spawn(async move { store.append(&rows).await });
        }
        while let Some(appended) = appending.join_next().await {
            appended.unwrap().unwrap();
        }
    }
    assert_eq!(count(&store, "SELECT count(*) FROM ledger").await, 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_erase_at_once_count_each_row_once() {
    let store = Arc::new(opened().await);
    store.append(&sample_rows(3000)).await.unwrap();
    let mut erasing = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        erasing.spawn(async move {
            let mut erased = 0;
            for _ in 0..30 {
                erased += store.erase_before(NOW + 2500, 20).await.unwrap();
            }
            erased
        });
    }
    let mut erased = 0;
    while let Some(by_one) = erasing.join_next().await {
        erased += by_one.unwrap();
    }
    erased += store.erase_before(NOW + 2500, u32::MAX).await.unwrap();
    assert_eq!(erased, 2500);
    assert_eq!(count(&store, "SELECT count(*) FROM ledger").await, 500);
}

#[tokio::test]
async fn unreadable_rows_of_the_ledger_are_corrupt() {
    let all = LedgerFilter::default();
    for damage in [
        "UPDATE ledger SET total_ms = -1",
        "UPDATE ledger SET first_token_ms = -1",
        "UPDATE ledger SET output_tokens = -1",
        "ALTER TABLE ledger ALTER saved TYPE NUMERIC; UPDATE ledger SET saved = 0.5",
    ] {
        let store = opened().await;
        store.append(&sample_rows(1)).await.unwrap();
        run(&store, damage).await;
        assert_corrupt(store.rows(&all, None, 10).await, "column");
        if !damage.contains("_ms") {
            assert_corrupt(store.query(&all, &[], None, 10).await, "column");
        }
        store.close().await;
    }
}
