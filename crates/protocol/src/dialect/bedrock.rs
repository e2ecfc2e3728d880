//! Amazon Bedrock Converse, towards upstreams (facts 2.12).
//!
//! Written rules for what the API can't hold:
//! - The leading `system` and `developer` messages of a context (of the request where there is no context) are the
//!   field `system`. Later ones, those of a request beside a context included, become user messages whose text is
//!   `<system>...</system>`: so a message is the same bytes before and after it is remembered.
//! - Roles must alternate: messages of one role in a row (tool results are the user's) are one message.
//! - Ids of calls keep letters, digits, `_` and `-`; any other character becomes `_`, and only the last 64 are kept.
//! - Arguments of calls go as the JSON text they are; none at all is `{}`. Text that is no JSON object is refused in a
//!   request; in a remembered message, where a length limit may have cut it, it becomes `{"INVALID_JSON": text}`.
//! - A level of reasoning and `top_k` go in `additionalModelRequestFields`, for Claudes only and as at Anthropic.
//!   Reasoning of earlier answers goes back only with the seal that this API gave it. A refusal is text.
//! - A document's name has a digest of its bytes, because names must differ; a message of documents alone gets the name
//!   as its text, because the API wants one.
//! - Left out: texts of nothing but white space (the API refuses them) and messages that have nothing else, `name`, an image's `detail`, `seed`, `frequency_penalty`, `presence_penalty`, `user`, a schema's `strict`,
//!   a tool's `strict` where the model has no structured output,
//!   fields that the gateway does not know (unless the configuration lets them pass).
//! - Refused with the field's name: `n` above 1, `logprobs`, `logit_bias`, `temperature` above 1, `tool_choice` `none`
//!   and `parallel_tool_calls` false beside tools, `response_format` `json_object` (and `json_schema` where the model
//!   has no structured output), images outside of user and tool messages or in another form than `data:` URLs.
//!
//! Markers are blocks of their own (`cachePoint`) after the initial messages (after system text, after the tools where
//! there is nothing behind them), after the history and after the history as it was one turn earlier: three at most,
//! none on new messages, and never within a tool's result.

mod block;
mod error;
mod frame;
mod prefix;
mod request;
mod stream;
mod usage;

use crate::error::ApiError;
use crate::provider::ModelRules;
use crate::upstream::{
    AnswerDecoder, ChatCall, EncodedPrefix, Failure, Held, HoldCall, HttpCall, PrefixParts,
    UpstreamDialect,
};

/// Amazon Bedrock Converse.
#[derive(Debug, Clone, Copy, Default)]
pub struct BedrockUpstream;

impl UpstreamDialect for BedrockUpstream {
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
        request::encode_hold(call)
    }

    fn decode_hold(&self, body: &[u8], _rules: &ModelRules) -> Result<Held, Failure> {
        usage::decode_hold(body)
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
        let error_type = header("x-amzn-errortype");
        error::of_response(status, error_type.as_deref(), body).with_retry_after(header)
    }
}
