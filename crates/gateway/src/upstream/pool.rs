//! The servers of an upstream, and which of them a request goes to. An upstream with a base URL is a pool of one.

mod choice;
mod health;
mod key;
mod worker;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rand::RngExt;

use super::breaker::Gate;
use super::options::{HealthOptions, UpstreamOptions};
use super::transport::Transport;
use crate::app::Clock;

pub(crate) use choice::Digest;
use choice::{Bound, Load};
pub(crate) use health::check_until;
pub(super) use health::health_url;
pub(super) use key::{Key, beginning, digest};
pub(crate) use worker::{Leave, Seat, Worker};

/// The servers of one upstream.
pub(crate) struct Pool {
    /// Never empty, and never changed: a reload makes another pool, with the workers that stay.
    pub(crate) members: Vec<Member>,
    /// How much a worker may have under way before the next one is asked.
    bound: Bound,
    /// `None`: nobody is checked, as where there is one base URL.
    pub(crate) health: Option<HealthOptions>,
    /// Whether workers have names that anybody knows.
    pub(crate) is_fleet: bool,
    /// Held from a look at the loads until the choice is counted.
    choosing: Mutex<()>,
    is_down: AtomicBool,
    watcher: OnceLock<Watcher>,
}

/// A worker, and what the configuration says of it.
pub(crate) struct Member {
    pub(crate) worker: Arc<Worker>,
    pub(crate) weight: f64,
    is_draining: bool,
}

/// What has changed at a pool.
pub(crate) enum Change<'a> {
    /// All of it is left alone, or one answers again.
    Pool {
        /// Which of the two.
        is_down: bool,
    },
    /// The same of one of several workers.
    Worker {
        /// Which one.
        name: &'a str,
        /// Which of the two.
        is_down: bool,
    },
}

type Watcher = Box<dyn Fn(Change<'_>) + Send + Sync>;

/// Why there is no worker for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unseated {
    /// Those that there are keep failing; the first one is tried after so long.
    Closed(Duration),
    /// They have asked to be left alone for so long.
    Resting(Duration),
    /// All that there are drain.
    Draining,
    /// All have been tried.
    Tried,
}

/// A worker's state in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Healthy,
    Unhealthy,
    Draining,
}

impl Standing {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Standing::Healthy => "healthy",
            Standing::Unhealthy => "unhealthy",
            Standing::Draining => "draining",
        }
    }
}

impl Member {
    /// Whether it gets nothing new: by the last call, or else by the configuration.
    pub(crate) fn is_draining(&self) -> bool {
        self.worker.state.is_drained().unwrap_or(self.is_draining)
    }

    pub(crate) fn standing(&self) -> Standing {
        if self.is_draining() {
            Standing::Draining
        } else if self.worker.is_down() {
            Standing::Unhealthy
        } else {
            Standing::Healthy
        }
    }

    /// From now on it gets nothing new, or gets it again, until the process ends.
    pub(crate) fn drain(&self, is_drained: bool) {
        self.worker.state.drain(is_drained);
    }
}

impl Pool {
    /// `before` are the upstream's settings and pool until now: workers that stay keep what is known of them, and where
    /// nothing but the pool has changed, their connections, breakers and permits.
    ///
    /// # Errors
    /// The settings can't work; the text says why.
    pub(super) fn new(
        options: &UpstreamOptions,
        clock: &Clock,
        before: Option<(&UpstreamOptions, &Pool)>,
    ) -> Result<Arc<Self>, String> {
        let transport = Transport::new(options, clock)?;
        let mut names = HashSet::new();
        let is_like_before = before.is_some_and(|(before, _)| before.differs_in_pool_only(options));
        let mut members = Vec::new();
        for written in options.workers() {
            if !names.insert(written.name.clone()) {
                return Err(format!("two workers are called `{}`", written.name));
            }
            let known = before.and_then(|(_, pool)| {
                let mut workers = pool.members.iter().map(|member| &member.worker);
                workers.find(|known| known.name == written.name && known.url == written.url)
            });
            let worker = match known {
                Some(known) if is_like_before => Arc::clone(known),
                known => {
                    let state = known.map_or_else(Arc::default, |known| Arc::clone(&known.state));
                    let transport = transport.at(&written.url);
                    let worker =
                        Worker::new(&written.name, &written.url, options, transport, state);
                    Arc::new(worker)
                }
            };
            if options.pool.is_none() {
                worker.state.unchecked();
            }
            members.push(Member {
                worker,
                weight: written.weight,
                is_draining: written.draining,
            });
        }
        if members.is_empty() {
            return Err("it has no workers".to_owned());
        }
        let was_down = before.filter(|_| is_like_before);
        let was_down = was_down.is_some_and(|(_, pool)| pool.is_down.load(Ordering::Relaxed));
        Ok(Arc::new(Pool {
            members,
            bound: Bound {
                factor: options.pool.as_ref().map_or(1.0, |pool| pool.load_factor),
                least: options.pool.as_ref().map_or(1, |pool| pool.load_min),
            },
            health: options.pool.as_ref().map(|pool| pool.health.clone()),
            is_fleet: options.pool.is_some(),
            choosing: Mutex::default(),
            is_down: AtomicBool::new(was_down),
            watcher: OnceLock::new(),
        }))
    }

    /// Who is told of changes, from now on by all workers: those that were in another pool before, too.
    pub(super) fn watch(self: &Arc<Self>, watcher: Watcher) {
        // One is enough, and whoever came first stays.
        let _ = self.watcher.set(watcher);
        for (index, member) in self.members.iter().enumerate() {
            let pool: Weak<Pool> = Arc::downgrade(self);
            member.worker.breaker.watch(Arc::new(move |is_down| {
                let Some(pool) = pool.upgrade() else { return };
                if let Some(member) = pool.members.get(index) {
                    pool.tell(Change::Worker {
                        name: &member.worker.name,
                        is_down,
                    });
                }
                pool.reconsider();
            }));
        }
    }

    fn tell(&self, change: Change<'_>) {
        if matches!(change, Change::Worker { .. }) && !self.is_fleet {
            return;
        }
        if let Some(watcher) = self.watcher.get() {
            watcher(change);
        }
    }

    /// Whether all that do not drain are left alone.
    pub(crate) fn is_down(&self) -> bool {
        let left = self.members.iter().filter(|member| !member.is_draining());
        let mut left = left.peekable();
        left.peek().is_some() && left.all(|member| member.worker.is_down())
    }

    /// Tells if the pool has gone down, or come up, since the last time.
    fn reconsider(&self) {
        let is_down = self.is_down();
        if self.is_down.swap(is_down, Ordering::Relaxed) != is_down {
            self.tell(Change::Pool { is_down });
        }
    }

    /// A place at the worker for this key, but for those in `tried`.
    pub(super) fn seat(&self, key: &Key, tried: &[usize]) -> Result<(Arc<Seat>, bool), Unseated> {
        let mut refused: Vec<usize> = tried.to_vec();
        loop {
            let (index, seat, is_moved) = self.seat_but(key, &refused, tried)?;
            // Of several that come when a worker is to be tried again one gets through; the others go on to the next.
            match self.members[index].worker.breaker.gate() {
                Gate::Open => return Ok((seat, is_moved)),
                _ => refused.push(index),
            }
        }
    }

    fn seat_but(
        &self,
        key: &Key,
        refused: &[usize],
        tried: &[usize],
    ) -> Result<(usize, Arc<Seat>, bool), Unseated> {
        let mut open = Vec::new();
        for (index, member) in self.members.iter().enumerate() {
            if refused.contains(&index) || member.is_draining() {
                continue;
            }
            if member.worker.look(self.health.as_ref()) == Gate::Open {
                open.push(index);
            }
        }
        if open.is_empty() {
            return Err(self.why_unseated(tried));
        }
        if let [index] = open[..] {
            let seat = Seat::new(&self.members[index].worker, index);
            return Ok((index, seat, false));
        }
        let named = open.iter().map(|index| {
            let member = &self.members[*index];
            (member.worker.name.as_str(), member.weight)
        });
        let order = match key {
            Key::Prefix(digest) => choice::order(digest, named),
            Key::Any => choice::order(&rand::rng().random(), named),
        };
        let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let loads: Vec<Load> = open
            .iter()
            .map(|index| {
                let member = &self.members[*index];
                Load {
                    weight: member.weight,
                    in_flight: member.worker.in_flight(),
                    has_room: member.worker.limiter.has_room(),
                }
            })
            .collect();
        let chosen = match key {
            Key::Prefix(_) => choice::choose(&order, &loads, self.bound),
            Key::Any => choice::least(&order, &loads),
        };
        let Some(chosen) = chosen else {
            return Err(Unseated::Tried);
        };
        let index = open[chosen.index];
        Ok((
            index,
            Seat::new(&self.members[index].worker, index),
            chosen.is_moved,
        ))
    }

    fn why_unseated(&self, tried: &[usize]) -> Unseated {
        let mut closed: Option<Duration> = None;
        let mut resting: Option<Duration> = None;
        let mut is_draining = true;
        for (index, member) in self.members.iter().enumerate() {
            if member.is_draining() {
                continue;
            }
            is_draining = false;
            if tried.contains(&index) {
                continue;
            }
            let sooner =
                |known: Option<Duration>, pause| known.map_or(pause, |known| known.min(pause));
            match member.worker.look(self.health.as_ref()) {
                Gate::Open => {}
                Gate::Closed(pause) => closed = Some(sooner(closed, pause)),
                Gate::Resting(pause) => resting = Some(sooner(resting, pause)),
            }
        }
        match (resting, closed) {
            (Some(pause), _) => Unseated::Resting(pause),
            (None, Some(pause)) => Unseated::Closed(pause),
            (None, None) if is_draining => Unseated::Draining,
            (None, None) => Unseated::Tried,
        }
    }

    /// A place at the worker of this name, if it may be asked.
    pub(super) fn seat_at(&self, name: &str) -> Option<Arc<Seat>> {
        let mut members = self.members.iter().enumerate();
        let (index, member) = members.find(|(_, member)| member.worker.name == name)?;
        let is_open =
            !member.is_draining() && member.worker.look(self.health.as_ref()) == Gate::Open;
        is_open.then(|| Seat::new(&member.worker, index))
    }

    /// Whether a worker that may be asked is left beside those in `tried`.
    pub(super) fn has_another(&self, tried: &[usize]) -> bool {
        self.members.iter().enumerate().any(|(index, member)| {
            !tried.contains(&index)
                && !member.is_draining()
                && member.worker.look(self.health.as_ref()) == Gate::Open
        })
    }

    /// The only worker of an upstream with a base URL, which is where copies with names are.
    pub(super) fn only(&self) -> &Arc<Worker> {
        &self.members[0].worker
    }

    /// The worker of this name.
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.worker.name == name)
    }
}

#[cfg(test)]
mod tests;
