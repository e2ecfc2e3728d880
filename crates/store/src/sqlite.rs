//! The default store: one SQLite file in the data directory.
//!
//! All writes go through one connection, reads through a few others, so no request meets a lock held by another one.
//! The write-ahead log is synced at each commit: what a method acknowledged survives a crash and a power loss.
//! That one process at a time uses the file is the gateway's concern.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_protocol::context::{Context, ContextContent};
use holdfast_seal::Keyring;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Sqlite, Transaction};

use crate::StoreError;
use crate::budgets::Running;

mod audit;
mod budgets;
mod contexts;
mod failure;
mod keys;
mod ledger;
mod reseal;
mod responses;
mod rows;
mod touch;
mod upstreams;

use failure::failure;

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// `PRAGMA application_id` of the first migration.
const APPLICATION_ID: i64 = 1_212_576_628;

const READERS_MAX: u32 = 4;

/// How long to wait for a lock of another process (a backup, a shell).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for a free connection: longer than a lock, so that the error names the lock.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long emptying the log may hold up writes when another process reads; it is tried again later.
const SCRUB_TIMEOUT: Duration = Duration::from_millis(100);

/// Everything in one SQLite file.
pub struct SqliteStore {
    keys: Keyring,
    writer: SqlitePool,
    readers: SqlitePool,
    scrubber: SqlitePool,
    /// Whether the log may still hold content of what was deleted.
    scrub_due: AtomicBool,
    touches: Mutex<Vec<touch::Touch>>,
    /// Held while spending is looked at or added to, so that no amount counts twice or not at all in between.
    running: tokio::sync::Mutex<Running>,
}

impl SqliteStore {
    /// Opens the database at `path`, which is made (readable by its owner only, with its directory) if missing, and
    /// brings its schema up to date.
    ///
    /// # Errors
    /// `Corrupt` for a file that is damaged, another program's, or of a newer version; `Unavailable` when it can't be
    /// opened or written.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_sealed(path, &Keyring::none()).await
    }

    /// The same, with what clients said sealed by the keyring's key. What is there already stays as it is until it is
    /// sealed anew ([`SqliteStore::reseal`]).
    ///
    /// # Errors
    /// As [`SqliteStore::open`]; `Corrupt` also when something may be sealed with a key that the keyring has not got.
    pub async fn open_sealed(path: impl AsRef<Path>, keys: &Keyring) -> Result<Self, StoreError> {
        let store = Self::open_beside(path, keys).await?;
        if let Err(error) = store.use_data_key().await {
            store.close().await;
            return Err(error);
        }
        Ok(store)
    }

    /// The same, without taking down that the keyring's key is used: for whoever must not be the first to use it.
    ///
    /// # Errors
    /// As [`SqliteStore::open_sealed`].
    pub async fn open_beside(path: impl AsRef<Path>, keys: &Keyring) -> Result<Self, StoreError> {
        let path = path.as_ref();
        create_file(path).map_err(|error| {
            StoreError::Unavailable(format!("the database file can't be made: {error}"))
        })?;

        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .busy_timeout(BUSY_TIMEOUT)
            // Stored prompts are customer data: what is deleted is overwritten with zeros.
            .pragma("secure_delete", "ON")
            .pragma("temp_store", "MEMORY");
        check_owner(&options).await?;

        let writing = options
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // Only macOS knows it: there an ordinary sync leaves data in the drive's cache.
            .pragma("fullfsync", "ON")
            .foreign_keys(true);
        let writer = pool(1).connect_with(writing).await.map_err(failure)?;
        if let Err(error) = migrate(&writer).await {
            writer.close().await;
            return Err(error);
        }

        let store = SqliteStore {
            keys: keys.clone(),
            writer,
            readers: pool(READERS_MAX)
                .connect_lazy_with(options.clone().pragma("query_only", "ON")),
            scrubber: pool(1).connect_lazy_with(options.busy_timeout(SCRUB_TIMEOUT)),
            // A process that was killed may have deleted contexts without emptying the log.
            scrub_due: AtomicBool::new(true),
            touches: Mutex::default(),
            running: tokio::sync::Mutex::default(),
        };
        let connection = store.writer.acquire().await.map_err(failure)?;
        store.scrub(&connection).await;
        drop(connection);
        let used = store.data_keys().await;
        match used.and_then(|used| crate::reseal::check(keys, &used)) {
            Ok(()) => Ok(store),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    /// Stores many contexts in one transaction: all or none. For imports and benchmarks.
    ///
    /// # Errors
    /// `Conflict` when one of the ids exists.
    pub async fn insert_many(
        &self,
        contexts: &[(Context, ContextContent)],
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for (context, content) in contexts {
            contexts::insert(&mut transaction, &self.keys, context, content).await?;
        }
        transaction.commit().await.map_err(failure)
    }

    /// Waits for what runs, moves the log into the database file and closes it. Later calls answer `Unavailable`.
    pub async fn close(&self) {
        self.readers.close().await;
        if let Ok(connection) = self.writer.acquire().await {
            self.scrub_due.store(true, Ordering::Relaxed);
            self.scrub(&connection).await;
        }
        self.scrubber.close().await;
        self.writer.close().await;
    }

    /// The write lock is taken at once: a transaction that reads first and writes later could be refused in between.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failure)
    }

    /// Empties the write-ahead log if it may hold deleted content, which would otherwise stay there until the log
    /// happens to be overwritten. The caller's connection is the writer's only one, so no write of ours waits for the
    /// lock by polling. Not an error when another process reads at the moment: the next deletion or sweep tries again.
    async fn scrub(&self, _writer: &SqliteConnection) {
        if !self.scrub_due.load(Ordering::Relaxed) {
            return;
        }
        let outcome = sqlx::query_as::<_, (i64, i64, i64)>("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_one(&self.scrubber)
            .await;
        match outcome {
            Ok((0, _, _)) => self.scrub_due.store(false, Ordering::Relaxed),
            Ok(_) => tracing::debug!("the write-ahead log is in use and will be emptied later"),
            Err(error) => {
                tracing::warn!(error = %failure(error), "the write-ahead log was not emptied");
            }
        }
    }
}

fn pool(connections_max: u32) -> PoolOptions<Sqlite> {
    PoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // SQLite itself ends a transaction when the disk is full or fails; sqlx then still counts it as open and would
        // refuse every later one on this connection, so it is replaced.
        .before_acquire(|connection: &mut SqliteConnection, _| {
            let usable = !connection.is_in_transaction();
            Box::pin(async move { Ok(usable) })
        })
        // A connection to a file does not go stale, and opening one costs more than any statement here.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Makes an empty file for SQLite to fill. SQLite gives its log and index files the same permissions.
fn create_file(path: &Path) -> std::io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = fs::DirBuilder::new();
    let mut file = fs::OpenOptions::new();
    file.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        builder.mode(0o700);
        file.mode(0o600);
    }
    builder.recursive(true).create(directory)?;
    match file.open(path) {
        // SQLite syncs the directory for the log but not for a database file that it finds in place.
        Ok(_) => sync_directory(directory),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Refuses another program's database before anything is written to it.
async fn check_owner(options: &SqliteConnectOptions) -> Result<(), StoreError> {
    let mut connection = options.connect().await.map_err(failure)?;
    let owner = async {
        let application_id: i64 = sqlx::query_scalar("PRAGMA application_id")
            .fetch_one(&mut connection)
            .await?;
        // A process killed before its first migration leaves only the table that counts migrations.
        let tables: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name <> '_sqlx_migrations'",
        )
        .fetch_one(&mut connection)
        .await?;
        Ok((application_id, tables))
    }
    .await;
    connection.close().await.map_err(failure)?;
    match owner.map_err(failure)? {
        (APPLICATION_ID, _) | (_, 0) => Ok(()),
        _ => Err(StoreError::Corrupt(
            "the database file belongs to another program".to_owned(),
        )),
    }
}

async fn migrate(writer: &SqlitePool) -> Result<(), StoreError> {
    let known = MIGRATOR.iter().map(|migration| migration.version).max();
    MIGRATOR.run(writer).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failure(error),
        MigrateError::VersionMissing(found) if Some(found) > known => StoreError::Corrupt(format!(
            "the database was written by a newer version (schema {found}, this version knows {}); \
                 use that version, or another data directory",
            known.unwrap_or_default()
        )),
        other => StoreError::Corrupt(format!("the database's schema is not as expected: {other}")),
    })
}

#[cfg(test)]
mod tests;
