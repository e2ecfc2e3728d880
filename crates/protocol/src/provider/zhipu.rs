//! Zhipu GLM; z.ai is the same under another base URL (facts section 2.9).

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, RawPath,
    UpstreamDialectName, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "zhipu",
    title: "Zhipu GLM",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: Some("https://open.bigmodel.cn/api/paas/v4"),
    auth: AuthScheme::Bearer,
    // Those of audio are not known for sure to take the same bodies [?].
    raw: &[RawPath::Embeddings, RawPath::ImageGenerations],
    worker_health: None,
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
            json_schema: false,
            passes_unknown_fields: true,
            reasoning: reasoning::SWITCH,
            ..Quirks::default()
        },
    }
}
