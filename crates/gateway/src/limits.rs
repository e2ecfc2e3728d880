//! How much keys, projects and models may use within a minute and at the same time.
//!
//! A request is counted when it comes ([`RateLimits::admit`]); the tokens that it may use are reserved when its model is
//! known ([`RateLimits::reserve`]), and settled when its row of the ledger says what it has used. Input that was read from
//! a cache does not count: contexts are there to be read often.

mod demand;
mod local;
mod refusal;
mod shared;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_store::LimitSettings;
use rand::RngExt;

use crate::app::{Clock, Limits as Options};
use crate::auth::Principal;

pub(crate) use demand::Demand;
use demand::signed;
pub(crate) use local::LocalLimiter;
pub(crate) use refusal::{Refusal, Refused, What};
pub(crate) use shared::SharedLimiter;

/// Who or what a limit is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// A key, by public id.
    Key(String),
    /// A project, by name.
    Project(String),
    /// A model, by its configured name.
    Model(String),
}

impl Subject {
    /// Its kind in a word, for counters and for people.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Subject::Key(_) => "key",
            Subject::Project(_) => "project",
            Subject::Model(_) => "model",
        }
    }
}

/// A subject with its limits. `contexts` and `context_tokens` of them are counted elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) subject: Subject,
    pub(crate) limits: LimitSettings,
}

impl Bound {
    /// Whether anything is counted for it.
    fn is_bound(&self) -> bool {
        let limits = &self.limits;
        limits.requests_per_minute.is_some()
            || limits.tokens_per_minute.is_some()
            || limits.concurrent_requests.is_some()
    }
}

/// What is counted of one subject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Requests of this minute.
    pub(crate) requests: i64,
    /// Tokens of this minute.
    pub(crate) tokens: i64,
    /// Requests that run; by one at most.
    pub(crate) running: i64,
}

/// What is left of a limit per minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// Until all of it is there again.
    pub(crate) reset: Duration,
}

/// The tightest limits of a request, where it has any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Quotas {
    pub(crate) requests: Option<Quota>,
    pub(crate) tokens: Option<Quota>,
}

impl Quotas {
    /// Takes in what is left of one more subject's limits.
    fn add(&mut self, requests: Option<Quota>, tokens: Option<Quota>) {
        for (tightest, quota) in [(&mut self.requests, requests), (&mut self.tokens, tokens)] {
            let Some(quota) = quota else { continue };
            if tightest.is_none_or(|other| quota.remaining < other.remaining) {
                *tightest = Some(quota);
            }
        }
    }
}

/// Which request something is counted for: a number that no other has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tag(pub(crate) u128);

/// Who has counted something, and must be told when it is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// This process.
    Here,
    /// Redis, for all servers together.
    Shared,
}

/// Something has been counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) place: Place,
    /// What is left then.
    pub(crate) quotas: Quotas,
}

/// Counts. [`LocalLimiter`] does it in this process, [`SharedLimiter`] for all servers that share a Redis.
#[async_trait]
pub(crate) trait Limiter: Send + Sync {
    /// Counts all of these, if every subject's limits allow it, or none.
    async fn take(
        &self,
        tag: Tag,
        wanted: &[(Bound, Change)],
        now: UnixMillis,
    ) -> Result<Taken, Refused>;

    /// Counts whatever the limits say: what is given back, or was used beyond what was taken at `place`.
    fn adjust(&self, place: Place, tag: Tag, changes: &[(Bound, Change)], now: UnixMillis);
}

/// The limits of this gateway.
pub(crate) struct RateLimits {
    limiter: Arc<dyn Limiter>,
    options: Options,
    clock: Clock,
}

impl RateLimits {
    pub(crate) fn new(limiter: Arc<dyn Limiter>, options: Options, clock: Clock) -> Self {
        RateLimits {
            limiter,
            options,
            clock,
        }
    }

    /// The same counts under other limits.
    pub(crate) fn reloaded(&self, options: Options) -> Self {
        RateLimits {
            limiter: Arc::clone(&self.limiter),
            options,
            clock: Arc::clone(&self.clock),
        }
    }

    /// Counts a request of `principal`, if its limits allow one more.
    pub(crate) async fn admit(
        &self,
        principal: &Principal,
    ) -> Result<(Arc<Counted>, Quotas), Refused> {
        let terms = &principal.terms;
        let bounds = [
            Bound {
                subject: Subject::Key(principal.key_id.clone()),
                limits: or(terms.limits, self.options.per_key),
            },
            Bound {
                subject: Subject::Project(principal.project.clone()),
                limits: or(terms.project.limits, self.options.per_project),
            },
        ];
        let tag = Tag(rand::rng().random());
        let begins = Change {
            requests: 1,
            running: 1,
            tokens: 0,
        };
        let wanted = each(&bounds, begins);
        let taken = self.limiter.take(tag, &wanted, (self.clock)()).await?;
        let counted = Counted {
            limiter: Arc::clone(&self.limiter),
            clock: Arc::clone(&self.clock),
            tag,
            held: Mutex::new(Held {
                bounds: bounds
                    .into_iter()
                    .map(|bound| (taken.place, bound))
                    .collect(),
                is_void: false,
            }),
        };
        Ok((Arc::new(counted), taken.quotas))
    }

    /// Counts an admitted request towards its model, and reserves the tokens that it may use.
    pub(crate) async fn reserve(
        &self,
        counted: &Counted,
        model: &str,
        demand: Demand,
    ) -> Result<(Reservation, Quotas), Refused> {
        let model = Bound {
            subject: Subject::Model(model.to_owned()),
            limits: self
                .options
                .per_model
                .get(model)
                .copied()
                .unwrap_or_default(),
        };
        let mut bounds = counted.bounds();
        let limits = bounds.iter().chain([&model]);
        let limit = limits
            .filter_map(|bound| bound.limits.tokens_per_minute)
            .min();
        let tokens = demand.tokens(limit.unwrap_or(u64::MAX));
        let mut wanted = each(
            &bounds,
            Change {
                tokens,
                ..Change::default()
            },
        );
        let begins = Change {
            requests: 1,
            running: 1,
            tokens,
        };
        wanted.push((model.clone(), begins));
        let taken = self
            .limiter
            .take(counted.tag, &wanted, (self.clock)())
            .await?;
        counted.held().bounds.push((taken.place, model.clone()));
        bounds.push(model);
        let reservation = Reservation {
            limiter: Arc::clone(&self.limiter),
            clock: Arc::clone(&self.clock),
            tag: counted.tag,
            place: taken.place,
            bounds,
            tokens,
        };
        Ok((reservation, taken.quotas))
    }
}

/// `own` limits, and those of the configuration where there are none.
fn or(own: LimitSettings, default: LimitSettings) -> LimitSettings {
    LimitSettings {
        requests_per_minute: own.requests_per_minute.or(default.requests_per_minute),
        tokens_per_minute: own.tokens_per_minute.or(default.tokens_per_minute),
        concurrent_requests: own.concurrent_requests.or(default.concurrent_requests),
        ..own
    }
}

fn each(bounds: &[Bound], change: Change) -> Vec<(Bound, Change)> {
    bounds.iter().map(|bound| (bound.clone(), change)).collect()
}

/// A request that has been counted. It runs until this is dropped.
pub(crate) struct Counted {
    limiter: Arc<dyn Limiter>,
    clock: Clock,
    tag: Tag,
    held: Mutex<Held>,
}

struct Held {
    bounds: Vec<(Place, Bound)>,
    is_void: bool,
}

impl Counted {
    /// The server had no room for the request: it does not count.
    pub(crate) fn void(&self) {
        self.held().is_void = true;
    }

    fn bounds(&self) -> Vec<Bound> {
        let held = self.held();
        held.bounds.iter().map(|(_, bound)| bound.clone()).collect()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ends = Change {
            requests: -i64::from(held.is_void),
            running: -1,
            tokens: 0,
        };
        let now = (self.clock)();
        // What was counted in one go is given back in one.
        for held in held.bounds.chunk_by(|(one, _), (other, _)| one == other) {
            let changes: Vec<_> = held
                .iter()
                .map(|(_, bound)| (bound.clone(), ends))
                .collect();
            if let Some((place, _)) = held.first() {
                self.limiter.adjust(*place, self.tag, &changes, now);
            }
        }
    }
}

/// Tokens that a request may use. All of them are given back unless it is settled.
pub(crate) struct Reservation {
    limiter: Arc<dyn Limiter>,
    clock: Clock,
    tag: Tag,
    place: Place,
    bounds: Vec<Bound>,
    tokens: i64,
}

impl Reservation {
    /// The request has used so many.
    pub(crate) fn settle(mut self, used: u64) {
        self.settle_at(signed(used));
    }

    fn settle_at(&mut self, used: i64) {
        // What is dropped next must give nothing back.
        let reserved = std::mem::take(&mut self.tokens);
        let change = Change {
            tokens: used - reserved,
            ..Change::default()
        };
        if change.tokens != 0 {
            let changes = each(&self.bounds, change);
            self.limiter
                .adjust(self.place, self.tag, &changes, (self.clock)());
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.settle_at(0);
    }
}

#[cfg(test)]
mod tests;
