//! OpenAI Chat Completions and the context endpoints that extend it.
//!
//! Ark's native paths (`/api/v3/...`) have the same wire format, so this module serves both surfaces: what differs is
//! the default mode of a context, which the caller passes on as [`crate::context::CreateSurface`].
//!
//! Written rules for what the internal form can't hold: unknown fields of a chat request are kept in `extra` and sent
//! on to upstreams of this dialect; `mode` on a chat is ignored; unknown fields of messages, tools and the other
//! bodies are ignored; `null` and `""` mean unset.

mod ark_context;
mod completion;
mod context;
mod error;
mod message;
mod models;
mod reasoning;
mod request;
mod response;
mod stream;
#[cfg(test)]
mod tests;
mod tools;
mod upstream;
pub mod wire;

pub(super) use reasoning::asked;

pub use ark_context::ArkContextUpstream;
pub use completion::{CompletionWriter, decode_completion};
pub use context::{
    decode_create, decode_fork, decode_patch, encode_context, encode_context_page, encode_created,
    encode_deleted,
};
pub use error::encode_error;
pub use models::{ModelInfo, encode_model, encode_models};
pub use request::decode_request;
pub use response::encode_response;
pub use stream::{StreamEncoder, Writer};
pub use upstream::OpenAiUpstream;

use bytes::Bytes;
use serde::Serialize;

/// The most messages a request may carry.
const MESSAGES_MAX: usize = 100_000;
/// The most tools a request may carry.
const TOOLS_MAX: usize = 512;

fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("wire structs have string keys only and write to memory")
        .into()
}

/// Google's clients write `models/<name>`.
fn without_models_prefix(model: String) -> String {
    match model.strip_prefix("models/") {
        Some(bare) if !bare.is_empty() => bare.to_owned(),
        _ => model,
    }
}
