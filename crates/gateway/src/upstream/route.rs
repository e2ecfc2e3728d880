//! A model's backend over its upstreams: which one is asked, what is tried again, and one chat from request to first
//! event.
//!
//! A context stays where its cache is. Nothing is tried again once an event has gone to the client; before that, a
//! handle that the upstream has lost is rebuilt once, markers that it refuses are left out, and what is transient is
//! tried again there and then elsewhere.

mod background;
mod estimates;
pub(super) mod plan;
mod raw;
mod turns;

pub(crate) use background::{run, tend, tend_until};

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::StreamExt;
use holdfast_protocol::chat::{Message, Original, Tool};
use holdfast_protocol::context::{Context, OnTooSmall, Warm};
use holdfast_protocol::error::ErrorFacts;
use holdfast_protocol::provider::Caching;
use holdfast_protocol::upstream::{ChatCall, Failure, FailureKind, OriginalCall};
use holdfast_protocol::{ApiError, ContextId, ErrorKind, UnixMillis, Usage};
use rand::RngExt;

use super::answer::{Attempt, Running, Settlement, whole_decoder};
use super::billing::Payer;
use super::pool::{Seat, Worker};
use super::prefix::UpstreamPrefix;
use super::warmth::UseKind;
use super::{Shared, Target};
use crate::backend::{
    Answer, AnsweredBy, Backend, ChatWork, HeldPrefix, ImplicitRules, PrefixContent,
    PrefixEstimate, PrefixState, PreparedPrefix, RawAnswer, RawWork, TurnSize,
};
use crate::ledger::Entry;
use plan::Plan;
use turns::leave;

/// A provider may count fewer tokens than the estimate; a prefix is called too small only when it is so by this share.
const TOO_SMALL_PERCENT: u64 = 75;

/// Handles that are replaced in one attempt: of a session's chain each link can be gone. One that was just made is not
/// replaced.
const REBUILDS_MAX: u32 = 2;

/// For how long a target that has refused markers, or seals, is sent none, milliseconds. It would refuse the next ones, too, and
/// each time take a request for it.
const REFUSAL_MS: i64 = 600_000;

/// Answers for one model.
pub(crate) struct RouteBackend {
    /// In order of preference; never empty.
    targets: Vec<Arc<Target>>,
    shared: Arc<Shared>,
}

/// Why an attempt gave no answer.
enum Refusal {
    /// The request can't be expressed there.
    Inexpressible(ApiError),
    /// The upstream failed.
    Failed(Failure),
    /// It has as many requests as it may have, and none ended in time.
    Busy,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Refusal::Failed(failure)
    }
}

impl RouteBackend {
    pub(crate) fn new(mut targets: Vec<Arc<Target>>, shared: Arc<Shared>) -> Self {
        targets.sort_by_key(|target| target.priority);
        RouteBackend { targets, shared }
    }

    /// The upstreams in the order in which they are asked: where the context is at home, then by priority, and within a
    /// priority by chance and weight.
    fn order(&self, home: Option<&str>) -> Vec<&Arc<Target>> {
        let mut random = rand::rng();
        let mut order: Vec<(u32, f64, &Arc<Target>)> = self
            .targets
            .iter()
            .map(|target| {
                // The smallest of exponential variates with these rates is each target's with its share.
                let draw: f64 = random.random::<f64>().max(f64::MIN_POSITIVE);
                let arrival = -draw.ln() / f64::from(target.weight.max(1));
                (target.priority, arrival, target)
            })
            .collect();
        order.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut order: Vec<&Arc<Target>> = order.into_iter().map(|(_, _, target)| target).collect();
        if let Some(at) = order
            .iter()
            .position(|target| Some(target.place.as_str()) == home)
            .or_else(|| {
                order
                    .iter()
                    .position(|target| home.is_some_and(|home| target.is_home(home)))
            })
        {
            let target = order.remove(at);
            order.insert(0, target);
        }
        order
    }

    /// Reserves the most that these tokens may cost at any of the upstreams, in the budgets that hold.
    async fn reserve(
        &self,
        entry: &Entry,
        input_tokens: u64,
        output_tokens: u64,
    ) -> Result<(), ApiError> {
        let costs: Vec<_> = self
            .targets
            .iter()
            .filter_map(|target| target.price(&self.shared))
            .map(|price| price.most(input_tokens, output_tokens))
            .collect();
        self.shared.budgets.reserve(entry, &costs).await
    }

    async fn home(&self, context: &ContextId) -> Option<String> {
        if let Some(home) = self.shared.warmth.home(context) {
            return Some(home);
        }
        let home = self.shared.accounts.of(context).await.ok()?.home?;
        self.shared.warmth.settle(context, &home);
        Some(home)
    }

    /// One attempt at one upstream.
    async fn attempt(
        &self,
        target: &Arc<Target>,
        work: &ChatWork,
        home: Option<&str>,
        seat: Arc<Seat>,
    ) -> Result<Answer, Refusal> {
        let timeouts = target.upstream.options.timeouts;
        let worker = &seat.worker;
        let leave = leave(target, &seat).await?;
        let mut plan = Plan::new(&self.shared, target, worker, work, home).await?;
        let started = Instant::now();
        let started_at = (self.shared.clock)();
        let total_until = tokio::time::Instant::now() + timeouts.total;
        let mut rebuilds_left = REBUILDS_MAX;
        let (mut running, attempt) = loop {
            let settlement = self.settlement(target, worker, work, &plan, started_at);
            let failure = match self
                .start(target, worker, work, &plan, settlement, total_until)
                .await
            {
                Ok(begun) => break begun,
                Err(Refusal::Failed(failure)) => failure,
                Err(refusal) => return Err(refusal),
            };
            match failure.kind {
                FailureKind::HandleGone if rebuilds_left > 0 && plan.handle.is_some() => {
                    let is_new = plan.rebuild(&self.shared, target, work).await?;
                    rebuilds_left = if is_new { 0 } else { rebuilds_left - 1 };
                }
                FailureKind::MarkerRefused | FailureKind::PrefixTooSmall if plan.can_degrade() => {
                    if failure.kind == FailureKind::MarkerRefused && plan.handle.is_none() {
                        let until = (self.shared.clock)() + REFUSAL_MS;
                        target.learnt.refuses_until.store(until, Ordering::Relaxed);
                    }
                    plan.send_plain(&self.shared, target, work, failure.kind.as_str())?;
                }
                FailureKind::SealRefused if plan.can_unseal(target, work) => {
                    let until = (self.shared.clock)() + REFUSAL_MS;
                    target
                        .learnt
                        .refuses_seals_until
                        .store(until, Ordering::Relaxed);
                    plan.unseal(&self.shared, target, work)?;
                }
                _ => return Err(Refusal::Failed(failure)),
            }
        };
        if let (Some(prefix), Some(part)) = (&plan.prefix, &work.prefix) {
            let context = &part.context;
            self.shared.warmth.refreshed(
                context,
                target,
                worker,
                prefix,
                started_at,
                UseKind::Chat,
            );
            let place = target.place_at(worker);
            self.shared.warmth.settle(&context.id, &place);
        }
        // Others may follow now: the entry can be read once the answer has begun.
        drop(plan);
        self.shared.events.upstream_began(target, started.elapsed());
        let first_token_ms = u64::try_from(started.elapsed().as_millis()).ok();
        let receipt = attempt.begin(&mut running, first_token_ms, leave);
        Ok(Answer {
            receipt,
            usage: running.usage_so_far().map_or_else(
                || Usage {
                    input_tokens: input_estimate(work),
                    ..Usage::default()
                },
                |usage| usage.to_usage(),
            ),
            is_wire: own_words(target, work).is_some(),
            by: AnsweredBy {
                upstream: Some(target.name().to_owned()),
                provider: target.upstream.options.provider.name,
                model: target.model.clone(),
            },
            events: running.events().boxed(),
        })
    }

    fn settlement(
        &self,
        target: &Arc<Target>,
        worker: &Arc<Worker>,
        work: &ChatWork,
        plan: &Plan,
        started_at: UnixMillis,
    ) -> Settlement {
        let context = work.prefix.as_ref().map(|part| part.context.clone());
        Settlement {
            shared: Arc::clone(&self.shared),
            target: Arc::clone(target),
            worker: Arc::clone(worker),
            payer: Payer {
                entry: work.entry.clone(),
                project: work.project.clone(),
                model: work.model.clone(),
            },
            context: context.map(|context| (context, plan.sent.clone())),
            input_estimate: input_estimate(work),
            started_at,
            first_token_ms: None,
            tier_seconds: plan.tier_seconds,
            history_seconds: plan.history_seconds,
            chain_expires_at: plan
                .chain
                .filter(|_| plan.is_chained)
                .map(|chain| chain.expires_at_seconds * 1000),
        }
    }

    /// Sends one request, and waits for the first event of its answer.
    async fn start(
        &self,
        target: &Target,
        worker: &Worker,
        work: &ChatWork,
        plan: &Plan,
        settlement: Settlement,
        total_until: tokio::time::Instant,
    ) -> Result<(Running, Attempt), Refusal> {
        let original = own_words(target, work);
        let call = match (original, work.composed.request.inexpressible()) {
            (Some(original), _) => self.original_call(target, work, plan, original)?,
            (None, Some(error)) => return Err(Refusal::Inexpressible(error.clone())),
            (None, None) => self.call(target, work, plan)?,
        };
        let attempt = Attempt::new(settlement);
        let mut has_head = false;
        let begun = async {
            let reply = self.send(target, worker, call).await?;
            has_head = true;
            let rules = target.rules_for(plan.tier_seconds);
            let is_whole = original.is_some() && !work.composed.request.stream;
            let decoder = match is_whole {
                true => whole_decoder(target.dialect, rules.into_owned()),
                false => target.dialect.decoder(&rules),
            };
            let mut running = Running::new(reply, decoder, total_until);
            if original.is_some() {
                running = running.passing_on();
            }
            // Some providers report a lost handle in a stream that began with 200; it is no answer yet.
            running.first().await?;
            Ok(running)
        };
        let wait = target.upstream.options.timeouts.first_byte;
        let begun = tokio::time::timeout(wait, begun).await.unwrap_or_else(|_| {
            Err(Failure::new(
                FailureKind::Timeout,
                "the first event did not come in time",
            ))
        });
        match begun {
            Ok(running) => Ok((running, attempt)),
            Err(failure) => {
                let may_be_charged = match failure.kind {
                    FailureKind::Timeout => failure.status.is_none(),
                    FailureKind::Connection
                    | FailureKind::CutShort
                    | FailureKind::Malformed
                    | FailureKind::ServerError
                    | FailureKind::Overloaded => has_head,
                    _ => false,
                };
                if !may_be_charged {
                    attempt.excuse();
                }
                Err(Refusal::Failed(failure))
            }
        }
    }

    /// The client's own request, for an upstream of its dialect.
    fn original_call(
        &self,
        target: &Target,
        work: &ChatWork,
        plan: &Plan,
        original: &Original,
    ) -> Result<holdfast_protocol::upstream::HttpCall, Refusal> {
        let line = target
            .needs_tenant_line()
            .then(|| self.shared.tenants.line(&work.project));
        target
            .dialect
            .encode_original(&OriginalCall {
                model: &target.model,
                body: &original.body,
                headers: &original.headers,
                stream: work.composed.request.stream,
                cache_key: plan.cache_key.as_deref(),
                tenant_line: line.as_deref(),
                rules: &target.rules,
            })
            .map_err(Refusal::Inexpressible)
    }

    fn call(
        &self,
        target: &Target,
        work: &ChatWork,
        plan: &Plan,
    ) -> Result<holdfast_protocol::upstream::HttpCall, Refusal> {
        let call = ChatCall {
            model: &target.model,
            prefix: plan.encoded.as_deref(),
            handle: plan.handle_use(),
            chain: plan.chain,
            composed: plan.unsealed.as_ref().unwrap_or(&work.composed),
            max_tokens: work.max_tokens_given.then_some(work.max_tokens),
            cache_key: plan.cache_key.as_deref(),
            salt: plan.salt.as_deref(),
            tier_seconds: plan.tier_seconds,
            previous_answer: plan.previous_answer.as_deref(),
            rules: plan.rules.as_ref().unwrap_or(&target.rules),
        };
        target
            .dialect
            .encode_chat(&call)
            .map_err(Refusal::Inexpressible)
    }

    /// Sends a call; an answer with an error status is a failure.
    async fn send(
        &self,
        target: &Target,
        worker: &Worker,
        call: holdfast_protocol::upstream::HttpCall,
    ) -> Result<super::transport::Reply, Failure> {
        let reply = worker.transport.send(call).await?;
        if (200..300).contains(&reply.status) {
            return Ok(reply);
        }
        let (status, headers) = (reply.status, reply.headers.clone());
        let body = reply.whole().await?;
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        Err(target.dialect.failure(status, &header, &body))
    }

    /// Whether the policy lets a context be made that the upstream can't cache.
    fn accepts_small(&self, target: &Target, context: &Context) -> bool {
        context
            .policy
            .on_too_small
            .unwrap_or(target.upstream.options.on_too_small)
            == OnTooSmall::Replay
    }
}

#[async_trait]
impl Backend for RouteBackend {
    async fn prepare(&self, content: PrefixContent) -> Result<PreparedPrefix, ApiError> {
        let history_tokens: Vec<u32> = content
            .history
            .iter()
            .map(|message| u32::try_from(super::estimate::message(message)).unwrap_or(u32::MAX))
            .collect();
        let initial: u64 = content.initial.iter().map(super::estimate::message).sum();
        let tools: u64 = content.tools.iter().map(super::estimate::tool).sum();
        let history: u64 = history_tokens.iter().map(|tokens| u64::from(*tokens)).sum();
        Ok(PreparedPrefix {
            tokens: initial + tools + history,
            history_tokens,
            state: PrefixState::Upstream(Arc::new(UpstreamPrefix::new(content))),
        })
    }

    async fn hold(
        &self,
        context: &Context,
        prefix: &PreparedPrefix,
        entry: &Entry,
    ) -> Result<HeldPrefix, ApiError> {
        let upstream_prefix = prefix.upstream()?;
        let mut held = HeldPrefix {
            resident_tokens: 0,
            tokens: None,
        };
        let mut refused = None;
        let mut is_expressible = false;
        for target in self.order(None) {
            // What can't be said at the first upstream may still be said at another one.
            if let Err(error) = plan::encode(&self.shared, target, context, upstream_prefix) {
                refused.get_or_insert(error);
                continue;
            }
            is_expressible = true;
            let cache = &target.rules.cache;
            let min_tokens = u64::from(cache.min_tokens);
            if cache.caching != Caching::Replay
                && prefix.tokens * 100 < min_tokens * TOO_SMALL_PERCENT
                && !self.accepts_small(target, context)
            {
                return Err(too_small(prefix.tokens, min_tokens));
            }
            let is_eager = match context.policy.warm {
                Warm::Lazy => false,
                Warm::Eager => cache.caching == Caching::Handle || cache.is_eager,
                Warm::Prewarm => true,
            };
            if !is_eager {
                return Ok(held);
            }
            let is_fleet = target.upstream.pool.is_fleet;
            let digest = is_fleet.then(|| upstream_prefix.digest());
            let key = self.key(target, &context.project, digest);
            let Ok((seat, _)) = target.upstream.pool.seat(&key, &[]) else {
                return Ok(held);
            };
            let worker = &seat.worker;
            let costs: Vec<_> = target
                .price(&self.shared)
                .map(|price| price.most_for_copy(prefix.tokens, context.ttl_seconds))
                .into_iter()
                .collect();
            self.shared.budgets.reserve(entry, &costs).await?;
            entry.asks(target.name(), &target.model);
            match plan::hold(
                &self.shared,
                target,
                worker,
                context,
                upstream_prefix,
                UseKind::Create,
                entry,
            )
            .await
            {
                Ok(tokens) => {
                    worker.breaker.succeeded();
                    let place = target.place_at(worker);
                    self.shared.warmth.settle(&context.id, &place);
                    held.tokens = tokens;
                    return Ok(held);
                }
                Err(failure) => {
                    worker.breaker.failed(&failure);
                    match failure.kind {
                        FailureKind::PrefixTooSmall if self.accepts_small(target, context) => {
                            return Ok(held);
                        }
                        FailureKind::InvalidRequest
                        | FailureKind::PrefixTooSmall
                        | FailureKind::PromptTooLong
                        | FailureKind::Filtered => return Err(failure.to_api_error()),
                        // The gateway has the messages; the copy is made by the first chat.
                        kind => tracing::warn!(
                            upstream = target.name(),
                            failure = kind.as_str(),
                            "a context's copy can't be made yet"
                        ),
                    }
                }
            }
        }
        match refused {
            Some(error) if !is_expressible => Err(error),
            _ => Ok(held),
        }
    }

    fn stored(&self, context: &ContextId) {
        self.shared.accounts.stored(context);
    }

    fn pin(&self, _context: &Context, _prefix: &PreparedPrefix) {}

    fn hold_later(&self, context: &Context, _prefix: &PreparedPrefix) {
        let Some(record) = self.shared.handles.commit_chain(context) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        self.shared
            .tasks
            .spawn(async move { shared.handles.store_chain(&record).await });
    }

    fn extend(&self, context: &Context) {
        let shared = Arc::clone(&self.shared);
        let targets = self.targets.clone();
        let context = context.clone();
        self.shared
            .tasks
            .spawn(async move { background::extend(&shared, &targets, &context).await });
    }

    fn retain(&self, _living: &HashSet<String>) {}

    fn release(&self, context: &ContextId) {
        self.shared.warmth.forget(context);
        let shared = Arc::clone(&self.shared);
        let targets = self.targets.clone();
        let context = context.clone();
        self.shared.tasks.spawn(async move {
            background::release(&shared, &targets, &context).await;
        });
    }

    fn estimates(
        &self,
        prefix: &PreparedPrefix,
        ttl_seconds: u32,
        turn: TurnSize,
    ) -> Vec<PrefixEstimate> {
        self.targets
            .iter()
            .map(|target| estimates::of(&self.shared, target, prefix, ttl_seconds, turn))
            .collect()
    }

    fn implicit(&self) -> ImplicitRules {
        let mut spoken = self.targets.iter().map(|target| target.dialect.speaks());
        let first = spoken.next().flatten();
        ImplicitRules {
            answers_bare: false,
            copies_whole: self
                .targets
                .iter()
                .any(|target| target.rules.cache.caching == Caching::Handle),
            speaks: first.filter(|_| spoken.all(|other| other == first)),
        }
    }

    async fn count_tokens(
        &self,
        _project: &str,
        messages: Vec<Message>,
        tools: Vec<Tool>,
        _rendered_at: UnixMillis,
    ) -> Result<u64, ApiError> {
        let messages: u64 = messages.iter().map(super::estimate::message).sum();
        let tools: u64 = tools.iter().map(super::estimate::tool).sum();
        Ok(messages + tools)
    }

    fn estimate_tokens(&self, messages: &[Message]) -> u32 {
        let tokens: u64 = messages.iter().map(super::estimate::message).sum();
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    async fn chat(&self, work: ChatWork) -> Result<Answer, ApiError> {
        let choices = u64::from(work.composed.request.choices.max(1));
        let output_tokens = u64::from(work.max_tokens).saturating_mul(choices);
        self.reserve(&work.entry, input_estimate(&work), output_tokens)
            .await?;
        let home = match &work.prefix {
            Some(part) => {
                self.shared.handles.unchain(&part.context.id);
                self.home(&part.context.id).await
            }
            None => None,
        };
        let order = self.order(home.as_deref());
        let digest = self.beginning(&work);
        self.in_turn(order, &work.project, digest.as_ref(), |target, seat| {
            Box::pin(self.attempt(target, &work, home.as_deref(), seat))
        })
        .await
    }

    async fn pass_through(&self, work: RawWork) -> Result<RawAnswer, ApiError> {
        self.pass(work).await
    }
}

fn too_small(tokens: u64, min_tokens: u64) -> ApiError {
    ApiError::new(
        ErrorKind::InvalidParameter,
        format!(
            "`messages` have about {tokens} tokens, and this model's provider caches contexts from {min_tokens} tokens \
             on. Send them with each request instead, or set `on_too_small` to \"replay\"."
        ),
    )
    .with_param("messages")
    .with_facts(ErrorFacts::TooSmall {
        tokens: Some(tokens),
        min_tokens: Some(min_tokens),
    })
}

/// The client's request as it came, if `target` can be given it so.
pub(super) fn own_words<'a>(target: &Target, work: &'a ChatWork) -> Option<&'a Original> {
    let original = work.composed.request.original.as_ref()?;
    (work.prefix.is_none() && target.dialect.speaks() == Some(original.dialect)).then_some(original)
}

/// Tokens of the whole prompt, about.
fn input_estimate(work: &ChatWork) -> u64 {
    let new: u64 = work.composed.new.iter().map(super::estimate::message).sum();
    let prefix = work.prefix.as_ref().map_or(0, |part| part.prepared.tokens);
    new + prefix
}
