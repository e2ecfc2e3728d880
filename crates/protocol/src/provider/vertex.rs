//! Vertex AI (facts section 2.4). Caches belong to a location: chats have to go to the one that a cache was made in.

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Provider, Quirks, UpstreamDialectName, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "vertex",
    title: "Google Vertex AI",
    dialect: UpstreamDialectName::Gemini,
    other_dialects: &[],
    base_url: Some(
        "https://{region}-aiplatform.googleapis.com/v1/projects/{project}/locations/{region}",
    ),
    auth: AuthScheme::Google,
    raw: &[],
    worker_health: None,
    rules,
};

/// Smallest `cachedContents`, tokens, by how the model's name begins; the first that fits counts [?].
const TOKENS_MIN: &[(&str, u32)] = &[("gemini-2", 2_048), ("gemini", 4_096)];

fn rules(_dialect: UpstreamDialectName, model: &str) -> ModelRules {
    let model = model.rsplit('/').next().unwrap_or(model);
    let min_tokens = TOKENS_MIN
        .iter()
        .find(|(beginning, _)| model.starts_with(beginning));
    ModelRules {
        cache: match min_tokens {
            Some((_, min_tokens)) => CacheRules {
                caching: Caching::Handle,
                is_sliding: false,
                min_tokens: *min_tokens,
                ..CacheRules::replay()
            },
            None => CacheRules::replay(),
        },
        quirks: Quirks {
            vertex_parent: Some("projects/{project}/locations/{region}".to_owned()),
            reasoning: reasoning::gemini(model),
            ..Quirks::default()
        },
    }
}
