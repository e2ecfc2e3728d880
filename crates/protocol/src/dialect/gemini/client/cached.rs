//! `cachedContents`: contexts as Google's clients know them. What they hold is never shown.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::calls::Place;
use super::contents::Conversation;
use super::proto::{body as read_body, list};
use super::request::{CONTENTS_MAX, model_name};
use super::time;
use super::tools::offer;
use crate::UnixMillis;
use crate::context::{CachePolicy, Context, ContextId, ContextPage, CreateContext};
use crate::dialect::fields::{Fields, camel_case};
use crate::error::ApiError;

const DISPLAY_NAME_LENGTH_MAX: usize = 128;

/// How a surface names resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceForm {
    /// As the Gemini API: `cachedContents/C`, `models/M`.
    GeminiApi,
    /// As Vertex AI, below what the request's path names.
    Vertex {
        /// The project.
        project: String,
        /// The location.
        location: String,
    },
}

impl ResourceForm {
    fn context(&self, id: &ContextId) -> String {
        match self {
            ResourceForm::GeminiApi => format!("cachedContents/{id}"),
            ResourceForm::Vertex { project, location } => {
                format!("projects/{project}/locations/{location}/cachedContents/{id}")
            }
        }
    }

    fn model(&self, model: &str) -> String {
        match self {
            ResourceForm::GeminiApi => format!("models/{model}"),
            ResourceForm::Vertex { project, location } => {
                format!("projects/{project}/locations/{location}/publishers/google/models/{model}")
            }
        }
    }
}

/// Reads a create request. `now` is what an `expireTime` is counted from.
///
/// # Errors
/// Not JSON, a field that is missing or malformed, or one that only Google itself can honour. Ranges that depend on the
/// model are for [`Context::new`].
pub fn decode_create(body: &[u8], now: UnixMillis) -> Result<CreateContext, ApiError> {
    let mut fields = read_body(body)?;
    let model = model_name(&fields.required_string("model")?);
    let mut conversation = Conversation::at(Place::Held);
    if let Some(system) = fields.value("systemInstruction") {
        conversation.system("systemInstruction".to_owned(), system)?;
    }
    let offer = offer(&mut fields)?;
    conversation.only = offer.only;
    for (path, content) in list(&mut fields, "contents", CONTENTS_MAX)? {
        conversation.content(path, content)?;
    }
    if let Some(error) = conversation.only {
        return Err(error);
    }
    if conversation.messages.is_empty() {
        return Err(fields.invalid(
            "contents",
            "must hold something, or `systemInstruction` must",
        ));
    }
    if let Some(choice) = &offer.choice
        && !offer.tools.is_empty()
    {
        choice.check(&offer.tools)?;
    }
    let display_name = fields.string("displayName")?;
    if display_name
        .as_deref()
        .is_some_and(|name| name.chars().count() > DISPLAY_NAME_LENGTH_MAX)
    {
        return Err(fields.invalid(
            "displayName",
            format!("may have at most {DISPLAY_NAME_LENGTH_MAX} characters"),
        ));
    }
    Ok(CreateContext {
        model,
        messages: conversation.messages,
        mode: None,
        ttl_seconds: lifetime(&mut fields, now)?,
        truncation: None,
        tools: offer.tools,
        tool_choice: offer.choice,
        display_name,
        metadata: Map::new(),
        policy: CachePolicy::default(),
    })
}

/// Reads a patch request: the new ttl, seconds. `update_mask` is the query's, where it has one; only the fields that it
/// names count then.
///
/// # Errors
/// Not JSON, a mask with something that can't be changed, or no valid `ttl` or `expireTime`.
pub fn decode_patch(
    body: &[u8],
    update_mask: Option<&str>,
    now: UnixMillis,
) -> Result<u64, ApiError> {
    let mut fields = read_body(body)?;
    let paths: Vec<String> = update_mask
        .unwrap_or_default()
        .split(',')
        .map(|path| camel_case(path.trim()))
        .filter(|path| !path.is_empty())
        .collect();
    let is_known = |path: &String| path == "ttl" || path == "expireTime";
    if !paths.iter().all(is_known) {
        return Err(ApiError::invalid(
            "updateMask",
            "may name `ttl` and `expireTime` only: nothing else can be changed",
        ));
    }
    if !paths.is_empty() {
        for key in ["ttl", "expireTime"] {
            if !paths.iter().any(|path| path == key) {
                fields.value(key);
            }
        }
    }
    lifetime(&mut fields, now)?.ok_or_else(|| fields.missing("ttl"))
}

/// `ttl` or `expireTime`, seconds from `now`.
fn lifetime(fields: &mut Fields, now: UnixMillis) -> Result<Option<u64>, ApiError> {
    let ttl = fields.string("ttl")?;
    let end = fields.string("expireTime")?;
    match (ttl, end) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(fields.invalid("expireTime", "can't be given beside `ttl`")),
        (Some(ttl), None) => time::whole_seconds(&ttl).map(Some).ok_or_else(|| {
            let problem = "must be a positive duration in seconds such as \"300s\" or \"3.5s\"";
            fields.invalid("ttl", problem)
        }),
        (None, Some(end)) => match time::seconds_until(&end, now) {
            None => Err(fields.invalid(
                "expireTime",
                "must be a time such as \"2030-01-31T12:00:00Z\"",
            )),
            Some(0) => Err(fields.invalid("expireTime", "has passed")),
            seconds => Ok(seconds),
        },
    }
}

/// The answer of create, get and patch.
pub fn encode_cached_content(context: &Context, form: &ResourceForm) -> Bytes {
    resource(context, form).to_string().into()
}

/// The answer of list; of nothing it is `{}`.
pub fn encode_cached_page(page: &ContextPage, form: &ResourceForm) -> Bytes {
    let mut body = Map::new();
    if !page.contexts.is_empty() {
        let contexts = page.contexts.iter();
        let resources: Vec<Value> = contexts.map(|context| resource(context, form)).collect();
        body.insert("cachedContents".to_owned(), resources.into());
    }
    if let Some(cursor) = &page.next_cursor {
        body.insert("nextPageToken".to_owned(), cursor.as_str().into());
    }
    Value::Object(body).to_string().into()
}

fn resource(context: &Context, form: &ResourceForm) -> Value {
    // The clock was last started when the ttl was set, or with a use where that is what starts it.
    let ttl = i64::from(context.ttl_seconds) * 1_000;
    let started = context.expires_at.saturating_sub(ttl);
    json!({
        "name": form.context(&context.id),
        "model": form.model(&context.requested_model),
        "displayName": context.display_name.as_deref().unwrap_or_default(),
        "createTime": time::written(context.created_at),
        "updateTime": time::written(started.max(context.created_at)),
        "expireTime": time::written(context.expires_at),
        "usageMetadata": {"totalTokenCount": context.prefix_tokens},
    })
}
