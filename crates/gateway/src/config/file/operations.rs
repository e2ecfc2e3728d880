//! Settings for those who run a server, as they are written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Located;

/// HTTPS: files in PEM, relative to the configuration file. They are read again at each reload.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub(in crate::config) struct TlsTable {
    /// File of the certificate, followed by those that vouch for it.
    #[schemars(required)]
    pub(in crate::config) cert: Option<Located<String>>,
    /// File of the certificate's private key.
    #[schemars(required)]
    pub(in crate::config) key: Option<Located<String>>,
    /// File of the certificates that clients' certificates are signed with: only clients that have one are let in.
    /// Default: clients need no certificate.
    pub(in crate::config) client_ca: Option<Located<String>>,
}

/// Keys are 32 random bytes, as base64 or hexadecimal, and given by reference: `env:NAME`, `file:PATH` or
/// `command:PROGRAM ARGUMENTS`, which is run without a shell and prints the key.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct EncryptionTable {
    /// The key that seals and opens. Default: none; nothing more is sealed.
    pub(in crate::config) key: Option<Located<String>>,
    /// Keys that open what they have sealed, until `holdfast storage seal` has sealed it anew. Default: none.
    pub(in crate::config) previous_keys: Option<Located<Vec<Located<String>>>>,
}

/// Traces and metrics for a collector of OpenTelemetry, over OTLP (http/protobuf).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Telemetry {
    /// Where the collector listens, without `/v1/traces`, such as `http://127.0.0.1:4318`. Default: nothing is sent.
    pub(in crate::config) endpoint: Option<Located<String>>,
    /// Sent with everything: values or references (`env:NAME`, `file:PATH`).
    pub(in crate::config) headers: Option<BTreeMap<String, Located<String>>>,
    /// Share of requests that are traced, 0 to 1. A caller that sends `traceparent` has decided itself. Default: 1.
    pub(in crate::config) sample_ratio: Option<Located<f64>>,
    /// Time between two exports of the metrics, seconds. Default: 60.
    pub(in crate::config) metrics_interval_s: Option<Located<u64>>,
    /// What the collector calls this service. Default: `holdfast`.
    pub(in crate::config) service_name: Option<Located<String>>,
}

/// A Redis or Valkey in which several servers count together what keys, projects and models use. While it is away, each
/// counts for itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct SharedTable {
    /// Such as `redis://redis.internal:6379/0`, or `rediss://` for TLS. With a password in it, it is given by reference:
    /// `env:NAME` or `file:PATH`. HOLDFAST_SHARED_URL wins. Default: none.
    pub(in crate::config) url: Option<Located<String>>,
    /// What the names of all keys begin with; the same for all servers that count together. Default: `holdfast`.
    pub(in crate::config) prefix: Option<Located<String>>,
    /// Whether servers over one PostgreSQL also hand each other the messages of contexts in use through it, as plain text.
    /// Default: true.
    pub(in crate::config) contexts: Option<Located<bool>>,
}

/// What keys and projects may use, where they have no limits of their own. Models have theirs in `[[models]]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct LimitsTable {
    /// Of each key. Default: no limits.
    pub(in crate::config) per_key: Option<Located<RatesTable>>,
    /// Of each project, all its keys together. Default: no limits.
    pub(in crate::config) per_project: Option<Located<RatesTable>>,
}

/// What may be used within a minute and at the same time, and stored.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RatesTable {
    /// Most requests within a minute. Default: no limit.
    pub(in crate::config) requests_per_minute: Option<Located<u64>>,
    /// Most tokens within a minute: input that was read from no cache, and output. Default: no limit.
    pub(in crate::config) tokens_per_minute: Option<Located<u64>>,
    /// Most requests at the same time. Default: no limit.
    pub(in crate::config) concurrent_requests: Option<Located<u64>>,
    /// Most living contexts. Default: no limit for keys and models, `contexts.contexts_per_project_max` for projects.
    pub(in crate::config) contexts: Option<Located<u64>>,
    /// Most tokens in living contexts. Default: no limit for keys and models, `contexts.context_tokens_per_project_max` for
    /// projects.
    pub(in crate::config) context_tokens: Option<Located<u64>>,
}

/// A program that is told of events: JSON by POST, signed as Standard Webhooks does it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url", "secret"]))]
pub(in crate::config) struct WebhookTable {
    /// Where events are sent. Redirects are not followed.
    #[schemars(required)]
    pub(in crate::config) url: Option<Located<String>>,
    /// What they are signed with, by reference: `env:NAME` or `file:PATH`; `whsec_` and base64, or any text of at least 16
    /// characters.
    #[schemars(required)]
    pub(in crate::config) secret: Option<Located<String>>,
    /// Which events are sent. Default: all.
    pub(in crate::config) events: Option<Located<Vec<Located<EventWord>>>>,
}

/// What can be told.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum EventWord {
    /// An upstream keeps failing and is left alone.
    UpstreamDown,
    /// It answers again.
    UpstreamUp,
    /// A context's computed state or copy was lost and has been made again.
    ContextLost,
    /// A changed configuration can't be applied.
    ReloadFailed,
    /// A budget has passed its soft limit.
    BudgetWarning,
    /// A request was refused because it could have cost more than a budget has left.
    BudgetExceeded,
}
