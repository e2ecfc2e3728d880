//! What every request passes through: its id, its time limit, the bound on requests in flight, the log line and the
//! counters at its end, which for a stream is the end of the stream.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use holdfast_protocol::{ApiError, Usage};
use hyper::body::{Frame, SizeHint};
use rand::RngExt;
use tokio::sync::OwnedSemaphorePermit;

use super::kinds::{kind_of, surface_of};
use super::surface::Surface;
use super::{rates, reply};
use crate::admission::{Admitted, Shed};
use crate::app::{App, Limits};
use crate::auth::Principal;
use crate::events::{Events, RequestFacts};
use crate::idempotency::DeliveryGuard;
use crate::ledger::{self, Entry};
use crate::limits::{Counted, Quotas};
use crate::telemetry::{self, RequestSpan, Trace};

const REQUEST_ID: &str = "x-request-id";
/// For each budget that has passed its soft limit.
const BUDGET_WARNING: &str = "x-holdfast-budget-warning";
/// Where Anthropic's SDKs look for it.
const ANTHROPIC_REQUEST_ID: &str = "request-id";
const CLIENT_REQUEST_ID: &str = "x-client-request-id";
const REQUEST_ID_BYTES_MAX: usize = 128;

/// When to try again if too many requests are in flight.
pub(super) const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The status of a request whose client left before there was an answer.
const CLIENT_GONE: u16 = 499;

/// What handlers add to the log line and to the ledger.
#[derive(Debug, Clone)]
pub(super) struct Trail {
    request_id: Arc<str>,
    started: Instant,
    trace: Option<Trace>,
    /// The request's row in the ledger.
    pub(super) entry: Entry,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    project: Option<String>,
    key_id: Option<String>,
    model: Option<String>,
    usage: Option<Usage>,
    first_token: Option<Duration>,
    /// What the request is counted as; not kept by this, for it ends with the answer.
    counted: Option<Weak<Counted>>,
    quotas: Quotas,
}

/// When a request must have been answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(pub(super) tokio::time::Instant);

impl Trail {
    /// What the client is told its request is called.
    pub(super) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Notes who asks.
    pub(super) fn set_principal(&self, principal: &Principal) {
        self.entry.set_principal(principal);
        let mut notes = self.notes();
        notes.project = Some(principal.project.clone());
        notes.key_id = Some(principal.key_id.clone());
    }

    /// Notes that the request has been counted.
    pub(super) fn set_counted(&self, counted: &Arc<Counted>) {
        self.notes().counted = Some(Arc::downgrade(counted));
    }

    /// What the request is counted as, if it is, and its answer has not ended.
    pub(super) fn counted(&self) -> Option<Arc<Counted>> {
        self.notes().counted.as_ref()?.upgrade()
    }

    /// Notes what is left of its limits.
    pub(super) fn set_quotas(&self, quotas: Quotas) {
        self.notes().quotas = quotas;
    }

    /// Notes that the answer begins now; returns the time since the request's head.
    pub(super) fn answer_begins(&self) -> Duration {
        let elapsed = self.elapsed();
        self.notes().first_token = Some(elapsed);
        elapsed
    }

    /// Notes what a chat has used.
    pub(super) fn set_usage(&self, usage: Usage) {
        self.notes().usage = Some(usage);
    }

    /// The time since the request's head.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The request's place in its trace, where traces are kept.
    pub(super) fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// Notes which configured model answers.
    pub(super) fn set_model(&self, model: &str) {
        self.entry.set_model(model);
        self.notes().model = Some(model.to_owned());
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outermost layer.
pub(super) async fn observe(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let surface = Surface::of(request.uri(), request.headers());
    let client_id = sane_header(request.headers(), CLIENT_REQUEST_ID);
    let request_id = sane_header(request.headers(), REQUEST_ID).unwrap_or_else(new_request_id);
    let method = method_label(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let span = span(&app, request.headers(), method, &route);
    let trace = span.as_ref().map(RequestSpan::trace);
    let request_id_text = request_id.to_str().unwrap_or_default();
    let trail = Trail {
        request_id: request_id_text.into(),
        started: Instant::now(),
        trace: trace.clone(),
        entry: entry(&app, &request, &route, request_id_text),
        notes: Arc::default(),
    };
    let mut record = Record {
        events: Arc::clone(&app.events),
        trail: trail.clone(),
        span,
        client_id: client_id.clone(),
        method,
        surface: surface_label(surface, &route),
        route,
        status: CLIENT_GONE,
        is_complete: false,
    };
    app.events.request_started();

    let time_limit = Duration::from_secs(app.limits.request_seconds_max);
    let deadline = tokio::time::Instant::now() + time_limit;
    request.extensions_mut().insert(trail);
    request.extensions_mut().insert(Deadline(deadline));
    let is_too_much = exceeds(&app.limits, request.headers(), request.uri());
    let work = async {
        match is_too_much {
            true => reply::error(&ApiError::headers_too_large()),
            false => next.run(request).await,
        }
    };
    let work = telemetry::within(trace, work);
    let response = match tokio::time::timeout_at(deadline, work).await {
        Ok(response) => response,
        Err(_) => reply::error(&ApiError::timeout(
            "The request took longer than the server allows.",
        )),
    };

    let status = response.status().as_u16();
    match response.extensions().get::<ApiError>() {
        Some(error) => record.trail.entry.fail(error),
        None if status >= 400 => record.trail.entry.fail_with("error", status),
        // How it ends is known when its body has.
        None => {}
    }
    let mut response = reply::in_dialect(surface, response);
    record.status = response.status().as_u16();
    let quotas = record.trail.notes().quotas;
    let headers = response.headers_mut();
    rates::add_headers(surface, headers, &quotas, app.now());
    if surface == Surface::Anthropic {
        headers.insert(ANTHROPIC_REQUEST_ID, request_id.clone());
    }
    for warning in record.trail.entry.warnings() {
        if let Ok(warning) = HeaderValue::from_str(&warning) {
            headers.append(BUDGET_WARNING, warning);
        }
    }
    headers.insert(REQUEST_ID, request_id);
    if let Some(client_id) = client_id {
        headers.insert(CLIENT_REQUEST_ID, client_id);
    }
    let permit = response.extensions_mut().remove();
    let admitted = response.extensions_mut().remove();
    let counted = response.extensions_mut().remove();
    let delivery = response.extensions_mut().remove();
    response.map(|body| {
        Body::new(ObservedBody::new(
            body,
            record,
            (permit, admitted, counted),
            delivery,
        ))
    })
}

/// The row of a request that has one.
fn entry(app: &App, request: &Request, route: &str, request_id: &str) -> Entry {
    let Some(kind) = kind_of(request.method(), route, request.uri().path()) else {
        return Entry::none();
    };
    app.ledger.begin(ledger::Request {
        kind,
        surface: surface_of(request.uri(), request.headers(), route),
        endpoint: route.to_owned(),
        id: request_id.to_owned(),
    })
}

/// Refuses what is beyond the bound at once; a permit lasts until the answer's body ends.
pub(super) async fn limit_in_flight(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(permit) = Arc::clone(&app.in_flight).try_acquire_owned() else {
        app.events.shed(Shed::Full.as_str());
        return reply::error(&ApiError::overloaded(BUSY_RETRY_AFTER));
    };
    let mut response = next.run(request).await;
    response.extensions_mut().insert(Arc::new(permit));
    response
}

/// Turns a panic in a handler into an answer.
pub(super) async fn catch_panics(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let trail = request.extensions().get::<Trail>().cloned();
    AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            app.events
                .panicked(trail.as_ref().map_or("", |trail| &trail.request_id));
            reply::error(&ApiError::internal())
        })
}

/// The log line to be. It is written when this is dropped, whatever ended the request.
struct Record {
    events: Arc<Events>,
    trail: Trail,
    span: Option<RequestSpan>,
    client_id: Option<HeaderValue>,
    method: &'static str,
    surface: &'static str,
    route: String,
    status: u16,
    is_complete: bool,
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            span.end(self.status);
        }
        self.trail.entry.cancel();
        let notes = self.trail.notes();
        self.events.request_finished(&RequestFacts {
            method: self.method,
            route: &self.route,
            surface: self.surface,
            status: self.status,
            elapsed: self.trail.elapsed(),
            request_id: &self.trail.request_id,
            client_request_id: self.client_id.as_ref().and_then(|id| id.to_str().ok()),
            trace_id: self.trail.trace().map(Trace::id),
            project: notes.project.as_deref(),
            key_id: notes.key_id.as_deref(),
            model: notes.model.as_deref(),
            usage: notes.usage,
            first_token: notes.first_token,
            is_complete: self.is_complete,
        });
    }
}

/// What a request takes until its answer has been written out.
type Places = (
    Option<Arc<OwnedSemaphorePermit>>,
    Option<Arc<Admitted>>,
    Option<Arc<Counted>>,
);

/// A body that knows when it has been written out.
struct ObservedBody {
    inner: Body,
    record: Record,
    places: Places,
    delivery: Option<Arc<DeliveryGuard>>,
}

impl ObservedBody {
    fn new(
        inner: Body,
        record: Record,
        places: Places,
        delivery: Option<Arc<DeliveryGuard>>,
    ) -> Self {
        let mut body = ObservedBody {
            inner,
            record,
            places,
            delivery,
        };
        if body.inner.is_end_stream() {
            body.ended();
        }
        body
    }

    fn ended(&mut self) {
        self.record.is_complete = true;
        // Answers of models have their rows already, with what is known at their ends.
        self.record.trail.entry.complete();
        // Whoever has the end may send the next request at once.
        self.places = (None, None, None);
        if let Some(delivery) = &self.delivery {
            delivery.written();
        }
    }
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || (polled.is_ready() && self.inner.is_end_stream())
        {
            self.ended();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Whether a request's head has more than the limits allow. The reader of the connection stops at twice as much by itself,
/// and knows no dialect.
fn exceeds(limits: &Limits, headers: &HeaderMap, uri: &Uri) -> bool {
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let bytes: usize = headers.iter().map(size).sum();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    headers.len() > limits.header_fields_max || bytes + path > limits.header_bytes_max
}

/// Routes for monitoring, which would be most of all spans and say nothing.
const UNTRACED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

fn span(app: &App, headers: &HeaderMap, method: &'static str, route: &str) -> Option<RequestSpan> {
    let telemetry = app.events.telemetry()?;
    if UNTRACED.contains(&route) {
        return None;
    }
    let traceparent = headers.get(telemetry::TRACEPARENT);
    let traceparent = traceparent.and_then(|value| value.to_str().ok());
    Some(telemetry.request(traceparent, method, route))
}

/// A bounded label for what a request came by.
fn surface_label(surface: Surface, route: &str) -> &'static str {
    let is_below = |prefix: &str| route.starts_with(prefix);
    match surface {
        Surface::OpenAi if is_below("/v1/") => "openai",
        Surface::OpenAi if is_below("/api/v3/") => "ark",
        Surface::OpenAi if is_below("/admin/") => "admin",
        Surface::OpenAi if route == "unmatched" => "unmatched",
        Surface::OpenAi => "operations",
        Surface::Anthropic => "anthropic",
        Surface::Google => "google",
    }
}

/// A header's value if it may be logged and sent back.
fn sane_header(headers: &HeaderMap, name: &str) -> Option<HeaderValue> {
    let value = headers.get(name)?;
    let is_sane = !value.is_empty()
        && value.len() <= REQUEST_ID_BYTES_MAX
        && value.as_bytes().iter().all(u8::is_ascii_graphic);
    is_sane.then(|| value.clone())
}

fn new_request_id() -> HeaderValue {
    let random: u128 = rand::rng().random();
    HeaderValue::try_from(format!("req-{random:032x}"))
        .expect("hexadecimal digits are fit for a header")
}

/// Methods are a bounded label only if unknown ones are one.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
