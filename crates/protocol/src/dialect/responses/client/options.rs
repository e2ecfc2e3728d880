//! The fields of a request beside its input.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::Surface;
use super::echo::{Echo, number};
use super::input::Only;
use crate::chat::{ChatRequest, ReasoningLevel, ResponseFormat, Tool, ToolChoice};
use crate::dialect::fields::{Fields, invalid, wrong_type};
use crate::dialect::openai::asked;
use crate::error::{ApiError, ErrorKind};

const KIND: ErrorKind = ErrorKind::InvalidParameter;
const TOOLS_MAX: usize = 512;
const TOOL_NAME_MAX: usize = 64;
const INCLUDE_MAX: usize = 64;
const TOP_LOGPROBS_MAX: i64 = 20;
/// What asks for log probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";
/// Bounds of `metadata`: pairs, and characters of a key and of a value.
const METADATA_MAX: (usize, usize, usize) = (16, 64, 512);

/// Token choice and limits.
pub(super) fn sampling(
    fields: &mut Fields,
    chat: &mut ChatRequest,
    echo: &mut Echo,
) -> Result<(), ApiError> {
    chat.max_tokens = fields.count("max_output_tokens", 1)?;
    chat.sampling.temperature = fields.number("temperature", 0.0..=2.0)?;
    chat.sampling.top_p = fields.number("top_p", 0.0..=1.0)?;
    let top = fields.integer("top_logprobs", 0..=TOP_LOGPROBS_MAX)?;
    let include = fields.array("include", INCLUDE_MAX)?.unwrap_or_default();
    if include.iter().any(|wanted| wanted == LOGPROBS) {
        chat.logprobs = Some(u8::try_from(top.unwrap_or(0)).unwrap_or(0));
    }
    echo.set("max_output_tokens", chat.max_tokens);
    echo.set("max_tool_calls", fields.count("max_tool_calls", 0)?);
    echo.set("temperature", number(chat.sampling.temperature));
    echo.set("top_p", number(chat.sampling.top_p));
    echo.set("top_logprobs", top.unwrap_or(0));
    Ok(())
}

/// `text`: shape and length of the answer.
pub(super) fn text(
    fields: &mut Fields,
    chat: &mut ChatRequest,
    echo: &mut Echo,
) -> Result<(), ApiError> {
    let mut told = json!({"format": {"type": "text"}});
    if let Some(mut text) = fields.object("text")? {
        if let Some(format) = text.value("format") {
            let path = text.path_of("format");
            chat.response_format = response_format(Fields::of_value(format.clone(), path, KIND)?)?;
            told["format"] = format;
        }
        if let Some(verbosity) = text.string("verbosity")? {
            if !matches!(verbosity.as_str(), "low" | "medium" | "high") {
                return Err(text.invalid("verbosity", "must be low, medium or high"));
            }
            told["verbosity"] = verbosity.as_str().into();
            chat.extra.insert("verbosity".to_owned(), verbosity.into());
        }
    }
    echo.set("text", told);
    Ok(())
}

fn response_format(mut format: Fields) -> Result<ResponseFormat, ApiError> {
    match format.required_string("type")?.as_str() {
        "text" => Ok(ResponseFormat::Text),
        "json_object" => Ok(ResponseFormat::JsonObject),
        "json_schema" => {
            let schema = format
                .map("schema")?
                .ok_or_else(|| format.missing("schema"))?;
            Ok(ResponseFormat::JsonSchema {
                name: format.required_string("name")?,
                schema: Value::Object(schema),
                strict: format.boolean("strict")?.unwrap_or(false),
            })
        }
        _ => Err(format.invalid("type", "must be text, json_object or json_schema")),
    }
}

/// `reasoning`, and Ark's `thinking`.
pub(super) fn reasoning(
    fields: &mut Fields,
    chat: &mut ChatRequest,
    echo: &mut Echo,
) -> Result<(), ApiError> {
    let mut told = match echo.surface {
        Surface::OpenAi => json!({"effort": null, "summary": null}),
        Surface::Ark => Value::Null,
    };
    if let Some(mut reasoning) = fields.object("reasoning")? {
        if let Some(effort) = reasoning.string("effort")? {
            chat.reasoning = Some(ReasoningLevel::of_effort(&effort).ok_or_else(|| {
                reasoning.invalid(
                    "effort",
                    "must be none, minimal, low, medium, high, xhigh or max",
                )
            })?);
            told["effort"] = effort.as_str().into();
            chat.extra
                .insert("reasoning_effort".to_owned(), effort.into());
        }
        let older = reasoning.string("generate_summary")?;
        if let Some(summary) = reasoning.string("summary")?.or(older) {
            if !matches!(summary.as_str(), "auto" | "concise" | "detailed") {
                return Err(reasoning.invalid("summary", "must be auto, concise or detailed"));
            }
            if echo.surface == Surface::OpenAi {
                told["summary"] = summary.into();
            }
        }
    }
    echo.set("reasoning", told);
    if let Some(thinking) = fields.value("thinking") {
        if echo.surface == Surface::Ark {
            let known = Fields::of_value(thinking.clone(), "thinking".to_owned(), KIND)?;
            let thinks = thinks(known)?;
            chat.reasoning = match thinks {
                ReasoningLevel::Off => Some(ReasoningLevel::Off),
                level => chat.reasoning.or(Some(level)),
            };
        }
        echo.set("thinking", thinking.clone());
        chat.extra.insert("thinking".to_owned(), thinking);
        if echo.surface == Surface::OpenAi {
            // OpenAI's clients may send anything in a field of others.
            chat.reasoning = asked(&chat.extra).or(chat.reasoning);
        }
    }
    Ok(())
}

fn thinks(mut thinking: Fields) -> Result<ReasoningLevel, ApiError> {
    let budget = thinking.count("budget_tokens", 1)?;
    match thinking.required_string("type")?.as_str() {
        "disabled" => Ok(ReasoningLevel::Off),
        "enabled" => Ok(budget.map_or(ReasoningLevel::On, ReasoningLevel::Budget)),
        "auto" => Ok(ReasoningLevel::Adaptive),
        _ => Err(thinking.invalid("type", "must be enabled, disabled or auto")),
    }
}

/// `tools`, `tool_choice` and `parallel_tool_calls`.
pub(super) fn tools(
    fields: &mut Fields,
    chat: &mut ChatRequest,
    echo: &mut Echo,
    only: &mut Only,
) -> Result<(), ApiError> {
    let values = fields.array("tools", TOOLS_MAX)?.unwrap_or_default();
    let mut names = HashSet::new();
    for (index, value) in values.into_iter().enumerate() {
        let path = format!("tools[{index}]");
        let mut tool = Fields::of_value(value, path, KIND)?;
        if tool.required_string("type")? != "function" {
            only.note(ApiError::unsupported(
                &tool.path_of("type"),
                "names a tool that its provider runs itself; only functions can be offered here",
            ));
            continue;
        }
        let name = tool.required_string("name")?;
        if !is_name(&name) {
            return Err(tool.invalid(
                "name",
                format!("must be 1 to {TOOL_NAME_MAX} letters, digits, `_` and `-`"),
            ));
        }
        if !names.insert(name.clone()) {
            return Err(tool.invalid("name", "is another tool's, too"));
        }
        chat.tools.push(Tool {
            name,
            description: tool.string("description")?,
            parameters: tool.map("parameters")?.map(Value::Object),
            strict: tool.boolean("strict")?,
        });
    }
    let told: Vec<Value> = chat
        .tools
        .iter()
        .map(|tool| told_tool(tool, echo))
        .collect();
    echo.set("tools", told);
    let choice = fields.value("tool_choice");
    let told = match choice {
        None => "auto".into(),
        Some(choice) => {
            only.tolerate(tool_choice(choice.clone(), chat))?
                .map_or(Value::Null, |()| match (&chat.tool_choice, echo.surface) {
                    // Ark has no `allowed_tools`.
                    (Some(ToolChoice::Auto), Surface::Ark) => "auto".into(),
                    (Some(ToolChoice::Required), Surface::Ark) => "required".into(),
                    _ => choice,
                })
        }
    };
    echo.set("tool_choice", told);
    chat.parallel_tool_calls = fields.boolean("parallel_tool_calls")?;
    echo.set(
        "parallel_tool_calls",
        chat.parallel_tool_calls.unwrap_or(true),
    );
    Ok(())
}

fn is_name(text: &str) -> bool {
    let is_plain = |symbol: char| symbol.is_ascii_alphanumeric() || matches!(symbol, '_' | '-');
    (1..=TOOL_NAME_MAX).contains(&text.len()) && text.chars().all(is_plain)
}

fn told_tool(tool: &Tool, echo: &Echo) -> Value {
    let mut told = json!({"type": "function", "name": tool.name});
    match echo.surface {
        Surface::OpenAi => {
            told["description"] = tool.description.as_deref().into();
            told["parameters"] = tool.parameters.clone().into();
            told["strict"] = tool.strict.unwrap_or(false).into();
        }
        Surface::Ark => {
            if let Some(description) = &tool.description {
                told["description"] = description.as_str().into();
            }
            if let Some(parameters) = &tool.parameters {
                told["parameters"] = parameters.clone();
            }
        }
    }
    told
}

fn tool_choice(value: Value, chat: &mut ChatRequest) -> Result<(), ApiError> {
    let word = |word: &str| match word {
        "auto" => Some(ToolChoice::Auto),
        "none" => Some(ToolChoice::None),
        "required" => Some(ToolChoice::Required),
        _ => None,
    };
    let path = "tool_choice";
    if let Value::String(text) = &value {
        let choice = word(text).ok_or_else(|| {
            invalid(
                KIND,
                path,
                "must be auto, none, required or name a function",
            )
        })?;
        chat.tool_choice = Some(choice);
        return Ok(());
    }
    if !value.is_object() {
        return Err(wrong_type(KIND, path, "a string or an object", &value));
    }
    let mut choice = Fields::of_value(value, path.to_owned(), KIND)?;
    match choice.required_string("type")?.as_str() {
        "function" => {
            chat.tool_choice = Some(ToolChoice::Named(choice.required_string("name")?));
        }
        "allowed_tools" => {
            let mode = choice.required_string("mode")?;
            let mode = word(&mode)
                .filter(|mode| *mode != ToolChoice::None)
                .ok_or_else(|| choice.invalid("mode", "must be auto or required"))?;
            let allowed = allowed(&mut choice)?;
            if !allowed
                .iter()
                .all(|name| chat.tools.iter().any(|tool| tool.name == *name))
            {
                return Err(
                    choice.invalid("tools", "names a function that is not among the `tools`")
                );
            }
            chat.tools.retain(|tool| allowed.contains(&tool.name));
            chat.tool_choice = Some(mode);
        }
        _ => {
            return Err(ApiError::unsupported(
                &choice.path_of("type"),
                "names a tool that its provider runs itself: use `function` or `allowed_tools`",
            ));
        }
    }
    Ok(())
}

fn allowed(choice: &mut Fields) -> Result<Vec<String>, ApiError> {
    let tools = choice
        .array("tools", TOOLS_MAX)?
        .ok_or_else(|| choice.missing("tools"))?;
    let names = tools.into_iter().enumerate().map(|(index, tool)| {
        let path = choice.path_of(&format!("tools[{index}]"));
        let mut tool = Fields::of_value(tool, path, KIND)?;
        if tool.required_string("type")? != "function" {
            return Err(ApiError::unsupported(
                &tool.path_of("type"),
                "names a tool that its provider runs itself; only functions can be offered here",
            ));
        }
        tool.required_string("name")
    });
    names.collect()
}

/// `metadata`: what a client keeps with an object, text under names.
pub(super) fn metadata(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let (pairs_max, key_max, value_max) = METADATA_MAX;
    let metadata = fields.map("metadata")?.unwrap_or_default();
    if metadata.len() > pairs_max {
        return Err(fields.invalid("metadata", format!("may have at most {pairs_max} pairs")));
    }
    let is_short = |(key, value): (&String, &Value)| {
        let value = value.as_str().map(|value| value.chars().count());
        key.chars().count() <= key_max && value.is_some_and(|length| length <= value_max)
    };
    if !metadata.iter().all(is_short) {
        return Err(fields.invalid(
            "metadata",
            format!(
                "must map names of at most {key_max} characters to strings of at most {value_max}"
            ),
        ));
    }
    Ok(metadata)
}
