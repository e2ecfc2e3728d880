//! What the service is made of: store, models, limits, and the parts that work on them. Built by `serve` (or by a test),
//! and once more at each reload ([`crate::service`]); a request keeps the one it began with.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_engine::Engine;
use holdfast_protocol::{Profile, UnixMillis};
use holdfast_store::keys::KeyStore;
use holdfast_store::{
    AuditStore, BudgetStore, ContextStore, LedgerStore, LimitSettings, ResponseStore, StoreError,
    UpstreamStore,
};
use rand::RngExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Admission, AdmissionLimits};
use crate::auth::Authenticator;
use crate::budgets::Budgets;
pub use crate::budgets::{BudgetOptions, Rates};
pub use crate::catalog::Catalog;
use crate::contexts::{Beside, Contexts, Hot};
use crate::events::Events;
use crate::idempotency::Replays;
use crate::ledger::Ledger;
pub use crate::ledger::LedgerOptions;
use crate::limits::{Limiter, LocalLimiter, RateLimits, SharedLimiter};
use crate::responses::Responses;
use crate::routing::Models;
use crate::shared::{Shared, SharedOptions};
use crate::telemetry::Telemetry;
pub use crate::upstream::{
    CacheOverrides, Credentials, HealthOptions, Isolation, PoolOptions, RetryPolicy, RouteOptions,
    TargetOptions, Timeouts, UpstreamOptions, WorkerOptions,
};
use crate::upstream::{Parts, Upstreams};
use crate::webhooks::Webhooks;

/// Requests whose senders are still being looked up, and those that manage the server: they do not stand in line, and a
/// full line must not keep out those for whom somebody in it makes room.
const UNKNOWN_MAX: usize = 256;

/// How long stopping waits for writes that are under way.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// Everything the gateway keeps durably.
pub trait Store:
    ContextStore + KeyStore + UpstreamStore + ResponseStore + LedgerStore + BudgetStore + AuditStore
{
}

impl<T> Store for T where
    T: ContextStore
        + KeyStore
        + UpstreamStore
        + ResponseStore
        + LedgerStore
        + BudgetStore
        + AuditStore
{
}

/// The time, as a function so that tests can move it.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// The real time.
pub fn system_clock() -> Clock {
    Arc::new(|| jiff::Timestamp::now().as_millisecond())
}

/// A model that clients can name.
#[derive(Clone)]
pub struct ModelEntry {
    /// Its name; what contexts remember.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Its context rules.
    pub profile: Profile,
    /// What answers.
    pub source: ModelSource,
    /// Shown in the model list.
    pub owned_by: String,
    /// Shown in the model list; unix seconds.
    pub created: i64,
    /// Length of an answer when the request gives none, tokens; the window bounds it too.
    pub max_output_tokens: u32,
    /// Whether the gateway keeps contexts of its own accord for what requests begin with.
    pub auto_context: bool,
    /// When the request gives none, 0..=2; `None` leaves it to the upstream.
    pub temperature: Option<f32>,
    /// When the request gives none, 0..=1; `None` leaves it to the upstream.
    pub top_p: Option<f32>,
}

/// What answers for a model.
#[derive(Clone)]
pub enum ModelSource {
    /// The embedded engine. Several models may share one.
    Engine(Engine),
    /// Upstreams, in order of preference.
    Route(RouteOptions),
}

/// What bounds requests and tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, bytes.
    pub body_bytes_max: usize,
    /// Longest time for one request, its whole answer included, seconds.
    pub request_seconds_max: u64,
    /// Most requests in flight at once.
    pub connections_max: usize,
    /// Most requests that wait for one of them to end.
    pub queue_max: usize,
    /// How long they wait at most, milliseconds.
    pub queue_wait_ms: u64,
    /// Longest time for a request's body to come, seconds.
    pub body_seconds_max: u64,
    /// Most header fields of a request.
    pub header_fields_max: usize,
    /// Largest head of a request, bytes.
    pub header_bytes_max: usize,
    /// How long a turn waits for another turn on the same session, milliseconds. 0: it is refused at once.
    pub session_wait_ms: u64,
    /// Most living contexts of one project.
    pub contexts_per_project_max: u64,
    /// Most tokens in living contexts of one project.
    pub context_tokens_per_project_max: u64,
    /// How long a response of the Responses surface is kept where the request does not say, seconds.
    pub response_seconds: u32,
    /// Most stored responses and conversations of one project.
    pub responses_per_project_max: u64,
    /// Most that they take in one project, bytes.
    pub response_bytes_per_project_max: u64,
    /// What each key may use, where it has no limits of its own. Only rates and concurrency count here.
    pub per_key: LimitSettings,
    /// What each project may use, where it has no limits of its own. Only rates and concurrency count here.
    pub per_project: LimitSettings,
    /// What all together may use of a model, by its name. Only rates and concurrency count here.
    pub per_model: HashMap<String, LimitSettings>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes_max: 32 * 1024 * 1024,
            request_seconds_max: 600,
            connections_max: 1024,
            queue_max: 256,
            queue_wait_ms: 1_000,
            body_seconds_max: 120,
            header_fields_max: 100,
            header_bytes_max: 32 * 1024,
            session_wait_ms: 0,
            contexts_per_project_max: 100_000,
            context_tokens_per_project_max: 1_000_000_000,
            // As long as OpenAI keeps them.
            response_seconds: 30 * 86_400,
            responses_per_project_max: 1_000_000,
            response_bytes_per_project_max: 8 * 1024 * 1024 * 1024,
            per_key: LimitSettings::default(),
            per_project: LimitSettings::default(),
            per_model: HashMap::new(),
        }
    }
}

impl Limits {
    fn admission(&self) -> AdmissionLimits {
        AdmissionLimits {
            running_max: self.connections_max,
            waiting_max: self.queue_max,
            wait: Duration::from_millis(self.queue_wait_ms),
        }
    }
}

/// Who may share the state of equal prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharePrefixes {
    /// Each project only with itself.
    #[default]
    Project,
    /// All projects; one can then tell by timing that another has stored the same text.
    All,
}

/// What create reports as `usage.total_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CreateTotalTokens {
    /// 0 for the `gemini` profile, the sum for the others.
    #[default]
    Profile,
    /// Always the sum.
    Sum,
    /// Always 0.
    Zero,
}

/// What an [`App`] is built from.
#[derive(Clone)]
pub struct AppOptions {
    /// The models, in the order of the model list.
    pub models: Vec<ModelEntry>,
    /// Bounds.
    pub limits: Limits,
    /// Who may share prefixes.
    pub share_prefixes: SharePrefixes,
    /// What create reports.
    pub create_total_tokens: CreateTotalTokens,
    /// Ids of keys with contexts of the gateway's own accord on every model.
    pub auto_context_keys: HashSet<String>,
    /// Upstreams that routes name.
    pub upstreams: Vec<UpstreamOptions>,
    /// What models cost.
    pub catalog: Arc<Catalog>,
    /// Secret of this installation, from which tenants' salts and cache keys at upstreams are derived. The same on every
    /// replica and after every start, or else caches are not found again.
    pub salt: [u8; 32],
    /// The collector of OpenTelemetry, if there is one. A reload leaves it as it is.
    pub telemetry: Option<Arc<Telemetry>>,
    /// Who is told of events. A reload leaves it as it is.
    pub webhooks: Option<Arc<Webhooks>>,
    /// The Redis that servers share, if there is one. A reload leaves it as it is.
    pub shared: Option<SharedOptions>,
    /// How the ledger is kept.
    pub ledger: LedgerOptions,
    /// How budgets are kept.
    pub budgets: BudgetOptions,
    /// Whether requests need a key. Without, every request acts for the project `default` with all scopes.
    pub auth_required: bool,
}

impl AppOptions {
    /// These models with the default for everything else.
    pub fn new(models: Vec<ModelEntry>) -> Self {
        AppOptions {
            models,
            limits: Limits::default(),
            share_prefixes: SharePrefixes::default(),
            create_total_tokens: CreateTotalTokens::default(),
            auto_context_keys: HashSet::new(),
            upstreams: Vec::new(),
            catalog: Arc::new(Catalog::builtin()),
            salt: rand::rng().random(),
            telemetry: None,
            webhooks: None,
            shared: None,
            ledger: LedgerOptions::default(),
            budgets: BudgetOptions {
                owner: format!("{:032x}", rand::rng().random::<u128>()),
                ..BudgetOptions::default()
            },
            auth_required: true,
        }
    }
}

/// The service without its sockets.
pub struct App {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) limits: Limits,
    pub(crate) create_total_tokens: CreateTotalTokens,
    pub(crate) auto_context_keys: HashSet<String>,
    pub(crate) models: Arc<Models>,
    pub(crate) authenticator: Authenticator,
    pub(crate) contexts: Arc<Contexts>,
    pub(crate) responses: Arc<Responses>,
    pub(crate) replays: Replays,
    pub(crate) events: Arc<Events>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) budgets: Arc<Budgets>,
    /// Everything that has come in and is not answered yet: those that run, that wait, and that nobody has looked at.
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) admission: Arc<Admission>,
    /// What keys, projects and models may use.
    pub(crate) rates: RateLimits,
    /// What counts for them, where servers share a Redis.
    pub(crate) shared: Option<Arc<SharedLimiter>>,
    pub(crate) upstreams: Upstreams,
    share_prefixes: SharePrefixes,
    clock: Clock,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

impl App {
    /// Puts the parts together. Nothing runs before [`crate::service::Service::start`].
    ///
    /// # Errors
    /// Two models share a name or alias, or there is none, or the ledger's spool can't be had; the text says which.
    pub fn new(
        store: Arc<dyn Store>,
        options: AppOptions,
        clock: Clock,
    ) -> Result<Arc<App>, String> {
        let AppOptions {
            models,
            limits,
            share_prefixes,
            create_total_tokens,
            auto_context_keys,
            upstreams,
            catalog,
            salt,
            telemetry,
            webhooks,
            shared,
            ledger,
            budgets,
            auth_required,
        } = options;
        let events = Arc::new(Events::new(telemetry, webhooks));
        let ledger = Arc::new(Ledger::open(
            Arc::clone(&store),
            Arc::clone(&events),
            Arc::clone(&clock),
            ledger,
        )?);
        let tasks = TaskTracker::new();
        let hands_contexts = shared.as_ref().is_some_and(|options| options.contexts);
        let shared = match &shared {
            None => None,
            Some(options) => Some(Arc::new(Shared::new(options, Arc::clone(&events))?)),
        };
        // Where nobody else has the contexts, nobody needs them.
        let hot = shared
            .as_ref()
            .filter(|_| hands_contexts && store.is_shared())
            .map(|shared| Hot::new(Arc::clone(shared), Arc::clone(&events), tasks.clone()));
        let leases = shared.clone();
        let shared = shared.map(|shared| Arc::new(SharedLimiter::new(shared)));
        let limiter: Arc<dyn Limiter> = match &shared {
            Some(shared) => Arc::clone(shared) as _,
            None => Arc::new(LocalLimiter::default()),
        };
        let stopping = CancellationToken::new();
        let budgets = Arc::new(Budgets::new(
            Arc::clone(&store),
            Arc::clone(&events),
            Arc::clone(&ledger),
            Arc::clone(&clock),
            tasks.clone(),
            of_requests(budgets, &limits),
        ));
        let upstreams = Upstreams::new(
            upstreams,
            salt,
            Parts {
                store: Arc::clone(&store),
                catalog,
                events: Arc::clone(&events),
                ledger: Arc::clone(&ledger),
                budgets: Arc::clone(&budgets),
                clock: Arc::clone(&clock),
                tasks: tasks.clone(),
                stopping: stopping.clone(),
            },
        )?;
        let models = Arc::new(Models::new(models, share_prefixes, &upstreams, Vec::new())?);
        let contexts = Contexts::new(
            Arc::clone(&store),
            Arc::clone(&models),
            Arc::clone(&events),
            limits.clone(),
            Arc::clone(&clock),
            tasks.clone(),
            Beside {
                hot,
                shared: leases,
            },
        );
        let responses = Responses::new(
            Arc::clone(&store),
            limits.clone(),
            Arc::clone(&clock),
            tasks.clone(),
        );
        Ok(Arc::new(App {
            responses: Arc::new(responses),
            authenticator: Authenticator::new(Arc::clone(&store), auth_required),
            contexts: Arc::new(contexts),
            replays: Replays::new(),
            in_flight: in_flight(&limits),
            admission: Admission::new(limits.admission()),
            rates: RateLimits::new(limiter, limits.clone(), Arc::clone(&clock)),
            shared,
            stopping,
            upstreams,
            share_prefixes,
            store,
            limits,
            create_total_tokens,
            auto_context_keys,
            models,
            events,
            ledger,
            budgets,
            clock,
            tasks,
        }))
    }

    /// The same service with other options: what lives on is shared, what differs is new. The salt and who shares prefixes
    /// stay as they were, because what is cached is named by them.
    ///
    /// # Errors
    /// See [`App::new`].
    pub(crate) fn reloaded(&self, options: AppOptions) -> Result<Arc<App>, String> {
        let AppOptions {
            models,
            limits,
            share_prefixes: _,
            create_total_tokens,
            auto_context_keys,
            upstreams,
            catalog,
            salt: _,
            telemetry: _,
            webhooks: _,
            shared: _,
            ledger: _,
            budgets,
            auth_required,
        } = options;
        let budgets = Arc::new(self.budgets.reloaded(of_requests(budgets, &limits)));
        let upstreams = self
            .upstreams
            .reloaded(upstreams, catalog, Arc::clone(&budgets))?;
        let models = Arc::new(Models::new(
            models,
            self.share_prefixes,
            &upstreams,
            self.models.targets(),
        )?);
        let contexts = self.contexts.reloaded(Arc::clone(&models), limits.clone());
        Ok(Arc::new(App {
            responses: Arc::new(self.responses.reloaded(limits.clone())),
            authenticator: self.authenticator.reloaded(auth_required),
            contexts: Arc::new(contexts),
            replays: self.replays.clone(),
            in_flight: match limits.admission() == self.limits.admission() {
                true => Arc::clone(&self.in_flight),
                false => in_flight(&limits),
            },
            admission: {
                self.admission.set_limits(limits.admission());
                Arc::clone(&self.admission)
            },
            rates: self.rates.reloaded(limits.clone()),
            shared: self.shared.clone(),
            stopping: self.stopping.clone(),
            upstreams,
            share_prefixes: self.share_prefixes,
            store: Arc::clone(&self.store),
            limits,
            create_total_tokens,
            auto_context_keys,
            models,
            events: Arc::clone(&self.events),
            ledger: Arc::clone(&self.ledger),
            budgets,
            clock: Arc::clone(&self.clock),
            tasks: self.tasks.clone(),
        }))
    }

    /// Takes up the contexts that live on.
    ///
    /// # Errors
    /// The store can't be read.
    pub(crate) async fn resume(&self) -> Result<(), StoreError> {
        // What was spent is counted before what was reserved for it is released.
        let written = self.ledger.write().await;
        let resumed = match written {
            Ok(()) => self.budgets.resume().await,
            Err(error) => Err(error),
        };
        if let Err(error) = resumed {
            tracing::warn!(%error, "reservations of the process before lapse by themselves");
        }
        self.contexts.resume().await
    }

    /// Ends the background work and waits, up to ten seconds, for writes that are under way. The engines are stopped
    /// by whoever started them.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_WAIT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("stopping without waiting any longer for writes to the store");
        }
        // What was still being done a moment ago may have been charged for.
        let finished = tokio::time::timeout(STOP_WAIT, self.ledger.finish()).await;
        if finished.is_err() {
            tracing::warn!("stopping while rows of the ledger wait on disk for the next start");
        }
    }

    /// The time by the app's clock.
    pub fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    /// Does what the background work does for upstreams: pings, longer lives for handles, dropping those that nobody
    /// needs. It runs by itself every few seconds.
    pub async fn tend_upstreams(&self) {
        crate::upstream::tend(&self.upstreams.shared, &self.models.targets()).await;
    }

    /// Removes every context, response and conversation that has expired, as the sweeper does by itself every few seconds.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        self.budgets.sweep().await?;
        Ok(self.contexts.sweep().await? + self.responses.sweep().await?)
    }

    /// Takes in what other replicas over the same store have made and removed, as the sweeper does by itself twice a
    /// minute.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn take_census(&self) -> Result<(), StoreError> {
        self.contexts.take_census().await
    }

    /// Gives the store what the ledger has for it, as the ledger does by itself after a moment.
    ///
    /// # Errors
    /// The store can't be reached; nothing is lost.
    pub async fn write_ledger(&self) -> Result<(), StoreError> {
        self.ledger.write().await
    }

    /// Erases rows of the ledger that are too old, as it does by itself every few minutes; answers how many.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn erase_ledger(&self) -> Result<u64, StoreError> {
        self.ledger.erase(self.now()).await
    }

    /// Tells the store when keys were last used, as happens by itself once a minute.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn write_key_uses(&self) -> Result<(), StoreError> {
        self.authenticator.write_uses().await
    }
}

/// A reservation lasts as long as a request may.
fn of_requests(budgets: BudgetOptions, limits: &Limits) -> BudgetOptions {
    BudgetOptions {
        request_time_max: Duration::from_secs(limits.request_seconds_max),
        ..budgets
    }
}

fn in_flight(limits: &Limits) -> Arc<Semaphore> {
    let known = limits.connections_max.saturating_add(limits.queue_max);
    let places = known.saturating_add(UNKNOWN_MAX);
    Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)))
}
