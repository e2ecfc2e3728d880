//! `additionalModelRequestFields`: what only the models of one maker know. Claude's are those of its own API and follow
//! its rules; the service hands the others to the model, which refuses what it doesn't know.

use serde_json::{Map, Value};

use super::prompt::{Invalid, no_extra};
use crate::families::anthropic::thinking::{self, Asked, Mode};

/// What stands before an error that the model, and not the service, has found.
const RETURNED: &str = "The model returned the following errors:";
const CLAUDE_FIELDS: &[&str] = &["thinking", "top_k", "output_config", "anthropic_beta"];
const EFFORTS: &[&str] = &["low", "medium", "high"];

/// Whose model it is, as far as these fields differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Anthropic,
    Amazon,
    OpenAi,
    Other,
}

/// The maker of a model, an inference profile, or the ARN of one.
pub(super) fn maker(id: &str) -> Maker {
    let name = id.rsplit('/').next().unwrap_or(id);
    [
        ("anthropic.", Maker::Anthropic),
        ("amazon.nova", Maker::Amazon),
        ("openai.", Maker::OpenAi),
    ]
    .into_iter()
    .find(|(part, _)| name.contains(part))
    .map_or(Maker::Other, |(_, maker)| maker)
}

/// Checks the fields and what they go together with.
pub(super) fn check(body: &Map<String, Value>, maker: Maker) -> Invalid<()> {
    let nothing = Map::new();
    let fields = match body.get("additionalModelRequestFields") {
        None | Some(Value::Null) => &nothing,
        Some(fields) => fields
            .as_object()
            .ok_or("The value at additionalModelRequestFields must be an object.")?,
    };
    match maker {
        Maker::Anthropic => claude(body, fields).map_err(|message| format!("{RETURNED} {message}")),
        Maker::Amazon => nova(fields),
        Maker::OpenAi => {
            no_extra(fields, &["reasoning_effort"])?;
            word(fields.get("reasoning_effort"), "reasoning_effort", EFFORTS)
        }
        Maker::Other => no_extra(fields, &[]),
    }
}

/// What a request says about thinking; `None` where nothing.
pub(super) fn thinking(body: &Value) -> Option<&Value> {
    body.get("additionalModelRequestFields")?
        .get("thinking")
        .filter(|thinking| !thinking.is_null())
}

fn claude(body: &Map<String, Value>, fields: &Map<String, Value>) -> Invalid<()> {
    if let Some(key) = fields
        .keys()
        .find(|key| !CLAUDE_FIELDS.contains(&key.as_str()))
    {
        return Err(format!("{key}: Extra inputs are not permitted"));
    }
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    if field("top_k").is_some_and(|value| value.as_u64().is_none()) {
        return Err("top_k: Input should be greater than or equal to 0".into());
    }
    if let Some(config) = field("output_config") {
        let config = config
            .as_object()
            .ok_or("output_config: Input should be a valid dictionary")?;
        thinking::effort(config)?;
    }
    let inference = body.get("inferenceConfig").unwrap_or(&Value::Null);
    let choice = body
        .get("toolConfig")
        .and_then(|config| config.get("toolChoice"));
    let mode = thinking::check(&Asked {
        thinking: field("thinking"),
        max_tokens: inference["maxTokens"].as_u64(),
        temperature: inference.get("temperature"),
        top_p: inference.get("topP"),
        top_k: field("top_k"),
        forces_tool: choice
            .is_some_and(|choice| choice.get("any").is_some() || choice.get("tool").is_some()),
        refuses_unknown: true,
    })?;
    if mode == Mode::Budget {
        thinking_first(&body["messages"])
    } else {
        Ok(())
    }
}

/// While a tool's result is being answered, the turn that called it must still begin with its thinking.
fn thinking_first(messages: &Value) -> Invalid<()> {
    let messages = messages.as_array().map_or(&[][..], Vec::as_slice);
    let begins_with = |message: &Value, kind: &str| message["content"][0].get(kind).is_some();
    if !messages
        .last()
        .is_some_and(|last| begins_with(last, "toolResult"))
    {
        return Ok(());
    }
    match messages
        .iter()
        .rposition(|message| message["role"] == "assistant")
    {
        Some(index) if !begins_with(&messages[index], "reasoningContent") => {
            let is_call = begins_with(&messages[index], "toolUse");
            Err(thinking::not_first(
                index,
                if is_call { "tool_use" } else { "text" },
            ))
        }
        _ => Ok(()),
    }
}

fn nova(fields: &Map<String, Value>) -> Invalid<()> {
    no_extra(fields, &["inferenceConfig", "reasoningConfig"])?;
    if let Some(config) = fields.get("inferenceConfig").and_then(Value::as_object) {
        no_extra(config, &["topK"])?;
    }
    if let Some(config) = fields.get("reasoningConfig").and_then(Value::as_object) {
        no_extra(config, &["type", "maxReasoningEffort"])?;
        word(
            config.get("type"),
            "reasoningConfig.type",
            &["enabled", "disabled"],
        )?;
        word(
            config.get("maxReasoningEffort"),
            "reasoningConfig.maxReasoningEffort",
            EFFORTS,
        )?;
    }
    Ok(())
}

fn word(value: Option<&Value>, at: &str, words: &[&str]) -> Invalid<()> {
    match value {
        Some(value) if !words.contains(&value.as_str().unwrap_or_default()) => Err(format!(
            "Malformed input request: #/{at}: {value} is not a valid enum value, please reformat your input and try again."
        )),
        _ => Ok(()),
    }
}
