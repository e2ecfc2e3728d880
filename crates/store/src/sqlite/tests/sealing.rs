//! With a data key nobody reads in the file what clients said, whatever it was sealed with before.

use super::erasure::occurrences;
use super::*;
use crate::conformance::sealing::{MARK, is_whole, keyring, say};
use crate::{ResealPosition, ResponseStore};

async fn sealed(path: &Path, keys: &[u8]) -> SqliteStore {
    SqliteStore::open_sealed(path, &keyring(keys))
        .await
        .unwrap()
}

/// Goes through everything, a few rows at a time; answers how many were sealed anew.
async fn reseal(store: &SqliteStore) -> u64 {
    let (mut position, mut sealed) = (Some(ResealPosition::default()), 0);
    while let Some(at) = position {
        let step = store.reseal(at, 2).await.unwrap();
        sealed += step.sealed;
        position = step.next;
    }
    store.forget_other_data_keys().await.unwrap();
    assert!(store.empty_log().await.unwrap());
    sealed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_store_conforms() {
    let (_directory, path) = directory();
    let store = sealed(&path, &[1]).await;
    conformance::contexts(&store).await;
    conformance::responses(&store).await;
    conformance::keys(&store).await;
    conformance::ledger(&store).await;
    let (_directory, path) = directory();
    conformance::upstreams(&sealed(&path, &[1]).await).await;
}

#[tokio::test]
async fn no_file_has_what_clients_said() {
    let (_directory, path) = directory();
    let store = sealed(&path, &[1]).await;
    let said = say(&store, "alpha").await;
    is_whole(&store, &said).await;
    assert_eq!(occurrences(&path, MARK), 0);
    store.close().await;
    assert_eq!(occurrences(&path, MARK), 0);
    is_whole(&sealed(&path, &[1]).await, &said).await;
}

#[tokio::test]
async fn what_was_there_before_stays_readable_and_is_sealed_later() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let before = say(&store, "before").await;
    store.close().await;
    assert!(occurrences(&path, MARK) > 10);

    let store = sealed(&path, &[1]).await;
    let after = say(&store, "after").await;
    for said in [&before, &after] {
        is_whole(&store, said).await;
    }
    // A context, its beginning, three turns, two responses, a conversation.
    assert_eq!(reseal(&store).await, 8);
    assert_eq!(occurrences(&path, MARK), 0);
    for said in [&before, &after] {
        is_whole(&store, said).await;
    }
    assert_eq!(reseal(&store).await, 0, "nothing is left to do");
    store.close().await;
    assert_eq!(occurrences(&path, MARK), 0);
}

#[tokio::test]
async fn after_a_rotation_the_old_key_can_go() {
    let (_directory, path) = directory();
    let store = sealed(&path, &[1]).await;
    let old = say(&store, "old").await;
    store.close().await;

    let store = sealed(&path, &[2, 1]).await;
    let new = say(&store, "new").await;
    is_whole(&store, &old).await;
    store.close().await;
    let name = conformance::sealing::data_key(1).id().to_string();
    let without = SqliteStore::open_sealed(&path, &keyring(&[2])).await;
    damage::assert_corrupt(without, &name);
    damage::assert_corrupt(
        SqliteStore::open(&path).await,
        "is sealed with the data key",
    );

    let store = sealed(&path, &[2, 1]).await;
    // Half of it, as by a process that was killed.
    let half = store.reseal(ResealPosition::default(), 1).await.unwrap();
    assert_eq!((half.looked_at, half.sealed), (1, 1));
    assert_eq!(reseal(&store).await, 7);
    store.close().await;
    let store = sealed(&path, &[2]).await;
    for said in [&old, &new] {
        is_whole(&store, said).await;
    }
}

#[tokio::test]
async fn sealing_can_be_given_up() {
    let (_directory, path) = directory();
    let store = sealed(&path, &[1]).await;
    let said = say(&store, "alpha").await;
    store.close().await;
    let keys = holdfast_seal::Keyring::new(None, &[conformance::sealing::data_key(1)]);
    let store = SqliteStore::open_sealed(&path, &keys).await.unwrap();
    assert_eq!(reseal(&store).await, 8);
    store.close().await;
    is_whole(&SqliteStore::open(&path).await.unwrap(), &said).await;
}

#[tokio::test]
async fn whoever_must_not_be_the_first_takes_nothing_down() {
    let (_directory, path) = directory();
    let keys = keyring(&[1]);
    let store = SqliteStore::open_beside(&path, &keys).await.unwrap();
    assert_eq!(store.data_keys().await.unwrap(), []);
    store.use_data_key().await.unwrap();
    store.use_data_key().await.unwrap();
    assert_eq!(store.data_keys().await.unwrap(), [keys.current().unwrap()]);
}

#[tokio::test]
async fn what_is_sealed_can_not_be_moved() {
    let (_directory, path) = directory();
    let store = sealed(&path, &[1]).await;
    say(&store, "one").await;
    say(&store, "other").await;
    for swap in [
        "UPDATE contexts SET sealed = (SELECT sealed FROM contexts WHERE project = 'other') WHERE project = 'one'",
        "UPDATE contexts SET implicit = (SELECT implicit FROM contexts WHERE project = 'other') WHERE project = 'one'",
        "UPDATE contents SET sealed = (SELECT sealed FROM contents ORDER BY context DESC LIMIT 1)",
        "UPDATE turns SET sealed = (SELECT sealed FROM turns WHERE number = 1) WHERE number = 2",
        "UPDATE responses SET body = (SELECT body FROM responses WHERE project = 'other') WHERE project = 'one'",
        "UPDATE responses SET body = input",
        "UPDATE conversations SET items = messages",
    ] {
        run(&store, swap).await;
    }
    let (context, other) = (one_id(&store, "one").await, one_id(&store, "other").await);
    damage::assert_corrupt(store.get("one", &context, NOW).await, "damaged or moved");
    damage::assert_corrupt(store.content("one", &context).await, "damaged or moved");
    damage::assert_corrupt(store.content("other", &other).await, "damaged or moved");
    let response = store.response("one", "one-0", NOW).await;
    damage::assert_corrupt(response, "damaged or moved");
    let conversation = store.conversation("one", "one-c", NOW).await;
    damage::assert_corrupt(conversation, "damaged or moved");
}

async fn one_id(store: &SqliteStore, project: &str) -> holdfast_protocol::ContextId {
    let id: String = sqlx::query_scalar("SELECT id FROM contexts WHERE project = ?")
        .bind(project)
        .fetch_one(&store.readers)
        .await
        .unwrap();
    id.parse().unwrap()
}
