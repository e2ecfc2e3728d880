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

/// Checks credentials against the store. Every request asks the store, so a revoked key is refused at once; what was
/// seen before is used only while the store is away.
pub(crate) struct Authenticator {
    store: Arc<dyn Store>,
    required: bool,
    seen: Mutex<HashMap<[u8; 32], Principal>>,
}

impl Authenticator {
    pub(crate) fn new(store: Arc<dyn Store>, required: bool) -> Self {
        Authenticator {
            store,
            required,
            seen: Mutex::default(),
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
        match self.store.key_by_hash(&hash).await {
            Ok(Some(record))
                if record.revoked_at.is_none() && bool::from(record.hash.ct_eq(&hash)) =>
            {
                let principal = principal_of(&record);
                self.remember(hash, &principal);
                Ok(principal)
            }
            Ok(_) => {
                self.seen().remove(&hash);
                Err(ApiError::unauthenticated())
            }
            Err(error) => {
                tracing::warn!(%error, "a key can't be looked up");
                self.seen().get(&hash).cloned().ok_or_else(|| match error {
                    StoreError::NotFound => ApiError::unauthenticated(),
                    _ => ApiError::unavailable(
                        "The key store is away and this key has not been seen lately. Try again.",
                    ),
                })
            }
        }
    }

    fn remember(&self, hash: [u8; 32], principal: &Principal) {
        let mut seen = self.seen();
        if seen.len() >= REMEMBERED_KEYS_MAX && !seen.contains_key(&hash) {
            // Rare and harmless: whoever comes back while the store is there is remembered again.
            seen.clear();
        }
        if seen.get(&hash) != Some(principal) {
            seen.insert(hash, principal.clone());
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Principal>> {
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
