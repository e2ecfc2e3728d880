//! Who has written what where: which contexts an upstream's own cache should know, since when, and until when. Kept in
//! memory only, because losing it costs a guess and no correctness.
//!
//! The first use of a context at an upstream goes alone: entries can be read only once the first answer has begun, so
//! that callers in parallel would each pay for writing it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_protocol::context::{Context, KeepWarm};
use holdfast_protocol::provider::{Caching, Prewarm};
use holdfast_protocol::{ContextId, UnixMillis};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::account::{is_at_worker, is_within};
use super::pool::Worker;
use super::{Target, UpstreamPrefix};

/// For how long an entry counts as written where the provider names no lifetime, seconds.
const LIFETIME_DEFAULT_SECONDS: u32 = 300;

/// Entries kept; when there are more, those that have ended go.
const ENTRIES_MAX: usize = 50_000;

/// How long a caller waits for the first one; then it goes by itself.
const FIRST_WAIT: Duration = Duration::from_secs(30);

/// A ping is sent so long before the end. Providers count from the start of the last request, and clocks differ.
const PING_BEFORE_MS: i64 = 30_000;

type Key = (ContextId, String);

/// All entries.
#[derive(Default)]
pub(crate) struct Warmth {
    entries: Mutex<HashMap<Key, Entry>>,
    homes: Mutex<HashMap<ContextId, String>>,
}

#[derive(Default)]
struct Entry {
    first: Arc<AsyncMutex<()>>,
    /// What was written: the context's version and the number of dropped messages.
    written_until: Option<UnixMillis>,
    kept: Option<Kept>,
    uses: Uses,
    /// The upstream's name of the last answer.
    last_answer: Option<String>,
}

/// What a ping needs, and how things stand.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) context: Context,
    /// Where the copy is: at this worker of the target.
    pub(super) worker: String,
    pub(super) prefix: Arc<UpstreamPrefix>,
    /// Pings since the context was last used.
    pub(super) pings: u32,
    /// The last request's start.
    pub(super) refreshed_at: UnixMillis,
    /// What one request buys, milliseconds.
    pub(super) lifetime_ms: i64,
    pub(super) uses: Uses,
}

/// How often a context is used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Uses {
    pub(super) first_at: UnixMillis,
    pub(super) last_at: UnixMillis,
    pub(super) count: u64,
}

/// What an upstream's cache should know of a context.
pub(super) enum Standing {
    /// It was written and should be there.
    Warm {
        /// Whether a chat has used it since this process knows it.
        is_used: bool,
    },
    /// It was written, and its lifetime has ended.
    Expired(Option<OwnedMutexGuard<()>>),
    /// Nothing was ever sent there. The guard keeps others waiting until it is dropped.
    Unknown(Option<OwnedMutexGuard<()>>),
}

impl Entry {
    fn warm(&self) -> Standing {
        Standing::Warm {
            is_used: self.uses.count > 0,
        }
    }
}

impl Uses {
    /// The probability of a use within `window_ms`, by the rate at which it was used since the first time; silence lowers
    /// it.
    pub(super) fn probability_within(&self, window_ms: i64, now: UnixMillis) -> f64 {
        let elapsed_ms = (now - self.first_at).max(1) as f64;
        let rate = self.count as f64 / elapsed_ms;
        1.0 - (-rate * window_ms as f64).exp()
    }
}

impl Warmth {
    /// Asks before a context is sent to `place`. Of several callers that find it cold, one gets through at a time.
    pub(super) async fn enter(
        &self,
        context: &ContextId,
        place: &str,
        now: UnixMillis,
    ) -> Standing {
        let key = (context.clone(), place.to_owned());
        let first = {
            let mut entries = self.lock();
            if entries.len() >= ENTRIES_MAX {
                entries.retain(|_, entry| {
                    entry.written_until.is_some_and(|until| until > now) || entry.kept.is_some()
                });
                if entries.len() >= ENTRIES_MAX {
                    entries.clear();
                }
            }
            let entry = entries.entry(key.clone()).or_default();
            if entry.written_until.is_some_and(|until| until > now) {
                return entry.warm();
            }
            Arc::clone(&entry.first)
        };
        let guard = tokio::time::timeout(FIRST_WAIT, first.lock_owned())
            .await
            .ok();
        match self.lock().get(&key) {
            Some(entry) => match entry.written_until {
                Some(until) if until > now => entry.warm(),
                Some(_) => Standing::Expired(guard),
                None => Standing::Unknown(guard),
            },
            None => Standing::Unknown(guard),
        }
    }

    /// A request that writes or reads the context's entry at a worker of `target` began at `started_at`.
    pub(super) fn refreshed(
        &self,
        context: &Context,
        target: &Arc<Target>,
        worker: &Worker,
        prefix: &Arc<UpstreamPrefix>,
        started_at: UnixMillis,
        use_kind: UseKind,
    ) {
        let lifetime_ms = lifetime_ms(context, target);
        let mut entries = self.lock();
        let entry = entries
            .entry((context.id.clone(), target.place_at(worker)))
            .or_default();
        let pings = match use_kind {
            UseKind::Chat => {
                if entry.uses.count == 0 {
                    entry.uses.first_at = started_at;
                }
                entry.uses.count += 1;
                entry.uses.last_at = started_at;
                0
            }
            UseKind::Create => 0,
            UseKind::Ping => entry.kept.as_ref().map_or(1, |kept| kept.pings + 1),
        };
        entry.written_until = Some(started_at + lifetime_ms);
        let cache = &target.rules.cache;
        // Handles are extended instead, and without a request for it nothing can be refreshed.
        let can_ping = cache.prewarm != Prewarm::None
            && matches!(cache.caching, Caching::Breakpoint | Caching::Automatic);
        if can_ping && context.policy.keep_warm != KeepWarm::Off {
            entry.kept = Some(Kept {
                context: context.clone(),
                worker: worker.name.clone(),
                prefix: Arc::clone(prefix),
                pings,
                refreshed_at: started_at,
                lifetime_ms,
                uses: entry.uses,
            });
        }
    }

    /// The upstream has shown that it does not have it (any more).
    pub(super) fn lost(&self, context: &ContextId, place: &str) {
        if let Some(entry) = self.lock().get_mut(&(context.clone(), place.to_owned())) {
            entry.written_until = None;
        }
    }

    /// An answer has ended, which the upstream calls so.
    pub(super) fn answered(&self, context: &ContextId, place: &str, answer: String) {
        if let Some(entry) = self.lock().get_mut(&(context.clone(), place.to_owned())) {
            entry.last_answer = Some(answer);
        }
    }

    /// What the upstream calls the context's last answer there.
    pub(super) fn last_answer(&self, context: &ContextId, place: &str) -> Option<String> {
        let entries = self.lock();
        let entry = entries.get(&(context.clone(), place.to_owned()))?;
        entry.last_answer.clone()
    }

    /// A worker has failed, and may have lost all that it had.
    pub(super) fn worker_lost(&self, upstream: &str, worker: &str) {
        for ((_, place), entry) in self.lock().iter_mut() {
            if is_at_worker(place, upstream, worker) {
                entry.written_until = None;
            }
        }
    }

    /// Those at `place`, at whichever worker, whose lifetime is about to end.
    pub(super) fn due(&self, place: &str, now: UnixMillis) -> Vec<Kept> {
        self.lock()
            .iter()
            .filter(|((_, at), _)| is_within(at, place))
            .filter_map(|(_, entry)| entry.kept.as_ref())
            .filter(|kept| {
                let before_ms = PING_BEFORE_MS.min(kept.lifetime_ms / 4);
                now >= kept.refreshed_at + kept.lifetime_ms - before_ms
            })
            .cloned()
            .collect()
    }

    /// No more pings until the next use.
    pub(super) fn let_go(&self, context: &ContextId, place: &str) {
        if let Some(entry) = self.lock().get_mut(&(context.clone(), place.to_owned())) {
            entry.kept = None;
        }
    }

    /// Forgets a context.
    pub(super) fn forget(&self, context: &ContextId) {
        self.lock().retain(|(id, _), _| id != context);
        self.homes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(context);
    }

    /// Where the context was served last, as far as this process knows.
    pub(super) fn home(&self, context: &ContextId) -> Option<String> {
        self.homes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(context)
            .cloned()
    }

    /// From now on the context is served from `place`.
    pub(super) fn settle(&self, context: &ContextId, place: &str) {
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        if homes.len() >= ENTRIES_MAX {
            homes.clear();
        }
        homes.insert(context.clone(), place.to_owned());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UseKind {
    Chat,
    Create,
    Ping,
}

fn lifetime_ms(context: &Context, target: &Target) -> i64 {
    let seconds = target
        .rules
        .cache
        .tier_for(context.ttl_seconds)
        .unwrap_or(LIFETIME_DEFAULT_SECONDS);
    i64::from(seconds) * 1000
}
