#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;

use super::{
    ALL, AuthScheme, CacheRules, Caching, Marker, ModelRules, Prewarm, Provider, RawPath,
    RequestField, TierField, UpstreamDialectName, by_name, families,
};

/// Names of every family, and of none.
const MODELS: &[&str] = &[
    "gpt-6-astra",
    "gpt-6.1-sol",
    "openai/gpt-5.6-luna",
    "gpt-5.5",
    "gpt-5.5-pro",
    "gpt-5-codex",
    "gpt-4o-mini",
    "gpt-35-turbo",
    "o3",
    "claude-opus-5-5",
    "anthropic/claude-haiku-4-5",
    "anthropic.claude-sonnet-4-6-v1:0",
    "us.amazon.nova-2-lite-v1:0",
    "gemini-3.8-flash",
    "doubao-seed-2-1-pro-260915",
    "qwen3.7-max",
    "qwen4-max",
    "kimi-k3.1-pro",
    "kimi-k2.6",
    "deepseek-v4-pro",
    "glm-5.3",
    "MiniMax-M3",
    "grok-4.7",
    "mistral-large-4",
    "openai/gpt-oss-120b",
    "llama",
    "",
];

fn each(mut check: impl FnMut(&Provider, UpstreamDialectName, &str, &ModelRules)) {
    for provider in ALL {
        for dialect in provider.other_dialects.iter().chain([&provider.dialect]) {
            for model in MODELS {
                check(
                    provider,
                    *dialect,
                    model,
                    &(provider.rules)(*dialect, model),
                );
            }
        }
    }
}

fn cache(provider: &str, model: &str) -> CacheRules {
    let provider = by_name(provider).unwrap();
    (provider.rules)(provider.dialect, model).cache
}

#[test]
fn providers_are_told_apart() {
    let names: HashSet<_> = ALL.iter().map(|provider| provider.name).collect();
    let titles: HashSet<_> = ALL.iter().map(|provider| provider.title).collect();
    assert_eq!((names.len(), titles.len()), (ALL.len(), ALL.len()));
    for provider in ALL {
        assert!(
            provider
                .name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
            "{}",
            provider.name
        );
        assert_eq!(by_name(provider.name).unwrap().title, provider.title);
        let dialects: HashSet<_> = provider
            .other_dialects
            .iter()
            .chain([&provider.dialect])
            .collect();
        assert_eq!(
            dialects.len(),
            provider.other_dialects.len() + 1,
            "{}",
            provider.name
        );
    }
    assert!(by_name("nobody").is_none());
}

#[test]
fn base_urls_can_be_appended_to() {
    for provider in ALL {
        let Some(url) = provider.base_url else {
            assert_eq!(provider.auth, AuthScheme::Optional, "{}", provider.name);
            continue;
        };
        assert!(
            url.starts_with("https://") && !url.ends_with('/'),
            "{}",
            provider.name
        );
        let settings = ["{region}", "{project}", "{resource}"];
        let rest = settings
            .iter()
            .fold(url.to_owned(), |url, setting| url.replace(setting, ""));
        assert!(!rest.contains(['{', '}']), "{}", provider.name);
    }
}

#[test]
fn rules_agree_with_themselves() {
    each(|provider, dialect, model, rules| {
        let at = format!("{} {dialect:?} {model:?}", provider.name);
        let cache = &rules.cache;
        assert!(
            cache.tiers_seconds.windows(2).all(|pair| pair[0] < pair[1]),
            "{at}: tiers ascend"
        );
        let is_breakpoint = cache.caching == Caching::Breakpoint;
        assert_eq!(cache.marker.is_some(), is_breakpoint, "{at}: a marker");
        assert_eq!(cache.markers_max > 0, is_breakpoint, "{at}: markers");
        if is_breakpoint {
            assert!(!cache.tiers_seconds.is_empty(), "{at}: lifetimes");
            assert_eq!(
                cache.has_ttl,
                cache.tiers_seconds.len() > 1,
                "{at}: a lifetime is written where there is a choice"
            );
        }
        let fits = match cache.marker {
            None => true,
            Some(Marker::CachePoint) => dialect == UpstreamDialectName::BedrockConverse,
            Some(Marker::PromptCacheBreakpoint) => matches!(
                dialect,
                UpstreamDialectName::OpenaiChat | UpstreamDialectName::OpenaiResponses
            ),
            Some(Marker::CacheControl) => matches!(
                dialect,
                UpstreamDialectName::OpenaiChat | UpstreamDialectName::Anthropic
            ),
        };
        assert!(fits, "{at}: the marker is of another dialect");
        if cache.caching == Caching::Automatic {
            assert_eq!(
                cache.tier_field != TierField::None,
                !cache.tiers_seconds.is_empty(),
                "{at}: a lifetime that can't be asked for"
            );
        } else {
            assert_eq!(cache.tier_field, TierField::None, "{at}: a tier field");
        }
        let fits = match cache.prewarm {
            Prewarm::None => true,
            Prewarm::Flag => dialect == UpstreamDialectName::OpenaiResponses,
            Prewarm::MaxTokensZero => dialect == UpstreamDialectName::Anthropic,
            Prewarm::OneToken => cache.caching != Caching::Replay,
        };
        assert!(fits, "{at}: the prewarm call is of another dialect");
        for field in [cache.key, cache.salt].into_iter().flatten() {
            if let RequestField::Header(name) = field {
                assert_eq!(name, name.to_lowercase(), "{at}");
            }
        }
        if cache.caching == Caching::Replay {
            assert_eq!(cache.tiers_seconds, Vec::<u32>::new(), "{at}");
        }
    });
}

#[test]
fn versions_are_read_out_of_names() {
    for (model, expected) in [
        ("gpt-5.6", Some((5, 6))),
        ("gpt-5.6-luna", Some((5, 6))),
        ("gpt-6-astra", Some((6, 0))),
        ("gpt-6.1-sol", Some((6, 1))),
        ("GPT-5.10", Some((5, 10))),
        ("openai/gpt-5.6-2026-09-01", Some((5, 6))),
        ("us.openai.gpt-5.6", Some((5, 6))),
        ("ft:gpt-4.1:org::id", Some((4, 1))),
        ("gpt-4o-2024-11-20", Some((4, 0))),
        ("gpt-4-1106-preview", Some((4, 0))),
        ("gpt5.6", Some((5, 6))),
        ("gpt-oss-120b", None),
        ("gpt-2026-09-01", None),
        ("chatgpt-4o-latest", None),
        ("not-a-gpt", None),
        ("o3-mini", None),
        ("", None),
        ("gpt-5.ü", Some((5, 0))),
    ] {
        assert_eq!(families::version(model, "gpt"), expected, "{model}");
    }
    assert_eq!(families::version("qwen/qwen4-max", "qwen"), Some((4, 0)));
    assert_eq!(families::version("qwen-max", "qwen"), None);
}

#[test]
fn openai_models_have_breakpoints_from_5_6_on() {
    for provider in ["openai", "azure"] {
        for model in [
            "gpt-5.6",
            "gpt-5.6-luna",
            "gpt-6-astra",
            "gpt-6.1-sol",
            "gpt-5.10",
        ] {
            assert_eq!(
                cache(provider, model).caching,
                Caching::Breakpoint,
                "{model}"
            );
        }
        for model in [
            "gpt-5.5",
            "gpt-5",
            "gpt-4.1",
            "gpt-4o",
            "o3",
            "my-deployment",
            "chatgpt-4o-latest",
        ] {
            let cache = cache(provider, model);
            assert_eq!(cache.caching, Caching::Automatic, "{model}");
            assert!(cache.key.is_some());
        }
        for model in [
            "gpt-35-turbo",
            "gpt-3.5-turbo",
            "gpt-4-turbo",
            "gpt-5-pro",
            "o1-pro",
        ] {
            assert_eq!(cache(provider, model).caching, Caching::Replay, "{model}");
        }
    }
    let responses = |model| {
        let provider = by_name("openai").unwrap();
        (provider.rules)(UpstreamDialectName::OpenaiResponses, model).cache
    };
    assert_eq!(responses("gpt-6-astra").prewarm, Prewarm::Flag);
    assert_eq!(responses("gpt-4.1").prewarm, Prewarm::OneToken);
    assert_eq!(cache("openai", "gpt-6-astra").prewarm, Prewarm::OneToken);
}

#[test]
fn lifetimes_are_those_that_the_model_knows() {
    assert_eq!(
        cache("openai", "gpt-6.1-sol").tiers_seconds,
        [1_800, 43_200]
    );
    assert_eq!(cache("azure", "gpt-6.1-sol").tiers_seconds, [1_800]);
    assert_eq!(cache("openai", "gpt-5.5").tiers_seconds, [86_400]);
    assert_eq!(cache("openai", "gpt-5.4").tiers_seconds, [3_600, 86_400]);
    assert!(cache("openai", "gpt-4o").tiers_seconds.is_empty());
    assert_eq!(cache("qwen", "qwen3.7-max").tiers_seconds, [300]);
    assert_eq!(cache("qwen", "qwen4-max").tiers_seconds, [300, 3_600]);
    assert_eq!(cache("kimi", "kimi-k3").tiers_seconds, [300, 3_600]);
    assert!(cache("kimi", "kimi-k2.6").tiers_seconds.is_empty());
}

#[test]
fn the_smallest_lifetime_that_lasts_half_as_long_is_chosen() {
    let tiers = cache("openai", "gpt-6.1-sol");
    assert_eq!(tiers.tier_for(1), Some(1_800));
    assert_eq!(tiers.tier_for(1_800), Some(1_800));
    assert_eq!(tiers.tier_for(3_600), Some(1_800));
    assert_eq!(tiers.tier_for(3_601), Some(43_200));
    assert_eq!(tiers.tier_for(86_400), Some(43_200));
    assert_eq!(tiers.tier_for(1_000_000), Some(43_200));
    assert_eq!(cache("deepseek", "deepseek-v4-pro").tier_for(300), None);
}

#[test]
fn only_what_is_cached_is_promised() {
    assert_eq!(
        cache("groq", "openai/gpt-oss-20b").caching,
        Caching::Automatic
    );
    assert_eq!(cache("groq", "llama-4").caching, Caching::Replay);
    assert_eq!(cache("qwen", "deepseek-v4").caching, Caching::Automatic);
    for provider in ["llama-server", "ollama"] {
        assert_eq!(cache(provider, "gpt-5.6").caching, Caching::Automatic);
    }
    assert_eq!(
        cache("openai-compatible", "gpt-5.6").caching,
        Caching::Replay
    );
}

#[test]
fn endpoints_are_told_apart_and_listed_once() {
    let paths: HashSet<_> = RawPath::ALL.iter().map(|raw| raw.path()).collect();
    let words: HashSet<_> = RawPath::ALL.iter().map(|raw| raw.as_str()).collect();
    assert_eq!(
        (paths.len(), words.len()),
        (RawPath::ALL.len(), RawPath::ALL.len())
    );
    for provider in ALL {
        let listed: HashSet<_> = provider.raw.iter().collect();
        assert_eq!(listed.len(), provider.raw.len(), "{}", provider.name);
        // They are OpenAI's, and an error is read as its imitators write it or not at all.
        assert!(
            provider.raw.is_empty() || provider.speaks(UpstreamDialectName::OpenaiChat),
            "{}",
            provider.name
        );
    }
}
