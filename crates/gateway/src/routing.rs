//! Which model a name means.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_protocol::ApiError;

use crate::app::{ModelEntry, ModelSource, RouteOptions, SharePrefixes, TargetOptions};
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
    /// `before` has the targets of the time before a reload; those that are still there go on with what they have learnt.
    pub(crate) fn new(
        entries: Vec<ModelEntry>,
        share_prefixes: SharePrefixes,
        upstreams: &Upstreams,
        mut before: Vec<Arc<Target>>,
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
                    let targets = targets_of(&entry.name, route, upstreams, &mut before)?;
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

    /// Whether every model that was there before is answered by what made its prefixes then: the same engine, or upstreams
    /// as before.
    pub(crate) fn keeps_prefixes_of(&self, before: &Models) -> bool {
        self.list.iter().all(|model| {
            let known = before.by_name.get(&model.entry.name);
            known.is_none_or(|known| match (&known.entry.source, &model.entry.source) {
                (ModelSource::Engine(engine), ModelSource::Engine(now)) => engine.is_same(now),
                (ModelSource::Route(_), ModelSource::Route(_)) => true,
                _ => false,
            })
        })
    }
}

fn targets_of(
    model: &str,
    route: &RouteOptions,
    upstreams: &Upstreams,
    before: &mut Vec<Arc<Target>>,
) -> Result<Vec<Arc<Target>>, String> {
    if route.targets.is_empty() {
        return Err(format!("model `{model}` has no upstream"));
    }
    let target_of = |options: &TargetOptions| {
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
        let target = Target::new(upstream, &options.model, priority, weight, min_tokens);
        let known = before.iter().position(|known| target.is_like(known));
        let target = match known {
            Some(at) => target.after(&before.swap_remove(at)),
            None => target,
        };
        Ok(Arc::new(target.priced(shared)))
    };
    route.targets.iter().map(target_of).collect()
}
