//! What can go wrong in the engine, in terms a caller can act on.

use std::time::Duration;

/// An engine failure.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The model file can't be used: missing, truncated, not GGUF, an unknown architecture.
    #[error("the model file can't be loaded: {0}")]
    Model(String),
    /// The model's chat template refuses or fails on these messages.
    #[error("the model's chat template refuses these messages: {0}")]
    Template(String),
    /// The grammar or JSON schema can't be enforced.
    #[error("the schema can't be enforced: {0}")]
    Grammar(String),
    /// Prompt (or prompt and answer) do not fit.
    #[error("{needed} tokens are needed and the window holds {window}")]
    WindowExceeded {
        /// Tokens.
        needed: u64,
        /// Tokens.
        window: u64,
    },
    /// The queue is full.
    #[error("the engine's queue is full")]
    QueueFull {
        /// When to try again.
        retry_after: Duration,
    },
    /// The engine is stopping or its thread has ended.
    #[error("the engine is not running")]
    Stopped,
    /// llama.cpp reported a failure.
    #[error("the engine failed: {0}")]
    Failed(String),
}
