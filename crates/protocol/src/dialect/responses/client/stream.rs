//! The events of a response.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::Surface;
use super::events::{Events, place};
use super::object::{End, ResponseHead, object};
use super::output::{
    Item, Output, Part, PartKind, is_cut, logprobs_body, seal, summary_part, whole_arguments,
};
use crate::chat::{ChatEvent, ChatHead, Delta, FinishReason, TokenLogprob};
use crate::error::ApiError;

/// A response that is being written.
#[derive(Debug)]
pub(super) struct Stream {
    head: ResponseHead,
    chat: ChatHead,
    out: Events,
    items: Vec<Growing>,
    finish: FinishReason,
}

/// An item; its place among the items is its `output_index`.
#[derive(Debug)]
struct Growing {
    output: Output,
    /// The call's number in the answer.
    call: Option<u32>,
    is_open: bool,
}

impl Stream {
    /// The stream and what it begins with.
    pub(super) fn begin(head: &ResponseHead, chat: &ChatHead) -> (Self, Bytes) {
        let mut stream = Stream {
            head: head.clone(),
            chat: chat.clone(),
            out: Events::default(),
            items: Vec::new(),
            finish: FinishReason::Stop,
        };
        let response = stream.object(&End::InProgress);
        stream
            .out
            .push("response.created", json!({"response": response}));
        let bytes = stream.in_progress();
        (stream, bytes)
    }

    /// That the answer is under way.
    pub(super) fn in_progress(&mut self) -> Bytes {
        let response = object(&self.head, &self.chat, Vec::new(), &End::InProgress);
        self.out
            .push("response.in_progress", json!({"response": response}));
        self.out.take()
    }

    pub(super) fn event(&mut self, event: &ChatEvent) -> Bytes {
        match event {
            ChatEvent::Delta { choice: 0, delta } => self.delta(delta),
            ChatEvent::Finish { choice: 0, reason } => self.finish = *reason,
            ChatEvent::Done { usage, receipt } => {
                self.finish_items();
                let end = End::Finished {
                    reason: self.finish,
                    usage,
                    receipt: receipt.as_ref(),
                };
                let name = match is_cut(self.finish) {
                    true => "response.incomplete",
                    false => "response.completed",
                };
                let response = self.object(&end);
                self.out.push(name, json!({"response": response}));
            }
            ChatEvent::Delta { .. } | ChatEvent::Finish { .. } | ChatEvent::Wire(_) => {}
        }
        self.out.take()
    }

    /// A failure; nothing follows.
    pub(super) fn failed(mut self, error: &ApiError) -> Bytes {
        let response = self.object(&End::Failed(error));
        self.out
            .push("response.failed", json!({"response": response}));
        self.out.take()
    }

    fn surface(&self) -> Surface {
        self.head.echo.surface
    }

    /// The response object as it is now.
    fn object(&self, end: &End<'_>) -> Value {
        let surface = self.surface();
        let last = self.items.len().saturating_sub(1);
        let items = self.items.iter().enumerate();
        let output = items.map(|(index, item)| {
            let is_cut = match end {
                End::Finished { reason, .. } => index == last && is_cut(*reason),
                End::InProgress | End::Failed(_) => item.is_open,
            };
            let status = if is_cut { "incomplete" } else { "completed" };
            item.output.value(status, surface)
        });
        object(&self.head, &self.chat, output.collect(), end)
    }

    fn delta(&mut self, delta: &Delta) {
        match delta {
            Delta::Text { text, logprobs } => {
                if !text.is_empty() || !logprobs.is_empty() {
                    self.text(PartKind::Text, text, logprobs);
                }
            }
            Delta::Refusal { text } => self.text(PartKind::refusal(self.surface()), text, &[]),
            Delta::Reasoning { text } => self.reasoning(text),
            Delta::ReasoningSignature { signature } => {
                let index = self.open_reasoning();
                if let Item::Reasoning { seal: known, .. } = &mut self.items[index].output.item {
                    *known = Some(seal(signature));
                }
            }
            Delta::ToolCallStart { index, id, name } => self.call(*index, id, name),
            Delta::ToolCallArguments { index, fragment } => self.arguments(*index, fragment),
            // Nothing in this dialect has a place for it.
            Delta::StopSequence { .. } => {}
        }
    }

    fn text(&mut self, kind: PartKind, text: &str, logprobs: &[TokenLogprob]) {
        let surface = self.surface();
        let index = self.open_message(kind);
        let Growing { output, .. } = &mut self.items[index];
        let Output { id, item } = output;
        let Item::Message { parts } = item else {
            return;
        };
        let content_index = parts.len() - 1;
        let name = match kind {
            PartKind::Text => "response.output_text.delta",
            PartKind::Refusal => "response.refusal.delta",
        };
        let mut fields = place(id, index);
        fields["content_index"] = content_index.into();
        fields["delta"] = text.into();
        if kind == PartKind::Text && surface == Surface::OpenAi {
            fields["logprobs"] = logprobs_body(logprobs, false);
        }
        self.out.push(name, fields);
        let part = &mut parts[content_index];
        part.text.push_str(text);
        part.logprobs.extend_from_slice(logprobs);
    }

    fn reasoning(&mut self, new: &str) {
        let index = self.open_reasoning();
        let Output { id, item } = &mut self.items[index].output;
        let Item::Reasoning { text, .. } = item else {
            return;
        };
        let place = || {
            let mut fields = place(id, index);
            fields["summary_index"] = 0.into();
            fields
        };
        if text.is_empty() {
            let mut fields = place();
            fields["part"] = summary_part("");
            self.out
                .push("response.reasoning_summary_part.added", fields);
        }
        let mut fields = place();
        fields["delta"] = new.into();
        self.out
            .push("response.reasoning_summary_text.delta", fields);
        text.push_str(new);
    }

    fn call(&mut self, number: u32, call_id: &str, name: &str) {
        self.close(|item| match &item.output.item {
            // A provider may mix the pieces of several calls, so one is over when its arguments are whole.
            Item::Call { arguments, .. } => serde_json::from_str::<IgnoredAny>(arguments).is_ok(),
            _ => true,
        });
        let item = Item::Call {
            call_id: call_id.to_owned(),
            name: name.to_owned(),
            arguments: String::new(),
        };
        self.add(item, Some(number));
    }

    fn arguments(&mut self, number: u32, fragment: &str) {
        let items = self.items.iter_mut().enumerate();
        let found = items
            .filter(|(_, item)| item.is_open && item.call == Some(number))
            .last();
        let Some((index, item)) = found.filter(|_| !fragment.is_empty()) else {
            return;
        };
        let Output { id, item } = &mut item.output;
        if let Item::Call { arguments, .. } = item {
            arguments.push_str(fragment);
            let mut fields = place(id, index);
            fields["delta"] = fragment.into();
            self.out
                .push("response.function_call_arguments.delta", fields);
        }
    }

    /// The open message, the last part of which is of `kind`.
    fn open_message(&mut self, kind: PartKind) -> usize {
        let surface = self.surface();
        let index = match self.last_open(|item| matches!(item, Item::Message { .. })) {
            Some(index) => index,
            None => {
                self.close(|_| true);
                self.add(Item::Message { parts: Vec::new() }, None)
            }
        };
        let Output { id, item } = &mut self.items[index].output;
        if let Item::Message { parts } = item
            && parts.last().is_none_or(|part| part.kind != kind)
        {
            if let Some(part) = parts.last() {
                self.out
                    .part_ends(place(id, index), parts.len() - 1, part, surface);
            }
            let part = Part::new(kind);
            let mut fields = place(id, index);
            fields["content_index"] = parts.len().into();
            fields["part"] = part.value(surface);
            self.out.push("response.content_part.added", fields);
            parts.push(part);
        }
        index
    }

    fn open_reasoning(&mut self) -> usize {
        match self.last_open(|item| matches!(item, Item::Reasoning { .. })) {
            Some(index) => index,
            None => {
                self.close(|_| true);
                let item = Item::Reasoning {
                    text: String::new(),
                    seal: None,
                };
                self.add(item, None)
            }
        }
    }

    fn last_open(&self, is_wanted: impl Fn(&Item) -> bool) -> Option<usize> {
        let index = self.items.len().checked_sub(1)?;
        let last = &self.items[index];
        (last.is_open && is_wanted(&last.output.item)).then_some(index)
    }

    fn add(&mut self, item: Item, call: Option<u32>) -> usize {
        let kind = std::mem::discriminant(&item);
        let known = self.items.iter();
        let number = known
            .filter(|known| std::mem::discriminant(&known.output.item) == kind)
            .count();
        let output = Output::new(&self.head.id, number, item);
        let index = self.items.len();
        let item = output.value("in_progress", self.surface());
        self.out.push(
            "response.output_item.added",
            json!({"output_index": index, "item": item}),
        );
        self.items.push(Growing {
            output,
            call,
            is_open: true,
        });
        index
    }

    /// Ends the open items that `is_over` names.
    fn close(&mut self, is_over: impl Fn(&Growing) -> bool) {
        for index in 0..self.items.len() {
            let item = &self.items[index];
            if item.is_open && is_over(item) {
                self.end_item(index, "completed");
            }
        }
    }

    /// Ends all items with the answer; an answer without any is an empty text.
    fn finish_items(&mut self) {
        if self.items.is_empty() {
            self.open_message(PartKind::Text);
        }
        let last = self.items.len() - 1;
        for index in 0..=last {
            if self.items[index].is_open {
                let status = match index == last && is_cut(self.finish) {
                    true => "incomplete",
                    false => "completed",
                };
                self.end_item(index, status);
            }
        }
    }

    fn end_item(&mut self, index: usize, status: &str) {
        let surface = self.surface();
        let Growing {
            output, is_open, ..
        } = &mut self.items[index];
        *is_open = false;
        let Output { id, item } = output;
        match item {
            Item::Reasoning { text, .. } if text.is_empty() => {}
            Item::Reasoning { text, .. } => {
                let mut fields = place(id, index);
                fields["summary_index"] = 0.into();
                fields["text"] = text.as_str().into();
                self.out
                    .push("response.reasoning_summary_text.done", fields);
                let mut fields = place(id, index);
                fields["summary_index"] = 0.into();
                fields["part"] = summary_part(text);
                self.out
                    .push("response.reasoning_summary_part.done", fields);
            }
            Item::Message { parts } => {
                if let Some(part) = parts.last() {
                    self.out
                        .part_ends(place(id, index), parts.len() - 1, part, surface);
                }
            }
            Item::Call { arguments, .. } => {
                let whole = whole_arguments(arguments);
                if whole != arguments {
                    let mut fields = place(id, index);
                    fields["delta"] = whole.into();
                    self.out
                        .push("response.function_call_arguments.delta", fields);
                    *arguments = whole.to_owned();
                }
                let mut fields = place(id, index);
                fields["arguments"] = arguments.as_str().into();
                self.out
                    .push("response.function_call_arguments.done", fields);
            }
        }
        let item = output.value(status, surface);
        self.out.push(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        );
    }
}
