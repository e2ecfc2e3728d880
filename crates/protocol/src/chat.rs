//! One chat request and its answer, in the form every dialect is decoded into and encoded from.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::context::ContextId;
use crate::error::ApiError;
pub use crate::reasoning::ReasoningLevel;
use crate::usage::{Receipt, Usage};

/// Who speaks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions of the application.
    System,
    /// OpenAI's newer name for `system`; kept apart so that a message is echoed as it came.
    Developer,
    /// The person (or program) that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The word used on the wire and by chat templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::Developer => "developer",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One message of a conversation. Its JSON form is also how the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said. Empty only for an assistant message that consists of tool calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<ContentPart>,
    /// OpenAI's optional participant name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Calls the assistant made in this message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// For `Role::Tool`: the call this message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Thinking text that came beside the answer (`reasoning_content`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// What the upstream that made `reasoning` wants back with it: see [`ReasoningSignature`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_signature: Option<ReasoningSignature>,
    /// The assistant's own words for refusing, in place of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// An upstream's seal on its reasoning, opaque to everybody else. Its text is the dialect's name, a colon, and the
/// upstream's own value, so that it travels through clients of any dialect and only its maker's dialect uses it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReasoningSignature(pub String);

impl ReasoningSignature {
    /// The seal `value` of an upstream that speaks `dialect` (`anthropic`, `gemini`, `responses`, `bedrock`).
    pub fn new(dialect: &str, value: &str) -> Self {
        ReasoningSignature(format!("{dialect}:{value}"))
    }

    /// The upstream's own value, if it is one of this dialect's.
    pub fn of(&self, dialect: &str) -> Option<&str> {
        self.0.strip_prefix(dialect)?.strip_prefix(':')
    }
}

impl Message {
    /// A message of plain text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Message {
            role,
            content: vec![ContentPart::Text { text: text.into() }],
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            reasoning: None,
            reasoning_signature: None,
            refusal: None,
        }
    }

    /// All text parts joined without a separator; images and files are left out.
    pub fn joined_text(&self) -> String {
        self.content
            .iter()
            .filter_map(|part| match part {
                ContentPart::Text { text } => Some(text.as_str()),
                ContentPart::ImageUrl { .. } | ContentPart::File { .. } => None,
            })
            .collect()
    }

    /// Words of refusal that are not blank.
    pub fn refusal_text(&self) -> Option<&str> {
        let refusal = self.refusal.as_deref();
        refusal.filter(|refusal| !refusal.trim().is_empty())
    }

    /// The seal that an upstream of this dialect put on the message's reasoning.
    pub fn seal_of(&self, dialect: &str) -> Option<&str> {
        self.reasoning_signature.as_ref()?.of(dialect)
    }

    /// Whether any part is an image or a file.
    pub fn has_media(&self) -> bool {
        self.content
            .iter()
            .any(|part| !matches!(part, ContentPart::Text { .. }))
    }
}

/// A piece of a message's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentPart {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// An image by `https:` or `data:` URL.
    ImageUrl {
        /// The URL.
        url: String,
        /// OpenAI's `low`, `high` or `auto`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A document, or sound or video, by `https:` or `data:` URL.
    File {
        /// The URL. A `data:` URL names its media type.
        url: String,
        /// Of what a plain URL points at, e.g. `application/pdf`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        media_type: Option<String>,
        /// File name or title.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
}

/// One function call by the assistant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Id that the answering tool message repeats.
    pub id: String,
    /// Function name.
    pub name: String,
    /// Arguments as the JSON text the model wrote (not guaranteed to parse).
    pub arguments: String,
}

/// A function the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Function name: `[a-zA-Z0-9_-]{1,64}`.
    pub name: String,
    /// What it does, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of the arguments, key order kept; absent means an empty object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// OpenAI's `strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// Whether and which tool the model calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No call, whatever tools there are.
    None,
    /// Some call is made.
    Required,
    /// This function is called.
    Named(String),
}

impl ToolChoice {
    /// Checks that `tools` can satisfy the choice.
    ///
    /// # Errors
    /// A call is demanded and there is no tool, or none of that name.
    pub fn check(&self, tools: &[Tool]) -> Result<(), ApiError> {
        match self {
            ToolChoice::Auto | ToolChoice::None => Ok(()),
            ToolChoice::Required if tools.is_empty() => Err(ApiError::invalid(
                "tool_choice",
                "demands a call but there are no `tools`",
            )),
            ToolChoice::Required => Ok(()),
            ToolChoice::Named(name) if tools.iter().any(|tool| tool.name == *name) => Ok(()),
            ToolChoice::Named(_) => Err(ApiError::invalid(
                "tool_choice",
                "names a function that is not among the `tools`",
            )),
        }
    }
}

/// What shape the answer's text must have.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Free text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that validates against a schema.
    JsonSchema {
        /// The caller's name for the schema.
        name: String,
        /// The schema, key order kept.
        schema: Value,
        /// Whether the caller asked for strict adherence (Holdfast's own engine always adheres).
        strict: bool,
    },
}

/// How the next token is chosen. `None` means the upstream's or model's own default; nothing is injected.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sampling {
    /// 0..=2; 0 is greedy.
    pub temperature: Option<f32>,
    /// 0..=1.
    pub top_p: Option<f32>,
    /// Only the `k` likeliest tokens are drawn from; at least 1.
    pub top_k: Option<u32>,
    /// -2..=2.
    pub frequency_penalty: Option<f32>,
    /// -2..=2.
    pub presence_penalty: Option<f32>,
    /// Same seed, same request, same state: same answer.
    pub seed: Option<i64>,
    /// Token id to bias, -100..=100.
    pub logit_bias: Vec<(u32, f32)>,
}

/// What a request asks for in its own dialect's way of caching: contexts that nobody created by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheRequest {
    /// Where the caller marked the end of a prefix, from the beginning of the request on. Decoders split a message whose
    /// marker stands in its middle, so that a marker is always between messages.
    pub points: Vec<CachePoint>,
    /// The caller leaves it to the server where the prefix ends (a marker for the whole request, a cache key): how
    /// long it is to be kept, seconds; `Some(None)`: the default time.
    pub automatic: Option<Option<u32>>,
    /// The caller's name for requests that begin alike.
    pub key: Option<String>,
}

/// A marked end of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePoint {
    /// How many of the request's messages the prefix has; 0: the tools alone.
    pub messages: usize,
    /// How long it is kept after its last use, seconds; `None`: the default time.
    pub ttl_seconds: Option<u32>,
}

/// A request as it came, for upstreams of its own dialect: what this version does not know goes through untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// Its dialect.
    pub dialect: ClientDialect,
    /// The body.
    pub body: Bytes,
    /// Headers that belong to it, by their lower-case names.
    pub headers: Vec<(&'static str, String)>,
    /// What of it no other dialect can express, as the error that everybody else answers with: the first such field.
    pub only: Option<ApiError>,
}

/// The dialects that clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientDialect {
    /// OpenAI Chat Completions, and Ark's chat.
    OpenAi,
    /// OpenAI Responses.
    Responses,
    /// Anthropic Messages.
    Anthropic,
    /// Google Gemini.
    Gemini,
}

/// One chat request, whatever dialect it came in.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// Model name as the client wrote it (a `models/` prefix removed). `None` only where a context names it.
    pub model: Option<String>,
    /// The context this request continues.
    pub context_id: Option<ContextId>,
    /// The new messages; never empty.
    pub messages: Vec<Message>,
    /// Token choice.
    pub sampling: Sampling,
    /// Most tokens to generate, reasoning included.
    pub max_tokens: Option<u32>,
    /// Up to four strings that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// OpenAI's `n`; at least 1, at most 128.
    pub choices: u32,
    /// `Some(k)`: log probabilities of each token and of the `k` (0..=20) likeliest alternatives.
    pub logprobs: Option<u8>,
    /// Shape of the answer.
    pub response_format: ResponseFormat,
    /// Functions offered to the model. Empty means none (null, absent and `[]` are the same).
    pub tools: Vec<Tool>,
    /// `None` when the client did not say.
    pub tool_choice: Option<ToolChoice>,
    /// OpenAI's `parallel_tool_calls`.
    pub parallel_tool_calls: Option<bool>,
    /// Whether the client wants server-sent events.
    pub stream: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    /// OpenAI's `user`, Anthropic's `metadata.user_id`.
    pub user: Option<String>,
    /// How much the model is asked to reason; `None`: the client did not say.
    pub reasoning: Option<ReasoningLevel>,
    /// What the client wants cached, in its dialect's own way. Never together with `context_id`.
    pub cache: CacheRequest,
    /// The request as it came. `None` where it can't go through as it is.
    pub original: Option<Original>,
    /// Fields this version does not act on, for an upstream of the same dialect. Order kept.
    pub extra: Map<String, Value>,
}

impl ChatRequest {
    /// What of it can't be said in any dialect but the one it came in.
    pub fn inexpressible(&self) -> Option<&ApiError> {
        self.original.as_ref()?.only.as_ref()
    }

    /// A request that leaves everything else to the defaults.
    pub fn new(model: Option<String>, messages: Vec<Message>) -> Self {
        ChatRequest {
            model,
            context_id: None,
            messages,
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            choices: 1,
            logprobs: None,
            response_format: ResponseFormat::default(),
            tools: Vec::new(),
            tool_choice: None,
            parallel_tool_calls: None,
            stream: false,
            include_usage: false,
            user: None,
            reasoning: None,
            cache: CacheRequest::default(),
            original: None,
            extra: Map::new(),
        }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn or a stop string was met.
    Stop,
    /// A token limit or the model's window was reached.
    Length,
    /// The answer is tool calls.
    ToolCalls,
    /// A filter ended it. Such a turn is not committed to a session.
    ContentFilter,
}

impl FinishReason {
    /// Its word in the ledger, the same on all surfaces.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::ContentFilter => "content_filter",
        }
    }
}

/// Log probability of one generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token's text, lossy where it is not whole UTF-8.
    pub token: String,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest alternatives, best first: text, bytes, log probability.
    pub top: Vec<(String, Vec<u8>, f32)>,
}

/// One finished choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// 0-based.
    pub index: u32,
    /// The assistant's message.
    pub message: Message,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Present when asked for.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// The stop string that ended it, where the upstream says which.
    pub stop_sequence: Option<String>,
}

/// A whole answer. A stream of [`ChatEvent`]s collects into this.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatResponse {
    /// `chatcmpl-...`
    pub id: String,
    /// Unix seconds.
    pub created: i64,
    /// The model string the client sent.
    pub model: String,
    /// In order of index.
    pub choices: Vec<Choice>,
    /// Token counts.
    pub usage: Usage,
    /// Present when a context was used.
    pub receipt: Option<Receipt>,
}

/// What a stream begins with: fixed for all its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatHead {
    /// `chatcmpl-...`
    pub id: String,
    /// Unix seconds.
    pub created: i64,
    /// The model string the client sent.
    pub model: String,
}

/// One step of an answer. The order per choice is any number of deltas, then one `Finish`; `Done` is last of all.
#[derive(Debug, Clone, PartialEq)]
pub enum ChatEvent {
    /// More of a choice.
    Delta {
        /// 0-based choice index.
        choice: u32,
        /// What is new.
        delta: Delta,
    },
    /// A choice ended.
    Finish {
        /// 0-based choice index.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// The answer ended; no event follows.
    Done {
        /// Final counts.
        usage: Usage,
        /// Present when a context was used.
        receipt: Option<Receipt>,
    },
    /// Bytes for a client that speaks the upstream's own dialect, as the upstream sent them. Where they come, the other
    /// events are for the gateway's own books and are not written.
    Wire(Bytes),
}

/// New content of one choice.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Answer text.
    Text {
        /// Never empty unless `logprobs` carries tokens whose text is still held back.
        text: String,
        /// Of the tokens this text came from; empty when not asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// Thinking text.
    Reasoning {
        /// Never empty.
        text: String,
    },
    /// The seal on the thinking text before it.
    ReasoningSignature {
        /// All of it.
        signature: ReasoningSignature,
    },
    /// Words of refusal.
    Refusal {
        /// Never empty.
        text: String,
    },
    /// The stop string that ends the choice; the `Finish` follows.
    StopSequence {
        /// As the client gave it.
        text: String,
    },
    /// A tool call begins.
    ToolCallStart {
        /// 0-based, per choice.
        index: u32,
        /// Call id.
        id: String,
        /// Function name.
        name: String,
    },
    /// More of a tool call's arguments.
    ToolCallArguments {
        /// 0-based, per choice.
        index: u32,
        /// A piece of JSON text.
        fragment: String,
    },
}
