//! The OpenAI Chat Completions wire: reading a request, rendering a [`script::Answer`](crate::Answer), the error
//! envelope. What a provider checks, caches and counts is its own business; it passes the usage object it wants sent.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::{Answer, Block, Reply, UsageFault, hash_hex, sse, tokens};

/// The most choices OpenAI allows in one request.
const CHOICES_MAX: u64 = 128;

/// Where a stream carries the usage, if it carries any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UsagePlace {
    /// In a chunk of its own after the last choice, with `choices: []`; the other chunks say `usage: null`.
    #[default]
    OwnChunk,
    /// In the chunk with the finish reason, beside `choices`.
    FinishChunk,
    /// In the choice with the finish reason (`choices[0].usage`).
    FinishChoice,
    /// In every chunk, as running totals, and in a chunk of its own at the end.
    EveryChunk,
}

/// What a provider does differently from OpenAI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quirks {
    /// Where the usage of a stream is.
    pub usage_place: UsagePlace,
    /// The stream ends without `data: [DONE]`.
    pub no_done: bool,
    /// Comment lines (`: keep-alive`) before the first chunk and before the last one.
    pub comments: bool,
    /// The field of the thinking text; empty: thinking is not shown.
    pub reasoning_field: &'static str,
}

impl Default for Quirks {
    fn default() -> Self {
        Quirks {
            usage_place: UsagePlace::OwnChunk,
            no_done: false,
            comments: false,
            reasoning_field: "reasoning_content",
        }
    }
}

/// A finished answer with all that its rendering needs.
#[derive(Debug, Clone)]
pub struct Completion {
    /// `chatcmpl-...`.
    pub id: String,
    /// Seconds since the Unix epoch.
    pub created: i64,
    /// The model name to report.
    pub model: String,
    /// What the model said, limited already (see [`limited`]).
    pub answer: Answer,
    /// Choices; each says the same.
    pub n: u64,
    /// The whole usage object.
    pub usage: Value,
    /// Whether a stream carries the usage at all.
    pub include_usage: bool,
    /// Ordered for this request.
    pub usage_fault: Option<UsageFault>,
    /// The provider's ways.
    pub quirks: Quirks,
    /// Further fields beside `model`, in the answer and in every chunk (`system_fingerprint`, `service_tier`).
    pub extra: Map<String, Value>,
    /// Further fields beside `usage`: in the answer, and in the chunk that carries the usage (`timings`).
    pub extra_last: Map<String, Value>,
}

impl Completion {
    /// A completion as OpenAI would render it for this request body.
    pub fn new(body: &Value, id: String, now_ms: i64, answer: Answer, usage: Value) -> Self {
        Completion {
            id,
            created: now_ms.div_euclid(1000),
            model: body["model"].as_str().unwrap_or_default().to_owned(),
            answer,
            n: choices(body),
            usage,
            include_usage: wants_usage(body),
            usage_fault: None,
            quirks: Quirks::default(),
            extra: Map::new(),
            extra_last: Map::new(),
        }
    }

    /// Frames where the request asked for a stream, else JSON.
    pub fn reply(&self, is_stream: bool) -> Reply {
        if is_stream {
            Reply::frames(self.frames())
        } else {
            Reply::json(200, &self.json())
        }
    }

    /// The answer as one JSON object.
    pub fn json(&self) -> Value {
        let mut message = json!({"role": "assistant", "content": self.answer.text});
        let has_other = !self.answer.tool_calls.is_empty() || !self.answer.refusal.is_empty();
        if self.answer.text.is_empty() && has_other {
            message["content"] = Value::Null;
        }
        if !self.answer.reasoning.is_empty() && !self.quirks.reasoning_field.is_empty() {
            message[self.quirks.reasoning_field] = json!(self.answer.reasoning);
        }
        message["refusal"] = match self.answer.refusal.as_str() {
            "" => Value::Null,
            refusal => json!(refusal),
        };
        let choices: Vec<Value> = (0..self.n)
            .map(|index| {
                let mut message = message.clone();
                if !self.answer.tool_calls.is_empty() {
                    message["tool_calls"] = self.tool_calls(index);
                }
                json!({
                    "index": index,
                    "message": message,
                    "logprobs": null,
                    "finish_reason": finish_reason(&self.answer),
                })
            })
            .collect();
        let mut value = json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        match self.usage_fault {
            Some(UsageFault::Missing) => {}
            Some(UsageFault::Impossible) => value["usage"] = impossible(&self.usage),
            Some(UsageFault::Repeated) | None => value["usage"] = self.usage.clone(),
        }
        extend(&mut value, &self.extra);
        if self.usage_fault != Some(UsageFault::Missing) {
            extend(&mut value, &self.extra_last);
        }
        value
    }

    /// The answer as server-sent events.
    pub fn frames(&self) -> Vec<Bytes> {
        let (place, include) = match self.usage_fault {
            Some(UsageFault::Missing) => (UsagePlace::OwnChunk, false),
            Some(UsageFault::Repeated) => (UsagePlace::EveryChunk, true),
            _ => (self.quirks.usage_place, self.include_usage),
        };
        let usage = match self.usage_fault {
            Some(UsageFault::Impossible) => impossible(&self.usage),
            _ => self.usage.clone(),
        };
        let mut steps: Vec<Vec<Step>> = (0..self.n).map(|index| self.steps(index)).collect();
        let mut chunks: Vec<Value> = Vec::new();
        let mut said = 0;
        for position in 0..steps.first().map_or(0, Vec::len) {
            for choice in &mut steps {
                let Step { choice, tokens } = std::mem::take(&mut choice[position]);
                said += tokens;
                let is_finish = !choice["finish_reason"].is_null();
                let mut chunk = self.chunk(vec![choice]);
                if include {
                    match place {
                        UsagePlace::OwnChunk => chunk["usage"] = Value::Null,
                        UsagePlace::EveryChunk => chunk["usage"] = running(&usage, said),
                        UsagePlace::FinishChunk if is_finish => {
                            chunk["usage"] = usage.clone();
                            extend(&mut chunk, &self.extra_last);
                        }
                        UsagePlace::FinishChoice if is_finish => {
                            chunk["choices"][0]["usage"] = usage.clone();
                        }
                        UsagePlace::FinishChunk | UsagePlace::FinishChoice => {}
                    }
                }
                chunks.push(chunk);
            }
        }
        if include && matches!(place, UsagePlace::OwnChunk | UsagePlace::EveryChunk) {
            let mut chunk = self.chunk(Vec::new());
            chunk["usage"] = usage;
            extend(&mut chunk, &self.extra_last);
            chunks.push(chunk);
        }
        let mut frames: Vec<Bytes> = chunks.iter().map(sse).collect();
        if self.quirks.comments {
            frames.insert(frames.len() - 1, Bytes::from_static(b": keep-alive\n\n"));
            frames.insert(0, Bytes::from_static(b": keep-alive\n\n"));
        }
        if !self.quirks.no_done {
            frames.push(Bytes::from_static(b"data: [DONE]\n\n"));
        }
        frames
    }

    fn chunk(&self, choices: Vec<Value>) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
        });
        extend(&mut chunk, &self.extra);
        chunk["choices"] = Value::Array(choices);
        chunk
    }

    fn steps(&self, index: u64) -> Vec<Step> {
        let step = |delta: Value, finish: Option<&str>, tokens: u64| Step {
            choice: json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish}),
            tokens,
        };
        let mut steps = vec![step(json!({"role": "assistant", "content": ""}), None, 0)];
        if !self.answer.reasoning.is_empty() && !self.quirks.reasoning_field.is_empty() {
            for piece in Answer::text(self.answer.reasoning.as_str()).pieces() {
                let tokens = tokens(&piece);
                steps.push(step(
                    json!({self.quirks.reasoning_field: piece}),
                    None,
                    tokens,
                ));
            }
        }
        for piece in self.answer.pieces() {
            let tokens = tokens(&piece);
            steps.push(step(json!({"content": piece}), None, tokens));
        }
        for piece in Answer::text(self.answer.refusal.as_str()).pieces() {
            let tokens = tokens(&piece);
            steps.push(step(json!({"refusal": piece}), None, tokens));
        }
        for (number, call) in self.answer.tool_calls.iter().enumerate() {
            let start = json!({
                "index": number,
                "id": self.call_id(index, number),
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            });
            steps.push(step(json!({"tool_calls": [start]}), None, 0));
            let (first, second) = halves(&call.arguments);
            for part in [first, second] {
                let delta = json!({"index": number, "function": {"arguments": part}});
                steps.push(step(json!({"tool_calls": [delta]}), None, tokens(part)));
            }
        }
        steps.push(step(json!({}), Some(finish_reason(&self.answer)), 0));
        steps
    }

    fn tool_calls(&self, index: u64) -> Value {
        let calls = self
            .answer
            .tool_calls
            .iter()
            .enumerate()
            .map(|(number, call)| {
                json!({
                    "id": self.call_id(index, number),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                })
            });
        Value::Array(calls.collect())
    }

    fn call_id(&self, index: u64, number: usize) -> String {
        format!(
            "call_{}",
            hash_hex(&format!("{} {index} {number}", self.id))
        )
    }
}

#[derive(Default)]
struct Step {
    choice: Value,
    tokens: u64,
}

/// `stop`, `length`, `tool_calls` or `content_filter`.
pub fn finish_reason(answer: &Answer) -> &'static str {
    if answer.filtered {
        "content_filter"
    } else if answer.cut {
        "length"
    } else if !answer.tool_calls.is_empty() {
        "tool_calls"
    } else {
        "stop"
    }
}

/// A text in two parts that join to it.
pub fn halves(text: &str) -> (&str, &str) {
    let mut middle = text.len() / 2;
    while !text.is_char_boundary(middle) {
        middle += 1;
    }
    text.split_at(middle)
}

/// `usage` with the output generated so far: never more than the true total.
fn running(usage: &Value, said: u64) -> Value {
    let mut usage = usage.clone();
    let (Some(output), Some(total)) = (
        usage["completion_tokens"].as_u64(),
        usage["total_tokens"].as_u64(),
    ) else {
        return usage;
    };
    let said = said.min(output);
    usage["completion_tokens"] = json!(said);
    usage["total_tokens"] = json!(total - output + said);
    usage
}

/// A usage with more cached tokens than tokens, wherever it counts cached tokens.
pub fn impossible(usage: &Value) -> Value {
    let mut usage = usage.clone();
    let (total, details) = if usage["input_tokens"].is_u64() {
        (usage["input_tokens"].as_u64(), "input_tokens_details")
    } else {
        (usage["prompt_tokens"].as_u64(), "prompt_tokens_details")
    };
    let cached = json!(total.unwrap_or(0) + 1000);
    if !usage[details].is_object() {
        usage[details] = json!({});
    }
    usage[details]["cached_tokens"] = cached.clone();
    for field in ["cached_tokens", "prompt_cache_hit_tokens"] {
        if usage.get(field).is_some() {
            usage[field] = cached.clone();
        }
    }
    usage
}

fn extend(value: &mut Value, fields: &Map<String, Value>) {
    for (name, field) in fields {
        value[name] = field.clone();
    }
}

/// One part of one message, as caches see it.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The message's role.
    pub role: String,
    /// Which message, from 0.
    pub message: usize,
    /// Whether it is the message's last part.
    pub ends_message: bool,
    /// The role and, in a message's first part, the message's other fields.
    pub head: String,
    /// What identifies it, markers left out, and its size.
    pub block: Block,
    /// The part as sent, markers included; a string content is given as `{"type":"text","text":...}`.
    pub part: Value,
}

/// The parts of all messages in order. `markers` are fields of a part that steer caching and aren't content
/// (`prompt_cache_breakpoint`, `cache_control`): they don't change a block's identity. A string content is the same
/// block as one text part of the same text. A message's other fields (`name`, `tool_call_id`) belong to its first
/// part; each of `tool_calls` is a part.
pub fn pieces(messages: &Value, markers: &[&str]) -> Vec<Piece> {
    let mut all = Vec::new();
    for (number, message) in messages
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .enumerate()
    {
        let role = message["role"].as_str().unwrap_or_default();
        let mut parts: Vec<Value> = match &message["content"] {
            Value::String(text) => vec![json!({"type": "text", "text": text})],
            Value::Array(parts) => parts.clone(),
            _ => Vec::new(),
        };
        parts.extend(
            message["tool_calls"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
        );
        if parts.is_empty() {
            parts.push(json!({"type": "text", "text": ""}));
        }
        let mut rest = message.clone();
        if let Some(fields) = rest.as_object_mut() {
            fields.retain(|name, _| !["role", "content", "tool_calls"].contains(&name.as_str()));
        }
        let count = parts.len();
        for (index, part) in parts.into_iter().enumerate() {
            let mut bare = part.clone();
            if let Some(fields) = bare.as_object_mut() {
                fields.retain(|name, _| !markers.contains(&name.as_str()));
            }
            let head = if index == 0 {
                format!("{role}\n{rest}")
            } else {
                role.to_owned()
            };
            let text = part_text(&bare);
            all.push(Piece {
                role: role.to_owned(),
                message: number,
                ends_message: index + 1 == count,
                block: Block::sized(format!("{head}\n{bare}"), &text),
                head,
                part,
            });
        }
    }
    all
}

/// What a model reads of a part: its text, or all of it where it isn't text.
pub fn part_text(part: &Value) -> String {
    match part["text"].as_str() {
        Some(text) => text.to_owned(),
        None => part.to_string(),
    }
}

/// The blocks of a whole prompt in the order of hashing: tools first (one block each), then [`pieces`].
pub fn blocks(body: &Value, markers: &[&str]) -> Vec<Block> {
    let mut blocks = tool_blocks(body);
    blocks.extend(
        pieces(&body["messages"], markers)
            .into_iter()
            .map(|piece| piece.block),
    );
    blocks
}

/// One block for each of `tools`, in their order.
pub fn tool_blocks(body: &Value) -> Vec<Block> {
    let tools = body["tools"].as_array().map_or(&[][..], Vec::as_slice);
    tools
        .iter()
        .map(|tool| Block::new(format!("tool\n{tool}")))
        .collect()
}

/// The tokens of all of them.
pub fn total_tokens(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| block.tokens).sum()
}

/// The tool the model must call: the named one, or the first where any is `required`.
pub fn forced_tool(body: &Value) -> Option<String> {
    let choice = &body["tool_choice"];
    let name_of = |tool: &Value| {
        let name = tool["function"]["name"]
            .as_str()
            .or_else(|| tool["name"].as_str());
        name.map(str::to_owned)
    };
    if choice == "required" || choice == "any" {
        return body["tools"].as_array()?.iter().find_map(name_of);
    }
    name_of(choice)
}

/// `max_completion_tokens`, else `max_tokens`, else `max_output_tokens` (Responses).
pub fn output_limit(body: &Value) -> Option<u64> {
    ["max_completion_tokens", "max_tokens", "max_output_tokens"]
        .iter()
        .find_map(|field| body[field].as_u64())
}

/// `n`, within what OpenAI allows (1 to 128).
pub fn choices(body: &Value) -> u64 {
    body["n"].as_u64().unwrap_or(1).clamp(1, CHOICES_MAX)
}

/// Whether `stream` is true.
pub fn wants_stream(body: &Value) -> bool {
    body["stream"] == true
}

/// Whether `stream_options.include_usage` is true.
pub fn wants_usage(body: &Value) -> bool {
    body["stream_options"]["include_usage"] == true
}

/// The answer ended by a limit of `limit` output tokens: thinking comes first, then text, refusal, then whole calls.
pub fn limited(mut answer: Answer, limit: Option<u64>) -> Answer {
    let Some(limit) = limit else {
        return answer;
    };
    if output_tokens(&answer) <= limit {
        return answer;
    }
    let mut left = limit;
    for text in [&mut answer.reasoning, &mut answer.text, &mut answer.refusal] {
        let mut keep = usize::try_from(left.saturating_mul(4))
            .unwrap_or(usize::MAX)
            .min(text.len());
        while !text.is_char_boundary(keep) {
            keep -= 1;
        }
        text.truncate(keep);
        left = left.saturating_sub(text_tokens(text));
    }
    answer.tool_calls.retain(|call| {
        let size = tokens(&call.name) + tokens(&call.arguments);
        let fits = size <= left;
        left = if fits { left - size } else { 0 };
        fits
    });
    answer.cut = true;
    answer
}

/// Generated tokens of one choice, thinking included.
pub fn output_tokens(answer: &Answer) -> u64 {
    let calls: u64 = answer
        .tool_calls
        .iter()
        .map(|call| tokens(&call.name) + tokens(&call.arguments))
        .sum();
    let texts = [&answer.reasoning, &answer.text, &answer.refusal];
    texts.iter().map(|text| text_tokens(text)).sum::<u64>() + calls
}

/// Tokens of the thinking text.
pub fn reasoning_tokens(answer: &Answer) -> u64 {
    text_tokens(&answer.reasoning)
}

fn text_tokens(text: &str) -> u64 {
    if text.is_empty() { 0 } else { tokens(text) }
}

/// OpenAI's error envelope.
pub fn error(
    status: u16,
    message: &str,
    kind: &str,
    param: Option<&str>,
    code: Option<&str>,
) -> Reply {
    Reply::json(status, &error_value(message, kind, param, code))
}

/// The body of [`error`].
pub fn error_value(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

/// A failure by status with the words OpenAI uses for it.
pub fn failure(status: u16) -> Reply {
    let (message, kind, code) = match status {
        400 => ("Invalid request.", "invalid_request_error", None),
        401 => (
            "Incorrect API key provided.",
            "invalid_request_error",
            Some("invalid_api_key"),
        ),
        403 => (
            "You do not have access to this resource.",
            "invalid_request_error",
            Some("unsupported_country_region_territory"),
        ),
        404 => (
            "The requested resource was not found.",
            "invalid_request_error",
            Some("not_found"),
        ),
        429 => (
            "Rate limit reached for requests. Please try again later.",
            "requests",
            Some("rate_limit_exceeded"),
        ),
        503 => (
            "The engine is currently overloaded, please try again later.",
            "server_error",
            None,
        ),
        _ => (
            "The server had an error while processing your request. Sorry about that!",
            "server_error",
            None,
        ),
    };
    error(status, message, kind, None, code)
}

/// The frame with which an OpenAI-compatible stream reports an error.
pub fn failure_in_stream() -> Bytes {
    sse(&error_value(
        "The server had an error while processing your request. Sorry about that!",
        "server_error",
        None,
        None,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(quirks: Quirks) -> Completion {
        let answer = Answer {
            reasoning: "A thought".to_owned(),
            ..Answer::text("Two words")
        };
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16});
        let body = json!({"model": "m", "stream_options": {"include_usage": true}});
        Completion {
            quirks,
            ..Completion::new(&body, "chatcmpl-1".to_owned(), 5000, answer, usage)
        }
    }

    fn chunks(completion: &Completion) -> Vec<Value> {
        let frames = completion.frames();
        let data = frames
            .iter()
            .filter_map(|frame| std::str::from_utf8(frame).unwrap().strip_prefix("data: "));
        data.filter_map(|data| serde_json::from_str(data).ok())
            .collect()
    }

    #[test]
    fn thinking_comes_before_the_text_or_is_not_shown() {
        let deltas = |completion: &Completion, field: &str| -> String {
            let chunks = chunks(completion);
            chunks
                .iter()
                .filter_map(|chunk| chunk["choices"][0]["delta"][field].as_str())
                .collect()
        };
        let shown = completion(Quirks::default());
        assert_eq!(deltas(&shown, "reasoning_content"), "A thought");
        assert_eq!(deltas(&shown, "content"), "Two words");
        assert_eq!(
            shown.json()["choices"][0]["message"]["reasoning_content"],
            "A thought"
        );
        let first_text = chunks(&shown)
            .iter()
            .position(|chunk| chunk["choices"][0]["delta"]["content"] == "Two");
        assert_eq!(
            first_text,
            Some(3),
            "after the role and two pieces of thinking"
        );
        let hidden = completion(Quirks {
            reasoning_field: "",
            ..Quirks::default()
        });
        assert_eq!(deltas(&hidden, "reasoning_content"), "");
    }

    #[test]
    fn the_usage_is_where_the_provider_puts_it() {
        let of = |usage_place| {
            chunks(&completion(Quirks {
                usage_place,
                ..Quirks::default()
            }))
        };
        let finish = of(UsagePlace::FinishChunk);
        let last = finish.last().unwrap();
        assert_eq!(
            (
                &last["choices"][0]["finish_reason"],
                &last["usage"]["total_tokens"]
            ),
            (&json!("stop"), &json!(16))
        );
        let choice = of(UsagePlace::FinishChoice);
        let last = choice.last().unwrap();
        assert_eq!(
            (
                last.get("usage"),
                &last["choices"][0]["usage"]["total_tokens"]
            ),
            (None, &json!(16))
        );
        for chunks in [&finish, &choice] {
            assert_eq!(
                chunks
                    .iter()
                    .filter(|chunk| chunk.to_string().contains("total_tokens"))
                    .count(),
                1
            );
        }
        let every = of(UsagePlace::EveryChunk);
        let totals: Vec<u64> = every
            .iter()
            .map(|chunk| chunk["usage"]["total_tokens"].as_u64().unwrap())
            .collect();
        assert_eq!((totals[0], totals[totals.len() - 1]), (10, 16));
        assert!(totals.is_sorted());
    }

    #[test]
    fn comments_and_a_missing_end() {
        let frames = completion(Quirks {
            comments: true,
            no_done: true,
            ..Quirks::default()
        })
        .frames();
        let is_comment = |frame: &&Bytes| frame.starts_with(b": ");
        assert!(is_comment(&&frames[0]) && frames.iter().filter(is_comment).count() == 2);
        assert!(!frames.iter().any(|frame| &frame[..] == b"data: [DONE]\n\n"));
    }

    #[test]
    fn a_limit_cuts_thinking_then_text_then_whole_calls() {
        let mut answer = Answer::call("f", "{}");
        answer.reasoning = "12345678".to_owned();
        answer.text = "\u{e9}\u{e9}\u{e9}\u{e9}".to_owned();
        assert_eq!(output_tokens(&answer), 6);
        assert_eq!(limited(answer.clone(), Some(6)), answer);
        let cut = limited(answer.clone(), Some(5));
        assert!(cut.cut && cut.tool_calls.is_empty() && cut.text == answer.text);
        let cut = limited(answer.clone(), Some(3));
        assert_eq!(
            (cut.reasoning.as_str(), cut.text.as_str()),
            ("12345678", "\u{e9}\u{e9}")
        );
        let cut = limited(answer, Some(1));
        assert_eq!((cut.reasoning.as_str(), cut.text.as_str()), ("1234", ""));
    }

    #[test]
    fn markers_are_no_content_and_a_string_is_a_part() {
        let string = json!([{"role": "user", "content": "x"}]);
        let part = json!([{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"a": 1}}]}]);
        let block = |messages: &Value| pieces(messages, &["cache_control"])[0].block.clone();
        assert_eq!(block(&string), block(&part));
        assert_ne!(
            block(&string),
            block(&json!([{"role": "system", "content": "x"}]))
        );
        assert_ne!(
            block(&string),
            block(&json!([{"role": "user", "content": "x", "name": "n"}]))
        );
    }
}
