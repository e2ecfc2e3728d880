//! Chat Completions, with implicit caching only.

use serde_json::{Value, json};

use super::error::{invalid, missing, no_model, undecodable};
use super::{Ark, Caller, Checked, error, is_known_model, media, strict, thinking};
use crate::families::chat_wire::{self, Completion};
use crate::{Answer, Charge, Desk, RawRequest, Reply, hash_hex};

impl Ark {
    /// `POST /chat/completions`.
    pub(super) fn chat(&self, request: &RawRequest, caller: &Caller<'_>) -> Checked<Reply> {
        let Some(body) = request.json().filter(Value::is_object) else {
            return undecodable("The request body is not valid JSON.");
        };
        strict::check(&body, strict::CHAT)?;
        let model = body["model"].as_str().unwrap_or_default();
        if model.is_empty() {
            return missing("model");
        }
        if !is_known_model(model) {
            return Err(no_model(model));
        }
        let mode = thinking::mode(&body)?;
        thinking::check_effort(&body["reasoning_effort"], "reasoning_effort")?;
        check_messages(&body["messages"])?;
        let blocks = chat_wire::blocks(&body, &[]);
        let input_tokens = chat_wire::total_tokens(&blocks);
        let cached_tokens = self.implicit_hit(caller, model, &blocks);
        let forced = chat_wire::forced_tool(&body);
        let mut answer = caller.desk.script.take(input_tokens, forced.as_deref());
        if !thinking::is_on(&mode, &body["reasoning_effort"]) {
            answer.reasoning.clear();
        }
        let answer = chat_wire::limited(answer, chat_wire::output_limit(&body));
        let output = chat_wire::output_tokens(&answer) * chat_wire::choices(&body);
        let completion = completion(
            &body,
            caller.desk,
            answer,
            [input_tokens, cached_tokens, output],
        );
        Ok(completion
            .reply(chat_wire::wants_stream(&body))
            .failing_with(error::in_chat_stream())
            .charge(Charge {
                kind: "chat".to_owned(),
                account: caller.account.clone(),
                model: model.to_owned(),
                uncached_input: input_tokens - cached_tokens,
                cache_read: cached_tokens,
                output,
                ..Charge::default()
            }))
    }
}

/// A completion with Ark's usage, from input, cached and output tokens.
pub(super) fn completion(
    body: &Value,
    desk: &Desk<'_>,
    answer: Answer,
    counts: [u64; 3],
) -> Completion {
    let [input, cached, output] = counts;
    let usage = json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": input + output,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": chat_wire::reasoning_tokens(&answer)},
    });
    let id = format!(
        "{}{}",
        desk.now_ms,
        hash_hex(&format!("chat {}", desk.next_id()))
    );
    let mut completion = Completion::new(body, id, desk.now_ms, answer, usage);
    completion.usage_fault = desk.usage_fault;
    completion
        .extra
        .insert("service_tier".to_owned(), json!("default"));
    completion
}

/// Roles are known, and results follow the calls they answer.
pub(super) fn check_messages(messages: &Value) -> Checked<()> {
    let messages = match messages {
        Value::Array(messages) if !messages.is_empty() => messages,
        Value::Array(_) | Value::Null => return missing("messages"),
        _ => return invalid("messages", "expected a list of messages"),
    };
    let mut open: Vec<&str> = Vec::new();
    for message in messages {
        let role = message["role"].as_str().unwrap_or_default();
        if !["system", "user", "assistant", "tool"].contains(&role) {
            return invalid("messages.role", &format!("unknown role `{role}`"));
        }
        let calls = message["tool_calls"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        match &message["content"] {
            Value::String(_) => {}
            Value::Array(parts) => media::chat_parts(role, parts)?,
            Value::Null if role == "assistant" && !calls.is_empty() => {}
            _ => return missing("messages.content"),
        }
        if role == "tool" {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            let Some(index) = open.iter().position(|call| *call == id) else {
                return invalid(
                    "messages.tool_call_id",
                    &format!("no tool call with id `{id}` before it"),
                );
            };
            open.remove(index);
        } else {
            if !open.is_empty() {
                return invalid(
                    "messages",
                    "a message with tool_calls must be followed by tool messages",
                );
            }
            open = calls
                .iter()
                .filter_map(|call| call["id"].as_str())
                .collect();
        }
    }
    if !open.is_empty() {
        return invalid(
            "messages",
            "a message with tool_calls must be followed by tool messages",
        );
    }
    Ok(())
}
