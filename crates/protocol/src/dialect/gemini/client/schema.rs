//! Google's `Schema`, which is a part of OpenAPI's, as JSON Schema:
//! - types in small letters; `nullable` is a type or a choice more
//! - the order of properties is that of `propertyOrdering`
//! - `ref` and `defs` have their sign, `example` is one of `examples`
//! - sizes that came as strings, as 64-bit numbers do in the JSON of protocol buffers, are numbers, and so are the values
//!   of an `enum` of numbers
//! - formats that only OpenAPI knows are left out
//!
//! Whatever is JSON Schema already stays as it is.

use serde_json::{Map, Value, json};

use crate::dialect::fields::camel_case;

/// Formats of OpenAPI's that say nothing in JSON Schema.
const FORMATS: &[&str] = &["enum", "int32", "int64", "float", "double"];

/// The schema as JSON Schema.
pub(super) fn json_schema(schema: Value) -> Value {
    match schema {
        Value::Object(schema) => Value::Object(keywords(schema)),
        other => other,
    }
}

fn keywords(schema: Map<String, Value>) -> Map<String, Value> {
    let kind = schema.get("type").and_then(Value::as_str);
    let is_numeric = kind.is_some_and(|kind| {
        kind.eq_ignore_ascii_case("integer") || kind.eq_ignore_ascii_case("number")
    });
    let mut out = Map::new();
    let mut is_nullable = false;
    let mut order = Vec::new();
    for (key, value) in schema {
        let name = camel_case(&key);
        match (name.as_str(), value) {
            ("default" | "const" | "enum", Value::Null) => {
                out.insert(name, Value::Null);
            }
            (_, Value::Null) => {}
            ("type", value) => put_type(value, &mut out),
            ("nullable", value) => is_nullable = value == true,
            ("format", Value::String(format)) if FORMATS.contains(&format.as_str()) => {}
            ("propertyOrdering", Value::Array(names)) => order = names,
            ("example", value) => {
                out.insert("examples".to_owned(), json!([value]));
            }
            ("enum", Value::Array(values)) if is_numeric => {
                out.insert(name, values.into_iter().map(number).collect());
            }
            ("ref" | "$ref", Value::String(target)) => {
                let target = match target.strip_prefix("#/defs/") {
                    Some(name) => format!("#/$defs/{name}"),
                    None => target,
                };
                out.insert("$ref".to_owned(), target.into());
            }
            ("defs" | "$defs", value) => {
                out.insert("$defs".to_owned(), each(value));
            }
            ("properties", value) => {
                out.insert(name, each(value));
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(schemas)) => {
                let schemas: Vec<Value> = schemas.into_iter().map(json_schema).collect();
                out.insert(name, schemas.into());
            }
            ("items" | "additionalProperties" | "not", value) => {
                out.insert(name, json_schema(value));
            }
            (
                "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties"
                | "maxProperties",
                value,
            ) => {
                out.insert(name, number(value));
            }
            (_, value) => {
                out.insert(key, value);
            }
        }
    }
    put_in_order(&order, &mut out);
    if is_nullable {
        admit_null(&mut out);
    }
    out
}

/// Each schema of an object of schemas.
fn each(schemas: Value) -> Value {
    match schemas {
        Value::Object(schemas) => {
            let schemas = schemas.into_iter();
            schemas
                .map(|(name, schema)| (name, json_schema(schema)))
                .collect::<Map<_, _>>()
                .into()
        }
        other => other,
    }
}

fn put_type(value: Value, out: &mut Map<String, Value>) {
    let small = |value: Value| match value {
        Value::String(word) => Value::String(word.to_ascii_lowercase()),
        other => other,
    };
    let value = match value {
        Value::Array(kinds) => kinds.into_iter().map(small).collect(),
        value => small(value),
    };
    if value != "type_unspecified" {
        out.insert("type".to_owned(), value);
    }
}

/// A number that came as a string.
fn number(value: Value) -> Value {
    let parsed = value
        .as_str()
        .and_then(|text| serde_json::from_str::<serde_json::Number>(text).ok());
    parsed.map_or(value, Value::Number)
}

fn put_in_order(order: &[Value], out: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = out.get_mut("properties") else {
        return;
    };
    let mut ordered = Map::new();
    for name in order.iter().filter_map(Value::as_str) {
        if let Some(property) = properties.shift_remove(name) {
            ordered.insert(name.to_owned(), property);
        }
    }
    ordered.append(properties);
    *properties = ordered;
}

fn admit_null(out: &mut Map<String, Value>) {
    if let Some(Value::Array(values)) = out.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    if out.contains_key("$ref") {
        let referring = Value::Object(std::mem::take(out));
        out.insert("anyOf".to_owned(), json!([referring, {"type": "null"}]));
        return;
    }
    match (out.get("type").cloned(), out.get_mut("anyOf")) {
        (Some(Value::Array(mut kinds)), _) => {
            if !kinds.iter().any(|kind| kind == "null") {
                kinds.push("null".into());
            }
            out.insert("type".to_owned(), kinds.into());
        }
        (Some(kind), _) if kind != "null" => {
            out.insert("type".to_owned(), json!([kind, "null"]));
        }
        (None, Some(Value::Array(choices))) => choices.push(json!({"type": "null"})),
        _ => {}
    }
}
