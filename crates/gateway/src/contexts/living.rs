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
    totals: HashMap<Owner, Total>,
    tokens: u64,
}

/// Who or what contexts are counted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    Project(Arc<str>),
    /// By public id.
    Key(Arc<str>),
    Model(Arc<str>),
}

struct Counted {
    model: Arc<str>,
    /// Its project; its key and model, unless the gateway keeps it of its own accord.
    owners: Vec<Owner>,
    tokens: u64,
    /// Not while it is being made.
    is_stored: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Total {
    contexts: u64,
    tokens: u64,
}

/// What bounds a context that is about to be made. What is `None` is decided by the configuration for projects, and is no
/// bound for keys and models.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds {
    pub(super) project: LimitSettings,
    pub(super) key: LimitSettings,
    pub(super) model: LimitSettings,
}

/// Why no more contexts may be made.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) error: ApiError,
    /// Whether removing others of the project would help.
    pub(super) is_projects: bool,
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

    /// Counts a context that is being made, if the limits of its project, key and model allow one more.
    pub(super) fn reserve(&self, context: &LivingContext, bounds: &Bounds) -> Result<(), Full> {
        let mut counts = self.counts();
        for owner in counts.owners(context) {
            let limits = match owner {
                Owner::Project(_) => LimitSettings {
                    contexts: bounds.project.contexts.or(Some(self.contexts_max)),
                    context_tokens: bounds.project.context_tokens.or(Some(self.tokens_max)),
                    ..bounds.project
                },
                Owner::Key(_) => bounds.key,
                Owner::Model(_) => bounds.model,
            };
            let held = counts.totals.get(&owner).copied().unwrap_or_default();
            check(&owner, held, context.prefix_tokens, &limits)?;
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
    fn owners(&self, context: &LivingContext) -> Vec<Owner> {
        let owner = |make: fn(Arc<str>) -> Owner, name: &str| {
            let owner = make(Arc::from(name));
            // The one that is there, so that each name is kept once.
            let known = self.totals.get_key_value(&owner);
            known.map_or(owner, |(known, _)| known.clone())
        };
        let mut owners = vec![owner(Owner::Project, &context.project)];
        if context.implicit.is_none() {
            owners.push(owner(Owner::Model, &context.model));
            let key = context.made_by.as_deref();
            owners.extend(key.map(|key| owner(Owner::Key, key)));
        }
        owners
    }

    fn insert(&mut self, context: &LivingContext, is_stored: bool) {
        let owners = self.owners(context);
        let tokens = context.prefix_tokens;
        for owner in &owners {
            let total = self.totals.entry(owner.clone()).or_default();
            total.contexts += 1;
            total.tokens += tokens;
        }
        self.tokens += tokens;
        let counted = Counted {
            model: Arc::from(context.model.as_str()),
            owners,
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
        for owner in &counted.owners {
            if let Some(total) = self.totals.get_mut(owner) {
                total.tokens = total.tokens - before + tokens;
            }
        }
    }

    fn remove(&mut self, id: &ContextId) {
        let Some(counted) = self.contexts.remove(id) else {
            return;
        };
        self.tokens -= counted.tokens;
        for owner in &counted.owners {
            if let Some(total) = self.totals.get_mut(owner) {
                total.contexts -= 1;
                total.tokens -= counted.tokens;
                if total.contexts == 0 {
                    self.totals.remove(owner);
                }
            }
        }
    }
}

fn check(owner: &Owner, held: Total, tokens: u64, limits: &LimitSettings) -> Result<(), Full> {
    let contexts = held.contexts;
    if limits.contexts.is_some_and(|most| contexts >= most) {
        let state = format!("{contexts} living contexts, which is its limit");
        return Err(full(owner, &state));
    }
    let held = held.tokens;
    match limits.context_tokens {
        Some(most) if held.saturating_add(tokens) > most => Err(full(
            owner,
            &format!(
                "{held} tokens in living contexts; {tokens} more would exceed its limit of {most}"
            ),
        )),
        _ => Ok(()),
    }
}

fn full(owner: &Owner, state: &str) -> Full {
    let whose = match owner {
        Owner::Project(_) => "project",
        Owner::Key(_) => "key",
        Owner::Model(_) => "model",
    };
    let mut error = ApiError::new(
        ErrorKind::RateLimited,
        format!(
            "This {whose} has {state}. Delete contexts, let them expire, or ask the operator for more."
        ),
    );
    // Waiting a second, as SDKs do, does not help.
    error.should_retry = Some(false);
    Full {
        error,
        is_projects: matches!(owner, Owner::Project(_)),
    }
}
