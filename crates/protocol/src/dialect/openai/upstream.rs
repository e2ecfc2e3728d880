//! OpenAI Chat Completions and its imitators, towards upstreams.
//!
//! Written rules for what an upstream can't be told: the role `developer` becomes `system` where it is not known;
//! reasoning of earlier answers is left out where the field is refused; unknown fields are passed on only where the
//! provider takes them, and never those that the gateway itself sets; `tool_choice` and `parallel_tool_calls` are
//! left out where there are no tools. A level of reasoning is written in the service's own field (`openai/reasoning.rs`),
//! and other services' fields for it give way. Documents and sound are taken in users' messages, where the service knows
//! them. A refusal of an earlier answer is text. Everything else that can't be expressed is refused by name.

mod decoder;
mod failure;
mod logprobs;
mod prefix;
mod request;
#[cfg(test)]
mod tests;
mod tool_calls;
mod usage;

pub(super) use decoder::ChatDecoder;
pub(super) use failure::failure;

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::provider::{Caching, ModelRules, Prewarm};
use crate::upstream::{
    AnswerDecoder, ChatCall, EncodedPrefix, Failure, Held, HoldCall, HttpCall, PrefixParts,
    UpstreamDialect,
};

/// OpenAI Chat Completions.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenAiUpstream;

impl UpstreamDialect for OpenAiUpstream {
    fn encode_prefix(
        &self,
        parts: &PrefixParts<'_>,
        rules: &ModelRules,
    ) -> Result<EncodedPrefix, ApiError> {
        prefix::encode(parts, rules)
    }

    fn encode_chat(&self, call: &ChatCall<'_>) -> Result<HttpCall, ApiError> {
        request::encode_chat(call)
    }

    fn encode_hold(&self, call: &HoldCall<'_>) -> Result<Option<HttpCall>, ApiError> {
        let has_call = call.rules.cache.prewarm == Prewarm::OneToken;
        Ok(has_call.then(|| request::encode_one_token(call)))
    }

    fn decode_hold(&self, body: &[u8], rules: &ModelRules) -> Result<Held, Failure> {
        let answer: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| Failure::malformed())?;
        if let Some(failure) = failure::failure_in_stream(&answer, false) {
            return Err(failure);
        }
        if !answer.get("choices").is_some_and(Value::is_array) {
            return Err(Failure::malformed());
        }
        let mut reader = usage::UsageReader::new(rules, None);
        reader.read(&answer);
        let prefix_tokens = reader.usage.map(|usage| {
            let kept = usage.cache_read_tokens + usage.cache_writes.total();
            // Entries end at the markers, so they are the prefix and nothing else.
            if rules.cache.caching == Caching::Breakpoint && kept > 0 {
                kept
            } else {
                usage.input_tokens
            }
        });
        Ok(Held {
            handle: None,
            expires_at: None,
            prefix_tokens: prefix_tokens.filter(|tokens| *tokens > 0),
            usage: reader.usage,
        })
    }

    fn decoder(&self, rules: &ModelRules) -> Box<dyn AnswerDecoder> {
        Box::new(ChatDecoder::new(rules, None))
    }

    fn failure(
        &self,
        status: u16,
        header: &dyn Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Failure {
        failure(status, header, body)
    }
}
