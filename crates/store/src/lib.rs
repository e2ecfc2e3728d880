//! Where contexts, keys, stored answers and the ledger live. Knows no dialect, no provider and no engine.
//!
//! Every implementation passes the same suite (module `conformance`, feature of that name); differences are written
//! down there.
//! Methods that take `project` answer for a foreign project exactly as for an id that does not exist.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::context::{Context, ContextContent, ContextId, ContextPage, Turn};

pub mod audit;
pub mod budgets;
mod columns;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod cursor;
pub mod keys;
pub mod ledger;
pub mod memory;
pub mod postgres;
pub mod reseal;
pub mod responses;
mod rows;
mod sealed;
pub mod sqlite;
pub mod upstreams;

pub use audit::{
    AuditBreak, AuditEntry, AuditFilter, AuditHash, AuditOrder, AuditRecord, AuditStore,
    AuditVerifier,
};
pub use budgets::{
    Allows, Budget, BudgetPeriod, BudgetStore, Reservation, Reserved, Span, Spender, Tally,
};
pub use keys::{
    KeyRecord, KeyScope, KeyStore, LimitSettings, PreviousSecret, ProjectRecord, ProjectSettings,
};
pub use ledger::{
    GroupBy, GroupKey, LedgerFilter, LedgerGroup, LedgerGroups, LedgerMoney, LedgerRecord,
    LedgerRows, LedgerStore, LedgerTotals,
};
pub use memory::MemoryStore;
pub use postgres::{PostgresOptions, PostgresStore};
pub use reseal::{ResealPosition, ResealStep};
pub use responses::{
    Chain, ChainLink, ConversationRecord, HeadChange, ItemsChange, ResponseRecord, ResponseStore,
    ResponseUsage,
};
pub use sqlite::SqliteStore;
pub use upstreams::{Account, AccountChange, AccountRecord, HandleRecord, UpstreamStore};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The context (or key, response, conversation) is not there for this project: unknown, expired, deleted or
    /// foreign.
    #[error("not found")]
    NotFound,
    /// Somebody else changed the row first: what the caller expected there is there no longer.
    #[error("version conflict")]
    Conflict,
    /// The database is away, full or read-only. Retrying later may work.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is stored can't be read back: a newer schema, another program's file, or damage.
    #[error("stored data is unreadable: {0}")]
    Corrupt(String),
}

/// Keeps contexts. Once a method has returned `Ok`, its effect survives `kill -9` and power loss (not in memory).
#[async_trait]
pub trait ContextStore: Send + Sync {
    /// Whether another process may change what is stored here. If not, what this process has seen last is the truth,
    /// and need not be read again.
    fn is_shared(&self) -> bool;

    /// Stores a new context with its content, in one transaction.
    ///
    /// # Errors
    /// `Conflict` when the id exists.
    async fn insert(&self, context: &Context, content: &ContextContent) -> Result<(), StoreError>;

    /// The context without its messages.
    ///
    /// # Errors
    /// `NotFound` also when it has expired at `now`.
    async fn get(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<Context, StoreError>;

    /// The messages of a context. The caller has checked ownership and expiry by [`ContextStore::get`]; ownership is
    /// checked again. Content of an expired context stays readable until the sweep.
    async fn content(&self, project: &str, id: &ContextId) -> Result<ContextContent, StoreError>;

    /// Moves a sliding expiry forward; never backward, and never a fixed one, which is no error.
    ///
    /// # Errors
    /// `NotFound` also when it has expired at `now`.
    async fn touch(
        &self,
        project: &str,
        id: &ContextId,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError>;

    /// Appends a turn and updates the counters, in one transaction, only if the version is still `expected_version`
    /// and the context has not expired at `now`. The new version is `expected_version + 1`.
    ///
    /// # Errors
    /// `Conflict` when the version differs or the turn's number does not follow.
    async fn append_turn(
        &self,
        project: &str,
        id: &ContextId,
        expected_version: u64,
        append: &AppendTurn,
        now: UnixMillis,
    ) -> Result<Context, StoreError>;

    /// Sets a new ttl and expiry, earlier or later than before.
    ///
    /// # Errors
    /// `NotFound` also when it has expired at `now`.
    async fn set_ttl(
        &self,
        project: &str,
        id: &ContextId,
        ttl_seconds: u32,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<Context, StoreError>;

    /// Living contexts of a project that a client created by name, newest first, `limit` at most (1..=[`LIST_LIMIT_MAX`]; others count as the
    /// nearest). `cursor` comes from the page before; contexts created meanwhile do not disturb the paging.
    ///
    /// # Errors
    /// `NotFound` for a cursor that this store did not make.
    async fn list(
        &self,
        project: &str,
        cursor: Option<&str>,
        limit: u32,
        now: UnixMillis,
    ) -> Result<ContextPage, StoreError>;

    /// Removes a context and its content.
    ///
    /// # Errors
    /// `NotFound` also when it has expired at `now`: then the sweep removes it and returns it.
    async fn delete(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<(), StoreError>;

    /// Removes at most `limit` contexts that have expired at `now`, the longest expired first, and returns them, so
    /// that their cached state can go.
    async fn sweep(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, StoreError>;

    /// Living contexts of all projects with their content, for pinning state at start: at most `limit`, soonest to be
    /// used first (newest first). Without content; fetch it by [`ContextStore::content`].
    async fn living(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, StoreError>;

    /// All living contexts of all projects in no order, and of each only what counting them needs: whoever shares the
    /// store learns from it what others have made and removed.
    async fn census(&self, now: UnixMillis) -> Result<Vec<LivingContext>, StoreError>;
}

/// A living context in [`ContextStore::census`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivingContext {
    /// Its id.
    pub id: ContextId,
    /// Its owner.
    pub project: String,
    /// See [`Context::model`].
    pub model: String,
    /// See [`Context::prefix_tokens`].
    pub prefix_tokens: u64,
    /// See [`Context::implicit`].
    pub implicit: Option<String>,
    /// See [`Context::made_by`].
    pub made_by: Option<String>,
}

impl From<&Context> for LivingContext {
    fn from(context: &Context) -> Self {
        LivingContext {
            id: context.id.clone(),
            project: context.project.clone(),
            model: context.model.clone(),
            prefix_tokens: context.prefix_tokens,
            implicit: context.implicit.clone(),
            made_by: context.made_by.clone(),
        }
    }
}

/// What a finished turn changes.
#[derive(Debug, Clone, PartialEq)]
pub struct AppendTurn {
    /// Its `number` is the context's `turn_count + 1`.
    pub turn: Turn,
    /// New total (see [`Context::dropped_messages`]).
    pub dropped_messages: u32,
    /// New value.
    pub prefix_tokens: u64,
    /// New expiry; a smaller value than the stored one is ignored.
    pub expires_at: UnixMillis,
}

/// Most contexts in one page of [`ContextStore::list`].
pub const LIST_LIMIT_MAX: u32 = 1000;

/// Makes a page of at most `limit` contexts; one more in `contexts` says that another page follows.
fn page(project: &str, mut contexts: Vec<Context>, limit: usize) -> ContextPage {
    let more = contexts.len() > limit;
    contexts.truncate(limit);
    let next_cursor = contexts.last().filter(|_| more).map(|last| {
        let cursor = cursor::Cursor {
            created_at: last.created_at,
            id: last.id.clone(),
        };
        cursor.encode(project)
    });
    ContextPage {
        contexts,
        next_cursor,
    }
}
