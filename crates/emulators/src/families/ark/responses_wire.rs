//! What a response looks like, as one object and as a stream of events.

use bytes::Bytes;
use serde_json::{Value, json};

use super::error;
use crate::families::chat_wire;
use crate::{Answer, Reply, UsageFault, hash_hex, sse_event};

/// The items of an answer: thinking, text, calls.
pub(super) fn output_items(answer: &Answer, id: &str) -> Vec<Value> {
    let item_id = |kind: &str, number: usize| {
        format!("{kind}_{}", hash_hex(&format!("{id} {kind} {number}")))
    };
    let mut items = Vec::new();
    if !answer.reasoning.is_empty() {
        items.push(json!({
            "id": item_id("rs", 0),
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": answer.reasoning}],
            "status": "completed",
        }));
    }
    if !answer.text.is_empty() {
        items.push(json!({
            "id": item_id("msg", 0),
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": answer.text}],
            "status": if answer.cut || answer.filtered { "incomplete" } else { "completed" },
        }));
    }
    for (number, call) in answer.tool_calls.iter().enumerate() {
        items.push(json!({
            "id": item_id("fc", number),
            "type": "function_call",
            "call_id": item_id("call", number),
            "name": call.name,
            "arguments": call.arguments,
            "status": "completed",
        }));
    }
    items
}

/// What of an answer the next turn reads: not the thinking.
pub(super) fn input_of_output(output: &[Value]) -> Vec<Value> {
    output
        .iter()
        .filter(|item| item["type"] != "reasoning")
        .cloned()
        .collect()
}

/// A response and all that its rendering needs.
pub(super) struct Rendering<'a> {
    /// Its first state: no output and no usage yet.
    pub(super) object: Value,
    pub(super) answer: &'a Answer,
    pub(super) output: Vec<Value>,
    pub(super) usage: Value,
    pub(super) fault: Option<UsageFault>,
}

impl Rendering<'_> {
    /// Its last state.
    pub(super) fn finished(&self) -> Value {
        let mut object = self.object.clone();
        object["output"] = Value::Array(self.output.clone());
        object["status"] = json!("completed");
        if self.answer.cut || self.answer.filtered {
            let reason = if self.answer.filtered {
                "content_filter"
            } else {
                "length"
            };
            object["status"] = json!("incomplete");
            object["incomplete_details"] = json!({"reason": reason});
        }
        match self.fault {
            Some(UsageFault::Missing) => {}
            Some(UsageFault::Impossible) => object["usage"] = chat_wire::impossible(&self.usage),
            Some(UsageFault::Repeated) | None => object["usage"] = self.usage.clone(),
        }
        object
    }

    pub(super) fn stream(&self) -> Reply {
        let mut events = Events::default();
        let mut object = self.object.clone();
        if self.fault == Some(UsageFault::Repeated) {
            let mut usage = self.usage.clone();
            usage["output_tokens"] = json!(0);
            usage["output_tokens_details"]["reasoning_tokens"] = json!(0);
            usage["total_tokens"] = usage["input_tokens"].clone();
            object["usage"] = usage;
        }
        events.push("response.created", json!({"response": object}));
        events.push("response.in_progress", json!({"response": object}));
        for (index, item) in self.output.iter().enumerate() {
            match item["type"].as_str() {
                Some("reasoning") => reasoning_events(&mut events, index, item),
                Some("message") => message_events(&mut events, index, item),
                _ => call_events(&mut events, index, item),
            }
        }
        let object = self.finished();
        let last = if object["status"] == "incomplete" {
            "response.incomplete"
        } else {
            "response.completed"
        };
        events.push(last, json!({"response": object}));
        Reply::frames(events.frames).failing_with(error::in_responses_stream())
    }
}

#[derive(Default)]
struct Events {
    frames: Vec<Bytes>,
}

impl Events {
    fn push(&mut self, name: &str, fields: Value) {
        let mut data = json!({"type": name, "sequence_number": self.frames.len()});
        for (name, value) in fields.as_object().into_iter().flatten() {
            data[name] = value.clone();
        }
        self.frames.push(sse_event(name, &data));
    }
}

fn reasoning_events(events: &mut Events, index: usize, item: &Value) {
    let text = item["summary"][0]["text"].as_str().unwrap_or_default();
    let place = |more: Value| placed(index, item, Some("summary_index"), more);
    let mut started = item.clone();
    started["summary"] = json!([]);
    started["status"] = json!("in_progress");
    let part = |text: &str| json!({"type": "summary_text", "text": text});
    events.push(
        "response.output_item.added",
        json!({"output_index": index, "item": started}),
    );
    events.push(
        "response.reasoning_summary_part.added",
        place(json!({"part": part("")})),
    );
    for piece in Answer::text(text).pieces() {
        events.push(
            "response.reasoning_summary_text.delta",
            place(json!({"delta": piece})),
        );
    }
    events.push(
        "response.reasoning_summary_text.done",
        place(json!({"text": text})),
    );
    events.push(
        "response.reasoning_summary_part.done",
        place(json!({"part": part(text)})),
    );
    events.push(
        "response.output_item.done",
        json!({"output_index": index, "item": item}),
    );
}

fn message_events(events: &mut Events, index: usize, item: &Value) {
    let text = item["content"][0]["text"].as_str().unwrap_or_default();
    let place = |more: Value| placed(index, item, Some("content_index"), more);
    let mut started = item.clone();
    started["content"] = json!([]);
    started["status"] = json!("in_progress");
    let part = |text: &str| json!({"type": "output_text", "text": text});
    events.push(
        "response.output_item.added",
        json!({"output_index": index, "item": started}),
    );
    events.push(
        "response.content_part.added",
        place(json!({"part": part("")})),
    );
    for piece in Answer::text(text).pieces() {
        events.push("response.output_text.delta", place(json!({"delta": piece})));
    }
    events.push("response.output_text.done", place(json!({"text": text})));
    events.push(
        "response.content_part.done",
        place(json!({"part": part(text)})),
    );
    events.push(
        "response.output_item.done",
        json!({"output_index": index, "item": item}),
    );
}

fn call_events(events: &mut Events, index: usize, item: &Value) {
    let arguments = item["arguments"].as_str().unwrap_or_default();
    let place = |more: Value| placed(index, item, None, more);
    let mut started = item.clone();
    started["arguments"] = json!("");
    started["status"] = json!("in_progress");
    events.push(
        "response.output_item.added",
        json!({"output_index": index, "item": started}),
    );
    let (first, second) = chat_wire::halves(arguments);
    for part in [first, second] {
        events.push(
            "response.function_call_arguments.delta",
            place(json!({"delta": part})),
        );
    }
    events.push(
        "response.function_call_arguments.done",
        place(json!({"arguments": arguments})),
    );
    events.push(
        "response.output_item.done",
        json!({"output_index": index, "item": item}),
    );
}

/// `more`, with where in the response it belongs.
fn placed(index: usize, item: &Value, part_index: Option<&str>, more: Value) -> Value {
    let mut fields = json!({"item_id": item["id"], "output_index": index});
    if let Some(name) = part_index {
        fields[name] = json!(0);
    }
    for (name, value) in more.as_object().into_iter().flatten() {
        fields[name] = value.clone();
    }
    fields
}
