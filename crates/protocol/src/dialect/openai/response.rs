//! Whole answers to clients.

use bytes::Bytes;

use super::to_json;
use super::wire::{
    AssistantMessage, ChatChoice, ChatCompletion, CompletionTokensDetails, FunctionCallBody,
    LogprobsBody, PromptTokensDetails, TokenLogprobBody, ToolCallBody, TopLogprobBody, UsageBody,
};
use crate::chat::{ChatResponse, Choice, FinishReason, TokenLogprob};
use crate::dialect::receipt;
use crate::usage::Usage;

/// The log probability OpenAI gives for "too small to tell"; JSON has no minus infinity.
const LOGPROB_MIN: f32 = -9999.0;

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
        context_cache: response.receipt.as_ref().map(receipt::context_cache),
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
            refusal: message.refusal.clone(),
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
