//! The fields of a request beside its input: tools, shape of the answer, sampling.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::items::Flavour;
use crate::chat::{ChatRequest, ReasoningLevel, ResponseFormat, Tool, ToolChoice};
use crate::dialect::pieces::elements;
use crate::error::ApiError;
use crate::provider::ReasoningControl;

#[derive(Serialize)]
struct ToolOut<'a> {
    r#type: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    parameters: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// Elements of `tools`.
pub(super) fn tools(tools: &[Tool], flavour: Flavour) -> Bytes {
    let tools: Vec<_> = tools
        .iter()
        .map(|tool| ToolOut {
            r#type: "function",
            name: &tool.name,
            description: tool.description.as_deref(),
            parameters: tool
                .parameters
                .clone()
                .unwrap_or_else(|| json!({"type": "object", "properties": {}})),
            strict: match flavour {
                Flavour::OpenAi => Some(tool.strict.unwrap_or(false)),
                Flavour::Ark => None,
            },
        })
        .collect();
    elements(&tools)
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ToolChoiceOut<'a> {
    Word(&'static str),
    Named { r#type: &'static str, name: &'a str },
}

/// `None` for `auto`, which is the default.
pub(super) fn tool_choice(choice: &ToolChoice) -> Option<ToolChoiceOut<'_>> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some(ToolChoiceOut::Word("none")),
        ToolChoice::Required => Some(ToolChoiceOut::Word("required")),
        ToolChoice::Named(name) => Some(ToolChoiceOut::Named {
            r#type: "function",
            name,
        }),
    }
}

#[derive(Serialize, Default)]
pub(super) struct TextOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verbosity: Option<&'a Value>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format<'a> {
    JsonObject,
    JsonSchema {
        name: &'a str,
        schema: &'a Value,
        strict: bool,
    },
}

#[derive(Serialize)]
pub(super) struct Reasoning<'a> {
    effort: Cow<'a, str>,
}

/// OpenAI's own word where the client used it, so that new ones arrive; else the model's nearest.
fn effort<'a>(
    request: &'a ChatRequest,
    flavour: Flavour,
    control: ReasoningControl,
) -> Option<Reasoning<'a>> {
    let own = extra(&request.extra, "reasoning_effort").and_then(Value::as_str);
    let effort = match (flavour, control, own) {
        (Flavour::OpenAi, _, Some(own)) => Cow::Borrowed(own),
        (Flavour::OpenAi, ReasoningControl::Effort(known), None) => {
            request.reasoning?.effort(known)?.into()
        }
        (Flavour::Ark, ReasoningControl::Thinking { efforts, .. }, _) => {
            let level = request
                .reasoning
                .filter(|level| *level != ReasoningLevel::Off)?;
            level.effort(efforts)?.into()
        }
        _ => return None,
    };
    Some(Reasoning { effort })
}

/// Ark's switch; an effort needs none.
pub(super) fn thinking(request: &ChatRequest) -> Option<ThinkingOut> {
    let r#type = match request.reasoning? {
        ReasoningLevel::Off => "disabled",
        ReasoningLevel::On => "enabled",
        ReasoningLevel::Adaptive => "auto",
        _ => return None,
    };
    Some(ThinkingOut { r#type })
}

#[derive(Serialize)]
pub(super) struct ThinkingOut {
    r#type: &'static str,
}

/// What a client asks of the answer, alike for both.
#[derive(Serialize, Default)]
pub(super) struct Asked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<TextOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<Reasoning<'a>>,
}

impl<'a> Asked<'a> {
    /// # Errors
    /// The Responses API has no field for something.
    pub(super) fn of(
        request: &'a ChatRequest,
        max_tokens: Option<u32>,
        flavour: Flavour,
        control: ReasoningControl,
    ) -> Result<Self, ApiError> {
        check(request)?;
        let format = match &request.response_format {
            ResponseFormat::Text => None,
            ResponseFormat::JsonObject => Some(Format::JsonObject),
            ResponseFormat::JsonSchema {
                name,
                schema,
                strict,
            } => Some(Format::JsonSchema {
                name,
                schema,
                strict: *strict,
            }),
        };
        let verbosity = match flavour {
            Flavour::OpenAi => extra(&request.extra, "verbosity"),
            Flavour::Ark => None,
        };
        Ok(Asked {
            max_output_tokens: max_tokens,
            temperature: request.sampling.temperature,
            top_p: request.sampling.top_p,
            text: (format.is_some() || verbosity.is_some())
                .then_some(TextOut { format, verbosity }),
            reasoning: effort(request, flavour, control),
        })
    }

    /// The shortest answer there is.
    pub(super) fn of_tokens(max_output_tokens: u32) -> Self {
        Asked {
            max_output_tokens: Some(max_output_tokens),
            ..Asked::default()
        }
    }
}

/// A field that the gateway does not know, for a field of the same meaning.
pub(super) fn extra<'a>(extra: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    extra.get(key).filter(|value| !value.is_null())
}

fn check(request: &ChatRequest) -> Result<(), ApiError> {
    let sampling = &request.sampling;
    let is_set = |penalty: Option<f32>| penalty.is_some_and(|penalty| penalty != 0.0);
    let field = if !request.stop.is_empty() {
        "stop"
    } else if request.choices > 1 {
        "n"
    } else if !sampling.logit_bias.is_empty() {
        "logit_bias"
    } else if is_set(sampling.presence_penalty) {
        "presence_penalty"
    } else if is_set(sampling.frequency_penalty) {
        "frequency_penalty"
    } else {
        return Ok(());
    };
    Err(ApiError::unsupported(
        field,
        "can't be honoured by this model's provider on the interface that the gateway uses",
    ))
}
