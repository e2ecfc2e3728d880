//! Projects and their API keys. A key itself is never stored: only its SHA-256, which is enough for 256-bit random
//! keys.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use subtle::ConstantTimeEq;

use crate::StoreError;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRecord {
    /// `[a-z0-9-]{1,63}`; the primary key.
    pub name: String,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyScope {
    /// Everything, keys included.
    Admin,
    /// Chat and contexts of its project.
    Inference,
}

impl KeyScope {
    /// The word in config, CLI and database.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyScope::Admin => "admin",
            KeyScope::Inference => "inference",
        }
    }

    /// The scope of that word.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "admin" => Some(KeyScope::Admin),
            "inference" => Some(KeyScope::Inference),
            _ => None,
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
}

impl KeyRecord {
    /// Whether this is the record of the secret with that SHA-256; takes the same time wherever they differ.
    pub fn has_hash(&self, hash: &[u8; 32]) -> bool {
        self.hash.ct_eq(hash).into()
    }

    /// Whether it is refused at `now`.
    pub fn is_revoked(&self, now: UnixMillis) -> bool {
        self.revoked_at.is_some_and(|revoked_at| now >= revoked_at)
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

    /// All projects, by name.
    async fn list_projects(&self) -> Result<Vec<ProjectRecord>, StoreError>;

    /// Stores a key of an existing project.
    ///
    /// # Errors
    /// `NotFound` without the project, `Conflict` when id or hash exists.
    async fn insert_key(&self, key: &KeyRecord) -> Result<(), StoreError>;

    /// The key with this hash, revoked or not. The hash is the look-up key, so the database's comparison is on a
    /// digest the caller can't steer; the caller compares once more in constant time.
    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<KeyRecord>, StoreError>;

    /// Keys of a project, or of all, oldest first, revoked ones included.
    async fn list_keys(&self, project: Option<&str>) -> Result<Vec<KeyRecord>, StoreError>;

    /// Revokes by public id; again is no error and keeps the first time.
    ///
    /// # Errors
    /// `NotFound` for an unknown id.
    async fn revoke_key(&self, id: &str, now: UnixMillis) -> Result<KeyRecord, StoreError>;
}
