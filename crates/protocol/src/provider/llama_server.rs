//! llama.cpp's server (facts section 3.3). A slot keeps its last prompt until another request takes it: no promise.

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, RawPath,
    ReasoningControl, UpstreamDialectName, WorkerHealth, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "llama-server",
    title: "llama-server (llama.cpp)",
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
            prewarm: Prewarm::OneToken,
            ..CacheRules::replay()
        },
        quirks: Quirks {
            passes_unknown_fields: true,
            cached_tokens_optional: true,
            reasoning: ReasoningControl::Template(reasoning::LOW_TO_HIGH),
            top_k: true,
            sound: true,
            ..Quirks::default()
        },
    }
}
