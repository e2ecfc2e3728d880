//! Chat requests and answers.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::dialect::receipt::ContextCacheBody;

/// A chat request, with or without a context. Every optional field may be null.
#[derive(Debug, Clone, PartialEq, ToSchema)]
pub struct ChatCompletionRequest {
    /// The model. May be left out where a context names it; otherwise it must be the context's model.
    pub model: Option<String>,
    /// The context to continue: the bare id, `cachedContents/<id>` or
    /// `projects/<any>/locations/<any>/cachedContents/<id>`.
    pub context_id: Option<String>,
    /// The new messages, 1 to 100,000; the last one not by the assistant.
    pub messages: Vec<ChatMessage>,
    /// 0 to 2; 0 always takes the likeliest token.
    pub temperature: Option<f32>,
    /// 0 to 1.
    pub top_p: Option<f32>,
    /// -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// -2 to 2.
    pub presence_penalty: Option<f32>,
    /// Same seed, same request, same state: same answer.
    pub seed: Option<i64>,
    /// Token id to bias, -100 to 100.
    #[schema(value_type = Option<Object>)]
    pub logit_bias: Option<Value>,
    /// Most tokens to generate; at least 1.
    pub max_tokens: Option<u32>,
    /// The newer name of `max_tokens`; wins if both are given.
    pub max_completion_tokens: Option<u32>,
    /// A string, or up to four, that end the answer and are not part of it.
    pub stop: Option<StopBody>,
    /// Number of answers, 1 to 128; 1 with a session context.
    pub n: Option<u32>,
    /// Whether to give log probabilities of the answer's tokens.
    pub logprobs: Option<bool>,
    /// Alternatives per token, 0 to 20; needs `logprobs`.
    pub top_logprobs: Option<u8>,
    /// `{"type": "text"}`, `{"type": "json_object"}` or
    /// `{"type": "json_schema", "json_schema": {"name", "schema", "strict"}}`.
    #[schema(value_type = Option<Object>)]
    pub response_format: Option<Value>,
    /// Functions the model may call, at most 512. An empty array is the same as none.
    pub tools: Option<Vec<ToolDefinition>>,
    /// `auto`, `none`, `required` or `{"type": "function", "function": {"name"}}`.
    pub tool_choice: Option<ToolChoiceBody>,
    /// The deprecated form of `tools`.
    pub functions: Option<Vec<FunctionDefinition>>,
    /// The deprecated form of `tool_choice`.
    pub function_call: Option<ToolChoiceBody>,
    /// Whether several calls may be made in one answer.
    pub parallel_tool_calls: Option<bool>,
    /// Whether to answer with server-sent events.
    pub stream: Option<bool>,
    /// Options for `stream`.
    pub stream_options: Option<StreamOptions>,
    /// The caller's own name for its user.
    pub user: Option<String>,
    /// Ignored: the context decides.
    pub mode: Option<String>,
}

/// Strings that end an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum StopBody {
    /// One.
    One(String),
    /// Up to four.
    Several(Vec<String>),
}

/// Whether and which tool is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ToolChoiceBody {
    /// `auto`, `none` or `required`.
    Word(String),
    /// A function by name. `function_call` has the name alone: `{"name"}`.
    Named(NamedToolChoice),
}

/// The choice of one function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NamedToolChoice {
    /// `function`.
    #[serde(rename = "type")]
    #[schema(example = "function")]
    pub kind: String,
    /// The function.
    pub function: FunctionName,
}

/// A function's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FunctionName {
    /// The name.
    pub name: String,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum MessageContent {
    /// Text.
    Text(String),
    /// At least one part.
    Parts(Vec<MessagePart>),
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MessagePart {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image; also accepted as the bare URL.
    ImageUrl {
        /// The image.
        image_url: ImageUrlBody,
    },
}

/// An image of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ImageUrlBody {
    /// `https:` or `data:` URL.
    pub url: String,
    /// `low`, `high` or `auto`.
    pub detail: Option<String>,
}

/// Options for streams.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
pub struct StreamOptions {
    /// Whether one more chunk with the whole usage comes last.
    pub include_usage: Option<bool>,
}

/// One message of a request.
#[derive(Debug, Clone, PartialEq, ToSchema)]
pub struct ChatMessage {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    #[schema(example = "user")]
    pub role: String,
    /// Text, or an array of parts. Null only beside `tool_calls`.
    pub content: Option<MessageContent>,
    /// The participant's name.
    pub name: Option<String>,
    /// Thinking text of an earlier answer.
    pub reasoning_content: Option<String>,
    /// Calls of an earlier answer; assistant messages only.
    pub tool_calls: Option<Vec<ToolCallBody>>,
    /// The call that a tool message answers.
    pub tool_call_id: Option<String>,
}

/// A tool of a request.
#[derive(Debug, Clone, PartialEq, ToSchema)]
pub struct ToolDefinition {
    /// `function`.
    #[schema(example = "function")]
    pub r#type: String,
    /// The function.
    pub function: FunctionDefinition,
}

/// A function the model may call.
#[derive(Debug, Clone, PartialEq, ToSchema)]
pub struct FunctionDefinition {
    /// 1 to 64 of `a-z A-Z 0-9 _ -`.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// JSON schema of the arguments.
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Value>,
    /// Whether arguments must follow the schema exactly.
    pub strict: Option<bool>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatCompletion {
    /// `chatcmpl-...`
    pub id: String,
    /// `chat.completion`.
    #[schema(example = "chat.completion")]
    pub object: &'static str,
    /// Unix seconds.
    pub created: i64,
    /// The model as the request named it.
    pub model: String,
    /// `default`.
    #[schema(example = "default")]
    pub service_tier: &'static str,
    /// As many as `n`.
    pub choices: Vec<ChatChoice>,
    /// Token counts.
    pub usage: UsageBody,
    /// What the context did for this request; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_cache: Option<ContextCacheBody>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatChoice {
    /// 0-based.
    pub index: u32,
    /// The answer.
    pub message: AssistantMessage,
    /// Log probabilities, where asked for.
    pub logprobs: Option<LogprobsBody>,
    /// `stop`, `length`, `tool_calls` or `content_filter`.
    #[schema(example = "stop")]
    pub finish_reason: &'static str,
}

/// An answer's message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AssistantMessage {
    /// `assistant`.
    #[schema(example = "assistant")]
    pub role: &'static str,
    /// The text; null where the answer is tool calls.
    pub content: Option<String>,
    /// Thinking text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Words of refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Calls to make.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallBody>,
}

/// One function call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ToolCallBody {
    /// Id for the tool message that answers.
    pub id: String,
    /// `function`.
    #[serde(rename = "type")]
    #[schema(example = "function")]
    pub kind: &'static str,
    /// The call.
    pub function: FunctionCallBody,
}

/// The function and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FunctionCallBody {
    /// Function name.
    pub name: String,
    /// JSON text.
    pub arguments: String,
}

/// One chunk of a streamed answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatCompletionChunk {
    /// `chatcmpl-...`, the same in all chunks.
    pub id: String,
    /// `chat.completion.chunk`.
    #[schema(example = "chat.completion.chunk")]
    pub object: &'static str,
    /// Unix seconds, the same in all chunks.
    pub created: i64,
    /// The model as the request named it.
    pub model: String,
    /// One choice, or none in the usage chunk.
    pub choices: Vec<ChunkChoice>,
    /// With `include_usage`: null, and the counts in the last chunk. Absent without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UsageBody>)]
    pub usage: Option<Option<UsageBody>>,
    /// What the context did for this request: on the usage chunk, or without one on the last finishing chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_cache: Option<ContextCacheBody>,
}

/// What a chunk adds to a choice.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChunkChoice {
    /// 0-based.
    pub index: u32,
    /// What is new.
    pub delta: ChunkDelta,
    /// Log probabilities of the new tokens, where asked for.
    pub logprobs: Option<LogprobsBody>,
    /// Null until the choice's last chunk.
    pub finish_reason: Option<&'static str>,
}

/// What is new in a choice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct ChunkDelta {
    /// `assistant`, in the choice's first chunk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// More text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// More thinking text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Words of refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// More of a call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallDelta>,
}

/// More of one function call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ToolCallDelta {
    /// 0-based.
    pub index: u32,
    /// In the call's first chunk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function`, in the call's first chunk only.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The new part.
    pub function: FunctionCallDelta,
}

/// More of a function's arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FunctionCallDelta {
    /// In the call's first chunk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A piece of JSON text.
    pub arguments: String,
}

/// Log probabilities of a choice's tokens.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LogprobsBody {
    /// One per token.
    pub content: Vec<TokenLogprobBody>,
}

/// One token and its alternatives.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TokenLogprobBody {
    /// The token's text.
    pub token: String,
    /// Natural logarithm of its probability; -9999 for one that is too small to tell.
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// The likeliest alternatives, best first.
    pub top_logprobs: Vec<TopLogprobBody>,
}

/// One alternative.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TopLogprobBody {
    /// The token's text.
    pub token: String,
    /// Natural logarithm of its probability; -9999 for one that is too small to tell.
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Vec<u8>,
}

/// Token counts of one chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsageBody {
    /// All prompt tokens, those of the context included.
    pub prompt_tokens: u64,
    /// Generated tokens, reasoning included.
    pub completion_tokens: u64,
    /// The sum of the two.
    pub total_tokens: u64,
    /// Where the prompt tokens came from.
    pub prompt_tokens_details: PromptTokensDetails,
    /// What the generated tokens were for.
    pub completion_tokens_details: CompletionTokensDetails,
    /// The same as `prompt_tokens_details.cached_tokens`.
    pub cache_read_input_tokens: u64,
    /// Tokens newly added to a session by this turn; else 0.
    pub cache_creation_input_tokens: u64,
}

/// Where prompt tokens came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Tokens read from the context.
    pub cached_tokens: u64,
}

/// What generated tokens were for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CompletionTokensDetails {
    /// Tokens of thinking.
    pub reasoning_tokens: u64,
}
