//! The switch and the levels of thinking.

use serde_json::Value;

use super::Checked;
use super::error::invalid;

const EFFORTS: &[&str] = &["minimal", "low", "medium", "high"];

/// What `thinking` comes to; where it isn't said, models think.
pub(super) fn mode(body: &Value) -> Checked<String> {
    match (&body["thinking"], body["thinking"]["type"].as_str()) {
        (Value::Null, _) => Ok("enabled".to_owned()),
        (_, Some(kind @ ("enabled" | "disabled" | "auto"))) => Ok(kind.to_owned()),
        _ => invalid("thinking.type", "expected `enabled`, `disabled` or `auto`"),
    }
}

/// Checks a level, which is named `param` in error texts.
pub(super) fn check_effort(effort: &Value, param: &str) -> Checked<()> {
    if effort.is_null() || EFFORTS.contains(&effort.as_str().unwrap_or_default()) {
        return Ok(());
    }
    invalid(param, "expected `minimal`, `low`, `medium` or `high`")
}

/// Whether the model thinks: the least effort is none at all.
pub(super) fn is_on(mode: &str, effort: &Value) -> bool {
    mode != "disabled" && effort != "minimal"
}
