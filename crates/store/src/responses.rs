//! Answers that clients come back to by id, as the Responses surface lets them, and conversations.
//!
//! Responses form trees: each may continue from another one, and several from the same. One that was deleted or has
//! expired is gone for clients at once, but its messages stay for as long as a living response continues from it,
//! directly or through others, because they are part of what that one answered. Nothing else of it stays.
//! The bytes are JSON that nobody here looks into.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;

use crate::StoreError;

/// A stored answer with the request that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseRecord {
    /// Chosen by the caller; unique over all projects.
    pub id: String,
    /// Owner.
    pub project: String,
    /// The model's configured name.
    pub model: String,
    /// The id of the response it continues.
    pub previous: Option<String>,
    /// The id of the conversation it was made in, which may be gone already.
    pub conversation: Option<String>,
    /// The request's items as the client gave them.
    pub input: Vec<u8>,
    /// This turn's new messages and its answer in the gateway's own form.
    pub messages: Vec<u8>,
    /// The response object.
    pub body: Vec<u8>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// From when on it is gone. Nothing moves it.
    pub expires_at: UnixMillis,
}

impl ResponseRecord {
    /// What it counts for in [`ResponseUsage::bytes`].
    pub fn bytes(&self) -> u64 {
        (self.input.len() + self.messages.len() + self.body.len()) as u64
    }
}

/// A conversation: what came before its first response, and which response is its latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationRecord {
    /// Chosen by the caller; unique over all projects.
    pub id: String,
    /// Owner.
    pub project: String,
    /// What the client attached to it.
    pub metadata: Vec<u8>,
    /// The items it began with, as the client gave them.
    pub items: Vec<u8>,
    /// The same items as messages in the gateway's own form.
    pub messages: Vec<u8>,
    /// Its latest response. When that is deleted or swept, the nearest one before it that lives, or none.
    pub head: Option<String>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// From when on it is gone. Each response made in it moves this to the response's own expiry, if that is later.
    pub expires_at: UnixMillis,
}

impl ConversationRecord {
    /// What it counts for in [`ResponseUsage::bytes`].
    pub fn bytes(&self) -> u64 {
        (self.metadata.len() + self.items.len() + self.messages.len()) as u64
    }
}

/// How a new response becomes the latest one of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadChange {
    /// The id of the conversation.
    pub conversation: String,
    /// The head that the new response was made after.
    pub expected: Option<String>,
    /// When the conversation must be there.
    pub now: UnixMillis,
}

/// New initial items for a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemsChange {
    /// [`ConversationRecord::items`] that the new ones were made from.
    pub expected: Vec<u8>,
    /// New value.
    pub items: Vec<u8>,
    /// New value.
    pub messages: Vec<u8>,
}

/// What a response and all those before it said, if it is not too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chain {
    /// All of it, oldest first.
    Whole(Vec<ChainLink>),
    /// More responses, or more bytes, than the caller wants to hold.
    TooLong,
}

/// One response of a [`Chain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainLink {
    /// Its id; it may be gone for clients.
    pub id: String,
    /// [`ResponseRecord::model`].
    pub model: String,
    /// [`ResponseRecord::messages`].
    pub messages: Vec<u8>,
}

/// What a project has stored. What is gone for clients counts until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseUsage {
    /// Responses, those that are there only for their messages included.
    pub responses: u64,
    /// Conversations.
    pub conversations: u64,
    /// What both take, ids and the like not counted.
    pub bytes: u64,
}

/// Keeps responses and conversations. Once a method has returned `Ok`, its effect survives `kill -9` and power loss
/// (not in memory).
#[async_trait]
pub trait ResponseStore: Send + Sync {
    /// Stores a new response and, with `head`, makes it the latest of a conversation, in one transaction.
    ///
    /// # Errors
    /// In this order: `NotFound` without the conversation; `Conflict` when its head is not the expected one;
    /// `NotFound` when `previous` is not there at `created_at`, for whatever reason; `Conflict` when the id exists.
    async fn insert_response(
        &self,
        record: &ResponseRecord,
        head: Option<&HeadChange>,
    ) -> Result<(), StoreError>;

    /// One response.
    ///
    /// # Errors
    /// `NotFound` also when it has expired at `now`.
    async fn response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ResponseRecord, StoreError>;

    /// The messages of a response and of all before it, also of those that are gone for clients. At most `limit`
    /// responses and `bytes_max` bytes of messages; what exceeds them is not read.
    ///
    /// # Errors
    /// `NotFound` also when the response itself has expired at `now`.
    async fn chain(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
        limit: u32,
        bytes_max: u64,
    ) -> Result<Chain, StoreError>;

    /// Ends a response: it can be neither got nor continued from, `input` and `body` are removed, and `messages` too
    /// unless a living response continues from it. So are the messages of those before it that were there only for
    /// its sake.
    ///
    /// # Errors
    /// `NotFound` also when it has expired at `now`: then the sweep does the same.
    async fn delete_response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError>;

    /// Stores a new conversation.
    ///
    /// # Errors
    /// `NotFound` when `head` is not there at `created_at`; then `Conflict` when the id exists.
    async fn insert_conversation(&self, record: &ConversationRecord) -> Result<(), StoreError>;

    /// One conversation.
    ///
    /// # Errors
    /// `NotFound` also when it has expired at `now`.
    async fn conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError>;

    /// Replaces what the client attached to a conversation.
    ///
    /// # Errors
    /// `NotFound` also when it has expired at `now`.
    async fn set_conversation_metadata(
        &self,
        project: &str,
        id: &str,
        metadata: &[u8],
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError>;

    /// Replaces the items a conversation begins with.
    ///
    /// # Errors
    /// `NotFound` also when it has expired at `now`; `Conflict` when its items are not the expected ones.
    async fn set_conversation_items(
        &self,
        project: &str,
        id: &str,
        change: &ItemsChange,
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError>;

    /// Removes a conversation. Responses made in it stay.
    ///
    /// # Errors
    /// `NotFound` also when it has expired at `now`: then the sweep removes it.
    async fn delete_conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError>;

    /// Removes conversations and ends responses that have expired at `now`, of each kind the longest expired first,
    /// and answers how many: at most `limit`, and fewer only when none is left. A response ends as by
    /// [`ResponseStore::delete_response`].
    async fn sweep_responses(&self, now: UnixMillis, limit: u32) -> Result<u64, StoreError>;

    /// What a project has stored, without counting it anew.
    async fn responses_usage(&self, project: &str) -> Result<ResponseUsage, StoreError>;
}
