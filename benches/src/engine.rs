//! Documents and timed requests for the embedded engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_engine::tools::ToolOutput;
use holdfast_engine::{
    Engine, EngineOptions, GenerateEvent, GenerateRequest, Prefix, PrefixUse, Token,
};
use holdfast_protocol::chat::{Delta, Message, Role, Sampling};
use holdfast_protocol::usage::CacheTier;

use crate::Result;
use crate::prose::{QUESTIONS, text_of_size};

/// The project that all requests belong to.
pub const PROJECT: &str = "benchmark";

/// Texts of the tokens with which models end an answer. They are made unlikely, so that answers have the length asked
/// for; what is no single token of a model is left out.
const ENDS: [&str; 6] = [
    "<|im_end|>",
    "<|endoftext|>",
    "</s>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<|end|>",
];

/// A context of a known length.
#[derive(Debug, Clone)]
pub struct Document {
    /// One system message.
    pub messages: Vec<Message>,
    /// The message as the model's template writes it.
    pub segments: Vec<String>,
    /// The same as tokens.
    pub prefix: Arc<Prefix>,
}

/// A request's timing.
#[derive(Debug, Clone)]
pub struct Timed {
    /// When it was sent.
    pub began: Instant,
    /// When each piece of the answer came. Nearly always a token; the first of an answer without text is its end.
    pub arrivals: Vec<Instant>,
    /// How its prefix was found.
    pub prefix: Option<PrefixUse>,
    /// Prefix and question.
    pub prompt_tokens: u64,
}

impl Timed {
    /// Time to first token.
    pub fn first_token(&self) -> Duration {
        self.arrivals
            .first()
            .map_or(Duration::ZERO, |first| *first - self.began)
    }

    /// Fails unless the whole prefix was found in this tier, because the figure would say something else.
    ///
    /// # Errors
    /// It was not.
    pub fn expect_tier(self, tier: CacheTier) -> Result<Timed> {
        let found = self.prefix.as_ref().is_some_and(|prefix| {
            prefix.tier == Some(tier) && prefix.cached_tokens == prefix.tokens
        });
        if found {
            Ok(self)
        } else {
            Err(format!(
                "the prefix was to come from {tier:?}, but: {:?}",
                self.prefix
            )
            .into())
        }
    }
}

/// Starts an engine without blocking the runtime.
///
/// # Errors
/// The model can't be loaded.
pub async fn start(options: EngineOptions) -> Result<Engine> {
    Ok(tokio::task::spawn_blocking(move || Engine::start(options)).await??)
}

/// A document of exactly `tokens` tokens, as far as the tokenizer allows.
///
/// # Errors
/// The model's template can't write it.
pub fn document(engine: &Engine, tokens: usize) -> Result<Document> {
    let text = text_of_size(tokens, |text| {
        plan(engine, text).map_or(usize::MAX, |segments| {
            engine.prefix(PROJECT, &segments).tokens() as usize
        })
    });
    let segments = plan(engine, &text)?;
    let prefix = engine.prefix(PROJECT, &segments);
    if prefix.tokens() == 0 {
        return Err("the model's template gives no usable prefix".into());
    }
    Ok(Document {
        messages: vec![Message::text(Role::System, text)],
        segments,
        prefix,
    })
}

/// The prompt text that asks question number `index` about a document.
///
/// # Errors
/// The model's template can't write it.
pub fn question(engine: &Engine, document: &Document, index: usize) -> Result<Vec<String>> {
    let new = [Message::text(
        Role::User,
        QUESTIONS[index % QUESTIONS.len()],
    )];
    let plan = engine
        .template()
        .plan(&document.messages, &[], &new, &[], NOW)?;
    // As the gateway sends it: one piece, because each further one costs a small batch before the first token.
    Ok(vec![plan.suffix.concat()])
}

/// The tokens of several pieces of text, each tokenised by itself, as the engine does.
pub fn tokens(engine: &Engine, pieces: &[String]) -> Vec<Token> {
    pieces
        .iter()
        .flat_map(|piece| engine.tokenize(piece))
        .collect()
}

/// Asks and waits for the whole answer.
///
/// # Errors
/// The engine refuses or fails.
pub async fn ask(
    engine: &Engine,
    prefix: Option<&Arc<Prefix>>,
    suffix: Vec<String>,
    answer_tokens: u32,
) -> Result<Timed> {
    let request = GenerateRequest {
        project: PROJECT.to_owned(),
        prefix: prefix.cloned(),
        prefix_held_before: true,
        suffix,
        sampling: Sampling {
            temperature: Some(0.0),
            logit_bias: unlikely_ends(engine),
            ..Sampling::default()
        },
        choices: 1,
        max_tokens: Some(answer_tokens),
        stop: Vec::new(),
        constraint: None,
        logprobs: None,
        tools: ToolOutput::None,
    };
    let began = Instant::now();
    let mut generation = engine.generate(request).await?;
    let mut timed = Timed {
        began,
        arrivals: Vec::new(),
        prefix: None,
        prompt_tokens: 0,
    };
    while let Some(event) = generation.next().await {
        match event? {
            GenerateEvent::Started {
                prompt_tokens,
                prefix,
                ..
            } => {
                timed.prompt_tokens = prompt_tokens;
                timed.prefix = prefix;
            }
            GenerateEvent::Delta {
                delta: Delta::Text { .. },
                ..
            } => timed.arrivals.push(Instant::now()),
            GenerateEvent::Finish { .. } if timed.arrivals.is_empty() => {
                timed.arrivals.push(Instant::now());
            }
            _ => {}
        }
    }
    Ok(timed)
}

/// A fixed date, so that templates which print today's give the same prompt every day: 2026-01-01.
const NOW: i64 = 1_767_225_600_000;

fn plan(engine: &Engine, text: &str) -> Result<Vec<String>> {
    let initial = [Message::text(Role::System, text)];
    let plan = engine.template().plan_prefix(&initial, &[], &[], NOW)?;
    Ok(plan.segments)
}

fn unlikely_ends(engine: &Engine) -> Vec<(u32, f32)> {
    ENDS.iter()
        .filter_map(|text| match engine.tokenize(text).as_slice() {
            [token] => Some((u32::try_from(*token).ok()?, -100.0)),
            _ => None,
        })
        .collect()
}
