//! Requests that go to an upstream as they came, but for the model's name, and what is read of the answers, which go
//! back as they come.
//!
//! Of a request only the places are looked for where it names the model; all other bytes are sent on. Of an answer only
//! the usage is read, beside the bytes and never before them.

mod form;
mod json;
#[cfg(test)]
mod tests;
mod usage;

pub use usage::UsageWatch;

use std::ops::Range;

use bytes::Bytes;

use crate::error::ApiError;

/// Media type of JSON.
const JSON: &str = "application/json";

/// A request to be passed through: JSON, or a form (`multipart/form-data`).
#[derive(Debug, Clone)]
pub struct RawBody {
    bytes: Bytes,
    content_type: String,
    model: String,
    /// Where the model is named, in order.
    places: Vec<Range<usize>>,
    is_form: bool,
}

impl RawBody {
    /// Reads which model a request is for. What does not say that it is a form is taken for JSON.
    ///
    /// # Errors
    /// It is neither, or it names no model.
    pub fn read(content_type: &str, bytes: Bytes) -> Result<Self, ApiError> {
        let is_form = form::is_form(content_type);
        let (model, places) = if is_form {
            form::model(content_type, &bytes)?
        } else {
            json::model(&bytes)?
        };
        Ok(RawBody {
            content_type: if is_form { content_type } else { JSON }.to_owned(),
            bytes,
            model,
            places,
            is_form,
        })
    }

    /// Whether it is a form, and not JSON.
    pub fn is_form(&self) -> bool {
        self.is_form
    }

    /// The model that the client asks for.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The media type to send it with; a form's has the boundary.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// As it came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same request for another model, in pieces of which only the names are new.
    pub fn for_model(&self, model: &str) -> Vec<Bytes> {
        let name = if self.is_form {
            Bytes::copy_from_slice(model.as_bytes())
        } else {
            serde_json::Value::from(model).to_string().into()
        };
        let mut pieces = Vec::with_capacity(self.places.len() * 2 + 1);
        let mut at = 0;
        for place in &self.places {
            pieces.push(self.bytes.slice(at..place.start));
            pieces.push(name.clone());
            at = place.end;
        }
        pieces.push(self.bytes.slice(at..));
        pieces
    }
}
