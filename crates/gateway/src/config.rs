//! Configuration: flags over environment variables over `holdfast.toml` over defaults.
//!
//! It is read in two steps: [`file`] holds what is written, with nothing but its types checked; [`Config`] is what it
//! means, complete and valid. `serve` and `config check` run the same code. All problems are reported together, each
//! at its place in the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_protocol::context::OnTooSmall;
use holdfast_store::{LimitSettings, PostgresOptions};
use schemars::JsonSchema;
use serde::Deserialize;

pub use crate::data_key::{EncryptionConfig, KeySource};

use crate::app::{Catalog, LedgerOptions, RouteOptions, UpstreamOptions};
use crate::budgets::Rates;
use crate::keys::Secret;
use crate::models::ModelReference;
use crate::shared::SharedOptions;
use crate::telemetry::TelemetryOptions;
use crate::tls::{Tls, TlsFiles};
use crate::webhooks::WebhookOptions;

mod file;
mod problems;
mod resolve;

use resolve::{Secrets, resolve};

pub use problems::{ConfigErrors, Place, Problem};

/// The file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "holdfast.toml";

/// A complete and valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from.
    pub file: Option<PathBuf>,
    /// Listening and data.
    pub server: ServerConfig,
    /// Where contexts, keys and responses are kept.
    pub storage: StorageConfig,
    /// `[storage.encryption]`.
    pub encryption: EncryptionConfig,
    /// `[shared]`; `None`: this server counts alone.
    pub shared: Option<SharedOptions>,
    /// `[server.tls]`.
    pub tls: Option<TlsConfig>,
    /// Logging.
    pub log: LogConfig,
    /// `[telemetry]`; `None`: nothing is sent.
    pub telemetry: Option<TelemetryOptions>,
    /// Who is told of events.
    pub webhooks: Vec<WebhookOptions>,
    /// Rules for contexts.
    pub contexts: ContextsConfig,
    /// How long and how many responses are kept.
    pub responses: ResponsesConfig,
    /// How the ledger is kept.
    pub ledger: LedgerOptions,
    /// What currencies are worth, for budgets.
    pub exchange_rates: Rates,
    /// Who may use the server.
    pub auth: AuthConfig,
    /// What keys and projects may use, where they have no limits of their own.
    pub limits: LimitsConfig,
    /// Folder of pulled model files.
    pub models_dir: PathBuf,
    /// Names are unique. Empty where all models are routed to upstreams.
    pub engines: Vec<EngineConfig>,
    /// Names are unique. Without credentials where secrets were not followed.
    pub upstreams: Vec<UpstreamOptions>,
    /// What is known of models and prices.
    pub catalog: Arc<Catalog>,
    /// Never empty; names and aliases are unique together.
    pub models: Vec<ModelConfig>,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Folder of everything that must survive.
    pub data_dir: PathBuf,
    /// Whether other processes may listen on the same port.
    pub reuse_port: bool,
    /// Largest request body, bytes.
    pub body_bytes_max: usize,
    /// Largest request head, bytes.
    pub header_bytes_max: usize,
    /// Longest time for one request, seconds.
    pub request_seconds_max: u64,
    /// Most requests in flight.
    pub connections_max: usize,
    /// Most requests that wait for one of them to end.
    pub queue_max: usize,
    /// How long they wait, milliseconds.
    pub queue_wait_ms: u64,
    /// Longest time for a request's body to come, seconds.
    pub body_seconds_max: u64,
    /// Most header fields of a request.
    pub header_fields_max: usize,
    /// Time for running requests to finish at shutdown, seconds.
    pub drain_seconds: u64,
}

/// `[storage]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageConfig {
    /// SQLite in the data directory.
    Sqlite,
    /// PostgreSQL.
    Postgres(PostgresOptions),
    /// PostgreSQL, whose URL can't be had where the command runs, and why; only without secrets (see
    /// [`Config::load_without_secrets`]).
    OutOfReach(String),
}

/// `[server.tls]`.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Where everything is.
    pub files: TlsFiles,
    /// What the files hold; `None` where secrets were not followed.
    pub loaded: Option<Tls>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// A valid filter of `tracing-subscriber`.
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// `[responses]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponsesConfig {
    /// How long a response is kept where the request does not say, seconds.
    pub ttl_seconds: u32,
    /// Most stored responses and conversations of a project.
    pub per_project_max: u64,
    /// Most that they take in one project, bytes.
    pub bytes_per_project_max: u64,
}

/// `[contexts]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ContextsConfig {
    /// Who shares computed state.
    pub share_prefixes: SharePrefixes,
    /// What `usage.total_tokens` says at create.
    pub create_total_tokens: CreateTotalTokens,
    /// How long a request waits for a busy session, milliseconds.
    pub session_wait_ms: u64,
    /// Most living contexts of a project.
    pub contexts_per_project_max: u64,
    /// Most tokens of a project's living contexts.
    pub context_tokens_per_project_max: u64,
    /// What happens to a context that is too small for its upstream to cache, when neither of them says.
    pub on_too_small: OnTooSmall,
    /// Ids of keys with contexts of the gateway's own accord.
    pub auto_context_keys: Vec<String>,
    /// What replaces the data directory's salt.
    pub salt: Option<Secret>,
}

/// What happens to contexts that are too small to be cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SmallContexts {
    /// Creating one fails.
    Error,
    /// They are sent whole each time, and receipts say so.
    Replay,
}

impl From<SmallContexts> for OnTooSmall {
    fn from(word: SmallContexts) -> Self {
        match word {
            SmallContexts::Error => OnTooSmall::Error,
            SmallContexts::Replay => OnTooSmall::Replay,
        }
    }
}

/// Who shares the computed state of equal content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SharePrefixes {
    /// Contexts of the same project.
    Project,
    /// Everybody; what a project has stored can then be told from outside by timing.
    All,
}

/// What `usage.total_tokens` says in the answer to a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CreateTotalTokens {
    /// 0 for the gemini profile, else the sum.
    Profile,
    /// The sum.
    Sum,
    /// 0.
    Zero,
}

/// `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Of each key.
    pub per_key: LimitSettings,
    /// Of each project.
    pub per_project: LimitSettings,
}

/// `[auth]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthConfig {
    /// Whether every request needs a key.
    pub required: bool,
    /// The key to make sure of at start.
    pub bootstrap_key: Option<Secret>,
}

/// One of `[[engines]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// What models call it.
    pub name: String,
    /// Which file it loads.
    pub model: ModelReference,
    /// Most tokens of prompt and answer together.
    pub window_tokens: Option<u32>,
    /// Tokens of the KV cache.
    pub kv_tokens: Option<u32>,
    /// CPU threads.
    pub threads: Option<u32>,
    /// Answers generated at the same time.
    pub slots: u32,
    /// Requests that may wait.
    pub queue_max: u32,
    /// Memory for saved KV state, bytes.
    pub ram_bytes_max: Option<u64>,
    /// Disk space for saved KV state, bytes; 0 keeps none.
    pub disk_bytes_max: u64,
    /// Whether attention runs as one fused kernel.
    pub flash_attention: bool,
    /// KV cache that contexts nobody is using may keep, tokens.
    pub idle_tokens_max: u32,
    /// Size of the pieces a long prompt is computed in, tokens.
    pub chunk_tokens: u32,
}

/// One of `[[models]]`.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// What clients ask for.
    pub name: String,
    /// What answers.
    pub source: ModelSource,
    /// Whose rules its contexts follow.
    pub profile: ProfileName,
    /// More names.
    pub aliases: Vec<String>,
    /// Smallest context, tokens.
    pub min_context_tokens: u32,
    /// Length of an answer when the request sets none, tokens.
    pub max_output_tokens: u32,
    /// What all together may use of it.
    pub limits: LimitSettings,
    /// Whether the gateway keeps contexts of its own accord for what requests begin with.
    pub auto_context: bool,
    /// Temperature when the request sets none; `None`: the upstream's own.
    pub temperature: Option<f32>,
    /// Nucleus when the request sets none; `None`: the upstream's own.
    pub top_p: Option<f32>,
    /// Life of a context when the request sets none, seconds; `None`: by profile.
    pub ttl_default_seconds: Option<u32>,
    /// Shortest life, seconds; `None`: by profile.
    pub ttl_min_seconds: Option<u32>,
    /// Longest life, seconds; `None`: by profile.
    pub ttl_max_seconds: Option<u32>,
}

/// What answers for a model.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// Index into [`Config::engines`].
    Engine(usize),
    /// Upstreams.
    Route {
        /// Which ones; all of them are in [`Config::upstreams`].
        route: RouteOptions,
        /// Most tokens of prompt and answer together.
        window_tokens: u32,
    },
}

/// The profiles by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProfileName {
    /// Google's `cachedContents`.
    Gemini,
    /// Volcengine Ark's context API.
    Ark,
    /// Holdfast's own.
    Native,
}

impl ProfileName {
    /// The protocol's word for it.
    pub fn kind(self) -> holdfast_protocol::context::ProfileKind {
        use holdfast_protocol::context::ProfileKind;
        match self {
            ProfileName::Gemini => ProfileKind::Gemini,
            ProfileName::Ark => ProfileKind::Ark,
            ProfileName::Native => ProfileKind::Native,
        }
    }
}

/// What the command line says; wins over everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
}

/// Environment variables, as a value so that tests can make one up.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Those of this process. A value that is not UTF-8 counts as unset.
    pub fn of_process() -> Self {
        Environment(
            std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    /// The value, unless it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        Environment(
            variables
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }
}

impl Config {
    /// Reads and checks the configuration. Without `--config` and HOLDFAST_CONFIG, `holdfast.toml` of the working
    /// directory is used if it is there.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Config, ConfigErrors> {
        read(flags, environment, Secrets::Follow)
    }

    /// As [`Config::load`] without following references to secrets, for commands that do not serve and may run where
    /// the server's secrets can't be read. The database's URL is followed where it can be.
    ///
    /// # Errors
    /// Everything else that is wrong with it.
    pub fn load_without_secrets(
        flags: &Flags,
        environment: &Environment,
    ) -> Result<Config, ConfigErrors> {
        read(flags, environment, Secrets::Ignore)
    }

    /// As [`Config::load`], from a text instead of a file; relative paths in it start at `path`'s folder.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(
        path: &Path,
        text: &str,
        flags: &Flags,
        environment: &Environment,
    ) -> Result<Config, ConfigErrors> {
        resolve(Some(path), text, flags, environment, Secrets::Follow)
    }
}

fn read(
    flags: &Flags,
    environment: &Environment,
    secrets: Secrets,
) -> Result<Config, ConfigErrors> {
    let named = flags
        .config
        .clone()
        .or_else(|| environment.get("HOLDFAST_CONFIG").map(PathBuf::from));
    let found = || {
        Path::new(DEFAULT_FILE)
            .is_file()
            .then(|| PathBuf::from(DEFAULT_FILE))
    };
    let Some(path) = named.or_else(found) else {
        return resolve(None, "", flags, environment, secrets);
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => resolve(Some(&path), &text, flags, environment, secrets),
        Err(error) => Err(ConfigErrors {
            file: path.display().to_string(),
            others: Vec::new(),
            text: String::new(),
            problems: vec![Problem {
                span: None,
                message: format!(
                    "the configuration file {} can't be read: {error}",
                    path.display()
                ),
                help: Some(
                    "name another with --config, or leave it out to run with defaults".into(),
                ),
            }],
        }),
    }
}

/// The JSON schema of `holdfast.toml`, for editors.
pub fn schema() -> String {
    let schema = schemars::schema_for!(file::File);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
