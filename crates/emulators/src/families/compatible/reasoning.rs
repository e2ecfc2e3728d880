//! How much a model is to think: each provider has a field of its own for it, and refuses what that field doesn't know.

use serde_json::Value;

use super::Refusal;

/// The fields of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reasoning {
    /// None that is looked at.
    Unchecked,
    /// `enable_thinking` and `thinking_budget` (Qwen).
    Switch,
    /// `thinking: {"type": "enabled" | "disabled"}` (DeepSeek, Kimi, Zhipu).
    Typed,
    /// `reasoning_effort`, and `chat_template_kwargs` for what else the template knows (vLLM, SGLang).
    Template,
    /// `reasoning_effort` on models that reason (Groq).
    Groq,
    /// `reasoning_effort` on one model only; all others decide for themselves (xAI).
    Xai,
    /// `reasoning` with one measure of several (OpenRouter).
    OpenRouter,
}

const EFFORTS: &[&str] = &["low", "medium", "high"];
const OPENROUTER_EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];

impl Reasoning {
    /// Refuses what the provider refuses.
    pub(super) fn check(self, body: &Value) -> Result<(), Refusal> {
        let model = body["model"].as_str().unwrap_or_default();
        let effort = &body["reasoning_effort"];
        match self {
            Reasoning::Unchecked => Ok(()),
            Reasoning::Switch => switch(body),
            Reasoning::Typed => typed(&body["thinking"]),
            Reasoning::Template => {
                let options = &body["chat_template_kwargs"];
                if !options.is_null() && !options.is_object() {
                    return refuse("chat_template_kwargs: Input should be a valid dictionary");
                }
                word(effort, "reasoning_effort", EFFORTS)
            }
            Reasoning::Groq if !effort.is_null() && !model.contains("gpt-oss-") => {
                refuse("reasoning_effort is not supported with this model")
            }
            Reasoning::Groq => word(effort, "reasoning_effort", EFFORTS),
            Reasoning::Xai if !effort.is_null() && !model.starts_with("grok-3-mini") => refuse(
                &format!("Model {model} does not support parameter reasoningEffort."),
            ),
            Reasoning::Xai => word(effort, "reasoning_effort", &["low", "high"]),
            Reasoning::OpenRouter => openrouter(&body["reasoning"]),
        }
    }

    /// Whether the request says that the model must not think.
    pub(super) fn is_off(self, body: &Value) -> bool {
        match self {
            Reasoning::Switch => body["enable_thinking"] == false,
            Reasoning::Typed => body["thinking"]["type"] == "disabled",
            Reasoning::Template => body["chat_template_kwargs"]["enable_thinking"] == false,
            Reasoning::OpenRouter => {
                body["reasoning"]["enabled"] == false || body["reasoning"]["effort"] == "none"
            }
            Reasoning::Unchecked | Reasoning::Groq | Reasoning::Xai => false,
        }
    }
}

fn refuse(message: &str) -> Result<(), Refusal> {
    Err(Refusal(message.to_owned()))
}

fn word(value: &Value, field: &str, words: &[&str]) -> Result<(), Refusal> {
    if value.is_null() || words.contains(&value.as_str().unwrap_or_default()) {
        return Ok(());
    }
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    refuse(&format!("{field} must be one of {}", words.join(", ")))
}

fn switch(body: &Value) -> Result<(), Refusal> {
    let (is_on, budget) = (&body["enable_thinking"], &body["thinking_budget"]);
    if !is_on.is_null() && !is_on.is_boolean() {
        return refuse("parameter.enable_thinking must be a boolean");
    }
    if !budget.is_null() && budget.as_u64().is_none_or(|budget| budget == 0) {
        return refuse("parameter.thinking_budget must be a positive integer");
    }
    Ok(())
}

fn typed(thinking: &Value) -> Result<(), Refusal> {
    if thinking.is_null() {
        return Ok(());
    }
    if !thinking.is_object() {
        return refuse("thinking must be an object");
    }
    match thinking["type"].as_str() {
        Some("enabled" | "disabled") => Ok(()),
        _ => refuse("thinking.type must be one of `enabled`, `disabled`"),
    }
}

fn openrouter(reasoning: &Value) -> Result<(), Refusal> {
    let fields = match reasoning {
        Value::Null => return Ok(()),
        Value::Object(fields) => fields,
        _ => return refuse("reasoning: Invalid input: expected object"),
    };
    for (name, value) in fields {
        match name.as_str() {
            _ if value.is_null() => {}
            "effort" => word(value, "reasoning.effort", OPENROUTER_EFFORTS)?,
            "max_tokens" if value.as_u64().is_some_and(|tokens| tokens > 0) => {}
            "enabled" | "exclude" if value.is_boolean() => {}
            "summary" if value.is_string() => {}
            _ => return refuse(&format!("reasoning.{name}: Invalid input")),
        }
    }
    if !reasoning["effort"].is_null() && !reasoning["max_tokens"].is_null() {
        return refuse(
            "Only one of \"reasoning.effort\" and \"reasoning.max_tokens\" can be specified",
        );
    }
    Ok(())
}
