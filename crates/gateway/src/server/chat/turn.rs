//! One chat from request to answer: open the context, compose, run the backend, commit.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::BoxStream;
use holdfast_protocol::chat::{ChatEvent, ChatHead, ChatResponse, FinishReason, ToolChoice};
use holdfast_protocol::collect::ResponseBuilder;
use holdfast_protocol::compose::{ComposedRequest, check_model, compose};
use holdfast_protocol::usage::BilledUsage;
use holdfast_protocol::{ApiError, ChatRequest, ErrorKind, Message, Receipt, Usage};
use rand::RngExt;
use rand::distr::Alphanumeric;
use tokio::time::Instant;

use super::{Caller, Deadline, Keep, Trail};
use crate::app::{App, ModelSource};
use crate::auth::Principal;
use crate::backend::{Answer, ChatWork};
use crate::contexts::{Attached, OpenContext};
use crate::idempotency::{Delivery, Fingerprint, Recorder};
use crate::ledger::{Charge, Entry};
use crate::limits::Demand;
use crate::routing::Model;
use crate::server::rates;
use crate::telemetry::Operation;

/// After so long without an event a stream gets a comment, so that nothing between here and the client gives up.
const QUIET: Duration = Duration::from_secs(15);

/// Longest answer that is passed on whole, bytes.
const WIRE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A turn that has begun.
pub(super) enum Begun {
    /// Its first token is at hand.
    Running(Box<RunningTurn>),
    /// It was answered before, and the answer was lost on its way.
    Repeated(Arc<ChatResponse>),
}

/// What a running turn does next.
pub(super) enum Step {
    /// The answer goes on.
    Event(ChatEvent),
    /// Nothing for a while.
    Quiet,
    /// It failed; nothing follows.
    Failed(ApiError),
    /// It ended; nothing follows.
    Over,
}

/// An answer under way. Dropping it cancels the turn and leaves the context as it was.
pub(super) struct RunningTurn {
    app: Arc<App>,
    model: Arc<Model>,
    head: ChatHead,
    receipt: Option<Receipt>,
    usage: Usage,
    attached: Option<Attached>,
    is_wire: bool,
    wire: BytesMut,
    events: BoxStream<'static, Result<ChatEvent, ApiError>>,
    builder: Option<ResponseBuilder>,
    context: Option<TurnContext>,
    keep: Option<Keep>,
    trail: Trail,
    operation: Option<Operation>,
    deadline: Instant,
    response: Option<Arc<ChatResponse>>,
    is_over: bool,
    entry: Entry,
    /// Pieces of text that the embedded engine has given: about as many as tokens.
    pieces: u64,
}

/// What the end of a turn needs of its context.
struct TurnContext {
    open: OpenContext,
    new: Vec<Message>,
    dropped_messages: u32,
    recorder: Option<Recorder>,
}

/// What tells whether a request has been answered before.
pub(super) struct Sent {
    /// As the client gave it.
    pub(super) idempotency_key: Option<String>,
    /// The request as it came.
    pub(super) body: Bytes,
}

/// Begins a turn. Returns with the first token, or with the reason why there is none.
pub(super) async fn begin(
    caller: Caller,
    request: ChatRequest,
    sent: Sent,
    delivery: Arc<Delivery>,
    keep: Option<Keep>,
) -> Result<Begun, ApiError> {
    let Caller {
        app,
        principal,
        trail,
        deadline,
        headers: _,
    } = caller;
    let mut request = request;
    let entry = trail.entry.clone();
    entry.set_stream(request.stream);
    principal.complete(&mut request);
    if let Some(name) = &request.model {
        entry.set_requested_model(name);
    }
    let attached = attach(&app, &principal, &mut request).await?;
    let (model, open) = resolve(&app, &principal, &request).await?;
    trail.set_model(&model.entry.name);
    if let Some(open) = &open {
        entry.set_context(open.context.id.as_str());
    }

    let mut recorder = None;
    if let (Some(open), Some(id)) = (&open, &request.context_id)
        && open.is_session()
    {
        let fingerprint = Fingerprint::new(id, sent.idempotency_key.as_deref(), &sent.body);
        if let Some(lost) = app.replays.find(&fingerprint, &delivery, app.now())? {
            app.events.answer_replayed();
            entry.set_answer(&lost.id);
            entry.replayed();
            return Ok(Begun::Repeated(lost));
        }
        recorder = Some(app.replays.recorder(fingerprint, delivery));
    }

    let max_tokens_given = request.max_tokens.is_some();
    let choices = u64::from(request.choices);
    let max_tokens = request.max_tokens.unwrap_or(model.entry.max_output_tokens);
    let sampling = &mut request.sampling;
    sampling.temperature = sampling.temperature.or(model.entry.temperature);
    sampling.top_p = sampling.top_p.or(model.entry.top_p);
    let composed = compose_for(&model, open.as_ref(), request, max_tokens)?;
    // What a context holds is read from a cache; where it is not, settling counts it.
    let demand = Demand {
        input: model.backend.estimate_tokens(&composed.new).into(),
        output: choices.saturating_mul(max_tokens.into()),
        is_output_given: max_tokens_given,
    };
    rates::reserve(&app, &trail, &model.entry.name, demand).await?;
    let head = ChatHead {
        id: new_id("chatcmpl-"),
        created: app.now().div_euclid(1000),
        model: composed
            .request
            .model
            .clone()
            .unwrap_or_else(|| model.entry.name.clone()),
    };
    entry.set_answer(&head.id);
    let dropped_messages = composed.dropped_messages;
    let new = if open.as_ref().is_some_and(OpenContext::is_session) {
        composed.new.clone()
    } else {
        Vec::new()
    };
    let work = ChatWork {
        project: principal.project,
        model: model.entry.name.clone(),
        entry: entry.clone(),
        prefix: open.as_ref().map(|open| open.chat_prefix(&composed)),
        rendered_at: open
            .as_ref()
            .map_or_else(|| app.now(), OpenContext::rendered_at),
        composed,
        max_tokens,
        max_tokens_given,
    };

    let mut open = open;
    let mut operation = trail
        .trace()
        .map(|trace| Operation::begin(trace, &model.entry.name));
    let mut answer = match admit(&app, &model, open.as_mut(), work).await {
        Ok(answer) => answer,
        Err(error) => {
            if let Some(operation) = operation {
                operation.failed(error.kind.status());
            }
            return Err(error);
        }
    };
    if let Some(operation) = &mut operation {
        operation.answered(&answer.by);
    }
    if let Some(attached) = &attached {
        attached.settle(&mut answer.usage, answer.receipt.as_mut());
    }
    let mut turn = RunningTurn::new(app, model, head, trail, deadline, answer, entry);
    turn.attached = attached;
    turn.context = open.map(|open| TurnContext {
        open,
        new,
        dropped_messages,
        recorder,
    });
    turn.keep = keep;
    turn.operation = operation;
    Ok(Begun::Running(Box::new(turn)))
}

/// Moves the beginning of a request that names no context into an implicit one, where that is wanted.
async fn attach(
    app: &Arc<App>,
    principal: &Principal,
    request: &mut ChatRequest,
) -> Result<Option<Attached>, ApiError> {
    let Some(name) = request
        .model
        .as_deref()
        .filter(|_| request.context_id.is_none())
    else {
        return Ok(None);
    };
    let model = Arc::clone(principal.model(&app.models, name)?);
    let is_automatic =
        model.entry.auto_context || app.auto_context_keys.contains(&principal.key_id);
    Ok(app
        .contexts
        .attach(&principal.project, &model, is_automatic, request)
        .await)
}

/// The model and, where one is named, the context.
async fn resolve(
    app: &Arc<App>,
    principal: &Principal,
    request: &ChatRequest,
) -> Result<(Arc<Model>, Option<OpenContext>), ApiError> {
    let named = request
        .model
        .as_deref()
        .map(|name| {
            principal
                .model(&app.models, name)
                .map(|model| (name, model))
        })
        .transpose()?;
    let open = match &request.context_id {
        Some(id) => Some(app.contexts.open(&principal.project, id).await?),
        None => None,
    };
    match (named, open) {
        (Some((name, model)), Some(open)) => {
            check_model(&open.context, &model.entry.name, name)?;
            Ok((Arc::clone(model), Some(open)))
        }
        (Some((_, model)), None) => Ok((Arc::clone(model), None)),
        (None, Some(open)) => {
            principal.model(&app.models, &open.context.model)?;
            Ok((Arc::clone(&open.model), Some(open)))
        }
        (None, None) => Err(ApiError::missing("model")),
    }
}

fn compose_for(
    model: &Model,
    open: Option<&OpenContext>,
    request: ChatRequest,
    max_tokens: u32,
) -> Result<ComposedRequest, ApiError> {
    let window_tokens = model.entry.profile.window_tokens;
    // A generous bound on the answer must not push a whole history out.
    let answer_tokens = max_tokens.min(window_tokens / 4);
    let reserve_tokens = model
        .backend
        .estimate_tokens(&request.messages)
        .saturating_add(answer_tokens);
    let context = open.map(|open| (&open.context, open.content()));
    let mut composed = compose(context, request, window_tokens, reserve_tokens)?;
    // Tools that must not be called are not shown, unless they are part of what the context has stored.
    let stored = open.is_some_and(|open| !open.context.tools.is_empty());
    if composed.tool_choice == ToolChoice::None && !stored {
        composed.tools.clear();
    }
    Ok(composed)
}

/// Runs the backend up to the first token and keeps the context alive meanwhile.
async fn admit(
    app: &Arc<App>,
    model: &Arc<Model>,
    open: Option<&mut OpenContext>,
    work: ChatWork,
) -> Result<Answer, ApiError> {
    let mut chat = model.backend.chat(work);
    let Some(open) = open else { return chat.await };
    // The renewal waits for the disk and the backend for the processor, so they go side by side.
    match select(pin!(app.contexts.touch(open)), chat.as_mut()).await {
        Either::Left((touched, _)) => touched?,
        Either::Right((answer, touch)) => {
            touch.await?;
            return answer;
        }
    }
    loop {
        match tokio::time::timeout(open.touch_every(), chat.as_mut()).await {
            Ok(answer) => return answer,
            Err(_) => app.contexts.touch(open).await?,
        }
    }
}

impl RunningTurn {
    /// A turn outside of any context.
    pub(super) fn new(
        app: Arc<App>,
        model: Arc<Model>,
        head: ChatHead,
        trail: Trail,
        deadline: Deadline,
        answer: Answer,
        entry: Entry,
    ) -> Self {
        app.events
            .chat_answered(&model.entry.name, trail.answer_begins());
        entry.first_token();
        RunningTurn {
            receipt: answer.receipt,
            usage: answer.usage,
            attached: None,
            is_wire: answer.is_wire,
            wire: BytesMut::new(),
            events: answer.events,
            builder: Some(ResponseBuilder::new(head.clone())),
            context: None,
            keep: None,
            trail,
            operation: None,
            deadline: deadline.0,
            response: None,
            is_over: false,
            entry,
            pieces: 0,
            app,
            model,
            head,
        }
    }

    /// What the answer's chunks have in common.
    pub(super) fn head(&self) -> &ChatHead {
        &self.head
    }

    /// What the cache did; final but for what the turn adds to a session.
    pub(super) fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// What is known of the counts.
    pub(super) fn usage_so_far(&self) -> Usage {
        self.usage
    }

    /// Whether the answer is the upstream's own bytes.
    pub(super) fn is_wire(&self) -> bool {
        self.is_wire
    }

    /// The upstream's own bytes, once they have been collected.
    pub(super) fn take_wire(&mut self) -> Option<Bytes> {
        self.is_wire
            .then(|| std::mem::take(&mut self.wire).freeze())
    }

    /// The whole answer.
    pub(super) async fn collect(&mut self) -> Result<Arc<ChatResponse>, ApiError> {
        loop {
            match self.next().await {
                Step::Event(ChatEvent::Wire(bytes)) => {
                    if self.wire.len() + bytes.len() > WIRE_BYTES_MAX {
                        self.fail(ApiError::internal());
                        return Err(ApiError::new(
                            ErrorKind::BadGateway,
                            "The model's provider answered with more than the gateway takes.",
                        ));
                    }
                    self.wire.extend_from_slice(&bytes);
                }
                Step::Event(_) | Step::Quiet => {}
                Step::Failed(error) => return Err(error),
                Step::Over => return self.response.take().ok_or_else(ApiError::internal),
            }
        }
    }

    /// The next step. The event `Done` comes after a session's turn has been committed.
    pub(super) async fn next(&mut self) -> Step {
        if self.is_over {
            return Step::Over;
        }
        let quiet_at = Instant::now() + QUIET;
        let event =
            match tokio::time::timeout_at(quiet_at.min(self.deadline), self.events.next()).await {
                Ok(Some(Ok(ChatEvent::Done { usage, receipt }))) => {
                    self.is_over = true;
                    return match self.settle(usage, receipt).await {
                        Ok(event) => {
                            self.entry.complete();
                            Step::Event(event)
                        }
                        Err(error) => {
                            self.entry.fail(&error);
                            Step::Failed(error)
                        }
                    };
                }
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return self.fail(error),
                Ok(None) => {
                    tracing::error!("an answer stopped before its end");
                    return self.fail(ApiError::internal());
                }
                Err(_) if Instant::now() >= self.deadline => {
                    return self.fail(ApiError::timeout(
                        "The answer took longer than the server allows.",
                    ));
                }
                Err(_) => {
                    return match self.keep_alive().await {
                        Ok(()) => Step::Quiet,
                        Err(error) => self.fail(error),
                    };
                }
            };
        match &event {
            ChatEvent::Delta { .. } => self.pieces += 1,
            ChatEvent::Finish { reason, .. } => self.entry.set_finish_reason(reason.as_str()),
            ChatEvent::Wire(_) | ChatEvent::Done { .. } => {}
        }
        if let Some(builder) = &mut self.builder {
            builder.event(&event);
        }
        match self.keep_alive().await {
            Ok(()) => Step::Event(event),
            Err(error) => self.fail(error),
        }
    }

    /// Gives the engine and the session back at once, not when the client has read the error.
    fn fail(&mut self, error: ApiError) -> Step {
        self.is_over = true;
        self.context = None;
        if let Some(operation) = self.operation.take() {
            operation.failed(error.kind.status());
        }
        self.events = futures_util::stream::empty().boxed();
        self.charge_broken();
        self.entry.fail(&error);
        Step::Failed(error)
    }

    /// A context must not expire under a chat that uses it, however short its ttl.
    async fn keep_alive(&mut self) -> Result<(), ApiError> {
        let Some(TurnContext { open, .. }) = &mut self.context else {
            return Ok(());
        };
        let half_ms = i64::try_from(open.touch_every().as_millis()).unwrap_or(i64::MAX);
        if open.context.expires_at.saturating_sub(self.app.now()) > half_ms {
            return Ok(());
        }
        self.app.contexts.touch(open).await
    }

    /// What the embedded engine has done. Upstreams charge by themselves.
    fn charge_engine(&self, usage: &Usage) {
        if !matches!(self.model.entry.source, ModelSource::Engine(_)) {
            return;
        }
        // A row that is written already is of a turn that ended in another way.
        let _ = self.entry.charge(&Charge::of_engine(BilledUsage {
            input_tokens: usage.input_tokens,
            cache_read_tokens: usage.cached_input_tokens,
            output_tokens: usage.output_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            ..BilledUsage::default()
        }));
    }

    /// The same for a turn that did not get to its end, as far as it got.
    fn charge_broken(&self) {
        if self.builder.is_some() {
            self.charge_engine(&Usage {
                output_tokens: self.pieces,
                ..self.usage
            });
        }
    }

    /// Ends the turn: the session remembers it, the expiry moves, the counts are final.
    async fn settle(
        &mut self,
        mut usage: Usage,
        mut receipt: Option<Receipt>,
    ) -> Result<ChatEvent, ApiError> {
        let mut builder = self.builder.take().ok_or_else(ApiError::internal)?;
        if let Some(attached) = &self.attached {
            attached.settle(&mut usage, receipt.as_mut());
        }
        if let Some(receipt) = &receipt {
            self.entry.set_receipt(receipt);
        }
        self.charge_engine(&usage);
        let mut commit = None;
        if let Some(TurnContext {
            mut open,
            new,
            dropped_messages,
            recorder,
        }) = self.context.take()
        {
            let answer = builder
                .finished_choice(0)
                .filter(|choice| choice.finish_reason != FinishReason::ContentFilter);
            match (answer, recorder) {
                (Some(answer), Some(recorder)) => {
                    let turn = self
                        .app
                        .contexts
                        .prepare_turn(&open, new, answer.message, dropped_messages)
                        .await?;
                    usage.cache_write_tokens = turn.written_tokens;
                    if let Some(receipt) = &mut receipt {
                        receipt.written_tokens = turn.written_tokens;
                    }
                    commit = Some((open, turn, recorder));
                }
                _ => {
                    // The answer is complete; that the context was deleted meanwhile takes nothing from it.
                    if let Err(error) = self.app.contexts.touch(&mut open).await {
                        tracing::debug!(%error, "a context can't be renewed at the end of a chat");
                    }
                }
            }
        }
        let done = ChatEvent::Done {
            usage,
            receipt: receipt.clone(),
        };
        builder.event(&done);
        let response = Arc::new(builder.finish()?);
        if let Some((open, turn, recorder)) = commit {
            self.app
                .contexts
                .commit(open, turn, Arc::clone(&response), recorder)
                .await?;
        }
        if let Some(keep) = self.keep.take() {
            keep(Arc::clone(&response)).await?;
        }
        self.app
            .events
            .chat_finished(&self.model.entry.name, &usage, receipt.as_ref());
        self.app
            .events
            .chat_ended(&self.model.entry.name, self.trail.elapsed());
        self.trail.set_usage(usage);
        if let Some(operation) = self.operation.take() {
            operation.finished(&usage, receipt.as_ref());
        }
        self.response = Some(response);
        Ok(done)
    }
}

impl Drop for RunningTurn {
    fn drop(&mut self) {
        if !self.is_over {
            self.charge_broken();
        }
    }
}

/// An id for an answer that nobody else has.
pub(in crate::server) fn new_id(beginning: &str) -> String {
    let random: String = rand::rng()
        .sample_iter(Alphanumeric)
        .take(28)
        .map(char::from)
        .collect();
    format!("{beginning}{random}")
}
