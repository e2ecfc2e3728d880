//! Fireworks, whose caches live in one replica each (facts section 2.14).

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, RawPath,
    ReasoningControl, RequestField, UpstreamDialectName, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "fireworks",
    title: "Fireworks AI",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: Some("https://api.fireworks.ai/inference/v1"),
    auth: AuthScheme::Bearer,
    // Images have paths of their own there, one for each model.
    raw: &[RawPath::Embeddings, RawPath::Completions],
    worker_health: None,
    rules,
};

fn rules(_dialect: UpstreamDialectName, _model: &str) -> ModelRules {
    ModelRules {
        cache: CacheRules {
            caching: Caching::Automatic,
            key: Some(RequestField::Header("x-session-affinity")),
            salt: Some(RequestField::Header("x-prompt-cache-isolation-key")),
            prewarm: Prewarm::OneToken,
            ..CacheRules::replay()
        },
        quirks: Quirks {
            // Some answers count in a header alone.
            cached_tokens_optional: true,
            passes_unknown_fields: true,
            reasoning: ReasoningControl::Effort(reasoning::NONE_TO_HIGH),
            top_k: true,
            ..Quirks::default()
        },
    }
}
