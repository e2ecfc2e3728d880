//! Statements and commits that fail: a clear error, no half changes, and another try where that helps.

use sqlx::ConnectOptions;

use super::*;
use crate::conformance::ledger::sample_row;
use crate::conformance::responses::conversations::sample_conversation;
use crate::conformance::responses::{sample_continuation, sample_response};
use crate::{
    Account, AccountChange, HandleRecord, HeadChange, ItemsChange, LedgerStore, ResponseStore,
    UpstreamStore,
};

const TABLES: [&str; 10] = [
    "projects",
    "keys",
    "contexts",
    "handles",
    "accounts",
    "leases",
    "responses",
    "conversations",
    "turns",
    "ledger",
];

/// Makes every write of a row run `body` at the time of commit.
async fn at_commit(store: &PostgresStore, body: &str) {
    run(
        store,
        &format!(
            "CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$"
        ),
    )
    .await;
    for table in TABLES {
        run(
            store,
            &format!(
                "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE OR DELETE ON {table} \
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()"
            ),
        )
        .await;
    }
}

async fn as_usual(store: &PostgresStore) {
    run(store, "DROP FUNCTION at_commit CASCADE").await;
}

/// One of everything, for writes to change.
async fn filled() -> (PostgresStore, Context) {
    let store = opened().await;
    let context = sample_context("alpha", NOW);
    store.insert(&context, &sample_content()).await.unwrap();
    store.ensure_project("alpha", NOW).await.unwrap();
    store
        .insert_key(&sample_key("alpha", 1, NOW))
        .await
        .unwrap();
    let first = sample_response("alpha", "resp_1");
    store.insert_response(&first, None).await.unwrap();
    let conversation = sample_conversation("alpha", "conv_1");
    store.insert_conversation(&conversation).await.unwrap();
    let other = sample_conversation("alpha", "conv_2");
    store.insert_conversation(&other).await.unwrap();
    let row = sample_row("alpha", "1", NOW);
    store.append(&[row]).await.unwrap();
    (store, context)
}

/// Waits until no other connection is in a transaction. PostgreSQL tells that a commit has failed before it lets go of
/// the locks, and what sweeps leaves locked rows for the next time.
async fn settled(store: &PostgresStore) {
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                  AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND xact_start IS NOT NULL";
    loop {
        let running: i64 = sqlx::query_scalar(others)
            .fetch_one(&store.pool)
            .await
            .unwrap();
        if running == 0 {
            return;
        }
    }
}

/// Every write, in an order in which all succeed.
async fn write_everything(
    store: &PostgresStore,
    context: &Context,
) -> Vec<(&'static str, Result<(), StoreError>)> {
    let id = &context.id;
    let later = NOW + 3 * LIFETIME;
    let append = sample_append(1, NOW);
    let new = sample_context("alpha", NOW);
    let handle = HandleRecord {
        context: id.clone(),
        project: "alpha".to_owned(),
        place: "place".to_owned(),
        name: "handle \u{0}".to_owned(),
        tokens: None,
        turns: 0,
        dropped_messages: 0,
        created_at: NOW,
        expires_at: later,
    };
    let change = AccountChange {
        context: id.clone(),
        add: Account {
            requests: 1,
            ..Account::default()
        },
        currency: String::new(),
        home: None,
        last_used_at: None,
    };
    let first = sample_response("alpha", "resp_1");
    let next = sample_continuation(&first, "resp_2");
    let head = HeadChange {
        conversation: "conv_1".to_owned(),
        expected: None,
        now: NOW,
    };
    let conversation = sample_conversation("alpha", "conv_3");
    let items = ItemsChange {
        expected: sample_conversation("alpha", "conv_2").items,
        items: b"[]".to_vec(),
        messages: b"[]".to_vec(),
    };
    let key = sample_key("alpha", 1, NOW);
    let rows = ["2", "3"].map(|id| sample_row("alpha", id, NOW));
    vec![
        ("insert", store.insert(&new, &sample_content()).await),
        ("touch", store.touch("alpha", id, later, NOW).await),
        (
            "append_turn",
            store
                .append_turn("alpha", id, 1, &append, NOW)
                .await
                .map(drop),
        ),
        (
            "set_ttl",
            store.set_ttl("alpha", id, 60, later, NOW).await.map(drop),
        ),
        ("put_handle", store.put_handle(&handle).await),
        ("doom_handles", store.doom_handles(id).await),
        ("tidy_handles", store.tidy_handles(NOW, later + 1).await),
        ("change_accounts", store.change_accounts(&[change]).await),
        (
            "acquire_lease",
            store.acquire_lease("l", "o", later, NOW).await.map(drop),
        ),
        ("release_lease", store.release_lease("l", "o").await),
        ("delete", store.delete("alpha", id, NOW).await),
        ("sweep", {
            settled(store).await;
            store.sweep(later, 10).await.map(drop)
        }),
        (
            "ensure_project",
            store.ensure_project("beta", NOW).await.map(drop),
        ),
        (
            "insert_key",
            store.insert_key(&sample_key("alpha", 2, NOW)).await,
        ),
        ("revoke_key", store.revoke_key(&key.id, NOW).await.map(drop)),
        (
            "insert_response",
            store.insert_response(&next, Some(&head)).await,
        ),
        (
            "delete_response",
            store.delete_response("alpha", "resp_1", NOW).await,
        ),
        (
            "insert_conversation",
            store.insert_conversation(&conversation).await,
        ),
        (
            "set_conversation_metadata",
            store
                .set_conversation_metadata("alpha", "conv_2", b"{}", NOW)
                .await
                .map(drop),
        ),
        (
            "set_conversation_items",
            store
                .set_conversation_items("alpha", "conv_2", &items, NOW)
                .await
                .map(drop),
        ),
        (
            "delete_conversation",
            store.delete_conversation("alpha", "conv_2", NOW).await,
        ),
        ("sweep_responses", {
            settled(store).await;
            store.sweep_responses(later, 10).await.map(drop)
        }),
        ("append", store.append(&rows).await),
        ("erase_before", {
            settled(store).await;
            store.erase_before(later, 10).await.map(drop)
        }),
    ]
}

/// Everything that is stored, as one text.
async fn contents(store: &PostgresStore) -> String {
    let mut all = String::new();
    for table in TABLES {
        let statement = format!("SELECT coalesce(json_agg(t)::text, '') FROM {table} AS t");
        let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
            .fetch_one(&store.pool)
            .await
            .unwrap();
        all += &rows;
    }
    all
}

/// What had nothing to do could not fail.
const WITHOUT_A_ROW: [&str; 3] = ["doom_handles", "tidy_handles", "release_lease"];

#[tokio::test]
async fn a_commit_that_fails_is_reported_and_nothing_is_done() {
    let (store, context) = filled().await;
    let before = contents(&store).await;
    at_commit(&store, "RAISE EXCEPTION USING ERRCODE = '53100';").await;
    for (name, result) in write_everything(&store, &context).await {
        match result {
            Ok(()) => assert!(WITHOUT_A_ROW.contains(&name), "{name}"),
            other => assert_unavailable(other, "the disk of the database is full"),
        }
    }
    assert_eq!(contents(&store).await, before);
    as_usual(&store).await;
    for (name, result) in write_everything(&store, &context).await {
        assert!(result.is_ok(), "{name}: {result:?}");
    }
}

#[tokio::test]
async fn what_others_undid_is_done_again() {
    let (store, context) = filled().await;
    // A sequence does not go back with its transaction: two commits fail, the third one does not, and so on.
    run(&store, "CREATE SEQUENCE commits").await;
    at_commit(
        &store,
        "IF current_setting('test.counted', TRUE) IS DISTINCT FROM txid_current()::text THEN \
           PERFORM set_config('test.counted', txid_current()::text, TRUE); \
           IF nextval('commits') % 3 <> 0 THEN RAISE EXCEPTION USING ERRCODE = '40001'; END IF; \
         END IF;",
    )
    .await;
    for (name, result) in write_everything(&store, &context).await {
        assert!(result.is_ok(), "{name}: {result:?}");
    }
    let commits = count(&store, "SELECT last_value FROM commits").await;
    assert!(commits > 50, "they did fail: {commits}");
    as_usual(&store).await;
    at_commit(&store, "RAISE EXCEPTION USING ERRCODE = '40P01';").await;
    let new = sample_context("alpha", NOW);
    let refused = store.insert(&new, &sample_content()).await;
    assert_unavailable(refused, "too many others");
}

#[tokio::test]
async fn a_read_only_database_is_unavailable_for_writes_and_serves_reads() {
    let (store, context) = filled().await;
    let database: String = sqlx::query_scalar("SELECT current_database()")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    let before = contents(&store).await;
    // As a standby is. It holds for new connections.
    let server = PostgresServer::shared();
    let read_only = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    server.run_sql("postgres", &read_only).await;
    let options = PostgresOptions::new(server.url(&database));
    assert_unavailable(PostgresStore::open(&options).await, "read-only");
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(connect::options(&options).unwrap())
        .await
        .unwrap();
    let store = PostgresStore { pool, ..store };
    for (name, result) in write_everything(&store, &context).await {
        match result {
            Err(StoreError::Unavailable(reason)) => assert!(reason.contains("read-only")),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(contents(&store).await, before);
    let stored = store.get("alpha", &context.id, NOW).await.unwrap();
    assert_eq!(stored, context);
}

#[tokio::test]
async fn unreadable_rows_are_corrupt_without_quoting_them() {
    for (damage, whole_list) in [
        (
            "UPDATE contexts SET tools = '[{\"secret prompt\": 1}]'",
            true,
        ),
        ("UPDATE contexts SET metadata = 'secret prompt'", true),
        ("UPDATE contexts SET requested_model = '\\xff'", true),
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
        let store = opened().await;
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
        store.close().await;
    }
}

#[tokio::test]
async fn a_lock_of_another_program_is_unavailable() {
    let mut options = options().await;
    options.statement_time_max = Duration::from_millis(300);
    let store = PostgresStore::open(&options).await.unwrap();
    let context = sample_context("alpha", NOW);
    store.insert(&context, &sample_content()).await.unwrap();
    let mut other = connect::options(&options).unwrap().connect().await.unwrap();
    let mut transaction = other.begin().await.unwrap();
    transaction
        .execute("SELECT 1 FROM contexts FOR UPDATE")
        .await
        .unwrap();
    // Reads do not wait for it.
    store.get("alpha", &context.id, NOW).await.unwrap();
    let later = NOW + 2 * LIFETIME;
    let refused = store.touch("alpha", &context.id, later, NOW).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    transaction.rollback().await.unwrap();
    store.touch("alpha", &context.id, later, NOW).await.unwrap();
}
