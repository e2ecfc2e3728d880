//! Grammars enforced by llguidance.

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;

use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, SimpleVob, TokEnv};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use serde_json::Value;

use super::Constraint;
use crate::Token;
use crate::error::EngineError;

type ReadVocabulary = Box<dyn Fn() -> TokEnv + Send + Sync>;

/// Grammars over one model's vocabulary.
pub(super) struct Guidance {
    read_vocabulary: ReadVocabulary,
    parsers: OnceLock<Result<ParserFactory, EngineError>>,
}

impl Guidance {
    pub(super) fn new(read_vocabulary: ReadVocabulary) -> Self {
        Guidance {
            read_vocabulary,
            parsers: OnceLock::new(),
        }
    }

    pub(super) fn build(&self, mut schema: Value) -> Result<Box<dyn Constraint>, EngineError> {
        let parsers = self
            .parsers
            .get_or_init(|| self.parsers())
            .as_ref()
            .map_err(Clone::clone)?;
        // Overwrites what a client may have written under this key, which would set llguidance's options.
        json_options().apply_to(&mut schema);
        let parser = std::panic::catch_unwind(AssertUnwindSafe(|| {
            parsers.create_parser(TopLevelGrammar::from_json_schema(schema))
        }))
        .map_err(|_| EngineError::Grammar("the schema is too unusual to be compiled".to_owned()))?
        .map_err(|error| refused(&format!("{error:#}")))?;
        let mut matching = Matching {
            matcher: Matcher::new(Ok(parser)),
            failure: None,
        };
        // What makes the first mask fail or leaves it empty is a fault of the schema, and better said now.
        let first = matching.allowed();
        match (first, matching.failure.take()) {
            (Some(mask), _) if !mask.is_zero() => Ok(Box::new(matching)),
            (_, Some(failure)) => Err(failure),
            _ => Err(refused("the schema allows no answer at all")),
        }
    }

    fn parsers(&self) -> Result<ParserFactory, EngineError> {
        let vocabulary = (self.read_vocabulary)();
        let mut parsers = ParserFactory::new(
            &vocabulary,
            InferenceCapabilities::default(),
            &SlicedBiasComputer::json_slices(),
        )
        .map_err(|error| refused(&format!("{error:#}")))?;
        parsers.quiet();
        let limits = parsers.limits_mut();
        // A schema is compiled on the caller's thread and followed on the engine's: both are shared, so these bounds
        // are tighter than llguidance's own. They still admit a schema of a thousand properties.
        limits.initial_lexer_fuel = 200_000;
        limits.step_lexer_fuel = 50_000;
        limits.step_max_items = 20_000;
        limits.max_items_in_row = 8_000;
        limits.max_lexer_states = 20_000;
        limits.max_grammar_size = 50_000;
        // Verbose errors quote the answer so far, which must not reach a log.
        limits.verbose_errors = false;
        Ok(parsers)
    }
}

/// At most one space between JSON's tokens: enough for every common style but line breaks, and no room for the endless
/// whitespace that small models fall into.
fn json_options() -> JsonCompileOptions {
    JsonCompileOptions {
        whitespace_pattern: Some(" ".to_owned()),
        ..JsonCompileOptions::default()
    }
}

/// llguidance's own words, without the details in angle brackets that may follow (a backtrace, its internal state).
fn refused(error: &str) -> EngineError {
    if error.contains("oneOf constraints are not supported") {
        return EngineError::Grammar(
            "`oneOf` is supported only where no two alternatives overlap; use `anyOf`".to_owned(),
        );
    }
    if error.contains("NoExtensionBias") {
        return EngineError::Grammar("the schema allows no answer that ever ends".to_owned());
    }
    let words = error.split("\n<").next().unwrap_or_default().trim();
    EngineError::Grammar(words.chars().take(500).collect())
}

struct Matching {
    matcher: Matcher,
    /// Why no mask could be computed; told at the next `accept`, because a mask has no way to tell.
    failure: Option<EngineError>,
}

impl Matching {
    fn allowed(&mut self) -> Option<SimpleVob> {
        match self.matcher.compute_mask_or_eos() {
            Ok(mask) => Some(mask),
            Err(error) => {
                self.failure = Some(refused(&error.to_string()));
                None
            }
        }
    }
}

impl Constraint for Matching {
    fn mask(&mut self, logits: &mut [f32]) {
        let Some(allowed) = self.allowed() else {
            logits.fill(f32::NEG_INFINITY);
            return;
        };
        let words = allowed.as_slice();
        for (index, chunk) in logits.chunks_mut(32).enumerate() {
            match words.get(index).copied().unwrap_or(0) {
                0 => chunk.fill(f32::NEG_INFINITY),
                u32::MAX => {}
                word => {
                    for (bit, logit) in chunk.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self, token: Token) -> Result<(), EngineError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let token = token.cast_unsigned();
        if self.matcher.is_stopped() {
            let ends = self
                .matcher
                .tok_env()
                .is_ok_and(|vocabulary| vocabulary.tok_trie().eos_tokens().contains(&token));
            return if ends {
                Ok(())
            } else {
                Err(refused("the answer is complete"))
            };
        }
        self.matcher
            .consume_token(token)
            .map_err(|error| refused(&error.to_string()))
    }

    fn is_complete(&self) -> bool {
        self.failure.is_none() && !self.matcher.is_error() && self.matcher.is_stopped()
    }
}
