//! The store that several gateways share: one PostgreSQL database.
//!
//! Rows are locked for as long as one transaction, and what was read before is compared where it is written, so that
//! replicas can do anything at the same time. A transaction that PostgreSQL gives up in favour of another one is done
//! again. Nothing waits without bound: for a connection, for an answer, or for a server that is away.
//!
//! What a deletion removes is gone for every query at once; when it leaves the disk is PostgreSQL's matter (vacuum,
//! write-ahead log, backups).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use holdfast_seal::Keyring;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Postgres, Transaction};

use crate::StoreError;

mod attempt;
mod audit;
mod budgets;
mod connect;
mod contexts;
mod failure;
mod keys;
mod ledger;
mod reach;
mod reseal;
mod responses;
mod rows;
mod upstreams;

use failure::Failure;
use reach::Reach;

/// How to use a PostgreSQL database.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database?sslmode=verify-full`. What it leaves out comes from the variables
    /// that every PostgreSQL program reads (PGHOST, PGUSER, PGPASSWORD and so on) and from `~/.pgpass`.
    pub url: String,
    /// Most connections at a time.
    pub connections_max: u32,
    /// How long to wait for a free connection, and for a server that does not answer.
    pub connection_wait: Duration,
    /// How long one statement may take.
    pub statement_time_max: Duration,
}

impl PostgresOptions {
    /// The defaults for the database at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        PostgresOptions {
            url: url.into(),
            connections_max: 16,
            connection_wait: Duration::from_secs(5),
            statement_time_max: Duration::from_secs(10),
        }
    }

    /// What is wrong with the URL, for people. It quotes nothing that may be part of a password.
    pub fn problem(&self) -> Option<String> {
        connect::options(self).err()
    }

    /// Asks the server for its version, and changes nothing there.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer or let us in.
    pub async fn server_version(&self) -> Result<String, StoreError> {
        let connect = connect::options(self).map_err(StoreError::Unavailable)?;
        connect::server_version(&connect, self.connection_wait).await
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("url", &"****")
            .field("connections_max", &self.connections_max)
            .field("connection_wait", &self.connection_wait)
            .field("statement_time_max", &self.statement_time_max)
            .finish()
    }
}

/// Everything in one PostgreSQL database.
pub struct PostgresStore {
    keys: Keyring,
    pool: PgPool,
    reach: Arc<Reach>,
    /// Longest time for one method, connection included. Beyond it the network has swallowed the answer.
    answer_wait: Duration,
}

impl PostgresStore {
    /// Opens the database and brings its schema up to date. Any number of replicas may do so at once.
    ///
    /// # Errors
    /// `Corrupt` for a database of another program, of a newer version or of an encoding other than UTF-8;
    /// `Unavailable` when it can't be reached or written.
    pub async fn open(options: &PostgresOptions) -> Result<Self, StoreError> {
        Self::open_sealed(options, &Keyring::none()).await
    }

    /// The same, with what clients said sealed by the keyring's key. What is there already stays as it is until it is
    /// sealed anew ([`PostgresStore::reseal`]).
    ///
    /// # Errors
    /// As [`PostgresStore::open`]; `Corrupt` also when something may be sealed with a key that the keyring has not got.
    pub async fn open_sealed(
        options: &PostgresOptions,
        keys: &Keyring,
    ) -> Result<Self, StoreError> {
        let store = Self::open_beside(options, keys).await?;
        if let Err(error) = store.use_data_key().await {
            store.close().await;
            return Err(error);
        }
        Ok(store)
    }

    /// The same, without taking down that the keyring's key is used: for whoever must not be the first to use it.
    ///
    /// # Errors
    /// As [`PostgresStore::open_sealed`].
    pub async fn open_beside(
        options: &PostgresOptions,
        keys: &Keyring,
    ) -> Result<Self, StoreError> {
        let connect = connect::options(options).map_err(StoreError::Unavailable)?;
        connect::prepare(&connect, options.connection_wait).await?;

        let settings = connect::Settings::of(options);
        let probe_wait = options.connection_wait;
        let pool = PgPoolOptions::new()
            .max_connections(options.connections_max)
            .acquire_timeout(options.connection_wait)
            .after_connect(move |connection, _| {
                let settings = settings.clone();
                Box::pin(async move { settings.apply(connection).await })
            })
            // One in constant use is known to live. One that was idle may have outlived its server.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < reach::IDLE_TRUSTED {
                        return Ok(true);
                    }
                    Ok(connection.ping().await.is_ok())
                })
            })
            // What a caller left half-way is rolled back here; a network that is gone must not keep the place.
            .after_release(move |connection, _| {
                Box::pin(async move {
                    let answered = tokio::time::timeout(probe_wait, connection.ping()).await;
                    Ok(matches!(answered, Ok(Ok(()))))
                })
            })
            .connect_lazy_with(connect.clone());
        let store = PostgresStore {
            keys: keys.clone(),
            reach: Arc::new(Reach::new(connect, options.connection_wait)),
            pool,
            answer_wait: options.connection_wait + 2 * options.statement_time_max,
        };
        let used = store.data_keys().await;
        match used.and_then(|used| crate::reseal::check(keys, &used)) {
            Ok(()) => Ok(store),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    /// Waits for what runs and closes all connections. Later calls answer `Unavailable`.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A connection, as soon as one is free; or an error, as soon as it is known that there is no server.
    async fn connection(&self) -> Result<PoolConnection<Postgres>, Failure> {
        // Boxed, because opening an encrypted connection is part of it and would make every method's future as large.
        let acquire = Box::pin(self.pool.acquire());
        let acquired = self.reach.unless_away(acquire).await?;
        acquired.map_err(Failure::from)
    }

    /// For transactions of several statements. Each of these sees what was committed before it began, whatever the
    /// database's default: waiting for a lock and then looking again is how the methods here meet each other.
    async fn begin<'c>(
        connection: &'c mut PgConnection,
    ) -> Result<Transaction<'c, Postgres>, Failure> {
        Ok(connection
            .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await?)
    }
}

/// Things of which one is done at a time by all replicas together.
#[derive(Debug, Clone, Copy)]
enum OneAtATime {
    SweepResponses = 0x4846_0001,
    TidyHandles = 0x4846_0002,
    HandlesOf = 0x4846_0003,
    SpendingOf = 0x4846_0004,
    AppendAudit = 0x4846_0005,
}

impl OneAtATime {
    /// Waits until no other transaction holds it, and holds it until this one ends.
    async fn hold(self, connection: &mut PgConnection, of: &str) -> Result<(), Failure> {
        sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
            .bind(self as i32)
            .bind(of)
            .execute(connection)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
