//! The Responses API with explicit caching: a prefix that is created, or a session that is chained.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::error::{handle_not_found, invalid, missing, no_model, undecodable};
use super::media::MEDIA_TOKENS;
use super::responses_wire::{Rendering, input_of_output, output_items};
use super::{
    Ark, Caller, Checked, caches_explicitly, caches_implicitly, is_known_model, media, strict,
    thinking,
};
use crate::families::chat_wire;
use crate::{Answer, Block, Charge, RawRequest, Reply, hash_hex, tokens};

/// How long a response is kept where it doesn't say, seconds (facts 2.5).
const EXPIRE_SECONDS_DEFAULT: i64 = 259_200;
/// The longest it may be kept, seconds (facts 2.5).
const EXPIRE_SECONDS_MAX: i64 = 604_800;
const HOUR_MS: i64 = 3_600_000;

/// A response that was kept.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    account: String,
    model: String,
    created_ms: i64,
    expires_ms: i64,
    /// Whether its tokens are in an explicit cache.
    is_cached: bool,
    thinking: String,
    /// Declared in the first turn of a cached chain; they stay with it.
    tools: Value,
    /// What a next turn continues: the whole conversation in the order it is read.
    blocks: Vec<Block>,
    /// Calls that the next turn must answer.
    open_calls: Vec<String>,
    /// As it is given back.
    object: Value,
    /// What this turn wrote to the cache, for storage.
    stored_tokens: u64,
    settled_hours: i64,
}

/// All responses that are kept.
#[derive(Debug, Default)]
pub(super) struct Responses {
    kept: HashMap<String, Stored>,
    evicted: Vec<Stored>,
    unbilled: Vec<Charge>,
}

impl Responses {
    /// Ends what has expired.
    pub(super) fn sweep(&mut self, now_ms: i64) {
        let expired: Vec<String> = self
            .kept
            .iter()
            .filter(|(_, stored)| stored.expires_ms <= now_ms)
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            self.end(&id, now_ms);
        }
        for mut stored in std::mem::take(&mut self.evicted) {
            self.unbilled.extend(storage_charge(&mut stored, now_ms));
        }
    }

    pub(super) fn evict_all(&mut self) {
        self.evicted
            .extend(std::mem::take(&mut self.kept).into_values());
    }

    pub(super) fn storage_charges(&mut self, now_ms: i64, is_settlement: bool) -> Vec<Charge> {
        self.sweep(now_ms);
        if is_settlement {
            for stored in self.kept.values_mut() {
                self.unbilled.extend(storage_charge(stored, now_ms));
            }
        }
        std::mem::take(&mut self.unbilled)
    }

    fn end(&mut self, id: &str, now_ms: i64) {
        if let Some(mut stored) = self.kept.remove(id) {
            self.unbilled.extend(storage_charge(&mut stored, now_ms));
        }
    }

    fn get(&self, account: &str, id: &str) -> Option<&Stored> {
        self.kept.get(id).filter(|stored| stored.account == account)
    }
}

/// Storage is charged from the creation on, in hours begun.
fn storage_charge(stored: &mut Stored, now_ms: i64) -> Option<Charge> {
    let held_ms = now_ms.min(stored.expires_ms) - stored.created_ms;
    let hours = held_ms.div_euclid(HOUR_MS) + i64::from(held_ms.rem_euclid(HOUR_MS) > 0);
    let new_ms = u64::try_from((hours - stored.settled_hours) * HOUR_MS).unwrap_or(0);
    if !stored.is_cached || new_ms == 0 || stored.stored_tokens == 0 {
        return None;
    }
    stored.settled_hours = hours;
    Some(Charge {
        kind: "storage".to_owned(),
        account: stored.account.clone(),
        model: stored.model.clone(),
        token_milliseconds: stored.stored_tokens * new_ms,
        reported: true,
        ..Charge::default()
    })
}

/// What the caching fields of a request say.
struct Caching {
    is_enabled: bool,
    is_prefix: bool,
}

impl Ark {
    /// `POST /responses`.
    pub(super) fn respond(&self, request: &RawRequest, caller: &Caller<'_>) -> Checked<Reply> {
        let Some(body) = request.json().filter(Value::is_object) else {
            return undecodable("The request body is not valid JSON.");
        };
        strict::check(&body, strict::RESPONSES)?;
        let model = body["model"].as_str().unwrap_or_default();
        if model.is_empty() {
            return missing("model");
        }
        if !is_known_model(model) {
            return Err(no_model(model));
        }
        let items = input_items(&body["input"])?;
        let caching = caching(&body, model)?;
        let expires_ms = expiry(&body, caller.desk.now_ms)?;
        let is_stored = is_stored(&body, &caching)?;
        let mode = thinking::mode(&body)?;
        thinking::check_effort(&body["reasoning"]["effort"], "reasoning.effort")?;
        let previous = match body["previous_response_id"].as_str() {
            None => None,
            Some(id) => {
                let state = self.state.lock().unwrap();
                let stored = state.responses.get(&caller.account, id).cloned();
                Some(stored.ok_or_else(|| {
                    handle_not_found(
                        self.not_found_status,
                        "previous_response_id",
                        "PreviousResponse",
                        id,
                    )
                })?)
            }
        };
        if let Some(previous) = &previous {
            check_chain(&body, &caching, &mode, previous, model)?;
        }
        check_calls(&items, previous.as_ref())?;

        let carried_tools = previous
            .as_ref()
            .filter(|previous| previous.is_cached && caching.is_enabled);
        let tools = match carried_tools {
            Some(previous) => previous.tools.clone(),
            None => body["tools"].clone(),
        };
        // In a cached chain tools are a part of the first turn. Otherwise they come with each request, as instructions
        // do, and aren't kept.
        let earlier: &[Block] = previous.as_ref().map_or(&[], |previous| &previous.blocks);
        let mut own: Vec<Block> = Vec::new();
        let declared = chat_wire::tool_blocks(&body);
        let mut unkept: Vec<Block> = Vec::new();
        if caching.is_enabled {
            own.extend(declared);
        } else {
            unkept.extend(declared);
        }
        if let Some(instructions) = body["instructions"].as_str() {
            unkept.push(Block::sized(
                format!("instructions\n{instructions}"),
                instructions,
            ));
        }
        own.extend(items.iter().map(item_block));
        let prompt: Vec<Block> = unkept.iter().chain(earlier).chain(&own).cloned().collect();
        let input_tokens = chat_wire::total_tokens(&prompt);
        if caching.is_prefix && input_tokens < self.prefix_tokens_min {
            return invalid(
                "caching.prefix",
                &format!(
                    "prefix cache cannot be created: {input_tokens} input tokens are less than the minimum of {}",
                    self.prefix_tokens_min
                ),
            );
        }
        let cached_tokens = match &previous {
            _ if !caching.is_enabled => self.implicit_hit(caller, model, &prompt),
            Some(previous) if previous.is_cached => chat_wire::total_tokens(earlier),
            _ => 0,
        };

        let answer = if caching.is_prefix {
            Answer::default()
        } else {
            let forced = chat_wire::forced_tool(
                &json!({"tools": tools, "tool_choice": body["tool_choice"]}),
            );
            let mut answer = caller.desk.script.take(input_tokens, forced.as_deref());
            if !thinking::is_on(&mode, &body["reasoning"]["effort"]) {
                answer.reasoning.clear();
            }
            chat_wire::limited(answer, body["max_output_tokens"].as_u64())
        };
        let id = format!(
            "resp_{}{}",
            caller.desk.now_ms,
            hash_hex(&format!("response {}", caller.desk.next_id()))
        );
        let output = output_items(&answer, &id);
        let reasoning_tokens = chat_wire::reasoning_tokens(&answer);
        let output_tokens = chat_wire::output_tokens(&answer);
        let usage = json!({
            "input_tokens": input_tokens,
            "input_tokens_details": {"cached_tokens": cached_tokens},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
            "total_tokens": input_tokens + output_tokens,
        });
        let expires_ms = expires_ms.unwrap_or(caller.desk.now_ms + EXPIRE_SECONDS_DEFAULT * 1000);
        let rendering = Rendering {
            object: self.object(
                &body,
                &id,
                caller,
                &caching,
                is_stored.then_some(expires_ms),
            ),
            answer: &answer,
            output: output.clone(),
            usage,
            fault: caller.desk.usage_fault,
        };
        let reply = if body["stream"] == true {
            rendering.stream()
        } else {
            Reply::json(200, &rendering.finished())
        };
        if is_stored {
            own.extend(input_of_output(&output).iter().map(item_block));
            let stored = Stored {
                account: caller.account.clone(),
                model: model.to_owned(),
                created_ms: caller.desk.now_ms,
                expires_ms,
                is_cached: caching.is_enabled,
                thinking: mode,
                tools,
                stored_tokens: chat_wire::total_tokens(&own),
                blocks: earlier.iter().cloned().chain(own).collect(),
                open_calls: call_ids(&output, "function_call"),
                object: rendering.finished(),
                settled_hours: 0,
            };
            self.state.lock().unwrap().responses.kept.insert(id, stored);
        }
        Ok(reply.charge(Charge {
            kind: if caching.is_prefix { "create" } else { "chat" }.to_owned(),
            account: caller.account.clone(),
            model: model.to_owned(),
            uncached_input: input_tokens - cached_tokens,
            cache_read: cached_tokens,
            output: output_tokens,
            ..Charge::default()
        }))
    }

    /// `GET` or `DELETE` of one response.
    pub(super) fn stored_response(
        &self,
        request: &RawRequest,
        caller: &Caller<'_>,
        id: &str,
    ) -> Checked<Reply> {
        let responses = &mut self.state.lock().unwrap().responses;
        let stored = responses.get(&caller.account, id).ok_or_else(|| {
            handle_not_found(self.not_found_status, "response_id", "Response", id)
        })?;
        if request.method == "GET" {
            return Ok(Reply::json(200, &stored.object));
        }
        responses.end(id, caller.desk.now_ms);
        Ok(Reply::json(
            200,
            &json!({"id": id, "object": "response", "deleted": true}),
        ))
    }

    fn object(
        &self,
        body: &Value,
        id: &str,
        caller: &Caller<'_>,
        caching: &Caching,
        expires_ms: Option<i64>,
    ) -> Value {
        let mut object = json!({
            "id": id,
            "object": "response",
            "created_at": caller.desk.now_ms.div_euclid(1000),
            "model": body["model"],
            "status": "in_progress",
            "output": [],
            "parallel_tool_calls": true,
            "service_tier": "default",
            "store": expires_ms.is_some(),
            "caching": {"type": if caching.is_enabled { "enabled" } else { "disabled" }},
        });
        if caching.is_prefix {
            object["caching"]["prefix"] = json!(true);
        }
        if let Some(ms) = expires_ms {
            object["expire_at"] = json!(ms.div_euclid(1000));
        }
        for field in [
            "previous_response_id",
            "thinking",
            "max_output_tokens",
            "tools",
            "text",
            "instructions",
        ] {
            if !body[field].is_null() {
                object[field] = body[field].clone();
            }
        }
        object
    }
}

fn input_items(input: &Value) -> Checked<Vec<Value>> {
    let items = match input {
        Value::String(text) if !text.is_empty() => {
            vec![json!({"type": "message", "role": "user", "content": text})]
        }
        Value::Array(items) if !items.is_empty() => items.clone(),
        Value::Null | Value::String(_) | Value::Array(_) => return missing("input"),
        _ => return invalid("input", "expected a string or a list of items"),
    };
    for item in &items {
        match item["type"].as_str().unwrap_or("message") {
            "message" => check_message(item)?,
            "function_call" if item["call_id"].is_string() && item["name"].is_string() => {
                if !item["arguments"].is_string() {
                    return missing("input.arguments");
                }
            }
            "function_call_output" if item["call_id"].is_string() => {
                if !item["output"].is_string() {
                    return missing("input.output");
                }
            }
            "function_call" | "function_call_output" => return missing("input.call_id"),
            "reasoning" if item["summary"].is_array() => {}
            "reasoning" => return missing("input.summary"),
            other => return invalid("input.type", &format!("unknown item type {other}")),
        }
    }
    let last = items.last().unwrap();
    if last["role"] == "assistant" && last["partial"] != true {
        return missing("partial");
    }
    Ok(items)
}

fn check_message(item: &Value) -> Checked<()> {
    let role = item["role"].as_str().unwrap_or_default();
    if !["user", "system", "developer", "assistant"].contains(&role) {
        return invalid("input.role", &format!("unknown role `{role}`"));
    }
    match &item["content"] {
        Value::String(_) => Ok(()),
        Value::Array(parts) if !parts.is_empty() => {
            for part in parts {
                let kind = part["type"].as_str().unwrap_or_default();
                let is_right = match kind {
                    "input_text" => role != "assistant" && part["text"].is_string(),
                    "output_text" => role == "assistant" && part["text"].is_string(),
                    "input_image" | "input_video" | "input_audio" | "input_file" => role == "user",
                    _ => false,
                };
                if !is_right {
                    return invalid(
                        "input.content",
                        &format!("content type `{kind}` does not fit role `{role}`"),
                    );
                }
                match kind {
                    "input_file" => media::input_file(part)?,
                    "input_audio" => media::input_audio(part)?,
                    _ => {}
                }
            }
            Ok(())
        }
        _ => missing("input.content"),
    }
}

fn caching(body: &Value, model: &str) -> Checked<Caching> {
    let caching = &body["caching"];
    if caching.is_null() {
        return Ok(Caching {
            is_enabled: false,
            is_prefix: false,
        });
    }
    // Even `disabled` beside a schema is refused: the field has to be left out (cloudwego/eino-ext#770).
    if body["text"]["format"]["type"] == "json_schema" {
        return invalid(
            "caching",
            "caching is not supported together with json_schema",
        );
    }
    let is_enabled = match caching["type"].as_str() {
        Some("enabled") => true,
        Some("disabled") => false,
        _ => return invalid("caching.type", "expected `enabled` or `disabled`"),
    };
    let is_prefix = caching["prefix"] == true;
    if !is_enabled {
        if is_prefix {
            return invalid("caching.prefix", "prefix needs caching to be enabled");
        }
        return Ok(Caching {
            is_enabled,
            is_prefix,
        });
    }
    if !caches_explicitly(model) {
        return invalid(
            "caching",
            &format!("the model {model} does not support caching"),
        );
    }
    if !body["instructions"].is_null() {
        return invalid(
            "instructions",
            "instructions is not supported when caching is enabled",
        );
    }
    let tools = body["tools"].as_array().map_or(&[][..], Vec::as_slice);
    if tools.iter().any(|tool| tool["type"] != "function") {
        return invalid(
            "tools",
            "built-in tools are not supported when caching is enabled",
        );
    }
    if is_prefix && body["stream"] == true {
        return invalid(
            "stream",
            "stream is not supported when a prefix cache is created",
        );
    }
    Ok(Caching {
        is_enabled,
        is_prefix,
    })
}

fn is_stored(body: &Value, caching: &Caching) -> Checked<bool> {
    let is_flex = body["service_tier"] == "flex";
    let is_stored = match &body["store"] {
        Value::Null | Value::Bool(true) => !is_flex,
        Value::Bool(false) => false,
        _ => return invalid("store", "expected a boolean"),
    };
    if caching.is_enabled && !is_stored {
        return invalid("store", "store must be true when caching is enabled");
    }
    Ok(is_stored)
}

fn expiry(body: &Value, now_ms: i64) -> Checked<Option<i64>> {
    let value = &body["expire_at"];
    if value.is_null() {
        return Ok(None);
    }
    let now = now_ms.div_euclid(1000);
    match value.as_i64() {
        Some(at) if at > now && at <= now + EXPIRE_SECONDS_MAX => Ok(Some(at * 1000)),
        Some(_) => invalid(
            "expire_at",
            &format!(
                "expire_at must be later than now and at most {EXPIRE_SECONDS_MAX} seconds from now"
            ),
        ),
        None => invalid("expire_at", "expected Unix seconds as an integer"),
    }
}

fn check_chain(
    body: &Value,
    caching: &Caching,
    thinking: &str,
    previous: &Stored,
    model: &str,
) -> Checked<()> {
    if !caching.is_enabled || !previous.is_cached {
        return Ok(());
    }
    if previous.model != model {
        return invalid(
            "model",
            "the model must be the one that the cached response was made with",
        );
    }
    if body["tools"]
        .as_array()
        .is_some_and(|tools| !tools.is_empty())
    {
        return invalid(
            "tools",
            "tools can only be declared in the first turn when caching is enabled",
        );
    }
    if previous.thinking != thinking {
        return invalid(
            "thinking",
            "thinking must be the same on every turn when caching is enabled",
        );
    }
    Ok(())
}

/// Every call of the last turn is answered, and nothing else is.
fn check_calls(items: &[Value], previous: Option<&Stored>) -> Checked<()> {
    let mut open: Vec<String> =
        previous.map_or_else(Vec::new, |previous| previous.open_calls.clone());
    for item in items {
        let id = item["call_id"].as_str().unwrap_or_default();
        match item["type"].as_str() {
            Some("function_call") => open.push(id.to_owned()),
            Some("function_call_output") => match open.iter().position(|call| call == id) {
                Some(index) => {
                    open.remove(index);
                }
                None => return invalid("input.call_id", &format!("no function call with id {id}")),
            },
            _ => {}
        }
    }
    match open.first() {
        Some(id) => invalid("input", &format!("no output for function call {id}")),
        None => Ok(()),
    }
}

fn call_ids(items: &[Value], kind: &str) -> Vec<String> {
    items
        .iter()
        .filter(|item| item["type"] == kind)
        .filter_map(|item| item["call_id"].as_str().map(str::to_owned))
        .collect()
}

/// The same text is the same block whether it came as a string or as parts.
fn item_block(item: &Value) -> Block {
    let text = match &item["content"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) if parts.iter().all(|part| part["text"].is_string()) => Some(
            parts
                .iter()
                .filter_map(|part| part["text"].as_str())
                .collect(),
        ),
        _ => None,
    };
    match text {
        Some(text) => {
            let role = item["role"].as_str().unwrap_or_default();
            Block::sized(format!("{role}\n{text}"), &text)
        }
        None => {
            let parts = item["content"].as_array().map_or(&[][..], Vec::as_slice);
            let media = parts
                .iter()
                .filter(|part| !part["text"].is_string())
                .count() as u64;
            let text = ["name", "arguments", "output"]
                .iter()
                .filter_map(|field| item[*field].as_str())
                .chain(parts.iter().filter_map(|part| part["text"].as_str()))
                .collect::<Vec<_>>()
                .join("\n");
            let mut bare = item.clone();
            if let Some(fields) = bare.as_object_mut() {
                fields.retain(|name, _| name != "id" && name != "status");
            }
            Block {
                content: bare.to_string(),
                tokens: tokens(&text) + MEDIA_TOKENS * media,
            }
        }
    }
}

impl Ark {
    /// Tokens of the longest beginning that was in an earlier prompt of this account and model, and remembers this
    /// one's.
    pub(super) fn implicit_hit(&self, caller: &Caller<'_>, model: &str, prompt: &[Block]) -> u64 {
        if !caches_implicitly(model) {
            return 0;
        }
        let seen = &mut self.state.lock().unwrap().seen;
        let hashes = crate::chain(&format!("{} {model}", caller.account), prompt);
        let known = hashes
            .iter()
            .take_while(|hash| seen.contains(*hash))
            .count();
        seen.extend(hashes);
        let tokens = chat_wire::total_tokens(&prompt[..known]);
        if tokens >= self.implicit_tokens_min {
            tokens
        } else {
            0
        }
    }
}
