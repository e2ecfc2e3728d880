//! What the gateway remembers of upstreams: their copies of contexts (handles), what each context has used and cost,
//! where it is at home, and who is building what.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::context::ContextId;

use crate::StoreError;

/// An upstream's copy of a context's prefix. One living handle per context and place, or a chain of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandleRecord {
    /// Whose prefix it is. The context itself may be gone already.
    pub context: ContextId,
    /// Its tenant.
    pub project: String,
    /// Which upstream account, region and model it is tied to, as one opaque word.
    pub place: String,
    /// The upstream's name for it. A secret towards clients.
    pub name: String,
    /// Tokens by the upstream's count, where it gave one.
    pub tokens: Option<u64>,
    /// How many of the session's turns it holds after the initial messages; 0: the initial messages only.
    pub turns: u32,
    /// [`Context::dropped_messages`](holdfast_protocol::Context) when it was made: turns in it stand for other messages
    /// once that has changed.
    pub dropped_messages: u32,
    /// When it was made or last extended; storage is charged from here.
    pub created_at: UnixMillis,
    /// When the upstream forgets it, by our clock.
    pub expires_at: UnixMillis,
}

/// What one context has used and cost since it began, or a change to that. Amounts are trillionths of the currency
/// unit, so that a token's share of the smallest price is a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Finished chats.
    pub requests: u64,
    /// Of these, by outcome.
    pub hits: u64,
    /// See `hits`.
    pub rebuilds: u64,
    /// See `hits`.
    pub misses: u64,
    /// See `hits`.
    pub degraded: u64,
    /// All input tokens.
    pub input_tokens: u64,
    /// Of these, read from a cache.
    pub cache_read_tokens: u64,
    /// Of these, written to one.
    pub cache_write_tokens: u64,
    /// Generated tokens.
    pub output_tokens: u64,
    /// Requests sent to keep a copy warm.
    pub pings: u64,
    /// Chats, creates and pings together, trillionths.
    pub cost: i64,
    /// Of `cost`, what pings took.
    pub ping_cost: i64,
    /// For keeping copies at upstreams.
    pub storage_cost: i64,
    /// Against sending everything fresh each time, `ping_cost` and `storage_cost` taken off; may be negative.
    pub saved: i64,
}

impl Account {
    /// The sum, field by field.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Account {
            requests: self.requests + other.requests,
            hits: self.hits + other.hits,
            rebuilds: self.rebuilds + other.rebuilds,
            misses: self.misses + other.misses,
            degraded: self.degraded + other.degraded,
            input_tokens: self.input_tokens + other.input_tokens,
            cache_read_tokens: self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens: self.cache_write_tokens + other.cache_write_tokens,
            output_tokens: self.output_tokens + other.output_tokens,
            pings: self.pings + other.pings,
            cost: self.cost.saturating_add(other.cost),
            ping_cost: self.ping_cost.saturating_add(other.ping_cost),
            storage_cost: self.storage_cost.saturating_add(other.storage_cost),
            saved: self.saved.saturating_add(other.saved),
        }
    }
}

/// An account as stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountRecord {
    /// Sums since the context began.
    pub totals: Account,
    /// ISO 4217 code of the amounts; empty while nothing has had a price.
    pub currency: String,
    /// The place that served it last and is asked first; `None` before the first chat.
    pub home: Option<String>,
    /// When the last chat ended.
    pub last_used_at: Option<UnixMillis>,
}

/// A change to one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountChange {
    /// Whose.
    pub context: ContextId,
    /// Added field by field.
    pub add: Account,
    /// Replaces an empty one only.
    pub currency: String,
    /// Replaces the stored one unless `None`.
    pub home: Option<String>,
    /// Replaces an earlier one unless `None`.
    pub last_used_at: Option<UnixMillis>,
}

/// Keeps handles, accounts and leases. Once a method has returned `Ok`, its effect survives `kill -9` (not in memory).
#[async_trait]
pub trait UpstreamStore: Send + Sync {
    /// Stores a handle. Living ones of the same context and place and of other names are marked to be dropped, unless the
    /// new one holds turns: then it was made by continuing from them, and an upstream may need them as long as it lives.
    async fn put_handle(&self, handle: &HandleRecord) -> Result<(), StoreError>;

    /// A context's living handles, also those whose `expires_at` has passed: by place, those with most turns first.
    async fn handles(&self, context: &ContextId) -> Result<Vec<HandleRecord>, StoreError>;

    /// Forgets a handle, living or to be dropped; none of that name is no error.
    async fn remove_handle(&self, place: &str, name: &str) -> Result<(), StoreError>;

    /// Marks all of a context's handles to be dropped.
    async fn doom_handles(&self, context: &ContextId) -> Result<(), StoreError>;

    /// Marks the handles made before `made_before` of contexts that are not stored any more: a crash, or another
    /// replica, has come between. Forgets those that are to be dropped and expired before `now`: the upstream has done
    /// the work.
    async fn tidy_handles(
        &self,
        made_before: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError>;

    /// At most `limit` handles at `place` that are to be dropped and expire at `now` or later, the soonest first.
    async fn doomed(
        &self,
        place: &str,
        now: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, StoreError>;

    /// At most `limit` living handles at `place` that expire after `now` and before `before`, the soonest first.
    async fn expiring(
        &self,
        place: &str,
        now: UnixMillis,
        before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, StoreError>;

    /// Applies changes in one transaction; changes to contexts that are not stored any more are left out.
    async fn change_accounts(&self, changes: &[AccountChange]) -> Result<(), StoreError>;

    /// A context's account; an empty one when nothing was ever added.
    async fn account(&self, context: &ContextId) -> Result<AccountRecord, StoreError>;

    /// Takes the lease `name` for `owner` until `until`, unless another owner holds it past `now`. Answers whether
    /// `owner` has it now. An owner renews its own lease this way.
    async fn acquire_lease(
        &self,
        name: &str,
        owner: &str,
        until: UnixMillis,
        now: UnixMillis,
    ) -> Result<bool, StoreError>;

    /// Gives a lease back; one that is another owner's stays.
    async fn release_lease(&self, name: &str, owner: &str) -> Result<(), StoreError>;
}
