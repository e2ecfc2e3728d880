//! Ark (Volcengine, BytePlus).

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::items::{Flavour, Marks, history_refused, items, joined, system_item};
use super::options::{Asked, ThinkingOut, ToolChoiceOut, thinking, tool_choice, tools};
use super::stream::ResponsesDecoder;
use super::{PATH, error, usage};
use crate::chat::ResponseFormat;
use crate::dialect::pieces::{Body, segment};
use crate::error::ApiError;
use crate::provider::{Caching, ModelRules};
use crate::upstream::{
    AnswerDecoder, ChatCall, EncodedPrefix, Failure, Held, HoldCall, HttpCall, Method, PrefixParts,
    UpstreamDialect,
};

/// Responses with explicit prefix caching.
#[derive(Debug, Clone, Copy, Default)]
pub struct ArkResponses;

/// Only fields that Ark knows: any other fails the request.
#[derive(Serialize)]
struct Rest<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_response_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    store: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    caching: Option<CachingOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_at: Option<i64>,
    #[serde(flatten)]
    asked: Asked<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<ThinkingOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoiceOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
}

#[derive(Serialize)]
struct CachingOut {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<bool>,
}

impl UpstreamDialect for ArkResponses {
    fn encode_prefix(
        &self,
        parts: &PrefixParts<'_>,
        rules: &ModelRules,
    ) -> Result<EncodedPrefix, ApiError> {
        let encode = |messages| items(messages, 0, &Marks::default(), Flavour::Ark, &rules.quirks);
        let initial = encode(parts.initial)?;
        Ok(EncodedPrefix {
            tools: tools(parts.tools, Flavour::Ark),
            initial: match parts.tenant_line {
                Some(line) => joined(&system_item(line), &initial),
                None => initial,
            },
            history: encode(parts.history).map_err(history_refused)?,
            ..EncodedPrefix::default()
        })
    }

    fn encode_chat(&self, call: &ChatCall<'_>) -> Result<HttpCall, ApiError> {
        let composed = call.composed;
        let request = &composed.request;
        if request.logprobs.is_some() {
            return Err(ApiError::unsupported(
                "logprobs",
                "can't be honoured by this model's provider on the interface that the gateway uses",
            ));
        }
        let is_cached = call.handle.is_some() || call.chain.is_some();
        if is_cached && matches!(request.response_format, ResponseFormat::JsonSchema { .. }) {
            return Err(ApiError::unsupported(
                "response_format",
                "can't be `json_schema` with a context of this model: use `json_object`",
            ));
        }
        let new = items(
            &composed.new,
            0,
            &Marks::default(),
            Flavour::Ark,
            &call.rules.quirks,
        )?;
        let control = call.rules.quirks.reasoning;
        let empty = EncodedPrefix::default();
        let prefix = call.prefix.unwrap_or(&empty);
        let nothing = Bytes::new();
        let (own_tools, initial, history) = match call.handle {
            Some(handle) => {
                if prefix.tools.is_empty() && !composed.tools.is_empty() {
                    return Err(ApiError::unsupported(
                        "tools",
                        "can't be given beside a context of this model: store them in the context when you create it",
                    ));
                }
                let history = if handle.with_history {
                    &nothing
                } else {
                    &prefix.history
                };
                (nothing.clone(), &nothing, history)
            }
            None if prefix.tools.is_empty() => (
                tools(&composed.tools, Flavour::Ark),
                &prefix.initial,
                &prefix.history,
            ),
            None => (prefix.tools.clone(), &prefix.initial, &prefix.history),
        };
        let has_tools = !own_tools.is_empty() || !composed.tools.is_empty();
        let body = Body::new()
            .array("\"tools\":[", &[&own_tools], "]")
            .array("\"input\":[", &[initial, history, &new], "]")
            .rest(&Rest {
                model: call.model,
                previous_response_id: call.handle.map(|handle| handle.name),
                stream: Some(true),
                // Caching demands it.
                store: is_cached,
                caching: is_cached.then_some(CachingOut {
                    r#type: "enabled",
                    prefix: None,
                }),
                expire_at: call.chain.map(|chain| chain.expires_at_seconds),
                asked: Asked::of(request, call.max_tokens, Flavour::Ark, control)?,
                thinking: thinking(request),
                tool_choice: tool_choice(&composed.tool_choice).filter(|_| has_tools),
                parallel_tool_calls: request.parallel_tool_calls.filter(|_| has_tools),
            });
        Ok(HttpCall::post(PATH, body))
    }

    fn encode_hold(&self, call: &HoldCall<'_>) -> Result<Option<HttpCall>, ApiError> {
        if call.rules.cache.caching != Caching::Handle {
            return Ok(None);
        }
        if call.prefix.initial.is_empty() {
            return Err(ApiError::invalid(
                "messages",
                "must hold some text: this model's provider caches no tools alone",
            ));
        }
        let body = Body::new()
            .array("\"tools\":[", &[&call.prefix.tools], "]")
            .array("\"input\":[", &[&call.prefix.initial], "]")
            .rest(&Rest {
                model: call.model,
                previous_response_id: None,
                stream: None,
                store: true,
                caching: Some(CachingOut {
                    r#type: "enabled",
                    prefix: Some(true),
                }),
                expire_at: Some(call.expires_at_seconds),
                asked: Asked::default(),
                thinking: None,
                // No answer is made, and every chat says its own.
                tool_choice: None,
                parallel_tool_calls: None,
            });
        Ok(Some(HttpCall::post(PATH, body)))
    }

    fn decode_hold(&self, body: &[u8], rules: &ModelRules) -> Result<Held, Failure> {
        let response = usage::response_of(body)?;
        if response
            .get("status")
            .is_some_and(|status| status == "failed")
        {
            return Err(error::of_response(&response, Flavour::Ark));
        }
        let handle = response
            .get("id")
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty())
            .ok_or_else(Failure::malformed)?;
        let usage = usage::billed(&response, rules);
        Ok(Held {
            handle: Some(handle.to_owned()),
            expires_at: response
                .get("expire_at")
                .and_then(Value::as_i64)
                .and_then(|seconds| seconds.checked_mul(1_000)),
            prefix_tokens: usage.map(|usage| usage.input_tokens),
            usage,
        })
    }

    fn encode_drop(&self, handle: &str) -> Option<HttpCall> {
        Some(HttpCall {
            method: Method::Delete,
            path: format!("{PATH}/{}", segment(handle)),
            headers: Vec::new(),
            body: Vec::new(),
        })
    }

    fn decoder(&self, rules: &ModelRules) -> Box<dyn AnswerDecoder> {
        Box::new(ResponsesDecoder::new(rules, Flavour::Ark))
    }

    fn failure(
        &self,
        status: u16,
        header: &dyn Fn(&str) -> Option<String>,
        body: &[u8],
    ) -> Failure {
        error::failure(status, header, body, Flavour::Ark)
    }
}
