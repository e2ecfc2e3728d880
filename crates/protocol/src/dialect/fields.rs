//! Reads JSON objects field by field, with errors that name the path and never repeat what the client wrote.
//!
//! serde's own errors quote the offending value, which may be prompt text; that is why requests are not read by derive.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Number, Value};

use crate::error::{ApiError, ErrorKind};

/// A JSON object being taken apart. Null counts as absent everywhere, and so does `""` in optional strings, because
/// real clients send all three for "unset".
#[derive(Debug)]
pub(crate) struct Fields {
    object: Map<String, Value>,
    /// Where the object stands in the body, e.g. `messages[2]`; empty for the body itself.
    path: String,
    /// What a bad field here is an error of.
    kind: ErrorKind,
}

impl Fields {
    /// The body of a request.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, ApiError> {
        let value = serde_json::from_slice(body).map_err(|error| {
            ApiError::new(
                ErrorKind::InvalidJson,
                // serde's wording for syntax errors gives line and column and quotes nothing of the body.
                format!("The request body is not valid JSON: {error}."),
            )
        })?;
        match value {
            Value::Object(object) => Ok(Fields {
                object,
                path: String::new(),
                kind: ErrorKind::InvalidParameter,
            }),
            other => Err(ApiError::new(
                ErrorKind::InvalidJson,
                format!(
                    "The request body must be a JSON object, not {}.",
                    json_type(&other)
                ),
            )),
        }
    }

    /// The object at `path`.
    pub(crate) fn of_value(value: Value, path: String, kind: ErrorKind) -> Result<Self, ApiError> {
        match value {
            Value::Object(object) => Ok(Fields { object, path, kind }),
            other => Err(wrong_type(kind, &path, "an object", &other)),
        }
    }

    /// The same with every name in camelCase: the JSON of protocol buffers knows each name in snake_case, too. Of a field
    /// that is there under both, the one that is set counts.
    pub(crate) fn in_camel_case(mut self) -> Self {
        if self.object.keys().any(|key| key.contains('_')) {
            let mut object = Map::new();
            for (key, value) in self.object {
                let key = camel_case(&key);
                if object.get(&key).is_none_or(Value::is_null) {
                    object.insert(key, value);
                }
            }
            self.object = object;
        }
        self
    }

    /// Where the object stands in the body.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The path of a field of this object.
    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// An error about the field `key`; `problem` completes the sentence "`key` ...".
    pub(crate) fn invalid(&self, key: &str, problem: impl Display) -> ApiError {
        invalid(self.kind, &self.path_of(key), problem)
    }

    /// An error about the missing field `key`.
    pub(crate) fn missing(&self, key: &str) -> ApiError {
        let path = self.path_of(key);
        match self.kind {
            ErrorKind::InvalidParameter => ApiError::missing(&path),
            kind => invalid(kind, &path, "is required"),
        }
    }

    /// Whether the field is there and not null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The field as it stands there, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// Takes the field out, unless it is absent or null.
    pub(crate) fn value(&mut self, key: &str) -> Option<Value> {
        self.object
            .get_mut(key)
            .map(Value::take)
            .filter(|value| !value.is_null())
    }

    /// A string; `""` is unset.
    pub(crate) fn string(&mut self, key: &str) -> Result<Option<String>, ApiError> {
        Ok(self.text(key)?.filter(|text| !text.is_empty()))
    }

    /// A string that may be empty.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, ApiError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(key, "a string", &other)),
        }
    }

    /// A string that must be there.
    pub(crate) fn required_string(&mut self, key: &str) -> Result<String, ApiError> {
        self.string(key)?.ok_or_else(|| self.missing(key))
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong_type(key, "true or false", &other)),
        }
    }

    /// A whole number within `range`; `3.0` is one.
    pub(crate) fn integer(
        &mut self,
        key: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        let number = match self.value(key) {
            None => return Ok(None),
            Some(Value::Number(number)) => number,
            Some(other) => return Err(self.wrong_type(key, "a whole number", &other)),
        };
        whole(&number)
            .filter(|value| range.contains(value))
            .map(Some)
            .ok_or_else(|| {
                self.invalid(
                    key,
                    format!(
                        "must be a whole number from {} to {}",
                        range.start(),
                        range.end()
                    ),
                )
            })
    }

    /// A whole number from `minimum` on that fits in 32 bits.
    pub(crate) fn count(&mut self, key: &str, minimum: u32) -> Result<Option<u32>, ApiError> {
        let value = self.integer(key, i64::from(minimum)..=i64::from(u32::MAX))?;
        Ok(value.and_then(|value| u32::try_from(value).ok()))
    }

    /// A number within `range`.
    pub(crate) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f32>, ApiError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => bounded(self.kind, &self.path_of(key), &value, range).map(Some),
        }
    }

    /// An array of at most `length_max` values.
    pub(crate) fn array(
        &mut self,
        key: &str,
        length_max: usize,
    ) -> Result<Option<Vec<Value>>, ApiError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Array(values)) if values.len() > length_max => Err(self.invalid(
                key,
                format!(
                    "has {} elements but may have at most {length_max}",
                    values.len()
                ),
            )),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(other) => Err(self.wrong_type(key, "an array", &other)),
        }
    }

    /// An object, to be read in turn.
    pub(crate) fn object(&mut self, key: &str) -> Result<Option<Fields>, ApiError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => Fields::of_value(value, self.path_of(key), self.kind).map(Some),
        }
    }

    /// An object, kept as it is.
    pub(crate) fn map(&mut self, key: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        Ok(self.object(key)?.map(|fields| fields.object))
    }

    /// The fields not taken, in their order; unset ones are left out.
    pub(crate) fn rest(self) -> Map<String, Value> {
        self.object
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect()
    }

    /// An error about the JSON type of the field `key`.
    pub(crate) fn wrong_type(&self, key: &str, wanted: &str, found: &Value) -> ApiError {
        wrong_type(self.kind, &self.path_of(key), wanted, found)
    }
}

/// An error of `kind` about the value at `path`.
pub(crate) fn invalid(kind: ErrorKind, path: &str, problem: impl Display) -> ApiError {
    ApiError::new(kind, format!("`{path}` {problem}")).with_param(path)
}

/// An error of `kind` about the JSON type of the value at `path`.
pub(crate) fn wrong_type(kind: ErrorKind, path: &str, wanted: &str, found: &Value) -> ApiError {
    let found = json_type(found);
    invalid(kind, path, format!("must be {wanted}, not {found}"))
}

/// The number at `path`, within `range`.
pub(crate) fn bounded(
    kind: ErrorKind,
    path: &str,
    value: &Value,
    range: RangeInclusive<f64>,
) -> Result<f32, ApiError> {
    let Value::Number(number) = value else {
        return Err(wrong_type(kind, path, "a number", value));
    };
    number
        .as_f64()
        .filter(|number| range.contains(number))
        .map(|number| number as f32)
        .ok_or_else(|| {
            let problem = format!("must be from {} to {}", range.start(), range.end());
            invalid(kind, path, problem)
        })
}

/// A name in snake_case as one in camelCase; others stay as they are.
pub(crate) fn camel_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut is_first = false;
    for symbol in name.chars() {
        match symbol {
            '_' => is_first = true,
            symbol if is_first => {
                is_first = false;
                out.push(symbol.to_ascii_uppercase());
            }
            symbol => out.push(symbol),
        }
    }
    out
}

/// The number as an integer, where it is whole and fits.
pub(crate) fn whole(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        // Beyond 2^53 a float no longer says which integer was meant.
        number
            .as_f64()
            .filter(|float| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0)
            .map(|float| float as i64)
    })
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
