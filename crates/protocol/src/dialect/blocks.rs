//! What the dialects have in common whose messages are lists of blocks and whose markers are a budget: Anthropic's and
//! Bedrock's.

use crate::chat::ChatRequest;
use crate::error::ApiError;
use crate::provider::{Caching, Marker, ModelRules};
use crate::upstream::PrefixParts;

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
