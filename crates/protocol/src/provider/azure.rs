//! Azure OpenAI (facts section 2.2).

use super::{
    AuthScheme, ModelRules, Provider, Quirks, RawPath, ReasoningControl, UpstreamDialectName,
    families, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "azure",
    title: "Azure OpenAI",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[UpstreamDialectName::OpenaiResponses],
    base_url: Some("https://{resource}.openai.azure.com/openai/v1"),
    auth: AuthScheme::Header("api-key"),
    // Those of audio are a preview there [?].
    raw: RawPath::ALL,
    worker_health: None,
    rules,
};

/// Half an hour is the only lifetime of a breakpoint there.
const TIERS_SECONDS: &[u32] = &[1_800];

/// Models are deployments, whose names are the operator's: one that does not say its version is taken for an older
/// model, because those refuse the newer fields.
fn rules(dialect: UpstreamDialectName, model: &str) -> ModelRules {
    ModelRules {
        cache: families::openai_cache(dialect, model, TIERS_SECONDS),
        quirks: Quirks {
            max_completion_tokens: true,
            developer_role: true,
            passes_unknown_fields: true,
            reasoning_history: false,
            reasoning: reasoning::openai(model),
            reasoning_seals: dialect == UpstreamDialectName::OpenaiResponses
                && reasoning::openai(model) != ReasoningControl::None,
            documents: true,
            sound: true,
            ..Quirks::default()
        },
    }
}
