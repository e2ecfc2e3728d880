//! Projects and their API keys. A key itself is never stored: only its SHA-256, which is enough for 256-bit random
//! keys.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::{Budget, StoreError};

/// What bounds the use of a key or a project. What is `None` is decided elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitSettings {
    /// Requests that may begin within a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens, of input and output together, within a minute.
    pub tokens_per_minute: Option<u64>,
    /// Requests that may run at the same time.
    pub concurrent_requests: Option<u64>,
    /// Living contexts; those that the gateway keeps of its own accord count for projects only.
    pub contexts: Option<u64>,
    /// Tokens in living contexts.
    pub context_tokens: Option<u64>,
}

/// What an operator decides about a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectSettings {
    /// What people call it.
    pub display_name: String,
    /// Models that its keys may use: names, or beginnings of names followed by `*`. Empty: all.
    pub models: Vec<String>,
    /// The model of requests that name none.
    pub default_model: Option<String>,
    /// Of all its keys together.
    pub limits: LimitSettings,
    /// What all its keys together may spend.
    pub budgets: Vec<Budget>,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRecord {
    /// `[a-z0-9-]{1,63}`; the primary key.
    pub name: String,
    /// When it was made.
    pub created_at: UnixMillis,
    /// Grows by one with each change of its settings.
    pub version: u64,
    /// What an operator has decided about it.
    pub settings: ProjectSettings,
}

impl ProjectRecord {
    /// A new project without settings.
    pub fn new(name: impl Into<String>, created_at: UnixMillis) -> Self {
        ProjectRecord {
            name: name.into(),
            created_at,
            version: 0,
            settings: ProjectSettings::default(),
        }
    }
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyScope {
    /// Everything, keys included.
    Admin,
    /// Everything a client of its project does: chats, and both of the scopes for contexts.
    Inference,
    /// Looking at contexts of its project.
    ContextsRead,
    /// Making, changing and deleting contexts of its project.
    ContextsWrite,
    /// Looking at what its project has used.
    UsageRead,
}

impl KeyScope {
    /// Every scope.
    pub const ALL: [KeyScope; 5] = [
        KeyScope::Admin,
        KeyScope::Inference,
        KeyScope::ContextsRead,
        KeyScope::ContextsWrite,
        KeyScope::UsageRead,
    ];

    /// The word in config, CLI and database.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyScope::Admin => "admin",
            KeyScope::Inference => "inference",
            KeyScope::ContextsRead => "contexts:read",
            KeyScope::ContextsWrite => "contexts:write",
            KeyScope::UsageRead => "usage:read",
        }
    }

    /// The scope of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }

    /// Whether whoever has this scope may do what `other` stands for.
    pub fn includes(self, other: KeyScope) -> bool {
        match self {
            KeyScope::Admin => true,
            KeyScope::Inference => matches!(
                other,
                KeyScope::Inference | KeyScope::ContextsRead | KeyScope::ContextsWrite
            ),
            narrow => narrow == other,
        }
    }
}

/// A key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Public id, `key-<16 base32 characters>`; names the key in lists and logs.
    pub id: String,
    /// Owner.
    pub project: String,
    /// SHA-256 of the whole secret string.
    pub hash: [u8; 32],
    /// First characters of the secret, for people to tell keys apart; at most 12.
    pub hint: String,
    /// What a person called it.
    pub label: String,
    /// Sorted, without duplicates, not empty.
    pub scopes: Vec<KeyScope>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// From when on it is refused.
    pub revoked_at: Option<UnixMillis>,
    /// When it ends by itself.
    pub expires_at: Option<UnixMillis>,
    /// When it was last used, to about a minute.
    pub last_used_at: Option<UnixMillis>,
    /// The secret before the last rotation.
    pub previous: Option<PreviousSecret>,
    /// Models it may use, as in [`ProjectSettings::models`]; the project's list holds as well.
    pub models: Vec<String>,
    /// Its own limits; the project's hold as well.
    pub limits: LimitSettings,
    /// What it may spend; the project's budgets hold as well.
    pub budgets: Vec<Budget>,
    /// Grows by one with each [`KeyStore::update_key`].
    pub version: u64,
}

/// A secret that has been replaced and may be used a little longer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PreviousSecret {
    /// SHA-256 of the whole secret string.
    pub hash: [u8; 32],
    /// From when on it is refused.
    pub expires_at: UnixMillis,
}

impl KeyRecord {
    /// Whether this is the record of the secret with that SHA-256; takes the same time wherever they differ.
    pub fn has_hash(&self, hash: &[u8; 32]) -> bool {
        self.hash.ct_eq(hash).into()
    }

    /// Whether the secret with that SHA-256 may be used at `now`: the key's own, or the one before while it is good. A
    /// revoked key is refused whatever the clocks of two servers say.
    pub fn admits(&self, hash: &[u8; 32], now: UnixMillis) -> bool {
        let is_previous = self.previous.is_some_and(|previous| {
            bool::from(previous.hash.ct_eq(hash)) && now < previous.expires_at
        });
        self.is_active(now) && (self.has_hash(hash) || is_previous)
    }

    /// Whether it has neither been revoked nor ended at `now`.
    pub fn is_active(&self, now: UnixMillis) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

impl std::fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRecord")
            .field("id", &self.id)
            .field("project", &self.project)
            .field("hash", &"****")
            .field("scopes", &self.scopes)
            .field("revoked_at", &self.revoked_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Keeps projects and keys.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// Makes the project unless it exists; returns it.
    async fn ensure_project(
        &self,
        name: &str,
        now: UnixMillis,
    ) -> Result<ProjectRecord, StoreError>;

    /// A project by its name.
    ///
    /// # Errors
    /// `NotFound` for an unknown name.
    async fn project(&self, name: &str) -> Result<ProjectRecord, StoreError>;

    /// Stores a new project.
    ///
    /// # Errors
    /// `Conflict` when the name exists.
    async fn insert_project(&self, project: &ProjectRecord) -> Result<(), StoreError>;

    /// Stores a project's settings if its version is still that of `project`, and returns it with the next version.
    ///
    /// # Errors
    /// `NotFound` for an unknown name, `Conflict` when somebody else has changed it.
    async fn update_project(&self, project: &ProjectRecord) -> Result<ProjectRecord, StoreError>;

    /// At most `limit` projects, by name, beginning after the name `after`.
    async fn page_projects(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ProjectRecord>, StoreError>;

    /// Stores a key of an existing project.
    ///
    /// # Errors
    /// `NotFound` without the project, `Conflict` when id or hash exists.
    async fn insert_key(&self, key: &KeyRecord) -> Result<(), StoreError>;

    /// The key whose secret has this hash or had it before the last rotation, usable or not. The hash is the look-up key, so the database's comparison is on a
    /// digest the caller can't steer; the caller compares once more in constant time.
    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<KeyRecord>, StoreError>;

    /// The key of this public id, usable or not.
    ///
    /// # Errors
    /// `NotFound` for an unknown id.
    async fn key(&self, id: &str) -> Result<KeyRecord, StoreError>;

    /// At most `limit` keys of a project, or of all, oldest first, beginning after the key `after`.
    async fn page_keys(
        &self,
        project: Option<&str>,
        after: Option<&KeyRecord>,
        limit: u32,
    ) -> Result<Vec<KeyRecord>, StoreError>;

    /// Stores a key's secrets, label, scopes, expiry, models, limits and budgets if its version is still that of `key`, and
    /// returns it with the next version. Revocation and last use stay as they are stored.
    ///
    /// # Errors
    /// `NotFound` for an unknown id, `Conflict` when somebody else has changed it, or when the hash exists.
    async fn update_key(&self, key: &KeyRecord) -> Result<KeyRecord, StoreError>;

    /// Remembers when keys were last used: public ids and times. A time before the stored one and an unknown id change
    /// nothing.
    async fn touch_keys(&self, uses: &[(String, UnixMillis)]) -> Result<(), StoreError>;

    /// Revokes by public id; again is no error and keeps the first time.
    ///
    /// # Errors
    /// `NotFound` for an unknown id.
    async fn revoke_key(&self, id: &str, now: UnixMillis) -> Result<KeyRecord, StoreError>;
}
