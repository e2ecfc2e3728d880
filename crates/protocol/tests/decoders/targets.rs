//! The fuzz targets. Each has a line here, a line in `fuzz/Cargo.toml` and a file in `fuzz/fuzz_targets`.

use holdfast_protocol::provider::UpstreamDialectName::{
    Anthropic, ArkContext, ArkResponses, Gemini, OpenaiChat, OpenaiResponses,
};

use crate::client::{client_anthropic, client_gemini, client_openai, client_responses, context_id};
use crate::streams::{bedrock_frames, sse, upstream_bedrock};
use crate::upstream::upstream;

/// Something that takes bytes from outside and panics where they break a promise.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    ("bedrock_frames", bedrock_frames),
    ("client_anthropic", client_anthropic),
    ("client_gemini", client_gemini),
    ("client_openai", client_openai),
    ("client_responses", client_responses),
    ("context_id", context_id),
    ("sse", sse),
    ("upstream_anthropic", |data| upstream(Anthropic, data)),
    ("upstream_ark_context", |data| upstream(ArkContext, data)),
    ("upstream_ark_responses", |data| {
        upstream(ArkResponses, data)
    }),
    ("upstream_bedrock", upstream_bedrock),
    ("upstream_gemini", |data| upstream(Gemini, data)),
    ("upstream_openai_chat", |data| upstream(OpenaiChat, data)),
    ("upstream_openai_responses", |data| {
        upstream(OpenaiResponses, data)
    }),
];
