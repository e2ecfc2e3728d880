//! Requests of OpenAI's own clients.

use crate::dialect::original::RawObject;
use crate::error::ApiError;
use crate::upstream::{HttpCall, OriginalCall};

/// With `tenant_line` and keys of the gateway; nothing is kept upstream, because what is kept belongs to a context.
pub(super) fn encode(path: &str, call: &OriginalCall<'_>) -> Result<HttpCall, ApiError> {
    let mut object = RawObject::read(call.body)?;
    object.set_text("model", call.model);
    object.set("store", "false");
    if let Some(key) = call.cache_key
        && call.rules.cache.key.is_some()
    {
        object.set_text("prompt_cache_key", key);
    }
    Ok(HttpCall::post(path, vec![object.write()]))
}
