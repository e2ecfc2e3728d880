//! How many contexts each project has, for its limits and for the metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::{ApiError, ContextId, ErrorKind};

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
    contexts: HashMap<ContextId, (Arc<str>, u64)>,
    projects: HashMap<Arc<str>, Total>,
    tokens: u64,
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

    /// Counts a new context, if its project's limits allow one more.
    pub(super) fn reserve(
        &self,
        project: &str,
        id: &ContextId,
        tokens: u64,
    ) -> Result<(), ApiError> {
        let mut counts = self.counts();
        let (contexts, held_tokens) = counts
            .projects
            .get(project)
            .map_or((0, 0), |total| (total.contexts, total.tokens));
        if contexts >= self.contexts_max {
            return Err(limit_reached(format!(
                "{contexts} living contexts, which is its limit"
            )));
        }
        if held_tokens.saturating_add(tokens) > self.tokens_max {
            return Err(limit_reached(format!(
                "{held_tokens} tokens in living contexts; {tokens} more would exceed its limit of {}",
                self.tokens_max
            )));
        }
        counts.insert(project, id, tokens);
        self.publish(&counts);
        Ok(())
    }

    /// Counts a context that was there before the start, whatever the limits say.
    pub(super) fn insert(&self, project: &str, id: &ContextId, tokens: u64) {
        let mut counts = self.counts();
        counts.remove(id);
        counts.insert(project, id, tokens);
        self.publish(&counts);
    }

    /// Counts a context's new size, unless the context has been removed.
    pub(super) fn resize(&self, project: &str, id: &ContextId, tokens: u64) {
        let mut counts = self.counts();
        if counts.contexts.contains_key(id) {
            counts.remove(id);
            counts.insert(project, id, tokens);
            self.publish(&counts);
        }
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
    fn insert(&mut self, project: &str, id: &ContextId, tokens: u64) {
        let project = match self.projects.get_key_value(project) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(project),
        };
        let total = self.projects.entry(Arc::clone(&project)).or_default();
        total.contexts += 1;
        total.tokens += tokens;
        self.tokens += tokens;
        self.contexts.insert(id.clone(), (project, tokens));
    }

    fn remove(&mut self, id: &ContextId) {
        let Some((project, tokens)) = self.contexts.remove(id) else {
            return;
        };
        self.tokens -= tokens;
        if let Some(total) = self.projects.get_mut(&project) {
            total.contexts -= 1;
            total.tokens -= tokens;
            if total.contexts == 0 {
                self.projects.remove(&project);
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
