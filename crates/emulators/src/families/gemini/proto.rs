//! Strict proto-JSON: Google's front end parses a request against its message types before any model sees it. Names are
//! accepted in camelCase and in snake_case; a name it doesn't know is an error, wherever it stands.

use serde_json::{Map, Value, json};

use super::Host;
use super::error::{Status, error_with_details};
use crate::Reply;

/// A message type: its name without a package, and its fields.
pub(super) struct Message {
    name: &'static str,
    fields: &'static [Field],
}

pub(super) struct Field {
    /// In snake_case.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    /// The only host that has it.
    pub(super) only: Option<Host>,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Float,
    /// An enum's name and its values.
    Enum(&'static str, &'static [&'static str]),
    Message(&'static Message),
    /// Any JSON object.
    Struct,
    /// Any JSON at all.
    Any,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    Many,
    /// An object whose keys are free.
    Map,
}

pub(super) const fn message(name: &'static str, fields: &'static [Field]) -> Message {
    Message { name, fields }
}

pub(super) const fn one(name: &'static str, kind: Kind) -> Field {
    field(name, kind, Shape::One)
}

pub(super) const fn many(name: &'static str, kind: Kind) -> Field {
    field(name, kind, Shape::Many)
}

pub(super) const fn map(name: &'static str, kind: Kind) -> Field {
    field(name, kind, Shape::Map)
}

const fn field(name: &'static str, kind: Kind, shape: Shape) -> Field {
    Field {
        name,
        kind,
        shape,
        only: None,
    }
}

pub(super) const fn only(host: Host, field: Field) -> Field {
    Field {
        only: Some(host),
        ..field
    }
}

struct Violation {
    field: String,
    description: String,
}

/// Reads `value` as `message`; the result has camelCase names only and no nulls. `root` is the path of the message in
/// error texts: empty, or the field of the request that the HTTP body stands for.
pub(super) fn read(
    message: &'static Message,
    value: &Value,
    host: Host,
    root: &str,
) -> Result<Value, Box<Reply>> {
    let mut reader = Reader {
        host,
        violations: Vec::new(),
    };
    let read = reader.message(message, value, root);
    if reader.violations.is_empty() {
        return Ok(read);
    }
    let text: Vec<&str> = reader
        .violations
        .iter()
        .map(|violation| violation.description.as_str())
        .collect();
    let violations: Vec<Value> = reader
        .violations
        .iter()
        .map(|violation| json!({"field": violation.field, "description": violation.description}))
        .collect();
    Err(Box::new(error_with_details(
        Status::InvalidArgument,
        &text.join("\n"),
        json!([{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}]),
    )))
}

/// The error for a body that is no JSON object.
pub(super) fn no_json() -> Reply {
    super::error::error(
        Status::InvalidArgument,
        "Invalid JSON payload received. Unexpected token.",
    )
}

struct Reader {
    host: Host,
    violations: Vec<Violation>,
}

impl Reader {
    fn message(&mut self, message: &'static Message, value: &Value, path: &str) -> Value {
        let Some(object) = value.as_object() else {
            self.invalid(path, &self.type_name(message.name), value);
            return Value::Null;
        };
        let mut read = Map::new();
        for (key, value) in object {
            let known = message.fields.iter().find(|field| {
                (*key == field.name || *key == camel(field.name))
                    && field.only.is_none_or(|host| host == self.host)
            });
            let Some(field) = known else {
                self.unknown(key, path, "Cannot find field.");
                continue;
            };
            if value.is_null() {
                continue;
            }
            let name = camel(field.name);
            let path = join(path, field.name);
            if read.contains_key(&name) {
                self.unknown(
                    key,
                    parent(&path),
                    "Proto field is not repeating, cannot start list.",
                );
                continue;
            }
            let value = match field.shape {
                Shape::One if value.is_array() && !matches!(field.kind, Kind::Any) => {
                    self.unknown(
                        key,
                        parent(&path),
                        "Proto field is not repeating, cannot start list.",
                    );
                    continue;
                }
                Shape::One => self.value(field.kind, value, &path),
                // A single value where a list is meant is taken for a list of one.
                Shape::Many => match value.as_array() {
                    None => Value::Array(vec![self.value(field.kind, value, &path)]),
                    Some(values) => values
                        .iter()
                        .enumerate()
                        .map(|(index, value)| {
                            self.value(field.kind, value, &format!("{path}[{index}]"))
                        })
                        .collect(),
                },
                Shape::Map => self.map(field.kind, value, &path),
            };
            read.insert(name, value);
        }
        Value::Object(read)
    }

    fn map(&mut self, kind: Kind, value: &Value, path: &str) -> Value {
        let Some(object) = value.as_object() else {
            self.invalid(path, "Map", value);
            return Value::Null;
        };
        let mut read = Map::new();
        for (index, (key, value)) in object.iter().enumerate() {
            let value = self.value(kind, value, &format!("{path}[{index}].value"));
            read.insert(key.clone(), value);
        }
        Value::Object(read)
    }

    fn value(&mut self, kind: Kind, value: &Value, path: &str) -> Value {
        let is_right = match kind {
            Kind::Message(message) => return self.message(message, value, path),
            Kind::Any => true,
            Kind::Struct if value.is_object() => true,
            Kind::Struct => {
                self.invalid(path, "type.googleapis.com/google.protobuf.Struct", value);
                return Value::Null;
            }
            Kind::Enum(name, values) => {
                let known = value
                    .as_str()
                    .and_then(|text| values.iter().find(|known| known.eq_ignore_ascii_case(text)));
                match known {
                    Some(known) => return json!(known),
                    None => {
                        self.invalid(path, &self.type_name(name), value);
                        return Value::Null;
                    }
                }
            }
            Kind::String => value.is_string(),
            Kind::Bytes => value
                .as_str()
                .is_some_and(|text| decode_base64(text).is_some()),
            Kind::Bool => value.is_boolean(),
            Kind::Int32 | Kind::Int64 => match integer(value) {
                Some(number) => return json!(number),
                None => false,
            },
            Kind::Float => match number(value) {
                Some(number) => return json!(number),
                None => false,
            },
        };
        if is_right {
            return value.clone();
        }
        self.invalid(path, scalar_name(kind), value);
        Value::Null
    }

    fn unknown(&mut self, key: &str, path: &str, why: &str) {
        let at = if path.is_empty() {
            String::new()
        } else {
            format!(" at '{path}'")
        };
        self.violations.push(Violation {
            field: path.to_owned(),
            description: format!(
                "Invalid JSON payload received. Unknown name \"{key}\"{at}: {why}"
            ),
        });
    }

    fn invalid(&mut self, path: &str, type_name: &str, value: &Value) {
        self.violations.push(Violation {
            field: path.to_owned(),
            description: format!("Invalid value at '{path}' ({type_name}), {value}"),
        });
    }

    fn type_name(&self, name: &str) -> String {
        let package = match self.host {
            Host::GeminiApi => "google.ai.generativelanguage.v1beta",
            Host::Vertex => "google.cloud.aiplatform.v1",
        };
        format!("type.googleapis.com/{package}.{name}")
    }
}

fn scalar_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bytes => "TYPE_BYTES",
        Kind::Bool => "TYPE_BOOL",
        Kind::Int32 => "TYPE_INT32",
        Kind::Int64 => "TYPE_INT64",
        Kind::Float => "TYPE_FLOAT",
        _ => "TYPE_STRING",
    }
}

/// Proto-JSON takes whole numbers as numbers and as strings.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse().ok(),
        _ => value.as_i64().or_else(|| {
            let number = value.as_f64()?;
            #[allow(clippy::cast_possible_truncation)]
            (number.fract() == 0.0).then_some(number as i64)
        }),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.parse().ok(),
        _ => value.as_f64(),
    }
}

/// Standard or URL-safe alphabet, with or without padding.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text: String = text
        .trim_end_matches('=')
        .chars()
        .map(|character| match character {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    data_encoding::BASE64_NOPAD.decode(text.as_bytes()).ok()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

pub(super) fn camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut is_start = false;
    for character in name.chars() {
        if character == '_' {
            is_start = true;
        } else if is_start {
            camel.push(character.to_ascii_uppercase());
            is_start = false;
        } else {
            camel.push(character);
        }
    }
    camel
}
