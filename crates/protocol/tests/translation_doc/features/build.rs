//! What features are made of.

use holdfast_protocol::chat::{
    ChatRequest, ContentPart, Message, ResponseFormat, Role, Tool, ToolCall,
};
use holdfast_protocol::provider::UpstreamDialectName;
use serde_json::{Value, json};

use crate::{PROBE, PROBE_BASE64};

pub(super) fn set<T>(field: &mut Option<T>, value: T) -> bool {
    *field = Some(value);
    true
}

pub(super) fn extra(request: &mut ChatRequest, name: &str, value: Value) -> bool {
    request.extra.insert(name.to_owned(), value);
    true
}

pub(super) fn insert(request: &mut ChatRequest, at: usize, message: Message) -> bool {
    // A later message stands before the last one, which asks.
    if at > 0 {
        request.messages.push(Message::text(Role::User, "And?"));
    }
    request.messages.insert(at, message);
    true
}

pub(super) fn part(request: &mut ChatRequest, message: usize, part: ContentPart) -> bool {
    request.messages[message].content.push(part);
    true
}

pub(super) fn text(text: &str) -> ContentPart {
    ContentPart::Text {
        text: text.to_owned(),
    }
}

pub(super) fn image(url: &str) -> ContentPart {
    ContentPart::ImageUrl {
        url: url.to_owned(),
        detail: None,
    }
}

pub(super) fn file(url: &str) -> ContentPart {
    ContentPart::File {
        url: url.to_owned(),
        media_type: None,
        name: None,
    }
}

pub(super) fn data_url(media_type: &str) -> String {
    format!("data:{media_type};base64,{PROBE_BASE64}")
}

pub(super) fn https_url(ending: &str) -> String {
    format!("https://example.org/{PROBE}.{ending}")
}

pub(super) fn filed(request: &mut ChatRequest) {
    part(request, 0, file("data:application/pdf;base64,AA=="));
}

pub(super) fn json_schema(request: &mut ChatRequest) {
    request.response_format = ResponseFormat::JsonSchema {
        name: "name-1".to_owned(),
        schema: json!({"type": "object", "properties": {"a": {"type": "string"}}}),
        strict: false,
    };
}

pub(super) fn schema_parts(request: &mut ChatRequest) -> (&mut String, &mut bool) {
    match &mut request.response_format {
        ResponseFormat::JsonSchema { name, strict, .. } => (name, strict),
        _ => panic!("the base has a schema"),
    }
}

pub(super) fn parameters(description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "properties": {"a": {"type": "string"}},
    })
}

pub(super) fn tools(request: &mut ChatRequest) {
    request.tools = vec![Tool {
        name: "tool_1".to_owned(),
        description: None,
        parameters: None,
        strict: None,
    }];
}

/// A question, its answer, and another question.
pub(super) fn answered(request: &mut ChatRequest) {
    request
        .messages
        .push(Message::text(Role::Assistant, "Two."));
    request.messages.push(Message::text(Role::User, "And?"));
}

pub(super) fn reasoned(request: &mut ChatRequest) {
    answered(request);
    request.messages[1].reasoning = Some("Let me see.".to_owned());
}

/// A question, a call, and its result.
pub(super) fn called(request: &mut ChatRequest) {
    let mut answer = Message::text(Role::Assistant, "");
    answer.content.clear();
    answer.tool_calls.push(ToolCall {
        id: "call_1".to_owned(),
        name: "tool_1".to_owned(),
        arguments: "{}".to_owned(),
    });
    let mut result = Message::text(Role::Tool, "Done.");
    result.tool_call_id = Some("call_1".to_owned());
    request.messages.extend([answer, result]);
}

pub(super) fn call(request: &mut ChatRequest) -> &mut ToolCall {
    &mut request.messages[1].tool_calls[0]
}

/// What seals of a dialect begin with.
pub(super) fn seal_word(dialect: UpstreamDialectName) -> Option<&'static str> {
    match dialect {
        UpstreamDialectName::OpenaiChat
        | UpstreamDialectName::ArkContext
        | UpstreamDialectName::ArkResponses => None,
        UpstreamDialectName::OpenaiResponses => Some("responses"),
        UpstreamDialectName::Anthropic => Some("anthropic"),
        UpstreamDialectName::Gemini => Some("gemini"),
        UpstreamDialectName::BedrockConverse => Some("bedrock"),
    }
}
