//! What is sent for a context: its handle, or the whole prefix with markers, keys and salts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_protocol::ApiError;
use holdfast_protocol::chat::ToolChoice;
use holdfast_protocol::compose::ComposedRequest;
use holdfast_protocol::context::{Context, ContextMode};
use holdfast_protocol::provider::{CacheRules, Caching, ModelRules, UpstreamDialectName};
use holdfast_protocol::upstream::{
    Chain, EncodedPrefix, Failure, FailureKind, HandleUse, HoldCall, Markers,
};
use holdfast_protocol::usage::{BilledUsage, Source};
use holdfast_store::{Account, AccountChange, HandleRecord};
use tokio::sync::OwnedMutexGuard;

use super::{Refusal, own_words};
use crate::backend::{ChatWork, PrefixContent};
use crate::ledger::Entry;
use crate::upstream::accounts::trillionths;
use crate::upstream::answer::Sent;
use crate::upstream::billing;
use crate::upstream::handles::Ensured;
use crate::upstream::pool::Worker;
use crate::upstream::warmth::{Standing, UseKind};
use crate::upstream::{Isolation, Shared, Target, UpstreamPrefix};

/// How long an upstream may keep an answer that nobody will continue from, seconds: Ark charges whole hours.
const UNCHAINED_SECONDS: i64 = 3_600;

/// Everything about a chat at one upstream that depends on its context.
pub(super) struct Plan {
    pub(super) prefix: Option<Arc<UpstreamPrefix>>,
    pub(super) encoded: Option<Arc<EncodedPrefix>>,
    pub(super) handle: Option<HandleRecord>,
    pub(super) chain: Option<Chain>,
    /// Whether the answer becomes the session's next handle.
    pub(super) is_chained: bool,
    /// In place of the target's own, where the upstream has refused its caching.
    pub(super) rules: Option<ModelRules>,
    pub(super) cache_key: Option<String>,
    pub(super) salt: Option<String>,
    pub(super) tier_seconds: Option<u32>,
    /// The lifetime of markers at the ends of turns.
    pub(super) history_seconds: Option<u32>,
    /// The context's last answer there, where its rules want it.
    pub(super) previous_answer: Option<String>,
    pub(super) sent: Sent,
    /// In place of the composed request, where the upstream refuses the seals in it.
    pub(super) unsealed: Option<ComposedRequest>,
    /// Keeps others waiting until the first answer has begun.
    first: Option<OwnedMutexGuard<()>>,
}

impl Plan {
    pub(super) async fn new(
        shared: &Arc<Shared>,
        target: &Arc<Target>,
        worker: &Worker,
        work: &ChatWork,
        home: Option<&str>,
    ) -> Result<Self, Refusal> {
        let is_isolated = target.upstream.options.isolation == Isolation::Project;
        let tenant = if is_isolated {
            work.project.as_str()
        } else {
            ""
        };
        let mut plan = Plan {
            prefix: None,
            encoded: None,
            handle: None,
            chain: None,
            is_chained: false,
            rules: None,
            cache_key: target
                .rules
                .cache
                .key
                .map(|_| shared.tenants.project_key(tenant)),
            salt: target.rules.cache.salt.map(|_| shared.tenants.salt(tenant)),
            tier_seconds: None,
            history_seconds: None,
            previous_answer: None,
            sent: Sent::Degraded("no_context".to_owned()),
            unsealed: None,
            first: None,
        };
        plan.prepare(shared, target, worker, work, home, tenant)
            .await?;
        let refuses_seals = target.learnt.refuses_seals_until.load(Ordering::Relaxed);
        if (shared.clock)() < refuses_seals && plan.can_unseal(target, work) {
            plan.unseal(shared, target, work)?;
        }
        Ok(plan)
    }

    /// What the context needs there.
    async fn prepare(
        &mut self,
        shared: &Arc<Shared>,
        target: &Arc<Target>,
        worker: &Worker,
        work: &ChatWork,
        home: Option<&str>,
        tenant: &str,
    ) -> Result<(), Refusal> {
        let Some(part) = &work.prefix else {
            return Ok(());
        };
        let context = &part.context;
        let stored = part.prepared.upstream().map_err(Refusal::Inexpressible)?;
        let prefix = if work.composed.dropped_messages == context.dropped_messages {
            Arc::clone(stored)
        } else {
            Arc::new(trimmed(stored, work))
        };
        self.encoded =
            Some(encode(shared, target, context, &prefix).map_err(Refusal::Inexpressible)?);
        self.cache_key = self
            .cache_key
            .take()
            .map(|_| shared.tenants.key(tenant, context));
        self.tier_seconds = target.rules.cache.tier_for(context.ttl_seconds);
        self.history_seconds = markers(target, context, &prefix).history_seconds;
        self.prefix = Some(Arc::clone(&prefix));
        let place = target.place_at(worker);
        let failover = home.is_some_and(|home| home != place);
        match target.rules.cache.caching {
            Caching::Handle => {
                self.use_handle(shared, target, work, context, &prefix, failover)
                    .await?;
            }
            Caching::Breakpoint | Caching::Automatic
                if (shared.clock)() < target.learnt.refuses_until.load(Ordering::Relaxed) =>
            {
                self.send_plain(shared, target, work, FailureKind::MarkerRefused.as_str())?;
            }
            Caching::Breakpoint | Caching::Automatic => {
                let now = (shared.clock)();
                let (cold_because, first) =
                    match shared.warmth.enter(&context.id, &place, now).await {
                        Standing::Warm { is_used: true } => (None, None),
                        // Made with the context; some caches know it only once a second request has shown what is shared.
                        Standing::Warm { is_used: false } => (Some("first_use"), None),
                        Standing::Expired(guard) => (Some("expired"), guard),
                        Standing::Unknown(guard) if failover => (Some("failover"), guard),
                        // Known from before a restart, so that what happened to the entry can't be told.
                        Standing::Unknown(guard) if home.is_some() => (Some("expired"), guard),
                        Standing::Unknown(guard) => (Some("first_use"), guard),
                    };
                self.first = first;
                if target.rules.cache.diagnostics {
                    self.previous_answer = shared.warmth.last_answer(&context.id, &place);
                }
                self.sent = Sent::Whole { cold_because };
            }
            Caching::Replay => self.sent = Sent::Whole { cold_because: None },
        }
        Ok(())
    }

    /// Whether there are seals that can be left out.
    pub(super) fn can_unseal(&self, target: &Target, work: &ChatWork) -> bool {
        self.unsealed.is_none() && own_words(target, work).is_none() && work.composed.has_seals()
    }

    /// Sends everything without the seals on reasoning: they are of another account or region.
    pub(super) fn unseal(
        &mut self,
        shared: &Shared,
        target: &Target,
        work: &ChatWork,
    ) -> Result<(), Refusal> {
        let unsealed = work.composed.without_seals();
        if let (Some(part), Some(prefix)) = (&work.prefix, &self.prefix) {
            let prefix = Arc::new(prefix.without_seals());
            self.prefix = Some(Arc::clone(&prefix));
            self.encoded = Some(
                match &self.sent {
                    Sent::Degraded(_) => plain(shared, target, work, &prefix),
                    _ => encode(shared, target, &part.context, &prefix),
                }
                .map_err(Refusal::Inexpressible)?,
            );
        }
        self.unsealed = Some(unsealed);
        Ok(())
    }

    async fn use_handle(
        &mut self,
        shared: &Arc<Shared>,
        target: &Arc<Target>,
        work: &ChatWork,
        context: &Context,
        prefix: &Arc<UpstreamPrefix>,
        failover: bool,
    ) -> Result<(), Refusal> {
        if let Some(reason) = unfit_for_handle(work, context) {
            return self.send_plain(shared, target, work, reason);
        }
        match shared
            .handles
            .ensure(shared, context, target, prefix, None, &work.entry)
            .await
        {
            Ok(ensured) => self.take(ensured, |again| {
                if failover {
                    "failover"
                } else if again {
                    "expired"
                } else {
                    "first_use"
                }
            }),
            Err(failure) if failure.kind == FailureKind::PrefixTooSmall => {
                return self.send_plain(shared, target, work, "below_minimum");
            }
            // Whatever keeps the copy from being made, the gateway has the messages.
            Err(failure) if !failure.kind.allows_fallback() => {
                return self.send_plain(shared, target, work, failure.kind.as_str());
            }
            Err(failure) => return Err(Refusal::Failed(failure)),
        }
        if target.upstream.options.dialect == UpstreamDialectName::ArkResponses
            && let Some(handle) = &self.handle
        {
            // Ark keeps every answer that continues from a handle. A session goes on from it; others drop it at once,
            // and this bounds what is left over if that fails.
            self.is_chained = context.mode == ContextMode::Session;
            let now_seconds = (shared.clock)().div_euclid(1000);
            self.chain = Some(Chain {
                expires_at_seconds: if self.is_chained {
                    handle.expires_at.div_euclid(1000)
                } else {
                    now_seconds + UNCHAINED_SECONDS
                },
            });
        }
        Ok(())
    }

    fn take(&mut self, ensured: Ensured, why: impl FnOnce(bool) -> &'static str) {
        let Ensured { record, made } = ensured;
        self.sent = Sent::Handle {
            made: made.and_then(|made| made.usage),
            made_because: made.map(|made| why(made.again)),
        };
        self.handle = Some(record);
    }

    /// After the upstream has said that the handle is gone. Answers whether a new one was made.
    pub(super) async fn rebuild(
        &mut self,
        shared: &Arc<Shared>,
        target: &Arc<Target>,
        work: &ChatWork,
    ) -> Result<bool, Refusal> {
        let (Some(record), Some(part), Some(prefix)) =
            (self.handle.take(), &work.prefix, &self.prefix)
        else {
            return Ok(false);
        };
        shared.storage.ends(shared, target, &record).await;
        shared.handles.lost(&record).await;
        let ensured = shared
            .handles
            .ensure(
                shared,
                &part.context,
                target,
                prefix,
                Some(&record.name),
                &work.entry,
            )
            .await?;
        let is_new = ensured.made.is_some();
        if is_new {
            refund_storage(shared, target, &part.context, &record);
        }
        self.take(ensured, |_| "handle_gone");
        // Another caller may have rebuilt it; for this one it was gone all the same.
        if let Sent::Handle { made_because, .. } = &mut self.sent {
            *made_because = Some("handle_gone");
        }
        Ok(is_new)
    }

    /// Whether the same can be sent without caching.
    pub(super) fn can_degrade(&self) -> bool {
        self.prefix.is_some() && !matches!(self.sent, Sent::Degraded(_))
    }

    /// Sends the whole prefix from here on, without any cache.
    pub(super) fn degrade(&mut self, reason: &str) {
        self.handle = None;
        self.chain = None;
        self.first = None;
        self.sent = Sent::Degraded(reason.to_owned());
    }

    /// The upstream has refused a handle, a marker or another field of caching: sends the prefix without any of them.
    pub(super) fn send_plain(
        &mut self,
        shared: &Shared,
        target: &Target,
        work: &ChatWork,
        reason: &str,
    ) -> Result<(), Refusal> {
        self.degrade(reason);
        self.tier_seconds = None;
        self.previous_answer = None;
        self.rules = Some(ModelRules {
            cache: CacheRules::replay(),
            quirks: target.rules.quirks.clone(),
        });
        if let Some(prefix) = &self.prefix {
            let plain = plain(shared, target, work, prefix);
            self.encoded = Some(plain.map_err(Refusal::Inexpressible)?);
        }
        Ok(())
    }

    /// How the handle is used.
    pub(super) fn handle_use(&self) -> Option<HandleUse<'_>> {
        self.handle.as_ref().map(|record| HandleUse {
            name: &record.name,
            with_history: record.turns > 0,
        })
    }
}

/// The prefix rendered without markers. Without a field that separates tenants a line has to.
fn plain(
    shared: &Shared,
    target: &Target,
    work: &ChatWork,
    prefix: &UpstreamPrefix,
) -> Result<Arc<EncodedPrefix>, ApiError> {
    let is_isolated = target.upstream.options.isolation == Isolation::Project;
    let line = is_isolated.then(|| shared.tenants.line(&work.project));
    prefix.encode(target, Markers::default(), line.as_deref())
}

/// The prefix rendered for `target`, with markers where it wants them.
pub(super) fn encode(
    shared: &Shared,
    target: &Target,
    context: &Context,
    prefix: &UpstreamPrefix,
) -> Result<Arc<EncodedPrefix>, ApiError> {
    let line = target
        .needs_tenant_line()
        .then(|| shared.tenants.line(&context.project));
    prefix.encode(target, markers(target, context, prefix), line.as_deref())
}

/// A marker at the end of the initial messages for as long as the context wants, and for sessions one that moves with
/// the turns and need not last longer than the shortest lifetime there is.
fn markers(target: &Target, context: &Context, prefix: &UpstreamPrefix) -> Markers {
    let cache = &target.rules.cache;
    if cache.caching != Caching::Breakpoint {
        return Markers::default();
    }
    let initial = cache.tier_for(context.ttl_seconds);
    let history = match context.mode {
        _ if prefix.content().history.is_empty() => None,
        ContextMode::Session => cache.tiers_seconds.first().copied(),
        ContextMode::CommonPrefix => initial,
    };
    Markers {
        initial_seconds: initial,
        history_seconds: history,
    }
}

/// What truncation leaves of the history by this very request.
fn trimmed(stored: &UpstreamPrefix, work: &ChatWork) -> UpstreamPrefix {
    let content = stored.content();
    UpstreamPrefix::new(PrefixContent {
        project: content.project.clone(),
        initial: content.initial.clone(),
        history: work.composed.history().cloned().collect(),
        previous_history: 0,
        tools: content.tools.clone(),
        tool_choice: content.tool_choice.clone(),
        rendered_at: content.rendered_at,
    })
}

/// A handle fixes tools and tool choice; a request that wants others is sent whole.
fn unfit_for_handle(work: &ChatWork, context: &Context) -> Option<&'static str> {
    let stored_choice = context.tool_choice.clone().unwrap_or(ToolChoice::Auto);
    if work.composed.tools != context.tools {
        Some("tools_differ")
    } else if !context.tools.is_empty() && work.composed.tool_choice != stored_choice {
        Some("tool_choice_differs")
    } else {
        None
    }
}

/// Makes `target`, or one worker of it, hold the prefix, by a handle or by a request that writes its cache. Answers with the prefix's size by
/// the upstream's count, where there is one.
pub(super) async fn hold(
    shared: &Arc<Shared>,
    target: &Arc<Target>,
    worker: &Worker,
    context: &Context,
    prefix: &Arc<UpstreamPrefix>,
    use_kind: UseKind,
    entry: &Entry,
) -> Result<Option<u64>, Failure> {
    if target.rules.cache.caching == Caching::Handle {
        let ensured = shared
            .handles
            .ensure(shared, context, target, prefix, None, entry)
            .await?;
        return Ok(ensured.record.tokens);
    }
    let encoded = encode(shared, target, context, prefix)
        .map_err(|error| Failure::new(FailureKind::InvalidRequest, &error.message))?;
    let started_at = (shared.clock)();
    let tier_seconds = target.rules.cache.tier_for(context.ttl_seconds);
    let ttl_seconds = tier_seconds.unwrap_or(context.ttl_seconds);
    let isolated = target.upstream.options.isolation == Isolation::Project;
    let tenant = if isolated {
        context.project.as_str()
    } else {
        ""
    };
    let cache_key = shared.tenants.key(tenant, context);
    let salt = shared.tenants.salt(tenant);
    let call = target
        .dialect
        .encode_hold(&HoldCall {
            model: &target.model,
            prefix: &encoded,
            tool_choice: prefix.content().tool_choice.as_ref(),
            ttl_seconds,
            expires_at_seconds: started_at.div_euclid(1000) + i64::from(ttl_seconds),
            cache_key: target.rules.cache.key.map(|_| cache_key.as_str()),
            salt: target.rules.cache.salt.map(|_| salt.as_str()),
            tier_seconds,
            rules: &target.rules,
        })
        .map_err(|error| Failure::new(FailureKind::InvalidRequest, &error.message))?;
    let Some(call) = call else { return Ok(None) };
    let body = target.call_at(worker, call).await?;
    let held = target
        .dialect
        .decode_hold(&body, &target.rules_for(tier_seconds))?;
    shared
        .warmth
        .refreshed(context, target, worker, prefix, started_at, use_kind);
    if let Some(usage) = &held.usage {
        let kind = if use_kind == UseKind::Ping {
            "ping"
        } else {
            "prewarm"
        };
        shared.events.upstream_usage(target, kind, usage, true);
    }
    charge(
        shared,
        target,
        context,
        held.usage.as_ref(),
        use_kind,
        &target.place_at(worker),
        entry,
    );
    Ok(held.prefix_tokens)
}

/// Puts what a new handle costs on the context's account, whoever asked for it.
pub(in crate::upstream) fn charge_handle(
    shared: &Shared,
    target: &Target,
    context: &Context,
    record: &HandleRecord,
    usage: Option<&BilledUsage>,
    entry: &Entry,
) {
    let place = &target.place;
    charge(
        shared,
        target,
        context,
        usage,
        UseKind::Create,
        place,
        entry,
    );
    charge_storage(shared, target, context, record);
    shared.storage.made(context, record);
}

/// Puts what a hold call cost on the context's account and in the ledger.
fn charge(
    shared: &Shared,
    target: &Target,
    context: &Context,
    usage: Option<&BilledUsage>,
    use_kind: UseKind,
    place: &str,
    entry: &Entry,
) {
    let currency = target
        .price(shared)
        .map(|price| price.currency.to_string())
        .unwrap_or_default();
    let money = usage.and_then(|usage| billing::spent(shared, target, usage));
    let cost = money.as_ref().map_or(0, |money| trillionths(money.cost));
    let is_ping = use_kind == UseKind::Ping;
    if let Some(usage) = usage {
        let charge = billing::charge(usage, Source::Provider, money.as_ref());
        billing::bill_copy(shared, target, entry, context, is_ping, &charge);
    }
    let usage = usage.copied().unwrap_or_default();
    let change = AccountChange {
        context: context.id.clone(),
        add: Account {
            input_tokens: usage.input_tokens,
            cache_read_tokens: usage.cache_read_tokens,
            cache_write_tokens: usage.cache_writes.total(),
            output_tokens: usage.output_tokens,
            pings: u64::from(is_ping),
            cost,
            ping_cost: if is_ping { cost } else { 0 },
            saved: -cost,
            ..Account::default()
        },
        currency,
        home: (!is_ping).then(|| place.to_owned()),
        last_used_at: None,
    };
    if is_ping {
        shared.accounts.add(change);
    } else {
        shared.accounts.add_early(change);
    }
}

/// Storage is charged for the whole life that was asked for; what an earlier end saves is taken back then.
fn charge_storage(shared: &Shared, target: &Target, context: &Context, record: &HandleRecord) {
    add_storage(
        shared,
        target,
        context,
        record.tokens.unwrap_or(context.prefix_tokens),
        record.expires_at - record.created_at,
    );
}

/// What is known to have ended before its time is not stored any more.
fn refund_storage(shared: &Shared, target: &Target, context: &Context, record: &HandleRecord) {
    let tokens = record.tokens.unwrap_or(context.prefix_tokens);
    let left = record.expires_at - (shared.clock)();
    add_storage(shared, target, context, tokens, -left.max(0));
}

/// Adds the storage of `tokens` for `ms` milliseconds (negative: takes it back).
pub(super) fn add_storage(
    shared: &Shared,
    target: &Target,
    context: &Context,
    tokens: u64,
    ms: i64,
) {
    let Some(price) = target.price(shared) else {
        return;
    };
    let cost = trillionths(price.storage(tokens, ms.unsigned_abs()));
    let cost = if ms < 0 { -cost } else { cost };
    if cost == 0 {
        return;
    }
    shared.accounts.add_early(AccountChange {
        context: context.id.clone(),
        add: Account {
            storage_cost: cost,
            saved: -cost,
            ..Account::default()
        },
        currency: price.currency.to_string(),
        home: None,
        last_used_at: None,
    });
}
