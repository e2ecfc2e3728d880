//! Model families that several providers serve. What caching a model has goes by its family, never by who sells it
//! (onyx-dot-app/onyx#11659).

use super::{
    CacheRules, Caching, Marker, ModelRules, Prewarm, Quirks, RequestField, TierField,
    UpstreamDialectName, reasoning,
};

/// From this version on OpenAI's models write cache entries at breakpoints (facts section 2.1).
const BREAKPOINT_VERSION: (u32, u32) = (5, 6);
/// Azure's old way to write 3.5, because deployment names had no dots.
const GPT_35: u32 = 35;
/// OpenAI's smallest cached prefix, tokens (facts section 2.1).
const OPENAI_TOKENS_MIN: u32 = 1_024;
/// `prompt_cache_retention`: `in_memory` lasts an hour at most, else `24h`, seconds.
const IN_MEMORY_SECONDS: u32 = 3_600;
const RETENTION_SECONDS: u32 = 86_400;

/// The version that follows the family's name: `gpt-5.6-luna` and `openai/gpt-5.6-2026-09-01` of `gpt` are (5, 6).
/// `family` in lower case; it must begin a word of the model's name. Dates and sizes are no versions.
pub(super) fn version(model: &str, family: &str) -> Option<(u32, u32)> {
    let model = model.to_ascii_lowercase();
    model.match_indices(family).find_map(|(at, _)| {
        let begins_word = !model[..at].ends_with(|before: char| before.is_ascii_alphanumeric());
        let rest = &model[at + family.len()..];
        let (major, rest) = number(rest.strip_prefix('-').unwrap_or(rest))?;
        let minor = rest.strip_prefix('.').and_then(number);
        begins_word.then_some((major, minor.map_or(0, |(minor, _)| minor)))
    })
}

/// A number of one or two digits and what follows it.
fn number(text: &str) -> Option<(u32, &str)> {
    let length = text
        .find(|symbol: char| !symbol.is_ascii_digit())
        .unwrap_or(text.len());
    let value = text[..length].parse().ok().filter(|_| length <= 2)?;
    Some((value, &text[length..]))
}

/// The model's own name: without the vendor before it, in lower case.
pub(super) fn base_name(model: &str) -> String {
    let base = model.rsplit('/').next().unwrap_or(model);
    base.to_ascii_lowercase()
}

/// Whether OpenAI's models of this name write cache entries at breakpoints.
pub(super) fn has_openai_breakpoints(model: &str) -> bool {
    version(model, "gpt")
        .is_some_and(|version| version.0 != GPT_35 && version >= BREAKPOINT_VERSION)
}

/// How OpenAI's models are cached, wherever they run. `tiers_seconds`: lifetimes that breakpoints may have there.
pub(super) fn openai_cache(
    dialect: UpstreamDialectName,
    model: &str,
    tiers_seconds: &[u32],
) -> CacheRules {
    if has_openai_breakpoints(model) {
        return CacheRules {
            caching: Caching::Breakpoint,
            marker: Some(Marker::PromptCacheBreakpoint),
            markers_max: 4,
            tiers_seconds: tiers_seconds.to_vec(),
            min_tokens: OPENAI_TOKENS_MIN,
            prewarm: if dialect == UpstreamDialectName::OpenaiResponses {
                Prewarm::Flag
            } else {
                Prewarm::OneToken
            },
            key: Some(RequestField::Body("prompt_cache_key")),
            has_ttl: tiers_seconds.len() > 1,
            ..CacheRules::replay()
        };
    }
    if is_never_cached(model) {
        return CacheRules::replay();
    }
    let tiers_seconds = retentions(model);
    CacheRules {
        caching: Caching::Automatic,
        min_tokens: OPENAI_TOKENS_MIN,
        prewarm: Prewarm::OneToken,
        key: Some(RequestField::Body("prompt_cache_key")),
        tier_field: if tiers_seconds.is_empty() {
            TierField::None
        } else {
            TierField::PromptCacheRetention
        },
        tiers_seconds,
        ..CacheRules::replay()
    }
}

/// Models without a price for cached tokens (facts section 2.1).
fn is_never_cached(model: &str) -> bool {
    let base = base_name(model);
    let is_old = match version(&base, "gpt") {
        Some((GPT_35 | 3, _)) => true,
        Some((4, 0)) => !base.contains("gpt-4o"),
        _ => false,
    };
    let is_pro = ["gpt-5.5-pro", "gpt-5-pro", "o1-pro", "o3-pro"]
        .iter()
        .any(|pro| base.starts_with(pro));
    is_old || is_pro
}

/// Lifetimes of `prompt_cache_retention` (facts section 2.1); none for models that do not know it.
fn retentions(model: &str) -> Vec<u32> {
    let is_small = ["-mini", "-nano"].iter().any(|size| model.contains(size));
    match version(model, "gpt") {
        Some((5, 5)) => vec![RETENTION_SECONDS],
        Some((5, 1..=2 | 4)) => vec![IN_MEMORY_SECONDS, RETENTION_SECONDS],
        Some((5, 0) | (4, 1)) if !is_small => vec![IN_MEMORY_SECONDS, RETENTION_SECONDS],
        _ => Vec::new(),
    }
}

/// Longest life of a handle on Ark, seconds (facts section 2.5).
const ARK_HANDLE_SECONDS_MAX: u32 = 604_800;
/// Smallest prefix of Ark's Responses API, tokens; older pages say 1024 [?].
const ARK_PREFIX_TOKENS_MIN: u32 = 256;
/// Smallest prefix that Ark's implicit caching keeps, tokens; 256, 2048 or 8960 for some models [?].
const ARK_IMPLICIT_TOKENS_MIN: u32 = 1_024;

/// How the names of models on Ark begin whose explicit caching is the Context API alone.
const ARK_CONTEXT_ONLY: &[&str] = &["doubao-1-5-", "doubao-1.5-"];
/// Of models whose implicit caching serves batches alone.
const ARK_WITHOUT_IMPLICIT: &[&str] = &[
    "doubao-seed-1-",
    "doubao-seed-1.",
    "doubao-1-5-",
    "doubao-1.5-",
];

/// What Ark's services want, in China and elsewhere.
pub(super) fn ark(dialect: UpstreamDialectName, model: &str) -> ModelRules {
    let begins_with = |names: &[&str]| names.iter().any(|name| model.starts_with(name));
    let cache = match dialect {
        UpstreamDialectName::ArkResponses if !begins_with(ARK_CONTEXT_ONLY) => CacheRules {
            caching: Caching::Handle,
            is_sliding: false,
            handle_seconds_max: ARK_HANDLE_SECONDS_MAX,
            min_tokens: ARK_PREFIX_TOKENS_MIN,
            ..CacheRules::replay()
        },
        UpstreamDialectName::ArkContext => CacheRules {
            caching: Caching::Handle,
            is_sliding: true,
            handle_seconds_max: ARK_HANDLE_SECONDS_MAX,
            ..CacheRules::replay()
        },
        UpstreamDialectName::OpenaiChat if !begins_with(ARK_WITHOUT_IMPLICIT) => CacheRules {
            caching: Caching::Automatic,
            min_tokens: ARK_IMPLICIT_TOKENS_MIN,
            ..CacheRules::replay()
        },
        _ => CacheRules::replay(),
    };
    ModelRules {
        cache,
        quirks: Quirks {
            // Fields that Ark does not know fail the request, and its messages have no `reasoning_content`.
            passes_unknown_fields: false,
            reasoning_history: false,
            reasoning: reasoning::ARK,
            ..Quirks::default()
        },
    }
}
