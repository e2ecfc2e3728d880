//! What a request asks the model to read: checks of contents, tools and configuration, and the blocks that are counted.

use serde_json::Value;

use super::error::invalid;
use super::media;
use super::proto::decode_base64;
use super::signature;
use super::{Checked, Host};
use crate::Block;

/// Tokens of an image or a page, whatever its size.
const MEDIA_TOKENS: u64 = 258;

/// Fields of a part of which exactly one must be there.
const PART_DATA: &[&str] = &[
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
];

/// Which rules apply beside those that always do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strictness {
    pub(super) host: Host,
    /// Turns must alternate; see [`super::Gemini::loose_turns`].
    pub(super) alternates: bool,
    /// Function calls of the current turn must carry their signature.
    pub(super) needs_signatures: bool,
}

/// The elements of a repeated field.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Checks `contents` as they continue `cached` ones. `request` is the name of the request message in error texts.
pub(super) fn check_contents(
    request: &str,
    cached: &[Value],
    contents: &[Value],
    strictness: Strictness,
) -> Checked<()> {
    for (number, content) in contents.iter().enumerate() {
        let place = format!("* {request}.contents[{number}]");
        if !["user", "model", "function"].contains(&role(content)) {
            return invalid("Please use a valid role: user, model.");
        }
        check_parts(&place, content, strictness.host)?;
    }
    check_turns(cached, contents, strictness)?;
    if strictness.needs_signatures {
        check_signatures(contents)?;
    }
    Ok(())
}

/// Checks a system instruction.
pub(super) fn check_system(request: &str, system: &Value, host: Host) -> Checked<()> {
    if system.is_null() {
        return Ok(());
    }
    check_parts(&format!("* {request}.system_instruction"), system, host)?;
    if list(&system["parts"])
        .iter()
        .any(|part| part["text"].is_null())
    {
        return invalid("System instruction only supports text parts.");
    }
    Ok(())
}

fn check_parts(place: &str, content: &Value, host: Host) -> Checked<()> {
    let parts = list(&content["parts"]);
    if parts.is_empty() {
        return match host {
            Host::GeminiApi => invalid(format!(
                "{place}.parts: contents.parts must not be empty.\n"
            )),
            Host::Vertex => invalid(
                "Unable to submit request because it must include at least one parts field, which describes the \
                 prompt input.",
            ),
        };
    }
    for (number, part) in parts.iter().enumerate() {
        let mut set = PART_DATA.iter().filter(|field| !part[**field].is_null());
        let Some(first) = set.next() else {
            return invalid(format!(
                "{place}.parts[{number}].data: required oneof field 'data' must have one initialized field\n"
            ));
        };
        if let Some(second) = set.next() {
            return invalid(format!(
                "Invalid value at '{}.parts[{number}]' (oneof), oneof field 'data' is already set. Cannot set \
                 '{second}'",
                place.trim_start_matches("* "),
            ));
        }
        if host == Host::Vertex && part["text"] == "" && part["thoughtSignature"].is_null() {
            return invalid(
                "Unable to submit request because it must have a text parameter. Add a text parameter and try again.",
            );
        }
        media::check(part, &format!("{place}.parts[{number}]"))?;
        let call = &part[*first];
        if ["functionCall", "functionResponse"].contains(first)
            && call["name"].as_str().is_none_or(str::is_empty)
        {
            let field = if *first == "functionCall" {
                "function_call"
            } else {
                "function_response"
            };
            return invalid(format!(
                "{place}.parts[{number}].{field}.name: Name cannot be empty.\n"
            ));
        }
        if let Some(text) = part["thoughtSignature"].as_str()
            && !signature::is_valid(&decode_base64(text).unwrap_or_default())
        {
            return invalid("Corrupted thought signature.");
        }
    }
    Ok(())
}

fn check_turns(cached: &[Value], contents: &[Value], strictness: Strictness) -> Checked<()> {
    let mut earlier: Option<&Value> = None;
    for (number, content) in cached.iter().chain(contents).enumerate() {
        let (calls, responses) = (calls(content), responses(content));
        let awaited = earlier
            .map(|content| self::calls(content))
            .unwrap_or_default();
        let is_model = role(content) == "model";
        if !responses.is_empty() && (is_model || awaited.is_empty()) {
            return invalid(
                "Please ensure that function response turn comes immediately after a function call turn.",
            );
        }
        if !awaited.is_empty() {
            let mut answered = responses.clone();
            let mut asked = awaited;
            answered.sort_unstable();
            asked.sort_unstable();
            if answered != asked {
                return invalid(
                    "Please ensure that the number of function response parts is equal to the number of function \
                     call parts of the function call turn.",
                );
            }
        }
        if !calls.is_empty()
            && (!is_model || earlier.is_none_or(|earlier| role(earlier) == "model"))
        {
            return invalid(
                "Please ensure that function call turn comes immediately after a user turn or after a function \
                 response turn.",
            );
        }
        // A question after cached material of the same role is the documented way to use a cache, and text may follow
        // the results of functions.
        let is_allowed_repeat = !is_model
            && (number == cached.len()
                || earlier.is_some_and(|earlier| !self::responses(earlier).is_empty()));
        let repeats = earlier.map_or(is_model, |earlier| (role(earlier) == "model") == is_model);
        if strictness.alternates && repeats && !is_allowed_repeat {
            return invalid(
                "Please ensure that multiturn requests alternate between user and model.",
            );
        }
        earlier = Some(content);
    }
    Ok(())
}

/// The last turn of a request for an answer is not the model's.
pub(super) fn check_end(contents: &[Value]) -> Checked<()> {
    match contents.last() {
        Some(last) if role(last) == "model" => invalid(
            "Please ensure that multiturn requests end with a user role or a function response.",
        ),
        _ => Ok(()),
    }
}

/// From Gemini 3 on the first call of each step of the current turn carries the signature it came with.
fn check_signatures(contents: &[Value]) -> Checked<()> {
    let turn = contents
        .iter()
        .rposition(|content| role(content) == "user" && responses(content).is_empty())
        .unwrap_or(0);
    for (number, content) in contents.iter().enumerate().skip(turn) {
        let call = list(&content["parts"])
            .iter()
            .find(|part| !part["functionCall"].is_null());
        if let Some(call) = call
            && call["thoughtSignature"].is_null()
        {
            return invalid(format!(
                "Function call is missing a thought_signature in functionCall parts. This is required for tools to \
                 work correctly, and missing thought_signature may lead to degraded model performance. Additional \
                 data, function call `{}`, position {number}.",
                call["functionCall"]["name"].as_str().unwrap_or_default(),
            ));
        }
    }
    Ok(())
}

fn role(content: &Value) -> &str {
    content["role"]
        .as_str()
        .filter(|role| !role.is_empty())
        .unwrap_or("user")
}

fn calls(content: &Value) -> Vec<&str> {
    names(content, "functionCall")
}

fn responses(content: &Value) -> Vec<&str> {
    names(content, "functionResponse")
}

fn names<'a>(content: &'a Value, field: &str) -> Vec<&'a str> {
    list(&content["parts"])
        .iter()
        .filter_map(|part| part[field]["name"].as_str())
        .collect()
}

/// Checks tools and their configuration. Creating a cache is stricter than using the same tools in a request: an enum
/// is only for strings there (BerriAI/litellm#16961).
pub(super) fn check_tools(
    request: &str,
    tools: &Value,
    config: &Value,
    is_create: bool,
) -> Checked<()> {
    let mut seen: Vec<&str> = Vec::new();
    for (tool_number, tool) in list(tools).iter().enumerate() {
        for (number, function) in list(&tool["functionDeclarations"]).iter().enumerate() {
            let place = format!("* {request}.tools[{tool_number}].function_declarations[{number}]");
            let name = function["name"].as_str().unwrap_or_default();
            let is_valid = name.len() <= 64
                && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && name.chars().all(|character| {
                    character.is_ascii_alphanumeric() || "_.:-".contains(character)
                });
            if !is_valid {
                return invalid(format!(
                    "{place}.name: Invalid function name. Must start with a letter or an underscore. Must be \
                     alphameric (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with a maximum \
                     length of 64.\n"
                ));
            }
            if seen.contains(&name) {
                return invalid(format!("Duplicate function declaration found: {name}"));
            }
            seen.push(name);
            if !function["parameters"].is_null() && !function["parametersJsonSchema"].is_null() {
                return invalid(format!(
                    "{place}: parameters and parameters_json_schema are mutually exclusive.\n"
                ));
            }
            check_schema(
                &format!("{place}.parameters"),
                &function["parameters"],
                is_create,
            )?;
        }
    }
    let config = &config["functionCallingConfig"];
    let allowed = list(&config["allowedFunctionNames"]);
    if !allowed.is_empty()
        && !["ANY", "VALIDATED"].contains(&config["mode"].as_str().unwrap_or_default())
    {
        return invalid(
            "Function calling config is set with allowed_function_names while mode is not ANY or VALIDATED.",
        );
    }
    if let Some(unknown) = allowed
        .iter()
        .find(|name| !seen.iter().any(|seen| *name == seen))
    {
        return invalid(format!(
            "allowed_function_names contains a function that is not declared: {unknown}"
        ));
    }
    Ok(())
}

fn check_schema(place: &str, schema: &Value, is_create: bool) -> Checked<()> {
    let Some(fields) = schema.as_object() else {
        return Ok(());
    };
    if is_create
        && fields.contains_key("enum")
        && fields.get("type").is_some_and(|kind| kind != "STRING")
    {
        return invalid(format!("{place}.enum: only allowed for STRING type\n"));
    }
    if schema["type"] == "ARRAY" && schema["items"].is_null() {
        return invalid(format!("{place}.items: missing field.\n"));
    }
    let properties = schema["properties"].as_object();
    for (number, name) in list(&schema["required"]).iter().enumerate() {
        let is_known = properties.is_some_and(|properties| {
            name.as_str()
                .is_some_and(|name| properties.contains_key(name))
        });
        if !is_known {
            return invalid(format!(
                "{place}.required[{number}]: property is not defined\n"
            ));
        }
    }
    for (name, property) in properties.into_iter().flatten() {
        check_schema(&format!("{place}.properties[{name}]"), property, is_create)?;
    }
    check_schema(&format!("{place}.items"), &schema["items"], is_create)?;
    for (number, choice) in list(&schema["anyOf"]).iter().enumerate() {
        check_schema(&format!("{place}.any_of[{number}]"), choice, is_create)?;
    }
    Ok(())
}

/// Checks the generation config.
pub(super) fn check_generation(config: &Value) -> Checked<()> {
    let place = "* GenerateContentRequest.generation_config";
    let outside = |field: &str, from: f64, to: f64| {
        config[field]
            .as_f64()
            .is_some_and(|value| value < from || value > to)
    };
    if outside("temperature", 0.0, 2.0) {
        return invalid(format!(
            "{place}.temperature: temperature must be in the range [0.0, 2.0].\n"
        ));
    }
    if outside("topP", 0.0, 1.0) {
        return invalid(format!(
            "{place}.top_p: top_p must be in the range [0.0, 1.0].\n"
        ));
    }
    if config["maxOutputTokens"]
        .as_i64()
        .is_some_and(|limit| limit < 1)
    {
        return invalid(format!(
            "{place}.max_output_tokens: max_output_tokens must be positive.\n"
        ));
    }
    if config["candidateCount"]
        .as_i64()
        .is_some_and(|count| count > 1)
    {
        return invalid("Multiple candidates is not enabled for this model");
    }
    if list(&config["stopSequences"]).len() > 5 {
        return invalid(format!(
            "{place}.stop_sequences: at most 5 stop sequences are allowed.\n"
        ));
    }
    let mime = config["responseMimeType"].as_str().unwrap_or("text/plain");
    if !["text/plain", "application/json", "text/x.enum"].contains(&mime) {
        return invalid(format!(
            "{place}.response_mime_type: allowed mimetypes are `text/plain`, `application/json`, `application/xml`, \
             `application/yaml` and `text/x.enum`.\n"
        ));
    }
    let schemas = ["responseSchema", "responseJsonSchema"];
    if mime == "text/plain" && schemas.iter().any(|field| !config[*field].is_null()) {
        return invalid(format!(
            "{place}.response_schema: only allowed when response_mime_type is set to `application/json` or \
             `text/x.enum`.\n"
        ));
    }
    if schemas.iter().all(|field| !config[*field].is_null()) {
        return invalid(format!(
            "{place}: response_schema and response_json_schema are mutually exclusive.\n"
        ));
    }
    Ok(())
}

/// The prompt in the order it is read: system instruction, tools, contents.
pub(super) fn blocks(request: &Value) -> Vec<Block> {
    let mut blocks: Vec<Block> = list(&request["systemInstruction"]["parts"])
        .iter()
        .map(|part| part_block("system", part))
        .collect();
    for tool in list(&request["tools"]) {
        let functions = list(&tool["functionDeclarations"]);
        if functions.is_empty() {
            blocks.push(Block::new(format!("tool\n{tool}")));
        }
        blocks.extend(
            functions
                .iter()
                .map(|function| Block::new(format!("tool\n{function}"))),
        );
    }
    for content in list(&request["contents"]) {
        let role = role(content);
        blocks.extend(
            list(&content["parts"])
                .iter()
                .map(|part| part_block(role, part)),
        );
    }
    blocks
}

fn part_block(role: &str, part: &Value) -> Block {
    let identity = format!("{role}\n{part}");
    if !part["inlineData"].is_null() || !part["fileData"].is_null() {
        return Block {
            content: identity,
            tokens: MEDIA_TOKENS,
        };
    }
    match part["text"].as_str() {
        Some(text) => Block::sized(identity, text),
        None => {
            let mut bare = part.clone();
            if let Some(fields) = bare.as_object_mut() {
                fields.retain(|name, _| name != "thoughtSignature");
            }
            Block::sized(identity, &bare.to_string())
        }
    }
}

/// The function the model must call.
pub(super) fn forced_function(tools: &Value, config: &Value) -> Option<String> {
    let config = &config["functionCallingConfig"];
    if config["mode"] != "ANY" {
        return None;
    }
    let allowed = list(&config["allowedFunctionNames"]).first();
    let declared = list(tools)
        .iter()
        .find_map(|tool| list(&tool["functionDeclarations"]).first())
        .map(|function| &function["name"]);
    allowed.or(declared)?.as_str().map(str::to_owned)
}
