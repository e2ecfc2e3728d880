//! Servers that go away, come back, or fall silent.

use std::time::Instant;

use super::*;
use crate::conformance::proxy::{Proxy, Wire};

/// Beyond anything that a machine at work needs, and below what a defect would take.
const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_said_to_be_away_and_is_found_again() {
    let mut server = PostgresServer::start();
    let mut options = PostgresOptions::new(server.database().await);
    options.connection_wait = LONG;
    let store = PostgresStore::open(&options).await.unwrap();
    let context = sample_context("alpha", NOW);
    store.insert(&context, &sample_content()).await.unwrap();

    server.stop();
    // Whatever connection is met first, in the end it is known that there is no server; and then nobody waits.
    let began = Instant::now();
    loop {
        match store.get("alpha", &context.id, NOW).await {
            Err(StoreError::Unavailable(reason)) if reason.contains("can't be reached") => break,
            Err(StoreError::Unavailable(_)) => assert!(began.elapsed() < LONG),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        began.elapsed() < LONG,
        "it was noticed before the wait was over"
    );
    let began = Instant::now();
    for _ in 0..1000 {
        let refused = store.touch("alpha", &context.id, NOW + 2 * LIFETIME, NOW);
        assert_unavailable(refused.await, "can't be reached");
    }
    assert!(
        began.elapsed() < LONG,
        "nobody waits for a server that is away"
    );

    server.start_again();
    let began = Instant::now();
    let stored = loop {
        match store.get("alpha", &context.id, NOW).await {
            Ok(stored) => break stored,
            Err(StoreError::Unavailable(_)) => assert!(began.elapsed() < LONG),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(stored, context);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_idled_through_a_restart_are_replaced_unnoticed() {
    let mut server = PostgresServer::start();
    let options = PostgresOptions::new(server.database().await);
    let store = PostgresStore::open(&options).await.unwrap();
    let context = sample_context("alpha", NOW);
    store.insert(&context, &sample_content()).await.unwrap();
    server.stop();
    server.start_again();
    tokio::time::sleep(reach::IDLE_TRUSTED).await;
    let stored = store.get("alpha", &context.id, NOW).await.unwrap();
    assert_eq!(stored, context);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_pool_is_not_taken_for_an_outage() {
    let mut options = options().await;
    options.connections_max = 1;
    options.connection_wait = Duration::from_millis(700);
    let store = PostgresStore::open(&options).await.unwrap();
    let held = store.pool.acquire().await.unwrap();
    assert_unavailable(store.page_keys(None, None, 1000).await, "too busy");
    drop(held);
    store.page_keys(None, None, 1000).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_holds_nobody_up_for_ever() {
    let mut options = options().await;
    let address = options.url.split('@').nth(1).unwrap();
    let server = address.split('/').next().unwrap().to_owned();
    let proxy = Proxy::start(&server).await;
    options.url = options.url.replace(&server, &proxy.address.to_string());
    options.connections_max = 2;
    options.connection_wait = Duration::from_millis(500);
    options.statement_time_max = Duration::from_millis(500);
    let store = PostgresStore::open(&options).await.unwrap();
    store.page_keys(None, None, 1000).await.unwrap();

    proxy.set(Wire::Stall);
    for _ in 0..4 {
        assert_unavailable(store.page_keys(None, None, 1000).await, "");
    }
    proxy.set(Wire::Pass);
    let began = Instant::now();
    while let Err(error) = store.page_keys(None, None, 1000).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(began.elapsed() < LONG, "it has come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
