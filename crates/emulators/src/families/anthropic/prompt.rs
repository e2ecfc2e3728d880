//! The prompt as the model reads it, tools, then system, then messages, whatever the order in the JSON, and the markers
//! in it.

use serde_json::{Map, Value};

use super::cache::{MARKERS_MAX, Mark, Step, StepKind, TTL_LONG_SECONDS, TTL_SHORT_SECONDS};
use super::check::{Refused, field};
use crate::blocks::{Block, tokens};

/// What the stub tokenizer counts for a picture, a file it can't read, or one behind a link.
const MEDIA_TOKENS: u64 = 1_500;

/// How a service treats markers.
#[derive(Debug, Clone, Copy)]
pub(super) struct MarkerRules {
    /// Whether markers on tools count.
    pub(super) on_tools: bool,
    /// Whether markers on system and message blocks count.
    pub(super) on_blocks: bool,
    /// Whether `ttl: "1h"` is more than an unknown word for five minutes.
    pub(super) has_long_ttl: bool,
    /// Whether a marker too many is an error; where it isn't, the last ones count.
    pub(super) markers_surplus_is_error: bool,
    /// Whether thinking of finished turns stays in the prompt.
    pub(super) keeps_thinking: bool,
}

/// A rendered prompt.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    pub(super) steps: Vec<Step>,
    /// In the order of the prompt, the automatic one included.
    pub(super) marks: Vec<Mark>,
    /// The lifetime of the automatic marker, whether or not it came to stand on a block of its own.
    pub(super) automatic_ttl_seconds: Option<u64>,
    /// Steps before the system's.
    pub(super) tools_end: usize,
    /// Steps before the messages'.
    pub(super) system_end: usize,
}

impl Prompt {
    pub(super) fn tokens(&self) -> u64 {
        self.steps.iter().map(|step| step.block.tokens).sum()
    }
}

struct Renderer {
    rules: MarkerRules,
    steps: Vec<Step>,
    /// With the place it stands at, for messages.
    marks: Vec<(Mark, String)>,
    /// The last block that a marker can stand on.
    last_cacheable: Option<usize>,
}

/// Renders a checked request.
pub(super) fn render(body: &Map<String, Value>, rules: MarkerRules) -> Refused<Prompt> {
    let mut renderer = Renderer {
        rules,
        steps: Vec::new(),
        marks: Vec::new(),
        last_cacheable: None,
    };
    let tools: Vec<(usize, &Value)> = field(body, "tools")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
        .collect();
    // A web search tool isn't among the tools of the prompt: switching it changes the system part (facts 2.3).
    let (searching, plain): (Vec<_>, Vec<_>) =
        tools.into_iter().partition(|(_, tool)| is_web_search(tool));
    for (index, tool) in plain {
        renderer.tool(index, tool)?;
    }
    let tools_end = renderer.steps.len();
    renderer.steps.push(Step::hidden(system_settings(body)));
    for (index, tool) in searching {
        renderer.tool(index, tool)?;
    }
    for (index, block) in blocks(body.get("system").unwrap_or(&Value::Null))
        .iter()
        .enumerate()
    {
        renderer.block("system", block, &format!("system.{index}"))?;
    }
    let system_end = renderer.steps.len();
    renderer.steps.push(Step::hidden(message_settings(body)));
    let messages = body["messages"].as_array().unwrap();
    let finished = if rules.keeps_thinking {
        0
    } else {
        finished_messages(messages)
    };
    for (index, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap();
        for (position, block) in blocks(&message["content"]).iter().enumerate() {
            if index < finished && is_thinking(block) {
                continue;
            }
            renderer.block(role, block, &format!("messages.{index}.content.{position}"))?;
        }
    }
    let automatic_ttl_seconds = renderer.automatic(body)?;
    let surplus = renderer.marks.len().saturating_sub(MARKERS_MAX);
    if !rules.markers_surplus_is_error {
        renderer.marks.drain(..surplus);
    }
    check_marks(&renderer.marks)?;
    Ok(Prompt {
        steps: renderer.steps,
        marks: renderer.marks.into_iter().map(|(mark, _)| mark).collect(),
        automatic_ttl_seconds,
        tools_end,
        system_end,
    })
}

impl Renderer {
    fn tool(&mut self, index: usize, tool: &Value) -> Refused<()> {
        let content = without_marker(tool);
        self.steps.push(Step {
            block: Block::new(format!("tool:{content}")),
            kind: StepKind::Single,
        });
        self.last_cacheable = Some(self.steps.len() - 1);
        let ttl = self.ttl(tool, &format!("tools.{index}"))?;
        self.mark(
            ttl.filter(|_| self.rules.on_tools),
            format!("tools.{index}"),
        );
        Ok(())
    }

    fn block(&mut self, role: &str, block: &Value, path: &str) -> Refused<()> {
        let content = format!("{role}:{}", without_marker(block));
        let kind = match block["type"].as_str() {
            Some("tool_use" | "tool_result") => StepKind::ToolTraffic,
            _ => StepKind::Single,
        };
        let media = MEDIA_TOKENS * media_of(block);
        let block_of_prompt = Block {
            tokens: text_of(block).map_or(0, |text| tokens(&text)) + media,
            content,
        };
        self.steps.push(Step {
            block: block_of_prompt,
            kind,
        });
        if !is_thinking(block) {
            self.last_cacheable = Some(self.steps.len() - 1);
        }
        let ttl = self.ttl(block, path)?;
        self.mark(ttl.filter(|_| self.rules.on_blocks), path.to_owned());
        Ok(())
    }

    /// The lifetime that a marker on `object` asks for, seconds.
    fn ttl(&self, object: &Value, path: &str) -> Refused<Option<u64>> {
        let Some(marker) = object
            .get("cache_control")
            .filter(|marker| !marker.is_null())
        else {
            return Ok(None);
        };
        let separator = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{separator}cache_control");
        let fields = marker
            .as_object()
            .ok_or(format!("{path}: Input should be a valid dictionary"))?;
        if fields.get("type").is_none_or(|kind| kind != "ephemeral") {
            return Err(format!("{path}.type: Input should be 'ephemeral'"));
        }
        if let Some(key) = fields.keys().find(|key| *key != "type" && *key != "ttl") {
            return Err(format!(
                "{path}.ephemeral.{key}: Extra inputs are not permitted"
            ));
        }
        match fields
            .get("ttl")
            .map(|ttl| ttl.as_str().unwrap_or_default())
        {
            Some("1h") if self.rules.has_long_ttl => Ok(Some(TTL_LONG_SECONDS)),
            None | Some("5m" | "1h") => Ok(Some(TTL_SHORT_SECONDS)),
            Some(_) => Err(format!(
                "{path}.ephemeral.ttl: Input should be '5m' or '1h'"
            )),
        }
    }

    fn mark(&mut self, ttl_seconds: Option<u64>, path: String) {
        if let Some(ttl_seconds) = ttl_seconds {
            self.marks.push((
                Mark {
                    step: self.steps.len() - 1,
                    ttl_seconds,
                },
                path,
            ));
        }
    }

    /// The marker of the whole request: it stands on the last block that can carry one.
    fn automatic(&mut self, body: &Map<String, Value>) -> Refused<Option<u64>> {
        let marker = body.get("cache_control").cloned().unwrap_or_default();
        let ttl_seconds = self.ttl(
            &Value::Object(Map::from_iter([("cache_control".to_owned(), marker)])),
            "",
        )?;
        let (Some(ttl_seconds), Some(step)) = (ttl_seconds, self.last_cacheable) else {
            return Ok(None);
        };
        if self.marks.len() >= MARKERS_MAX && self.rules.markers_surplus_is_error {
            return Err(too_many(self.marks.len() + 1));
        }
        match self.marks.iter().find(|(mark, _)| mark.step == step) {
            Some((mark, path)) if mark.ttl_seconds != ttl_seconds => {
                return Err(format!(
                    "cache_control: the last cacheable block ({path}) already has a cache_control with a different ttl"
                ));
            }
            Some(_) => {}
            None => self
                .marks
                .push((Mark { step, ttl_seconds }, "the top level".to_owned())),
        }
        Ok(Some(ttl_seconds))
    }
}

fn check_marks(marks: &[(Mark, String)]) -> Refused<()> {
    if marks.len() > MARKERS_MAX {
        return Err(too_many(marks.len()));
    }
    let mut is_short = false;
    for (mark, path) in marks {
        if mark.ttl_seconds == TTL_LONG_SECONDS && is_short {
            return Err(format!(
                "{path}.cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control \
                 block. Note that blocks are processed in the following order: tools, system, messages."
            ));
        }
        is_short |= mark.ttl_seconds == TTL_SHORT_SECONDS;
    }
    Ok(())
}

fn too_many(found: usize) -> String {
    format!("A maximum of {MARKERS_MAX} blocks with cache_control may be provided. Found {found}.")
}

/// Content as blocks: a string is one text block.
fn blocks(content: &Value) -> Vec<Value> {
    match content {
        Value::String(text) if !text.is_empty() => {
            vec![serde_json::json!({"type": "text", "text": text})]
        }
        Value::Array(blocks) => blocks.clone(),
        _ => Vec::new(),
    }
}

/// The JSON as it came but for the marker. The order of its keys is a part of it: two serialisations of one object are
/// two prompts.
fn without_marker(object: &Value) -> Value {
    let fields = object.as_object().unwrap();
    fields
        .iter()
        .filter(|(key, _)| *key != "cache_control")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What a model reads of a block; `None` for what the stub can't read.
fn text_of(block: &Value) -> Option<String> {
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match block["type"].as_str().unwrap_or_default() {
        "text" => Some(string(&block["text"])),
        "thinking" => Some(string(&block["thinking"])),
        "tool_use" => Some(format!("{}{}", string(&block["name"]), block["input"])),
        "tool_result" => Some(match &block["content"] {
            Value::Array(blocks) => blocks
                .iter()
                .map(|block| text_of(block).unwrap_or_default())
                .collect(),
            content => string(content),
        }),
        "document" if block["source"]["type"] == "text" => Some(string(&block["source"]["data"])),
        "image" | "document" => None,
        _ => Some(block.to_string()),
    }
}

/// Pictures and files that the stub can't read: the block itself, or those within a tool's result.
fn media_of(block: &Value) -> u64 {
    match &block["content"] {
        Value::Array(inner) if block["type"] == "tool_result" => inner.iter().map(media_of).sum(),
        _ => u64::from(text_of(block).is_none()),
    }
}

fn is_thinking(block: &Value) -> bool {
    block["type"] == "thinking" || block["type"] == "redacted_thinking"
}

fn is_web_search(tool: &Value) -> bool {
    tool["type"]
        .as_str()
        .is_some_and(|kind| kind.starts_with("web_search"))
}

/// Messages before the last user turn that isn't made of tool results only.
fn finished_messages(messages: &[Value]) -> usize {
    messages
        .iter()
        .rposition(|message| {
            message["role"] == "user"
                && blocks(&message["content"])
                    .iter()
                    .any(|block| block["type"] != "tool_result")
        })
        .unwrap_or(0)
}

fn every_block(body: &Map<String, Value>) -> impl Iterator<Item = Value> {
    body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|message| blocks(&message["content"]))
        .flat_map(|block| {
            let mut inner = if block["type"] == "tool_result" {
                blocks(&block["content"])
            } else {
                Vec::new()
            };
            inner.push(block);
            inner
        })
}

/// What drops the system and the messages when it changes.
fn system_settings(body: &Map<String, Value>) -> String {
    let speed = field(body, "speed")
        .and_then(Value::as_str)
        .unwrap_or("standard");
    let cites = every_block(body).any(|block| block["citations"]["enabled"] == true);
    format!("speed:{speed} citations:{cites}")
}

/// What drops the messages when it changes.
fn message_settings(body: &Map<String, Value>) -> String {
    let choice = field(body, "tool_choice");
    let kind = choice.map_or("auto", |choice| choice["type"].as_str().unwrap_or("auto"));
    let name = choice.map_or("", |choice| choice["name"].as_str().unwrap_or_default());
    let is_serial = choice.is_some_and(|choice| choice["disable_parallel_tool_use"] == true);
    let thinking = field(body, "thinking").filter(|thinking| thinking["type"] != "disabled");
    let config = field(body, "output_config");
    let images = every_block(body)
        .filter(|block| block["type"] == "image")
        .count();
    format!(
        "choice:{kind}/{name}/{is_serial} thinking:{} output:{} images:{images}",
        thinking.unwrap_or(&Value::Null),
        config.unwrap_or(&Value::Null),
    )
}
