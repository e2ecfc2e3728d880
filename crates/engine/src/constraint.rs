//! Output that must follow a grammar: JSON, JSON that validates against a schema, forced tool calls.
//!
//! With the feature `llama` grammars are enforced by llguidance over the model's own vocabulary; without it, and for
//! the toy model, every grammar is refused.

#[cfg(feature = "llama")]
mod guidance;
#[cfg(test)]
mod tests;

#[cfg(feature = "llama")]
use std::sync::Arc;

use holdfast_protocol::chat::Tool;
use serde_json::{Map, Value, json};

use crate::Token;
use crate::error::EngineError;

/// Bytes of JSON text one schema may have, and the schemas of all tools together.
const SCHEMA_BYTES_MAX: usize = 64 * 1024;
const TOOLS_BYTES_MAX: usize = 256 * 1024;
/// How deep values may be nested in a schema. Compilers of schemas recurse, and the caller's stack is small.
const SCHEMA_DEPTH_MAX: usize = 48;
/// Values of `format` that can be enforced.
const FORMATS: [&str; 10] = [
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
];

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that validates against this schema.
    JsonSchema(Value),
    /// One call of a tool, written as `{"name": ..., "arguments": {...}}`. A forced answer is always a single call,
    /// with `parallel` too: a lone call is valid in both cases, and small models repeat calls when they may.
    ToolCalls {
        /// The tools that may be called.
        tools: Vec<Tool>,
        /// The one that must be called.
        named: Option<String>,
        /// Whether the client accepts several calls.
        parallel: bool,
    },
}

impl Grammar {
    /// The JSON schema that says the same.
    fn schema(&self) -> Result<Value, EngineError> {
        match self {
            Grammar::JsonObject => Ok(json!({"type": "object"})),
            Grammar::JsonSchema(schema) => checked(schema, "the schema"),
            Grammar::ToolCalls {
                tools,
                named,
                parallel: _,
            } => {
                let callable: Vec<&Tool> = tools
                    .iter()
                    .filter(|tool| named.as_ref().is_none_or(|named| *named == tool.name))
                    .collect();
                if callable.is_empty() {
                    return Err(EngineError::Grammar(
                        "there is no tool that could be called".to_owned(),
                    ));
                }
                let calls = callable
                    .iter()
                    .enumerate()
                    .map(|(index, tool)| call_schema(tool, index));
                let schema = json!({"anyOf": calls.collect::<Result<Vec<Value>, _>>()?});
                if schema.to_string().len() > TOOLS_BYTES_MAX {
                    return Err(EngineError::Grammar(format!(
                        "the parameters of all tools together are more than {TOOLS_BYTES_MAX} bytes of JSON"
                    )));
                }
                Ok(schema)
            }
        }
    }
}

/// The schema of a call of one tool, for place `index` of an `anyOf` at the root.
fn call_schema(tool: &Tool, index: usize) -> Result<Value, EngineError> {
    let subject = format!("the schema of the parameters of `{}`", tool.name);
    let mut parameters = match &tool.parameters {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(parameters) => checked(parameters, &subject)?,
    };
    let Some(object) = parameters.as_object_mut() else {
        return Err(EngineError::Grammar(format!("{subject} is not an object")));
    };
    object.entry("type").or_insert_with(|| json!("object"));
    // Without this every call could carry invented parameters, and small models do invent them. A narrower answer is
    // still one that validates. Composed schemas are left alone: closing one part would shut out the properties of the
    // others.
    let composed = ["allOf", "anyOf", "oneOf", "$ref", "patternProperties"]
        .iter()
        .any(|key| object.contains_key(*key));
    if !composed {
        object
            .entry("additionalProperties")
            .or_insert(Value::Bool(false));
    }
    // References are relative to the root, which is now further up.
    object.remove("$schema");
    object.remove("$id");
    move_references(
        &mut parameters,
        &format!("#/anyOf/{index}/properties/arguments"),
    );
    Ok(json!({
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": false,
    }))
}

fn move_references(schema: &mut Value, root: &str) {
    each_object(schema, &mut |object| {
        if let Some(Value::String(target)) = object.get_mut("$ref") {
            let inside = target
                .strip_prefix('#')
                .filter(|path| path.is_empty() || path.starts_with('/'));
            if let Some(path) = inside {
                *target = format!("{root}{path}");
            }
        }
    });
}

/// JSON schema calls `format` a remark; one that no grammar is known for is no reason to refuse a schema.
fn forget_unknown_formats(schema: &mut Value) {
    each_object(schema, &mut |object| {
        if matches!(object.get("format"), Some(Value::String(format)) if !FORMATS.contains(&format.as_str()))
        {
            object.remove("format");
        }
    });
}

/// Visits the objects of a schema that are not data: what looks like a schema inside `const` is meant literally.
fn each_object(schema: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| each_object(item, change)),
        Value::Object(object) => {
            change(object);
            for (key, member) in object {
                if !matches!(key.as_str(), "const" | "enum" | "default" | "examples") {
                    each_object(member, change);
                }
            }
        }
        _ => {}
    }
}

/// A copy of a client's schema, if its size and form are acceptable.
fn checked(schema: &Value, subject: &str) -> Result<Value, EngineError> {
    let refuse = |why: String| Err(EngineError::Grammar(format!("{subject} {why}")));
    if !schema.is_object() {
        return refuse("is not an object".to_owned());
    }
    if deeper_than(schema, SCHEMA_DEPTH_MAX) {
        return refuse(format!(
            "is nested more than {SCHEMA_DEPTH_MAX} levels deep"
        ));
    }
    if schema.to_string().len() > SCHEMA_BYTES_MAX {
        return refuse(format!("is more than {SCHEMA_BYTES_MAX} bytes of JSON"));
    }
    let mut schema = schema.clone();
    forget_unknown_formats(&mut schema);
    Ok(schema)
}

fn deeper_than(value: &Value, levels: usize) -> bool {
    let mut children: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(members) => Box::new(members.values()),
        _ => return false,
    };
    levels == 0 || children.any(|child| deeper_than(child, levels - 1))
}

/// A grammar at work on one choice.
pub trait Constraint: Send {
    /// Sets the logits of tokens that may not come next to negative infinity.
    fn mask(&mut self, logits: &mut [f32]);

    /// Moves on by a token.
    ///
    /// # Errors
    /// `Grammar` when the token is not allowed here or the grammar grew beyond its limits.
    fn accept(&mut self, token: Token) -> Result<(), EngineError>;

    /// Whether nothing more may follow.
    fn is_complete(&self) -> bool;
}

/// Builds constraints for one model. Cheap to clone.
#[derive(Clone)]
pub struct ConstraintFactory {
    #[cfg(feature = "llama")]
    guidance: Option<Arc<guidance::Guidance>>,
}

impl ConstraintFactory {
    /// For a model without a vocabulary that grammars can work on: refuses every grammar.
    pub fn none() -> Self {
        ConstraintFactory {
            #[cfg(feature = "llama")]
            guidance: None,
        }
    }

    /// For a model whose vocabulary is at hand.
    #[cfg(feature = "llama")]
    pub fn from_tok_env(vocabulary: llguidance::toktrie::TokEnv) -> Self {
        Self::lazy(Box::new(move || vocabulary.clone()))
    }

    /// For a model whose vocabulary is read at the first grammar, so that starting does not pay for it.
    #[cfg(feature = "llama")]
    pub fn lazy(vocabulary: Box<dyn Fn() -> llguidance::toktrie::TokEnv + Send + Sync>) -> Self {
        ConstraintFactory {
            guidance: Some(Arc::new(guidance::Guidance::new(vocabulary))),
        }
    }

    /// A constraint at the beginning of an answer. An ordinary schema takes a millisecond, the worst below a second,
    /// and the first one of a model a fifth of a second more: call it where blocking is allowed.
    ///
    /// # Errors
    /// `Grammar` with what is wrong or not supported.
    pub fn build(&self, grammar: &Grammar) -> Result<Box<dyn Constraint>, EngineError> {
        let schema = grammar.schema()?;
        #[cfg(feature = "llama")]
        if let Some(guidance) = &self.guidance {
            return guidance.build(schema);
        }
        drop(schema);
        Err(EngineError::Grammar(
            "this model has no support for forced output".to_owned(),
        ))
    }
}
