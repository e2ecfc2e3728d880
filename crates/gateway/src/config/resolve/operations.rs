//! Settings for those who run a server.

use std::time::Duration;

use super::super::file::{
    EventWord, LimitsTable, Located, RatesTable, Server, Telemetry, WebhookTable,
};
use super::super::problems::Problems;
use super::super::{LimitsConfig, TlsConfig};
use super::upstreams::{check_url, headers};
use super::values::{number, optional, referred};
use super::{Scope, Secrets};
use holdfast_store::LimitSettings;

use crate::keys::{CHOSEN_KEY_CHARACTERS_MIN, Secret};
use crate::telemetry::TelemetryOptions;
use crate::tls::{Tls, TlsFile, TlsFiles};
use crate::webhooks::{EventKind, WebhookOptions};

/// As for keys and projects: beyond this a number is no limit that anybody meant.
const LIMIT_MAX: u64 = 1_000_000_000_000;

/// `None` also where a file is not named, which has been reported.
pub(super) fn tls(file: &Server, scope: &Scope<'_>, problems: &mut Problems) -> Option<TlsConfig> {
    let table = file.tls.as_ref()?.get();
    let path = |value: &Located<String>| scope.folder.join(value.get());
    let (cert, key) = (table.cert.as_ref()?, table.key.as_ref()?);
    let files = TlsFiles {
        cert: path(cert),
        key: path(key),
        client_ca: table.client_ca.as_ref().map(path),
    };
    if scope.secrets == Secrets::Ignore {
        return Some(TlsConfig {
            files,
            loaded: None,
        });
    }
    let loaded = Tls::load(&files).map_err(|error| {
        let (name, span) = match error.file {
            TlsFile::Cert => ("cert", Some(cert.span())),
            TlsFile::Key => ("key", Some(key.span())),
            TlsFile::ClientCa => ("client_ca", table.client_ca.as_ref().map(Located::span)),
        };
        problems.add_with_help(span, format!("`{name}`: {}", error.message), error.help);
    });
    Some(TlsConfig {
        files,
        loaded: loaded.ok(),
    })
}

/// `None` without an endpoint.
pub(super) fn telemetry(
    file: &Telemetry,
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> Option<TelemetryOptions> {
    let headers = headers(&file.headers, scope, problems);
    let sample_ratio = number(&file.sample_ratio, "sample_ratio", 0.0..=1.0, 1.0, problems);
    let interval = number(
        &file.metrics_interval_s,
        "metrics_interval_s",
        1..=3600,
        60,
        problems,
    );
    let endpoint = file.endpoint.as_ref()?;
    if let Err((message, help)) = check_url(endpoint.get()) {
        problems.add_with_help(
            Some(endpoint.span()),
            format!("`endpoint`: {message}"),
            help,
        );
    }
    Some(TelemetryOptions {
        endpoint: endpoint.get().clone(),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name, Secret::new(value)))
            .collect(),
        sample_ratio,
        metrics_interval: Duration::from_secs(interval),
        service_name: file
            .service_name
            .as_ref()
            .map_or_else(|| "holdfast".to_owned(), |name| name.get().clone()),
    })
}

/// Without secrets there are none: nothing could be signed.
pub(super) fn webhooks(
    tables: &[WebhookTable],
    scope: &Scope<'_>,
    problems: &mut Problems,
) -> Vec<WebhookOptions> {
    let mut resolved = Vec::new();
    for table in tables {
        let Some(url) = &table.url else { continue };
        if let Err((message, help)) = check_url(url.get()) {
            problems.add_with_help(Some(url.span()), format!("`url`: {message}"), help);
        }
        let Some(secret) = referred(&table.secret, "secret", scope, problems) else {
            continue;
        };
        if secret.expose().chars().count() < CHOSEN_KEY_CHARACTERS_MIN {
            problems.add(
                table.secret.as_ref().map(Located::span),
                format!("`secret`: it needs at least {CHOSEN_KEY_CHARACTERS_MIN} characters"),
            );
        }
        let events = table.events.as_ref().map(|events| {
            let kinds = events.get().iter().map(|word| kind(*word.get()));
            kinds.collect()
        });
        resolved.push(WebhookOptions {
            url: url.get().clone(),
            secret,
            events: events.unwrap_or_else(|| EventKind::ALL.to_vec()),
        });
    }
    resolved
}

pub(super) fn limits(file: &LimitsTable, problems: &mut Problems) -> LimitsConfig {
    LimitsConfig {
        per_key: rates(&file.per_key, problems),
        per_project: rates(&file.per_project, problems),
    }
}

pub(super) fn rates(table: &Option<Located<RatesTable>>, problems: &mut Problems) -> LimitSettings {
    let Some(table) = table else {
        return LimitSettings::default();
    };
    let table = table.get();
    let mut limit = |value, key| optional(value, key, 1..=LIMIT_MAX, problems);
    LimitSettings {
        requests_per_minute: limit(&table.requests_per_minute, "requests_per_minute"),
        tokens_per_minute: limit(&table.tokens_per_minute, "tokens_per_minute"),
        concurrent_requests: limit(&table.concurrent_requests, "concurrent_requests"),
        contexts: limit(&table.contexts, "contexts"),
        context_tokens: limit(&table.context_tokens, "context_tokens"),
    }
}

fn kind(word: EventWord) -> EventKind {
    match word {
        EventWord::UpstreamDown => EventKind::UpstreamDown,
        EventWord::UpstreamUp => EventKind::UpstreamUp,
        EventWord::ContextLost => EventKind::ContextLost,
        EventWord::ReloadFailed => EventKind::ReloadFailed,
        EventWord::BudgetWarning => EventKind::BudgetWarning,
        EventWord::BudgetExceeded => EventKind::BudgetExceeded,
    }
}
