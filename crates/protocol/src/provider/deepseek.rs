//! DeepSeek (facts section 2.8). The cache is kept per account.

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, UpstreamDialectName,
    reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "deepseek",
    title: "DeepSeek",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: Some("https://api.deepseek.com"),
    auth: AuthScheme::Bearer,
    // Text completions are under another base URL (`/beta`).
    raw: &[],
    worker_health: None,
    rules,
};

fn rules(_dialect: UpstreamDialectName, _model: &str) -> ModelRules {
    ModelRules {
        cache: CacheRules {
            caching: Caching::Automatic,
            // The unit of 2024; nothing newer is documented.
            min_tokens: 64,
            prewarm: Prewarm::OneToken,
            is_eager: true,
            ..CacheRules::replay()
        },
        quirks: Quirks {
            json_schema: false,
            images: false,
            passes_unknown_fields: true,
            reasoning: reasoning::SWITCH,
            ..Quirks::default()
        },
    }
}
