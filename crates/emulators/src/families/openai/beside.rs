//! What OpenAI has beside chat: embeddings, text completions, images, speech. By its API reference; what a model makes
//! follows from the request alone, so that the same request has the same answer.

mod audio;
mod images;
mod text;

use serde_json::{Value, json};

use super::{Caller, Checked, check};
use crate::families::chat_wire;
use crate::form::Field;
use crate::reply::Body;
use crate::{Charge, RawRequest, Reply};

/// A request for one of these endpoints.
pub(super) struct Asked<'a> {
    pub(super) caller: Caller<'a>,
    /// For those that take forms.
    pub(super) form: Option<Vec<Field>>,
}

/// What answers at a path, if it is one of these.
pub(super) fn endpoint(path: &[&str]) -> Option<fn(&Asked<'_>) -> Checked<Reply>> {
    Some(match path {
        ["embeddings"] => text::embed,
        ["completions"] => text::complete,
        ["images", "generations"] => images::generate,
        ["images", "edits"] => images::edit,
        ["audio", "speech"] => audio::speak,
        ["audio", "transcriptions"] => audio::transcribe,
        ["audio", "translations"] => audio::translate,
        _ => return None,
    })
}

impl Asked<'_> {
    fn body(&self) -> &Value {
        self.caller.body
    }

    /// The model, if it is one of those that this endpoint has.
    fn model(&self, known: &[&str]) -> Checked<&str> {
        let Some(name) = self.body()["model"]
            .as_str()
            .filter(|name| !name.is_empty())
        else {
            return Err(check::invalid(
                "you must provide a model parameter",
                None,
                None,
            ));
        };
        if known.contains(&name) {
            return Ok(name);
        }
        let message = format!("The model `{name}` does not exist or you do not have access to it.");
        Err(Box::new(chat_wire::error(
            404,
            &message,
            "invalid_request_error",
            None,
            Some("model_not_found"),
        )))
    }

    /// A text that must be there.
    fn text(&self, field: &str) -> Checked<&str> {
        match &self.body()[field] {
            Value::String(text) if !text.is_empty() => Ok(text),
            Value::Null | Value::String(_) => Err(check::missing(field)),
            _ => Err(check::bad_type(field, "a string")),
        }
    }

    /// A file that must be there.
    fn file(&self, name: &str) -> Checked<&Field> {
        let named = |field: &&Field| {
            let array = format!("{name}[]");
            field.file_name.is_some() && (field.name == name || field.name == array)
        };
        self.form
            .iter()
            .flatten()
            .find(named)
            .ok_or_else(|| check::missing(name))
    }

    /// Refuses fields that the endpoint does not have.
    fn only(&self, fields: &[&str]) -> Checked<()> {
        let given = self.body().as_object().into_iter().flatten();
        for (name, _) in given {
            if !fields.contains(&name.as_str()) {
                return Err(check::unknown(name));
            }
        }
        Ok(())
    }

    fn charge(&self, kind: &str, input: u64, output: u64) -> Charge {
        Charge {
            kind: kind.to_owned(),
            account: self.caller.account.clone(),
            model: self.body()["model"].as_str().unwrap_or_default().to_owned(),
            uncached_input: input,
            output,
            reported: true,
            ..Charge::default()
        }
    }
}

/// The body of a request: JSON, or the fields of a form as strings (its files are kept apart).
pub(super) fn body(request: &RawRequest) -> Checked<(Value, Option<Vec<Field>>)> {
    let is_form = request
        .header("content-type")
        .is_some_and(|content_type| content_type.starts_with("multipart/form-data"));
    if !is_form {
        return Ok((check::body(request)?, None));
    }
    let Some(form) = request.form() else {
        return Err(check::invalid("Could not parse multipart form", None, None));
    };
    let mut body = json!({});
    for field in form.iter().filter(|field| field.file_name.is_none()) {
        let text = String::from_utf8_lossy(&field.content);
        body[field.name.as_str()] = match text.as_ref() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            text => Value::from(text),
        };
    }
    Ok((body, Some(form)))
}

fn raw(content_type: &'static str, frames: Vec<bytes::Bytes>) -> Reply {
    let mut reply = Reply::frames(frames);
    reply.content_type = content_type;
    if let Body::Frames(frames) = &reply.body
        && let [only] = frames.as_slice()
    {
        reply.body = Body::Whole(only.clone());
    }
    reply
}
