//! Chats and the calls that warm a prefix.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::block;
use super::prefix::asks_for_one_hour;
use crate::chat::{ResponseFormat, ToolChoice};
use crate::dialect::blocks::{self, Origin, Thinking, ThinkingOut};
use crate::dialect::pieces::{Body, elements};
use crate::error::ApiError;
use crate::provider::{ModelRules, Prewarm, RequestField};
use crate::upstream::{ChatCall, EncodedPrefix, HoldCall, HttpCall};

pub(super) const PATH: &str = "/v1/messages";
pub(super) const VERSION_HEADER: (&str, &str) = ("anthropic-version", "2023-06-01");
pub(super) const BETA_HEADER: &str = "anthropic-beta";
/// Without it some accounts silently get five minutes where an hour was asked for (facts 2.3).
pub(super) const ONE_HOUR_BETA: &str = "extended-cache-ttl-2025-04-11";

/// A request must end with a user message whatever the prefix ends with.
const SMALLEST_MESSAGE: &[u8] = br#"{"role":"user","content":[{"type":"text","text":"."}]}"#;

pub(super) fn encode_chat(call: &ChatCall<'_>) -> Result<HttpCall, ApiError> {
    let request = &call.composed.request;
    let quirks = &call.rules.quirks;
    blocks::check(request)?;
    let prefix = call.prefix.cloned().unwrap_or_default();
    // Beside a context even leading system messages stay in their place: see the rules of the dialect.
    let system_length = match call.prefix {
        Some(_) => 0,
        None => block::leading_system(&call.composed.new),
    };
    let (system, new) = call.composed.new.split_at(system_length);
    let system = elements(&block::system_blocks(system)?);
    let origin = Origin::Request {
        first: system_length,
    };
    let new = block::messages(new, origin, quirks, |_| None)?;
    if new.is_empty() {
        return Err(ApiError::invalid(
            "messages",
            "must hold a message with text that is not a system message: this model's provider needs one",
        ));
    }
    let tools = if prefix.tools.is_empty() {
        block::tools(&call.composed.tools, quirks, None)
    } else {
        prefix.tools.clone()
    };

    let thinking = Thinking::of(call, "anthropic");
    let max_tokens = thinking.max_tokens.or(call.max_tokens);
    let tool_choice = tool_choice_out(&call.composed.tool_choice, request.parallel_tool_calls);
    let mut fields = RequestOut {
        model: call.model,
        max_tokens: max_tokens.unwrap_or(quirks.max_tokens_default),
        thinking: thinking.thinking,
        tool_choice: tool_choice.filter(|_| !tools.is_empty()),
        stop_sequences: &request.stop,
        temperature: request.sampling.temperature,
        top_p: request.sampling.top_p,
        top_k: request.sampling.top_k,
        output_config: output_config(&request.response_format, thinking.effort, call.rules)?,
        metadata: request.user.as_deref().map(|user_id| Metadata { user_id }),
        stream: Some(true),
        diagnostics: call.previous_answer.map(|previous_message_id| Diagnostics {
            previous_message_id,
        }),
        others: Map::new(),
    };
    if quirks.passes_unknown_fields {
        let unknown = request.extra.iter().filter(|(name, _)| !is_own(name));
        fields.others = unknown
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
    }
    let headers = headers(&prefix, call.rules);
    let body = Body::new()
        .array("\"tools\":[", &[&tools], "]")
        .array("\"system\":[", &[&prefix.system, &system], "]")
        .array(
            "\"messages\":[",
            &[&prefix.initial, &prefix.history, &new],
            "]",
        );
    Ok(finish(
        body,
        fields,
        headers,
        [
            (call.rules.cache.key, call.cache_key),
            (call.rules.cache.salt, call.salt),
        ],
    ))
}

/// The cheapest request with the prefix; `None` where the rules have no such call.
pub(super) fn encode_hold(call: &HoldCall<'_>) -> Option<HttpCall> {
    let max_tokens = match call.rules.cache.prewarm {
        Prewarm::None | Prewarm::Flag => return None,
        Prewarm::MaxTokensZero => 0,
        Prewarm::OneToken => 1,
    };
    let prefix = call.prefix;
    // A forced choice is refused beside `max_tokens: 0`. Any other is part of what an entry is found by.
    let tool_choice = match call.tool_choice {
        Some(ToolChoice::None) if !prefix.tools.is_empty() => Some(ToolChoiceOut::None),
        _ => None,
    };
    let fields = RequestOut {
        model: call.model,
        max_tokens,
        thinking: None,
        tool_choice,
        stop_sequences: &[],
        temperature: None,
        top_p: None,
        top_k: None,
        output_config: None,
        metadata: None,
        stream: None,
        diagnostics: None,
        others: Map::new(),
    };
    let headers = headers(prefix, call.rules);
    let body = Body::new()
        .array("\"tools\":[", &[&prefix.tools], "]")
        .array("\"system\":[", &[&prefix.system], "]")
        .array(
            "\"messages\":[",
            &[
                &prefix.initial,
                &prefix.history,
                &Bytes::from_static(SMALLEST_MESSAGE),
            ],
            "]",
        );
    Some(finish(
        body,
        fields,
        headers,
        [
            (call.rules.cache.key, call.cache_key),
            (call.rules.cache.salt, call.salt),
        ],
    ))
}

/// What is no array of stored elements.
#[derive(Serialize)]
struct RequestOut<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<ThinkingOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoiceOut<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diagnostics: Option<Diagnostics<'a>>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Serialize)]
struct Diagnostics<'a> {
    previous_message_id: &'a str,
}

#[derive(Serialize)]
struct Metadata<'a> {
    user_id: &'a str,
}

#[derive(Serialize)]
struct OutputConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<OutputFormat<'a>>,
}

#[derive(Serialize)]
struct OutputFormat<'a> {
    r#type: &'static str,
    schema: &'a Value,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ToolChoiceOut<'a> {
    Auto {
        disable_parallel_tool_use: bool,
    },
    Any {
        #[serde(skip_serializing_if = "Option::is_none")]
        disable_parallel_tool_use: Option<bool>,
    },
    Tool {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        disable_parallel_tool_use: Option<bool>,
    },
    None,
}

/// `None` is the API's default.
fn tool_choice_out(choice: &ToolChoice, parallel: Option<bool>) -> Option<ToolChoiceOut<'_>> {
    let disable_parallel_tool_use = (parallel == Some(false)).then_some(true);
    match choice {
        ToolChoice::Auto => disable_parallel_tool_use.map(|disable| ToolChoiceOut::Auto {
            disable_parallel_tool_use: disable,
        }),
        ToolChoice::None => Some(ToolChoiceOut::None),
        ToolChoice::Required => Some(ToolChoiceOut::Any {
            disable_parallel_tool_use,
        }),
        ToolChoice::Named(name) => Some(ToolChoiceOut::Tool {
            name,
            disable_parallel_tool_use,
        }),
    }
}

/// Whether a field is written here: a client's unknown field of that name is not written a second time.
fn is_own(name: &str) -> bool {
    matches!(
        name,
        "model"
            | "max_tokens"
            | "tools"
            | "tool_choice"
            | "system"
            | "messages"
            | "stop_sequences"
            | "temperature"
            | "top_p"
            | "top_k"
            | "thinking"
            | "output_config"
            | "metadata"
            | "stream"
    )
}

fn output_config<'a>(
    format: &'a ResponseFormat,
    effort: Option<&'static str>,
    rules: &ModelRules,
) -> Result<Option<OutputConfig<'a>>, ApiError> {
    let config = |format| OutputConfig { effort, format };
    match format {
        ResponseFormat::Text => Ok(effort.map(|_| config(None))),
        ResponseFormat::JsonSchema { schema, .. } if rules.quirks.json_schema => {
            Ok(Some(config(Some(OutputFormat {
                r#type: "json_schema",
                schema,
            }))))
        }
        ResponseFormat::JsonSchema { .. } => Err(ApiError::unsupported(
            "response_format",
            "can't be `json_schema` for this model",
        )),
        ResponseFormat::JsonObject => Err(ApiError::unsupported(
            "response_format",
            "can't be `json_object` for this model: its provider needs a schema, or words in the prompt",
        )),
    }
}

fn headers(prefix: &EncodedPrefix, rules: &ModelRules) -> Vec<(&'static str, String)> {
    let mut headers: Vec<(&'static str, String)> = rules
        .quirks
        .headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    if !headers.iter().any(|(name, _)| *name == VERSION_HEADER.0) {
        headers.push((VERSION_HEADER.0, VERSION_HEADER.1.to_owned()));
    }
    if asks_for_one_hour(prefix) {
        match headers.iter_mut().find(|(name, _)| *name == BETA_HEADER) {
            Some((_, value)) => {
                value.push(',');
                value.push_str(ONE_HOUR_BETA);
            }
            None => headers.push((BETA_HEADER, ONE_HOUR_BETA.to_owned())),
        }
    }
    headers
}

fn finish(
    body: Body,
    mut fields: RequestOut<'_>,
    mut headers: Vec<(&'static str, String)>,
    routing: [(Option<RequestField>, Option<&str>); 2],
) -> HttpCall {
    for (field, value) in routing {
        match (field, value) {
            (Some(RequestField::Body(name)), Some(value)) => {
                fields.others.insert(name.to_owned(), value.into());
            }
            (Some(RequestField::Header(name)), Some(value)) => {
                headers.push((name, value.to_owned()));
            }
            _ => {}
        }
    }
    HttpCall {
        headers,
        ..HttpCall::post(PATH, body.rest(&fields))
    }
}
