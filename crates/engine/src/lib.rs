//! The embedded inference engine: llama.cpp in process, one thread that owns the model, a scheduler that batches, and
//! a cache that keeps prefixes in the KV cache, in memory and on disk.
//!
//! Knows no HTTP, no store and no provider. Callers hand in tokens cut into segments and get events back.
//!
//! A *prefix* is a chain of *segments* (token lists). Its identity is a hash chain over namespace, model and tokens, so
//! equal content in one namespace is one prefix, and two prefixes that begin alike share their common segments.
//! Each segment is computed in batches of its own, cold and warm alike, so that what a restored prefix continues with
//! equals a cold run by construction.

mod cache;
pub mod constraint;
mod disk;
mod engine;
pub mod error;
#[cfg(feature = "llama")]
pub mod llama;
mod model;
mod prefix;
pub mod sampling;
mod schedule;
mod sequences;
pub mod template;
pub mod text;
mod tiny;
pub mod tools;
mod worker;

pub use engine::{
    Engine, EngineOptions, EngineStatus, GenerateEvent, GenerateRequest, Generation, Held,
    PrefixUse,
};
pub use error::EngineError;
pub use model::ModelInfo;
pub use prefix::Prefix;

/// A token id of the loaded model's vocabulary.
pub type Token = i32;
