//! `POST /v1/messages` and `/v1/messages/count_tokens`.

use bytes::Bytes;
use serde_json::Value;

use super::blocks::Conversation;
use crate::chat::{
    ChatRequest, ClientDialect, Message, Original, ReasoningLevel, ResponseFormat, Role, Tool,
    ToolChoice,
};
use crate::context::ContextId;
use crate::dialect::fields::{Fields, invalid, wrong_type};
use crate::error::{ApiError, ErrorKind};

const MESSAGES_MAX: usize = 100_000;
const TOOLS_MAX: usize = 1_024;
const TOOL_NAME_MAX: usize = 128;
/// Anthropic documents no bound; each string is looked for in every answer.
const STOP_MAX: usize = 64;
/// Most blocks with a marker in a request (facts 2.3).
const MARKERS_MAX: usize = 4;
const KIND: ErrorKind = ErrorKind::InvalidParameter;

/// A request for a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is asked.
    pub chat: ChatRequest,
    /// Whether the longest lifetime that a marker asks for is an hour: where the answer's counts of written tokens go.
    pub writes_for_hour: bool,
}

/// Decodes `POST /v1/messages`.
///
/// What only Anthropic itself can do is noted in [`Original::only`].
///
/// # Errors
/// The body is no JSON object, a field is missing or wrong, or only Anthropic itself can do beside a context what is
/// asked.
pub fn decode_request(body: &Bytes) -> Result<Request, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let Read {
        mut chat,
        mut only,
        has_foreign_seals,
    } = conversation(&mut fields)?;
    chat.max_tokens = Some(
        fields
            .count("max_tokens", 1)?
            .ok_or_else(|| fields.missing("max_tokens"))?,
    );
    chat.stream = fields.boolean("stream")?.unwrap_or(false);
    let sampling = &mut chat.sampling;
    sampling.temperature = fields.number("temperature", 0.0..=1.0)?;
    sampling.top_p = fields.number("top_p", 0.0..=1.0)?;
    sampling.top_k = fields.count("top_k", 0)?.filter(|top_k| *top_k > 0);
    chat.stop = stop_sequences(&mut fields)?;
    if let Some(mut metadata) = fields.object("metadata")? {
        chat.user = metadata.string("user_id")?;
    }
    if let Some(servers) = fields.array("mcp_servers", MESSAGES_MAX)?
        && !servers.is_empty()
    {
        only.get_or_insert(ApiError::unsupported(
            "mcp_servers",
            "are called by Anthropic itself and not by this gateway",
        ));
    }
    chat.context_id = match fields.string("context_id")? {
        None => None,
        Some(id) => Some(
            id.parse::<ContextId>()
                .map_err(|_| ApiError::context_not_found())?,
        ),
    };
    let writes_for_hour = {
        let cache = &chat.cache;
        let lifetimes = cache.points.iter().map(|point| point.ttl_seconds);
        lifetimes
            .chain(cache.automatic)
            .any(|seconds| seconds == Some(3_600))
    };
    match chat.context_id {
        // Where nobody else can answer, Anthropic may judge the seals for itself.
        None if !has_foreign_seals || only.is_some() => {
            chat.original = Some(Original {
                dialect: ClientDialect::Anthropic,
                body: body.clone(),
                headers: Vec::new(),
                only,
            });
        }
        None => {}
        Some(_) => {
            if let Some(error) = only {
                return Err(error);
            }
            // The context is what is cached.
            chat.cache = Default::default();
        }
    }
    Ok(Request {
        chat,
        writes_for_hour,
    })
}

/// Decodes `POST /v1/messages/count_tokens`.
///
/// # Errors
/// As [`decode_request`]. What only Anthropic itself can do can't be counted here.
pub fn decode_count(body: &[u8]) -> Result<ChatRequest, ApiError> {
    let Read { chat, only, .. } = conversation(&mut Fields::of_body(body)?)?;
    only.map_or(Ok(chat), Err)
}

/// What both kinds of request have.
struct Read {
    chat: ChatRequest,
    /// What of it only Anthropic itself can do.
    only: Option<ApiError>,
    has_foreign_seals: bool,
}

fn conversation(fields: &mut Fields) -> Result<Read, ApiError> {
    let model = fields.string("model")?;
    let mut conversation = Conversation::default();
    if let Some(system) = fields.value("system") {
        conversation.system(system)?;
    }
    let tools = tools(fields, &mut conversation)?;
    let messages = fields
        .array("messages", MESSAGES_MAX)?
        .ok_or_else(|| fields.missing("messages"))?;
    if messages.is_empty() {
        return Err(fields.invalid("messages", "must hold at least one message"));
    }
    for (index, message) in messages.into_iter().enumerate() {
        conversation.message(message, index)?;
    }
    let automatic = marker_seconds(fields)?;
    let markers = conversation.markers + usize::from(automatic.is_some());
    if markers > MARKERS_MAX {
        return Err(ApiError::new(
            KIND,
            format!(
                "A maximum of {MARKERS_MAX} blocks with cache_control may be provided. Found {markers}."
            ),
        )
        .with_param("cache_control"));
    }
    if conversation.messages.is_empty() {
        conversation.messages.push(Message::text(Role::User, ""));
    }
    let mut chat = ChatRequest::new(model, conversation.messages);
    chat.cache.points = conversation.points;
    chat.cache.automatic = automatic.map(Some);
    chat.tools = tools;
    (chat.tool_choice, chat.parallel_tool_calls) = tool_choice(fields)?;
    chat.reasoning = thinking(fields)?;
    if let Some(mut output) = fields.object("output_config")? {
        if let Some(format) = output.object("format")? {
            chat.response_format = response_format(format)?;
        }
        if let Some(effort) = output.string("effort")?
            && !matches!(
                chat.reasoning,
                Some(ReasoningLevel::Off | ReasoningLevel::Budget(_))
            )
        {
            chat.reasoning = match effort.as_str() {
                "low" | "medium" | "high" | "xhigh" | "max" => ReasoningLevel::of_effort(&effort),
                _ => {
                    return Err(output.invalid("effort", "must be low, medium, high, xhigh or max"));
                }
            };
        }
    }
    // The same by its older name.
    if let Some(format) = fields.object("output_format")? {
        chat.response_format = response_format(format)?;
    }
    Ok(Read {
        chat,
        only: conversation.only,
        has_foreign_seals: conversation.has_foreign_seals,
    })
}

/// The lifetime that the marker `cache_control` of an object asks for, seconds.
pub(super) fn marker_seconds(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let Some(mut marker) = fields.object("cache_control")? else {
        return Ok(None);
    };
    if marker.required_string("type")? != "ephemeral" {
        return Err(marker.invalid("type", "must be ephemeral"));
    }
    match marker.string("ttl")?.as_deref() {
        None | Some("5m") => Ok(Some(300)),
        Some("1h") => Ok(Some(3_600)),
        Some(_) => Err(marker.invalid("ttl", "must be 5m or 1h")),
    }
}

fn tools(fields: &mut Fields, conversation: &mut Conversation) -> Result<Vec<Tool>, ApiError> {
    let mut tools = Vec::new();
    for (index, tool) in fields
        .array("tools", TOOLS_MAX)?
        .unwrap_or_default()
        .into_iter()
        .enumerate()
    {
        let path = format!("tools[{index}]");
        let mut tool = Fields::of_value(tool, path.clone(), KIND)?;
        if let Some(kind) = tool.string("type")?
            && kind != "custom"
        {
            conversation.tolerate(Err(ApiError::unsupported(
                &format!("{path}.type"),
                "names a tool that Anthropic runs itself; only custom tools can be offered here",
            )))?;
            if let Some(seconds) = marker_seconds(&mut tool)? {
                conversation.mark_tools(seconds);
            }
            continue;
        }
        let name = tool.required_string("name")?;
        let is_name = |symbol: char| symbol.is_ascii_alphanumeric() || matches!(symbol, '_' | '-');
        if name.len() > TOOL_NAME_MAX || !name.chars().all(is_name) {
            return Err(tool.invalid(
                "name",
                format!("must be 1 to {TOOL_NAME_MAX} letters, digits, `_` and `-`"),
            ));
        }
        if tools.iter().any(|known: &Tool| known.name == name) {
            return Err(tool.invalid("name", "is another tool's, too"));
        }
        tools.push(Tool {
            name,
            description: tool.string("description")?,
            parameters: tool.map("input_schema")?.map(Value::Object),
            strict: tool.boolean("strict")?,
        });
        if let Some(seconds) = marker_seconds(&mut tool)? {
            conversation.mark_tools(seconds);
        }
    }
    Ok(tools)
}

fn tool_choice(fields: &mut Fields) -> Result<(Option<ToolChoice>, Option<bool>), ApiError> {
    let Some(mut choice) = fields.object("tool_choice")? else {
        return Ok((None, None));
    };
    let wanted = match choice.required_string("type")?.as_str() {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Named(choice.required_string("name")?),
        _ => return Err(choice.invalid("type", "must be auto, any, tool or none")),
    };
    let is_single = choice.boolean("disable_parallel_tool_use")?;
    Ok((Some(wanted), is_single.map(|is_single| !is_single)))
}

fn thinking(fields: &mut Fields) -> Result<Option<ReasoningLevel>, ApiError> {
    let Some(mut thinking) = fields.object("thinking")? else {
        return Ok(None);
    };
    Ok(Some(match thinking.required_string("type")?.as_str() {
        "disabled" => ReasoningLevel::Off,
        "adaptive" => ReasoningLevel::Adaptive,
        "enabled" => ReasoningLevel::Budget(
            thinking
                .count("budget_tokens", 1)?
                .ok_or_else(|| thinking.missing("budget_tokens"))?,
        ),
        _ => return Err(thinking.invalid("type", "must be enabled, disabled or adaptive")),
    }))
}

fn response_format(mut format: Fields) -> Result<ResponseFormat, ApiError> {
    if format.required_string("type")? != "json_schema" {
        return Err(format.invalid("type", "must be json_schema"));
    }
    let schema = format
        .map("schema")?
        .ok_or_else(|| format.missing("schema"))?;
    Ok(ResponseFormat::JsonSchema {
        name: "answer".to_owned(),
        schema: Value::Object(schema),
        strict: true,
    })
}

fn stop_sequences(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stop = fields
        .array("stop_sequences", STOP_MAX)?
        .unwrap_or_default();
    let texts = stop.into_iter().enumerate().map(|(index, text)| {
        let path = format!("stop_sequences[{index}]");
        match text {
            Value::String(text) if text.trim().is_empty() => {
                Err(invalid(KIND, &path, "must hold more than white space"))
            }
            Value::String(text) => Ok(text),
            other => Err(wrong_type(KIND, &path, "a string", &other)),
        }
    });
    texts.collect()
}
