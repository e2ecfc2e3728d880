//! vLLM and SGLang (facts 3.1, 3.2): hashed blocks of tokens, the answer's included, that anyone with the same salt
//! reads for nothing.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::chain::{Chain, ChainRules, Lookup};
use super::envelope::Envelope;
use super::reasoning::Reasoning;
use super::{Facts, Hit, NOT_IN_HISTORY, Provider, Refusal, Turn};
use crate::families::chat_wire::{Completion, UsagePlace};
use crate::{Desk, RawRequest, Reply};

static VLLM: Facts = Facts {
    name: "vllm",
    base_paths: &["/v1"],
    models: &["model"],
    owner: "vllm",
    needs_key: false,
    envelope: Envelope::Vllm,
    knows_developer: true,
    allows_no_output: false,
    ignored: NOT_IN_HISTORY,
    reasoning: Reasoning::Template,
};

static SGLANG: Facts = Facts {
    name: "sglang",
    envelope: Envelope::Object,
    owner: "sglang",
    ..VLLM
};

/// How an engine was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// `--block-size` or `--page-size`, tokens.
    pub block_tokens: u64,
    /// Most blocks that are kept.
    pub blocks_max: usize,
    /// `--enable-prompt-tokens-details` or `--enable-cache-report`; without it the details are null.
    pub reports_cached_tokens: bool,
    /// Whether the details vanish where nothing was cached, as some versions do.
    pub drops_zero: bool,
    /// Whether the cache can be reset over HTTP (vLLM: dev mode).
    pub allows_reset: bool,
}

impl EngineOptions {
    /// vLLM with prompt token details, in dev mode.
    pub fn vllm() -> Self {
        EngineOptions {
            block_tokens: 16,
            blocks_max: 1_000_000,
            reports_cached_tokens: true,
            drops_zero: false,
            allows_reset: true,
        }
    }

    /// SGLang with the cache report; pages of one token.
    pub fn sglang() -> Self {
        EngineOptions {
            block_tokens: 1,
            ..EngineOptions::vllm()
        }
    }
}

pub(super) struct Engine {
    facts: &'static Facts,
    options: EngineOptions,
    /// The path that empties the cache.
    reset_path: &'static str,
    /// Fields whose values separate entries.
    salt_fields: &'static [&'static str],
    chain: Mutex<Chain>,
}

impl Engine {
    pub(super) fn vllm(options: EngineOptions) -> Self {
        Self::new(&VLLM, options, "/reset_prefix_cache", &["cache_salt"])
    }

    pub(super) fn sglang(options: EngineOptions) -> Self {
        Self::new(
            &SGLANG,
            options,
            "/flush_cache",
            &["cache_salt", "extra_key"],
        )
    }

    fn new(
        facts: &'static Facts,
        options: EngineOptions,
        reset_path: &'static str,
        salt_fields: &'static [&'static str],
    ) -> Self {
        let chain = Chain::new(ChainRules {
            step: options.block_tokens,
            min: 0,
            idle_ms: None,
            recomputes_last: true,
            has_exact_end: false,
            capacity: options.blocks_max,
        });
        Engine {
            facts,
            options,
            reset_path,
            salt_fields,
            chain: Mutex::new(chain),
        }
    }
}

impl Provider for Engine {
    fn facts(&self) -> &Facts {
        self.facts
    }

    fn check(&self, _request: &RawRequest, body: &Value) -> Result<(), Refusal> {
        let salt = &body["cache_salt"];
        if !salt.is_null() && salt.as_str().is_none_or(str::is_empty) {
            let message = "Parameter 'cache_salt' must be a non-empty string if provided.";
            return Err(Refusal(message.to_owned()));
        }
        Ok(())
    }

    fn meet(&self, turn: &Turn<'_>) -> Hit {
        let mut salt = turn.model.to_owned();
        for field in self.salt_fields {
            salt.push_str(&format!("\n{}", turn.body[field]));
        }
        let done = self.chain.lock().unwrap().meet(&Lookup {
            now_ms: turn.now_ms,
            visible_ms: turn.visible_ms,
            salt: &salt,
            prompt: &turn.prompt.token_ids(),
            tail: turn.said,
            is_missed: turn.is_missed,
            idle_ms: None,
        });
        Hit::read(done.read)
    }

    fn finish(&self, turn: &Turn<'_>, hit: &Hit, completion: &mut Completion) {
        let is_silent =
            !self.options.reports_cached_tokens || (self.options.drops_zero && hit.read == 0);
        if is_silent {
            completion.usage["prompt_tokens_details"] = Value::Null;
        }
        if completion.include_usage && turn.body["stream_options"]["continuous_usage_stats"] == true
        {
            completion.quirks.usage_place = UsagePlace::EveryChunk;
        }
    }

    fn other_route(
        &self,
        request: &RawRequest,
        _path: Option<&str>,
        _desk: &Desk<'_>,
        _account: Option<&str>,
    ) -> Option<Reply> {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/health") => Some(Reply::json(200, &json!({}))),
            ("POST", path) if path == self.reset_path && self.options.allows_reset => {
                self.clear();
                Some(Reply::json(200, &json!({"success": true})))
            }
            _ => None,
        }
    }

    fn clear(&self) {
        self.chain.lock().unwrap().clear();
    }
}
