//! The context endpoints (contract sections 1 and 1.8).

use bytes::Bytes;
use serde_json::{Map, Value};

use super::message::decode_messages;
use super::tools::{decode_tool_choice, decode_tools};
use super::wire::{
    AccountBody, ContextDeleted, ContextList, ContextObject, CreateUsage, ForkedFrom,
    PromptTokensDetails, TruncationStrategy,
};
use super::{to_json, without_models_prefix};
use crate::UnixMillis;
use crate::context::{
    CachePolicy, Context, ContextId, ContextMode, ContextPage, CreateContext, ForkContext,
    KeepWarm, OnTooSmall, ProfileKind, Truncation, TruncationKind, TruncationRequest, Warm,
};
use crate::dialect::fields::{Fields, whole};
use crate::error::ApiError;

const DISPLAY_NAME_LENGTH_MAX: usize = 512;
const METADATA_BYTES_MAX: usize = 16_384;

/// Reads a create request.
///
/// # Errors
/// Not JSON, or a field that is missing or malformed. Ranges that depend on the model are for
/// [`Context::new`](crate::context::Context::new).
pub fn decode_create(body: &[u8]) -> Result<CreateContext, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let model = without_models_prefix(fields.required_string("model")?);
    let messages = decode_messages(&mut fields)?;
    let mode = decode_mode(&mut fields)?;
    let ttl_seconds = decode_ttl(&mut fields)?;
    let truncation = fields
        .object("truncation_strategy")?
        .map(decode_truncation)
        .transpose()?;
    let tools = decode_tools(&mut fields)?;
    let tool_choice = decode_tool_choice(&mut fields)?;
    if let Some(choice) = &tool_choice
        && !tools.is_empty()
    {
        choice.check(&tools)?;
    }
    Ok(CreateContext {
        model,
        messages,
        mode,
        ttl_seconds,
        truncation,
        tools,
        tool_choice,
        display_name: decode_display_name(&mut fields)?,
        metadata: decode_metadata(&mut fields)?,
        policy: decode_policy(&mut fields)?,
    })
}

/// Reads a patch request: the new ttl, seconds.
///
/// # Errors
/// Not JSON, or no valid `ttl`.
pub fn decode_patch(body: &[u8]) -> Result<u64, ApiError> {
    let mut fields = Fields::of_body(body)?;
    decode_ttl(&mut fields)?.ok_or_else(|| fields.missing("ttl"))
}

/// Reads a fork request; no body at all is one, too.
///
/// # Errors
/// Not JSON, or a malformed field.
pub fn decode_fork(body: &[u8]) -> Result<ForkContext, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(ForkContext::default());
    }
    let mut fields = Fields::of_body(body)?;
    Ok(ForkContext {
        at_turn: fields.count("at_turn", 0)?,
        ttl_seconds: decode_ttl(&mut fields)?,
        mode: decode_mode(&mut fields)?,
    })
}

fn decode_policy(fields: &mut Fields) -> Result<CachePolicy, ApiError> {
    let warm = match fields.string("warm")?.as_deref() {
        None => Warm::default(),
        Some("eager") => Warm::Eager,
        Some("lazy") => Warm::Lazy,
        Some("prewarm") => Warm::Prewarm,
        Some(_) => {
            return Err(fields.invalid("warm", "must be \"eager\", \"lazy\" or \"prewarm\""));
        }
    };
    let keep_warm = match fields.string("keep_warm")?.as_deref() {
        None => KeepWarm::default(),
        Some("off") => KeepWarm::Off,
        Some("auto") => KeepWarm::Auto,
        Some("always") => KeepWarm::Always,
        Some(_) => {
            return Err(fields.invalid("keep_warm", "must be \"off\", \"auto\" or \"always\""));
        }
    };
    let on_too_small = match fields.string("on_too_small")?.as_deref() {
        None => None,
        Some("error") => Some(OnTooSmall::Error),
        Some("replay") => Some(OnTooSmall::Replay),
        Some(_) => {
            return Err(fields.invalid("on_too_small", "must be \"error\" or \"replay\""));
        }
    };
    Ok(CachePolicy {
        warm,
        keep_warm,
        on_too_small,
    })
}

fn decode_mode(fields: &mut Fields) -> Result<Option<ContextMode>, ApiError> {
    match fields.string("mode")?.as_deref() {
        None => Ok(None),
        Some("common_prefix") => Ok(Some(ContextMode::CommonPrefix)),
        Some("session") => Ok(Some(ContextMode::Session)),
        Some(_) => Err(fields.invalid("mode", "must be \"common_prefix\" or \"session\"")),
    }
}

/// Clients write 300, 300.0, "300" and "300s".
fn decode_ttl(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let seconds = match fields.value("ttl") {
        None => return Ok(None),
        Some(Value::Number(number)) => number
            .as_u64()
            .or_else(|| whole(&number).and_then(|seconds| u64::try_from(seconds).ok())),
        Some(Value::String(text)) => {
            let text = text.trim();
            if text.is_empty() {
                return Ok(None);
            }
            seconds_of_text(text.strip_suffix('s').unwrap_or(text))
        }
        Some(other) => return Err(fields.wrong_type("ttl", "a number of seconds", &other)),
    };
    seconds
        .filter(|seconds| *seconds > 0)
        .map(Some)
        .ok_or_else(|| fields.invalid("ttl", "must be a positive whole number of seconds"))
}

/// Digits, with a fraction of zeros where there is one.
fn seconds_of_text(text: &str) -> Option<u64> {
    let (digits, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (is_plain(digits) && is_plain(fraction) && fraction.bytes().all(|byte| byte == b'0'))
        .then(|| digits.parse().ok())
        .flatten()
}

fn decode_truncation(mut fields: Fields) -> Result<TruncationRequest, ApiError> {
    let kind = match fields.string("type")?.as_deref() {
        None => None,
        // One published sample has the singular.
        Some("last_history_tokens" | "last_history_token") => {
            Some(TruncationKind::LastHistoryTokens)
        }
        Some("rolling_tokens") => Some(TruncationKind::RollingTokens),
        Some(_) => {
            return Err(fields.invalid(
                "type",
                "must be \"last_history_tokens\" or \"rolling_tokens\"",
            ));
        }
    };
    let last_history_tokens = fields.count("last_history_tokens", 0)?;
    let last_history_token = fields.count("last_history_token", 0)?;
    Ok(TruncationRequest {
        kind,
        last_history_tokens: last_history_tokens.or(last_history_token),
        rolling_tokens: fields.boolean("rolling_tokens")?,
        max_window_tokens: fields.count("max_window_tokens", 0)?,
        rolling_window_tokens: fields.count("rolling_window_tokens", 0)?,
    })
}

fn decode_display_name(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let name = fields.string("display_name")?;
    if name
        .as_deref()
        .is_some_and(|name| name.chars().count() > DISPLAY_NAME_LENGTH_MAX)
    {
        return Err(fields.invalid(
            "display_name",
            format!("may have at most {DISPLAY_NAME_LENGTH_MAX} characters"),
        ));
    }
    Ok(name)
}

fn decode_metadata(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let metadata = fields.map("metadata")?.unwrap_or_default();
    if to_json(&metadata).len() > METADATA_BYTES_MAX {
        return Err(fields.invalid(
            "metadata",
            format!("may have at most {METADATA_BYTES_MAX} bytes of JSON"),
        ));
    }
    Ok(metadata)
}

/// The answer of create and of fork. Of the prefix, `cached_tokens` were resident already (an identical prefix, or
/// the parent's).
pub fn encode_created(context: &Context, cached_tokens: u64) -> Bytes {
    let cached_tokens = cached_tokens.min(context.prefix_tokens);
    let total_tokens = match context.profile {
        ProfileKind::Gemini => 0,
        ProfileKind::Ark | ProfileKind::Native => context.prefix_tokens,
    };
    let usage = CreateUsage {
        prompt_tokens: context.prefix_tokens,
        completion_tokens: 0,
        total_tokens,
        cache_creation_input_tokens: context.prefix_tokens - cached_tokens,
        cache_read_input_tokens: cached_tokens,
        prompt_tokens_details: PromptTokensDetails { cached_tokens },
    };
    to_json(&ContextObject {
        usage: Some(usage),
        ..context_object(context)
    })
}

/// The answer of get and patch; `account` is for get.
pub fn encode_context(context: &Context, account: Option<AccountBody>) -> Bytes {
    to_json(&ContextObject {
        account,
        ..detailed_object(context)
    })
}

/// The answer of list.
pub fn encode_context_page(page: &ContextPage) -> Bytes {
    to_json(&ContextList {
        object: "list",
        data: page.contexts.iter().map(detailed_object).collect(),
        has_more: page.next_cursor.is_some(),
        next_cursor: page.next_cursor.clone(),
    })
}

/// The answer of delete.
pub fn encode_deleted(id: &ContextId) -> Bytes {
    to_json(&ContextDeleted {
        id: id.to_string(),
        object: "context.deleted",
        deleted: true,
    })
}

fn detailed_object(context: &Context) -> ContextObject {
    ContextObject {
        display_name: context.display_name.clone(),
        metadata: Some(context.metadata.clone()),
        turns: Some(context.turn_count),
        prefix_tokens: Some(context.prefix_tokens),
        initial_tokens: Some(context.initial_tokens),
        ..context_object(context)
    }
}

fn context_object(context: &Context) -> ContextObject {
    ContextObject {
        id: context.id.to_string(),
        object: "context",
        model: context.requested_model.clone(),
        mode: context.mode.as_str(),
        ttl: context.ttl_seconds,
        created: unix_seconds(context.created_at),
        expires_at: unix_seconds(context.expires_at),
        truncation_strategy: context.truncation.map(truncation_strategy),
        usage: None,
        forked_from: context
            .forked_from
            .as_ref()
            .map(|(parent, at_turn)| ForkedFrom {
                id: parent.to_string(),
                at_turn: *at_turn,
            }),
        display_name: None,
        metadata: None,
        turns: None,
        prefix_tokens: None,
        initial_tokens: None,
        warm: match context.policy.warm {
            Warm::Eager => None,
            Warm::Lazy => Some("lazy"),
            Warm::Prewarm => Some("prewarm"),
        },
        keep_warm: match context.policy.keep_warm {
            KeepWarm::Off => None,
            KeepWarm::Auto => Some("auto"),
            KeepWarm::Always => Some("always"),
        },
        account: None,
    }
}

fn unix_seconds(instant: UnixMillis) -> i64 {
    instant.div_euclid(1000)
}

fn truncation_strategy(truncation: Truncation) -> TruncationStrategy {
    match truncation {
        Truncation::LastHistoryTokens {
            last_history_tokens,
        } => TruncationStrategy {
            kind: "last_history_tokens",
            last_history_tokens: Some(last_history_tokens),
            rolling_tokens: None,
            max_window_tokens: None,
            rolling_window_tokens: None,
        },
        Truncation::RollingTokens {
            rolling_tokens,
            max_window_tokens,
            rolling_window_tokens,
        } => TruncationStrategy {
            kind: "rolling_tokens",
            last_history_tokens: None,
            rolling_tokens: Some(rolling_tokens),
            max_window_tokens,
            rolling_window_tokens,
        },
    }
}
