//! How much reasoning is asked for: the words of clients, and those of the services that speak this dialect, which have
//! no common one.

use serde_json::{Map, Value, json};

use crate::chat::{ChatRequest, ReasoningLevel};
use crate::provider::{Quirks, ReasoningControl};

const EFFORT: &str = "reasoning_effort";
const SWITCH: &str = "thinking";
const ENABLE: &str = "enable_thinking";
const BUDGET: &str = "thinking_budget";
const OBJECT: &str = "reasoning";
const TEMPLATE: &str = "chat_template_kwargs";
/// Words that are about nothing else. What is in a template's variables may be about anything.
const FIELDS: &[&str] = &[EFFORT, SWITCH, ENABLE, BUDGET, OBJECT];
/// The words that OpenRouter knows.
const OBJECT_EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh"];

/// What a client asks for in any of the services' ways. Values that are not known there ask for nothing here; they stay
/// in `extra` all the same.
pub(in crate::dialect) fn asked(extra: &Map<String, Value>) -> Option<ReasoningLevel> {
    let tokens = |value: Option<&Value>| {
        let tokens = value?.as_u64().filter(|tokens| *tokens > 0)?;
        Some(ReasoningLevel::Budget(
            u32::try_from(tokens).unwrap_or(u32::MAX),
        ))
    };
    let on = |value: Option<&Value>| {
        Some(match value?.as_bool()? {
            true => ReasoningLevel::On,
            false => ReasoningLevel::Off,
        })
    };
    let thinking = extra.get(SWITCH);
    let object = extra.get(OBJECT);
    let switch = thinking
        .and_then(|thinking| match thinking.get("type")?.as_str()? {
            "disabled" => Some(ReasoningLevel::Off),
            "enabled" => Some(ReasoningLevel::On),
            "auto" | "adaptive" => Some(ReasoningLevel::Adaptive),
            _ => None,
        })
        .or_else(|| on(extra.get(ENABLE)))
        .or_else(|| on(object?.get("enabled")))
        .or_else(|| on(extra.get(TEMPLATE)?.get(ENABLE)));
    if switch == Some(ReasoningLevel::Off) {
        return switch;
    }
    let effort = extra.get(EFFORT).or_else(|| object?.get("effort"));
    tokens(thinking.and_then(|thinking| thinking.get("budget_tokens")))
        .or_else(|| tokens(extra.get(BUDGET)))
        .or_else(|| tokens(object?.get("max_tokens")))
        .or_else(|| ReasoningLevel::of_effort(effort?.as_str()?))
        .or(switch)
}

/// The fields that ask an upstream for the request's level. A client's own words stand instead where they are the
/// upstream's, too.
pub(super) fn fields(request: &ChatRequest, quirks: &Quirks) -> Map<String, Value> {
    let says = |name: &&str| {
        request
            .extra
            .get(*name)
            .is_some_and(|value| !value.is_null())
    };
    if quirks.passes_unknown_fields && own_fields(quirks).iter().any(says) {
        return Map::new();
    }
    let written = request
        .reasoning
        .map(|level| written(level, quirks.reasoning));
    match written {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Whether a client's field gives way to what [`fields`] writes: another service's word for the same.
pub(super) fn gives_way(name: &str, quirks: &Quirks) -> bool {
    let own = own_fields(quirks);
    !own.is_empty() && FIELDS.contains(&name) && !own.contains(&name)
}

/// The fields that the upstream knows.
fn own_fields(quirks: &Quirks) -> &'static [&'static str] {
    match quirks.reasoning {
        ReasoningControl::None | ReasoningControl::Budget { .. } => &[],
        ReasoningControl::Effort(_) => &[EFFORT],
        ReasoningControl::Thinking { .. } => &[SWITCH, EFFORT],
        ReasoningControl::EnableThinking => &[ENABLE, BUDGET],
        ReasoningControl::Object => &[OBJECT, EFFORT],
        ReasoningControl::Template(_) => &[EFFORT, TEMPLATE],
    }
}

fn written(level: ReasoningLevel, control: ReasoningControl) -> Value {
    let effort = |known| level.effort(known).map(|word| json!({EFFORT: word}));
    let is_on = level != ReasoningLevel::Off;
    match control {
        ReasoningControl::None | ReasoningControl::Budget { .. } => Value::Null,
        ReasoningControl::Effort(known) => effort(known).unwrap_or_default(),
        ReasoningControl::Thinking { efforts, has_auto } => match level {
            ReasoningLevel::Off => json!({SWITCH: {"type": "disabled"}}),
            ReasoningLevel::Adaptive if has_auto => json!({SWITCH: {"type": "auto"}}),
            ReasoningLevel::Adaptive => Value::Null,
            _ => effort(efforts).unwrap_or_else(|| json!({SWITCH: {"type": "enabled"}})),
        },
        ReasoningControl::EnableThinking => match level.budget_tokens() {
            Some(tokens) => json!({ENABLE: true, BUDGET: tokens}),
            None => json!({ENABLE: is_on}),
        },
        ReasoningControl::Object => match level {
            ReasoningLevel::Budget(tokens) => json!({OBJECT: {"max_tokens": tokens}}),
            level => match level.effort(OBJECT_EFFORTS) {
                Some(word) => json!({OBJECT: {"effort": word}}),
                None => json!({OBJECT: {"enabled": true}}),
            },
        },
        ReasoningControl::Template(known) => match effort(known) {
            Some(effort) if is_on => effort,
            _ => json!({TEMPLATE: {ENABLE: is_on}}),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::{Value, json};

    use super::{asked, fields, gives_way};
    use crate::chat::{ChatRequest, ReasoningLevel};
    use crate::provider::{UpstreamDialectName, by_name};

    fn level(extra: &Value) -> Option<ReasoningLevel> {
        asked(extra.as_object().unwrap())
    }

    #[test]
    fn every_services_words_are_understood() {
        use ReasoningLevel::{Adaptive, Budget, Low, Off, On, XHigh};
        for (extra, expected) in [
            (json!({"reasoning_effort": "low"}), Some(Low)),
            (json!({"reasoning_effort": "xhigh"}), Some(XHigh)),
            (json!({"reasoning_effort": "none"}), Some(Off)),
            (json!({"reasoning_effort": "default"}), None),
            (json!({"reasoning_effort": 3}), None),
            (json!({"thinking": {"type": "enabled"}}), Some(On)),
            (
                json!({"thinking": {"type": "enabled", "budget_tokens": 2048}}),
                Some(Budget(2_048)),
            ),
            (
                json!({"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
                Some(Low),
            ),
            (
                json!({"thinking": {"type": "disabled"}, "reasoning_effort": "low"}),
                Some(Off),
            ),
            (json!({"thinking": {"type": "auto"}}), Some(Adaptive)),
            (json!({"enable_thinking": false}), Some(Off)),
            (
                json!({"enable_thinking": true, "thinking_budget": 500}),
                Some(Budget(500)),
            ),
            (json!({"reasoning": {"effort": "low"}}), Some(Low)),
            (
                json!({"reasoning": {"max_tokens": 99_999_999_999_u64}}),
                Some(Budget(u32::MAX)),
            ),
            (json!({"reasoning": {"enabled": true}}), Some(On)),
            (
                json!({"chat_template_kwargs": {"enable_thinking": false}}),
                Some(Off),
            ),
            (
                json!({"reasoning": null, "thinking": [], "enable_thinking": "yes"}),
                None,
            ),
        ] {
            assert_eq!(level(&extra), expected, "{extra}");
        }
    }

    fn sent(provider: &str, model: &str, extra: &Value, level: Option<ReasoningLevel>) -> Value {
        let quirks =
            (by_name(provider).unwrap().rules)(UpstreamDialectName::OpenaiChat, model).quirks;
        let mut request = ChatRequest::new(None, Vec::new());
        request.extra = extra.as_object().unwrap().clone();
        request.reasoning = level.or_else(|| asked(&request.extra));
        let mut sent = fields(&request, &quirks);
        if quirks.passes_unknown_fields {
            let passed = request.extra.into_iter();
            sent.extend(passed.filter(|(name, _)| !gives_way(name, &quirks)));
        }
        Value::Object(sent)
    }

    #[test]
    fn every_service_is_asked_in_its_own_words() {
        use ReasoningLevel::{Adaptive, Budget, Low, Off, On};
        let none = json!({});
        for (provider, model, level, expected) in [
            (
                "openai",
                "gpt-5.6",
                Off,
                json!({"reasoning_effort": "none"}),
            ),
            (
                "openai",
                "gpt-5.6",
                Budget(2_048),
                json!({"reasoning_effort": "medium"}),
            ),
            ("openai", "gpt-5.6", Adaptive, json!({})),
            ("openai", "gpt-4o", Low, json!({})),
            (
                "ark",
                "doubao-seed-2-1",
                Low,
                json!({"reasoning_effort": "low"}),
            ),
            (
                "ark",
                "doubao-seed-2-1",
                Off,
                json!({"thinking": {"type": "disabled"}}),
            ),
            (
                "ark",
                "doubao-seed-2-1",
                Adaptive,
                json!({"thinking": {"type": "auto"}}),
            ),
            (
                "deepseek",
                "deepseek-v4",
                Low,
                json!({"thinking": {"type": "enabled"}}),
            ),
            (
                "kimi",
                "kimi-k3",
                Off,
                json!({"thinking": {"type": "disabled"}}),
            ),
            ("zhipu", "glm-5", Adaptive, json!({})),
            (
                "qwen",
                "qwen4-max",
                Low,
                json!({"enable_thinking": true, "thinking_budget": 1024}),
            ),
            ("qwen", "qwen4-max", Off, json!({"enable_thinking": false})),
            (
                "openrouter",
                "a/b",
                Budget(9),
                json!({"reasoning": {"max_tokens": 9}}),
            ),
            (
                "openrouter",
                "a/b",
                Off,
                json!({"reasoning": {"effort": "none"}}),
            ),
            (
                "openrouter",
                "a/b",
                On,
                json!({"reasoning": {"enabled": true}}),
            ),
            (
                "vllm",
                "m",
                Off,
                json!({"chat_template_kwargs": {"enable_thinking": false}}),
            ),
            ("vllm", "m", Low, json!({"reasoning_effort": "low"})),
            (
                "groq",
                "openai/gpt-oss-20b",
                Off,
                json!({"reasoning_effort": "low"}),
            ),
            ("mistral", "mistral-large", Low, json!({})),
        ] {
            assert_eq!(
                sent(provider, model, &none, Some(level)),
                expected,
                "{provider} {level:?}"
            );
        }
    }

    #[test]
    fn a_clients_words_go_on_where_they_are_the_services_own() {
        let effort = json!({"reasoning_effort": "low"});
        let new = json!({"reasoning_effort": "brand-new"});
        for (provider, model, extra, expected) in [
            ("openai", "gpt-5.6", &new, &new),
            ("openai", "gpt-4o", &effort, &effort),
            ("mistral", "m", &effort, &effort),
            ("vllm", "m", &effort, &effort),
            ("deepseek", "d", &effort, &effort),
            (
                "qwen",
                "q",
                &effort,
                &json!({"enable_thinking": true, "thinking_budget": 1024}),
            ),
            ("ark", "doubao-seed-2-1", &effort, &effort),
            ("ark", "doubao-seed-2-1", &new, &json!({})),
        ] {
            assert_eq!(
                &sent(provider, model, extra, None),
                expected,
                "{provider} {extra}"
            );
        }
    }
}
