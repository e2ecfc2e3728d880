//! Context requests and answers.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::chat::{ChatMessage, PromptTokensDetails, ToolChoiceBody, ToolDefinition};

/// What to hold, and how. Every optional field may be null; unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, ToSchema)]
pub struct ContextCreateRequest {
    /// The model the context is for.
    #[schema(example = "gemini-2.0-flash")]
    pub model: String,
    /// The messages to hold, 1 to 100,000.
    pub messages: Vec<ChatMessage>,
    /// `common_prefix` or `session`; absent, null and `""` take the model's default.
    pub mode: Option<String>,
    /// Seconds to live. A whole number, also as text (`"300"`, `"300s"`).
    #[schema(example = 300)]
    pub ttl: Option<TtlBody>,
    /// How a session stays within bounds; session mode only.
    pub truncation_strategy: Option<TruncationStrategy>,
    /// Functions held with the messages, at most 512.
    pub tools: Option<Vec<ToolDefinition>>,
    /// Default of chats with this context: `auto`, `none`, `required` or a named function.
    pub tool_choice: Option<ToolChoiceBody>,
    /// A name for people, at most 512 characters.
    pub display_name: Option<String>,
    /// The caller's own data, at most 16,384 bytes of JSON.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
}

/// Seconds, in the forms that clients write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TtlBody {
    /// A whole number.
    Seconds(u32),
    /// `"300"` or `"300s"`.
    Text(String),
}

/// How a session stays within bounds. Initial messages are never dropped; messages are dropped whole, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TruncationStrategy {
    /// `last_history_tokens` or `rolling_tokens`.
    #[serde(rename = "type")]
    #[schema(example = "rolling_tokens")]
    pub kind: &'static str,
    /// Tokens of history to remember, 1 to 32,767.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_history_tokens: Option<u32>,
    /// `true`: trim when the window is full. `false`: end the answer with `length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolling_tokens: Option<bool>,
    /// Tokens at which a trim starts; less than the model's window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_window_tokens: Option<u32>,
    /// Tokens that a trim takes at least; less than `max_window_tokens`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolling_window_tokens: Option<u32>,
}

/// A new time to live.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
pub struct ContextPatchRequest {
    /// Seconds from now. A whole number, also as text (`"300"`, `"300s"`).
    #[schema(example = 3600)]
    pub ttl: TtlBody,
}

/// Where to fork and what the copy is. An empty body forks from the last turn into a session.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
pub struct ContextForkRequest {
    /// Keep turns up to this one; 0 keeps only the initial messages. Absent: all turns.
    pub at_turn: Option<u32>,
    /// Seconds to live. Absent: the parent's.
    pub ttl: Option<TtlBody>,
    /// `common_prefix` or `session`. Absent: session.
    pub mode: Option<String>,
}

/// A context.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ContextObject {
    /// What chats name it by.
    #[schema(example = "ctx-20261122193000-mfrggzdfmztwq2lknnwg23tpoa")]
    pub id: String,
    /// `context`.
    #[schema(example = "context")]
    pub object: &'static str,
    /// The model as the create request named it.
    pub model: String,
    /// `common_prefix` or `session`.
    #[schema(example = "common_prefix")]
    pub mode: &'static str,
    /// Seconds in force.
    pub ttl: u32,
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds; gone from then on.
    pub expires_at: i64,
    /// Session mode only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncation_strategy: Option<TruncationStrategy>,
    /// Answers of create and fork only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<CreateUsage>,
    /// The context this one was forked from; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<ForkedFrom>,
    /// A name for people; absent where none was given, and in answers of create and fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The caller's own data. Not in answers of create and fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
    /// Finished turns, dropped ones included. Not in answers of create and fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<u32>,
    /// Tokens that a chat continues from now. Not in answers of create and fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_tokens: Option<u64>,
    /// Tokens of the initial messages. Not in answers of create and fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_tokens: Option<u64>,
}

/// Where a fork comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ForkedFrom {
    /// The parent.
    pub id: String,
    /// The last of the parent's turns that the copy holds; 0 for none.
    pub at_turn: u32,
}

/// Token counts of a create or fork.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CreateUsage {
    /// Tokens of what is held.
    pub prompt_tokens: u64,
    /// 0.
    pub completion_tokens: u64,
    /// The sum; 0 on models with the `gemini` profile.
    pub total_tokens: u64,
    /// Tokens newly written.
    pub cache_creation_input_tokens: u64,
    /// Tokens that were there already.
    pub cache_read_input_tokens: u64,
    /// Where the tokens came from.
    pub prompt_tokens_details: PromptTokensDetails,
}

/// A page of contexts, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ContextList {
    /// `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    /// The contexts.
    pub data: Vec<ContextObject>,
    /// Whether more follow.
    pub has_more: bool,
    /// What the next page is asked with; null on the last one.
    pub next_cursor: Option<String>,
}

/// The answer of a delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ContextDeleted {
    /// The context that is gone.
    pub id: String,
    /// `context.deleted`.
    #[schema(example = "context.deleted")]
    pub object: &'static str,
    /// `true`.
    pub deleted: bool,
}
