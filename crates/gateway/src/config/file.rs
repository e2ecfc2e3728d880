//! The file as it is written: every key optional, nothing checked but its type. [`super::Config`] is what it means.
//!
//! These structs are also the source of the JSON schema, so that the comments on fields are what users read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use super::problems::{Problems, closest};

mod operations;
mod read;
mod upstreams;

pub(super) use operations::{
    EncryptionTable, EventWord, LimitsTable, RatesTable, SharedTable, Telemetry, TlsTable,
    WebhookTable,
};
pub(super) use read::keys;
use read::{list, table, tables};
pub(super) use upstreams::{
    CacheTable, CachingWord, CatalogTable, EndpointWord, IsolationWord, PoolTable, PrewarmWord,
    RouteEntry, RouteTable, UpstreamTable, WorkerTable,
};

/// A value and where it stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct Located<T>(Spanned<T>);

impl<T> Located<T> {
    pub(super) fn get(&self) -> &T {
        self.0.get_ref()
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.0.span()
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Configuration of Holdfast. Everything is optional.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "holdfast.toml")]
pub(super) struct File {
    /// Where and how the server listens, and where it keeps its data.
    pub(super) server: Server,
    /// Where contexts, keys and responses are kept.
    pub(super) storage: Storage,
    /// A Redis or Valkey that several servers share beside the database. Default: none.
    pub(super) shared: SharedTable,
    /// What is written to standard error.
    pub(super) log: Log,
    /// Where traces and metrics are sent. Default: nowhere.
    pub(super) telemetry: Telemetry,
    /// Programs that are told of events.
    pub(super) webhooks: Vec<WebhookTable>,
    /// Rules for contexts.
    pub(super) contexts: Contexts,
    /// How long and how many responses are kept.
    pub(super) responses: Responses,
    /// How the record of what was used and what it cost is kept.
    pub(super) ledger: LedgerTable,
    /// How budgets of keys and projects are kept.
    pub(super) budgets: BudgetsTable,
    /// Who may use the server.
    pub(super) auth: Auth,
    /// What keys and projects may use, where they have no limits of their own.
    pub(super) limits: LimitsTable,
    /// Loaded model files. Without any: one engine `default` with the default model, unless all models have a `route`.
    pub(super) engines: Vec<EngineTable>,
    /// Accounts at providers, and servers of your own, that models may be routed to.
    pub(super) upstreams: Vec<UpstreamTable>,
    /// What is known of models and prices.
    pub(super) catalog: CatalogTable,
    /// Names clients may ask for. Without any: one per engine, named like its model file.
    pub(super) models: Vec<ModelTable>,
}

/// Where and how the server listens, and where it keeps its data.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    /// Address and port, such as `127.0.0.1:8080` (the default) or `0.0.0.0:8080`. Port 0 takes any free port.
    pub(super) listen: Option<Located<String>>,
    /// Whether another process may listen on the same port at the same time, so that a new one can take over before the old
    /// one stops; each needs a data directory of its own. Default: false.
    pub(super) reuse_port: Option<Located<bool>>,
    /// Folder of the database, the saved KV state and, unless HOLDFAST_MODELS_DIR says otherwise, the model files.
    /// Relative to this file. Default: `$XDG_DATA_HOME/holdfast`, else `~/.local/share/holdfast`.
    pub(super) data_dir: Option<Located<String>>,
    /// Largest request body, bytes. Default: 33554432 (32 MiB).
    pub(super) body_bytes_max: Option<Located<u64>>,
    /// Largest request head, bytes. Default: 32768.
    pub(super) header_bytes_max: Option<Located<u64>>,
    /// Longest time for one request, seconds. Default: 600.
    pub(super) request_seconds_max: Option<Located<u64>>,
    /// Most requests in flight. Default: 1024.
    pub(super) connections_max: Option<Located<u64>>,
    /// Most requests that wait for one of them to end; the next one gets 429. Default: 256.
    pub(super) queue_max: Option<Located<u64>>,
    /// How long a request waits before it gets 429, milliseconds. Default: 1000.
    pub(super) queue_wait_ms: Option<Located<u64>>,
    /// Longest time for a request's body to come, seconds. Default: 120.
    pub(super) body_seconds_max: Option<Located<u64>>,
    /// Most header fields of a request. Default: 100.
    pub(super) header_fields_max: Option<Located<u64>>,
    /// How long running requests may take to finish when the server stops, seconds. Default: 30.
    pub(super) drain_seconds: Option<Located<u64>>,
    /// HTTPS instead of HTTP. Default: HTTP.
    pub(super) tls: Option<Located<TlsTable>>,
}

/// Where contexts, keys and responses are kept: in SQLite in the data directory (the default), or in a PostgreSQL that
/// several servers may share.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Storage {
    /// A PostgreSQL database, such as `postgres://holdfast@db.internal/holdfast?sslmode=verify-full`. With a password in
    /// it, it is given by reference: `env:NAME` or `file:PATH`. HOLDFAST_STORAGE_URL wins. Default: none, and SQLite.
    pub(super) url: Option<Located<String>>,
    /// Most connections to PostgreSQL at a time. Default: 16.
    pub(super) connections_max: Option<Located<u32>>,
    /// How long a request waits for a free connection, and for a PostgreSQL that does not answer, milliseconds.
    /// Default: 5000.
    pub(super) connection_wait_ms: Option<Located<u64>>,
    /// How long one statement may take in PostgreSQL, milliseconds. Default: 10000.
    pub(super) statement_ms_max: Option<Located<u64>>,
    /// Seals what clients said before it reaches a disk. Default: it is stored as it is.
    pub(super) encryption: Option<Located<EncryptionTable>>,
}

/// What is written to standard error.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// `pretty` for people (the default) or `json` for machines.
    pub(super) format: Option<Located<super::LogFormat>>,
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or a filter such as `info,holdfast=debug`.
    /// HOLDFAST_LOG wins. Default: `info`.
    pub(super) level: Option<Located<String>>,
}

/// How long and how many responses of `/v1/responses` are kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Responses {
    /// How long a response can be read and continued, where the request does not say, seconds. Default: 2592000 (30
    /// days).
    pub(super) ttl_seconds: Option<Located<u64>>,
    /// Most stored responses and conversations of a project. Default: 1000000.
    pub(super) per_project_max: Option<Located<u64>>,
    /// Most that they take in one project, bytes. Default: 8589934592 (8 GiB).
    pub(super) bytes_per_project_max: Option<Located<u64>>,
}

/// How the record of what was used and what it cost is kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LedgerTable {
    /// How long rows are kept, days. 0: for ever. Default: 400.
    pub(super) retention_days: Option<Located<u32>>,
    /// Folder for rows that the database does not have yet, relative to this file. It needs a local disk. Default:
    /// `spool` in the data directory.
    pub(super) spool_dir: Option<Located<String>>,
    /// Most that they take there, MiB. Default: 1024.
    pub(super) spool_mib_max: Option<Located<u64>>,
}

/// How budgets of keys and projects are kept. They are set with `holdfast key` and `holdfast project`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BudgetsTable {
    /// What one unit of a currency is worth in US dollars, by ISO 4217 code, such as `CNY = "0.14"`: for budgets in another
    /// currency than a model is charged in. Default: none, and such a request is refused.
    pub(super) exchange_rates: BTreeMap<String, Located<String>>,
}

/// Rules for contexts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Contexts {
    /// Who shares the computed state of equal content: `project` (the default) or `all`. With `all`, a project can
    /// tell by timing whether another one has stored the same text.
    pub(super) share_prefixes: Option<Located<super::SharePrefixes>>,
    /// `usage.total_tokens` in the answer to a create: `profile` (the default: 0 for gemini, else the sum), `sum` or
    /// `zero`.
    pub(super) create_total_tokens: Option<Located<super::CreateTotalTokens>>,
    /// How long a request waits for a busy session before it is refused, milliseconds. Default: 0, refuse at once.
    pub(super) session_wait_ms: Option<Located<u64>>,
    /// Most living contexts of a project. Default: 100000.
    pub(super) contexts_per_project_max: Option<Located<u64>>,
    /// Most stored tokens of a project's living contexts together. Default: 1000000000.
    pub(super) context_tokens_per_project_max: Option<Located<u64>>,
    /// What happens to a context that is too small for its upstream to cache, when neither the upstream nor the
    /// context says: `error` (the default: creating it fails) or `replay` (it is sent whole each time, and the receipt
    /// says so).
    pub(super) small_contexts: Option<Located<super::SmallContexts>>,
    /// Ids of keys for whose requests the gateway keeps contexts of its own accord, on every model (see `auto_context`
    /// of a model). Default: none.
    pub(super) auto_context_keys: Option<Located<Vec<Located<String>>>>,
    /// Secret from which the names of tenants and cache keys at upstreams are derived, by reference (`env:NAME` or
    /// `file:PATH`), at least 16 characters. Needed where several servers share upstreams, or else they do not find
    /// each other's caches. Default: a random one, kept in the data directory.
    pub(super) salt: Option<Located<String>>,
}

/// Who may use the server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Auth {
    /// Whether every request needs a key. `false` is refused unless the server listens on this machine only.
    /// Default: true.
    pub(super) required: Option<Located<bool>>,
    /// A key with all scopes of project `default`, by reference: `env:NAME` or `file:PATH`. HOLDFAST_BOOTSTRAP_KEY
    /// wins.
    pub(super) bootstrap_key: Option<Located<String>>,
}

/// A loaded model file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub(super) struct EngineTable {
    /// What `[[models]]` call it.
    #[schemars(required)]
    pub(super) name: Option<Located<String>>,
    /// `default`, the name of a pulled model (see `holdfast models list`) or the path of a GGUF file, relative to this
    /// file. Default: `default`.
    pub(super) model: Option<Located<String>>,
    /// Most tokens of prompt and answer together. Default: what the model was trained for.
    pub(super) window_tokens: Option<Located<u32>>,
    /// Tokens the KV cache holds for all requests together. Default: by the machine's memory.
    pub(super) kv_tokens: Option<Located<u32>>,
    /// CPU threads. Default: the machine's cores.
    pub(super) threads: Option<Located<u32>>,
    /// Answers generated at the same time. Default: 16.
    pub(super) slots: Option<Located<u32>>,
    /// Requests that may wait; the next one gets 429. Default: 256.
    pub(super) queue_max: Option<Located<u32>>,
    /// Memory for saved KV state, MiB. Default: by the machine's memory.
    pub(super) ram_mib_max: Option<Located<u64>>,
    /// Disk space for saved KV state, MiB. 0: none is kept on disk. Default: 10240.
    pub(super) disk_mib_max: Option<Located<u64>>,
    /// Whether attention runs as one fused kernel; slower for short questions on CPUs. Default: false.
    pub(super) flash_attention: Option<Located<bool>>,
    /// KV cache that contexts nobody is using may keep, tokens. Default: 8192.
    pub(super) idle_tokens_max: Option<Located<u32>>,
    /// A long prompt is computed in pieces of so many tokens, between which other answers move on. Default: 64.
    pub(super) chunk_tokens: Option<Located<u32>>,
}

/// A name clients may ask for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub(super) struct ModelTable {
    /// The name.
    #[schemars(required)]
    pub(super) name: Option<Located<String>>,
    /// The engine that answers. May be left out when there is only one.
    pub(super) engine: Option<Located<String>>,
    /// The upstreams that answer, instead of an engine, in order of preference: names of `[[upstreams]]`, or tables with
    /// `upstream`, `model`, `priority` and `weight`.
    pub(super) route: Option<Located<Vec<Located<RouteEntry>>>>,
    /// Most tokens of prompt and answer together, for a model with a `route`. Default: the smallest that the catalog
    /// knows of the route's models, else 128000.
    pub(super) window_tokens: Option<Located<u32>>,
    /// Whose rules its contexts follow: `gemini`, `ark` or `native` (the default).
    pub(super) profile: Option<Located<super::ProfileName>>,
    /// More names for the same model. Default: none.
    pub(super) aliases: Option<Located<Vec<Located<String>>>>,
    /// Smallest context, tokens. Default: 0, no limit.
    pub(super) min_context_tokens: Option<Located<u32>>,
    /// Length of an answer when the request sets none, tokens. Default: 4096; with a `route` the smallest that the catalog
    /// knows of its models, else 4096.
    pub(super) max_output_tokens: Option<Located<u32>>,
    /// What all together may use of it within a minute and at the same time: `requests_per_minute`, `tokens_per_minute`,
    /// `concurrent_requests`. Default: no limits.
    pub(super) limits: Option<Located<RatesTable>>,
    /// Whether the gateway notices what requests of a project begin with and keeps a context for it while that pays.
    /// Default: false.
    pub(super) auto_context: Option<Located<bool>>,
    /// Temperature when the request sets none, 0 to 2. Default: 0.2 for the default model, 1 for others; with a `route`
    /// the upstream's own.
    pub(super) temperature: Option<Located<f32>>,
    /// Nucleus when the request sets none, 0 to 1. Default: 0.9 for the default model, 1 for others; with a `route` the
    /// upstream's own.
    pub(super) top_p: Option<Located<f32>>,
    /// Life of a context when the request sets none, seconds. Default: by profile.
    pub(super) ttl_default: Option<Located<u32>>,
    /// Shortest life of a context, seconds. Default: by profile.
    pub(super) ttl_min: Option<Located<u32>>,
    /// Longest life of a context, seconds. Default: by profile.
    pub(super) ttl_max: Option<Located<u32>>,
}

impl File {
    /// Reads a file as far as it can be read; what can't be is reported and left at its default.
    pub(super) fn parse(text: &str, problems: &mut Problems) -> File {
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What follows a syntax error is often a consequence of it, and so would be what it means.
            for error in errors {
                problems.add(error.span(), error.message().trim());
            }
            return File::default();
        }
        let mut file = File::default();
        let known = keys::<File>();
        for (key, value) in document.into_inner() {
            match key.get_ref().as_ref() {
                "server" => file.server = table(value, "[server]", problems),
                "storage" => file.storage = table(value, "[storage]", problems),
                "shared" => file.shared = table(value, "[shared]", problems),
                "log" => file.log = table(value, "[log]", problems),
                "telemetry" => file.telemetry = table(value, "[telemetry]", problems),
                "webhooks" => file.webhooks = tables(value, "webhooks", problems),
                "contexts" => file.contexts = table(value, "[contexts]", problems),
                "responses" => file.responses = table(value, "[responses]", problems),
                "ledger" => file.ledger = table(value, "[ledger]", problems),
                "budgets" => file.budgets = table(value, "[budgets]", problems),
                "auth" => file.auth = table(value, "[auth]", problems),
                "limits" => file.limits = table(value, "[limits]", problems),
                "engines" => file.engines = tables(value, "engines", problems),
                "upstreams" => file.upstreams = tables(value, "upstreams", problems),
                "catalog" => file.catalog = table(value, "[catalog]", problems),
                "models" => file.models = tables(value, "models", problems),
                unknown => {
                    let help = match closest(unknown, known.iter().map(String::as_str)) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => format!("the sections are {}", list(&known)),
                    };
                    problems.add_with_help(
                        Some(key.span()),
                        format!("unknown section `{unknown}`"),
                        help,
                    );
                }
            }
        }
        file
    }
}
