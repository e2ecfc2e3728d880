//! Traces and metrics for a collector of OpenTelemetry, over OTLP. Off unless the configuration names one.
//!
//! A request is a span, a chat in it another one, by the semantic conventions for HTTP and for generative AI. Neither has
//! text of a client: names of models and upstreams are the configuration's, everything else is a number.

mod export;
mod operation;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::metrics::{Histogram, MeterProvider};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};

use crate::keys::Secret;

pub(crate) use operation::Operation;

/// The header that says which trace a request belongs to.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// Version, two ids and flags, with dashes between them.
const TRACEPARENT_BYTES_MIN: usize = 55;

/// How long the last spans and numbers may take to get out at the end.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Bounds of durations, seconds: those that the semantic conventions advise for operations of generative AI.
const DURATION_BOUNDS_SECONDS: [f64; 14] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];

/// Bounds of token counts, from the same place.
const TOKEN_BOUNDS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

tokio::task_local! {
    /// The trace of the request that this task works for.
    static CURRENT: Option<Trace>;
}

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryOptions {
    /// Where the collector listens, without `/v1/traces`.
    pub endpoint: String,
    /// Sent with everything.
    pub headers: Vec<(String, Secret)>,
    /// Share of traces that are kept, 0 to 1; a caller's own decision wins.
    pub sample_ratio: f64,
    /// Between two exports of the metrics.
    pub metrics_interval: Duration,
    /// What the collector calls this service.
    pub service_name: String,
}

/// What sends spans and numbers to the collector.
pub struct Telemetry {
    tracer: SdkTracer,
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
    request_duration: Histogram<f64>,
    operation_duration: Histogram<f64>,
    first_token: Histogram<f64>,
    token_usage: Histogram<u64>,
}

/// The place of a request in its trace.
#[derive(Clone)]
pub(crate) struct Trace {
    telemetry: Arc<Telemetry>,
    context: SpanContext,
}

/// A request's span.
pub(crate) struct RequestSpan {
    trace: Trace,
    span: Span,
    method: &'static str,
    route: String,
    started: Instant,
}

impl Telemetry {
    /// Begins to send. Whether the collector is there shows only later, and is in the log.
    ///
    /// # Errors
    /// The endpoint can't be used.
    pub fn start(options: &TelemetryOptions) -> Result<Arc<Self>, String> {
        let exporters = export::Exporters::new(options)?;
        let resource = Resource::builder()
            .with_service_name(options.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let ratio = Sampler::TraceIdRatioBased(options.sample_ratio);
        let traces = SdkTracerProvider::builder()
            .with_batch_exporter(exporters.spans)
            .with_sampler(Sampler::ParentBased(Box::new(ratio)))
            .with_resource(resource.clone())
            .build();
        let reader = PeriodicReader::builder(exporters.metrics)
            .with_interval(options.metrics_interval)
            .build();
        let metrics = SdkMeterProvider::builder()
            .with_reader(reader)
            .with_resource(resource)
            .build();
        let meter = metrics.meter("holdfast");
        let seconds = |name: &'static str, description: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(DURATION_BOUNDS_SECONDS.to_vec())
                .build()
        };
        Ok(Arc::new(Telemetry {
            tracer: traces.tracer("holdfast"),
            request_duration: seconds(
                "http.server.request.duration",
                "Time from a request's head to the end of its answer",
            ),
            operation_duration: seconds(
                "gen_ai.client.operation.duration",
                "Time from a chat's admission to the end of its answer",
            ),
            first_token: seconds(
                "gen_ai.client.operation.time_to_first_chunk",
                "Time from a chat's admission to the beginning of its answer",
            ),
            token_usage: meter
                .u64_histogram("gen_ai.client.token.usage")
                .with_unit("{token}")
                .with_description("Tokens of a chat")
                .with_boundaries(TOKEN_BOUNDS.to_vec())
                .build(),
            traces,
            metrics,
        }))
    }

    /// Sends what is left. Blocks for some seconds at most.
    pub fn stop(&self) {
        if let Err(error) = self.traces.shutdown_with_timeout(STOP_WAIT) {
            tracing::warn!(%error, "the last spans may be lost");
        }
        if let Err(error) = self.metrics.shutdown_with_timeout(STOP_WAIT) {
            tracing::warn!(%error, "the last numbers may be lost");
        }
    }

    /// Begins a request's span, in the trace of its caller where that says so.
    pub(crate) fn request(
        self: &Arc<Self>,
        traceparent: Option<&str>,
        method: &'static str,
        route: &str,
    ) -> RequestSpan {
        let span = self
            .tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.route", route.to_owned()),
            ])
            .start_with_context(&self.tracer, &caller(traceparent));
        RequestSpan {
            trace: Trace {
                telemetry: Arc::clone(self),
                context: span.span_context().clone(),
            },
            span,
            method,
            route: route.to_owned(),
            started: Instant::now(),
        }
    }
}

/// The caller's place in its trace. The propagator refuses what is malformed, but for flags with a digit too few.
fn caller(traceparent: Option<&str>) -> Context {
    let Some(traceparent) = traceparent.filter(|text| text.len() >= TRACEPARENT_BYTES_MIN) else {
        return Context::new();
    };
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trace").field(&self.id()).finish()
    }
}

impl Trace {
    /// The id that all spans of the trace have.
    pub(crate) fn id(&self) -> String {
        self.context.trace_id().to_string()
    }

    /// The value of the header [`TRACEPARENT`].
    fn traceparent(&self) -> String {
        format!(
            "00-{}-{}-{:02x}",
            self.context.trace_id(),
            self.context.span_id(),
            self.context.trace_flags().to_u8()
        )
    }

    /// What children of the span begin with.
    fn parent(&self) -> Context {
        Context::new().with_remote_span_context(self.context.clone())
    }
}

impl RequestSpan {
    /// Its place, for what belongs to it.
    pub(crate) fn trace(&self) -> Trace {
        self.trace.clone()
    }

    /// The request has been answered; 499: its client left.
    pub(crate) fn end(mut self, status: u16) {
        let status_attribute = KeyValue::new("http.response.status_code", i64::from(status));
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("http.route", self.route),
            status_attribute.clone(),
        ];
        self.span.set_attribute(status_attribute);
        if status >= 500 {
            let error = KeyValue::new("error.type", status.to_string());
            self.span.set_attribute(error.clone());
            self.span.set_status(Status::error(""));
            attributes.push(error);
        }
        self.trace
            .telemetry
            .request_duration
            .record(self.started.elapsed().as_secs_f64(), &attributes);
        self.span.end();
    }
}

/// Does `work` for a request with this place in a trace.
pub(crate) async fn within<T>(trace: Option<Trace>, work: impl Future<Output = T>) -> T {
    CURRENT.scope(trace, work).await
}

/// The header [`TRACEPARENT`] for requests that are made for the one which this task works for.
pub(crate) fn traceparent() -> Option<String> {
    let trace = CURRENT.try_with(Option::clone).ok().flatten();
    trace.map(|trace| trace.traceparent())
}

#[cfg(test)]
mod tests;
