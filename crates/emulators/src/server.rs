//! The HTTP side: reads a request, lets the family answer, applies faults, keeps the bill and the record.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use axum::serve::ListenerExt;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Family;
use crate::bill::{Bill, Charge};
use crate::clock::VirtualClock;
use crate::faults::{Fault, Faults, UsageFault};
use crate::reply::{Body, Reply};
use crate::request::RawRequest;
use crate::script::Script;

/// Requests that the record keeps.
const RECORD_MAX: usize = 20_000;
/// Largest request, bytes.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// An emulated provider on a loopback port. Stops when dropped.
pub struct Emulator {
    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    family: Box<dyn Family>,
    bill: Bill,
    clock: VirtualClock,
    faults: Faults,
    script: Script,
    record: Mutex<VecDeque<RawRequest>>,
    ids: AtomicU64,
    aborted: watch::Sender<u64>,
    in_flight: watch::Sender<u64>,
    stop: CancellationToken,
}

/// What a family works with while it answers one request.
pub struct Desk<'a> {
    /// The time by this emulator's clock, milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// How much later than now the response begins, as ordered by [`Fault::SlowStart`]: where a cache entry can be read
    /// only once the response that writes it has begun, it can't be read before.
    pub start_delay: Duration,
    /// What the model says.
    pub script: &'a Script,
    /// Ordered for this request.
    pub usage_fault: Option<UsageFault>,
    ids: &'a AtomicU64,
}

impl Desk<'_> {
    /// A number that no other request of this emulator gets, for ids.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::SeqCst) + 1
    }
}

impl Emulator {
    /// Starts on a free port.
    pub async fn start(family: impl Family) -> Emulator {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), family)
            .await
            .unwrap()
    }

    /// Starts on this address.
    ///
    /// # Errors
    /// The address can't be had.
    pub async fn start_on(address: SocketAddr, family: impl Family) -> std::io::Result<Emulator> {
        let listener = TcpListener::bind(address).await?;
        let shared = Arc::new(Shared {
            family: Box::new(family),
            bill: Bill::default(),
            clock: VirtualClock::default(),
            faults: Faults::default(),
            script: Script::default(),
            record: Mutex::default(),
            ids: AtomicU64::default(),
            aborted: watch::Sender::new(0),
            in_flight: watch::Sender::new(0),
            stop: CancellationToken::new(),
        });
        let url = format!("http://{}", listener.local_addr()?);
        let app = Router::new()
            .fallback(handle)
            .with_state(Arc::clone(&shared));
        // Frames are small and each is sent by itself: without this the second of two waits for the client's delayed
        // acknowledgement.
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        // Gracefully, because dropping the accept loop alone would leave idle connections being answered. Streams end
        // on the same signal (see `send`), so that nothing outlives the emulator.
        let serve = axum::serve(listener, app)
            .with_graceful_shutdown(shared.stop.clone().cancelled_owned());
        tokio::spawn(async move { serve.await.unwrap() });
        Ok(Emulator { url, shared })
    }

    /// What the provider would have charged so far.
    pub fn bill(&self) -> &Bill {
        &self.shared.bill
    }

    /// Its clock.
    pub fn clock(&self) -> &VirtualClock {
        &self.shared.clock
    }

    /// Its switches.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// What its model says.
    pub fn script(&self) -> &Script {
        &self.shared.script
    }

    /// Forgets every cache entry and handle.
    pub fn evict_all(&self) {
        self.shared.family.evict_all();
    }

    /// Every request so far, oldest first (the last twenty thousand).
    pub fn requests(&self) -> Vec<RawRequest> {
        self.shared.record.lock().unwrap().iter().cloned().collect()
    }

    /// Forgets the record.
    pub fn clear_requests(&self) {
        self.shared.record.lock().unwrap().clear();
    }

    /// Streams that the client left before their end.
    pub fn aborted(&self) -> watch::Receiver<u64> {
        self.shared.aborted.subscribe()
    }

    /// Requests being answered.
    pub fn in_flight(&self) -> watch::Receiver<u64> {
        self.shared.in_flight.subscribe()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    request: Request<axum::body::Body>,
) -> Response<axum::body::Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return Response::builder()
            .status(400)
            .body(axum::body::Body::empty())
            .unwrap();
    };
    let request = RawRequest {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect(),
        body,
    };
    {
        let mut record = shared.record.lock().unwrap();
        record.push_back(request.clone());
        while record.len() > RECORD_MAX {
            record.pop_front();
        }
    }
    shared.in_flight.send_modify(|count| *count += 1);
    let flight = Flight {
        shared: Arc::clone(&shared),
        is_whole: false,
    };
    answer(shared, &request, flight).await
}

/// Counts a request as being answered until its last byte has gone or the client has.
struct Flight {
    shared: Arc<Shared>,
    is_whole: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.shared.in_flight.send_modify(|count| *count -= 1);
        if !self.is_whole {
            self.shared.aborted.send_modify(|count| *count += 1);
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: &RawRequest,
    flight: Flight,
) -> Response<axum::body::Body> {
    let mut faults = shared.faults.of_request(is_chat(request));
    let start_delay = faults
        .iter()
        .map(|fault| match fault {
            Fault::SlowStart(pause) => *pause,
            _ => Duration::ZERO,
        })
        .sum();
    let refusal = faults.iter().find_map(|fault| match fault {
        Fault::Status(status, retry_after) => Some(Some((*status, *retry_after))),
        Fault::CloseBeforeHead => Some(None),
        _ => None,
    });
    let reply = match refusal {
        Some(Some((status, retry_after))) => {
            faults.clear();
            let mut reply = shared.family.failure(status);
            reply.status = status;
            Some(match retry_after {
                Some(seconds) => reply.header("retry-after", seconds.to_string()),
                None => reply,
            })
        }
        Some(None) => None,
        None => {
            let desk = Desk {
                now_ms: shared.clock.now_ms(),
                start_delay,
                script: &shared.script,
                usage_fault: faults.iter().find_map(|fault| match fault {
                    Fault::Usage(fault) => Some(*fault),
                    _ => None,
                }),
                ids: &shared.ids,
            };
            let reply = shared.family.answer(request, &desk);
            charge(&shared.bill, &reply, &faults);
            Some(reply)
        }
    };
    // The work is done before the pause, as at a provider that is slow to begin: a parallel request in the meantime
    // doesn't find what this one will have written.
    if !start_delay.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(start_delay) => {}
            () = shared.stop.cancelled() => return broken(flight),
        }
    }
    match reply {
        Some(reply) => send(&shared, reply, &faults, flight),
        None => broken(flight),
    }
}

/// A body that fails before its first byte makes hyper drop the connection before it has sent a head.
fn broken(mut flight: Flight) -> Response<axum::body::Body> {
    flight.is_whole = true;
    let broken = stream::once(async { Err::<Bytes, _>(std::io::Error::other("ordered")) });
    Response::builder()
        .body(axum::body::Body::from_stream(broken))
        .unwrap()
}

/// Requests for an answer, a chat's or what is beside chat; the others manage cache resources or list models.
fn is_chat(request: &RawRequest) -> bool {
    let path = request.path.as_str();
    request.method == "POST"
        && ([
            "completions",
            "/responses",
            "/messages",
            "enerateContent",
            "/converse",
            "/converse-stream",
            "/api/chat",
            "/embeddings",
            "/images/generations",
            "/images/edits",
            "/audio/speech",
            "/audio/transcriptions",
            "/audio/translations",
        ]
        .iter()
        .any(|end| path.ends_with(end)))
}

fn charge(bill: &Bill, reply: &Reply, faults: &[Fault]) {
    let hides_usage = faults.iter().any(|fault| {
        matches!(
            fault,
            Fault::CutAfter(_)
                | Fault::StallAfter(_)
                | Fault::HalfFrame(_)
                | Fault::ErrorInside(_)
                | Fault::OversizedFrame(..)
                | Fault::Usage(UsageFault::Missing | UsageFault::Impossible)
        )
    });
    for charge in &reply.charges {
        bill.add(Charge {
            reported: !hides_usage,
            ..charge.clone()
        });
    }
}

fn send(
    shared: &Shared,
    reply: Reply,
    faults: &[Fault],
    flight: Flight,
) -> Response<axum::body::Body> {
    let mut response = Response::builder()
        .status(StatusCode::from_u16(reply.status).unwrap())
        .header("content-type", reply.content_type);
    for (name, value) in &reply.headers {
        response = response.header(
            HeaderName::try_from(name.as_str()).unwrap(),
            HeaderValue::try_from(value.as_str()).unwrap(),
        );
    }
    let frames = match reply.body {
        Body::Whole(bytes) => vec![bytes],
        Body::Frames(frames) => frames,
    };
    let failure = reply
        .failure_frame
        .unwrap_or_else(|| shared.family.failure_in_stream());
    let steps = steps(frames, faults, &failure);
    let body = stream::unfold(
        (steps.into_iter(), flight, true),
        |(mut steps, mut flight, is_first)| async move {
            // Giving way once makes hyper write out what it has. Without it the frames of an answer leave in one write, and
            // a break takes those before it along.
            if !is_first {
                tokio::task::yield_now().await;
            }
            loop {
                match steps.next() {
                    None => {
                        flight.is_whole = true;
                        drop(flight);
                        return None;
                    }
                    Some(Step::Pause(pause)) => tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = flight.shared.stop.cancelled() => steps = vec![Step::Break].into_iter(),
                    },
                    Some(Step::Stall) => {
                        flight.shared.stop.cancelled().await;
                        steps = vec![Step::Break].into_iter();
                    }
                    Some(Step::Break) => {
                        // The head too, where no frame has gone yet.
                        tokio::task::yield_now().await;
                        flight.is_whole = true;
                        let end = (Vec::new().into_iter(), flight, false);
                        return Some((Err(std::io::Error::other("ordered")), end));
                    }
                    Some(Step::Send(bytes)) => return Some((Ok(bytes), (steps, flight, false))),
                }
            }
        },
    );
    response.body(axum::body::Body::from_stream(body)).unwrap()
}

enum Step {
    Send(Bytes),
    Pause(Duration),
    Stall,
    Break,
}

fn steps(frames: Vec<Bytes>, faults: &[Fault], failure: &Bytes) -> Vec<Step> {
    let mut steps: Vec<Step> = frames.into_iter().map(Step::Send).collect();
    for fault in faults {
        match *fault {
            Fault::CutAfter(count) => {
                steps.truncate(count);
                steps.push(Step::Break);
            }
            Fault::StallAfter(count) => {
                steps.truncate(count);
                steps.push(Step::Stall);
            }
            Fault::HalfFrame(count) => {
                let half = match steps.get(count) {
                    Some(Step::Send(frame)) => frame.slice(..frame.len() / 2),
                    _ => Bytes::from_static(b"data: {\"half\":"),
                };
                steps.truncate(count);
                steps.push(Step::Send(half));
            }
            Fault::ErrorInside(count) => {
                steps.truncate(count);
                steps.push(Step::Send(failure.clone()));
            }
            Fault::OversizedFrame(count, bytes) => {
                steps.truncate(count);
                steps.push(Step::Send(Bytes::from_static(b"data: \"")));
                let piece = Bytes::from(vec![b'x'; 64 * 1024]);
                for _ in 0..bytes.div_ceil(piece.len()) {
                    steps.push(Step::Send(piece.clone()));
                }
            }
            Fault::Rechunked(size) => {
                let mut all = BytesMut::new();
                for step in &steps {
                    if let Step::Send(bytes) = step {
                        all.extend_from_slice(bytes);
                    }
                }
                steps = all
                    .chunks(size.max(1))
                    .map(|chunk| Step::Send(Bytes::copy_from_slice(chunk)))
                    .collect();
            }
            Fault::SlowDrip(pause) => {
                steps = steps
                    .into_iter()
                    .flat_map(|step| [Step::Pause(pause), step])
                    .skip(1)
                    .collect();
            }
            _ => {}
        }
    }
    steps
}
