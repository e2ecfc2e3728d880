//! One upstream after the other, and within a fleet one worker after the other, until one answers: what is tried again
//! there and then, and when the next one is asked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use holdfast_protocol::ApiError;
use holdfast_protocol::upstream::{Failure, FailureKind};
use rand::RngExt;

use super::{Refusal, RouteBackend};
use crate::backend::ChatWork;
use crate::upstream::pool::{self, Digest, Key, Leave, Seat, Unseated};
use crate::upstream::{Isolation, Target};

/// How long a request waits for its turn at an upstream that has as many as it may have.
const TURN_WAIT: Duration = Duration::from_secs(10);

impl RouteBackend {
    /// The first answer that `attempt` gets, or why there is none. `project` and `digest` say which
    /// worker of a fleet is asked first.
    pub(super) async fn in_turn<'a, T>(
        &self,
        order: Vec<&'a Arc<Target>>,
        project: &str,
        digest: Option<&Digest>,
        attempt: impl Fn(&'a Arc<Target>, Arc<Seat>) -> BoxFuture<'a, Result<T, Refusal>>,
    ) -> Result<T, ApiError> {
        let mut last = None;
        for (place, target) in order.into_iter().enumerate() {
            let retry = target.upstream.options.retry;
            let pool = &target.upstream.pool;
            let mut retries = 0;
            let mut tried = Vec::new();
            let key = self.key(target, project, digest);
            loop {
                let (seat, is_moved) = match pool.seat(&key, &tried) {
                    Ok(seated) => seated,
                    Err(why) => {
                        last.get_or_insert_with(|| unseated(why));
                        break;
                    }
                };
                if is_moved && tried.is_empty() {
                    self.shared.events.worker_passed_over(target, &seat.worker);
                }
                let index = seat.index;
                let worker = Arc::clone(&seat.worker);
                let result = attempt(target, seat).await;
                if !matches!(result, Err(Refusal::Inexpressible(_))) {
                    let events = &self.shared.events;
                    events.worker_asked(target, &worker, result.is_ok());
                }
                let failure = match result {
                    Ok(answer) => {
                        worker.breaker.succeeded();
                        worker.limiter.succeeded();
                        self.shared.events.upstream_answered(target, "ok");
                        if place > 0 {
                            self.shared.events.fell_back(target);
                        }
                        return Ok(answer);
                    }
                    Err(Refusal::Inexpressible(error)) => {
                        last = Some(error);
                        break;
                    }
                    Err(Refusal::Busy) => {
                        self.shared.events.upstream_answered(target, "busy");
                        let failure =
                            Failure::new(FailureKind::RateLimited, "too many requests at once");
                        last = Some(failure.to_api_error());
                        break;
                    }
                    Err(Refusal::Failed(failure)) => failure,
                };
                let kind = failure.kind;
                worker.breaker.failed(&failure);
                worker.limiter.failed(&failure);
                self.shared.events.upstream_answered(target, kind.as_str());
                tracing::debug!(
                    upstream = target.name(),
                    worker = worker.name,
                    failure = kind.as_str(),
                    status = failure.status,
                    "an upstream did not answer"
                );
                last = Some(failure.to_api_error());
                if !kind.allows_fallback() {
                    return last.map_or_else(|| Err(ApiError::internal()), Err);
                }
                tried.push(index);
                let is_left = retries < retry.retries_max && pool.has_another(&tried);
                if kind.is_transient() && is_left {
                    // Another worker need not be waited for. It gets the whole prefix: these have no copies with names.
                    retries += 1;
                    self.shared.events.upstream_retried(target);
                    continue;
                }
                tried.clear();
                let pause = failure
                    .retry_after
                    .unwrap_or_else(|| backoff(retry.backoff, retries));
                if !kind.is_transient() || retries >= retry.retries_max || pause > retry.backoff_max
                {
                    break;
                }
                retries += 1;
                tokio::time::sleep(pause).await;
                self.shared.events.upstream_retried(target);
            }
        }
        Err(last.unwrap_or_else(ApiError::internal))
    }
}

impl RouteBackend {
    /// What a chat begins with, where that matters.
    pub(super) fn beginning(&self, work: &ChatWork) -> Option<Digest> {
        let mut targets = self.targets.iter();
        if !targets.any(|target| target.upstream.pool.is_fleet) {
            return None;
        }
        match &work.prefix {
            Some(part) => part.prepared.upstream().ok().map(|prefix| *prefix.digest()),
            None => pool::beginning(&work.composed),
        }
    }

    /// By what a worker of `target` is chosen for something of a project that is named by `digest`.
    pub(super) fn key(&self, target: &Target, project: &str, digest: Option<&Digest>) -> Key {
        let upstream = &target.upstream;
        let Some(digest) = digest.filter(|_| upstream.pool.is_fleet) else {
            return Key::Any;
        };
        let is_isolated = upstream.options.isolation == Isolation::Project;
        let tenant = if is_isolated { project } else { "" };
        Key::of(&self.shared.tenants.fleet_key(tenant), digest)
    }
}

/// Leave to send a request, once there is room for it.
pub(super) async fn leave(target: &Target, seat: &Arc<Seat>) -> Result<Leave, Refusal> {
    let wait = TURN_WAIT.min(target.upstream.options.timeouts.first_byte);
    tokio::time::timeout(wait, seat.worker.limiter.acquire())
        .await
        .map(|permit| Leave::new(permit, seat))
        .map_err(|_| Refusal::Busy)
}

/// Half of it certain, half of it random, so that callers who failed together do not come back together.
fn backoff(base: Duration, attempt: u32) -> Duration {
    let pause = base.saturating_mul(2_u32.saturating_pow(attempt));
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

fn unseated(why: Unseated) -> ApiError {
    match why {
        Unseated::Closed(pause) => closed(pause),
        Unseated::Resting(pause) => resting(pause),
        Unseated::Draining => ApiError::unavailable(
            "All workers of the model's upstream are being drained and take nothing new.",
        ),
        Unseated::Tried => closed(Duration::from_secs(1)),
    }
}

/// What the upstream itself would answer.
fn resting(pause: Duration) -> ApiError {
    Failure {
        retry_after: Some(pause),
        ..Failure::new(FailureKind::RateLimited, "it has asked to be left alone")
    }
    .to_api_error()
}

fn closed(pause: Duration) -> ApiError {
    let mut error = ApiError::unavailable(
        "The model's provider keeps failing and is left alone for a moment. Retry later.",
    );
    error.retry_after = Some(pause);
    error
}
