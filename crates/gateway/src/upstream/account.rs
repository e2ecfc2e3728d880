//! One upstream account, and one model on it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::HEXLOWER;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::dialect;
use holdfast_protocol::price::{Currency, Decimal, Price, ReadKind};
use holdfast_protocol::provider::{
    Caching, Marker, ModelRules, RawPath, RequestField, UpstreamDialectName,
};
use holdfast_protocol::upstream::UpstreamDialect;
use holdfast_protocol::usage::BilledUsage;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex as AsyncMutex;

use super::options::{Credentials, UpstreamOptions};
use super::pool::{Pool, Worker};
use super::{Isolation, Shared};
use crate::app::Clock;

/// What every provider with markers allows at least.
const MARKERS_MAX: u8 = 4;
/// The lifetime that every provider with markers has, seconds.
const SHORTEST_TIER_SECONDS: u32 = 300;

/// A day, milliseconds.
const DAY_MS: i64 = 86_400_000;

/// One configured upstream.
pub(crate) struct Upstream {
    pub(crate) options: UpstreamOptions,
    pub(crate) pool: Arc<Pool>,
    /// Tells accounts apart without telling the key.
    fingerprint: String,
}

/// One model on one upstream.
pub(crate) struct Target {
    pub(crate) upstream: Arc<Upstream>,
    /// What the upstream calls it.
    pub(crate) model: String,
    pub(crate) priority: u32,
    pub(crate) weight: u32,
    pub(crate) rules: ModelRules,
    pub(crate) dialect: &'static dyn UpstreamDialect,
    /// Names account, region and model in one word: what copies are tied to.
    pub(crate) place: String,
    /// What it costs, and on which day since 1970.
    price: Mutex<Option<(i64, Option<Arc<Priced>>)>>,
    /// Shared with what it becomes after a reload.
    pub(super) learnt: Arc<Learnt>,
}

/// What is learnt of a target while it is used, and outlives a reload that leaves its upstream as it is.
pub(super) struct Learnt {
    /// Names its renderings of prefixes; unique in this process.
    pub(super) id: usize,
    /// Until when its refusal of markers is remembered, Unix milliseconds.
    pub(super) refuses_until: AtomicI64,
    /// The same for seals on reasoning.
    pub(super) refuses_seals_until: AtomicI64,
    /// Held by a round of pings, so that two at once do not both send the same.
    pub(super) pinging: AsyncMutex<()>,
    /// Held by a round of dropping copies.
    pub(super) dropping: AsyncMutex<()>,
}

impl Default for Learnt {
    fn default() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Learnt {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            refuses_until: AtomicI64::new(0),
            refuses_seals_until: AtomicI64::new(0),
            pinging: AsyncMutex::default(),
            dropping: AsyncMutex::default(),
        }
    }
}

impl Upstream {
    /// `before` is what had its name until now.
    pub(super) fn new(
        options: UpstreamOptions,
        clock: &Clock,
        before: Option<&Upstream>,
    ) -> Result<Self, String> {
        let before = before.map(|before| (&before.options, &*before.pool));
        let pool = Pool::new(&options, clock, before)?;
        let secret = match &options.credentials {
            Credentials::None => "",
            Credentials::Key(key) | Credentials::GoogleServiceAccount(key) => key.expose(),
            Credentials::Aws { access_key_id, .. } => access_key_id,
        };
        let fingerprint = HEXLOWER.encode(&Sha256::digest(secret.as_bytes())[..6]);
        Ok(Upstream {
            pool,
            fingerprint,
            options,
        })
    }
}

impl Target {
    /// `min_tokens` is the smallest cached prefix by the catalog, which the upstream's own setting overrides.
    pub(crate) fn new(
        upstream: &Arc<Upstream>,
        model: &str,
        priority: u32,
        weight: u32,
        min_tokens: Option<u32>,
    ) -> Self {
        let options = &upstream.options;
        let mut rules = (options.provider.rules)(options.dialect, model);
        if let Some(parent) = &mut rules.quirks.vertex_parent {
            *parent = parent
                .replace("{project}", &options.project)
                .replace("{region}", &options.region);
        }
        let overrides = &options.cache;
        let cache = &mut rules.cache;
        if let Some(caching) = overrides.caching {
            cache.caching = caching;
            if caching == Caching::Breakpoint && cache.marker.is_none() {
                // Models that the provider's rules do not know by name (an inference profile's ARN).
                cache.marker = Some(match options.dialect {
                    UpstreamDialectName::BedrockConverse => Marker::CachePoint,
                    UpstreamDialectName::OpenaiResponses => Marker::PromptCacheBreakpoint,
                    _ => Marker::CacheControl,
                });
                cache.markers_max = MARKERS_MAX;
                cache.tiers_seconds = vec![SHORTEST_TIER_SECONDS];
            }
        }
        if let Some(min_tokens) = overrides.min_tokens.or(min_tokens) {
            cache.min_tokens = min_tokens;
        }
        if let Some(tiers) = &overrides.tiers_seconds {
            cache.tiers_seconds.clone_from(tiers);
        }
        if let Some(seconds) = overrides.handle_seconds_max {
            cache.handle_seconds_max = seconds;
        }
        if let Some(diagnostics) = overrides.diagnostics {
            cache.diagnostics = diagnostics;
        }
        if let Some(prewarm) = overrides.prewarm {
            cache.prewarm = prewarm;
        }
        Target {
            place: format!(
                "{}|{}|{}|{model}",
                options.name, options.region, upstream.fingerprint
            ),
            upstream: Arc::clone(upstream),
            model: model.to_owned(),
            priority,
            weight,
            rules,
            dialect: dialect::upstream(options.dialect),
            price: Mutex::default(),
            learnt: Arc::default(),
        }
    }

    /// Whether what one has learnt, and its renderings, hold for the other.
    pub(crate) fn is_like(&self, other: &Target) -> bool {
        Arc::ptr_eq(&self.upstream, &other.upstream)
            && self.model == other.model
            && self.rules.cache.min_tokens == other.rules.cache.min_tokens
    }

    /// With what another one has learnt that was there before a reload.
    pub(crate) fn after(mut self, before: &Target) -> Self {
        self.learnt = Arc::clone(&before.learnt);
        self
    }

    /// The rules with the lifetime that a request asks for as the only one: providers that report written tokens without
    /// their lifetime mean this one.
    pub(crate) fn rules_for(&self, tier_seconds: Option<u32>) -> Cow<'_, ModelRules> {
        match tier_seconds {
            Some(seconds) if self.rules.cache.tiers_seconds.len() > 1 => {
                let mut rules = self.rules.clone();
                rules.cache.tiers_seconds = vec![seconds];
                Cow::Owned(rules)
            }
            _ => Cow::Borrowed(&self.rules),
        }
    }

    /// Name of the upstream.
    pub(crate) fn name(&self) -> &str {
        &self.upstream.options.name
    }

    /// The place where a worker keeps its copies: each has a cache of its own.
    pub(super) fn place_at(&self, worker: &Worker) -> String {
        self.place_of(&worker.name)
    }

    /// The same by the worker's name.
    pub(super) fn place_of(&self, worker: &str) -> String {
        match self.upstream.pool.is_fleet {
            true => format!("{}{WORKER_MARK}{worker}", self.place),
            false => self.place.clone(),
        }
    }

    /// Whether `place` is here, at whichever worker.
    pub(super) fn is_home(&self, place: &str) -> bool {
        is_within(place, &self.place)
    }

    /// Whether it has this endpoint beside chat.
    pub(crate) fn has(&self, path: RawPath) -> bool {
        let options = &self.upstream.options;
        let list = options.raw.as_deref().unwrap_or(options.provider.raw);
        list.contains(&path)
    }

    /// Whether tenants are kept apart by a line before the context's first text.
    pub(crate) fn needs_tenant_line(&self) -> bool {
        let cache = &self.rules.cache;
        // Elsewhere the key only routes, and requests of others may be routed to the same place (facts 2.1, 5.6).
        let key_separates = cache.marker == Some(Marker::PromptCacheBreakpoint)
            && cache.key == Some(RequestField::Body("prompt_cache_key"));
        let has_field = cache.salt.is_some() || key_separates;
        self.upstream.options.isolation == Isolation::Project
            && !has_field
            // A handle has a name that nobody else knows, and without caching there is nothing to share.
            && matches!(cache.caching, Caching::Breakpoint | Caching::Automatic)
    }
}

impl Target {
    /// What the model costs here now; `None` where the catalog does not say.
    pub(super) fn price(&self, shared: &Shared) -> Option<Arc<Priced>> {
        let now = (shared.clock)();
        // Prices are of days.
        let day = now.div_euclid(DAY_MS);
        let mut known = self.price.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((known_day, price)) if *known_day == day => price.clone(),
            _ => {
                let price = self.find_price(shared, now).map(Arc::new);
                *known = Some((day, price.clone()));
                price
            }
        }
    }

    /// What tokens cost here, by the price as it was last looked up; `None` where there is none.
    pub(crate) fn spent(&self, usage: &BilledUsage) -> Option<Spent> {
        let known = self.price.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, price) = known.as_ref()?;
        let price = price.as_ref()?;
        let cost = price.cost(usage);
        Some(Spent {
            currency: price.currency.to_string(),
            saved: price.baseline(usage) - cost,
            cost,
        })
    }

    /// Looks the price up, so that [`Target::spent`] knows one from the first request on.
    pub(crate) fn priced(self, shared: &Shared) -> Self {
        self.price(shared);
        self
    }

    fn find_price(&self, shared: &Shared, now: UnixMillis) -> Option<Priced> {
        let provider = self.upstream.options.provider.name;
        let find = |provider: &str, model: &str| shared.catalog.find(provider, model, now);
        let row = find(provider, &self.model).or_else(|| {
            let (vendor, model) = self.model.split_once('/')?;
            find(vendor_provider(vendor)?, model)
        })?;
        let price = row.price.clone();
        let reads = match self.rules.cache.caching {
            Caching::Handle | Caching::Breakpoint => ReadKind::Explicit,
            Caching::Automatic | Caching::Replay => ReadKind::Implicit,
        };
        Some(Priced {
            currency: price.currency,
            price,
            reads,
        })
    }
}

/// Between a target's place and a worker's name.
const WORKER_MARK: &str = "|@";

/// Whether `place` is a target's place or that of one of its workers.
pub(super) fn is_within(place: &str, of_target: &str) -> bool {
    let rest = place.strip_prefix(of_target);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(WORKER_MARK))
}

/// Whether `place` is at this worker of an upstream.
pub(super) fn is_at_worker(place: &str, upstream: &str, worker: &str) -> bool {
    let rest = place.strip_prefix(upstream);
    let at = place.rsplit_once(WORKER_MARK).map(|(_, at)| at);
    rest.is_some_and(|rest| rest.starts_with('|')) && at == Some(worker)
}

/// What a request cost.
pub(crate) struct Spent {
    /// Of both amounts.
    pub(crate) currency: String,
    pub(crate) cost: Decimal,
    /// Against the same tokens without a cache; negative where writing one cost more.
    pub(crate) saved: Decimal,
}

/// A price as it applies to one target.
pub(super) struct Priced {
    pub(super) currency: Currency,
    pub(super) price: Price,
    reads: ReadKind,
}

impl Priced {
    pub(super) fn cost(&self, usage: &BilledUsage) -> Decimal {
        self.price.cost(usage, self.reads)
    }

    pub(super) fn baseline(&self, usage: &BilledUsage) -> Decimal {
        self.price.baseline(usage)
    }

    pub(super) fn storage(&self, tokens: u64, milliseconds: u64) -> Decimal {
        self.price.storage(tokens, milliseconds)
    }

    /// The most that so many tokens can cost: none is read from a cache, and all input is written at the dearest rate.
    pub(super) fn most(&self, input_tokens: u64, output_tokens: u64) -> (Currency, Decimal) {
        let rates = self.price.rates_for(input_tokens);
        let input = rates
            .writes
            .values()
            .copied()
            .fold(rates.input, Decimal::max);
        let of = |rate: Decimal, tokens: u64| {
            rate.saturating_mul(Decimal::from(tokens)) / Decimal::from(1_000_000)
        };
        let cost = of(input, input_tokens).saturating_add(of(rates.output, output_tokens));
        (self.currency, cost)
    }

    /// The most that a copy of a context can cost: written once, and kept for its whole life.
    pub(super) fn most_for_copy(&self, tokens: u64, ttl_seconds: u32) -> (Currency, Decimal) {
        let (currency, written) = self.most(tokens, 0);
        let kept = self.storage(tokens, u64::from(ttl_seconds) * 1000);
        (currency, written.saturating_add(kept))
    }

    /// A cached token's price in input tokens; `None` where input is free.
    pub(super) fn read_multiple(&self) -> Option<Decimal> {
        self.price.rates.read_mult(self.reads)
    }

    /// A written token's price in input tokens.
    pub(super) fn write_multiple(&self, lifetime_seconds: Option<u32>) -> Option<Decimal> {
        self.price.rates.write_mult(lifetime_seconds)
    }
}

/// The provider whose prices a reseller's `vendor/model` names are looked up by, where it has none of its own.
fn vendor_provider(vendor: &str) -> Option<&'static str> {
    Some(match vendor {
        "openai" => "openai",
        "anthropic" => "anthropic",
        "google" => "gemini",
        "moonshotai" => "kimi",
        "deepseek" => "deepseek",
        "qwen" => "qwen",
        "x-ai" => "xai",
        "z-ai" => "zhipu",
        "minimax" => "minimax",
        "mistralai" => "mistral",
        _ => return None,
    })
}
