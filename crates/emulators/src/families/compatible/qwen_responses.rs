//! DashScope's Responses route (facts 2.6): stored responses for seven days, the session cache by a header, flat errors.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::chain::Lookup;
use super::envelope::Envelope;
use super::markers::{Marker, MarkerLookup};
use super::prompt::Prompt;
use super::qwen::{EXPLICIT_MIN, FIVE_MINUTES, Qwen, explicit_details, has_tiers, salt};
use super::{Hit, begins_ms};
use crate::families::chat_wire;
use crate::{Answer, Charge, Desk, RawRequest, Reply, hash_hex};

/// Response ids live seven days.
const STORED_MS: i64 = 7 * 24 * 3600 * 1000;

#[derive(Debug, Clone)]
struct Stored {
    account: String,
    expires_ms: i64,
    /// All messages up to its answer.
    messages: Vec<Value>,
    value: Value,
}

/// The stored responses.
#[derive(Debug, Default)]
pub(super) struct Responses {
    stored: Mutex<HashMap<String, Stored>>,
}

/// An answer that is on its way.
struct Made {
    value: Value,
    answer: Answer,
}

impl Responses {
    pub(super) fn clear(&self) {
        self.stored.lock().unwrap().clear();
    }

    pub(super) fn answer(
        &self,
        qwen: &Qwen,
        request: &RawRequest,
        path: &str,
        desk: &Desk<'_>,
        account: &str,
    ) -> Reply {
        let id = path.strip_prefix("/responses/");
        match (request.method.as_str(), id) {
            ("POST", None) => self.create(qwen, request, desk, account),
            ("GET", Some(id)) => match self.find(id, account, desk.now_ms) {
                Some(stored) => Reply::json(200, &stored.value),
                None => Envelope::DashScopeFlat.reply(
                    404,
                    &format!("Not found response: {id}"),
                    "NotFound",
                ),
            },
            _ => Envelope::DashScopeFlat.reply(405, "Method Not Allowed", "Method Not Allowed"),
        }
    }

    fn find(&self, id: &str, account: &str, now_ms: i64) -> Option<Stored> {
        let stored = self.stored.lock().unwrap();
        let found = stored.get(id)?;
        (found.account == account && found.expires_ms > now_ms).then(|| found.clone())
    }

    fn create(&self, qwen: &Qwen, request: &RawRequest, desk: &Desk<'_>, account: &str) -> Reply {
        let body = request.json().unwrap_or_default();
        let is_stream = chat_wire::wants_stream(&body);
        let refuse = |message: &str| refusal(is_stream, message);
        let Some(model) = body["model"].as_str().filter(|model| !model.is_empty()) else {
            return refuse("Required parameter: model");
        };
        let mut messages = Vec::new();
        if let Some(id) = body["previous_response_id"].as_str() {
            if !body["conversation"].is_null() {
                return refuse("previous_response_id and conversation can not be used together");
            }
            match self.find(id, account, desk.now_ms) {
                Some(stored) => messages = stored.messages,
                None => return refuse(&format!("Not found previous_response_id: {id}")),
            }
        }
        let new = match &body["input"] {
            Value::String(text) => vec![json!({"role": "user", "content": text})],
            Value::Array(items) => items.iter().map(message).collect(),
            _ => Vec::new(),
        };
        if new.is_empty() {
            return refuse("Required parameter: input");
        }
        messages.extend(new);
        let mut rendered = messages.clone();
        if let Some(text) = body["instructions"].as_str() {
            rendered.insert(0, json!({"role": "system", "content": text}));
        }
        let mut prompt = Prompt::read(&json!({"tools": body["tools"], "messages": rendered}), &[]);
        prompt.merge_system();
        let input = prompt.tokens();
        let answer = chat_wire::limited(
            desk.script
                .take(input, chat_wire::forced_tool(&body).as_deref()),
            chat_wire::output_limit(&body),
        );
        let is_session = request.header("x-dashscope-session-cache") == Some("enable");
        let hit = meet(qwen, &prompt, &salt(account, model), is_session, desk);
        let output = chat_wire::output_tokens(&answer);
        let id = format!(
            "resp_{}",
            hash_hex(&format!("qwen response {}", desk.next_id()))
        );
        let value = response(
            &body,
            &id,
            desk,
            &answer,
            usage(&hit, model, input, output, &answer),
        );
        messages.push(answer_message(&id, &answer));
        if body["store"] != false {
            let stored = Stored {
                account: account.to_owned(),
                expires_ms: desk.now_ms + STORED_MS,
                messages,
                value: value.clone(),
            };
            self.stored.lock().unwrap().insert(id, stored);
        }
        let charge = Charge {
            kind: "chat".to_owned(),
            account: account.to_owned(),
            model: model.to_owned(),
            uncached_input: input - hit.read - hit.written(),
            cache_read: hit.read,
            cache_write: hit.write,
            output,
            ..Charge::default()
        };
        let reply = if is_stream {
            let frames = frames(&Made { value, answer });
            Reply::frames(frames).failing_with(failed("InternalError", "Internal server error."))
        } else {
            Reply::json(200, &value)
        };
        reply.charge(charge)
    }
}

/// In a stream an error is a `response.failed` in an answer with status 200.
fn refusal(is_stream: bool, message: &str) -> Reply {
    if is_stream {
        Reply::frames(vec![failed("InvalidParameter", message)])
    } else {
        Envelope::DashScopeFlat.reply(400, message, "InvalidParameter")
    }
}

fn failed(code: &str, message: &str) -> Bytes {
    let response =
        json!({"status": "failed", "error": {"code": code, "message": message}, "output": []});
    event(1, "response.failed", json!({"response": response}))
}

/// With the session header an entry ends with the input, as if marked there; any earlier end is found again.
fn meet(qwen: &Qwen, prompt: &Prompt, salt: &str, is_session: bool, desk: &Desk<'_>) -> Hit {
    let mut caches = qwen.caches.lock().unwrap();
    if !is_session {
        let done = caches.implicit.meet(&Lookup {
            now_ms: desk.now_ms,
            visible_ms: begins_ms(desk),
            salt,
            prompt: &prompt.token_ids(),
            tail: &[],
            is_missed: false,
            idle_ms: None,
        });
        return Hit::read(done.read);
    }
    let positions: Vec<bool> = prompt.parts.iter().map(|part| part.ends_message).collect();
    let done = caches.explicit.meet(&MarkerLookup {
        now_ms: desk.now_ms,
        visible_ms: begins_ms(desk),
        salt: &format!("session\n{salt}"),
        prompt,
        markers: &[Marker {
            part: prompt.parts.len() - 1,
            ttl_seconds: FIVE_MINUTES,
        }],
        positions: &positions,
        lookback: usize::MAX,
        min: EXPLICIT_MIN,
        is_missed: false,
    });
    Hit {
        read: done.read,
        write: done.write,
        is_explicit: true,
        ..Hit::default()
    }
}

/// An input item as a chat message.
fn message(item: &Value) -> Value {
    let mut message = item.clone();
    let role = match item["type"].as_str() {
        Some("function_call") => "assistant",
        Some("function_call_output") => "tool",
        _ => item["role"].as_str().unwrap_or("user"),
    };
    message["role"] = json!(role);
    if message["content"].is_null() {
        message["content"] = json!([item]);
    }
    for part in message["content"].as_array_mut().into_iter().flatten() {
        if part["text"].is_string() {
            *part = json!({"type": "text", "text": part["text"]});
        }
    }
    let fields = message.as_object_mut().unwrap();
    fields.retain(|name, _| name == "role" || name == "content");
    message
}

fn answer_message(id: &str, answer: &Answer) -> Value {
    let mut parts = vec![json!({"type": "text", "text": answer.text})];
    parts.extend(
        output(id, answer)
            .into_iter()
            .filter(|item| item["type"] == "function_call"),
    );
    json!({"role": "assistant", "content": parts})
}

fn usage(hit: &Hit, model: &str, input: u64, output: u64, answer: &Answer) -> Value {
    let mut usage = json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": hit.read},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": chat_wire::reasoning_tokens(answer)},
        "total_tokens": input + output,
    });
    if hit.is_explicit {
        // The only place that names what was written [?].
        usage["x_details"] = json!([{
            "input_tokens": input,
            "output_tokens": output,
            "total_tokens": input + output,
            "prompt_tokens_details": explicit_details(hit, has_tiers(model)),
            "x_billing_type": "response_api",
        }]);
    }
    usage
}

fn output(id: &str, answer: &Answer) -> Vec<Value> {
    let mut items = Vec::new();
    if !answer.reasoning.is_empty() {
        items.push(json!({
            "type": "reasoning",
            "id": format!("rs_{id}"),
            "summary": [{"type": "summary_text", "text": answer.reasoning}],
        }));
    }
    if !answer.text.is_empty() || answer.tool_calls.is_empty() {
        items.push(json!({
            "type": "message",
            "id": format!("msg_{id}"),
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": answer.text, "annotations": []}],
        }));
    }
    for (number, call) in answer.tool_calls.iter().enumerate() {
        items.push(json!({
            "type": "function_call",
            "id": format!("fc_{id}_{number}"),
            "call_id": format!("call_{id}_{number}"),
            "status": "completed",
            "name": call.name,
            "arguments": call.arguments,
        }));
    }
    items
}

/// The response object; fields of the request that DashScope doesn't know come back unchanged.
fn response(body: &Value, id: &str, desk: &Desk<'_>, answer: &Answer, usage: Value) -> Value {
    let mut value: Map<String, Value> = body.as_object().cloned().unwrap_or_default();
    value.retain(|name, _| !["input", "stream"].contains(&name.as_str()));
    let is_cut = answer.cut;
    let own = json!({
        "id": id,
        "object": "response",
        "created_at": desk.now_ms / 1000,
        "status": if is_cut { "incomplete" } else { "completed" },
        "incomplete_details": if is_cut { json!({"reason": "max_output_tokens"}) } else { Value::Null },
        "error": null,
        "model": body["model"],
        "output": output(id, answer),
        "previous_response_id": body["previous_response_id"],
        "store": body["store"] != false,
    });
    value.extend(own.as_object().cloned().unwrap_or_default());
    match desk.usage_fault {
        Some(crate::UsageFault::Missing) => {}
        Some(crate::UsageFault::Impossible) => {
            value.insert("usage".to_owned(), chat_wire::impossible(&usage));
        }
        _ => {
            value.insert("usage".to_owned(), usage);
        }
    }
    Value::Object(value)
}

fn frames(made: &Made) -> Vec<Bytes> {
    let mut frames = Vec::new();
    let mut push = |name: &str, data: Value| {
        let number = frames.len() as u64;
        frames.push(event(number, name, data));
    };
    let mut begun = made.value.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    push("response.created", json!({"response": begun}));
    push("response.in_progress", json!({"response": begun}));
    for (index, item) in made.value["output"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let mut empty = item.clone();
        empty["status"] = json!("in_progress");
        let at = json!({"output_index": index, "item_id": item["id"]});
        let with = |fields: Value| {
            let mut data = at.clone();
            data.as_object_mut()
                .unwrap()
                .extend(fields.as_object().cloned().unwrap_or_default());
            data
        };
        match item["type"].as_str() {
            Some("message") => {
                empty["content"] = json!([]);
                push(
                    "response.output_item.added",
                    json!({"output_index": index, "item": empty}),
                );
                let part = json!({"type": "output_text", "text": "", "annotations": []});
                push(
                    "response.content_part.added",
                    with(json!({"content_index": 0, "part": part})),
                );
                for piece in made.answer.pieces() {
                    push(
                        "response.output_text.delta",
                        with(json!({"content_index": 0, "delta": piece})),
                    );
                }
                let text = json!({"content_index": 0, "text": made.answer.text});
                push("response.output_text.done", with(text));
                let part = json!({"content_index": 0, "part": item["content"][0]});
                push("response.content_part.done", with(part));
            }
            Some("function_call") => {
                empty["arguments"] = json!("");
                push(
                    "response.output_item.added",
                    json!({"output_index": index, "item": empty}),
                );
                let (first, second) =
                    chat_wire::halves(item["arguments"].as_str().unwrap_or_default());
                for part in [first, second] {
                    push(
                        "response.function_call_arguments.delta",
                        with(json!({"delta": part})),
                    );
                }
                let done = json!({"arguments": item["arguments"]});
                push("response.function_call_arguments.done", with(done));
            }
            _ => {
                empty["summary"] = json!([]);
                push(
                    "response.output_item.added",
                    json!({"output_index": index, "item": empty}),
                );
                for piece in Answer::text(made.answer.reasoning.as_str()).pieces() {
                    let delta = json!({"summary_index": 0, "delta": piece});
                    push("response.reasoning_summary_text.delta", with(delta));
                }
                let text = json!({"summary_index": 0, "text": made.answer.reasoning});
                push("response.reasoning_summary_text.done", with(text));
            }
        }
        push(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        );
    }
    let last = if made.value["status"] == "incomplete" {
        "response.incomplete"
    } else {
        "response.completed"
    };
    push(last, json!({"response": made.value}));
    frames
}

/// No space after the colons, and a comment with the status in every event.
fn event(number: u64, name: &str, mut data: Value) -> Bytes {
    data["type"] = json!(name);
    data["sequence_number"] = json!(number);
    format!(
        "id:{}\nevent:{name}\n:HTTP_STATUS/200\ndata:{data}\n\n",
        number + 1
    )
    .into()
}
