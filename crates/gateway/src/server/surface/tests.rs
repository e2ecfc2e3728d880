#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::http::{HeaderMap, HeaderValue, Uri};

use super::Surface;

fn surface(path: &'static str, headers: &[&'static str]) -> Surface {
    let headers: HeaderMap = headers
        .iter()
        .map(|name| (name.parse().unwrap(), HeaderValue::from_static("x")))
        .collect();
    Surface::of(&Uri::from_static(path), &headers)
}

#[test]
fn a_path_speaks_one_dialect() {
    for (path, wanted) in [
        ("/v1/chat/completions", Surface::OpenAi),
        ("/v1/context/create", Surface::OpenAi),
        ("/v1/context/cachedContents/ctx-1", Surface::OpenAi),
        ("/api/v3/context/create", Surface::OpenAi),
        ("/v1/responses", Surface::OpenAi),
        ("/nowhere", Surface::OpenAi),
        ("/", Surface::OpenAi),
        ("/v1", Surface::OpenAi),
        ("/v1/messages", Surface::Anthropic),
        ("/v1/messages/count_tokens", Surface::Anthropic),
        ("/v1beta/models/m:generateContent", Surface::Google),
        (
            "/v1beta1/projects/p/locations/l/cachedContents",
            Surface::Google,
        ),
        ("/v1/v1beta/cachedContents/ctx-1", Surface::Google),
        ("/v1/v1/models", Surface::Google),
        ("/v1/cachedContents", Surface::Google),
        ("/v1/projects/p/locations/l/cachedContents", Surface::Google),
        ("/v1/models/a/b:streamGenerateContent", Surface::Google),
        ("/v1/models/qwen:7b", Surface::OpenAi),
    ] {
        assert_eq!(surface(path, &["authorization"]), wanted, "{path}");
    }
}

#[test]
fn models_are_listed_for_whoever_asks() {
    for (headers, wanted) in [
        (&["authorization"][..], Surface::OpenAi),
        (&["x-api-key"], Surface::OpenAi),
        (&["x-api-key", "anthropic-version"], Surface::Anthropic),
        (&["x-goog-api-key"], Surface::Google),
        (&["x-goog-api-key", "authorization"], Surface::OpenAi),
    ] {
        assert_eq!(surface("/v1/models", headers), wanted, "{headers:?}");
        assert_eq!(surface("/v1/models/m", headers), wanted, "{headers:?}");
    }
}
