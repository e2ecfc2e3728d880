//! The vocabulary of Holdfast and the translation between wire formats.
//!
//! Everything here is a pure function or a plain value: nothing awaits, opens a file or socket, reads a clock or draws
//! a random number. Callers pass the time (`UnixMillis`) and the random part of new ids.

pub mod chat;
pub mod collect;
pub mod completion;
pub mod compose;
pub mod context;
pub mod dialect;
pub mod error;
pub mod price;
pub mod provider;
pub mod raw;
pub mod reasoning;
pub mod sse;
pub mod upstream;
pub mod usage;

pub use chat::{ChatEvent, ChatRequest, ChatResponse, FinishReason, Message, Role};
pub use context::{Context, ContextId, ContextMode, CreateContext, Profile};
pub use error::{ApiError, ErrorKind};
pub use usage::{Receipt, Usage};

/// Milliseconds since the Unix epoch, UTC. The only form in which time enters this crate.
pub type UnixMillis = i64;
