//! Which model a name means.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_protocol::ApiError;

use crate::app::{ModelEntry, ModelSource, RouteOptions, SharePrefixes};
use crate::backend::Backend;
use crate::local::LocalBackend;
use crate::upstream::{RouteBackend, Target, Upstreams};

/// A configured model and what answers for it.
pub(crate) struct Model {
    /// As configured.
    pub(crate) entry: ModelEntry,
    /// What answers.
    pub(crate) backend: Arc<dyn Backend>,
}

/// All models, by name and alias.
pub(crate) struct Models {
    list: Vec<Arc<Model>>,
    by_name: HashMap<String, Arc<Model>>,
    targets: Vec<Arc<Target>>,
}

impl Models {
    pub(crate) fn new(
        entries: Vec<ModelEntry>,
        share_prefixes: SharePrefixes,
        upstreams: &Upstreams,
    ) -> Result<Self, String> {
        if entries.is_empty() {
            return Err("there is no model".to_owned());
        }
        let mut models = Models {
            list: Vec::new(),
            by_name: HashMap::new(),
            targets: Vec::new(),
        };
        for entry in entries {
            let backend: Arc<dyn Backend> = match &entry.source {
                ModelSource::Engine(engine) => {
                    Arc::new(LocalBackend::new(engine.clone(), share_prefixes))
                }
                ModelSource::Route(route) => {
                    let targets = models.targets_of(&entry.name, route, upstreams)?;
                    models.targets.extend(targets.iter().map(Arc::clone));
                    Arc::new(RouteBackend::new(targets, Arc::clone(&upstreams.shared)))
                }
            };
            let model = Arc::new(Model { entry, backend });
            for name in std::iter::once(&model.entry.name).chain(&model.entry.aliases) {
                if models
                    .by_name
                    .insert(name.clone(), Arc::clone(&model))
                    .is_some()
                {
                    return Err(format!("two models are called `{name}`"));
                }
            }
            models.list.push(model);
        }
        Ok(models)
    }

    fn targets_of(
        &self,
        model: &str,
        route: &RouteOptions,
        upstreams: &Upstreams,
    ) -> Result<Vec<Arc<Target>>, String> {
        if route.targets.is_empty() {
            return Err(format!("model `{model}` has no upstream"));
        }
        let first = self.targets.len();
        (first..)
            .zip(&route.targets)
            .map(|(id, options)| {
                let name = &options.upstream;
                let upstream = upstreams
                    .get(name)
                    .ok_or_else(|| format!("model `{model}`: there is no upstream `{name}`"))?;
                let (priority, weight) = (options.priority, options.weight);
                let provider = upstream.options.provider.name;
                let shared = &upstreams.shared;
                let min_tokens = shared
                    .catalog
                    .find(provider, &options.model, (shared.clock)())
                    .and_then(|row| row.min_cache_tokens);
                Ok(Arc::new(Target::new(
                    id,
                    upstream,
                    &options.model,
                    priority,
                    weight,
                    min_tokens,
                )))
            })
            .collect()
    }

    /// Every upstream of every route.
    pub(crate) fn targets(&self) -> Vec<Arc<Target>> {
        self.targets.clone()
    }

    /// The model of this name or alias; Google's `models/` before it is ignored.
    pub(crate) fn resolve(&self, name: &str) -> Result<&Arc<Model>, ApiError> {
        self.by_name
            .get(name)
            .or_else(|| self.by_name.get(name.strip_prefix("models/")?))
            .ok_or_else(|| ApiError::model_not_found(name))
    }

    /// In the order of the config.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.list.iter()
    }
}
