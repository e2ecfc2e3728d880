//! Anthropic Messages, towards upstreams (facts 2.3): Anthropic itself and those that imitate it.
//!
//! Written rules for what the API can't hold:
//! - The leading `system` and `developer` messages of a context (of the request where there is no context) are the
//!   field `system`, a block per text part. Later ones, those of a request beside a context included, become user
//!   messages whose text is `<system>...</system>`: so a message is the same bytes before and after it is remembered.
//! - Tool messages in a row are one user message of `tool_result` blocks. Messages of one role in a row stay apart
//!   otherwise; the API joins them.
//! - Ids of calls keep letters, digits, `_` and `-`; any other character becomes `_`, because the API refuses it.
//! - Arguments of calls go as the JSON text they are; none at all is `{}`. Text that is no JSON object is refused in a
//!   request; in a remembered message, where a length limit may have cut it, it becomes `{"INVALID_JSON": text}`.
//! - A level of reasoning is adaptive `thinking` with `output_config.effort`, or a budget where the model counts tokens
//!   (`blocks::Thinking` says where thinking is left out because the API would refuse it). Reasoning of earlier answers
//!   goes back only with the seal that this API gave it. A refusal is text.
//! - Documents are PDFs; text ones have become text before. Other files are refused.
//! - Left out: texts of nothing but white space (the API refuses them) and messages that have nothing else, `name`, an image's `detail`, `seed`, `frequency_penalty`, `presence_penalty`, a schema's name and `strict`,
//!   a tool's `strict` where the model has no structured output,
//!   fields that the gateway does not know (unless the configuration lets them pass).
//! - Refused with the field's name: `n` above 1, `logprobs`, `logit_bias`, `temperature` above 1,
//!   `response_format` `json_object` (and `json_schema` where the model has no structured output), images outside of
//!   user and tool messages or in another form than `data:` and `https:` URLs.
//!
//! Markers stand on the last block of the initial messages (of system text, of the tools where there is nothing after
//! them), of the history and of the history as it was one turn earlier: three at most, and none on new messages.

mod block;
pub mod client;
mod error;
mod original;
mod prefix;
mod request;
mod stream;
mod usage;

use crate::chat::ClientDialect;
use crate::error::ApiError;
use crate::provider::ModelRules;
use crate::upstream::{
    AnswerDecoder, ChatCall, EncodedPrefix, Failure, Held, HoldCall, HttpCall, OriginalCall,
    PrefixParts, UpstreamDialect,
};

/// Anthropic Messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnthropicUpstream;

impl UpstreamDialect for AnthropicUpstream {
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
        Ok(request::encode_hold(call))
    }

    fn decode_hold(&self, body: &[u8], _rules: &ModelRules) -> Result<Held, Failure> {
        usage::decode_hold(body)
    }

    fn speaks(&self) -> Option<ClientDialect> {
        Some(ClientDialect::Anthropic)
    }

    fn encode_original(&self, call: &OriginalCall<'_>) -> Result<HttpCall, ApiError> {
        original::encode(call)
    }

    fn decoder(&self, _rules: &ModelRules) -> Box<dyn AnswerDecoder> {
        Box::new(stream::Decoder::new())
    }

    fn failure(
        &self,
        status: u16,
        header: &dyn Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Failure {
        error::of_response(status, body).with_retry_after(header)
    }
}
