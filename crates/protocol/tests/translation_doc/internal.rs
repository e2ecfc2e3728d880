//! The internal form as JSON, so that two requests can be compared field by field.
//!
//! Everything is taken apart by name: a field that is added to the internal form must be added here, and then needs rows.

use holdfast_protocol::chat::{
    CachePoint, CacheRequest, ChatRequest, ContentPart, Message, ReasoningLevel,
    ReasoningSignature, ResponseFormat, Role, Sampling, Tool, ToolCall, ToolChoice,
};
use serde_json::{Map, Value, json};

/// Fields with which the gateway itself does what is asked; no upstream is told.
pub(crate) const GATEWAYS_OWN: &[&str] = &[
    "model",
    "context_id",
    "stream",
    "include_usage",
    "cache",
    // Beside the request: see `clients`.
    "store",
    "previous_response_id",
    "conversation",
    "expires_at",
    "caching",
    "shows_thoughts",
    "writes_for_hour",
];

/// A request without its original.
pub(crate) fn fields(request: &ChatRequest) -> Value {
    let ChatRequest {
        model,
        context_id,
        messages,
        sampling,
        max_tokens,
        stop,
        choices,
        logprobs,
        response_format,
        tools,
        tool_choice,
        parallel_tool_calls,
        stream,
        include_usage,
        user,
        reasoning,
        cache,
        original: _,
        extra,
    } = request;
    let Sampling {
        temperature,
        top_p,
        top_k,
        frequency_penalty,
        presence_penalty,
        seed,
        logit_bias,
    } = sampling;
    let CacheRequest {
        points,
        automatic,
        key,
    } = cache;
    let points: Vec<Value> = points
        .iter()
        .map(|point| {
            let CachePoint {
                messages,
                ttl_seconds,
            } = point;
            json!({"messages": messages, "ttl_seconds": ttl_seconds})
        })
        .collect();
    let automatic = automatic.map(|ttl_seconds| json!({"ttl_seconds": ttl_seconds}));
    let all = json!({
        "model": model,
        "context_id": context_id.as_ref().map(ToString::to_string),
        "messages": messages,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "seed": seed,
        "logit_bias": logit_bias,
        "max_tokens": max_tokens,
        "stop": stop,
        "n": choices,
        "logprobs": logprobs,
        "response_format": response_format,
        "tools": tools,
        "tool_choice": tool_choice,
        "parallel_tool_calls": parallel_tool_calls,
        "stream": stream,
        "include_usage": include_usage,
        "user": user,
        "reasoning": reasoning,
        "cache": {"points": points, "automatic": automatic, "key": key},
        "extra": extra,
    });
    said(all)
}

/// Without what is not said: null and empty arrays.
pub(crate) fn said(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, said(value)));
            let is_said = |value: &Value| match value {
                Value::Null => false,
                Value::Array(values) => !values.is_empty(),
                Value::Object(fields) => !fields.is_empty(),
                _ => true,
            };
            Value::Object(
                fields
                    .filter(|(_, value)| is_said(value))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(values) => Value::Array(values.into_iter().map(said).collect()),
        value => value,
    }
}

/// A request in which nothing is unset, without what only the gateway itself acts on.
pub(crate) fn everything() -> ChatRequest {
    let text = || "a".to_owned();
    let parts = vec![
        ContentPart::Text { text: text() },
        ContentPart::ImageUrl {
            url: text(),
            detail: Some(text()),
        },
        ContentPart::File {
            url: text(),
            media_type: Some(text()),
            name: Some(text()),
        },
    ];
    ChatRequest {
        model: None,
        context_id: None,
        messages: vec![Message {
            role: Role::User,
            content: parts,
            name: Some(text()),
            tool_calls: vec![ToolCall {
                id: text(),
                name: text(),
                arguments: text(),
            }],
            tool_call_id: Some(text()),
            reasoning: Some(text()),
            reasoning_signature: Some(ReasoningSignature(text())),
            refusal: Some(text()),
        }],
        sampling: Sampling {
            temperature: Some(1.0),
            top_p: Some(1.0),
            top_k: Some(1),
            frequency_penalty: Some(1.0),
            presence_penalty: Some(1.0),
            seed: Some(1),
            logit_bias: vec![(1, 1.0)],
        },
        max_tokens: Some(1),
        stop: vec![text()],
        choices: 2,
        logprobs: Some(1),
        response_format: ResponseFormat::JsonSchema {
            name: text(),
            schema: json!(1),
            strict: true,
        },
        tools: vec![Tool {
            name: text(),
            description: Some(text()),
            parameters: Some(json!(1)),
            strict: Some(true),
        }],
        tool_choice: Some(ToolChoice::Required),
        parallel_tool_calls: Some(false),
        stream: false,
        include_usage: false,
        user: Some(text()),
        reasoning: Some(ReasoningLevel::Off),
        cache: CacheRequest::default(),
        original: None,
        extra: Map::new(),
    }
}
