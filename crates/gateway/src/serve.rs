//! Starts everything in order, waits for a signal, and stops everything in order.
//!
//! Nothing listens before the gateway can answer: until then connections are refused, though the port is taken at once
//! so that a wrong address fails before a model is fetched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_engine::{Engine, EngineOptions};
use holdfast_protocol::UnixMillis;
use holdfast_seal::Keyring;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::{App, AppOptions, Store, system_clock};
use crate::audit::Actor;
use crate::budgets::BudgetOptions;
use crate::config::{self, Config, EngineConfig, ModelConfig};
use crate::keys::Secret;
use crate::models::{
    ModelError, ModelName, ModelReference, ModelStore, OpenModel, Progress, PullRequest, Source,
};
use crate::service::Service;
use crate::telemetry::Telemetry;
use crate::tls::{Certificates, Tls};
use crate::webhooks::Webhooks;

mod data_dir;
mod first_key;
mod options;
mod reload;
mod storage;
mod systemd;

pub use data_dir::{DataDir, DataDirLock};
pub use first_key::ensure_keys;
use options::{app_options, budget_options, created_seconds, model_entry, owner, salt};
pub use reload::{ConfigSource, SetLogFilter};
pub(crate) use storage::OpenStore;

/// The project that is there from the start.
pub const DEFAULT_PROJECT: &str = "default";

const DAY_SECONDS: i64 = 86_400;

/// A certificate that ends within this is worth a warning, seconds: those who renew for you do so a month ahead.
pub const CERTIFICATE_WARN_SECONDS: i64 = 14 * DAY_SECONDS;

/// Waiting connections the system keeps for us.
const BACKLOG: u32 = 1024;

/// Why the server could not start or go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServeError {
    /// What failed.
    pub message: String,
    /// What to try.
    pub help: Option<String>,
}

impl ServeError {
    fn new(message: impl Into<String>) -> Self {
        ServeError {
            message: message.into(),
            help: None,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// What the server has to say at start, for standard output. The command line decides how it looks.
#[derive(Debug, Clone, PartialEq)]
pub enum Announcement {
    /// An engine is ready.
    Engine {
        /// Its name.
        name: String,
        /// Names of the models it serves.
        models: Vec<String>,
        /// Most tokens of prompt and answer.
        window_tokens: u32,
    },
    /// A model is routed to upstreams.
    Route {
        /// Its names.
        models: Vec<String>,
        /// Names of the upstreams, in the order of the configuration.
        upstreams: Vec<String>,
        /// Most tokens of prompt and answer.
        window_tokens: u32,
    },
    /// The first key was made. This is the only time it is shown.
    FirstKey {
        /// The key.
        secret: Secret,
        /// Where it is kept for the command line.
        file: std::path::PathBuf,
    },
    /// Requests are answered from now on.
    Listening {
        /// Base URL.
        url: String,
    },
    /// A signal came; running requests may finish.
    Stopping,
}

/// Serves until a signal comes. The first SIGTERM or SIGINT lets running requests finish, the second ends the process;
/// SIGHUP reads the configuration from `source` again.
///
/// # Errors
/// Something that is needed can't be had, or listening failed later on.
pub async fn run(
    config: Config,
    source: ConfigSource,
    progress: Arc<dyn Progress>,
    announce: &(dyn Fn(Announcement) + Sync),
) -> Result<(), ServeError> {
    let shutdown = CancellationToken::new();
    let hangups = watch_signals(shutdown.clone())?;
    let data_dir = DataDir::new(&config.server.data_dir);
    let _lock = data_dir.lock()?;
    let door = match systemd::inherited_listener()? {
        Some(listener) => Door::Inherited(listener),
        None => Door::Bound(bind(config.server.listen, config.server.reuse_port)?),
    };
    let keys = data_keys(&config).await?;
    let opened = OpenStore::open(&config.storage, &keys, &data_dir).await?;
    let store = opened.store();
    let running = tokio::select! {
        running = start(&config, source, &data_dir, &keys, &store, &progress, announce) => running,
        () = shutdown.cancelled() => {
            announce(Announcement::Stopping);
            opened.close().await;
            return Ok(());
        }
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => {
            opened.close().await;
            return Err(error);
        }
    };
    let reloading = tokio::spawn(reload_at(hangups, Arc::clone(&running.service)));
    let served = listen(&config, &data_dir, door, &running, shutdown, announce).await;
    reloading.abort();
    data_dir.remove_address();
    running.service.stop().await;
    if let Some(telemetry) = running.telemetry {
        // What it sends is sent by this runtime, so that waiting for it must not take one of its threads.
        let stopped = tokio::task::spawn_blocking(move || telemetry.stop()).await;
        if let Err(error) = stopped {
            tracing::warn!(%error, "the last spans may be lost");
        }
    }
    for engine in &running.engines {
        engine.stop().await;
    }
    opened.close().await;
    served
}

/// What start-up makes. The checked files stay locked, so that nobody removes what an engine has mapped.
struct Running {
    service: Arc<Service>,
    telemetry: Option<Arc<Telemetry>>,
    /// `None`: plain HTTP.
    certificates: Option<Certificates>,
    engines: Vec<Engine>,
    _files: Vec<OpenModel>,
}

async fn start(
    config: &Config,
    source: ConfigSource,
    data_dir: &DataDir,
    keys: &Keyring,
    store: &Arc<dyn Store>,
    progress: &Arc<dyn Progress>,
    announce: &(dyn Fn(Announcement) + Sync),
) -> Result<Running, ServeError> {
    let first_key = ensure_keys(config, data_dir, &**store, now()).await?;
    let store_of_models = ModelStore::new(&config.models_dir);
    let (mut started, mut files) = (Vec::new(), Vec::new());
    for (index, engine_config) in config.engines.iter().enumerate() {
        let open = open_model(&store_of_models, engine_config, progress).await?;
        let engine = start_engine(engine_config, data_dir, keys, &open).await?;
        announce(Announcement::Engine {
            name: engine_config.name.clone(),
            models: config
                .models
                .iter()
                .filter(
                    |model| matches!(model.source, config::ModelSource::Engine(of) if of == index),
                )
                .flat_map(names)
                .collect(),
            window_tokens: engine.info().window_tokens,
        });
        started.push(StartedEngine {
            name: engine_config.name.clone(),
            created: created_seconds(&open),
            engine,
        });
        files.push(open);
    }
    for model in &config.models {
        if let config::ModelSource::Route {
            route,
            window_tokens,
        } = &model.source
        {
            let upstreams = route.targets.iter().map(|target| target.upstream.clone());
            announce(Announcement::Route {
                models: names(model).collect(),
                upstreams: upstreams.collect(),
                window_tokens: *window_tokens,
            });
        }
    }
    let entries = config
        .models
        .iter()
        .filter_map(|model| model_entry(model, config, &started))
        .collect();
    let salt = salt(config, data_dir)?;
    let telemetry = match &config.telemetry {
        Some(options) => Some(
            Telemetry::start(options)
                .map_err(|error| ServeError::new(format!("telemetry can't start: {error}")))?,
        ),
        None => None,
    };
    let webhooks = match config.webhooks.is_empty() {
        true => None,
        false => Some(Webhooks::start(&config.webhooks).map_err(ServeError::new)?),
    };
    let options = AppOptions {
        telemetry: telemetry.clone(),
        webhooks,
        budgets: BudgetOptions {
            owner: owner(data_dir)?,
            ..budget_options(config)
        },
        ..app_options(config, entries, salt)
    };
    let app = App::new(Arc::clone(store), options, system_clock()).map_err(ServeError::new)?;
    let engines = started.iter().map(|started| started.engine.clone());
    let engines = engines.collect();
    let tls = config.tls.as_ref().and_then(|tls| tls.loaded.clone());
    if let Some(tls) = &tls {
        app.events.certificate_shown(tls.expires_at_seconds);
        tell_expiry(tls);
    }
    let certificates = tls.map(Certificates::new);
    let fixed = reload::Fixed {
        certificates: certificates.clone(),
        config: config.clone(),
        data_dir: data_dir.clone(),
        store: Arc::clone(store),
        engines: started,
        salt,
    };
    let service = Service::reloadable(app, reload::reread(source, fixed));
    service
        .start()
        .await
        .map_err(|error| ServeError::new(format!("the stored contexts can't be read: {error}")))?;
    // Last, so that nobody has to search for it above the lines of a long download.
    if let Some(secret) = first_key {
        announce(Announcement::FirstKey {
            secret,
            file: data_dir.first_key_file(),
        });
    }
    Ok(Running {
        service,
        telemetry,
        certificates,
        engines,
        _files: files,
    })
}

/// An engine that runs.
struct StartedEngine {
    /// By the configuration.
    name: String,
    engine: Engine,
    /// Seconds since the Unix epoch.
    created: i64,
}

/// All names of a model.
fn names(model: &ModelConfig) -> impl Iterator<Item = String> {
    std::iter::once(&model.name).chain(&model.aliases).cloned()
}

async fn listen(
    config: &Config,
    data_dir: &DataDir,
    door: Door,
    running: &Running,
    shutdown: CancellationToken,
    announce: &(dyn Fn(Announcement) + Sync),
) -> Result<(), ServeError> {
    let failed = |error: std::io::Error| {
        ServeError::new(format!("can't listen on {}: {error}", config.server.listen))
    };
    let certificates = running.certificates.clone();
    let listener = door.open().map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let scheme = if certificates.is_some() {
        "https"
    } else {
        "http"
    };
    if let Err(error) = data_dir.write_address(&format!("{scheme}://{}", reachable(address))) {
        tracing::warn!(%error, "the address file can't be written; the command line needs --url");
    }
    systemd::notify("READY=1");
    announce(Announcement::Listening {
        url: format!("{scheme}://{address}"),
    });
    let stopping = shutdown.clone();
    let drain = Duration::from_secs(config.server.drain_seconds);
    let served = crate::server::serve(
        Arc::clone(&running.service),
        listener,
        certificates,
        shutdown,
        drain,
    );
    tokio::pin!(served);
    let early = tokio::select! {
        // First, or else a server without requests would be over before anybody is told that it stops.
        biased;
        () = stopping.cancelled() => None,
        served = &mut served => Some(served),
    };
    // It may also have been told in the instant between the two, and be over at once.
    if stopping.is_cancelled() {
        systemd::notify("STOPPING=1");
        announce(Announcement::Stopping);
    }
    let served = match early {
        Some(served) => served,
        None => served.await,
    };
    served.map_err(|error| ServeError::new(format!("the server failed: {error}")))
}

/// Clients refuse a certificate that has ended, and nobody sees why in a log that says nothing.
fn tell_expiry(tls: &Tls) {
    let left_seconds = tls.expires_at_seconds - now() / 1000;
    if left_seconds <= 0 {
        tracing::error!("the certificate of [server.tls] has expired; clients will refuse it");
    } else if left_seconds < CERTIFICATE_WARN_SECONDS {
        tracing::warn!(
            days = left_seconds / DAY_SECONDS,
            "the certificate of [server.tls] ends soon"
        );
    }
}

/// Milliseconds since the Unix epoch.
pub fn now() -> UnixMillis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

/// Returns the stream of SIGHUPs: one that comes before the server is ready is kept, and does not end the process.
fn watch_signals(shutdown: CancellationToken) -> Result<Signal, ServeError> {
    let failed =
        |error: std::io::Error| ServeError::new(format!("signals can't be watched: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let hangups = signal(SignalKind::hangup()).map_err(failed)?;
    tokio::spawn(async move {
        loop {
            let code = tokio::select! {
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            };
            if shutdown.is_cancelled() {
                // State on disk is safe at any instant; what is lost is what the first signal waits for.
                std::process::exit(code);
            }
            shutdown.cancel();
        }
    });
    Ok(hangups)
}

async fn reload_at(mut hangups: Signal, service: Arc<Service>) {
    while hangups.recv().await.is_some() {
        // What it came to is in the log.
        let _ = service.reload(Actor::signal()).await;
    }
}

/// Where connections come in.
enum Door {
    /// The address is taken, and nobody is let in yet.
    Bound(TcpSocket),
    /// A service manager's: connections that come before we are ready wait in it.
    Inherited(std::net::TcpListener),
}

impl Door {
    fn open(self) -> std::io::Result<TcpListener> {
        match self {
            Door::Bound(socket) => socket.listen(BACKLOG),
            Door::Inherited(listener) => TcpListener::from_std(listener),
        }
    }
}

fn bind(address: SocketAddr, reuse_port: bool) -> Result<TcpSocket, ServeError> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let bound = socket.and_then(|socket| {
        // A restart must not wait for the connections of the process before to time out.
        socket.set_reuseaddr(true)?;
        // Another process may have the port already, and goes on until it is stopped.
        socket.set_reuseport(reuse_port)?;
        socket.bind(address)?;
        Ok(socket)
    });
    bound.map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another program has this port: choose one with --listen 127.0.0.1:PORT"
            }
            std::io::ErrorKind::PermissionDenied => {
                "ports below 1024 belong to the system: choose a higher one"
            }
            std::io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address: use 127.0.0.1 or 0.0.0.0"
            }
            _ => "choose another with --listen",
        };
        ServeError::new(format!("can't listen on {address}: {error}")).help(help)
    })
}

/// What to connect to, for a server that listens on all addresses.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The keys that seal and open what is stored.
pub(crate) async fn data_keys(config: &Config) -> Result<Keyring, ServeError> {
    config.encryption.keyring().await.map_err(|error| {
        ServeError::new(format!("the data key can't be had: {error}"))
            .help("without it nothing that it sealed can be read")
    })
}

async fn open_model(
    models: &ModelStore,
    engine: &EngineConfig,
    progress: &Arc<dyn Progress>,
) -> Result<OpenModel, ServeError> {
    let failed = |error: ModelError| {
        let error = ServeError::new(format!(
            "engine `{}` can't have its model: {error}",
            engine.name
        ));
        match &engine.model {
            ModelReference::Pulled(name) if name.is_default() => {
                error.help("holdfast models pull default")
            }
            ModelReference::Pulled(_) => error,
            ModelReference::File(_) => {
                error.help("check `model` of this engine in the configuration")
            }
        }
    };
    if let ModelReference::Pulled(name) = &engine.model {
        provide(models, name, progress).await.map_err(failed)?;
    }
    let (models, reference) = (models.clone(), engine.model.clone());
    tokio::task::spawn_blocking(move || models.open(&reference))
        .await
        .map_err(|error| ServeError::new(format!("checking the model failed: {error}")))?
        .map_err(failed)
}

/// Pulls the default model if it is missing; waits if somebody else is at it.
async fn provide(
    models: &ModelStore,
    name: &ModelName,
    progress: &Arc<dyn Progress>,
) -> Result<(), ModelError> {
    if !name.is_default() || models.contains(name) {
        return Ok(());
    }
    match models
        .pull(&PullRequest::new(Source::default_model()), progress)
        .await
    {
        Err(ModelError::Busy { .. }) => {}
        other => return other.map(drop),
    }
    progress.step(
        "another holdfast is fetching the model; waiting for it",
        None,
    );
    let (waiting_models, waiting_name) = (models.clone(), name.clone());
    let waited =
        tokio::task::spawn_blocking(move || waiting_models.wait_until_free(&waiting_name)).await;
    progress.finish();
    waited.unwrap_or_else(|error| {
        Err(ModelError::Download(format!(
            "waiting was interrupted: {error}"
        )))
    })?;
    if models.contains(name) {
        return Ok(());
    }
    models
        .pull(&PullRequest::new(Source::default_model()), progress)
        .await
        .map(drop)
}

async fn start_engine(
    config: &EngineConfig,
    data_dir: &DataDir,
    keys: &Keyring,
    open: &OpenModel,
) -> Result<Engine, ServeError> {
    let mut options = EngineOptions::new(open.path.clone());
    options.window_tokens = config.window_tokens;
    options.kv_tokens = config.kv_tokens;
    options.threads = config.threads;
    options.slots = config.slots;
    options.queue_max = config.queue_max;
    options.ram_bytes_max = config.ram_bytes_max;
    options.state_dir = (config.disk_bytes_max > 0).then(|| data_dir.engine_state(&config.name));
    options.disk_bytes_max = config.disk_bytes_max;
    options.state_key = keys.state_key();
    options.flash_attention = config.flash_attention;
    options.chunk_tokens = config.chunk_tokens;
    options.idle_tokens_max = config.idle_tokens_max;
    let name = config.name.clone();
    tokio::task::spawn_blocking(move || Engine::start(options))
        .await
        .map_err(|error| {
            ServeError::new(format!("engine `{name}` failed while it started: {error}"))
        })?
        .map_err(|error| {
            ServeError::new(format!("engine `{name}` can't start: {error}"))
                .help("`holdfast doctor` checks the model file and the memory")
        })
}

#[cfg(test)]
mod tests;
