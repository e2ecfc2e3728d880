//! The life of a context: create, look up, extend, fork, delete and expire. What chats do with one is in [`turns`].
//!
//! The store is the truth. Beside it, content and rendered prefixes of contexts in use are kept in memory, so that a
//! chat costs the same whatever its context's size, and so that open contexts still answer while the store is away.

mod cache;
mod census;
mod hot;
mod implicit;
mod leases;
mod living;
mod sessions;
mod sweeper;
mod turn_guard;
mod turns;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::context::{
    ContextContent, ContextPage, CreateContext, CreateSurface, ForkContext, ProfileKind,
};
use holdfast_protocol::{ApiError, Context, ContextId, Message, UnixMillis};
use holdfast_store::{LimitSettings, LivingContext, StoreError};
use rand::RngExt;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::app::{Clock, Limits, Store};
use crate::backend::{PrefixContent, PreparedPrefix};
use crate::events::Events;
use crate::ledger::Entry;
use crate::routing::{Model, Models};
use crate::shared::Shared;

use cache::{ContextCache, Loaded};
pub(crate) use hot::Hot;
pub(crate) use implicit::Attached;
use implicit::Implicit;
use leases::Leases;
use living::{Bounds, Living};
use sessions::IdLocks;
pub(crate) use turns::OpenContext;

/// Contexts in use that are kept in memory, bytes.
const CACHE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Prefixes that are pinned again when the service starts. The others are pinned at their first use, so that a start
/// with very many contexts stays quick.
const RESUMED_MAX: usize = 1_000;

const DAY_MS: UnixMillis = 86_400_000;

/// All contexts of all projects.
pub(crate) struct Contexts {
    store: Arc<dyn Store>,
    models: Arc<Models>,
    events: Arc<Events>,
    limits: Limits,
    clock: Clock,
    tasks: TaskTracker,
    cache: Arc<Mutex<ContextCache>>,
    /// Where replicas share a Redis.
    hot: Option<Arc<Hot>>,
    leases: Arc<Leases>,
    living: Arc<Living>,
    sessions: Arc<IdLocks>,
    loading: Arc<IdLocks>,
    making: Arc<IdLocks>,
    implicit: Arc<Implicit>,
}

/// What servers over one store share beside it: a Redis, where there is one.
pub(crate) struct Beside {
    /// Messages of contexts in use.
    pub(crate) hot: Option<Hot>,
    /// Leases of sessions.
    pub(crate) shared: Option<Arc<Shared>>,
}

/// A new context and how much of its prefix was there before.
#[derive(Debug)]
pub(crate) struct Created {
    /// As stored.
    pub(crate) context: Context,
    /// Tokens of its prefix that were resident already.
    pub(crate) resident_tokens: u64,
}

impl Contexts {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        models: Arc<Models>,
        events: Arc<Events>,
        limits: Limits,
        clock: Clock,
        tasks: TaskTracker,
        beside: Beside,
    ) -> Self {
        let Beside { hot, shared } = beside;
        let leases = Leases::new(Arc::clone(&store), Arc::clone(&clock), shared);
        let living = Arc::new(Living::new(
            limits.contexts_per_project_max,
            limits.context_tokens_per_project_max,
            Arc::clone(&events),
        ));
        Contexts {
            store,
            models,
            events,
            limits,
            clock,
            tasks,
            cache: new_cache(),
            hot: hot.map(Arc::new),
            leases: Arc::new(leases),
            living,
            sessions: Arc::default(),
            loading: Arc::default(),
            making: Arc::default(),
            implicit: Arc::default(),
        }
    }

    /// The same contexts with other models and limits.
    pub(crate) fn reloaded(&self, models: Arc<Models>, limits: Limits) -> Self {
        let living = self.living.reloaded(
            limits.contexts_per_project_max,
            limits.context_tokens_per_project_max,
        );
        // What another kind of backend has prepared is of no use to the one that answers now.
        let cache = match models.keeps_prefixes_of(&self.models) {
            true => Arc::clone(&self.cache),
            false => new_cache(),
        };
        Contexts {
            store: Arc::clone(&self.store),
            models,
            events: Arc::clone(&self.events),
            limits,
            clock: Arc::clone(&self.clock),
            tasks: self.tasks.clone(),
            cache,
            hot: self.hot.clone(),
            leases: Arc::clone(&self.leases),
            living: Arc::new(living),
            sessions: Arc::clone(&self.sessions),
            loading: Arc::clone(&self.loading),
            making: Arc::clone(&self.making),
            implicit: Arc::clone(&self.implicit),
        }
    }

    /// Counts the contexts that live on from before the start, and pins the newest ones' prefixes in the background.
    pub(crate) async fn resume(self: &Arc<Self>) -> Result<(), StoreError> {
        let contexts = self.store.living(self.now(), u32::MAX).await?;
        for context in &contexts {
            self.living.insert(&context.into());
            self.implicit.insert(&context.into());
        }
        // Models may share an engine, so each is told of all; a name that an engine does not know does no harm.
        let pins: HashSet<String> = contexts
            .iter()
            .map(|context| context.id.to_string())
            .collect();
        for model in self.models.iter() {
            model.backend.retain(&pins);
        }
        let contexts_of_all = Arc::clone(self);
        self.tasks.spawn(async move {
            for context in contexts.into_iter().take(RESUMED_MAX) {
                let Ok(model) = contexts_of_all.models.resolve(&context.model).cloned() else { continue };
                if let Err(error) = contexts_of_all.load(&context, &model).await {
                    tracing::warn!(context.id = %context.id, %error, "a context's prefix can't be pinned again");
                }
            }
        });
        Ok(())
    }

    /// Makes a context: all of it or nothing. Dropping the future leaves nothing behind either.
    pub(crate) async fn create(
        self: &Arc<Self>,
        project: &str,
        model: &Arc<Model>,
        create: CreateContext,
        surface: CreateSurface,
        entry: &Entry,
    ) -> Result<Created, ApiError> {
        let now = self.now();
        let content = PrefixContent {
            project: project.to_owned(),
            initial: create.messages.clone(),
            history: Vec::new(),
            previous_history: 0,
            tools: create.tools.clone(),
            tool_choice: create.tool_choice.clone(),
            rendered_at: rendered_at(now),
        };
        let prefix = model.backend.prepare(content).await?;
        let profile = match surface {
            CreateSurface::Google => &model.entry.profile.of_kind(ProfileKind::Gemini),
            CreateSurface::OpenAi | CreateSurface::Ark => &model.entry.profile,
        };
        let context = Context::new(
            &create,
            surface,
            profile,
            project,
            &model.entry.name,
            new_id(now),
            prefix.tokens,
            now,
        )?;
        let content = ContextContent {
            initial: create.messages,
            turns: Vec::new(),
        };
        self.establish(model, context, content, prefix, entry).await
    }

    /// Makes a context that starts with what another holds and then goes its own way.
    pub(crate) async fn fork(
        self: &Arc<Self>,
        project: &str,
        id: &ContextId,
        fork: &ForkContext,
        entry: &Entry,
    ) -> Result<Created, ApiError> {
        let parent = self.read(project, id).await?;
        let model = Arc::clone(self.models.resolve(&parent.model)?);
        let loaded = self.load(&parent, &model).await?;
        let now = self.now();
        let child = parent.fork(
            &loaded.content,
            fork,
            &model.entry.profile.of_kind(parent.profile),
            new_id(now),
            now,
        )?;
        let content = loaded.content.first_turns(child.turn_count);
        let prefix = self.prepare(&model, &child, &content).await?;
        entry.set_model(&model.entry.name);
        self.establish(&model, child, content, prefix, entry).await
    }

    /// The context without its messages.
    pub(crate) async fn get(&self, project: &str, id: &ContextId) -> Result<Context, ApiError> {
        self.read(project, id).await
    }

    /// A page of a project's contexts, newest first.
    pub(crate) async fn list(
        &self,
        project: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<ContextPage, ApiError> {
        self.store
            .list(project, cursor, limit, self.now())
            .await
            .map_err(|error| match error {
                StoreError::NotFound => ApiError::invalid(
                    "cursor",
                    "is not the `next_cursor` of an earlier page of this list",
                ),
                error => store_error(error),
            })
    }

    /// Sets a new ttl, counted from now.
    pub(crate) async fn set_ttl(
        &self,
        project: &str,
        id: &ContextId,
        ttl_seconds: u64,
    ) -> Result<Context, ApiError> {
        let mut context = self.read(project, id).await?;
        let model = self.models.resolve(&context.model)?;
        // Not while the row is being loaded: the one read before would be kept as the last one seen.
        let _loading = self.loading.lock(id).await;
        let now = self.now();
        let profile = model.entry.profile.of_kind(context.profile);
        context.set_ttl(ttl_seconds, &profile, now)?;
        let context = self
            .store
            .set_ttl(project, id, context.ttl_seconds, context.expires_at, now)
            .await
            .map_err(store_error)?;
        self.cache().update_row(&context);
        model.backend.extend(&context);
        Ok(context)
    }

    /// Deletes a context and what the backend keeps for it. A chat that runs on it ends by itself.
    pub(crate) async fn delete(&self, project: &str, id: &ContextId) -> Result<(), ApiError> {
        let context = self.read(project, id).await?;
        self.store
            .delete(project, id, self.now())
            .await
            .map_err(store_error)?;
        self.forget(&context);
        Ok(())
    }

    /// Makes the prefix resident, then stores the context.
    async fn establish(
        self: &Arc<Self>,
        model: &Arc<Model>,
        context: Context,
        content: ContextContent,
        prefix: PreparedPrefix,
        entry: &Entry,
    ) -> Result<Created, ApiError> {
        let mut context = context;
        entry.set_context(context.id.as_str());
        if context.implicit.is_none() {
            context.made_by = entry.payer().map(|payer| payer.key_id.clone());
        }
        let guard = self.reserve(model, &context, entry).await?;
        let backend = Arc::clone(&model.backend);
        let held = model.backend.hold(&context, &prefix, entry).await?;
        if let Some(tokens) = held.tokens
            && context.turn_count == 0
        {
            context.initial_tokens = tokens;
            context.prefix_tokens = tokens;
            self.living.resize(&context.id, tokens);
        }
        let (answer, stored) = oneshot::channel();
        let contexts = Arc::clone(self);
        // On a task of its own, because a write that has begun must be brought to an end also when the client has gone.
        self.tasks.spawn(async move {
            let result = contexts.store.insert(&context, &content).await.map_err(store_error);
            let context = match result {
                Ok(()) => {
                    backend.stored(&context.id);
                    context
                }
                Err(error) => {
                    drop(guard);
                    let _ = answer.send(Err(error));
                    return;
                }
            };
            let project = context.project.clone();
            let id = context.id.clone();
            contexts.keep(&context, &Loaded { content: Arc::new(content), prefix });
            if answer.send(Ok(context)).is_ok() {
                guard.keep();
                contexts.events.context_created();
            } else {
                contexts.cache().remove(&id);
                if let Err(error) = contexts.store.delete(&project, &id, contexts.now()).await {
                    tracing::warn!(context.id = %id, %error, "a context that nobody waits for stays until it expires");
                }
            }
        });
        let context = stored.await.map_err(|_| ApiError::internal())??;
        Ok(Created {
            context,
            resident_tokens: held.resident_tokens,
        })
    }

    /// Counts the context towards the limits of its project, key and model; taken back unless the guard is kept.
    async fn reserve(
        &self,
        model: &Arc<Model>,
        context: &Context,
        entry: &Entry,
    ) -> Result<CreateGuard, ApiError> {
        let counted = LivingContext::from(context);
        // What has no row in the ledger is nobody's request, and the configuration decides.
        let terms = entry.payer().map(|payer| Arc::clone(&payer.terms));
        let terms = terms.unwrap_or_default();
        let of_model = self.limits.per_model.get(&context.model);
        let (of_key, of_project) = (self.limits.per_key, self.limits.per_project);
        let bounds = Bounds {
            project: LimitSettings {
                contexts: terms.project.limits.contexts.or(of_project.contexts),
                context_tokens: (terms.project.limits.context_tokens).or(of_project.context_tokens),
                ..terms.project.limits
            },
            key: LimitSettings {
                contexts: terms.limits.contexts.or(of_key.contexts),
                context_tokens: terms.limits.context_tokens.or(of_key.context_tokens),
                ..terms.limits
            },
            model: of_model.copied().unwrap_or_default(),
        };
        let reserve = || self.living.reserve(&counted, &bounds);
        if reserve().is_err() {
            // Expired contexts that the sweeper has not met yet must not stand in the way.
            self.sweep().await.map_err(store_error)?;
            // Then those that nobody asked for by name go, the longest unused first.
            while let Err(full) = reserve() {
                if !full.is_projects || !self.evict_oldest(&context.project).await {
                    return Err(full.error);
                }
            }
        }
        Ok(CreateGuard {
            model: Arc::clone(model),
            living: Arc::clone(&self.living),
            id: context.id.clone(),
            kept: false,
        })
    }

    /// The row: the one last seen where nobody else can have changed it or while the store is away, otherwise the
    /// stored one.
    async fn read(&self, project: &str, id: &ContextId) -> Result<Context, ApiError> {
        let now = self.now();
        if !self.store.is_shared()
            && let Some(context) = self.cache().row(id)
            && context.project == project
            && !context.is_expired(now)
        {
            return Ok(context);
        }
        match self.store.get(project, id, now).await {
            Ok(context) => Ok(context),
            Err(StoreError::Unavailable(error)) => {
                tracing::warn!(%error, "the store is away; serving contexts from memory");
                let known = self
                    .cache()
                    .row(id)
                    .filter(|context| context.project == project);
                match known {
                    Some(context) if !context.is_expired(now) => Ok(context),
                    Some(_) => Err(ApiError::context_not_found()),
                    None => Err(unavailable()),
                }
            }
            Err(error) => {
                if matches!(error, StoreError::NotFound) {
                    self.forget_removed(project, id, now);
                }
                Err(store_error(error))
            }
        }
    }

    /// Content and prefix of a stored context, from memory or else from the store. One caller at a time loads.
    async fn load(&self, context: &Context, model: &Arc<Model>) -> Result<Loaded, ApiError> {
        if let Some(loaded) = self.cache().get(context) {
            return Ok(loaded);
        }
        let _loading = self.loading.lock(&context.id).await;
        if let Some(loaded) = self.cache().get(context) {
            return Ok(loaded);
        }
        let stored = self
            .store
            .get(&context.project, &context.id, self.now())
            .await;
        let context = match &stored {
            Ok(stored) if stored.version == context.version => stored,
            _ => context,
        };
        if self.store.is_shared() && stored.is_ok() {
            // Another replica may have created it.
            self.living.insert(&context.into());
        }
        // Only of a row that the store has just shown: what was deleted must not come back.
        let hot = match (&self.hot, &stored) {
            (Some(hot), Ok(_)) => hot.get(context).await,
            _ => None,
        };
        let content = match hot {
            Some(content) => Ok(content),
            None => self.store.content(&context.project, &context.id).await,
        };
        let mut content = content.map_err(|error| {
            if matches!(error, StoreError::NotFound) {
                self.living.remove(&context.id);
            }
            store_error(error)
        })?;
        // A turn may have been committed since the row was read.
        content
            .turns
            .retain(|turn| turn.number <= context.turn_count);
        let prefix = self.prepare(model, context, &content).await?;
        model.backend.pin(context, &prefix);
        let loaded = Loaded {
            content: Arc::new(content),
            prefix,
        };
        self.keep(context, &loaded);
        self.settle_removed(context, model);
        Ok(loaded)
    }

    /// Keeps what was loaded or made, for the next request here or at another replica.
    fn keep(&self, context: &Context, loaded: &Loaded) {
        self.cache().insert(context, loaded);
        if let Some(hot) = &self.hot {
            hot.put(context, &loaded.content, self.now());
        }
    }

    /// After something was kept for a context: takes it back if the context was removed meanwhile.
    fn settle_removed(&self, context: &Context, model: &Arc<Model>) {
        if !self.living.contains(&context.id) {
            self.cache().remove(&context.id);
            model.backend.release(&context.id);
        }
    }

    async fn prepare(
        &self,
        model: &Arc<Model>,
        context: &Context,
        content: &ContextContent,
    ) -> Result<PreparedPrefix, ApiError> {
        let history: Vec<Message> = content
            .remembered(context.dropped_messages)
            .map(|stored| stored.message.clone())
            .collect();
        let last_turn = content.turns.last().map_or(0, |turn| turn.messages.len());
        model
            .backend
            .prepare(PrefixContent {
                project: context.project.clone(),
                initial: content.initial.clone(),
                previous_history: history.len().saturating_sub(last_turn),
                history,
                tools: context.tools.clone(),
                tool_choice: context.tool_choice.clone(),
                rendered_at: rendered_at(context.created_at),
            })
            .await
    }

    /// After the store has said that it has no such context for the project: one that by what is still in memory should
    /// live was removed by another replica, and must not come back to life while the store is away. An expired one is
    /// the sweep's.
    fn forget_removed(&self, project: &str, id: &ContextId, now: UnixMillis) {
        let known = self.cache().row(id);
        if let Some(context) = known
            && context.project == project
            && !context.is_expired(now)
        {
            self.forget(&context);
        }
    }

    /// After a context has left the store.
    fn forget(&self, context: &Context) {
        // First, so that `settle_removed` on another task sees it and undoes what it has just put back.
        self.living.remove(&context.id);
        self.implicit.remove(context);
        self.cache().remove(&context.id);
        if let Some(hot) = &self.hot {
            hot.remove(&context.id);
        }
        match self.models.resolve(&context.model) {
            Ok(model) => model.backend.release(&context.id),
            // Its model has left the configuration, and whatever answered for it may serve others still.
            Err(_) => {
                for model in self.models.iter() {
                    model.backend.release(&context.id);
                }
            }
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, ContextCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> UnixMillis {
        (self.clock)()
    }
}

fn new_cache() -> Arc<Mutex<ContextCache>> {
    Arc::new(Mutex::new(ContextCache::new(CACHE_BYTES_MAX)))
}

/// Takes a context's pin and its place in the limits back, unless the context has been stored.
struct CreateGuard {
    model: Arc<Model>,
    living: Arc<Living>,
    id: ContextId,
    kept: bool,
}

impl CreateGuard {
    fn keep(mut self) {
        self.living.settle(&self.id);
        self.kept = true;
    }
}

impl Drop for CreateGuard {
    fn drop(&mut self) {
        if !self.kept {
            self.living.remove(&self.id);
            self.model.backend.release(&self.id);
        }
    }
}

/// What a template that prints the date takes for now. The midnight before the creation, so that a context and its
/// forks of the same day share a prefix.
fn rendered_at(created_at: UnixMillis) -> UnixMillis {
    created_at - created_at.rem_euclid(DAY_MS)
}

fn new_id(now: UnixMillis) -> ContextId {
    ContextId::new(now, rand::rng().random())
}

pub(crate) fn unavailable() -> ApiError {
    let mut error = ApiError::unavailable(
        "The store is away, and this can't be done without it. Try again in a moment.",
    );
    error.retry_after = Some(std::time::Duration::from_secs(2));
    error
}

/// What a client is told when the store fails. Logged here, because nobody further up knows the cause.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound => ApiError::context_not_found(),
        StoreError::Conflict => ApiError::context_busy(),
        StoreError::Unavailable(_) => {
            tracing::error!(%error, "the store failed");
            unavailable()
        }
        StoreError::Corrupt(_) => {
            tracing::error!(%error, "the store failed");
            ApiError::internal()
        }
    }
}
