//! How models are asked to reason more or less, by family. None of this is in the facts: it is what the vendors' clients
//! and pages say [?]. A client's own words for it pass all the same where the provider takes fields that the gateway does
//! not know.

use super::families::{base_name, version};

/// How a model is asked to reason more or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningControl {
    /// It can't be, or it is not known how: levels are left out.
    None,
    /// By one of these words, the least effort first: `reasoning_effort`, in Responses `reasoning.effort`, at Gemini
    /// `thinkingLevel`, at Anthropic `output_config.effort` beside adaptive `thinking`.
    Effort(&'static [&'static str]),
    /// Up to so many tokens: Anthropic's `thinking.budget_tokens`, Gemini's `thinkingBudget`.
    Budget {
        /// Fewest, tokens.
        min: u32,
        /// Most, tokens.
        max: u32,
        /// Whether it can be switched off.
        can_be_off: bool,
    },
    /// By `thinking: {"type": "enabled"}` or `disabled`, and by these words in `reasoning_effort` where there are any.
    Thinking {
        /// The least effort first.
        efforts: &'static [&'static str],
        /// Whether `auto` is known as well.
        has_auto: bool,
    },
    /// By `enable_thinking` and `thinking_budget` (Qwen).
    EnableThinking,
    /// By the object `reasoning` of OpenRouter, which turns it into what the model wants.
    Object,
    /// By a variable of the chat template, `chat_template_kwargs.enable_thinking`, and by these words in
    /// `reasoning_effort`.
    Template(&'static [&'static str]),
}

pub(super) const LOW_TO_HIGH: &[&str] = &["low", "medium", "high"];
pub(super) const NONE_TO_HIGH: &[&str] = &["none", "low", "medium", "high"];
const MINIMAL_TO_HIGH: &[&str] = &["minimal", "low", "medium", "high"];
const NONE_TO_XHIGH: &[&str] = &["none", "low", "medium", "high", "xhigh"];
const LOW_TO_MAX: &[&str] = &["low", "medium", "high", "max"];
const ALL_OF_CLAUDE: &[&str] = &["low", "medium", "high", "xhigh", "max"];

/// Of OpenAI's models, and of the open ones.
pub(super) fn openai(model: &str) -> ReasoningControl {
    let base = base_name(model);
    if base.starts_with("gpt-oss") {
        return ReasoningControl::Effort(LOW_TO_HIGH);
    }
    let is_o = ["o1", "o3", "o4"].iter().any(|name| base.starts_with(name));
    if is_o && !base.starts_with("o1-mini") && !base.starts_with("o1-preview") {
        return ReasoningControl::Effort(LOW_TO_HIGH);
    }
    if base.contains("-chat") {
        return ReasoningControl::None;
    }
    match version(&base, "gpt") {
        Some((5, 0)) if base.contains("-pro") => ReasoningControl::Effort(&["high"]),
        Some((5, 0)) => ReasoningControl::Effort(MINIMAL_TO_HIGH),
        Some((5, 1)) => ReasoningControl::Effort(NONE_TO_HIGH),
        // Azure's old way to write 3.5 has no point.
        Some((35, _)) => ReasoningControl::None,
        Some((5.., _)) => ReasoningControl::Effort(NONE_TO_XHIGH),
        _ => ReasoningControl::None,
    }
}

/// Of services that serve others' models: the open ones of OpenAI alone are known to take words.
pub(super) fn open_weights(model: &str) -> ReasoningControl {
    match base_name(model).starts_with("gpt-oss") {
        true => ReasoningControl::Effort(LOW_TO_HIGH),
        false => ReasoningControl::None,
    }
}

/// Of Claudes, by the beginning of the name without the maker's; the first line that fits counts.
const CLAUDES: &[(&str, ReasoningControl)] = &[
    ("claude-3-7", CLAUDE_BUDGET),
    ("claude-3", ReasoningControl::None),
    ("claude-haiku-3", ReasoningControl::None),
    ("claude-v", ReasoningControl::None),
    ("claude-instant", ReasoningControl::None),
    ("claude-sonnet-4-2025", CLAUDE_BUDGET),
    ("claude-opus-4-2025", CLAUDE_BUDGET),
    ("claude-sonnet-4-0", CLAUDE_BUDGET),
    ("claude-opus-4-0", CLAUDE_BUDGET),
    ("claude-opus-4-1", CLAUDE_BUDGET),
    ("claude-sonnet-4-5", CLAUDE_BUDGET),
    ("claude-haiku-4-5", CLAUDE_BUDGET),
    ("claude-opus-4-5", CLAUDE_BUDGET),
    ("claude-opus-4-6", ReasoningControl::Effort(LOW_TO_MAX)),
    ("claude-sonnet-4-6", ReasoningControl::Effort(LOW_TO_MAX)),
];
/// The API refuses budgets below 1,024 tokens; there is no limit but the answer's above.
const CLAUDE_BUDGET: ReasoningControl = ReasoningControl::Budget {
    min: 1_024,
    max: u32::MAX,
    can_be_off: true,
};

/// Of Claudes; a newer one is taken for one that decides itself how long it thinks.
pub(super) fn claude(name: &str) -> ReasoningControl {
    let known = CLAUDES.iter().find(|(prefix, _)| name.starts_with(prefix));
    known.map_or(ReasoningControl::Effort(ALL_OF_CLAUDE), |(_, control)| {
        *control
    })
}

/// Of Gemini's models: 2.5 counts tokens, later ones take words.
pub(super) fn gemini(model: &str) -> ReasoningControl {
    let model = base_name(model);
    let budget = |min, max, can_be_off| ReasoningControl::Budget {
        min,
        max,
        can_be_off,
    };
    match version(&model, "gemini") {
        Some((2, 5)) if model.contains("pro") => budget(128, 32_768, false),
        Some((2, 5)) if model.contains("lite") => budget(512, 24_576, true),
        Some((2, 5)) => budget(1, 24_576, true),
        Some((..=2, _)) => ReasoningControl::None,
        Some((3, 0)) if model.contains("pro") => ReasoningControl::Effort(&["low", "high"]),
        Some(_) if model.contains("pro") => ReasoningControl::Effort(LOW_TO_HIGH),
        Some(_) => ReasoningControl::Effort(MINIMAL_TO_HIGH),
        None => ReasoningControl::None,
    }
}

/// Of what Ark serves. Its word for no effort is `minimal`.
pub(super) const ARK: ReasoningControl = ReasoningControl::Thinking {
    efforts: MINIMAL_TO_HIGH,
    has_auto: true,
};

/// Of services with a switch and nothing else.
pub(super) const SWITCH: ReasoningControl = ReasoningControl::Thinking {
    efforts: &[],
    has_auto: false,
};

#[cfg(test)]
mod tests {
    use super::{ReasoningControl, claude, gemini, openai};

    fn words(control: ReasoningControl) -> String {
        match control {
            ReasoningControl::Effort(words) => words.join(" "),
            ReasoningControl::Budget {
                min, can_be_off, ..
            } => format!("{min} {can_be_off}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn models_are_known_by_their_families() {
        for (model, expected) in [
            ("gpt-4o", "None"),
            ("gpt-4.1-mini", "None"),
            ("gpt-35-turbo", "None"),
            ("gpt-5-mini", "minimal low medium high"),
            ("gpt-5-pro", "high"),
            ("gpt-5-chat-latest", "None"),
            ("gpt-5.1", "none low medium high"),
            ("gpt-5.6-luna", "none low medium high xhigh"),
            ("openai/gpt-6", "none low medium high xhigh"),
            ("o3-mini", "low medium high"),
            ("o1-mini", "None"),
            ("openai.gpt-oss-20b", "None"),
            ("openai/gpt-oss-120b", "low medium high"),
            ("my-deployment", "None"),
        ] {
            assert_eq!(words(openai(model)), expected, "{model}");
        }
        for (model, expected) in [
            ("claude-3-5-haiku-latest", "None"),
            ("claude-3-7-sonnet-20250219", "1024 true"),
            ("claude-haiku-4-5", "1024 true"),
            ("claude-sonnet-4-6", "low medium high max"),
            ("claude-opus-5", "low medium high xhigh max"),
        ] {
            assert_eq!(words(claude(model)), expected, "{model}");
        }
        for (model, expected) in [
            ("gemini-2.0-flash", "None"),
            ("gemini-2.5-flash", "1 true"),
            ("models/gemini-2.5-pro", "128 false"),
            ("gemini-3-pro-preview", "low high"),
            ("gemini-3.1-pro", "low medium high"),
            ("gemini-3-flash", "minimal low medium high"),
            ("gemma-3-27b-it", "None"),
        ] {
            assert_eq!(words(gemini(model)), expected, "{model}");
        }
    }
}
