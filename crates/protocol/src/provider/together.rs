//! Together (facts section 2.14).

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, RawPath,
    UpstreamDialectName, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "together",
    title: "Together AI",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: Some("https://api.together.xyz/v1"),
    auth: AuthScheme::Bearer,
    // Not documented as compatible: transcriptions and translations [?].
    raw: &[
        RawPath::Embeddings,
        RawPath::Completions,
        RawPath::ImageGenerations,
        RawPath::AudioSpeech,
        RawPath::AudioTranscriptions,
        RawPath::AudioTranslations,
    ],
    worker_health: None,
    rules,
};

fn rules(_dialect: UpstreamDialectName, model: &str) -> ModelRules {
    ModelRules {
        cache: CacheRules {
            caching: Caching::Automatic,
            prewarm: Prewarm::OneToken,
            ..CacheRules::replay()
        },
        quirks: Quirks {
            // The counter is not documented for sure.
            cached_tokens_optional: true,
            passes_unknown_fields: true,
            reasoning: reasoning::open_weights(model),
            top_k: true,
            ..Quirks::default()
        },
    }
}
