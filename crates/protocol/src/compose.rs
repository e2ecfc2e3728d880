//! Joins a context and a request into what the model sees. The heart of the gateway; pure.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::chat::{ChatRequest, Message, Role, Tool, ToolChoice};
use crate::context::{
    Context, ContextContent, ContextMode, ProfileKind, StoredMessage, Truncation,
};
use crate::error::{ApiError, ErrorFacts};

/// Ark's default size of one trim; a smaller window takes a quarter of itself.
const ROLLING_WINDOW_TOKENS_DEFAULT: u64 = 4_096;

/// What a backend is asked to answer.
///
/// The prompt is [`ComposedRequest::initial`], then each message of [`ComposedRequest::history`], then each message of
/// `new`. The initial messages are one unit for the cache; each message after them is a unit of its own, so that a
/// session's next turn, a fork and a rebuild meet the same borders.
#[derive(Debug, Clone, PartialEq)]
pub struct ComposedRequest {
    /// What the context holds, shared with it so that a large context costs a chat nothing; `None` without a context.
    content: Option<Arc<ContextContent>>,
    /// The request's own messages.
    pub new: Vec<Message>,
    /// Tools of the context, or of the request where the context has none.
    pub tools: Vec<Tool>,
    /// Of the request, else of the context, else `Auto`.
    pub tool_choice: ToolChoice,
    /// History messages dropped in total once this request has been admitted (see [`Context::dropped_messages`]).
    pub dropped_messages: u32,
    /// Whether this request dropped history under `rolling_tokens`: by contract it reports `cached_tokens` 0.
    pub rolling_trimmed: bool,
    /// The request with `messages` moved out; sampling, limits and shape of the answer are read from here.
    pub request: ChatRequest,
}

impl ComposedRequest {
    /// Messages given at create; empty without a context.
    pub fn initial(&self) -> &[Message] {
        self.content
            .as_ref()
            .map_or(&[], |content| content.initial.as_slice())
    }

    /// Whether any message has a seal on its reasoning.
    pub fn has_seals(&self) -> bool {
        let all = self.initial().iter().chain(self.history());
        let mut all = all.chain(&self.new);
        all.any(|message| message.reasoning_signature.is_some())
    }

    /// The same without the seals, for an upstream that does not accept them.
    #[must_use]
    pub fn without_seals(&self) -> Self {
        let mut unsealed = self.clone();
        let content = unsealed.content.as_mut().map(Arc::make_mut);
        let stored = content.into_iter().flat_map(|content| {
            let turns = content.turns.iter_mut();
            let remembered = turns.flat_map(|turn| &mut turn.messages);
            content
                .initial
                .iter_mut()
                .chain(remembered.map(|stored| &mut stored.message))
        });
        for message in stored.chain(&mut unsealed.new) {
            message.reasoning_signature = None;
        }
        unsealed
    }

    /// Remembered turns after truncation, in order.
    pub fn history(&self) -> impl Iterator<Item = &Message> {
        self.content
            .iter()
            .flat_map(|content| content.remembered(self.dropped_messages))
            .map(|stored| &stored.message)
    }
}

/// Composes a chat request with its context, or with none.
///
/// `reserve_tokens` is what the new messages and the answer need at least; truncation makes room for it. Whether the
/// request's model is the context's is for [`check_model`], because only the caller can resolve aliases.
///
/// # Errors
/// No messages or an assistant message last, `n` > 1 in a session, tools that differ from the context's own (beside a
/// `gemini` context any that are not its own), a `tool_choice` that no tool fits.
pub fn compose(
    context: Option<(&Context, &Arc<ContextContent>)>,
    mut request: ChatRequest,
    window_tokens: u32,
    reserve_tokens: u32,
) -> Result<ComposedRequest, ApiError> {
    // An implicit context may be the whole of a request that asked something.
    let is_whole = request.messages.is_empty()
        && context.is_some_and(|(context, _)| context.implicit.is_some());
    if !is_whole {
        check_messages(&request.messages)?;
    }
    let new = std::mem::take(&mut request.messages);
    let Some((context, content)) = context else {
        let tools = request.tools.clone();
        let tool_choice = effective_tool_choice(request.tool_choice.as_ref(), None, &tools)?;
        return Ok(ComposedRequest {
            content: None,
            new,
            tools,
            tool_choice,
            dropped_messages: 0,
            rolling_trimmed: false,
            request,
        });
    };

    if context.mode == ContextMode::Session && request.choices > 1 {
        return Err(ApiError::invalid(
            "n",
            "must be 1 with a session context: only one answer can be remembered",
        ));
    }
    let tools = effective_tools(context, &request.tools)?;
    let tool_choice = effective_tool_choice(
        request.tool_choice.as_ref(),
        context.tool_choice.as_ref(),
        &tools,
    )?;
    if request.model.is_none() {
        request.model = Some(context.requested_model.clone());
    }

    let remembered: Vec<&StoredMessage> = content.remembered(context.dropped_messages).collect();
    let dropped_now = context.truncation.map_or(0, |truncation| {
        messages_to_drop(
            &truncation,
            context.initial_tokens,
            &remembered,
            window_tokens,
            reserve_tokens,
        )
    });
    Ok(ComposedRequest {
        content: Some(Arc::clone(content)),
        new,
        tools,
        tool_choice,
        dropped_messages: context
            .dropped_messages
            .saturating_add(u32::try_from(dropped_now).unwrap_or(u32::MAX)),
        rolling_trimmed: dropped_now > 0
            && matches!(context.truncation, Some(Truncation::RollingTokens { .. })),
        request,
    })
}

/// Checks that a chat is for its context's model. `resolved_model` is the configured model that `requested`, the
/// client's own word, stands for.
///
/// # Errors
/// It is another model; the message names both.
pub fn check_model(
    context: &Context,
    resolved_model: &str,
    requested: &str,
) -> Result<(), ApiError> {
    if context.model == resolved_model {
        return Ok(());
    }
    Err(ApiError::invalid(
        "model",
        format!(
            "is `{requested}` but the context was created for `{}`: a context works with its own model only",
            context.requested_model
        ),
    )
    .with_facts(ErrorFacts::OtherModel {
        requested: requested.to_owned(),
        held: context.requested_model.clone(),
    }))
}

/// How many of the oldest messages of `history` truncation takes away. Messages go whole, oldest first; a tool's
/// result goes with the call it answers, because no model accepts the one without the other.
pub(crate) fn messages_to_drop(
    truncation: &Truncation,
    initial_tokens: u64,
    history: &[&StoredMessage],
    window_tokens: u32,
    reserve_tokens: u32,
) -> usize {
    let mut dropped = match *truncation {
        Truncation::LastHistoryTokens {
            last_history_tokens,
        } => beyond_last_tokens(history, u64::from(last_history_tokens)),
        Truncation::RollingTokens {
            rolling_tokens: false,
            ..
        } => 0,
        Truncation::RollingTokens {
            rolling_tokens: true,
            max_window_tokens,
            rolling_window_tokens,
        } => {
            let room = u64::from(window_tokens.saturating_sub(reserve_tokens));
            let max_window = u64::from(max_window_tokens.unwrap_or(window_tokens));
            let block = rolling_window_tokens.map_or_else(
                || ROLLING_WINDOW_TOKENS_DEFAULT.min(max_window / 4).max(1),
                u64::from,
            );
            rolled_off(initial_tokens, history, room.min(max_window), block)
        }
    };
    if dropped > 0 {
        dropped += history[dropped..]
            .iter()
            .take_while(|stored| stored.message.role == Role::Tool)
            .count();
    }
    dropped
}

fn beyond_last_tokens(history: &[&StoredMessage], capacity_tokens: u64) -> usize {
    let mut kept_tokens = 0;
    let kept = history
        .iter()
        .rev()
        .take_while(|stored| {
            kept_tokens += u64::from(stored.tokens);
            kept_tokens <= capacity_tokens
        })
        .count();
    history.len() - kept
}

/// Once `initial_tokens` and `history` reach `limit_tokens`: at least `block_tokens`, and more until they are below.
fn rolled_off(
    initial_tokens: u64,
    history: &[&StoredMessage],
    limit_tokens: u64,
    block_tokens: u64,
) -> usize {
    let history_tokens: u64 = history.iter().map(|stored| u64::from(stored.tokens)).sum();
    let total_tokens = initial_tokens.saturating_add(history_tokens);
    if total_tokens < limit_tokens {
        return 0;
    }
    let mut dropped_tokens = 0;
    history
        .iter()
        .take_while(|stored| {
            let more =
                dropped_tokens < block_tokens || total_tokens - dropped_tokens >= limit_tokens;
            if more {
                dropped_tokens += u64::from(stored.tokens);
            }
            more
        })
        .count()
}

fn check_messages(messages: &[Message]) -> Result<(), ApiError> {
    match messages.last() {
        None => Err(ApiError::invalid(
            "messages",
            "must hold at least one message",
        )),
        Some(last) if last.role == Role::Assistant => Err(ApiError::invalid(
            "messages",
            "must not end with an assistant message: continuing a given answer is not supported",
        )),
        Some(_) => Ok(()),
    }
}

fn effective_tools(context: &Context, requested: &[Tool]) -> Result<Vec<Tool>, ApiError> {
    if requested.is_empty() || requested == context.tools {
        return Ok(context.tools.clone());
    }
    if !context.tools.is_empty() {
        return Err(ApiError::unsupported(
            "tools",
            "differ from the tools stored with the context: leave them out, or create a context with these",
        ));
    }
    if context.profile == ProfileKind::Gemini {
        return Err(ApiError::unsupported(
            "tools",
            "can't be given beside a context of this model: store them in the context when you create it",
        ));
    }
    Ok(requested.to_vec())
}

fn effective_tool_choice(
    requested: Option<&ToolChoice>,
    stored: Option<&ToolChoice>,
    tools: &[Tool],
) -> Result<ToolChoice, ApiError> {
    let choice = requested.or(stored).cloned().unwrap_or_default();
    choice.check(tools)?;
    Ok(choice)
}
