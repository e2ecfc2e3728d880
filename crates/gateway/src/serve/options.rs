//! What the service is built from, as the configuration says it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use data_encoding::HEXLOWER;
use holdfast_protocol::Profile;
use holdfast_store::LimitSettings;
use sha2::{Digest, Sha256};

use super::{DataDir, OpenModel, ServeError, StartedEngine, reload};
use crate::app::{AppOptions, Limits, ModelEntry, ModelSource};
use crate::budgets::BudgetOptions;
use crate::config::{self, Config, CreateTotalTokens, ModelConfig, SharePrefixes};
use crate::shared::SharedOptions;

/// `None` for an engine that does not run.
pub(super) fn model_entry(
    model: &ModelConfig,
    config: &Config,
    engines: &[StartedEngine],
) -> Option<ModelEntry> {
    let (source, window_tokens, owned_by, created) = match &model.source {
        config::ModelSource::Engine(_) => {
            let started = reload::engine_of(model, config, engines)?;
            let engine = started.engine.clone();
            let window_tokens = engine.info().window_tokens;
            let source = ModelSource::Engine(engine);
            (source, window_tokens, "holdfast", started.created)
        }
        config::ModelSource::Route {
            route,
            window_tokens,
        } => {
            let first = route.targets.first().and_then(|target| {
                let mut upstreams = config.upstreams.iter();
                upstreams.find(|upstream| upstream.name == target.upstream)
            });
            let owned_by = first.map_or("holdfast", |upstream| upstream.provider.name);
            // When a provider's model was made is not known.
            (
                ModelSource::Route(route.clone()),
                *window_tokens,
                owned_by,
                0,
            )
        }
    };
    let mut profile = Profile::of(model.profile.kind(), window_tokens);
    profile.min_context_tokens = model.min_context_tokens;
    profile.ttl_default_seconds = model
        .ttl_default_seconds
        .unwrap_or(profile.ttl_default_seconds);
    profile.ttl_min_seconds = model.ttl_min_seconds.unwrap_or(profile.ttl_min_seconds);
    profile.ttl_max_seconds = model.ttl_max_seconds.unwrap_or(profile.ttl_max_seconds);
    Some(ModelEntry {
        name: model.name.clone(),
        aliases: model.aliases.clone(),
        profile,
        source,
        owned_by: owned_by.into(),
        created,
        max_output_tokens: model.max_output_tokens,
        auto_context: model.auto_context,
        temperature: model.temperature,
        top_p: model.top_p,
    })
}

/// The secret of this installation: the configuration's, where there is one, else the data directory's.
pub(super) fn salt(config: &Config, data_dir: &DataDir) -> Result<[u8; 32], ServeError> {
    if let Some(text) = &config.contexts.salt {
        return Ok(Sha256::digest(text.expose().as_bytes()).into());
    }
    data_dir.salt()
}

/// Names this server among those that share a store: by its data directory, which one process at a time has.
pub(super) fn owner(data_dir: &DataDir) -> Result<String, ServeError> {
    let mut digest = Sha256::new();
    digest.update(b"holdfast owner of reservations");
    digest.update(data_dir.salt()?);
    Ok(HEXLOWER.encode(&digest.finalize()))
}

pub(super) fn budget_options(config: &Config) -> BudgetOptions {
    BudgetOptions {
        rates: config.exchange_rates.clone(),
        ..BudgetOptions::default()
    }
}

pub(super) fn app_options(config: &Config, models: Vec<ModelEntry>, salt: [u8; 32]) -> AppOptions {
    AppOptions {
        models,
        limits: Limits {
            body_bytes_max: config.server.body_bytes_max,
            request_seconds_max: config.server.request_seconds_max,
            connections_max: config.server.connections_max,
            header_bytes_max: config.server.header_bytes_max,
            header_fields_max: config.server.header_fields_max,
            body_seconds_max: config.server.body_seconds_max,
            queue_max: config.server.queue_max,
            queue_wait_ms: config.server.queue_wait_ms,
            session_wait_ms: config.contexts.session_wait_ms,
            contexts_per_project_max: config.contexts.contexts_per_project_max,
            context_tokens_per_project_max: config.contexts.context_tokens_per_project_max,
            response_seconds: config.responses.ttl_seconds,
            responses_per_project_max: config.responses.per_project_max,
            response_bytes_per_project_max: config.responses.bytes_per_project_max,
            per_key: config.limits.per_key,
            per_project: config.limits.per_project,
            per_model: limits_of_models(config),
        },
        share_prefixes: match config.contexts.share_prefixes {
            SharePrefixes::Project => crate::app::SharePrefixes::Project,
            SharePrefixes::All => crate::app::SharePrefixes::All,
        },
        create_total_tokens: match config.contexts.create_total_tokens {
            CreateTotalTokens::Profile => crate::app::CreateTotalTokens::Profile,
            CreateTotalTokens::Sum => crate::app::CreateTotalTokens::Sum,
            CreateTotalTokens::Zero => crate::app::CreateTotalTokens::Zero,
        },
        auto_context_keys: config.contexts.auto_context_keys.iter().cloned().collect(),
        upstreams: config.upstreams.clone(),
        catalog: Arc::clone(&config.catalog),
        salt,
        telemetry: None,
        webhooks: None,
        // What is sealed in the database must not lie open beside it.
        shared: config.shared.clone().map(|shared| SharedOptions {
            contexts: shared.contexts && config.encryption.key.is_none(),
            ..shared
        }),
        ledger: config.ledger.clone(),
        budgets: budget_options(config),
        auth_required: config.auth.required,
    }
}

fn limits_of_models(config: &Config) -> HashMap<String, LimitSettings> {
    let models = config.models.iter();
    models
        .filter(|model| model.limits != LimitSettings::default())
        .map(|model| (model.name.clone(), model.limits))
        .collect()
}

/// When the model came here, seconds since the Unix epoch.
pub(super) fn created_seconds(open: &OpenModel) -> i64 {
    let pulled = open
        .manifest
        .as_ref()
        .and_then(|manifest| manifest.pulled_at.parse::<jiff::Timestamp>().ok())
        .map(jiff::Timestamp::as_second);
    pulled.or_else(|| modified_seconds(&open.path)).unwrap_or(0)
}

fn modified_seconds(path: &Path) -> Option<i64> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    let since = modified.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}
