//! Functions, and the choice among them.

use serde_json::Value;

use super::proto::{list, message, object, texts, word};
use super::schema::json_schema;
use crate::chat::{Tool, ToolChoice};
use crate::dialect::fields::{Fields, invalid};
use crate::error::{ApiError, ErrorKind};

const TOOLS_MAX: usize = 1_024;
const NAME_MAX: usize = 128;
const KIND: ErrorKind = ErrorKind::InvalidParameter;
/// Tools that Google runs itself, as far as they have names here.
const GOOGLES: &[&str] = &[
    "googleSearch",
    "googleSearchRetrieval",
    "googleMaps",
    "codeExecution",
    "urlContext",
    "fileSearch",
    "computerUse",
    "enterpriseWebSearch",
    "parallelAiSearch",
    "exaAiSearch",
    "retrieval",
    "mcpServers",
];

/// What a request says of tools.
#[derive(Debug, Default)]
pub(super) struct Offer {
    pub(super) tools: Vec<Tool>,
    pub(super) choice: Option<ToolChoice>,
    /// The first tool that only Google itself can run.
    pub(super) only: Option<ApiError>,
}

/// `tools` and `toolConfig`.
pub(super) fn offer(fields: &mut Fields) -> Result<Offer, ApiError> {
    let mut offer = Offer::default();
    for (path, tool) in list(fields, "tools", TOOLS_MAX)? {
        let mut tool = message(tool, path.clone(), KIND)?;
        for (path, function) in list(&mut tool, "functionDeclarations", TOOLS_MAX)? {
            offer.declare(message(function, path, KIND)?)?;
        }
        let rest = tool.rest();
        if let Some(key) = rest.keys().next() {
            let param = match GOOGLES.contains(&key.as_str()) {
                true => format!("{path}.{key}"),
                false => path,
            };
            offer.only.get_or_insert(ApiError::unsupported(
                &param,
                "is a tool that Google runs itself, or is not known here: only functions can be offered",
            ));
        }
    }
    if let Some(mut config) = object(fields, "toolConfig")?
        && let Some(config) = object(&mut config, "functionCallingConfig")?
    {
        offer.choose(config)?;
    }
    Ok(offer)
}

impl Offer {
    fn declare(&mut self, mut function: Fields) -> Result<(), ApiError> {
        let name = function.required_string("name")?;
        let is_name = |symbol: char| {
            symbol.is_ascii_alphanumeric() || matches!(symbol, '_' | '-' | '.' | ':')
        };
        if name.len() > NAME_MAX || !name.chars().all(is_name) {
            return Err(function.invalid(
                "name",
                format!("must be 1 to {NAME_MAX} letters, digits, `_`, `.`, `:` and `-`"),
            ));
        }
        if self.tools.iter().any(|known| known.name == name) {
            return Err(function.invalid("name", "is another function's, too"));
        }
        let schema = function.map("parameters")?.map(Value::Object);
        let given = function.map("parametersJsonSchema")?.map(Value::Object);
        if schema.is_some() && given.is_some() {
            return Err(
                function.invalid("parametersJsonSchema", "can't be given beside `parameters`")
            );
        }
        let is_said = |schema: &Value| schema.as_object().is_some_and(|map| !map.is_empty());
        self.tools.push(Tool {
            name,
            description: function.string("description")?,
            parameters: schema.map(json_schema).or(given).filter(is_said),
            strict: None,
        });
        Ok(())
    }

    fn choose(&mut self, mut config: Fields) -> Result<(), ApiError> {
        let mode = word(&mut config, "mode")?;
        let mut allowed = texts(&mut config, "allowedFunctionNames", TOOLS_MAX)?;
        let is_declared = |name: &String| self.tools.iter().any(|tool| tool.name == *name);
        if let Some(at) = allowed.iter().position(|name| !is_declared(name)) {
            let path = config.path_of(&format!("allowedFunctionNames[{at}]"));
            return Err(invalid(KIND, &path, "names no function of `tools`"));
        }
        self.choice = match mode.as_deref() {
            None => None,
            Some("AUTO") => Some(ToolChoice::Auto),
            Some("NONE") => Some(ToolChoice::None),
            Some("ANY") if allowed.len() == 1 => allowed.pop().map(ToolChoice::Named),
            Some("ANY") => {
                self.leave_only(&allowed);
                Some(ToolChoice::Required)
            }
            Some("VALIDATED") => {
                self.leave_only(&allowed);
                Some(ToolChoice::Auto)
            }
            Some(_) => return Err(config.invalid("mode", "must be AUTO, ANY, NONE or VALIDATED")),
        };
        Ok(())
    }

    fn leave_only(&mut self, allowed: &[String]) {
        if !allowed.is_empty() {
            self.tools.retain(|tool| allowed.contains(&tool.name));
        }
    }
}

/// Whether a request sets tools at all, were they wrong.
pub(super) fn is_set(tools: &Value) -> bool {
    match tools {
        Value::Array(tools) => tools.iter().any(is_set),
        Value::Object(tool) => tool.values().any(|value| match value {
            Value::Array(functions) => !functions.is_empty(),
            value => !value.is_null(),
        }),
        _ => false,
    }
}
