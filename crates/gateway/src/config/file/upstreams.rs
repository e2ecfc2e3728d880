//! The tables about upstreams, routes and prices.

use std::collections::BTreeMap;
use std::fmt;

use holdfast_protocol::provider::{self, UpstreamDialectName};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Located;
use crate::config::SmallContexts;

/// An account at a provider, or a server of your own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "provider"]))]
pub(in crate::config) struct UpstreamTable {
    /// What routes, metrics and receipts call it.
    #[schemars(required)]
    pub(in crate::config) name: Option<Located<String>>,
    /// The service.
    #[schemars(required, extend("enum" = provider_names()))]
    pub(in crate::config) provider: Option<Located<String>>,
    /// One of the wire formats that the provider speaks. Default: by provider.
    #[schemars(extend("enum" = dialect_names()))]
    pub(in crate::config) dialect: Option<Located<String>>,
    /// Where its API begins; may contain `{region}`, `{project}` and `{resource}`. Default: the provider's own.
    pub(in crate::config) base_url: Option<Located<String>>,
    /// Several servers of your own that answer alike, in place of `base_url`; a context stays with one of them.
    pub(in crate::config) workers: Option<Located<Vec<WorkerTable>>>,
    /// How workers are checked and how evenly they are used.
    pub(in crate::config) pool: Option<Located<PoolTable>>,
    /// Where it runs, such as `europe-west4` or `us-east-1`. Caches do not leave their region.
    pub(in crate::config) region: Option<Located<String>>,
    /// Google Cloud project.
    pub(in crate::config) project: Option<Located<String>>,
    /// Azure resource, the first part of its host name.
    pub(in crate::config) resource: Option<Located<String>>,
    /// Sent as `api-version` with every request (Azure). Default: none.
    pub(in crate::config) api_version: Option<Located<String>>,
    /// Key or token, by reference: `env:NAME` or `file:PATH`.
    pub(in crate::config) api_key: Option<Located<String>>,
    /// JSON of a Google service account, by reference: `env:NAME` or `file:PATH`.
    pub(in crate::config) service_account: Option<Located<String>>,
    /// AWS access key id, by reference: `env:NAME` or `file:PATH`.
    pub(in crate::config) access_key_id: Option<Located<String>>,
    /// AWS secret access key, by reference: `env:NAME` or `file:PATH`.
    pub(in crate::config) secret_access_key: Option<Located<String>>,
    /// Session token of temporary AWS credentials, by reference: `env:NAME` or `file:PATH`.
    pub(in crate::config) session_token: Option<Located<String>>,
    /// Headers sent with every request: values, or references such as `env:NAME`. Default: none.
    pub(in crate::config) headers: Option<BTreeMap<String, Located<String>>>,
    /// Time to connect, milliseconds. Default: 5000.
    pub(in crate::config) connect_timeout_ms: Option<Located<u64>>,
    /// Time until the answer begins, milliseconds. Default: 120000.
    pub(in crate::config) first_byte_timeout_ms: Option<Located<u64>>,
    /// Time between two pieces of an answer, milliseconds. Default: 120000.
    pub(in crate::config) idle_timeout_ms: Option<Located<u64>>,
    /// Time for a whole answer, seconds. Default: 600.
    pub(in crate::config) total_timeout_s: Option<Located<u64>>,
    /// Attempts beside the first one, before the next upstream of the route is asked. Default: 2.
    pub(in crate::config) retries_max: Option<Located<u32>>,
    /// Pause before the first retry, milliseconds; doubled for each further one, half of it random. Default: 250.
    pub(in crate::config) backoff_ms: Option<Located<u64>>,
    /// Longest pause, milliseconds; where the upstream asks for a longer one, the next upstream is asked at once.
    /// Default: 5000.
    pub(in crate::config) backoff_ms_max: Option<Located<u64>>,
    /// Failures in a row after which the upstream is left alone. Default: 5.
    pub(in crate::config) breaker_failures: Option<Located<u32>>,
    /// For how long it is left alone, seconds. Default: 30.
    pub(in crate::config) breaker_open_s: Option<Located<u64>>,
    /// How projects are kept apart in its caches: `project` (the default) or `none`. With `none`, a project can tell by
    /// timing and usage whether another one has stored the same text.
    pub(in crate::config) isolation: Option<Located<IsolationWord>>,
    /// Most requests to it at once. Default: 256.
    pub(in crate::config) concurrency_max: Option<Located<u64>>,
    /// What happens to a context that is too small for it to cache, when the context does not say: `error` or `replay`.
    /// Default: `contexts.small_contexts`.
    pub(in crate::config) on_too_small: Option<Located<SmallContexts>>,
    /// Endpoints beside chat that requests are passed through to. Default: by provider.
    pub(in crate::config) endpoints: Option<Located<Vec<Located<EndpointWord>>>>,
    /// What replaces the provider's caching rules, should they have changed. Default: nothing.
    pub(in crate::config) cache: Option<CacheTable>,
}

/// One of several servers of an upstream.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub(in crate::config) struct WorkerTable {
    /// Where its API begins, such as `http://10.0.0.1:8000/v1`.
    #[schemars(required)]
    pub(in crate::config) url: Option<Located<String>>,
    /// What metrics and the operator call it; which contexts it gets depends on it. Default: host and port.
    pub(in crate::config) name: Option<Located<String>>,
    /// Its share, against the others. Default: 1.
    pub(in crate::config) weight: Option<Located<f64>>,
    /// Whether it gets nothing new, while what runs there finishes. Default: false.
    pub(in crate::config) draining: Option<Located<bool>>,
}

/// How the workers of an upstream are checked, and how evenly they are used.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct PoolTable {
    /// How many times its share of the requests under way a worker may have before the next one is asked, 1 to 100.
    /// Default: 1.25.
    pub(in crate::config) load_factor: Option<Located<f64>>,
    /// How many requests a worker may have under way in any case, however few the others have. Default: 1.
    pub(in crate::config) load_min: Option<Located<u64>>,
    /// Where workers say that they are well: a path from the host on, such as `/healthz`. Default: by provider.
    pub(in crate::config) health_path: Option<Located<String>>,
    /// From one check of a worker to the next, milliseconds. Default: 5000.
    pub(in crate::config) health_interval_ms: Option<Located<u64>>,
    /// For one check, milliseconds. Default: 2000.
    pub(in crate::config) health_timeout_ms: Option<Located<u64>>,
    /// Good checks in a row after which a worker gets requests again. Default: 1.
    pub(in crate::config) healthy_after: Option<Located<u32>>,
    /// Bad checks in a row after which a worker gets none. Default: 2.
    pub(in crate::config) unhealthy_after: Option<Located<u32>>,
}

/// What replaces a provider's caching rules, for all models of this upstream.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct CacheTable {
    /// The kind: `handle`, `breakpoint`, `automatic` or `replay`.
    pub(in crate::config) caching: Option<Located<CachingWord>>,
    /// Smallest prefix that is cached, tokens.
    pub(in crate::config) min_tokens: Option<Located<u32>>,
    /// Lifetimes to choose from, seconds, ascending; empty: none can be chosen.
    pub(in crate::config) ttls: Option<Located<Vec<Located<u32>>>>,
    /// Longest life of a handle, seconds; 0: no bound.
    pub(in crate::config) handle_ttl_max: Option<Located<u32>>,
    /// The cheapest request that makes or refreshes a copy: `none`, `flag`, `max_tokens_zero` or `one_token`.
    pub(in crate::config) prewarm: Option<Located<PrewarmWord>>,
    /// Whether the provider is asked why its cache missed, where it can tell.
    pub(in crate::config) diagnostics: Option<Located<bool>>,
}

/// How projects are kept apart in an upstream's caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum IsolationWord {
    /// Each project has its own.
    Project,
    /// Equal content is shared.
    None,
}

/// An endpoint of OpenAI's API beside chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum EndpointWord {
    /// `/embeddings`.
    Embeddings,
    /// `/completions`.
    Completions,
    /// `/images/generations`.
    ImageGenerations,
    /// `/images/edits`.
    ImageEdits,
    /// `/audio/speech`.
    AudioSpeech,
    /// `/audio/transcriptions`.
    AudioTranscriptions,
    /// `/audio/translations`.
    AudioTranslations,
}

/// How an upstream caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum CachingWord {
    /// A named copy.
    Handle,
    /// Markers in the prompt.
    Breakpoint,
    /// By itself.
    Automatic,
    /// Not at all.
    Replay,
}

/// How a copy is made or refreshed without an answer that anybody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum PrewarmWord {
    /// There is no way.
    None,
    /// By a field of the request.
    Flag,
    /// By an answer of no tokens.
    MaxTokensZero,
    /// By an answer of one token.
    OneToken,
}

/// An upstream of a route: its name alone, or a table.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(in crate::config) enum RouteEntry {
    /// Its name; it calls the model as clients do.
    Name(String),
    /// With more.
    Table(RouteTable),
}

/// An upstream of a route.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["upstream"]))]
pub(in crate::config) struct RouteTable {
    /// One of `[[upstreams]]`.
    #[schemars(required)]
    pub(in crate::config) upstream: Option<Located<String>>,
    /// What the upstream calls the model. Default: its name here.
    pub(in crate::config) model: Option<Located<String>>,
    /// Smaller ones are asked first. Default: the place in the list, from 0.
    pub(in crate::config) priority: Option<Located<u32>>,
    /// Share among those of the same priority. Default: 1.
    pub(in crate::config) weight: Option<Located<u32>>,
}

impl<'de> Deserialize<'de> for RouteEntry {
    // serde's own untagged enums lose the places of what they hold.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = RouteEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an upstream or a table such as { upstream = \"...\" }")
            }

            fn visit_str<E>(self, name: &str) -> Result<RouteEntry, E> {
                Ok(RouteEntry::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RouteEntry, A::Error> {
                RouteTable::deserialize(MapAccessDeserializer::new(map)).map(RouteEntry::Table)
            }
        }

        deserializer.deserialize_any(EntryVisitor)
    }
}

/// What is known of models and prices.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct CatalogTable {
    /// Files of models and prices, relative to this file; their rows win over the built-in ones. Default: none.
    pub(in crate::config) files: Option<Located<Vec<Located<String>>>>,
    /// Whether they replace the built-in catalog altogether. Default: false.
    pub(in crate::config) replace: Option<Located<bool>>,
}

fn provider_names() -> Vec<&'static str> {
    provider::ALL.iter().map(|known| known.name).collect()
}

fn dialect_names() -> Vec<UpstreamDialectName> {
    let mut names = Vec::new();
    for known in provider::ALL {
        for name in std::iter::once(&known.dialect).chain(known.other_dialects) {
            if !names.contains(name) {
                names.push(*name);
            }
        }
    }
    names
}
