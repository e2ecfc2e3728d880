//! Qwen on DashScope (facts section 2.6). There is no field that separates tenants.

use super::{
    AuthScheme, CacheRules, Caching, Marker, ModelRules, Prewarm, Provider, Quirks, RawPath,
    ReasoningControl, UpstreamDialectName, families,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "qwen",
    title: "Qwen (Alibaba Model Studio)",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: Some("https://dashscope.aliyuncs.com/compatible-mode/v1"),
    auth: AuthScheme::Bearer,
    raw: &[RawPath::Embeddings],
    worker_health: None,
    rules,
};

/// From this version on a marker may ask for an hour.
const HOUR_VERSION: (u32, u32) = (4, 0);

fn rules(_dialect: UpstreamDialectName, model: &str) -> ModelRules {
    let has_ttl = families::version(model, "qwen").is_some_and(|version| version >= HOUR_VERSION);
    let cache = if families::base_name(model).starts_with("qwen") {
        CacheRules {
            caching: Caching::Breakpoint,
            marker: Some(Marker::CacheControl),
            markers_max: 4,
            tiers_seconds: if has_ttl { vec![300, 3_600] } else { vec![300] },
            min_tokens: 1_024,
            prewarm: Prewarm::OneToken,
            has_ttl,
            ..CacheRules::replay()
        }
    } else {
        // Models of others that are served there have the implicit cache only.
        CacheRules {
            caching: Caching::Automatic,
            min_tokens: 256,
            prewarm: Prewarm::OneToken,
            ..CacheRules::replay()
        }
    };
    ModelRules {
        cache,
        quirks: Quirks {
            passes_unknown_fields: true,
            reasoning: ReasoningControl::EnableThinking,
            top_k: true,
            sound: true,
            ..Quirks::default()
        },
    }
}
