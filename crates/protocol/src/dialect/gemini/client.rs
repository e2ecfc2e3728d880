//! Gemini `generateContent`, `countTokens`, `cachedContents` and `models`, towards clients (contract section 4, facts 2.4).
//!
//! The JSON of protocol buffers: names in camelCase or snake_case, words in any case, one object in place of an array of
//! one.
//!
//! Written rules for what the internal form can't hold:
//! - `systemInstruction` is one system message before all others, text only.
//! - Contents of `model` in a row are one assistant message, because clients keep each piece of a stream as a content of
//!   its own. Its texts are joined; calls come after them. A user's content with results becomes a tool message for each,
//!   and a user message of what else it has.
//! - Ids of calls go to clients as they are within and come back so. A call that comes without id is numbered. A result
//!   without id, or with one that no call has, answers the earliest call of its function that has no answer yet; beside a
//!   context the call may be the context's, and the result keeps its function's name.
//! - A result that is an object of one text, `result` or `output`, is that text; any other is its JSON.
//! - Thoughts are joined; the last signature counts. A signature on a call travels in the call's id. Seals of other
//!   upstreams go to the client in base64 on the thoughts that they seal, and come back as theirs. Without
//!   `includeThoughts` neither those thoughts nor their seals are shown.
//! - Schemas of Google's kind become JSON schemas (see `schema`). `allowedFunctionNames`, where there are several, leave
//!   the other functions out. `VALIDATED` is `AUTO`.
//! - Left out: `safetySettings`, `labels`, `serviceTier`, `mediaResolution`, what parts say about their files, a
//!   function's `response` and `behavior`, and fields that the gateway does not know. To an upstream of this dialect all
//!   of these go through, as long as the request names no context, its `systemInstruction` is a content and it has no
//!   seals of other upstreams.
//! - For upstreams of this dialect only, refused with the field's name by all others: tools that Google runs itself and
//!   their parts, files at Google, answers that are not text or JSON.
//! - Answers: a call's arguments that are no JSON object become `{"INVALID_JSON": text}`; there is no word for the stop
//!   string that was met; calls end with `STOP`; refusals are text.

mod answer;
mod blob;
mod cached;
mod calls;
mod config;
mod contents;
mod error;
mod models;
mod proto;
mod request;
mod schema;
mod time;
mod tools;

pub use answer::{StreamForm, Writer};
pub use cached::{
    ResourceForm, decode_create, decode_patch, encode_cached_content, encode_cached_page,
};
pub use error::encode_error;
pub use models::{ModelInfo, encode_model, encode_models};
pub use request::{Request, decode_count, decode_request, encode_count};

#[cfg(test)]
mod tests;
