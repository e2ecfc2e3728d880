//! Providers and engines that speak OpenAI's Chat Completions and cache each in its own way (facts 2.6 to 2.14, 3).
//!
//! What all of them do is here: the key, the routes, reading a request, the answer, the charge. What one of them does
//! is its [`Provider`]: data where the rule is data ([`automatic`]), code where it is code.

mod automatic;
mod chain;
mod deepseek;
mod engines;
mod envelope;
mod kimi;
mod llama_server;
mod markers;
mod openrouter;
mod prompt;
mod qwen;
mod qwen_responses;
mod reasoning;
mod slots;
mod units;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::chat_wire::{self, Completion};
use crate::{Charge, Desk, Family, RawRequest, Reply, UsageFault, hash_hex};

use envelope::Envelope;
use prompt::Prompt;
use reasoning::Reasoning;

pub use engines::EngineOptions;
pub use openrouter::ProviderFlip;
pub use qwen::QwenOptions;
pub use slots::LlamaServerOptions;

/// The account of requests without a key, where none is needed.
const NOBODY: &str = "";

/// What is known about a provider before any request.
struct Facts {
    name: &'static str,
    /// What may follow the host; the first one is the usual one.
    base_paths: &'static [&'static str],
    models: &'static [&'static str],
    owner: &'static str,
    /// Whether a request without `Authorization: Bearer` is refused.
    needs_key: bool,
    envelope: Envelope,
    /// Whether the role `developer` is one.
    knows_developer: bool,
    /// Whether an answer of no tokens may be asked for.
    allows_no_output: bool,
    /// Fields of messages that the template leaves out of the prompt.
    ignored: &'static [&'static str],
    /// Which fields say how much the model is to think.
    reasoning: Reasoning,
}

/// Fields of an assistant message that most templates leave out when it is a part of the history.
const NOT_IN_HISTORY: &[&str] = &[
    "refusal",
    "reasoning_content",
    "reasoning",
    "annotations",
    "audio",
];

/// A chat request that has been checked, and the answer to it.
struct Turn<'a> {
    request: &'a RawRequest,
    body: &'a Value,
    account: &'a str,
    model: &'a str,
    now_ms: i64,
    /// When cache entries that this request writes can be read.
    visible_ms: i64,
    /// Drawn for this request, 0 to 1.
    lot: f64,
    /// The cache must miss.
    is_missed: bool,
    prompt: &'a Prompt,
    /// The answer as it will be in the history of the next request.
    said: &'a [u64],
    /// Generated tokens, thinking included, all choices.
    output: u64,
    /// Ordered for this request.
    usage_fault: Option<UsageFault>,
    /// The completion's id.
    id: &'a str,
}

/// What a cache did for one request, input tokens.
#[derive(Debug, Clone, Default)]
struct Hit {
    read: u64,
    /// By lifetime in seconds.
    write: BTreeMap<u64, u64>,
    /// Whether the request chose explicit caching.
    is_explicit: bool,
    /// Who served it, where a provider has servers of its own.
    server: String,
}

impl Hit {
    fn read(read: u64) -> Self {
        Hit {
            read,
            ..Hit::default()
        }
    }

    fn written(&self) -> u64 {
        self.write.values().sum()
    }
}

/// Why a request is refused.
struct Refusal(String);

/// Everything that differs between providers.
trait Provider: Send + Sync + 'static {
    fn facts(&self) -> &Facts;

    /// Refuses what this provider refuses beyond what all do, with status 400.
    fn check(&self, _request: &RawRequest, _body: &Value) -> Result<(), Refusal> {
        Ok(())
    }

    /// Reads and writes the cache.
    fn meet(&self, turn: &Turn<'_>) -> Hit;

    /// Puts usage and manners into the completion, which holds [`usage`] already.
    fn finish(&self, turn: &Turn<'_>, hit: &Hit, completion: &mut Completion);

    /// Further headers and the like.
    fn seal(&self, _turn: &Turn<'_>, _hit: &Hit, reply: Reply) -> Reply {
        reply
    }

    /// Answers what is neither a chat nor the list of models. `account` is `None` when a key is needed and missing;
    /// `path` is what follows the base path, if the request's begins with that.
    fn other_route(
        &self,
        _request: &RawRequest,
        _path: Option<&str>,
        _desk: &Desk<'_>,
        _account: Option<&str>,
    ) -> Option<Reply> {
        None
    }

    /// How a stream of this provider reports an error.
    fn failure_in_stream(&self) -> Bytes {
        chat_wire::failure_in_stream()
    }

    /// Forgets every entry and handle.
    fn clear(&self);
}

/// An emulated provider with an OpenAI-compatible chat route.
pub struct Compatible {
    provider: Box<dyn Provider>,
    late_ms: i64,
    misses: f64,
    lots: Mutex<StdRng>,
}

impl Compatible {
    fn new(provider: impl Provider) -> Self {
        Compatible {
            provider: Box::new(provider),
            late_ms: 0,
            misses: 0.0,
            lots: Mutex::new(StdRng::seed_from_u64(0)),
        }
    }

    /// Alibaba DashScope: Qwen's explicit, implicit and session caches.
    pub fn qwen() -> Self {
        Self::qwen_with(QwenOptions::default())
    }

    /// DashScope with other odds.
    pub fn qwen_with(options: QwenOptions) -> Self {
        Self::new(qwen::Qwen::new(options))
    }

    /// Moonshot Kimi: every request writes at a tier.
    pub fn kimi() -> Self {
        Self::new(kimi::Kimi::new())
    }

    /// DeepSeek: persisted prefix units that take five seconds to build.
    pub fn deepseek() -> Self {
        Self::deepseek_with(Duration::from_secs(5))
    }

    /// DeepSeek with units that take so long to build.
    pub fn deepseek_with(build: Duration) -> Self {
        Self::new(deepseek::DeepSeek::new(build))
    }

    /// Zhipu GLM (z.ai): entries appear ten seconds after the request that wrote them.
    pub fn zhipu() -> Self {
        Self::new(automatic::zhipu())
    }

    /// MiniMax's OpenAI route: passive caching.
    pub fn minimax() -> Self {
        Self::new(automatic::minimax())
    }

    /// xAI: entries per server, servers chosen by `x-grok-conv-id`.
    pub fn xai() -> Self {
        Self::new(automatic::xai())
    }

    /// Mistral: entries found again by `prompt_cache_key`.
    pub fn mistral() -> Self {
        Self::new(automatic::mistral())
    }

    /// Groq: only the gpt-oss models cache, for two idle hours.
    pub fn groq() -> Self {
        Self::new(automatic::groq())
    }

    /// Fireworks, serverless: entries per replica, accounts apart.
    pub fn fireworks() -> Self {
        Self::new(automatic::fireworks(false, false))
    }

    /// Fireworks whose bodies say nothing about cached tokens; only the headers do.
    pub fn fireworks_headers_only() -> Self {
        Self::new(automatic::fireworks(true, false))
    }

    /// A dedicated Fireworks deployment: all keys share entries unless `x-prompt-cache-isolation-key` separates them.
    pub fn fireworks_dedicated() -> Self {
        Self::new(automatic::fireworks(false, true))
    }

    /// Together.
    pub fn together() -> Self {
        Self::new(automatic::together(false))
    }

    /// Together with `usage.cached_tokens` instead of the details [?].
    pub fn together_top_level() -> Self {
        Self::new(automatic::together(true))
    }

    /// OpenRouter with several providers behind it.
    pub fn openrouter() -> Self {
        Self::openrouter_with(&ProviderFlip::default())
    }

    /// OpenRouter with a switch that makes it change the provider.
    pub fn openrouter_with(flip: &ProviderFlip) -> Self {
        Self::new(openrouter::OpenRouter::new(flip.clone()))
    }

    /// Something that speaks the wire and caches nothing.
    pub fn openai_compatible() -> Self {
        Self::new(automatic::openai_compatible())
    }

    /// vLLM that reports cached tokens and allows resets.
    pub fn vllm() -> Self {
        Self::vllm_with(EngineOptions::vllm())
    }

    /// vLLM started in this way.
    pub fn vllm_with(options: EngineOptions) -> Self {
        Self::new(engines::Engine::vllm(options))
    }

    /// SGLang with `--enable-cache-report`.
    pub fn sglang() -> Self {
        Self::sglang_with(EngineOptions::sglang())
    }

    /// SGLang started in this way.
    pub fn sglang_with(options: EngineOptions) -> Self {
        Self::new(engines::Engine::sglang(options))
    }

    /// llama.cpp's server with four slots that can be saved.
    pub fn llama_server() -> Self {
        Self::llama_server_with(LlamaServerOptions::default())
    }

    /// llama.cpp's server started in this way.
    pub fn llama_server_with(options: LlamaServerOptions) -> Self {
        Self::new(llama_server::LlamaServer::new(options))
    }

    /// Ollama's OpenAI route.
    pub fn ollama() -> Self {
        Self::new(llama_server::Ollama::new())
    }

    /// What follows the host in the base URL.
    pub fn base_path(&self) -> &'static str {
        self.provider.facts().base_paths[0]
    }

    /// With this probability a request misses though its prefix is cached; the same seed, the same misses.
    #[must_use]
    pub fn random_misses(mut self, seed: u64, probability: f64) -> Self {
        self.misses = probability;
        self.lots = Mutex::new(StdRng::seed_from_u64(seed));
        self
    }

    /// Entries can be read so long after they were written, beyond the provider's own delay.
    #[must_use]
    pub fn late_writes(mut self, by: Duration) -> Self {
        self.late_ms = i64::try_from(by.as_millis()).unwrap();
        self
    }

    fn error(&self, status: u16, message: &str, code: &str) -> Reply {
        self.provider.facts().envelope.reply(status, message, code)
    }

    /// The path behind the base path. The longest base path counts, so that `/v1` isn't read as a path of its own.
    fn route<'a>(&self, path: &'a str) -> Option<&'a str> {
        self.provider
            .facts()
            .base_paths
            .iter()
            .filter_map(|base| path.strip_prefix(base))
            .filter(|rest| rest.starts_with('/'))
            .min_by_key(|rest| rest.len())
    }

    fn models(&self) -> Reply {
        let facts = self.provider.facts();
        let data: Vec<Value> = facts
            .models
            .iter()
            .map(|model| json!({"id": model, "object": "model", "created": 0, "owned_by": facts.owner}))
            .collect();
        Reply::json(200, &json!({"object": "list", "data": data}))
    }

    fn check(&self, request: &RawRequest) -> Result<Value, Refusal> {
        let facts = self.provider.facts();
        let refuse = |message: &str| Err(Refusal(message.to_owned()));
        let Some(body) = request.json().filter(Value::is_object) else {
            return refuse("The body is not a JSON object.");
        };
        if body["model"].as_str().is_none_or(str::is_empty) {
            return refuse("you must provide a model parameter");
        }
        let Some(messages) = body["messages"]
            .as_array()
            .filter(|messages| !messages.is_empty())
        else {
            return refuse("[] is too short - 'messages'");
        };
        for message in messages {
            let is_known = match message["role"].as_str() {
                Some("system" | "user" | "assistant" | "tool") => true,
                Some("developer") => facts.knows_developer,
                _ => false,
            };
            if !is_known {
                return refuse(
                    "messages: unknown role; expected one of `system`, `user`, `assistant`, `tool`",
                );
            }
            let has_content = match &message["content"] {
                Value::String(_) => true,
                Value::Array(parts) => parts.iter().all(|part| part["type"].is_string()),
                Value::Null => message["role"] == "assistant",
                _ => false,
            };
            if !has_content {
                return refuse("messages: content must be a string or a list of typed parts");
            }
        }
        if chat_wire::output_limit(&body) == Some(0) && !facts.allows_no_output {
            return refuse("max_tokens must be at least 1, got 0.");
        }
        facts.reasoning.check(&body)?;
        self.provider.check(request, &body)?;
        Ok(body)
    }

    fn chat(&self, request: &RawRequest, desk: &Desk<'_>, account: &str) -> Reply {
        let body = match self.check(request) {
            Ok(body) => body,
            Err(Refusal(message)) => return self.error(400, &message, "invalid_parameter_error"),
        };
        let facts = self.provider.facts();
        let prompt = Prompt::read(&body, facts.ignored);
        let input = prompt.tokens();
        let model = body["model"].as_str().unwrap_or_default();
        let id = format!(
            "chatcmpl-{}",
            hash_hex(&format!("{} {}", facts.name, desk.next_id()))
        );
        let forced = chat_wire::forced_tool(&body);
        let mut answer = desk.script.take(input, forced.as_deref());
        if facts.reasoning.is_off(&body) {
            answer.reasoning.clear();
        }
        let answer = chat_wire::limited(answer, chat_wire::output_limit(&body));
        let output = chat_wire::output_tokens(&answer) * chat_wire::choices(&body);
        let mut completion = Completion::new(&body, id.clone(), desk.now_ms, answer, Value::Null);
        completion.usage_fault = desk.usage_fault;
        let said = said(&completion, facts.ignored);
        let lot = self.lots.lock().unwrap().random_range(0.0..1.0);
        let turn = Turn {
            request,
            body: &body,
            account,
            model,
            now_ms: desk.now_ms,
            visible_ms: begins_ms(desk) + self.late_ms,
            lot,
            is_missed: lot < self.misses,
            prompt: &prompt,
            said: &said,
            output,
            usage_fault: desk.usage_fault,
            id: &id,
        };
        let hit = self.provider.meet(&turn);
        completion.usage = usage(&completion, input, output, hit.read);
        self.provider.finish(&turn, &hit, &mut completion);
        let charge = Charge {
            kind: "chat".to_owned(),
            account: account.to_owned(),
            model: model.to_owned(),
            uncached_input: input - hit.read - hit.written(),
            cache_read: hit.read,
            cache_write: hit.write.clone(),
            output,
            ..Charge::default()
        };
        let reply = completion
            .reply(chat_wire::wants_stream(&body))
            .charge(charge);
        self.provider.seal(&turn, &hit, reply)
    }
}

impl Family for Compatible {
    fn name(&self) -> &'static str {
        self.provider.facts().name
    }

    fn answer(&self, request: &RawRequest, desk: &Desk<'_>) -> Reply {
        let facts = self.provider.facts();
        let key = request.bearer().filter(|key| !key.is_empty());
        let account = key.or((!facts.needs_key).then_some(NOBODY));
        let path = self.route(&request.path);
        if let Some(reply) = self.provider.other_route(request, path, desk, account) {
            return reply;
        }
        let Some(path) = path else {
            return self.error(404, "Not Found", "not_found");
        };
        let Some(account) = account else {
            return facts.envelope.failure(401);
        };
        match (request.method.as_str(), path) {
            ("POST", "/chat/completions") => self.chat(request, desk, account),
            ("GET", "/models") => self.models(),
            (_, "/chat/completions" | "/models") => {
                self.error(405, "Method Not Allowed", "method_not_allowed")
            }
            _ => self.error(404, "Not Found", "not_found"),
        }
    }

    fn failure(&self, status: u16) -> Reply {
        self.provider.facts().envelope.failure(status)
    }

    fn failure_in_stream(&self) -> Bytes {
        self.provider.failure_in_stream()
    }

    fn evict_all(&self) {
        self.provider.clear();
    }
}

/// When the response begins: what a request writes can't be read before.
fn begins_ms(desk: &Desk<'_>) -> i64 {
    desk.now_ms + i64::try_from(desk.start_delay.as_millis()).unwrap()
}

/// The answer's tokens as a message of the next prompt.
fn said(completion: &Completion, ignored: &[&str]) -> Vec<u64> {
    let mut message = completion.json()["choices"][0]["message"].clone();
    if let Some(fields) = message.as_object_mut() {
        // Clients send back what they got, but nobody sends these.
        fields.retain(|name, _| name != "refusal" && name != "annotations");
    }
    Prompt::read(&json!({"messages": [message]}), ignored).token_ids()
}

/// The usage that OpenAI would report, cached tokens included in the total.
fn usage(completion: &Completion, input: u64, output: u64, cached: u64) -> Value {
    let reasoning = chat_wire::reasoning_tokens(&completion.answer) * completion.n;
    json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": input + output,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    })
}

/// Leaves fields out of the usage.
fn without(usage: &mut Value, names: &[&str]) {
    if let Some(fields) = usage.as_object_mut() {
        fields.retain(|name, _| !names.contains(&name.as_str()));
    }
}
