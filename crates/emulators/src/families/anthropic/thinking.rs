//! What may be said about thinking, and what goes together with it. Bedrock has the same rules for what it passes on
//! to Claude.

use serde_json::{Map, Value};

use super::check::{Refused, field, no_extra};

/// Smallest budget, tokens.
const BUDGET_TOKENS_MIN: u64 = 1024;
/// Smallest `top_p` beside thinking.
const TOP_P_MIN: f64 = 0.95;
/// The words of `output_config.effort`.
const EFFORTS: &[&str] = &["low", "medium", "high", "xhigh", "max"];

/// A request as far as thinking is concerned. Fields that are null or absent are `None`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) thinking: Option<&'a Value>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) temperature: Option<&'a Value>,
    pub(crate) top_p: Option<&'a Value>,
    pub(crate) top_k: Option<&'a Value>,
    /// Whether the model must call a tool.
    pub(crate) forces_tool: bool,
    /// Whether fields that nobody knows are an error.
    pub(crate) refuses_unknown: bool,
}

/// How a request wants its model to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It says nothing.
    Unsaid,
    /// `disabled`.
    Off,
    /// With a budget: then turns that used tools must begin with their thinking.
    Budget,
    /// As the model sees fit.
    Adaptive,
}

/// Checks all of it.
pub(crate) fn check(asked: &Asked<'_>) -> Refused<Mode> {
    let Some(thinking) = asked.thinking else {
        return Ok(Mode::Unsaid);
    };
    let fields = thinking
        .as_object()
        .ok_or("thinking: Input should be a valid dictionary")?;
    let kind = fields
        .get("type")
        .and_then(Value::as_str)
        .ok_or("thinking.type: Field required")?;
    let (mode, allowed): (Mode, &[&str]) = match kind {
        "enabled" => (Mode::Budget, &["type", "budget_tokens", "display"]),
        "adaptive" => (Mode::Adaptive, &["type", "display"]),
        "between_tools" => (Mode::Adaptive, &["type"]),
        "disabled" => (Mode::Off, &["type"]),
        _ => {
            return Err(format!(
                "thinking: Input tag '{kind}' found using 'type' does not match any of the expected tags: 'adaptive', \
                 'between_tools', 'disabled', 'enabled'"
            ));
        }
    };
    if asked.refuses_unknown {
        no_extra(&format!("thinking.{kind}"), fields, allowed)?;
    }
    if let Some(display) = field(fields, "display")
        && !["summarized", "omitted"].contains(&display.as_str().unwrap_or_default())
    {
        return Err(format!(
            "thinking.{kind}.display: Input should be 'summarized' or 'omitted'"
        ));
    }
    match mode {
        Mode::Off => return Ok(mode),
        Mode::Budget => budget(fields, asked.max_tokens)?,
        _ => {}
    }
    company(asked, mode)?;
    Ok(mode)
}

fn budget(thinking: &Map<String, Value>, max_tokens: Option<u64>) -> Refused<()> {
    let budget = thinking
        .get("budget_tokens")
        .and_then(Value::as_u64)
        .ok_or("thinking.enabled.budget_tokens: Field required")?;
    if budget < BUDGET_TOKENS_MIN {
        return Err(format!(
            "thinking.enabled.budget_tokens: Input should be greater than or equal to {BUDGET_TOKENS_MIN}"
        ));
    }
    // A prewarm is refused for thinking as such, elsewhere.
    if max_tokens.is_some_and(|tokens| tokens > 0 && tokens <= budget) {
        return Err("`max_tokens` must be greater than `thinking.budget_tokens`.".into());
    }
    Ok(())
}

/// What can't stand beside thinking.
fn company(asked: &Asked<'_>, mode: Mode) -> Refused<()> {
    if asked.forces_tool {
        return Err("Thinking may not be enabled when tool_choice forces tool use.".into());
    }
    let state = match mode {
        Mode::Budget => "enabled",
        _ => "enabled or in adaptive mode",
    };
    if asked
        .temperature
        .is_some_and(|value| value.as_f64() != Some(1.0))
    {
        return Err(format!(
            "`temperature` may only be set to 1 when thinking is {state}."
        ));
    }
    if asked.top_k.is_some() {
        return Err(format!("`top_k` must be unset when thinking is {state}."));
    }
    if asked
        .top_p
        .is_some_and(|value| value.as_f64().is_none_or(|value| value < TOP_P_MIN))
    {
        return Err(format!(
            "`top_p` must be greater than or equal to {TOP_P_MIN} or unset when thinking is {state}."
        ));
    }
    Ok(())
}

/// The words that `output_config.effort` knows.
pub(crate) fn effort(config: &Map<String, Value>) -> Refused<()> {
    match field(config, "effort") {
        Some(effort) if !EFFORTS.contains(&effort.as_str().unwrap_or_default()) => Err(
            "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"
                .into(),
        ),
        _ => Ok(()),
    }
}

/// While a tool's result is being answered, the turn that called it must still begin with its thinking: `kind` is what
/// the message of that index begins with.
pub(crate) fn not_first(index: usize, kind: &str) -> String {
    format!(
        "messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kind}`. When `thinking` \
         is enabled, a final `assistant` message must start with a thinking block (preceding the lastmost set of \
         `tool_use` and `tool_result` blocks)."
    )
}

/// Whether the thinking is to be left out of the answer, its signature apart.
pub(crate) fn is_omitted(thinking: Option<&Value>) -> bool {
    thinking.is_some_and(|thinking| thinking["display"] == "omitted")
}
