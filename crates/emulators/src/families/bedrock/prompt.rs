//! Checks a Converse request and renders its prompt, tools, then system, then messages, with the cache points in it.
//! The fields are those of the service model (botocore's `bedrock-runtime`, 2023-09-30).

use serde_json::{Map, Value};

use super::extra::{self, Maker};
use super::media;
use super::models::Caching;
use crate::blocks::{Block, tokens};
use crate::families::anthropic::cache::{
    MARKERS_MAX, Mark, Step, StepKind, TTL_LONG_SECONDS, TTL_SHORT_SECONDS,
};
use crate::families::anthropic::generated::signature;

/// The message of a `ValidationException`.
pub(super) type Invalid<T> = Result<T, String>;

/// What the stub tokenizer counts for a picture or a file.
const MEDIA_TOKENS: u64 = 1_500;

const REQUEST_FIELDS: &[&str] = &[
    "messages",
    "system",
    "inferenceConfig",
    "toolConfig",
    "guardrailConfig",
    "additionalModelRequestFields",
    "promptVariables",
    "additionalModelResponseFieldPaths",
    "requestMetadata",
    "performanceConfig",
    "serviceTier",
    "outputConfig",
];
const BLOCKS: &[&str] = &[
    "text",
    "image",
    "document",
    "video",
    "audio",
    "toolUse",
    "toolResult",
    "guardContent",
    "cachePoint",
    "reasoningContent",
    "citationsContent",
    "searchResult",
];
const RESULT_BLOCKS: &[&str] = &["json", "text", "image", "document", "video", "searchResult"];

/// A rendered prompt.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    pub(super) steps: Vec<Step>,
    pub(super) marks: Vec<Mark>,
    /// Whether there is nothing but text (and tools) in it.
    pub(super) is_text: bool,
}

struct Renderer {
    caching: Caching,
    steps: Vec<Step>,
    marks: Vec<(Mark, String)>,
}

/// Checks and renders.
pub(super) fn render(body: &Value, caching: Caching, maker: Maker) -> Invalid<Prompt> {
    let body = body.as_object().ok_or(
        "Malformed input request: expected an object, please reformat your input and try again.",
    )?;
    no_extra(body, REQUEST_FIELDS)?;
    inference(body.get("inferenceConfig"))?;
    let mut renderer = Renderer {
        caching,
        steps: Vec::new(),
        marks: Vec::new(),
    };
    let tools = renderer.tools(body.get("toolConfig"))?;
    for (index, block) in list(body.get("system"), "system")?.iter().enumerate() {
        renderer.system(block, &format!("system.{index}"))?;
    }
    let messages = list(body.get("messages"), "messages")?;
    conversation(messages)?;
    pairing(messages, tools)?;
    extra::check(body, maker)?;
    renderer.steps.push(Step::hidden(settings(body, messages)));
    let mut is_text = true;
    for (index, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap();
        for (position, block) in message["content"].as_array().unwrap().iter().enumerate() {
            renderer.content(role, block, &format!("messages.{index}.content.{position}"))?;
            is_text &= ["text", "toolUse", "toolResult", "cachePoint"]
                .iter()
                .any(|kind| block.get(kind).is_some());
        }
    }
    media::documents(messages)?;
    check_marks(&renderer.marks)?;
    Ok(Prompt {
        steps: renderer.steps,
        marks: renderer.marks.into_iter().map(|(mark, _)| mark).collect(),
        is_text,
    })
}

impl Renderer {
    /// Whether there are tools.
    fn tools(&mut self, config: Option<&Value>) -> Invalid<bool> {
        let Some(config) = config else {
            return Ok(false);
        };
        let fields = config
            .as_object()
            .ok_or("The value at toolConfig must be an object.")?;
        no_extra(fields, &["tools", "toolChoice"])?;
        let tools = list(fields.get("tools"), "toolConfig.tools")?;
        if tools.is_empty() {
            return Err("The toolConfig.tools field must contain at least one tool.".into());
        }
        let mut names = Vec::new();
        for (index, tool) in tools.iter().enumerate() {
            let path = format!("toolConfig.tools.{index}");
            match union(tool, &["toolSpec", "systemTool", "cachePoint"], &path)? {
                ("cachePoint", point) => self.cache_point(point, &path)?,
                ("toolSpec", spec) => {
                    names.push(tool_spec(spec, &path)?);
                    self.push(
                        format!("tool:{spec}"),
                        Some(spec.to_string()),
                        StepKind::Single,
                    );
                }
                (_, tool) => self.push(
                    format!("tool:{tool}"),
                    Some(tool.to_string()),
                    StepKind::Single,
                ),
            }
        }
        if let Some(choice) = fields.get("toolChoice") {
            let (kind, choice) = union(choice, &["auto", "any", "tool"], "toolConfig.toolChoice")?;
            let name = choice["name"].as_str().unwrap_or_default();
            if kind == "tool" && !names.contains(&name) {
                return Err(
                    "The tool named in toolConfig.toolChoice is not among toolConfig.tools.".into(),
                );
            }
        }
        Ok(true)
    }

    fn system(&mut self, block: &Value, path: &str) -> Invalid<()> {
        match union(block, &["text", "guardContent", "cachePoint"], path)? {
            ("cachePoint", point) => self.cache_point(point, path),
            ("text", text) => {
                let text = not_blank(text, "SystemContentBlock", path)?;
                self.push(
                    format!("system:{block}"),
                    Some(text.to_owned()),
                    StepKind::Single,
                );
                Ok(())
            }
            _ => {
                self.push(
                    format!("system:{block}"),
                    Some(block.to_string()),
                    StepKind::Single,
                );
                Ok(())
            }
        }
    }

    fn content(&mut self, role: &str, block: &Value, path: &str) -> Invalid<()> {
        let content = format!("{role}:{block}");
        match union(block, BLOCKS, path)? {
            ("cachePoint", point) => self.cache_point(point, path)?,
            ("text", text) => {
                let text = not_blank(text, "ContentBlock", path)?;
                self.push(content, Some(text.to_owned()), StepKind::Single);
            }
            ("toolUse", call) => self.push(
                content,
                Some(format!("{}{}", call["name"], call["input"])),
                StepKind::ToolTraffic,
            ),
            ("toolResult", result) => {
                let (text, media) = tool_result(result, path)?;
                let block = Block {
                    content,
                    tokens: tokens(&text) + MEDIA_TOKENS * media,
                };
                self.steps.push(Step {
                    block,
                    kind: StepKind::ToolTraffic,
                });
            }
            ("reasoningContent", reasoning) => {
                if role != "assistant" {
                    return Err(format!(
                        "The model returned the following errors: {path}: `thinking` blocks are not permitted within \
                         `{role}` turns"
                    ));
                }
                let text = &reasoning["reasoningText"];
                if let Some(thinking) = text["text"].as_str()
                    && text["signature"] != signature(thinking)
                {
                    return Err(format!(
                        "The model returned the following errors: {path}: Invalid `signature` in `thinking` block"
                    ));
                }
                self.push(
                    content,
                    Some(text["text"].as_str().unwrap_or_default().to_owned()),
                    StepKind::Single,
                );
            }
            (kind, inner) => {
                media::check(kind, inner, path)?;
                self.push(content, None, StepKind::Single);
            }
        }
        Ok(())
    }

    fn push(&mut self, content: String, text: Option<String>, kind: StepKind) {
        let block = match text {
            Some(text) => Block::sized(content, &text),
            None => Block {
                content,
                tokens: MEDIA_TOKENS,
            },
        };
        self.steps.push(Step { block, kind });
    }

    /// A block of its own, after what is to be cached.
    fn cache_point(&mut self, point: &Value, path: &str) -> Invalid<()> {
        let path = format!("{path}.cachePoint");
        let fields = point
            .as_object()
            .ok_or(format!("The value at {path} must be an object."))?;
        no_extra(fields, &["type", "ttl"])?;
        if fields.get("type").is_none_or(|kind| kind != "default") {
            return Err(format!(
                "Value at '{path}.type' failed to satisfy constraint: Member must satisfy enum value set: [default]"
            ));
        }
        let ttl_seconds = match fields
            .get("ttl")
            .map(|ttl| ttl.as_str().unwrap_or_default())
        {
            None | Some("5m") => TTL_SHORT_SECONDS,
            Some("1h") => TTL_LONG_SECONDS,
            Some(_) => {
                return Err(format!(
                    "Value at '{path}.ttl' failed to satisfy constraint: Member must satisfy enum value set: [5m, 1h]"
                ));
            }
        };
        match self.caching {
            Caching::None => {
                return Err("You invoked an unsupported model or your request did not allow prompt caching. See the \
                            documentation for more information."
                    .into());
            }
            Caching::Nova
            | Caching::Claude {
                has_long_ttl: false,
                ..
            } if ttl_seconds == TTL_LONG_SECONDS => {
                return Err(
                    "Extended TTL prompt caching is only supported for Anthropic models".into(),
                );
            }
            _ => {}
        }
        // The hidden step between the system and the messages holds no block to be cached.
        let Some(step) = self
            .steps
            .iter()
            .rposition(|step| step.kind != StepKind::Hidden)
        else {
            return Err(format!(
                "{path}: there is no content before the cache point."
            ));
        };
        self.marks.push((Mark { step, ttl_seconds }, path));
        Ok(())
    }
}

fn check_marks(marks: &[(Mark, String)]) -> Invalid<()> {
    let returned = "The model returned the following errors:";
    if marks.len() > MARKERS_MAX {
        return Err(format!(
            "{returned} A maximum of {MARKERS_MAX} blocks with cache_control may be provided. Found {}.",
            marks.len()
        ));
    }
    let mut is_short = false;
    for (mark, path) in marks {
        if mark.ttl_seconds == TTL_LONG_SECONDS && is_short {
            return Err(format!(
                "{returned} {path}.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. \
                 Note that blocks are processed in the following order: tools, system, messages."
            ));
        }
        is_short |= mark.ttl_seconds == TTL_SHORT_SECONDS;
    }
    Ok(())
}

pub(super) fn no_extra(object: &Map<String, Value>, allowed: &[&str]) -> Invalid<()> {
    match object.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(extraneous(key)),
        None => Ok(()),
    }
}

fn extraneous(key: &str) -> String {
    format!(
        "Malformed input request: #: extraneous key [{key}] is not permitted, please reformat your input and try again."
    )
}

fn list<'a>(value: Option<&'a Value>, path: &str) -> Invalid<&'a [Value]> {
    match value {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(format!("The value at {path} must be a list.")),
    }
}

/// The one member of a union.
pub(super) fn union<'a>(
    value: &'a Value,
    allowed: &[&str],
    path: &str,
) -> Invalid<(&'a str, &'a Value)> {
    let fields = value
        .as_object()
        .ok_or(format!("The value at {path} must be an object."))?;
    no_extra(fields, allowed)?;
    let mut members = fields.iter();
    match (members.next(), members.next()) {
        (Some((name, member)), None) => Ok((name, member)),
        _ => Err(format!(
            "The value at {path} must have exactly one member set."
        )),
    }
}

fn not_blank<'a>(text: &'a Value, shape: &str, path: &str) -> Invalid<&'a str> {
    let text = text
        .as_str()
        .ok_or(format!("The value at {path}.text must be a string."))?;
    if text.trim().is_empty() {
        return Err(format!(
            "The text field in the {shape} object at {path} is blank. Add text to the text field, and try again."
        ));
    }
    Ok(text)
}

fn inference(config: Option<&Value>) -> Invalid<()> {
    let Some(config) = config else { return Ok(()) };
    let fields = config
        .as_object()
        .ok_or("The value at inferenceConfig must be an object.")?;
    no_extra(
        fields,
        &["maxTokens", "temperature", "topP", "stopSequences"],
    )?;
    if fields
        .get("maxTokens")
        .is_some_and(|tokens| tokens.as_u64().is_none_or(|tokens| tokens == 0))
    {
        return Err("Value at 'inferenceConfig.maxTokens' failed to satisfy constraint: Member must have value greater than or equal to 1".into());
    }
    for name in ["temperature", "topP"] {
        if fields.get(name).is_some_and(|value| {
            value
                .as_f64()
                .is_none_or(|value| !(0.0..=1.0).contains(&value))
        }) {
            return Err(format!(
                "Value at 'inferenceConfig.{name}' failed to satisfy constraint: Member must have value less than or equal to 1"
            ));
        }
    }
    list(fields.get("stopSequences"), "inferenceConfig.stopSequences").map(|_| ())
}

fn is_word(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn tool_spec<'a>(spec: &'a Value, path: &str) -> Invalid<&'a str> {
    let fields = spec
        .as_object()
        .ok_or(format!("The value at {path}.toolSpec must be an object."))?;
    no_extra(fields, &["name", "description", "inputSchema", "strict"])?;
    let name = fields
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !is_word(name, 64) {
        return Err(format!(
            "Value at '{path}.toolSpec.name' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_-]+"
        ));
    }
    if fields
        .get("description")
        .is_some_and(|text| text.as_str().is_none_or(str::is_empty))
    {
        return Err(format!(
            "Value at '{path}.toolSpec.description' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ));
    }
    let schema = fields
        .get("inputSchema")
        .and_then(|schema| schema.get("json"));
    if schema.is_none_or(|schema| schema["type"] != "object") {
        return Err(format!(
            "The value at {path}.toolSpec.inputSchema.json.type must be one of the following: object."
        ));
    }
    Ok(name)
}

/// The text of a result, and how many pictures and files it has.
fn tool_result(result: &Value, path: &str) -> Invalid<(String, u64)> {
    let path = format!("{path}.toolResult");
    let fields = result
        .as_object()
        .ok_or(format!("The value at {path} must be an object."))?;
    no_extra(fields, &["toolUseId", "content", "status", "type"])?;
    if fields
        .get("status")
        .is_some_and(|status| status != "success" && status != "error")
    {
        return Err(format!(
            "Value at '{path}.status' failed to satisfy constraint: Member must satisfy enum value set: [success, error]"
        ));
    }
    let mut text = String::new();
    let mut files = 0;
    for (index, block) in list(fields.get("content"), &format!("{path}.content"))?
        .iter()
        .enumerate()
    {
        // A cache point is refused here like any other stranger.
        let path = format!("{path}.content.{index}");
        match union(block, RESULT_BLOCKS, &path)? {
            ("text", block) => text.push_str(block.as_str().unwrap_or_default()),
            (kind, block) if media::is_media(kind) => {
                media::check(kind, block, &path)?;
                files += 1;
            }
            (_, block) => text.push_str(&block.to_string()),
        }
    }
    Ok((text, files))
}

fn conversation(messages: &[Value]) -> Invalid<()> {
    if messages.is_empty() {
        return Err("The messages field must contain at least one message.".into());
    }
    let mut previous = "";
    for (index, message) in messages.iter().enumerate() {
        let fields = message
            .as_object()
            .ok_or(format!("The value at messages.{index} must be an object."))?;
        no_extra(fields, &["role", "content"])?;
        let role = fields
            .get("role")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if role != "user" && role != "assistant" {
            return Err(format!(
                "Value '{role}' at 'messages.{}.member.role' failed to satisfy constraint: Member must satisfy enum value set: [user, assistant]",
                index + 1
            ));
        }
        if index == 0 && role != "user" {
            return Err("A conversation must start with a user message. Try again with a conversation that starts with a user message.".into());
        }
        if role == previous {
            return Err("A conversation must alternate between user and assistant roles. Make sure the conversation alternates between user and assistant roles and try again.".into());
        }
        previous = role;
        let content = fields
            .get("content")
            .and_then(Value::as_array)
            .ok_or(format!(
                "The value at messages.{index}.content must be a list."
            ))?;
        let is_point = |block: &Value| {
            block
                .as_object()
                .is_some_and(|block| block.keys().eq(["cachePoint"]))
        };
        if content.iter().all(is_point) {
            return Err(format!(
                "The content field in the Message object at messages.{index} is empty. Add a ContentBlock object to the content field and try again."
            ));
        }
    }
    Ok(())
}

fn pairing(messages: &[Value], has_tools: bool) -> Invalid<()> {
    let ids = |message: &Value, kind: &str| -> Vec<String> {
        message["content"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|block| block.get(kind))
            .map(|block| block["toolUseId"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let mut called = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let (calls, mut results) = (ids(message, "toolUse"), ids(message, "toolResult"));
        let is_used = !calls.is_empty() || !results.is_empty();
        if is_used && !has_tools {
            return Err("The toolConfig field must be defined when using toolUse and toolResult content blocks.".into());
        }
        if message["role"] == "user" && !calls.is_empty()
            || message["role"] == "assistant" && !results.is_empty()
        {
            return Err(format!(
                "The role of messages.{index} does not match its toolUse or toolResult blocks."
            ));
        }
        if results.len() > called.len() {
            return Err(format!(
                "The number of toolResult blocks at messages.{index}.content exceeds the number of toolUse blocks of previous turn."
            ));
        }
        let missing: Vec<String> = called
            .iter()
            .filter(|id| !results.contains(id))
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(format!(
                "Expected toolResult blocks at messages.{index}.content for the following Ids: {}",
                missing.join(", ")
            ));
        }
        results.retain(|id| !called.contains(id));
        if let Some(id) = results.first() {
            return Err(format!(
                "The toolResult blocks at messages.{index}.content contain an unknown Id: {id}"
            ));
        }
        if let Some(id) = calls.iter().find(|id| !is_word(id, 64)) {
            return Err(format!(
                "Value '{id}' at 'toolUseId' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_-]+"
            ));
        }
        called = calls;
    }
    if called.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "Expected toolResult blocks at messages.{}.content for the following Ids: {}",
            messages.len(),
            called.join(", ")
        ))
    }
}

/// What drops the messages when it changes (facts 2.3, the table).
fn settings(body: &Map<String, Value>, messages: &[Value]) -> String {
    let choice = body
        .get("toolConfig")
        .and_then(|config| config.get("toolChoice"));
    let choice = choice
        .filter(|choice| choice.get("auto").is_none())
        .unwrap_or(&Value::Null);
    let fields = body
        .get("additionalModelRequestFields")
        .unwrap_or(&Value::Null);
    let images = messages
        .iter()
        .flat_map(|message| message["content"].as_array().unwrap())
        .filter(|block| block.get("image").is_some())
        .count();
    format!("choice:{choice} fields:{fields} images:{images}")
}
