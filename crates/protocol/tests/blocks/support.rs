//! The door that these tests go through: cases as JSON, in the words of OpenAI's dialect.

use holdfast_protocol::chat::{Message, Tool};
use holdfast_protocol::compose::{ComposedRequest, compose};
use holdfast_protocol::dialect::openai::{decode_create, decode_request};
use holdfast_protocol::dialect::upstream;
use holdfast_protocol::error::ApiError;
use holdfast_protocol::provider::{self, ModelRules, UpstreamDialectName};
use holdfast_protocol::upstream::{
    AnswerEvent, ChatCall, EncodedPrefix, Failure, HoldCall, HttpCall, Markers, PrefixParts,
    UpstreamDialect,
};
use serde_json::{Value, json};

pub(crate) const CLAUDE: &str = "claude-opus-5-5";
pub(crate) const BEDROCK_CLAUDE: &str = "us.anthropic.claude-opus-5-5";
pub(crate) const BEDROCK_NOVA: &str = "us.amazon.nova-pro-v1:0";

/// One upstream, one context, one request.
pub(crate) struct Case {
    pub(crate) dialect: &'static dyn UpstreamDialect,
    pub(crate) model: String,
    pub(crate) rules: ModelRules,
    /// `None`: no context.
    pub(crate) context: Option<CaseContext>,
    pub(crate) composed: ComposedRequest,
    pub(crate) max_tokens: Option<u32>,
}

#[derive(Default)]
pub(crate) struct CaseContext {
    pub(crate) initial: Vec<Message>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) history: Vec<Message>,
    pub(crate) previous_history: usize,
    pub(crate) markers: Markers,
    pub(crate) tenant_line: Option<String>,
}

impl Case {
    pub(crate) fn from_json(case: &Value) -> Self {
        let provider = provider::by_name(case["provider"].as_str().unwrap()).unwrap();
        let model = case["model"].as_str().unwrap();
        let mut rules = (provider.rules)(provider.dialect, model);
        if case["passes_unknown_fields"] == true {
            rules.quirks.passes_unknown_fields = true;
        }
        if let Some(markers_max) = case["markers_max"].as_u64() {
            rules.cache.markers_max = markers_max as u8;
        }
        let context = case.get("create").map(|create| context(create, case));
        let mut chat = case
            .get("chat")
            .cloned()
            .unwrap_or_else(|| json!({"messages": [{"role": "user", "content": "Go on."}]}));
        chat["model"] = json!("m");
        let mut request = decode_request(chat.to_string().as_bytes()).unwrap();
        if let Some(context) = &context
            && request.tools.is_empty()
        {
            request.tools = context.tools.clone();
        }
        let max_tokens = request.max_tokens;
        Case {
            dialect: upstream(provider.dialect),
            model: model.to_owned(),
            rules,
            context,
            composed: compose(None, request, 1_000_000, 1).unwrap(),
            max_tokens,
        }
    }

    pub(crate) fn prefix(&self) -> Result<Option<EncodedPrefix>, ApiError> {
        let Some(context) = &self.context else {
            return Ok(None);
        };
        let parts = PrefixParts {
            initial: &context.initial,
            history: &context.history,
            previous_history: context.previous_history,
            tools: &context.tools,
            markers: context.markers,
            tenant_line: context.tenant_line.as_deref(),
        };
        self.dialect.encode_prefix(&parts, &self.rules).map(Some)
    }

    pub(crate) fn chat(&self) -> Result<HttpCall, ApiError> {
        let prefix = self.prefix()?;
        self.dialect.encode_chat(&ChatCall {
            model: &self.model,
            prefix: prefix.as_ref(),
            handle: None,
            chain: None,
            composed: &self.composed,
            max_tokens: self.max_tokens,
            cache_key: Some("key-of-the-context"),
            salt: Some("salt-of-the-tenant"),
            tier_seconds: None,
            previous_answer: None,
            rules: &self.rules,
        })
    }

    pub(crate) fn hold(&self) -> Option<HttpCall> {
        let prefix = self.prefix().unwrap().unwrap();
        self.dialect
            .encode_hold(&HoldCall {
                model: &self.model,
                prefix: &prefix,
                tool_choice: Some(&self.composed.tool_choice),
                ttl_seconds: 3_600,
                expires_at_seconds: 1_764_000_000,
                cache_key: None,
                salt: None,
                tier_seconds: None,
                rules: &self.rules,
            })
            .unwrap()
    }

    /// The chat's body, parsed.
    pub(crate) fn body(&self) -> Value {
        body_json(&self.chat().unwrap())
    }
}

fn context(create: &Value, case: &Value) -> CaseContext {
    let mut create = create.clone();
    create["model"] = json!("m");
    let create = decode_create(create.to_string().as_bytes()).unwrap();
    let seconds = |name: &str| case["markers"][name].as_u64().map(|seconds| seconds as u32);
    CaseContext {
        initial: create.messages,
        tools: create.tools,
        history: match case.get("remembered") {
            // With what no client of OpenAI's dialect can say: seals.
            Some(remembered) => serde_json::from_value(remembered.clone()).unwrap(),
            None => case.get("history").map(messages).unwrap_or_default(),
        },
        previous_history: case["previous_history"].as_u64().unwrap_or(0) as usize,
        markers: Markers {
            initial_seconds: seconds("initial"),
            history_seconds: seconds("history"),
        },
        tenant_line: case["tenant_line"].as_str().map(str::to_owned),
    }
}

pub(crate) fn messages(messages: &Value) -> Vec<Message> {
    let body = json!({"model": "m", "messages": messages});
    decode_request(body.to_string().as_bytes())
        .unwrap()
        .messages
}

pub(crate) fn body_text(call: &HttpCall) -> String {
    String::from_utf8(call.body.concat()).unwrap()
}

pub(crate) fn body_json(call: &HttpCall) -> Value {
    serde_json::from_str(&body_text(call)).unwrap()
}

pub(crate) fn header<'a>(call: &'a HttpCall, name: &str) -> Option<&'a str> {
    call.headers
        .iter()
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value.as_str())
}

pub(crate) type Events = Vec<Result<AnswerEvent, Failure>>;

/// What a stream in these pieces says.
pub(crate) fn decode(dialect: UpstreamDialectName, pieces: &[&[u8]]) -> Events {
    let dialect = upstream(dialect);
    let rules =
        (provider::by_name("anthropic").unwrap().rules)(UpstreamDialectName::Anthropic, CLAUDE);
    let mut decoder = dialect.decoder(&rules);
    let mut events: Events = pieces
        .iter()
        .flat_map(|piece| decoder.push(piece))
        .collect();
    events.extend(decoder.finish());
    events
}

/// Frames of AWS's event stream, one per line: `event NAME JSON`, `exception NAME JSON` or `error CODE MESSAGE`.
pub(crate) fn frames(lines: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let mut words = line.splitn(3, ' ');
        let (kind, name) = (words.next().unwrap(), words.next().unwrap());
        let rest = words.next().unwrap_or("");
        match kind {
            "event" => frame(
                &[(":message-type", kind), (":event-type", name)],
                rest,
                &mut out,
            ),
            "exception" => frame(
                &[(":message-type", kind), (":exception-type", name)],
                rest,
                &mut out,
            ),
            "error" => frame(
                &[
                    (":message-type", kind),
                    (":error-code", name),
                    (":error-message", rest),
                ],
                "",
                &mut out,
            ),
            other => panic!("no such frame: {other}"),
        }
    }
    out
}

pub(crate) fn frame(headers: &[(&str, &str)], payload: &str, out: &mut Vec<u8>) {
    use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
    let mut message = Message::new(payload.as_bytes().to_vec());
    for (name, value) in headers {
        let value = HeaderValue::String((*value).to_owned().into());
        message = message.add_header(Header::new((*name).to_owned(), value));
    }
    aws_smithy_eventstream::frame::write_message_to(&message, out).unwrap();
}
