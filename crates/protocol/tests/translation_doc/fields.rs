//! All that clients can say, by dialect: the fields that a dialect's documentation names, and those that its clients send.

pub(crate) mod anthropic;
pub(crate) mod gemini;
pub(crate) mod openai;
pub(crate) mod responses;

use serde_json::{Value, json};

/// One thing that a client can say.
pub(crate) struct Row {
    /// How the document calls it.
    pub(crate) name: &'static str,
    /// Fields that a request must have before it, beside those of the smallest request.
    pub(crate) base: Value,
    /// The fields that say it.
    pub(crate) body: Value,
}

/// An object with more fields.
pub(crate) fn extended(mut object: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else {
        panic!("fields are an object");
    };
    object.as_object_mut().unwrap().extend(fields);
    object
}

fn row(name: &'static str, body: Value) -> Row {
    row_on(name, json!({}), body)
}

fn row_on(name: &'static str, base: Value, body: Value) -> Row {
    Row { name, base, body }
}
