//! Everything that talks outward: configured upstreams, the routes over them, the copies of contexts they hold.
//!
//! ```text
//! options     what the configuration says
//! account     one upstream: transport, credentials, breaker
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
pub use options::{
    CacheOverrides, Credentials, Isolation, RetryPolicy, RouteOptions, TargetOptions, Timeouts,
    UpstreamOptions,
};
pub(crate) use prefix::UpstreamPrefix;
pub(crate) use probe::{Probe, probe};
pub(crate) use route::{RouteBackend, run, tend, tend_until};
pub(crate) use storage::Storage;
pub(crate) use warmth::Warmth;

use tenant::Tenants;

/// All configured upstreams, and what their routes share.
pub(crate) struct Upstreams {
    by_name: HashMap<String, Arc<Upstream>>,
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
    /// with its connections, its breaker and its permits.
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
        for options in options {
            let name = options.name.clone();
            let same = before.get(&name).filter(|same| same.options == options);
            let upstream = match same {
                Some(same) => Arc::clone(same),
                None => {
                    let upstream = Upstream::new(options, &shared.clock)
                        .map_err(|error| format!("upstream `{name}`: {error}"))?;
                    let (events, watched) = (Arc::clone(&shared.events), name.clone());
                    upstream.breaker.watch(Box::new(move |is_open| {
                        events.upstream_changed(&watched, is_open);
                    }));
                    Arc::new(upstream)
                }
            };
            if by_name.insert(name.clone(), upstream).is_some() {
                return Err(format!("two upstreams are called `{name}`"));
            }
        }
        Ok(Upstreams {
            by_name,
            shared: Arc::new(shared),
        })
    }

    /// The upstream of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.by_name.get(name)
    }
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
