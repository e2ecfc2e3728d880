//! Volcengine Ark and BytePlus ModelArk (facts 2.5 and section 4).
//!
//! ```text
//! POST /api/v3/responses                      explicit caching, or implicit; GET, DELETE /api/v3/responses/{id}
//! POST /api/v3/chat/completions               implicit caching
//! POST /api/v3/context/create                 the older Context API
//! POST /api/v3/context/chat/completions
//! ```
//!
//! Usage counts include what was cached.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use self::context::Contexts;
use self::responses::Responses;
use crate::{Bill, Charge, Desk, Family, RawRequest, Reply};

mod chat;
mod context;
mod error;
mod media;
mod responses;
mod responses_wire;
mod strict;
mod thinking;

/// Keys that begin with this are refused with 401; any other opens an account of its own.
pub const INVALID_KEY_PREFIX: &str = "invalid";

/// Least tokens of an explicit prefix (facts 2.5; older pages say 1024).
const PREFIX_TOKENS_MIN: u64 = 256;
/// Least tokens of an implicit hit (facts 2.5; 256, 2048 or 8960 on some models).
const IMPLICIT_TOKENS_MIN: u64 = 1024;
/// Tokens that a session of the Context API holds, answer included.
const CONTEXT_WINDOW: u64 = 32_768;
/// Models, and endpoints (`ep-`), by the beginning of their names.
const MODEL_PREFIXES: &[&str] = &["doubao-", "ep-", "glm-", "deepseek-", "kimi-"];

type Checked<T> = Result<T, Box<Reply>>;

/// The family. Clones share their state, so a test can keep one and give the other to the emulator.
#[derive(Debug, Clone)]
pub struct Ark {
    name: &'static str,
    not_found_status: u16,
    prefix_tokens_min: u64,
    implicit_tokens_min: u64,
    context_window: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    responses: Responses,
    contexts: Contexts,
    /// Hashes of beginnings of prompts, for implicit caching.
    seen: HashSet<[u8; 32]>,
}

/// Who asks.
struct Caller<'a> {
    account: String,
    desk: &'a Desk<'a>,
}

impl Default for Ark {
    fn default() -> Self {
        Self::new()
    }
}

impl Ark {
    /// With the documented limits. Ids that are gone are 404.
    pub fn new() -> Self {
        Ark {
            name: "ark",
            not_found_status: 404,
            prefix_tokens_min: PREFIX_TOKENS_MIN,
            implicit_tokens_min: IMPLICIT_TOKENS_MIN,
            context_window: CONTEXT_WINDOW,
            state: Arc::default(),
        }
    }

    /// The same service under BytePlus's name.
    pub fn byteplus() -> Self {
        Ark {
            name: "byteplus",
            ..Ark::new()
        }
    }

    /// Ids that are gone are 400.
    #[must_use]
    pub fn gone_is_400(mut self) -> Self {
        self.not_found_status = 400;
        self
    }

    /// The least an explicit prefix must hold, tokens.
    #[must_use]
    pub fn prefix_tokens_min(mut self, tokens: u64) -> Self {
        self.prefix_tokens_min = tokens;
        self
    }

    /// The least an implicit hit must be, tokens.
    #[must_use]
    pub fn implicit_tokens_min(mut self, tokens: u64) -> Self {
        self.implicit_tokens_min = tokens;
        self
    }

    /// What a session of the Context API holds, tokens.
    #[must_use]
    pub fn context_window(mut self, tokens: u64) -> Self {
        self.context_window = tokens;
        self
    }

    /// Puts the storage of everything up to now on the bill, of what lives on too.
    pub fn settle_storage(&self, bill: &Bill, now_ms: i64) {
        for charge in self.storage_charges(now_ms, true) {
            bill.add(charge);
        }
    }

    fn storage_charges(&self, now_ms: i64, is_settlement: bool) -> Vec<Charge> {
        let mut state = self.state.lock().unwrap();
        let mut charges = state.responses.storage_charges(now_ms, is_settlement);
        charges.extend(state.contexts.storage_charges(now_ms, is_settlement));
        charges
    }

    fn route(&self, request: &RawRequest, desk: &Desk<'_>) -> Checked<Reply> {
        let key = request.bearer().unwrap_or_default();
        if key.is_empty() || key.starts_with(INVALID_KEY_PREFIX) {
            return Err(Box::new(error::failure(401)));
        }
        let caller = Caller {
            account: key.to_owned(),
            desk,
        };
        let path = request.path.strip_prefix("/api/v3").unwrap_or_default();
        match (request.method.as_str(), path) {
            ("POST", "/responses") => self.respond(request, &caller),
            ("POST", "/chat/completions") => self.chat(request, &caller),
            ("POST", "/context/create") => self.create_context(request, &caller),
            ("POST", "/context/chat/completions") => self.context_chat(request, &caller),
            ("GET" | "DELETE", path) => match path.strip_prefix("/responses/") {
                Some(id) => self.stored_response(request, &caller, id),
                None => Err(Box::new(no_route(&request.path))),
            },
            _ => Err(Box::new(no_route(&request.path))),
        }
    }
}

impl Family for Ark {
    fn name(&self) -> &'static str {
        self.name
    }

    fn answer(&self, request: &RawRequest, desk: &Desk<'_>) -> Reply {
        {
            let mut state = self.state.lock().unwrap();
            state.responses.sweep(desk.now_ms);
            state.contexts.sweep(desk.now_ms);
        }
        let mut reply = self.route(request, desk).unwrap_or_else(|reply| *reply);
        reply
            .charges
            .extend(self.storage_charges(desk.now_ms, false));
        reply
    }

    fn failure(&self, status: u16) -> Reply {
        error::failure(status)
    }

    fn failure_in_stream(&self) -> Bytes {
        error::in_chat_stream()
    }

    fn evict_all(&self) {
        let mut state = self.state.lock().unwrap();
        state.responses.evict_all();
        state.contexts.evict_all();
        state.seen.clear();
    }
}

fn no_route(path: &str) -> Reply {
    error::error(
        404,
        "InvalidAction",
        "NotFound",
        "",
        &format!("The specified action is invalid: {path}"),
    )
}

fn is_known_model(model: &str) -> bool {
    MODEL_PREFIXES
        .iter()
        .any(|prefix| model.starts_with(prefix))
}

/// Models of the generation before Seed have the Context API only.
fn caches_explicitly(model: &str) -> bool {
    !model.starts_with("doubao-1")
}

/// Before Seed 2 implicit caching was for batches only.
fn caches_implicitly(model: &str) -> bool {
    !model.starts_with("doubao-1") && !model.starts_with("doubao-seed-1")
}

/// The Context API wants an endpoint, or one of the few models that still have it.
fn has_contexts(model: &str) -> bool {
    model.starts_with("ep-") || model.starts_with("doubao-1-5-")
}
