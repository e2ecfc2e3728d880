//! What passes between the gateway and an upstream, as values: requests without host and credentials, answers as events,
//! failures by kind. One module of [`crate::dialect`] per wire format translates; nothing here sends anything.

use std::time::Duration;

use bytes::Bytes;
use rust_decimal::Decimal;

use crate::UnixMillis;
use crate::chat::{ClientDialect, Delta, FinishReason, Message, Tool, ToolChoice};
use crate::compose::ComposedRequest;
use crate::error::{ApiError, ErrorFacts, ErrorKind};
use crate::provider::ModelRules;
use crate::usage::BilledUsage;

/// The longest text of an upstream's error that is kept, characters.
const FAILURE_MESSAGE_MAX: usize = 600;

/// HTTP methods that upstreams use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in HTTP")]
pub enum Method {
    Get,
    Post,
    Patch,
    Delete,
}

/// A request to an upstream without host and credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCall {
    /// How.
    pub method: Method,
    /// Starts with `/` and is appended to the upstream's base URL; segments are percent-encoded, a query is included.
    pub path: String,
    /// Beside those of authentication. Names in lower case. Without a `content-type` among them the body is JSON.
    pub headers: Vec<(&'static str, String)>,
    /// The body in pieces to be sent one after the other, so that a stored prefix is never copied. Empty: no body.
    pub body: Vec<Bytes>,
}

impl HttpCall {
    /// A POST with this body.
    pub fn post(path: impl Into<String>, body: Vec<Bytes>) -> Self {
        HttpCall {
            method: Method::Post,
            path: path.into(),
            headers: Vec::new(),
            body,
        }
    }

    /// Length of the body, bytes.
    pub fn body_bytes(&self) -> u64 {
        self.body.iter().map(|piece| piece.len() as u64).sum()
    }
}

/// What a stored prefix consists of, to be rendered for one upstream.
#[derive(Debug, Clone, Copy)]
pub struct PrefixParts<'a> {
    /// Messages from create.
    pub initial: &'a [Message],
    /// Remembered messages after them.
    pub history: &'a [Message],
    /// How many of `history` had been there one turn earlier: an earlier request may have written a cache entry that
    /// ends there, and breakpoint providers must meet it again to read it. 0: none.
    pub previous_history: usize,
    /// Functions held with the prefix.
    pub tools: &'a [Tool],
    /// Where markers go.
    pub markers: Markers,
    /// A line that separates tenants where the provider has no field for that: rendered as the first system text.
    pub tenant_line: Option<&'a str>,
}

/// Lifetimes of the markers at the end of the initial messages and at the ends of the last two turns, seconds; `None`
/// sets none. Lifetimes never grow from the beginning to the end of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Markers {
    /// At the end of the initial messages (of system text or tools where there are no messages).
    pub initial_seconds: Option<u32>,
    /// At the end of the history and at `previous_history`.
    pub history_seconds: Option<u32>,
}

/// A prefix rendered for one upstream: elements of JSON arrays, separated by commas, without the brackets. They are
/// kept with the context and sent as they are, so that the upstream meets the same bytes on every turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncodedPrefix {
    /// Elements of the dialect's array of tools.
    pub tools: Bytes,
    /// Elements of the dialect's array of system texts; empty where system texts are messages.
    pub system: Bytes,
    /// Elements of the dialect's array of messages: those from create.
    pub initial: Bytes,
    /// Elements of the same array: the remembered ones.
    pub history: Bytes,
}

impl EncodedPrefix {
    /// Size, bytes.
    pub fn bytes(&self) -> usize {
        self.tools.len() + self.system.len() + self.initial.len() + self.history.len()
    }
}

/// Which part of the prefix an upstream already holds under a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandleUse<'a> {
    /// The upstream's name for it.
    pub name: &'a str,
    /// Whether it holds the history, too; otherwise system, tools and initial messages only.
    pub with_history: bool,
}

/// A handle that this answer is to become (chained responses of a session).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// When it may go, unix seconds.
    pub expires_at_seconds: i64,
}

/// One chat for an upstream. It is always streamed: a whole answer is a stream collected.
#[derive(Debug, Clone, Copy)]
pub struct ChatCall<'a> {
    /// The upstream's name of the model.
    pub model: &'a str,
    /// The context's prefix; `None` without a context.
    pub prefix: Option<&'a EncodedPrefix>,
    /// The part of it that is not sent because the upstream has it.
    pub handle: Option<HandleUse<'a>>,
    /// Whether the answer is kept upstream for the next turn.
    pub chain: Option<Chain>,
    /// The request. Its `new` messages follow the prefix. Its `tools` are used where the prefix has none; its
    /// `tool_choice` always.
    pub composed: &'a ComposedRequest,
    /// Longest answer, tokens; `None` leaves it to the upstream where its API allows that.
    pub max_tokens: Option<u32>,
    /// Routes requests of one context to where its cache is, and separates tenants; goes where
    /// [`crate::provider::CacheRules::key`] says.
    pub cache_key: Option<&'a str>,
    /// The tenant's secret salt; goes where [`crate::provider::CacheRules::salt`] says.
    pub salt: Option<&'a str>,
    /// The lifetime that the request asks for as a whole, where [`crate::provider::CacheRules::tier_field`] wants one,
    /// seconds.
    pub tier_seconds: Option<u32>,
    /// The upstream's name of the context's answer before this one, where its rules have
    /// [`crate::provider::CacheRules::diagnostics`].
    pub previous_answer: Option<&'a str>,
    /// What provider and model want.
    pub rules: &'a ModelRules,
}

/// A client's request that goes on as it came, to an upstream of its own dialect.
#[derive(Debug, Clone, Copy)]
pub struct OriginalCall<'a> {
    /// The upstream's name of the model.
    pub model: &'a str,
    /// The body; a JSON object that the dialect's own decoder has accepted.
    pub body: &'a Bytes,
    /// Headers that belong to it, by their lower-case names.
    pub headers: &'a [(&'static str, String)],
    /// Whether the client wants a stream.
    pub stream: bool,
    /// See [`ChatCall::cache_key`].
    pub cache_key: Option<&'a str>,
    /// See [`PrefixParts::tenant_line`].
    pub tenant_line: Option<&'a str>,
    /// What provider and model want.
    pub rules: &'a ModelRules,
}

/// A call that makes an upstream hold a prefix: creates a handle, or (for providers without handles) sends the cheapest
/// request that writes or refreshes the cache entry. Never streamed.
#[derive(Debug, Clone, Copy)]
pub struct HoldCall<'a> {
    /// The upstream's name of the model.
    pub model: &'a str,
    /// What to hold. For handles: system, tools, tool choice and initial messages; history is not part of it.
    pub prefix: &'a EncodedPrefix,
    /// Stored with the context.
    pub tool_choice: Option<&'a ToolChoice>,
    /// How long, counted from the upstream's clock, seconds.
    pub ttl_seconds: u32,
    /// The same as a time, unix seconds, for providers that want one.
    pub expires_at_seconds: i64,
    /// See [`ChatCall::cache_key`].
    pub cache_key: Option<&'a str>,
    /// See [`ChatCall::salt`].
    pub salt: Option<&'a str>,
    /// See [`ChatCall::tier_seconds`].
    pub tier_seconds: Option<u32>,
    /// What provider and model want.
    pub rules: &'a ModelRules,
}

/// What a hold call brought about.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Held {
    /// The upstream's name for its copy; `None` where copies have no names.
    pub handle: Option<String>,
    /// When the upstream says the copy goes; `None`: it did not say.
    pub expires_at: Option<UnixMillis>,
    /// Tokens of the prefix by the upstream's count.
    pub prefix_tokens: Option<u64>,
    /// What the call itself cost; `None`: the upstream did not say.
    pub usage: Option<BilledUsage>,
}

/// One step of an upstream's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerEvent {
    /// More of a choice.
    Delta {
        /// 0-based choice index.
        choice: u32,
        /// What is new.
        delta: Delta,
    },
    /// A choice ended. Exactly one per choice.
    Finish {
        /// 0-based choice index.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// The answer ended; nothing follows.
    Done(AnswerEnd),
}

/// What is known when an answer has ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnswerEnd {
    /// As the upstream reported it; `None`: it did not. Of repeated reports the larger number of each field counts.
    pub usage: Option<BilledUsage>,
    /// The upstream's id of the answer.
    pub response_id: Option<String>,
    /// What the upstream says it charged, US dollars (OpenRouter).
    pub charged_usd: Option<Decimal>,
    /// Why the cache was not hit, in the provider's own word (Anthropic and OpenAI diagnostics).
    pub miss_reason: Option<String>,
    /// Whether the upstream gave a cached-token counter at all; asked about only where
    /// [`crate::provider::Quirks::cached_tokens_optional`] says that its absence means unknown.
    pub cache_reported: bool,
}

/// Reads an upstream's streamed answer, whose bytes may be cut anywhere.
pub trait AnswerDecoder: Send {
    /// The events that `bytes` complete. A failure is the last thing it gives.
    fn push(&mut self, bytes: &[u8]) -> Vec<Result<AnswerEvent, Failure>>;

    /// What remains when the bytes have ended. An answer whose choices have not all finished was cut short.
    fn finish(&mut self) -> Vec<Result<AnswerEvent, Failure>>;

    /// What has been reported so far, for answers that never get to their end.
    fn usage_so_far(&self) -> Option<BilledUsage>;
}

/// Translation for one kind of upstream. Pure.
pub trait UpstreamDialect: Send + Sync {
    /// Renders a prefix once; its bytes then serve every turn.
    ///
    /// # Errors
    /// Something in it can't be expressed there; the error names the field of the create request.
    fn encode_prefix(
        &self,
        parts: &PrefixParts<'_>,
        rules: &ModelRules,
    ) -> Result<EncodedPrefix, ApiError>;

    /// Writes a chat.
    ///
    /// # Errors
    /// Something in it can't be expressed there; the error names the field of the chat request.
    fn encode_chat(&self, call: &ChatCall<'_>) -> Result<HttpCall, ApiError>;

    /// Writes a call that makes the upstream hold a prefix; `None` where there is no such call.
    ///
    /// # Errors
    /// Something can't be expressed there.
    fn encode_hold(&self, call: &HoldCall<'_>) -> Result<Option<HttpCall>, ApiError>;

    /// Reads the answer to a hold call that succeeded.
    ///
    /// # Errors
    /// It is not such an answer.
    fn decode_hold(&self, body: &[u8], rules: &ModelRules) -> Result<Held, Failure>;

    /// Writes the call that gives a handle a new life of `ttl_seconds`; `None` where handles can't be extended.
    fn encode_extend(&self, _handle: &str, _ttl_seconds: u32) -> Option<HttpCall> {
        None
    }

    /// Writes the call that drops a handle; `None` where there is nothing to drop.
    fn encode_drop(&self, _handle: &str) -> Option<HttpCall> {
        None
    }

    /// The dialect of clients whose requests can go on as they came; `None`: there is none.
    fn speaks(&self) -> Option<ClientDialect> {
        None
    }

    /// Writes a client's own request with what the gateway decides in it: the model's name, tenancy. Only for
    /// dialects that [`UpstreamDialect::speaks`].
    ///
    /// # Errors
    /// It is not of this dialect.
    fn encode_original(&self, _call: &OriginalCall<'_>) -> Result<HttpCall, ApiError> {
        Err(ApiError::internal())
    }

    /// What a whole answer to [`UpstreamDialect::encode_original`] says of itself.
    ///
    /// # Errors
    /// It is not such an answer.
    fn decode_whole(&self, body: &[u8], rules: &ModelRules) -> Result<AnswerEnd, Failure> {
        let held = self.decode_hold(body, rules)?;
        Ok(AnswerEnd {
            usage: held.usage,
            ..AnswerEnd::default()
        })
    }

    /// A decoder for one answer to `encode_chat`.
    fn decoder(&self, rules: &ModelRules) -> Box<dyn AnswerDecoder>;

    /// Reads an answer with an error status. `header` looks a response header up by its lower-case name.
    fn failure(&self, status: u16, header: &dyn Fn(&str) -> Option<String>, body: &[u8])
    -> Failure;
}

/// Why an upstream did not answer, in the kinds that decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The handle is gone, expired or not ours: rebuild once.
    HandleGone,
    /// The prefix is below the provider's minimum.
    PrefixTooSmall,
    /// The cache fields were refused: send it without.
    MarkerRefused,
    /// A seal on reasoning is not this provider's, or not this account's: send it without.
    SealRefused,
    /// The prompt does not fit the model.
    PromptTooLong,
    /// The request is wrong in itself; no other upstream is tried.
    InvalidRequest,
    /// The provider's filter refused the request.
    Filtered,
    /// Key or account are not accepted.
    Unauthorized,
    /// The model does not exist there.
    ModelNotFound,
    /// A rate limit or quota.
    RateLimited,
    /// The provider is overloaded (503, 529).
    Overloaded,
    /// Any other failure of the provider (5xx, an error in the stream).
    ServerError,
    /// No connection, or it broke.
    Connection,
    /// A deadline passed: connect, first byte, idle or total.
    Timeout,
    /// The answer is not of this dialect.
    Malformed,
    /// The stream ended before the answer did.
    CutShort,
}

impl FailureKind {
    /// A short word for logs, metrics and receipts.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::HandleGone => "handle_gone",
            FailureKind::PrefixTooSmall => "below_minimum",
            FailureKind::MarkerRefused => "marker_refused",
            FailureKind::SealRefused => "seal_refused",
            FailureKind::PromptTooLong => "prompt_too_long",
            FailureKind::InvalidRequest => "invalid_request",
            FailureKind::Filtered => "filtered",
            FailureKind::Unauthorized => "unauthorized",
            FailureKind::ModelNotFound => "model_not_found",
            FailureKind::RateLimited => "rate_limited",
            FailureKind::Overloaded => "overloaded",
            FailureKind::ServerError => "server_error",
            FailureKind::Connection => "connection",
            FailureKind::Timeout => "timeout",
            FailureKind::Malformed => "malformed",
            FailureKind::CutShort => "cut_short",
        }
    }

    /// Whether the same upstream may answer the same request a moment later.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            FailureKind::RateLimited
                | FailureKind::Overloaded
                | FailureKind::ServerError
                | FailureKind::Connection
                | FailureKind::Timeout
                | FailureKind::Malformed
                | FailureKind::CutShort
        )
    }

    /// Whether another upstream may answer where this one did not.
    pub fn allows_fallback(self) -> bool {
        self.is_transient()
            || matches!(self, FailureKind::Unauthorized | FailureKind::ModelNotFound)
    }
}

/// An upstream's failure.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}: {message}", kind.as_str())]
pub struct Failure {
    /// What to do about it.
    pub kind: FailureKind,
    /// The provider's own words, bounded. For the client only where the request itself is at fault; never logged above
    /// debug level, because providers quote prompts.
    pub message: String,
    /// The field that the provider named.
    pub param: Option<String>,
    /// How long the provider wants to be left alone.
    pub retry_after: Option<Duration>,
    /// HTTP status, where there was one.
    pub status: Option<u16>,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: &str) -> Self {
        Failure {
            kind,
            message: message.chars().take(FAILURE_MESSAGE_MAX).collect(),
            param: None,
            retry_after: None,
            status: None,
        }
    }

    /// Sorts an error status that the dialect has nothing special to say about.
    pub fn of_status(status: u16, message: &str) -> Self {
        let kind = match status {
            401..=403 => FailureKind::Unauthorized,
            404 => FailureKind::ModelNotFound,
            408 | 504 => FailureKind::Timeout,
            413 => FailureKind::PromptTooLong,
            429 => FailureKind::RateLimited,
            503 | 529 => FailureKind::Overloaded,
            400..=499 => FailureKind::InvalidRequest,
            _ => FailureKind::ServerError,
        };
        Failure {
            status: Some(status),
            ..Failure::new(kind, message)
        }
    }

    /// The stream ended too early.
    pub fn cut_short() -> Self {
        Failure::new(
            FailureKind::CutShort,
            "the stream ended before the answer was finished",
        )
    }

    /// What came is not of this dialect.
    pub fn malformed() -> Self {
        Failure::new(
            FailureKind::Malformed,
            "the answer is not of the expected form",
        )
    }

    /// Reads `retry-after` (seconds or a fraction of them) and `retry-after-ms`.
    #[must_use]
    pub fn with_retry_after(mut self, header: &dyn Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str| {
            header(name)
                .and_then(|value| value.trim().parse::<f64>().ok())
                .filter(|value| value.is_finite() && (0.0..=86_400_000.0).contains(value))
        };
        self.retry_after = number("retry-after-ms")
            .map(|ms| Duration::from_secs_f64(ms / 1000.0))
            .or_else(|| number("retry-after").map(Duration::from_secs_f64));
        self
    }

    /// What the client is told.
    pub fn to_api_error(&self) -> ApiError {
        let error = |kind, text: &str| ApiError::new(kind, text);
        let quoted = |kind, text: &str| ApiError::new(kind, format!("{text}: {}", self.message));
        let mut answer = match self.kind {
            FailureKind::InvalidRequest | FailureKind::MarkerRefused | FailureKind::SealRefused => {
                quoted(
                    ErrorKind::InvalidParameter,
                    "The model's provider refused the request",
                )
            }
            FailureKind::PromptTooLong => {
                quoted(ErrorKind::OutOfContext, "The prompt does not fit the model")
            }
            FailureKind::PrefixTooSmall => quoted(
                ErrorKind::InvalidParameter,
                "The context is too small for the model's provider to cache",
            )
            .with_param("messages")
            .with_facts(ErrorFacts::TooSmall {
                tokens: None,
                min_tokens: None,
            }),
            FailureKind::Filtered => quoted(
                ErrorKind::InvalidParameter,
                "The model's provider refused the content",
            ),
            FailureKind::RateLimited => error(
                ErrorKind::RateLimited,
                "The model's provider has reached a rate limit. Retry later.",
            ),
            FailureKind::Overloaded => error(
                ErrorKind::Unavailable,
                "The model's provider is overloaded. Retry later.",
            ),
            FailureKind::Timeout => error(
                ErrorKind::Timeout,
                "The model's provider did not answer in time.",
            ),
            FailureKind::Unauthorized => error(
                ErrorKind::BadGateway,
                "The model's provider did not accept the gateway's credentials. This is for the operator to mend.",
            ),
            FailureKind::ModelNotFound => error(
                ErrorKind::BadGateway,
                "The model's provider does not know the model. This is for the operator to mend.",
            ),
            FailureKind::HandleGone
            | FailureKind::ServerError
            | FailureKind::Connection
            | FailureKind::Malformed
            | FailureKind::CutShort => error(
                ErrorKind::BadGateway,
                "The model's provider failed to answer. The log has the details under this request's id.",
            ),
        };
        if answer.param.is_none() && matches!(answer.kind, ErrorKind::InvalidParameter) {
            answer.param = self.param.clone();
        }
        answer.retry_after = self.retry_after;
        answer
    }
}
