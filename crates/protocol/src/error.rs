//! One error type for everything a client may be told; each dialect encodes it in its own envelope.
//!
//! `message` is for the client and says what is wrong, where, and what to try. It never carries prompt text, keys,
//! paths or upstream credentials; what only the log may know is logged where the error is made.

use std::time::Duration;

/// The longest id that an error repeats, bytes.
const ID_SHOWN_MAX: usize = 128;

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What went wrong, in kind; decides status, code and type word.
    pub kind: ErrorKind,
    /// For the client.
    pub message: String,
    /// The request field that is wrong, e.g. `messages[2].content`.
    pub param: Option<String>,
    /// Sent as `x-should-retry` when set; SDKs obey it before they look at the status.
    pub should_retry: Option<bool>,
    /// Sent as `retry-after`.
    pub retry_after: Option<Duration>,
    /// What it is about, for dialects whose clients look for other words than those of `message`.
    pub facts: Option<Box<ErrorFacts>>,
}

/// What an error is about, in numbers and names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorFacts {
    /// A context is too small to be cached.
    TooSmall {
        /// Its tokens; `None` where only the upstream has counted.
        tokens: Option<u64>,
        /// What it must have at least.
        min_tokens: Option<u64>,
    },
    /// A chat is for another model than its context.
    OtherModel {
        /// The request's, as the client wrote it.
        requested: String,
        /// The context's, as its client wrote it.
        held: String,
    },
}

/// The kinds of error, each with one HTTP status and one code per dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The body is not JSON, or not an object. 400.
    InvalidJson,
    /// A required field is missing. 400.
    MissingParameter,
    /// A field has a bad value. 400.
    InvalidParameter,
    /// A field that this model, context or endpoint can't honour. 400.
    UnsupportedParameter,
    /// A message without a role, or malformed. 400.
    InvalidMessage,
    /// A message with a role that does not exist. 400.
    UnknownRole,
    /// The prompt does not fit the model's window. 400.
    OutOfContext,
    /// A request continues a response that is not there. 400, as at OpenAI.
    PreviousResponseNotFound,
    /// No key or an unknown, revoked or expired one. 401.
    Unauthenticated,
    /// The key may not do this. 403.
    PermissionDenied,
    /// Another request holds this session. 403 with `x-should-retry: true`.
    ContextBusy,
    /// Unknown, expired and foreign contexts alike. 404.
    ContextNotFound,
    /// No such model. 404.
    ModelNotFound,
    /// No such route or other resource. 404.
    NotFound,
    /// The path exists, the method does not. 405.
    MethodNotAllowed,
    /// The body is larger than the limit. 413.
    PayloadTooLarge,
    /// The body did not come in time. 408.
    BodyTimeout,
    /// The head has more or longer header fields than the limit. 431.
    HeadersTooLarge,
    /// A budget of the key or its project leaves no room for the request. 402.
    BudgetExhausted,
    /// A rate limit. 429.
    RateLimited,
    /// The engine's or an upstream's queue is full. 429.
    Overloaded,
    /// A defect or an unexpected failure of ours. 500.
    Internal,
    /// An upstream failed, or does not accept what the gateway is configured with. 502.
    BadGateway,
    /// A part we need is away (store, engine starting, shutting down). 503.
    Unavailable,
    /// A deadline passed. 504.
    Timeout,
}

impl ErrorKind {
    /// Its word in the ledger, the same on all surfaces.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::InvalidJson => "invalid_json",
            ErrorKind::MissingParameter => "missing_parameter",
            ErrorKind::InvalidParameter => "invalid_parameter",
            ErrorKind::UnsupportedParameter => "unsupported_parameter",
            ErrorKind::InvalidMessage => "invalid_message",
            ErrorKind::UnknownRole => "unknown_role",
            ErrorKind::OutOfContext => "out_of_context",
            ErrorKind::PreviousResponseNotFound => "previous_response_not_found",
            ErrorKind::Unauthenticated => "unauthenticated",
            ErrorKind::PermissionDenied => "permission_denied",
            ErrorKind::ContextBusy => "context_busy",
            ErrorKind::ContextNotFound => "context_not_found",
            ErrorKind::ModelNotFound => "model_not_found",
            ErrorKind::NotFound => "not_found",
            ErrorKind::MethodNotAllowed => "method_not_allowed",
            ErrorKind::PayloadTooLarge => "payload_too_large",
            ErrorKind::BodyTimeout => "body_timeout",
            ErrorKind::HeadersTooLarge => "headers_too_large",
            ErrorKind::BudgetExhausted => "budget_exhausted",
            ErrorKind::RateLimited => "rate_limited",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::Internal => "internal",
            ErrorKind::BadGateway => "bad_gateway",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Timeout => "timeout",
        }
    }

    /// HTTP status on the OpenAI and Ark surfaces.
    pub fn status(self) -> u16 {
        match self {
            ErrorKind::InvalidJson
            | ErrorKind::MissingParameter
            | ErrorKind::InvalidParameter
            | ErrorKind::UnsupportedParameter
            | ErrorKind::InvalidMessage
            | ErrorKind::UnknownRole
            | ErrorKind::OutOfContext
            | ErrorKind::PreviousResponseNotFound => 400,
            ErrorKind::Unauthenticated => 401,
            ErrorKind::BudgetExhausted => 402,
            ErrorKind::PermissionDenied | ErrorKind::ContextBusy => 403,
            ErrorKind::ContextNotFound | ErrorKind::ModelNotFound | ErrorKind::NotFound => 404,
            ErrorKind::MethodNotAllowed => 405,
            ErrorKind::PayloadTooLarge => 413,
            ErrorKind::BodyTimeout => 408,
            ErrorKind::HeadersTooLarge => 431,
            ErrorKind::RateLimited | ErrorKind::Overloaded => 429,
            ErrorKind::Internal => 500,
            ErrorKind::BadGateway => 502,
            ErrorKind::Unavailable => 503,
            ErrorKind::Timeout => 504,
        }
    }
}

impl ApiError {
    /// An error of `kind` with a message for the client.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        ApiError {
            kind,
            message: message.into(),
            param: None,
            should_retry: None,
            retry_after: None,
            facts: None,
        }
    }

    /// Says what it is about.
    pub fn with_facts(mut self, facts: ErrorFacts) -> Self {
        self.facts = Some(Box::new(facts));
        self
    }

    /// Names the field that is wrong.
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// `field` has a bad value; `problem` completes the sentence "`field` ...".
    pub fn invalid(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidParameter, format!("`{field}` {problem}")).with_param(field)
    }

    /// `field` is required and missing.
    pub fn missing(field: &str) -> Self {
        Self::new(
            ErrorKind::MissingParameter,
            format!("`{field}` is required"),
        )
        .with_param(field)
    }

    /// `field` can't be honoured here; `problem` completes the sentence "`field` ...".
    pub fn unsupported(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(
            ErrorKind::UnsupportedParameter,
            format!("`{field}` {problem}"),
        )
        .with_param(field)
    }

    /// The one answer for unknown, expired and foreign context ids; it carries no id so that all are byte-identical.
    pub fn context_not_found() -> Self {
        // Clients in the field recover by matching "context" with "not found" or "expired" in the body.
        Self::new(
            ErrorKind::ContextNotFound,
            "The context was not found: it does not exist, has expired or was deleted. Create it again.",
        )
        .with_param("context_id")
    }

    /// The one answer to requests that continue an unknown, expired or foreign response.
    pub fn previous_response_not_found(id: &str) -> Self {
        Self::new(
            ErrorKind::PreviousResponseNotFound,
            format!("Previous response {}not found.", with_id(id)),
        )
        .with_param("previous_response_id")
    }

    /// Unknown, expired and foreign responses alike.
    pub fn response_not_found(id: &str) -> Self {
        Self::new(
            ErrorKind::NotFound,
            format!("Response {}not found.", with_id(id)),
        )
        .with_param("response_id")
    }

    /// Unknown, expired and foreign conversations alike.
    pub fn conversation_not_found(id: &str) -> Self {
        Self::new(
            ErrorKind::NotFound,
            format!("Conversation {}not found.", with_id(id)),
        )
        .with_param("conversation")
    }

    /// Another request holds the session.
    pub fn context_busy() -> Self {
        let mut error = Self::new(
            ErrorKind::ContextBusy,
            "The context is InProgress: another request on this session has not finished. Retry when it has.",
        )
        .with_param("context_id");
        error.should_retry = Some(true);
        error
    }

    /// No model of this name is configured.
    pub fn model_not_found(model: &str) -> Self {
        Self::new(
            ErrorKind::ModelNotFound,
            format!("The model `{model}` does not exist here. GET /v1/models lists the models."),
        )
        .with_param("model")
    }

    /// A failure whose cause belongs in the log, not in the answer.
    pub fn internal() -> Self {
        Self::new(
            ErrorKind::Internal,
            "Something failed inside the gateway. The log has the details under this request's id.",
        )
    }

    /// `param` names the role that does not exist.
    pub fn unknown_role(param: &str) -> Self {
        Self::new(
            ErrorKind::UnknownRole,
            format!("`{param}` must be system, developer, user, assistant or tool"),
        )
        .with_param(param)
    }

    /// A prompt of `prompt_tokens` leaves no room for an answer in a window of `window_tokens`.
    pub fn out_of_context(prompt_tokens: u64, window_tokens: u32) -> Self {
        Self::new(
            ErrorKind::OutOfContext,
            format!(
                "The prompt has {prompt_tokens} tokens, which leaves no room in the model's window of {window_tokens} \
                 tokens. Shorten the messages."
            ),
        )
    }

    /// The body did not come within `limit`.
    pub fn body_timeout(limit: Duration) -> Self {
        Self::new(
            ErrorKind::BodyTimeout,
            format!(
                "The body of the request did not come within {} seconds.",
                limit.as_secs()
            ),
        )
    }

    /// More than the server reads of a request's head.
    pub fn headers_too_large() -> Self {
        Self::new(
            ErrorKind::HeadersTooLarge,
            "The request has more or longer header fields than the server takes.",
        )
    }

    /// The body is larger than `limit_bytes`.
    pub fn payload_too_large(limit_bytes: u64) -> Self {
        Self::new(
            ErrorKind::PayloadTooLarge,
            format!("The request body is larger than the limit of {limit_bytes} bytes."),
        )
    }

    /// The path exists, the method does not.
    pub fn method_not_allowed() -> Self {
        Self::new(
            ErrorKind::MethodNotAllowed,
            "This path does not support the request's method. GET /openapi.json lists the routes.",
        )
    }

    /// No such route.
    pub fn not_found() -> Self {
        Self::new(
            ErrorKind::NotFound,
            "There is no such path. GET /openapi.json lists the routes.",
        )
    }

    /// No key, or one that is not valid; the two look alike.
    pub fn unauthenticated() -> Self {
        Self::new(
            ErrorKind::Unauthenticated,
            "The API key is missing or not valid. Send it as `Authorization: Bearer KEY`.",
        )
    }

    /// The key may not do this.
    pub fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::PermissionDenied, message)
    }

    /// A rate limit of the key or project, free again after `retry_after`.
    pub fn rate_limited(message: impl Into<String>, retry_after: Duration) -> Self {
        let mut error = Self::new(ErrorKind::RateLimited, message);
        error.retry_after = Some(retry_after);
        error
    }

    /// The queue is full; worth another try after `retry_after`.
    pub fn overloaded(retry_after: Duration) -> Self {
        let mut error = Self::new(
            ErrorKind::Overloaded,
            "The model has as many requests waiting as it takes. Retry a little later.",
        );
        error.retry_after = Some(retry_after);
        error
    }

    /// A part the request needs is away.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// A deadline passed.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Timeout, message)
    }
}

/// `with id '...' `, where the id can be one; text of any other kind is not repeated.
fn with_id(id: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match (1..=ID_SHOWN_MAX).contains(&id.len()) && id.bytes().all(is_plain) {
        true => format!("with id '{id}' "),
        false => String::new(),
    }
}
