//! An upstream's answer on its way to the client, and what is known when it has ended: usage, receipt, money.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use holdfast_protocol::chat::{ChatEvent, Delta};
use holdfast_protocol::context::Context;
use holdfast_protocol::provider::{Caching, ModelRules, UpstreamDialectName};
use holdfast_protocol::upstream::{
    AnswerDecoder, AnswerEnd, AnswerEvent, Failure, UpstreamDialect,
};
use holdfast_protocol::usage::{BilledUsage, CacheStatus, CacheWrites, Money, Source};
use holdfast_protocol::{ApiError, Receipt};
use holdfast_store::{Account, AccountChange, HandleRecord};
use rust_decimal::Decimal;

use super::accounts::trillionths;
use super::billing::{self, Payer};
use super::estimate;
use super::pool::{Leave, Worker};
use super::transport::Reply;
use super::{Shared, Target};

/// A hit reads at least this share of what the context began with. Less is what all prompts of a model share, such as the
/// first words of its chat template.
const HIT_SHARE: u64 = 8;

/// Longest answer that is not streamed, bytes.
const WHOLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What was sent, as far as the receipt depends on it.
#[derive(Debug, Clone)]
pub(super) enum Sent {
    /// A handle.
    Handle {
        /// Billed for making it in this request.
        made: Option<BilledUsage>,
        /// Whether it was made in this request, and why there was none.
        made_because: Option<&'static str>,
    },
    /// The whole prefix, for the provider's own cache.
    Whole {
        /// Why nothing can be expected of the cache: `first_use`, `expired`, `failover`. `None`: it was written before.
        cold_because: Option<&'static str>,
    },
    /// The whole prefix without any cache; the reason.
    Degraded(String),
}

/// Everything the end of an answer needs.
pub(super) struct Settlement {
    pub(super) shared: Arc<Shared>,
    pub(super) target: Arc<Target>,
    /// Which of its upstream's servers answers.
    pub(super) worker: Arc<Worker>,
    /// Whose request it is.
    pub(super) payer: Payer,
    /// The context and what was sent for it.
    pub(super) context: Option<(Context, Sent)>,
    /// Of the whole prompt, tokens, for answers whose usage never comes.
    pub(super) input_estimate: u64,
    pub(super) started_at: i64,
    pub(super) first_token_ms: Option<u64>,
    /// The lifetime that the context's entry was asked for, seconds.
    pub(super) tier_seconds: Option<u32>,
    /// The lifetime that entries at the ends of turns were asked for, seconds.
    pub(super) history_seconds: Option<u32>,
    /// For sessions whose answers are continued upstream: when such a handle ends.
    pub(super) chain_expires_at: Option<i64>,
}

/// What an upstream has said about an answer.
struct Facts<'a> {
    usage: &'a BilledUsage,
    source: Source,
    miss_reason: Option<String>,
    is_cache_reported: bool,
}

impl<'a> Facts<'a> {
    fn estimated(usage: &'a BilledUsage) -> Self {
        Facts {
            usage,
            source: Source::Estimate,
            miss_reason: None,
            is_cache_reported: false,
        }
    }
}

/// What goes on to the client.
enum Item {
    Event(AnswerEvent),
    Wire(Bytes),
}

/// A request on its way. Dropped without a word from the upstream, it counts as charged for.
pub(super) struct Attempt(Option<Settlement>);

impl Attempt {
    pub(super) fn new(settlement: Settlement) -> Self {
        let target = &settlement.target;
        settlement.payer.entry.asks(target.name(), &target.model);
        Attempt(Some(settlement))
    }

    /// The upstream has said that it did nothing, or was not reached.
    pub(super) fn excuse(mut self) {
        self.0 = None;
    }

    /// The answer has begun.
    pub(super) fn begin(
        mut self,
        running: &mut Running,
        first_token_ms: Option<u64>,
        leave: Leave,
    ) -> Option<Receipt> {
        let settlement = Settlement {
            first_token_ms,
            ..self.0.take()?
        };
        let receipt = settlement.first_receipt(running.usage_so_far());
        running.settlement = Some(settlement);
        running.leave = Some(leave);
        receipt
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(settlement) = self.0.take() {
            settlement.wasted();
        }
    }
}

/// Collects an answer that is not streamed, for what it says of itself.
struct WholeDecoder {
    dialect: &'static dyn UpstreamDialect,
    rules: ModelRules,
    body: Vec<u8>,
}

impl AnswerDecoder for WholeDecoder {
    fn push(&mut self, bytes: &[u8]) -> Vec<Result<AnswerEvent, Failure>> {
        if self.body.len() + bytes.len() > WHOLE_BYTES_MAX {
            return vec![Err(Failure::malformed())];
        }
        self.body.extend_from_slice(bytes);
        Vec::new()
    }

    fn finish(&mut self) -> Vec<Result<AnswerEvent, Failure>> {
        let end = self.dialect.decode_whole(&self.body, &self.rules);
        vec![end.map(AnswerEvent::Done)]
    }

    fn usage_so_far(&self) -> Option<BilledUsage> {
        None
    }
}

/// A decoder for the whole answer to a client's own request.
pub(super) fn whole_decoder(
    dialect: &'static dyn UpstreamDialect,
    rules: ModelRules,
) -> Box<dyn AnswerDecoder> {
    Box::new(WholeDecoder {
        dialect,
        rules,
        body: Vec::new(),
    })
}

/// An answer under way. Dropped before its end, it is settled by estimate.
pub(super) struct Running {
    reply: Reply,
    decoder: Box<dyn AnswerDecoder>,
    queue: VecDeque<Result<Item, Failure>>,
    /// For a client of the upstream's dialect: what came and has not gone on yet. Held back up to the first event, so
    /// that a failure before it has done nothing that the client could have seen.
    wire: Option<BytesMut>,
    settlement: Option<Settlement>,
    output_estimate: u64,
    is_at_end: bool,
    total_until: tokio::time::Instant,
    /// Given back when the answer has ended.
    leave: Option<Leave>,
}

impl Running {
    pub(super) fn new(
        reply: Reply,
        decoder: Box<dyn AnswerDecoder>,
        total_until: tokio::time::Instant,
    ) -> Self {
        Running {
            reply,
            decoder,
            queue: VecDeque::new(),
            wire: None,
            settlement: None,
            output_estimate: 0,
            is_at_end: false,
            total_until,
            leave: None,
        }
    }

    /// Passes on what the upstream sends, byte for byte.
    #[must_use]
    pub(super) fn passing_on(mut self) -> Self {
        self.wire = Some(BytesMut::new());
        self
    }

    /// Waits for the first event. A failure before it has done nothing that the client could have seen.
    pub(super) async fn first(&mut self) -> Result<(), Failure> {
        self.fill().await;
        match self.queue.front() {
            Some(Err(_)) => match self.queue.pop_front() {
                Some(Err(failure)) => Err(failure),
                _ => Err(Failure::cut_short()),
            },
            Some(Ok(_)) => Ok(()),
            None => Err(Failure::cut_short()),
        }
    }

    /// What the upstream has reported up to now.
    pub(super) fn usage_so_far(&self) -> Option<BilledUsage> {
        self.decoder.usage_so_far()
    }

    /// The answer as the service's events.
    pub(super) fn events(self) -> impl Stream<Item = Result<ChatEvent, ApiError>> + Send {
        stream::unfold(Some(self), |running| async move {
            let mut running = running?;
            let event = running.next().await;
            let is_last = matches!(event, Err(_) | Ok(ChatEvent::Done { .. }));
            Some((event, (!is_last).then_some(running)))
        })
    }

    async fn next(&mut self) -> Result<ChatEvent, ApiError> {
        self.fill().await;
        match self.queue.pop_front() {
            Some(Ok(Item::Wire(bytes))) => Ok(ChatEvent::Wire(bytes)),
            Some(Ok(Item::Event(AnswerEvent::Delta { choice, delta }))) => {
                self.output_estimate += match &delta {
                    Delta::Text { text, .. }
                    | Delta::Reasoning { text }
                    | Delta::Refusal { text } => estimate::text(text),
                    Delta::ReasoningSignature { .. } | Delta::StopSequence { .. } => 0,
                    Delta::ToolCallStart { name, .. } => estimate::text(name),
                    Delta::ToolCallArguments { fragment, .. } => estimate::text(fragment),
                };
                Ok(ChatEvent::Delta { choice, delta })
            }
            Some(Ok(Item::Event(AnswerEvent::Finish { choice, reason }))) => {
                Ok(ChatEvent::Finish { choice, reason })
            }
            Some(Ok(Item::Event(AnswerEvent::Done(end)))) => match self.settlement.take() {
                Some(settlement) => {
                    settlement.worker.breaker.succeeded();
                    Ok(settlement.done(end, self.output_estimate))
                }
                None => Err(ApiError::internal()),
            },
            Some(Err(failure)) => Err(self.fail(&failure)),
            None => Err(self.fail(&Failure::cut_short())),
        }
    }

    /// Waits until there is an event, or the end.
    async fn fill(&mut self) {
        while self.queue.is_empty() && !self.is_at_end {
            let has_begun = self.settlement.is_some();
            let chunk = async {
                match has_begun {
                    true => self.reply.chunk().await,
                    false => self.reply.first_chunk().await,
                }
            };
            let chunk = tokio::time::timeout_at(self.total_until, chunk)
                .await
                .unwrap_or_else(|_| {
                    Err(Failure::new(
                        holdfast_protocol::upstream::FailureKind::Timeout,
                        "the answer took too long",
                    ))
                });
            match chunk {
                Ok(Some(bytes)) => {
                    let events = self.decoder.push(&bytes);
                    if let Some(wire) = &mut self.wire {
                        wire.extend_from_slice(&bytes);
                    }
                    self.take(events);
                }
                Ok(None) => {
                    self.is_at_end = true;
                    let events = self.decoder.finish();
                    self.take(events);
                }
                Err(failure) => {
                    self.is_at_end = true;
                    self.queue.push_back(Err(failure));
                }
            }
        }
    }

    /// Queues events, and before them the bytes that they are in.
    fn take(&mut self, events: Vec<Result<AnswerEvent, Failure>>) {
        let is_good = events.iter().all(Result::is_ok);
        let has_begun = self.settlement.is_some() || !events.is_empty();
        if let Some(wire) = &mut self.wire
            && is_good
            && has_begun
            && !wire.is_empty()
        {
            let bytes = wire.split().freeze();
            self.queue.push_back(Ok(Item::Wire(bytes)));
        }
        self.queue
            .extend(events.into_iter().map(|event| event.map(Item::Event)));
    }

    fn fail(&mut self, failure: &Failure) -> ApiError {
        if let Some(settlement) = self.settlement.take() {
            let upstream = settlement.target.name().to_owned();
            settlement.worker.breaker.failed(failure);
            tracing::warn!(
                upstream,
                failure = failure.kind.as_str(),
                "an upstream's answer broke off"
            );
            settlement.broken(
                self.decoder.usage_so_far(),
                self.output_estimate,
                failure.kind.as_str(),
            );
        }
        let mut error = failure.to_api_error();
        // The client has seen a part of it; repeating is its own decision.
        error.should_retry = None;
        error
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(settlement) = self.settlement.take() {
            settlement.broken(
                self.decoder.usage_so_far(),
                self.output_estimate,
                "disconnected",
            );
        }
    }
}

impl Settlement {
    fn done(self, end: AnswerEnd, output_estimate: u64) -> ChatEvent {
        let AnswerEnd {
            usage,
            response_id,
            charged_usd,
            miss_reason,
            cache_reported,
        } = end;
        let (usage, mut source) = match usage {
            Some(usage) => (self.with_lifetimes(usage), Source::Provider),
            None => (self.estimated(output_estimate), Source::Estimate),
        };
        if usage.fresh_tokens().is_none() {
            tracing::warn!(
                upstream = self.target.name(),
                "an upstream reports more cached tokens than tokens; the numbers count as estimates"
            );
            source = Source::Estimate;
        }
        self.shared
            .events
            .upstream_usage(&self.target, "chat", &usage, source == Source::Provider);
        let money = self.money(&usage, charged_usd);
        self.bill(&usage, source, money.as_ref());
        let receipt = self.context.as_ref().map(|(context, sent)| {
            let facts = Facts {
                usage: &usage,
                source,
                miss_reason: miss_reason.filter(|reason| says_more(reason)),
                is_cache_reported: cache_reported,
            };
            let mut receipt = self.receipt(context, sent, facts);
            self.account(context, &usage, &receipt, money.as_ref());
            receipt.money = money.map(|money| self.with_making(sent, money));
            match (response_id, self.chain_expires_at) {
                (Some(name), Some(expires_at)) => self.shared.handles.chain(HandleRecord {
                    context: context.id.clone(),
                    project: context.project.clone(),
                    place: self.target.place.clone(),
                    name,
                    tokens: None,
                    turns: context.turn_count + 1,
                    dropped_messages: context.dropped_messages,
                    created_at: self.started_at,
                    expires_at,
                }),
                (Some(name), None) if self.target.rules.cache.diagnostics => {
                    let place = self.place();
                    self.shared.warmth.answered(&context.id, &place, name);
                }
                (Some(name), None) => self.discard(name),
                (None, _) => {}
            }
            receipt
        });
        ChatEvent::Done {
            usage: usage.to_usage(),
            receipt,
        }
    }

    /// Where the context's copy is.
    fn place(&self) -> String {
        self.target.place_at(&self.worker)
    }

    /// Drops an answer that the upstream keeps and nobody will continue from.
    fn discard(&self, name: String) {
        let (target, worker) = (Arc::clone(&self.target), Arc::clone(&self.worker));
        self.shared.tasks.spawn(async move {
            let Some(call) = target.dialect.encode_drop(&name) else {
                return;
            };
            if let Err(failure) = target.call_at(&worker, call).await {
                tracing::debug!(
                    upstream = target.name(),
                    failure = failure.kind.as_str(),
                    "an answer that the upstream keeps can't be dropped and ends by itself"
                );
            }
        });
    }

    /// Some providers report written tokens without their lifetime. What is written beside a hit is behind what was read:
    /// it is the turn's, not the context's.
    fn with_lifetimes(&self, usage: BilledUsage) -> BilledUsage {
        let is_told = self.target.upstream.options.dialect != UpstreamDialectName::OpenaiChat;
        match (&self.context, self.history_seconds) {
            (Some((context, _)), Some(seconds)) if !is_told && has_hit(context, &usage) => {
                BilledUsage {
                    cache_writes: CacheWrites::of(Some(seconds), usage.cache_writes.total()),
                    ..usage
                }
            }
            _ => usage,
        }
    }

    /// An answer that never got to its end: the upstream charges for it all the same.
    fn broken(self, usage: Option<BilledUsage>, output_estimate: u64, why: &str) {
        let estimated = self.estimated(output_estimate);
        let usage = match usage {
            Some(usage) => BilledUsage {
                output_tokens: usage.output_tokens.max(output_estimate),
                ..usage
            },
            None => estimated,
        };
        self.shared
            .events
            .upstream_usage(&self.target, "chat", &usage, false);
        let money = self.money(&usage, None);
        self.bill(&usage, Source::Estimate, money.as_ref());
        if let Some((context, sent)) = &self.context {
            let mut receipt = self.receipt(context, sent, Facts::estimated(&usage));
            receipt.reason = Some(why.to_owned());
            self.payer.entry.set_receipt(&receipt);
            self.account(context, &usage, &receipt, money.as_ref());
        }
    }

    fn estimated(&self, output_estimate: u64) -> BilledUsage {
        let mut usage = BilledUsage {
            input_tokens: self.input_estimate,
            output_tokens: output_estimate,
            ..BilledUsage::default()
        };
        let Some((context, sent)) = &self.context else {
            return usage;
        };
        let prefix_tokens = context.prefix_tokens.min(usage.input_tokens);
        let caching = self.target.rules.cache.caching;
        match sent {
            Sent::Degraded(_) => {}
            Sent::Handle { .. } => usage.cache_read_tokens = prefix_tokens,
            Sent::Whole { .. } if caching == Caching::Replay => {}
            Sent::Whole { cold_because: None } => usage.cache_read_tokens = prefix_tokens,
            Sent::Whole { .. } if caching == Caching::Breakpoint => {
                usage.cache_writes = CacheWrites::of(self.tier_seconds, prefix_tokens);
            }
            Sent::Whole { .. } => {}
        }
        usage
    }

    /// A request that reached the upstream and never came to an answer: it may be charged for all the same.
    fn wasted(self) {
        let usage = self.estimated(0);
        self.shared
            .events
            .upstream_usage(&self.target, "chat", &usage, false);
        let money = billing::spent(&self.shared, &self.target, &usage);
        self.bill(&usage, Source::Estimate, money.as_ref());
        let (Some((context, _)), Some(money)) = (&self.context, money) else {
            return;
        };
        let cost = trillionths(money.cost);
        self.shared.accounts.add(AccountChange {
            context: context.id.clone(),
            add: Account {
                input_tokens: usage.input_tokens,
                cache_read_tokens: usage.cache_read_tokens,
                cache_write_tokens: usage.cache_writes.total(),
                cost,
                saved: -cost,
                ..Account::default()
            },
            currency: money.currency,
            home: None,
            last_used_at: None,
        });
    }

    fn bill(&self, usage: &BilledUsage, source: Source, money: Option<&Money>) {
        let context = self.context.as_ref().map(|(context, _)| context);
        let charge = billing::charge(usage, source, money);
        billing::bill(&self.shared, &self.target, &self.payer, context, &charge);
    }

    /// What can be said when the answer begins, where that can't change any more.
    fn first_receipt(&self, usage: Option<BilledUsage>) -> Option<Receipt> {
        let (context, sent) = self.context.as_ref()?;
        match sent {
            // Some providers count the prompt before the answer (Anthropic); the others' counts come at the end.
            Sent::Whole { .. } => {
                let usage = usage.filter(|usage| usage.input_tokens > 0)?;
                let facts = Facts {
                    source: Source::Provider,
                    is_cache_reported: true,
                    ..Facts::estimated(&usage)
                };
                Some(self.receipt(context, sent, facts))
            }
            Sent::Handle { .. } | Sent::Degraded(_) => {
                let is_read = matches!(sent, Sent::Handle { .. });
                let usage = BilledUsage {
                    input_tokens: context.prefix_tokens,
                    cache_read_tokens: if is_read { context.prefix_tokens } else { 0 },
                    ..BilledUsage::default()
                };
                Some(self.receipt(context, sent, Facts::estimated(&usage)))
            }
        }
    }

    fn receipt(&self, context: &Context, sent: &Sent, facts: Facts<'_>) -> Receipt {
        let Facts {
            usage,
            source,
            miss_reason,
            is_cache_reported,
        } = facts;
        let rules = &self.target.rules;
        let read = usage.cache_read_tokens;
        let written = usage.cache_writes.total();
        let word = |word: &str| Some(word.to_owned());
        let is_small = u64::from(rules.cache.min_tokens) > usage.input_tokens;
        let has_hit = has_hit(context, usage);
        let (status, reason) = match sent {
            Sent::Degraded(reason) => (CacheStatus::Degraded, Some(reason.clone())),
            Sent::Handle {
                made_because: Some(reason @ "first_use"),
                ..
            } => (CacheStatus::Miss, word(reason)),
            Sent::Handle {
                made_because: Some(reason),
                ..
            } => (CacheStatus::Rebuilt, word(reason)),
            Sent::Handle { .. } if source == Source::Provider && read == 0 => {
                (CacheStatus::Miss, miss_reason.or_else(|| word("not_read")))
            }
            Sent::Handle { .. } => (CacheStatus::Hit, None),
            Sent::Whole { .. } if has_hit => (CacheStatus::Hit, None),
            Sent::Whole { .. } if rules.cache.caching == Caching::Replay => {
                (CacheStatus::Degraded, word("no_cache"))
            }
            Sent::Whole { .. } if source != Source::Provider => {
                (CacheStatus::Degraded, word("usage_missing"))
            }
            Sent::Whole { .. } if !is_cache_reported && rules.quirks.cached_tokens_optional => {
                (CacheStatus::Degraded, word("not_reported"))
            }
            Sent::Whole { .. } if is_small => (CacheStatus::Degraded, word("below_minimum")),
            Sent::Whole { .. } if written == 0 && rules.cache.caching == Caching::Breakpoint => {
                (CacheStatus::Degraded, word("not_cached"))
            }
            Sent::Whole {
                cold_because: Some(reason @ "first_use"),
            } => (CacheStatus::Miss, word(reason)),
            Sent::Whole {
                cold_because: Some(reason),
            } => (CacheStatus::Rebuilt, miss_reason.or_else(|| word(reason))),
            Sent::Whole { cold_because: None } if written > 0 => (
                CacheStatus::Rebuilt,
                miss_reason.or_else(|| word("evicted")),
            ),
            Sent::Whole { cold_because: None } => {
                (CacheStatus::Miss, miss_reason.or_else(|| word("evicted")))
            }
        };
        if let Sent::Whole { .. } = sent
            && !has_hit
            && source == Source::Provider
            && written == 0
        {
            self.shared.warmth.lost(&context.id, &self.place());
        }
        Receipt {
            context_id: context.id.clone(),
            status,
            reason,
            tier: None,
            prefix_tokens: context.prefix_tokens.max(read),
            cached_tokens: read,
            written_tokens: written,
            source,
            first_token_ms: self.first_token_ms,
            upstream: Some(self.target.name().to_owned()),
            money: None,
            origin: None,
        }
    }

    /// What the answer itself cost and saved.
    fn money(&self, usage: &BilledUsage, charged_usd: Option<Decimal>) -> Option<Money> {
        let money = billing::priced(&self.shared, &self.target, usage)?;
        Some(match charged_usd {
            Some(charged) if money.currency == "USD" => Money {
                saved: money.saved + money.cost - charged,
                cost: charged,
                source: Source::Provider,
                ..money
            },
            _ => money,
        })
    }

    /// The same with what making a handle in this request cost.
    fn with_making(&self, sent: &Sent, money: Money) -> Money {
        let making = self.making(sent);
        Money {
            cost: money.cost + making,
            saved: money.saved - making,
            ..money
        }
    }

    /// What making a handle in this request cost. It was put on the account, and in the ledger, when the handle was made.
    fn making(&self, sent: &Sent) -> Decimal {
        match (sent, self.target.price(&self.shared)) {
            (
                Sent::Handle {
                    made: Some(made), ..
                },
                Some(price),
            ) => price.cost(made),
            _ => Decimal::ZERO,
        }
    }

    fn account(
        &self,
        context: &Context,
        usage: &BilledUsage,
        receipt: &Receipt,
        money: Option<&Money>,
    ) {
        let count = |status| u64::from(receipt.status == status);
        self.shared.accounts.add(AccountChange {
            context: context.id.clone(),
            add: Account {
                requests: 1,
                hits: count(CacheStatus::Hit),
                rebuilds: count(CacheStatus::Rebuilt),
                misses: count(CacheStatus::Miss),
                degraded: count(CacheStatus::Degraded),
                input_tokens: usage.input_tokens,
                cache_read_tokens: usage.cache_read_tokens,
                cache_write_tokens: usage.cache_writes.total(),
                output_tokens: usage.output_tokens,
                cost: money.map_or(0, |money| trillionths(money.cost)),
                saved: money.map_or(0, |money| trillionths(money.saved)),
                ..Account::default()
            },
            currency: money
                .map(|money| money.currency.clone())
                .unwrap_or_default(),
            home: Some(self.place()),
            last_used_at: Some((self.shared.clock)()),
        });
    }
}

/// Whether a provider's word for a miss explains anything: what follows a context changes with each question.
fn says_more(reason: &str) -> bool {
    !matches!(reason, "messages_changed" | "input_changed")
}

/// Whether what was read is the context and not only what all prompts share. The context's size may be an estimate of ours,
/// the prompt's is the upstream's own count.
fn has_hit(context: &Context, usage: &BilledUsage) -> bool {
    let read = usage.cache_read_tokens;
    read > 0 && read >= context.initial_tokens.min(usage.input_tokens) / HIT_SHARE
}
