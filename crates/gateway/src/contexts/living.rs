//! How many contexts each project has, for its limits and for the metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::{ApiError, ContextId, ErrorKind};
use holdfast_store::{LimitSettings, LivingContext};

use crate::events::Events;

/// All stored contexts by size.
pub(super) struct Living {
    contexts_max: u64,
    tokens_max: u64,
    events: Arc<Events>,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    contexts: HashMap<ContextId, Counted>,
    projects: HashMap<Arc<str>, Total>,
    tokens: u64,
}

struct Counted {
    project: Arc<str>,
    model: Arc<str>,
    tokens: u64,
    /// Not while it is being made.
    is_stored: bool,
}

#[derive(Default)]
struct Total {
    contexts: u64,
    tokens: u64,
}

impl Living {
    pub(super) fn new(contexts_max: u64, tokens_max: u64, events: Arc<Events>) -> Self {
        Living {
            contexts_max,
            tokens_max,
            events,
            counts: Arc::default(),
        }
    }

    /// The same contexts under other limits.
    pub(super) fn reloaded(&self, contexts_max: u64, tokens_max: u64) -> Self {
        Living {
            contexts_max,
            tokens_max,
            events: Arc::clone(&self.events),
            counts: Arc::clone(&self.counts),
        }
    }

    /// Counts a context that is being made, if its project's limits allow one more: its own, or else those of the
    /// configuration.
    pub(super) fn reserve(
        &self,
        context: &LivingContext,
        limits: &LimitSettings,
    ) -> Result<(), ApiError> {
        let contexts_max = limits.contexts.unwrap_or(self.contexts_max);
        let tokens_max = limits.context_tokens.unwrap_or(self.tokens_max);
        let mut counts = self.counts();
        let (contexts, held_tokens) = counts
            .projects
            .get(context.project.as_str())
            .map_or((0, 0), |total| (total.contexts, total.tokens));
        if contexts >= contexts_max {
            return Err(limit_reached(format!(
                "{contexts} living contexts, which is its limit"
            )));
        }
        let tokens = context.prefix_tokens;
        if held_tokens.saturating_add(tokens) > tokens_max {
            return Err(limit_reached(format!(
                "{held_tokens} tokens in living contexts; {tokens} more would exceed its limit of {tokens_max}"
            )));
        }
        counts.insert(context, false);
        self.publish(&counts);
        Ok(())
    }

    /// What was reserved has been stored.
    pub(super) fn settle(&self, id: &ContextId) {
        if let Some(counted) = self.counts().contexts.get_mut(id) {
            counted.is_stored = true;
        }
    }

    /// Counts a context that is in the store, whatever the limits say.
    pub(super) fn insert(&self, context: &LivingContext) {
        let mut counts = self.counts();
        counts.remove(&context.id);
        counts.insert(context, true);
        self.publish(&counts);
    }

    /// Counts a context's new size, unless the context has been removed.
    pub(super) fn resize(&self, id: &ContextId, tokens: u64) {
        let mut counts = self.counts();
        counts.resize(id, tokens);
        self.publish(&counts);
    }

    /// The stored contexts that are counted, with their models.
    pub(super) fn stored(&self) -> HashMap<ContextId, Arc<str>> {
        let counts = self.counts();
        let stored = counts.contexts.iter().filter(|(_, it)| it.is_stored);
        stored
            .map(|(id, counted)| (id.clone(), Arc::clone(&counted.model)))
            .collect()
    }

    /// Whether it is counted.
    pub(super) fn contains(&self, id: &ContextId) -> bool {
        self.counts().contexts.contains_key(id)
    }

    /// Counts it no longer.
    pub(super) fn remove(&self, id: &ContextId) {
        let mut counts = self.counts();
        counts.remove(id);
        self.publish(&counts);
    }

    fn publish(&self, counts: &Counts) {
        self.events
            .contexts_living(counts.contexts.len() as u64, counts.tokens);
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn insert(&mut self, context: &LivingContext, is_stored: bool) {
        let project = match self.projects.get_key_value(context.project.as_str()) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(context.project.as_str()),
        };
        let tokens = context.prefix_tokens;
        let total = self.projects.entry(Arc::clone(&project)).or_default();
        total.contexts += 1;
        total.tokens += tokens;
        self.tokens += tokens;
        let counted = Counted {
            project,
            model: Arc::from(context.model.as_str()),
            tokens,
            is_stored,
        };
        self.contexts.insert(context.id.clone(), counted);
    }

    fn resize(&mut self, id: &ContextId, tokens: u64) {
        let Some(counted) = self.contexts.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut counted.tokens, tokens);
        self.tokens = self.tokens - before + tokens;
        if let Some(total) = self.projects.get_mut(&counted.project) {
            total.tokens = total.tokens - before + tokens;
        }
    }

    fn remove(&mut self, id: &ContextId) {
        let Some(counted) = self.contexts.remove(id) else {
            return;
        };
        self.tokens -= counted.tokens;
        if let Some(total) = self.projects.get_mut(&counted.project) {
            total.contexts -= 1;
            total.tokens -= counted.tokens;
            if total.contexts == 0 {
                self.projects.remove(&counted.project);
            }
        }
    }
}

fn limit_reached(state: String) -> ApiError {
    let mut error = ApiError::new(
        ErrorKind::RateLimited,
        format!(
            "This project has {state}. Delete contexts, let them expire, or ask the operator for more."
        ),
    );
    // Waiting a second, as SDKs do, does not help.
    error.should_retry = Some(false);
    error
}
