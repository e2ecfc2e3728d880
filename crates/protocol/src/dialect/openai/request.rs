//! Chat requests: from clients, and to upstreams of this dialect.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::message::{MessageOut, decode_messages, message_out};
use super::tools::{
    ToolChoiceOut, ToolOut, decode_tool_choice, decode_tools, tool_choice_out, tool_out,
};
use super::{to_json, without_models_prefix};
use crate::chat::{ChatRequest, ResponseFormat, Sampling};
use crate::context::ContextId;
use crate::dialect::fields::{Fields, bounded};
use crate::error::{ApiError, ErrorKind};

const STOP_MAX: usize = 4;
const CHOICES_MAX: i64 = 128;
const TOP_LOGPROBS_MAX: i64 = 20;

/// Reads a chat request.
///
/// # Errors
/// Not JSON, or a field that is missing, malformed or out of range. A malformed `context_id` is answered like an
/// unknown one.
pub fn decode_request(body: &[u8]) -> Result<ChatRequest, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let context_id = fields
        .string("context_id")?
        .map(ContextId::try_from)
        .transpose()?;
    let model = fields.string("model")?.map(without_models_prefix);
    if model.is_none() && context_id.is_none() {
        return Err(fields.missing("model"));
    }
    // A chat can't change the context's mode; Go clients send `""` here.
    fields.value("mode");
    let max_tokens = fields.count("max_tokens", 1)?;
    let max_completion_tokens = fields.count("max_completion_tokens", 1)?;
    let include_usage = match fields.object("stream_options")? {
        Some(mut options) => options.boolean("include_usage")?,
        None => None,
    };
    let choices = fields.integer("n", 1..=CHOICES_MAX)?.unwrap_or(1);
    Ok(ChatRequest {
        model,
        context_id,
        messages: decode_messages(&mut fields)?,
        sampling: decode_sampling(&mut fields)?,
        max_tokens: max_completion_tokens.or(max_tokens),
        stop: decode_stop(&mut fields)?,
        choices: u32::try_from(choices).unwrap_or(1),
        logprobs: decode_logprobs(&mut fields)?,
        response_format: decode_response_format(&mut fields)?,
        tools: decode_tools(&mut fields)?,
        tool_choice: decode_tool_choice(&mut fields)?,
        parallel_tool_calls: fields.boolean("parallel_tool_calls")?,
        stream: fields.boolean("stream")?.unwrap_or(false),
        include_usage: include_usage.unwrap_or(false),
        user: fields.string("user")?,
        extra: fields.rest(),
    })
}

fn decode_sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0..=2.0)?,
        top_p: fields.number("top_p", 0.0..=1.0)?,
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?,
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?,
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?,
        logit_bias: decode_logit_bias(fields)?,
    })
}

fn decode_logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let biases = fields.map("logit_bias")?.unwrap_or_default();
    biases
        .iter()
        .map(|(token, bias)| {
            let token: u32 = token
                .parse()
                .map_err(|_| fields.invalid("logit_bias", "has a key that is not a token id"))?;
            let path = format!("logit_bias.{token}");
            let bias = bounded(ErrorKind::InvalidParameter, &path, bias, -100.0..=100.0)?;
            Ok((token, bias))
        })
        .collect()
}

fn decode_stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let values = match fields.value("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(vec![text]),
        Some(Value::Array(values)) => values,
        Some(other) => {
            return Err(fields.wrong_type("stop", "a string or an array of strings", &other));
        }
    };
    if values.len() > STOP_MAX {
        return Err(fields.invalid("stop", format!("may have at most {STOP_MAX} strings")));
    }
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            let key = format!("stop[{index}]");
            match value {
                Value::String(text) if text.is_empty() => {
                    Err(fields.invalid(&key, "must not be empty"))
                }
                Value::String(text) => Ok(text),
                other => Err(fields.wrong_type(&key, "a string", &other)),
            }
        })
        .collect()
}

fn decode_logprobs(fields: &mut Fields) -> Result<Option<u8>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields
        .integer("top_logprobs", 0..=TOP_LOGPROBS_MAX)?
        .unwrap_or(0);
    if !wanted && top > 0 {
        return Err(fields.invalid("top_logprobs", "needs `logprobs` to be true"));
    }
    Ok(wanted.then(|| u8::try_from(top).unwrap_or(0)))
}

fn decode_response_format(fields: &mut Fields) -> Result<ResponseFormat, ApiError> {
    let Some(mut format) = fields.object("response_format")? else {
        return Ok(ResponseFormat::Text);
    };
    match format.required_string("type")?.as_str() {
        "text" => Ok(ResponseFormat::Text),
        "json_object" => Ok(ResponseFormat::JsonObject),
        "json_schema" => {
            let mut json_schema = format
                .object("json_schema")?
                .ok_or_else(|| format.missing("json_schema"))?;
            let schema = json_schema
                .map("schema")?
                .ok_or_else(|| json_schema.missing("schema"))?;
            Ok(ResponseFormat::JsonSchema {
                name: json_schema.required_string("name")?,
                schema: Value::Object(schema),
                strict: json_schema.boolean("strict")?.unwrap_or(false),
            })
        }
        _ => Err(format.invalid(
            "type",
            "must be \"text\", \"json_object\" or \"json_schema\"",
        )),
    }
}

/// Writes a chat request for an upstream. What the client left out stays out.
pub fn encode_request(request: &ChatRequest) -> Bytes {
    to_json(&RequestOut {
        model: request.model.as_deref(),
        context_id: request.context_id.as_ref(),
        messages: request.messages.iter().map(message_out).collect(),
        temperature: request.sampling.temperature,
        top_p: request.sampling.top_p,
        frequency_penalty: request.sampling.frequency_penalty,
        presence_penalty: request.sampling.presence_penalty,
        seed: request.sampling.seed,
        logit_bias: &request.sampling.logit_bias,
        max_tokens: request.max_tokens,
        stop: &request.stop,
        n: (request.choices != 1).then_some(request.choices),
        logprobs: request.logprobs.map(|_| true),
        top_logprobs: request.logprobs,
        response_format: response_format_out(&request.response_format),
        tools: request.tools.iter().map(tool_out).collect(),
        tool_choice: request.tool_choice.as_ref().map(tool_choice_out),
        parallel_tool_calls: request.parallel_tool_calls,
        stream: request.stream.then_some(true),
        stream_options: request.include_usage.then_some(StreamOptionsOut {
            include_usage: true,
        }),
        user: request.user.as_deref(),
        extra: &request.extra,
    })
}

#[derive(Serialize)]
struct RequestOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_id: Option<&'a ContextId>,
    messages: Vec<MessageOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(
        skip_serializing_if = "<[_]>::is_empty",
        serialize_with = "logit_bias_map"
    )]
    logit_bias: &'a [(u32, f32)],
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormatOut<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoiceOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptionsOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct StreamOptionsOut {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormatOut<'a> {
    JsonObject,
    JsonSchema { json_schema: JsonSchemaOut<'a> },
}

#[derive(Serialize)]
struct JsonSchemaOut<'a> {
    name: &'a str,
    schema: &'a Value,
    strict: bool,
}

fn response_format_out(format: &ResponseFormat) -> Option<ResponseFormatOut<'_>> {
    match format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(ResponseFormatOut::JsonObject),
        ResponseFormat::JsonSchema {
            name,
            schema,
            strict,
        } => Some(ResponseFormatOut::JsonSchema {
            json_schema: JsonSchemaOut {
                name,
                schema,
                strict: *strict,
            },
        }),
    }
}

fn logit_bias_map<S: Serializer>(biases: &&[(u32, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(biases.iter().map(|(token, bias)| (token, bias)))
}
