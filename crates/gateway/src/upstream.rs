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
mod options;
mod prefix;
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
use crate::catalog::Catalog;
use crate::events::Events;
use crate::ledger::Ledger;

pub(crate) use account::{Target, Upstream};
pub(crate) use accounts::{Accounts, amount};
pub(crate) use handles::Handles;
pub use options::{
    CacheOverrides, Credentials, Isolation, RetryPolicy, RouteOptions, TargetOptions, Timeouts,
    UpstreamOptions,
};
pub(crate) use prefix::UpstreamPrefix;
pub(crate) use route::{RouteBackend, run, tend};
pub(crate) use storage::Storage;
pub(crate) use warmth::Warmth;

use tenant::Tenants;

/// What all routes share.
pub(crate) struct Upstreams {
    by_name: HashMap<String, Arc<Upstream>>,
    pub(crate) shared: Arc<Shared>,
}

/// The parts that every route works with.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) events: Arc<Events>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    pub(crate) tenants: Tenants,
    pub(crate) handles: Handles,
    pub(crate) accounts: Accounts,
    pub(crate) warmth: Warmth,
    pub(crate) storage: Storage,
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
            clock,
            tasks,
            stopping,
        } = parts;
        let mut by_name = HashMap::new();
        for options in options {
            let name = options.name.clone();
            let upstream = Upstream::new(options, &clock)
                .map_err(|error| format!("upstream `{name}`: {error}"))?;
            if by_name.insert(name.clone(), Arc::new(upstream)).is_some() {
                return Err(format!("two upstreams are called `{name}`"));
            }
        }
        Ok(Upstreams {
            by_name,
            shared: Arc::new(Shared {
                handles: Handles::new(Arc::clone(&store), Arc::clone(&clock)),
                accounts: Accounts::new(Arc::clone(&store)),
                warmth: Warmth::default(),
                storage: Storage::default(),
                tenants: Tenants::new(secret),
                store,
                catalog,
                events,
                ledger,
                clock,
                tasks,
                stopping,
            }),
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
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}
