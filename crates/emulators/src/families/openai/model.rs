//! What a model's name says about it.

use super::Checked;
use crate::families::chat_wire;

/// How a model's prompts are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// gpt-5.6 and later: paid entries at breakpoints.
    Breakpoints,
    /// Earlier: free, on the machine a prompt is routed to.
    Routed {
        /// Tokens between entries.
        interval: u64,
        /// Whether entries may last 24 hours.
        has_day: bool,
        /// Whether `in_memory` may be asked for.
        has_memory: bool,
        /// False for models without a price for cached input.
        caches: bool,
    },
}

/// Facts 2.1: models before gpt-5.6 whose entries may last a day.
const DAY: &[&str] = &[
    "gpt-5.5", "gpt-5.4", "gpt-5.2", "gpt-5.1", "gpt-5", "gpt-4.1",
];
/// Facts 2.1: no cached price.
const UNCACHED: &[&str] = &[
    "gpt-5.5-pro",
    "gpt-5-pro",
    "o1-pro",
    "o3-pro",
    "gpt-4-turbo",
    "gpt-3.5",
];

/// The era of a model.
pub(super) fn era(model: &str) -> Era {
    let version = version(model);
    if version >= Some((5, 6)) {
        return Era::Breakpoints;
    }
    // `gpt-5` stands for itself and its dated snapshots, not for gpt-5-mini: the facts name gpt-5 and gpt-5-codex.
    let is = |name: &str| {
        model.strip_prefix(name).is_some_and(|rest| {
            rest.is_empty()
                || rest.starts_with("-20")
                || rest == "-codex"
                || (rest == "-pro" && name == "gpt-5.5")
                || (name == "gpt-5.1" && rest.starts_with('-'))
        })
    };
    Era::Routed {
        interval: if version == Some((5, 5)) { 2048 } else { 128 },
        has_day: DAY.iter().any(|name| is(name)),
        has_memory: version != Some((5, 5)),
        caches: !UNCACHED.iter().any(|name| model.starts_with(name)),
    }
}

/// Whether `max_tokens` is refused in favour of `max_completion_tokens`.
pub(super) fn is_reasoning(model: &str) -> bool {
    version(model) >= Some((5, 0)) || is_o_series(model)
}

/// The words of effort that a model knows; `None` for a model that doesn't reason.
pub(super) fn efforts(model: &str) -> Option<&'static [&'static str]> {
    let model = model.strip_prefix("ft:").unwrap_or(model);
    if is_o_series(model) {
        return Some(&["low", "medium", "high"]);
    }
    match version(model)? {
        (..5, _) => None,
        (5, 0) => Some(&["minimal", "low", "medium", "high"]),
        _ => Some(&["none", "low", "medium", "high", "xhigh"]),
    }
}

/// 404 for a name that can't be one of OpenAI's.
pub(super) fn check(model: &str) -> Checked<()> {
    if version(model).is_some()
        || is_o_series(model)
        || model.starts_with("ft:")
        || model.starts_with("chatgpt-")
    {
        return Ok(());
    }
    let message = format!("The model `{model}` does not exist or you do not have access to it.");
    Err(Box::new(chat_wire::error(
        404,
        &message,
        "invalid_request_error",
        None,
        Some("model_not_found"),
    )))
}

fn is_o_series(model: &str) -> bool {
    let mut letters = model.chars();
    letters.next() == Some('o') && letters.next().is_some_and(|letter| letter.is_ascii_digit())
}

/// `gpt-5.6-luna` -> (5, 6); `gpt-4o` -> (4, 0).
fn version(model: &str) -> Option<(u32, u32)> {
    let rest = model.strip_prefix("gpt-")?;
    let number = rest
        .split(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .next()?;
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    Some((major.parse().ok()?, minor.parse().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_era() {
        for model in [
            "gpt-5.6",
            "gpt-5.6-luna",
            "gpt-5.6-2026-08-01",
            "gpt-6-astra",
            "gpt-6.1-sol",
            "gpt-5.10",
        ] {
            assert_eq!(era(model), Era::Breakpoints, "{model}");
        }
        for model in [
            "gpt-5.5",
            "gpt-5",
            "gpt-4o",
            "gpt-4.1",
            "o3",
            "gpt-3.5-turbo",
            "gpt-5-2025-08-07",
        ] {
            assert_ne!(era(model), Era::Breakpoints, "{model}");
        }
        assert_eq!(efforts("gpt-4.1"), None);
        assert_eq!(efforts("chatgpt-4o-latest"), None);
        assert_eq!(efforts("o4-mini").map(<[_]>::len), Some(3));
        assert_eq!(efforts("gpt-5-mini").map(|words| words[0]), Some("minimal"));
        assert_eq!(efforts("gpt-5.1").map(|words| words[0]), Some("none"));
        assert!(check("claude-opus-5-5").is_err());
        assert!(check("o4-mini").is_ok());
    }
}
