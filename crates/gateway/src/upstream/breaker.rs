//! Leaves an upstream alone that keeps failing, and asks it again with one request at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_protocol::upstream::{Failure, FailureKind};
use tokio::time::Instant;

use super::options::RetryPolicy;

/// Closed while requests get through. Open after failures in a row, for a time; then one request tries.
pub(crate) struct Breaker {
    policy: RetryPolicy,
    state: Mutex<State>,
    watcher: Mutex<Option<Arc<Watcher>>>,
}

/// Is told whether the breaker is open now.
type Watcher = dyn Fn(bool) + Send + Sync;

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
    /// While a request tries, the others wait for its outcome elsewhere.
    trying_since: Option<Instant>,
    resting_until: Option<Instant>,
}

/// Whether an upstream may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Yes.
    Open,
    /// Not for so long: it keeps failing.
    Closed(Duration),
    /// Not for so long: it has asked to be left alone.
    Resting(Duration),
}

impl Breaker {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Breaker {
            policy,
            state: Mutex::default(),
            watcher: Mutex::default(),
        }
    }

    /// Who is told when it opens or closes, in place of whoever was told before.
    pub(super) fn watch(&self, watcher: Arc<Watcher>) {
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
    }

    fn tell(&self, is_open: bool) {
        let watcher = self.watcher.lock();
        let watcher = watcher.unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(watcher) = watcher {
            watcher(is_open);
        }
    }

    /// Asks for leave to send. Whoever gets it reports the outcome.
    pub(super) fn gate(&self) -> Gate {
        self.answer(true)
    }

    /// What [`Breaker::gate`] would answer, for whoever only wants to know.
    pub(super) fn look(&self) -> Gate {
        self.answer(false)
    }

    fn answer(&self, is_asked: bool) -> Gate {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(until) = state.resting_until
            && until > now
        {
            return Gate::Resting(until - now);
        }
        let Some(until) = state.open_until else {
            return Gate::Open;
        };
        if until > now {
            return Gate::Closed(until - now);
        }
        // A try that nobody reported on (the client went away) does not keep the others out for ever.
        if let Some(since) = state.trying_since
            && now - since < self.policy.breaker_open
        {
            return Gate::Closed(self.policy.breaker_open - (now - since));
        }
        if is_asked {
            state.trying_since = Some(now);
        }
        Gate::Open
    }

    /// Whether it is open now, for metrics.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().open_until.is_some()
    }

    /// The upstream has answered, be it with an error about the request itself.
    pub(super) fn succeeded(&self) {
        let before = std::mem::take(&mut *self.lock());
        if before.open_until.is_some() {
            self.tell(false);
        }
    }

    /// The upstream has failed.
    pub(super) fn failed(&self, failure: &Failure) {
        let now = Instant::now();
        let mut state = self.lock();
        match failure.kind {
            FailureKind::RateLimited => {
                state.trying_since = None;
                state.resting_until = failure.retry_after.map(|pause| now + pause);
            }
            kind if kind.is_transient() || kind == FailureKind::Unauthorized => {
                state.failures += 1;
                if state.trying_since.take().is_some()
                    || state.failures >= self.policy.breaker_failures
                {
                    let before = state.open_until.replace(now + self.policy.breaker_open);
                    drop(state);
                    // A try that failed changes nothing.
                    if before.is_none() {
                        self.tell(true);
                    }
                }
            }
            _ => {
                drop(state);
                self.succeeded();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(RetryPolicy {
            breaker_failures: 2,
            breaker_open: Duration::from_secs(10),
            ..RetryPolicy::default()
        })
    }

    fn failure(kind: FailureKind) -> Failure {
        Failure::new(kind, "")
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_one_request_tries_it_again() {
        let breaker = breaker();
        breaker.failed(&failure(FailureKind::ServerError));
        assert_eq!(breaker.gate(), Gate::Open);
        breaker.failed(&failure(FailureKind::Connection));
        assert_eq!(breaker.gate(), Gate::Closed(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(breaker.gate(), Gate::Open);
        assert!(
            matches!(breaker.gate(), Gate::Closed(_)),
            "one tries, the others wait"
        );
        breaker.failed(&failure(FailureKind::ServerError));
        assert_eq!(breaker.gate(), Gate::Closed(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(breaker.gate(), Gate::Open);
        breaker.succeeded();
        assert!(!breaker.is_open());
        assert_eq!(breaker.gate(), Gate::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_wrong_in_itself_says_nothing_against_the_upstream() {
        let breaker = breaker();
        for _ in 0..5 {
            breaker.failed(&failure(FailureKind::InvalidRequest));
        }
        assert_eq!(breaker.gate(), Gate::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_limit_rests_it_as_long_as_it_asked_for() {
        let breaker = breaker();
        breaker.failed(&Failure {
            retry_after: Some(Duration::from_secs(3)),
            ..failure(FailureKind::RateLimited)
        });
        assert_eq!(breaker.gate(), Gate::Resting(Duration::from_secs(3)));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(breaker.gate(), Gate::Open);
    }
}
