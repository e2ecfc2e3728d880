//! Files and disks that are not as they should be: a clear error, never a panic, never half a change.

use holdfast_protocol::{Message, Role};

use super::*;

#[track_caller]
pub(super) fn assert_corrupt<T>(result: Result<T, StoreError>, about: &str) {
    match result {
        Err(StoreError::Corrupt(reason)) => assert!(reason.contains(about), "{reason}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[track_caller]
pub(super) fn assert_unavailable<T>(result: Result<T, StoreError>, about: &str) {
    match result {
        Err(StoreError::Unavailable(reason)) => assert!(reason.contains(about), "{reason}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

/// A closed database file with enough rows for several levels of pages.
async fn filled() -> (TempDir, PathBuf, Vec<Context>) {
    let (directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    let batch: Vec<_> = (0..500)
        .map(|age| (sample_context("alpha", NOW + age), sample_content()))
        .collect();
    store.insert_many(&batch).await.unwrap();
    store.close().await;
    let contexts = batch.into_iter().map(|(context, _)| context).collect();
    (directory, path, contexts)
}

#[tokio::test]
async fn garbage_is_not_a_database() {
    for garbage in [
        vec![0x5a; 100],
        vec![0xff; 100_000],
        b"SQLite format 3\0".repeat(300),
    ] {
        let (_directory, path) = directory();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &garbage).unwrap();
        assert_corrupt(SqliteStore::open(&path).await, "the database file is");
        assert_eq!(fs::read(&path).unwrap(), garbage, "it is left as it was");
    }
}

#[tokio::test]
async fn a_truncated_file_is_damaged() {
    let (_directory, path, _) = filled().await;
    let whole = fs::read(&path).unwrap();
    for length in [
        whole.len() - 4096,
        whole.len() / 2,
        8192,
        4096,
        1000,
        100,
        50,
    ] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_corrupt(SqliteStore::open(&path).await, "the database file is");
    }
    fs::write(&path, &whole).unwrap();
    assert!(SqliteStore::open(&path).await.is_ok());
}

#[tokio::test]
async fn damage_in_the_middle_is_an_error_and_no_panic() {
    let (_directory, path, contexts) = filled().await;
    // What an empty store takes is the schema, and without that nothing can be opened.
    let (_other, empty) = directory();
    SqliteStore::open(&empty).await.unwrap().close().await;
    let schema_pages = fs::read(&empty).unwrap().len() / 4096;
    let mut bytes = fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    for page in schema_pages..pages {
        bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
    }
    fs::write(&path, &bytes).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let mut corrupt = 0;
    for context in &contexts {
        let id = &context.id;
        let append = sample_append(1, NOW);
        for result in [
            store.get("alpha", id, NOW).await.map(|_| ()),
            store.content("alpha", id).await.map(|_| ()),
            store.touch("alpha", id, NOW + 2 * LIFETIME, NOW).await,
            store
                .append_turn("alpha", id, 1, &append, NOW)
                .await
                .map(|_| ()),
            store.delete("alpha", id, NOW).await,
        ] {
            match result {
                Ok(()) | Err(StoreError::NotFound) => {}
                Err(StoreError::Corrupt(_)) => corrupt += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(corrupt > 0, "some of it was hit");
    assert_corrupt(store.list("alpha", None, 1000, NOW).await, "damaged");
    assert_corrupt(store.sweep(NOW + 10 * LIFETIME, 1000).await, "damaged");
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_name() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    run(
        &store,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9000, 'from the future', TRUE, x'00', 0)",
    )
    .await;
    store.close().await;
    assert_corrupt(SqliteStore::open(&path).await, "newer version (schema 9000");
}

#[tokio::test]
async fn another_programs_database_is_left_alone() {
    let (_directory, path) = directory();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut connection = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    connection
        .execute("CREATE TABLE accounts (id INTEGER)")
        .await
        .unwrap();
    connection.close().await.unwrap();
    let before = fs::read(&path).unwrap();
    assert_corrupt(SqliteStore::open(&path).await, "another program");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn an_empty_file_and_a_half_made_one_are_completed() {
    let (_directory, path) = directory();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    // As if the process had been killed after it had made the table that counts migrations.
    for table in [
        "accounts",
        "turns",
        "contents",
        "contexts",
        "handles",
        "leases",
        "keys",
        "projects",
        "conversations",
        "responses",
        "response_usage",
        "ledger",
        "spending",
        "notices",
        "data_keys",
        "audit",
    ] {
        let statement = format!("DROP TABLE {table}");
        store
            .writer
            .execute(sqlx::AssertSqlSafe(statement))
            .await
            .unwrap();
    }
    run(&store, "DELETE FROM _sqlx_migrations").await;
    run(&store, "PRAGMA application_id = 0").await;
    store.close().await;
    let store = SqliteStore::open(&path).await.unwrap();
    let context = sample_context("alpha", NOW);
    store.insert(&context, &sample_content()).await.unwrap();
}

#[tokio::test]
async fn a_path_that_cannot_be_a_file_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    assert_unavailable(SqliteStore::open(directory.path()).await, "can't be");
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert_unavailable(
        SqliteStore::open(file.join("holdfast.db")).await,
        "can't be",
    );
}

#[tokio::test]
async fn unreadable_rows_are_corrupt_without_quoting_them() {
    for (damage, whole_list) in [
        (
            "UPDATE contexts SET tools = '[{\"secret prompt\": 1}]'",
            true,
        ),
        ("UPDATE contexts SET metadata = 'secret prompt'", true),
        ("UPDATE contexts SET mode = 'secret prompt'", true),
        ("UPDATE contexts SET expiry = 'secret prompt'", true),
        ("UPDATE contexts SET forked_from = 'secret prompt'", true),
        ("UPDATE contexts SET ttl_seconds = -1", true),
        ("UPDATE contexts SET turn_count = 99999999999", true),
        ("UPDATE contexts SET version = -1", true),
        (
            "UPDATE contents SET initial = '[{\"role\": \"secret prompt\"}]'",
            false,
        ),
        ("UPDATE turns SET messages = '\"secret prompt\"'", false),
        ("DELETE FROM contents", false),
    ] {
        let (_directory, store) = opened().await;
        let context = sample_context("alpha", NOW);
        store.insert(&context, &sample_content()).await.unwrap();
        let append = sample_append(1, NOW);
        store
            .append_turn("alpha", &context.id, 1, &append, NOW)
            .await
            .unwrap();
        run(&store, damage).await;

        let error = if whole_list {
            assert_corrupt(store.list("alpha", None, 10, NOW).await, "column");
            let living = store.living(NOW, 10).await.unwrap();
            assert_eq!(living, [], "the gateway starts without it");
            store.get("alpha", &context.id, NOW).await.unwrap_err()
        } else {
            store.content("alpha", &context.id).await.unwrap_err()
        };
        assert!(matches!(error, StoreError::Corrupt(_)), "{damage}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");

        let swept = store.sweep(NOW + 10 * LIFETIME, 10).await.unwrap();
        assert_eq!(swept.len(), usize::from(!whole_list));
        assert_eq!(count(&store, "SELECT count(*) FROM contexts").await, 0);
    }
}

#[tokio::test]
async fn a_key_with_an_unknown_scope_is_corrupt() {
    let (_directory, store) = opened().await;
    store.ensure_project("alpha", NOW).await.unwrap();
    let key = sample_key("alpha", 1, NOW);
    store.insert_key(&key).await.unwrap();
    for damage in [
        "UPDATE keys SET scopes = 'inference everything'",
        "UPDATE keys SET scopes = ''",
    ] {
        run(&store, damage).await;
        assert_corrupt(store.key_by_hash(&key.hash).await, "scopes");
    }
}

/// Every write, on one context and one key that are there.
async fn write_everything(store: &SqliteStore, context: &Context) -> Vec<Result<(), StoreError>> {
    let id = &context.id;
    let later = NOW + 3 * LIFETIME;
    let append = sample_append(1, NOW);
    let new = sample_context("alpha", NOW);
    vec![
        store.insert(&new, &sample_content()).await,
        store.touch("alpha", id, later, NOW).await,
        store
            .append_turn("alpha", id, 1, &append, NOW)
            .await
            .map(|_| ()),
        store.set_ttl("alpha", id, 60, later, NOW).await.map(|_| ()),
        store.delete("alpha", id, NOW).await,
        store.sweep(later, 10).await.map(|_| ()),
        store.ensure_project("beta", NOW).await.map(|_| ()),
        store.insert_key(&sample_key("alpha", 2, NOW)).await,
        store
            .revoke_key(&sample_key("alpha", 1, NOW).id, NOW)
            .await
            .map(|_| ()),
    ]
}

async fn with_one_of_each() -> (TempDir, SqliteStore, Context) {
    let (directory, store) = opened().await;
    let context = sample_context("alpha", NOW);
    store.insert(&context, &sample_content()).await.unwrap();
    store.ensure_project("alpha", NOW).await.unwrap();
    store
        .insert_key(&sample_key("alpha", 1, NOW))
        .await
        .unwrap();
    (directory, store, context)
}

#[tokio::test]
async fn a_read_only_database_is_unavailable_for_writes_and_serves_reads() {
    let (_directory, store, context) = with_one_of_each().await;
    run(&store, "PRAGMA query_only = ON").await;
    for result in write_everything(&store, &context).await {
        assert_unavailable(result, "the database is read-only");
    }
    let stored = store.get("alpha", &context.id, NOW).await.unwrap();
    assert_eq!(stored, context);
    let key = sample_key("alpha", 1, NOW);
    assert_eq!(store.key_by_hash(&key.hash).await.unwrap(), Some(key));

    run(&store, "PRAGMA query_only = OFF").await;
    for result in write_everything(&store, &context).await {
        result.unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_leaves_nothing_behind() {
    let (_directory, store, context) = with_one_of_each().await;
    let mut long = sample_content();
    let text = "long ".repeat(100_000);
    long.initial[0] = Message::text(Role::User, text.clone());
    let mut append = sample_append(1, NOW);
    append.turn.messages[0].message = Message::text(Role::User, text);
    let new = sample_context("alpha", NOW);
    let batch = [
        (sample_context("alpha", NOW), sample_content()),
        (new.clone(), long.clone()),
    ];

    // SQLite answers a file at its page limit, of which 1 stands for the present size, as it does a full disk.
    // The limit is the connection's own and ends with it.
    let limit = "PRAGMA max_page_count = 1";
    run(&store, limit).await;
    assert_unavailable(store.insert(&new, &long).await, "the disk is full");
    run(&store, limit).await;
    assert_unavailable(store.insert_many(&batch).await, "the disk is full");
    run(&store, limit).await;
    let appended = store
        .append_turn("alpha", &context.id, 1, &append, NOW)
        .await;
    assert_unavailable(appended, "the disk is full");

    assert_eq!(count(&store, "SELECT count(*) FROM contexts").await, 1);
    assert_eq!(count(&store, "SELECT count(*) FROM contents").await, 1);
    assert_eq!(count(&store, "SELECT count(*) FROM turns").await, 0);
    let stored = store.get("alpha", &context.id, NOW).await.unwrap();
    assert_eq!(stored, context);

    store.insert(&new, &long).await.unwrap();
    store
        .append_turn("alpha", &context.id, 1, &append, NOW)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_lock_of_another_process_is_unavailable() {
    let (_directory, path) = directory();
    let store = SqliteStore::open(&path).await.unwrap();
    run(&store, "PRAGMA busy_timeout = 0").await;
    let mut other = SqliteConnectOptions::new()
        .filename(&path)
        .connect()
        .await
        .unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let context = sample_context("alpha", NOW);
    let refused = store.insert(&context, &sample_content()).await;
    assert_unavailable(refused, "locked");
    other.execute("ROLLBACK").await.unwrap();
    store.insert(&context, &sample_content()).await.unwrap();
}
