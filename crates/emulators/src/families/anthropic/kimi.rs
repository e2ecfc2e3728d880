//! Moonshot's Anthropic route: markers on blocks mean nothing, every prompt is cached in chunks of 256 tokens, and only
//! the lifetime can be chosen (facts 2.7).

use super::cache::{Limits, Mark, MarkerCache, Settled, Step, StepKind};
use super::prompt::Prompt;
use crate::blocks::{Block, hash_hex};

/// Granularity, tokens (facts 2.7, measured by others).
const CHUNK_TOKENS: u64 = 256;

/// Reads the longest run of chunks known and writes the others.
pub(super) fn settle(
    cache: &MarkerCache,
    salt: &str,
    prompt: &Prompt,
    ttl_seconds: u64,
    now_ms: i64,
    visible_ms: i64,
) -> Settled {
    let total = prompt.tokens();
    // Only a prompt of more than 256 tokens is cached.
    if total <= CHUNK_TOKENS {
        return Settled {
            uncached: total,
            ..Settled::default()
        };
    }
    let steps: Vec<Step> = tokens(prompt)
        .chunks_exact(usize::try_from(CHUNK_TOKENS).unwrap())
        .map(|chunk| Step {
            block: Block {
                content: chunk.concat(),
                tokens: CHUNK_TOKENS,
            },
            kind: StepKind::Single,
        })
        .collect();
    let marks: Vec<Mark> = (0..steps.len())
        .map(|step| Mark { step, ttl_seconds })
        .collect();
    let limits = Limits {
        tokens_min: 0,
        lookback_positions: 1,
        now_ms,
        visible_ms,
    };
    let mut settled = cache.settle(salt, &steps, &marks, limits);
    settled.uncached += total % CHUNK_TOKENS;
    settled
}

/// What stands for the tokens of the prompt: slices of each block's identity, as many as the block has tokens. A block
/// that continues another one has the same beginning, as far as its text is the same.
fn tokens(prompt: &Prompt) -> Vec<String> {
    let mut tokens = Vec::new();
    for step in &prompt.steps {
        let count = usize::try_from(step.block.tokens).unwrap();
        let bytes = step.block.content.as_bytes();
        let mut slices = bytes
            .chunks(4)
            .map(|slice| data_encoding::HEXLOWER.encode(slice));
        for index in 0..count {
            tokens.push(slices.next().unwrap_or_else(|| index.to_string()));
        }
        // What the slices don't reach is told apart by the last token of the block.
        if count > 0 {
            tokens
                .last_mut()
                .unwrap()
                .push_str(&hash_hex(&step.block.content));
        }
    }
    tokens
}
