//! Which model a name means.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_protocol::ApiError;

use crate::app::{ModelEntry, SharePrefixes};
use crate::backend::Backend;
use crate::local::LocalBackend;

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
}

impl Models {
    pub(crate) fn new(
        entries: Vec<ModelEntry>,
        share_prefixes: SharePrefixes,
    ) -> Result<Self, String> {
        if entries.is_empty() {
            return Err("there is no model".to_owned());
        }
        let mut models = Models {
            list: Vec::new(),
            by_name: HashMap::new(),
        };
        for entry in entries {
            let backend = Arc::new(LocalBackend::new(entry.engine.clone(), share_prefixes));
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
