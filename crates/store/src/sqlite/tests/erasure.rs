//! Deleted means gone: not in the database file, not in its log.

use holdfast_protocol::{Message, Role};

use super::*;

const MARK: &str = "the-customers-own-words";

fn marks(path: &Path) -> usize {
    occurrences(path, MARK)
}

/// In the database file and its log.
pub(super) fn occurrences(path: &Path, mark: &str) -> usize {
    ["", "-wal"]
        .iter()
        .filter_map(|suffix| fs::read(with_suffix(path, suffix)).ok())
        .map(|bytes| {
            let windows = bytes.windows(mark.len());
            windows.filter(|window| *window == mark.as_bytes()).count()
        })
        .sum()
}

/// Contexts of many sizes, so that some rows share a page and some fill several.
async fn marked(store: &SqliteStore) -> Vec<Context> {
    let mut contexts = Vec::new();
    for number in 0..60_u32 {
        let context = sample_context("alpha", NOW + i64::from(number));
        let mut content = sample_content();
        let text = MARK.repeat(1 + (number as usize * 37) % 500);
        content.initial[0] = Message::text(Role::User, text);
        store.insert(&context, &content).await.unwrap();
        let mut append = sample_append(1, NOW);
        append.turn.messages[0].message = Message::text(Role::User, MARK);
        store
            .append_turn("alpha", &context.id, 1, &append, NOW)
            .await
            .unwrap();
        contexts.push(context);
    }
    contexts
}

#[tokio::test]
async fn deleted_content_is_in_no_file() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let contexts = marked(&store).await;
    assert!(
        marks(&path) > contexts.len(),
        "it is stored as readable text"
    );
    // In an order that leaves gaps, so that SQLite moves rows between pages on the way.
    for step in 0..contexts.len() {
        let context = &contexts[(step * 7) % contexts.len()];
        store.delete("alpha", &context.id, NOW).await.unwrap();
    }
    assert_eq!(count(&store, "SELECT count(*) FROM turns").await, 0);
    assert_eq!(marks(&path), 0);
}

#[tokio::test]
async fn swept_content_is_in_no_file() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let contexts = marked(&store).await;
    let later = NOW + 10 * LIFETIME;
    let mut swept = 0;
    while swept < contexts.len() {
        swept += store.sweep(later, 7).await.unwrap().len();
    }
    assert_eq!(marks(&path), 0);
}

#[tokio::test]
async fn a_reader_in_the_way_only_delays_it() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let contexts = marked(&store).await;
    let mut reader = SqliteConnectOptions::new()
        .filename(&path)
        .connect()
        .await
        .unwrap();
    reader.execute("BEGIN").await.unwrap();
    reader
        .execute("SELECT count(*) FROM contexts")
        .await
        .unwrap();
    for context in &contexts[..2] {
        store.delete("alpha", &context.id, NOW).await.unwrap();
    }
    for context in &contexts[2..] {
        sqlx::query("DELETE FROM contexts WHERE id = ?")
            .bind(context.id.as_str())
            .execute(&store.writer)
            .await
            .unwrap();
    }
    assert!(marks(&path) > 0, "the reader still sees them");
    reader.execute("ROLLBACK").await.unwrap();

    assert_eq!(store.sweep(NOW, 10).await.unwrap(), []);
    assert_eq!(marks(&path), 0, "the next sweep catches up");
}
