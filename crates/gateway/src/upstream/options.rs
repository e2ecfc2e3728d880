//! What the configuration says of upstreams and routes, complete and valid.

use std::time::Duration;

use holdfast_protocol::context::OnTooSmall;
use holdfast_protocol::provider::{Caching, Prewarm, Provider, RawPath, UpstreamDialectName};

use crate::keys::Secret;

/// One upstream account.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    /// What routes, metrics and receipts call it.
    pub name: String,
    /// The service.
    pub provider: &'static Provider,
    /// One that the provider speaks.
    pub dialect: UpstreamDialectName,
    /// Where its API begins, without a slash at the end, placeholders filled in. Empty where there is a pool.
    pub base_url: String,
    /// Several servers in place of one base URL.
    pub pool: Option<PoolOptions>,
    /// Appended to every URL, without `?`; empty: nothing (Azure's `api-version`).
    pub query: String,
    /// Part of what its caches are tied to; AWS signs it.
    pub region: String,
    /// Google Cloud project, where the provider has such; else empty.
    pub project: String,
    /// What requests are signed with.
    pub credentials: Credentials,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What is tried again.
    pub retry: RetryPolicy,
    /// How tenants are kept apart in its caches.
    pub isolation: Isolation,
    /// What replaces the provider's own caching rules.
    pub cache: CacheOverrides,
    /// What replaces the provider's list of endpoints beside chat; `None` leaves it.
    pub raw: Option<Vec<RawPath>>,
    /// Most requests to it at once.
    pub concurrency_max: usize,
    /// What happens with prefixes below its minimum, when a context does not say.
    pub on_too_small: OnTooSmall,
}

impl PartialEq for UpstreamOptions {
    fn eq(&self, other: &Self) -> bool {
        // Taken apart, so that a new field can't be forgotten here: a reload would leave its change without effect.
        let UpstreamOptions {
            name,
            provider,
            dialect,
            base_url,
            pool,
            query,
            region,
            project,
            credentials,
            headers,
            timeouts,
            retry,
            isolation,
            cache,
            raw,
            concurrency_max,
            on_too_small,
        } = self;
        *name == other.name
            && provider.name == other.provider.name
            && *dialect == other.dialect
            && *base_url == other.base_url
            && *pool == other.pool
            && *query == other.query
            && *region == other.region
            && *project == other.project
            && *credentials == other.credentials
            && *headers == other.headers
            && *timeouts == other.timeouts
            && *retry == other.retry
            && *isolation == other.isolation
            && *cache == other.cache
            && *raw == other.raw
            && *concurrency_max == other.concurrency_max
            && *on_too_small == other.on_too_small
    }
}

impl UpstreamOptions {
    /// Its servers; one with a base URL is called like its host and port.
    pub(crate) fn workers(&self) -> Vec<WorkerOptions> {
        match &self.pool {
            Some(pool) => pool.workers.clone(),
            None => vec![WorkerOptions::at(&self.base_url)],
        }
    }

    /// Whether both are the same but for the servers.
    pub(super) fn differs_in_pool_only(&self, other: &Self) -> bool {
        let like = UpstreamOptions {
            pool: other.pool.clone(),
            ..self.clone()
        };
        self.pool.is_some() && other.pool.is_some() && like == *other
    }
}

/// Several servers that answer alike, each with a cache of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolOptions {
    /// Never empty; names are unique.
    pub workers: Vec<WorkerOptions>,
    /// How many times its share of the requests under way a worker may have; at least 1.
    pub load_factor: f64,
    /// How many a worker may have under way in any case; at least 1.
    pub load_min: u64,
    /// How workers are checked.
    pub health: HealthOptions,
}

impl PoolOptions {
    /// These workers with the default for everything else.
    pub fn new(workers: Vec<WorkerOptions>) -> Self {
        PoolOptions {
            workers,
            load_factor: 1.25,
            load_min: 1,
            health: HealthOptions::default(),
        }
    }
}

/// One server of several.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerOptions {
    /// What metrics and the operator call it.
    pub name: String,
    /// Where its API begins, without a slash at the end.
    pub url: String,
    /// Its share; positive.
    pub weight: f64,
    /// Whether it gets nothing new.
    pub draining: bool,
}

impl WorkerOptions {
    /// The one at this URL, called like its host and port, with the default for everything else.
    pub fn at(url: &str) -> Self {
        let parsed = reqwest::Url::parse(url).ok();
        let name = parsed.as_ref().and_then(|url| {
            let (host, port) = (url.host_str()?, url.port_or_known_default()?);
            Some(format!("{host}:{port}"))
        });
        WorkerOptions {
            name: name.unwrap_or_default(),
            url: url.trim_end_matches('/').to_owned(),
            weight: 1.0,
            draining: false,
        }
    }
}

/// How workers are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthOptions {
    /// The path, from the worker's host on; `None`: the list of models below its URL.
    pub path: Option<String>,
    /// From one check to the next.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Good checks in a row after which a worker gets requests again.
    pub healthy_after: u32,
    /// Bad checks in a row after which it gets none.
    pub unhealthy_after: u32,
}

impl Default for HealthOptions {
    fn default() -> Self {
        HealthOptions {
            path: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            healthy_after: 1,
            unhealthy_after: 2,
        }
    }
}

/// What requests prove their sender with. Prints as stars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    None,
    /// A key or token.
    Key(Secret),
    /// The JSON of a Google service account.
    GoogleServiceAccount(Secret),
    /// AWS keys.
    Aws {
        /// Access key id.
        access_key_id: String,
        /// Secret access key.
        secret_access_key: Secret,
        /// Of temporary credentials.
        session_token: Option<Secret>,
    },
}

/// How long an upstream may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// From the request to the first event of the answer.
    pub first_byte: Duration,
    /// Between events.
    pub idle: Duration,
    /// For a whole answer.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(120),
            idle: Duration::from_secs(120),
            total: Duration::from_secs(600),
        }
    }
}

/// What is tried again, before the first event only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts beside the first one, per upstream.
    pub retries_max: u32,
    /// Before the first retry; doubled for each further one, half of it random.
    pub backoff: Duration,
    /// The longest pause, also where the upstream asks for more: then the next upstream is asked instead.
    pub backoff_max: Duration,
    /// Failures in a row after which the upstream is left alone.
    pub breaker_failures: u32,
    /// For how long.
    pub breaker_open: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            retries_max: 2,
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(5),
            breaker_failures: 5,
            breaker_open: Duration::from_secs(30),
        }
    }
}

/// How tenants are kept apart in an upstream's caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// By project: in the provider's own field where it has one, else by a short line before the context's first text.
    #[default]
    Project,
    /// Not at all: equal prefixes of all projects share, and one can tell by timing and usage that another has stored
    /// the same text.
    None,
}

/// What replaces a provider's caching rules; `None` leaves them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheOverrides {
    /// The kind.
    pub caching: Option<Caching>,
    /// Smallest prefix, tokens.
    pub min_tokens: Option<u32>,
    /// Lifetimes, seconds, ascending.
    pub tiers_seconds: Option<Vec<u32>>,
    /// Longest life of a handle, seconds.
    pub handle_seconds_max: Option<u32>,
    /// How a copy is made or refreshed.
    pub prewarm: Option<Prewarm>,
    /// Whether the provider is asked why its cache missed.
    pub diagnostics: Option<bool>,
}

/// The upstreams of a model.
#[derive(Debug, Clone, Default)]
pub struct RouteOptions {
    /// Never empty.
    pub targets: Vec<TargetOptions>,
}

/// One upstream of a route.
#[derive(Debug, Clone)]
pub struct TargetOptions {
    /// Name of the upstream.
    pub upstream: String,
    /// What the upstream calls the model.
    pub model: String,
    /// Smaller ones are asked first.
    pub priority: u32,
    /// Share among those of the same priority.
    pub weight: u32,
}
