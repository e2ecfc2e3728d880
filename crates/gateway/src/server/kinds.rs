//! Which requests have a row in the ledger, and what they are called there.

use axum::http::{HeaderMap, Method, Uri};

use super::surface::{GOOGLE_VERBS, Surface};

/// The word for a request with a row; `None`: it has none, because it neither uses a model nor makes a context.
/// Counting tokens is no use of a model: nothing is generated and nobody charges for it.
pub(super) fn kind_of(method: &Method, route: &str, path: &str) -> Option<&'static str> {
    if method != Method::POST {
        return None;
    }
    let below = ["/api/v3/", "/v1/"]
        .into_iter()
        .find_map(|prefix| route.strip_prefix(prefix))
        .unwrap_or_default();
    match below {
        "chat/completions" | "context/chat/completions" | "messages" | "responses" => Some("chat"),
        "context/create" => Some("create"),
        "completions" => Some("completions"),
        "embeddings" => Some("embeddings"),
        "images/generations" => Some("image_generations"),
        "images/edits" => Some("image_edits"),
        "audio/speech" => Some("audio_speech"),
        "audio/transcriptions" => Some("audio_transcriptions"),
        "audio/translations" => Some("audio_translations"),
        below if below.starts_with("context/") && below.ends_with("/fork") => Some("create"),
        _ => google_kind(path),
    }
}

fn google_kind(path: &str) -> Option<&'static str> {
    let last = path.rsplit('/').next().unwrap_or_default();
    if last == "cachedContents" {
        return Some("create");
    }
    let verb = last.rsplit_once(':')?.1;
    (GOOGLE_VERBS.contains(&verb) && verb != "countTokens").then_some("chat")
}

/// The dialect of a request, in the ledger's word.
pub(super) fn surface_of(uri: &Uri, headers: &HeaderMap, route: &str) -> &'static str {
    match Surface::of(uri, headers) {
        Surface::Anthropic => "anthropic",
        Surface::Google => "gemini",
        Surface::OpenAi if route.ends_with("/responses") => "responses",
        Surface::OpenAi if route.starts_with("/api/v3/") => "ark",
        Surface::OpenAi => "openai",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_uses_a_model_has_a_row() {
        let kind = |route: &str, path: &str| kind_of(&Method::POST, route, path);
        for (route, expected) in [
            ("/v1/chat/completions", Some("chat")),
            ("/api/v3/context/chat/completions", Some("chat")),
            ("/v1/messages", Some("chat")),
            ("/v1/messages/count_tokens", None),
            ("/api/v3/responses", Some("chat")),
            ("/v1/responses/input_tokens", None),
            ("/v1/conversations", None),
            ("/v1/context/create", Some("create")),
            ("/v1/context/estimate", None),
            ("/v1/context/{id}/fork", Some("create")),
            ("/v1/embeddings", Some("embeddings")),
            ("/admin/v1/keys", None),
        ] {
            assert_eq!(kind(route, route), expected, "{route}");
        }
        for (path, expected) in [
            ("/v1beta/models/m:generateContent", Some("chat")),
            ("/v1beta/models/a/b:c:streamGenerateContent", Some("chat")),
            ("/v1beta/models/m:countTokens", None),
            ("/v1beta/models/m:other", None),
            ("/v1beta/cachedContents", Some("create")),
            (
                "/v1beta/projects/p/locations/l/cachedContents",
                Some("create"),
            ),
            ("/v1beta/cachedContents/ctx-1", None),
        ] {
            assert_eq!(kind("/v1beta/{*rest}", path), expected, "{path}");
        }
        assert_eq!(
            kind_of(&Method::GET, "/v1/chat/completions", "/v1/chat/completions"),
            None
        );
    }
}
