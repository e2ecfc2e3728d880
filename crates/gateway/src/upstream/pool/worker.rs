//! One server of a fleet: where it is, how it fares, what is under way there. An upstream with one base URL has one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::breaker::{Breaker, Gate};
use super::super::limiter::{Limiter, Permit};
use super::super::options::UpstreamOptions;
use super::super::transport::Transport;
use super::HealthOptions;

/// One server.
pub(crate) struct Worker {
    pub(crate) name: String,
    /// Where its API begins; without credentials.
    pub(crate) url: String,
    pub(in crate::upstream) transport: Transport,
    pub(crate) breaker: Breaker,
    pub(crate) limiter: Arc<Limiter>,
    pub(super) state: Arc<WorkerState>,
}

/// What is known of a server that outlives a change of its upstream's settings.
#[derive(Default)]
pub(super) struct WorkerState {
    in_flight: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By checks.
    is_down: bool,
    /// Checks in a row that say otherwise.
    contrary: u32,
    /// What the operator has ordered by a call; wins over the configuration.
    is_drained: Option<bool>,
}

/// What checks have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It gets no more requests.
    Down,
    /// It gets requests again.
    Up,
}

impl Worker {
    pub(super) fn new(
        name: &str,
        url: &str,
        options: &UpstreamOptions,
        transport: Transport,
        state: Arc<WorkerState>,
    ) -> Self {
        Worker {
            name: name.to_owned(),
            url: url.to_owned(),
            transport,
            breaker: Breaker::new(options.retry),
            limiter: Limiter::new(options.concurrency_max),
            state,
        }
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> u64 {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it is left alone because it keeps failing, by checks or by requests.
    pub(crate) fn is_down(&self) -> bool {
        self.breaker.is_open() || self.state.is_down()
    }

    /// Whether it may be asked; without taking the turn of whoever tries it again.
    pub(super) fn look(&self, health: Option<&HealthOptions>) -> Gate {
        match health {
            Some(health) if self.state.is_down() => Gate::Closed(health.interval),
            _ => self.breaker.look(),
        }
    }
}

impl WorkerState {
    pub(super) fn is_down(&self) -> bool {
        self.lock().is_down
    }

    pub(super) fn is_drained(&self) -> Option<bool> {
        self.lock().is_drained
    }

    pub(super) fn drain(&self, is_drained: bool) {
        self.lock().is_drained = Some(is_drained);
    }

    /// A check has ended. Tells what that changes: only so many in a row change anything.
    pub(super) fn checked(&self, is_well: bool, health: &HealthOptions) -> Option<Turn> {
        let mut known = self.lock();
        if is_well != known.is_down {
            known.contrary = 0;
            return None;
        }
        known.contrary += 1;
        let enough = if is_well {
            health.healthy_after
        } else {
            health.unhealthy_after
        };
        if known.contrary < enough {
            return None;
        }
        known.contrary = 0;
        known.is_down = !is_well;
        Some(if is_well { Turn::Up } else { Turn::Down })
    }

    /// Nobody checks it any more.
    pub(super) fn unchecked(&self) {
        let mut known = self.lock();
        known.is_down = false;
        known.contrary = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place at a worker, counted from the choice to the answer's end.
pub(crate) struct Seat {
    pub(crate) worker: Arc<Worker>,
    /// The worker's place in its pool.
    pub(in crate::upstream) index: usize,
}

impl Seat {
    pub(super) fn new(worker: &Arc<Worker>, index: usize) -> Arc<Self> {
        worker.state.in_flight.fetch_add(1, Ordering::Relaxed);
        Arc::new(Seat {
            worker: Arc::clone(worker),
            index,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Leave to send one request to a worker, and its place there; given back when it is dropped.
pub(crate) struct Leave {
    _permit: Permit,
    _seat: Arc<Seat>,
}

impl Leave {
    pub(in crate::upstream) fn new(permit: Permit, seat: &Arc<Seat>) -> Self {
        Leave {
            _permit: permit,
            _seat: Arc::clone(seat),
        }
    }
}
