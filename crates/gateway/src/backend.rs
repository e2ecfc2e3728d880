//! What answers a composed request: the embedded engine, and in time every upstream.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use holdfast_engine::Prefix;
use holdfast_protocol::chat::{ChatEvent, Message, Tool};
use holdfast_protocol::compose::ComposedRequest;
use holdfast_protocol::{ApiError, ContextId, Receipt, UnixMillis};

/// What a context's prefix is made of.
#[derive(Debug, Clone)]
pub(crate) struct PrefixContent {
    /// The tenant.
    pub(crate) project: String,
    /// Messages from create.
    pub(crate) initial: Vec<Message>,
    /// Remembered messages.
    pub(crate) history: Vec<Message>,
    /// Functions held with the prefix.
    pub(crate) tools: Vec<Tool>,
    /// What a template that prints the date takes for now: the context's creation, so that the prefix never moves.
    pub(crate) rendered_at: UnixMillis,
}

/// A context's prefix, rendered and tokenised, kept so that a chat need not do it again.
#[derive(Debug, Clone)]
pub(crate) struct PreparedPrefix {
    /// Tokens of all of it.
    pub(crate) tokens: u64,
    /// Tokens that each message of the history adds, in order.
    pub(crate) history_tokens: Vec<u32>,
    /// What the embedded engine calls it.
    pub(crate) kv: Arc<Prefix>,
}

/// What making a prefix resident took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldPrefix {
    /// Tokens that were there already.
    pub(crate) resident_tokens: u64,
}

/// The context's part in a chat.
#[derive(Debug, Clone)]
pub(crate) struct ChatPrefix {
    /// The context.
    pub(crate) context_id: ContextId,
    /// Of its stored state, before this request's truncation.
    pub(crate) prepared: PreparedPrefix,
    /// Whether `prepared` was made from the same messages and tools as this request's.
    pub(crate) is_current: bool,
}

/// One chat to answer.
#[derive(Debug)]
pub(crate) struct ChatWork {
    /// The tenant.
    pub(crate) project: String,
    /// With a context only.
    pub(crate) prefix: Option<ChatPrefix>,
    /// What is asked.
    pub(crate) composed: ComposedRequest,
    /// Longest answer, tokens.
    pub(crate) max_tokens: u32,
    /// See [`PrefixContent::rendered_at`]; without a context the time of the request.
    pub(crate) rendered_at: UnixMillis,
}

/// An answer that has begun: the backend has admitted the request and its first token is at hand.
pub(crate) struct Answer {
    /// Present with a context. Final but for what a commit adds.
    pub(crate) receipt: Option<Receipt>,
    /// Ends with `Done` or with an error. Dropping it cancels the request.
    pub(crate) events: BoxStream<'static, Result<ChatEvent, ApiError>>,
}

/// Something that can hold prefixes and answer chats.
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Renders and measures a prefix. Does not compute it.
    async fn prepare(&self, content: PrefixContent) -> Result<PreparedPrefix, ApiError>;

    /// Makes a prefix resident and pins it under the context's id. Dropping the future cancels; the pin then stays
    /// until [`Backend::release`].
    async fn hold(
        &self,
        project: &str,
        pin: &ContextId,
        prefix: &PreparedPrefix,
    ) -> Result<HeldPrefix, ApiError>;

    /// Pins without computing.
    fn pin(&self, pin: &ContextId, prefix: &PreparedPrefix);

    /// Like [`Backend::hold`], in the background.
    fn hold_later(&self, project: &str, pin: &ContextId, prefix: &PreparedPrefix);

    /// At start: forgets what it keeps for contexts that are not among these.
    fn retain(&self, living: &HashSet<String>);

    /// Forgets a context.
    fn release(&self, pin: &ContextId);

    /// About how many tokens the messages add to a prompt.
    fn estimate_tokens(&self, messages: &[Message]) -> u32;

    /// Answers. Returns when the answer begins, so that whatever goes wrong before has a status of its own.
    async fn chat(&self, work: ChatWork) -> Result<Answer, ApiError>;
}
