//! Wire formats. One folder per dialect, both directions in it.
//!
//! A dialect translates bytes into the internal representation and back; it decides nothing about models, contexts or
//! caching. [`AnswerWriter`] is the side towards clients, [`UpstreamDialect`] the side towards upstreams. Requests of
//! clients differ in what comes beside the body, so each client dialect has decoders of its own beside the trait.

pub mod anthropic;
pub mod bedrock;
mod blocks;
mod cache;
pub(crate) mod fields;
pub mod gemini;
mod media;
pub mod openai;
mod original;
mod pieces;
mod receipt;
pub mod responses;
#[cfg(test)]
mod upstream_cases;

use bytes::Bytes;

use crate::chat::{ChatEvent, ChatHead, ChatResponse};
use crate::error::ApiError;
use crate::provider::UpstreamDialectName;
use crate::upstream::UpstreamDialect;
use crate::usage::Usage;

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

/// Writes one answer in a client's dialect, whole or as a stream. Made by the surface for one request, so that it knows
/// what of the request an answer repeats.
///
/// Either [`AnswerWriter::whole`] is called once, or [`AnswerWriter::begin`], then [`AnswerWriter::event`] for each
/// event, and last [`AnswerWriter::end`] or [`AnswerWriter::error`].
pub trait AnswerWriter: Send {
    /// The body of an answer that is not streamed.
    fn whole(&mut self, response: &ChatResponse) -> Bytes;

    /// What a stream begins with. `usage` is what is known of the prompt so far; everything may be 0.
    fn begin(&mut self, head: &ChatHead, usage: &Usage) -> Bytes;

    /// What is sent for an event; empty: nothing yet. A `Finish` must be held back until the next event, because a
    /// session's turn is committed between the two and may still fail. [`ChatEvent::Wire`] never comes here.
    fn event(&mut self, event: &ChatEvent) -> Bytes;

    /// What is sent when nothing has happened for a while, so that nobody on the way gives the connection up.
    fn keep_alive(&mut self) -> Bytes;

    /// A failure after the stream has begun; nothing follows.
    fn error(&mut self, error: &ApiError) -> Bytes;

    /// The end of a stream that did not fail.
    fn end(&mut self) -> Bytes;

    /// Media type of the stream.
    fn stream_type(&self) -> &'static str {
        "text/event-stream"
    }
}
