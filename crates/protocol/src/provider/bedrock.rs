//! Amazon Bedrock (facts 2.12). Models are named by id, with the region of an inference profile before it
//! (`us.anthropic.claude-...`), or by ARN. What an ARN of an application's own profile stands for can't be seen from
//! its name: such models are replayed unless the configuration says more.
//!
//! OpenAI's models take markers through the Responses API only. It has another base URL, so an upstream that is
//! configured for it must name both.

use super::{
    AuthScheme, CacheRules, Caching, Marker, ModelRules, Prewarm, Provider, Quirks,
    ReasoningControl, UpstreamDialectName, reasoning,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "bedrock",
    title: "Amazon Bedrock",
    dialect: UpstreamDialectName::BedrockConverse,
    other_dialects: &[UpstreamDialectName::OpenaiResponses],
    base_url: Some("https://bedrock-runtime.{region}.amazonaws.com"),
    auth: AuthScheme::Aws("bedrock"),
    raw: &[],
    worker_health: None,
    rules,
};

/// Smallest prefix of a Claude that is cached, by the beginning of its name; the first line that fits counts.
const CLAUDE_MIN_TOKENS: &[(&str, u32)] = &[
    ("claude-opus-5", 512),
    ("claude-sonnet-5-5", 512),
    ("claude-haiku-5-5", 512),
    ("claude-fable-5", 512),
    ("claude-mythos-5", 512),
    ("claude-haiku-4-5", 4_096),
    ("claude-opus-4-5", 4_096),
    ("claude-opus-4-6", 4_096),
    ("claude-opus-4-7", 4_096),
    ("claude-3-5-haiku", 2_048),
];

/// What most of them have; not known for models that are not listed.
const MIN_TOKENS_DEFAULT: u32 = 1_024;

/// Claudes before 4.5 know only five minutes and no structured output.
const CLAUDE_OLD: &[&str] = &[
    "claude-3",
    "claude-sonnet-4-2025",
    "claude-opus-4-2025",
    "claude-opus-4-1",
];

/// Claudes that were never given caching here (not confirmed in 2026).
const CLAUDE_WITHOUT_CACHING: &[&str] = &[
    "claude-v",
    "claude-instant",
    "claude-3-haiku",
    "claude-3-sonnet",
    "claude-3-opus",
];

/// Novas whose model card allows markers (not confirmed in 2026). All of them cache by themselves.
const NOVA_WITH_MARKERS: &[&str] = &[
    "nova-micro-v1",
    "nova-lite-v1",
    "nova-pro-v1",
    "nova-premier-v1",
];

fn rules(dialect: UpstreamDialectName, model: &str) -> ModelRules {
    let of_maker = |maker: &str| model.split_once(maker).map(|(_, name)| name);
    let cache = if dialect == UpstreamDialectName::OpenaiResponses {
        of_maker("openai.").map_or_else(CacheRules::replay, openai)
    } else if let Some(name) = of_maker("anthropic.") {
        claude(name)
    } else if let Some(name) = of_maker("amazon.") {
        nova(name)
    } else {
        CacheRules::replay()
    };
    let has_json_schema = match (of_maker("anthropic."), of_maker("amazon.")) {
        (Some(name), _) => !is_any(name, CLAUDE_OLD) && !is_any(name, CLAUDE_WITHOUT_CACHING),
        // Amazon's own models are not known to have structured output (not confirmed in 2026).
        (None, amazon) => amazon.is_none(),
    };
    ModelRules {
        cache,
        quirks: Quirks {
            inline_images_only: true,
            json_schema: has_json_schema,
            reasoning: of_maker("anthropic.").map_or(ReasoningControl::None, reasoning::claude),
            top_k: of_maker("anthropic.").is_some(),
            ..Quirks::default()
        },
    }
}

fn is_any(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

fn claude(name: &str) -> CacheRules {
    if is_any(name, CLAUDE_WITHOUT_CACHING) {
        return CacheRules::replay();
    }
    let is_old = is_any(name, CLAUDE_OLD);
    CacheRules {
        caching: Caching::Breakpoint,
        marker: Some(Marker::CachePoint),
        markers_max: 4,
        tiers_seconds: if is_old { vec![300] } else { vec![300, 3_600] },
        min_tokens: CLAUDE_MIN_TOKENS
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map_or(MIN_TOKENS_DEFAULT, |(_, tokens)| *tokens),
        prewarm: Prewarm::OneToken,
        has_ttl: !is_old,
        ..CacheRules::replay()
    }
}

fn nova(name: &str) -> CacheRules {
    if !name.starts_with("nova-") {
        return CacheRules::replay();
    }
    let by_itself = CacheRules {
        caching: Caching::Automatic,
        min_tokens: MIN_TOKENS_DEFAULT,
        prewarm: Prewarm::OneToken,
        ..CacheRules::replay()
    };
    if !is_any(name, NOVA_WITH_MARKERS) {
        return by_itself;
    }
    CacheRules {
        caching: Caching::Breakpoint,
        marker: Some(Marker::CachePoint),
        markers_max: 4,
        tiers_seconds: vec![300],
        ..by_itself
    }
}

fn openai(name: &str) -> CacheRules {
    // The open-weight models know no markers and refuse unknown fields.
    if name.starts_with("gpt-oss") {
        return CacheRules::replay();
    }
    CacheRules {
        caching: Caching::Breakpoint,
        marker: Some(Marker::PromptCacheBreakpoint),
        markers_max: 3,
        tiers_seconds: vec![1_800],
        min_tokens: MIN_TOKENS_DEFAULT,
        ..CacheRules::replay()
    }
}
