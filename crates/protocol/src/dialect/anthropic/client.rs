//! Anthropic Messages, towards clients (facts 2.3).
//!
//! Written rules for what the internal form can't hold:
//! - A user message with results of tools becomes a tool message for each, and a user message of what else it has.
//! - Thinking blocks of an assistant message are joined; the last one's signature counts. Seals of other upstreams go
//!   to the client as text and come back as theirs. Redacted thinking is left out.
//! - A document that is text becomes text, after its title and context; others are files.
//! - Left out: `is_error` of results (their text says it), `citations`, and fields that the gateway does not know. To an
//!   upstream of this dialect all of these go through, as long as the request names no context.
//! - For upstreams of this dialect only, refused with the field's name by all others: tools that Anthropic runs itself
//!   and their blocks, files by id, MCP servers.

mod answer;
mod blocks;
mod error;
mod models;
mod request;

pub use answer::{Writer, encode_count};
pub use error::encode_error;
pub use models::{ModelInfo, encode_model, encode_models};
pub use request::{Request, decode_count, decode_request};

#[cfg(test)]
mod tests;
