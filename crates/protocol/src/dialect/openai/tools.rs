//! Tools and the choice among them.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use super::TOOLS_MAX;
use crate::chat::{Tool, ToolChoice};
use crate::dialect::fields::{Fields, invalid};
use crate::error::{ApiError, ErrorKind};

const NAME_LENGTH_MAX: usize = 64;

/// `tools`, or its deprecated form `functions`.
pub(super) fn decode_tools(fields: &mut Fields) -> Result<Vec<Tool>, ApiError> {
    let tools = decode_list(fields, "tools", decode_tool)?;
    let functions = decode_list(fields, "functions", decode_function)?;
    if !tools.is_empty() && !functions.is_empty() {
        return Err(fields.invalid("functions", "can't be given beside `tools`"));
    }
    Ok(if tools.is_empty() { functions } else { tools })
}

/// `tool_choice`, or its deprecated form `function_call`.
pub(super) fn decode_tool_choice(fields: &mut Fields) -> Result<Option<ToolChoice>, ApiError> {
    let choice = decode_choice(fields, "tool_choice")?;
    let deprecated = decode_choice(fields, "function_call")?;
    Ok(choice.or(deprecated))
}

fn decode_list(
    fields: &mut Fields,
    key: &str,
    decode: fn(Fields) -> Result<Tool, ApiError>,
) -> Result<Vec<Tool>, ApiError> {
    let values = fields.array(key, TOOLS_MAX)?.unwrap_or_default();
    let mut tools = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let path = fields.path_of(&format!("{key}[{index}]"));
        tools.push(decode(Fields::of_value(
            value,
            path,
            ErrorKind::InvalidParameter,
        )?)?);
    }
    let mut names = HashSet::new();
    if let Some(twice) = tools.iter().position(|tool| !names.insert(&tool.name)) {
        return Err(fields.invalid(
            &format!("{key}[{twice}]"),
            "has the name of another tool before it",
        ));
    }
    Ok(tools)
}

fn decode_tool(mut fields: Fields) -> Result<Tool, ApiError> {
    if let Some(kind) = fields.string("type")?
        && kind != "function"
    {
        // Types are short words like `web_search`; anything else is not repeated.
        let named = if is_name(&kind) {
            format!("`{kind}`")
        } else {
            "of this type".to_owned()
        };
        return Err(ApiError::unsupported(
            &fields.path_of("type"),
            format!("asks for a tool {named}, which is not supported: only `function` is"),
        ));
    }
    let function = fields
        .object("function")?
        .ok_or_else(|| fields.missing("function"))?;
    decode_function(function)
}

fn decode_function(mut fields: Fields) -> Result<Tool, ApiError> {
    Ok(Tool {
        name: decode_name(&mut fields)?,
        description: fields.string("description")?,
        parameters: fields.map("parameters")?.map(Value::Object),
        strict: fields.boolean("strict")?,
    })
}

fn decode_name(fields: &mut Fields) -> Result<String, ApiError> {
    let name = fields.required_string("name")?;
    if is_name(&name) {
        Ok(name)
    } else {
        Err(fields.invalid(
            "name",
            "must be 1 to 64 letters, digits, underscores and dashes",
        ))
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn decode_choice(fields: &mut Fields, key: &str) -> Result<Option<ToolChoice>, ApiError> {
    let path = fields.path_of(key);
    let value = match fields.value(key) {
        None => return Ok(None),
        Some(Value::String(word)) => {
            return match word.as_str() {
                "" => Ok(None),
                "auto" => Ok(Some(ToolChoice::Auto)),
                "none" => Ok(Some(ToolChoice::None)),
                "required" => Ok(Some(ToolChoice::Required)),
                _ => Err(fields.invalid(
                    key,
                    "must be \"auto\", \"none\", \"required\" or name a function",
                )),
            };
        }
        Some(value @ Value::Object(_)) => value,
        Some(other) => return Err(fields.wrong_type(key, "a string or an object", &other)),
    };
    let mut choice = Fields::of_value(value, path, ErrorKind::InvalidParameter)?;
    if let Some(kind) = choice.string("type")?
        && kind != "function"
    {
        return Err(ApiError::unsupported(
            &choice.path_of("type"),
            "must be `function`",
        ));
    }
    // The deprecated form and the Responses API have the name one level higher.
    let name = match choice.object("function")? {
        Some(mut function) => decode_name(&mut function)?,
        None if choice.has("name") => decode_name(&mut choice)?,
        None => {
            return Err(invalid(
                ErrorKind::InvalidParameter,
                &choice.path_of("function.name"),
                "is required",
            ));
        }
    };
    Ok(Some(ToolChoice::Named(name)))
}

#[derive(Serialize)]
pub(super) struct ToolOut<'a> {
    r#type: &'static str,
    function: FunctionOut<'a>,
}

#[derive(Serialize)]
struct FunctionOut<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ToolChoiceOut<'a> {
    Word(&'static str),
    Named {
        r#type: &'static str,
        function: NameOut<'a>,
    },
}

#[derive(Serialize)]
pub(super) struct NameOut<'a> {
    name: &'a str,
}

pub(super) fn tool_out(tool: &Tool) -> ToolOut<'_> {
    ToolOut {
        r#type: "function",
        function: FunctionOut {
            name: &tool.name,
            description: tool.description.as_deref(),
            parameters: tool.parameters.as_ref(),
            strict: tool.strict,
        },
    }
}

pub(super) fn tool_choice_out(choice: &ToolChoice) -> ToolChoiceOut<'_> {
    match choice {
        ToolChoice::Auto => ToolChoiceOut::Word("auto"),
        ToolChoice::None => ToolChoiceOut::Word("none"),
        ToolChoice::Required => ToolChoiceOut::Word("required"),
        ToolChoice::Named(name) => ToolChoiceOut::Named {
            r#type: "function",
            function: NameOut { name },
        },
    }
}
