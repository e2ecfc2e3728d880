//! One chat request and its answer, in the form every dialect is decoded into and encoded from.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::context::ContextId;
use crate::error::ApiError;
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
        }
    }

    /// All text parts joined without a separator; images are left out.
    pub fn joined_text(&self) -> String {
        self.content
            .iter()
            .filter_map(|part| match part {
                ContentPart::Text { text } => Some(text.as_str()),
                ContentPart::ImageUrl { .. } => None,
            })
            .collect()
    }

    /// Whether any part is an image.
    pub fn has_image(&self) -> bool {
        self.content
            .iter()
            .any(|part| matches!(part, ContentPart::ImageUrl { .. }))
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
    /// -2..=2.
    pub frequency_penalty: Option<f32>,
    /// -2..=2.
    pub presence_penalty: Option<f32>,
    /// Same seed, same request, same state: same answer.
    pub seed: Option<i64>,
    /// Token id to bias, -100..=100.
    pub logit_bias: Vec<(u32, f32)>,
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
    /// OpenAI's `user`.
    pub user: Option<String>,
    /// Fields this version does not act on, for an upstream of the same dialect. Order kept.
    pub extra: Map<String, Value>,
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
