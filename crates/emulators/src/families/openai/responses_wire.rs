//! Output items and the events of a Responses stream.

use bytes::Bytes;
use serde_json::{Value, json};

use super::reasoning;
use crate::families::chat_wire;
use crate::{Answer, hash_hex, sse_event};

/// What is shown of the reasoning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) summary: bool,
    /// The organization that gets it sealed, too.
    pub(super) sealed_for: Option<&'a str>,
}

/// The output items of an answer.
pub(super) fn output(answer: &Answer, id: &str, shown: Shown<'_>) -> Vec<Value> {
    let item_id = |prefix: &str, number: usize| {
        format!("{prefix}_{}", hash_hex(&format!("{id} {prefix} {number}")))
    };
    // What a limit or a filter ended is the last item.
    let status = |is_last: bool| {
        if is_last && (answer.cut || answer.filtered) {
            "incomplete"
        } else {
            "completed"
        }
    };
    let mut items = Vec::new();
    if !answer.reasoning.is_empty() {
        let summary = if shown.summary {
            json!([{"type": "summary_text", "text": answer.reasoning}])
        } else {
            json!([])
        };
        let id = item_id("rs", 0);
        let mut item = json!({"id": id, "type": "reasoning", "summary": summary});
        if let Some(account) = shown.sealed_for {
            item["encrypted_content"] = json!(reasoning::seal(account, &id));
        }
        items.push(item);
    }
    let mut content = Vec::new();
    if !answer.text.is_empty() {
        content.push(
            json!({"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}),
        );
    }
    if !answer.refusal.is_empty() {
        content.push(json!({"type": "refusal", "refusal": answer.refusal}));
    }
    if !content.is_empty() {
        items.push(json!({
            "id": item_id("msg", 0),
            "type": "message",
            "status": status(answer.tool_calls.is_empty()),
            "role": "assistant",
            "content": content,
        }));
    }
    for (number, call) in answer.tool_calls.iter().enumerate() {
        items.push(json!({
            "id": item_id("fc", number),
            "type": "function_call",
            "status": "completed",
            "call_id": item_id("call", number),
            "name": call.name,
            "arguments": call.arguments,
        }));
    }
    items
}

struct Events {
    frames: Vec<Bytes>,
}

impl Events {
    fn push(&mut self, kind: &str, fields: Value) {
        let mut event = json!({"type": kind, "sequence_number": self.frames.len()});
        for (name, value) in fields.as_object().unwrap() {
            event[name] = value.clone();
        }
        self.frames.push(sse_event(kind, &event));
    }
}

/// The events that lead to `response`. With `repeats_usage` the first ones have its usage already.
pub(super) fn frames(response: &Value, repeats_usage: bool) -> Vec<Bytes> {
    let mut events = Events { frames: Vec::new() };
    let mut begun = response.clone();
    begun["status"] = json!("in_progress");
    begun["incomplete_details"] = Value::Null;
    begun["output"] = json!([]);
    if !repeats_usage {
        begun["usage"] = Value::Null;
    }
    events.push("response.created", json!({"response": begun}));
    events.push("response.in_progress", json!({"response": begun}));
    for (index, item) in response["output"].as_array().unwrap().iter().enumerate() {
        match item["type"].as_str() {
            Some("message") => message(&mut events, index, item),
            Some("function_call") => call(&mut events, index, item),
            _ => thought(&mut events, index, item),
        }
        events.push(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        );
    }
    let status = response["status"].as_str().unwrap();
    events.push(&format!("response.{status}"), json!({"response": response}));
    events.frames
}

fn added(events: &mut Events, index: usize, item: &Value, empty: &str, value: Value) {
    let mut begun = item.clone();
    if begun.get("status").is_some() {
        begun["status"] = json!("in_progress");
    }
    begun[empty] = value;
    // Only the finished item has the whole of it.
    if let Some(seal) = item["encrypted_content"].as_str() {
        begun["encrypted_content"] = json!(chat_wire::halves(seal).0);
    }
    events.push(
        "response.output_item.added",
        json!({"output_index": index, "item": begun}),
    );
}

fn message(events: &mut Events, index: usize, item: &Value) {
    added(events, index, item, "content", json!([]));
    for (number, part) in item["content"].as_array().unwrap().iter().enumerate() {
        content(events, index, item, number, part);
    }
}

/// The events of one part: a text, or a refusal, which has events of its own.
fn content(events: &mut Events, index: usize, item: &Value, number: usize, part: &Value) {
    let (kind, field) = match part["type"].as_str() {
        Some("refusal") => ("response.refusal", "refusal"),
        _ => ("response.output_text", "text"),
    };
    let at = |fields: Value| {
        let mut all =
            json!({"item_id": item["id"], "output_index": index, "content_index": number});
        for (name, value) in fields.as_object().unwrap() {
            all[name] = value.clone();
        }
        if field == "text" && all.get("part").is_none() {
            all["logprobs"] = json!([]);
        }
        all
    };
    let text = part[field].as_str().unwrap();
    let mut begun = part.clone();
    begun[field] = json!("");
    events.push("response.content_part.added", at(json!({"part": begun})));
    for piece in Answer::text(text).pieces() {
        events.push(&format!("{kind}.delta"), at(json!({"delta": piece})));
    }
    events.push(&format!("{kind}.done"), at(json!({field: text})));
    events.push("response.content_part.done", at(json!({"part": part})));
}

fn call(events: &mut Events, index: usize, item: &Value) {
    added(events, index, item, "arguments", json!(""));
    let arguments = item["arguments"].as_str().unwrap();
    let (first, second) = chat_wire::halves(arguments);
    for delta in [first, second] {
        let fields = json!({"item_id": item["id"], "output_index": index, "delta": delta});
        events.push("response.function_call_arguments.delta", fields);
    }
    let fields = json!({"item_id": item["id"], "output_index": index, "name": item["name"], "arguments": arguments});
    events.push("response.function_call_arguments.done", fields);
}

fn thought(events: &mut Events, index: usize, item: &Value) {
    added(events, index, item, "summary", json!([]));
    let Some(part) = item["summary"].get(0) else {
        return;
    };
    let text = part["text"].as_str().unwrap();
    let at = |name: &str, value: Value| json!({"item_id": item["id"], "output_index": index, "summary_index": 0, name: value});
    let begun = json!({"type": "summary_text", "text": ""});
    events.push("response.reasoning_summary_part.added", at("part", begun));
    for piece in Answer::text(text).pieces() {
        events.push(
            "response.reasoning_summary_text.delta",
            at("delta", json!(piece)),
        );
    }
    events.push(
        "response.reasoning_summary_text.done",
        at("text", json!(text)),
    );
    events.push(
        "response.reasoning_summary_part.done",
        at("part", part.clone()),
    );
}

/// The event with which a Responses stream reports an error.
pub(super) fn failure() -> Bytes {
    sse_event(
        "error",
        &json!({
            "type": "error",
            "code": "server_error",
            "message": "The server had an error while processing your request. Sorry about that!",
            "param": null,
            "sequence_number": 0,
        }),
    )
}
