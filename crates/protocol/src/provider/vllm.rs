//! vLLM (facts section 3.1).

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, RawPath,
    ReasoningControl, RequestField, UpstreamDialectName, WorkerHealth, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "vllm",
    title: "vLLM",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: None,
    auth: AuthScheme::Optional,
    raw: &[
        RawPath::Embeddings,
        RawPath::Completions,
        RawPath::AudioTranscriptions,
        RawPath::AudioTranslations,
    ],
    worker_health: Some(WorkerHealth::Root("/health")),
    rules,
};

fn rules(_dialect: UpstreamDialectName, _model: &str) -> ModelRules {
    ModelRules {
        cache: CacheRules {
            caching: Caching::Automatic,
            // One block of the default size.
            min_tokens: 16,
            salt: Some(RequestField::Body("cache_salt")),
            prewarm: Prewarm::OneToken,
            ..CacheRules::replay()
        },
        quirks: Quirks {
            // Counted only with `--enable-prompt-tokens-details`.
            cached_tokens_optional: true,
            passes_unknown_fields: true,
            reasoning: ReasoningControl::Template(reasoning::LOW_TO_HIGH),
            top_k: true,
            sound: true,
            ..Quirks::default()
        },
    }
}
