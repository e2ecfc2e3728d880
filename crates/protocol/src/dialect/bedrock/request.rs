//! Chats and the calls that warm a prefix.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::block;
use super::prefix::{self, Speaker};
use crate::chat::{ChatRequest, Message, ResponseFormat, Role, ToolChoice};
use crate::dialect::blocks::{self, Origin, Thinking, ThinkingOut};
use crate::dialect::pieces::{Body, elements, segment};
use crate::error::ApiError;
use crate::provider::{ModelRules, Prewarm, RequestField};
use crate::upstream::{ChatCall, EncodedPrefix, HoldCall, HttpCall};

pub(super) fn encode_chat(call: &ChatCall<'_>) -> Result<HttpCall, ApiError> {
    let request = &call.composed.request;
    let quirks = &call.rules.quirks;
    let prefix = call.prefix.cloned().unwrap_or_default();
    let tools = if prefix.tools.is_empty() {
        let tools: Vec<_> = call
            .composed
            .tools
            .iter()
            .map(|tool| block::tool_out(tool, quirks))
            .collect();
        elements(&tools)
    } else {
        prefix.tools.clone()
    };
    let tool_choice = &call.composed.tool_choice;
    check(request, tool_choice, !tools.is_empty())?;
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
    let new = prefix::messages(new, origin, quirks, last_speaker(&prefix), |_| None)?;
    if new.is_empty() {
        return Err(ApiError::invalid(
            "messages",
            "must hold a message with text that is not a system message: this model's provider needs one",
        ));
    }

    let mut others = Map::new();
    if quirks.passes_unknown_fields {
        let unknown = request.extra.iter().filter(|(name, _)| !is_own(name));
        others.extend(unknown.map(|(name, value)| (name.clone(), value.clone())));
    }
    let thinking = Thinking::of(call, "bedrock");
    let inference_config = InferenceConfig {
        max_tokens: thinking.max_tokens.or(call.max_tokens),
        temperature: request.sampling.temperature,
        top_p: request.sampling.top_p,
        stop_sequences: &request.stop,
    };
    let fields = RequestOut {
        tool_config: tool_config(&tools, tool_choice)?,
        inference_config: Some(inference_config).filter(|config| !config.is_empty()),
        output_config: output_config(&request.response_format, call.rules)?,
        additional_model_request_fields: ModelFields {
            thinking: thinking.thinking,
            output_config: thinking.effort.map(|effort| Effort { effort }),
            top_k: request.sampling.top_k.filter(|_| quirks.top_k),
        }
        .unless_empty(),
        others,
    };
    let messages = prefix::open([&prefix.initial, &prefix.history, &new]);
    let body = Body::new()
        .array("\"system\":[", &[&prefix.system, &system], "]")
        .array("\"messages\":[", &messages.iter().collect::<Vec<_>>(), "]");
    Ok(finish(
        body,
        fields,
        path(call.model, "converse-stream"),
        call.rules,
        [
            (call.rules.cache.key, call.cache_key),
            (call.rules.cache.salt, call.salt),
        ],
    ))
}

/// The cheapest request with the prefix; `None` where the rules have no such call.
///
/// # Errors
/// None in practice: the prefix was encoded here.
pub(super) fn encode_hold(call: &HoldCall<'_>) -> Result<Option<HttpCall>, ApiError> {
    match call.rules.cache.prewarm {
        Prewarm::None | Prewarm::Flag => return Ok(None),
        // Converse takes no `maxTokens` below 1.
        Prewarm::OneToken | Prewarm::MaxTokensZero => {}
    }
    let prefix = call.prefix;
    // A request must end with a user message whatever the prefix ends with.
    let last = [Message::text(Role::User, ".")];
    let origin = Origin::Request { first: 0 };
    let quirks = &call.rules.quirks;
    let last = prefix::messages(&last, origin, quirks, last_speaker(prefix), |_| None)?;
    let fields = RequestOut {
        tool_config: tool_config(&prefix.tools, &ToolChoice::Auto)?,
        inference_config: Some(InferenceConfig {
            max_tokens: Some(1),
            temperature: None,
            top_p: None,
            stop_sequences: &[],
        }),
        output_config: None,
        additional_model_request_fields: None,
        others: Map::new(),
    };
    let messages = prefix::open([&prefix.initial, &prefix.history, &last]);
    let body = Body::new()
        .array("\"system\":[", &[&prefix.system], "]")
        .array("\"messages\":[", &messages.iter().collect::<Vec<_>>(), "]");
    Ok(Some(finish(
        body,
        fields,
        path(call.model, "converse"),
        call.rules,
        [
            (call.rules.cache.key, call.cache_key),
            (call.rules.cache.salt, call.salt),
        ],
    )))
}

fn last_speaker(prefix: &EncodedPrefix) -> Option<Speaker> {
    Speaker::last_of(&prefix.history).or_else(|| Speaker::last_of(&prefix.initial))
}

/// What is no array of stored elements.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inference_config: Option<InferenceConfig<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    additional_model_request_fields: Option<ModelFields>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// What Claudes know and Converse does not, in Anthropic's own names.
#[derive(Serialize)]
struct ModelFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<ThinkingOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<Effort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
}

#[derive(Serialize)]
struct Effort {
    effort: &'static str,
}

impl ModelFields {
    fn unless_empty(self) -> Option<Self> {
        let is_empty =
            self.thinking.is_none() && self.output_config.is_none() && self.top_k.is_none();
        (!is_empty).then_some(self)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig {
    tools: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InferenceConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop_sequences: &'a [String],
}

impl InferenceConfig<'_> {
    fn is_empty(&self) -> bool {
        self.max_tokens.is_none()
            && self.temperature.is_none()
            && self.top_p.is_none()
            && self.stop_sequences.is_empty()
    }
}

/// Whether a field is written here: a client's unknown field of that name is not written a second time.
fn is_own(name: &str) -> bool {
    matches!(
        name,
        "system"
            | "messages"
            | "toolConfig"
            | "inferenceConfig"
            | "outputConfig"
            | "additionalModelRequestFields"
    )
}

fn check(request: &ChatRequest, tool_choice: &ToolChoice, has_tools: bool) -> Result<(), ApiError> {
    blocks::check(request)?;
    let refuse = |field: &str, problem: &str| Err(ApiError::unsupported(field, problem));
    if has_tools && *tool_choice == ToolChoice::None {
        return refuse(
            "tool_choice",
            "can't be `none` for this model: leave the tools out",
        );
    }
    if has_tools && request.parallel_tool_calls == Some(false) {
        return refuse(
            "parallel_tool_calls",
            "can't be switched off for this model",
        );
    }
    Ok(())
}

fn output_config(format: &ResponseFormat, rules: &ModelRules) -> Result<Option<Value>, ApiError> {
    match format {
        ResponseFormat::Text => Ok(None),
        ResponseFormat::JsonSchema { name, schema, .. } if rules.quirks.json_schema => {
            // The schema is a text within the JSON.
            let schema = schema.to_string();
            Ok(Some(json!({"textFormat": {
                "type": "json_schema",
                "structure": {"jsonSchema": {"name": name, "schema": schema}},
            }})))
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

fn tool_config(tools: &Bytes, choice: &ToolChoice) -> Result<Option<ToolConfig>, ApiError> {
    if tools.is_empty() {
        return Ok(None);
    }
    let tools = [&b"["[..], tools, b"]"].concat();
    Ok(Some(ToolConfig {
        tools: serde_json::from_slice(&tools).map_err(|_| ApiError::internal())?,
        tool_choice: match choice {
            ToolChoice::Required => Some(json!({"any": {}})),
            ToolChoice::Named(name) => Some(json!({"tool": {"name": name}})),
            ToolChoice::Auto | ToolChoice::None => None,
        },
    }))
}

/// Models are named by id (with `:`) or by ARN (with `/` as well), which stand in one segment of the path.
fn path(model: &str, action: &str) -> String {
    format!("/model/{}/{action}", segment(model))
}

fn finish(
    body: Body,
    mut fields: RequestOut<'_>,
    path: String,
    rules: &ModelRules,
    routing: [(Option<RequestField>, Option<&str>); 2],
) -> HttpCall {
    let mut headers: Vec<(&'static str, String)> = rules
        .quirks
        .headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
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
        ..HttpCall::post(path, body.rest(&fields))
    }
}
