//! Counting in this process, exactly: everything is decided under one lock.
//!
//! What a subject has used runs off evenly, its limit within a minute. A subject that has used nothing is as good as one
//! that nobody has heard of, so that memory is bounded by what was used within the last minute.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_store::LimitSettings;

use super::{
    Bound, Change, Limiter, Place, Quota, Quotas, Refusal, Refused, Subject, Tag, Taken, What,
};

/// When to try again if too many requests run: nobody knows when one ends.
const CONCURRENT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A use of one is counted as so many, so that what runs off in a millisecond is a whole number: the limit.
const SCALE: i128 = 60_000;

/// So many subjects are kept without looking for idle ones.
const SUBJECTS_MIN: usize = 1024;

/// Counts in memory.
#[derive(Default)]
pub(crate) struct LocalLimiter {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    subjects: HashMap<Subject, Count>,
    /// When there are so many subjects, idle ones are looked for.
    tidy_at: usize,
    /// The latest time seen; clocks may be set back.
    now: UnixMillis,
}

#[derive(Debug, Default)]
struct Count {
    requests: Meter,
    tokens: Meter,
    running: i64,
}

/// What has been used of a limit per minute.
#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    /// In parts of [`SCALE`].
    used: i128,
    at: UnixMillis,
    /// What ran off within a minute when it was last looked at.
    limit: u64,
}

impl Meter {
    fn run_off(&mut self, limit: u64, now: UnixMillis) {
        let elapsed = i128::from(now.saturating_sub(self.at).max(0));
        self.used = (self.used - elapsed * i128::from(limit)).max(0);
        self.at = now;
        self.limit = limit;
    }

    fn has_run_off(&self, now: UnixMillis) -> bool {
        let elapsed = i128::from(now.saturating_sub(self.at).max(0));
        self.used <= elapsed * i128::from(self.limit)
    }

    /// How long until `wanted` more fit; `None`: they fit now. More than the `whole` limit fits never, and what is too
    /// much for a share of it waits for all of the share.
    fn wait(&self, limit: u64, whole: u64, wanted: i64) -> Option<Option<Duration>> {
        let room = i128::from(limit) * SCALE;
        if wanted <= 0 {
            return None;
        }
        if i128::from(wanted) > i128::from(whole) {
            return Some(None);
        }
        let beyond = self.used + (i128::from(wanted) * SCALE).min(room) - room;
        (beyond > 0).then(|| Some(time_for(beyond, limit)))
    }

    fn add(&mut self, amount: i64) {
        self.used = (self.used + i128::from(amount) * SCALE).max(0);
    }

    fn quota(&self, limit: u64) -> Quota {
        quota_of(self.used, limit)
    }
}

/// What is left of a limit when so many parts in [`SCALE`] are used.
pub(super) fn quota_of(used: i128, limit: u64) -> Quota {
    let whole = u64::try_from((used + SCALE - 1) / SCALE).unwrap_or(u64::MAX);
    Quota {
        limit,
        remaining: limit.saturating_sub(whole),
        reset: time_for(used, limit),
    }
}

/// How long `used` takes to run off.
fn time_for(used: i128, limit: u64) -> Duration {
    let limit = i128::from(limit.max(1));
    let millis = (used + limit - 1) / limit;
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

impl Count {
    fn run_off(&mut self, limits: &LimitSettings, now: UnixMillis) {
        // Where there is no limit nothing is kept, so that one that is set later begins afresh.
        self.requests
            .run_off(limits.requests_per_minute.unwrap_or(u64::MAX), now);
        self.tokens
            .run_off(limits.tokens_per_minute.unwrap_or(u64::MAX), now);
    }

    /// Runs off by the limits of the last time; what is given back does not set new ones.
    fn run_off_further(&mut self, now: UnixMillis) {
        self.requests.run_off(self.requests.limit, now);
        self.tokens.run_off(self.tokens.limit, now);
    }

    /// Whether a change fits into `share`, which is all of the limits of `whole` or a part of them.
    fn check(&self, share: &LimitSettings, whole: &Bound, change: Change) -> Result<(), Refusal> {
        let limits = &whole.limits;
        let refusal = |limit, what, retry_after| Refusal {
            subject: whole.subject.clone(),
            limit,
            what,
            retry_after,
        };
        if let (Some(limit), Some(whole)) = (share.concurrent_requests, limits.concurrent_requests)
            && change.running > 0
            && i128::from(self.running) + i128::from(change.running) > i128::from(limit)
        {
            return Err(refusal(whole, What::Running, Some(CONCURRENT_RETRY_AFTER)));
        }
        for (limit, whole, meter, wanted, what) in [
            (
                share.requests_per_minute,
                limits.requests_per_minute,
                &self.requests,
                change.requests,
                What::Requests,
            ),
            (
                share.tokens_per_minute,
                limits.tokens_per_minute,
                &self.tokens,
                change.tokens,
                What::Tokens,
            ),
        ] {
            if let (Some(limit), Some(whole)) = (limit, whole)
                && let Some(retry_after) = meter.wait(limit, whole, wanted)
            {
                return Err(refusal(whole, what, retry_after));
            }
        }
        Ok(())
    }

    fn add(&mut self, bound: &Bound, change: Change) {
        if bound.limits.requests_per_minute.is_some() {
            self.requests.add(change.requests);
        }
        if bound.limits.tokens_per_minute.is_some() {
            self.tokens.add(change.tokens);
        }
        self.running = (self.running + change.running).max(0);
    }

    /// Whether it is as if nothing had been used by `now`.
    fn is_idle(&self, now: UnixMillis) -> bool {
        self.running == 0 && self.requests.has_run_off(now) && self.tokens.has_run_off(now)
    }
}

impl LocalLimiter {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many subjects are kept.
    #[cfg(test)]
    pub(super) fn subjects(&self) -> usize {
        self.counts().subjects.len()
    }
}

impl Counts {
    fn move_to(&mut self, now: UnixMillis) -> UnixMillis {
        self.now = self.now.max(now);
        self.now
    }

    fn of(&mut self, subject: &Subject, limits: &LimitSettings, now: UnixMillis) -> &mut Count {
        let count = self.subjects.entry(subject.clone()).or_default();
        count.run_off(limits, now);
        count
    }

    fn tidy(&mut self) {
        if self.subjects.len() < self.tidy_at.max(SUBJECTS_MIN) {
            return;
        }
        let now = self.now;
        self.subjects.retain(|_, count| !count.is_idle(now));
        // Each subject is looked at a bounded number of times for each that comes.
        self.tidy_at = self.subjects.len() * 2;
    }
}

impl LocalLimiter {
    /// As [`Limiter::take`], where a subject may use only one part in `shares` of its limits. What is never too much for
    /// the whole limit is not too much for a share: it waits for all of it.
    pub(super) fn take_share(
        &self,
        wanted: &[(Bound, Change)],
        shares: u64,
        now: UnixMillis,
    ) -> Result<Quotas, Refused> {
        let shares = shares.max(1);
        let mut counts = self.counts();
        let now = counts.move_to(now);
        counts.tidy();
        let wanted: Vec<_> = wanted
            .iter()
            .filter(|(bound, _)| bound.is_bound())
            .map(|(bound, change)| (bound, share_of(bound.limits, shares), *change))
            .collect();
        let refusal = wanted.iter().find_map(|(bound, share, change)| {
            let count = counts.of(&bound.subject, share, now);
            count.check(share, bound, *change).err()
        });
        let mut quotas = Quotas::default();
        for (bound, share, change) in &wanted {
            let count = counts.of(&bound.subject, share, now);
            if refusal.is_none() {
                count.add(bound, *change);
            }
            quotas.add(
                share
                    .requests_per_minute
                    .map(|limit| count.requests.quota(limit)),
                share
                    .tokens_per_minute
                    .map(|limit| count.tokens.quota(limit)),
            );
        }
        match refusal {
            None => Ok(quotas),
            Some(refusal) => Err(Refused {
                refusal: Box::new(refusal),
                quotas,
            }),
        }
    }
}

fn share_of(mut limits: LimitSettings, shares: u64) -> LimitSettings {
    for limit in [
        &mut limits.requests_per_minute,
        &mut limits.tokens_per_minute,
        &mut limits.concurrent_requests,
    ] {
        *limit = limit.map(|limit| (limit / shares).max(1));
    }
    limits
}

#[async_trait]
impl Limiter for LocalLimiter {
    async fn take(
        &self,
        _tag: Tag,
        wanted: &[(Bound, Change)],
        now: UnixMillis,
    ) -> Result<Taken, Refused> {
        let quotas = self.take_share(wanted, 1, now)?;
        Ok(Taken {
            place: Place::Here,
            quotas,
        })
    }

    fn adjust(&self, _place: Place, _tag: Tag, changes: &[(Bound, Change)], now: UnixMillis) {
        let mut counts = self.counts();
        let now = counts.move_to(now);
        for (bound, change) in changes.iter().filter(|(bound, _)| bound.is_bound()) {
            let count = counts.subjects.entry(bound.subject.clone()).or_default();
            count.run_off_further(now);
            count.add(bound, *change);
        }
    }
}
