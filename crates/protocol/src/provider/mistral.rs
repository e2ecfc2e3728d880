//! Mistral (facts section 2.14).

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, RawPath, RequestField,
    UpstreamDialectName,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "mistral",
    title: "Mistral",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: Some("https://api.mistral.ai/v1"),
    auth: AuthScheme::Bearer,
    raw: &[RawPath::Embeddings, RawPath::AudioTranscriptions],
    worker_health: None,
    rules,
};

fn rules(_dialect: UpstreamDialectName, _model: &str) -> ModelRules {
    ModelRules {
        cache: CacheRules {
            caching: Caching::Automatic,
            min_tokens: 64,
            key: Some(RequestField::Body("prompt_cache_key")),
            prewarm: Prewarm::OneToken,
            ..CacheRules::replay()
        },
        quirks: Quirks {
            // Streams end with the usage unasked; fields that it does not know are refused.
            stream_options: false,
            reasoning_history: false,
            // The counter is not documented for sure.
            cached_tokens_optional: true,
            passes_unknown_fields: true,
            ..Quirks::default()
        },
    }
}
