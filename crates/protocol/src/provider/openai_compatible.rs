//! Any other server that speaks OpenAI Chat Completions.

use super::{
    AuthScheme, CacheRules, ModelRules, Provider, Quirks, RawPath, UpstreamDialectName,
    WorkerHealth,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "openai-compatible",
    title: "OpenAI-compatible",
    dialect: UpstreamDialectName::OpenaiChat,
    other_dialects: &[],
    base_url: None,
    auth: AuthScheme::Optional,
    // Which ones such a server really has it will say itself.
    raw: RawPath::ALL,
    worker_health: Some(WorkerHealth::Models),
    rules,
};

fn rules(_dialect: UpstreamDialectName, _model: &str) -> ModelRules {
    ModelRules {
        cache: CacheRules::replay(),
        quirks: Quirks {
            passes_unknown_fields: true,
            cached_tokens_optional: true,
            documents: true,
            sound: true,
            ..Quirks::default()
        },
    }
}
