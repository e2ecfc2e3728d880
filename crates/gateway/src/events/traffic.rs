//! Numbers about traffic: outcomes by surface, times to the first token and to the end, what upstreams cost.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rust_decimal::prelude::ToPrimitive;

use super::{Events, ModelLabels, ResultLabels, UpstreamLabels, clamp, upstream_labels};
use crate::admission::Admission;
use crate::limits::Refusal;
use crate::upstream::{Limiter, Spent, Target};

const FIRST_TOKEN_BUCKETS_SECONDS: [f64; 13] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
];

const CHAT_BUCKETS_SECONDS: [f64; 13] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    surface: &'static str,
    outcome: &'static str,
}

/// Currencies are those of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MoneyLabels {
    upstream: String,
    model: String,
    currency: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamNameLabels {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// What the limit is of, and whose it is in kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
    of: &'static str,
}

type ByModel = Family<ModelLabels, Histogram, fn() -> Histogram>;
type ByTarget = Family<UpstreamLabels, Histogram, fn() -> Histogram>;
type Amount = Gauge<f64, AtomicU64>;

/// The counters.
pub(super) struct Traffic {
    outcomes: Family<OutcomeLabels, Counter>,
    first_token: ByModel,
    chat_duration: ByModel,
    first_event: ByTarget,
    retries: Family<UpstreamLabels, Counter>,
    fallbacks: Family<UpstreamLabels, Counter>,
    cost: Family<MoneyLabels, Counter<f64, AtomicU64>>,
    saved: Family<MoneyLabels, Amount>,
    in_flight: Family<UpstreamNameLabels, Gauge>,
    waiting: Family<UpstreamNameLabels, Gauge>,
    limits: Family<UpstreamNameLabels, Gauge>,
    running: Gauge,
    queued: Gauge,
    shed: Family<ReasonLabels, Counter>,
    limited: Family<LimitLabels, Counter>,
    shared_up: Gauge,
    shared_replicas: Gauge,
    shared_contexts: Family<ResultLabels, Counter>,
    certificate_expiry: Gauge,
}

impl Traffic {
    pub(super) fn new(registry: &mut Registry) -> Self {
        fn first_token() -> Histogram {
            Histogram::new(FIRST_TOKEN_BUCKETS_SECONDS)
        }
        fn chat() -> Histogram {
            Histogram::new(CHAT_BUCKETS_SECONDS)
        }
        let traffic = Traffic {
            outcomes: Family::default(),
            first_token: ByModel::new_with_constructor(first_token),
            chat_duration: ByModel::new_with_constructor(chat),
            first_event: ByTarget::new_with_constructor(first_token),
            retries: Family::default(),
            fallbacks: Family::default(),
            cost: Family::default(),
            saved: Family::default(),
            in_flight: Family::default(),
            waiting: Family::default(),
            limits: Family::default(),
            running: Gauge::default(),
            queued: Gauge::default(),
            shed: Family::default(),
            limited: Family::default(),
            shared_up: Gauge::default(),
            shared_replicas: Gauge::default(),
            shared_contexts: Family::default(),
            certificate_expiry: Gauge::default(),
        };
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The program", Info::new(version));
        registry.register(
            "requests",
            "Requests by the surface they came by and what became of them",
            traffic.outcomes.clone(),
        );
        registry.register(
            "chat_first_token_seconds",
            "Time from a request's head to the beginning of its answer",
            traffic.first_token.clone(),
        );
        registry.register(
            "chat_duration_seconds",
            "Time from a request's head to the end of its answer",
            traffic.chat_duration.clone(),
        );
        registry.register(
            "upstream_first_event_seconds",
            "Time from an attempt's start to the beginning of the upstream's answer",
            traffic.first_event.clone(),
        );
        registry.register(
            "upstream_retries",
            "Attempts at an upstream that had failed before",
            traffic.retries.clone(),
        );
        registry.register(
            "upstream_fallbacks",
            "Requests that came to this upstream because another one did not answer, and that it answered",
            traffic.fallbacks.clone(),
        );
        registry.register(
            "upstream_cost",
            "What upstreams charge for tokens, by the catalog's prices, in units of the currency",
            traffic.cost.clone(),
        );
        registry.register(
            "upstream_saved",
            "What the same tokens would have cost without caches, less what they cost; falls when writing a cache costs more than it saves",
            traffic.saved.clone(),
        );
        registry.register(
            "upstream_requests_in_flight",
            "Requests under way at an upstream",
            traffic.in_flight.clone(),
        );
        registry.register(
            "upstream_requests_waiting",
            "Requests that wait for their turn at an upstream",
            traffic.waiting.clone(),
        );
        registry.register(
            "upstream_concurrency_limit",
            "Requests that an upstream is sent at once; falls when it refuses some",
            traffic.limits.clone(),
        );
        registry.register(
            "admission_running_requests",
            "Requests with leave to run",
            traffic.running.clone(),
        );
        registry.register(
            "admission_waiting_requests",
            "Requests that wait for leave to run",
            traffic.queued.clone(),
        );
        registry.register(
            "admission_refused",
            "Requests turned away because the server had too many",
            traffic.shed.clone(),
        );
        registry.register(
            "limit_refusals",
            "Requests refused because a key, a project or a model had reached a limit",
            traffic.limited.clone(),
        );
        registry.register(
            "shared_up",
            "1 while the Redis of `[shared]` answers; 0 without one",
            traffic.shared_up.clone(),
        );
        registry.register(
            "shared_replicas",
            "Servers that share this Redis and have given a sign of life lately, this one included",
            traffic.shared_replicas.clone(),
        );
        registry.register(
            "shared_contexts",
            "Contexts that were looked for in the Redis that servers share",
            traffic.shared_contexts.clone(),
        );
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "When the listener's certificate ends, Unix seconds; 0 without TLS",
            traffic.certificate_expiry.clone(),
        );
        traffic
    }

    /// What is known only when somebody asks.
    pub(super) fn update(&self, targets: &[Arc<Target>], admission: &Admission) {
        self.in_flight.clear();
        self.waiting.clear();
        self.limits.clear();
        let (running, waiting) = admission.counts();
        self.running.set(clamp(running));
        self.queued.set(clamp(waiting));
        for target in targets {
            let labels = UpstreamNameLabels {
                upstream: target.name().to_owned(),
            };
            let members = &target.upstream.pool.members;
            let sum = |count: fn(&Limiter) -> u64| {
                clamp(members.iter().map(|one| count(&one.worker.limiter)).sum())
            };
            self.in_flight
                .get_or_create(&labels)
                .set(sum(Limiter::running));
            self.waiting
                .get_or_create(&labels)
                .set(sum(Limiter::waiting));
            self.limits.get_or_create(&labels).set(sum(Limiter::limit));
        }
    }

    pub(super) fn finished(&self, surface: &'static str, status: u16, is_complete: bool) {
        let outcome = match status {
            499 => "client_gone",
            429 => "limited",
            500.. => "server_error",
            400.. => "client_error",
            _ if is_complete => "ok",
            _ => "broken_off",
        };
        self.outcomes
            .get_or_create(&OutcomeLabels { surface, outcome })
            .inc();
    }
}

impl Events {
    /// A chat's answer begins.
    pub(crate) fn chat_answered(&self, model: &str, elapsed: Duration) {
        let labels = ModelLabels {
            model: model.to_owned(),
        };
        self.traffic
            .first_token
            .get_or_create(&labels)
            .observe(elapsed.as_secs_f64());
    }

    /// A chat's answer is complete.
    pub(crate) fn chat_ended(&self, model: &str, elapsed: Duration) {
        let labels = ModelLabels {
            model: model.to_owned(),
        };
        self.traffic
            .chat_duration
            .get_or_create(&labels)
            .observe(elapsed.as_secs_f64());
    }

    /// An upstream's answer begins.
    pub(crate) fn upstream_began(&self, target: &Target, elapsed: Duration) {
        self.traffic
            .first_event
            .get_or_create(&upstream_labels(target))
            .observe(elapsed.as_secs_f64());
    }

    /// An upstream is asked once more.
    pub(crate) fn upstream_retried(&self, target: &Target) {
        self.traffic
            .retries
            .get_or_create(&upstream_labels(target))
            .inc();
    }

    /// It has answered where another one, which was asked first, did not.
    pub(crate) fn fell_back(&self, target: &Target) {
        self.traffic
            .fallbacks
            .get_or_create(&upstream_labels(target))
            .inc();
    }

    /// What an upstream charges, and what that saves.
    pub(super) fn spent(&self, target: &Target, spent: &Spent) {
        let labels = MoneyLabels {
            upstream: target.name().to_owned(),
            model: target.model.clone(),
            currency: spent.currency.clone(),
        };
        let (cost, saved) = (spent.cost.to_f64(), spent.saved.to_f64());
        // A counter that is given less than nothing would wrap.
        let cost = cost.filter(|cost| *cost >= 0.0).unwrap_or_default();
        self.traffic.cost.get_or_create(&labels).inc_by(cost);
        self.traffic
            .saved
            .get_or_create(&labels)
            .inc_by(saved.unwrap_or_default());
    }

    /// A request has been turned away.
    pub(crate) fn shed(&self, reason: &'static str) {
        self.traffic
            .shed
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// The Redis that servers share answers, or no longer does.
    pub(crate) fn shared_is_up(&self, is_up: bool) {
        self.traffic.shared_up.set(is_up.into());
    }

    /// A context was looked for there.
    pub(crate) fn shared_context_sought(&self, is_there: bool) {
        let result = if is_there { "hit" } else { "miss" };
        self.traffic
            .shared_contexts
            .get_or_create(&ResultLabels { result })
            .inc();
    }

    /// So many servers share it.
    pub(crate) fn shared_replicas(&self, replicas: u64) {
        self.traffic.shared_replicas.set(clamp(replicas));
    }

    /// A limit has been reached.
    pub(crate) fn limited(&self, refusal: &Refusal) {
        let labels = LimitLabels {
            limit: refusal.what.as_str(),
            of: refusal.subject.kind(),
        };
        self.traffic.limited.get_or_create(&labels).inc();
    }

    /// The listener shows a certificate that ends then, Unix seconds.
    pub(crate) fn certificate_shown(&self, expires_at_seconds: i64) {
        self.traffic.certificate_expiry.set(expires_at_seconds);
    }
}
