//! From what is written to what it means.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use super::file::{Auth, Contexts, EngineTable, File, Located, Log, ModelTable, Server};
use super::problems::{ConfigErrors, Problems, closest};
use super::{
    AuthConfig, Config, ContextsConfig, CreateTotalTokens, EngineConfig, Environment, Flags,
    LogConfig, LogFormat, ModelConfig, ProfileName, ServerConfig, SharePrefixes,
};
use crate::keys::{Secret, check_chosen};
use crate::models::{DEFAULT_ALIAS, ModelReference};

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
    let engines = engines(&file.engines, &scope, &mut problems);
    let models = models(&file.models, &engines, &mut problems);
    let config = Config {
        file: path.map(Path::to_path_buf),
        log: log(&file.log, environment, &mut problems),
        contexts: contexts(&file.contexts, &mut problems),
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

fn contexts(file: &Contexts, problems: &mut Problems) -> ContextsConfig {
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
    }
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
        let reference = file.bootstrap_key.as_ref()?;
        if scope.secrets == Secrets::Ignore {
            return None;
        }
        let span = Some(reference.span());
        match secret(reference.get(), scope) {
            Ok(secret) => Some((secret, "`bootstrap_key`", span)),
            Err((message, help)) => {
                problems.add_with_help(span, format!("`bootstrap_key`: {message}"), help);
                None
            }
        }
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

/// Follows `env:NAME` or `file:PATH`. The error never repeats the text: it may be the secret itself.
fn secret(reference: &str, scope: &Scope<'_>) -> Result<Secret, (String, String)> {
    if let Some(name) = reference.strip_prefix("env:") {
        return scope.environment.get(name).map(Secret::new).ok_or_else(|| {
            (
                format!("the environment variable {name} is not set"),
                format!("set {name}, or point to a file with `file:PATH`"),
            )
        });
    }
    if let Some(path) = reference.strip_prefix("file:") {
        let path = scope.folder.join(path);
        return match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Secret::new(text.trim())),
            Err(error) => Err((
                format!("{} can't be read: {error}", path.display()),
                "relative paths start at the folder of the configuration file".into(),
            )),
        };
    }
    Err((
        "secrets are not written into the configuration, only referred to".into(),
        "write `env:NAME` or `file:PATH`".into(),
    ))
}

fn engines(
    tables: &[EngineTable],
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> Vec<EngineConfig> {
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

fn models(
    tables: &[ModelTable],
    engines: &[EngineConfig],
    problems: &mut Problems,
) -> Vec<ModelConfig> {
    let mut names = Names::default();
    if tables.is_empty() {
        return engines
            .iter()
            .enumerate()
            .map(|(index, engine)| {
                let name = engine.model.served_name();
                if !names.free(&name, None) {
                    problems.add_with_help(
                        None,
                        format!("two engines load `{name}`, so that their models can't both be called that"),
                        "name the models with [[models]]",
                    );
                }
                let aliases = if index == 0 && name != DEFAULT_ALIAS {
                    vec![DEFAULT_ALIAS.to_owned()]
                } else {
                    Vec::new()
                };
                ModelConfig {
                    name,
                    aliases,
                    ..model(&ModelTable::default(), index, engines, problems)
                }
            })
            .collect();
    }
    tables
        .iter()
        .map(|table| {
            let name = names.take(table.name.as_ref(), "model", problems);
            let aliases = match &table.aliases {
                None => Vec::new(),
                Some(aliases) => aliases
                    .get()
                    .iter()
                    .map(|alias| names.take(Some(alias), "model", problems))
                    .collect(),
            };
            let engine = engine_of(table, engines, problems);
            ModelConfig {
                name,
                aliases,
                ..model(table, engine, engines, problems)
            }
        })
        .collect()
}

fn engine_of(table: &ModelTable, engines: &[EngineConfig], problems: &mut Problems) -> usize {
    let Some(wanted) = &table.engine else {
        if engines.len() > 1 {
            let known: Vec<_> = engines
                .iter()
                .map(|engine| format!("`{}`", engine.name))
                .collect();
            problems.add_with_help(
                table.name.as_ref().map(Located::span),
                "this model does not say which engine answers",
                format!("add `engine = \"...\"` with one of {}", known.join(", ")),
            );
        }
        return 0;
    };
    let found = engines
        .iter()
        .position(|engine| engine.name == *wanted.get());
    found.unwrap_or_else(|| {
        let known = engines.iter().map(|engine| engine.name.as_str());
        let help = match closest(wanted.get(), known.clone()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!(
                "the engines are {}",
                known
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        problems.add_with_help(
            Some(wanted.span()),
            format!("there is no engine `{}`", wanted.get()),
            help,
        );
        0
    })
}

fn model(
    table: &ModelTable,
    engine: usize,
    engines: &[EngineConfig],
    problems: &mut Problems,
) -> ModelConfig {
    // What the default model's authors recommend; OpenAI's own default otherwise.
    let is_default = engines
        .get(engine)
        .is_some_and(|engine| engine.model.is_default());
    let (temperature, top_p) = if is_default { (0.2, 0.9) } else { (1.0, 1.0) };
    let profile = table
        .profile
        .as_ref()
        .map_or(ProfileName::Native, |value| *value.get());
    let seconds = 1..=31_622_400;
    let config = ModelConfig {
        name: String::new(),
        engine,
        profile,
        aliases: Vec::new(),
        min_context_tokens: number(
            &table.min_context_tokens,
            "min_context_tokens",
            0..=16_777_216,
            0,
            problems,
        ),
        max_output_tokens: number(
            &table.max_output_tokens,
            "max_output_tokens",
            1..=16_777_216,
            4096,
            problems,
        ),
        temperature: number(
            &table.temperature,
            "temperature",
            0.0..=2.0,
            temperature,
            problems,
        ),
        top_p: number(&table.top_p, "top_p", 0.0..=1.0, top_p, problems),
        ttl_default_seconds: optional(&table.ttl_default, "ttl_default", seconds.clone(), problems),
        ttl_min_seconds: optional(&table.ttl_min, "ttl_min", seconds.clone(), problems),
        ttl_max_seconds: optional(&table.ttl_max, "ttl_max", seconds, problems),
    };
    let by_profile = holdfast_protocol::Profile::of(profile.kind(), 0);
    let min = config.ttl_min_seconds.unwrap_or(by_profile.ttl_min_seconds);
    let default = config
        .ttl_default_seconds
        .unwrap_or(by_profile.ttl_default_seconds);
    let max = config.ttl_max_seconds.unwrap_or(by_profile.ttl_max_seconds);
    if !(min <= default && default <= max) {
        let span = [&table.ttl_default, &table.ttl_min, &table.ttl_max]
            .into_iter()
            .flatten()
            .next()
            .map(Located::span);
        problems.add_with_help(
            span,
            format!("a context of this model would live {default} s by default, outside its range of {min} to {max} s"),
            "set `ttl_min`, `ttl_default` and `ttl_max` so that they are in this order",
        );
    }
    config
}

/// Names that may be taken once.
#[derive(Default)]
struct Names(HashMap<String, Option<Range<usize>>>);

impl Names {
    fn free(&mut self, name: &str, span: Option<Range<usize>>) -> bool {
        self.0.insert(name.to_owned(), span).is_none()
    }

    /// A missing name has been reported with its table already.
    fn take(
        &mut self,
        name: Option<&Located<String>>,
        what: &str,
        problems: &mut Problems,
    ) -> String {
        let Some(name) = name else {
            return String::new();
        };
        let (text, span) = (name.get(), name.span());
        // An engine's name is also that of a folder; a model's may be a path such as `vendor/model:tag`.
        let signs: &[u8] = if what == "engine" { b"-_" } else { b"-_.:/@+" };
        let sound = (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || signs.contains(&byte));
        if !sound {
            let signs: Vec<String> = signs
                .iter()
                .map(|sign| format!("`{}`", char::from(*sign)))
                .collect();
            problems.add_with_help(
                Some(span),
                format!("`{text}` is no name for an {what}").replace("an model", "a model"),
                format!("use 1 to 128 letters, digits and {}", signs.join(" ")),
            );
        } else if !self.free(text, Some(span.clone())) {
            problems.add(
                Some(span),
                format!("the {what} name `{text}` is taken already"),
            );
        }
        text.clone()
    }
}

/// A number in its range, or the default.
fn number<T: Copy + PartialOrd + std::fmt::Display>(
    value: &Option<Located<T>>,
    key: &str,
    range: RangeInclusive<T>,
    default: T,
    problems: &mut Problems,
) -> T {
    optional(value, key, range, problems).unwrap_or(default)
}

/// A number in its range, if it is there.
fn optional<T: Copy + PartialOrd + std::fmt::Display>(
    value: &Option<Located<T>>,
    key: &str,
    range: RangeInclusive<T>,
    problems: &mut Problems,
) -> Option<T> {
    let located = value.as_ref()?;
    let value = *located.get();
    if range.contains(&value) {
        return Some(value);
    }
    problems.add(
        Some(located.span()),
        format!(
            "`{key}` is {value}, which is not between {} and {}",
            range.start(),
            range.end()
        ),
    );
    None
}

/// As [`number`], for sizes of things in memory.
fn size(
    value: &Option<Located<u64>>,
    key: &str,
    range: RangeInclusive<u64>,
    default: u64,
    problems: &mut Problems,
) -> usize {
    usize::try_from(number(value, key, range, default, problems)).unwrap_or(usize::MAX)
}
