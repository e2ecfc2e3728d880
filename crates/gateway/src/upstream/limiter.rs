//! How many requests an upstream is sent at once: at most as many as configured, fewer after it has said that it has too
//! many, and then a few more with each round of answers (additive increase, multiplicative decrease, as TCP does it).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_protocol::upstream::{Failure, FailureKind};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What is left of the bound after a refusal.
const DECREASE: f64 = 0.7;

/// How much a round of answers adds to it.
const INCREASE: f64 = 4.0;

/// An upstream that refuses one of few requests means something else than their number; the bound falls no lower than
/// what is left of this by one refusal.
const FEW: usize = 16;

/// Requests that were sent together fail together: they count once within this time.
const DECREASE_EVERY: Duration = Duration::from_secs(1);

/// The bound of one upstream.
pub(crate) struct Limiter {
    max: f64,
    state: Mutex<State>,
}

struct State {
    limit: f64,
    running: usize,
    waiters: VecDeque<oneshot::Sender<Permit>>,
    decreased_at: Option<Instant>,
}

/// Leave to send one request; given back when it is dropped.
pub(crate) struct Permit {
    limiter: Arc<Limiter>,
    is_held: bool,
}

impl Limiter {
    pub(super) fn new(max: usize) -> Arc<Self> {
        let max = max.max(1) as f64;
        Arc::new(Limiter {
            max,
            state: Mutex::new(State {
                limit: max,
                running: 0,
                waiters: VecDeque::new(),
                decreased_at: None,
            }),
        })
    }

    /// Leave to send, once there is room.
    pub(super) async fn acquire(self: &Arc<Self>) -> Permit {
        let turn = {
            let mut state = self.lock();
            if state.has_room() {
                state.running += 1;
                return self.permit();
            }
            state.waiters.retain(|waiter| !waiter.is_closed());
            let (sender, turn) = oneshot::channel();
            state.waiters.push_back(sender);
            turn
        };
        match turn.await {
            Ok(permit) => permit,
            // The limiter lives as long as this does, and it drops nobody who waits.
            Err(_) => {
                self.lock().running += 1;
                self.permit()
            }
        }
    }

    /// Requests under way.
    pub(crate) fn running(&self) -> u64 {
        self.lock().running as u64
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> u64 {
        let state = self.lock();
        let waiting = state.waiters.iter().filter(|waiter| !waiter.is_closed());
        waiting.count() as u64
    }

    /// Whether one more could be sent now.
    pub(super) fn has_room(&self) -> bool {
        self.lock().has_room()
    }

    /// The bound now.
    pub(crate) fn limit(&self) -> u64 {
        self.lock().limit as u64
    }

    /// An answer has begun.
    pub(super) fn succeeded(self: &Arc<Self>) {
        {
            let mut state = self.lock();
            // A bound that nobody needs says nothing about the upstream.
            if (state.running as f64) * 2.0 < state.limit {
                return;
            }
            state.limit = (state.limit + INCREASE / state.limit).min(self.max);
        }
        self.let_in();
    }

    /// There was no answer.
    pub(super) fn failed(&self, failure: &Failure) {
        let has_too_many = matches!(
            failure.kind,
            FailureKind::RateLimited | FailureKind::Overloaded | FailureKind::Timeout
        ) || failure.status == Some(503);
        if !has_too_many {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock();
        if state
            .decreased_at
            .is_some_and(|at| now - at < DECREASE_EVERY)
        {
            return;
        }
        state.decreased_at = Some(now);
        // About so many were too many, however high the bound.
        let tried = state.limit.min((state.running * 2).max(FEW) as f64);
        state.limit = (tried * DECREASE).max(1.0);
    }

    fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            limiter: Arc::clone(self),
            is_held: true,
        }
    }

    fn let_in(self: &Arc<Self>) {
        loop {
            let waiter = {
                let mut state = self.lock();
                if !state.has_room() {
                    return;
                }
                let Some(waiter) = state.waiters.pop_front() else {
                    return;
                };
                state.running += 1;
                waiter
            };
            if let Err(mut unclaimed) = waiter.send(self.permit()) {
                // Whoever waited has gone.
                unclaimed.give_back();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self) -> bool {
        (self.running as f64) < self.limit.floor()
    }
}

impl Permit {
    fn give_back(&mut self) {
        if std::mem::take(&mut self.is_held) {
            let mut state = self.limiter.lock();
            state.running = state.running.saturating_sub(1);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_held {
            self.give_back();
            self.limiter.let_in();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: FailureKind) -> Failure {
        Failure::new(kind, "")
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_lowers_the_bound_once_and_answers_raise_it_again() {
        let limiter = Limiter::new(10);
        let mut permits = Vec::new();
        for _ in 0..10 {
            permits.push(limiter.acquire().await);
        }
        limiter.failed(&refusal(FailureKind::RateLimited));
        limiter.failed(&refusal(FailureKind::RateLimited));
        assert_eq!(limiter.limit(), 7, "those of one moment count once");
        tokio::time::advance(DECREASE_EVERY).await;
        limiter.failed(&refusal(FailureKind::InvalidRequest));
        assert_eq!(limiter.limit(), 7, "the request's own fault");
        limiter.failed(&refusal(FailureKind::Overloaded));
        assert_eq!(limiter.limit(), 4);
        for _ in 0..200 {
            limiter.succeeded();
        }
        assert_eq!(limiter.limit(), 10, "and no further than configured");
    }

    #[tokio::test(start_paused = true)]
    async fn the_bound_falls_to_what_was_under_way_however_high_it_was() {
        let limiter = Limiter::new(1000);
        let mut permits = Vec::new();
        for _ in 0..10 {
            permits.push(limiter.acquire().await);
        }
        limiter.failed(&refusal(FailureKind::RateLimited));
        assert_eq!(limiter.limit(), 14);
        while limiter.running() < 14 {
            permits.push(limiter.acquire().await);
        }
        let waits = tokio::time::timeout(Duration::from_secs(1), limiter.acquire()).await;
        assert!(waits.is_err());
        assert_eq!(limiter.waiting(), 0, "whoever gave up waits no longer");
    }

    #[tokio::test]
    async fn a_place_goes_to_the_one_who_has_waited_longest() {
        let limiter = Limiter::new(1);
        let first = limiter.acquire().await;
        let mut waits = Vec::new();
        for number in 1..=2 {
            let limiter = Arc::clone(&limiter);
            let task = tokio::spawn({
                let limiter = Arc::clone(&limiter);
                async move { limiter.acquire().await }
            });
            while limiter.waiting() < number {
                tokio::task::yield_now().await;
            }
            waits.push(task);
        }
        waits.remove(0).abort();
        tokio::task::yield_now().await;
        drop(first);
        let second = waits.remove(0).await.ok();
        assert!(second.is_some(), "the one before it has gone");
        assert_eq!(limiter.running(), 1);
    }
}
