//! A deterministic toy model for tests: its next token depends on every token before it, so a state that is lost,
//! mixed up or cut wrongly changes the answer. It answers with sixteen letters and ends its turn.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use crate::Token;
use crate::error::EngineError;
use crate::model::{BatchToken, Model, ModelInfo, Sequence, Vocabulary};

const TURN_START: Token = 256;
const TURN_END: Token = 257;
const VOCABULARY_SIZE: usize = 258;

/// Letters of an answer before the turn ends.
const ANSWER_TOKENS: usize = 16;

/// Bytes are tokens; `<|im_start|>` and `<|im_end|>` are one token each.
pub(crate) struct TinyVocabulary;

/// The model; its "KV cache" is the list of tokens of each sequence.
pub(crate) struct TinyModel {
    sequences: HashMap<Sequence, Vec<Token>>,
    logits: Vec<Vec<f32>>,
}

pub(crate) fn info(window_tokens: Option<u32>) -> ModelInfo {
    ModelInfo {
        fingerprint: "tiny".into(),
        architecture: "tiny".into(),
        name: Some("tiny".into()),
        parameters: 0,
        file_bytes: 0,
        window_tokens: window_tokens.unwrap_or(8192).min(8192),
        trained_window_tokens: 8192,
        cuttable: true,
    }
}

impl TinyModel {
    pub(crate) fn new() -> Self {
        TinyModel {
            sequences: HashMap::new(),
            logits: Vec::new(),
        }
    }
}

impl Vocabulary for TinyVocabulary {
    fn tokenize(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.as_bytes().first() {
            if let Some(after) = rest.strip_prefix("<|im_start|>") {
                tokens.push(TURN_START);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("<|im_end|>") {
                tokens.push(TURN_END);
                rest = after;
            } else {
                tokens.push(Token::from(*first));
                let width = rest.chars().next().map_or(1, char::len_utf8);
                tokens.extend(
                    rest.as_bytes()[1..width]
                        .iter()
                        .map(|byte| Token::from(*byte)),
                );
                rest = &rest[width..];
            }
        }
        tokens
    }

    fn piece(&self, token: Token) -> Vec<u8> {
        u8::try_from(token)
            .map(|byte| vec![byte])
            .unwrap_or_default()
    }

    fn is_end_of_generation(&self, token: Token) -> bool {
        token == TURN_END
    }
}

fn next_logits(tokens: &[Token]) -> Vec<f32> {
    let mut hasher = DefaultHasher::new();
    tokens.hash(&mut hasher);
    let hash = hasher.finish();
    let mut logits = vec![-20.0; VOCABULARY_SIZE];
    let letter = |n: u64| usize::from(b'a') + (n % 26) as usize;
    logits[letter(hash)] = 10.0;
    logits[letter(hash >> 8)] += 29.0;
    let since_turn = tokens
        .iter()
        .rev()
        .take_while(|token| **token != TURN_START)
        .count();
    // "assistant\n" is ten tokens.
    if since_turn >= ANSWER_TOKENS + 10 {
        logits[TURN_END as usize] = 30.0;
    }
    logits
}

impl Model for TinyModel {
    fn decode(&mut self, batch: &[BatchToken]) -> Result<(), EngineError> {
        self.logits.clear();
        for item in batch {
            let sequence = self.sequences.entry(item.sequence).or_default();
            if item.position as usize != sequence.len() {
                return Err(EngineError::Failed(format!(
                    "position {} of a sequence that holds {} tokens",
                    item.position,
                    sequence.len()
                )));
            }
            sequence.push(item.token);
            let logits = if item.logits {
                next_logits(sequence)
            } else {
                Vec::new()
            };
            self.logits.push(logits);
        }
        Ok(())
    }

    fn logits(&self, index: usize) -> &[f32] {
        &self.logits[index]
    }

    fn copy(&mut self, from: Sequence, to: Sequence, positions: Range<u32>) {
        let source = self.sequences.get(&from).cloned().unwrap_or_default();
        let end = (positions.end as usize).min(source.len());
        let target = self.sequences.entry(to).or_default();
        debug_assert_eq!(
            target.len(),
            positions.start as usize,
            "the target ends where the copy begins"
        );
        target.extend_from_slice(&source[positions.start as usize..end]);
    }

    fn clear(&mut self, sequence: Sequence) {
        self.sequences.remove(&sequence);
    }

    fn save(
        &mut self,
        sequence: Sequence,
        positions: Range<u32>,
        _scratch: Sequence,
    ) -> Result<Vec<u8>, EngineError> {
        let tokens = self
            .sequences
            .get(&sequence)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let part = tokens
            .get(positions.start as usize..positions.end as usize)
            .ok_or_else(|| EngineError::Failed("the sequence is shorter than its prefix".into()))?;
        Ok(part.iter().flat_map(|token| token.to_le_bytes()).collect())
    }

    fn load(
        &mut self,
        sequence: Sequence,
        positions: Range<u32>,
        bytes: &[u8],
        _scratch: Sequence,
    ) -> Result<(), EngineError> {
        let tokens: Vec<Token> = bytes
            .chunks_exact(4)
            .map(|chunk| Token::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]))
            .collect();
        let target = self.sequences.entry(sequence).or_default();
        if target.len() != positions.start as usize || tokens.len() != positions.len() {
            self.sequences.remove(&sequence);
            return Err(EngineError::Failed("a saved state was refused".into()));
        }
        target.extend(tokens);
        Ok(())
    }
}
