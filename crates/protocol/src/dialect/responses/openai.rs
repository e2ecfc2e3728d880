//! OpenAI.

use serde::Serialize;
use serde_json::{Map, Value};

use super::items::{Flavour, Marks, history_refused, items, joined, system_item, ttl_word};
use super::options::{Asked, ToolChoiceOut, extra, tool_choice, tools};
use super::stream::ResponsesDecoder;
use super::{PATH, error, original, usage};
use crate::chat::ClientDialect;
use crate::dialect::pieces::Body;
use crate::error::ApiError;
use crate::provider::{Caching, Marker, ModelRules, Prewarm, RequestField, TierField};
use crate::upstream::{
    AnswerDecoder, ChatCall, EncodedPrefix, Failure, Held, HoldCall, HttpCall, OriginalCall,
    PrefixParts, UpstreamDialect,
};

/// The fewest tokens of an answer that may be asked for [?].
const OUTPUT_TOKENS_MIN: u32 = 16;
/// The longest `prompt_cache_key`, characters (facts 2.1).
const CACHE_KEY_LENGTH_MAX: usize = 64;
/// How every breakpoint begins. Inside a JSON string its quotes would be escaped, so no text can look like it.
const BREAKPOINT: &[u8] = br#""prompt_cache_breakpoint":{"mode":"explicit""#;

/// What asks for sealed reasoning, without which the next turn would have to do without.
const SEALS: &str = "reasoning.encrypted_content";

/// OpenAI Responses.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenAiResponses;

#[derive(Serialize)]
struct Rest<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    store: bool,
    #[serde(flatten)]
    asked: Asked<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoiceOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    include: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_identifier: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_options: Option<CacheOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_retention: Option<&'static str>,
    /// Fields whose names the provider's rules give.
    #[serde(flatten)]
    named: Map<String, Value>,
}

#[derive(Serialize)]
struct CacheOptions {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prewarm: Option<bool>,
}

/// What a chat and a hold say about caching.
struct Cached {
    options: Option<CacheOptions>,
    retention: Option<&'static str>,
    named: Map<String, Value>,
    headers: Vec<(&'static str, String)>,
}

impl Cached {
    fn of(
        rules: &ModelRules,
        prefix: Option<&EncodedPrefix>,
        cache_key: Option<&str>,
        salt: Option<&str>,
        tier_seconds: Option<u32>,
    ) -> Self {
        let mut named = Map::new();
        let own = rules.quirks.headers.iter();
        let mut headers: Vec<_> = own
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        for (field, value) in [(rules.cache.key, cache_key), (rules.cache.salt, salt)] {
            match (field, value) {
                (Some(RequestField::Body(name)), Some(value)) => {
                    let value: String = value.chars().take(CACHE_KEY_LENGTH_MAX).collect();
                    named.insert(name.to_owned(), value.into());
                }
                (Some(RequestField::Header(name)), Some(value)) => {
                    headers.push((name, value.to_owned()));
                }
                _ => {}
            }
        }
        let has_breakpoints = takes_breakpoints(rules) && prefix.is_some_and(has_breakpoint);
        Cached {
            options: has_breakpoints.then_some(CacheOptions {
                mode: "explicit",
                ttl: tier_seconds.filter(|_| rules.cache.has_ttl).map(ttl_word),
                prewarm: None,
            }),
            // Never beside the options (facts 2.1).
            retention: tier_seconds
                .filter(|_| !has_breakpoints)
                .filter(|_| rules.cache.tier_field == TierField::PromptCacheRetention)
                .map(|seconds| if seconds <= 3_600 { "in_memory" } else { "24h" }),
            named,
            headers,
        }
    }
}

fn takes_breakpoints(rules: &ModelRules) -> bool {
    rules.cache.caching == Caching::Breakpoint
        && rules.cache.marker == Some(Marker::PromptCacheBreakpoint)
}

/// Whether breakpoints stand in the prefix. They stand near its ends, so it is searched from there.
fn has_breakpoint(prefix: &EncodedPrefix) -> bool {
    [&prefix.history, &prefix.initial].into_iter().any(|items| {
        items
            .windows(BREAKPOINT.len())
            .rev()
            .any(|at| at == BREAKPOINT)
    })
}

impl UpstreamDialect for OpenAiResponses {
    fn encode_prefix(
        &self,
        parts: &PrefixParts<'_>,
        rules: &ModelRules,
    ) -> Result<EncodedPrefix, ApiError> {
        let (initial_marks, history_marks) = marks(parts, rules);
        let encode = |messages, marks| items(messages, 0, marks, Flavour::OpenAi, &rules.quirks);
        let initial = encode(parts.initial, &initial_marks)?;
        Ok(EncodedPrefix {
            tools: tools(parts.tools, Flavour::OpenAi),
            initial: match parts.tenant_line {
                Some(line) => joined(&system_item(line), &initial),
                None => initial,
            },
            history: encode(parts.history, &history_marks).map_err(history_refused)?,
            ..EncodedPrefix::default()
        })
    }

    fn encode_chat(&self, call: &ChatCall<'_>) -> Result<HttpCall, ApiError> {
        let composed = call.composed;
        let request = &composed.request;
        let quirks = &call.rules.quirks;
        let new = items(
            &composed.new,
            0,
            &Marks::default(),
            Flavour::OpenAi,
            &call.rules.quirks,
        )?;
        let empty = EncodedPrefix::default();
        let prefix = call.prefix.unwrap_or(&empty);
        let tools = match prefix.tools.is_empty() {
            true => tools(&composed.tools, Flavour::OpenAi),
            false => prefix.tools.clone(),
        };
        let has_tools = !tools.is_empty();
        let logprobs = request.logprobs.map(|_| "message.output_text.logprobs");
        let seals = quirks.reasoning_seals.then_some(SEALS);
        let include = logprobs.into_iter().chain(seals).collect();
        let cached = Cached::of(
            call.rules,
            call.prefix,
            call.cache_key,
            call.salt,
            call.tier_seconds,
        );
        let body = Body::new()
            .array("\"tools\":[", &[&tools], "]")
            .array(
                "\"input\":[",
                &[&prefix.initial, &prefix.history, &new],
                "]",
            )
            .rest(&Rest {
                model: call.model,
                stream: Some(true),
                store: false,
                asked: Asked::of(request, call.max_tokens, Flavour::OpenAi, quirks.reasoning)?,
                tool_choice: tool_choice(&composed.tool_choice).filter(|_| has_tools),
                parallel_tool_calls: request.parallel_tool_calls.filter(|_| has_tools),
                include,
                top_logprobs: request.logprobs,
                service_tier: extra(&request.extra, "service_tier"),
                safety_identifier: extra(&request.extra, "safety_identifier"),
                prompt_cache_options: cached.options,
                prompt_cache_retention: cached.retention,
                named: cached.named,
            });
        Ok(HttpCall {
            headers: cached.headers,
            ..HttpCall::post(PATH, body)
        })
    }

    fn encode_hold(&self, call: &HoldCall<'_>) -> Result<Option<HttpCall>, ApiError> {
        let asked = match call.rules.cache.prewarm {
            Prewarm::Flag => Asked::default(),
            Prewarm::OneToken => Asked::of_tokens(OUTPUT_TOKENS_MIN),
            Prewarm::None | Prewarm::MaxTokensZero => return Ok(None),
        };
        let prefix = call.prefix;
        if prefix.initial.is_empty() && prefix.history.is_empty() {
            return Ok(None);
        }
        let mut cached = Cached::of(
            call.rules,
            Some(prefix),
            call.cache_key,
            call.salt,
            call.tier_seconds,
        );
        if call.rules.cache.prewarm == Prewarm::Flag
            && let Some(options) = &mut cached.options
        {
            options.prewarm = Some(true);
        }
        let body = Body::new()
            .array("\"tools\":[", &[&prefix.tools], "]")
            .array("\"input\":[", &[&prefix.initial, &prefix.history], "]")
            .rest(&Rest {
                model: call.model,
                stream: None,
                store: false,
                asked,
                tool_choice: None,
                parallel_tool_calls: None,
                include: Vec::new(),
                top_logprobs: None,
                service_tier: None,
                safety_identifier: None,
                prompt_cache_options: cached.options,
                prompt_cache_retention: cached.retention,
                named: cached.named,
            });
        Ok(Some(HttpCall {
            headers: cached.headers,
            ..HttpCall::post(PATH, body)
        }))
    }

    fn decode_hold(&self, body: &[u8], rules: &ModelRules) -> Result<Held, Failure> {
        let response = usage::response_of(body)?;
        let usage = usage::billed(&response, rules);
        Ok(Held {
            prefix_tokens: usage.map(|usage| usage.input_tokens),
            usage,
            ..Held::default()
        })
    }

    fn speaks(&self) -> Option<ClientDialect> {
        Some(ClientDialect::Responses)
    }

    fn encode_original(&self, call: &OriginalCall<'_>) -> Result<HttpCall, ApiError> {
        original::encode(PATH, call)
    }

    fn decoder(&self, rules: &ModelRules) -> Box<dyn AnswerDecoder> {
        Box::new(ResponsesDecoder::new(rules, Flavour::OpenAi))
    }

    fn failure(
        &self,
        status: u16,
        header: &dyn Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Failure {
        error::failure(status, header, body, Flavour::OpenAi)
    }
}

/// Of initial messages and of history. The end of the initial messages comes first where not all are allowed, then that
/// of the history.
fn marks(parts: &PrefixParts<'_>, rules: &ModelRules) -> (Marks, Marks) {
    if !takes_breakpoints(rules) {
        return (Marks::default(), Marks::default());
    }
    let ttl = |seconds: u32| rules.cache.has_ttl.then_some(seconds);
    let initial = match parts.markers.initial_seconds {
        Some(seconds) => Marks::at_ends(&[parts.initial], ttl(seconds)),
        None => Marks::default(),
    };
    let previous = &parts.history[..parts.previous_history.min(parts.history.len())];
    let left = usize::from(rules.cache.markers_max).saturating_sub(initial.count());
    let ends: &[&[_]] = match left {
        0 => &[],
        1 => &[parts.history],
        _ => &[parts.history, previous],
    };
    let history = match parts.markers.history_seconds {
        // Lifetimes never grow towards the end.
        Some(seconds) => {
            let seconds = parts
                .markers
                .initial_seconds
                .map_or(seconds, |initial| initial.min(seconds));
            Marks::at_ends(ends, ttl(seconds))
        }
        None => Marks::default(),
    };
    (initial, history)
}
