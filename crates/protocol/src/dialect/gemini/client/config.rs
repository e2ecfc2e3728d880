//! `generationConfig`.

use serde_json::Value;

use super::contents::Conversation;
use super::proto::{object, texts, word};
use super::schema::json_schema;
use crate::chat::{ChatRequest, ReasoningLevel, ResponseFormat};
use crate::dialect::fields::Fields;
use crate::error::ApiError;

const CHOICES_MAX: i64 = 128;
/// Google's own bound.
const STOP_MAX: usize = 5;
const TOP_LOGPROBS_MAX: i64 = 20;
const MODALITIES_MAX: usize = 16;
/// Fields that ask for answers in another form than text.
const OTHER_FORMS: &[&str] = &[
    "speechConfig",
    "imageConfig",
    "responseFormat",
    "translationConfig",
    "audioTranscriptionConfig",
];

/// Reads the field into `chat`. Whether thoughts are to be shown.
pub(super) fn generation(
    fields: &mut Fields,
    chat: &mut ChatRequest,
    conversation: &mut Conversation,
) -> Result<bool, ApiError> {
    let Some(mut config) = object(fields, "generationConfig")? else {
        return Ok(false);
    };
    let sampling = &mut chat.sampling;
    sampling.temperature = config.number("temperature", 0.0..=2.0)?;
    sampling.top_p = config.number("topP", 0.0..=1.0)?;
    sampling.top_k = config.count("topK", 0)?.filter(|top_k| *top_k > 0);
    sampling.presence_penalty = config.number("presencePenalty", -2.0..=2.0)?;
    sampling.frequency_penalty = config.number("frequencyPenalty", -2.0..=2.0)?;
    sampling.seed = config.integer("seed", i64::from(i32::MIN)..=i64::from(i32::MAX))?;
    chat.max_tokens = config.count("maxOutputTokens", 1)?;
    chat.stop = texts(&mut config, "stopSequences", STOP_MAX)?;
    let choices = config.integer("candidateCount", 1..=CHOICES_MAX)?;
    chat.choices = choices.and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
    chat.logprobs = logprobs(&mut config)?;
    let format = response_format(&mut config, conversation)?;
    chat.response_format = format;
    for (index, modality) in texts(&mut config, "responseModalities", MODALITIES_MAX)?
        .into_iter()
        .enumerate()
    {
        if !modality.eq_ignore_ascii_case("TEXT")
            && !modality.eq_ignore_ascii_case("MODALITY_UNSPECIFIED")
        {
            let param = config.path_of(&format!("responseModalities[{index}]"));
            conversation.tolerate(Err(ApiError::unsupported(&param, "must be TEXT")))?;
        }
    }
    if let Some(key) = OTHER_FORMS.iter().find(|key| config.has(key)) {
        conversation.tolerate(Err(ApiError::unsupported(
            &config.path_of(key),
            "asks for an answer that only Google itself can give",
        )))?;
    }
    thinking(&mut config, chat)
}

fn logprobs(config: &mut Fields) -> Result<Option<u8>, ApiError> {
    let wanted = config.boolean("responseLogprobs")?.unwrap_or(false);
    let top = config.integer("logprobs", 0..=TOP_LOGPROBS_MAX)?;
    if !wanted && top.is_some() {
        return Err(config.invalid("logprobs", "needs `responseLogprobs` to be true"));
    }
    let top = top.and_then(|top| u8::try_from(top).ok()).unwrap_or(0);
    Ok(wanted.then_some(top))
}

fn response_format(
    config: &mut Fields,
    conversation: &mut Conversation,
) -> Result<ResponseFormat, ApiError> {
    let media_type = config
        .string("responseMimeType")?
        .map(|kind| kind.to_ascii_lowercase());
    let schema = config.map("responseSchema")?.map(Value::Object);
    let given = config.map("responseJsonSchema")?.map(Value::Object);
    if schema.is_some() && given.is_some() {
        return Err(config.invalid(
            "responseJsonSchema",
            "can't be given beside `responseSchema`",
        ));
    }
    let schema = schema.map(json_schema).or(given);
    match media_type.as_deref() {
        None | Some("application/json") => {}
        Some("text/plain") if schema.is_none() => return Ok(ResponseFormat::Text),
        Some("text/plain") => {
            return Err(config.invalid(
                "responseMimeType",
                "must be application/json where there is a schema",
            ));
        }
        Some("text/x.enum") => {
            conversation.tolerate(Err(ApiError::unsupported(
                &config.path_of("responseMimeType"),
                "must be text/plain or application/json",
            )))?;
            return Ok(ResponseFormat::Text);
        }
        Some(_) => {
            return Err(config.invalid(
                "responseMimeType",
                "must be text/plain, application/json or text/x.enum",
            ));
        }
    }
    Ok(match schema {
        // The word strict would have to mean what OpenAI means by it, and these schemas allow more.
        Some(schema) => ResponseFormat::JsonSchema {
            name: "answer".to_owned(),
            schema,
            strict: false,
        },
        None if media_type.is_some() => ResponseFormat::JsonObject,
        None => ResponseFormat::Text,
    })
}

fn thinking(config: &mut Fields, chat: &mut ChatRequest) -> Result<bool, ApiError> {
    let Some(mut thinking) = object(config, "thinkingConfig")? else {
        return Ok(false);
    };
    let budget = thinking.integer("thinkingBudget", -1..=i64::from(u32::MAX))?;
    let level = word(&mut thinking, "thinkingLevel")?;
    if budget.is_some() && level.is_some() {
        return Err(thinking.invalid("thinkingLevel", "can't be given beside `thinkingBudget`"));
    }
    let budget = budget.map(|budget| match u32::try_from(budget) {
        Err(_) => ReasoningLevel::Adaptive,
        Ok(0) => ReasoningLevel::Off,
        Ok(tokens) => ReasoningLevel::Budget(tokens),
    });
    let level = match level.as_deref() {
        None => None,
        Some("MINIMAL") => Some(ReasoningLevel::Minimal),
        Some("LOW") => Some(ReasoningLevel::Low),
        Some("MEDIUM") => Some(ReasoningLevel::Medium),
        Some("HIGH") => Some(ReasoningLevel::High),
        Some("XHIGH") => Some(ReasoningLevel::XHigh),
        Some(_) => {
            return Err(thinking.invalid("thinkingLevel", "must be MINIMAL, LOW, MEDIUM or HIGH"));
        }
    };
    chat.reasoning = budget.or(level);
    Ok(thinking.boolean("includeThoughts")?.unwrap_or(false))
}
