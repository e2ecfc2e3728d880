//! Facts worth knowing: each is one function that counts it and, where a person would want to read it, logs it.
//! Labels are bounded: routes are templates, models are configured names. No label or field carries text of a client.

mod engines;
mod fleet;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::usage::{BilledUsage, CacheStatus};
use holdfast_protocol::{Receipt, Usage};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::admission::Admission;
use crate::routing::Models;
use crate::service::ReloadError;
use crate::telemetry::Telemetry;
use crate::upstream::{Target, Upstreams};
use crate::webhooks::{EventKind, Webhooks};

use engines::EngineMetrics;
use fleet::Fleet;
use traffic::Traffic;

const DURATION_BUCKETS_SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BudgetLabels {
    spender: &'static str,
}

impl BudgetLabels {
    fn of(is_of_key: bool) -> Self {
        BudgetLabels {
            spender: if is_of_key { "key" } else { "project" },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    model: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabels {
    model: String,
    result: &'static str,
}

/// Upstreams and their models are configured, so that there are as many series as lines in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: String,
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamResultLabels {
    upstream: String,
    model: String,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamTokenLabels {
    upstream: String,
    model: String,
    request: &'static str,
    kind: &'static str,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

/// A histogram family is made by a plain function.
type Durations = Family<RouteLabels, Histogram, fn() -> Histogram>;

/// What one request came to.
#[derive(Debug)]
pub(crate) struct RequestFacts<'a> {
    pub(crate) method: &'static str,
    pub(crate) route: &'a str,
    /// What speaks its dialect, in a word.
    pub(crate) surface: &'static str,
    /// 499 when the client left before there was an answer.
    pub(crate) status: u16,
    pub(crate) elapsed: Duration,
    pub(crate) request_id: &'a str,
    pub(crate) client_request_id: Option<&'a str>,
    pub(crate) trace_id: Option<String>,
    pub(crate) project: Option<&'a str>,
    pub(crate) key_id: Option<&'a str>,
    pub(crate) model: Option<&'a str>,
    /// Of a chat that came to its end.
    pub(crate) usage: Option<Usage>,
    pub(crate) first_token: Option<Duration>,
    /// Whether the answer's body was written out whole.
    pub(crate) is_complete: bool,
}

/// All counters, and the log lines that go with them.
pub(crate) struct Events {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Durations,
    in_flight: Gauge,
    tokens: Family<TokenLabels, Counter>,
    context_uses: Family<UseLabels, Counter>,
    contexts_created: Counter,
    contexts_expired: Counter,
    contexts_living: Gauge,
    context_tokens_living: Gauge,
    turns_committed: Counter,
    replays: Counter,
    panics: Counter,
    reloads: Family<ResultLabels, Counter>,
    upstream_requests: Family<UpstreamResultLabels, Counter>,
    upstream_tokens: Family<UpstreamTokenLabels, Counter>,
    upstream_handles: Family<UpstreamLabels, Counter>,
    upstream_pings: Family<UpstreamLabels, Counter>,
    upstreams_resting: Family<UpstreamLabels, Gauge>,
    ledger_rows: Counter,
    ledger_refusals: Counter,
    ledger_lost: Counter,
    ledger_waiting: Gauge,
    ledger_spool_bytes: Gauge,
    engine: EngineMetrics,
    budget_refusals: Family<BudgetLabels, Counter>,
    budget_warnings: Family<BudgetLabels, Counter>,
    traffic: Traffic,
    fleet: Fleet,
    telemetry: Option<Arc<Telemetry>>,
    webhooks: Option<Arc<Webhooks>>,
}

impl Events {
    /// With a collector of OpenTelemetry and receivers of events, where there are such.
    pub(crate) fn new(telemetry: Option<Arc<Telemetry>>, webhooks: Option<Arc<Webhooks>>) -> Self {
        let mut registry = Registry::with_prefix("holdfast");
        let durations = Durations::new_with_constructor(|| {
            Histogram::new(DURATION_BUCKETS_SECONDS.iter().copied())
        });
        let mut events = Events {
            requests: Family::default(),
            durations,
            in_flight: Gauge::default(),
            tokens: Family::default(),
            context_uses: Family::default(),
            contexts_created: Counter::default(),
            contexts_expired: Counter::default(),
            contexts_living: Gauge::default(),
            context_tokens_living: Gauge::default(),
            turns_committed: Counter::default(),
            replays: Counter::default(),
            panics: Counter::default(),
            reloads: Family::default(),
            upstream_requests: Family::default(),
            upstream_tokens: Family::default(),
            upstream_handles: Family::default(),
            upstream_pings: Family::default(),
            upstreams_resting: Family::default(),
            ledger_rows: Counter::default(),
            ledger_refusals: Counter::default(),
            ledger_lost: Counter::default(),
            ledger_waiting: Gauge::default(),
            ledger_spool_bytes: Gauge::default(),
            engine: EngineMetrics::new(&mut registry),
            budget_refusals: Family::default(),
            budget_warnings: Family::default(),
            traffic: Traffic::new(&mut registry),
            fleet: Fleet::new(&mut registry),
            telemetry,
            webhooks,
            registry: Registry::default(),
        };
        registry.register(
            "budget_refusals",
            "Requests refused because a budget had no room for them",
            events.budget_refusals.clone(),
        );
        registry.register(
            "budget_warnings",
            "Requests answered although a budget had passed its soft limit",
            events.budget_warnings.clone(),
        );
        registry.register(
            "http_requests",
            "Requests answered",
            events.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "Time from a request's head to the end of its answer",
            events.durations.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests being answered",
            events.in_flight.clone(),
        );
        registry.register(
            "tokens",
            "Tokens by kind: input computed afresh, input read from a context, tokens written to a cache or a session, output",
            events.tokens.clone(),
        );
        registry.register(
            "context_uses",
            "Chats with a context, by what its cache did",
            events.context_uses.clone(),
        );
        registry.register(
            "contexts_created",
            "Contexts created or forked",
            events.contexts_created.clone(),
        );
        registry.register(
            "contexts_expired",
            "Contexts removed after their expiry",
            events.contexts_expired.clone(),
        );
        registry.register(
            "contexts_living",
            "Contexts stored",
            events.contexts_living.clone(),
        );
        registry.register(
            "contexts_living_tokens",
            "Tokens of all stored contexts",
            events.context_tokens_living.clone(),
        );
        registry.register(
            "session_turns_committed",
            "Turns appended to sessions",
            events.turns_committed.clone(),
        );
        registry.register(
            "answers_replayed",
            "Lost answers given again",
            events.replays.clone(),
        );
        registry.register(
            "panics",
            "Requests that met a defect",
            events.panics.clone(),
        );
        registry.register(
            "config_reloads",
            "Reloads of the configuration, by outcome",
            events.reloads.clone(),
        );
        registry.register(
            "upstream_requests",
            "Attempts at upstreams, by outcome",
            events.upstream_requests.clone(),
        );
        registry.register(
            "upstream_tokens",
            "Tokens that upstreams charge for: fresh input, input read from their cache, written to it by lifetime, output",
            events.upstream_tokens.clone(),
        );
        registry.register(
            "upstream_handles_made",
            "Copies of contexts made at upstreams",
            events.upstream_handles.clone(),
        );
        registry.register(
            "upstream_pings",
            "Requests that kept a context warm",
            events.upstream_pings.clone(),
        );
        registry.register(
            "upstream_breaker_open",
            "1 while an upstream that kept failing is left alone",
            events.upstreams_resting.clone(),
        );
        registry.register(
            "ledger_rows_written",
            "Rows of the ledger given to the store",
            events.ledger_rows.clone(),
        );
        registry.register(
            "ledger_writes_failed",
            "Times that the store did not take rows of the ledger",
            events.ledger_refusals.clone(),
        );
        registry.register(
            "ledger_rows_lost",
            "Rows of the ledger that found no place and are in the log only",
            events.ledger_lost.clone(),
        );
        registry.register(
            "ledger_rows_waiting",
            "Rows of the ledger that the store does not have yet",
            events.ledger_waiting.clone(),
        );
        registry.register(
            "ledger_spool_bytes",
            "Size of the files in which rows wait",
            events.ledger_spool_bytes.clone(),
        );
        events.registry = registry;
        events
    }

    /// An attempt at an upstream has ended: `ok`, or the failure's word.
    pub(crate) fn upstream_answered(&self, target: &Target, result: &'static str) {
        self.upstream_requests
            .get_or_create(&UpstreamResultLabels {
                upstream: target.name().to_owned(),
                model: target.model.clone(),
                result,
            })
            .inc();
    }

    /// What an upstream charges for a request: `chat`, `create`, `prewarm` or `ping`, or an endpoint beside chat.
    /// `is_reported` is false for numbers that are our estimate.
    pub(crate) fn upstream_usage(
        &self,
        target: &Target,
        request: &'static str,
        usage: &BilledUsage,
        is_reported: bool,
    ) {
        let writes = &usage.cache_writes;
        let kinds = [
            ("fresh", usage.fresh_tokens().unwrap_or(0)),
            ("cache_read", usage.cache_read_tokens),
            ("cache_write_5m", writes.m5),
            ("cache_write_30m", writes.m30),
            ("cache_write_1h", writes.h1),
            ("cache_write_12h", writes.h12),
            ("cache_write", writes.other),
            ("output", usage.output_tokens),
        ];
        for (kind, tokens) in kinds.into_iter().filter(|(_, tokens)| *tokens > 0) {
            self.upstream_tokens
                .get_or_create(&UpstreamTokenLabels {
                    upstream: target.name().to_owned(),
                    model: target.model.clone(),
                    request,
                    kind,
                    source: if is_reported { "provider" } else { "estimate" },
                })
                .inc_by(tokens);
        }
        if let Some(spent) = target.spent(usage) {
            self.spent(target, &spent);
        }
    }

    /// The collector of OpenTelemetry.
    pub(crate) fn telemetry(&self) -> Option<&Arc<Telemetry>> {
        self.telemetry.as_ref()
    }

    /// A copy of a context has been made at an upstream.
    pub(crate) fn handle_made(&self, target: &Target) {
        self.upstream_handles
            .get_or_create(&upstream_labels(target))
            .inc();
    }

    /// A context has been kept warm.
    pub(crate) fn pinged(&self, target: &Target) {
        self.upstream_pings
            .get_or_create(&upstream_labels(target))
            .inc();
    }

    /// Rows of the ledger have been given to the store.
    pub(crate) fn ledger_written(&self, rows: u64) {
        self.ledger_rows.inc_by(rows);
    }

    /// The store did not take rows of the ledger.
    pub(crate) fn ledger_refused(&self) {
        self.ledger_refusals.inc();
    }

    /// A row of the ledger found no place.
    pub(crate) fn ledger_row_lost(&self) {
        self.ledger_lost.inc();
    }

    /// So many rows of the ledger wait, and take so many bytes on disk.
    pub(crate) fn ledger_waits(&self, rows: u64, bytes: u64) {
        self.ledger_waiting.set(clamp(rows));
        self.ledger_spool_bytes.set(clamp(bytes));
    }

    /// A request has begun.
    pub(crate) fn request_started(&self) {
        self.in_flight.inc();
    }

    /// A request's answer has been written out, or its client has gone.
    pub(crate) fn request_finished(&self, facts: &RequestFacts<'_>) {
        self.in_flight.dec();
        let labels = RequestLabels {
            method: facts.method,
            route: facts.route.to_owned(),
            status: facts.status.into(),
        };
        self.requests.get_or_create(&labels).inc();
        self.traffic
            .finished(facts.surface, facts.status, facts.is_complete);
        self.durations
            .get_or_create(&RouteLabels {
                route: facts.route.to_owned(),
            })
            .observe(facts.elapsed.as_secs_f64());
        let usage = facts.usage.as_ref();
        tracing::info!(
            request.id = facts.request_id,
            request.client_id = facts.client_request_id,
            http.method = facts.method,
            http.route = facts.route,
            http.status = facts.status,
            duration_ms = facts.elapsed.as_millis() as u64,
            trace.id = facts.trace_id.as_deref(),
            project = facts.project,
            key.id = facts.key_id,
            model = facts.model,
            first_token_ms = facts.first_token.map(|elapsed| elapsed.as_millis() as u64),
            tokens.input = usage.map(|usage| usage.input_tokens),
            tokens.cached = usage.map(|usage| usage.cached_input_tokens),
            tokens.output = usage.map(|usage| usage.output_tokens),
            complete = facts.is_complete,
            "request"
        );
    }

    /// A chat, or a request beside chat whose answer tells its usage, has been answered.
    pub(crate) fn chat_finished(&self, model: &str, usage: &Usage, receipt: Option<&Receipt>) {
        let count = |kind, tokens| {
            self.tokens
                .get_or_create(&TokenLabels {
                    model: model.to_owned(),
                    kind,
                })
                .inc_by(tokens);
        };
        count(
            "fresh",
            usage.input_tokens.saturating_sub(usage.cached_input_tokens),
        );
        count("cached", usage.cached_input_tokens);
        count("cache_write", usage.cache_write_tokens);
        count("output", usage.output_tokens);
        if let Some(receipt) = receipt {
            let result = receipt.status.as_str();
            self.context_uses
                .get_or_create(&UseLabels {
                    model: model.to_owned(),
                    result,
                })
                .inc();
            if receipt.status != CacheStatus::Hit {
                tracing::info!(
                    context.id = %receipt.context_id,
                    context.cache = result,
                    reason = receipt.reason.as_deref(),
                    "a context was not a plain hit"
                );
            }
            if receipt.status == CacheStatus::Rebuilt {
                let data = json!({
                    "context_id": receipt.context_id.to_string(),
                    "model": model,
                    "upstream": receipt.upstream,
                    "reason": receipt.reason,
                });
                self.tell(EventKind::ContextLost, data);
            }
        }
    }

    /// A context has been created or forked.
    pub(crate) fn context_created(&self) {
        self.contexts_created.inc();
    }

    /// Expired contexts have been removed.
    pub(crate) fn contexts_expired(&self, count: u64) {
        self.contexts_expired.inc_by(count);
        if count > 0 {
            tracing::debug!(count, "expired contexts removed");
        }
    }

    /// How many contexts there are now.
    pub(crate) fn contexts_living(&self, contexts: u64, tokens: u64) {
        self.contexts_living.set(clamp(contexts));
        self.context_tokens_living.set(clamp(tokens));
    }

    /// A turn has been appended.
    pub(crate) fn turn_committed(&self) {
        self.turns_committed.inc();
    }

    /// A lost answer is given again.
    pub(crate) fn answer_replayed(&self) {
        self.replays.inc();
        tracing::info!("a repeated request gets the answer of the committed turn");
    }

    /// A handler panicked. The payload may carry anything, so it is not logged; the panic hook has the place.
    pub(crate) fn panicked(&self, request_id: &str) {
        self.panics.inc();
        tracing::error!(
            request.id = request_id,
            "a request met a defect and was answered with 500"
        );
    }

    /// The configuration has been read again, or could not be.
    pub(crate) fn reloaded(&self, result: Result<(), &ReloadError>) {
        let word = if result.is_ok() { "ok" } else { "failed" };
        self.reloads
            .get_or_create(&ResultLabels { result: word })
            .inc();
        if let Err(error) = result {
            self.tell(
                EventKind::ReloadFailed,
                json!({"message": error.to_string()}),
            );
        }
    }

    /// An upstream is left alone from now on because it keeps failing, or answers again.
    pub(crate) fn upstream_changed(&self, upstream: &str, is_down: bool) {
        let kind = match is_down {
            true => EventKind::UpstreamDown,
            false => EventKind::UpstreamUp,
        };
        tracing::warn!(upstream, event = kind.as_str(), "an upstream has changed");
        self.tell(kind, json!({"upstream": upstream}));
    }

    /// A request was refused because a budget has no room for it.
    pub(crate) fn budget_refused(&self, is_of_key: bool) {
        self.budget_refusals
            .get_or_create(&BudgetLabels::of(is_of_key))
            .inc();
    }

    /// A request was answered although a budget has passed its soft limit.
    pub(crate) fn budget_warned(&self, is_of_key: bool) {
        self.budget_warnings
            .get_or_create(&BudgetLabels::of(is_of_key))
            .inc();
    }

    /// A budget's limit was met for the first time in its period.
    pub(crate) fn budget_event(&self, is_refusal: bool, data: Value) {
        let kind = match is_refusal {
            true => EventKind::BudgetExceeded,
            false => EventKind::BudgetWarning,
        };
        tracing::warn!(event = kind.as_str(), "a budget has met its limit");
        self.tell(kind, data);
    }

    /// Whether anybody is told of events.
    pub(crate) fn has_webhooks(&self) -> bool {
        self.webhooks.is_some()
    }

    /// A worker of a fleet is left alone from now on, or gets requests again.
    pub(crate) fn worker_changed(&self, upstream: &str, worker: &str, is_down: bool) {
        let state = if is_down { "unhealthy" } else { "healthy" };
        tracing::warn!(upstream, worker, state, "a worker has changed");
    }

    fn tell(&self, kind: EventKind, data: Value) {
        if let Some(webhooks) = &self.webhooks {
            webhooks.tell(kind, data);
        }
    }

    /// Everything in the text format of OpenMetrics.
    pub(crate) fn encode(
        &self,
        models: &Models,
        upstreams: &Upstreams,
        admission: &Admission,
    ) -> String {
        self.engine.update(models);
        // Those that have left the configuration would else stay as they were.
        self.upstreams_resting.clear();
        let targets = models.targets();
        self.traffic.update(&targets, admission);
        self.fleet.update(upstreams);
        for target in targets {
            self.upstreams_resting
                .get_or_create(&upstream_labels(&target))
                .set(i64::from(target.upstream.pool.is_down()));
        }
        let mut metrics = String::new();
        if let Err(error) = text::encode(&mut metrics, &self.registry) {
            tracing::error!(%error, "the metrics can't be written");
            metrics.push_str("# EOF\n");
        }
        metrics
    }
}

fn upstream_labels(target: &Target) -> UpstreamLabels {
    UpstreamLabels {
        upstream: target.name().to_owned(),
        model: target.model.clone(),
    }
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
