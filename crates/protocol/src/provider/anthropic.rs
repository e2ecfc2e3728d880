//! Anthropic (facts 2.3).

use super::{
    AuthScheme, CacheRules, Caching, Marker, ModelRules, Prewarm, Provider, Quirks,
    UpstreamDialectName, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "anthropic",
    title: "Anthropic",
    dialect: UpstreamDialectName::Anthropic,
    other_dialects: &[],
    base_url: Some("https://api.anthropic.com"),
    auth: AuthScheme::Header("x-api-key"),
    raw: &[],
    worker_health: None,
    rules,
};

/// Smallest prefix that is cached, by the beginning of the model's name; the first line that fits counts. For
/// `claude-opus-4-7` and `claude-sonnet-4-6` the sources disagree (facts 8).
const MIN_TOKENS: &[(&str, u32)] = &[
    ("claude-opus-5", 512),
    ("claude-sonnet-5-5", 512),
    ("claude-haiku-5-5", 512),
    ("claude-fable-5", 512),
    ("claude-mythos-5", 512),
    ("claude-opus-4-5", 4_096),
    ("claude-opus-4-6", 4_096),
    ("claude-opus-4-7", 2_048),
    ("claude-haiku-4-5", 4_096),
    ("claude-haiku-3", 2_048),
    ("claude-3-5-haiku", 2_048),
    ("claude-3-haiku", 2_048),
];

/// What most models have had; not known for models that are not listed.
const MIN_TOKENS_DEFAULT: u32 = 1_024;

/// Models that know no structured output (not confirmed in 2026; the configuration can say otherwise).
const WITHOUT_JSON_SCHEMA: &[&str] = &[
    "claude-3",
    "claude-haiku-3",
    "claude-sonnet-3",
    "claude-opus-3",
    "claude-sonnet-4-0",
    "claude-sonnet-4-2025",
    "claude-opus-4-0",
    "claude-opus-4-2025",
];

fn rules(_dialect: UpstreamDialectName, model: &str) -> ModelRules {
    let starts_with = |prefix: &&str| model.starts_with(*prefix);
    ModelRules {
        cache: CacheRules {
            caching: Caching::Breakpoint,
            marker: Some(Marker::CacheControl),
            markers_max: 4,
            tiers_seconds: vec![300, 3_600],
            is_sliding: true,
            min_tokens: MIN_TOKENS
                .iter()
                .find(|(prefix, _)| starts_with(prefix))
                .map_or(MIN_TOKENS_DEFAULT, |(_, tokens)| *tokens),
            prewarm: Prewarm::MaxTokensZero,
            has_ttl: true,
            diagnostics: true,
            ..CacheRules::replay()
        },
        quirks: Quirks {
            json_schema: !WITHOUT_JSON_SCHEMA.iter().any(starts_with),
            headers: vec![("anthropic-version", "2023-06-01")],
            // The oldest models write no more than 4096.
            max_tokens_default: if starts_with(&"claude-3-") {
                4_096
            } else {
                8_192
            },
            reasoning: reasoning::claude(model),
            ..Quirks::default()
        },
    }
}
