//! Servers that go away, come back, or fall silent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

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
    assert_unavailable(store.list_keys(None).await, "too busy");
    drop(held);
    store.list_keys(None).await.unwrap();
}

/// Passes bytes on between whoever connects and `server`, until it is told to swallow them.
async fn wire(server: String, is_cut: std::sync::Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let upstream = TcpStream::connect(&server).await.unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = upstream.into_split();
            tokio::spawn(pass(from_client, to_server, is_cut.clone()));
            tokio::spawn(pass(from_server, to_client, is_cut.clone()));
        }
    });
    port
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    is_cut: std::sync::Arc<AtomicBool>,
) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if is_cut.load(Ordering::Relaxed) {
            // As a network that has lost its way: neither an answer nor an end.
            std::future::pending::<()>().await;
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_holds_nobody_up_for_ever() {
    let mut options = options().await;
    let address = options.url.split('@').nth(1).unwrap();
    let server = address.split('/').next().unwrap().to_owned();
    let is_cut = std::sync::Arc::new(AtomicBool::new(false));
    let port = wire(server.clone(), is_cut.clone()).await;
    options.url = options.url.replace(&server, &format!("127.0.0.1:{port}"));
    options.connections_max = 2;
    options.connection_wait = Duration::from_millis(500);
    options.statement_time_max = Duration::from_millis(500);
    let store = PostgresStore::open(&options).await.unwrap();
    store.list_keys(None).await.unwrap();

    is_cut.store(true, Ordering::Relaxed);
    for _ in 0..4 {
        assert_unavailable(store.list_keys(None).await, "");
    }
    is_cut.store(false, Ordering::Relaxed);
    let began = Instant::now();
    while let Err(error) = store.list_keys(None).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(began.elapsed() < LONG, "it has come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
