//! JSON schemas as Google's `Schema`, which is a part of OpenAPI's.
//!
//! What it does not know would fail the request (`$schema`, `additionalProperties`, an `enum` of numbers, ...), in
//! `cachedContents.create` even where `generateContent` lets it pass (BerriAI/litellm#16961), so both get the same:
//! - local references are put in place of `$ref`; one that refers to itself ends as an object without properties
//! - `oneOf` is `anyOf`, the schemas of `allOf` become one, `const` is an `enum` of one
//! - of several types `null` becomes `nullable` and the others `anyOf`
//! - `enum` stays for strings only, `required` for declared properties only, `format` where Google has it
//! - all other unknown keywords are left out; the order of keys is kept

use serde_json::{Map, Value, json};

use crate::error::ApiError;

/// Most schemas that one tool's schema may hold after its references are put in place.
const SCHEMAS_MAX: usize = 10_000;
/// How deep schemas may be nested then.
const DEPTH_MAX: usize = 64;

/// Keywords whose values are taken over as they are.
const KEPT: &[&str] = &[
    "title",
    "description",
    "nullable",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "example",
    "default",
    "propertyOrdering",
];

/// `schema`, the field `param`, for Google. `None`: it demands nothing.
///
/// # Errors
/// Its references make it too large.
pub(super) fn sanitised(schema: &Value, param: &str) -> Result<Option<Value>, ApiError> {
    let mut sanitiser = Sanitiser {
        root: schema,
        schemas_left: SCHEMAS_MAX,
        depth: 0,
        references: Vec::new(),
    };
    let Some(mut schema) = sanitiser.schema(schema) else {
        return Err(ApiError::unsupported(
            param,
            format!(
                "is too large for this model: once its references are put in place it has more than {SCHEMAS_MAX} \
                 schemas, or they are nested more than {DEPTH_MAX} deep"
            ),
        ));
    };
    // A function without parameters has no schema; Google refuses an object without properties here.
    if schema.get("type").is_none_or(|kind| kind == "object")
        && !["properties", "anyOf"]
            .iter()
            .any(|key| schema.contains_key(*key))
    {
        return Ok(None);
    }
    if !schema.contains_key("type") && schema.contains_key("properties") {
        schema.insert("type".to_owned(), "object".into());
    }
    Ok(Some(Value::Object(schema)))
}

struct Sanitiser<'a> {
    root: &'a Value,
    schemas_left: usize,
    depth: usize,
    /// Those being put in place.
    references: Vec<&'a str>,
}

impl<'a> Sanitiser<'a> {
    /// `None`: there are too many.
    fn schema(&mut self, schema: &'a Value) -> Option<Map<String, Value>> {
        self.schemas_left = self.schemas_left.checked_sub(1)?;
        if self.depth >= DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let sanitised = self.keywords(schema);
        self.depth -= 1;
        sanitised
    }

    fn keywords(&mut self, schema: &'a Value) -> Option<Map<String, Value>> {
        let mut out = Map::new();
        // `true` and `false` are schemas, too.
        let Value::Object(schema) = schema else {
            return Some(out);
        };
        for (key, value) in schema {
            match key.as_str() {
                "$ref" => self.reference(value, &mut out)?,
                "type" => set_type(value, &mut out),
                "enum" => set_enum(value, schema.get("type"), &mut out),
                "const" => set_enum(&json!([value]), schema.get("type"), &mut out),
                "format" => set_format(value, schema.get("type"), &mut out),
                "properties" => {
                    let Value::Object(properties) = value else {
                        continue;
                    };
                    let mut kept = Map::new();
                    for (name, property) in properties {
                        let property = self.schema(property)?;
                        kept.insert(name.clone(), Value::Object(property));
                    }
                    merge_properties(kept, &mut out);
                }
                "items" => {
                    let items = self.schema(value)?;
                    out.insert("items".to_owned(), Value::Object(items));
                }
                "anyOf" | "oneOf" => {
                    let Value::Array(choices) = value else {
                        continue;
                    };
                    self.any_of(choices, &mut out)?;
                }
                "allOf" => {
                    let Value::Array(parts) = value else { continue };
                    for part in parts {
                        let part = self.schema(part)?;
                        merge(part, &mut out);
                    }
                }
                "required" => {
                    let Value::Array(names) = value else { continue };
                    merge_required(names, &mut out);
                }
                key if KEPT.contains(&key) && !value.is_null() => {
                    out.insert(key.to_owned(), value.clone());
                }
                _ => {}
            }
        }
        drop_undeclared(&mut out);
        Some(out)
    }

    fn reference(&mut self, reference: &'a Value, out: &mut Map<String, Value>) -> Option<()> {
        let root = self.root;
        let pointer = reference
            .as_str()
            .and_then(|reference| reference.strip_prefix('#'))
            .filter(|pointer| !self.references.contains(pointer));
        let target = pointer.and_then(|pointer| Some((pointer, root.pointer(pointer)?)));
        match target {
            Some((pointer, target)) => {
                self.references.push(pointer);
                let target = self.schema(target);
                self.references.pop();
                merge(target?, out);
            }
            None => merge(Map::from_iter([("type".to_owned(), "object".into())]), out),
        }
        Some(())
    }

    fn any_of(&mut self, choices: &'a [Value], out: &mut Map<String, Value>) -> Option<()> {
        let mut kept = Vec::new();
        for choice in choices {
            if choice.get("type").is_some_and(|kind| kind == "null") {
                out.insert("nullable".to_owned(), true.into());
            } else {
                kept.push(Value::Object(self.schema(choice)?));
            }
        }
        // Optional fields come as a choice of one.
        match kept.len() {
            0 => {}
            1 => {
                if let Some(Value::Object(only)) = kept.pop() {
                    merge(only, out);
                }
            }
            _ => {
                out.insert("anyOf".to_owned(), kept.into());
            }
        }
        Some(())
    }
}

fn set_type(value: &Value, out: &mut Map<String, Value>) {
    let kinds = match value {
        Value::String(_) => vec![value],
        Value::Array(kinds) => kinds.iter().filter(|kind| kind.is_string()).collect(),
        _ => return,
    };
    let count = kinds.len();
    let mut kinds: Vec<Value> = kinds
        .into_iter()
        .filter(|kind| *kind != "null")
        .cloned()
        .collect();
    if kinds.len() < count {
        out.insert("nullable".to_owned(), true.into());
    }
    match kinds.len() {
        0 => {}
        1 => {
            out.insert("type".to_owned(), kinds.remove(0));
        }
        _ => {
            let choices: Vec<Value> = kinds
                .into_iter()
                .map(|kind| json!({"type": kind}))
                .collect();
            out.insert("anyOf".to_owned(), choices.into());
        }
    }
}

fn is_string_type(kind: Option<&Value>) -> bool {
    match kind {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().all(|kind| kind == "string" || kind == "null"),
        Some(kind) => kind == "string",
    }
}

fn set_enum(values: &Value, kind: Option<&Value>, out: &mut Map<String, Value>) {
    let Value::Array(values) = values else { return };
    let texts: Vec<Value> = values
        .iter()
        .filter(|value| value.is_string())
        .cloned()
        .collect();
    let nulls = values.iter().filter(|value| value.is_null()).count();
    if texts.is_empty() || texts.len() + nulls < values.len() || !is_string_type(kind) {
        return;
    }
    if nulls > 0 {
        out.insert("nullable".to_owned(), true.into());
    }
    if kind.is_none() {
        out.insert("type".to_owned(), "string".into());
    }
    out.insert("enum".to_owned(), texts.into());
}

fn set_format(format: &Value, kind: Option<&Value>, out: &mut Map<String, Value>) {
    let Some(format) = format.as_str() else {
        return;
    };
    let known: &[&str] = match kind.and_then(Value::as_str) {
        Some("string") => &["date-time", "enum"],
        Some("number") => &["float", "double"],
        Some("integer") => &["int32", "int64"],
        _ => &[],
    };
    if known.contains(&format) {
        out.insert("format".to_owned(), format.into());
    }
}

/// What stands beside the merged schema wins, but for properties and required ones, of which both count.
fn merge(from: Map<String, Value>, out: &mut Map<String, Value>) {
    for (key, value) in from {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => merge_properties(properties, out),
            ("required", Value::Array(names)) => merge_required(&names, out),
            (_, value) => {
                out.entry(key).or_insert(value);
            }
        }
    }
}

fn merge_properties(properties: Map<String, Value>, out: &mut Map<String, Value>) {
    if properties.is_empty() {
        return;
    }
    match out.get_mut("properties") {
        Some(Value::Object(known)) => {
            for (name, property) in properties {
                known.entry(name).or_insert(property);
            }
        }
        _ => {
            out.insert("properties".to_owned(), properties.into());
        }
    }
}

fn merge_required(names: &[Value], out: &mut Map<String, Value>) {
    let known = out
        .entry("required")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(known) = known {
        for name in names.iter().filter(|name| name.is_string()) {
            if !known.contains(name) {
                known.push(name.clone());
            }
        }
    }
}

/// Google refuses a schema that requires what it does not declare.
fn drop_undeclared(out: &mut Map<String, Value>) {
    let Some(Value::Array(mut required)) = out.get("required").cloned() else {
        return;
    };
    let properties = out.get("properties").and_then(Value::as_object);
    required.retain(|name| {
        name.as_str()
            .is_some_and(|name| properties.is_some_and(|known| known.contains_key(name)))
    });
    if required.is_empty() {
        // `shift_remove` keeps the order of the others.
        out.shift_remove("required");
    } else {
        out.insert("required".to_owned(), required.into());
    }
}
