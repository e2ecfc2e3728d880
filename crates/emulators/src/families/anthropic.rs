//! Anthropic Messages (facts 2.3), and the services that imitate it: MiniMax, Kimi and Qwen (facts 2.10, 2.7, 2.6).
//!
//! ```text
//! POST /v1/messages                 also below /anthropic and /apps/anthropic on the imitators
//! POST /v1/messages/count_tokens
//! GET  /v1/models, /v1/models/{id}  Anthropic only
//! ```
//!
//! Usage counts exclude each other: `input_tokens` is what was neither read nor written.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use self::cache::{LOOKBACK_POSITIONS, Limits, MarkerCache, Settled, TTL_SHORT_SECONDS};
use self::diagnostics::{Fingerprint, Fingerprints};
use self::generated::{Generated, Room};
use self::models::Model;
use self::prompt::{MarkerRules, Prompt};
use self::reply::Told;
use crate::Family;
use crate::bill::Charge;
use crate::reply::{Reply, sse_event};
use crate::request::RawRequest;
use crate::server::Desk;

pub(crate) mod cache;
mod check;
mod diagnostics;
pub(crate) mod generated;
mod kimi;
mod models;
mod prompt;
mod reply;
mod source;
pub(crate) mod thinking;

/// Keys that begin with this are refused with 401; any other opens an account (a workspace) of its own.
pub const INVALID_KEY_PREFIX: &str = "invalid";
/// What a one-hour lifetime may depend on, see [`Anthropic::ignoring_1h_without_beta`].
pub const LONG_TTL_BETA: &str = "extended-cache-ttl-2025-04-11";

/// The one version of the API there is.
const VERSION: &str = "2023-06-01";
/// Largest request, bytes.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Anthropic,
    MiniMax,
    Kimi,
    Qwen,
}

/// The family. Each constructor is a service.
#[derive(Debug)]
pub struct Anthropic {
    service: Service,
    write_visible_late: Duration,
    ignores_1h_without_beta: bool,
    refuses_prefill: bool,
    refuses_budgets: bool,
    thinks_only_when_asked: bool,
    cache_tokens_min: Option<u64>,
    cache: MarkerCache,
    fingerprints: Fingerprints,
}

impl Default for Anthropic {
    fn default() -> Self {
        Self::new()
    }
}

impl Anthropic {
    /// Anthropic itself.
    pub fn new() -> Self {
        Self::of(Service::Anthropic)
    }

    /// MiniMax: five minutes only, at least 512 tokens, and writes not divided by lifetime in the usage.
    pub fn minimax() -> Self {
        Self::of(Service::MiniMax)
    }

    /// Kimi: every prompt is cached in chunks of 256 tokens; only the marker at the top level means something, namely
    /// the lifetime. Models whose name begins with `kimi-k2` report no writes.
    pub fn kimi() -> Self {
        Self::of(Service::Kimi)
    }

    /// Qwen: five minutes only, at least 1024 tokens, markers on tools ignored, the last four markers count.
    pub fn qwen() -> Self {
        Self::of(Service::Qwen)
    }

    fn of(service: Service) -> Self {
        Anthropic {
            service,
            write_visible_late: Duration::ZERO,
            ignores_1h_without_beta: false,
            refuses_prefill: false,
            refuses_budgets: false,
            thinks_only_when_asked: false,
            cache_tokens_min: None,
            cache: MarkerCache::default(),
            fingerprints: Fingerprints::default(),
        }
    }

    /// What a request writes can be read only so much later than its answer begins.
    #[must_use]
    pub fn write_visible_late(mut self, delay: Duration) -> Self {
        self.write_visible_late = delay;
        self
    }

    /// Without the header `anthropic-beta: extended-cache-ttl-2025-04-11` an hour silently becomes five minutes, as was
    /// reported of API keys in 2026-07 (facts 2.3).
    #[must_use]
    pub fn ignoring_1h_without_beta(mut self) -> Self {
        self.ignores_1h_without_beta = true;
        self
    }

    /// A conversation that ends with the assistant is refused, as by models without prefill.
    #[must_use]
    pub fn refusing_prefill(mut self) -> Self {
        self.refuses_prefill = true;
        self
    }

    /// `thinking` of type `enabled` is refused, as by models that only think as they see fit.
    #[must_use]
    pub fn refusing_budgets(mut self) -> Self {
        self.refuses_budgets = true;
        self
    }

    /// A request without `thinking` is answered without any, as by models for which that is the default. Otherwise
    /// only `disabled` keeps a scripted thought back.
    #[must_use]
    pub fn thinking_only_when_asked(mut self) -> Self {
        self.thinks_only_when_asked = true;
        self
    }

    /// The shortest prefix that is cached, for all models, instead of what each model has.
    #[must_use]
    pub fn cache_tokens_min(mut self, tokens: u64) -> Self {
        self.cache_tokens_min = Some(tokens);
        self
    }

    fn model(&self, name: &str) -> Option<Model> {
        let imitated = |cache_tokens_min| {
            Some(Model {
                name: "",
                cache_tokens_min,
                window_tokens: 1_000_000,
                keeps_thinking: true,
            })
        };
        match self.service {
            Service::Anthropic => models::by_name(name),
            Service::MiniMax => imitated(512),
            Service::Kimi => imitated(0),
            Service::Qwen => imitated(1024),
        }
    }

    fn marker_rules(&self, request: &RawRequest, model: &Model) -> MarkerRules {
        let has_beta = request
            .headers
            .iter()
            .filter(|(name, _)| name == "anthropic-beta")
            .any(|(_, betas)| betas.split(',').any(|beta| beta.trim() == LONG_TTL_BETA));
        MarkerRules {
            on_tools: matches!(self.service, Service::Anthropic | Service::MiniMax),
            on_blocks: self.service != Service::Kimi,
            has_long_ttl: match self.service {
                Service::Anthropic => has_beta || !self.ignores_1h_without_beta,
                Service::Kimi => true,
                Service::MiniMax | Service::Qwen => false,
            },
            markers_surplus_is_error: self.service != Service::Qwen,
            keeps_thinking: model.keeps_thinking,
        }
    }

    /// The account of the key.
    fn account(&self, request: &RawRequest) -> Result<String, Refusal> {
        let bearer = request
            .bearer()
            .filter(|_| self.service != Service::Anthropic);
        let key = request
            .header("x-api-key")
            .or(bearer)
            .filter(|key| !key.is_empty())
            .ok_or(Refusal::new(401, "x-api-key header is required"))?;
        if key.starts_with(INVALID_KEY_PREFIX) {
            return Err(Refusal::new(401, "invalid x-api-key"));
        }
        Ok(key.to_owned())
    }

    fn route(&self, request: &RawRequest, desk: &Desk<'_>) -> Result<Reply, Refusal> {
        let account = self.account(request)?;
        let mut path = request.path.as_str();
        if self.service == Service::Anthropic {
            match request.header("anthropic-version") {
                None => return Err(Refusal::new(400, "anthropic-version: header is required")),
                Some(VERSION) => {}
                Some(version) => {
                    return Err(Refusal::new(
                        400,
                        format!("anthropic-version: \"{version}\" is not a valid version"),
                    ));
                }
            }
        } else {
            path = path.strip_prefix("/apps").unwrap_or(path);
            path = path.strip_prefix("/anthropic").unwrap_or(path);
        }
        match (request.method.as_str(), path) {
            ("POST", "/v1/messages") => self.messages(request, desk, &account),
            ("POST", "/v1/messages/count_tokens") => {
                let (_, prompt) = self.read(request, true, &body(request)?)?;
                Ok(Reply::json(200, &json!({"input_tokens": prompt.tokens()})))
            }
            (_, "/v1/messages" | "/v1/messages/count_tokens") => {
                Err(Refusal::new(405, "Method Not Allowed"))
            }
            ("GET", path) if self.service == Service::Anthropic => list(path, request),
            _ => Err(Refusal::new(404, "Not found")),
        }
    }

    /// Checks a request and renders its prompt.
    fn read(
        &self,
        request: &RawRequest,
        is_count: bool,
        body: &Value,
    ) -> Result<(Model, Prompt), Refusal> {
        let fields = check::request(body, is_count, self.service == Service::Anthropic)?;
        let name = fields["model"].as_str().unwrap();
        let model = self
            .model(name)
            .ok_or_else(|| Refusal::new(404, format!("model: {name}")))?;
        let prompt = prompt::render(fields, self.marker_rules(request, &model))?;
        if prompt.tokens() > model.window_tokens {
            return Err(Refusal::new(
                400,
                format!(
                    "prompt is too long: {} tokens > {} maximum",
                    prompt.tokens(),
                    model.window_tokens
                ),
            ));
        }
        let is_budget =
            check::field(fields, "thinking").is_some_and(|thinking| thinking["type"] == "enabled");
        if self.refuses_budgets && is_budget {
            return Err(Refusal::new(
                400,
                "\"thinking.type.enabled\" is not supported for this model. Use \"thinking.type.adaptive\" and \
                 \"output_config.effort\" to control thinking behavior.",
            ));
        }
        let last = fields["messages"]
            .as_array()
            .and_then(|messages| messages.last());
        if self.refuses_prefill && last.is_some_and(|message| message["role"] == "assistant") {
            return Err(Refusal::new(
                400,
                "This model does not support assistant message prefill. The conversation must end with a user message.",
            ));
        }
        Ok((model, prompt))
    }

    fn messages(
        &self,
        request: &RawRequest,
        desk: &Desk<'_>,
        account: &str,
    ) -> Result<Reply, Refusal> {
        let body = body(request)?;
        let (model, prompt) = self.read(request, false, &body)?;
        let body = body.as_object().unwrap();
        let name = body["model"].as_str().unwrap();
        let settled = self.settle(account, body, &prompt, &model, desk);
        let number = desk.next_id();
        let id = format!("msg_{number:024}");
        let is_prewarm = body["max_tokens"] == 0;
        let generated = if is_prewarm {
            Generated::default()
        } else {
            let answer = desk.script.take(settled.total(), forced_tool(body));
            Generated::new(&answer, &self.room(body), |index| {
                format!("toolu_{number:020}{index:02}")
            })
        };
        let fingerprint = Fingerprint::new(body, &prompt);
        let told = Told {
            id: &id,
            model: name,
            settled: &settled,
            divides_writes: self.service != Service::MiniMax,
            usage_fault: desk.usage_fault,
            diagnostics: self
                .fingerprints
                .compare(account, body, &fingerprint, &settled),
        };
        let reply = if body.get("stream") == Some(&Value::Bool(true)) {
            Reply::frames(told.events(&generated))
        } else {
            Reply::json(200, &told.whole(&generated))
        };
        self.fingerprints.keep(account, &id, fingerprint);
        Ok(reply
            .header("request-id", format!("req_{number:024}"))
            .charge(Charge {
                kind: if is_prewarm { "prewarm" } else { "chat" }.to_owned(),
                account: account.to_owned(),
                model: name.to_owned(),
                uncached_input: settled.uncached,
                cache_read: settled.read,
                cache_write: settled.write.clone(),
                output: generated.output_tokens,
                ..Charge::default()
            }))
    }

    fn settle(
        &self,
        account: &str,
        body: &Map<String, Value>,
        prompt: &Prompt,
        model: &Model,
        desk: &Desk<'_>,
    ) -> Settled {
        let now_ms = desk.now_ms;
        // An entry can be read from when the answer that writes it begins: calls in parallel all write.
        let late = desk.start_delay + self.write_visible_late;
        let visible_ms = now_ms + i64::try_from(late.as_millis()).unwrap();
        let name = body["model"].as_str().unwrap();
        let salt = format!("{account}\n{name}");
        if self.service != Service::Kimi {
            let limits = Limits {
                tokens_min: self.cache_tokens_min.unwrap_or(model.cache_tokens_min),
                lookback_positions: LOOKBACK_POSITIONS,
                now_ms,
                visible_ms,
            };
            return self
                .cache
                .settle(&salt, &prompt.steps, &prompt.marks, limits);
        }
        // A change of the effort drops everything, one of the tool choice nothing.
        let salt = format!(
            "{salt}\n{:?}{:?}",
            body.get("thinking"),
            body.get("output_config")
        );
        let ttl_seconds = prompt.automatic_ttl_seconds.unwrap_or(TTL_SHORT_SECONDS);
        let mut settled = kimi::settle(&self.cache, &salt, prompt, ttl_seconds, now_ms, visible_ms);
        if name.starts_with("kimi-k2") {
            settled.uncached += settled.written();
            settled.write.clear();
        }
        settled
    }

    /// What the request leaves to the answer.
    fn room<'a>(&self, body: &'a Map<String, Value>) -> Room<'a> {
        let sequences = body.get("stop_sequences").and_then(Value::as_array);
        let thinking = check::field(body, "thinking");
        Room {
            tokens_max: body["max_tokens"].as_u64().unwrap_or_default(),
            stop_sequences: sequences
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect(),
            may_think: thinking.map_or(!self.thinks_only_when_asked, |thinking| {
                thinking["type"] != "disabled"
            }),
            shows_thinking: !thinking::is_omitted(thinking),
        }
    }
}

/// The tool that the model must call.
fn forced_tool(body: &Map<String, Value>) -> Option<&str> {
    let choice = body.get("tool_choice")?;
    match choice["type"].as_str()? {
        "tool" => choice["name"].as_str(),
        "any" => body["tools"][0]["name"].as_str(),
        _ => None,
    }
}

fn body(request: &RawRequest) -> Result<Value, Refusal> {
    if request.body.len() > BODY_BYTES_MAX {
        return Err(Refusal::new(
            413,
            "Request exceeds the maximum allowed number of bytes.",
        ));
    }
    request
        .json()
        .ok_or_else(|| Refusal::new(400, "The request body is not valid JSON"))
}

fn list(path: &str, request: &RawRequest) -> Result<Reply, Refusal> {
    let describe = |model: &Model| {
        json!({
            "type": "model",
            "id": model.name,
            "display_name": model.name,
            "created_at": "2026-01-01T00:00:00Z",
            "lifecycle": "active",
            "max_input_tokens": model.window_tokens,
        })
    };
    if let Some(id) = path.strip_prefix("/v1/models/") {
        let model = models::ALL.iter().find(|model| model.name == id);
        return match model {
            Some(model) => Ok(Reply::json(200, &describe(model))),
            None => Err(Refusal::new(404, format!("model: {id}"))),
        };
    }
    if path != "/v1/models" {
        return Err(Refusal::new(404, "Not found"));
    }
    let limit = request
        .query_value("limit")
        .and_then(|limit| limit.parse().ok())
        .unwrap_or(20);
    let after = request.query_value("after_id");
    let rest: Vec<&Model> = match after {
        None => models::ALL.iter().collect(),
        Some(after) => models::ALL
            .iter()
            .skip_while(|model| model.name != after)
            .skip(1)
            .collect(),
    };
    let page: Vec<Value> = rest
        .iter()
        .take(limit)
        .map(|model| describe(model))
        .collect();
    Ok(Reply::json(
        200,
        &json!({
            "has_more": rest.len() > page.len(),
            "first_id": page.first().map(|model| model["id"].clone()),
            "last_id": page.last().map(|model| model["id"].clone()),
            "data": page,
        }),
    ))
}

/// A request that the service turns down.
struct Refusal {
    status: u16,
    message: String,
}

impl Refusal {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Refusal {
            status,
            message: message.into(),
        }
    }
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Refusal::new(400, message)
    }
}

fn envelope(status: u16, message: &str, request_id: &str) -> Reply {
    let kind = match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    let error = json!({
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": request_id,
    });
    Reply::json(status, &error).header("request-id", request_id)
}

impl Family for Anthropic {
    fn name(&self) -> &'static str {
        match self.service {
            Service::Anthropic => "anthropic",
            Service::MiniMax => "minimax-anthropic",
            Service::Kimi => "kimi-anthropic",
            Service::Qwen => "qwen-anthropic",
        }
    }

    fn answer(&self, request: &RawRequest, desk: &Desk<'_>) -> Reply {
        self.route(request, desk).unwrap_or_else(|refusal| {
            envelope(
                refusal.status,
                &refusal.message,
                &format!("req_{:024}", desk.next_id()),
            )
        })
    }

    fn failure(&self, status: u16) -> Reply {
        let message = match status {
            401 => "invalid x-api-key",
            402 => "Your credit balance is too low to access the Anthropic API.",
            403 => "Your API key does not have permission to use the specified resource.",
            404 => "Not found",
            413 => "Request exceeds the maximum allowed number of bytes.",
            429 => {
                "This request would exceed your organization's rate limit. Please try again later."
            }
            504 => "Request timed out",
            529 => "Overloaded",
            500.. => "Internal server error",
            _ => "Error",
        };
        envelope(status, message, "req_000000000000000000000000")
    }

    fn failure_in_stream(&self) -> Bytes {
        sse_event(
            "error",
            &json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        )
    }

    fn evict_all(&self) {
        self.cache.clear();
    }
}
