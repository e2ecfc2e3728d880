//! The JSON of protocol buffers, where it is wider than plain JSON.

use serde_json::Value;

use crate::dialect::fields::Fields;
use crate::error::{ApiError, ErrorKind};

/// The body of a request.
pub(super) fn body(body: &[u8]) -> Result<Fields, ApiError> {
    Ok(Fields::of_body(body)?.in_camel_case())
}

/// The object at `path`.
pub(super) fn message(value: Value, path: String, kind: ErrorKind) -> Result<Fields, ApiError> {
    Ok(Fields::of_value(value, path, kind)?.in_camel_case())
}

/// The object in the field `key`.
pub(super) fn object(fields: &mut Fields, key: &str) -> Result<Option<Fields>, ApiError> {
    Ok(fields.object(key)?.map(Fields::in_camel_case))
}

/// An array of at most `length_max` values, each with its path; one object stands for an array of one.
pub(super) fn list(
    fields: &mut Fields,
    key: &str,
    length_max: usize,
) -> Result<Vec<(String, Value)>, ApiError> {
    let values = match fields.value(key) {
        None => return Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() > length_max => {
            return Err(fields.invalid(
                key,
                format!(
                    "has {} elements but may have at most {length_max}",
                    values.len()
                ),
            ));
        }
        Some(Value::Array(values)) => values,
        Some(one @ Value::Object(_)) => vec![one],
        Some(other) => return Err(fields.wrong_type(key, "an array", &other)),
    };
    let path = fields.path_of(key);
    let numbered = values.into_iter().enumerate();
    Ok(numbered
        .map(|(index, value)| (format!("{path}[{index}]"), value))
        .collect())
}

/// An array of strings.
pub(super) fn texts(
    fields: &mut Fields,
    key: &str,
    length_max: usize,
) -> Result<Vec<String>, ApiError> {
    let values = fields.array(key, length_max)?.unwrap_or_default();
    let texts = values.into_iter().enumerate().map(|(index, value)| {
        let key = format!("{key}[{index}]");
        match value {
            Value::String(text) if text.is_empty() => {
                Err(fields.invalid(&key, "must not be empty"))
            }
            Value::String(text) => Ok(text),
            other => Err(fields.wrong_type(&key, "a string", &other)),
        }
    });
    texts.collect()
}

/// A word of an enumeration, in capitals. The one that means that nothing was said is unset.
pub(super) fn word(fields: &mut Fields, key: &str) -> Result<Option<String>, ApiError> {
    let word = fields.string(key)?.map(|word| word.to_ascii_uppercase());
    Ok(word.filter(|word| !word.ends_with("_UNSPECIFIED")))
}
