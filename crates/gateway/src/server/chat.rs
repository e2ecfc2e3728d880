//! `/chat/completions`, with a context and without, streamed and not.
//!
//! The head of the answer waits for the first token: what goes wrong before has a status of its own, and the header
//! `x-context-cache` can say what the cache did. A context whose state was lost is rebuilt in this time.

mod turn;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use holdfast_protocol::chat::{ChatEvent, ChatHead, ChatResponse, Delta};
use holdfast_protocol::dialect::openai::{self, StreamEncoder, wire};
use holdfast_protocol::sse;
use holdfast_protocol::{ApiError, ChatRequest, Receipt};

use self::turn::{Begun, RunningTurn, Step};
use super::body::JsonBody;
use super::observe::{Deadline, Trail};
use super::reply::{self, Failure};
use crate::app::App;
use crate::auth::Principal;
use crate::idempotency::{Delivery, DeliveryGuard, Fingerprint};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

/// Everything about a request but what it asks.
struct Caller {
    app: Arc<App>,
    principal: Principal,
    trail: Trail,
    deadline: Deadline,
}

/// Chat, with a context or without
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "chat",
    request_body = wire::ChatCompletionRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "In a session: the same key within 30 seconds gets the same answer and no second turn")),
    responses(
        (status = 200, description = "The answer; a stream of `chat.completion.chunk` events when `stream` is set", body = wire::ChatCompletion, headers(("x-context-cache" = String, description = "What the context's cache did: `hit`, `rebuilt`, `miss` or `degraded`, with `reason` and `tier`"))),
        (status = 400, description = "A field is missing or wrong, or the prompt does not fit", body = wire::ErrorBody),
        (status = 403, description = "Another request holds the session", body = wire::ErrorBody),
        (status = 404, description = "There is no such model or context", body = wire::ErrorBody),
        (status = 429, description = "The engine's queue is full", body = wire::ErrorBody),
    )
)]
pub(super) async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Extension(deadline): Extension<Deadline>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(openai::decode_request)?;
    let caller = Caller {
        app,
        principal,
        trail,
        deadline,
    };
    Ok(Box::pin(answer(caller, request, &headers, &body.bytes)).await?)
}

/// Chat with a context
///
/// The same, but `context_id` is required.
#[utoipa::path(
    post,
    path = "/v1/context/chat/completions",
    tag = "chat",
    request_body = wire::ChatCompletionRequest,
    responses(
        (status = 200, description = "The answer", body = wire::ChatCompletion),
        (status = 400, description = "A field is missing or wrong, or the prompt does not fit", body = wire::ErrorBody),
        (status = 404, description = "There is no such context", body = wire::ErrorBody),
    )
)]
pub(super) async fn context_chat_completions(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Extension(deadline): Extension<Deadline>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(openai::decode_request)?;
    if request.context_id.is_none() {
        return Err(ApiError::missing("context_id").into());
    }
    let caller = Caller {
        app,
        principal,
        trail,
        deadline,
    };
    Ok(Box::pin(answer(caller, request, &headers, &body.bytes)).await?)
}

async fn answer(
    caller: Caller,
    request: ChatRequest,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, ApiError> {
    let is_stream = request.stream;
    let include_usage = request.include_usage;
    let fingerprint = match &request.context_id {
        Some(id) => Some(Fingerprint::new(id, idempotency_key(headers)?, body)),
        None => None,
    };
    let delivery = Arc::new(Delivery::default());
    // Dropped with this future or with the answer's body, whichever is last: then the delivery is over.
    let guard = Arc::new(DeliveryGuard::new(Arc::clone(&delivery)));

    let begun = turn::begin(caller, request, fingerprint, delivery).await?;
    let mut response = match begun {
        Begun::Repeated(lost) if is_stream => repeated_stream(&lost, include_usage),
        Begun::Repeated(lost) => whole(&lost),
        Begun::Running(turn) if is_stream => stream_of(turn, include_usage),
        Begun::Running(mut turn) => {
            let response = turn.collect().await?;
            whole(&response)
        }
    };
    response.extensions_mut().insert(guard);
    Ok(response)
}

fn whole(response: &ChatResponse) -> Response {
    let mut http = reply::json(openai::encode_response(response));
    add_receipt(&mut http, response.receipt.as_ref());
    http
}

/// A running turn as server-sent events. Dropping the body cancels the turn.
fn stream_of(turn: Box<RunningTurn>, include_usage: bool) -> Response {
    let encoder = StreamEncoder::new(turn.head().clone(), include_usage);
    let receipt = turn.receipt().cloned();
    let chunks = stream::unfold(
        (turn, encoder, false),
        |(mut turn, mut encoder, is_over)| async move {
            if is_over {
                return None;
            }
            loop {
                let (bytes, is_over) = match turn.next().await {
                    Step::Event(event) => (encoder.event(&event), false),
                    Step::Quiet => (sse::Encoder::comment("still here"), false),
                    Step::Failed(error) => (encoder.error(&error), true),
                    Step::Over => (encoder.end(), true),
                };
                if !bytes.is_empty() {
                    return Some((Ok::<_, Infallible>(bytes), (turn, encoder, is_over)));
                }
            }
        },
    );
    event_stream(Body::from_stream(chunks), receipt.as_ref())
}

/// An answer that was given before, as a stream.
fn repeated_stream(response: &ChatResponse, include_usage: bool) -> Response {
    let head = ChatHead {
        id: response.id.clone(),
        created: response.created,
        model: response.model.clone(),
    };
    let mut encoder = StreamEncoder::new(head, include_usage);
    let mut bytes = Vec::new();
    for event in events_of(response) {
        bytes.extend_from_slice(&encoder.event(&event));
    }
    bytes.extend_from_slice(&encoder.end());
    event_stream(Body::from(bytes), response.receipt.as_ref())
}

fn events_of(response: &ChatResponse) -> Vec<ChatEvent> {
    let mut events = Vec::new();
    for choice in &response.choices {
        let mut delta = |delta| {
            events.push(ChatEvent::Delta {
                choice: choice.index,
                delta,
            })
        };
        if let Some(text) = &choice.message.reasoning {
            delta(Delta::Reasoning { text: text.clone() });
        }
        let text = choice.message.joined_text();
        let logprobs = choice.logprobs.clone().unwrap_or_default();
        if !text.is_empty() || !logprobs.is_empty() {
            delta(Delta::Text { text, logprobs });
        }
        for (index, call) in (0..).zip(&choice.message.tool_calls) {
            delta(Delta::ToolCallStart {
                index,
                id: call.id.clone(),
                name: call.name.clone(),
            });
            delta(Delta::ToolCallArguments {
                index,
                fragment: call.arguments.clone(),
            });
        }
        events.push(ChatEvent::Finish {
            choice: choice.index,
            reason: choice.finish_reason,
        });
    }
    events.push(ChatEvent::Done {
        usage: response.usage,
        receipt: response.receipt.clone(),
    });
    events
}

fn event_stream(body: Body, receipt: Option<&Receipt>) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that collect answers before they pass them on would undo the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    add_receipt(&mut response, receipt);
    response
}

fn add_receipt(response: &mut Response, receipt: Option<&Receipt>) {
    if let Some(value) =
        receipt.and_then(|receipt| HeaderValue::try_from(receipt.header_value()).ok())
    {
        response.headers_mut().insert("x-context-cache", value);
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers
        .get(IDEMPOTENCY_KEY)
        .filter(|value| !value.is_empty())
    else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .filter(|key| key.len() <= IDEMPOTENCY_KEY_BYTES_MAX)
        .map(Some)
        .ok_or_else(|| {
            ApiError::invalid(
                "Idempotency-Key",
                format!("must be at most {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"),
            )
        })
}
