//! Moonshot Kimi (facts 2.7): every request writes at the tier it names or at five minutes, and K3 charges for it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::chain::{Chain, ChainRules, Lookup};
use super::envelope::Envelope;
use super::reasoning::Reasoning;
use super::{Facts, Hit, Provider, Refusal, Turn};
use crate::RawRequest;
use crate::families::chat_wire::{self, Completion, UsagePlace};

static FACTS: Facts = Facts {
    name: "kimi",
    base_paths: &["/v1"],
    models: &["kimi-k3", "kimi-k3.1-pro", "kimi-k2.6"],
    owner: "moonshot",
    needs_key: true,
    envelope: Envelope::Short,
    knows_developer: false,
    allows_no_output: false,
    // Thinking text is a part of the history here.
    ignored: &["refusal", "annotations"],
    reasoning: Reasoning::Typed,
};

/// Measured granularity, tokens [M].
const STEP: u64 = 256;
/// A prompt must exceed 256 tokens.
const MIN: u64 = 257;

pub(super) struct Kimi {
    chain: Mutex<Chain>,
}

impl Kimi {
    pub(super) fn new() -> Self {
        Kimi {
            chain: Mutex::new(Chain::new(ChainRules {
                step: STEP,
                min: 0,
                idle_ms: None,
                recomputes_last: false,
                has_exact_end: false,
                capacity: 1_000_000,
            })),
        }
    }
}

impl Provider for Kimi {
    fn facts(&self) -> &Facts {
        &FACTS
    }

    fn check(&self, _request: &RawRequest, body: &Value) -> Result<(), Refusal> {
        let refuse = |message: &str| Err(Refusal(message.to_owned()));
        let parts = body["messages"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|message| message["content"].as_array().into_iter().flatten());
        for part in parts {
            if part.get("prompt_cache_breakpoint").is_some() {
                return refuse("prompt_cache_breakpoint is not supported");
            }
        }
        let options = &body["prompt_cache_options"];
        if !options.is_null() && !options.is_object() {
            return refuse("prompt_cache_options must be an object");
        }
        if !matches!(&options["mode"], Value::Null) && options["mode"] != "implicit" {
            return refuse("prompt_cache_options.mode must be implicit");
        }
        if !matches!(&options["ttl"], Value::Null)
            && options["ttl"] != "5m"
            && options["ttl"] != "1h"
        {
            return refuse("prompt_cache_options.ttl must be one of 5m, 1h");
        }
        Ok(())
    }

    fn meet(&self, turn: &Turn<'_>) -> Hit {
        if turn.prompt.tokens() < MIN {
            return Hit::default();
        }
        let ttl_seconds: u64 = match turn.body["prompt_cache_options"]["ttl"].as_str() {
            Some("1h") => 3600,
            _ => 300,
        };
        let key = turn.body["prompt_cache_key"].as_str().unwrap_or_default();
        // A change of effort invalidates, one of tool_choice doesn't.
        let effort = format!("{}{}", turn.body["reasoning_effort"], turn.body["thinking"]);
        let done = self.chain.lock().unwrap().meet(&Lookup {
            now_ms: turn.now_ms,
            visible_ms: turn.visible_ms,
            salt: &format!("{}\n{}\n{key}\n{effort}", turn.account, turn.model),
            prompt: &turn.prompt.token_ids(),
            tail: &[],
            is_missed: turn.is_missed,
            idle_ms: Some(i64::try_from(ttl_seconds).unwrap() * 1000),
        });
        let write = if has_paid_writes(turn.model) && done.written > 0 {
            BTreeMap::from([(ttl_seconds, done.written)])
        } else {
            BTreeMap::new()
        };
        Hit {
            write,
            ..Hit::read(done.read)
        }
    }

    fn finish(&self, turn: &Turn<'_>, hit: &Hit, completion: &mut Completion) {
        if has_paid_writes(turn.model) {
            completion.usage["prompt_tokens_details"]["cache_write_tokens"] = json!(hit.written());
            return;
        }
        // The older models [?]: the counter at the top, and in a stream always in the last choice.
        completion.usage["cached_tokens"] = json!(hit.read);
        if !chat_wire::wants_usage(turn.body) {
            completion.quirks.usage_place = UsagePlace::FinishChoice;
            completion.include_usage = true;
        }
    }

    fn clear(&self) {
        self.chain.lock().unwrap().clear();
    }
}

fn has_paid_writes(model: &str) -> bool {
    model.starts_with("kimi-k3")
}
