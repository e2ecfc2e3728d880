//! Keeps the tables of `docs/providers.md` true: they are written from the providers' own data.
//!
//! `UPDATE_DOCS=1` writes them; without it they are compared. A provider or a dialect of one that is added needs its
//! models in [`samples`].
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use holdfast_protocol::provider::{
    ALL, AuthScheme, CacheRules, Caching, Marker, ModelRules, Prewarm, Provider, Quirks, RawPath,
    RequestField, TierField, UpstreamDialectName,
};

const BEGIN: &str = "<!-- begin: written by crates/protocol/tests/providers_doc.rs -->";
const END: &str = "<!-- end: written by crates/protocol/tests/providers_doc.rs -->";

/// Models, by the provider's names, of each family that it treats differently in this dialect.
fn samples(provider: &str, dialect: UpstreamDialectName) -> &'static [&'static str] {
    use UpstreamDialectName::{ArkContext, ArkResponses, OpenaiChat, OpenaiResponses};
    const OPENAI: &[&str] = &[
        "gpt-5.6",
        "gpt-6.1-sol",
        "gpt-5.5",
        "gpt-5",
        "gpt-4.1",
        "gpt-4o",
        "gpt-5-pro",
    ];
    const GEMINI: &[&str] = &[
        "gemini-3.8-flash",
        "gemini-2.5-pro",
        "gemini-2.5-flash",
        "gemma-3-27b-it",
    ];
    match (provider, dialect) {
        ("openai" | "azure", _) => OPENAI,
        ("anthropic", _) => &[
            "claude-opus-5-5",
            "claude-sonnet-5-5",
            "claude-haiku-5-5",
            "claude-sonnet-4-6",
            "claude-opus-4-7",
            "claude-haiku-4-5",
            "claude-opus-4-5",
            "claude-haiku-3-5",
        ],
        ("gemini" | "vertex", _) => GEMINI,
        ("ark" | "byteplus", ArkResponses) => &["doubao-seed-2-1-pro-260915", "doubao-1-5-pro-32k"],
        ("ark" | "byteplus", ArkContext) => &["ep-20260101000000-abcde"],
        ("ark" | "byteplus", OpenaiChat) => {
            &["doubao-seed-2-1-pro-260915", "doubao-seed-1-6-250615"]
        }
        ("qwen", _) => &["qwen4-max", "qwen3.8-max", "glm-5.3"],
        ("kimi", _) => &["kimi-k3", "kimi-k2.6"],
        ("deepseek", _) => &["deepseek-v4-pro"],
        ("zhipu", _) => &["glm-5.3"],
        ("minimax", _) => &["MiniMax-M2.5", "MiniMax-M3"],
        ("xai", _) => &["grok-4.7"],
        ("mistral", _) => &["mistral-large-4"],
        ("groq", _) => &["openai/gpt-oss-120b", "llama-3.3-70b-versatile"],
        ("fireworks", _) => &["accounts/fireworks/models/kimi-k3"],
        ("together", _) => &["deepseek-ai/DeepSeek-V4-Pro-0813"],
        ("openrouter", _) => &[
            "anthropic/claude-opus-5.5",
            "openai/gpt-5.6",
            "qwen/qwen3.8-max",
            "deepseek/deepseek-v4-pro",
        ],
        ("bedrock", OpenaiResponses) => &["openai.gpt-5.6", "openai.gpt-oss-120b-1:0"],
        ("bedrock", _) => &[
            "us.anthropic.claude-opus-5-5",
            "anthropic.claude-sonnet-4-6",
            "anthropic.claude-haiku-4-5-20251001-v1:0",
            "anthropic.claude-opus-4-1-20250805-v1:0",
            "amazon.nova-2-lite-v1:0",
            "amazon.nova-pro-v1:0",
            "meta.llama4-maverick-17b-instruct-v1:0",
        ],
        ("vllm" | "sglang" | "llama-server" | "ollama" | "openai-compatible", _) => &["(any)"],
        _ => &[],
    }
}

#[test]
fn the_tables_of_the_document_are_the_providers_data() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/providers.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = document
        .split_once(BEGIN)
        .expect("docs/providers.md has lost the comment that begins its tables");
    let (written, tail) = rest
        .split_once(END)
        .expect("docs/providers.md has lost the comment that ends its tables");
    let tables = format!("\n\n{}\n", tables());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{tables}{END}{tail}")).unwrap();
        return;
    }
    assert!(
        written == tables,
        "the tables of docs/providers.md are out of date: write them with\n\
         UPDATE_DOCS=1 cargo test --release -p holdfast-protocol --test providers_doc\n{}",
        first_difference(written, &tables)
    );
}

#[test]
fn the_text_around_the_tables_speaks_of_every_provider() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/providers.md");
    let document = std::fs::read_to_string(path).unwrap();
    let text = match (document.split_once(BEGIN), document.split_once(END)) {
        (Some((head, _)), Some((_, tail))) => format!("{head}{tail}"),
        _ => document,
    };
    let silent: Vec<&str> = ALL
        .iter()
        .map(|provider| provider.name)
        .filter(|name| !text.contains(&format!("`{name}`")))
        .collect();
    assert!(
        silent.is_empty(),
        "docs/providers.md has no note about {silent:?}"
    );
}

#[test]
fn every_dialect_of_every_provider_has_sample_models() {
    for provider in ALL {
        for dialect in dialects(provider) {
            assert!(
                !samples(provider.name, dialect).is_empty(),
                "`samples` names no model of {} in `{}`",
                provider.name,
                word(dialect)
            );
        }
    }
}

fn first_difference(written: &str, expected: &str) -> String {
    let lines = written.lines().zip(expected.lines());
    lines
        .into_iter()
        .find(|(written, expected)| written != expected)
        .map_or_else(
            || "one of them is longer".to_owned(),
            |(written, expected)| format!("  document: {written}\n  data:     {expected}"),
        )
}

fn dialects(provider: &Provider) -> impl Iterator<Item = UpstreamDialectName> {
    std::iter::once(provider.dialect).chain(provider.other_dialects.iter().copied())
}

fn tables() -> String {
    let mut text = String::new();
    let heading = |title: &str, columns: &[&str]| -> String {
        let rule = vec!["---"; columns.len()].join("|");
        format!("### {title}\n\n| {} |\n|{rule}|\n", columns.join(" | "))
    };
    text.push_str(&heading(
        "Addresses and credentials",
        &[
            "provider",
            "`provider =`",
            "`dialect =` (the first is the default)",
            "credentials",
            "base URL",
        ],
    ));
    for provider in ALL {
        let dialects: Vec<String> = dialects(provider)
            .map(|dialect| code(&word(dialect)))
            .collect();
        text.push_str(&row(&[
            provider.title.to_owned(),
            code(provider.name),
            dialects.join(", "),
            credentials(provider.auth),
            provider
                .base_url
                .map_or_else(|| "yours: `base_url` is required".to_owned(), code),
        ]));
    }
    text.push('\n');
    text.push_str(&heading(
        "Caching, by model",
        &[
            "`provider =`",
            "`dialect =`",
            "models such as",
            "kind",
            "lifetimes",
            "least tokens",
            "what a turn carries for it",
            "made or refreshed by",
            "projects kept apart by",
        ],
    ));
    for provider in ALL {
        for family in families(provider) {
            let cache = &family.cache;
            text.push_str(&row(&[
                code(provider.name),
                family.dialects.join(", "),
                family
                    .models
                    .iter()
                    .map(|model| sample(model))
                    .collect::<Vec<_>>()
                    .join(", "),
                kind(cache).to_owned(),
                lifetimes(cache),
                if cache.min_tokens == 0 {
                    "-".to_owned()
                } else {
                    cache.min_tokens.to_string()
                },
                family.carried.clone(),
                made_by(cache).to_owned(),
                apart(cache),
            ]));
        }
    }
    text.push('\n');
    text.push_str(&heading(
        "What else differs",
        &[
            "`provider =`",
            "`dialect =`",
            "images",
            "`json_schema`",
            "unknown fields",
            "reasoning of earlier answers",
            "no cached-token counter means",
            "longest answer when the client names none",
        ],
    ));
    for provider in ALL {
        for dialect in dialects(provider) {
            text.push_str(&quirks_row(provider, dialect));
        }
    }
    text.push('\n');
    let paths: Vec<String> = RawPath::ALL.iter().map(|raw| code(raw.path())).collect();
    let columns: Vec<&str> = std::iter::once("`provider =`")
        .chain(paths.iter().map(String::as_str))
        .collect();
    text.push_str(&heading("Endpoints beside chat", &columns));
    for provider in ALL.iter().filter(|provider| !provider.raw.is_empty()) {
        let has = RawPath::ALL.iter().map(|raw| {
            let word = if provider.raw.contains(raw) {
                "yes"
            } else {
                "-"
            };
            word.to_owned()
        });
        let cells: Vec<String> = std::iter::once(code(provider.name)).chain(has).collect();
        text.push_str(&row(&cells));
    }
    text
}

/// Models of a provider that are cached alike.
struct Family {
    dialects: Vec<String>,
    models: Vec<&'static str>,
    cache: CacheRules,
    carried: String,
}

/// In the order of dialects and samples; dialects that treat the same models alike are one.
fn families(provider: &Provider) -> Vec<Family> {
    let mut all: Vec<Family> = Vec::new();
    for dialect in dialects(provider) {
        let mut own: Vec<Family> = Vec::new();
        for model in samples(provider.name, dialect) {
            let cache = (provider.rules)(dialect, model).cache;
            match own.iter_mut().find(|family| family.cache == cache) {
                Some(family) => family.models.push(model),
                None => own.push(Family {
                    dialects: vec![code(&word(dialect))],
                    models: vec![model],
                    carried: carried(dialect, &cache),
                    cache,
                }),
            }
        }
        for mut family in own {
            let alike = all.iter_mut().find(|known| {
                (&known.models, &known.cache, &known.carried)
                    == (&family.models, &family.cache, &family.carried)
            });
            match alike {
                Some(known) => known.dialects.append(&mut family.dialects),
                None => all.push(family),
            }
        }
    }
    all
}

fn quirks_row(provider: &Provider, dialect: UpstreamDialectName) -> String {
    let rules: Vec<ModelRules> = samples(provider.name, dialect)
        .iter()
        .map(|model| (provider.rules)(dialect, model))
        .collect();
    let says = |say: &dyn Fn(&Quirks) -> String| {
        let said: BTreeSet<String> = rules.iter().map(|rules| say(&rules.quirks)).collect();
        match said.len() {
            1 => said.into_iter().next().unwrap_or_default(),
            _ => "by model".to_owned(),
        }
    };
    let is_chat =
        dialect == UpstreamDialectName::OpenaiChat || dialect == UpstreamDialectName::ArkContext;
    row(&[
        code(provider.name),
        code(&word(dialect)),
        says(&|quirks| {
            let word = match (quirks.images, quirks.inline_images_only) {
                (false, _) => "refused",
                (true, true) => "`data:` only",
                (true, false) => "yes",
            };
            word.to_owned()
        }),
        says(&|quirks| if quirks.json_schema { "yes" } else { "refused" }.to_owned()),
        match dialect {
            // Has its own short list of fields, whatever the provider.
            UpstreamDialectName::OpenaiResponses
            | UpstreamDialectName::ArkResponses
            | UpstreamDialectName::Gemini => "see [translation](translation.md)".to_owned(),
            _ => says(&|quirks| {
                if quirks.passes_unknown_fields {
                    "passed on"
                } else {
                    "left out"
                }
                .to_owned()
            }),
        },
        if is_chat {
            says(&|quirks| {
                if quirks.reasoning_history {
                    "sent"
                } else {
                    "left out"
                }
                .to_owned()
            })
        } else {
            "left out".to_owned()
        },
        says(&|quirks| {
            if quirks.cached_tokens_optional {
                "unknown"
            } else {
                "none cached"
            }
            .to_owned()
        }),
        match dialect {
            // The only one whose API demands a number.
            UpstreamDialectName::Anthropic => says(&|quirks| quirks.max_tokens_default.to_string()),
            _ => "the provider's own".to_owned(),
        },
    ])
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn sample(model: &str) -> String {
    if model.starts_with('(') {
        model.trim_matches(['(', ')']).to_owned()
    } else {
        code(model)
    }
}

/// A dialect as the configuration writes it.
fn word(dialect: UpstreamDialectName) -> String {
    serde_json::to_value(dialect)
        .unwrap()
        .as_str()
        .unwrap()
        .to_owned()
}

fn credentials(auth: AuthScheme) -> String {
    match auth {
        AuthScheme::Bearer => "`api_key`, sent as `authorization: Bearer`".to_owned(),
        AuthScheme::Header(name) => format!("`api_key`, sent as `{name}`"),
        AuthScheme::Google => "`api_key`, sent as `x-goog-api-key`, or `service_account`".to_owned(),
        AuthScheme::Aws(_) => {
            "`access_key_id` and `secret_access_key` (`session_token`), which sign each request, or `api_key`, sent as `authorization: Bearer`"
                .to_owned()
        }
        AuthScheme::Optional => "none, or `api_key`, sent as `authorization: Bearer`".to_owned(),
    }
}

fn kind(cache: &CacheRules) -> &'static str {
    match cache.caching {
        Caching::Handle => "handle",
        Caching::Breakpoint => "breakpoint",
        Caching::Automatic => "automatic",
        Caching::Replay => "replay",
    }
}

fn lifetimes(cache: &CacheRules) -> String {
    let tiers: Vec<String> = cache
        .tiers_seconds
        .iter()
        .map(|seconds| span(*seconds))
        .collect();
    match cache.caching {
        Caching::Replay => "-".to_owned(),
        Caching::Handle => {
            let most = match cache.handle_seconds_max {
                0 => "as long as the context".to_owned(),
                seconds => format!("as long as the context, at most {}", span(seconds)),
            };
            let use_of_it = if cache.is_sliding {
                "renewed by use"
            } else {
                "not renewed by use"
            };
            format!("{most}; {use_of_it}")
        }
        Caching::Breakpoint | Caching::Automatic if tiers.is_empty() => {
            "the provider's own".to_owned()
        }
        Caching::Breakpoint | Caching::Automatic => tiers.join(" or "),
    }
}

/// Whole units only; none of the providers has another lifetime.
fn span(seconds: u32) -> String {
    match seconds {
        seconds if seconds.is_multiple_of(86_400) => format!("{} d", seconds / 86_400),
        seconds if seconds.is_multiple_of(3_600) => format!("{} h", seconds / 3_600),
        seconds if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

fn carried(dialect: UpstreamDialectName, cache: &CacheRules) -> String {
    let mut parts = Vec::new();
    if cache.caching == Caching::Handle {
        parts.push(match dialect {
            UpstreamDialectName::Gemini => "`cachedContent` and the new messages".to_owned(),
            UpstreamDialectName::ArkContext => "`context_id` and the new messages".to_owned(),
            _ => "`previous_response_id` and the new messages".to_owned(),
        });
    } else {
        parts.push("all messages".to_owned());
    }
    if let Some(marker) = cache.marker {
        let name = match marker {
            Marker::CacheControl => "cache_control",
            Marker::PromptCacheBreakpoint => "prompt_cache_breakpoint",
            Marker::CachePoint => "cachePoint",
        };
        parts.push(format!("`{name}`, at most {}", cache.markers_max));
    }
    match cache.tier_field {
        TierField::None => {}
        TierField::PromptCacheOptions => {
            parts.push("lifetime in `prompt_cache_options`".to_owned())
        }
        TierField::PromptCacheRetention => {
            parts.push("lifetime in `prompt_cache_retention`".to_owned())
        }
    }
    if let Some(key) = cache.key {
        parts.push(format!("key in {}", place(key)));
    }
    if let Some(salt) = cache.salt {
        parts.push(format!("salt in {}", place(salt)));
    }
    parts.join("; ")
}

fn place(field: RequestField) -> String {
    match field {
        RequestField::Body(name) => code(name),
        RequestField::Header(name) => format!("header `{name}`"),
    }
}

fn made_by(cache: &CacheRules) -> &'static str {
    match (cache.caching, cache.prewarm, cache.is_eager) {
        (Caching::Handle, ..) => "a call of its own, with the context",
        (Caching::Replay, ..) => "-",
        (_, Prewarm::None, _) => "chats only",
        (_, Prewarm::Flag, _) => "`prewarm: true`",
        (_, Prewarm::MaxTokensZero, _) => "`max_tokens: 0`",
        (_, Prewarm::OneToken, false) => "an answer of one token",
        (_, Prewarm::OneToken, true) => "an answer of one token, with the context",
    }
}

/// With `isolation = "project"`. The rule is `Target::needs_tenant_line` of the gateway.
fn apart(cache: &CacheRules) -> String {
    match (cache.caching, cache.salt, cache.key) {
        (Caching::Handle, ..) => "the handle's name".to_owned(),
        (Caching::Replay, ..) => "-".to_owned(),
        (_, Some(salt), _) => place(salt),
        (_, None, Some(RequestField::Body("prompt_cache_key"))) => "`prompt_cache_key`".to_owned(),
        _ => "a line before the first text".to_owned(),
    }
}
