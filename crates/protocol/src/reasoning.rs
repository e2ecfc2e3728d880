//! How much a model is asked to reason: what clients say, and the nearest thing that an upstream can be told.

use serde::{Deserialize, Serialize};

/// How much a model that can reason is asked to. It is a wish: a model that can't be asked gets the request without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningLevel {
    /// Not at all.
    Off,
    /// As the model does where nothing more is said.
    On,
    /// As much as the model sees fit, possibly not at all.
    Adaptive,
    /// OpenAI's word `minimal`.
    Minimal,
    /// OpenAI's word `low`.
    Low,
    /// OpenAI's word `medium`.
    Medium,
    /// OpenAI's word `high`.
    High,
    /// OpenAI's word `xhigh`.
    XHigh,
    /// Anthropic's word `max`.
    Max,
    /// Up to so many tokens.
    Budget(u32),
}

/// Words for efforts, the least first.
const EFFORTS: [(&str, ReasoningLevel); 7] = [
    ("none", ReasoningLevel::Off),
    ("minimal", ReasoningLevel::Minimal),
    ("low", ReasoningLevel::Low),
    ("medium", ReasoningLevel::Medium),
    ("high", ReasoningLevel::High),
    ("xhigh", ReasoningLevel::XHigh),
    ("max", ReasoningLevel::Max),
];

/// Up to how many tokens an effort reasons: what Google makes of OpenAI's words for its models that count tokens [?].
const LOW_TOKENS: u32 = 1_024;
const MEDIUM_TOKENS: u32 = 8_192;
const HIGH_TOKENS: u32 = 24_576;
/// For what is above `high`: the most that any of Google's models takes [?].
const MOST_TOKENS: u32 = 32_768;

impl ReasoningLevel {
    /// The level that `word` names; `None`: it is no word for an effort.
    pub fn of_effort(word: &str) -> Option<Self> {
        let known = EFFORTS.iter().find(|(known, _)| *known == word);
        known.map(|(_, level)| *level)
    }

    /// Which of the words `known` (the least effort first) is meant: the least that is not less, else the largest.
    /// `None`: the model's own default.
    pub fn effort(self, known: &[&'static str]) -> Option<&'static str> {
        let wanted = match self {
            ReasoningLevel::On | ReasoningLevel::Adaptive => return None,
            ReasoningLevel::Budget(..=LOW_TOKENS) => ReasoningLevel::Low,
            ReasoningLevel::Budget(..=MEDIUM_TOKENS) => ReasoningLevel::Medium,
            ReasoningLevel::Budget(..=HIGH_TOKENS) => ReasoningLevel::High,
            ReasoningLevel::Budget(_) => ReasoningLevel::XHigh,
            level => level,
        };
        let rank = |is_it: &dyn Fn(&(&str, ReasoningLevel)) -> bool| EFFORTS.iter().position(is_it);
        let wanted = rank(&|(_, level)| *level == wanted)?;
        let is_enough = |word: &&&'static str| {
            rank(&|(known, _)| known == *word).is_some_and(|at| at >= wanted)
        };
        known.iter().find(is_enough).or(known.last()).copied()
    }

    /// Up to how many tokens; `None` where it is not said: off, and as the model sees fit.
    pub fn budget_tokens(self) -> Option<u32> {
        match self {
            ReasoningLevel::Off | ReasoningLevel::On | ReasoningLevel::Adaptive => None,
            ReasoningLevel::Minimal | ReasoningLevel::Low => Some(LOW_TOKENS),
            ReasoningLevel::Medium => Some(MEDIUM_TOKENS),
            ReasoningLevel::High => Some(HIGH_TOKENS),
            ReasoningLevel::XHigh | ReasoningLevel::Max => Some(MOST_TOKENS),
            ReasoningLevel::Budget(tokens) => Some(tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::ReasoningLevel;

    #[test]
    fn an_effort_is_the_least_known_word_that_is_enough() {
        let gpt_5: &[&str] = &["minimal", "low", "medium", "high"];
        let newer: &[&str] = &["none", "low", "medium", "high", "xhigh"];
        for (level, known, word) in [
            (ReasoningLevel::Off, gpt_5, Some("minimal")),
            (ReasoningLevel::Off, newer, Some("none")),
            (ReasoningLevel::Minimal, newer, Some("low")),
            (ReasoningLevel::Max, gpt_5, Some("high")),
            (ReasoningLevel::Max, newer, Some("xhigh")),
            (ReasoningLevel::Budget(1_024), newer, Some("low")),
            (ReasoningLevel::Budget(1_025), newer, Some("medium")),
            (ReasoningLevel::Budget(24_577), newer, Some("xhigh")),
            (ReasoningLevel::Adaptive, newer, None),
            (ReasoningLevel::High, &[], None),
        ] {
            assert_eq!(level.effort(known), word, "{level:?} of {known:?}");
        }
    }

    #[test]
    fn a_word_and_its_tokens_mean_the_same_level() {
        for word in ["low", "medium", "high", "xhigh"] {
            let level = ReasoningLevel::of_effort(word).unwrap();
            let tokens = level.budget_tokens().unwrap();
            let again = ReasoningLevel::Budget(tokens).effort(&["low", "medium", "high", "xhigh"]);
            assert_eq!(again, Some(word));
        }
        assert_eq!(ReasoningLevel::of_effort("default"), None);
    }
}
