//! Upstreams: which service, where it is, what requests to it are signed with, how long it may take.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_protocol::context::OnTooSmall;
use holdfast_protocol::provider::{
    self, AuthScheme, Caching, Prewarm, Provider, RawPath, UpstreamDialectName,
};
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use super::super::file::{
    CacheTable, CachingWord, EndpointWord, IsolationWord, Located, PrewarmWord, UpstreamTable,
};
use super::super::problems::Problems;
use super::Scope;
use super::credentials::credentials;
use super::pool;
use super::values::{Names, did_you_mean, number, optional, referred, size};
use crate::app::{CacheOverrides, Isolation, RetryPolicy, Timeouts, UpstreamOptions};

/// Requests to one upstream at once.
const CONCURRENCY_MAX: u64 = 256;

/// A year and a day; no provider keeps anything longer.
const LIFETIME_SECONDS_MAX: u32 = 31_622_400;

const TIERS_MAX: usize = 8;

const HEADERS_MAX: usize = 32;

/// Dialects that a provider speaks elsewhere than its base URL says.
const SPOKEN_ELSEWHERE: &[(&str, UpstreamDialectName)] = &[
    ("minimax", UpstreamDialectName::OpenaiChat),
    ("bedrock", UpstreamDialectName::OpenaiResponses),
];

/// Headers that the gateway writes itself, or that belong to the connection.
const HEADERS_TAKEN: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that carry credentials.
const HEADERS_SECRET: &[&str] = &[
    "api-key",
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-api-key",
    "x-goog-api-key",
];

pub(super) fn upstreams(
    tables: &[UpstreamTable],
    on_too_small: OnTooSmall,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> Vec<UpstreamOptions> {
    let mut names = Names::default();
    tables
        .iter()
        .filter_map(|table| {
            let name = names.take(table.name.as_ref(), "upstream", problems);
            let provider = provider_of(table, problems)?;
            Some(upstream(
                name,
                provider,
                table,
                on_too_small,
                scope,
                problems,
            ))
        })
        .collect()
}

/// `None` where it is missing or unknown, which has been reported; nothing else can be said then.
fn provider_of(table: &UpstreamTable, problems: &mut Problems) -> Option<&'static Provider> {
    let wanted = table.provider.as_ref()?;
    let found = provider::by_name(wanted.get());
    if found.is_none() {
        let known = provider::ALL.iter().map(|known| known.name);
        problems.add_with_help(
            Some(wanted.span()),
            format!("there is no provider `{}`", wanted.get()),
            did_you_mean(
                wanted.get(),
                known,
                "anything that speaks OpenAI's Chat Completions is `openai-compatible`; the providers are",
            ),
        );
    }
    found
}

fn upstream(
    name: String,
    provider: &'static Provider,
    table: &UpstreamTable,
    on_too_small: OnTooSmall,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> UpstreamOptions {
    let dialect = dialect(table, provider, problems);
    let places = Places::of(table, problems);
    let pool = pool::pool(table, provider, problems);
    UpstreamOptions {
        base_url: match table.workers {
            Some(_) => String::new(),
            None => base_url(table, provider, dialect, &places, problems),
        },
        pool,
        query: api_version(table, problems),
        credentials: credentials(table, provider, scope, problems),
        headers: headers(&table.headers, scope, problems),
        timeouts: timeouts(table, problems),
        retry: retry(table, problems),
        isolation: match table.isolation.as_ref().map(Located::get) {
            None => Isolation::default(),
            Some(IsolationWord::Project) => Isolation::Project,
            Some(IsolationWord::None) => Isolation::None,
        },
        cache: table
            .cache
            .as_ref()
            .map(|cache| overrides(cache, dialect, problems))
            .unwrap_or_default(),
        raw: table.endpoints.as_ref().map(endpoints),
        concurrency_max: size(
            &table.concurrency_max,
            "concurrency_max",
            1..=100_000,
            CONCURRENCY_MAX,
            problems,
        ),
        on_too_small: table
            .on_too_small
            .as_ref()
            .map_or(on_too_small, |word| (*word.get()).into()),
        region: places.value("region").unwrap_or_default().to_owned(),
        project: places.value("project").unwrap_or_default().to_owned(),
        name,
        provider,
        dialect,
    }
}

fn dialect(
    table: &UpstreamTable,
    provider: &Provider,
    problems: &mut Problems,
) -> UpstreamDialectName {
    let Some(wanted) = &table.dialect else {
        return provider.dialect;
    };
    let spoken: Vec<(String, UpstreamDialectName)> = std::iter::once(&provider.dialect)
        .chain(provider.other_dialects)
        .map(|dialect| (word(*dialect), *dialect))
        .collect();
    let found = spoken.iter().find(|(word, _)| word == wanted.get());
    found.map_or_else(
        || {
            let known = spoken.iter().map(|(word, _)| word.as_str());
            problems.add_with_help(
                Some(wanted.span()),
                format!("{} does not speak `{}`", provider.title, wanted.get()),
                did_you_mean(wanted.get(), known, "it speaks"),
            );
            provider.dialect
        },
        |(_, dialect)| *dialect,
    )
}

/// A dialect as the configuration writes it.
fn word(dialect: UpstreamDialectName) -> String {
    let word = serde_json::to_value(dialect).ok();
    word.and_then(|word| word.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// What stands for the placeholders of a base URL.
struct Places<'a>([(&'static str, Option<&'a Located<String>>); 3]);

impl<'a> Places<'a> {
    /// They become part of a host name or a path, so that only plain words will do.
    fn of(table: &'a UpstreamTable, problems: &mut Problems) -> Self {
        let places = Places([
            ("region", table.region.as_ref()),
            ("project", table.project.as_ref()),
            ("resource", table.resource.as_ref()),
        ]);
        for (key, value) in &places.0 {
            let Some(value) = value else { continue };
            let text = value.get();
            // Google has projects such as `example.com:project`.
            let signs: &[u8] = if *key == "project" { b"-_.:" } else { b"-" };
            let is_sound = (1..=128).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || signs.contains(&byte));
            if !is_sound {
                problems.add_with_help(
                    Some(value.span()),
                    format!("`{text}` is no {key}"),
                    "use the name alone, not a URL or a path",
                );
            }
        }
        places
    }

    fn value(&self, key: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().find(|(known, _)| *known == key)?;
        value.map(|value| value.get().as_str())
    }

    /// Fills them in.
    fn fill(&self, template: &str) -> String {
        let mut filled = template.to_owned();
        if self.value("region") == Some("global") {
            // Vertex AI's global endpoint has no region in its host name.
            filled = filled.replace("{region}-aiplatform", "aiplatform");
        }
        for (key, value) in &self.0 {
            if let Some(value) = value {
                filled = filled.replace(&format!("{{{key}}}"), value.get());
            }
        }
        filled
    }
}

fn base_url(
    table: &UpstreamTable,
    provider: &Provider,
    dialect: UpstreamDialectName,
    places: &Places<'_>,
    problems: &mut Problems,
) -> String {
    let here = table.name.as_ref().map(Located::span);
    let written = table.base_url.as_ref();
    let is_elsewhere = SPOKEN_ELSEWHERE.contains(&(provider.name, dialect));
    let template = written
        .map(|url| url.get().as_str())
        .or(provider.base_url.filter(|_| !is_elsewhere));
    // Vertex AI's models and caches are named with their project and region, whatever the URL.
    let parent = (provider.rules)(dialect, "").quirks.vertex_parent;
    let template_or_nothing = template.unwrap_or_default();
    let mut is_complete = true;
    for (key, value) in &places.0 {
        let placeholder = format!("{{{key}}}");
        let is_used = template_or_nothing.contains(&placeholder)
            || parent
                .as_ref()
                .is_some_and(|parent| parent.contains(&placeholder));
        let is_signed = *key == "region" && signs_with_region(table, provider);
        match value {
            None if is_used || is_signed => {
                is_complete = false;
                problems.add_with_help(
                    here.clone(),
                    format!("{} needs a `{key}`", provider.title),
                    format!("add `{key} = \"...\"` to this upstream"),
                );
            }
            // A region tells places apart wherever it is given; the others would be without effect.
            Some(value) if !is_used && *key != "region" => problems.add_with_help(
                Some(value.span()),
                format!("`{key}` has no meaning here: it is not part of the base URL"),
                format!("leave it out, or write `{placeholder}` into `base_url`"),
            ),
            _ => {}
        }
    }
    let Some(template) = template else {
        let why = if is_elsewhere {
            format!("{} speaks `{}` elsewhere", provider.title, word(dialect))
        } else {
            format!("{} has no address of its own", provider.title)
        };
        problems.add_with_help(
            here,
            format!("`base_url` is missing: {why}"),
            "add for example `base_url = \"http://127.0.0.1:8000/v1\"`",
        );
        return String::new();
    };
    if !is_complete {
        return String::new();
    }
    let filled = places.fill(template);
    if let Err((message, help)) = check_url(&filled) {
        problems.add_with_help(
            written.map(Located::span).or(here),
            format!("`base_url`: {message}"),
            help,
        );
    }
    filled.trim_end_matches('/').to_owned()
}

/// AWS signatures are for one region.
fn signs_with_region(table: &UpstreamTable, provider: &Provider) -> bool {
    matches!(provider.auth, AuthScheme::Aws(_)) && table.access_key_id.is_some()
}

/// The error never repeats the text: a password may be part of it.
pub(super) fn check_url(text: &str) -> Result<(), (&'static str, &'static str)> {
    const EXAMPLE: &str = "write for example `https://api.example.com/v1`";
    if text.contains(['{', '}']) {
        return Err((
            "there is a placeholder that nothing stands for",
            "those that are known are {region}, {project} and {resource}",
        ));
    }
    let url = Url::parse(text).map_err(|_| ("this is not a URL", EXAMPLE))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(("a base URL begins with http:// or https://", EXAMPLE));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err((
            "credentials are not part of a base URL",
            "refer to them with `api_key` or `headers`",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err((
            "a base URL has no query and no fragment",
            "Azure's `api-version` is set with `api_version`",
        ));
    }
    Ok(())
}

fn api_version(table: &UpstreamTable, problems: &mut Problems) -> String {
    let Some(version) = &table.api_version else {
        return String::new();
    };
    let text = version.get();
    let is_sound = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_sound {
        problems.add_with_help(
            Some(version.span()),
            format!("`{text}` is no version of an API"),
            "write for example `2026-08-01-preview`",
        );
    }
    format!("api-version={text}")
}

pub(super) fn headers(
    file: &Option<BTreeMap<String, Located<String>>>,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> Vec<(String, String)> {
    let Some(file) = file else { return Vec::new() };
    let mut headers: Vec<(String, String)> = Vec::new();
    for (written, value) in file {
        let span = Some(value.span());
        let name = written.to_ascii_lowercase();
        if HeaderName::try_from(name.as_str()).is_err() {
            problems.add(span, format!("`{written}` is no name for a header"));
            continue;
        }
        if HEADERS_TAKEN.contains(&name.as_str()) {
            problems.add(span, format!("the header `{name}` can't be set"));
            continue;
        }
        if headers.iter().any(|(known, _)| *known == name) {
            problems.add(span, format!("the header `{name}` is there twice"));
            continue;
        }
        let text = value.get();
        let is_reference = text.starts_with("env:") || text.starts_with("file:");
        let text = if is_reference || HEADERS_SECRET.contains(&name.as_str()) {
            let value = Some(value.clone());
            match referred(&value, written, scope, problems) {
                Some(secret) => secret.expose().to_owned(),
                None => continue,
            }
        } else {
            text.clone()
        };
        if text.is_empty() || HeaderValue::try_from(text.as_str()).is_err() {
            problems.add(
                span,
                format!(
                    "the value of header `{name}` is empty or has characters that can't be sent"
                ),
            );
            continue;
        }
        headers.push((name, text));
    }
    if headers.len() > HEADERS_MAX {
        problems.add(
            file.values().next().map(Located::span),
            format!("there are more than {HEADERS_MAX} headers"),
        );
    }
    headers
}

fn timeouts(table: &UpstreamTable, problems: &mut Problems) -> Timeouts {
    let default = Timeouts::default();
    Timeouts {
        connect: milliseconds(
            &table.connect_timeout_ms,
            "connect_timeout_ms",
            600_000,
            default.connect,
            problems,
        ),
        first_byte: milliseconds(
            &table.first_byte_timeout_ms,
            "first_byte_timeout_ms",
            3_600_000,
            default.first_byte,
            problems,
        ),
        idle: milliseconds(
            &table.idle_timeout_ms,
            "idle_timeout_ms",
            3_600_000,
            default.idle,
            problems,
        ),
        total: seconds(
            &table.total_timeout_s,
            "total_timeout_s",
            86_400,
            default.total,
            problems,
        ),
    }
}

fn retry(table: &UpstreamTable, problems: &mut Problems) -> RetryPolicy {
    let default = RetryPolicy::default();
    let backoff = milliseconds(
        &table.backoff_ms,
        "backoff_ms",
        60_000,
        default.backoff,
        problems,
    );
    let backoff_max = milliseconds(
        &table.backoff_ms_max,
        "backoff_ms_max",
        600_000,
        default.backoff_max.max(backoff),
        problems,
    );
    if backoff_max < backoff {
        problems.add_with_help(
            table.backoff_ms_max.as_ref().map(Located::span),
            "`backoff_ms_max` is less than `backoff_ms`, so that nothing would be tried again",
            "raise it, or set `retries_max = 0` if that is meant",
        );
    }
    RetryPolicy {
        retries_max: number(
            &table.retries_max,
            "retries_max",
            0..=10,
            default.retries_max,
            problems,
        ),
        backoff,
        backoff_max,
        breaker_failures: number(
            &table.breaker_failures,
            "breaker_failures",
            1..=1000,
            default.breaker_failures,
            problems,
        ),
        breaker_open: seconds(
            &table.breaker_open_s,
            "breaker_open_s",
            3600,
            default.breaker_open,
            problems,
        ),
    }
}

pub(super) fn milliseconds(
    value: &Option<Located<u64>>,
    key: &str,
    max: u64,
    default: Duration,
    problems: &mut Problems,
) -> Duration {
    optional(value, key, 1..=max, problems).map_or(default, Duration::from_millis)
}

fn seconds(
    value: &Option<Located<u64>>,
    key: &str,
    max: u64,
    default: Duration,
    problems: &mut Problems,
) -> Duration {
    optional(value, key, 1..=max, problems).map_or(default, Duration::from_secs)
}

/// One that is there twice is there.
fn endpoints(words: &Located<Vec<Located<EndpointWord>>>) -> Vec<RawPath> {
    let path = |word: &Located<EndpointWord>| match word.get() {
        EndpointWord::Embeddings => RawPath::Embeddings,
        EndpointWord::Completions => RawPath::Completions,
        EndpointWord::ImageGenerations => RawPath::ImageGenerations,
        EndpointWord::ImageEdits => RawPath::ImageEdits,
        EndpointWord::AudioSpeech => RawPath::AudioSpeech,
        EndpointWord::AudioTranscriptions => RawPath::AudioTranscriptions,
        EndpointWord::AudioTranslations => RawPath::AudioTranslations,
    };
    words.get().iter().map(path).collect()
}

fn overrides(
    table: &CacheTable,
    dialect: UpstreamDialectName,
    problems: &mut Problems,
) -> CacheOverrides {
    let caching = table.caching.as_ref().map(|word| match word.get() {
        CachingWord::Handle => Caching::Handle,
        CachingWord::Breakpoint => Caching::Breakpoint,
        CachingWord::Automatic => Caching::Automatic,
        CachingWord::Replay => Caching::Replay,
    });
    // What a wire format has no words for can't be asked for.
    let has_handles = matches!(
        dialect,
        UpstreamDialectName::Gemini
            | UpstreamDialectName::ArkResponses
            | UpstreamDialectName::ArkContext
    );
    let can_be = match caching {
        Some(Caching::Handle) => has_handles,
        Some(Caching::Breakpoint) => !has_handles,
        _ => true,
    };
    if !can_be {
        problems.add(
            table.caching.as_ref().map(Located::span),
            format!(
                "`caching`: the dialect `{}` has no such thing",
                word(dialect)
            ),
        );
    }
    CacheOverrides {
        caching,
        min_tokens: optional(&table.min_tokens, "min_tokens", 0..=16_777_216, problems),
        tiers_seconds: table.ttls.as_ref().map(|ttls| tiers(ttls, problems)),
        handle_seconds_max: optional(
            &table.handle_ttl_max,
            "handle_ttl_max",
            0..=LIFETIME_SECONDS_MAX,
            problems,
        ),
        prewarm: table.prewarm.as_ref().map(|word| match word.get() {
            PrewarmWord::None => Prewarm::None,
            PrewarmWord::Flag => Prewarm::Flag,
            PrewarmWord::MaxTokensZero => Prewarm::MaxTokensZero,
            PrewarmWord::OneToken => Prewarm::OneToken,
        }),
        diagnostics: table.diagnostics.as_ref().map(|word| *word.get()),
    }
}

fn tiers(ttls: &Located<Vec<Located<u32>>>, problems: &mut Problems) -> Vec<u32> {
    let mut tiers: Vec<u32> = Vec::new();
    for ttl in ttls.get() {
        let seconds = *ttl.get();
        if !(1..=LIFETIME_SECONDS_MAX).contains(&seconds) {
            problems.add(
                Some(ttl.span()),
                format!("`ttls` has {seconds}, which is not between 1 and {LIFETIME_SECONDS_MAX} seconds"),
            );
        } else if tiers.last().is_some_and(|last| *last >= seconds) {
            problems.add(
                Some(ttl.span()),
                format!("`ttls` ascend, and {seconds} does not"),
            );
        }
        tiers.push(seconds);
    }
    if tiers.len() > TIERS_MAX {
        problems.add(
            Some(ttls.span()),
            format!("`ttls` has more than {TIERS_MAX} lifetimes"),
        );
    }
    tiers
}
