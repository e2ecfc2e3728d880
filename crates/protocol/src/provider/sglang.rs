//! SGLang (facts section 3.2).

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, RawPath,
    ReasoningControl, RequestField, UpstreamDialectName, WorkerHealth, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "sglang",
    title: "SGLang",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: None,
    auth: AuthScheme::Optional,
    raw: &[RawPath::Embeddings, RawPath::Completions],
    worker_health: Some(WorkerHealth::Root("/health")),
    rules,
};

fn rules(_dialect: UpstreamDialectName, _model: &str) -> ModelRules {
    ModelRules {
        cache: CacheRules {
            caching: Caching::Automatic,
            salt: Some(RequestField::Body("cache_salt")),
            prewarm: Prewarm::OneToken,
            ..CacheRules::replay()
        },
        quirks: Quirks {
            // Counted only with `--enable-cache-report`.
            cached_tokens_optional: true,
            passes_unknown_fields: true,
            reasoning: ReasoningControl::Template(reasoning::LOW_TO_HIGH),
            top_k: true,
            sound: true,
            ..Quirks::default()
        },
    }
}
