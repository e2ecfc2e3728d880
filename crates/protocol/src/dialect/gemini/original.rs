//! Requests of Google's own clients.

use serde_json::Value;

use super::model_resource;
use super::stream::GeminiDecoder;
use crate::dialect::original::{RawObject, with_first};
use crate::error::ApiError;
use crate::upstream::{AnswerDecoder, AnswerEnd, AnswerEvent, Failure, HttpCall, OriginalCall};

pub(super) fn encode(call: &OriginalCall<'_>) -> Result<HttpCall, ApiError> {
    let mut object = RawObject::read(call.body)?;
    object.remove("model");
    object.remove("cachedContent");
    object.remove("cached_content");
    if let Some(line) = call.tenant_line {
        let part = serde_json::json!({"text": line}).to_string();
        let name = match object.get("system_instruction") {
            Some(_) => "system_instruction",
            None => "systemInstruction",
        };
        let parts = match object.get(name).map(RawObject::read).transpose()? {
            // A single part may stand without its array.
            Some(instruction) => match instruction.get("parts") {
                Some(parts) if parts.starts_with(b"[") => with_first(parts, part.as_bytes()),
                Some(one) => with_first(&[b"[", one, b"]"].concat(), part.as_bytes()),
                None => format!("[{part}]").into(),
            },
            None => format!("[{part}]").into(),
        };
        let parts = String::from_utf8_lossy(&parts).into_owned();
        object.set(name, format!("{{\"parts\":{parts}}}"));
    }
    let resource = model_resource(call.model, call.rules.quirks.vertex_parent.is_some());
    let verb = match call.stream {
        true => "streamGenerateContent?alt=sse",
        false => "generateContent",
    };
    Ok(HttpCall::post(
        format!("/{resource}:{verb}"),
        vec![object.write()],
    ))
}

/// A whole answer is what a stream's only chunk would be.
pub(super) fn decode_whole(body: &[u8]) -> Result<AnswerEnd, Failure> {
    let value: Value = serde_json::from_slice(body).map_err(|_| Failure::malformed())?;
    let chunk = [b"data: ", value.to_string().as_bytes(), b"\n\n"].concat();
    let mut decoder = GeminiDecoder::new();
    let events = decoder.push(&chunk).into_iter().chain(decoder.finish());
    for event in events {
        if let AnswerEvent::Done(end) = event? {
            return Ok(end);
        }
    }
    Err(Failure::malformed())
}
