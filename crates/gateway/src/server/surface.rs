//! Which dialect a path speaks, and what an error looks like there.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use holdfast_protocol::ApiError;
use holdfast_protocol::dialect::{anthropic, gemini, openai};

/// The version header that only Anthropic's clients send.
const ANTHROPIC_VERSION: &str = "anthropic-version";
/// The credential header that only Google's clients send.
const GOOGLE_KEY: &str = "x-goog-api-key";

/// A set of routes that speak one dialect. OpenAI's and Ark's have the same errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    OpenAi,
    Anthropic,
    Google,
}

impl Surface {
    /// The surface of a request. Most paths belong to one; the list of models is in the dialect of whoever asks.
    pub(super) fn of(uri: &Uri, headers: &HeaderMap) -> Self {
        let path = uri.path();
        let mut segments = path.split('/').skip(1);
        let first = match segments.next() {
            Some("v1beta" | "v1beta1") => return Surface::Google,
            Some("v1") => segments.next().unwrap_or_default(),
            _ => return Surface::OpenAi,
        };
        match first {
            "messages" => Surface::Anthropic,
            // Google's SDKs put a version behind a base URL that ends in one.
            "v1" | "v1beta" | "v1beta1" | "cachedContents" | "projects" | "publishers" => {
                Surface::Google
            }
            // Names of models have colons, too.
            "models" if is_google_method(path) => Surface::Google,
            "models" => Surface::of_caller(headers),
            _ => Surface::OpenAi,
        }
    }

    fn of_caller(headers: &HeaderMap) -> Self {
        if headers.contains_key(ANTHROPIC_VERSION) {
            Surface::Anthropic
        } else if headers.contains_key(GOOGLE_KEY) && !headers.contains_key(AUTHORIZATION) {
            Surface::Google
        } else {
            Surface::OpenAi
        }
    }

    /// Status and body of an error.
    pub(super) fn encode_error(self, error: &ApiError) -> (u16, Bytes) {
        match self {
            Surface::OpenAi => openai::encode_error(error),
            Surface::Anthropic => anthropic::client::encode_error(error),
            Surface::Google => gemini::client::encode_error(error),
        }
    }
}

/// Whether the path ends in `:generateContent` or another of Google's methods.
fn is_google_method(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    last.rsplit_once(':')
        .is_some_and(|(_, verb)| GOOGLE_VERBS.contains(&verb))
}

/// Google's methods on models that are served.
pub(super) const GOOGLE_VERBS: &[&str] =
    &["generateContent", "streamGenerateContent", "countTokens"];

#[cfg(test)]
mod tests;
