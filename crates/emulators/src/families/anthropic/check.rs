//! What the API refuses: the shape of a request, field by field. Messages are worded as the service words them where
//! that is known. Where facts 2.3 says nothing, the fields are those of the vendor's SDK (anthropic-python 2.12.0).

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::generated::signature;
use super::source;
use super::thinking::{self, Asked, Mode};

/// The reason of a 400 `invalid_request_error`.
pub(crate) type Refused<T> = Result<T, String>;

const MESSAGES_FIELDS: &[&str] = &[
    "cache_control",
    "container",
    "diagnostics",
    "inference_geo",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "output_config",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
    "user_profile_id",
    "workspace_id",
];
const COUNT_FIELDS: &[&str] = &[
    "cache_control",
    "messages",
    "model",
    "output_config",
    "speed",
    "system",
    "thinking",
    "tool_choice",
    "tools",
];
const TOOL_FIELDS: &[&str] = &[
    "allowed_callers",
    "cache_control",
    "defer_loading",
    "description",
    "eager_input_streaming",
    "input_examples",
    "input_schema",
    "name",
    "strict",
    "type",
];

/// The kinds of content block: name, fields, whether users send it, whether it can be within a tool's result.
const BLOCKS: &[(&str, &[&str], Author, bool)] = &[
    (
        "text",
        &["type", "text", "cache_control", "citations"],
        Author::Both,
        true,
    ),
    (
        "image",
        &["type", "source", "cache_control", "transformations"],
        Author::User,
        true,
    ),
    (
        "document",
        &[
            "type",
            "source",
            "cache_control",
            "citations",
            "context",
            "title",
        ],
        Author::User,
        true,
    ),
    (
        "search_result",
        &[
            "type",
            "source",
            "title",
            "content",
            "cache_control",
            "citations",
        ],
        Author::User,
        true,
    ),
    (
        "tool_result",
        &[
            "type",
            "tool_use_id",
            "content",
            "is_error",
            "cache_control",
            "toolset_name",
        ],
        Author::User,
        false,
    ),
    (
        "tool_use",
        &[
            "type",
            "id",
            "name",
            "input",
            "cache_control",
            "caller",
            "toolset_name",
        ],
        Author::Assistant,
        false,
    ),
    (
        "thinking",
        &["type", "thinking", "signature"],
        Author::Assistant,
        false,
    ),
    (
        "redacted_thinking",
        &["type", "data"],
        Author::Assistant,
        false,
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Author {
    User,
    Assistant,
    Both,
}

/// Checks a request for an answer, or for a count of tokens.
pub(super) fn request(
    body: &Value,
    is_count: bool,
    refuses_unknown: bool,
) -> Refused<&Map<String, Value>> {
    let body = body
        .as_object()
        .ok_or("Input should be a valid dictionary")?;
    if refuses_unknown {
        no_extra(
            "",
            body,
            if is_count {
                COUNT_FIELDS
            } else {
                MESSAGES_FIELDS
            },
        )?;
    }
    for field in ["model", "messages"]
        .into_iter()
        .chain((!is_count).then_some("max_tokens"))
    {
        if !body.contains_key(field) {
            return Err(format!("{field}: Field required"));
        }
    }
    if body["model"].as_str().is_none_or(str::is_empty) {
        return Err("model: Input should be a valid string".into());
    }
    if !is_count {
        sampling(body)?;
    }
    let tools = tools(body)?;
    tool_choice(body, &tools)?;
    system(body)?;
    messages(body)?;
    output_config(body)?;
    thinking(body, refuses_unknown)?;
    if !is_count && body["max_tokens"] == 0 {
        prewarm(body)?;
    }
    Ok(body)
}

/// Fields of `object` that are there and not null.
pub(super) fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

pub(super) fn no_extra(path: &str, object: &Map<String, Value>, allowed: &[&str]) -> Refused<()> {
    match object.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) if path.is_empty() => Err(format!("{key}: Extra inputs are not permitted")),
        Some(key) => Err(format!("{path}.{key}: Extra inputs are not permitted")),
        None => Ok(()),
    }
}

fn sampling(body: &Map<String, Value>) -> Refused<()> {
    match body["max_tokens"].as_i64() {
        None => return Err("max_tokens: Input should be a valid integer".into()),
        Some(..0) => return Err("max_tokens: must be greater than or equal to 0".into()),
        Some(_) => {}
    }
    for name in ["temperature", "top_p"] {
        if let Some(value) = field(body, name)
            && !value
                .as_f64()
                .is_some_and(|value| (0.0..=1.0).contains(&value))
        {
            return Err(format!("{name}: range: 0..1"));
        }
    }
    if field(body, "top_k").is_some_and(|value| value.as_u64().is_none()) {
        return Err("top_k: Input should be greater than or equal to 0".into());
    }
    if field(body, "stream").is_some_and(|value| !value.is_boolean()) {
        return Err("stream: Input should be a valid boolean".into());
    }
    if let Some(metadata) = field(body, "metadata") {
        let metadata = metadata
            .as_object()
            .ok_or("metadata: Input should be a valid dictionary")?;
        no_extra("metadata", metadata, &["user_id"])?;
    }
    if let Some(sequences) = field(body, "stop_sequences") {
        let sequences = sequences
            .as_array()
            .ok_or("stop_sequences: Input should be a valid list")?;
        if sequences.iter().any(|sequence| {
            sequence
                .as_str()
                .is_none_or(|sequence| sequence.trim().is_empty())
        }) {
            return Err("stop_sequences: each stop sequence must contain non-whitespace".into());
        }
    }
    Ok(())
}

fn output_config(body: &Map<String, Value>) -> Refused<()> {
    let Some(config) = field(body, "output_config") else {
        return Ok(());
    };
    let config = config
        .as_object()
        .ok_or("output_config: Input should be a valid dictionary")?;
    no_extra("output_config", config, &["effort", "format"])?;
    thinking::effort(config)
}

/// The names of the tools.
fn tools(body: &Map<String, Value>) -> Refused<Vec<&str>> {
    let Some(tools) = field(body, "tools") else {
        return Ok(Vec::new());
    };
    let tools = tools
        .as_array()
        .ok_or("tools: Input should be a valid list")?;
    let mut names = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        let tool = tool
            .as_object()
            .ok_or(format!("tools.{index}: Input should be a valid dictionary"))?;
        let kind = field(tool, "type")
            .and_then(Value::as_str)
            .unwrap_or("custom");
        let path = format!("tools.{index}.{kind}");
        let name = field(tool, "name")
            .and_then(Value::as_str)
            .ok_or(format!("{path}.name: Field required"))?;
        if kind == "custom" {
            no_extra(&path, tool, TOOL_FIELDS)?;
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if name.is_empty() || name.len() > 128 || !name.bytes().all(is_word) {
                return Err(format!(
                    "{path}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
                ));
            }
            let schema = field(tool, "input_schema")
                .ok_or(format!("{path}.input_schema: Field required"))?;
            match schema.get("type") {
                None => return Err(format!("{path}.input_schema.type: Field required")),
                Some(kind) if kind != "object" => {
                    return Err(format!(
                        "{path}.input_schema.type: Input should be 'object'"
                    ));
                }
                Some(_) => {}
            }
        }
        if names.contains(&name) {
            return Err("tools: Tool names must be unique.".into());
        }
        names.push(name);
    }
    Ok(names)
}

fn tool_choice(body: &Map<String, Value>, tools: &[&str]) -> Refused<()> {
    let Some(choice) = field(body, "tool_choice") else {
        return Ok(());
    };
    let choice = choice
        .as_object()
        .ok_or("tool_choice: Input should be a valid dictionary")?;
    let kind = choice
        .get("type")
        .and_then(Value::as_str)
        .ok_or("tool_choice.type: Field required")?;
    let allowed: &[&str] = match kind {
        "auto" | "any" => &["type", "disable_parallel_tool_use"],
        "tool" => &["type", "name", "disable_parallel_tool_use"],
        "none" => &["type"],
        _ => {
            return Err(format!(
                "tool_choice: Input tag '{kind}' found using 'type' does not match any of the expected tags: 'auto', \
                 'any', 'tool', 'none'"
            ));
        }
    };
    no_extra(&format!("tool_choice.{kind}"), choice, allowed)?;
    if tools.is_empty() {
        return Err("tool_choice may only be specified while providing `tools`.".into());
    }
    if kind == "tool" {
        let name = choice
            .get("name")
            .and_then(Value::as_str)
            .ok_or("tool_choice.tool.name: Field required")?;
        if !tools.contains(&name) {
            return Err(format!("Tool '{name}' not found in provided tools"));
        }
    }
    Ok(())
}

fn system(body: &Map<String, Value>) -> Refused<()> {
    match field(body, "system") {
        None | Some(Value::String(_)) => Ok(()),
        Some(Value::Array(blocks)) => {
            for (index, block) in blocks.iter().enumerate() {
                let path = format!("system.{index}");
                let block = block
                    .as_object()
                    .ok_or(format!("{path}: Input should be a valid dictionary"))?;
                if block.get("type").is_none_or(|kind| kind != "text") {
                    return Err(format!("{path}.type: Input should be 'text'"));
                }
                no_extra(&path, block, BLOCKS[0].1)?;
                text(&path, "system", block)?;
            }
            Ok(())
        }
        Some(_) => Err("system: Input should be a valid string or list".into()),
    }
}

fn text(path: &str, area: &str, block: &Map<String, Value>) -> Refused<()> {
    let text = block
        .get("text")
        .and_then(Value::as_str)
        .ok_or(format!("{path}.text: Field required"))?;
    if text.is_empty() && field(block, "cache_control").is_some() {
        return Err(format!(
            "{path}.cache_control: cache_control cannot be set for empty text blocks"
        ));
    }
    if text.is_empty() {
        return Err(format!("{area}: text content blocks must be non-empty"));
    }
    if text.trim().is_empty() {
        return Err(format!(
            "{area}: text content blocks must contain non-whitespace text"
        ));
    }
    Ok(())
}

fn messages(body: &Map<String, Value>) -> Refused<()> {
    let messages = body["messages"]
        .as_array()
        .ok_or("messages: Input should be a valid list")?;
    if messages.is_empty() {
        return Err("messages: at least one message is required".into());
    }
    let last = messages.len() - 1;
    for (index, message) in messages.iter().enumerate() {
        let path = format!("messages.{index}");
        let message = message
            .as_object()
            .ok_or(format!("{path}: Input should be a valid dictionary"))?;
        no_extra(&path, message, &["role", "content"])?;
        let author = match message.get("role").and_then(Value::as_str) {
            Some("user") => Author::User,
            Some("assistant") => Author::Assistant,
            Some("system") => {
                return Err("messages: Unexpected role \"system\". The Messages API accepts a top-level `system` \
                            parameter, not \"system\" as an input message role."
                    .into());
            }
            Some(role) => {
                return Err(format!(
                    "messages: Unexpected role \"{role}\". Allowed roles are \"user\" or \"assistant\""
                ));
            }
            None => return Err(format!("{path}.role: Field required")),
        };
        if index == 0 && author != Author::User {
            return Err("messages: first message must use the \"user\" role".into());
        }
        let may_be_empty = index == last && author == Author::Assistant;
        match message.get("content") {
            Some(Value::String(text)) => {
                if text.is_empty() && !may_be_empty {
                    return Err(empty_message(index));
                }
                if !text.is_empty() && text.trim().is_empty() {
                    return Err(
                        "messages: text content blocks must contain non-whitespace text".into(),
                    );
                }
            }
            Some(Value::Array(blocks)) => {
                if blocks.is_empty() && !may_be_empty {
                    return Err(empty_message(index));
                }
                for (index, block) in blocks.iter().enumerate() {
                    content_block(&format!("{path}.content.{index}"), block, author, false)?;
                }
            }
            Some(_) => {
                return Err(format!(
                    "{path}.content: Input should be a valid string or list"
                ));
            }
            None => return Err(format!("{path}.content: Field required")),
        }
    }
    pairing(messages, field(body, "tools").is_some())
}

fn empty_message(index: usize) -> String {
    format!(
        "messages.{index}: all messages must have non-empty content except for the optional final assistant message"
    )
}

fn content_block(path: &str, block: &Value, author: Author, is_in_result: bool) -> Refused<()> {
    let block = block
        .as_object()
        .ok_or(format!("{path}: Input should be a valid dictionary"))?;
    let kind = block
        .get("type")
        .and_then(Value::as_str)
        .ok_or(format!("{path}.type: Field required"))?;
    let Some((_, fields, of, _)) = BLOCKS
        .iter()
        .find(|(name, _, _, is_inner)| *name == kind && (*is_inner || !is_in_result))
    else {
        return Err(format!(
            "{path}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
        ));
    };
    if *of != Author::Both && *of != author {
        let role = if author == Author::User {
            "user"
        } else {
            "assistant"
        };
        return Err(format!(
            "{path}: `{kind}` blocks are not permitted within `{role}` turns"
        ));
    }
    let path = format!("{path}.{kind}");
    no_extra(&path, block, fields)?;
    if is_in_result && block.contains_key("cache_control") {
        // A marker belongs on the result itself (facts 2.3: not on sub-blocks).
        return Err(format!(
            "{path}.cache_control: Extra inputs are not permitted"
        ));
    }
    let string = |name: &str| {
        block
            .get(name)
            .and_then(Value::as_str)
            .ok_or(format!("{path}.{name}: Field required"))
    };
    match kind {
        "text" => text(&path, "messages", block),
        "image" => source::picture(&path, block),
        "document" => source::document(&path, block),
        "tool_use" => {
            let id = string("id")?;
            string("name")?;
            if id.is_empty()
                || !id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
            {
                return Err(format!(
                    "{path}.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
                ));
            }
            if !block.get("input").is_some_and(Value::is_object) {
                return Err(format!("{path}.input: Input should be a valid dictionary"));
            }
            Ok(())
        }
        "tool_result" => {
            string("tool_use_id")?;
            match field(block, "content") {
                None | Some(Value::String(_)) => Ok(()),
                Some(Value::Array(blocks)) => {
                    blocks.iter().enumerate().try_for_each(|(index, block)| {
                        content_block(
                            &format!("{path}.content.{index}"),
                            block,
                            Author::User,
                            true,
                        )
                    })
                }
                Some(_) => Err(format!(
                    "{path}.content: Input should be a valid string or list"
                )),
            }
        }
        "thinking" => {
            if string("signature")? != signature(string("thinking")?) {
                return Err(format!(
                    "{}: Invalid `signature` in `thinking` block",
                    path.trim_end_matches(".thinking")
                ));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Every call is answered at the beginning of the next user turn, and nothing else is. Messages of one role in a row
/// are one turn.
fn pairing(messages: &[Value], has_tools: bool) -> Refused<()> {
    let mut waiting: Vec<&str> = Vec::new();
    let mut called_at = 0;
    let mut known = HashSet::new();
    let mut role = "";
    let mut is_after_other_content = false;
    for (index, message) in messages.iter().enumerate() {
        let now = message["role"].as_str().unwrap_or_default();
        if now != role {
            if now == "assistant" && !waiting.is_empty() {
                return Err(unanswered(called_at, &waiting));
            }
            is_after_other_content = false;
            role = now;
        }
        let Some(blocks) = message["content"].as_array() else {
            is_after_other_content = true;
            continue;
        };
        for (position, block) in blocks.iter().enumerate() {
            match block["type"].as_str() {
                Some("tool_use") => {
                    let id = block["id"].as_str().unwrap_or_default();
                    if !known.insert(id) {
                        return Err("messages: `tool_use` ids must be unique".into());
                    }
                    waiting.push(id);
                    called_at = index;
                }
                Some("tool_result") => {
                    let id = block["tool_use_id"].as_str().unwrap_or_default();
                    match waiting.iter().position(|waiting| *waiting == id) {
                        Some(_) if is_after_other_content => {
                            return Err(unanswered(called_at, &waiting));
                        }
                        Some(found) => {
                            waiting.remove(found);
                        }
                        None => {
                            return Err(format!(
                                "messages.{index}.content.{position}: unexpected `tool_use_id` found in `tool_result` \
                                 blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` block in \
                                 the previous message."
                            ));
                        }
                    }
                }
                _ => is_after_other_content = true,
            }
        }
    }
    if !waiting.is_empty() {
        return Err(unanswered(called_at, &waiting));
    }
    if !known.is_empty() && !has_tools {
        return Err(
            "Requests which include `tool_use` or `tool_result` blocks must define tools".into(),
        );
    }
    Ok(())
}

fn unanswered(index: usize, ids: &[&str]) -> String {
    format!(
        "messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` \
         block must have a corresponding `tool_result` block in the next message.",
        ids.join(", ")
    )
}

/// Whether the request asks for thinking.
pub(super) fn thinks(body: &Map<String, Value>) -> bool {
    field(body, "thinking").is_some_and(|thinking| thinking["type"] != "disabled")
}

fn forces_tool(body: &Map<String, Value>) -> bool {
    field(body, "tool_choice")
        .is_some_and(|choice| choice["type"] == "any" || choice["type"] == "tool")
}

fn thinking(body: &Map<String, Value>, refuses_unknown: bool) -> Refused<()> {
    let mode = thinking::check(&Asked {
        thinking: field(body, "thinking"),
        max_tokens: body.get("max_tokens").and_then(Value::as_u64),
        temperature: field(body, "temperature"),
        top_p: field(body, "top_p"),
        top_k: field(body, "top_k"),
        forces_tool: forces_tool(body),
        refuses_unknown,
    })?;
    if mode == Mode::Budget {
        thinking_first(&body["messages"])
    } else {
        Ok(())
    }
}

/// While a tool's result is being answered, the turn that called it must still begin with its thinking.
fn thinking_first(messages: &Value) -> Refused<()> {
    let messages = messages.as_array().unwrap();
    let is_result = |message: &Value| message["content"][0]["type"] == "tool_result";
    if !messages.last().is_some_and(is_result) {
        return Ok(());
    }
    let Some(index) = messages
        .iter()
        .rposition(|message| message["role"] == "assistant")
    else {
        return Ok(());
    };
    let kind = messages[index]["content"][0]["type"]
        .as_str()
        .unwrap_or("text");
    if kind == "thinking" || kind == "redacted_thinking" {
        return Ok(());
    }
    Err(thinking::not_first(index, kind))
}

/// `max_tokens: 0` fills the cache and answers nothing; these make no sense with it (facts 2.3).
fn prewarm(body: &Map<String, Value>) -> Refused<()> {
    let conflict = if body.get("stream") == Some(&Value::Bool(true)) {
        "`stream`"
    } else if thinks(body) {
        "`thinking`"
    } else if forces_tool(body) {
        "a `tool_choice` that forces tool use"
    } else if field(body, "output_config")
        .is_some_and(|config| config.get("format").is_some_and(|f| !f.is_null()))
    {
        "structured output"
    } else {
        return Ok(());
    };
    Err(format!(
        "max_tokens: 0 is not supported together with {conflict}"
    ))
}
