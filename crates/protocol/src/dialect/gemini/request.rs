//! Prefixes and chats.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::content::{Calls, contents, leading_system, system_parts};
use super::{model_resource, schema};
use crate::chat::{ChatRequest, ReasoningLevel, ResponseFormat, Role, Tool, ToolChoice};
use crate::dialect::pieces::{Body, elements};
use crate::error::ApiError;
use crate::provider::{ModelRules, ReasoningControl};
use crate::upstream::{ChatCall, EncodedPrefix, HttpCall, PrefixParts};

pub(super) fn encode_prefix(
    parts: &PrefixParts<'_>,
    rules: &ModelRules,
) -> Result<EncodedPrefix, ApiError> {
    let (system, initial) = parts.initial.split_at(leading_system(parts.initial));
    let mut calls = Calls::default();
    Ok(EncodedPrefix {
        tools: tools(parts.tools)?,
        system: system_parts(parts.tenant_line, system)?,
        initial: contents(initial, system.len(), &mut calls, &rules.quirks)?,
        history: contents(parts.history, 0, &mut calls, &rules.quirks).map_err(|_| {
            // No field of the request names a remembered message.
            ApiError::unsupported(
                "context_id",
                "is of a context that remembers something this model's provider does not take",
            )
        })?,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    generation_config: GenerationConfig<'a>,
}

pub(super) fn encode_chat(call: &ChatCall<'_>) -> Result<HttpCall, ApiError> {
    let composed = call.composed;
    let quirks = &call.rules.quirks;
    // Results of tools need the names of the calls that they answer.
    let mut calls = if composed
        .new
        .iter()
        .any(|message| message.role == Role::Tool)
    {
        Calls::of(composed.initial().iter().chain(composed.history()))
    } else {
        Calls::default()
    };
    let own_system = match call.prefix {
        Some(_) => 0,
        // A request of system texts alone still has to say something.
        None => leading_system(&composed.new).min(composed.new.len().saturating_sub(1)),
    };
    let (system, rest) = composed.new.split_at(own_system);
    let own = EncodedPrefix {
        system: system_parts(None, system)?,
        ..EncodedPrefix::default()
    };
    let new = contents(rest, system.len(), &mut calls, quirks)?;
    let prefix = call.prefix.unwrap_or(&own);
    let generation_config =
        generation_config(&composed.request, call.max_tokens, quirks.reasoning)?;

    let body = match call.handle {
        Some(handle) => {
            if prefix.tools.is_empty() && !composed.tools.is_empty() {
                return Err(ApiError::unsupported(
                    "tools",
                    "can't be given beside a context of this model: store them in the context when you create it",
                ));
            }
            let held_history = Bytes::new();
            let history = if handle.with_history {
                &held_history
            } else {
                &prefix.history
            };
            Body::new()
                .array("\"contents\":[", &[history, &new], "]")
                .rest(&Rest {
                    cached_content: Some(handle.name),
                    tool_config: None,
                    generation_config,
                })
        }
        None => {
            let tools = match prefix.tools.is_empty() {
                true => tools(&composed.tools)?,
                false => prefix.tools.clone(),
            };
            let tool_config = match tools.is_empty() {
                true => None,
                false => tool_config(&composed.tool_choice),
            };
            Body::new()
                .array(
                    "\"systemInstruction\":{\"parts\":[",
                    &[&prefix.system],
                    "]}",
                )
                .array("\"tools\":[", &[&tools], "]")
                .array(
                    "\"contents\":[",
                    &[&prefix.initial, &prefix.history, &new],
                    "]",
                )
                .rest(&Rest {
                    cached_content: None,
                    tool_config,
                    generation_config,
                })
        }
    };
    let resource = model_resource(call.model, quirks.vertex_parent.is_some());
    Ok(HttpCall::post(
        format!("/{resource}:streamGenerateContent?alt=sse"),
        body,
    ))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolGroup<'a> {
    function_declarations: Vec<FunctionDeclaration<'a>>,
}

#[derive(Serialize)]
struct FunctionDeclaration<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
}

/// One element of `tools` that declares all functions; nothing without tools.
fn tools(tools: &[Tool]) -> Result<Bytes, ApiError> {
    if tools.is_empty() {
        return Ok(Bytes::new());
    }
    let function_declarations = tools
        .iter()
        .enumerate()
        .map(|(index, tool)| {
            let param = format!("tools[{index}].function.parameters");
            Ok(FunctionDeclaration {
                name: &tool.name,
                description: tool.description.as_deref(),
                parameters: match &tool.parameters {
                    Some(parameters) => schema::sanitised(parameters, &param)?,
                    None => None,
                },
            })
        })
        .collect::<Result<_, ApiError>>()?;
    Ok(elements(&[ToolGroup {
        function_declarations,
    }]))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolConfig<'a> {
    function_calling_config: FunctionCallingConfig<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FunctionCallingConfig<'a> {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_function_names: Option<[&'a str; 1]>,
}

/// `None` for `auto`, which is Google's default.
pub(super) fn tool_config(choice: &ToolChoice) -> Option<ToolConfig<'_>> {
    let (mode, allowed_function_names) = match choice {
        ToolChoice::Auto => return None,
        ToolChoice::None => ("NONE", None),
        ToolChoice::Required => ("ANY", None),
        ToolChoice::Named(name) => ("ANY", Some([name.as_str()])),
    };
    Some(ToolConfig {
        function_calling_config: FunctionCallingConfig {
            mode,
            allowed_function_names,
        },
    })
}

#[derive(Serialize, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<ThinkingConfig>,
}

/// One of budget and level, or neither.
#[derive(Serialize, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
struct ThinkingConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_budget: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    include_thoughts: Option<bool>,
}

/// Whoever asks for reasoning gets to see what there is of it: other dialects have no switch for that.
fn thinking_config(level: ReasoningLevel, control: ReasoningControl) -> Option<ThinkingConfig> {
    let config = ThinkingConfig {
        include_thoughts: (level != ReasoningLevel::Off).then_some(true),
        ..ThinkingConfig::default()
    };
    match control {
        ReasoningControl::Budget {
            min,
            max,
            can_be_off,
        } => {
            let budget = match (level, level.budget_tokens()) {
                (ReasoningLevel::Off, _) if can_be_off => 0,
                (ReasoningLevel::Off, _) => i64::from(min),
                (_, Some(tokens)) => i64::from(tokens.clamp(min, max)),
                // As the model sees fit.
                (_, None) => -1,
            };
            Some(ThinkingConfig {
                thinking_budget: Some(budget),
                ..config
            })
        }
        ReasoningControl::Effort(known) => Some(ThinkingConfig {
            thinking_level: level.effort(known).map(str::to_uppercase),
            ..config
        }),
        _ => None,
    }
}

fn is_default(config: &GenerationConfig<'_>) -> bool {
    *config == GenerationConfig::default()
}

fn generation_config(
    request: &ChatRequest,
    max_tokens: Option<u32>,
    control: ReasoningControl,
) -> Result<GenerationConfig<'_>, ApiError> {
    let sampling = &request.sampling;
    if !sampling.logit_bias.is_empty() {
        return Err(ApiError::unsupported(
            "logit_bias",
            "can't be honoured by this model's provider",
        ));
    }
    let seed = sampling
        .seed
        .map(i32::try_from)
        .transpose()
        .map_err(|_| ApiError::unsupported("seed", "must fit in 32 bits with this model"))?;
    let (response_mime_type, response_json_schema) = match &request.response_format {
        ResponseFormat::Text => (None, None),
        ResponseFormat::JsonObject => (Some("application/json"), None),
        ResponseFormat::JsonSchema { schema, .. } => (Some("application/json"), Some(schema)),
    };
    Ok(GenerationConfig {
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        candidate_count: (request.choices != 1).then_some(request.choices),
        max_output_tokens: max_tokens,
        stop_sequences: &request.stop,
        seed,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        response_logprobs: request.logprobs.map(|_| true),
        logprobs: request.logprobs.filter(|top| *top > 0),
        response_mime_type,
        response_json_schema,
        thinking_config: request
            .reasoning
            .and_then(|level| thinking_config(level, control)),
    })
}
