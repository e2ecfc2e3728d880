//! Ollama, which counts no cached tokens (facts section 3.4).

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, RawPath,
    ReasoningControl, UpstreamDialectName, WorkerHealth, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "ollama",
    title: "Ollama",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: None,
    auth: AuthScheme::Optional,
    raw: &[RawPath::Embeddings, RawPath::Completions],
    worker_health: Some(WorkerHealth::Models),
    rules,
};

fn rules(_dialect: UpstreamDialectName, _model: &str) -> ModelRules {
    ModelRules {
        cache: CacheRules {
            caching: Caching::Automatic,
            prewarm: Prewarm::OneToken,
            ..CacheRules::replay()
        },
        quirks: Quirks {
            passes_unknown_fields: true,
            cached_tokens_optional: true,
            reasoning: ReasoningControl::Effort(reasoning::NONE_TO_HIGH),
            ..Quirks::default()
        },
    }
}
