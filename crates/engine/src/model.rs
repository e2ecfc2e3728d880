//! What the worker needs of a model: decode a batch, read logits, copy, drop, save and load sequences.

use std::ops::Range;

use crate::Token;
use crate::error::EngineError;

/// A slot of the KV cache; sequences share the cells of tokens they have in common.
pub(crate) type Sequence = i32;

/// One token of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchToken {
    /// What to compute.
    pub(crate) token: Token,
    /// 0-based position in its sequence.
    pub(crate) position: u32,
    /// Where its KV cells go.
    pub(crate) sequence: Sequence,
    /// Whether its logits are wanted.
    pub(crate) logits: bool,
}

/// Facts about a loaded model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Hex digest of the model file.
    pub fingerprint: String,
    /// `general.architecture` of the file.
    pub architecture: String,
    /// `general.name` of the file.
    pub name: Option<String>,
    /// Weights.
    pub parameters: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Most tokens of prompt and answer together.
    pub window_tokens: u32,
    /// Tokens the model was trained for.
    pub trained_window_tokens: u32,
    /// Whether a sequence's state can be cut at any position (plain attention). Otherwise (recurrent, hybrid,
    /// sliding-window) state is kept whole, exactly at each prefix's end.
    pub cuttable: bool,
}

/// A model with its KV cache, owned by one thread.
pub(crate) trait Model {
    /// Computes a batch. Logits of the tokens that asked for them can be read until the next call.
    ///
    /// # Errors
    /// `Failed` when the KV cache has no room or llama.cpp reports a failure; the sequences of the batch are then in
    /// an unknown state and must be dropped.
    fn decode(&mut self, batch: &[BatchToken]) -> Result<(), EngineError>;

    /// Logits of the batch token at `index` (of the last `decode`), one per vocabulary entry.
    fn logits(&self, index: usize) -> &[f32];

    /// Makes `to` share `positions` of `from`. `to` must be empty there.
    fn copy(&mut self, from: Sequence, to: Sequence, positions: Range<u32>);

    /// Forgets a sequence; cells no other sequence shares become free.
    fn clear(&mut self, sequence: Sequence);

    /// Serialises `positions` of a sequence (all of it, for a model that is not cuttable). `scratch` is an empty
    /// sequence to work in and is empty again afterwards.
    ///
    /// # Errors
    /// `Failed` when llama.cpp writes another number of bytes than it announced.
    fn save(
        &mut self,
        sequence: Sequence,
        positions: Range<u32>,
        scratch: Sequence,
    ) -> Result<Vec<u8>, EngineError>;

    /// Appends state that [`Model::save`] made for `positions` to `sequence`, which holds exactly the positions before.
    /// `bytes` are authenticated by the caller. On failure the sequence is left empty.
    ///
    /// # Errors
    /// `Failed` when llama.cpp refuses the bytes or the KV cache has no room.
    fn load(
        &mut self,
        sequence: Sequence,
        positions: Range<u32>,
        bytes: &[u8],
        scratch: Sequence,
    ) -> Result<(), EngineError>;
}

/// The immutable part of a model that any thread may use.
pub(crate) trait Vocabulary: Send + Sync {
    /// Tokens of a text; special tokens in it are recognised. Nothing is added at either end.
    fn tokenize(&self, text: &str) -> Vec<Token>;

    /// The bytes a token stands for. Control tokens stand for nothing.
    fn piece(&self, token: Token) -> Vec<u8>;

    /// Whether the token ends the model's turn.
    fn is_end_of_generation(&self, token: Token) -> bool;
}
