#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use holdfast_protocol::Context;
use sqlx::Executor;
use tokio::task::JoinSet;

use super::*;
use crate::conformance::postgres_server::{PASSWORD, PostgresServer};
use crate::conformance::responses::agreement::agrees_with_memory;
use crate::conformance::{
    self, LIFETIME, NOW, keys::sample_key, sample_append, sample_content, sample_context,
};
use crate::{ContextStore, KeyStore};

mod audit;
mod database;
mod failures;
mod ledger;
mod outage;
mod races;
mod sealing;

async fn options() -> PostgresOptions {
    PostgresOptions::new(PostgresServer::shared().database().await)
}

async fn opened() -> PostgresStore {
    PostgresStore::open(&options().await).await.unwrap()
}

/// Statements no store method makes: faults and looks behind the scenes.
async fn run(store: &PostgresStore, statement: &str) {
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    // Without values a text may have several statements.
    store.pool.execute(sqlx::raw_sql(statement)).await.unwrap();
}

async fn count(store: &PostgresStore, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement)
        .fetch_one(&store.pool)
        .await
        .unwrap()
}

#[track_caller]
fn assert_corrupt<T>(result: Result<T, StoreError>, about: &str) {
    match result {
        Err(StoreError::Corrupt(reason)) => assert!(reason.contains(about), "{reason}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[track_caller]
fn assert_unavailable<T>(result: Result<T, StoreError>, about: &str) {
    match result {
        Err(StoreError::Unavailable(reason)) => assert!(reason.contains(about), "{reason}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_conform() {
    conformance::contexts(&opened().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_conforms() {
    conformance::audit(&opened().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_conform() {
    conformance::upstreams(&opened().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_conform() {
    conformance::keys(&opened().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_conform() {
    conformance::responses(&opened().await).await;
}

#[tokio::test]
async fn trees_are_as_in_memory_at_every_step() {
    let store = opened().await;
    let mut most = 0;
    agrees_with_memory(&store, 1000, async || {
        let kept = count(&store, "SELECT count(*) FROM responses WHERE kept").await;
        most = most.max(kept);
    })
    .await;
    assert!(most > 9, "trees were large enough to matter: {most}");
    let unneeded = "SELECT count(*) FROM responses WHERE kept \
                    AND sequence NOT IN (SELECT previous FROM responses WHERE previous IS NOT NULL)";
    assert_eq!(count(&store, unneeded).await, 0);
}

#[tokio::test]
async fn a_long_chain_goes_at_once() {
    use crate::{Chain, ResponseStore, ResponseUsage};

    let store = opened().await;
    // Everything but the last has been deleted before.
    run(
        &store,
        "INSERT INTO responses (sequence, id, project, previous, tree, kept, created_at, expires_at, bytes, model, \
         messages, input, body) OVERRIDING SYSTEM VALUE \
         SELECT n, 'resp_' || n, 'alpha', nullif(n - 1, 0), CASE WHEN n > 1 THEN 1 END, n < 5000, \
         0, 9000000000000, 2, 'm', '[]', '', '' FROM generate_series(1, 5000) AS n",
    )
    .await;
    let last = "resp_5000";
    let chain = store.chain("alpha", last, NOW, 5000, u64::MAX).await;
    assert!(matches!(chain.unwrap(), Chain::Whole(links) if links.len() == 5000));
    let too_long = store.chain("alpha", last, NOW, 4999, u64::MAX).await;
    assert_eq!(too_long.unwrap(), Chain::TooLong);
    let usage = store.responses_usage("alpha").await.unwrap();
    assert_eq!((usage.responses, usage.bytes), (5000, 10_000));
    store.delete_response("alpha", last, NOW).await.unwrap();
    assert_eq!(count(&store, "SELECT count(*) FROM responses").await, 0);
    let usage = store.responses_usage("alpha").await.unwrap();
    assert_eq!(usage, ResponseUsage::default());
    store.sweep_responses(NOW, 1).await.unwrap();
    let rows = count(&store, "SELECT count(*) FROM response_usage").await;
    assert_eq!(rows, 0, "what adds up to nothing is not kept");
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let options = options().await;
    let store = PostgresStore::open(&options).await.unwrap();
    let context = sample_context("alpha", NOW);
    let append = sample_append(1, NOW);
    let mut key = sample_key("alpha", 1, NOW);
    store.insert(&context, &sample_content()).await.unwrap();
    store
        .append_turn("alpha", &context.id, 1, &append, NOW)
        .await
        .unwrap();
    let later = NOW + 2 * LIFETIME;
    store.touch("alpha", &context.id, later, NOW).await.unwrap();
    store.ensure_project("alpha", NOW).await.unwrap();
    store.insert_key(&key).await.unwrap();
    key = store.revoke_key(&key.id, NOW).await.unwrap();
    let before = store.get("alpha", &context.id, NOW).await.unwrap();
    store.close().await;
    assert_unavailable(store.get("alpha", &context.id, NOW).await, "closed");

    // Twice: the migrations find nothing left to do.
    for _ in 0..2 {
        let store = PostgresStore::open(&options).await.unwrap();
        assert_eq!(store.get("alpha", &context.id, NOW).await.unwrap(), before);
        assert_eq!(before.expires_at, later);
        let content = store.content("alpha", &context.id).await.unwrap();
        assert_eq!(content.initial, sample_content().initial);
        assert_eq!(content.turns, std::slice::from_ref(&append.turn));
        assert_eq!(
            store.key_by_hash(&key.hash).await.unwrap(),
            Some(key.clone())
        );
        store.close().await;
    }
}

#[tokio::test]
async fn what_one_store_writes_another_reads_at_once() {
    let options = options().await;
    let one = PostgresStore::open(&options).await.unwrap();
    let other = PostgresStore::open(&options).await.unwrap();
    assert!(one.is_shared());
    let context = sample_context("alpha", NOW);
    one.insert(&context, &sample_content()).await.unwrap();
    assert_eq!(other.get("alpha", &context.id, NOW).await.unwrap(), context);
    let append = sample_append(1, NOW);
    let appended = other.append_turn("alpha", &context.id, 1, &append, NOW);
    appended.await.unwrap();
    let stale = one.append_turn("alpha", &context.id, 1, &append, NOW).await;
    assert!(matches!(stale, Err(StoreError::Conflict)));
    let content = one.content("alpha", &context.id).await.unwrap();
    assert_eq!(content.turns, [append.turn]);
    other.delete("alpha", &context.id, NOW).await.unwrap();
    let gone = one.get("alpha", &context.id, NOW).await;
    assert!(matches!(gone, Err(StoreError::NotFound)));
    let nothing = "SELECT (SELECT count(*) FROM contents) + (SELECT count(*) FROM turns)";
    assert_eq!(count(&one, nothing).await, 0);
}

#[tokio::test]
async fn connections_are_as_durable_and_as_bounded_as_promised() {
    let mut options = options().await;
    options.statement_time_max = Duration::from_millis(1234);
    // As a careless administrator may have set it.
    let database = options.url.rsplit('/').next().unwrap();
    for statement in [
        "SET synchronous_commit = off",
        "SET default_transaction_isolation = 'serializable'",
    ] {
        let statement = format!("ALTER DATABASE {database} {statement}");
        PostgresServer::shared()
            .run_sql("postgres", &statement)
            .await;
    }
    let store = PostgresStore::open(&options).await.unwrap();
    for (setting, expected) in [
        ("SHOW synchronous_commit", "on"),
        ("SHOW statement_timeout", "1234ms"),
        ("SHOW lock_timeout", "1234ms"),
        ("SHOW transaction_isolation", "read committed"),
        ("SHOW application_name", "holdfast"),
    ] {
        let value: String = sqlx::query_scalar(setting)
            .fetch_one(&store.pool)
            .await
            .unwrap();
        assert_eq!(value, expected, "{setting}");
    }
    let slow = sqlx::query("SELECT pg_sleep(60)")
        .execute(&store.pool)
        .await;
    assert_unavailable(slow.map_err(failure::failure), "took too long");
}
