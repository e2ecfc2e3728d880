//! The store that the configuration names, opened.

use std::sync::Arc;

use holdfast_seal::{KeyId, Keyring};
use holdfast_store::{PostgresStore, ResealPosition, ResealStep, SqliteStore, StoreError};

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
    /// Opens it, for a server. For SQLite the caller holds the data directory's lock.
    pub(crate) async fn open(
        storage: &StorageConfig,
        keys: &Keyring,
        data_dir: &DataDir,
    ) -> Result<Self, ServeError> {
        let opened = Self::open_beside(storage, keys, data_dir).await?;
        if let Err(error) = opened.use_data_key().await {
            opened.close().await;
            return Err(ServeError::new(format!(
                "the store can't be written: {error}"
            )));
        }
        Ok(opened)
    }

    /// The same for whoever must not be the first to use a data key.
    pub(crate) async fn open_beside(
        storage: &StorageConfig,
        keys: &Keyring,
        data_dir: &DataDir,
    ) -> Result<Self, ServeError> {
        let database = data_dir.database();
        match storage {
            StorageConfig::Sqlite => SqliteStore::open_beside(&database, keys)
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
                PostgresStore::open_beside(options, keys)
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

    /// The data keys that something may be sealed with.
    pub(crate) async fn data_keys(&self) -> Result<Vec<KeyId>, StoreError> {
        match self {
            OpenStore::Sqlite(store) => store.data_keys().await,
            OpenStore::Postgres(store) => store.data_keys().await,
        }
    }

    /// Takes down that something may be sealed with the present key from now on.
    pub(crate) async fn use_data_key(&self) -> Result<(), StoreError> {
        match self {
            OpenStore::Sqlite(store) => store.use_data_key().await,
            OpenStore::Postgres(store) => store.use_data_key().await,
        }
    }

    /// Forgets all data keys but the present one.
    pub(crate) async fn forget_other_data_keys(&self) -> Result<(), StoreError> {
        match self {
            OpenStore::Sqlite(store) => store.forget_other_data_keys().await,
            OpenStore::Postgres(store) => store.forget_other_data_keys().await,
        }
    }

    /// Seals some rows anew.
    pub(crate) async fn reseal(
        &self,
        position: ResealPosition,
        limit: u32,
    ) -> Result<ResealStep, StoreError> {
        match self {
            OpenStore::Sqlite(store) => store.reseal(position, limit).await,
            OpenStore::Postgres(store) => store.reseal(position, limit).await,
        }
    }

    /// Takes what was there before out of the log where there is one of ours; says whether it is out.
    pub(crate) async fn empty_log(&self) -> Result<bool, StoreError> {
        match self {
            OpenStore::Sqlite(store) => store.empty_log().await,
            OpenStore::Postgres(_) => Ok(true),
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
