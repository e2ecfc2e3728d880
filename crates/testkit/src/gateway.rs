//! A whole gateway in this process, on a free loopback port.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast::app::{
    App, AppOptions, Catalog, Credentials, HealthOptions, Isolation, LedgerOptions, Limits,
    ModelEntry, ModelSource, PoolOptions, Rates, RetryPolicy, RouteOptions, Store, TargetOptions,
    Timeouts, UpstreamOptions, WorkerOptions,
};
use holdfast::service::Service;
use holdfast::shared::SharedOptions;
use holdfast::{keys, server};
use holdfast_engine::{Engine, EngineOptions};
use holdfast_protocol::Profile;
use holdfast_protocol::context::{OnTooSmall, ProfileKind};
use holdfast_protocol::provider;
use holdfast_seal::Keyring;
use holdfast_store::{
    KeyScope, KeyStore, MemoryStore, PostgresOptions, PostgresStore, SqliteStore,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::TestClient;
use crate::clock::TestClock;
use crate::faults::FaultyStore;

/// Window of models on upstreams, tokens.
const ROUTE_WINDOW_TOKENS: u32 = 1_000_000;

/// An upstream called like its provider, at this base URL, with a key; short pauses, so that tests of failures are quick.
pub fn upstream(provider: &str, base_url: &str, key: &str) -> UpstreamOptions {
    let provider = provider::by_name(provider).unwrap();
    UpstreamOptions {
        name: provider.name.to_owned(),
        provider,
        dialect: provider.dialect,
        base_url: base_url.to_owned(),
        pool: None,
        query: String::new(),
        region: String::new(),
        project: String::new(),
        credentials: Credentials::Key(keys::Secret::new(key)),
        headers: Vec::new(),
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(5),
            idle: Duration::from_secs(5),
            total: Duration::from_secs(60),
        },
        retry: RetryPolicy {
            backoff: Duration::from_millis(5),
            ..RetryPolicy::default()
        },
        isolation: Isolation::Project,
        cache: Default::default(),
        raw: None,
        concurrency_max: 256,
        on_too_small: OnTooSmall::Error,
    }
}

/// An upstream called like its provider, of servers at these URLs, which are called `w0`, `w1` and so on; checked often.
pub fn fleet<'a>(
    provider: &str,
    urls: impl IntoIterator<Item = &'a str>,
    key: &str,
) -> UpstreamOptions {
    let options = upstream(provider, "", key);
    let workers = urls.into_iter().enumerate().map(|(number, url)| {
        let name = format!("w{number}");
        WorkerOptions {
            name,
            ..WorkerOptions::at(url)
        }
    });
    let mut pool = PoolOptions::new(workers.collect());
    pool.health = HealthOptions {
        path: match options.provider.worker_health {
            Some(provider::WorkerHealth::Root(path)) => Some(path.to_owned()),
            _ => None,
        },
        interval: Duration::from_millis(50),
        ..HealthOptions::default()
    };
    UpstreamOptions {
        pool: Some(pool),
        ..options
    }
}

/// How long a gateway may take to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// A running gateway. Serves the models `tiny` (profile `native`), `gemini-2.0-flash` (profile `gemini`) and
/// `doubao-pro-32k` (profile `ark`, alias `ep-20261122`), all on one toy engine.
pub struct TestGateway {
    /// Base URL without a slash at the end.
    pub url: String,
    /// The service.
    pub app: Arc<App>,
    /// Its store, with switches.
    pub store: Arc<FaultyStore>,
    /// Its clock.
    pub clock: TestClock,
    /// Its engine.
    pub engine: Engine,
    key: String,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
    _state_dir: TempDir,
}

/// What differs from the usual.
pub struct TestGatewayBuilder {
    clock: TestClock,
    database: Option<PathBuf>,
    keys: Keyring,
    store: Option<Arc<dyn Store>>,
    limits: Limits,
    auth_required: bool,
    engine: EngineOptions,
    state_dir: TempDir,
    max_output_tokens: u32,
    auto_context: bool,
    upstreams: Vec<UpstreamOptions>,
    routes: Vec<(String, ProfileKind, RouteOptions)>,
    catalog: Catalog,
    salt: [u8; 32],
    ledger: LedgerOptions,
    rates: Rates,
    shared: Option<SharedOptions>,
}

impl TestGateway {
    /// With everything as usual.
    pub async fn start() -> TestGateway {
        Self::builder().start().await
    }

    /// To change something.
    pub fn builder() -> TestGatewayBuilder {
        let state_dir = tempfile::tempdir().unwrap();
        let mut engine = EngineOptions::new(PathBuf::new());
        engine.state_dir = Some(state_dir.path().join("state"));
        let ledger = LedgerOptions {
            spool_dir: Some(state_dir.path().join("spool")),
            ..LedgerOptions::default()
        };
        TestGatewayBuilder {
            ledger,
            shared: None,
            clock: TestClock::default(),
            database: None,
            keys: Keyring::none(),
            store: None,
            limits: Limits::default(),
            auth_required: true,
            engine,
            state_dir,
            max_output_tokens: 64,
            auto_context: false,
            upstreams: Vec::new(),
            routes: Vec::new(),
            catalog: Catalog::builtin(),
            salt: [7; 32],
            rates: Rates::default(),
        }
    }

    /// A client of the project `default` with all scopes.
    pub fn client(&self) -> TestClient {
        TestClient::new(&self.url, Some(self.key.clone()))
    }

    /// The key of [`TestGateway::client`].
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A client of some project; makes the project and a key.
    pub async fn client_of(&self, project: &str, scopes: &[KeyScope]) -> TestClient {
        let key = make_key(&*self.store, project, scopes, self.clock.now()).await;
        TestClient::new(&self.url, Some(key))
    }

    /// Stops it as a signal would: running requests may finish.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.served.await.unwrap();
        self.app.stop().await;
        self.engine.stop().await;
    }
}

impl TestGatewayBuilder {
    /// A clock shared with another gateway.
    #[must_use]
    pub fn clock(mut self, clock: &TestClock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// SQLite in this folder instead of memory, and the engine's state and the ledger's spool beside it.
    #[must_use]
    pub fn data_dir(mut self, folder: &Path) -> Self {
        self.database = Some(folder.join("holdfast.db"));
        self.engine.state_dir = Some(folder.join("state"));
        self.ledger.spool_dir = Some(folder.join("spool"));
        self
    }

    /// With what clients say sealed, in SQLite and in the engine's files.
    #[must_use]
    pub fn sealed(mut self, keys: &Keyring) -> Self {
        self.engine.state_key = keys.state_key();
        self.keys = keys.clone();
        self
    }

    /// Another way to keep the ledger.
    #[must_use]
    pub fn ledger(mut self, change: impl FnOnce(&mut LedgerOptions)) -> Self {
        change(&mut self.ledger);
        self
    }

    /// What currencies are worth.
    #[must_use]
    pub fn exchange_rates(mut self, rates: Rates) -> Self {
        self.rates = rates;
        self
    }

    /// With contexts that the gateway keeps of its own accord, on all models.
    #[must_use]
    pub fn auto_context(mut self) -> Self {
        self.auto_context = true;
        self
    }

    /// With the Redis at this URL, which other gateways may share.
    #[must_use]
    pub fn shared(mut self, url: &str) -> Self {
        self.shared = Some(SharedOptions::new(url));
        self
    }

    /// A store shared with another gateway, as between replicas.
    #[must_use]
    pub fn store(mut self, store: &Arc<dyn Store>) -> Self {
        self.store = Some(Arc::clone(store));
        self
    }

    /// A PostgreSQL, which other gateways may share.
    pub async fn postgres(mut self, options: &PostgresOptions) -> Self {
        self.store = Some(Arc::new(PostgresStore::open(options).await.unwrap()));
        self
    }

    /// Other limits.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Another engine.
    #[must_use]
    pub fn engine(mut self, change: impl FnOnce(&mut EngineOptions)) -> Self {
        change(&mut self.engine);
        self
    }

    /// With an upstream; see [`upstream`].
    #[must_use]
    pub fn upstream(mut self, upstream: UpstreamOptions) -> Self {
        self.upstreams.push(upstream);
        self
    }

    /// With a model that these upstreams answer for, the first one first: name of the upstream and of its model.
    #[must_use]
    pub fn route(self, model: &str, targets: &[(&str, &str)]) -> Self {
        self.route_as(model, ProfileKind::Native, targets)
    }

    /// The same with another profile.
    #[must_use]
    pub fn route_as(mut self, model: &str, kind: ProfileKind, targets: &[(&str, &str)]) -> Self {
        let targets = (0..)
            .zip(targets)
            .map(|(priority, (upstream, model))| TargetOptions {
                upstream: (*upstream).to_owned(),
                model: (*model).to_owned(),
                priority,
                weight: 1,
            })
            .collect();
        self.routes
            .push((model.to_owned(), kind, RouteOptions { targets }));
        self
    }

    /// With a model that these upstreams answer for in equal shares.
    #[must_use]
    pub fn balanced(mut self, model: &str, targets: &[(&str, &str)]) -> Self {
        self = self.route(model, targets);
        if let Some((_, _, route)) = self.routes.last_mut() {
            for target in &mut route.targets {
                target.priority = 0;
            }
        }
        self
    }

    /// With a model whose route is given in full.
    #[must_use]
    pub fn routed(mut self, model: &str, targets: Vec<TargetOptions>) -> Self {
        let route = RouteOptions { targets };
        self.routes
            .push((model.to_owned(), ProfileKind::Native, route));
        self
    }

    /// With other prices.
    #[must_use]
    pub fn catalog(mut self, catalog: Catalog) -> Self {
        self.catalog = catalog;
        self
    }

    /// Without keys.
    #[must_use]
    pub fn open_to_all(mut self) -> Self {
        self.auth_required = false;
        self
    }

    /// Starts it and makes a key.
    pub async fn start(self) -> TestGateway {
        let TestGatewayBuilder {
            clock,
            database,
            keys,
            store,
            limits,
            auth_required,
            engine,
            state_dir,
            max_output_tokens,
            auto_context,
            upstreams,
            routes,
            catalog,
            salt,
            ledger,
            rates,
            shared,
        } = self;
        let is_shared = store.is_some();
        let store: Arc<dyn Store> = match (store, database) {
            (Some(store), _) => store,
            (None, None) => Arc::new(MemoryStore::new()),
            (None, Some(path)) => Arc::new(SqliteStore::open_sealed(&path, &keys).await.unwrap()),
        };
        let store = Arc::new(FaultyStore::new(store, is_shared));
        let engine = Engine::start_tiny(engine).unwrap();
        let model = |name: &str, aliases: &[&str], kind| ModelEntry {
            name: name.to_owned(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            profile: Profile::of(kind, engine.info().window_tokens),
            source: ModelSource::Engine(engine.clone()),
            owned_by: "holdfast".to_owned(),
            created: 1_795_000_000,
            max_output_tokens,
            auto_context,
            temperature: Some(1.0),
            top_p: Some(1.0),
        };
        let mut models = vec![
            model("tiny", &[], ProfileKind::Native),
            model("gemini-2.0-flash", &[], ProfileKind::Gemini),
            model("doubao-pro-32k", &["ep-20261122"], ProfileKind::Ark),
        ];
        models.extend(routes.into_iter().map(|(name, kind, route)| ModelEntry {
            name,
            aliases: Vec::new(),
            profile: Profile::of(kind, ROUTE_WINDOW_TOKENS),
            source: ModelSource::Route(route),
            owned_by: "upstream".to_owned(),
            created: 1_795_000_000,
            max_output_tokens,
            auto_context,
            temperature: None,
            top_p: None,
        }));
        let mut options = AppOptions {
            limits,
            upstreams,
            catalog: Arc::new(catalog),
            salt,
            ledger,
            shared,
            auth_required,
            ..AppOptions::new(models)
        };
        options.budgets.rates = rates;
        let app = App::new(
            Arc::clone(&store) as Arc<dyn Store>,
            options,
            clock.as_clock(),
        )
        .unwrap();
        let service = Service::new(Arc::clone(&app));
        service.start().await.unwrap();
        let key = make_key(
            &*store,
            "default",
            &[KeyScope::Admin, KeyScope::Inference],
            clock.now(),
        )
        .await;

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let served = tokio::spawn({
            let shutdown = shutdown.clone();
            async move {
                server::serve(service, listener, None, shutdown, DRAIN)
                    .await
                    .unwrap()
            }
        });
        TestGateway {
            url,
            app,
            store,
            clock,
            engine,
            key,
            shutdown,
            served,
            _state_dir: state_dir,
        }
    }
}

async fn make_key(store: &dyn KeyStore, project: &str, scopes: &[KeyScope], now: i64) -> String {
    store.ensure_project(project, now).await.unwrap();
    let (secret, record) = keys::new_key(project, "test", scopes, now);
    store.insert_key(&record).await.unwrap();
    secret.expose().to_owned()
}
