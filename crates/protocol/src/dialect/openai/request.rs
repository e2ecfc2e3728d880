//! Chat requests of clients.

use serde_json::{Map, Value};

use super::message::decode_marked;
use super::reasoning;
use super::tools::{decode_tool_choice, decode_tools};
use super::without_models_prefix;
use crate::chat::{CacheRequest, ChatRequest, ResponseFormat, Sampling};
use crate::context::ContextId;
use crate::dialect::cache;
use crate::dialect::fields::{Fields, bounded};
use crate::error::{ApiError, ErrorKind};

const STOP_MAX: usize = 4;
pub(super) const CHOICES_MAX: i64 = 128;
const TOP_LOGPROBS_MAX: i64 = 20;

/// Reads a chat request.
///
/// # Errors
/// Not JSON, or a field that is missing, malformed or out of range; a model is not missing before whoever knows the caller's
/// default says so. A malformed `context_id` is answered like an
/// unknown one.
pub fn decode_request(body: &[u8]) -> Result<ChatRequest, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let context_id = fields
        .string("context_id")?
        .map(ContextId::try_from)
        .transpose()?;
    let model = fields.string("model")?.map(without_models_prefix);
    // A chat can't change the context's mode; Go clients send `""` here.
    fields.value("mode");
    let max_tokens = fields.count("max_tokens", 1)?;
    let max_completion_tokens = fields.count("max_completion_tokens", 1)?;
    let include_usage = match fields.object("stream_options")? {
        Some(mut options) => options.boolean("include_usage")?,
        None => None,
    };
    let choices = fields.integer("n", 1..=CHOICES_MAX)?.unwrap_or(1);
    let (messages, points) = decode_marked(&mut fields)?;
    let mut request = ChatRequest {
        model,
        context_id,
        messages,
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
        reasoning: None,
        cache: CacheRequest::default(),
        original: None,
        extra: fields.rest(),
    };
    // The fields stay where they are, for upstreams of this dialect.
    request.reasoning = reasoning::asked(&request.extra);
    request.sampling.top_k = top_k(&request.extra);
    if request.context_id.is_none() {
        request.cache = cache::request(points, &request.extra);
    }
    Ok(request)
}

pub(super) fn decode_sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0..=2.0)?,
        top_p: fields.number("top_p", 0.0..=1.0)?,
        top_k: None,
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?,
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?,
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?,
        logit_bias: decode_logit_bias(fields)?,
    })
}

/// `top_k`, which OpenAI does not know and many of its imitators do; 0 and less are their words for no limit.
fn top_k(extra: &Map<String, Value>) -> Option<u32> {
    let wanted = extra.get("top_k")?.as_u64()?;
    u32::try_from(wanted).ok().filter(|wanted| *wanted > 0)
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

pub(super) fn decode_stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
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
