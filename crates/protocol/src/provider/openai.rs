//! OpenAI (facts section 2.1).

use super::{
    AuthScheme, ModelRules, Provider, Quirks, RawPath, ReasoningControl, UpstreamDialectName,
    families, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "openai",
    title: "OpenAI",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[UpstreamDialectName::OpenaiResponses],
    base_url: Some("https://api.openai.com/v1"),
    auth: AuthScheme::Bearer,
    raw: RawPath::ALL,
    worker_health: None,
    rules,
};

/// Half an hour and, in Responses and on blocks of Chat, twelve hours; the guide lists the first only (facts section 8).
const TIERS_SECONDS: &[u32] = &[1_800, 43_200];

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
