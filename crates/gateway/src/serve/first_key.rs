//! Keys that are there from the start, so that somebody can use the server.

use std::time::{Duration, Instant};

use holdfast_protocol::UnixMillis;
use holdfast_store::{KeyRecord, KeyScope, KeyStore, StoreError};
use rand::RngExt;

use super::{DEFAULT_PROJECT, DataDir, ServeError};
use crate::app::Store;
use crate::audit::{Act, Actor, Audit};
use crate::config::Config;
use crate::keys::{self, Secret};

/// What a first or bootstrap key may do.
pub(super) const ALL_SCOPES: [KeyScope; 2] = [KeyScope::Admin, KeyScope::Inference];

/// Who among servers that share a store makes the first key.
const FIRST_KEY_LEASE: &str = "first key";

/// Enough for making a key; whoever has not done it by then was killed. Milliseconds.
const FIRST_KEY_LEASE_MS: UnixMillis = 10_000;

/// Between two looks at whether another server has made the first key.
const FIRST_KEY_PAUSE: Duration = Duration::from_millis(100);

/// Makes sure that somebody can use the server: the bootstrap key where there is one, else a first key where there are
/// no keys at all. Returns the key to be shown.
///
/// # Errors
/// The store fails, or the key file can't be written.
pub async fn ensure_keys(
    config: &Config,
    data_dir: &DataDir,
    store: &dyn Store,
    now: UnixMillis,
) -> Result<Option<Secret>, ServeError> {
    store
        .ensure_project(DEFAULT_PROJECT, now)
        .await
        .map_err(keys_failed)?;
    if let Some(secret) = &config.auth.bootstrap_key {
        ensure_bootstrap_key(secret, store, now).await?;
        return Ok(None);
    }
    if !config.auth.required {
        return Ok(None);
    }
    // Servers that start together on a new database make one key, not one each.
    let owner: [u8; 16] = rand::rng().random();
    let owner = data_encoding::HEXLOWER.encode(&owner);
    let began = Instant::now();
    while has_no_keys(store).await? {
        let waited = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let now = now.saturating_add(waited);
        let until = now.saturating_add(FIRST_KEY_LEASE_MS);
        let is_mine = store
            .acquire_lease(FIRST_KEY_LEASE, &owner, until, now)
            .await
            .map_err(keys_failed)?;
        if !is_mine {
            tokio::time::sleep(FIRST_KEY_PAUSE).await;
            continue;
        }
        // The one before may have made it between the look and the lease.
        let made = match has_no_keys(store).await? {
            true => make_first_key(data_dir, store, now).await.map(Some),
            false => Ok(None),
        };
        store
            .release_lease(FIRST_KEY_LEASE, &owner)
            .await
            .map_err(keys_failed)?;
        return made;
    }
    Ok(None)
}

async fn ensure_bootstrap_key(
    secret: &Secret,
    store: &dyn Store,
    now: UnixMillis,
) -> Result<(), ServeError> {
    let stored = store.key_by_hash(&keys::hash(secret.expose())).await;
    match stored.map_err(keys_failed)? {
        None => {
            let record = keys::record_for(secret, DEFAULT_PROJECT, "bootstrap", &ALL_SCOPES, now);
            let made = async {
                match store.insert_key(&record).await {
                    // Another server that starts with the same key was faster.
                    Ok(()) | Err(StoreError::Conflict) => Ok(()),
                    Err(error) => Err(error),
                }
            };
            noted(store, Actor::config(), &record, now, made).await?;
        }
        // Somebody revoked it on purpose; a restart is no reason to undo that.
        Some(record) if record.revoked_at.is_some() => {
            tracing::warn!(
                key = record.id,
                "the bootstrap key has been revoked and stays so"
            );
        }
        Some(_) => {}
    }
    Ok(())
}

async fn has_no_keys(store: &dyn KeyStore) -> Result<bool, ServeError> {
    Ok(store
        .page_keys(None, None, 1)
        .await
        .map_err(keys_failed)?
        .is_empty())
}

async fn make_first_key(
    data_dir: &DataDir,
    store: &dyn Store,
    now: UnixMillis,
) -> Result<Secret, ServeError> {
    let (secret, record) = keys::new_key(DEFAULT_PROJECT, "first", &ALL_SCOPES, now);
    // The file comes first: a key in the store that nobody has seen would lock everybody out.
    data_dir.write_first_key(&secret).map_err(|error| {
        ServeError::new(format!(
            "the first key can't be written to {}: {error}",
            data_dir.first_key_file().display()
        ))
    })?;
    let made = store.insert_key(&record);
    noted(store, Actor::start(), &record, now, made).await?;
    Ok(secret)
}

/// Notes in the audit log that a key is made, and makes it.
async fn noted(
    store: &dyn Store,
    actor: Actor,
    record: &KeyRecord,
    now: UnixMillis,
    made: impl Future<Output = Result<(), StoreError>>,
) -> Result<(), ServeError> {
    let audit = Audit {
        log: store,
        actor,
        now,
    };
    let act = Act {
        name: "key.create",
        target: &record.id,
        project: Some(&record.project),
    };
    let details = serde_json::json!({"set": {"label": record.label}});
    audit
        .around(act, details, made)
        .await
        .and_then(|made| made)
        .map_err(keys_failed)
}

fn keys_failed(error: StoreError) -> ServeError {
    ServeError::new(format!("the keys can't be read or written: {error}"))
}
