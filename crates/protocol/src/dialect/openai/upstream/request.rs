//! Chats and the calls that write or refresh a cache entry.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::prefix::{append, has_breakpoint, last_role};
use crate::chat::{ChatRequest, Message, ResponseFormat, Role, Tool, ToolChoice};
use crate::dialect::openai::message::{check_message, message_out};
use crate::dialect::openai::tools::{ToolChoiceOut, tool_choice_out, tool_out};
use crate::dialect::openai::{reasoning, to_json};
use crate::error::ApiError;
use crate::provider::{CacheRules, Marker, Quirks, RequestField, TierField};
use crate::upstream::{ChatCall, EncodedPrefix, HoldCall, HttpCall};

const PATH: &str = "/chat/completions";
/// The longest `prompt_cache_key`, characters (facts section 2.1).
const PROMPT_CACHE_KEY_LENGTH_MAX: usize = 64;
/// The longest key of any other name, characters: OpenRouter's `session_id` (facts section 2.13).
const KEY_LENGTH_MAX: usize = 256;
/// `prompt_cache_retention: in_memory` lasts an hour at most, seconds.
const IN_MEMORY_SECONDS: u32 = 3_600;
/// Kimi's shorter lifetime, seconds.
const SHORT_SECONDS: u32 = 300;
/// What asks for nothing, for prefixes that no chat could end with.
const FILLER: &str = ".";
/// How the names of the dialect's own fields of caching begin.
const CACHE_FIELDS: [&str; 2] = ["prompt_cache", "cache_control"];
/// Fields that are written here, so that an unknown field never makes one twice.
const OWN_FIELDS: &[&str] = &[
    "model",
    "messages",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "logit_bias",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "n",
    "logprobs",
    "top_logprobs",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "stream",
    "stream_options",
    "user",
];

pub(super) fn encode_chat(call: &ChatCall<'_>) -> Result<HttpCall, ApiError> {
    let quirks = &call.rules.quirks;
    let composed = call.composed;
    let request = &composed.request;
    for (index, message) in composed.new.iter().enumerate() {
        check_message(message, quirks, || format!("messages[{index}]"))?;
    }
    if matches!(request.response_format, ResponseFormat::JsonSchema { .. }) && !quirks.json_schema {
        return Err(ApiError::unsupported(
            "response_format",
            "asks for a JSON schema, which this model's provider does not support: ask for a `json_object`",
        ));
    }

    let tools = Tools::of(call.prefix, &composed.tools);
    let says_choice = request.tool_choice.is_some() || composed.tool_choice != ToolChoice::Auto;
    let cache = CacheFields {
        cache_key: call.cache_key,
        salt: call.salt,
        tier_seconds: call.tier_seconds,
        prefix: call.prefix,
        rules: &call.rules.cache,
    }
    .write();
    let sampling = &request.sampling;
    let own = own_words(request, quirks);
    let extra = extra(call, &cache.body, &own);
    let fields = Fields {
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        seed: sampling.seed,
        logit_bias: &sampling.logit_bias,
        limit: limit(call.max_tokens, quirks),
        stop: &request.stop,
        n: (request.choices != 1).then_some(request.choices),
        logprobs: request.logprobs.map(|_| true),
        top_logprobs: request.logprobs,
        response_format: response_format_out(&request.response_format),
        tool_choice: (says_choice && !tools.is_none())
            .then(|| tool_choice_out(&composed.tool_choice)),
        parallel_tool_calls: request.parallel_tool_calls.filter(|_| !tools.is_none()),
        stream: Some(true),
        stream_options: quirks.stream_options.then_some(StreamOptionsOut {
            include_usage: true,
        }),
        user: request.user.as_deref(),
        cache: &cache.body,
        own: &own,
        extra,
    };
    let body = body(
        call.model,
        call.prefix,
        &composed.new,
        &tools,
        &fields,
        quirks,
    );
    Ok(finished(body, cache.headers, quirks))
}

/// The shortest answer to the prefix alone. What it is asked ends exactly where the prefix ends, because DeepSeek keeps
/// what a request's user input ends with (facts section 2.8).
pub(super) fn encode_one_token(call: &HoldCall<'_>) -> HttpCall {
    let quirks = &call.rules.quirks;
    let asks = matches!(last_role(call.prefix).as_deref(), Some("user" | "tool"));
    let filler = (!asks).then(|| Message::text(Role::User, FILLER));
    let tools = Tools::of(Some(call.prefix), &[]);
    let cache = CacheFields {
        cache_key: call.cache_key,
        salt: call.salt,
        tier_seconds: call.tier_seconds,
        prefix: Some(call.prefix),
        rules: &call.rules.cache,
    }
    .write();
    let own = Map::new();
    let fields = Fields {
        limit: limit(Some(1), quirks),
        // Templates leave the tools out for it, so it is part of the prefix. A call that one token can't finish is not
        // asked for.
        tool_choice: call
            .tool_choice
            .filter(|choice| **choice == ToolChoice::None && !tools.is_none())
            .map(tool_choice_out),
        ..Fields::of_cache(&cache.body, &own)
    };
    let body = body(
        call.model,
        Some(call.prefix),
        filler.as_slice(),
        &tools,
        &fields,
        quirks,
    );
    finished(body, cache.headers, quirks)
}

fn finished(
    body: Vec<Bytes>,
    cache_headers: Vec<(&'static str, String)>,
    quirks: &Quirks,
) -> HttpCall {
    let own = quirks
        .headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    HttpCall {
        headers: own.chain(cache_headers).collect(),
        ..HttpCall::post(PATH, body)
    }
}

/// The tools of a request: the prefix's as they were rendered, else the request's own.
enum Tools<'a> {
    Rendered(&'a Bytes),
    New(&'a [Tool]),
}

impl<'a> Tools<'a> {
    fn of(prefix: Option<&'a EncodedPrefix>, new: &'a [Tool]) -> Self {
        match prefix {
            Some(prefix) if !prefix.tools.is_empty() => Tools::Rendered(&prefix.tools),
            _ => Tools::New(new),
        }
    }

    fn is_none(&self) -> bool {
        matches!(self, Tools::New([]))
    }
}

/// The body in pieces; those of the prefix are shared with it.
fn body(
    model: &str,
    prefix: Option<&EncodedPrefix>,
    new: &[Message],
    tools: &Tools<'_>,
    fields: &Fields<'_>,
    quirks: &Quirks,
) -> Vec<Bytes> {
    let mut head = b"{\"model\":".to_vec();
    head.extend_from_slice(&to_json(&model));
    head.extend_from_slice(b",\"messages\":[");
    let mut pieces = vec![Bytes::from(head)];
    let mut messages = Vec::new();
    for message in new {
        append(&mut messages, &message_out(message, quirks, None));
    }
    let stored = prefix.map(|prefix| [&prefix.initial, &prefix.history]);
    let elements = stored
        .into_iter()
        .flatten()
        .cloned()
        .chain([Bytes::from(messages)])
        .filter(|elements| !elements.is_empty());
    for (index, elements) in elements.enumerate() {
        if index > 0 {
            pieces.push(Bytes::from_static(b","));
        }
        pieces.push(elements);
    }

    let mut tail = b"]".to_vec();
    if !tools.is_none() {
        tail.extend_from_slice(b",\"tools\":[");
        match tools {
            Tools::Rendered(rendered) => {
                pieces.push(std::mem::take(&mut tail).into());
                pieces.push((*rendered).clone());
            }
            Tools::New(new) => {
                let mut elements = Vec::new();
                for tool in *new {
                    append(&mut elements, &tool_out(tool));
                }
                tail.extend_from_slice(&elements);
            }
        }
        tail.push(b']');
    }
    let fields = to_json(fields);
    let fields = &fields[1..];
    if fields != b"}" {
        tail.push(b',');
    }
    tail.extend_from_slice(fields);
    pieces.push(tail.into());
    pieces
}

/// What a request says about caching.
struct CacheFields<'a> {
    cache_key: Option<&'a str>,
    salt: Option<&'a str>,
    tier_seconds: Option<u32>,
    prefix: Option<&'a EncodedPrefix>,
    rules: &'a CacheRules,
}

#[derive(Default)]
struct Written {
    body: Map<String, Value>,
    headers: Vec<(&'static str, String)>,
}

impl CacheFields<'_> {
    fn write(&self) -> Written {
        let mut written = Written::default();
        written.put(self.rules.key, self.cache_key);
        written.put(self.rules.salt, self.salt);
        let has_breakpoint = self.rules.marker == Some(Marker::PromptCacheBreakpoint)
            && self.prefix.is_some_and(has_breakpoint);
        if has_breakpoint {
            // Without it a paid entry would be written at the end of the question, too.
            let options = json!({"mode": "explicit"});
            written
                .body
                .insert("prompt_cache_options".to_owned(), options);
        } else if let Some(seconds) = self.tier_seconds {
            written.put_tier(self.rules.tier_field, seconds);
        }
        written
    }
}

impl Written {
    fn put(&mut self, field: Option<RequestField>, value: Option<&str>) {
        let (Some(field), Some(value)) = (field, value) else {
            return;
        };
        match field {
            RequestField::Header(name) => self.headers.push((name, value.to_owned())),
            RequestField::Body(name) => {
                let length_max = if name == "prompt_cache_key" {
                    PROMPT_CACHE_KEY_LENGTH_MAX
                } else {
                    KEY_LENGTH_MAX
                };
                let value: String = value.chars().take(length_max).collect();
                self.body.insert(name.to_owned(), value.into());
            }
        }
    }

    fn put_tier(&mut self, field: TierField, seconds: u32) {
        match field {
            TierField::None => {}
            TierField::PromptCacheOptions => {
                let ttl = if seconds <= SHORT_SECONDS { "5m" } else { "1h" };
                let options = json!({"mode": "implicit", "ttl": ttl});
                self.body.insert("prompt_cache_options".to_owned(), options);
            }
            TierField::PromptCacheRetention => {
                let retention = if seconds <= IN_MEMORY_SECONDS {
                    "in_memory"
                } else {
                    "24h"
                };
                let field = "prompt_cache_retention".to_owned();
                self.body.insert(field, retention.into());
            }
        }
    }
}

/// Fields that OpenAI itself has not, or not everywhere: each service of this dialect has names of its own for them.
fn own_words(request: &ChatRequest, quirks: &Quirks) -> Map<String, Value> {
    let mut own = reasoning::fields(request, quirks);
    let passes = quirks.passes_unknown_fields && request.extra.contains_key("top_k");
    if let Some(top_k) = request.sampling.top_k.filter(|_| quirks.top_k && !passes) {
        own.insert("top_k".to_owned(), top_k.into());
    }
    own
}

/// The client's fields that the gateway does not know. Those about caching give way to the gateway's own, all of them
/// together, because providers refuse some beside others; a salt is never the client's to choose.
fn extra<'a>(
    call: &ChatCall<'a>,
    cache: &Map<String, Value>,
    own: &Map<String, Value>,
) -> Vec<(&'a String, &'a Value)> {
    if !call.rules.quirks.passes_unknown_fields {
        return Vec::new();
    }
    let manages_cache = call.prefix.is_some() || !cache.is_empty();
    let is_passed = |name: &str| {
        let is_salt =
            matches!(call.rules.cache.salt, Some(RequestField::Body(salt)) if salt == name);
        let is_cache_field = CACHE_FIELDS.iter().any(|field| name.starts_with(field));
        !(OWN_FIELDS.contains(&name)
            || cache.contains_key(name)
            || own.contains_key(name)
            || reasoning::gives_way(name, &call.rules.quirks)
            || is_salt
            || (manages_cache && is_cache_field))
    };
    let fields = &call.composed.request.extra;
    fields.iter().filter(|(name, _)| is_passed(name)).collect()
}

/// The body after messages and tools.
#[derive(Serialize)]
struct Fields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(
        skip_serializing_if = "<[_]>::is_empty",
        serialize_with = "logit_bias_map"
    )]
    logit_bias: &'a [(u32, f32)],
    #[serde(flatten)]
    limit: Option<Limit>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormatOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoiceOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptionsOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(flatten)]
    cache: &'a Map<String, Value>,
    /// See [`own_words`].
    #[serde(flatten)]
    own: &'a Map<String, Value>,
    #[serde(flatten, serialize_with = "extra_map")]
    extra: Vec<(&'a String, &'a Value)>,
}

impl<'a> Fields<'a> {
    fn of_cache(cache: &'a Map<String, Value>, own: &'a Map<String, Value>) -> Self {
        Fields {
            temperature: None,
            top_p: None,
            frequency_penalty: None,
            presence_penalty: None,
            seed: None,
            logit_bias: &[],
            limit: None,
            stop: &[],
            n: None,
            logprobs: None,
            top_logprobs: None,
            response_format: None,
            tool_choice: None,
            parallel_tool_calls: None,
            stream: None,
            stream_options: None,
            user: None,
            cache,
            own,
            extra: Vec::new(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    MaxTokens(u32),
    MaxCompletionTokens(u32),
}

fn limit(max_tokens: Option<u32>, quirks: &Quirks) -> Option<Limit> {
    max_tokens.map(if quirks.max_completion_tokens {
        Limit::MaxCompletionTokens
    } else {
        Limit::MaxTokens
    })
}

#[derive(Serialize)]
struct StreamOptionsOut {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormatOut<'a> {
    JsonObject,
    JsonSchema { json_schema: JsonSchemaOut<'a> },
}

#[derive(Serialize)]
struct JsonSchemaOut<'a> {
    name: &'a str,
    schema: &'a Value,
    strict: bool,
}

fn response_format_out(format: &ResponseFormat) -> Option<ResponseFormatOut<'_>> {
    match format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(ResponseFormatOut::JsonObject),
        ResponseFormat::JsonSchema {
            name,
            schema,
            strict,
        } => Some(ResponseFormatOut::JsonSchema {
            json_schema: JsonSchemaOut {
                name,
                schema,
                strict: *strict,
            },
        }),
    }
}

fn logit_bias_map<S: Serializer>(biases: &&[(u32, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(biases.iter().map(|(token, bias)| (token, bias)))
}

fn extra_map<S: Serializer>(extra: &[(&String, &Value)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(extra.iter().copied())
}
