//! Who a request is from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::{ApiError, ChatRequest, UnixMillis};
use holdfast_store::{KeyRecord, KeyScope, LimitSettings, ProjectSettings, StoreError};

use crate::app::{ModelEntry, Store};
use crate::keys;
use crate::routing::{Model, Models};

/// Keys remembered so that the store need not be asked, or for the time it is away.
const REMEMBERED_KEYS_MAX: usize = 10_000;

/// How long what was read of a key counts where others can write to the store, milliseconds: as long as a revoked key
/// may still be used at another replica.
const SHARED_AGE_MAX_MS: UnixMillis = 1000;

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
    /// What an operator has decided about the key and its project.
    pub terms: Arc<Terms>,
}

/// What an operator has decided about a key and its project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Models that the key may use, as in [`KeyRecord::models`].
    pub models: Vec<String>,
    /// The key's own limits.
    pub limits: LimitSettings,
    /// Of the project.
    pub project: ProjectSettings,
}

impl Principal {
    /// Whether it may do what `scope` stands for.
    pub fn may(&self, scope: KeyScope) -> bool {
        self.scopes.iter().any(|own| own.includes(scope))
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

    /// Whether it may use a model: the lists of key and project both have the model's name or one of its aliases.
    pub(crate) fn may_use(&self, model: &ModelEntry) -> bool {
        let names = || std::iter::once(&model.name).chain(&model.aliases);
        [&self.terms.models, &self.terms.project.models]
            .into_iter()
            .all(|list| list.is_empty() || names().any(|name| is_listed(list, name)))
    }

    /// The model of this name or alias. One that it may not use is not there for it.
    pub(crate) fn model<'a>(
        &self,
        models: &'a Models,
        name: &str,
    ) -> Result<&'a Arc<Model>, ApiError> {
        let model = models.resolve(name)?;
        match self.may_use(&model.entry) {
            true => Ok(model),
            false => Err(ApiError::model_not_found(name)),
        }
    }

    /// Names the project's default model in a chat that names neither a model nor a context.
    pub(crate) fn complete(&self, request: &mut ChatRequest) {
        if request.model.is_none() && request.context_id.is_none() {
            request.model.clone_from(&self.terms.project.default_model);
        }
    }

    /// The models that it may use.
    pub(crate) fn models<'a>(&'a self, models: &'a Models) -> impl Iterator<Item = &'a Arc<Model>> {
        models.iter().filter(|model| self.may_use(&model.entry))
    }
}

fn is_listed(list: &[String], name: &str) -> bool {
    list.iter().any(|entry| match entry.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => entry == name,
    })
}

/// Checks credentials against the store. What was read of a key counts until somebody says that it has changed; where
/// others can write to the store, for a second at most, and beyond that only while the store is away.
pub(crate) struct Authenticator {
    store: Arc<dyn Store>,
    required: bool,
    seen: Arc<Mutex<Seen>>,
    /// When keys were last used, by public id, as far as the store has not been told.
    uses: Arc<Mutex<HashMap<String, UnixMillis>>>,
}

#[derive(Default)]
struct Seen {
    keys: HashMap<[u8; 32], SeenKey>,
    /// Counts changes: what was read before one is not remembered after it.
    changes: u64,
}

/// What was read of a key, and when.
#[derive(Clone)]
struct SeenKey {
    record: Arc<KeyRecord>,
    principal: Principal,
    read_at: UnixMillis,
}

impl Authenticator {
    pub(crate) fn new(store: Arc<dyn Store>, required: bool) -> Self {
        Authenticator {
            store,
            required,
            seen: Arc::default(),
            uses: Arc::default(),
        }
    }

    /// The same keys, with another word on whether they are required.
    pub(crate) fn reloaded(&self, required: bool) -> Self {
        Authenticator {
            store: Arc::clone(&self.store),
            required,
            seen: Arc::clone(&self.seen),
            uses: Arc::clone(&self.uses),
        }
    }

    /// The principal of a request that carries `credential`.
    pub(crate) async fn authenticate(
        &self,
        credential: Option<&str>,
        now: UnixMillis,
    ) -> Result<Principal, ApiError> {
        let checked = match credential {
            None => Err(ApiError::unauthenticated()),
            Some(secret) => self.check(secret, now).await,
        };
        match checked {
            // SDKs send some key even where none is needed, so a wrong one is no error there.
            Err(_) if !self.required => Ok(Principal {
                project: OPEN_PROJECT.to_owned(),
                key_id: "none".to_owned(),
                scopes: KeyScope::ALL.to_vec(),
                terms: Arc::default(),
            }),
            Ok(principal) => {
                self.note_use(&principal.key_id, now);
                Ok(principal)
            }
            Err(error) => Err(error),
        }
    }

    async fn check(&self, secret: &str, now: UnixMillis) -> Result<Principal, ApiError> {
        let hash = keys::hash(secret);
        let (known, changes) = {
            let seen = self.seen();
            (seen.keys.get(&hash).cloned(), seen.changes)
        };
        if let Some(known) = known.as_ref().filter(|known| self.is_fresh(known, now)) {
            return known.admit(&hash, now);
        }
        match self.read(&hash, now).await {
            Ok(Some(read)) => {
                self.remember(hash, &read, changes);
                read.admit(&hash, now)
            }
            Ok(None) | Err(StoreError::NotFound) => {
                self.seen().keys.remove(&hash);
                Err(ApiError::unauthenticated())
            }
            Err(error) => {
                tracing::warn!(%error, "a key can't be looked up");
                let known = known.ok_or_else(|| {
                    ApiError::unavailable(
                        "The key store is away and this key has not been seen lately. Try again.",
                    )
                })?;
                known.admit(&hash, now)
            }
        }
    }

    async fn read(&self, hash: &[u8; 32], now: UnixMillis) -> Result<Option<SeenKey>, StoreError> {
        let Some(record) = self.store.key_by_hash(hash).await? else {
            return Ok(None);
        };
        let project = self.store.project(&record.project).await?;
        let principal = Principal {
            project: record.project.clone(),
            key_id: record.id.clone(),
            scopes: record.scopes.clone(),
            terms: Arc::new(Terms {
                models: record.models.clone(),
                limits: record.limits,
                project: project.settings,
            }),
        };
        Ok(Some(SeenKey {
            record: Arc::new(record),
            principal,
            read_at: now,
        }))
    }

    fn is_fresh(&self, known: &SeenKey, now: UnixMillis) -> bool {
        // A clock that was set back must not make it last longer.
        !self.store.is_shared() || (0..SHARED_AGE_MAX_MS).contains(&(now - known.read_at))
    }

    /// A key has been changed, rotated or revoked in the store.
    pub(crate) fn forget(&self, key_id: &str) {
        let mut seen = self.seen();
        seen.changes += 1;
        seen.keys.retain(|_, known| known.record.id != key_id);
    }

    /// A project has been changed in the store.
    pub(crate) fn forget_project(&self, project: &str) {
        let mut seen = self.seen();
        seen.changes += 1;
        seen.keys.retain(|_, known| known.record.project != project);
    }

    /// Tells the store when keys were last used.
    pub(crate) async fn write_uses(&self) -> Result<(), StoreError> {
        let mut uses: Vec<_> = std::mem::take(&mut *self.uses()).into_iter().collect();
        if uses.is_empty() {
            return Ok(());
        }
        // Replicas that lock rows in one order do not wait for each other in a circle.
        uses.sort_unstable();
        let written = self.store.touch_keys(&uses).await;
        if written.is_err() {
            let mut later = self.uses();
            for (id, used_at) in uses {
                later.entry(id).or_insert(used_at);
            }
        }
        written
    }

    fn note_use(&self, key_id: &str, now: UnixMillis) {
        let mut uses = self.uses();
        // The bound holds while the store is away.
        let has_room = uses.len() < REMEMBERED_KEYS_MAX;
        if let Some(used_at) = uses.get_mut(key_id) {
            *used_at = now.max(*used_at);
        } else if has_room {
            uses.insert(key_id.to_owned(), now);
        }
    }

    fn remember(&self, hash: [u8; 32], read: &SeenKey, changes: u64) {
        let mut seen = self.seen();
        if seen.changes != changes {
            return;
        }
        let known = &mut seen.keys;
        if known.len() >= REMEMBERED_KEYS_MAX && !known.contains_key(&hash) {
            // Rare and harmless: whoever comes back while the store is there is remembered again.
            known.clear();
        }
        known.insert(hash, read.clone());
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uses(&self) -> std::sync::MutexGuard<'_, HashMap<String, UnixMillis>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SeenKey {
    fn admit(&self, hash: &[u8; 32], now: UnixMillis) -> Result<Principal, ApiError> {
        match self.record.admits(hash, now) {
            true => Ok(self.principal.clone()),
            false => Err(ApiError::unauthenticated()),
        }
    }
}

#[cfg(test)]
mod tests;
