//! What a reload takes from the configuration, and what it leaves for the next start.

use std::sync::Arc;

use futures_util::FutureExt;

use super::{DataDir, StartedEngine, app_options, ensure_keys, model_entry, now, tell_expiry};
use crate::app::Store;
use crate::config::{self, Config, EngineConfig, Environment, Flags};
use crate::service::{ReloadError, Renewal, Reread};
use crate::tls::Certificates;

/// Changes what is logged; the filter is a valid one.
pub type SetLogFilter = Arc<dyn Fn(&str) + Send + Sync>;

/// Where the configuration came from, to read it again from there.
#[derive(Clone)]
pub struct ConfigSource {
    /// The command line's part.
    pub flags: Flags,
    /// The environment's part.
    pub environment: Environment,
    /// The log of this process.
    pub set_log_filter: SetLogFilter,
}

/// What stays as it was at the start, whatever the configuration says later on.
pub(super) struct Fixed {
    pub(super) config: Config,
    pub(super) data_dir: DataDir,
    pub(super) store: Arc<dyn Store>,
    pub(super) engines: Vec<StartedEngine>,
    pub(super) salt: [u8; 32],
    /// `None`: plain HTTP.
    pub(super) certificates: Option<Certificates>,
}

/// Reads the configuration from `source` again, and makes of it what can be applied while the server runs.
pub(super) fn reread(source: ConfigSource, fixed: Fixed) -> Reread {
    let fixed = Arc::new(fixed);
    Box::new(move || renewal(source.clone(), Arc::clone(&fixed)).boxed())
}

async fn renewal(source: ConfigSource, fixed: Arc<Fixed>) -> Result<Renewal, ReloadError> {
    let set_log_filter = Arc::clone(&source.set_log_filter);
    let loaded =
        tokio::task::spawn_blocking(move || Config::load(&source.flags, &source.environment)).await;
    let mut config = loaded
        .map_err(|error| ReloadError::Failed(format!("reading the configuration failed: {error}")))?
        .map_err(|errors| ReloadError::Configuration(errors.brief()))?;
    let mut needs_restart = changes(&fixed.config, &config);
    if !config.auth.required && !fixed.config.server.listen.ip().is_loopback() {
        // The file may name another address now, but it is the old one that would be open to everybody.
        config.auth.required = true;
        needs_restart.push("auth.required".to_owned());
    }
    if config.auth.bootstrap_key.is_some() {
        ensure_keys(&config, &fixed.data_dir, &*fixed.store, now())
            .await
            .map_err(|error| ReloadError::Failed(error.message))?;
    }
    let mut entries = Vec::new();
    for model in &config.models {
        match model_entry(model, &config, &fixed.engines) {
            Some(entry) => entries.push(entry),
            None => needs_restart.push(format!("models.{}", model.name)),
        }
    }
    let filter = config.log.filter.clone();
    let certificates = fixed.certificates.clone();
    let tls = config.tls.take().and_then(|tls| tls.loaded);
    Ok(Renewal {
        options: app_options(&config, entries, fixed.salt),
        needs_restart,
        then: Box::new(move |app| {
            set_log_filter(&filter);
            if let Some((certificates, tls)) = certificates.zip(tls) {
                app.events.certificate_shown(tls.expires_at_seconds);
                tell_expiry(&tls);
                certificates.replace(tls);
            }
        }),
    })
}

/// Keys that differ between `before` and `after` and are read at the start only.
fn changes(before: &Config, after: &Config) -> Vec<String> {
    let (server, new_server) = (&before.server, &after.server);
    let (contexts, new_contexts) = (&before.contexts, &after.contexts);
    let changed = [
        ("server.listen", server.listen != new_server.listen),
        (
            "server.reuse_port",
            server.reuse_port != new_server.reuse_port,
        ),
        ("ledger", before.ledger != after.ledger),
        ("shared", before.shared != after.shared),
        ("storage", before.storage != after.storage),
        ("storage.encryption", before.encryption != after.encryption),
        ("server.data_dir", server.data_dir != new_server.data_dir),
        (
            "server.drain_seconds",
            server.drain_seconds != new_server.drain_seconds,
        ),
        // Other files, or the same with other contents, apply at once.
        ("server.tls", before.tls.is_some() != after.tls.is_some()),
        ("webhooks", before.webhooks != after.webhooks),
        ("telemetry", before.telemetry != after.telemetry),
        ("log.format", before.log.format != after.log.format),
        (
            "contexts.share_prefixes",
            contexts.share_prefixes != new_contexts.share_prefixes,
        ),
        ("contexts.salt", contexts.salt != new_contexts.salt),
    ];
    let mut names: Vec<String> = changed
        .into_iter()
        .filter(|(_, is_changed)| *is_changed)
        .map(|(name, _)| name.to_owned())
        .collect();
    names.extend(changed_engines(&before.engines, &after.engines));
    names
}

fn changed_engines(before: &[EngineConfig], after: &[EngineConfig]) -> Vec<String> {
    let in_both = |engine: &&EngineConfig| before.contains(engine) && after.contains(engine);
    let mut names: Vec<String> = before
        .iter()
        .chain(after)
        .filter(|engine| !in_both(engine))
        .map(|engine| format!("engines.{}", engine.name))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The running engine that answers for a model, by its name: the configuration may list engines in another order now.
pub(super) fn engine_of<'a>(
    model: &config::ModelConfig,
    config: &Config,
    engines: &'a [StartedEngine],
) -> Option<&'a StartedEngine> {
    let config::ModelSource::Engine(index) = model.source else {
        return None;
    };
    let name = &config.engines.get(index)?.name;
    engines.iter().find(|engine| engine.name == *name)
}
