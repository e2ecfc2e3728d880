//! Google Gemini API and Vertex AI (facts 2.4 and section 4).
//!
//! ```text
//! POST /v1beta/models/{m}:generateContent, :streamGenerateContent (?alt=sse), :countTokens      Gemini API
//! POST, GET /v1beta/cachedContents    GET, PATCH, DELETE /v1beta/cachedContents/{id}
//! GET  /v1beta/models, /v1beta/models/{m}
//! ...  /v1/projects/{p}/locations/{l}/publishers/google/models/{m}:...                          Vertex AI
//! ...  /v1/projects/{p}/locations/{l}/cachedContents
//! POST /token                                                                                   OAuth, for both
//! ```
//!
//! A cache is a resource with a name and a fixed end. It is a prefix: system instruction, tools and contents. Usage
//! counts include what was cached.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};

use self::caches::Caches;
use self::error::{Status, error, error_with_details, invalid, unauthenticated};
use self::generate::Form;
use self::prompt::Strictness;
use crate::{Bill, Body, Charge, Desk, Family, RawRequest, Reply};

mod caches;
mod error;
mod generate;
mod media;
mod messages;
mod oauth;
mod prompt;
mod proto;
mod signature;
mod thinking;

pub use oauth::{
    SERVICE_ACCOUNT_EMAIL, SERVICE_ACCOUNT_KEY_ID, SERVICE_ACCOUNT_PRIVATE_KEY_PEM,
    SERVICE_ACCOUNT_PROJECT, SERVICE_ACCOUNT_PUBLIC_KEY_PEM, service_account_json,
};

/// Keys that begin with this are refused.
pub const INVALID_KEY_PREFIX: &str = "invalid";

/// Least tokens of a cache where the model isn't listed below (facts 2.4: errors show 1024).
const CACHE_TOKENS_MIN: u64 = 1024;
/// Least tokens of a cache by model (facts 7).
const CACHE_TOKENS_MIN_OF: &[(&str, u64)] = &[
    ("gemini-4-argon", 4096),
    ("gemini-3.8-flash", 4096),
    ("gemini-3.1-pro-preview", 4096),
    ("gemini-2.5-pro", 2048),
    ("gemini-2.5-flash", 2048),
];
/// Models that are listed. Any other whose name begins with `gemini-` is answered too.
const MODELS: &[&str] = &[
    "gemini-4-argon",
    "gemini-3.8-flash",
    "gemini-3.5-flash-lite",
    "gemini-3.1-pro-preview",
    "gemini-2.5-pro",
    "gemini-2.5-flash",
];
/// Largest request on Vertex AI, bytes (facts 2.4: 10 MB inline).
const VERTEX_BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

type Checked<T> = Result<T, Box<Reply>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    GeminiApi,
    Vertex,
}

/// The family. Clones share caches and tokens, so a test can keep one and give the other to the emulator.
#[derive(Debug, Clone)]
pub struct Gemini {
    host: Host,
    projects: HashMap<String, String>,
    bearer_tokens: Vec<String>,
    cache_tokens_min: HashMap<String, u64>,
    cache_tokens_min_default: u64,
    has_implicit: bool,
    alternates: bool,
    needs_signatures: bool,
    error_is_event: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    caches: Caches,
    /// Hashes of beginnings of prompts, for implicit caching.
    seen: HashSet<[u8; 32]>,
    issued: Vec<oauth::Issued>,
}

/// Who asks.
struct Call<'a> {
    /// For the bill: the project.
    account: String,
    /// What separates caches: the project, on Vertex AI with the location (`project/location`).
    scope: String,
    desk: &'a Desk<'a>,
}

impl Default for Gemini {
    fn default() -> Self {
        Self::new()
    }
}

impl Gemini {
    /// generativelanguage.googleapis.com. Any key is accepted (in `x-goog-api-key` or `?key=`) and is a project of its
    /// own, see [`Gemini::key`].
    pub fn new() -> Self {
        Self::on(Host::GeminiApi)
    }

    /// aiplatform.googleapis.com. Accepts this bearer token for any project, and what `POST /token` gives out.
    pub fn vertex(bearer_token: &str) -> Self {
        Gemini {
            bearer_tokens: vec![bearer_token.to_owned()],
            ..Self::on(Host::Vertex)
        }
    }

    fn on(host: Host) -> Self {
        Gemini {
            host,
            projects: HashMap::new(),
            bearer_tokens: Vec::new(),
            cache_tokens_min: CACHE_TOKENS_MIN_OF
                .iter()
                .map(|(model, tokens)| ((*model).to_owned(), *tokens))
                .collect(),
            cache_tokens_min_default: CACHE_TOKENS_MIN,
            has_implicit: false,
            alternates: true,
            needs_signatures: false,
            error_is_event: false,
            state: Arc::default(),
        }
    }

    /// This API key belongs to this project. On Vertex AI, where keys are the exception, only such keys are accepted,
    /// and only for their project.
    #[must_use]
    pub fn key(mut self, key: &str, project: &str) -> Self {
        self.projects.insert(key.to_owned(), project.to_owned());
        self
    }

    /// The least a cache of this model must hold, tokens.
    #[must_use]
    pub fn min_tokens(mut self, model: &str, tokens: u64) -> Self {
        self.cache_tokens_min.insert(model.to_owned(), tokens);
        self
    }

    /// The least a cache of any model must hold, tokens.
    #[must_use]
    pub fn min_tokens_of_all(mut self, tokens: u64) -> Self {
        self.cache_tokens_min.clear();
        self.cache_tokens_min_default = tokens;
        self
    }

    /// With implicit caching: the longest beginning that an earlier prompt had too, from 4096 tokens on, counts as
    /// cached. Off otherwise, so that a test of explicit caches sees nothing else.
    #[must_use]
    pub fn implicit(mut self) -> Self {
        self.has_implicit = true;
        self
    }

    /// Two turns of the same role in a row are accepted, as newer models do. Otherwise only cached material followed
    /// by a question, and text after the results of functions, may repeat a role.
    #[must_use]
    pub fn loose_turns(mut self) -> Self {
        self.alternates = false;
        self
    }

    /// From Gemini 3 on a function call of the current turn without its `thoughtSignature` is refused. (A signature
    /// that was changed is always refused.)
    #[must_use]
    pub fn require_signatures(mut self) -> Self {
        self.needs_signatures = true;
        self
    }

    /// An error inside a stream of events comes as an event, not as a bare object.
    #[must_use]
    pub fn error_as_event(mut self) -> Self {
        self.error_is_event = true;
        self
    }

    /// Puts the storage of all caches up to now on the bill, of those that live on too.
    pub fn settle_storage(&self, bill: &Bill, now_ms: i64) {
        for charge in self.storage_charges(now_ms, true) {
            bill.add(charge);
        }
    }

    /// Tokens that `POST /token` gave out are worth nothing any more.
    pub fn revoke_tokens(&self) {
        self.state.lock().unwrap().issued.clear();
    }

    fn storage_charges(&self, now_ms: i64, is_settlement: bool) -> Vec<Charge> {
        self.state
            .lock()
            .unwrap()
            .caches
            .storage_charges(now_ms, is_settlement)
    }

    fn strictness(&self, model: &str) -> Strictness {
        Strictness {
            host: self.host,
            alternates: self.alternates,
            needs_signatures: self.needs_signatures && thinking::signs(model),
        }
    }

    fn min_tokens_of(&self, model: &str) -> u64 {
        self.cache_tokens_min
            .get(model)
            .copied()
            .unwrap_or(self.cache_tokens_min_default)
    }

    fn known_model(&self, model: &str, method: &str) -> Checked<()> {
        if model.starts_with("gemini-") {
            return Ok(());
        }
        Err(Box::new(error(
            Status::NotFound,
            &match self.host {
                Host::GeminiApi => format!(
                    "models/{model} is not found for API version v1beta, or is not supported for {method}. Call \
                     ListModels to see the list of available models and their supported methods."
                ),
                Host::Vertex => format!(
                    "Publisher Model `publishers/google/models/{model}` was not found or your project does not have \
                     access to it."
                ),
            },
        )))
    }

    fn route(&self, request: &RawRequest, desk: &Desk<'_>) -> Checked<Reply> {
        let path = percent_decoded(&request.path);
        if path == "/token" && request.method == "POST" {
            return Ok(self.token(request, desk));
        }
        match self.host {
            Host::GeminiApi => self.route_gemini_api(request, desk, &path),
            Host::Vertex => self.route_vertex(request, desk, &path),
        }
    }

    fn route_gemini_api(
        &self,
        request: &RawRequest,
        desk: &Desk<'_>,
        path: &str,
    ) -> Checked<Reply> {
        let project = self.project_of_key(request, desk)?;
        let call = Call {
            account: project.clone(),
            scope: project,
            desk,
        };
        let (rest, is_beta) = match (path.strip_prefix("/v1beta/"), path.strip_prefix("/v1/")) {
            (Some(rest), _) => (rest, true),
            (None, Some(rest)) => (rest, false),
            (None, None) => return Err(Box::new(no_route())),
        };
        if rest == "cachedContents" && is_beta {
            return self.cached_contents(request, &call, "");
        }
        if let Some(id) = rest.strip_prefix("cachedContents/").filter(|_| is_beta) {
            return self.cached_contents(request, &call, id);
        }
        if rest == "models" && request.method == "GET" {
            let models: Vec<Value> = MODELS.iter().map(|model| model_json(model)).collect();
            return Ok(Reply::json(200, &json!({"models": models})));
        }
        match rest.strip_prefix("models/") {
            Some(model) if request.method == "GET" && !model.contains(':') => {
                self.known_model(model, "getModel")?;
                Ok(Reply::json(200, &model_json(model)))
            }
            Some(model) => self.model_method(request, &call, model),
            None => Err(Box::new(no_route())),
        }
    }

    fn route_vertex(&self, request: &RawRequest, desk: &Desk<'_>, path: &str) -> Checked<Reply> {
        let rest = path
            .strip_prefix("/v1/")
            .or_else(|| path.strip_prefix("/v1beta1/"));
        let parts: Vec<&str> = rest.unwrap_or_default().splitn(5, '/').collect();
        let ["projects", project, "locations", location, rest] = parts[..] else {
            return Err(Box::new(no_route()));
        };
        self.check_vertex_credentials(request, desk, project)?;
        if request.body.len() > VERTEX_BODY_BYTES_MAX {
            return invalid(format!(
                "Request payload size exceeds the limit: {VERTEX_BODY_BYTES_MAX} bytes."
            ));
        }
        let call = Call {
            account: project.to_owned(),
            scope: format!("{project}/{location}"),
            desk,
        };
        if rest == "cachedContents" {
            return self.cached_contents(request, &call, "");
        }
        if let Some(id) = rest.strip_prefix("cachedContents/") {
            return self.cached_contents(request, &call, id);
        }
        match rest.strip_prefix("publishers/google/models/") {
            Some(model) => self.model_method(request, &call, model),
            None => Err(Box::new(no_route())),
        }
    }

    fn model_method(&self, request: &RawRequest, call: &Call<'_>, path: &str) -> Checked<Reply> {
        let Some((model, method)) = path.rsplit_once(':').filter(|_| request.method == "POST")
        else {
            return Err(Box::new(no_route()));
        };
        match method {
            "generateContent" => self.generate(request, call, model, Form::Whole),
            "streamGenerateContent" => match request.query_value("alt") {
                Some("sse") => self.generate(request, call, model, Form::Events),
                None | Some("json") => self.generate(request, call, model, Form::Array),
                Some(_) => invalid("Invalid value for the 'alt' query parameter."),
            },
            "countTokens" => self.count_tokens(request, call, model),
            _ => Err(Box::new(no_route())),
        }
    }

    fn project_of_key(&self, request: &RawRequest, desk: &Desk<'_>) -> Checked<String> {
        if let Some(token) = request.bearer() {
            return if self.accepts_token(token, desk) {
                Ok(SERVICE_ACCOUNT_PROJECT.to_owned())
            } else {
                Err(Box::new(unauthenticated()))
            };
        }
        let key = request
            .header("x-goog-api-key")
            .or_else(|| request.query_value("key"));
        let Some(key) = key.filter(|key| !key.is_empty()) else {
            return Err(Box::new(error(
                Status::PermissionDenied,
                "Method doesn't allow unregistered callers (callers without established identity). Please use API \
                 Key or other form of API consumer identity to call this API.",
            )));
        };
        if key.starts_with(INVALID_KEY_PREFIX) {
            return Err(Box::new(invalid_key()));
        }
        Ok(self
            .projects
            .get(key)
            .cloned()
            .unwrap_or_else(|| key.to_owned()))
    }

    fn check_vertex_credentials(
        &self,
        request: &RawRequest,
        desk: &Desk<'_>,
        project: &str,
    ) -> Checked<()> {
        if let Some(token) = request.bearer() {
            return if self.accepts_token(token, desk) {
                Ok(())
            } else {
                Err(Box::new(unauthenticated()))
            };
        }
        let Some(key) = request.header("x-goog-api-key") else {
            return Err(Box::new(unauthenticated()));
        };
        match self.projects.get(key) {
            None => Err(Box::new(invalid_key())),
            Some(owner) if owner == project => Ok(()),
            Some(_) => Err(Box::new(error(
                Status::PermissionDenied,
                &format!(
                    "Permission 'aiplatform.endpoints.predict' denied on resource \
                     '//aiplatform.googleapis.com/projects/{project}' (or it may not exist)."
                ),
            ))),
        }
    }

    fn accepts_token(&self, token: &str, desk: &Desk<'_>) -> bool {
        let state = self.state.lock().unwrap();
        self.bearer_tokens.iter().any(|known| known == token)
            || state
                .issued
                .iter()
                .any(|issued| issued.token == token && issued.expires_ms > desk.now_ms)
    }
}

impl Family for Gemini {
    fn name(&self) -> &'static str {
        match self.host {
            Host::GeminiApi => "gemini",
            Host::Vertex => "vertex",
        }
    }

    fn answer(&self, request: &RawRequest, desk: &Desk<'_>) -> Reply {
        self.state.lock().unwrap().caches.sweep(desk.now_ms);
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
        if self.error_is_event {
            error::as_event()
        } else {
            error::in_event_stream()
        }
    }

    fn evict_all(&self) {
        let mut state = self.state.lock().unwrap();
        state.caches.evict_all();
        state.seen.clear();
    }
}

fn invalid_key() -> Reply {
    error_with_details(
        Status::InvalidArgument,
        "API key not valid. Please pass a valid API key.",
        json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com"
        }]),
    )
}

/// A path that isn't served is answered by the front end, in HTML.
fn no_route() -> Reply {
    Reply {
        content_type: "text/html; charset=UTF-8",
        body: Body::Whole(Bytes::from_static(
            b"<!DOCTYPE html>\n<html lang=en>\n<title>Error 404 (Not Found)!!1</title>\n<p><b>404.</b> The requested \
              URL was not found on this server.\n",
        )),
        ..Reply::json(404, &Value::Null)
    }
}

fn model_json(model: &str) -> Value {
    json!({
        "name": format!("models/{model}"),
        "version": "001",
        "displayName": model,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens", "createCachedContent"],
    })
}

/// `%3A` and its like decoded; what isn't such a code stays.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let code = text
            .get(index + 1..index + 3)
            .filter(|_| bytes[index] == b'%');
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                index += 3;
            }
            None => {
                decoded.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
