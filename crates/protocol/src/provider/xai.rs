//! xAI (facts section 2.11).

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Prewarm, Provider, Quirks, RawPath, RequestField,
    UpstreamDialectName,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "xai",
    title: "xAI",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[UpstreamDialectName::OpenaiResponses],
    base_url: Some("https://api.x.ai/v1"),
    auth: AuthScheme::Bearer,
    // Edits take JSON alone, no forms.
    raw: &[RawPath::ImageGenerations, RawPath::ImageEdits],
    worker_health: None,
    rules,
};

fn rules(dialect: UpstreamDialectName, _model: &str) -> ModelRules {
    let is_chat = dialect == UpstreamDialectName::OpenaiChat;
    ModelRules {
        cache: CacheRules {
            caching: Caching::Automatic,
            prewarm: Prewarm::OneToken,
            key: Some(if is_chat {
                RequestField::Header("x-grok-conv-id")
            } else {
                RequestField::Body("prompt_cache_key")
            }),
            ..CacheRules::replay()
        },
        quirks: Quirks {
            passes_unknown_fields: true,
            reasoning_outside_output: is_chat,
            ..Quirks::default()
        },
    }
}
