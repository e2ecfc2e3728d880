//! What `thinkingConfig` may say to which model.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::error::invalid;
use super::{Checked, Host};

/// Leaves the budget to the model.
const DYNAMIC: i64 = -1;

/// Checks the thinking part of a generation config.
pub(super) fn check(config: &Value, model: &str, host: Host) -> Checked<()> {
    let thinking = &config["thinkingConfig"];
    if thinking.is_null() {
        return Ok(());
    }
    let version = version(model);
    if version < (2, 5) {
        return invalid(match host {
            Host::GeminiApi => format!("Thinking is not enabled for models/{model}"),
            Host::Vertex => {
                "Unable to submit request because thinking is not supported by this model."
                    .to_owned()
            }
        });
    }
    let level = thinking["thinkingLevel"].as_str();
    let budget = thinking["thinkingBudget"].as_i64();
    if level.is_some() && budget.is_some() {
        return invalid("You can only set only one of thinking budget and thinking level.");
    }
    if level.is_some() && version < (3, 0) {
        return invalid("Thinking level is not supported for this model.");
    }
    if level == Some("MINIMAL") && is_pro(model) {
        return invalid(
            "Thinking level MINIMAL is not supported for this model. Please retry with other thinking level.",
        );
    }
    match budget {
        Some(budget) => check_budget(budget, model),
        None => Ok(()),
    }
}

fn check_budget(budget: i64, model: &str) -> Checked<()> {
    let range = budgets(model);
    // A Lite model can do without, too, though its least budget is more than nothing.
    let is_off = budget == 0 && !is_pro(model);
    if budget == DYNAMIC || is_off || range.contains(&budget) {
        return Ok(());
    }
    if budget == 0 {
        return invalid("Budget 0 is invalid. This model only works in thinking mode.");
    }
    invalid(format!(
        "The thinking budget {budget} is invalid. Please choose a value between {} and {}.",
        range.start(),
        range.end()
    ))
}

fn budgets(model: &str) -> RangeInclusive<i64> {
    if is_pro(model) {
        128..=32_768
    } else if model.contains("flash-lite") {
        512..=24_576
    } else if model.contains("flash") {
        0..=24_576
    } else {
        0..=32_768
    }
}

fn is_pro(model: &str) -> bool {
    model.contains("-pro")
}

/// Whether the model thinks for this request: none did before 2.5, and a budget of nothing switches it off.
pub(super) fn thinks(config: &Value, model: &str) -> bool {
    version(model) >= (2, 5) && config["thinkingConfig"]["thinkingBudget"] != 0
}

/// Models from 3 on sign what they say.
pub(super) fn signs(model: &str) -> bool {
    version(model) >= (3, 0)
}

/// `gemini-2.5-pro` -> (2, 5). A name without a number stands for the newest.
fn version(model: &str) -> (u32, u32) {
    let newest = (u32::MAX, 0);
    let Some(rest) = model.strip_prefix("gemini-") else {
        return newest;
    };
    let number = rest.split('-').next().unwrap_or_default();
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    match (major.parse(), minor.parse()) {
        (Ok(major), Ok(minor)) => (major, minor),
        _ => newest,
    }
}
