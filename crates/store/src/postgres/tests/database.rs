//! Which databases are opened, by how many at once, and what is said of the others.

use super::*;
use crate::postgres::connect;

#[tokio::test]
async fn many_replicas_may_start_at_once_on_an_empty_database() {
    let options = options().await;
    let mut opening = JoinSet::new();
    for _ in 0..8 {
        let options = options.clone();
        opening.spawn(async move { PostgresStore::open(&options).await });
    }
    while let Some(opened) = opening.join_next().await {
        let store = opened.unwrap().unwrap();
        let applied = count(&store, "SELECT count(*) FROM holdfast_migrations").await;
        assert_eq!(applied, connect::migrator().iter().count() as i64);
        store.close().await;
    }
}

#[tokio::test]
async fn asking_for_the_version_changes_nothing() {
    let options = options().await;
    let version = options.server_version().await.unwrap();
    assert!(version.starts_with(|first: char| first.is_ascii_digit()));
    let connect = connect::options(&options).unwrap();
    let pool = PgPoolOptions::new().connect_with(connect).await.unwrap();
    let tables: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(tables, 0);
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_name() {
    let options = options().await;
    let store = PostgresStore::open(&options).await.unwrap();
    run(
        &store,
        "INSERT INTO holdfast_migrations (version, description, success, checksum, execution_time) \
         VALUES (9000, 'from the future', TRUE, '', 0)",
    )
    .await;
    assert_corrupt(
        PostgresStore::open(&options).await,
        "newer version (schema 9000",
    );
}

#[tokio::test]
async fn a_changed_migration_is_refused() {
    let options = options().await;
    let store = PostgresStore::open(&options).await.unwrap();
    run(&store, "UPDATE holdfast_migrations SET checksum = 'other'").await;
    assert_corrupt(PostgresStore::open(&options).await, "not as expected");
}

#[tokio::test]
async fn another_programs_tables_are_left_alone() {
    let options = options().await;
    let database = options.url.rsplit('/').next().unwrap();
    let server = PostgresServer::shared();
    server
        .run_sql(database, "CREATE TABLE projects (id BIGINT)")
        .await;
    assert_corrupt(PostgresStore::open(&options).await, "another program");
    // Nothing has been made beside it: the migration is one transaction.
    server.run_sql(database, "DROP TABLE projects").await;
    PostgresStore::open(&options).await.unwrap();
}

#[tokio::test]
async fn an_encoding_that_cannot_hold_every_text_is_refused() {
    let server = PostgresServer::shared();
    server
        .run_sql(
            "postgres",
            "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0",
        )
        .await;
    let options = PostgresOptions::new(server.url("latin"));
    assert_corrupt(PostgresStore::open(&options).await, "encoding is LATIN1");
}

#[tokio::test]
async fn a_server_that_refuses_is_unavailable_and_no_password_is_shown() {
    let url = options().await.url;
    let right: String = PASSWORD
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    assert!(url.contains(&right), "the password is replaced below");
    for (wrong, about) in [
        (
            url.replace(&right, "secret-guess"),
            "refuses the user or the password",
        ),
        (
            url.replace("holdfast:", "nobody-here:"),
            "refuses the user or the password",
        ),
        (format!("{url}-secret"), "no such database"),
        (
            url.replace("127.0.0.1", "secret-host.invalid"),
            "can't be reached",
        ),
        (format!("{url}?sslmode=require"), "encrypted"),
        (format!("{url}?passwort=secret"), "parameter"),
        (format!("{url}?sslmode=secret"), "can't be read"),
        (url.replace('@', "/secret@"), "can't be read"),
        (url.replace("postgres://", "mysql://"), "does not begin"),
        ("secret".to_owned(), "does not begin"),
        (String::new(), "does not begin"),
    ] {
        let options = PostgresOptions::new(&wrong);
        assert!(!format!("{options:?}").contains("secret"));
        let opened = PostgresStore::open(&options).await.map(drop);
        let shown = format!("{opened:?}");
        assert!(!shown.contains("secret"), "{shown}");
        assert!(
            !shown.contains(PASSWORD) && !shown.contains(&right),
            "{shown}"
        );
        assert_unavailable(opened, about);
    }
}

#[test]
fn urls_of_both_kinds_are_taken() {
    for url in [
        "postgres://holdfast@db.internal/holdfast",
        "postgresql://holdfast:p%40ss@db.internal:6432/holdfast?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        "postgres:///holdfast?host=/var/run/postgresql",
    ] {
        assert_eq!(PostgresOptions::new(url).problem(), None, "{url}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_so_at_once() {
    let mut server = PostgresServer::start();
    let options = PostgresOptions::new(server.database().await);
    server.stop();
    assert_unavailable(PostgresStore::open(&options).await, "can't be reached");
}
