//! One request for the continuation of raw text: no messages, no template, no context. Its answer is a chat's.

use crate::chat::Sampling;

/// Prompts to be continued as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// Model name as the client wrote it (a `models/` prefix removed).
    pub model: String,
    /// At least one, none of them empty. Choices are numbered through all of them: those of the first prompt first.
    pub prompts: Vec<String>,
    /// Whether each answer begins with its prompt.
    pub echo: bool,
    /// Token choice.
    pub sampling: Sampling,
    /// Most tokens to generate.
    pub max_tokens: u32,
    /// Up to four strings that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Answers to each prompt, at least 1.
    pub choices: u32,
    /// Whether the client wants server-sent events.
    pub stream: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
}
