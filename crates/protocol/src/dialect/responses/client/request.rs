//! `POST /v1/responses` and `/api/v3/responses`.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Surface;
use super::echo::Echo;
use super::input::{Input, Only};
use super::options;
use crate::UnixMillis;
use crate::chat::{ChatRequest, ClientDialect, Message, Original, Role};
use crate::context::ContextId;
use crate::dialect::cache;
use crate::dialect::fields::Fields;
use crate::error::{ApiError, ErrorKind};

const ITEMS_MAX: usize = 100_000;
/// The longest that Ark keeps a response, seconds (facts 2.5b).
const KEPT_SECONDS_MAX: i64 = 604_800;

/// A request for a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is asked: the instructions, then the messages of `input`. Only beside something that is continued there may
    /// be no messages.
    pub chat: ChatRequest,
    /// How many of the chat's messages are instructions. Earlier turns go after them.
    pub instructions_end: usize,
    /// The input as items, each in its full form: what is listed later, once [`super::with_ids`] has named them.
    pub input: Vec<Value>,
    /// The response that is continued. Never together with `conversation` or the chat's `context_id`.
    pub previous_response_id: Option<String>,
    /// The conversation that is continued. Never together with the chat's `context_id`.
    pub conversation: Option<String>,
    /// Whether the response is to be kept.
    pub store: bool,
    /// Until when it is kept, unix seconds; `None`: the server decides. Ark's `expire_at`.
    pub expires_at: Option<i64>,
    /// Ark's explicit caching.
    pub caching: Option<Caching>,
    /// What the response object repeats.
    pub echo: Echo,
}

/// Ark's field `caching`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caching {
    /// Whether what is said so far is to be cached.
    pub enabled: bool,
    /// Whether it is only to be cached, and not answered.
    pub prefix: bool,
}

impl Request {
    /// Puts the messages of earlier turns where they belong: after the instructions and before what is new.
    #[must_use]
    pub fn after(mut self, history: Vec<Message>) -> Self {
        let end = self.instructions_end;
        for point in &mut self.chat.cache.points {
            if point.messages > end {
                point.messages += history.len();
            }
        }
        self.chat.messages.splice(end..end, history);
        self
    }
}

/// Decodes a request for a response.
///
/// What only OpenAI itself can do is noted in [`Original::only`] where the request can go on as it is: it comes to
/// OpenAI's surface, continues nothing and is not to be kept.
///
/// # Errors
/// The body is no JSON object, a field is missing or wrong, `background`, or only OpenAI itself can do what is asked and
/// the request can't go on as it is.
pub fn decode_request(
    body: &Bytes,
    surface: Surface,
    now: UnixMillis,
) -> Result<Request, ApiError> {
    let mut fields = Fields::of_body(body)?;
    // Only Ark's clients have these, whatever the path.
    let surface = match fields.has("caching") || fields.has("expire_at") {
        true => Surface::Ark,
        false => surface,
    };
    let mut echo = Echo::new(surface);
    if fields.boolean("background")? == Some(true) {
        return Err(ApiError::unsupported(
            "background",
            "is not offered here: use `stream`, or wait for the answer",
        ));
    }
    let State {
        previous_response_id,
        conversation,
        context_id,
    } = state(&mut fields)?;
    let model = fields.string("model")?;

    let instructions = fields.string("instructions")?;
    let instructions_end = usize::from(instructions.is_some());
    let has_history = previous_response_id.is_some() || conversation.is_some();
    let input = input(&mut fields, instructions.as_deref(), has_history)?;
    let mut only = input.only;
    let mut chat = ChatRequest::new(model, input.messages);
    chat.stream = fields.boolean("stream")?.unwrap_or(false);

    echo.set("background", false);
    echo.set("instructions", instructions);
    options::sampling(&mut fields, &mut chat, &mut echo)?;
    options::text(&mut fields, &mut chat, &mut echo)?;
    options::reasoning(&mut fields, &mut chat, &mut echo)?;
    options::tools(&mut fields, &mut chat, &mut echo, &mut only)?;
    echo.set("previous_response_id", previous_response_id.as_deref());
    let told = conversation.as_ref().map(|id| json!({"id": id}));
    echo.set("conversation", told);
    users(&mut fields, &mut chat, &mut echo)?;
    truncation(&mut fields, &mut echo)?;
    let store = fields.boolean("store")?.unwrap_or(true);
    echo.set("store", store);
    echo.set("metadata", options::metadata(&mut fields)?);
    openai_only(&mut fields, &mut only)?;

    chat.cache.points = input.points;
    prompt_cache(&mut fields, &mut chat, &mut echo, &mut only)?;
    let (expires_at, caching) = match surface {
        Surface::OpenAi => (None, None),
        Surface::Ark => kept(&mut fields, &mut chat, &mut echo, now)?,
    };

    let is_stateless = surface == Surface::OpenAi && !store && !has_history && context_id.is_none();
    if is_stateless {
        chat.original = Some(Original {
            dialect: ClientDialect::Responses,
            body: body.clone(),
            headers: Vec::new(),
            only: only.0,
        });
    } else if let Some(error) = only.0 {
        return Err(error);
    }
    if context_id.is_some() {
        // The context is what is cached.
        chat.cache = Default::default();
    }
    chat.context_id = context_id;
    Ok(Request {
        chat,
        instructions_end,
        input: input.items,
        previous_response_id,
        conversation,
        store,
        expires_at,
        caching,
        echo,
    })
}

/// What a request continues: at most one of them.
struct State {
    previous_response_id: Option<String>,
    conversation: Option<String>,
    context_id: Option<ContextId>,
}

fn state(fields: &mut Fields) -> Result<State, ApiError> {
    let previous_response_id = fields.string("previous_response_id")?;
    let conversation = match fields.value("conversation") {
        None => None,
        Some(Value::String(id)) => Some(id).filter(|id| !id.is_empty()),
        Some(value @ Value::Object(_)) => {
            let path = "conversation".to_owned();
            let mut object = Fields::of_value(value, path, ErrorKind::InvalidParameter)?;
            Some(object.required_string("id")?)
        }
        Some(other) => {
            return Err(fields.wrong_type("conversation", "a string or an object", &other));
        }
    };
    let context_id = fields
        .string("context_id")?
        .map(ContextId::try_from)
        .transpose()?;
    if previous_response_id.is_some() && conversation.is_some() {
        return Err(fields.invalid(
            "previous_response_id",
            "can't be given beside `conversation`: continue the one or the other",
        ));
    }
    if context_id.is_some() && (previous_response_id.is_some() || conversation.is_some()) {
        return Err(fields.invalid(
            "context_id",
            "can't be given beside `previous_response_id` or `conversation`: continue one of them",
        ));
    }
    Ok(State {
        previous_response_id,
        conversation,
        context_id,
    })
}

fn input(
    fields: &mut Fields,
    instructions: Option<&str>,
    has_history: bool,
) -> Result<Input, ApiError> {
    let items = match fields.value("input") {
        None => Vec::new(),
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(text)) => vec![json!({"role": "user", "content": text})],
        Some(Value::Array(items)) if items.len() > ITEMS_MAX => {
            return Err(fields.invalid("input", format!("may have at most {ITEMS_MAX} items")));
        }
        Some(Value::Array(items)) => items,
        Some(other) => {
            return Err(fields.wrong_type("input", "a string or an array of items", &other));
        }
    };
    if items.is_empty() && !has_history {
        return Err(fields.missing("input"));
    }
    let mut input = Input::default();
    let instructions = instructions.map(|text| Message::text(Role::System, text));
    input.messages.extend(instructions.clone());
    for (index, item) in items.into_iter().enumerate() {
        input.item(item, format!("input[{index}]"))?;
    }
    input.end();
    let new = input.messages.len() - usize::from(instructions.is_some());
    if new == 0 && !has_history && input.only.0.is_none() {
        return Err(fields.invalid("input", "must hold something to answer"));
    }
    if new == 0 && input.only.0.is_some() {
        // Only OpenAI itself reads what there is; whoever counts and composes needs a message all the same.
        input.messages.push(Message::text(Role::User, ""));
    }
    Ok(input)
}

/// Who asks, and how the request is served.
fn users(fields: &mut Fields, chat: &mut ChatRequest, echo: &mut Echo) -> Result<(), ApiError> {
    chat.user = fields.string("user")?;
    echo.set("user", chat.user.as_deref());
    let identifier = fields.string("safety_identifier")?;
    echo.set("safety_identifier", identifier.as_deref());
    let tier = fields.string("service_tier")?;
    let told = match (tier.as_deref(), echo.surface) {
        (Some("fast"), Surface::OpenAi) => "priority",
        (Some(tier @ "fast"), Surface::Ark) => tier,
        (Some(tier @ ("flex" | "scale" | "priority" | "ultrafast")), Surface::OpenAi) => tier,
        _ => "default",
    };
    echo.set("service_tier", told);
    for (name, value) in [("safety_identifier", identifier), ("service_tier", tier)] {
        if let Some(value) = value {
            chat.extra.insert(name.to_owned(), value.into());
        }
    }
    Ok(())
}

fn truncation(fields: &mut Fields, echo: &mut Echo) -> Result<(), ApiError> {
    let truncation = fields.string("truncation")?;
    if !matches!(truncation.as_deref(), None | Some("auto" | "disabled")) {
        return Err(fields.invalid("truncation", "must be auto or disabled"));
    }
    echo.set("truncation", truncation.as_deref().unwrap_or("disabled"));
    Ok(())
}

/// Fields that change what is answered, and that nobody but OpenAI can follow.
fn openai_only(fields: &mut Fields, only: &mut Only) -> Result<(), ApiError> {
    let problems = [
        (
            "prompt",
            "names a template that the gateway does not have: send its text",
        ),
        (
            "context_management",
            "asks for compaction, which the gateway does not do",
        ),
        (
            "moderation",
            "asks for results of a model that the gateway does not have",
        ),
        (
            "session",
            "names something that the gateway does not keep: use `previous_response_id`",
        ),
    ];
    for (name, problem) in problems {
        let is_empty = |value: &Value| match value {
            Value::Array(values) => values.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        if fields.value(name).is_some_and(|value| !is_empty(&value)) {
            only.note(ApiError::unsupported(name, problem));
        }
    }
    Ok(())
}

/// OpenAI's caching. The key and the older field of lifetimes are passed on to upstreams of OpenAI's other dialect, which
/// has them, too; the options are not all the same there.
fn prompt_cache(
    fields: &mut Fields,
    chat: &mut ChatRequest,
    echo: &mut Echo,
    only: &mut Only,
) -> Result<(), ApiError> {
    let mut given = Map::new();
    for name in ["prompt_cache_key", "prompt_cache_retention"] {
        let value = fields.string(name)?;
        echo.set(name, value.as_deref());
        if let Some(value) = value {
            given.insert(name.to_owned(), value.into());
        }
    }
    chat.extra.extend(given.clone());
    if let Some(options) = fields.value("prompt_cache_options") {
        let path = "prompt_cache_options".to_owned();
        let mut known = Fields::of_value(options.clone(), path, ErrorKind::InvalidParameter)?;
        if known.boolean("prewarm")? == Some(true) {
            only.note(ApiError::unsupported(
                "prompt_cache_options.prewarm",
                "asks for no answer, which only OpenAI can: create a context instead",
            ));
        }
        let mode = known.string("mode")?;
        let ttl = known.string("ttl")?;
        let mut told = json!({
            "mode": mode.as_deref().unwrap_or("implicit"),
            "ttl": ttl.as_deref().unwrap_or("30m"),
        });
        if let Some(id) = known.string("comparison_response_id")? {
            told["comparison_response_id"] = id.into();
        }
        echo.set("prompt_cache_options", told);
        given.insert("prompt_cache_options".to_owned(), options);
    }
    chat.cache = cache::request(std::mem::take(&mut chat.cache.points), &given);
    Ok(())
}

/// How long a response is kept on Ark, and whether what it has said is cached for so long.
fn kept(
    fields: &mut Fields,
    chat: &mut ChatRequest,
    echo: &mut Echo,
    now: UnixMillis,
) -> Result<(Option<i64>, Option<Caching>), ApiError> {
    let now = now.div_euclid(1_000);
    let expires_at = fields.integer("expire_at", 0..=i64::MAX)?;
    let seconds = expires_at.map(|at| at.saturating_sub(now));
    if seconds.is_some_and(|seconds| !(1..=KEPT_SECONDS_MAX).contains(&seconds)) {
        return Err(fields.invalid(
            "expire_at",
            format!("must be within the next {KEPT_SECONDS_MAX} seconds"),
        ));
    }
    echo.set("expire_at", expires_at);
    let mut told = json!({"type": "disabled"});
    let mut caching = None;
    if let Some(mut wanted) = fields.object("caching")? {
        let enabled = match wanted.string("type")?.as_deref() {
            Some("enabled") => true,
            None | Some("disabled") => false,
            Some(_) => return Err(wanted.invalid("type", "must be enabled or disabled")),
        };
        let prefix = wanted.boolean("prefix")?;
        if enabled {
            told["type"] = "enabled".into();
            let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok());
            chat.cache.automatic = Some(seconds);
        }
        if let Some(prefix) = prefix {
            told["prefix"] = prefix.into();
        }
        caching = Some(Caching {
            enabled,
            prefix: enabled && prefix == Some(true),
        });
    }
    echo.set("caching", told);
    Ok((expires_at, caching))
}
