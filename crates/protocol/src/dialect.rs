//! Wire formats. One folder per dialect, both directions in it.
//!
//! A dialect translates bytes into the internal representation and back; it decides nothing about models, contexts or
//! caching. [`Dialect`] is the side towards clients, [`UpstreamDialect`] the side towards upstreams; streams to clients
//! carry state, so each client dialect has a `StreamEncoder` beside the trait.

pub mod anthropic;
pub mod bedrock;
mod blocks;
mod fields;
pub mod gemini;
pub mod openai;
mod pieces;
pub mod responses;
#[cfg(test)]
mod upstream_cases;

use bytes::Bytes;

use crate::chat::{ChatRequest, ChatResponse};
use crate::error::ApiError;
use crate::provider::UpstreamDialectName;
use crate::upstream::UpstreamDialect;

/// The translation for upstreams that speak `name`.
pub fn upstream(name: UpstreamDialectName) -> &'static dyn UpstreamDialect {
    match name {
        UpstreamDialectName::OpenaiChat => &openai::OpenAiUpstream,
        UpstreamDialectName::OpenaiResponses => &responses::OpenAiResponses,
        UpstreamDialectName::ArkResponses => &responses::ArkResponses,
        UpstreamDialectName::ArkContext => &openai::ArkContextUpstream,
        UpstreamDialectName::Anthropic => &anthropic::AnthropicUpstream,
        UpstreamDialectName::Gemini => &gemini::GeminiUpstream,
        UpstreamDialectName::BedrockConverse => &bedrock::BedrockUpstream,
    }
}

/// One wire format for chats, towards clients.
pub trait Dialect: Send + Sync {
    /// Reads a client's chat request.
    ///
    /// # Errors
    /// Not JSON, or a field that is missing, malformed or out of range; the error names it.
    fn decode_request(&self, body: &[u8]) -> Result<ChatRequest, ApiError>;

    /// Writes a whole answer for a client.
    fn encode_response(&self, response: &ChatResponse) -> Bytes;

    /// HTTP status and body of an error. The body never holds the request's id: that is a header's, so that answers
    /// about unknown, expired and foreign contexts are the same byte for byte.
    fn encode_error(&self, error: &ApiError) -> (u16, Bytes);
}

/// OpenAI Chat Completions, and Ark's chat and context paths, which have the same wire format.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenAi;

impl Dialect for OpenAi {
    fn decode_request(&self, body: &[u8]) -> Result<ChatRequest, ApiError> {
        openai::decode_request(body)
    }

    fn encode_response(&self, response: &ChatResponse) -> Bytes {
        openai::encode_response(response)
    }

    fn encode_error(&self, error: &ApiError) -> (u16, Bytes) {
        openai::encode_error(error)
    }
}
