//! OpenAI and Azure OpenAI (facts 2.1, 2.2 and section 4), and what they have beside chat.
//!
//! Two eras of caching, told apart by the model's name: from gpt-5.6 on, paid writes at breakpoints and exact reads;
//! before, free and best effort on the machine the prompt is routed to.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::chat_wire;
use crate::{Charge, Desk, Family, RawRequest, Reply};

mod beside;
mod cache;
mod chat;
mod check;
mod effort;
mod media;
mod model;
mod prompt;
mod reasoning;
mod responses;
mod responses_check;
mod responses_wire;

use beside::Asked;
use cache::{Caches, Found};
use model::Era;
use prompt::Prompt;
use responses::Stored;

/// Models that `GET /models` lists. Others are answered too where their name looks like one of OpenAI's.
const MODELS: &[&str] = &[
    "gpt-6-astra",
    "gpt-6.1-sol",
    "gpt-6.1-terra",
    "gpt-6-luna",
    "gpt-5.6",
    "gpt-5.6-luna",
    "gpt-5.5",
    "gpt-5.4",
    "gpt-5",
    "gpt-4.1",
    "gpt-4o",
];

/// OpenAI, or Azure OpenAI, which differs in paths, key and a few rules.
pub struct OpenAi {
    host: Host,
    region: String,
    is_zero_retention: bool,
    visible_after_ms: i64,
    organizations: HashMap<String, String>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    OpenAi,
    AzureStandard,
    AzureProvisioned,
}

#[derive(Default)]
struct State {
    caches: Caches,
    responses: HashMap<String, Stored>,
    misses: Option<(StdRng, f64)>,
}

/// Who asks, and with what.
struct Caller<'a> {
    account: String,
    body: &'a Value,
    desk: &'a Desk<'a>,
}

type Checked<T> = Result<T, Box<Reply>>;

impl Default for OpenAi {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenAi {
    /// api.openai.com.
    pub fn new() -> Self {
        Self::on(Host::OpenAi)
    }

    /// Azure, Standard pay-as-you-go: 30 minutes is the only lifetime.
    pub fn azure() -> Self {
        Self::on(Host::AzureStandard)
    }

    /// Azure, provisioned throughput (PTU-M): no breakpoints, no write counter, no fee for writes.
    pub fn azure_ptu() -> Self {
        Self::on(Host::AzureProvisioned)
    }

    fn on(host: Host) -> Self {
        OpenAi {
            host,
            region: String::new(),
            is_zero_retention: false,
            visible_after_ms: 0,
            organizations: HashMap::new(),
            state: Mutex::default(),
        }
    }

    /// In this region: caches of another are not seen. (One emulator is in one region; two share nothing anyhow.)
    #[must_use]
    pub fn region(mut self, region: &str) -> Self {
        region.clone_into(&mut self.region);
        self
    }

    /// With zero data retention: nothing is stored, and older models keep their caches in memory only.
    #[must_use]
    pub fn zero_retention(mut self) -> Self {
        self.is_zero_retention = true;
        self
    }

    /// The key belongs to this organization. A key without one is an organization of its own.
    #[must_use]
    pub fn organization(mut self, key: &str, organization: &str) -> Self {
        self.organizations
            .insert(key.to_owned(), organization.to_owned());
        self
    }

    /// Cache entries can be read only so long after the request that wrote them.
    #[must_use]
    pub fn writes_visible_after(mut self, delay: Duration) -> Self {
        self.visible_after_ms = i64::try_from(delay.as_millis()).unwrap();
        self
    }

    /// A lookup misses with probability `p` though there is an entry; the same seed, the same misses.
    #[must_use]
    pub fn random_misses(self, seed: u64, p: f64) -> Self {
        self.state.lock().unwrap().misses = Some((StdRng::seed_from_u64(seed), p));
        self
    }

    fn is_azure(&self) -> bool {
        self.host != Host::OpenAi
    }

    fn account(&self, request: &RawRequest) -> Checked<String> {
        let key = if self.is_azure() {
            request.header("api-key")
        } else {
            request.bearer()
        };
        match key.map(str::trim).filter(|key| !key.is_empty()) {
            Some(key) => Ok(self
                .organizations
                .get(key)
                .cloned()
                .unwrap_or_else(|| key.to_owned())),
            None => Err(Box::new(self.unauthorized())),
        }
    }

    fn unauthorized(&self) -> Reply {
        if self.is_azure() {
            let message = "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a \
                           valid key for an active subscription and use a correct regional API endpoint for your resource.";
            return Reply::json(401, &json!({"error": {"code": "401", "message": message}}));
        }
        let message = "You didn't provide an API key. You need to provide your API key in an Authorization header using \
                       Bearer auth (i.e. Authorization: Bearer YOUR_KEY).";
        chat_wire::error(401, message, "invalid_request_error", None, None)
    }

    fn invalid_url(&self, request: &RawRequest) -> Box<Reply> {
        if self.is_azure() {
            return Box::new(Reply::json(
                404,
                &json!({"error": {"code": "404", "message": "Resource not found"}}),
            ));
        }
        let message = format!("Invalid URL ({} {})", request.method, request.path);
        Box::new(chat_wire::error(
            404,
            &message,
            "invalid_request_error",
            None,
            None,
        ))
    }

    fn route(&self, request: &RawRequest, desk: &Desk<'_>) -> Checked<Reply> {
        let (path, deployment) = self.path(request)?;
        let account = self.account(request)?;
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["models"]) => Ok(models(desk)),
            ("GET", ["models", name]) => {
                model::check(name)?;
                Ok(Reply::json(200, &model_value(name, desk)))
            }
            ("POST", ["chat", "completions"]) => {
                let mut body = check::body(request)?;
                if let Some(deployment) = deployment {
                    body["model"] = json!(deployment);
                }
                self.chat(&Caller {
                    account,
                    body: &body,
                    desk,
                })
            }
            ("POST", ["responses"]) => {
                let body = check::body(request)?;
                self.respond(&Caller {
                    account,
                    body: &body,
                    desk,
                })
            }
            ("GET", ["responses", id]) => self.stored(&account, id, desk),
            ("DELETE", ["responses", id]) => self.delete_stored(&account, id, desk),
            ("POST", path) => {
                let endpoint = beside::endpoint(path).ok_or_else(|| self.invalid_url(request))?;
                let (mut body, form) = beside::body(request)?;
                if let Some(deployment) = deployment {
                    body["model"] = json!(deployment);
                }
                let caller = Caller {
                    account,
                    body: &body,
                    desk,
                };
                endpoint(&Asked { caller, form })
            }
            _ => Err(self.invalid_url(request)),
        }
    }

    /// The path below the API's root, and the deployment named by Azure's older paths.
    fn path<'a>(&self, request: &'a RawRequest) -> Checked<(&'a str, Option<&'a str>)> {
        let path = request.path.as_str();
        if !self.is_azure() {
            return Ok((path.strip_prefix("/v1/").unwrap_or(path), None));
        }
        if let Some(rest) = path.strip_prefix("/openai/v1/") {
            return Ok((rest, None));
        }
        let deployed = path
            .strip_prefix("/openai/deployments/")
            .and_then(|rest| rest.split_once('/'));
        match deployed {
            Some((deployment, rest))
                if request
                    .query_value("api-version")
                    .is_some_and(|version| !version.is_empty()) =>
            {
                Ok((rest, Some(deployment)))
            }
            _ => Err(self.invalid_url(request)),
        }
    }

    fn look_up(&self, caller: &Caller<'_>, era: Era, prompt: &Prompt) -> Found {
        let state = &mut *self.state.lock().unwrap();
        let is_missed = state
            .misses
            .as_mut()
            .is_some_and(|(random, p)| random.random_bool(*p));
        let delay_ms = i64::try_from(caller.desk.start_delay.as_millis()).unwrap();
        let now_ms = caller.desk.now_ms;
        match era {
            Era::Breakpoints => {
                let visible_ms = now_ms + delay_ms + self.visible_after_ms;
                let mut found = state.caches.explicit(prompt, now_ms, visible_ms, is_missed);
                if self.host == Host::AzureProvisioned {
                    found.writes.clear();
                }
                found
            }
            Era::Routed { caches: false, .. } => Found::default(),
            Era::Routed {
                interval, has_day, ..
            } => {
                let retention = caller.body["prompt_cache_retention"].as_str();
                let is_day = has_day
                    && retention.map_or(!self.is_zero_retention, |retention| retention == "24h");
                state
                    .caches
                    .routed(prompt, interval, is_day, now_ms, is_missed)
            }
        }
    }

    fn charge(
        caller: &Caller<'_>,
        kind: &str,
        prompt: &Prompt,
        found: &Found,
        output: u64,
    ) -> Charge {
        Charge {
            kind: kind.to_owned(),
            account: caller.account.clone(),
            model: caller.body["model"].as_str().unwrap_or_default().to_owned(),
            uncached_input: prompt.tokens() - found.read - found.written(),
            cache_read: found.read,
            cache_write: found.writes.clone(),
            output,
            reported: true,
            ..Charge::default()
        }
    }
}

fn models(desk: &Desk<'_>) -> Reply {
    let data: Vec<Value> = MODELS.iter().map(|name| model_value(name, desk)).collect();
    Reply::json(200, &json!({"object": "list", "data": data}))
}

fn model_value(name: &str, desk: &Desk<'_>) -> Value {
    json!({"id": name, "object": "model", "created": desk.now_ms / 1000, "owned_by": "openai"})
}

impl Family for OpenAi {
    fn name(&self) -> &'static str {
        match self.host {
            Host::OpenAi => "openai",
            Host::AzureStandard => "azure",
            Host::AzureProvisioned => "azure-ptu",
        }
    }

    fn answer(&self, request: &RawRequest, desk: &Desk<'_>) -> Reply {
        let reply = self.route(request, desk).unwrap_or_else(|refusal| *refusal);
        reply.header("x-request-id", format!("req_{:08x}", desk.next_id()))
    }

    fn failure(&self, status: u16) -> Reply {
        if self.is_azure() && status == 401 {
            return self.unauthorized();
        }
        chat_wire::failure(status)
    }

    fn failure_in_stream(&self) -> Bytes {
        chat_wire::failure_in_stream()
    }

    fn evict_all(&self) {
        let state = &mut *self.state.lock().unwrap();
        state.caches = Caches::default();
        state.responses.clear();
    }
}
