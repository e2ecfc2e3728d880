//! Folds a stream of [`ChatEvent`]s into one [`ChatResponse`].
//!
//! Answers that are not streamed are collected with it, and a streamed session turn is collected beside the stream to
//! be committed.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::chat::{
    ChatEvent, ChatHead, ChatResponse, Choice, ContentPart, Delta, FinishReason, Message,
    ReasoningSignature, Role, TokenLogprob, ToolCall,
};
use crate::error::ApiError;
use crate::usage::{Receipt, Usage};

/// An answer that is still growing.
#[derive(Debug)]
pub struct ResponseBuilder {
    head: ChatHead,
    choices: BTreeMap<u32, GrowingChoice>,
    done: Option<(Usage, Option<Receipt>)>,
}

#[derive(Debug, Default)]
struct GrowingChoice {
    text: String,
    reasoning: String,
    reasoning_signature: Option<ReasoningSignature>,
    /// Whether it has several seals, each of which is for a part of the reasoning: none is for all of it.
    is_sealed_in_pieces: bool,
    refusal: String,
    stop_sequence: Option<String>,
    tool_calls: BTreeMap<u32, ToolCall>,
    logprobs: Vec<TokenLogprob>,
    finish_reason: Option<FinishReason>,
}

impl ResponseBuilder {
    /// Nothing yet.
    pub fn new(head: ChatHead) -> Self {
        ResponseBuilder {
            head,
            choices: BTreeMap::new(),
            done: None,
        }
    }

    /// Adds what `event` brings.
    pub fn event(&mut self, event: &ChatEvent) {
        match event {
            ChatEvent::Delta { choice, delta } => {
                self.choices.entry(*choice).or_default().grow(delta);
            }
            ChatEvent::Finish { choice, reason } => {
                self.choices.entry(*choice).or_default().finish_reason = Some(*reason);
            }
            ChatEvent::Done { usage, receipt } => {
                self.done = Some((*usage, receipt.clone()));
            }
            ChatEvent::Wire(_) => {}
        }
    }

    /// The choice as it was when its `Finish` came; `None` before that.
    pub fn finished_choice(&self, index: u32) -> Option<Choice> {
        self.choices.get(&index)?.finished(index)
    }

    /// The whole answer.
    ///
    /// # Errors
    /// The stream ended before `Done`, or a choice before its `Finish`.
    pub fn finish(self) -> Result<ChatResponse, ApiError> {
        let (usage, receipt) = self.done.ok_or_else(ApiError::internal)?;
        let choices = self
            .choices
            .iter()
            .map(|(index, choice)| choice.finished(*index).ok_or_else(ApiError::internal))
            .collect::<Result<_, _>>()?;
        Ok(ChatResponse {
            id: self.head.id,
            created: self.head.created,
            model: self.head.model,
            choices,
            usage,
            receipt,
        })
    }
}

impl GrowingChoice {
    fn grow(&mut self, delta: &Delta) {
        match delta {
            Delta::Text { text, logprobs } => {
                self.text.push_str(text);
                self.logprobs.extend_from_slice(logprobs);
            }
            Delta::Reasoning { text } => {
                self.reasoning.push_str(text);
                self.is_sealed_in_pieces |= self.reasoning_signature.is_some();
            }
            Delta::ReasoningSignature { signature } => {
                self.is_sealed_in_pieces |= self.reasoning_signature.is_some();
                self.reasoning_signature = Some(signature.clone());
            }
            Delta::Refusal { text } => self.refusal.push_str(text),
            Delta::StopSequence { text } => self.stop_sequence = Some(text.clone()),
            Delta::ToolCallStart { index, id, name } => {
                let call = ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    arguments: String::new(),
                };
                self.tool_calls.insert(*index, call);
            }
            Delta::ToolCallArguments { index, fragment } => {
                // A fragment of a call that never started has no name to be called by.
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.arguments.push_str(fragment);
                }
            }
        }
    }

    fn finished(&self, index: u32) -> Option<Choice> {
        let finish_reason = self.finish_reason?;
        let is_answered = !self.tool_calls.is_empty() || !self.refusal.is_empty();
        let content = if self.text.is_empty() && is_answered {
            Vec::new()
        } else {
            vec![ContentPart::Text {
                text: self.text.clone(),
            }]
        };
        Some(Choice {
            index,
            message: Message {
                role: Role::Assistant,
                content,
                name: None,
                tool_calls: self.tool_calls.values().cloned().collect(),
                tool_call_id: None,
                reasoning: (!self.reasoning.is_empty()).then(|| self.reasoning.clone()),
                reasoning_signature: self
                    .reasoning_signature
                    .clone()
                    .filter(|_| !self.is_sealed_in_pieces),
                refusal: (!self.refusal.is_empty()).then(|| self.refusal.clone()),
            },
            finish_reason,
            logprobs: (!self.logprobs.is_empty()).then(|| self.logprobs.clone()),
            stop_sequence: self.stop_sequence.clone(),
        })
    }
}
