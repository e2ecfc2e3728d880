//! Who a request is from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::ApiError;
use holdfast_store::{KeyRecord, KeyScope, StoreError};
use subtle::ConstantTimeEq;

use crate::app::Store;
use crate::keys;

/// Keys remembered for the time the store is away.
const REMEMBERED_KEYS_MAX: usize = 10_000;

/// The project of requests without a key, where none is needed.
const OPEN_PROJECT: &str = "default";

/// Who a request is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The tenant.
    pub project: String,
    /// Public id of the key.
    pub key_id: String,
    /// What it may do.
    pub scopes: Vec<KeyScope>,
}

impl Principal {
    /// Whether it may do what `scope` stands for. `admin` includes `inference`.
    pub fn may(&self, scope: KeyScope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&KeyScope::Admin)
    }

    /// An error unless it may.
    ///
    /// # Errors
    /// `PermissionDenied` that names the missing scope.
    pub fn require(&self, scope: KeyScope) -> Result<(), ApiError> {
        if self.may(scope) {
            return Ok(());
        }
        Err(ApiError::permission_denied(format!(
            "This key lacks the scope `{}`.",
            scope.as_str()
        )))
    }
}

/// Checks credentials against the store. A revoked key is refused at once: where others can write to the store, every
/// request asks it, and what was seen before is used only while it is away; elsewhere whoever revokes says so.
pub(crate) struct Authenticator {
    store: Arc<dyn Store>,
    required: bool,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    principals: HashMap<[u8; 32], Principal>,
    /// Counts revocations: what was read before one is not remembered after it.
    revocations: u64,
}

impl Authenticator {
    pub(crate) fn new(store: Arc<dyn Store>, required: bool) -> Self {
        Authenticator {
            store,
            required,
            seen: Arc::default(),
        }
    }

    /// The same keys, with another word on whether they are required.
    pub(crate) fn reloaded(&self, required: bool) -> Self {
        Authenticator {
            store: Arc::clone(&self.store),
            required,
            seen: Arc::clone(&self.seen),
        }
    }

    /// The principal of a request that carries `credential`.
    pub(crate) async fn authenticate(
        &self,
        credential: Option<&str>,
    ) -> Result<Principal, ApiError> {
        let checked = match credential {
            None => Err(ApiError::unauthenticated()),
            Some(secret) => self.check(secret).await,
        };
        match checked {
            // SDKs send some key even where none is needed, so a wrong one is no error there.
            Err(_) if !self.required => Ok(Principal {
                project: OPEN_PROJECT.to_owned(),
                key_id: "none".to_owned(),
                scopes: vec![KeyScope::Admin, KeyScope::Inference],
            }),
            checked => checked,
        }
    }

    async fn check(&self, secret: &str) -> Result<Principal, ApiError> {
        let hash = keys::hash(secret);
        let revocations = {
            let seen = self.seen();
            if !self.store.is_shared()
                && let Some(principal) = seen.principals.get(&hash)
            {
                return Ok(principal.clone());
            }
            seen.revocations
        };
        match self.store.key_by_hash(&hash).await {
            Ok(Some(record))
                if record.revoked_at.is_none() && bool::from(record.hash.ct_eq(&hash)) =>
            {
                let principal = principal_of(&record);
                self.remember(hash, &principal, revocations);
                Ok(principal)
            }
            Ok(_) => {
                self.seen().principals.remove(&hash);
                Err(ApiError::unauthenticated())
            }
            Err(error) => {
                tracing::warn!(%error, "a key can't be looked up");
                self.seen().principals.get(&hash).cloned().ok_or_else(|| match error {
                    StoreError::NotFound => ApiError::unauthenticated(),
                    _ => ApiError::unavailable(
                        "The key store is away and this key has not been seen lately. Try again.",
                    ),
                })
            }
        }
    }

    /// A key has been revoked in the store.
    pub(crate) fn forget(&self, key_id: &str) {
        let mut seen = self.seen();
        seen.revocations += 1;
        seen.principals
            .retain(|_, principal| principal.key_id != key_id);
    }

    fn remember(&self, hash: [u8; 32], principal: &Principal, revocations: u64) {
        let mut seen = self.seen();
        if seen.revocations != revocations {
            return;
        }
        let known = &mut seen.principals;
        if known.len() >= REMEMBERED_KEYS_MAX && !known.contains_key(&hash) {
            // Rare and harmless: whoever comes back while the store is there is remembered again.
            known.clear();
        }
        if known.get(&hash) != Some(principal) {
            known.insert(hash, principal.clone());
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn principal_of(record: &KeyRecord) -> Principal {
    Principal {
        project: record.project.clone(),
        key_id: record.id.clone(),
        scopes: record.scopes.clone(),
    }
}

#[cfg(test)]
mod tests;
