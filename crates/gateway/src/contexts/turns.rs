//! A chat's use of a context: open it, keep it alive, and in a session commit the finished turn.

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::chat::{ChatRequest, ChatResponse};
use holdfast_protocol::compose::{ComposedRequest, compose};
use holdfast_protocol::context::{
    ContextContent, ContextMode, Expiry, StoredMessage, Truncation, Turn,
};
use holdfast_protocol::{ApiError, Context, ContextId, Message, Role, UnixMillis};
use holdfast_store::{AppendTurn, StoreError};

use super::cache::Loaded;
use super::turn_guard::TurnGuard;
use super::{Contexts, rendered_at, store_error, unavailable};
use crate::backend::{ChatPrefix, PrefixContent, PreparedPrefix};
use crate::idempotency::Recorder;
use crate::routing::Model;

/// A context that a chat is about to use. Holds the session's lock until it is dropped.
pub(crate) struct OpenContext {
    /// The stored row.
    pub(crate) context: Context,
    /// Its model.
    pub(crate) model: Arc<Model>,
    loaded: Loaded,
    session: Option<TurnGuard>,
}

/// A finished turn, measured and ready to be committed.
pub(crate) struct PreparedTurn {
    append: AppendTurn,
    prefix: PreparedPrefix,
    /// Tokens that the turn adds to the context.
    pub(crate) written_tokens: u64,
}

impl OpenContext {
    /// Its messages.
    pub(crate) fn content(&self) -> &Arc<ContextContent> {
        &self.loaded.content
    }

    /// Its part in a chat.
    pub(crate) fn chat_prefix(&self, composed: &ComposedRequest) -> ChatPrefix {
        ChatPrefix {
            context: self.context.clone(),
            prepared: self.loaded.prefix.clone(),
            is_current: composed.dropped_messages == self.context.dropped_messages
                && composed.tools == self.context.tools,
        }
    }

    /// See [`PrefixContent::rendered_at`].
    pub(crate) fn rendered_at(&self) -> i64 {
        rendered_at(self.context.created_at)
    }

    /// Whether finished turns are remembered.
    pub(crate) fn is_session(&self) -> bool {
        self.context.mode == ContextMode::Session
    }

    /// How long the context can go without [`Contexts::touch`] while it is in use.
    pub(crate) fn touch_every(&self) -> Duration {
        Duration::from_secs(u64::from(self.context.ttl_seconds)) / 2
    }
}

/// A sliding expiry moves in steps: at most a second, and a hundredth of a short ttl. A context in constant use is then
/// not written with every chat, and no client waits for a disk that has nothing new to keep. Milliseconds.
fn renewal_step(ttl_seconds: u32) -> UnixMillis {
    (i64::from(ttl_seconds) * 10).min(1_000)
}

/// The time at which an admitted chat uses its context, for the store's own check. The chat was admitted while the
/// context lived, which renewed it; a machine so slow that the renewal comes late must not cost the chat its context.
fn in_time(context: &Context, now: UnixMillis) -> UnixMillis {
    match context.expiry {
        Expiry::Sliding => now.min(context.expires_at - 1),
        Expiry::Fixed => now,
    }
}

impl Contexts {
    /// Opens a context for a chat. In session mode this takes the session's lock, waiting as long as the limits say.
    pub(crate) async fn open(
        self: &Arc<Self>,
        project: &str,
        id: &ContextId,
    ) -> Result<OpenContext, ApiError> {
        let mut context = self.read(project, id).await?;
        let session = match context.mode {
            ContextMode::CommonPrefix => None,
            ContextMode::Session => {
                let guard = self.take_turn(id).await?;
                // The turn that held the lock may have moved it on or outlived it.
                context = self
                    .store
                    .get(project, id, self.now())
                    .await
                    .map_err(store_error)?;
                Some(guard)
            }
        };
        let model = Arc::clone(self.models.resolve(&context.model)?);
        let loaded = self.load(&context, &model).await?;
        Ok(OpenContext {
            context,
            model,
            loaded,
            session,
        })
    }

    /// Renews a sliding expiry; done at admission, at completion, and in between where the ttl is short.
    pub(crate) async fn touch(&self, open: &mut OpenContext) -> Result<(), ApiError> {
        if open.context.expiry == Expiry::Fixed {
            return Ok(());
        }
        let now = self.now();
        let expires_at = open.context.expires_after_use(now);
        if expires_at - open.context.expires_at < renewal_step(open.context.ttl_seconds) {
            return Ok(());
        }
        let Context { project, id, .. } = &open.context;
        match self
            .store
            .touch(project, id, expires_at, in_time(&open.context, now))
            .await
        {
            Ok(()) => {}
            // A prefix is only read, so that it can be used while the store is away.
            Err(StoreError::Unavailable(error)) if !open.is_session() => {
                tracing::warn!(context.id = %id, %error, "a context's expiry can't be renewed in the store");
            }
            Err(StoreError::Unavailable(_)) => return Err(unavailable()),
            Err(error) => return Err(store_error(error)),
        }
        open.context.expires_at = expires_at;
        self.cache().update_row(&open.context);
        Ok(())
    }

    /// Measures a finished turn: what the context will be once it is committed.
    pub(crate) async fn prepare_turn(
        &self,
        open: &OpenContext,
        new: Vec<Message>,
        answer: Message,
        dropped_messages: u32,
    ) -> Result<PreparedTurn, ApiError> {
        let OpenContext {
            context,
            model,
            loaded,
            ..
        } = open;
        let now = self.now();
        let turn_messages: Vec<Message> = new.into_iter().chain([answer]).collect();
        let remembered = |dropped| {
            loaded
                .content
                .remembered(dropped)
                .map(|stored| stored.message.clone())
        };
        let turn_length = turn_messages.len();
        let prefix_of = |history: Vec<Message>| {
            model.backend.prepare(PrefixContent {
                project: context.project.clone(),
                initial: loaded.content.initial.clone(),
                previous_history: history.len().saturating_sub(turn_length),
                history,
                tools: context.tools.clone(),
                tool_choice: context.tool_choice.clone(),
                rendered_at: rendered_at(context.created_at),
            })
        };
        let mut prefix = prefix_of(
            remembered(dropped_messages)
                .chain(turn_messages.iter().cloned())
                .collect(),
        )
        .await?;
        let turn_tokens = &prefix.history_tokens[prefix
            .history_tokens
            .len()
            .saturating_sub(turn_messages.len())..];
        let written_tokens = turn_tokens.iter().map(|tokens| u64::from(*tokens)).sum();
        let messages = turn_messages
            .into_iter()
            .zip(turn_tokens)
            .map(|(message, tokens)| StoredMessage {
                message,
                tokens: *tokens,
            })
            .collect();
        let turn = Turn {
            number: context.turn_count + 1,
            messages,
            committed_at: now,
        };

        let dropped_next = dropped_after(context, &loaded.content, &turn, dropped_messages);
        if dropped_next > dropped_messages {
            let of_turn = turn.messages.iter().map(|stored| stored.message.clone());
            let already = loaded.content.remembered(0).count();
            let history = if dropped_next as usize <= already {
                remembered(dropped_next).chain(of_turn).collect()
            } else {
                of_turn.skip(dropped_next as usize - already).collect()
            };
            prefix = prefix_of(history).await?;
        }
        let append = AppendTurn {
            turn,
            dropped_messages: dropped_next,
            prefix_tokens: prefix.tokens,
            expires_at: context.expires_after_use(now),
        };
        Ok(PreparedTurn {
            append,
            prefix,
            written_tokens,
        })
    }

    /// Appends the turn. It happens wholly or not at all, also when the client goes away meanwhile; the session stays
    /// locked until it has. Returns the context as it is then.
    pub(crate) async fn commit(
        self: &Arc<Self>,
        open: OpenContext,
        turn: PreparedTurn,
        response: Arc<ChatResponse>,
        recorder: Recorder,
    ) -> Result<Context, ApiError> {
        let contexts = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let OpenContext {
                context,
                model,
                loaded,
                session,
            } = open;
            let PreparedTurn { append, prefix, .. } = turn;
            let committed = contexts
                .store
                .append_turn(
                    &context.project,
                    &context.id,
                    context.version,
                    &append,
                    in_time(&context, contexts.now()),
                )
                .await
                .map_err(commit_error)?;
            contexts.events.turn_committed();
            recorder.record(response, contexts.now());
            model.backend.hold_later(&committed, &prefix);
            contexts.living.resize(&context.id, committed.prefix_tokens);
            // Out of the cache first, so that ours is the only reference and appending does not copy the history.
            contexts.cache().remove(&context.id);
            let mut content = loaded.content;
            Arc::make_mut(&mut content).turns.push(append.turn);
            contexts.keep(&committed, &Loaded { content, prefix });
            contexts.settle_removed(&committed, &model);
            if let Some(session) = session {
                session.give_back().await;
            }
            Ok(committed)
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "committing a turn failed");
            let mut answer = ApiError::internal();
            answer.should_retry = Some(false);
            Err(answer)
        })
    }
}

/// A failed write may have been done all the same, and then a repetition would remember the turn twice.
fn commit_error(error: StoreError) -> ApiError {
    let is_certain = matches!(error, StoreError::NotFound | StoreError::Conflict);
    let mut answer = store_error(error);
    if !is_certain {
        answer.should_retry = Some(false);
    }
    answer
}

/// How many messages are dropped once `turn` has been appended.
///
/// `last_history_tokens` looks at the history alone, so it is applied here already: what the next turn continues from
/// can then be computed before that turn comes. `rolling_tokens` depends on the next request and waits for it.
fn dropped_after(
    context: &Context,
    content: &ContextContent,
    turn: &Turn,
    dropped_messages: u32,
) -> u32 {
    if !matches!(
        context.truncation,
        Some(Truncation::LastHistoryTokens { .. })
    ) {
        return dropped_messages;
    }
    let after = Context {
        dropped_messages,
        ..context.clone()
    };
    // Only roles and sizes matter for this, so the texts stay where they are.
    let bare = |stored: &StoredMessage| StoredMessage {
        message: Message {
            content: Vec::new(),
            tool_calls: Vec::new(),
            ..Message::text(stored.message.role, "")
        },
        tokens: stored.tokens,
    };
    let turns = content.turns.iter().chain([turn]).map(|turn| Turn {
        number: turn.number,
        messages: turn.messages.iter().map(bare).collect(),
        committed_at: turn.committed_at,
    });
    let content = ContextContent {
        initial: Vec::new(),
        turns: turns.collect(),
    };
    compose(
        Some((&after, &Arc::new(content))),
        empty_request(),
        u32::MAX,
        0,
    )
    .map_or(dropped_messages, |composed| composed.dropped_messages)
}

/// The smallest request there can be.
fn empty_request() -> ChatRequest {
    ChatRequest::new(None, vec![Message::text(Role::User, "")])
}
