#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod golden;
mod lessons;
mod property;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::OpenAiUpstream;
use crate::chat::{ChatRequest, Message, Role};
use crate::compose::{ComposedRequest, compose};
use crate::context::{
    Context, ContextContent, ContextId, CreateContext, CreateSurface, Profile, ProfileKind,
    StoredMessage, Turn,
};
use crate::dialect::openai::{decode_create, decode_request};
use crate::error::ApiError;
use crate::provider::{ModelRules, UpstreamDialectName, by_name};
use crate::upstream::{
    AnswerEvent, ChatCall, EncodedPrefix, Failure, FailureKind, HoldCall, HttpCall, Markers,
    PrefixParts, UpstreamDialect,
};

fn rules(provider: &str, model: &str) -> ModelRules {
    (by_name(provider).unwrap().rules)(UpstreamDialectName::OpenaiChat, model)
}

/// A context with its turns, and how an upstream is called about it.
#[derive(Debug)]
struct Scene {
    rules: ModelRules,
    model: String,
    create: Option<CreateContext>,
    turns: Vec<Vec<Message>>,
    markers: Markers,
    tenant_line: Option<String>,
    cache_key: Option<String>,
    salt: Option<String>,
    tier_seconds: Option<u32>,
    max_tokens: Option<u32>,
}

impl Scene {
    fn new(provider: &str, model: &str) -> Self {
        Scene {
            rules: rules(provider, model),
            model: model.to_owned(),
            create: None,
            turns: Vec::new(),
            markers: Markers::default(),
            tenant_line: None,
            cache_key: None,
            salt: None,
            tier_seconds: None,
            max_tokens: None,
        }
    }

    /// With a context of these messages.
    fn with_context(provider: &str, model: &str, initial: &[Message]) -> Self {
        let mut create = create_of(
            &json!({"messages": [{"role": "user", "content": "x"}]}),
            model,
        );
        create.messages = initial.to_vec();
        Scene {
            create: Some(create),
            ..Scene::new(provider, model)
        }
    }

    fn history(&self) -> Vec<Message> {
        self.turns.concat()
    }

    fn prefix(&self) -> Option<Result<EncodedPrefix, ApiError>> {
        let create = self.create.as_ref()?;
        let history = self.history();
        let newest = self.turns.last().map_or(0, Vec::len);
        let parts = PrefixParts {
            initial: &create.messages,
            history: &history,
            previous_history: history.len() - newest,
            tools: &create.tools,
            markers: self.markers,
            tenant_line: self.tenant_line.as_deref(),
        };
        Some(OpenAiUpstream.encode_prefix(&parts, &self.rules))
    }

    fn compose(&self, request: ChatRequest) -> ComposedRequest {
        let Some(create) = &self.create else {
            return compose(None, request, 32_768, 0).unwrap();
        };
        let context = Context::new(
            create,
            CreateSurface::OpenAi,
            &Profile::of(ProfileKind::Native, 32_768),
            "p",
            &self.model,
            ContextId::new(0, [0; 16]),
            9,
            0,
        )
        .unwrap();
        let turn = |(index, messages): (usize, &Vec<Message>)| Turn {
            number: index as u32 + 1,
            messages: messages
                .iter()
                .map(|message| StoredMessage {
                    message: message.clone(),
                    tokens: 1,
                })
                .collect(),
            committed_at: 0,
        };
        let content = Arc::new(ContextContent {
            initial: create.messages.clone(),
            turns: self.turns.iter().enumerate().map(turn).collect(),
        });
        compose(Some((&context, &content)), request, 32_768, 0).unwrap()
    }

    fn chat(&self, request: ChatRequest) -> Result<HttpCall, ApiError> {
        let prefix = self.prefix().transpose()?;
        OpenAiUpstream.encode_chat(&ChatCall {
            model: &self.model,
            prefix: prefix.as_ref(),
            handle: None,
            chain: None,
            composed: &self.compose(request),
            max_tokens: self.max_tokens,
            cache_key: self.cache_key.as_deref(),
            salt: self.salt.as_deref(),
            tier_seconds: self.tier_seconds,
            previous_answer: None,
            rules: &self.rules,
        })
    }

    /// The body of a chat that asks this.
    fn ask(&self, question: &str) -> Value {
        let body = json!({"messages": [{"role": "user", "content": question}]});
        body_of(&self.chat(request_of(&body, &self.model)).unwrap())
    }

    fn hold(&self) -> Option<HttpCall> {
        let prefix = self.prefix()?.unwrap();
        let call = HoldCall {
            model: &self.model,
            prefix: &prefix,
            tool_choice: self
                .create
                .as_ref()
                .and_then(|create| create.tool_choice.as_ref()),
            ttl_seconds: 3_600,
            expires_at_seconds: 3_600,
            cache_key: self.cache_key.as_deref(),
            salt: self.salt.as_deref(),
            tier_seconds: self.tier_seconds,
            rules: &self.rules,
        };
        OpenAiUpstream.encode_hold(&call).unwrap()
    }
}

fn create_of(body: &Value, model: &str) -> CreateContext {
    let mut body = body.clone();
    body["model"] = model.into();
    body["mode"] = "session".into();
    decode_create(body.to_string().as_bytes()).unwrap()
}

fn request_of(body: &Value, model: &str) -> ChatRequest {
    let mut body = body.clone();
    body["model"] = model.into();
    decode_request(body.to_string().as_bytes()).unwrap()
}

fn body_of(call: &HttpCall) -> Value {
    serde_json::from_slice(&call.body.concat()).unwrap()
}

fn decode(rules: &ModelRules, pieces: &[&[u8]]) -> Vec<Result<AnswerEvent, Failure>> {
    let mut decoder = OpenAiUpstream.decoder(rules);
    let mut events: Vec<_> = pieces
        .iter()
        .flat_map(|piece| decoder.push(piece))
        .collect();
    events.extend(decoder.finish());
    events
}

fn failure(status: u16, body: &str) -> Failure {
    OpenAiUpstream.failure(status, &|_| None, body.as_bytes())
}

#[test]
fn failures_are_sorted_by_what_to_do_next() {
    use FailureKind::*;
    let envelope = |code: &str, message: &str| {
        json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": code}})
            .to_string()
    };
    let flat = |code: &str, message: &str| json!({"code": code, "message": message}).to_string();
    let table = [
        (400, envelope("context_length_exceeded", "Too long."), PromptTooLong),
        (400, envelope("", "This model's maximum context length is 4096 tokens."), PromptTooLong),
        (400, envelope("exceed_context_size_error", ""), PromptTooLong),
        (413, envelope("rate_limit_exceeded", "Request too large: TPM"), RateLimited),
        (429, envelope("insufficient_quota", "You exceeded your quota."), RateLimited),
        (403, envelope("insufficient_quota", ""), RateLimited),
        (400, flat("Throttling.RateQuota", "Requests rate limit exceeded"), RateLimited),
        (429, envelope("engine_overloaded_error", ""), Overloaded),
        (400, envelope("content_filter", "Filtered."), Filtered),
        (400, flat("DataInspectionFailed", "Input may be inappropriate."), Filtered),
        (400, envelope("", "Content Exists Risk"), Filtered),
        (400, flat("1301", "unsafe"), Filtered),
        (
            400,
            json!({"error": {"message": "Unknown parameter", "param": "messages[1].content[0].prompt_cache_breakpoint"}})
                .to_string(),
            MarkerRefused,
        ),
        (400, envelope("", "Unrecognized request argument: prompt_cache_options"), MarkerRefused),
        (422, json!({"detail": [{"loc": ["body", "cache_control"], "msg": "extra"}]}).to_string(), MarkerRefused),
        (400, flat("InvalidParameter", "a maximum of 4 blocks with cache_control may be provided"), MarkerRefused),
        (404, envelope("model_not_found", "No such model."), ModelNotFound),
        (400, envelope("", "Model Not Exist"), ModelNotFound),
        (400, envelope("", "foo/bar is not a valid model ID"), ModelNotFound),
        (404, "page not found".to_owned(), ModelNotFound),
        (401, envelope("invalid_api_key", ""), Unauthorized),
        (400, envelope("", "Incorrect API key provided: xa***"), Unauthorized),
        (402, flat("", "Insufficient Balance"), Unauthorized),
        (400, flat("Arrearage", "Access denied"), Unauthorized),
        (400, envelope("", "temperature must be at most 1"), InvalidRequest),
        (400, String::new(), InvalidRequest),
        (503, "<html>busy</html>".to_owned(), Overloaded),
        (500, "[1]".to_owned(), ServerError),
        (502, r#"{"error": "bad gateway"}"#.to_owned(), ServerError),
        (500, r#"{"error": {"message": "maximum context length is a phrase in the log"}}"#.to_owned(), ServerError),
    ];
    for (status, body, kind) in table {
        let failure = failure(status, &body);
        assert_eq!(failure.kind, kind, "{status} {body}");
        assert_eq!(failure.status, Some(status));
    }
}

#[test]
fn a_failure_keeps_the_providers_words_its_field_and_its_wish_to_be_left_alone() {
    let header = |name: &str| (name == "retry-after").then(|| "2".to_owned());
    let body = json!([{"error": {"message": "x".repeat(5_000), "param": "temperature"}}]);
    let failure = OpenAiUpstream.failure(429, &header, body.to_string().as_bytes());
    assert_eq!(failure.retry_after, Some(Duration::from_secs(2)));
    assert_eq!(failure.param.as_deref(), Some("temperature"));
    assert!((1..1_000).contains(&failure.message.len()));
    let markup = self::failure(502, "<html>secret</html>");
    assert_eq!(markup.message, "");
    let text = self::failure(502, " upstream connect error ");
    assert_eq!(text.message, "upstream connect error");
    let flat = self::failure(400, r#"{"code":"InvalidParameter","message":"Wrong."}"#);
    assert_eq!(flat.message, "Wrong.");
}

#[test]
fn the_answer_to_a_hold_counts_the_prefix() {
    let held = |provider, model, usage: Value| {
        let body = json!({"choices": [{"index": 0, "finish_reason": "length"}], "usage": usage});
        OpenAiUpstream
            .decode_hold(body.to_string().as_bytes(), &rules(provider, model))
            .unwrap()
    };
    let writes = json!({"prompt_tokens": 2_010, "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 2_000}});
    let breakpoint = held("openai", "gpt-5.6", writes);
    assert_eq!(breakpoint.prefix_tokens, Some(2_000));
    assert_eq!(breakpoint.usage.unwrap().cache_writes.m30, 2_000);
    assert_eq!(breakpoint.handle, None);
    let automatic = held("deepseek", "deepseek-v4-pro", json!({"prompt_tokens": 700}));
    assert_eq!(automatic.prefix_tokens, Some(700));
    let silent = held("together", "m", Value::Null);
    assert_eq!((silent.prefix_tokens, silent.usage), (None, None));

    let failed = |body: &str| {
        let rules = rules("deepseek", "deepseek-v4-pro");
        let failed = OpenAiUpstream.decode_hold(body.as_bytes(), &rules);
        failed.unwrap_err().kind
    };
    assert_eq!(failed("[]"), FailureKind::Malformed);
    assert_eq!(failed("{}"), FailureKind::Malformed);
    assert_eq!(failed(r#"{"choices": 1}"#), FailureKind::Malformed);
    assert_eq!(
        failed(r#"{"error": {"code": "rate_limit_exceeded"}}"#),
        FailureKind::RateLimited
    );
}

#[test]
fn a_hold_asks_exactly_the_prefix_where_it_can() {
    let hold = |last: Message| {
        let initial = [Message::text(Role::System, "s"), last];
        let scene = Scene::with_context("deepseek", "deepseek-v4-pro", &initial);
        body_of(&scene.hold().unwrap())["messages"].clone()
    };
    let asking = hold(Message::text(Role::User, "u"));
    assert_eq!(asking.as_array().unwrap().len(), 2);
    let mut answered = hold(Message::text(Role::Assistant, "a"));
    let filler = answered.as_array_mut().unwrap().pop().unwrap();
    assert_eq!(filler, json!({"role": "user", "content": "."}));
    assert_eq!(answered.as_array().unwrap().len(), 2);
}

#[test]
fn the_initial_end_and_then_the_newest_end_are_marked_first() {
    let marked = |markers_max| {
        let turn = || {
            vec![
                Message::text(Role::User, "q"),
                Message::text(Role::Assistant, "a"),
            ]
        };
        let mut scene = Scene {
            turns: vec![turn(), turn()],
            markers: Markers {
                initial_seconds: Some(300),
                history_seconds: Some(300),
            },
            ..Scene::with_context("qwen", "qwen3.7-max", &[Message::text(Role::User, "u")])
        };
        scene.rules.cache.markers_max = markers_max;
        let body = scene.ask("?");
        let messages = body["messages"].as_array().unwrap().clone();
        let is_marked = |index: &usize| messages[*index].to_string().contains("cache_control");
        (0..messages.len()).filter(is_marked).collect::<Vec<_>>()
    };
    assert_eq!(marked(0), [0_usize; 0]);
    assert_eq!(marked(1), [0]);
    assert_eq!(marked(2), [0, 4]);
    assert_eq!(marked(3), [0, 2, 4]);
    assert_eq!(marked(4), [0, 2, 4]);
}

#[test]
fn a_hold_goes_on_with_the_history() {
    let mut scene = Scene::with_context("vllm", "m", &[Message::text(Role::User, "u")]);
    scene.turns = vec![vec![
        Message::text(Role::User, "q"),
        Message::text(Role::Assistant, "a"),
    ]];
    let hold = body_of(&scene.hold().unwrap());
    let chat = scene.ask("next");
    let held = hold["messages"].as_array().unwrap();
    let said = chat["messages"].as_array().unwrap();
    assert_eq!(held[..3], said[..3]);
    assert_eq!(held.len(), 4);
    assert_eq!(hold["max_tokens"], 1);
    assert_eq!(hold.get("stream"), None);
}

#[test]
fn counters_that_are_absent_are_told_from_zero() {
    let end = |usage: Value| {
        let chunk = json!({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage});
        let stream = format!("data: {chunk}\n\n");
        let events = decode(&rules("vllm", "m"), &[stream.as_bytes()]);
        match events.last() {
            Some(Ok(AnswerEvent::Done(end))) => end.clone(),
            other => panic!("{other:?}"),
        }
    };
    let silent = end(json!({"prompt_tokens": 5, "prompt_tokens_details": null}));
    assert!(!silent.cache_reported);
    assert_eq!(silent.usage.unwrap().input_tokens, 5);
    let zero = end(json!({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}}));
    assert!(zero.cache_reported);
    assert_eq!(end(Value::Null).usage, None);
    let nonsense = end(json!({"prompt_tokens": -5, "completion_tokens": 1e300}));
    assert_eq!(nonsense.usage, Some(Default::default()));
}

#[test]
fn what_was_reported_is_known_before_the_answer_ends() {
    let mut decoder = OpenAiUpstream.decoder(&rules("vllm", "m"));
    assert_eq!(decoder.usage_so_far(), None);
    decoder.push(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":7}}\n\n");
    assert_eq!(decoder.usage_so_far().unwrap().input_tokens, 7);
    let end = decoder.finish();
    assert_eq!(end.len(), 1);
    assert_eq!(end[0].clone().unwrap_err().kind, FailureKind::CutShort);
}

#[test]
fn writes_go_to_the_lifetime_that_was_asked_for() {
    use crate::dialect::openai::upstream::ChatDecoder;
    use crate::upstream::AnswerDecoder;
    let writes = |asked| {
        let mut decoder = ChatDecoder::new(&rules("kimi", "kimi-k3"), asked);
        let chunk = json!({"usage": {"prompt_tokens": 900, "prompt_tokens_details": {"cache_write_tokens": 512}}});
        decoder.push(format!("data: {chunk}\n\n").as_bytes());
        decoder.usage_so_far().unwrap().cache_writes
    };
    assert_eq!(writes(None).m5, 512);
    assert_eq!(writes(Some(300)).m5, 512);
    assert_eq!(writes(Some(3_600)).h1, 512);
}
