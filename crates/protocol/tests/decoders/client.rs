//! What clients send.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use holdfast_protocol::chat::{ChatRequest, ClientDialect, Message, Role};
use holdfast_protocol::compose::{ComposedRequest, compose};
use holdfast_protocol::context::{
    Context, ContextContent, ContextId, CreateContext, CreateSurface, ForkContext, Profile,
    ProfileKind,
};
use holdfast_protocol::dialect::{self, anthropic, gemini, openai, responses};
use holdfast_protocol::error::ApiError;
use holdfast_protocol::provider::{ModelRules, UpstreamDialectName};
use holdfast_protocol::upstream::{
    ChatCall, EncodedPrefix, HandleUse, HoldCall, HttpCall, Markers, OriginalCall, PrefixParts,
};
use serde_json::value::RawValue;

use crate::draw::Draw;
use crate::upstream::{rules, twice};

/// The longest text of an error, bytes. Errors name fields and never repeat what the client wrote.
const MESSAGE_MAX: usize = 500;
const WINDOW_TOKENS: u32 = 100_000;
/// The end of the year 2026.
const NOW: i64 = 1_798_761_600_000;

const UPSTREAMS: &[UpstreamDialectName] = &[
    UpstreamDialectName::OpenaiChat,
    UpstreamDialectName::OpenaiResponses,
    UpstreamDialectName::ArkResponses,
    UpstreamDialectName::ArkContext,
    UpstreamDialectName::Anthropic,
    UpstreamDialectName::Gemini,
    UpstreamDialectName::BedrockConverse,
];

/// OpenAI's chats, and the contexts beside them.
pub(crate) fn client_openai(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    chat(&body, |body| openai::decode_request(body), |chat| chat);
    let ttl = other(|| openai::decode_patch(&body));
    let fork = other(|| openai::decode_fork(&body));
    if let Some(create) = other(|| openai::decode_create(&body)) {
        context(&create, ttl, fork);
    }
}

/// Anthropic's messages.
pub(crate) fn client_anthropic(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    chat(&body, anthropic::client::decode_request, |request| {
        request.chat
    });
    chat(
        &body,
        |body| anthropic::client::decode_count(body),
        |chat| chat,
    );
}

/// Google's requests, and the contexts beside them.
pub(crate) fn client_gemini(data: &[u8]) {
    use gemini::client;
    let body = Bytes::copy_from_slice(data);
    let stream = data.len() % 2 == 1;
    chat(
        &body,
        |body| client::decode_request(body, "m", stream),
        |request| request.chat,
    );
    chat(&body, |body| client::decode_count(body, "m"), |chat| chat);
    let ttl = other(|| client::decode_patch(&body, None, NOW));
    other(|| client::decode_patch(&body, Some("ttl"), NOW));
    if let Some(create) = other(|| client::decode_create(&body, NOW)) {
        context(&create, ttl, None);
    }
}

/// Requests for responses, of either kind of client, and conversations.
pub(crate) fn client_responses(data: &[u8]) {
    use responses::client::{self, Surface};
    let body = Bytes::copy_from_slice(data);
    for surface in [Surface::OpenAi, Surface::Ark] {
        chat(
            &body,
            |body| client::decode_request(body, surface, NOW),
            // What is continued may be all that there is to say.
            |request| {
                request
                    .after(vec![Message::text(Role::User, "before")])
                    .chat
            },
        );
    }
    other(|| client::decode_metadata(&body));
    let items = other(|| client::decode_items(&body));
    if let Some(new) = other(|| client::decode_conversation(&body)) {
        let named = client::with_ids(new.items, "item_1", 0);
        other(|| client::messages_of_items(&named));
    }
    if let Some(items) = items {
        other(|| client::messages_of_items(&items));
    }
}

/// Ids of contexts in every spelling.
pub(crate) fn context_id(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match twice(|| text.parse::<ContextId>()) {
        Ok(id) => {
            assert!(text.ends_with(id.as_str()));
            assert!(id.as_str().starts_with("ctx-"));
            assert_eq!(id.as_str().parse::<ContextId>().as_ref(), Ok(&id));
            assert_eq!(id.to_string(), id.as_str());
        }
        Err(error) => assert_eq!(error, ApiError::context_not_found()),
    }
}

/// A decoder of chats: what it accepts can be sent on to every upstream, or is refused with a field's name.
pub(crate) fn chat<T: Debug + PartialEq>(
    body: &Bytes,
    decode: impl Fn(&Bytes) -> Result<T, ApiError>,
    chat_of: impl Fn(T) -> ChatRequest,
) {
    let Some(request) = other(|| decode(body)) else {
        return;
    };
    let chat = chat_of(request);
    assert!(!chat.messages.is_empty());
    assert!((1..=128).contains(&chat.choices));
    assert!(chat.stop.iter().all(|text| !text.is_empty()));
    let mut last = 0;
    for point in &chat.cache.points {
        assert!((last..=chat.messages.len()).contains(&point.messages));
        last = point.messages;
    }
    if let Some(original) = &chat.original {
        assert_eq!(original.body, body);
        goes_on_as_it_came(original.dialect, body);
    }
    is_sent(chat, &mut Draw::of(body));
}

/// A decoder of something else.
pub(crate) fn other<T: Debug + PartialEq>(decode: impl Fn() -> Result<T, ApiError>) -> Option<T> {
    match twice(decode) {
        Ok(decoded) => Some(decoded),
        Err(error) => {
            check_error(&error);
            None
        }
    }
}

fn check_error(error: &ApiError) {
    assert!((400..500).contains(&error.kind.status()), "{error:?}");
    assert!(error.message.len() <= MESSAGE_MAX, "{error:?}");
    let param = error.param.as_deref().unwrap_or_default();
    assert!(param.len() <= MESSAGE_MAX, "{error:?}");
}

/// Every upstream of the client's own dialect can be sent the request as it came.
fn goes_on_as_it_came(spoken: ClientDialect, body: &Bytes) {
    let mut draw = Draw::of(body);
    for name in UPSTREAMS {
        let dialect = dialect::upstream(*name);
        if dialect.speaks() != Some(spoken) {
            continue;
        }
        let rules = rules(*name, &mut draw);
        for (stream, tenant_line, cache_key) in
            [(false, None, None), (true, Some("tenant 1"), Some("key 1"))]
        {
            let call = OriginalCall {
                model: "the-model",
                body,
                headers: &[],
                stream,
                cache_key,
                tenant_line,
                rules: &rules,
            };
            let call = dialect
                .encode_original(&call)
                .expect("a request that was accepted is of its dialect");
            check_call(&call);
            let sent = call.body.concat();
            let fields: BTreeMap<String, &RawValue> =
                serde_json::from_slice(&sent).expect("it is still an object");
            // Gemini has the model's name in the path.
            match fields.get("model") {
                Some(model) => assert_eq!(model.get(), "\"the-model\""),
                None => assert!(call.path.contains("the-model")),
            }
        }
    }
}

/// A chat is sent to an upstream of each dialect.
fn is_sent(mut chat: ChatRequest, draw: &mut Draw) {
    chat.context_id = None;
    let composed = match compose(None, chat, WINDOW_TOKENS, 100) {
        Ok(composed) => composed,
        Err(error) => return check_error(&error),
    };
    for name in UPSTREAMS {
        let rules = rules(*name, draw);
        is_sent_to(*name, &rules, &composed, None, draw);
    }
}

fn is_sent_to(
    name: UpstreamDialectName,
    rules: &ModelRules,
    composed: &ComposedRequest,
    prefix: Option<&EncodedPrefix>,
    draw: &mut Draw,
) {
    let has_handle = draw.below(4) == 0;
    let call = dialect::upstream(name).encode_chat(&ChatCall {
        model: "the-model",
        prefix,
        handle: has_handle.then_some(HandleUse {
            name: "handle-1",
            with_history: false,
        }),
        chain: None,
        composed,
        max_tokens: composed.request.max_tokens,
        cache_key: Some("key 1"),
        salt: Some("salt 1"),
        tier_seconds: Some(3_600),
        previous_answer: None,
        rules,
    });
    match call {
        Ok(call) => check_call(&call),
        Err(error) => check_error(&error),
    }
}

/// A context that was asked for is made, changed, forked and held.
fn context(create: &CreateContext, ttl: Option<u64>, fork: Option<ForkContext>) {
    let id = |number| ContextId::new(NOW, [number; 16]);
    let content = ContextContent {
        initial: create.messages.clone(),
        turns: Vec::new(),
    };
    for kind in [ProfileKind::Gemini, ProfileKind::Ark, ProfileKind::Native] {
        let profile = Profile::of(kind, WINDOW_TOKENS);
        let surface = CreateSurface::OpenAi;
        let made = Context::new(create, surface, &profile, "p", "m", id(1), 100, NOW);
        let mut context = match made {
            Ok(context) => context,
            Err(error) => {
                check_error(&error);
                continue;
            }
        };
        assert!(context.expires_at > NOW);
        check_json(&openai::encode_created(&context, 0));
        check_json(&openai::encode_context(&context, None));
        if let Some(Err(error)) = ttl.map(|ttl| context.set_ttl(ttl, &profile, NOW)) {
            check_error(&error);
        }
        let fork = fork.unwrap_or_default();
        match context.fork(&content, &fork, &profile, id(2), NOW) {
            Ok(context) => check_json(&openai::encode_created(&context, 0)),
            Err(error) => check_error(&error),
        }
    }
    is_held(create);
}

/// What a context holds is held by an upstream of each dialect, and a chat follows it.
fn is_held(create: &CreateContext) {
    let initial = create.messages.as_slice();
    let chat = ChatRequest::new(Some("m".to_owned()), initial[initial.len() - 1..].to_vec());
    let composed = compose(None, chat, WINDOW_TOKENS, 100);
    let mut draw = Draw::new(initial.len() as u64);
    for name in UPSTREAMS {
        let dialect = dialect::upstream(*name);
        let rules = rules(*name, &mut draw);
        let parts = PrefixParts {
            initial,
            history: initial,
            previous_history: 1,
            tools: &create.tools,
            markers: Markers {
                initial_seconds: Some(3_600),
                history_seconds: Some(300),
            },
            tenant_line: Some("tenant 1"),
        };
        let prefix = match dialect.encode_prefix(&parts, &rules) {
            Ok(prefix) => prefix,
            Err(error) => {
                check_error(&error);
                continue;
            }
        };
        for elements in [&prefix.tools, &prefix.system, &prefix.initial] {
            check_json(&[b"[", elements.as_ref(), b"]"].concat());
        }
        match &composed {
            Ok(composed) => is_sent_to(*name, &rules, composed, Some(&prefix), &mut draw),
            Err(error) => check_error(error),
        }
        let call = dialect.encode_hold(&HoldCall {
            model: "the-model",
            prefix: &prefix,
            tool_choice: create.tool_choice.as_ref(),
            ttl_seconds: 3_600,
            expires_at_seconds: NOW / 1_000 + 3_600,
            cache_key: Some("key 1"),
            salt: Some("salt 1"),
            tier_seconds: Some(3_600),
            rules: &rules,
        });
        match call {
            Ok(Some(call)) => check_call(&call),
            Ok(None) => {}
            Err(error) => check_error(&error),
        }
    }
}

/// A call can be sent: a path, headers without line breaks, a body that is JSON.
fn check_call(call: &HttpCall) {
    assert!(call.path.starts_with('/'));
    assert!(call.path.bytes().all(|byte| byte.is_ascii_graphic()));
    for (_, value) in &call.headers {
        assert!(value.chars().all(|symbol| !symbol.is_control()));
    }
    check_json(&call.body.concat());
}

/// Read without a bound on nesting, because what is sent is nested deeper than what came.
fn check_json(bytes: &[u8]) {
    if let Err(error) = serde_json::from_slice::<&RawValue>(bytes) {
        panic!("{error}: {}", String::from_utf8_lossy(bytes));
    }
}
