//! Items of `input`.

use serde_json::{Value, json};

use super::parts::{Part, part};
use crate::chat::{CachePoint, ContentPart, Message, ReasoningSignature, Role, ToolCall};
use crate::dialect::cache::{self, Cuts};
use crate::dialect::fields::{Fields, invalid};
use crate::error::{ApiError, ErrorKind};

const KIND: ErrorKind = ErrorKind::InvalidMessage;
const PARTS_MAX: usize = 100_000;
/// The most function calls that follow each other.
const CALLS_MAX: usize = 512;
/// Dialects whose seals clients of this one may bring back.
const FOREIGN_SEALS: &[&str] = &["anthropic:", "bedrock:", "gemini:", "responses:"];

/// The first thing that only OpenAI itself can do.
#[derive(Debug, Default)]
pub(super) struct Only(pub(super) Option<ApiError>);

impl Only {
    /// Notes that a request has something of the kind; the request goes on without it, to be refused by everybody else.
    pub(super) fn note(&mut self, error: ApiError) {
        self.0.get_or_insert(error);
    }

    /// What was read; `None`: only OpenAI itself can do it.
    pub(super) fn tolerate<T>(
        &mut self,
        result: Result<T, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        match result {
            Err(error) if error.kind == ErrorKind::UnsupportedParameter => {
                self.note(error);
                Ok(None)
            }
            result => result.map(Some),
        }
    }
}

/// Items as they are read.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) messages: Vec<Message>,
    pub(super) points: Vec<CachePoint>,
    /// As they are listed again: each in its full form, ids where the client gave some.
    pub(super) items: Vec<Value>,
    pub(super) only: Only,
    /// The assistant's message of which more may follow.
    answer: Option<Message>,
    /// Sealed items of reasoning in it.
    seals: usize,
}

impl Input {
    /// Reads the item at `path`.
    pub(super) fn item(&mut self, item: Value, path: String) -> Result<(), ApiError> {
        let mut fields = Fields::of_value(item, path, KIND)?;
        let kind = match fields.string("type")? {
            Some(kind) => kind,
            None if fields.has("role") => "message".to_owned(),
            None if fields.has("id") => "item_reference".to_owned(),
            None => return Err(fields.missing("type")),
        };
        match kind.as_str() {
            "message" => self.message(fields),
            "reasoning" => self.reasoning(fields),
            "function_call" => self.call(fields),
            "function_call_output" => self.result(fields),
            "item_reference" => {
                self.only.note(ApiError::unsupported(
                    &fields.path_of("id"),
                    "names an item that the gateway does not have by id: send it, or continue with `previous_response_id`",
                ));
                Ok(())
            }
            _ => {
                self.only.note(ApiError::unsupported(
                    &fields.path_of("type"),
                    "is of something that its provider does itself, or is not known here",
                ));
                Ok(())
            }
        }
    }

    /// Ends the last message.
    pub(super) fn end(&mut self) {
        let seals = std::mem::take(&mut self.seals);
        let Some(mut message) = self.answer.take() else {
            return;
        };
        // A seal is for one item, not for all that was thought.
        if seals > 1 {
            message.reasoning_signature = None;
        }
        if !message.content.is_empty() || !message.tool_calls.is_empty() {
            self.messages.push(message);
        }
    }

    fn message(&mut self, mut fields: Fields) -> Result<(), ApiError> {
        let role = match fields.required_string("role")?.as_str() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            "developer" => Role::Developer,
            _ => {
                return Err(invalid(
                    ErrorKind::UnknownRole,
                    &fields.path_of("role"),
                    "must be user, assistant, system or developer",
                ));
            }
        };
        let is_answer = role == Role::Assistant;
        let parts = match fields.value("content") {
            None => return Err(fields.missing("content")),
            Some(Value::String(text)) => vec![json!({"type": "input_text", "text": text})],
            Some(Value::Array(parts)) if parts.is_empty() && !is_answer => {
                return Err(fields.invalid("content", "must have at least one part"));
            }
            Some(Value::Array(parts)) => parts,
            Some(other) => {
                return Err(fields.wrong_type("content", "a string or an array of parts", &other));
            }
        };
        let (content, cuts, listed) = self.parts(parts, &fields, "content", role)?;
        let item = json!({
            "type": "message",
            "status": status(&mut fields)?,
            "role": role.as_str(),
            "content": listed,
        });
        self.list(item, &mut fields)?;
        if is_answer {
            self.answer().content.extend(content);
        } else if !content.is_empty() {
            self.push(message(role, content), cuts);
        }
        Ok(())
    }

    fn reasoning(&mut self, mut fields: Fields) -> Result<(), ApiError> {
        let summary = texts(&mut fields, "summary")?;
        let content = texts(&mut fields, "content")?;
        let seal = fields.string("encrypted_content")?;
        let listed = |texts: &[String], kind: &str| {
            let texts = texts.iter();
            let texts = texts.map(|text| json!({"type": kind, "text": text}));
            Value::Array(texts.collect())
        };
        let mut item = json!({"type": "reasoning", "summary": listed(&summary, "summary_text")});
        if !content.is_empty() {
            item["content"] = listed(&content, "reasoning_text");
        }
        if let Some(seal) = &seal {
            item["encrypted_content"] = seal.as_str().into();
        }
        self.list(item, &mut fields)?;
        let text = match content.is_empty() {
            true => summary.join("\n\n"),
            false => content.join("\n\n"),
        };
        self.seals += usize::from(seal.is_some());
        let answer = self.answer();
        if !text.is_empty() {
            match &mut answer.reasoning {
                Some(known) => {
                    known.push_str("\n\n");
                    known.push_str(&text);
                }
                none => *none = Some(text),
            }
        }
        if let Some(seal) = seal {
            answer.reasoning_signature = Some(signature(seal));
        }
        Ok(())
    }

    fn call(&mut self, mut fields: Fields) -> Result<(), ApiError> {
        let arguments = match fields.value("arguments") {
            None => String::new(),
            Some(Value::String(text)) => text,
            // Some clients send the parsed arguments back.
            Some(value @ Value::Object(_)) => value.to_string(),
            Some(other) => return Err(fields.wrong_type("arguments", "a string", &other)),
        };
        let call = ToolCall {
            id: fields.required_string("call_id")?,
            name: fields.required_string("name")?,
            arguments,
        };
        let item = json!({
            "type": "function_call",
            "status": status(&mut fields)?,
            "arguments": call.arguments,
            "call_id": call.id,
            "name": call.name,
        });
        self.list(item, &mut fields)?;
        let calls = &mut self.answer().tool_calls;
        if calls.len() >= CALLS_MAX {
            return Err(fields.invalid(
                "type",
                format!("is one function call too many: {CALLS_MAX} may follow each other"),
            ));
        }
        calls.push(call);
        Ok(())
    }

    fn result(&mut self, mut fields: Fields) -> Result<(), ApiError> {
        let call_id = fields.required_string("call_id")?;
        let (content, cuts, listed) = match fields.value("output") {
            None => return Err(fields.missing("output")),
            Some(Value::String(text)) => (Vec::new(), Vec::new(), Value::String(text)),
            Some(Value::Array(parts)) => {
                let (content, cuts, listed) = self.parts(parts, &fields, "output", Role::Tool)?;
                (content, cuts, Value::Array(listed))
            }
            Some(other) => {
                return Err(fields.wrong_type("output", "a string or an array of parts", &other));
            }
        };
        let content = match content.is_empty() {
            true => vec![ContentPart::Text {
                text: listed.as_str().unwrap_or_default().to_owned(),
            }],
            false => content,
        };
        let item = json!({
            "type": "function_call_output",
            "status": status(&mut fields)?,
            "call_id": call_id,
            "output": listed,
        });
        self.list(item, &mut fields)?;
        let mut result = message(Role::Tool, content);
        result.tool_call_id = Some(call_id);
        self.push(result, cuts);
        Ok(())
    }

    /// Parts, where they have markers, and how they are listed again.
    fn parts(
        &mut self,
        parts: Vec<Value>,
        fields: &Fields,
        key: &str,
        role: Role,
    ) -> Result<(Vec<ContentPart>, Cuts, Vec<Value>), ApiError> {
        if parts.len() > PARTS_MAX {
            return Err(fields.invalid(key, format!("may have at most {PARTS_MAX} parts")));
        }
        let mut content = Vec::with_capacity(parts.len());
        let mut cuts = Vec::new();
        let mut all_listed = Vec::with_capacity(parts.len());
        for (number, value) in parts.into_iter().enumerate() {
            let path = fields.path_of(&format!("{key}[{number}]"));
            let Some(part) = self.only.tolerate(part(value, path, role))? else {
                continue;
            };
            let Part {
                content: part,
                listed,
                marker,
            } = part;
            content.push(part);
            all_listed.push(listed);
            cuts.extend(marker.map(|ttl_seconds| (content.len(), ttl_seconds)));
        }
        Ok((content, cuts, all_listed))
    }

    fn push(&mut self, message: Message, cuts: Cuts) {
        self.end();
        cache::push_marked(message, cuts, &mut self.messages, &mut self.points);
    }

    fn answer(&mut self) -> &mut Message {
        self.answer
            .get_or_insert_with(|| message(Role::Assistant, Vec::new()))
    }

    fn list(&mut self, mut item: Value, fields: &mut Fields) -> Result<(), ApiError> {
        if let Some(id) = fields.string("id")? {
            item["id"] = id.into();
        }
        self.items.push(item);
        Ok(())
    }
}

fn message(role: Role, content: Vec<ContentPart>) -> Message {
    Message {
        content,
        ..Message::text(role, "")
    }
}

/// What came whole is complete unless it says otherwise.
fn status(fields: &mut Fields) -> Result<&'static str, ApiError> {
    Ok(match fields.string("status")?.as_deref() {
        Some("incomplete") => "incomplete",
        _ => "completed",
    })
}

/// The texts of an array of `{type, text}`.
fn texts(fields: &mut Fields, key: &str) -> Result<Vec<String>, ApiError> {
    let parts = fields.array(key, PARTS_MAX)?.unwrap_or_default();
    let texts = parts.into_iter().enumerate().map(|(number, part)| {
        let path = fields.path_of(&format!("{key}[{number}]"));
        let mut part = Fields::of_value(part, path, KIND)?;
        part.text("text")?.ok_or_else(|| part.missing("text"))
    });
    texts.collect()
}

fn signature(seal: String) -> ReasoningSignature {
    match FOREIGN_SEALS.iter().any(|tag| seal.starts_with(tag)) {
        true => ReasoningSignature(seal),
        false => ReasoningSignature::new("responses", &seal),
    }
}
