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
    /// On models of upstreams: when their copy is made. `eager` (the default; with the context where copies are made by a
    /// call of their own), `lazy` (by the first chat) or `prewarm` (with the context everywhere).
    pub warm: Option<String>,
    /// On models of upstreams: whether their copy is refreshed while nobody uses the context. `off` (the default),
    /// `auto` (while that pays) or `always`.
    pub keep_warm: Option<String>,
    /// On models of upstreams: `error` or `replay` for what is too small to be cached; absent: as configured.
    pub on_too_small: Option<String>,
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
    /// Where it is not `eager`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm: Option<&'static str>,
    /// Where it is not `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_warm: Option<&'static str>,
    /// What the context has used and cost since it began; on models of upstreams, in the answer of get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountBody>,
}

/// What a context has used and cost since it began. Amounts are decimal numbers.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct AccountBody {
    /// Chats that came to an end, or broke off after their beginning.
    pub requests: u64,
    /// Of these, by outcome.
    pub hits: u64,
    /// See `hits`.
    pub rebuilds: u64,
    /// See `hits`.
    pub misses: u64,
    /// See `hits`.
    pub degraded: u64,
    /// `hits` in a request, 0 to 1.
    pub hit_rate: f64,
    /// Input tokens, cached ones included.
    pub input_tokens: u64,
    /// Of these, read from the upstream's cache.
    pub cached_tokens: u64,
    /// Of these, written to it at a rate of their own.
    pub cache_write_tokens: u64,
    /// Generated tokens.
    pub output_tokens: u64,
    /// Requests that kept the copy warm.
    pub pings: u64,
    /// Chats, making copies and pings together; absent while nothing has had a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// Of `cost`, what pings took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping_cost: Option<String>,
    /// For keeping copies, booked for the life that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_cost: Option<String>,
    /// Against sending everything afresh each time, all costs taken off; may be negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<String>,
    /// ISO 4217 code of the amounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The upstream that served it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// When that was, unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<i64>,
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

/// What would be held, and how turns look. Takes every field of create besides.
#[derive(Debug, Clone, PartialEq, ToSchema)]
pub struct ContextEstimateRequest {
    /// The model the context would be for.
    pub model: String,
    /// The messages to hold.
    pub messages: Vec<ChatMessage>,
    /// Seconds to live.
    pub ttl: Option<TtlBody>,
    /// Functions held with the messages.
    pub tools: Option<Vec<ToolDefinition>>,
    /// New prompt tokens of a turn; 100 when absent.
    pub question_tokens: Option<u64>,
    /// Generated tokens of a turn; 300 when absent.
    pub answer_tokens: Option<u64>,
}

/// What a context would cost.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ContextEstimate {
    /// `context.estimate`.
    #[schema(example = "context.estimate")]
    pub object: &'static str,
    /// The model as the request named it.
    pub model: String,
    /// Seconds the context would live.
    pub ttl: u32,
    /// Of a turn.
    pub question_tokens: u64,
    /// Of a turn.
    pub answer_tokens: u64,
    /// One for each upstream of the model, in the order of the route; one without `upstream` for the embedded engine.
    pub upstreams: Vec<UpstreamEstimate>,
}

/// What a context would cost at one upstream. Amounts are decimal numbers; absent where no price is known.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct UpstreamEstimate {
    /// Its name; absent for the embedded engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The service; absent for the embedded engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<&'static str>,
    /// What it calls the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_model: Option<String>,
    /// `handle`, `breakpoint`, `automatic`, `replay` or `kv_state`.
    #[schema(example = "breakpoint")]
    pub caching: &'static str,
    /// `explicit`, `best_effort` or `none`.
    #[schema(example = "explicit")]
    pub guarantee: &'static str,
    /// Of what would be held.
    pub tokens: u64,
    /// Who counted them: `engine` or `estimate`.
    #[schema(example = "estimate")]
    pub source: &'static str,
    /// Smallest context that is cached; 0: none known.
    pub min_tokens: u32,
    /// Whether it would be cached.
    pub cacheable: bool,
    /// Why not: `below_minimum`, `no_cache`, or what can't be expressed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For making the copy; the first turn's, where copies are made by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create: Option<String>,
    /// For keeping it an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_per_hour: Option<String>,
    /// For a turn with the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_with: Option<String>,
    /// For the same turn with everything sent afresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_without: Option<String>,
    /// From so many turns an hour the context costs no more than doing without. 0: always. Absent: never, or no price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pays_from_turns_per_hour: Option<String>,
    /// ISO 4217 code of the amounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
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
