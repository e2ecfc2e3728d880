//! Answers: from a computed prompt to the last token of the last choice.

use std::sync::Arc;

use holdfast_protocol::chat::{Delta, FinishReason, TokenLogprob};

use super::{GenerateWork, Worker};
use crate::Token;
use crate::constraint::Constraint;
use crate::engine::{GenerateEvent, PrefixUse};
use crate::error::EngineError;
use crate::model::{BatchToken, Model, Sequence};
use crate::sampling::Sampler;
use crate::text::TextStream;
use crate::tools::{ToolParser, call_ids};

/// A request being answered.
pub(super) struct Slot {
    pub(super) work: Box<GenerateWork>,
    pub(super) prefix_use: Option<PrefixUse>,
    /// Holds prefix and suffix until every choice has begun.
    pub(super) prompt: Option<Sequence>,
    pub(super) piece: usize,
    pub(super) offset: usize,
    pub(super) position: u32,
    /// Of the prompt's last token; every choice begins from them.
    pub(super) logits: Vec<f32>,
    pub(super) choices_begun: u32,
    pub(super) running: Vec<Choice>,
    pub(super) output_tokens: u64,
    pub(super) started: bool,
}

/// One answer of a request.
pub(super) struct Choice {
    pub(super) index: u32,
    pub(super) sequence: Sequence,
    pub(super) position: u32,
    pub(super) last: Token,
    pub(super) generated: u32,
    pub(super) sampler: Sampler,
    pub(super) constraint: Option<Box<dyn Constraint>>,
    pub(super) text: TextStream,
    pub(super) parser: ToolParser,
    /// Of tokens whose text is still held back.
    pub(super) logprobs: Vec<TokenLogprob>,
}

impl<M: Model> Worker<'_, M> {
    pub(super) fn slot_chunk(&mut self, slot: &mut Slot) -> Result<(), EngineError> {
        let Some(sequence) = slot.prompt else {
            return Ok(());
        };
        let piece = &slot.work.suffix[slot.piece];
        let rest = &piece[slot.offset..];
        let chunk = &rest[..rest.len().min(self.options.chunk_tokens as usize)];
        let piece_ends = chunk.len() == rest.len();
        let last = piece_ends && slot.piece + 1 == slot.work.suffix.len();
        self.compute(chunk, slot.position, sequence, last)?;
        slot.position += chunk.len() as u32;
        slot.offset += chunk.len();
        if last {
            slot.logits = self.sequences.logits(chunk.len() - 1).to_vec();
        }
        if piece_ends {
            slot.piece += 1;
            slot.offset = 0;
        }
        Ok(())
    }

    pub(super) fn slot_failed(&mut self, slot: Slot, error: EngineError) {
        tracing::error!(%error, "an answer could not be computed");
        // A receiver that has gone does not need the error.
        let _ = slot.work.events.send(Err(error));
        self.release_slot(slot);
    }

    pub(super) fn release_slot(&mut self, slot: Slot) {
        for choice in slot.running {
            self.sequences.release(choice.sequence);
        }
        if let Some(prompt) = slot.prompt {
            self.sequences.release(prompt);
        }
        if let Some(prefix) = &slot.work.prefix {
            self.cache.detach(prefix);
            self.unhold(Some(Arc::clone(prefix)));
        }
    }

    /// Starts the answers of requests whose prompt is computed, as far as slots and cells allow.
    pub(super) fn begin_choices(&mut self) {
        for index in 0..self.slots.len() {
            let Some(mut slot) = self.slots.remove(index) else {
                return;
            };
            while slot.prompt.is_some() && slot.piece == slot.work.suffix.len() {
                if !self.begin_choice(&mut slot) {
                    break;
                }
            }
            self.slots.insert(index, slot);
        }
    }

    fn begin_choice(&mut self, slot: &mut Slot) -> bool {
        let Some(prompt) = slot.prompt else {
            return false;
        };
        let total = slot.work.constraints.len() as u32;
        let index = slot.choices_begun;
        let answering: usize = self.slots.iter().map(|other| other.running.len()).sum();
        if index > 0 && answering + slot.running.len() >= self.options.slots as usize {
            return false;
        }
        let sequence = if index + 1 == total {
            slot.prompt = None;
            prompt
        } else {
            let needed = if index == 0 {
                0
            } else {
                slot.work.answer_tokens_max
            };
            let needed = needed.saturating_add(self.promised_tokens());
            if !self.cache.make_room(needed, 1, None, &mut self.sequences) && index > 0 {
                return false;
            }
            let Some(sequence) = self.sequences.take() else {
                return false;
            };
            self.sequences.share(prompt, sequence, slot.position);
            sequence
        };
        self.sequences.begin_block(sequence);
        if !slot.started {
            slot.started = true;
            // A receiver that has gone is noticed at the next turn.
            let _ = slot.work.events.send(Ok(GenerateEvent::Started {
                prompt_tokens: slot.work.prompt_tokens,
                prefix: slot.prefix_use.clone(),
                first_token_ms: u64::try_from(slot.work.received_at.elapsed().as_millis())
                    .unwrap_or(u64::MAX),
            }));
        }
        slot.choices_begun += 1;
        let call_seed = slot.work.random_seed.wrapping_add(u64::from(index) << 32);
        let mut choice = Choice {
            index,
            sequence,
            position: slot.position,
            last: 0,
            generated: 0,
            sampler: Sampler::new(&slot.work.sampling, slot.work.random_seed, index),
            constraint: slot.work.constraints[index as usize].take(),
            text: TextStream::new(slot.work.stop.clone()),
            parser: ToolParser::new(slot.work.tools, call_ids(call_seed))
                .thinking_already(slot.work.opens_thinking),
            logprobs: Vec::new(),
        };
        let mut logits = slot.logits.clone();
        match self.take_token(&slot.work, &mut choice, &mut logits) {
            Ok(None) => slot.running.push(choice),
            Ok(Some(reason)) => self.finish_choice(slot, choice, reason),
            Err(error) => {
                let _ = slot.work.events.send(Err(error));
                self.sequences.release(choice.sequence);
            }
        }
        true
    }

    /// One token of every running answer.
    pub(super) fn decode_step(&mut self) -> bool {
        let mut batch = Vec::new();
        for slot in &self.slots {
            for choice in &slot.running {
                batch.push(BatchToken {
                    token: choice.last,
                    position: choice.position,
                    sequence: choice.sequence,
                    logits: true,
                });
            }
        }
        if batch.is_empty() {
            return false;
        }
        if let Err(error) = self.sequences.decode(&batch) {
            for slot in std::mem::take(&mut self.slots) {
                if slot.running.is_empty() {
                    self.slots.push_back(slot);
                } else {
                    self.slot_failed(slot, error.clone());
                }
            }
            return false;
        }
        self.decode_tokens += batch.len() as u64;
        let mut row = 0;
        for mut slot in std::mem::take(&mut self.slots) {
            for mut choice in std::mem::take(&mut slot.running) {
                let mut logits = self.sequences.logits(row).to_vec();
                row += 1;
                choice.position += 1;
                match self.take_token(&slot.work, &mut choice, &mut logits) {
                    Ok(None) => slot.running.push(choice),
                    Ok(Some(reason)) => self.finish_choice(&mut slot, choice, reason),
                    Err(error) => {
                        let _ = slot.work.events.send(Err(error));
                        self.sequences.release(choice.sequence);
                    }
                }
            }
            self.slots.push_back(slot);
        }
        true
    }

    /// Chooses the next token and sends its text. `Some` when the answer has ended.
    fn take_token(
        &self,
        work: &GenerateWork,
        choice: &mut Choice,
        logits: &mut [f32],
    ) -> Result<Option<FinishReason>, EngineError> {
        let sampled =
            choice
                .sampler
                .sample(logits, choice.constraint.as_deref_mut(), work.logprobs);
        choice.last = sampled.token;
        if self.vocabulary.is_end_of_generation(sampled.token) {
            return Ok(Some(FinishReason::Stop));
        }
        if let Some(constraint) = &mut choice.constraint {
            constraint.accept(sampled.token)?;
        }
        choice.generated += 1;
        let piece = self.vocabulary.piece(sampled.token);
        if let Some(logprob) = sampled.logprob {
            choice
                .logprobs
                .push(self.describe_token(&piece, logprob, &sampled.top));
        }
        let pushed = choice.text.push(&piece);
        self.send_text(work, choice, &pushed.text);
        if pushed.stopped
            || choice
                .constraint
                .as_ref()
                .is_some_and(|constraint| constraint.is_complete())
        {
            return Ok(Some(FinishReason::Stop));
        }
        if choice.generated >= work.answer_tokens_max {
            return Ok(Some(FinishReason::Length));
        }
        Ok(None)
    }

    fn describe_token(&self, piece: &[u8], logprob: f32, top: &[(Token, f32)]) -> TokenLogprob {
        TokenLogprob {
            token: String::from_utf8_lossy(piece).into_owned(),
            bytes: piece.to_vec(),
            logprob,
            top: top
                .iter()
                .map(|(token, logprob)| {
                    let bytes = self.vocabulary.piece(*token);
                    (
                        String::from_utf8_lossy(&bytes).into_owned(),
                        bytes,
                        *logprob,
                    )
                })
                .collect(),
        }
    }

    fn send_text(&self, work: &GenerateWork, choice: &mut Choice, text: &str) {
        if text.is_empty() {
            return;
        }
        for delta in choice.parser.push(text) {
            send_delta(work, choice.index, delta, &mut choice.logprobs);
        }
    }

    fn finish_choice(&mut self, slot: &mut Slot, mut choice: Choice, reason: FinishReason) {
        let rest = choice.text.finish();
        self.send_text(&slot.work, &mut choice, &rest);
        let (deltas, called) = choice.parser.finish();
        for delta in deltas {
            send_delta(&slot.work, choice.index, delta, &mut choice.logprobs);
        }
        if !choice.logprobs.is_empty() {
            let text = String::new();
            send_delta(
                &slot.work,
                choice.index,
                Delta::Text {
                    text,
                    logprobs: Vec::new(),
                },
                &mut choice.logprobs,
            );
        }
        let reason = match reason {
            FinishReason::Stop if called => FinishReason::ToolCalls,
            other => other,
        };
        if let Some(text) = choice.text.met() {
            let delta = Delta::StopSequence {
                text: text.to_owned(),
            };
            send_delta(&slot.work, choice.index, delta, &mut choice.logprobs);
        }
        // A receiver that has gone is noticed at the next turn.
        let _ = slot.work.events.send(Ok(GenerateEvent::Finish {
            choice: choice.index,
            reason,
        }));
        slot.output_tokens += u64::from(choice.generated);
        self.sequences.release(choice.sequence);
    }

    pub(super) fn finish_slots(&mut self) {
        for slot in std::mem::take(&mut self.slots) {
            let all_begun = slot.started && slot.prompt.is_none();
            if all_begun && slot.running.is_empty() {
                let _ = slot.work.events.send(Ok(GenerateEvent::Done {
                    prompt_tokens: slot.work.prompt_tokens,
                    output_tokens: slot.output_tokens,
                }));
                self.release_slot(slot);
            } else {
                self.slots.push_back(slot);
            }
        }
    }
}

fn send_delta(work: &GenerateWork, choice: u32, delta: Delta, logprobs: &mut Vec<TokenLogprob>) {
    let delta = match delta {
        Delta::Text { text, .. } => Delta::Text {
            text,
            logprobs: std::mem::take(logprobs),
        },
        other => other,
    };
    // A receiver that has gone is noticed at the next turn.
    let _ = work.events.send(Ok(GenerateEvent::Delta { choice, delta }));
}
