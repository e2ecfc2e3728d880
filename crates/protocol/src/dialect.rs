//! Wire formats. One folder per dialect, both directions in it.
//!
//! A dialect translates bytes into the internal representation and back; it decides nothing about models, contexts or
//! caching. Streams carry state, so each dialect has a `StreamEncoder` and a `StreamDecoder` beside the trait.

mod fields;
pub mod openai;

use bytes::Bytes;

use crate::chat::{ChatRequest, ChatResponse};
use crate::error::ApiError;

/// One wire format for chats.
pub trait Dialect: Send + Sync {
    /// Reads a client's chat request.
    ///
    /// # Errors
    /// Not JSON, or a field that is missing, malformed or out of range; the error names it.
    fn decode_request(&self, body: &[u8]) -> Result<ChatRequest, ApiError>;

    /// Writes a chat request for an upstream.
    fn encode_request(&self, request: &ChatRequest) -> Bytes;

    /// Reads an upstream's whole answer.
    ///
    /// # Errors
    /// It is not an answer of this dialect.
    fn decode_response(&self, body: &[u8]) -> Result<ChatResponse, ApiError>;

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

    fn encode_request(&self, request: &ChatRequest) -> Bytes {
        openai::encode_request(request)
    }

    fn decode_response(&self, body: &[u8]) -> Result<ChatResponse, ApiError> {
        openai::decode_response(body)
    }

    fn encode_response(&self, response: &ChatResponse) -> Bytes {
        openai::encode_response(response)
    }

    fn encode_error(&self, error: &ApiError) -> (u16, Bytes) {
        openai::encode_error(error)
    }
}
