//! Text completions: raw text and its continuation.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{StopBody, StreamOptions, UsageBody};

/// A request for the continuation of raw text. Every optional field may be null. To models on upstreams it is passed
/// through as it is.
#[derive(Debug, Clone, PartialEq, ToSchema)]
pub struct TextCompletionRequest {
    /// The model.
    pub model: String,
    /// What is continued.
    pub prompt: PromptBody,
    /// Most tokens to generate; 16 where it is not given.
    pub max_tokens: Option<u32>,
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
    /// A string, or up to four, that end the answer and are not part of it.
    pub stop: Option<StopBody>,
    /// Answers to each prompt; with all prompts at most 128.
    pub n: Option<u32>,
    /// On the embedded engine the same as `n`.
    pub best_of: Option<u32>,
    /// Whether each answer begins with its prompt.
    pub echo: Option<bool>,
    /// Not on the embedded engine.
    pub suffix: Option<String>,
    /// Not on the embedded engine.
    pub logprobs: Option<u8>,
    /// Whether to answer with server-sent events.
    pub stream: Option<bool>,
    /// Options for `stream`.
    pub stream_options: Option<StreamOptions>,
    /// The caller's own name for its user.
    pub user: Option<String>,
}

/// One prompt or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum PromptBody {
    /// One.
    One(String),
    /// Several; their answers are numbered through.
    Several(Vec<String>),
}

/// A text completion, or a chunk of one.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TextCompletion {
    /// `cmpl-...`, the same in all chunks.
    pub id: String,
    /// `text_completion`.
    #[schema(example = "text_completion")]
    pub object: &'static str,
    /// Unix seconds.
    pub created: i64,
    /// The model as the request named it.
    pub model: String,
    /// As many as `n` times the prompts; in a chunk one, or none in the usage chunk.
    pub choices: Vec<TextChoice>,
    /// Token counts. In a stream with `include_usage`: null, and the counts in the last chunk; absent without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UsageBody>)]
    pub usage: Option<Option<UsageBody>>,
}

/// One answer, or what a chunk adds to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TextChoice {
    /// The text.
    pub text: String,
    /// 0-based.
    pub index: u32,
    /// Null.
    #[schema(value_type = Option<Object>)]
    pub logprobs: Option<()>,
    /// `stop` or `length`; in a stream null until the choice's last chunk.
    #[schema(example = "stop")]
    pub finish_reason: Option<&'static str>,
}
