//! Alibaba DashScope (facts 2.6): explicit markers, or else the implicit cache, never both in one request.

use std::sync::Mutex;

use bytes::Bytes;
use serde_json::{Value, json};

use super::chain::{Chain, ChainRules, Lookup};
use super::envelope::Envelope;
use super::markers::{Marker, MarkerCache, MarkerLookup};
use super::prompt::{Prompt, TOOL_DEFINITION};
use super::qwen_responses::Responses;
use super::reasoning::Reasoning;
use super::{Facts, Hit, Provider, Turn};
use crate::families::chat_wire::{self, Completion};
use crate::{Desk, RawRequest, Reply};

pub(super) static FACTS: Facts = Facts {
    name: "qwen",
    base_paths: &["/compatible-mode/v1"],
    models: &[
        "qwen4-max",
        "qwen3.8-max",
        "qwen3.7-max",
        "qwen3.8-flash",
        "qwen-plus",
    ],
    owner: "system",
    needs_key: true,
    envelope: Envelope::DashScope,
    knows_developer: false,
    allows_no_output: false,
    // Fields must be byte-identical here, empty optional ones included.
    ignored: &[],
    reasoning: Reasoning::Switch,
};

/// Markers beyond these are forgotten, the first ones first.
const MARKERS_MAX: usize = 4;
/// Parts that a marker looks back over, itself included.
const LOOKBACK: usize = 20;
/// Smallest explicit entry, tokens.
pub(super) const EXPLICIT_MIN: u64 = 1024;
/// Granularity of the implicit cache, tokens [?].
const IMPLICIT_STEP: u64 = 64;
/// Lifetime of most entries, seconds.
pub(super) const FIVE_MINUTES: u64 = 300;
const HOUR: u64 = 3600;

/// The odds of the implicit cache.
#[derive(Debug, Clone, PartialEq)]
pub struct QwenOptions {
    /// How often a known prefix is hit, 0 to 1. Nothing is promised, so tests may want less than 1.
    pub implicit_hits: f64,
    /// Smallest prompt that is cached, tokens: 256 by older pages, 1024 by newer ones.
    pub implicit_min: u64,
}

impl Default for QwenOptions {
    fn default() -> Self {
        QwenOptions {
            implicit_hits: 1.0,
            implicit_min: 256,
        }
    }
}

pub(super) struct Qwen {
    implicit_hits: f64,
    pub(super) caches: Mutex<Caches>,
    responses: Responses,
}

/// Both caches of one account do not know each other.
pub(super) struct Caches {
    pub(super) explicit: MarkerCache,
    pub(super) implicit: Chain,
}

impl Qwen {
    pub(super) fn new(options: QwenOptions) -> Self {
        Qwen {
            implicit_hits: options.implicit_hits,
            caches: Mutex::new(Caches {
                explicit: MarkerCache::default(),
                implicit: Chain::new(ChainRules {
                    step: IMPLICIT_STEP,
                    min: options.implicit_min,
                    idle_ms: None,
                    recomputes_last: false,
                    has_exact_end: false,
                    capacity: 1_000_000,
                }),
            }),
            responses: Responses::default(),
        }
    }
}

impl Provider for Qwen {
    fn facts(&self) -> &Facts {
        &FACTS
    }

    fn meet(&self, turn: &Turn<'_>) -> Hit {
        let mut prompt = turn.prompt.clone();
        prompt.merge_system();
        let salt = salt(turn.account, turn.model);
        let mut caches = self.caches.lock().unwrap();
        let (markers, positions) = markers(turn.body, turn.model, &prompt);
        if markers.is_empty() {
            let read = caches.implicit.meet(&Lookup {
                now_ms: turn.now_ms,
                visible_ms: turn.visible_ms,
                salt: &salt,
                prompt: &prompt.token_ids(),
                tail: &[],
                is_missed: turn.is_missed || turn.lot >= self.implicit_hits,
                idle_ms: None,
            });
            return Hit::read(read.read);
        }
        let done = caches.explicit.meet(&MarkerLookup {
            now_ms: turn.now_ms,
            visible_ms: turn.visible_ms,
            salt: &salt,
            prompt: &prompt,
            markers: &markers,
            positions: &positions,
            lookback: LOOKBACK,
            min: EXPLICIT_MIN,
            is_missed: turn.is_missed,
        });
        Hit {
            read: done.read,
            write: done.write,
            is_explicit: true,
            ..Hit::default()
        }
    }

    fn finish(&self, turn: &Turn<'_>, hit: &Hit, completion: &mut Completion) {
        if hit.is_explicit {
            let details = explicit_details(hit, has_tiers(turn.model));
            completion.usage["prompt_tokens_details"] = details;
        }
        if chat_wire::reasoning_tokens(&completion.answer) == 0 {
            super::without(&mut completion.usage, &["completion_tokens_details"]);
        }
    }

    fn other_route(
        &self,
        request: &RawRequest,
        path: Option<&str>,
        desk: &Desk<'_>,
        account: Option<&str>,
    ) -> Option<Reply> {
        let path = path.filter(|path| *path == "/responses" || path.starts_with("/responses/"))?;
        let Some(account) = account else {
            return Some(Envelope::DashScopeFlat.reply(
                401,
                "No API-key provided.",
                "InvalidApiKey",
            ));
        };
        Some(self.responses.answer(self, request, path, desk, account))
    }

    fn failure_in_stream(&self) -> Bytes {
        let message = "The server had an error while processing your request.";
        crate::sse(&FACTS.envelope.value(500, message, "internal_error"))
    }

    fn clear(&self) {
        let mut caches = self.caches.lock().unwrap();
        caches.explicit.clear();
        caches.implicit.clear();
        self.responses.clear();
    }
}

/// Entries belong to an account and a model.
pub(super) fn salt(account: &str, model: &str) -> String {
    format!("{account}\n{model}")
}

/// `prompt_tokens_details` of an explicit request.
pub(super) fn explicit_details(hit: &Hit, has_tiers: bool) -> Value {
    let mut creation =
        json!({"ephemeral_5m_input_tokens": hit.write.get(&FIVE_MINUTES).copied().unwrap_or(0)});
    if has_tiers {
        creation["ephemeral_1h_input_tokens"] = json!(hit.write.get(&HOUR).copied().unwrap_or(0));
    }
    json!({
        "cached_tokens": hit.read,
        "cache_creation_input_tokens": hit.written(),
        "cache_creation": creation,
        "cache_type": "ephemeral",
    })
}

/// Where entries are written, and where they may be found. Markers on tools are ignored; from Qwen3.5 on entries end
/// with messages only, so a marker inside one (system messages being one) counts at its end.
fn markers(body: &Value, model: &str, prompt: &Prompt) -> (Vec<Marker>, Vec<bool>) {
    let is_by_message = version(model).is_some_and(|version| version >= 3.5);
    let positions: Vec<bool> = prompt
        .parts
        .iter()
        .map(|part| part.role != TOOL_DEFINITION && (part.ends_message || !is_by_message))
        .collect();
    let ttl_seconds = |control: &Value| match control["ttl"].as_str() {
        Some("1h") if has_tiers(model) => HOUR,
        _ => FIVE_MINUTES,
    };
    let mut markers: Vec<Marker> = prompt
        .parts
        .iter()
        .enumerate()
        .filter(|(_, part)| {
            part.role != TOOL_DEFINITION && part.value["cache_control"]["type"] == "ephemeral"
        })
        .map(|(index, part)| Marker {
            part: index,
            ttl_seconds: ttl_seconds(&part.value["cache_control"]),
        })
        .collect();
    if has_tiers(model) && body["cache_control"]["type"] == "ephemeral" {
        markers.push(Marker {
            part: prompt.parts.len() - 1,
            ttl_seconds: ttl_seconds(&body["cache_control"]),
        });
    }
    markers.drain(..markers.len().saturating_sub(MARKERS_MAX));
    for marker in &mut markers {
        marker.part = (marker.part..positions.len())
            .find(|part| positions[*part])
            .unwrap_or(marker.part);
    }
    (markers, positions)
}

/// Qwen4 has two lifetimes and the request-level marker; older models know neither and say nothing about it.
pub(super) fn has_tiers(model: &str) -> bool {
    version(model).is_some_and(|version| version >= 4.0)
}

/// `qwen3.7-max` is 3.7; names without a number have none.
fn version(model: &str) -> Option<f64> {
    let digits = model.strip_prefix("qwen")?;
    let end = digits
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}
