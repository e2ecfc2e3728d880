//! From what is written to what it means.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use holdfast_protocol::context::OnTooSmall;
use tracing_subscriber::EnvFilter;

use super::file::{
    Auth, BudgetsTable, CatalogTable, Contexts, EngineTable, File, LedgerTable, Located, Log,
    Responses, Server,
};
use super::problems::{ConfigErrors, Problems};
use super::{
    AuthConfig, Config, ContextsConfig, CreateTotalTokens, EngineConfig, Environment, Flags,
    LogConfig, LogFormat, ResponsesConfig, ServerConfig, SharePrefixes,
};
use crate::app::{Catalog, LedgerOptions};
use crate::budgets::Rates;
use crate::keys::{CHOSEN_KEY_CHARACTERS_MIN, Secret, check_chosen};
use crate::models::ModelReference;
use holdfast_protocol::price::{Currency, Decimal};

mod credentials;
mod models;
mod operations;
mod pool;
mod storage;
mod upstreams;
mod values;

use models::models;
use storage::storage;
use upstreams::upstreams;
use values::{Names, number, optional, referred, size};

const MIB: u64 = 1024 * 1024;

/// More sequences than llama.cpp can tell apart would fail at start; some are needed for prefixes.
const SLOTS_MAX: u32 = 128;

/// Everything a section needs to be resolved.
struct Scope<'a> {
    flags: &'a Flags,
    environment: &'a Environment,
    /// Where relative paths in the file start.
    folder: PathBuf,
    secrets: Secrets,
}

/// Whether references to secrets are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// The server needs them.
    Follow,
    /// The other commands do not, and often run where they can't be read.
    Ignore,
}

pub(super) fn resolve(
    path: Option<&Path>,
    text: &str,
    flags: &Flags,
    environment: &Environment,
    secrets: Secrets,
) -> Result<Config, ConfigErrors> {
    let mut problems = Problems::default();
    let file = File::parse(text, &mut problems);
    let scope = Scope {
        flags,
        environment,
        folder: path
            .and_then(Path::parent)
            .map(Path::to_path_buf)
            .unwrap_or_default(),
        secrets,
    };
    let server = server(&file.server, &scope, &mut problems);
    let contexts = contexts(&file.contexts, &scope, &mut problems);
    let catalog = catalog(&file.catalog, &scope, &mut problems);
    let upstreams = upstreams(
        &file.upstreams,
        contexts.on_too_small,
        &scope,
        &mut problems,
    );
    let needs_engine =
        file.models.is_empty() || file.models.iter().any(|model| model.route.is_none());
    let engines = engines(&file.engines, needs_engine, &scope, &mut problems);
    let models = models(&file.models, &engines, &upstreams, &catalog, &mut problems);
    let config = Config {
        tls: operations::tls(&file.server, &scope, &mut problems),
        webhooks: operations::webhooks(&file.webhooks, &scope, &mut problems),
        telemetry: operations::telemetry(&file.telemetry, &scope, &mut problems),
        responses: responses(&file.responses, &mut problems),
        ledger: ledger(&file.ledger, &server.data_dir, &scope, &mut problems),
        exchange_rates: exchange_rates(&file.budgets, &mut problems),
        file: path.map(Path::to_path_buf),
        storage: storage(&file.storage, &scope, &mut problems),
        encryption: storage::encryption(&file.storage, &scope, &mut problems),
        shared: storage::shared(&file.shared, &scope, &mut problems),
        log: log(&file.log, environment, &mut problems),
        contexts,
        catalog: Arc::new(catalog),
        upstreams,
        limits: operations::limits(&file.limits, &mut problems),
        auth: auth(&file.auth, &scope, server.listen, &mut problems),
        models_dir: environment
            .get("HOLDFAST_MODELS_DIR")
            .map_or_else(|| server.data_dir.join("models"), PathBuf::from),
        server,
        engines,
        models,
    };
    if problems.is_empty() {
        Ok(config)
    } else {
        let name = path
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        Err(problems.into_errors(&name, text))
    }
}

fn server(file: &Server, scope: &Scope<'_>, problems: &mut Problems) -> ServerConfig {
    ServerConfig {
        listen: listen(file, scope, problems),
        reuse_port: file.reuse_port.as_ref().is_some_and(|value| *value.get()),
        data_dir: data_dir(file, scope, problems),
        body_bytes_max: size(
            &file.body_bytes_max,
            "body_bytes_max",
            1024..=4096 * MIB,
            32 * MIB,
            problems,
        ),
        header_bytes_max: size(
            &file.header_bytes_max,
            "header_bytes_max",
            8192..=MIB,
            32768,
            problems,
        ),
        request_seconds_max: number(
            &file.request_seconds_max,
            "request_seconds_max",
            1..=86_400,
            600,
            problems,
        ),
        connections_max: size(
            &file.connections_max,
            "connections_max",
            1..=1_000_000,
            1024,
            problems,
        ),
        queue_max: size(&file.queue_max, "queue_max", 0..=1_000_000, 256, problems),
        queue_wait_ms: number(
            &file.queue_wait_ms,
            "queue_wait_ms",
            1..=600_000,
            1_000,
            problems,
        ),
        body_seconds_max: number(
            &file.body_seconds_max,
            "body_seconds_max",
            1..=86_400,
            120,
            problems,
        ),
        header_fields_max: size(
            &file.header_fields_max,
            "header_fields_max",
            16..=10_000,
            100,
            problems,
        ),
        drain_seconds: number(&file.drain_seconds, "drain_seconds", 0..=3600, 30, problems),
    }
}

fn listen(file: &Server, scope: &Scope<'_>, problems: &mut Problems) -> SocketAddr {
    let default = SocketAddr::from(([127, 0, 0, 1], 8080));
    let in_file = file.listen.as_ref();
    let (text, name, span) = if let Some(text) = &scope.flags.listen {
        (text.as_str(), "--listen", None)
    } else if let Some(text) = scope.environment.get("HOLDFAST_LISTEN") {
        (text, "HOLDFAST_LISTEN", None)
    } else if let Some(text) = in_file {
        (text.get().as_str(), "`listen`", Some(text.span()))
    } else {
        return default;
    };
    // Names are not resolved: what a name means may change, and what is listened on should not.
    let address = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    address.parse().unwrap_or_else(|_| {
        problems.add_with_help(
            span,
            format!("{name}: `{text}` is not an address and port"),
            "write for example `127.0.0.1:8080`, `0.0.0.0:8080` or `[::1]:8080`",
        );
        default
    })
}

fn data_dir(file: &Server, scope: &Scope<'_>, problems: &mut Problems) -> PathBuf {
    if let Some(path) = &scope.flags.data_dir {
        return path.clone();
    }
    if let Some(path) = scope.environment.get("HOLDFAST_DATA_DIR") {
        return PathBuf::from(path);
    }
    if let Some(path) = &file.data_dir {
        return scope.folder.join(path.get());
    }
    if let Some(path) = scope.environment.get("XDG_DATA_HOME") {
        return Path::new(path).join("holdfast");
    }
    if let Some(home) = scope.environment.get("HOME") {
        return Path::new(home).join(".local/share/holdfast");
    }
    problems.add_with_help(
        None,
        "no data directory: neither HOME nor XDG_DATA_HOME is set",
        "name one with --data-dir",
    );
    PathBuf::new()
}

fn log(file: &Log, environment: &Environment, problems: &mut Problems) -> LogConfig {
    let (filter, name, span) = if let Some(filter) = environment.get("HOLDFAST_LOG") {
        (filter, "HOLDFAST_LOG", None)
    } else if let Some(level) = &file.level {
        (level.get().as_str(), "`level`", Some(level.span()))
    } else {
        ("info", "`level`", None)
    };
    // A lone unknown word is a valid filter (it names a module) that silences everything; nobody means that.
    let is_word = filter.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_level = ["error", "warn", "info", "debug", "trace", "off"]
        .contains(&filter.to_ascii_lowercase().as_str());
    if (is_word && !is_level) || EnvFilter::from_str(filter).is_err() {
        problems.add_with_help(
            span,
            format!("{name}: `{filter}` is not a log filter"),
            "write `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,holdfast=debug`",
        );
    }
    LogConfig {
        format: file
            .format
            .as_ref()
            .map_or(LogFormat::Pretty, |format| *format.get()),
        filter: filter.to_owned(),
    }
}

fn responses(file: &Responses, problems: &mut Problems) -> ResponsesConfig {
    let ttl_seconds = number(
        &file.ttl_seconds,
        "ttl_seconds",
        60..=10 * 365 * 86_400,
        30 * 86_400,
        problems,
    );
    ResponsesConfig {
        ttl_seconds: u32::try_from(ttl_seconds).unwrap_or(u32::MAX),
        per_project_max: number(
            &file.per_project_max,
            "per_project_max",
            1..=u64::from(u32::MAX),
            1_000_000,
            problems,
        ),
        bytes_per_project_max: number(
            &file.bytes_per_project_max,
            "bytes_per_project_max",
            1024..=1 << 50,
            8 << 30,
            problems,
        ),
    }
}

fn ledger(
    file: &LedgerTable,
    data_dir: &Path,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> LedgerOptions {
    let spool_dir = match &file.spool_dir {
        Some(path) => scope.folder.join(path.get()),
        None => data_dir.join("spool"),
    };
    LedgerOptions {
        spool_dir: Some(spool_dir),
        spool_bytes_max: number(
            &file.spool_mib_max,
            "spool_mib_max",
            1..=1 << 30,
            1024,
            problems,
        ) * MIB,
        retention_days: number(
            &file.retention_days,
            "retention_days",
            0..=36_500,
            400,
            problems,
        ),
    }
}

/// Nothing is worth so much, dollars.
const EXCHANGE_RATE_MAX: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

fn exchange_rates(file: &BudgetsTable, problems: &mut Problems) -> Rates {
    let mut rates = Vec::new();
    for (code, written) in &file.exchange_rates {
        let currency = code.parse::<Currency>().ok();
        let rate = Decimal::from_str_exact(written.get().trim()).ok();
        let rate = rate.filter(|rate| *rate > Decimal::ZERO && *rate <= EXCHANGE_RATE_MAX);
        match (currency, rate) {
            (Some(Currency::USD), _) => problems.add_with_help(
                Some(written.span()),
                "rates are in US dollars",
                "a dollar is worth one",
            ),
            (Some(currency), Some(rate)) => rates.push((currency, rate)),
            (None, _) => problems.add_with_help(
                Some(written.span()),
                "this is no currency",
                "a currency is three capital letters such as CNY",
            ),
            (_, None) => problems.add_with_help(
                Some(written.span()),
                "this is no rate",
                "write what one unit is worth in US dollars as a decimal number above zero, such as \"0.14\"",
            ),
        }
    }
    Rates::new(rates)
}

fn contexts(file: &Contexts, scope: &Scope<'_>, problems: &mut Problems) -> ContextsConfig {
    ContextsConfig {
        share_prefixes: file
            .share_prefixes
            .as_ref()
            .map_or(SharePrefixes::Project, |value| *value.get()),
        create_total_tokens: file
            .create_total_tokens
            .as_ref()
            .map_or(CreateTotalTokens::Profile, |value| *value.get()),
        session_wait_ms: number(
            &file.session_wait_ms,
            "session_wait_ms",
            0..=600_000,
            0,
            problems,
        ),
        contexts_per_project_max: number(
            &file.contexts_per_project_max,
            "contexts_per_project_max",
            1..=u64::from(u32::MAX),
            100_000,
            problems,
        ),
        context_tokens_per_project_max: number(
            &file.context_tokens_per_project_max,
            "context_tokens_per_project_max",
            1..=1_000_000_000_000,
            1_000_000_000,
            problems,
        ),
        on_too_small: file
            .small_contexts
            .as_ref()
            .map_or(OnTooSmall::Error, |word| (*word.get()).into()),
        auto_context_keys: file
            .auto_context_keys
            .iter()
            .flat_map(|keys| keys.get())
            .map(|key| key.get().clone())
            .collect(),
        salt: salt(file, scope, problems),
    }
}

fn salt(file: &Contexts, scope: &Scope<'_>, problems: &mut Problems) -> Option<Secret> {
    let salt = referred(&file.salt, "salt", scope, problems)?;
    if salt.expose().chars().count() < CHOSEN_KEY_CHARACTERS_MIN {
        problems.add(
            file.salt.as_ref().map(Located::span),
            format!("`salt`: it needs at least {CHOSEN_KEY_CHARACTERS_MIN} characters"),
        );
    }
    Some(salt)
}

fn catalog(file: &CatalogTable, scope: &Scope<'_>, problems: &mut Problems) -> Catalog {
    let replace = file.replace.as_ref().is_some_and(|replace| *replace.get());
    let paths: Vec<PathBuf> = file
        .files
        .iter()
        .flat_map(Located::get)
        .map(|path| scope.folder.join(path.get()))
        .collect();
    Catalog::load(&paths, replace).unwrap_or_else(|errors| {
        problems.add(
            file.files.as_ref().map(Located::span),
            "the catalog can't be used",
        );
        problems.add_others(errors.files);
        Catalog::default()
    })
}

fn auth(file: &Auth, scope: &Scope<'_>, listen: SocketAddr, problems: &mut Problems) -> AuthConfig {
    let required = file
        .required
        .as_ref()
        .is_none_or(|required| *required.get());
    if !required && !listen.ip().is_loopback() {
        problems.add_with_help(
            file.required.as_ref().map(Located::span),
            format!(
                "`required = false` would open the server on {listen} to everyone who can reach it"
            ),
            "listen on 127.0.0.1, or leave keys required",
        );
    }
    let from_environment = scope
        .environment
        .get("HOLDFAST_BOOTSTRAP_KEY")
        .map(|key| (Secret::new(key), "HOLDFAST_BOOTSTRAP_KEY", None));
    let chosen = from_environment.or_else(|| {
        let secret = referred(&file.bootstrap_key, "bootstrap_key", scope, problems)?;
        let span = file.bootstrap_key.as_ref().map(Located::span);
        Some((secret, "`bootstrap_key`", span))
    });
    let bootstrap_key = chosen.map(|(secret, name, span)| {
        if let Err(problem) = check_chosen(&secret) {
            problems.add(span, format!("{name}: {problem}"));
        }
        secret
    });
    AuthConfig {
        required,
        bootstrap_key,
    }
}

fn engines(
    tables: &[EngineTable],
    is_needed: bool,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> Vec<EngineConfig> {
    if tables.is_empty() && !is_needed {
        return Vec::new();
    }
    if tables.is_empty() {
        return vec![engine(
            "default".into(),
            &EngineTable::default(),
            scope,
            problems,
        )];
    }
    let mut names = Names::default();
    tables
        .iter()
        .map(|table| {
            let name = names.take(table.name.as_ref(), "engine", problems);
            engine(name, table, scope, problems)
        })
        .collect()
}

fn engine(
    name: String,
    table: &EngineTable,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> EngineConfig {
    let model = match &table.model {
        None => ModelReference::default(),
        Some(text) => ModelReference::parse(text.get(), &scope.folder).unwrap_or_else(|problem| {
            problems.add_with_help(
                Some(text.span()),
                format!("`model` in [[engines]]: {problem}"),
                "write `default`, a name that `holdfast models list` shows, or a path such as `./model.gguf`",
            );
            ModelReference::default()
        }),
    };
    let window_tokens = optional(
        &table.window_tokens,
        "window_tokens",
        64..=16_777_216,
        problems,
    );
    let kv_tokens = optional(&table.kv_tokens, "kv_tokens", 64..=16_777_216, problems);
    if let (Some(window), Some(kv)) = (window_tokens, kv_tokens)
        && kv < window
    {
        problems.add_with_help(
            table.kv_tokens.as_ref().map(Located::span),
            format!("`kv_tokens` ({kv}) is less than `window_tokens` ({window}), so that a full request can't fit"),
            "raise `kv_tokens` or lower `window_tokens`",
        );
    }
    EngineConfig {
        name,
        model,
        window_tokens,
        kv_tokens,
        threads: optional(&table.threads, "threads", 1..=1024, problems),
        slots: number(&table.slots, "slots", 1..=SLOTS_MAX, 16, problems),
        queue_max: number(&table.queue_max, "queue_max", 0..=1_000_000, 256, problems),
        ram_bytes_max: optional(&table.ram_mib_max, "ram_mib_max", 0..=1 << 30, problems)
            .map(|mib| mib * MIB),
        disk_bytes_max: number(
            &table.disk_mib_max,
            "disk_mib_max",
            0..=1 << 40,
            10_240,
            problems,
        ) * MIB,
        flash_attention: table
            .flash_attention
            .as_ref()
            .is_some_and(|value| *value.get()),
        chunk_tokens: number(&table.chunk_tokens, "chunk_tokens", 16..=8192, 64, problems),
        idle_tokens_max: number(
            &table.idle_tokens_max,
            "idle_tokens_max",
            0..=16_777_216,
            8192,
            problems,
        ),
    }
}
