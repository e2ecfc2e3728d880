//! Chats: `/chat/completions`, and what all surfaces do with a chat once they have decoded it.
//!
//! The head of the answer waits for the first token: what goes wrong before has a status of its own, and the header
//! `x-context-cache` can say what the cache did. A context whose state was lost is rebuilt in this time.

mod turn;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use holdfast_protocol::chat::{ChatEvent, ChatHead, ChatResponse, Delta};
use holdfast_protocol::dialect::AnswerWriter;
use holdfast_protocol::dialect::openai::{self, wire};
use holdfast_protocol::{ApiError, ChatRequest, Receipt};

pub(super) use self::turn::new_id;
use self::turn::{Begun, RunningTurn, Sent, Step};
use super::body::JsonBody;
use super::observe::{Deadline, Trail};
use super::reply::{self, Failure};
use crate::app::App;
use crate::auth::Principal;
use crate::backend::Answer;
use crate::idempotency::{Delivery, DeliveryGuard};
use crate::routing::Model;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

/// Keeps a whole answer; if that fails, the failure takes the place of the answer's end.
pub(super) type Keep =
    Box<dyn FnOnce(Arc<ChatResponse>) -> BoxFuture<'static, Result<(), ApiError>> + Send>;

/// Everything about a request but what it asks.
pub(super) struct Caller {
    pub(super) app: Arc<App>,
    pub(super) principal: Principal,
    pub(super) headers: HeaderMap,
    pub(super) trail: Trail,
    pub(super) deadline: Deadline,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let extensions = &parts.extensions;
        let (Some(principal), Some(trail), Some(deadline)) =
            (extensions.get(), extensions.get(), extensions.get())
        else {
            tracing::error!("a route lacks a layer that knows who asks");
            return Err(ApiError::internal().into());
        };
        Ok(Caller {
            app: Arc::clone(app),
            principal: Principal::clone(principal),
            headers: parts.headers.clone(),
            trail: Trail::clone(trail),
            deadline: *deadline,
        })
    }
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
pub(super) async fn chat_completions(caller: Caller, body: JsonBody) -> Result<Response, Failure> {
    let request = body.decode(openai::decode_request)?;
    let writer = openai::Writer::new(request.include_usage);
    respond(caller, request, &body.bytes, Box::new(writer)).await
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
    caller: Caller,
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(openai::decode_request)?;
    if request.context_id.is_none() {
        return Err(ApiError::missing("context_id").into());
    }
    let writer = openai::Writer::new(request.include_usage);
    respond(caller, request, &body.bytes, Box::new(writer)).await
}

/// Answers a chat of any surface. `body` is the request as it came: two are the same if their bytes are.
pub(super) async fn respond(
    caller: Caller,
    request: ChatRequest,
    body: &Bytes,
    writer: Box<dyn AnswerWriter>,
) -> Result<Response, Failure> {
    respond_and_keep(caller, request, body, writer, None).await
}

/// The same; `keep` is called with the whole answer before the client sees its end.
pub(super) async fn respond_and_keep(
    caller: Caller,
    request: ChatRequest,
    body: &Bytes,
    writer: Box<dyn AnswerWriter>,
    keep: Option<Keep>,
) -> Result<Response, Failure> {
    Ok(Box::pin(answer(caller, request, body, writer, keep)).await?)
}

async fn answer(
    caller: Caller,
    request: ChatRequest,
    body: &Bytes,
    mut writer: Box<dyn AnswerWriter>,
    keep: Option<Keep>,
) -> Result<Response, ApiError> {
    let is_stream = request.stream;
    let idempotency_key = match request.context_id {
        Some(_) => idempotency_key(&caller.headers)?.map(str::to_owned),
        None => None,
    };
    let sent = Sent {
        idempotency_key,
        body: body.clone(),
    };
    let delivery = Arc::new(Delivery::default());
    // Dropped with this future or with the answer's body, whichever is last: then the delivery is over.
    let guard = Arc::new(DeliveryGuard::new(Arc::clone(&delivery)));

    let begun = turn::begin(caller, request, sent, delivery, keep).await?;
    let mut response = match begun {
        Begun::Repeated(lost) if is_stream => repeated_stream(&lost, writer),
        Begun::Repeated(lost) => whole(&lost, &mut *writer),
        Begun::Running(turn) if is_stream => stream_of(turn, writer),
        Begun::Running(mut turn) => {
            let collected = turn.collect().await?;
            match turn.take_wire() {
                Some(wire) => {
                    let mut response = reply::json(wire);
                    add_receipt(&mut response, collected.receipt.as_ref());
                    response
                }
                None => whole(&collected, &mut *writer),
            }
        }
    };
    response.extensions_mut().insert(guard);
    Ok(response)
}

/// Answers with what a backend says to a request outside of any context.
pub(super) async fn respond_with(
    caller: &Caller,
    model: Arc<Model>,
    head: ChatHead,
    answer: Answer,
    is_stream: bool,
    mut writer: Box<dyn AnswerWriter>,
) -> Result<Response, ApiError> {
    let app = Arc::clone(&caller.app);
    let trail = caller.trail.clone();
    let entry = trail.entry.clone();
    entry.set_answer(&head.id);
    entry.set_stream(is_stream);
    let turn = RunningTurn::new(app, model, head, trail, caller.deadline, answer, entry);
    let mut turn = Box::new(turn);
    if is_stream {
        return Ok(stream_of(turn, writer));
    }
    let collected = turn.collect().await?;
    Ok(whole(&collected, &mut *writer))
}

fn whole(response: &ChatResponse, writer: &mut dyn AnswerWriter) -> Response {
    let mut http = reply::json(writer.whole(response));
    add_receipt(&mut http, response.receipt.as_ref());
    http
}

/// A running turn as a stream. Dropping the body cancels the turn.
fn stream_of(turn: Box<RunningTurn>, mut writer: Box<dyn AnswerWriter>) -> Response {
    let receipt = turn.receipt().cloned();
    let is_wire = turn.is_wire();
    let stream_type = writer.stream_type();
    let head = if is_wire {
        Bytes::new()
    } else {
        writer.begin(turn.head(), &turn.usage_so_far())
    };
    let chunks = stream::unfold(
        (turn, writer, head, false),
        move |(mut turn, mut writer, head, is_over)| async move {
            if !head.is_empty() {
                return Some((
                    Ok::<_, Infallible>(head),
                    (turn, writer, Bytes::new(), is_over),
                ));
            }
            if is_over {
                return None;
            }
            loop {
                let (bytes, is_over) = match turn.next().await {
                    Step::Event(ChatEvent::Wire(bytes)) => (bytes, false),
                    Step::Event(_) if is_wire => (Bytes::new(), false),
                    Step::Event(event) => (writer.event(&event), false),
                    // An upstream that is quiet keeps its own clients' connections open.
                    Step::Quiet if is_wire => (Bytes::new(), false),
                    Step::Quiet => (writer.keep_alive(), false),
                    Step::Failed(error) => (writer.error(&error), true),
                    Step::Over if is_wire => return None,
                    Step::Over => (writer.end(), true),
                };
                if !bytes.is_empty() {
                    return Some((Ok(bytes), (turn, writer, Bytes::new(), is_over)));
                }
                if is_over {
                    return None;
                }
            }
        },
    );
    event_stream(Body::from_stream(chunks), stream_type, receipt.as_ref())
}

/// An answer that was given before, as a stream.
fn repeated_stream(response: &ChatResponse, mut writer: Box<dyn AnswerWriter>) -> Response {
    let head = ChatHead {
        id: response.id.clone(),
        created: response.created,
        model: response.model.clone(),
    };
    let mut bytes = writer.begin(&head, &response.usage).to_vec();
    for event in events_of(response) {
        bytes.extend_from_slice(&writer.event(&event));
    }
    bytes.extend_from_slice(&writer.end());
    event_stream(
        Body::from(bytes),
        writer.stream_type(),
        response.receipt.as_ref(),
    )
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
        if let Some(signature) = &choice.message.reasoning_signature {
            delta(Delta::ReasoningSignature {
                signature: signature.clone(),
            });
        }
        let text = choice.message.joined_text();
        let logprobs = choice.logprobs.clone().unwrap_or_default();
        if !text.is_empty() || !logprobs.is_empty() {
            delta(Delta::Text { text, logprobs });
        }
        if let Some(text) = &choice.message.refusal {
            delta(Delta::Refusal { text: text.clone() });
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
        if let Some(text) = &choice.stop_sequence {
            delta(Delta::StopSequence { text: text.clone() });
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

fn event_stream(body: Body, stream_type: &'static str, receipt: Option<&Receipt>) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(stream_type));
    mark_stream(headers);
    add_receipt(&mut response, receipt);
    response
}

/// Proxies that keep answers, or collect them before they pass them on, would undo a stream.
pub(super) fn mark_stream(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
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
