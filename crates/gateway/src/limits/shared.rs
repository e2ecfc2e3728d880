//! Counting for all servers together, in Redis. While it is away each counts for itself, against its share of every limit.
//!
//! A request that runs is written down with an end, which its server puts off while it lasts: what a server that was killed
//! had running is given back soon. What is given back goes through a queue, so that nobody waits for it; if it can't be
//! told, it runs off, or ends, by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use redis::Script;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::local::{LocalLimiter, quota_of};
use super::{Bound, Change, Limiter, Place, Quotas, Refusal, Refused, Subject, Tag, Taken, What};
use crate::shared::{Away, BEAT_EVERY, Shared};

/// How long a request counts as running after its server has last said so, milliseconds.
const RUNNING_MS: u64 = 20_000;

/// So many signs of life of the server come between two times that it says so.
const RENEW_BEATS: u32 = 10;

/// Requests that are renewed in one go: a script holds up all others.
const RENEW_MAX: usize = 500;

/// What can wait to be given back.
const RETURNS_MAX: usize = 10_000;

/// A request that has just ended is given back a moment later: before one is refused because others run, it waits so long.
const RETURN_WAITS: [Duration; 2] = [Duration::from_millis(15), Duration::from_millis(45)];

/// Counts in Redis.
pub(crate) struct SharedLimiter {
    shared: Arc<Shared>,
    local: LocalLimiter,
    count: Script,
    renew: Script,
    /// See [`RUNNING_MS`].
    running_ms: u64,
    /// Where the requests of this server run, by the keys.
    running: Mutex<HashMap<Tag, Vec<String>>>,
    returns: mpsc::Sender<Return>,
    /// Taken by the one who runs it.
    returned: Mutex<Option<mpsc::Receiver<Return>>>,
}

/// What is given back, or was used beyond what was taken.
struct Return {
    tag: Tag,
    changes: Vec<(Bound, Change)>,
}

impl SharedLimiter {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (returns, returned) = mpsc::channel(RETURNS_MAX);
        SharedLimiter {
            shared,
            local: LocalLimiter::default(),
            count: Script::new(include_str!("shared/count.lua")),
            renew: Script::new(include_str!("shared/renew.lua")),
            running_ms: RUNNING_MS,
            running: Mutex::default(),
            returns,
            returned: Mutex::new(Some(returned)),
        }
    }

    /// Looks for Redis, for a moment: requests that come before it is found are counted here.
    pub(crate) async fn connect(&self) {
        self.shared.beat().await;
        if !self.shared.is_up() {
            tracing::warn!("what servers share is away; this one begins alone");
        }
    }

    /// Keeps in touch with Redis until the server stops.
    pub(crate) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let returned = self
            .returned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut returned) = returned else { return };
        let mut ticks = tokio::time::interval(BEAT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beats = 0_u32;
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                _ = ticks.tick() => {
                    self.shared.beat().await;
                    beats = beats.wrapping_add(1);
                    if beats.is_multiple_of(RENEW_BEATS) {
                        self.renew().await;
                    }
                }
                Some(back) = returned.recv() => self.give_back(&back).await,
            }
        }
        while let Ok(back) = returned.try_recv() {
            self.give_back(&back).await;
        }
        self.shared.leave().await;
    }

    async fn give_back(&self, back: &Return) {
        // If it is away by now, it runs off by itself.
        let _ = self.ask("adjust", back.tag, &back.changes).await;
    }

    /// Says that the requests of this server still run.
    async fn renew(&self) {
        let running: Vec<(Tag, String)> = self
            .running()
            .iter()
            .flat_map(|(tag, keys)| keys.iter().map(|key| (*tag, key.clone())))
            .collect();
        for running in running.chunks(RENEW_MAX) {
            let mut script = self.renew.prepare_invoke();
            script.arg(self.running_ms);
            for (tag, key) in running {
                script.key(key).arg(name(*tag));
            }
            if self.shared.run::<i64>(&script).await.is_err() {
                return;
            }
        }
    }

    /// Has something counted; answers what the script does.
    async fn ask(
        &self,
        how: &str,
        tag: Tag,
        changes: &[(Bound, Change)],
    ) -> Result<Vec<i64>, Away> {
        let mut script = self.count.prepare_invoke();
        script.arg(how).arg(name(tag)).arg(self.running_ms);
        for (bound, change) in changes {
            script.key(self.used_key(&bound.subject));
            script.key(self.running_key(&bound.subject));
            let limits = &bound.limits;
            for limit in [
                limits.requests_per_minute,
                limits.tokens_per_minute,
                limits.concurrent_requests,
            ] {
                script.arg(limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX)));
            }
            script
                .arg(change.requests)
                .arg(change.tokens)
                .arg(change.running);
        }
        self.shared.run(&script).await
    }

    async fn take_shared(
        &self,
        tag: Tag,
        wanted: &[(Bound, Change)],
    ) -> Result<Result<Quotas, Refused>, Away> {
        let mut asking = Asking {
            limiter: self,
            tag,
            wanted,
            is_answered: false,
        };
        let answer = self.ask("take", tag, wanted).await;
        asking.is_answered = true;
        let answer = answer?;
        let read = read(&answer, wanted).ok_or(Away)?;
        if read.is_ok() {
            let runs = wanted.iter().filter(|(bound, change)| {
                change.running > 0 && bound.limits.concurrent_requests.is_some()
            });
            let keys: Vec<String> = runs
                .map(|(bound, _)| self.running_key(&bound.subject))
                .collect();
            if !keys.is_empty() {
                self.running().entry(tag).or_default().extend(keys);
            }
        }
        Ok(read)
    }

    fn used_key(&self, subject: &Subject) -> String {
        let (Subject::Key(name) | Subject::Project(name) | Subject::Model(name)) = subject;
        self.shared
            .key("used", &format!("{}:{name}", subject.kind()))
    }

    fn running_key(&self, subject: &Subject) -> String {
        let (Subject::Key(name) | Subject::Project(name) | Subject::Model(name)) = subject;
        self.shared
            .key("running", &format!("{}:{name}", subject.kind()))
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Tag, Vec<String>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Limiter for SharedLimiter {
    async fn take(
        &self,
        tag: Tag,
        wanted: &[(Bound, Change)],
        now: UnixMillis,
    ) -> Result<Taken, Refused> {
        let bound: Vec<_> = wanted
            .iter()
            .filter(|(bound, _)| bound.is_bound())
            .cloned()
            .collect();
        if bound.is_empty() {
            return Ok(Taken {
                place: Place::Here,
                quotas: Quotas::default(),
            });
        }
        let mut waits = RETURN_WAITS.into_iter();
        loop {
            match self.take_shared(tag, &bound).await {
                Ok(Ok(quotas)) => {
                    return Ok(Taken {
                        place: Place::Shared,
                        quotas,
                    });
                }
                Ok(Err(refused)) => match waits.next() {
                    Some(wait) if refused.refusal.what == What::Running => {
                        tokio::time::sleep(wait).await;
                    }
                    _ => return Err(refused),
                },
                Err(Away) => break,
            }
        }
        let quotas = self.local.take_share(&bound, self.shared.replicas(), now)?;
        Ok(Taken {
            place: Place::Here,
            quotas,
        })
    }

    fn adjust(&self, place: Place, tag: Tag, changes: &[(Bound, Change)], now: UnixMillis) {
        if place == Place::Here {
            return self.local.adjust(place, tag, changes, now);
        }
        let ends = |change: &Change| change.running < 0;
        if changes.iter().any(|(_, change)| ends(change)) {
            // Also where it can't be told: nobody says any more that it runs.
            self.running().remove(&tag);
        }
        let changes: Vec<_> = changes
            .iter()
            .filter(|(bound, _)| bound.is_bound())
            .cloned()
            .collect();
        if !changes.is_empty() && self.shared.is_up() {
            let _ = self.returns.try_send(Return { tag, changes });
        }
    }
}

/// A question to Redis. If nobody waits for the answer any more, what it may have counted as running is given back.
struct Asking<'a> {
    limiter: &'a SharedLimiter,
    tag: Tag,
    wanted: &'a [(Bound, Change)],
    is_answered: bool,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let ends = Change {
            running: -1,
            ..Change::default()
        };
        let runs = self.wanted.iter().filter(|(_, change)| change.running > 0);
        let changes: Vec<_> = runs.map(|(bound, _)| (bound.clone(), ends)).collect();
        if changes.is_empty() {
            return;
        }
        let tag = self.tag;
        let _ = self.limiter.returns.try_send(Return { tag, changes });
    }
}

fn name(tag: Tag) -> String {
    format!("{:032x}", tag.0)
}

/// What the script has answered; `None`: something that it does not say.
fn read(answer: &[i64], wanted: &[(Bound, Change)]) -> Option<Result<Quotas, Refused>> {
    let ([is_taken, subject, what, wait], used) = answer.split_first_chunk::<4>()?;
    let mut quotas = Quotas::default();
    for ((bound, _), used) in wanted.iter().zip(used.chunks_exact(2)) {
        let [requests, tokens] = used else {
            return None;
        };
        let limits = &bound.limits;
        let quota =
            |used: &i64, limit: Option<u64>| limit.map(|limit| quota_of(i128::from(*used), limit));
        quotas.add(
            quota(requests, limits.requests_per_minute),
            quota(tokens, limits.tokens_per_minute),
        );
    }
    if *is_taken == 1 {
        return Some(Ok(quotas));
    }
    let index = usize::try_from(*subject).ok()?.checked_sub(1)?;
    let (bound, _) = wanted.get(index)?;
    let limits = &bound.limits;
    let (what, limit) = match what {
        1 => (What::Requests, limits.requests_per_minute),
        2 => (What::Tokens, limits.tokens_per_minute),
        _ => (What::Running, limits.concurrent_requests),
    };
    Some(Err(Refused {
        refusal: Box::new(Refusal {
            subject: bound.subject.clone(),
            limit: limit?,
            what,
            retry_after: u64::try_from(*wait).ok().map(Duration::from_millis),
        }),
        quotas,
    }))
}

#[cfg(test)]
mod tests;
