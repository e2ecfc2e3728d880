//! The audit log: what was done to projects, keys, configuration and storage, by whom. Each entry has the hash of the one
//! before it in its own, so that nothing can be changed, taken out or put in between without every later hash telling.
//! That the newest are missing is told only by a hash of one of them that was kept elsewhere.
//!
//! Entries are never changed or removed. None has a secret in it.

use std::fmt;

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use holdfast_protocol::UnixMillis;
use sha2::{Digest, Sha256};

use crate::StoreError;

/// Most entries of one page.
pub const AUDIT_PAGE_MAX: u32 = 1000;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuditHash(pub [u8; 32]);

impl AuditHash {
    /// What the first entry has as the hash before it.
    pub const START: AuditHash = AuditHash([0; 32]);

    /// Of 64 hexadecimal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = HEXLOWER.decode(text.to_ascii_lowercase().as_bytes()).ok()?;
        bytes.try_into().ok().map(AuditHash)
    }
}

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: UnixMillis,
    /// Who: the id of a key, or a word of the gateway's own (`local`, `start`, `signal`).
    pub actor: String,
    /// What, such as `key.create`.
    pub act: String,
    /// What it was done to: the id of a key, the name of a project, or empty.
    pub target: String,
    /// Whose that is.
    pub project: Option<String>,
    /// The request that asked for it.
    pub request: Option<String>,
    /// What changed, as a JSON object.
    pub details: String,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// 1 for the first entry, and one more for each.
    pub sequence: u64,
    /// The act.
    pub entry: AuditEntry,
    /// Hash of the entry before.
    pub previous: AuditHash,
    /// Hash of this one.
    pub hash: AuditHash,
}

impl AuditRecord {
    /// The entry that follows `head`, or the first one.
    pub fn after(head: Option<(u64, AuditHash)>, entry: AuditEntry) -> Self {
        let (sequence, previous) = head.map_or((1, AuditHash::START), |(sequence, hash)| {
            (sequence.saturating_add(1), hash)
        });
        AuditRecord {
            hash: hash(sequence, &entry, &previous),
            sequence,
            entry,
            previous,
        }
    }
}

/// SHA-256 over `holdfast audit 1`, the sequence and the time as 8 bytes each (big-endian), then actor, act, target,
/// project, request and details, each preceded by its length (8 bytes, big-endian) and, for those that may be absent,
/// by a byte that says whether they are there; then the hash before.
fn hash(sequence: u64, entry: &AuditEntry, previous: &AuditHash) -> AuditHash {
    let mut hasher = Sha256::new_with_prefix(b"holdfast audit 1");
    hasher.update(sequence.to_be_bytes());
    hasher.update(entry.at.to_be_bytes());
    let mut text = |text: &str| {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    };
    text(&entry.actor);
    text(&entry.act);
    text(&entry.target);
    for optional in [&entry.project, &entry.request] {
        text(match optional {
            Some(_) => "+",
            None => "-",
        });
        text(optional.as_deref().unwrap_or_default());
    }
    text(&entry.details);
    hasher.update(previous.0);
    AuditHash(hasher.finalize().into())
}

/// Which entries are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only this act, or those that begin so where it ends with `*`.
    pub act: Option<String>,
    /// Only this actor's.
    pub actor: Option<String>,
}

impl AuditFilter {
    /// Whether an entry is meant.
    pub fn takes(&self, entry: &AuditEntry) -> bool {
        let act = match self.act.as_deref() {
            None => true,
            Some(act) => match act.strip_suffix('*') {
                Some(beginning) => entry.act.starts_with(beginning),
                None => entry.act == act,
            },
        };
        act && self
            .actor
            .as_ref()
            .is_none_or(|actor| *actor == entry.actor)
    }
}

/// In which order entries come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuditOrder {
    /// The newest first.
    #[default]
    Newest,
    /// The oldest first.
    Oldest,
}

/// Keeps the audit log.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Appends an entry after all that are there, whoever else does the same at the time.
    async fn append_audit(&self, entry: &AuditEntry) -> Result<AuditRecord, StoreError>;

    /// At most `limit` entries (1..=[`AUDIT_PAGE_MAX`]; others count as the nearest), those that come after the one with
    /// the sequence `after` in this order.
    async fn audit_page(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditRecord>, StoreError>;
}

/// Follows the chain from its first entry on.
#[derive(Debug, Clone, Default)]
pub struct AuditVerifier {
    head: Option<(u64, AuditHash)>,
}

/// Where the chain does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuditBreak {
    /// An entry is not there.
    #[error("entry {0} is missing")]
    Missing(u64),
    /// An entry is not as it was written.
    #[error("entry {0} has been changed")]
    Changed(u64),
    /// An entry does not continue from the one before it.
    #[error("entry {0} does not follow the one before it")]
    Unlinked(u64),
}

impl AuditVerifier {
    /// Takes the next entry, oldest first and without gaps.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(&mut self, record: &AuditRecord) -> Result<(), AuditBreak> {
        let expected = AuditRecord::after(self.head, record.entry.clone());
        if record.sequence != expected.sequence {
            return Err(AuditBreak::Missing(expected.sequence));
        }
        if record.previous != expected.previous {
            return Err(AuditBreak::Unlinked(record.sequence));
        }
        if record.hash != expected.hash {
            return Err(AuditBreak::Changed(record.sequence));
        }
        self.head = Some((record.sequence, record.hash));
        Ok(())
    }

    /// The newest entry so far.
    pub fn head(&self) -> Option<(u64, AuditHash)> {
        self.head
    }
}
