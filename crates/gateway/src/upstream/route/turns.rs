//! One upstream after the other, until one answers: what is tried again there and then, and when the next one is asked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use holdfast_protocol::ApiError;
use holdfast_protocol::upstream::{Failure, FailureKind};
use rand::RngExt;

use super::{Refusal, RouteBackend};
use crate::upstream::Target;
use crate::upstream::breaker::Gate;
use crate::upstream::limiter::Permit;

/// How long a request waits for its turn at an upstream that has as many as it may have.
const TURN_WAIT: Duration = Duration::from_secs(10);

impl RouteBackend {
    /// The first answer that `attempt` gets, or why there is none.
    pub(super) async fn in_turn<'a, T>(
        &self,
        order: Vec<&'a Arc<Target>>,
        attempt: impl Fn(&'a Arc<Target>) -> BoxFuture<'a, Result<T, Refusal>>,
    ) -> Result<T, ApiError> {
        let mut last = None;
        for (place, target) in order.into_iter().enumerate() {
            let retry = target.upstream.options.retry;
            let mut retries = 0;
            loop {
                match target.upstream.breaker.gate() {
                    Gate::Open => {}
                    Gate::Closed(pause) => {
                        last.get_or_insert_with(|| closed(pause));
                        break;
                    }
                    Gate::Resting(pause) => {
                        last.get_or_insert_with(|| resting(pause));
                        break;
                    }
                }
                let failure = match attempt(target).await {
                    Ok(answer) => {
                        target.upstream.breaker.succeeded();
                        target.upstream.limiter.succeeded();
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
                target.upstream.breaker.failed(&failure);
                target.upstream.limiter.failed(&failure);
                self.shared.events.upstream_answered(target, kind.as_str());
                tracing::debug!(
                    upstream = target.name(),
                    failure = kind.as_str(),
                    status = failure.status,
                    "an upstream did not answer"
                );
                last = Some(failure.to_api_error());
                if !kind.allows_fallback() {
                    return last.map_or_else(|| Err(ApiError::internal()), Err);
                }
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

/// Leave to send a request, once there is room for it.
pub(super) async fn permit(target: &Target) -> Result<Permit, Refusal> {
    let wait = TURN_WAIT.min(target.upstream.transport.timeouts().first_byte);
    tokio::time::timeout(wait, target.upstream.limiter.acquire())
        .await
        .map_err(|_| Refusal::Busy)
}

/// Half of it certain, half of it random, so that callers who failed together do not come back together.
fn backoff(base: Duration, attempt: u32) -> Duration {
    let pause = base.saturating_mul(2_u32.saturating_pow(attempt));
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
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
