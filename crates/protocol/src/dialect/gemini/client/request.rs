//! `generateContent`, `streamGenerateContent` and `countTokens`.

use bytes::Bytes;
use serde_json::{Value, json};

use super::calls::Place;
use super::config::generation;
use super::contents::Conversation;
use super::proto::{body as read_body, list, object};
use super::tools::{self, offer};
use crate::chat::{ChatRequest, ClientDialect, Message, Original, Role};
use crate::context::ContextId;
use crate::dialect::fields::Fields;
use crate::error::{ApiError, ErrorKind};

pub(super) const CONTENTS_MAX: usize = 100_000;

/// Clients look for these words.
const BESIDE_CACHE: &str = "CachedContent can not be used with GenerateContent request setting system_instruction, \
     tools or tool_config. Proposed fix: move those values to CachedContent from GenerateContent request.";

/// A request for content.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is asked.
    pub chat: ChatRequest,
    /// Whether the answer shows thoughts.
    pub shows_thoughts: bool,
}

/// Decodes `generateContent`, or `streamGenerateContent` with `stream`. `model` is what the path names.
///
/// What only Google itself can do is noted in [`Original::only`].
///
/// # Errors
/// The body is no JSON object, a field is missing or wrong, the request sets beside a context what belongs into it, or
/// only Google itself can do beside a context what is asked.
pub fn decode_request(body: &Bytes, model: &str, stream: bool) -> Result<Request, ApiError> {
    let mut fields = read_body(body)?;
    let is_content = fields.get("systemInstruction").is_none_or(is_content);
    let read = generate(&mut fields, model)?;
    let mut request = read.request;
    request.chat.stream = stream;
    let is_alone = request.chat.context_id.is_none();
    // Where nobody else can answer, Google may judge the seals for itself.
    let is_clean = !read.has_foreign_seals || read.only.is_some();
    if is_alone && is_content && is_clean {
        request.chat.original = Some(Original {
            dialect: ClientDialect::Gemini,
            body: body.clone(),
            headers: Vec::new(),
            only: read.only,
        });
    } else if let Some(error) = read.only {
        return Err(error);
    }
    Ok(request)
}

/// Decodes `countTokens`. `model` is what the path names.
///
/// # Errors
/// As [`decode_request`]. What only Google itself can do can't be counted here.
pub fn decode_count(body: &[u8], model: &str) -> Result<ChatRequest, ApiError> {
    let mut fields = read_body(body)?;
    let read = match object(&mut fields, "generateContentRequest")? {
        Some(_) if fields.has("contents") => {
            return Err(
                fields.invalid("contents", "can't be given beside `generateContentRequest`")
            );
        }
        Some(mut fields) => generate(&mut fields, model)?,
        None => generate(&mut fields, model)?,
    };
    read.only.map_or(Ok(read.request.chat), Err)
}

/// The answer of `countTokens`. `cached_tokens` are a context's.
pub fn encode_count(total_tokens: u64, cached_tokens: Option<u64>) -> Bytes {
    let mut body = json!({
        "totalTokens": total_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": total_tokens}],
    });
    if let Some(cached) = cached_tokens {
        body["cachedContentTokenCount"] = cached.into();
    }
    body.to_string().into()
}

/// A request as it was read.
struct Read {
    request: Request,
    /// What of it only Google itself can do.
    only: Option<ApiError>,
    has_foreign_seals: bool,
}

/// What all kinds of request have.
fn generate(fields: &mut Fields, model: &str) -> Result<Read, ApiError> {
    let context_id = fields
        .string("cachedContent")?
        .map(ContextId::try_from)
        .transpose()?;
    let place = match context_id {
        Some(_) if sets_prefix(fields) => {
            return Err(ApiError::new(ErrorKind::InvalidParameter, BESIDE_CACHE)
                .with_param("cachedContent"));
        }
        Some(_) => Place::Beside,
        None => Place::Alone,
    };
    let mut conversation = Conversation::at(place);
    if let Some(system) = fields.value("systemInstruction") {
        conversation.system(fields.path_of("systemInstruction"), system)?;
    }
    let offer = offer(fields)?;
    conversation.only = offer.only;
    let contents = list(fields, "contents", CONTENTS_MAX)?;
    if contents.is_empty() {
        return Err(fields.missing("contents"));
    }
    for (path, content) in contents {
        conversation.content(path, content)?;
    }
    let mut chat = ChatRequest::new(Some(model_name(model)), Vec::new());
    chat.context_id = context_id;
    chat.tools = offer.tools;
    chat.tool_choice = offer.choice;
    let shows_thoughts = generation(fields, &mut chat, &mut conversation)?;
    chat.messages = conversation.messages;
    if chat.messages.is_empty() {
        // What only Google itself can read is all there is.
        chat.messages.push(Message::text(Role::User, ""));
    }
    Ok(Read {
        request: Request {
            chat,
            shows_thoughts,
        },
        only: conversation.only,
        has_foreign_seals: conversation.has_foreign_seals,
    })
}

/// Whether a request has what belongs into a context.
fn sets_prefix(fields: &Fields) -> bool {
    fields.get("systemInstruction").is_some_and(says_something)
        || fields.get("tools").is_some_and(tools::is_set)
        || fields.get("toolConfig").is_some_and(says_something)
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => values.iter().any(says_something),
        // A role alone says nothing.
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| key != "role" && says_something(value)),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Whether upstreams of this dialect take a system instruction as it is.
fn is_content(instruction: &Value) -> bool {
    match instruction {
        Value::Null => true,
        Value::Object(content) => !content.contains_key("text"),
        _ => false,
    }
}

/// A model's own name, of the resource that a path or a field names. Clients without a project write `None` into it.
pub(super) fn model_name(resource: &str) -> String {
    let segments: Vec<&str> = resource.split('/').collect();
    let name = match &segments[..] {
        ["models", name @ ..]
        | ["publishers", _, "models", name @ ..]
        | ["projects", _, "locations", _, "models", name @ ..]
        | [
            "projects",
            _,
            "locations",
            _,
            "publishers",
            _,
            "models",
            name @ ..,
        ] => name.join("/"),
        _ => String::new(),
    };
    match name.is_empty() {
        true => resource.to_owned(),
        false => name,
    }
}
