//! What the dialects have in common whose messages are lists of blocks and whose markers are a budget: Anthropic's and
//! Bedrock's.

use serde::Serialize;

use crate::chat::{ChatRequest, Message, ReasoningLevel, Role, ToolChoice};
use crate::error::ApiError;
use crate::provider::{Caching, Marker, ModelRules, ReasoningControl};
use crate::upstream::{ChatCall, PrefixParts};

/// The longest answer that is asked for because of thinking, where the client names no limit, tokens: the least that a
/// model which takes budgets can write [?].
const THINKING_ANSWER_MAX: u32 = 32_000;
/// The least `top_p` that is allowed beside thinking.
const THINKING_TOP_P_MIN: f32 = 0.95;

/// The field `thinking`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ThinkingOut {
    Disabled,
    Adaptive,
    Enabled { budget_tokens: u32 },
}

/// What a Claude is told about reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Thinking {
    pub(super) thinking: Option<ThinkingOut>,
    /// `output_config.effort`.
    pub(super) effort: Option<&'static str>,
    /// The limit of the whole answer, where thinking demands another than the client's and the provider's.
    pub(super) max_tokens: Option<u32>,
}

impl Thinking {
    /// What the request's level becomes. Thinking is left out where the API would refuse it: beside a forced call, a
    /// temperature, `top_k` or a low `top_p`, where the answer's limit leaves no room, and where a result is to be
    /// answered whose call has no sealed thinking before it. `seal` is the dialect's word.
    pub(super) fn of(call: &ChatCall<'_>, seal: &str) -> Self {
        let request = &call.composed.request;
        let Some(level) = request.reasoning else {
            return Thinking::default();
        };
        let off = Thinking {
            thinking: Some(ThinkingOut::Disabled),
            ..Thinking::default()
        };
        let (min, max) = match call.rules.quirks.reasoning {
            ReasoningControl::Budget { min, max, .. } => (min, max),
            ReasoningControl::Effort(known) => {
                let effort = level.effort(known);
                return match level {
                    ReasoningLevel::Off => off,
                    _ if is_refused_beside(call) => Thinking {
                        effort,
                        ..Thinking::default()
                    },
                    _ => Thinking {
                        thinking: Some(ThinkingOut::Adaptive),
                        effort,
                        max_tokens: None,
                    },
                };
            }
            _ => return Thinking::default(),
        };
        if level == ReasoningLevel::Off {
            return off;
        }
        if is_refused_beside(call) || answers_unsealed_call(call, seal) {
            return Thinking::default();
        }
        let wanted = level.budget_tokens();
        let wanted = wanted.or(ReasoningLevel::Medium.budget_tokens());
        let wanted = wanted.unwrap_or(min).clamp(min, max);
        let (budget_tokens, max_tokens) = match call.max_tokens {
            // The limit counts thinking, and must be larger.
            Some(limit) if limit <= min => return Thinking::default(),
            Some(limit) => (wanted.min(limit - 1), None),
            None => {
                let answer = call.rules.quirks.max_tokens_default;
                let limit = wanted
                    .saturating_add(answer)
                    .min(THINKING_ANSWER_MAX.max(answer));
                (wanted.min(limit - answer / 2), Some(limit))
            }
        };
        Thinking {
            thinking: Some(ThinkingOut::Enabled { budget_tokens }),
            effort: None,
            max_tokens,
        }
    }
}

fn is_refused_beside(call: &ChatCall<'_>) -> bool {
    let composed = call.composed;
    let sampling = &composed.request.sampling;
    matches!(
        composed.tool_choice,
        ToolChoice::Required | ToolChoice::Named(_)
    ) || sampling.temperature.is_some_and(|value| value != 1.0)
        || sampling
            .top_p
            .is_some_and(|value| value < THINKING_TOP_P_MIN)
        || sampling.top_k.is_some()
}

/// Whether the last thing said is a tool's result, and the answer that called it has no thinking sealed here: other
/// providers and most clients keep none.
fn answers_unsealed_call(call: &ChatCall<'_>, seal: &str) -> bool {
    let composed = call.composed;
    let is_result = |message: &Message| message.role == Role::Tool;
    if !composed.new.last().is_some_and(is_result) {
        return false;
    }
    let before = composed.initial().iter().chain(composed.history());
    let answer = before
        .chain(&composed.new)
        .filter(|message| message.role == Role::Assistant)
        .last();
    answer.is_some_and(|answer| answer.seal_of(seal).is_none())
}

/// Where messages come from, for errors.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// The request's own messages from this index on.
    Request {
        /// Index of the first one in the request's `messages`.
        first: usize,
    },
    /// What the context remembers of earlier turns.
    History,
}

impl Origin {
    /// The message at `index` has a `field` that can't be sent; `problem` completes the sentence.
    pub(super) fn refuse(self, index: usize, field: &str, problem: &str) -> ApiError {
        match self {
            Origin::Request { first } => {
                let index = first + index;
                ApiError::unsupported(&format!("messages[{index}].{field}"), problem)
            }
            Origin::History => ApiError::unsupported(
                "context_id",
                format!("names a context that remembers a message whose `{field}` {problem}"),
            ),
        }
    }
}

/// The markers to set.
pub(super) struct MarkerPlan {
    /// Lifetime of the one at the end of the initial messages, seconds.
    pub(super) initial_seconds: Option<u32>,
    /// Lifetime of those in the history.
    pub(super) history_seconds: Option<u32>,
    /// How many messages of the history there were one turn earlier, if that end is marked.
    pub(super) previous: Option<usize>,
}

impl MarkerPlan {
    /// What `rules` and a budget of `markers_max` leave of what `parts` want; nothing where another kind of marker is
    /// wanted.
    pub(super) fn of(
        parts: &PrefixParts<'_>,
        rules: &ModelRules,
        marker: Marker,
        markers_max: u8,
    ) -> Self {
        let cache = &rules.cache;
        let mut left = cache.markers_max.min(markers_max);
        if cache.caching != Caching::Breakpoint || cache.marker != Some(marker) {
            left = 0;
        }
        let mut take = || {
            let is_left = left > 0;
            left = left.saturating_sub(1);
            is_left
        };
        let initial_seconds = parts.markers.initial_seconds.filter(|_| take());
        let history_seconds = parts
            .markers
            .history_seconds
            // Both APIs refuse lifetimes that grow towards the end of the prompt.
            .map(|seconds| initial_seconds.map_or(seconds, |initial| initial.min(seconds)))
            .filter(|_| !parts.history.is_empty() && take());
        let previous = Some(parts.previous_history).filter(|count| {
            history_seconds.is_some() && (1..parts.history.len()).contains(count) && take()
        });
        MarkerPlan {
            initial_seconds,
            history_seconds,
            previous,
        }
    }
}

/// Refuses what neither API can express.
pub(super) fn check(request: &ChatRequest) -> Result<(), ApiError> {
    let refuse = |field: &str, problem: &str| Err(ApiError::unsupported(field, problem));
    if request.choices > 1 {
        return refuse("n", "must be 1 for this model");
    }
    if request.logprobs.is_some() {
        return refuse("logprobs", "can't be had from this model's provider");
    }
    if !request.sampling.logit_bias.is_empty() {
        return refuse("logit_bias", "is not known to this model's provider");
    }
    if request
        .sampling
        .temperature
        .is_some_and(|value| value > 1.0)
    {
        return refuse("temperature", "must be from 0 to 1 for this model");
    }
    Ok(())
}
