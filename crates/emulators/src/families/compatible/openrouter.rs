//! OpenRouter (facts 2.13): several providers behind one name, each with entries of its own, and the rules by which
//! requests keep to one of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};

use super::chain::{Chain, ChainRules, Lookup};
use super::envelope::Envelope;
use super::markers::{Marker, MarkerCache, MarkerLookup};
use super::prompt::Prompt;
use super::reasoning::Reasoning;
use super::{Facts, Hit, NOT_IN_HISTORY, Provider, Refusal, Turn};
use crate::families::chat_wire::Completion;
use crate::{Desk, RawRequest, Reply, hash_hex, sse};

static FACTS: Facts = Facts {
    name: "openrouter",
    base_paths: &["/api/v1"],
    models: &[
        "anthropic/claude-sonnet-5-5",
        "openai/gpt-5.6",
        "deepseek/deepseek-v4-pro",
    ],
    owner: "openrouter",
    needs_key: true,
    envelope: Envelope::OpenRouter,
    knows_developer: true,
    allows_no_output: false,
    ignored: NOT_IN_HISTORY,
    reasoning: Reasoning::OpenRouter,
};

/// Stickiness ends after so much idleness, milliseconds.
const STICKY_MS: i64 = 10 * 60 * 1000;
/// Longest session id, characters.
const SESSION_ID_MAX: usize = 256;
/// Most markers that Anthropic takes.
const MARKERS_MAX: usize = 4;
/// Dollars for a million tokens: input, read, output. A write costs 1.25 times the input, for an hour twice.
const PRICES: (f64, f64, f64) = (2.0, 0.1, 10.0);

/// Makes OpenRouter change the provider though a request should stick, as it does when one is busy. Clones share the
/// switch.
#[derive(Debug, Clone, Default)]
pub struct ProviderFlip {
    ordered: Arc<AtomicU64>,
}

impl ProviderFlip {
    /// The next request goes to another provider, and so does what sticks to it.
    pub fn next(&self) {
        self.ordered.fetch_add(1, Ordering::SeqCst);
    }

    fn take(&self) -> bool {
        self.ordered
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |ordered| {
                ordered.checked_sub(1)
            })
            .is_ok()
    }
}

/// Whose rules a model's entries follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Anthropic,
    /// From gpt-5.6 on, with breakpoints.
    OpenAi,
    Other,
}

#[derive(Debug)]
struct Sticky {
    provider: usize,
    used_ms: i64,
}

struct State {
    markers: MarkerCache,
    chain: Chain,
    sticky: HashMap<String, Sticky>,
    /// Requests that stick to nothing take turns.
    turns: usize,
    generations: HashMap<String, Value>,
}

pub(super) struct OpenRouter {
    flip: ProviderFlip,
    state: Mutex<State>,
}

impl OpenRouter {
    pub(super) fn new(flip: ProviderFlip) -> Self {
        OpenRouter {
            flip,
            state: Mutex::new(State {
                markers: MarkerCache::default(),
                chain: Chain::new(ChainRules {
                    step: 64,
                    min: 1024,
                    idle_ms: Some(300_000),
                    recomputes_last: false,
                    has_exact_end: false,
                    capacity: 1_000_000,
                }),
                sticky: HashMap::new(),
                turns: 0,
                generations: HashMap::new(),
            }),
        }
    }
}

impl Provider for OpenRouter {
    fn facts(&self) -> &Facts {
        &FACTS
    }

    fn check(&self, request: &RawRequest, body: &Value) -> Result<(), Refusal> {
        let session = body["session_id"]
            .as_str()
            .or_else(|| request.header("x-session-id"));
        if session.is_some_and(|session| session.chars().count() > SESSION_ID_MAX) {
            return Err(Refusal(
                "session_id must be at most 256 characters".to_owned(),
            ));
        }
        let model = body["model"].as_str().unwrap_or_default();
        let marked = markers(maker(model), body, &Prompt::read(body, FACTS.ignored));
        if maker(model) == Maker::Anthropic && marked.len() > MARKERS_MAX {
            let message = "A maximum of 4 blocks with cache_control may be provided.";
            return Err(Refusal(message.to_owned()));
        }
        Ok(())
    }

    fn meet(&self, turn: &Turn<'_>) -> Hit {
        let mut state = self.state.lock().unwrap();
        let maker = maker(turn.model);
        let names = providers(maker);
        let (key, is_session) = sticky_key(turn);
        let provider = self.choose(&mut state, turn, names, &key);
        let salt = format!("{}\n{}\n{}", turn.account, turn.model, names[provider]);
        let mut hit = match maker {
            Maker::Other => {
                let done = state.chain.meet(&Lookup {
                    now_ms: turn.now_ms,
                    visible_ms: turn.visible_ms,
                    salt: &salt,
                    prompt: &turn.prompt.token_ids(),
                    tail: &[],
                    is_missed: turn.is_missed,
                    idle_ms: None,
                });
                Hit::read(done.read)
            }
            _ => meet_markers(&mut state.markers, turn, maker, &salt),
        };
        hit.server = names[provider].to_owned();
        let is_cached = hit.read > 0 || hit.written() > 0;
        let is_known = state.sticky.contains_key(&key);
        if !has_order(turn.body) && (is_session || is_cached || is_known) {
            let sticky = Sticky {
                provider,
                used_ms: turn.now_ms,
            };
            state.sticky.insert(key, sticky);
        }
        let id = format!("gen-{}", hash_hex(turn.id));
        let discount = PRICES.0 * (hit.read + hit.written()) as f64 - input_cost(&hit);
        let generation = json!({"data": {
            "id": id,
            "model": turn.model,
            "provider_name": hit.server,
            "total_cost": cost(turn, &hit),
            "cache_discount": discount / 1e6,
            "native_tokens_prompt": turn.prompt.tokens(),
            "native_tokens_completion": turn.output,
            "native_tokens_cached": hit.read,
        }});
        state.generations.insert(id, generation);
        hit
    }

    fn finish(&self, turn: &Turn<'_>, hit: &Hit, completion: &mut Completion) {
        completion.id = format!("gen-{}", hash_hex(turn.id));
        completion.usage["prompt_tokens_details"]["cache_write_tokens"] = json!(hit.written());
        completion.usage["cost"] = json!(cost(turn, hit));
        completion
            .extra
            .insert("provider".to_owned(), json!(hit.server));
        completion.quirks.reasoning_field = "reasoning";
        completion.quirks.comments = true;
        // Asked for or not.
        completion.include_usage = true;
    }

    fn other_route(
        &self,
        request: &RawRequest,
        path: Option<&str>,
        _desk: &Desk<'_>,
        account: Option<&str>,
    ) -> Option<Reply> {
        if request.method != "GET" || path != Some("/generation") {
            return None;
        }
        if account.is_none() {
            return Some(FACTS.envelope.failure(401));
        }
        let state = self.state.lock().unwrap();
        let found = request
            .query_value("id")
            .and_then(|id| state.generations.get(id));
        Some(match found {
            Some(generation) => Reply::json(200, generation),
            None => FACTS.envelope.failure(404),
        })
    }

    fn failure_in_stream(&self) -> Bytes {
        sse(&json!({
            "id": "gen-failed",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "",
            "provider": "",
            "error": {"code": "server_error", "message": "Provider disconnected unexpectedly"},
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        }))
    }

    fn clear(&self) {
        let mut state = self.state.lock().unwrap();
        state.markers.clear();
        state.chain.clear();
        state.sticky.clear();
    }
}

impl OpenRouter {
    /// `provider.order` decides; else what the key sticks to; else they take turns.
    fn choose(&self, state: &mut State, turn: &Turn<'_>, names: &[&str], key: &str) -> usize {
        let is_flipped = self.flip.take();
        let ordered = turn.body["provider"]["order"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .find_map(|wanted| {
                names
                    .iter()
                    .position(|name| name.eq_ignore_ascii_case(wanted))
            });
        if let Some(provider) = ordered {
            let allows_fallbacks = turn.body["provider"]["allow_fallbacks"] != false;
            return if is_flipped && allows_fallbacks {
                (provider + 1) % names.len()
            } else {
                provider
            };
        }
        let now_ms = turn.now_ms;
        state
            .sticky
            .retain(|_, sticky| sticky.used_ms + STICKY_MS > now_ms);
        let provider = match state.sticky.get(key) {
            Some(sticky) => sticky.provider,
            None => {
                state.turns += 1;
                (state.turns - 1) % names.len()
            }
        };
        if is_flipped {
            (provider + 1) % names.len()
        } else {
            provider
        }
    }
}

fn has_order(body: &Value) -> bool {
    body["provider"]["order"]
        .as_array()
        .is_some_and(|order| !order.is_empty())
}

fn maker(model: &str) -> Maker {
    if model.starts_with("anthropic/") {
        Maker::Anthropic
    } else if ["openai/gpt-5.6", "openai/gpt-6"]
        .iter()
        .any(|name| model.starts_with(name))
    {
        Maker::OpenAi
    } else {
        Maker::Other
    }
}

fn providers(maker: Maker) -> &'static [&'static str] {
    match maker {
        Maker::Anthropic => &["Anthropic", "Amazon Bedrock", "Google"],
        Maker::OpenAi => &["OpenAI", "Azure"],
        Maker::Other => &["DeepInfra", "Fireworks", "Together"],
    }
}

/// What a request sticks by, and whether it named it itself: then it sticks from its first success on, otherwise once
/// a cache was used.
fn sticky_key(turn: &Turn<'_>) -> (String, bool) {
    let named = turn.body["session_id"]
        .as_str()
        .or_else(|| turn.request.header("x-session-id"))
        .filter(|session| !session.is_empty());
    let fallback = turn.body["prompt_cache_key"].as_str();
    let base = format!("{}\n{}", turn.account, turn.model);
    if let Some(session) = named {
        return (format!("{base}\nsession {session}"), true);
    }
    if let Some(key) = fallback {
        return (format!("{base}\nkey {key}"), true);
    }
    let messages = turn.body["messages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let is_system =
        |message: &&Value| message["role"] == "system" || message["role"] == "developer";
    let first_system = messages.iter().find(is_system);
    let first_other = messages.iter().find(|message| !is_system(message));
    (
        format!("{base}\nconversation {first_system:?} {first_other:?}"),
        false,
    )
}

/// Both kinds of marker mean the same here. For OpenAI the lifetime isn't translated, and the end of the prompt is
/// marked by itself; for Claude a marker of the request is one on the last part.
fn markers(maker: Maker, body: &Value, prompt: &Prompt) -> Vec<Marker> {
    let ttl_seconds = |marker: &Value| match (maker, marker["ttl"].as_str()) {
        (Maker::OpenAi, _) => 1800,
        (_, Some("1h")) => 3600,
        _ => 300,
    };
    let mut markers: Vec<Marker> = Vec::new();
    for (index, part) in prompt.parts.iter().enumerate() {
        let marker = ["cache_control", "prompt_cache_breakpoint"]
            .iter()
            .find_map(|name| part.value.get(name).filter(|marker| !marker.is_null()));
        if let Some(marker) = marker {
            markers.push(Marker {
                part: index,
                ttl_seconds: ttl_seconds(marker),
            });
        }
    }
    let last = prompt.parts.len() - 1;
    if maker == Maker::OpenAi {
        let is_explicit = body["prompt_cache_options"]["mode"] == "explicit";
        let kept = if is_explicit { 4 } else { 3 };
        markers.drain(..markers.len().saturating_sub(kept));
        if !is_explicit {
            markers.push(Marker {
                part: last,
                ttl_seconds: 1800,
            });
        }
    } else if body["cache_control"].is_object() {
        let ttl_seconds = ttl_seconds(&body["cache_control"]);
        markers.push(Marker {
            part: last,
            ttl_seconds,
        });
    }
    markers.dedup_by_key(|marker| marker.part);
    markers
}

fn meet_markers(cache: &mut MarkerCache, turn: &Turn<'_>, maker: Maker, salt: &str) -> Hit {
    let markers = markers(maker, turn.body, turn.prompt);
    let positions: Vec<bool> = turn
        .prompt
        .parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            maker == Maker::Anthropic
                || part.ends_message
                || markers.iter().any(|marker| marker.part == index)
        })
        .collect();
    let done = cache.meet(&MarkerLookup {
        now_ms: turn.now_ms,
        visible_ms: turn.visible_ms,
        salt,
        prompt: turn.prompt,
        markers: &markers,
        positions: &positions,
        lookback: if maker == Maker::Anthropic { 20 } else { 80 },
        min: if maker == Maker::Anthropic { 512 } else { 1024 },
        is_missed: turn.is_missed,
    });
    Hit {
        read: done.read,
        write: done.write,
        is_explicit: true,
        ..Hit::default()
    }
}

/// What reads and writes cost, millionths of a dollar.
fn input_cost(hit: &Hit) -> f64 {
    let write = |(ttl_seconds, tokens): (&u64, &u64)| {
        let factor = if *ttl_seconds == 3600 { 2.0 } else { 1.25 };
        PRICES.0 * factor * *tokens as f64
    };
    let writes: &BTreeMap<u64, u64> = &hit.write;
    PRICES.1 * hit.read as f64 + writes.iter().map(write).sum::<f64>()
}

/// Dollars.
fn cost(turn: &Turn<'_>, hit: &Hit) -> f64 {
    let uncached = turn.prompt.tokens() - hit.read - hit.written();
    (PRICES.0 * uncached as f64 + input_cost(hit) + PRICES.2 * turn.output as f64) / 1e6
}
