//! Everything that talks outward: configured upstreams, the routes over them, the copies of contexts they hold.
//!
//! ```text
//! options     what the configuration says
//! account     one upstream: credentials, servers
//! pool        the servers of one upstream: which is asked, checks, draining
//! transport   HTTP with timeouts and bounds        auth      credentials to headers
//! route       a model's backend: which upstream, retries, fallback, one chat
//! prefix      a context's prefix, rendered once for each upstream
//! handles     copies with names: made once, extended, dropped, rebuilt
//! storage     what keeping copies costs, hour by hour
//! warmth      who has written what where, and pings that keep it
//! answer      an upstream's stream as chat events; usage, receipt, accounts
//! billing     what is charged, on its way into the ledger
//! raw         an upstream's answer that is passed through
//! ```

mod account;
mod accounts;
mod answer;
mod auth;
mod billing;
mod breaker;
mod estimate;
mod handles;
mod limiter;
mod options;
mod pool;
mod prefix;
mod probe;
mod raw;
mod route;
mod storage;
mod tenant;
mod transport;
mod warmth;

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{Clock, Store};
use crate::budgets::Budgets;
use crate::catalog::Catalog;
use crate::events::Events;
use crate::ledger::Ledger;

pub(crate) use account::{Spent, Target, Upstream};
pub(crate) use accounts::{Accounts, amount};
pub(crate) use handles::Handles;
pub(crate) use limiter::Limiter;
pub use options::{
    CacheOverrides, Credentials, HealthOptions, Isolation, PoolOptions, RetryPolicy, RouteOptions,
    TargetOptions, Timeouts, UpstreamOptions, WorkerOptions,
};
use pool::Change;
pub(crate) use pool::{Member, Worker, check_until};
pub(crate) use prefix::UpstreamPrefix;
pub(crate) use probe::{Probe, Probed, probe};
pub(crate) use route::{RouteBackend, run, tend, tend_until};
pub(crate) use storage::Storage;
pub(crate) use warmth::Warmth;

use tenant::Tenants;

/// All configured upstreams, and what their routes share.
pub(crate) struct Upstreams {
    by_name: HashMap<String, Arc<Upstream>>,
    /// In the order of the configuration.
    list: Vec<Arc<Upstream>>,
    pub(crate) shared: Arc<Shared>,
}

/// The parts that every route works with.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) events: Arc<Events>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) handles: Arc<Handles>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) warmth: Arc<Warmth>,
    pub(crate) storage: Arc<Storage>,
}

impl Upstreams {
    /// Prepares all upstreams. Nothing is sent yet.
    ///
    /// # Errors
    /// Two have the same name, or one's settings can't work; the text says which and why.
    pub(crate) fn new(
        options: Vec<UpstreamOptions>,
        secret: [u8; 32],
        parts: Parts,
    ) -> Result<Self, String> {
        let Parts {
            store,
            catalog,
            events,
            ledger,
            budgets,
            clock,
            tasks,
            stopping,
        } = parts;
        let shared = Shared {
            handles: Arc::new(Handles::new(Arc::clone(&store), Arc::clone(&clock))),
            accounts: Arc::new(Accounts::new(Arc::clone(&store))),
            warmth: Arc::default(),
            storage: Arc::default(),
            tenants: Arc::new(Tenants::new(secret)),
            store,
            catalog,
            events,
            ledger,
            budgets,
            clock,
            tasks,
            stopping,
        };
        Self::of(options, shared, &HashMap::new())
    }

    /// These upstreams and prices in place of the former ones. An upstream whose settings are the same stays what it is,
    /// with its connections, its breaker and its permits; one whose workers differ keeps those that stay.
    ///
    /// # Errors
    /// See [`Upstreams::new`].
    pub(crate) fn reloaded(
        &self,
        options: Vec<UpstreamOptions>,
        catalog: Arc<Catalog>,
        budgets: Arc<Budgets>,
    ) -> Result<Self, String> {
        let shared = Shared {
            catalog,
            budgets,
            ..Shared::clone(&self.shared)
        };
        Self::of(options, shared, &self.by_name)
    }

    fn of(
        options: Vec<UpstreamOptions>,
        shared: Shared,
        before: &HashMap<String, Arc<Upstream>>,
    ) -> Result<Self, String> {
        let mut by_name = HashMap::new();
        let mut list = Vec::new();
        for options in options {
            let name = options.name.clone();
            let known = before.get(&name);
            let upstream = match known.filter(|known| known.options == options) {
                Some(same) => Arc::clone(same),
                None => {
                    let known = known.map(Arc::as_ref);
                    let upstream = Upstream::new(options, &shared.clock, known)
                        .map_err(|error| format!("upstream `{name}`: {error}"))?;
                    upstream.pool.watch(watcher(&shared, &name));
                    Arc::new(upstream)
                }
            };
            list.push(Arc::clone(&upstream));
            if by_name.insert(name.clone(), upstream).is_some() {
                return Err(format!("two upstreams are called `{name}`"));
            }
        }
        Ok(Upstreams {
            by_name,
            list,
            shared: Arc::new(shared),
        })
    }

    /// All of them, in the order of the configuration.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.list.iter()
    }

    /// The upstream of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.by_name.get(name)
    }
}

/// Counts, logs and tells what changes at an upstream.
fn watcher(shared: &Shared, upstream: &str) -> Box<dyn Fn(Change<'_>) + Send + Sync> {
    let (events, warmth) = (Arc::clone(&shared.events), Arc::clone(&shared.warmth));
    let upstream = upstream.to_owned();
    Box::new(move |change| match change {
        Change::Pool { is_down } => events.upstream_changed(&upstream, is_down),
        Change::Worker { name, is_down } => {
            events.worker_changed(&upstream, name, is_down);
            if is_down {
                // It may come back with an empty cache, and mostly does.
                warmth.worker_lost(&upstream, name);
            }
        }
    })
}

/// What [`Upstreams::new`] is given of the service.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) events: Arc<Events>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}
