//! Contents and their parts.

use data_encoding::BASE64;
use serde_json::{Map, Value};

use super::blob;
use super::calls::{Answered, Calls, Place};
use super::proto::{list, message, object};
use crate::chat::{ContentPart, Message, ReasoningSignature, Role, ToolCall};
use crate::dialect::fields::{Fields, invalid, wrong_type};
use crate::error::{ApiError, ErrorKind};

const KIND: ErrorKind = ErrorKind::InvalidMessage;
const PARTS_MAX: usize = 100_000;
/// Dialects whose seals clients of this one may bring back.
const FOREIGN_SEALS: &[&str] = &["gemini:", "responses:", "bedrock:", "anthropic:"];
/// What parts say about what they hold.
const REMARKS: &[&str] = &[
    "videoMetadata",
    "mediaResolution",
    "mediaProcessing",
    "partMetadata",
    "audioMetadata",
    "speechMetadata",
    "documentMetadata",
    "spreadsheetMetadata",
];

/// Messages as they are read.
#[derive(Default)]
pub(super) struct Conversation {
    pub(super) messages: Vec<Message>,
    /// The first thing that only Google itself can do.
    pub(super) only: Option<ApiError>,
    /// Whether there are seals of other upstreams, which Google takes for broken ones of its own.
    pub(super) has_foreign_seals: bool,
    calls: Calls,
}

impl Conversation {
    pub(super) fn at(place: Place) -> Self {
        Conversation {
            calls: Calls::at(place),
            ..Conversation::default()
        }
    }

    /// Notes what only Google itself can do; the request goes on without it, to be refused by everybody else.
    pub(super) fn tolerate(&mut self, result: Result<(), ApiError>) -> Result<(), ApiError> {
        match result {
            Err(error) if error.kind == ErrorKind::UnsupportedParameter => {
                self.only.get_or_insert(error);
                Ok(())
            }
            result => result,
        }
    }

    /// The field `systemInstruction`: a content, or the parts or the text of one.
    pub(super) fn system(&mut self, path: String, value: Value) -> Result<(), ApiError> {
        let mut system = blank(Role::System);
        let parts = match value {
            Value::String(text) => {
                push_text(&mut system, text);
                Vec::new()
            }
            Value::Array(parts) => numbered(&path, parts),
            value @ Value::Object(_) => {
                let mut content = message(value, path.clone(), KIND)?;
                match content.text("text")? {
                    Some(text) => {
                        push_text(&mut system, text);
                        Vec::new()
                    }
                    None => list(&mut content, "parts", PARTS_MAX)?,
                }
            }
            other => return Err(wrong_type(KIND, &path, "a content", &other)),
        };
        for (path, part) in parts {
            let mut part = message(part, path.clone(), KIND)?;
            match part.text("text")? {
                Some(text) => push_text(&mut system, text),
                None => return Err(invalid(KIND, &path, "must hold text")),
            }
        }
        if !system.content.is_empty() {
            self.messages.push(system);
        }
        Ok(())
    }

    /// An element of `contents`.
    pub(super) fn content(&mut self, path: String, value: Value) -> Result<(), ApiError> {
        let mut content = message(value, path, KIND)?;
        let role = match content.string("role")?.as_deref() {
            // Google's samples give results the role `tool`.
            None | Some("user" | "function" | "tool") => Role::User,
            Some("model") => Role::Assistant,
            Some(_) => {
                return Err(invalid(
                    ErrorKind::UnknownRole,
                    &content.path_of("role"),
                    "must be user or model",
                ));
            }
        };
        let parts = list(&mut content, "parts", PARTS_MAX)?;
        if parts.is_empty() && role == Role::User {
            return Err(content.invalid("parts", "must hold at least one part"));
        }
        let mut draft = match self.messages.pop() {
            Some(last) if last.role == role && role == Role::Assistant => last,
            last => {
                self.messages.extend(last);
                blank(role)
            }
        };
        for (path, part) in parts {
            let part = message(part, path, KIND)?;
            let read = match role {
                Role::Assistant => self.model_part(&mut draft, part),
                _ => self.user_part(&mut draft, part),
            };
            self.tolerate(read)?;
        }
        self.flush(&mut draft);
        Ok(())
    }

    fn user_part(&mut self, draft: &mut Message, mut part: Fields) -> Result<(), ApiError> {
        if let Some(text) = part.text("text")? {
            draft.content.push(ContentPart::Text { text });
        } else if let Some(media) = media(&mut part)? {
            draft.content.push(media);
        } else if let Some(response) = object(&mut part, "functionResponse")? {
            self.flush(draft);
            return self.result(response);
        } else {
            return not_said(part, &["functionCall"], "a content of the user");
        }
        Ok(())
    }

    fn model_part(&mut self, draft: &mut Message, mut part: Fields) -> Result<(), ApiError> {
        let seal = part.string("thoughtSignature")?;
        let foreign = seal.as_deref().and_then(foreign_seal);
        self.has_foreign_seals |= foreign.is_some();
        let is_thought = part.boolean("thought")?.unwrap_or(false);
        if let Some(mut call) = object(&mut part, "functionCall")? {
            let name = call.required_string("name")?;
            let arguments = Value::Object(call.map("args")?.unwrap_or_default());
            let own_seal = seal.as_deref().filter(|_| foreign.is_none());
            let id = self.calls.called(call.string("id")?, &name, own_seal);
            draft.tool_calls.push(ToolCall {
                id,
                name,
                arguments: arguments.to_string(),
            });
            if foreign.is_some() {
                draft.reasoning_signature = foreign;
            }
            return Ok(());
        }
        let is_sealed = seal.is_some();
        if let Some(seal) = seal {
            let own = || ReasoningSignature::new("gemini", &seal);
            draft.reasoning_signature = Some(foreign.unwrap_or_else(own));
        }
        if let Some(text) = part.text("text")? {
            match (is_thought, draft.content.last_mut()) {
                _ if text.is_empty() => {}
                (true, _) => draft.reasoning.get_or_insert_default().push_str(&text),
                (false, Some(ContentPart::Text { text: said })) => said.push_str(&text),
                (false, _) => draft.content.push(ContentPart::Text { text }),
            }
        } else if let Some(media) = media(&mut part)? {
            draft.content.push(media);
        } else if !is_sealed {
            return not_said(part, &["functionResponse"], "a content of the model");
        }
        Ok(())
    }

    /// `functionResponse`.
    fn result(&mut self, mut response: Fields) -> Result<(), ApiError> {
        let given = response.string("id")?;
        let name = response.string("name")?;
        if given.is_none() && name.is_none() {
            return Err(response.missing("name"));
        }
        let mut result = blank(Role::Tool);
        match self.calls.answered(given.as_deref(), name.as_deref()) {
            Answered::Known(id) => result.tool_call_id = Some(id),
            Answered::Remembered => {
                result.tool_call_id = given;
                result.name = name;
            }
            Answered::Nothing => {
                return Err(response.invalid("name", "answers no call before it"));
            }
        }
        let text = result_text(response.map("response")?.unwrap_or_default());
        result.content.push(ContentPart::Text { text });
        let mut read = Ok(());
        for (path, part) in list(&mut response, "parts", PARTS_MAX)? {
            let mut part = message(part, path, KIND)?;
            match media(&mut part) {
                Ok(Some(media)) => result.content.push(media),
                Ok(None) => read = read.and_then(|()| not_said(part, &[], "a result")),
                Err(error) => read = read.and(Err(error)),
            }
        }
        self.messages.push(result);
        read
    }

    fn flush(&mut self, draft: &mut Message) {
        let next = blank(draft.role);
        let message = std::mem::replace(draft, next);
        if message != *draft {
            self.messages.push(message);
        }
    }
}

fn blank(role: Role) -> Message {
    let mut message = Message::text(role, "");
    message.content.clear();
    message
}

/// Google leaves empty texts out, too.
fn push_text(message: &mut Message, text: String) {
    if !text.is_empty() {
        message.content.push(ContentPart::Text { text });
    }
}

fn numbered(path: &str, values: Vec<Value>) -> Vec<(String, Value)> {
    let numbered = values.into_iter().enumerate();
    numbered
        .map(|(index, value)| (format!("{path}[{index}]"), value))
        .collect()
}

fn media(part: &mut Fields) -> Result<Option<ContentPart>, ApiError> {
    if let Some(blob) = object(part, "inlineData")? {
        return blob::inline(blob).map(Some);
    }
    object(part, "fileData")?.map(blob::file).transpose()
}

/// The error for a part that holds nothing that can be said; the `misplaced` can't be said in `place`.
fn not_said(part: Fields, misplaced: &[&str], place: &str) -> Result<(), ApiError> {
    if let Some(key) = misplaced.iter().find(|key| part.has(key)) {
        return Err(part.invalid(key, format!("can't stand in {place}")));
    }
    let path = part.path().to_owned();
    let rest = part.rest();
    match rest.keys().find(|key| !REMARKS.contains(&key.as_str())) {
        Some(_) => Err(ApiError::unsupported(
            &path,
            "holds something that Google makes itself, or that is not known here",
        )),
        None => Err(invalid(
            KIND,
            &path,
            "must hold text, inlineData, fileData, functionCall or functionResponse",
        )),
    }
}

/// A result in the form that results have elsewhere.
fn result_text(response: Map<String, Value>) -> String {
    let mut fields = response.iter();
    match (fields.next(), fields.next()) {
        (Some((key, Value::String(text))), None) if key == "result" || key == "output" => {
            text.clone()
        }
        _ => Value::Object(response).to_string(),
    }
}

/// The seal of another upstream, as the answer's writer wrote it or as it is.
fn foreign_seal(seal: &str) -> Option<ReasoningSignature> {
    let is_tagged = |seal: &str| FOREIGN_SEALS.iter().any(|tag| seal.starts_with(tag));
    if is_tagged(seal) {
        return Some(ReasoningSignature(seal.to_owned()));
    }
    let standard = blob::standard_base64(seal)?;
    let text = String::from_utf8(BASE64.decode(standard.as_bytes()).ok()?).ok()?;
    is_tagged(&text).then_some(ReasoningSignature(text))
}
