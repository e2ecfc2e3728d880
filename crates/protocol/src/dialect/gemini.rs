//! Gemini `generateContent` and `cachedContents`, towards upstreams: the Gemini API and Vertex AI.
//!
//! A handle is a `cachedContents` resource: system texts, tools, tool choice and initial messages in one contiguous
//! prefix. Beside it Google takes none of these, so a chat with a handle sends contents and `generationConfig` only;
//! a `tool_choice` other than the one that the handle was made with can't be sent beside it.
//!
//! Written rules for what differs:
//! - System and developer messages at the beginning are `systemInstruction`, one part per text. Later ones, and all
//!   those after a context's prefix, are user contents whose text is wrapped in `<system>` and `</system>`.
//! - The results of one run of tool messages are one user content. A result that is a JSON object is sent as it is, any
//!   other as `{"result": text}`. Arguments that are not a JSON object are sent as `{"arguments": text}`.
//! - The id of a tool call carries what must come back with it (see `call_id`): Gemini's own id where it gave one, and
//!   the `thoughtSignature`, which Gemini 3 wants back verbatim. Calls of other models carry none, and none is sent.
//!   The seal on an answer's thoughts goes back with its last text; the thoughts themselves do not.
//! - A level of reasoning is `thinkingBudget` or `thinkingLevel`, by the model, and whoever asks for one gets thoughts.
//! - Files are `inlineData` or `fileData`, whatever they are, and need a media type. A refusal is text.
//! - JSON schemas of tools lose what Google's `Schema` does not know (see `schema`).
//! - `logit_bias` is refused, because token ids mean nothing there. `name`, `user`, `parallel_tool_calls`, an image's
//!   `detail` and unknown fields are left out.

mod call_id;
pub mod client;
mod content;
mod error;
mod hold;
mod original;
mod request;
mod schema;
mod stream;
#[cfg(test)]
mod tests;

use crate::chat::ClientDialect;
use crate::dialect::pieces::segment;
use crate::error::ApiError;
use crate::provider::ModelRules;
use crate::upstream::{
    AnswerDecoder, AnswerEnd, ChatCall, EncodedPrefix, Failure, Held, HoldCall, HttpCall, Method,
    OriginalCall, PrefixParts, UpstreamDialect,
};

/// Gemini `generateContent` and `cachedContents`.
#[derive(Debug, Clone, Copy, Default)]
pub struct GeminiUpstream;

impl UpstreamDialect for GeminiUpstream {
    fn encode_prefix(
        &self,
        parts: &PrefixParts<'_>,
        rules: &ModelRules,
    ) -> Result<EncodedPrefix, ApiError> {
        request::encode_prefix(parts, rules)
    }

    fn encode_chat(&self, call: &ChatCall<'_>) -> Result<HttpCall, ApiError> {
        request::encode_chat(call)
    }

    fn encode_hold(&self, call: &HoldCall<'_>) -> Result<Option<HttpCall>, ApiError> {
        hold::encode_hold(call)
    }

    fn decode_hold(&self, body: &[u8], _rules: &ModelRules) -> Result<Held, Failure> {
        hold::decode_hold(body)
    }

    fn encode_extend(&self, handle: &str, ttl_seconds: u32) -> Option<HttpCall> {
        Some(hold::encode_extend(handle, ttl_seconds))
    }

    fn encode_drop(&self, handle: &str) -> Option<HttpCall> {
        Some(HttpCall {
            method: Method::Delete,
            path: hold::path_of(handle),
            headers: Vec::new(),
            body: Vec::new(),
        })
    }

    fn speaks(&self) -> Option<ClientDialect> {
        Some(ClientDialect::Gemini)
    }

    fn encode_original(&self, call: &OriginalCall<'_>) -> Result<HttpCall, ApiError> {
        original::encode(call)
    }

    fn decode_whole(&self, body: &[u8], _rules: &ModelRules) -> Result<AnswerEnd, Failure> {
        original::decode_whole(body)
    }

    fn decoder(&self, _rules: &ModelRules) -> Box<dyn AnswerDecoder> {
        Box::new(stream::GeminiDecoder::new())
    }

    fn failure(
        &self,
        status: u16,
        header: &dyn Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Failure {
        error::failure(status, header, body)
    }
}

/// The model as a resource below the base URL: `models/M`, on Vertex AI `publishers/google/models/M`. A model whose
/// configured name is a resource already (`tunedModels/...`, `publishers/...`, `endpoints/...`) stays as it is.
fn model_resource(model: &str, on_vertex: bool) -> String {
    let model = match model.strip_prefix("projects/") {
        // projects/P/locations/L/ is where the base URL ends.
        Some(rest) => rest.splitn(4, '/').nth(3).unwrap_or(rest),
        None => model,
    };
    let path: Vec<String> = model.split('/').map(segment).collect();
    let path = path.join("/");
    match (model.contains('/'), on_vertex) {
        (true, _) => path,
        (false, false) => format!("models/{path}"),
        (false, true) => format!("publishers/google/models/{path}"),
    }
}
