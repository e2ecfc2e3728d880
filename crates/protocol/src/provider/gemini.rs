//! The Gemini API (facts section 2.4).

use super::{
    AuthScheme, CacheRules, Caching, ModelRules, Provider, Quirks, UpstreamDialectName, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "gemini",
    title: "Google Gemini",
    dialect: UpstreamDialectName::Gemini,
    other_dialects: &[],
    base_url: Some("https://generativelanguage.googleapis.com/v1beta"),
    auth: AuthScheme::Google,
    raw: &[],
    worker_health: None,
    rules,
};

/// Smallest `cachedContents`, tokens, by how the model's name begins; the first that fits counts. Documents name the
/// numbers of implicit caching; the one of 2.5 Flash is from an error that explicit caching gave [?].
const TOKENS_MIN: &[(&str, u32)] = &[
    ("gemini-2.5-flash", 1_024),
    ("gemini-2", 2_048),
    ("gemini", 4_096),
];

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
            // Gemma and tuned models have no explicit caching.
            None => CacheRules::replay(),
        },
        quirks: Quirks {
            reasoning: reasoning::gemini(model),
            ..Quirks::default()
        },
    }
}
