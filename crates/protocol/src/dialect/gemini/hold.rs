//! `cachedContents`: made, extended and dropped.

use serde::{Deserialize, Serialize};

use super::model_resource;
use super::request::{ToolConfig, tool_config};
use crate::dialect::pieces::{Body, segment, to_json};
use crate::error::ApiError;
use crate::provider::Caching;
use crate::upstream::{Failure, Held, HoldCall, HttpCall, Method};
use crate::usage::BilledUsage;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rest<'a> {
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig<'a>>,
    ttl: String,
}

pub(super) fn encode_hold(call: &HoldCall<'_>) -> Result<Option<HttpCall>, ApiError> {
    if call.rules.cache.caching != Caching::Handle {
        return Ok(None);
    }
    let prefix = call.prefix;
    if prefix.system.is_empty() && prefix.initial.is_empty() {
        return Err(ApiError::invalid(
            "messages",
            "must hold some text: this model's provider caches no tools alone",
        ));
    }
    let parent = call.rules.quirks.vertex_parent.as_deref();
    let resource = model_resource(call.model, parent.is_some());
    let body = Body::new()
        .array(
            "\"systemInstruction\":{\"parts\":[",
            &[&prefix.system],
            "]}",
        )
        .array("\"tools\":[", &[&prefix.tools], "]")
        .array("\"contents\":[", &[&prefix.initial], "]")
        .rest(&Rest {
            // Vertex AI names models in full here.
            model: match parent {
                Some(parent) => format!("{parent}/{resource}"),
                None => resource,
            },
            tool_config: call
                .tool_choice
                .filter(|_| !prefix.tools.is_empty())
                .and_then(tool_config),
            ttl: format!("{}s", call.ttl_seconds),
        });
    Ok(Some(HttpCall::post("/cachedContents", body)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CachedContent {
    name: String,
    expire_time: Option<String>,
    usage_metadata: Option<CachedContentUsage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CachedContentUsage {
    total_token_count: Option<u64>,
}

pub(super) fn decode_hold(body: &[u8]) -> Result<Held, Failure> {
    let held: CachedContent = serde_json::from_slice(body).map_err(|_| Failure::malformed())?;
    if held.name.is_empty() {
        return Err(Failure::malformed());
    }
    let tokens = held
        .usage_metadata
        .and_then(|usage| usage.total_token_count)
        // Beyond 32 bits a count is nonsense.
        .filter(|tokens| *tokens <= u64::from(u32::MAX));
    Ok(Held {
        handle: Some(held.name),
        expires_at: held
            .expire_time
            .and_then(|time| time.parse::<jiff::Timestamp>().ok())
            .map(jiff::Timestamp::as_millisecond),
        prefix_tokens: tokens,
        // The call itself is charged as input (facts 5.5).
        usage: tokens.map(|tokens| BilledUsage {
            input_tokens: tokens,
            ..BilledUsage::default()
        }),
    })
}

#[derive(Serialize)]
struct Extension {
    ttl: String,
}

pub(super) fn encode_extend(handle: &str, ttl_seconds: u32) -> HttpCall {
    let ttl = format!("{ttl_seconds}s");
    HttpCall {
        method: Method::Patch,
        path: format!("{}?updateMask=ttl", path_of(handle)),
        headers: Vec::new(),
        body: vec![to_json(&Extension { ttl })],
    }
}

/// Where a handle is below the base URL. Vertex AI names it from `projects/` on, which is where its base URL ends.
pub(super) fn path_of(handle: &str) -> String {
    let id = handle.rsplit('/').next().unwrap_or(handle);
    format!("/cachedContents/{}", segment(id))
}
