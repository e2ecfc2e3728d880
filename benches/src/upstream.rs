//! An upstream that answers at once with the same bytes every time, so that what is measured is the way there and back.
//! It speaks as much of OpenAI's, Anthropic's and Gemini's formats as the gateway needs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::serve::ListenerExt;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::Result;

/// The words of each answer, one event each.
pub const WORDS: [&str; 16] = [
    "The", " seventh", " note", " says", " that", " the", " harbour", " master", " counted",
    " three", " copper", " kettles", " before", " the", " snow", " melted.",
];

/// In the usage of each answer: tokens of the prompt.
const INPUT_TOKENS: u64 = 100_100;

/// And how many of them were cached.
const CACHED_TOKENS: u64 = 100_000;

/// The name of every Gemini copy.
const HANDLE: &str = "cachedContents/benchmark";

/// Where `"stream":true` is looked for: the end of a body, because a search of all of it would be part of what is
/// measured.
const TAIL_BYTES: usize = 512;

/// A running upstream on a thread of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    desk: Arc<Desk>,
    _stop: oneshot::Sender<()>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Of the URL.
    pub path: String,
    /// All of it.
    pub body: Vec<u8>,
}

#[derive(Debug)]
struct Desk {
    answers: Answers,
    requests: AtomicU64,
    body_bytes: AtomicU64,
    delay_microseconds: AtomicU64,
    /// `None`: nobody wants to know.
    recorded: Mutex<Option<Vec<Recorded>>>,
}

/// Everything that is ever answered.
#[derive(Debug)]
struct Answers {
    openai: Bytes,
    openai_events: Vec<Bytes>,
    anthropic: Bytes,
    anthropic_events: Vec<Bytes>,
    gemini_events: Vec<Bytes>,
    gemini_copy: Bytes,
}

impl Upstream {
    /// Starts one on a free port of this machine.
    ///
    /// # Errors
    /// There is none.
    pub fn start() -> Result<Upstream> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let desk = Arc::new(Desk {
            answers: Answers::new(),
            requests: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
            delay_microseconds: AtomicU64::new(0),
            recorded: Mutex::new(None),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&desk));
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Apart from the clients, so that these never find its answers on their own thread sooner than over a proxy.
        std::thread::Builder::new()
            .name("upstream".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                        return;
                    };
                    let listener = listener.tap_io(|connection| {
                        // Without it some events wait for the next.
                        let _ = connection.set_nodelay(true);
                    });
                    tokio::select! {
                        _ = axum::serve(listener, router) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Upstream {
            address,
            desk,
            _stop: stop,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests and bytes of their bodies, since the last time it was asked.
    pub fn take_counts(&self) -> (u64, u64) {
        (
            self.desk.requests.swap(0, Ordering::Relaxed),
            self.desk.body_bytes.swap(0, Ordering::Relaxed),
        )
    }

    /// From now on it thinks for so long before it answers. For one client at a time: the others would wait.
    pub fn set_delay(&self, delay: Duration) {
        let microseconds = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.desk
            .delay_microseconds
            .store(microseconds, Ordering::Relaxed);
    }

    /// Keeps requests from now on, for [`Upstream::take_recorded`].
    pub fn record(&self) {
        *self.desk.recorded() = Some(Vec::new());
    }

    /// What has come since [`Upstream::record`]; nothing more is kept.
    pub fn take_recorded(&self) -> Vec<Recorded> {
        self.desk.recorded().take().unwrap_or_default()
    }
}

impl Desk {
    fn recorded(&self) -> std::sync::MutexGuard<'_, Option<Vec<Recorded>>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let keeps = desk.recorded().is_some();
    let mut kept = Vec::new();
    let mut tail = Vec::with_capacity(2 * TAIL_BYTES);
    let mut bytes = 0;
    let mut body = request.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        let Ok(chunk) = chunk else {
            return empty(StatusCode::BAD_REQUEST);
        };
        bytes += chunk.len() as u64;
        if keeps {
            kept.extend_from_slice(&chunk);
        }
        tail.extend_from_slice(&chunk[chunk.len().saturating_sub(TAIL_BYTES)..]);
        tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
    }
    desk.requests.fetch_add(1, Ordering::Relaxed);
    desk.body_bytes.fetch_add(bytes, Ordering::Relaxed);
    if keeps && let Some(recorded) = desk.recorded().as_mut() {
        recorded.push(Recorded {
            path: path.clone(),
            body: kept,
        });
    }
    let delay = desk.delay_microseconds.load(Ordering::Relaxed);
    if delay > 0 {
        // The thread and not the task: a timer of tokio's would be right to the millisecond only.
        std::thread::sleep(Duration::from_micros(delay));
    }
    let is_stream = contains(&tail, b"\"stream\":true");
    let answers = &desk.answers;
    match path.as_str() {
        path if path.ends_with("/chat/completions") && is_stream => {
            events(answers.openai_events.clone())
        }
        path if path.ends_with("/chat/completions") => whole(&answers.openai),
        path if path.ends_with("/v1/messages") && is_stream => {
            events(answers.anthropic_events.clone())
        }
        path if path.ends_with("/v1/messages") => whole(&answers.anthropic),
        path if path.ends_with(":streamGenerateContent") => events(answers.gemini_events.clone()),
        path if path.contains("/cachedContents") && method != Method::DELETE => {
            whole(&answers.gemini_copy)
        }
        path if path.contains("/cachedContents") => whole(&Bytes::from_static(b"{}")),
        _ => empty(StatusCode::NOT_FOUND),
    }
}

fn whole(json: &Bytes) -> Response {
    typed(Body::from(json.clone()), "application/json")
}

fn events(events: Vec<Bytes>) -> Response {
    typed(Body::from_stream(one_by_one(events)), "text/event-stream")
}

/// Each event in a packet of its own, as they come from a model that has just made them.
fn one_by_one(events: Vec<Bytes>) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    stream::iter(events).then(|event| async {
        tokio::task::yield_now().await;
        Ok(event)
    })
}

fn typed(body: Body, media_type: &'static str) -> Response {
    let mut response = Response::new(body);
    let value = axum::http::HeaderValue::from_static(media_type);
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

impl Answers {
    fn new() -> Self {
        let text = WORDS.concat();
        let openai_usage = json!({
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": WORDS.len(),
            "total_tokens": INPUT_TOKENS + WORDS.len() as u64,
            "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        });
        let openai = json!({
            "id": "chatcmpl-benchmark", "object": "chat.completion", "created": 1_767_225_600, "model": "benchmark",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": openai_usage,
        });
        let anthropic_usage = json!({
            "input_tokens": INPUT_TOKENS - CACHED_TOKENS,
            "cache_read_input_tokens": CACHED_TOKENS,
            "cache_creation_input_tokens": 0,
            "output_tokens": WORDS.len(),
        });
        let anthropic = json!({
            "id": "msg_benchmark", "type": "message", "role": "assistant", "model": "benchmark",
            "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": null,
            "usage": anthropic_usage,
        });
        let gemini_copy = json!({
            "name": HANDLE, "model": "models/benchmark", "expireTime": "2100-01-01T00:00:00Z",
            "usageMetadata": {"totalTokenCount": CACHED_TOKENS},
        });
        Answers {
            openai: bytes(&openai),
            openai_events: openai_events(&openai_usage),
            anthropic: bytes(&anthropic),
            anthropic_events: anthropic_events(&anthropic_usage),
            gemini_events: gemini_events(),
            gemini_copy: bytes(&gemini_copy),
        }
    }
}

fn openai_events(usage: &Value) -> Vec<Bytes> {
    let chunk = |choices: Value, usage: &Value| {
        data(&json!({
            "id": "chatcmpl-benchmark", "object": "chat.completion.chunk", "created": 1_767_225_600,
            "model": "benchmark", "choices": choices, "usage": usage,
        }))
    };
    let choice = |delta: Value, reason: Value| {
        chunk(
            json!([{"index": 0, "delta": delta, "finish_reason": reason}]),
            &Value::Null,
        )
    };
    let mut events = vec![choice(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    )];
    events.extend(
        WORDS
            .iter()
            .map(|word| choice(json!({"content": word}), Value::Null)),
    );
    events.push(choice(json!({}), json!("stop")));
    events.push(chunk(json!([]), usage));
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

fn anthropic_events(usage: &Value) -> Vec<Bytes> {
    let event = |data: Value| {
        let name = data["type"].as_str().unwrap_or_default();
        Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
    };
    let mut events = vec![
        event(json!({"type": "message_start", "message": {
            "id": "msg_benchmark", "type": "message", "role": "assistant", "model": "benchmark", "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage,
        }})),
        event(
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ),
    ];
    events.extend(WORDS.iter().map(|word| {
        event(json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}))
    }));
    events.push(event(json!({"type": "content_block_stop", "index": 0})));
    events.push(event(json!({
        "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
        "usage": {"output_tokens": WORDS.len()},
    })));
    events.push(event(json!({"type": "message_stop"})));
    events
}

fn gemini_events() -> Vec<Bytes> {
    let last = WORDS.len() - 1;
    WORDS
        .iter()
        .enumerate()
        .map(|(index, word)| {
            let mut candidate =
                json!({"index": 0, "content": {"role": "model", "parts": [{"text": word}]}});
            if index == last {
                candidate["finishReason"] = json!("STOP");
            }
            data(&json!({
                "candidates": [candidate],
                "usageMetadata": {
                    "promptTokenCount": INPUT_TOKENS,
                    "cachedContentTokenCount": CACHED_TOKENS,
                    "candidatesTokenCount": index + 1,
                    "totalTokenCount": INPUT_TOKENS + index as u64 + 1,
                },
                "modelVersion": "benchmark",
                "responseId": "benchmark",
            }))
        })
        .collect()
}

fn data(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

fn bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}
