#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use sqlx::Executor;
use tempfile::TempDir;

use super::*;
use crate::conformance::{
    self, LIFETIME, NOW, keys::sample_key, sample_append, sample_content, sample_context,
};
use crate::{ContextStore, KeyStore};

mod agreement;
mod audit;
mod damage;
mod erasure;
mod responses;
mod sealing;

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data").join("holdfast.db");
    (directory, path)
}

async fn opened() -> (TempDir, SqliteStore) {
    let (directory, path) = directory();
    (directory, SqliteStore::open(path).await.unwrap())
}

/// Statements no store method makes: faults and looks behind the scenes.
async fn run(store: &SqliteStore, statement: &'static str) {
    store.writer.execute(statement).await.unwrap();
}

async fn count(store: &SqliteStore, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement)
        .fetch_one(&store.readers)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_conform() {
    conformance::contexts(&opened().await.1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_conforms() {
    conformance::audit(&opened().await.1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_conform() {
    conformance::upstreams(&opened().await.1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_conform() {
    conformance::keys(&opened().await.1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_conform() {
    conformance::responses(&opened().await.1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_conforms() {
    conformance::ledger(&opened().await.1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_conform() {
    conformance::budgets(&opened().await.1).await;
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
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
    assert!(matches!(
        store.get("alpha", &context.id, NOW).await,
        Err(StoreError::Unavailable(_))
    ));

    // Twice: the migrations find nothing left to do.
    for _ in 0..2 {
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.get("alpha", &context.id, NOW).await.unwrap(), before);
        assert_eq!(before.expires_at, later);
        let content = store.content("alpha", &context.id).await.unwrap();
        assert_eq!(content.initial, sample_content().initial);
        assert_eq!(content.turns, std::slice::from_ref(&append.turn));
        assert_eq!(
            store.key_by_hash(&key.hash).await.unwrap(),
            Some(key.clone())
        );
        assert_eq!(
            count(&store, "SELECT count(*) FROM _sqlx_migrations").await,
            MIGRATOR.iter().count() as i64
        );
        store.close().await;
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_without_close() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let context = sample_context("alpha", NOW);
    store.insert(&context, &sample_content()).await.unwrap();
    // What a killed process leaves: the files as they are at this moment.
    let (_other_directory, copy) = directory();
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(with_suffix(&path, suffix), with_suffix(&copy, suffix)).unwrap();
    }
    let recovered = SqliteStore::open(&copy).await.unwrap();
    let stored = recovered.get("alpha", &context.id, NOW).await.unwrap();
    assert_eq!(stored, context);
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;

    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let context = sample_context("alpha", NOW);
    store.insert(&context, &sample_content()).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let files: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 3, "the database, its log and the log's index");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn connections_are_as_durable_and_as_clean_as_promised() {
    let (_directory, store) = opened().await;
    for (pragma, expected) in [
        ("PRAGMA synchronous", 2),
        ("PRAGMA foreign_keys", 1),
        ("PRAGMA secure_delete", 1),
    ] {
        let value: i64 = sqlx::query_scalar(pragma)
            .fetch_one(&store.writer)
            .await
            .unwrap();
        assert_eq!(value, expected, "{pragma}");
    }
    let journal_mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    assert_eq!(journal_mode, "wal");
    assert!(store.readers.execute("DELETE FROM contexts").await.is_err());
}

#[tokio::test]
async fn a_failed_insert_leaves_nothing_behind() {
    let (_directory, store) = opened().await;
    let first = sample_context("alpha", NOW);
    store.insert(&first, &sample_content()).await.unwrap();

    assert!(matches!(
        store.insert(&first, &sample_content()).await,
        Err(StoreError::Conflict)
    ));
    // Fails at its last statement, when the context and its content are already in the transaction.
    let mut twice = sample_content();
    twice.turns = vec![sample_append(1, NOW).turn, sample_append(1, NOW).turn];
    let second = sample_context("alpha", NOW);
    assert!(matches!(
        store.insert(&second, &twice).await,
        Err(StoreError::Conflict)
    ));
    let third = sample_context("alpha", NOW);
    let batch = [(third, sample_content()), (first.clone(), sample_content())];
    assert!(matches!(
        store.insert_many(&batch).await,
        Err(StoreError::Conflict)
    ));

    assert_eq!(count(&store, "SELECT count(*) FROM contexts").await, 1);
    assert_eq!(count(&store, "SELECT count(*) FROM contents").await, 1);
    assert_eq!(count(&store, "SELECT count(*) FROM turns").await, 0);
    store.insert(&second, &sample_content()).await.unwrap();
}

#[tokio::test]
async fn many_contexts_are_stored_at_once() {
    let (_directory, store) = opened().await;
    let batch: Vec<_> = (0..100)
        .map(|age| (sample_context("alpha", NOW + age), sample_content()))
        .collect();
    store.insert_many(&batch).await.unwrap();
    let page = store.list("alpha", None, 1000, NOW).await.unwrap();
    assert_eq!(page.contexts.len(), batch.len());
}

#[tokio::test]
async fn a_caller_who_gives_up_a_touch_does_not_stop_the_others() {
    let (_directory, store) = opened().await;
    let context = sample_context("alpha", NOW);
    store.insert(&context, &sample_content()).await.unwrap();
    let touch = |later| store.touch("alpha", &context.id, context.expires_at + later, NOW);

    let held = store.writer.acquire().await.unwrap();
    let mut abandoned = touch(1);
    let mut waiting = touch(2);
    tokio::select! {
        biased;
        _ = &mut abandoned => panic!("the writer is held"),
        _ = &mut waiting => panic!("the writer is held"),
        () = std::future::ready(()) => {}
    }
    drop(abandoned);
    drop(held);
    waiting.await.unwrap();
    let stored = store.get("alpha", &context.id, NOW).await.unwrap();
    assert_eq!(stored.expires_at, context.expires_at + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_who_gives_up_at_any_step_does_not_stop_the_others() {
    let (_directory, store) = opened().await;
    let context = sample_context("alpha", NOW);
    store.insert(&context, &sample_content()).await.unwrap();

    for step in 1..40 {
        let held = store.writer.acquire().await.unwrap();
        let expires_at = context.expires_at + 2 * step;
        let mut leader = Box::pin(store.touch("alpha", &context.id, expires_at - 1, NOW));
        let mut follower = Box::pin(store.touch("alpha", &context.id, expires_at, NOW));
        let mut polls_left = step;
        let mut held = Some(held);
        std::future::poll_fn(|task| {
            if leader.as_mut().poll(task).is_ready() {
                return std::task::Poll::Ready(());
            }
            let _ = held.take().is_some_and(|held| {
                let waits = follower.as_mut().poll(task).is_pending();
                drop(held);
                waits
            });
            polls_left -= 1;
            match polls_left {
                0 => std::task::Poll::Ready(()),
                _ => std::task::Poll::Pending,
            }
        })
        .await;
        drop(leader);
        follower.await.unwrap();
        let stored = store.get("alpha", &context.id, NOW).await.unwrap();
        assert_eq!(stored.expires_at, expires_at);
    }
}
