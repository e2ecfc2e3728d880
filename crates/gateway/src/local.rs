//! The embedded engine as a backend: messages to prompt segments, engine events to chat events.

mod completion;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use holdfast_engine::constraint::Grammar;
use holdfast_engine::template::PromptPlan;
use holdfast_engine::tools::ToolOutput;
use holdfast_engine::{
    Engine, EngineError, GenerateEvent, GenerateRequest, Generation, Prefix, PrefixUse,
};
use holdfast_protocol::chat::{ChatEvent, ContentPart, Message, ResponseFormat, Tool, ToolChoice};
use holdfast_protocol::compose::ComposedRequest;
use holdfast_protocol::usage::{BilledUsage, CacheStatus, Source};
use holdfast_protocol::{ApiError, Context, ContextId, ErrorKind, Receipt, UnixMillis, Usage};

use crate::app::SharePrefixes;
use crate::backend::{
    Answer, AnsweredBy, Backend, ChatPrefix, ChatWork, HeldPrefix, ImplicitRules, PrefixContent,
    PrefixEstimate, PrefixState, PreparedPrefix, TextWork, TurnSize,
};
use crate::ledger::{Charge, Entry};

/// The namespace of all projects when prefixes are shared. No project can be called so: it has a space.
const SHARED_NAMESPACE: &str = "all projects";

/// From this size on rendering and tokenising go to a thread of their own, bytes. Below it they take less than a
/// millisecond.
const INLINE_BYTES_MAX: usize = 16 * 1024;

/// What a template puts around a message, tokens; only for estimates.
const MESSAGE_FRAME_TOKENS: usize = 8;

/// The embedded engine.
pub(crate) struct LocalBackend {
    engine: Engine,
    share_prefixes: SharePrefixes,
}

impl LocalBackend {
    pub(crate) fn new(engine: Engine, share_prefixes: SharePrefixes) -> Self {
        LocalBackend {
            engine,
            share_prefixes,
        }
    }

    fn namespace<'a>(&self, project: &'a str) -> &'a str {
        match self.share_prefixes {
            SharePrefixes::Project => project,
            SharePrefixes::All => SHARED_NAMESPACE,
        }
    }

    /// The prompt of a chat and the part of it that the prefix cache keeps.
    async fn plan(
        &self,
        work: &mut ChatWork,
    ) -> Result<(PromptPlan, Option<Arc<Prefix>>), ApiError> {
        let composed = &mut work.composed;
        let initial = composed.initial().to_vec();
        let history: Vec<Message> = composed.history().cloned().collect();
        let new = std::mem::take(&mut composed.new);
        let tools = composed.tools.clone();
        let rendered_at = work.rendered_at;
        let engine = self.engine.clone();
        let namespace = self.namespace(&work.project).to_owned();
        let prepared = work
            .prefix
            .as_ref()
            .map(|prefix| {
                let kv = prefix.prepared.kv()?;
                Ok::<_, ApiError>((Arc::clone(kv), prefix.is_current))
            })
            .transpose()?;
        let bytes = text_bytes(&initial) + text_bytes(&history) + text_bytes(&new);
        run_sized(bytes, move || {
            let plan = engine
                .template()
                .plan(&initial, &history, &new, &tools, rendered_at)
                .map_err(api_error)?;
            let prefix = match prepared {
                None => None,
                Some((prefix, true)) if plan.prefix_stable => Some(prefix),
                Some(_) => Some(engine.prefix(&namespace, &plan.prefix)),
            };
            Ok((plan, prefix.filter(|prefix| prefix.tokens() > 0)))
        })
        .await
    }
}

#[async_trait]
impl Backend for LocalBackend {
    async fn prepare(&self, content: PrefixContent) -> Result<PreparedPrefix, ApiError> {
        check_text_only(&content.initial)?;
        let engine = self.engine.clone();
        let namespace = self.namespace(&content.project).to_owned();
        let bytes = text_bytes(&content.initial) + text_bytes(&content.history);
        run_sized(bytes, move || {
            let PrefixContent {
                initial,
                history,
                tools,
                rendered_at,
                ..
            } = &content;
            let plan = engine
                .template()
                .plan_prefix(initial, history, tools, *rendered_at)
                .map_err(api_error)?;
            let kv = engine.prefix(&namespace, &plan.segments);
            let history_tokens = history_tokens(&engine, &kv, history);
            let tokens = match kv.tokens() {
                // The template gives nothing to keep, and yet the context has a size.
                0 => initial
                    .iter()
                    .chain(history)
                    .map(|message| estimate(&engine, message) as u64)
                    .sum(),
                tokens => tokens,
            };
            Ok(PreparedPrefix {
                tokens,
                history_tokens,
                state: PrefixState::Kv(kv),
            })
        })
        .await
    }

    async fn hold(
        &self,
        context: &Context,
        prefix: &PreparedPrefix,
        entry: &Entry,
    ) -> Result<HeldPrefix, ApiError> {
        let held = self
            .engine
            .hold(
                &context.project,
                context.id.as_str(),
                Arc::clone(prefix.kv()?),
            )
            .await
            .map_err(api_error)?;
        let resident_tokens = held.prefix_tokens.saturating_sub(held.computed_tokens);
        // A row that is written already had nobody who waited for this any more.
        let _ = entry.charge(&Charge::of_engine(BilledUsage {
            input_tokens: held.prefix_tokens,
            cache_read_tokens: resident_tokens,
            ..BilledUsage::default()
        }));
        Ok(HeldPrefix {
            resident_tokens,
            tokens: None,
        })
    }

    fn stored(&self, _context: &ContextId) {}

    fn pin(&self, context: &Context, prefix: &PreparedPrefix) {
        if let Ok(prefix) = prefix.kv() {
            self.engine.pin(context.id.as_str(), Arc::clone(prefix));
        }
    }

    fn hold_later(&self, context: &Context, prefix: &PreparedPrefix) {
        if let Ok(prefix) = prefix.kv() {
            self.engine
                .hold_later(&context.project, context.id.as_str(), Arc::clone(prefix));
        }
    }

    fn extend(&self, _context: &Context) {}

    fn retain(&self, living: &HashSet<String>) {
        self.engine.retain_pins(living.clone());
    }

    fn release(&self, context: &ContextId) {
        self.engine.release(context.as_str());
    }

    fn estimates(
        &self,
        prefix: &PreparedPrefix,
        _ttl_seconds: u32,
        _turn: TurnSize,
    ) -> Vec<PrefixEstimate> {
        vec![PrefixEstimate {
            upstream: None,
            provider: None,
            model: None,
            caching: "kv_state",
            guarantee: "explicit",
            tokens: prefix.tokens,
            source: "engine",
            min_tokens: 0,
            reason: None,
            money: None,
        }]
    }

    fn implicit(&self) -> ImplicitRules {
        ImplicitRules {
            answers_bare: true,
            ..ImplicitRules::default()
        }
    }

    async fn count_tokens(
        &self,
        project: &str,
        messages: Vec<Message>,
        tools: Vec<Tool>,
        rendered_at: UnixMillis,
    ) -> Result<u64, ApiError> {
        check_text_only(&messages)?;
        let engine = self.engine.clone();
        let namespace = self.namespace(project).to_owned();
        run_sized(text_bytes(&messages), move || {
            let plan = engine
                .template()
                .plan(&[], &[], &messages, &tools, rendered_at)
                .map_err(api_error)?;
            let prefix = engine.prefix(&namespace, &plan.prefix).tokens();
            Ok(prefix + engine.tokenize(&plan.suffix.concat()).len() as u64)
        })
        .await
    }

    fn estimate_tokens(&self, messages: &[Message]) -> u32 {
        let tokens = messages
            .iter()
            .map(|message| estimate(&self.engine, message))
            .sum::<usize>();
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    async fn chat(&self, mut work: ChatWork) -> Result<Answer, ApiError> {
        if let Some(error) = work.composed.request.inexpressible() {
            return Err(error.clone());
        }
        check_text_only(&work.composed.new)?;
        let (plan, prefix) = self.plan(&mut work).await?;
        let request = generate_request(&mut work, prefix, plan.suffix)?;
        let is_forced = request.tools == ToolOutput::Forced;
        let mut generation = self.engine.generate(request).await.map_err(|error| {
            let is_grammar = matches!(error, EngineError::Grammar(_));
            let answer = api_error(error);
            if is_grammar && is_forced {
                answer.with_param("tools")
            } else {
                answer
            }
        })?;
        let (prompt_tokens, used, first_token_ms) = match generation.next().await {
            Some(Ok(GenerateEvent::Started {
                prompt_tokens,
                prefix,
                first_token_ms,
            })) => (prompt_tokens, prefix, first_token_ms),
            Some(Err(error)) => return Err(api_error(error)),
            Some(Ok(_)) | None => {
                tracing::error!("the engine's answer does not begin with its start");
                return Err(ApiError::internal());
            }
        };
        let ChatWork {
            prefix, composed, ..
        } = work;
        let receipt = prefix.map(|prefix| {
            receipt(
                prefix,
                &composed,
                used.as_ref(),
                plan.prefix_stable,
                first_token_ms,
            )
        });
        let usage = Usage {
            input_tokens: prompt_tokens,
            cached_input_tokens: receipt
                .as_ref()
                .map_or(0, |receipt| receipt.cached_tokens.min(prompt_tokens)),
            ..Usage::default()
        };
        Ok(Answer {
            usage,
            by: AnsweredBy::engine(),
            is_wire: false,
            events: events(generation, usage, receipt.clone()).boxed(),
            receipt,
        })
    }

    async fn complete(&self, work: TextWork) -> Result<Answer, ApiError> {
        completion::complete(&self.engine, work).await
    }
}

/// The engine's events as chat events; `usage` and `receipt` are completed by the engine's last one.
fn events(
    generation: Generation,
    usage: Usage,
    receipt: Option<Receipt>,
) -> impl stream::Stream<Item = Result<ChatEvent, ApiError>> {
    stream::unfold(Some((generation, usage, receipt)), |state| async move {
        let (mut generation, mut usage, mut receipt) = state?;
        loop {
            let event = match generation.next().await {
                Some(Ok(GenerateEvent::Started { .. })) => continue,
                Some(Ok(GenerateEvent::Delta { choice, delta })) => {
                    ChatEvent::Delta { choice, delta }
                }
                Some(Ok(GenerateEvent::Finish { choice, reason })) => {
                    ChatEvent::Finish { choice, reason }
                }
                Some(Ok(GenerateEvent::Done {
                    prompt_tokens,
                    output_tokens,
                })) => {
                    usage.input_tokens = prompt_tokens;
                    usage.output_tokens = output_tokens;
                    return Some((
                        Ok(ChatEvent::Done {
                            usage,
                            receipt: receipt.take(),
                        }),
                        None,
                    ));
                }
                Some(Err(error)) => return Some((Err(api_error(error)), None)),
                None => return Some((Err(api_error(EngineError::Stopped)), None)),
            };
            return Some((Ok(event), Some((generation, usage, receipt))));
        }
    })
}

fn generate_request(
    work: &mut ChatWork,
    prefix: Option<Arc<Prefix>>,
    suffix: Vec<String>,
) -> Result<GenerateRequest, ApiError> {
    let composed = &mut work.composed;
    let (tools, constraint) = output_shape(composed)?;
    let request = &mut composed.request;
    Ok(GenerateRequest {
        project: work.project.clone(),
        // Only contexts have a prefix here, and every context was held when it was made.
        prefix_held_before: prefix.is_some(),
        prefix,
        // One piece: nothing is kept of it, and each further piece would cost a small batch before the first token.
        suffix: vec![suffix.concat()],
        sampling: std::mem::take(&mut request.sampling),
        choices: request.choices.max(1),
        max_tokens: Some(work.max_tokens),
        stop: std::mem::take(&mut request.stop),
        constraint,
        logprobs: request.logprobs,
        tools,
    })
}

/// How the answer is constrained and read.
fn output_shape(composed: &ComposedRequest) -> Result<(ToolOutput, Option<Grammar>), ApiError> {
    let forced = match &composed.tool_choice {
        ToolChoice::Required => Some(None),
        ToolChoice::Named(name) => Some(Some(name.clone())),
        ToolChoice::Auto | ToolChoice::None => None,
    };
    if let Some(named) = forced {
        if composed.request.response_format != ResponseFormat::Text {
            return Err(ApiError::unsupported(
                "response_format",
                "can't be combined with a forced tool call",
            ));
        }
        let grammar = Grammar::ToolCalls {
            tools: composed.tools.clone(),
            named,
            parallel: composed.request.parallel_tool_calls.unwrap_or(true),
        };
        return Ok((ToolOutput::Forced, Some(grammar)));
    }
    match &composed.request.response_format {
        ResponseFormat::JsonObject => Ok((ToolOutput::None, Some(Grammar::JsonObject))),
        ResponseFormat::JsonSchema { schema, .. } => {
            Ok((ToolOutput::None, Some(Grammar::JsonSchema(schema.clone()))))
        }
        ResponseFormat::Text
            if composed.tools.is_empty() || composed.tool_choice == ToolChoice::None =>
        {
            Ok((ToolOutput::None, None))
        }
        ResponseFormat::Text => Ok((ToolOutput::Auto, None)),
    }
}

/// What the cache did, in the words of the contract.
fn receipt(
    prefix: ChatPrefix,
    composed: &ComposedRequest,
    used: Option<&PrefixUse>,
    prefix_stable: bool,
    first_token_ms: u64,
) -> Receipt {
    let mut receipt = Receipt {
        context_id: prefix.context.id,
        status: used.map_or(CacheStatus::Degraded, |used| used.status),
        reason: used.and_then(|used| used.reason).map(str::to_owned),
        tier: used.and_then(|used| used.tier),
        prefix_tokens: used.map_or(0, |used| used.tokens),
        cached_tokens: used.map_or(0, |used| used.cached_tokens.min(used.tokens)),
        written_tokens: 0,
        source: Source::Engine,
        first_token_ms: Some(first_token_ms),
        upstream: None,
        money: None,
        origin: None,
    };
    // Without a part that the engine could keep there is nothing stable either.
    if !prefix_stable || used.is_none() {
        receipt.status = CacheStatus::Degraded;
        receipt.reason = Some("template_not_prefix_stable".to_owned());
    } else if composed.rolling_trimmed {
        // By contract the turn that trims counts as computed afresh, even where the initial messages were at hand.
        receipt.status = CacheStatus::Rebuilt;
        receipt.reason = Some("truncated".to_owned());
        receipt.cached_tokens = 0;
        receipt.tier = None;
    }
    receipt
}

/// Tokens that each message of `history` adds to a prefix. The engine cuts a segment at every message where the
/// template lets it; where it does not, what the history takes is shared out by estimate.
fn history_tokens(engine: &Engine, prefix: &Prefix, history: &[Message]) -> Vec<u32> {
    let segments = prefix.segment_tokens();
    if segments.len() == history.len() + 1 {
        return segments[1..].to_vec();
    }
    history
        .iter()
        .map(|message| u32::try_from(estimate(engine, message)).unwrap_or(u32::MAX))
        .collect()
}

fn estimate(engine: &Engine, message: &Message) -> usize {
    let calls: usize = message
        .tool_calls
        .iter()
        .map(|call| engine.tokenize(&call.arguments).len() + MESSAGE_FRAME_TOKENS)
        .sum();
    engine.tokenize(&message.joined_text()).len() + calls + MESSAGE_FRAME_TOKENS
}

fn check_text_only(messages: &[Message]) -> Result<(), ApiError> {
    for (i, message) in messages.iter().enumerate() {
        if let Some(j) = message
            .content
            .iter()
            .position(|part| !matches!(part, ContentPart::Text { .. }))
        {
            return Err(ApiError::unsupported(
                &format!("messages[{i}].content[{j}]"),
                "is an image or a file, and this model reads text only",
            ));
        }
    }
    Ok(())
}

fn text_bytes(messages: &[Message]) -> usize {
    messages
        .iter()
        .flat_map(|message| &message.content)
        .map(|part| match part {
            ContentPart::Text { text } => text.len(),
            ContentPart::ImageUrl { url, .. } | ContentPart::File { url, .. } => url.len(),
        })
        .sum()
}

/// Runs `work` here when it is small, and off the async threads when it is not.
async fn run_sized<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if bytes <= INLINE_BYTES_MAX {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            tracing::error!(%error, "rendering a prompt failed");
            Err(ApiError::internal())
        })
}

fn api_error(error: EngineError) -> ApiError {
    match error {
        EngineError::QueueFull { retry_after } => ApiError::overloaded(retry_after),
        EngineError::WindowExceeded { needed, window } => {
            ApiError::out_of_context(needed, u32::try_from(window).unwrap_or(u32::MAX))
        }
        EngineError::Template(_) => {
            ApiError::new(ErrorKind::InvalidMessage, sentence(&error)).with_param("messages")
        }
        EngineError::Grammar(_) => ApiError::new(ErrorKind::InvalidParameter, sentence(&error))
            .with_param("response_format"),
        EngineError::Stopped => {
            let mut answer = ApiError::unavailable(
                "The engine is not running: it is starting or stopping. Try again.",
            );
            answer.retry_after = Some(Duration::from_secs(1));
            answer
        }
        EngineError::Model(_) | EngineError::Failed(_) => {
            tracing::error!(%error, "the engine failed");
            ApiError::internal()
        }
    }
}

/// An engine's error text as a sentence.
fn sentence(error: &EngineError) -> String {
    let text = error.to_string();
    let mut characters = text.chars();
    let first = characters
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default();
    format!("{first}{}.", characters.as_str().trim_end_matches('.'))
}
