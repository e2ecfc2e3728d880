//! OpenRouter (facts section 2.13). `session_id` keeps a context with the provider that has its cache.

use super::{
    AuthScheme, CacheRules, Caching, Marker, ModelRules, Prewarm, Provider, Quirks, RawPath,
    ReasoningControl, RequestField, UpstreamDialectName, families,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "openrouter",
    title: "OpenRouter",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: Some("https://openrouter.ai/api/v1"),
    auth: AuthScheme::Bearer,
    raw: &[RawPath::Embeddings, RawPath::Completions],
    worker_health: None,
    rules,
};

/// It turns `cache_control` into what the model's provider wants, OpenAI's breakpoints included, but there without the
/// lifetime.
fn rules(_dialect: UpstreamDialectName, model: &str) -> ModelRules {
    let automatic = CacheRules {
        caching: Caching::Automatic,
        prewarm: Prewarm::OneToken,
        key: Some(RequestField::Body("session_id")),
        ..CacheRules::replay()
    };
    let breakpoint = CacheRules {
        caching: Caching::Breakpoint,
        marker: Some(Marker::CacheControl),
        markers_max: 4,
        ..automatic.clone()
    };
    let base = families::base_name(model);
    let cache = if base.starts_with("claude") {
        CacheRules {
            tiers_seconds: vec![300, 3_600],
            // The smallest of the family: a larger one would refuse what some of its models cache.
            min_tokens: 512,
            has_ttl: true,
            ..breakpoint
        }
    } else if base.starts_with("qwen") {
        CacheRules {
            tiers_seconds: vec![300],
            min_tokens: 1_024,
            ..breakpoint
        }
    } else if families::has_openai_breakpoints(model) {
        CacheRules {
            // One more is written at the end of the question, because the mode can't be told.
            markers_max: 3,
            tiers_seconds: vec![1_800],
            min_tokens: 1_024,
            ..breakpoint
        }
    } else {
        automatic
    };
    ModelRules {
        cache,
        quirks: Quirks {
            passes_unknown_fields: true,
            reasoning: ReasoningControl::Object,
            top_k: true,
            documents: true,
            sound: true,
            ..Quirks::default()
        },
    }
}
