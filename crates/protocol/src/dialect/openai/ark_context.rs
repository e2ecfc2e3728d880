//! Ark's retired Context API, towards upstreams (facts 2.5a).
//!
//! A handle is the id of a `common_prefix` context with the initial messages in it; everything else is an ordinary chat
//! completion. Sessions stay in the gateway: their history is sent after the handle. Tools are refused, because these
//! paths do not take any. A chat without a handle goes to the ordinary path with all its messages.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::to_json;
use super::upstream::{ChatDecoder, OpenAiUpstream, failure};
use crate::error::ApiError;
use crate::provider::{Caching, ModelRules};
use crate::upstream::{
    AnswerDecoder, ChatCall, EncodedPrefix, Failure, FailureKind, Held, HoldCall, HttpCall,
    PrefixParts, UpstreamDialect,
};
use crate::usage::BilledUsage;

const CREATE_PATH: &str = "/context/create";
const CHAT_PATH: &str = "/context/chat/completions";
/// What `ttl` may be, seconds (facts 2.5a).
const TTL_SECONDS_MIN: u32 = 3_600;
const TTL_SECONDS_MAX: u32 = 604_800;

/// Ark's Context API.
#[derive(Debug, Clone, Copy, Default)]
pub struct ArkContextUpstream;

#[derive(Serialize)]
struct CreateHead<'a> {
    model: &'a str,
    mode: &'static str,
    ttl: u32,
}

#[derive(Serialize)]
struct ChatHead<'a> {
    context_id: &'a str,
}

impl UpstreamDialect for ArkContextUpstream {
    fn encode_prefix(
        &self,
        parts: &PrefixParts<'_>,
        rules: &ModelRules,
    ) -> Result<EncodedPrefix, ApiError> {
        if !parts.tools.is_empty() {
            return Err(tools_refused());
        }
        OpenAiUpstream.encode_prefix(parts, rules)
    }

    fn encode_chat(&self, call: &ChatCall<'_>) -> Result<HttpCall, ApiError> {
        let Some(handle) = call.handle else {
            return OpenAiUpstream.encode_chat(call);
        };
        if !call.composed.tools.is_empty() {
            return Err(tools_refused());
        }
        let history = call
            .prefix
            .filter(|_| !handle.with_history)
            .map(|prefix| prefix.history.clone());
        let sent = EncodedPrefix {
            history: history.unwrap_or_default(),
            ..EncodedPrefix::default()
        };
        let chat = OpenAiUpstream.encode_chat(&ChatCall {
            prefix: Some(&sent),
            handle: None,
            ..*call
        })?;
        let head = to_json(&ChatHead {
            context_id: handle.name,
        });
        Ok(HttpCall {
            path: CHAT_PATH.to_owned(),
            body: with_head(&head, chat.body),
            ..chat
        })
    }

    fn encode_hold(&self, call: &HoldCall<'_>) -> Result<Option<HttpCall>, ApiError> {
        if call.rules.cache.caching != Caching::Handle {
            return Ok(None);
        }
        if !call.prefix.tools.is_empty() {
            return Err(tools_refused());
        }
        let head = to_json(&CreateHead {
            model: call.model,
            mode: "common_prefix",
            ttl: call.ttl_seconds.clamp(TTL_SECONDS_MIN, TTL_SECONDS_MAX),
        });
        let messages = vec![
            Bytes::from_static(b"{\"messages\":["),
            call.prefix.initial.clone(),
            Bytes::from_static(b"]}"),
        ];
        Ok(Some(HttpCall::post(
            CREATE_PATH,
            with_head(&head, messages),
        )))
    }

    fn decode_hold(&self, body: &[u8], _rules: &ModelRules) -> Result<Held, Failure> {
        let created: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| Failure::malformed())?;
        let handle = created
            .get("id")
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty())
            .ok_or_else(Failure::malformed)?;
        let tokens = created
            .get("usage")
            .and_then(|usage| usage.get("prompt_tokens"))
            .and_then(Value::as_u64)
            // Beyond 32 bits a count is nonsense.
            .filter(|tokens| *tokens <= u64::from(u32::MAX));
        Ok(Held {
            handle: Some(handle.to_owned()),
            // The lifetime begins anew with every chat, so there is no fixed end to tell.
            expires_at: None,
            prefix_tokens: tokens,
            usage: tokens.map(|tokens| BilledUsage {
                input_tokens: tokens,
                ..BilledUsage::default()
            }),
        })
    }

    fn decoder(&self, rules: &ModelRules) -> Box<dyn AnswerDecoder> {
        Box::new(ChatDecoder::new(rules, None))
    }

    fn failure(
        &self,
        status: u16,
        header: &dyn Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Failure {
        let mut failure = failure(status, header, body);
        if matches!(status, 400 | 403 | 404) && is_about_lost_context(body) {
            failure.kind = FailureKind::HandleGone;
        }
        failure
    }
}

/// The object in `body` with the fields of `head`, also an object, before its own. Neither is empty.
fn with_head(head: &Bytes, mut body: Vec<Bytes>) -> Vec<Bytes> {
    let mut first = head.to_vec();
    first.pop();
    first.push(b',');
    if let Some(piece) = body.first_mut() {
        first.extend_from_slice(&piece[1..]);
        *piece = first.into();
    }
    body
}

/// The exact code for an unknown or expired id is not documented, so several forms count.
fn is_about_lost_context(body: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return false;
    };
    let error = body.get("error").unwrap_or(&body);
    let text = |key: &str| {
        let text = error.get(key).and_then(Value::as_str);
        text.unwrap_or_default().to_lowercase()
    };
    let (code, message) = (text("code"), text("message"));
    if code.starts_with("invalidendpointormodel") {
        return false;
    }
    let names_context = text("param").contains("context_id")
        || message.contains("context_id")
        || code.contains("context_id");
    let says_gone = ["not found", "expired", "not exist", "deleted"]
        .iter()
        .any(|words| message.contains(words));
    code.contains("notfound") || (names_context && (says_gone || code.contains("invalidparameter")))
}

fn tools_refused() -> ApiError {
    ApiError::unsupported(
        "tools",
        "can't be used with this model: the context interface of its provider takes none",
    )
}
