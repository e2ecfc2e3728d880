//! Whole answers: to clients, and from upstreams of this dialect.

use bytes::Bytes;
use serde_json::Value;

use super::message::decode_tool_calls;
use super::to_json;
use super::wire::{
    AssistantMessage, ChatChoice, ChatCompletion, CompletionTokensDetails, ContextCacheBody,
    FunctionCallBody, LogprobsBody, PromptTokensDetails, TokenLogprobBody, ToolCallBody,
    TopLogprobBody, UsageBody,
};
use crate::chat::{ChatResponse, Choice, ContentPart, FinishReason, Message, Role, TokenLogprob};
use crate::dialect::fields::Fields;
use crate::error::{ApiError, ErrorKind};
use crate::usage::{Receipt, Source, Usage};

/// The log probability OpenAI gives for "too small to tell"; JSON has no minus infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// Upstreams are read without bounds of our own: the transport bounds the body.
const UNBOUNDED: usize = usize::MAX;

/// Writes a whole answer.
pub fn encode_response(response: &ChatResponse) -> Bytes {
    to_json(&ChatCompletion {
        id: response.id.clone(),
        object: "chat.completion",
        created: response.created,
        model: response.model.clone(),
        service_tier: "default",
        choices: response.choices.iter().map(choice_body).collect(),
        usage: usage_body(&response.usage),
        context_cache: response.receipt.as_ref().map(context_cache_body),
    })
}

fn choice_body(choice: &Choice) -> ChatChoice {
    let message = &choice.message;
    ChatChoice {
        index: choice.index,
        message: AssistantMessage {
            role: "assistant",
            content: (!message.content.is_empty()).then(|| message.joined_text()),
            reasoning_content: message.reasoning.clone(),
            tool_calls: message
                .tool_calls
                .iter()
                .map(|call| ToolCallBody {
                    id: call.id.clone(),
                    kind: "function",
                    function: FunctionCallBody {
                        name: call.name.clone(),
                        arguments: call.arguments.clone(),
                    },
                })
                .collect(),
        },
        logprobs: choice.logprobs.as_deref().map(logprobs_body),
        finish_reason: finish_word(choice.finish_reason),
    }
}

pub(super) fn finish_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
    }
}

pub(super) fn logprobs_body(logprobs: &[TokenLogprob]) -> LogprobsBody {
    LogprobsBody {
        content: logprobs
            .iter()
            .map(|token| TokenLogprobBody {
                token: token.token.clone(),
                logprob: token.logprob.max(LOGPROB_MIN),
                bytes: token.bytes.clone(),
                top_logprobs: token
                    .top
                    .iter()
                    .map(|(text, bytes, logprob)| TopLogprobBody {
                        token: text.clone(),
                        logprob: logprob.max(LOGPROB_MIN),
                        bytes: bytes.clone(),
                    })
                    .collect(),
            })
            .collect(),
    }
}

pub(super) fn usage_body(usage: &Usage) -> UsageBody {
    UsageBody {
        prompt_tokens: usage.input_tokens,
        completion_tokens: usage.output_tokens,
        total_tokens: usage.total_tokens(),
        prompt_tokens_details: PromptTokensDetails {
            cached_tokens: usage.cached_input_tokens,
        },
        completion_tokens_details: CompletionTokensDetails {
            reasoning_tokens: usage.reasoning_tokens,
        },
        cache_read_input_tokens: usage.cached_input_tokens,
        cache_creation_input_tokens: usage.cache_write_tokens,
    }
}

pub(super) fn context_cache_body(receipt: &Receipt) -> ContextCacheBody {
    ContextCacheBody {
        status: receipt.status.as_str(),
        reason: receipt.reason.clone(),
        tier: receipt.tier.map(|tier| tier.as_str()),
        context_id: receipt.context_id.to_string(),
        prefix_tokens: receipt.prefix_tokens,
        cached_tokens: receipt.cached_tokens,
        written_tokens: receipt.written_tokens,
        saved_tokens: receipt.cached_tokens,
        source: match receipt.source {
            Source::Provider => "provider",
            Source::Engine => "engine",
            Source::Estimate => "estimate",
        },
        first_token_ms: receipt.first_token_ms,
    }
}

/// Reads an upstream's whole answer. A receipt in it is the upstream's own and not kept.
///
/// # Errors
/// It is not a chat completion.
pub fn decode_response(body: &[u8]) -> Result<ChatResponse, ApiError> {
    decode_completion(body).map_err(|_| malformed_answer())
}

pub(super) fn malformed_answer() -> ApiError {
    ApiError::new(
        ErrorKind::Internal,
        "The upstream's answer is not a chat completion. The log has the details under this request's id.",
    )
}

fn decode_completion(body: &[u8]) -> Result<ChatResponse, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let choices = fields
        .array("choices", UNBOUNDED)?
        .ok_or_else(|| fields.missing("choices"))?;
    Ok(ChatResponse {
        id: fields.string("id")?.unwrap_or_default(),
        created: fields.integer("created", 0..=i64::MAX)?.unwrap_or(0),
        model: fields.string("model")?.unwrap_or_default(),
        choices: choices
            .into_iter()
            .map(decode_choice)
            .collect::<Result<_, _>>()?,
        usage: decode_usage(&mut fields)?.unwrap_or_default(),
        receipt: None,
    })
}

fn decode_choice(value: Value) -> Result<Choice, ApiError> {
    let mut fields = upstream_object(value)?;
    let mut message = fields
        .object("message")?
        .ok_or_else(|| fields.missing("message"))?;
    let tool_calls = decode_tool_calls(&mut message)?;
    let text = message.text("content")?.unwrap_or_default();
    let content = if text.is_empty() && !tool_calls.is_empty() {
        Vec::new()
    } else {
        vec![ContentPart::Text { text }]
    };
    Ok(Choice {
        index: fields.count("index", 0)?.unwrap_or(0),
        message: Message {
            role: Role::Assistant,
            content,
            name: None,
            tool_calls,
            tool_call_id: None,
            reasoning: message.string("reasoning_content")?,
        },
        finish_reason: decode_finish_reason(&mut fields)?.unwrap_or(FinishReason::Stop),
        logprobs: decode_logprobs(&mut fields)?,
    })
}

pub(super) fn upstream_object(value: Value) -> Result<Fields, ApiError> {
    Fields::of_value(value, String::new(), ErrorKind::InvalidParameter)
}

/// Words this dialect does not know end an answer as well as `stop` does.
pub(super) fn decode_finish_reason(fields: &mut Fields) -> Result<Option<FinishReason>, ApiError> {
    let word = fields.string("finish_reason")?;
    Ok(word.map(|word| match word.as_str() {
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }))
}

pub(super) fn decode_logprobs(fields: &mut Fields) -> Result<Option<Vec<TokenLogprob>>, ApiError> {
    let Some(mut logprobs) = fields.object("logprobs")? else {
        return Ok(None);
    };
    let Some(tokens) = logprobs.array("content", UNBOUNDED)? else {
        return Ok(None);
    };
    tokens
        .into_iter()
        .map(|value| {
            let mut token = upstream_object(value)?;
            let top = token.array("top_logprobs", UNBOUNDED)?.unwrap_or_default();
            let (text, bytes, logprob) = decode_token(&mut token)?;
            Ok(TokenLogprob {
                token: text,
                bytes,
                logprob,
                top: top
                    .into_iter()
                    .map(|value| decode_token(&mut upstream_object(value)?))
                    .collect::<Result<_, _>>()?,
            })
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

fn decode_token(fields: &mut Fields) -> Result<(String, Vec<u8>, f32), ApiError> {
    let text = fields.text("token")?.unwrap_or_default();
    let bytes = match fields.array("bytes", UNBOUNDED)? {
        Some(values) => values
            .iter()
            .map(|value| {
                value
                    .as_u64()
                    .and_then(|byte| u8::try_from(byte).ok())
                    .ok_or_else(malformed_answer)
            })
            .collect::<Result<_, _>>()?,
        None => text.clone().into_bytes(),
    };
    let logprob = fields.number("logprob", f64::MIN..=f64::MAX)?;
    Ok((text, bytes, logprob.unwrap_or(LOGPROB_MIN)))
}

pub(super) fn decode_usage(fields: &mut Fields) -> Result<Option<Usage>, ApiError> {
    let Some(mut usage) = fields.object("usage")? else {
        return Ok(None);
    };
    let cached = match usage.object("prompt_tokens_details")? {
        Some(mut details) => tokens(&mut details, "cached_tokens")?,
        None => None,
    };
    let reasoning = match usage.object("completion_tokens_details")? {
        Some(mut details) => tokens(&mut details, "reasoning_tokens")?,
        None => None,
    };
    let input_tokens = tokens(&mut usage, "prompt_tokens")?.unwrap_or(0);
    let cache_read = tokens(&mut usage, "cache_read_input_tokens")?;
    Ok(Some(Usage {
        input_tokens,
        cached_input_tokens: cached.or(cache_read).unwrap_or(0).min(input_tokens),
        cache_write_tokens: tokens(&mut usage, "cache_creation_input_tokens")?.unwrap_or(0),
        output_tokens: tokens(&mut usage, "completion_tokens")?.unwrap_or(0),
        reasoning_tokens: reasoning.unwrap_or(0),
    }))
}

fn tokens(fields: &mut Fields, key: &str) -> Result<Option<u64>, ApiError> {
    // Token counts beyond 32 bits are nonsense, and sums of these can't overflow.
    Ok(fields.count(key, 0)?.map(u64::from))
}
