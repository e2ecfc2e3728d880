//! The JSON of this dialect as types.
//!
//! What we answer is written from these types. What clients send is read field by field instead (see
//! `dialect/fields.rs`); its types here exist for the OpenAPI document, and a test holds them to the reader's fields.

mod chat;
mod completion;
mod context;

pub use chat::{
    AssistantMessage, ChatChoice, ChatCompletion, ChatCompletionChunk, ChatCompletionRequest,
    ChatMessage, ChunkChoice, ChunkDelta, CompletionTokensDetails, FunctionCallBody,
    FunctionCallDelta, FunctionDefinition, FunctionName, ImageUrlBody, LogprobsBody,
    MessageContent, MessagePart, NamedToolChoice, PromptTokensDetails, StopBody, StreamOptions,
    TokenLogprobBody, ToolCallBody, ToolCallDelta, ToolChoiceBody, ToolDefinition, TopLogprobBody,
    UsageBody,
};
pub use completion::{PromptBody, TextChoice, TextCompletion, TextCompletionRequest};
pub use context::{
    AccountBody, ContextCreateRequest, ContextDeleted, ContextEstimate, ContextEstimateRequest,
    ContextForkRequest, ContextList, ContextObject, ContextPatchRequest, CreateUsage, ForkedFrom,
    TruncationStrategy, TtlBody, UpstreamEstimate,
};

pub use crate::dialect::receipt::ContextCacheBody;

use serde::Serialize;
use utoipa::ToSchema;

/// Every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// For programs, e.g. `MissingParameter.model` or `NotFound.context_id`.
    #[schema(example = "NotFound.context_id")]
    pub code: String,
    /// For people.
    pub message: String,
    /// The field that is wrong, e.g. `messages[2].content`.
    pub param: Option<String>,
    /// The status in a word, e.g. `BadRequest`.
    #[serde(rename = "type")]
    #[schema(example = "NotFound")]
    pub kind: &'static str,
}

/// All models a key may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ModelList {
    /// The models.
    pub data: Vec<ModelObject>,
    /// `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    /// `true`.
    pub success: bool,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ModelObject {
    /// What requests name it by.
    pub id: String,
    /// `model`.
    #[schema(example = "model")]
    pub object: &'static str,
    /// Unix seconds.
    pub created: i64,
    /// Who serves it.
    pub owned_by: String,
    /// The interfaces it can be used through: `openai`, `gemini`, `anthropic`, `context`.
    pub supported_endpoint_types: Vec<String>,
}
