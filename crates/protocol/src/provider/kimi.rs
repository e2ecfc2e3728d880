//! Moonshot (facts section 2.7). A breakpoint in the content is refused there.

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, RequestField,
    TierField, UpstreamDialectName, families, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "kimi",
    title: "Kimi (Moonshot AI)",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: Some("https://api.moonshot.ai/v1"),
    auth: AuthScheme::Bearer,
    raw: &[],
    worker_health: None,
    rules,
};

/// From this version on writes are charged by lifetime.
const TIERS_VERSION: (u32, u32) = (3, 0);

fn rules(_dialect: UpstreamDialectName, model: &str) -> ModelRules {
    let base = families::base_name(model);
    let has_tiers = base == "kimi-latest"
        || families::version(&base, "kimi-k").is_some_and(|version| version >= TIERS_VERSION);
    ModelRules {
        cache: CacheRules {
            caching: Caching::Automatic,
            tiers_seconds: if has_tiers {
                vec![300, 3_600]
            } else {
                Vec::new()
            },
            min_tokens: 256,
            prewarm: Prewarm::OneToken,
            key: Some(RequestField::Body("prompt_cache_key")),
            tier_field: if has_tiers {
                TierField::PromptCacheOptions
            } else {
                TierField::None
            },
            ..CacheRules::replay()
        },
        quirks: Quirks {
            passes_unknown_fields: true,
            reasoning: reasoning::SWITCH,
            ..Quirks::default()
        },
    }
}
