//! MiniMax (facts 2.10). It caches by itself on its OpenAI route and by markers on its Anthropic route, which is the
//! default here. The OpenAI route has another base URL, `https://api.minimax.io/v1`, so an upstream that is configured
//! for it must name both; so must one in China (`api.minimaxi.com`).

use super::{
    AuthScheme, CacheRules, Caching, Marker, ModelRules, Prewarm, Provider, Quirks,
    UpstreamDialectName,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "minimax",
    title: "MiniMax",
    dialect: UpstreamDialectName::Anthropic,
    other_dialects: &[UpstreamDialectName::OpenaiChat],
    base_url: Some("https://api.minimax.io/anthropic"),
    auth: AuthScheme::Bearer,
    raw: &[],
    worker_health: None,
    rules,
};

/// Smallest prompt that is cached in either way.
const MIN_TOKENS: u32 = 512;

fn rules(dialect: UpstreamDialectName, model: &str) -> ModelRules {
    let by_itself = CacheRules {
        caching: Caching::Automatic,
        min_tokens: MIN_TOKENS,
        prewarm: Prewarm::OneToken,
        ..CacheRules::replay()
    };
    // M3 is listed for passive caching only, and so is taken what is not known to take markers.
    let takes_markers = dialect == UpstreamDialectName::Anthropic
        && model.to_ascii_lowercase().starts_with("minimax-m2");
    ModelRules {
        cache: if takes_markers {
            CacheRules {
                caching: Caching::Breakpoint,
                marker: Some(Marker::CacheControl),
                markers_max: 4,
                tiers_seconds: vec![300],
                ..by_itself
            }
        } else {
            by_itself
        },
        quirks: Quirks {
            // Not documented for either route.
            json_schema: false,
            max_tokens_default: 8_192,
            ..Quirks::default()
        },
    }
}
