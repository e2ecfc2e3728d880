//! Groq, which caches the gpt-oss family only (facts section 2.14).

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, RawPath,
    UpstreamDialectName, families, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "groq",
    title: "Groq",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: Some("https://api.groq.com/openai/v1"),
    auth: AuthScheme::Bearer,
    raw: &[
        RawPath::AudioSpeech,
        RawPath::AudioTranscriptions,
        RawPath::AudioTranslations,
    ],
    worker_health: None,
    rules,
};

fn rules(_dialect: UpstreamDialectName, model: &str) -> ModelRules {
    let cache = if families::base_name(model).starts_with("gpt-oss") {
        CacheRules {
            caching: Caching::Automatic,
            min_tokens: 128,
            prewarm: Prewarm::OneToken,
            ..CacheRules::replay()
        }
    } else {
        CacheRules::replay()
    };
    ModelRules {
        cache,
        quirks: Quirks {
            max_completion_tokens: true,
            passes_unknown_fields: true,
            reasoning_history: false,
            reasoning: reasoning::open_weights(model),
            ..Quirks::default()
        },
    }
}
