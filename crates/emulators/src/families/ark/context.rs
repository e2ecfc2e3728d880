//! The Context API, retired by Ark and still in its SDK (facts 2.5a): the model for Holdfast's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::chat::{check_messages, completion};
use super::error::{error, handle_not_found, invalid, missing, no_model, undecodable};
use super::{Ark, Caller, Checked, has_contexts, is_known_model, strict};
use crate::families::chat_wire;
use crate::{Body, Charge, RawRequest, Reply};

const TTL_DEFAULT: u64 = 86_400;
const TTL_MIN: u64 = 3_600;
const TTL_MAX: u64 = 604_800;
/// Output limit where none is asked for, tokens.
const OUTPUT_TOKENS_DEFAULT: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Session,
    CommonPrefix,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Session => "session",
            Mode::CommonPrefix => "common_prefix",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truncation {
    LastHistoryTokens(u64),
    RollingTokens(bool),
}

impl Truncation {
    fn json(self) -> Value {
        match self {
            Truncation::LastHistoryTokens(tokens) => {
                json!({"type": "last_history_tokens", "last_history_tokens": tokens})
            }
            Truncation::RollingTokens(rolls) => {
                json!({"type": "rolling_tokens", "rolling_tokens": rolls})
            }
        }
    }
}

#[derive(Debug)]
struct Context {
    account: String,
    model: String,
    mode: Mode,
    ttl_ms: i64,
    expires_ms: i64,
    truncation: Truncation,
    /// Tokens of the messages it was created with, which stay.
    initial: u64,
    /// Tokens of each message since.
    history: Vec<u64>,
    is_busy: Arc<AtomicBool>,
    /// Until when its storage has been counted in `token_milliseconds`.
    counted_ms: i64,
    token_milliseconds: u64,
}

impl Context {
    fn tokens(&self) -> u64 {
        self.initial + self.history.iter().sum::<u64>()
    }

    fn count_storage(&mut self, now_ms: i64) {
        let until_ms = now_ms.min(self.expires_ms);
        self.token_milliseconds +=
            self.tokens() * u64::try_from(until_ms - self.counted_ms).unwrap_or(0);
        self.counted_ms = self.counted_ms.max(until_ms);
    }

    fn storage_charge(&mut self, now_ms: i64) -> Option<Charge> {
        self.count_storage(now_ms);
        let token_milliseconds = std::mem::take(&mut self.token_milliseconds);
        (token_milliseconds > 0).then(|| Charge {
            kind: "storage".to_owned(),
            account: self.account.clone(),
            model: self.model.clone(),
            token_milliseconds,
            reported: true,
            ..Charge::default()
        })
    }
}

/// All contexts.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    live: HashMap<String, Context>,
    evicted: Vec<Context>,
    unbilled: Vec<Charge>,
}

impl Contexts {
    pub(super) fn sweep(&mut self, now_ms: i64) {
        let (ended, live) = std::mem::take(&mut self.live)
            .into_iter()
            .partition(|(_, context)| context.expires_ms <= now_ms);
        self.live = live;
        let ended: HashMap<String, Context> = ended;
        for mut context in ended.into_values().chain(std::mem::take(&mut self.evicted)) {
            self.unbilled.extend(context.storage_charge(now_ms));
        }
    }

    pub(super) fn evict_all(&mut self) {
        self.evicted
            .extend(std::mem::take(&mut self.live).into_values());
    }

    pub(super) fn storage_charges(&mut self, now_ms: i64, is_settlement: bool) -> Vec<Charge> {
        self.sweep(now_ms);
        if is_settlement {
            for context in self.live.values_mut() {
                self.unbilled.extend(context.storage_charge(now_ms));
            }
        }
        std::mem::take(&mut self.unbilled)
    }
}

impl Ark {
    /// `POST /context/create`.
    pub(super) fn create_context(
        &self,
        request: &RawRequest,
        caller: &Caller<'_>,
    ) -> Checked<Reply> {
        let Some(body) = request.json().filter(Value::is_object) else {
            return undecodable("The request body is not valid JSON.");
        };
        strict::check(&body, strict::CONTEXT_CREATE)?;
        let model = context_model(&body)?;
        check_messages(&body["messages"])?;
        let mode = match &body["mode"] {
            Value::Null => Mode::Session,
            mode if mode == "session" => Mode::Session,
            mode if mode == "common_prefix" => Mode::CommonPrefix,
            _ => return invalid("mode", "expected `session` or `common_prefix`"),
        };
        let ttl = match (&body["ttl"], body["ttl"].as_u64()) {
            (Value::Null, _) => TTL_DEFAULT,
            (_, Some(ttl)) if (TTL_MIN..=TTL_MAX).contains(&ttl) => ttl,
            _ => {
                return invalid(
                    "ttl",
                    &format!("expected an integer from {TTL_MIN} to {TTL_MAX}"),
                );
            }
        };
        let truncation = truncation(&body["truncation_strategy"], mode)?;
        let tokens = chat_wire::total_tokens(&chat_wire::blocks(&body, &[]));
        let ttl_ms = i64::try_from(ttl * 1000).unwrap_or(i64::MAX);
        let id = context_id(caller);
        let context = Context {
            account: caller.account.clone(),
            model: model.to_owned(),
            mode,
            ttl_ms,
            expires_ms: caller.desk.now_ms + ttl_ms,
            truncation,
            initial: tokens,
            history: Vec::new(),
            is_busy: Arc::default(),
            counted_ms: caller.desk.now_ms,
            token_milliseconds: 0,
        };
        let mut reply = json!({
            "id": id,
            "model": model,
            "mode": mode.name(),
            "ttl": ttl,
            "usage": {
                "prompt_tokens": tokens,
                "completion_tokens": 0,
                "total_tokens": tokens,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
        });
        if mode == Mode::Session {
            reply["truncation_strategy"] = truncation.json();
        }
        self.state.lock().unwrap().contexts.live.insert(id, context);
        Ok(Reply::json(200, &reply).charge(Charge {
            kind: "create".to_owned(),
            account: caller.account.clone(),
            model: model.to_owned(),
            uncached_input: tokens,
            ..Charge::default()
        }))
    }

    /// `POST /context/chat/completions`.
    pub(super) fn context_chat(&self, request: &RawRequest, caller: &Caller<'_>) -> Checked<Reply> {
        let Some(body) = request.json().filter(Value::is_object) else {
            return undecodable("The request body is not valid JSON.");
        };
        strict::check(&body, strict::CONTEXT_CHAT)?;
        let model = context_model(&body)?;
        let Some(id) = body["context_id"].as_str() else {
            return missing("context_id");
        };
        for field in ["tools", "tool_choice"] {
            if !body[field].is_null() {
                return invalid(field, "function calls are not supported with a context");
            }
        }
        check_messages(&body["messages"])?;
        let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
        if messages
            .last()
            .is_some_and(|message| message["role"] == "assistant")
        {
            return invalid(
                "messages",
                "the role of the last message must not be assistant",
            );
        }
        let now_ms = caller.desk.now_ms;
        let mut state = self.state.lock().unwrap();
        let context = state
            .contexts
            .live
            .get_mut(id)
            .filter(|context| context.account == caller.account)
            .ok_or_else(|| handle_not_found(self.not_found_status, "context_id", "Context", id))?;
        if context.model != model {
            return invalid(
                "model",
                "the model must be the one that the context was created with",
            );
        }
        let is_session = context.mode == Mode::Session;
        if is_session && context.is_busy.swap(true, Ordering::SeqCst) {
            return Err(Box::new(error(
                400,
                "OperationDenied.ContextInUse",
                "BadRequest",
                "context_id",
                "The context is in use by another request; a session takes one request at a time.",
            )));
        }
        context.count_storage(now_ms);
        let mut new: Vec<u64> = messages
            .iter()
            .map(|message| {
                chat_wire::total_tokens(&chat_wire::blocks(&json!({"messages": [message]}), &[]))
            })
            .collect();
        let stored = context.tokens();
        let has_dropped = is_session && drop_oldest(context, new.iter().sum(), self.context_window);
        let input = context.tokens() + new.iter().sum::<u64>();
        // What follows a gap is no prefix any more.
        let cached = if has_dropped { context.initial } else { stored };
        let left = self.context_window.saturating_sub(input);
        let limit = body["max_tokens"].as_u64().unwrap_or(OUTPUT_TOKENS_DEFAULT);
        let limit = if is_session { limit.min(left) } else { limit };
        let answer = chat_wire::limited(caller.desk.script.take(input, None), Some(limit));
        let output = chat_wire::output_tokens(&answer);
        if is_session {
            new.push(output - chat_wire::reasoning_tokens(&answer));
            context.history.append(&mut new);
        }
        context.expires_ms = now_ms + context.ttl_ms;
        let is_busy = is_session.then(|| Arc::clone(&context.is_busy));
        drop(state);
        let mut reply = completion(&body, caller.desk, answer, [input, cached, output])
            .reply(chat_wire::wants_stream(&body))
            .failing_with(super::error::in_chat_stream());
        if let Some(is_busy) = is_busy {
            hold_until_sent(&mut reply, is_busy);
        }
        Ok(reply.charge(Charge {
            kind: "chat".to_owned(),
            account: caller.account.clone(),
            model: model.to_owned(),
            uncached_input: input - cached,
            cache_read: cached,
            output,
            ..Charge::default()
        }))
    }
}

/// Drops the oldest messages that the strategy doesn't keep; whether there were any.
fn drop_oldest(context: &mut Context, new: u64, window: u64) -> bool {
    let before = context.history.len();
    match context.truncation {
        Truncation::LastHistoryTokens(kept) => {
            while context.history.iter().sum::<u64>() > kept {
                context.history.remove(0);
            }
        }
        Truncation::RollingTokens(true) => {
            while !context.history.is_empty() && context.tokens() + new > window {
                context.history.remove(0);
            }
        }
        Truncation::RollingTokens(false) => {}
    }
    context.history.len() < before
}

fn context_model(body: &Value) -> Checked<&str> {
    let model = body["model"].as_str().unwrap_or_default();
    if model.is_empty() {
        return missing("model");
    }
    if !is_known_model(model) {
        return Err(no_model(model));
    }
    if !has_contexts(model) {
        return invalid(
            "model",
            &format!("the model {model} does not support the context API"),
        );
    }
    Ok(model)
}

fn truncation(strategy: &Value, mode: Mode) -> Checked<Truncation> {
    if strategy.is_null() {
        return Ok(Truncation::RollingTokens(true));
    }
    if mode == Mode::CommonPrefix {
        return invalid("truncation_strategy", "it is only for mode session");
    }
    match strategy["type"].as_str() {
        Some("last_history_tokens") => match strategy["last_history_tokens"].as_u64() {
            Some(tokens) if tokens > 0 => Ok(Truncation::LastHistoryTokens(tokens)),
            _ => invalid(
                "truncation_strategy.last_history_tokens",
                "expected a positive integer",
            ),
        },
        Some("rolling_tokens") => match &strategy["rolling_tokens"] {
            Value::Null => Ok(Truncation::RollingTokens(true)),
            Value::Bool(rolls) => Ok(Truncation::RollingTokens(*rolls)),
            _ => invalid("truncation_strategy.rolling_tokens", "expected a boolean"),
        },
        _ => invalid(
            "truncation_strategy.type",
            "expected `last_history_tokens` or `rolling_tokens`",
        ),
    }
}

/// `ctx-20241211104333-12345`.
fn context_id(caller: &Caller<'_>) -> String {
    let time = Timestamp::from_millisecond(caller.desk.now_ms)
        .unwrap()
        .to_zoned(TimeZone::UTC);
    let (date, hour, minute, second) = (time.date(), time.hour(), time.minute(), time.second());
    format!(
        "ctx-{:04}{:02}{:02}{hour:02}{minute:02}{second:02}-{:05}",
        date.year(),
        date.month(),
        date.day(),
        caller.desk.next_id()
    )
}

/// The session is free again when the last frame is about to be sent, or when the client has left before. An empty
/// frame carries the duty: it goes out, and is dropped, before the last one.
fn hold_until_sent(reply: &mut Reply, is_busy: Arc<AtomicBool>) {
    struct Hold(Arc<AtomicBool>);
    impl AsRef<[u8]> for Hold {
        fn as_ref(&self) -> &[u8] {
            &[]
        }
    }
    impl Drop for Hold {
        fn drop(&mut self) {
            self.0.store(false, Ordering::SeqCst);
        }
    }
    let mut frames = match std::mem::replace(&mut reply.body, Body::Frames(Vec::new())) {
        Body::Whole(bytes) => vec![bytes],
        Body::Frames(frames) => frames,
    };
    frames.insert(
        frames.len().saturating_sub(1),
        Bytes::from_owner(Hold(is_busy)),
    );
    reply.body = Body::Frames(frames);
}
