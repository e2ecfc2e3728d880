//! With a data key nobody reads in the tables what clients said, whatever it was sealed with before.

use super::*;
use crate::conformance::sealing::{MARK, data_key, is_whole, keyring, say};
use crate::{ResealPosition, ResponseStore};

async fn sealed(options: &PostgresOptions, keys: &[u8]) -> PostgresStore {
    PostgresStore::open_sealed(options, &keyring(keys))
        .await
        .unwrap()
}

async fn reseal(store: &PostgresStore) -> u64 {
    let (mut position, mut sealed) = (Some(ResealPosition::default()), 0);
    while let Some(at) = position {
        let step = store.reseal(at, 2).await.unwrap();
        sealed += step.sealed;
        position = step.next;
    }
    store.forget_other_data_keys().await.unwrap();
    sealed
}

/// Rows in which the mark stands somewhere.
async fn marked_rows(store: &PostgresStore) -> i64 {
    let mut rows = 0;
    for table in [
        "contexts",
        "contents",
        "turns",
        "responses",
        "conversations",
    ] {
        let mark = data_encoding::HEXLOWER.encode(MARK.as_bytes());
        let statement = format!(
            "SELECT count(*) FROM {table} WHERE {table}::text LIKE '%{mark}%' OR {table}::text LIKE '%{MARK}%'"
        );
        let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
            .fetch_one(&store.pool)
            .await
            .unwrap();
        rows += found;
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_store_conforms() {
    let store = sealed(&options().await, &[1]).await;
    conformance::contexts(&store).await;
    conformance::responses(&store).await;
    conformance::keys(&store).await;
    conformance::ledger(&store).await;
    conformance::upstreams(&sealed(&options().await, &[1]).await).await;
}

#[tokio::test]
async fn what_was_there_before_stays_readable_and_is_sealed_later() {
    let options = options().await;
    let store = PostgresStore::open(&options).await.unwrap();
    let before = say(&store, "before").await;
    assert_eq!(marked_rows(&store).await, 8);
    store.close().await;

    let store = sealed(&options, &[1]).await;
    let after = say(&store, "after").await;
    for said in [&before, &after] {
        is_whole(&store, said).await;
    }
    assert_eq!(reseal(&store).await, 8);
    assert_eq!(marked_rows(&store).await, 0);
    for said in [&before, &after] {
        is_whole(&store, said).await;
    }
    assert_eq!(reseal(&store).await, 0, "nothing is left to do");
}

#[tokio::test]
async fn after_a_rotation_the_old_key_can_go() {
    let options = options().await;
    let store = sealed(&options, &[1]).await;
    let old = say(&store, "old").await;
    store.close().await;

    let store = sealed(&options, &[2, 1]).await;
    let new = say(&store, "new").await;
    let name = data_key(1).id().to_string();
    let without = PostgresStore::open_sealed(&options, &keyring(&[2])).await;
    assert_corrupt(without, &name);
    assert_corrupt(
        PostgresStore::open(&options).await,
        "is sealed with the data key",
    );
    assert_eq!(reseal(&store).await, 8);
    store.close().await;
    let store = sealed(&options, &[2]).await;
    for said in [&old, &new] {
        is_whole(&store, said).await;
    }
}

#[tokio::test]
async fn a_key_that_a_replica_still_seals_with_is_not_forgotten_for_long() {
    let options = options().await;
    let late = sealed(&options, &[1, 2]).await;
    let early = sealed(&options, &[2, 1]).await;
    reseal(&early).await;
    let said = say(&late, "late").await;
    late.sweep(NOW, 10).await.unwrap();
    let name = data_key(1).id().to_string();
    let without = PostgresStore::open_sealed(&options, &keyring(&[2])).await;
    assert_corrupt(without, &name);
    is_whole(&early, &said).await;
}

#[tokio::test]
async fn what_is_sealed_can_not_be_moved() {
    let store = sealed(&options().await, &[1]).await;
    say(&store, "one").await;
    say(&store, "other").await;
    run(
        &store,
        "UPDATE contexts SET sealed = (SELECT sealed FROM contexts WHERE project = 'other') WHERE project = 'one'; \
         UPDATE contents SET initial = (SELECT initial FROM contents ORDER BY context DESC LIMIT 1); \
         UPDATE responses SET body = input; \
         UPDATE conversations SET items = messages",
    )
    .await;
    let id: String = sqlx::query_scalar("SELECT id FROM contexts WHERE project = 'one'")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    let id = id.parse().unwrap();
    assert_corrupt(store.get("one", &id, NOW).await, "damaged or moved");
    assert_corrupt(store.content("one", &id).await, "damaged or moved");
    assert_corrupt(
        store.response("one", "one-0", NOW).await,
        "damaged or moved",
    );
    assert_corrupt(
        store.conversation("one", "one-c", NOW).await,
        "damaged or moved",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_go_on_while_everything_is_sealed_anew() {
    let options = options().await;
    let store = PostgresStore::open(&options).await.unwrap();
    let mut contexts = Vec::new();
    for number in 0..20 {
        let context = sample_context("alpha", NOW + number);
        store.insert(&context, &sample_content()).await.unwrap();
        contexts.push(context);
    }
    store.close().await;
    let server = sealed(&options, &[1]).await;
    let resealer = PostgresStore::open_beside(&options, &keyring(&[1]))
        .await
        .unwrap();
    let turns = async {
        for number in 1..=5_u32 {
            for context in &contexts {
                let append = sample_append(number, NOW);
                let version = u64::from(number);
                let appended = server.append_turn("alpha", &context.id, version, &append, NOW);
                appended.await.unwrap();
            }
        }
    };
    tokio::join!(turns, reseal(&resealer));
    reseal(&resealer).await;
    for context in &contexts {
        let content = server.content("alpha", &context.id).await.unwrap();
        assert_eq!(content.initial, sample_content().initial);
        let turns: Vec<_> = (1..=5)
            .map(|number| sample_append(number, NOW).turn)
            .collect();
        assert_eq!(content.turns, turns);
    }
}
