//! What answers a composed request: the embedded engine, or a route of upstreams.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use holdfast_engine::Prefix;
use holdfast_protocol::chat::{ChatEvent, ClientDialect, Message, Tool, ToolChoice};
use holdfast_protocol::completion::CompletionRequest;
use holdfast_protocol::compose::ComposedRequest;
use holdfast_protocol::price::Estimate;
use holdfast_protocol::provider::RawPath;
use holdfast_protocol::raw::RawBody;
use holdfast_protocol::{ApiError, Context, ContextId, Receipt, UnixMillis, Usage};
use reqwest::header::HeaderMap;
use tokio::time::Instant;

use crate::ledger::Entry;
use crate::upstream::UpstreamPrefix;

/// What a context's prefix is made of.
#[derive(Debug, Clone)]
pub(crate) struct PrefixContent {
    /// The tenant.
    pub(crate) project: String,
    /// Messages from create.
    pub(crate) initial: Vec<Message>,
    /// Remembered messages.
    pub(crate) history: Vec<Message>,
    /// How many messages of the history had been there one turn earlier.
    pub(crate) previous_history: usize,
    /// Functions held with the prefix.
    pub(crate) tools: Vec<Tool>,
    /// Stored with the context.
    pub(crate) tool_choice: Option<ToolChoice>,
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
    /// What the backend makes of it.
    pub(crate) state: PrefixState,
}

/// A prefix in the form its backend works with.
#[derive(Debug, Clone)]
pub(crate) enum PrefixState {
    /// What the embedded engine calls it.
    Kv(Arc<Prefix>),
    /// What is sent to upstreams.
    Upstream(Arc<UpstreamPrefix>),
}

impl PreparedPrefix {
    /// The embedded engine's form.
    ///
    /// # Errors
    /// It was prepared by another backend, which only a defect of ours can bring about.
    pub(crate) fn kv(&self) -> Result<&Arc<Prefix>, ApiError> {
        match &self.state {
            PrefixState::Kv(prefix) => Ok(prefix),
            PrefixState::Upstream(_) => Err(wrong_backend()),
        }
    }

    /// The upstreams' form.
    ///
    /// # Errors
    /// See [`PreparedPrefix::kv`].
    pub(crate) fn upstream(&self) -> Result<&Arc<UpstreamPrefix>, ApiError> {
        match &self.state {
            PrefixState::Upstream(prefix) => Ok(prefix),
            PrefixState::Kv(_) => Err(wrong_backend()),
        }
    }

    /// Memory it takes beside the context's messages, bytes.
    pub(crate) fn bytes(&self) -> usize {
        match &self.state {
            PrefixState::Kv(_) => {
                usize::try_from(self.tokens).unwrap_or(usize::MAX / 8) * size_of::<i32>()
            }
            PrefixState::Upstream(prefix) => prefix.bytes(),
        }
    }
}

fn wrong_backend() -> ApiError {
    tracing::error!("a prefix has come to a backend that did not make it");
    ApiError::internal()
}

/// How a turn looks, for estimates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TurnSize {
    /// New prompt tokens.
    pub(crate) question_tokens: u64,
    /// Generated tokens.
    pub(crate) answer_tokens: u64,
}

/// What a context would cost at one place.
#[derive(Debug, Clone)]
pub(crate) struct PrefixEstimate {
    /// `None`: the embedded engine.
    pub(crate) upstream: Option<String>,
    /// See `upstream`.
    pub(crate) provider: Option<&'static str>,
    /// What the upstream calls the model.
    pub(crate) model: Option<String>,
    /// `handle`, `breakpoint`, `automatic`, `replay` or `kv_state`.
    pub(crate) caching: &'static str,
    /// `explicit`, `best_effort` or `none`.
    pub(crate) guarantee: &'static str,
    /// Of the prefix.
    pub(crate) tokens: u64,
    /// `engine` or `estimate`.
    pub(crate) source: &'static str,
    /// Smallest prefix that is cached, tokens.
    pub(crate) min_tokens: u32,
    /// Why it would not be cached; `None`: it would.
    pub(crate) reason: Option<String>,
    /// Currency and amounts, where there is a price.
    pub(crate) money: Option<(String, Estimate)>,
}

/// How a backend takes contexts that nobody created by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ImplicitRules {
    /// Whether a chat may add no message of its own to a context: then a prefix can be a whole prompt.
    pub(crate) answers_bare: bool,
    /// Whether a longer prefix costs a copy of all of it, however much of it another copy holds.
    pub(crate) copies_whole: bool,
    /// The dialect whose own markers it understands, wherever the request may go.
    pub(crate) speaks: Option<ClientDialect>,
}

/// What making a prefix resident took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldPrefix {
    /// Tokens that were there already.
    pub(crate) resident_tokens: u64,
    /// Its size by the upstream's own count, where it gave one.
    pub(crate) tokens: Option<u64>,
}

/// The context's part in a chat.
#[derive(Debug, Clone)]
pub(crate) struct ChatPrefix {
    /// The context.
    pub(crate) context: Context,
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
    /// Name of the configured model, for the ledger.
    pub(crate) model: String,
    /// The request's row there.
    pub(crate) entry: Entry,
    /// With a context only.
    pub(crate) prefix: Option<ChatPrefix>,
    /// What is asked.
    pub(crate) composed: ComposedRequest,
    /// Longest answer, tokens.
    pub(crate) max_tokens: u32,
    /// Whether the client said so; otherwise it is a default, which an upstream may know better.
    pub(crate) max_tokens_given: bool,
    /// See [`PrefixContent::rendered_at`]; without a context the time of the request.
    pub(crate) rendered_at: UnixMillis,
}

/// An answer that has begun: the backend has admitted the request and its first token is at hand.
pub(crate) struct Answer {
    /// Present with a context. Final but for what a commit adds.
    pub(crate) receipt: Option<Receipt>,
    /// What is known of the counts so far.
    pub(crate) usage: Usage,
    /// Who gives it.
    pub(crate) by: AnsweredBy,
    /// Whether the answer comes as the upstream's own bytes ([`ChatEvent::Wire`]), for a client of its dialect.
    pub(crate) is_wire: bool,
    /// Ends with `Done` or with an error. Dropping it cancels the request.
    pub(crate) events: BoxStream<'static, Result<ChatEvent, ApiError>>,
}

/// What has answered.
#[derive(Debug, Clone)]
pub(crate) struct AnsweredBy {
    /// The configured upstream; `None`: the embedded engine.
    pub(crate) upstream: Option<String>,
    /// The provider, or `holdfast` for the engine.
    pub(crate) provider: &'static str,
    /// What it calls the model; empty on the engine, where the configured name says all.
    pub(crate) model: String,
}

impl AnsweredBy {
    /// The embedded engine.
    pub(crate) fn engine() -> Self {
        AnsweredBy {
            upstream: None,
            provider: "holdfast",
            model: String::new(),
        }
    }
}

/// Raw texts to continue.
#[derive(Debug)]
pub(crate) struct TextWork {
    /// The tenant.
    pub(crate) project: String,
    /// What is asked.
    pub(crate) request: CompletionRequest,
}

/// A request that goes to an upstream as it came, but for the model's name.
#[derive(Debug)]
pub(crate) struct RawWork {
    /// The tenant.
    pub(crate) project: String,
    /// The request's row in the ledger.
    pub(crate) entry: Entry,
    /// Where to.
    pub(crate) path: RawPath,
    /// The request.
    pub(crate) body: RawBody,
    /// Name of the configured model, for the counters.
    pub(crate) model: String,
    /// When the whole answer must have been given.
    pub(crate) deadline: Instant,
}

/// An upstream's answer as it comes.
pub(crate) struct RawAnswer {
    /// A success.
    pub(crate) status: u16,
    /// All that the upstream sent.
    pub(crate) headers: HeaderMap,
    /// Ends with the answer, or with an error where it broke off. Dropping it cancels the request.
    pub(crate) body: BoxStream<'static, Result<Bytes, ApiError>>,
}

/// Something that can hold prefixes and answer chats.
#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Renders and measures a prefix. Does not compute it.
    async fn prepare(&self, content: PrefixContent) -> Result<PreparedPrefix, ApiError>;

    /// Makes a prefix resident and pins it under the context's id. Dropping the future cancels; the pin then stays
    /// until [`Backend::release`]. What that costs belongs to the request of `entry`.
    async fn hold(
        &self,
        context: &Context,
        prefix: &PreparedPrefix,
        entry: &Entry,
    ) -> Result<HeldPrefix, ApiError>;

    /// A context that was held is in the store now.
    fn stored(&self, context: &ContextId);

    /// Pins without computing.
    fn pin(&self, context: &Context, prefix: &PreparedPrefix);

    /// Like [`Backend::hold`], in the background; called when a session's turn has been committed.
    fn hold_later(&self, context: &Context, prefix: &PreparedPrefix);

    /// The context's expiry was set anew: copies that end before must be given longer.
    fn extend(&self, context: &Context);

    /// At start: forgets what it keeps for contexts that are not among these.
    fn retain(&self, living: &HashSet<String>);

    /// Forgets a context that is gone, and drops what was made for it.
    fn release(&self, context: &ContextId);

    /// What a context that holds `prefix` for so long would cost, at each place that could serve it. Sends nothing.
    fn estimates(
        &self,
        prefix: &PreparedPrefix,
        ttl_seconds: u32,
        turn: TurnSize,
    ) -> Vec<PrefixEstimate>;

    /// How it takes implicit contexts.
    fn implicit(&self) -> ImplicitRules;

    /// Tokens of a prompt of these messages and tools: exact where the tokenizer is at hand.
    async fn count_tokens(
        &self,
        project: &str,
        messages: Vec<Message>,
        tools: Vec<Tool>,
        rendered_at: UnixMillis,
    ) -> Result<u64, ApiError>;

    /// About how many tokens the messages add to a prompt.
    fn estimate_tokens(&self, messages: &[Message]) -> u32;

    /// Answers. Returns when the answer begins, so that whatever goes wrong before has a status of its own.
    async fn chat(&self, work: ChatWork) -> Result<Answer, ApiError>;

    /// Continues raw texts, where an engine of ours can: upstreams are sent such requests as they are.
    async fn complete(&self, _work: TextWork) -> Result<Answer, ApiError> {
        Err(ApiError::internal())
    }

    /// Sends a request on. Returns with the first bytes of the answer.
    async fn pass_through(&self, work: RawWork) -> Result<RawAnswer, ApiError> {
        Err(ApiError::unsupported(
            "model",
            format!(
                "is answered by the embedded engine, which has no endpoint `{}`",
                work.path.path()
            ),
        ))
    }
}
