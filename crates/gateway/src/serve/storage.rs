//! The store that the configuration names, opened.

use std::sync::Arc;

use holdfast_store::{PostgresStore, SqliteStore};

use super::{DataDir, ServeError};
use crate::app::Store;
use crate::config::StorageConfig;

/// An open store, whichever it is.
#[derive(Clone)]
pub(crate) enum OpenStore {
    /// In the data directory.
    Sqlite(Arc<SqliteStore>),
    /// Shared with other servers, perhaps.
    Postgres(Arc<PostgresStore>),
}

impl OpenStore {
    /// Opens it. For SQLite the caller holds the data directory's lock.
    pub(crate) async fn open(
        storage: &StorageConfig,
        data_dir: &DataDir,
    ) -> Result<Self, ServeError> {
        let database = data_dir.database();
        match storage {
            StorageConfig::Sqlite => SqliteStore::open(&database)
                .await
                .map(|store| OpenStore::Sqlite(Arc::new(store)))
                .map_err(|error| {
                    ServeError::new(format!(
                        "the database {} can't be opened: {error}",
                        database.display()
                    ))
                    .help("`holdfast doctor` says more; a copy of the folder is safe to look into while no server runs")
                }),
            StorageConfig::Postgres(options) => {
                if database.is_file() {
                    tracing::warn!(
                        database = %database.display(),
                        "what is in the SQLite database is not used, because `storage.url` names another one"
                    );
                }
                PostgresStore::open(options)
                    .await
                    .map(|store| OpenStore::Postgres(Arc::new(store)))
                    .map_err(|error| {
                        ServeError::new(format!("PostgreSQL can't be opened: {error}"))
                            .help("check `storage.url`, and whether the database is there and may be written")
                    })
            }
            StorageConfig::OutOfReach(why) => Err(ServeError::new(format!(
                "PostgreSQL can't be opened: {why}"
            ))),
        }
    }

    /// For everybody who need not know which one it is.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            OpenStore::Sqlite(store) => Arc::clone(store) as _,
            OpenStore::Postgres(store) => Arc::clone(store) as _,
        }
    }

    /// Waits for what runs and closes it.
    pub(crate) async fn close(&self) {
        match self {
            OpenStore::Sqlite(store) => store.close().await,
            OpenStore::Postgres(store) => store.close().await,
        }
    }
}
