//! From a URL to a database with our tables in it.

use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use super::PostgresOptions;
use super::failure::failure;
use crate::StoreError;

/// Other programs that use the same library have a table of its usual name.
const MIGRATIONS_TABLE: &str = "holdfast_migrations";

/// For the schema's changes, and for other replicas that are at it.
const MIGRATION_WAIT: Duration = Duration::from_secs(120);

/// What may follow the `?` of a URL; anything else is a typing error, and its value might be a password.
const PARAMETERS: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// What the URL says, or what is wrong with it.
pub(super) fn options(options: &PostgresOptions) -> Result<PgConnectOptions, String> {
    let url = options.url.as_str();
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("it does not begin with `postgres://` or `postgresql://`".to_owned());
    }
    let parameters = url.split_once('?').map_or("", |(_, after)| after);
    for parameter in parameters.split('&').filter(|text| !text.is_empty()) {
        let name = parameter.split_once('=').map_or("", |(name, _)| name);
        if !PARAMETERS.contains(&name) {
            return Err(format!(
                "it has a parameter that is not known; known are {}",
                PARAMETERS.join(", ")
            ));
        }
    }
    let connect = PgConnectOptions::from_str(url).map_err(|_| {
        "it can't be read: characters of user and password other than letters and digits are \
         written as `%` and two hexadecimal digits"
            .to_owned()
    })?;
    Ok(match connect.get_application_name() {
        Some(_) => connect,
        None => connect.application_name("holdfast"),
    })
}

/// What every connection is set to.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    statement_timeout: String,
}

impl Settings {
    pub(super) fn of(options: &PostgresOptions) -> Self {
        Settings {
            statement_timeout: format!("{}ms", options.statement_time_max.as_millis()),
        }
    }

    pub(super) async fn apply(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        // What a method has acknowledged survives a power loss, so a commit is never left to be written later. The
        // other values of `synchronous_commit` differ in what they wait for at standbys, which is the operator's choice.
        sqlx::query(
            "SELECT set_config('statement_timeout', $1, false), \
             set_config('lock_timeout', $1, false), \
             set_config('idle_in_transaction_session_timeout', $1, false), \
             set_config('default_transaction_isolation', 'read committed', false), \
             set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
               WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)",
        )
        .bind(&self.statement_timeout)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Checks the database and brings its schema up to date, on a connection of its own: other replicas may take long with
/// the same, so that no limit for statements applies, and whatever goes wrong, the lock ends with the connection.
pub(super) async fn prepare(
    connect: &PgConnectOptions,
    connection_wait: Duration,
) -> Result<(), StoreError> {
    let mut connection = open(connect, connection_wait).await?;
    let prepared = tokio::time::timeout(MIGRATION_WAIT, async {
        // Or else each start logs that the table which counts migrations is there.
        sqlx::query("SET client_min_messages = warning")
            .execute(&mut connection)
            .await
            .map_err(failure)?;
        check_encoding(&mut connection).await?;
        migrate(&mut connection).await
    })
    .await
    .unwrap_or_else(|_| {
        Err(StoreError::Unavailable(
            "another process has been changing the database's schema for too long".to_owned(),
        ))
    });
    let _ = connection.close().await;
    prepared
}

pub(super) async fn server_version(
    connect: &PgConnectOptions,
    connection_wait: Duration,
) -> Result<String, StoreError> {
    let mut connection = open(connect, connection_wait).await?;
    let version = sqlx::query_scalar("SHOW server_version").fetch_one(&mut connection);
    let version = tokio::time::timeout(connection_wait, version).await;
    let _ = connection.close().await;
    version.map_err(|_| no_answer())?.map_err(failure)
}

async fn open(
    connect: &PgConnectOptions,
    connection_wait: Duration,
) -> Result<PgConnection, StoreError> {
    tokio::time::timeout(connection_wait, Box::pin(connect.connect()))
        .await
        .map_err(|_| no_answer())?
        .map_err(failure)
}

fn no_answer() -> StoreError {
    StoreError::Unavailable("the database does not answer".to_owned())
}

async fn check_encoding(connection: &mut PgConnection) -> Result<(), StoreError> {
    let encoding: String = sqlx::query_scalar("SHOW server_encoding")
        .fetch_one(connection)
        .await
        .map_err(failure)?;
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!(
        "the database's encoding is {encoding}; make one with `ENCODING 'UTF8' TEMPLATE template0`"
    )))
}

async fn migrate(connection: &mut PgConnection) -> Result<(), StoreError> {
    // It takes an advisory lock of the database first and looks at what has been done after that.
    let migrator = migrator();
    let known = migrator.iter().map(|migration| migration.version).max();
    let migrated = migrator.run_direct(None, connection, false).await;
    migrated.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failure(error),
        MigrateError::VersionMissing(found) if Some(found) > known => StoreError::Corrupt(format!(
            "the database was written by a newer version (schema {found}, this version knows {}); \
                 use that version, or another database",
            known.unwrap_or_default()
        )),
        other => StoreError::Corrupt(format!("the database's schema is not as expected: {other}")),
    })
}

pub(super) fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("migrations/postgres");
    migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
    migrator
}
