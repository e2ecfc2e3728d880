//! The KV cache as sequences, with exact book-keeping of the cells they share.
//!
//! llama.cpp does not tell how many cells are in use, so each run of cells that was written together is a counted
//! block: copies of a sequence hold the same blocks, and a block's cells are free when the last holder has gone.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use crate::error::EngineError;
use crate::model::{BatchToken, Model, Sequence};

/// Tokens of one block. Shared by every sequence that holds its cells.
type Block = Rc<Cell<u32>>;

/// A model's sequences: which are free, and what the others hold.
pub(crate) struct Sequences<M> {
    model: M,
    free: Vec<Sequence>,
    held: HashMap<Sequence, Vec<Block>>,
    /// Sequences with a cell that does not stand at its own position.
    scattered: HashSet<Sequence>,
    scratch: Sequence,
    used_tokens: u32,
    tokens_max: u32,
}

impl<M: Model> Sequences<M> {
    /// `count` sequences for callers and one to work in, over a KV cache of `tokens_max` cells.
    pub(crate) fn new(model: M, count: u32, tokens_max: u32) -> Self {
        let scratch = count as Sequence;
        Sequences {
            model,
            free: (0..scratch).rev().collect(),
            held: HashMap::new(),
            scattered: HashSet::new(),
            scratch,
            used_tokens: 0,
            tokens_max,
        }
    }

    /// Cells in use.
    pub(crate) fn used_tokens(&self) -> u32 {
        self.used_tokens
    }

    /// Cells in all.
    pub(crate) fn tokens_max(&self) -> u32 {
        self.tokens_max
    }

    /// Cells left.
    pub(crate) fn free_tokens(&self) -> u32 {
        self.tokens_max - self.used_tokens
    }

    /// Sequences left.
    pub(crate) fn free_sequences(&self) -> usize {
        self.free.len()
    }

    /// Whether the sequence's cells stand at the beginning of the KV cache in order of position, as in a cold run on an
    /// idle engine. Attention adds up cells in the order they stand, so only then is its result the same to the bit.
    pub(crate) fn is_compact(&self, sequence: Sequence) -> bool {
        !self.scattered.contains(&sequence)
    }

    /// An empty sequence.
    pub(crate) fn take(&mut self) -> Option<Sequence> {
        let sequence = self.free.pop()?;
        self.held.insert(sequence, Vec::new());
        Some(sequence)
    }

    /// Gives a sequence back.
    pub(crate) fn release(&mut self, sequence: Sequence) {
        self.empty(sequence);
        self.free.push(sequence);
    }

    fn empty(&mut self, sequence: Sequence) {
        self.model.clear(sequence);
        for block in self.held.remove(&sequence).unwrap_or_default() {
            if Rc::strong_count(&block) == 1 {
                self.used_tokens -= block.get();
            }
        }
        self.scattered.remove(&sequence);
    }

    /// Makes the empty sequence `to` share the first `end` tokens of `from`. `end` is where a block ends.
    pub(crate) fn share(&mut self, from: Sequence, to: Sequence, end: u32) {
        self.model.copy(from, to, 0..end);
        let mut covered = 0;
        let blocks = self.held.get(&from).map(Vec::as_slice).unwrap_or_default();
        let shared: Vec<Block> = blocks
            .iter()
            .take_while(|block| {
                covered += block.get();
                covered <= end
            })
            .cloned()
            .collect();
        debug_assert_eq!(shared.iter().map(|block| block.get()).sum::<u32>(), end);
        self.held.insert(to, shared);
        if self.scattered.contains(&from) {
            self.scattered.insert(to);
        }
    }

    /// Begins a new block at the end of `sequence`, so that others may share what is there up to here.
    pub(crate) fn begin_block(&mut self, sequence: Sequence) {
        if let Some(blocks) = self.held.get_mut(&sequence) {
            blocks.push(Rc::new(Cell::new(0)));
        }
    }

    /// Computes a batch; every token extends the last block of its sequence.
    pub(crate) fn decode(&mut self, batch: &[BatchToken]) -> Result<(), EngineError> {
        self.model.decode(batch)?;
        for item in batch {
            self.note_place(item.sequence, item.position);
            if let Some(block) = self
                .held
                .get_mut(&item.sequence)
                .and_then(|blocks| blocks.last())
            {
                block.set(block.get() + 1);
                self.used_tokens += 1;
            }
        }
        Ok(())
    }

    /// Logits of a token of the last batch.
    pub(crate) fn logits(&self, index: usize) -> &[f32] {
        self.model.logits(index)
    }

    /// See [`Model::save`].
    pub(crate) fn save(
        &mut self,
        sequence: Sequence,
        positions: Range<u32>,
    ) -> Result<Vec<u8>, EngineError> {
        self.model.save(sequence, positions, self.scratch)
    }

    /// Puts saved state in place of what the sequence holds. On failure the sequence is empty.
    pub(crate) fn replace(
        &mut self,
        sequence: Sequence,
        end: u32,
        bytes: &[u8],
    ) -> Result<(), EngineError> {
        self.empty(sequence);
        self.held.insert(sequence, Vec::new());
        self.load(sequence, 0..end, bytes)
    }

    /// Appends saved state as one new block. On failure the sequence is empty.
    pub(crate) fn load(
        &mut self,
        sequence: Sequence,
        positions: Range<u32>,
        bytes: &[u8],
    ) -> Result<(), EngineError> {
        let start = positions.start;
        let tokens = positions.end - start;
        let loaded = self.model.load(sequence, positions, bytes, self.scratch);
        if loaded.is_ok() {
            self.note_place(sequence, start);
            self.begin_block(sequence);
            if let Some(block) = self
                .held
                .get_mut(&sequence)
                .and_then(|blocks| blocks.last())
            {
                block.set(tokens);
                self.used_tokens += tokens;
            }
        }
        loaded
    }

    /// llama.cpp takes the first free cells. They continue the sequence exactly when nothing else is in the cache.
    fn note_place(&mut self, sequence: Sequence, position: u32) {
        if self.used_tokens != position {
            self.scattered.insert(sequence);
        }
    }
}
