//! Requests of Anthropic's own clients.

use bytes::{BufMut, BytesMut};
use serde_json::Value;

use super::request::{BETA_HEADER, ONE_HOUR_BETA, PATH, VERSION_HEADER};
use crate::dialect::original::{RawObject, text_bytes, with_first};
use crate::error::ApiError;
use crate::upstream::{HttpCall, OriginalCall};

/// How an hour's lifetime is asked for, in any spelling of JSON that has no spaces in it and in the usual one.
const ONE_HOUR: [&[u8]; 2] = [br#""ttl":"1h""#, br#""ttl": "1h""#];

pub(super) fn encode(call: &OriginalCall<'_>) -> Result<HttpCall, ApiError> {
    let mut object = RawObject::read(call.body)?;
    object.set_text("model", call.model);
    object.remove("context_id");
    if let Some(line) = call.tenant_line {
        let line = serde_json::json!({"type": "text", "text": line}).to_string();
        let system = match object.get("system") {
            None => format!("[{line}]").into(),
            Some(system) if system.starts_with(b"[") => with_first(system, line.as_bytes()),
            Some(system) => {
                let text = serde_json::from_slice(system).unwrap_or(Value::Null);
                let text = text_bytes(text.as_str().unwrap_or_default());
                let mut blocks = BytesMut::new();
                blocks.put_slice(format!("[{line}").as_bytes());
                // An empty text is no block to the API.
                if text.len() > 2 {
                    blocks.put_slice(br#",{"type":"text","text":"#);
                    blocks.put_slice(&text);
                    blocks.put_u8(b'}');
                }
                blocks.put_u8(b']');
                blocks.freeze()
            }
        };
        object.set("system", system);
    }
    let mut headers = vec![(VERSION_HEADER.0, VERSION_HEADER.1.to_owned())];
    let asks_for_one_hour = ONE_HOUR
        .iter()
        .any(|ttl| call.body.windows(ttl.len()).any(|window| window == *ttl));
    let mut betas: Vec<&str> = call
        .headers
        .iter()
        .filter(|(name, _)| *name == BETA_HEADER)
        .map(|(_, value)| value.as_str())
        .collect();
    if asks_for_one_hour && !betas.iter().any(|betas| betas.contains(ONE_HOUR_BETA)) {
        betas.push(ONE_HOUR_BETA);
    }
    if !betas.is_empty() {
        headers.push((BETA_HEADER, betas.join(",")));
    }
    Ok(HttpCall {
        headers,
        ..HttpCall::post(PATH, vec![object.write()])
    })
}
