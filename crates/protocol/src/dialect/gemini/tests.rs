#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{GeminiUpstream, call_id, schema};
use crate::chat::{ContentPart, Delta, Message, Role, Tool, ToolCall, ToolChoice};
use crate::dialect::upstream_cases::{Case, body_of, decode, run};
use crate::provider::{Caching, UpstreamDialectName};
use crate::upstream::{
    AnswerEvent, ChatCall, Failure, FailureKind, Markers, Method, PrefixParts, UpstreamDialect,
};

const NAME: UpstreamDialectName = UpstreamDialectName::Gemini;
const STREAM: &[u8] = include_bytes!("../../../fixtures/upstream/gemini/stream_tool_calls.sse");

fn case() -> Case {
    Case {
        provider: "gemini".to_owned(),
        model: "gemini-3.8-flash".to_owned(),
        initial: vec![
            Message::text(Role::System, "Be short."),
            Message::text(Role::User, "The document."),
        ],
        ..Case::default()
    }
}

fn body(case: &Case) -> Value {
    let call = case.encode(&GeminiUpstream, NAME).unwrap().unwrap();
    serde_json::from_slice(&body_of(&call)).unwrap()
}

fn tool(parameters: Value) -> Tool {
    Tool {
        name: "f".to_owned(),
        description: None,
        parameters: Some(parameters),
        strict: Some(true),
    }
}

#[test]
fn fixtures() {
    run(
        &GeminiUpstream,
        NAME,
        "gemini",
        "gemini",
        "gemini-3.8-flash",
    );
}

#[test]
fn rules_go_by_model() {
    let min_tokens = |provider: &str, model: &str| {
        let case = Case {
            provider: provider.to_owned(),
            model: model.to_owned(),
            ..Case::default()
        };
        let cache = case.rules(NAME).cache;
        assert!(
            cache.caching != Caching::Handle || !cache.is_sliding,
            "{model}"
        );
        (cache.caching == Caching::Handle).then_some(cache.min_tokens)
    };
    for (provider, model, tokens) in [
        ("gemini", "gemini-2.5-flash-lite", Some(1_024)),
        ("gemini", "gemini-2.5-pro", Some(2_048)),
        ("gemini", "models/gemini-3.8-flash", Some(4_096)),
        ("gemini", "gemini-4-argon", Some(4_096)),
        ("gemini", "gemma-4-27b-it", None),
        ("vertex", "gemini-2.5-flash", Some(2_048)),
        (
            "vertex",
            "publishers/google/models/gemini-3.8-flash",
            Some(4_096),
        ),
    ] {
        assert_eq!(min_tokens(provider, model), tokens, "{model}");
    }
}

#[test]
fn handles_are_extended_and_dropped_below_the_base_url() {
    for handle in [
        "cachedContents/abc-1",
        "projects/123/locations/europe-west4/cachedContents/abc-1",
    ] {
        let extend = GeminiUpstream.encode_extend(handle, 7_200).unwrap();
        assert_eq!(extend.method, Method::Patch);
        assert_eq!(extend.path, "/cachedContents/abc-1?updateMask=ttl");
        assert_eq!(body_of(&extend), br#"{"ttl":"7200s"}"#);
        let drop = GeminiUpstream.encode_drop(handle).unwrap();
        assert_eq!(drop.method, Method::Delete);
        assert_eq!(drop.path, "/cachedContents/abc-1");
        assert!(drop.body.is_empty());
    }
    let odd = GeminiUpstream.encode_drop("cachedContents/a?b#c%").unwrap();
    assert_eq!(odd.path, "/cachedContents/a%3Fb%23c%25");
}

/// BerriAI/litellm#17304, vercel/ai#3333, langchain-ai/langchain-google#978.
#[test]
fn nothing_that_a_cache_holds_is_sent_beside_it() {
    let mut chat = Case {
        tools: vec![tool(
            json!({"type": "object", "properties": {"a": {"type": "string"}}}),
        )],
        tool_choice: Some(ToolChoice::Required),
        tenant_line: Some("Tenant".to_owned()),
        new: vec![
            Message::text(Role::System, "In French."),
            Message::text(Role::User, "Q"),
        ],
        ..case()
    };
    let replayed = body(&chat);
    let hold = body(&Case {
        new: Vec::new(),
        ..chat.clone()
    });
    chat.handle = Some("cachedContents/1".to_owned());
    chat.own_tool_choice = Some(ToolChoice::None);
    let beside = body(&chat);
    for field in ["systemInstruction", "tools", "toolConfig"] {
        assert!(beside.get(field).is_none(), "{field}");
        assert!(replayed.get(field).is_some(), "{field}");
        // A cache made from the same prefix holds just that.
        assert_eq!(hold[field], replayed[field], "{field}");
    }
    assert_eq!(beside["cachedContent"], "cachedContents/1");
}

/// OpenHands/OpenHands#4975: a cache is one contiguous beginning of what would have been sent without it.
#[test]
fn cache_and_rest_are_the_whole_conversation() {
    let history = vec![
        Message::text(Role::User, "Q1"),
        Message::text(Role::Assistant, "A1"),
    ];
    let chat = Case {
        history,
        new: vec![Message::text(Role::User, "Q2")],
        ..case()
    };
    let whole = body(&chat);
    let held = body(&Case {
        new: Vec::new(),
        ..chat.clone()
    });
    let beside = body(&Case {
        handle: Some("cachedContents/1".to_owned()),
        ..chat
    });
    let contents = |body: &Value| body["contents"].as_array().unwrap().clone();
    assert_eq!(
        [contents(&held), contents(&beside)].concat(),
        contents(&whole)
    );
    assert_eq!(contents(&held).len(), 1);
}

/// BerriAI/litellm#16961.
#[test]
fn schemas_lose_what_create_refuses_and_keep_their_order() {
    let parameters = json!({
        "$schema": "x", "type": "object", "additionalProperties": false,
        "properties": {
            "z": {"type": "integer", "enum": [1, 2], "exclusiveMinimum": 0, "minimum": 1},
            "a": {"enum": ["x", null]},
            "m": {"const": "only"},
            "k": {"type": ["string", "integer"]},
            "u": {"type": "string", "format": "uri"},
            "o": {"oneOf": [{"type": "string"}, {"type": "number", "multipleOf": 2}]},
            "all": {"allOf": [{"properties": {"p": true}, "required": ["p"]}, {"properties": {"q": {"type": "string"}}}], "description": "d"},
            "list": {"type": "array", "items": {"type": "string", "$comment": "c"}}
        },
        "required": ["z", "gone"]
    });
    let sanitised = schema::sanitised(&parameters, "p").unwrap().unwrap();
    assert_eq!(
        sanitised.to_string(),
        json!({
            "type": "object",
            "properties": {
                "z": {"type": "integer", "minimum": 1},
                "a": {"nullable": true, "type": "string", "enum": ["x"]},
                "m": {"type": "string", "enum": ["only"]},
                "k": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                "u": {"type": "string"},
                "o": {"anyOf": [{"type": "string"}, {"type": "number"}]},
                "all": {"properties": {"p": {}, "q": {"type": "string"}}, "required": ["p"], "description": "d"},
                "list": {"type": "array", "items": {"type": "string"}}
            },
            "required": ["z"]
        })
        .to_string()
    );
    for empty in [
        json!({}),
        json!({"type": "object"}),
        json!({"type": "object", "properties": {}}),
    ] {
        assert_eq!(schema::sanitised(&empty, "p").unwrap(), None);
    }
}

#[test]
fn references_end() {
    let tree = json!({
        "$ref": "#/$defs/Tree",
        "$defs": {"Tree": {"type": "object", "properties": {
            "left": {"$ref": "#/$defs/Tree"}, "right": {"$ref": "#/$defs/Tree"}, "lost": {"$ref": "#/$defs/Gone"}
        }}}
    });
    assert_eq!(
        schema::sanitised(&tree, "p").unwrap().unwrap(),
        json!({"type": "object", "properties": {
            "left": {"type": "object"}, "right": {"type": "object"}, "lost": {"type": "object"}
        }})
    );
    // Each definition uses the next one ten times.
    let mut definitions = json!({"d9": {"type": "string"}});
    for level in 0..9 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        let properties: serde_json::Map<_, _> = (0..10)
            .map(|name| (format!("p{name}"), next.clone()))
            .collect();
        definitions[format!("d{level}")] = json!({"type": "object", "properties": properties});
    }
    let bomb = json!({"$ref": "#/$defs/d0", "$defs": definitions});
    let error = schema::sanitised(&bomb, "tools[0].function.parameters").unwrap_err();
    assert_eq!(error.param.as_deref(), Some("tools[0].function.parameters"));
    let deep = (0..100).fold(
        json!({}),
        |inner, _| json!({"type": "array", "items": inner}),
    );
    assert!(schema::sanitised(&deep, "p").is_err());
}

fn failure_of(status: u16, body: &Value) -> Failure {
    GeminiUpstream.failure(status, &|_| None, body.to_string().as_bytes())
}

fn kind_of(status: u16, word: &str, message: &str) -> FailureKind {
    let body = json!({"error": {"code": status, "message": message, "status": word}});
    let failure = failure_of(status, &body);
    assert_eq!(failure.status, Some(status));
    assert_eq!(failure_of(status, &json!([body])).kind, failure.kind);
    failure.kind
}

/// BerriAI/litellm#17696, #12212: too small a prefix is no lost one, and making it again would not help.
#[test]
fn errors_about_caches_are_told_apart() {
    use FailureKind::{HandleGone, InvalidRequest, PrefixTooSmall};
    for (status, word, message, kind) in [
        (
            400,
            "INVALID_ARGUMENT",
            "Cached content is too small. total_token_count=896, min_total_token_count=1024",
            PrefixTooSmall,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "The minimum token count to start caching is 4096.",
            PrefixTooSmall,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "CachedContent can not be used with GenerateContent request setting system_instruction, tools or tool_config. Proposed fix: move those values to CachedContent from GenerateContent request.",
            InvalidRequest,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "Tool config, tools and system instruction should not be set in the request when using cached content.",
            InvalidRequest,
        ),
        (
            403,
            "PERMISSION_DENIED",
            "CachedContent not found (or permission denied)",
            HandleGone,
        ),
        (
            404,
            "NOT_FOUND",
            "Not found: cached content metadata for 77.",
            HandleGone,
        ),
        (
            404,
            "NOT_FOUND",
            "The cache\u{a0} content has expired.",
            HandleGone,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "Model used by GenerateContent request and CachedContent has to be the same.",
            HandleGone,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "The cached words are no content.",
            InvalidRequest,
        ),
        (
            500,
            "INTERNAL",
            "Cached content broke.",
            FailureKind::ServerError,
        ),
    ] {
        assert_eq!(kind_of(status, word, message), kind, "{message}");
    }
}

#[test]
fn other_errors_have_their_kinds() {
    for (status, word, message, kind) in [
        (
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            FailureKind::Unauthorized,
        ),
        (
            400,
            "FAILED_PRECONDITION",
            "User location is not supported for the API use.",
            FailureKind::Unauthorized,
        ),
        (403, "PERMISSION_DENIED", "No.", FailureKind::Unauthorized),
        (
            404,
            "NOT_FOUND",
            "models/x is not found for API version v1beta",
            FailureKind::ModelNotFound,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
            FailureKind::PromptTooLong,
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "Quota exceeded.",
            FailureKind::RateLimited,
        ),
        (
            503,
            "UNAVAILABLE",
            "The model is overloaded.",
            FailureKind::Overloaded,
        ),
        (504, "DEADLINE_EXCEEDED", "", FailureKind::Timeout),
        (500, "INTERNAL", "", FailureKind::ServerError),
    ] {
        assert_eq!(kind_of(status, word, message), kind, "{message}");
    }
    assert_eq!(
        GeminiUpstream.failure(502, &|_| None, b"<html>").kind,
        FailureKind::ServerError
    );
}

#[test]
fn a_rate_limit_says_when_to_come_back() {
    let body = |delay: &str| {
        json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "", "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
        ]}})
    };
    let retry_after = |delay: &str| failure_of(429, &body(delay)).retry_after;
    assert_eq!(retry_after("35s"), Some(Duration::from_secs(35)));
    assert_eq!(retry_after("1.5s"), Some(Duration::from_millis(1_500)));
    for nonsense in ["-1s", "NaNs", "1e400s", "35", ""] {
        assert_eq!(retry_after(nonsense), None, "{nonsense}");
    }
    let header = |name: &str| (name == "retry-after").then(|| "7".to_owned());
    let failure = GeminiUpstream.failure(429, &header, body("").to_string().as_bytes());
    assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
}

/// NousResearch/hermes-agent PR#70528: a cache may be gone on the streaming path, too.
#[test]
fn a_gone_cache_is_told_inside_a_stream() {
    let stream = br#"data: {"error":{"code":403,"message":"CachedContent not found (or permission denied)","status":"PERMISSION_DENIED"}}"#;
    let events = decode(&GeminiUpstream, &case().rules(NAME), &[stream]);
    let [Err(failure)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(failure.kind, FailureKind::HandleGone);
}

/// Gemini 3 refuses a call that comes back without its signature.
#[test]
fn signatures_and_ids_come_back_as_they_were() {
    let events = decode(&GeminiUpstream, &case().rules(NAME), &[STREAM]);
    let calls: Vec<ToolCall> = events
        .iter()
        .filter_map(|event| match event {
            Ok(AnswerEvent::Delta {
                delta: Delta::ToolCallStart { id, name, .. },
                ..
            }) => Some(ToolCall {
                id: id.clone(),
                name: name.clone(),
                arguments: String::new(),
            }),
            _ => None,
        })
        .collect();
    let results = calls.iter().map(|call| Message {
        tool_call_id: Some(call.id.clone()),
        ..Message::text(Role::Tool, "ok")
    });
    let results: Vec<_> = results.collect();
    let answer = Message {
        tool_calls: calls.clone(),
        content: Vec::new(),
        ..Message::text(Role::Assistant, "")
    };
    let sent = body(&Case {
        new: [vec![answer], results].concat(),
        ..case()
    });
    let parts = |index: usize| sent["contents"][index]["parts"].as_array().unwrap().clone();
    let signatures: Vec<_> = parts(1)
        .iter()
        .map(|part| part["thoughtSignature"].clone())
        .collect();
    assert_eq!(
        signatures,
        [json!("CpMB+/sig=="), json!("AbC="), Value::Null]
    );
    let ids: Vec<_> = parts(1)
        .iter()
        .map(|part| part["functionCall"]["id"].clone())
        .collect();
    assert_eq!(ids, [Value::Null, json!("fc-77"), json!("fc~78")]);
    let answered: Vec<_> = parts(2)
        .iter()
        .map(|part| part["functionResponse"]["id"].clone())
        .collect();
    assert_eq!(answered, ids);
}

#[test]
fn ids_of_other_upstreams_carry_nothing() {
    for id in [
        "",
        "toolu_01~QUJD",
        "~",
        "fc-1",
        "call_1~not base64!",
        "call_1~",
        "gem_",
        "call_1~_w",
    ] {
        assert_eq!(call_id::decode(id), call_id::Carried::default(), "{id}");
    }
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("{\"a\": 1.0}".to_owned()),
        ".{0,12}"
    ]
}

fn any_turn() -> impl Strategy<Value = Vec<Message>> {
    let role = prop_oneof![Just(Role::User), Just(Role::System), Just(Role::Tool)];
    let asked = proptest::collection::vec((role, any_text()), 1..4);
    (asked, any_text(), proptest::option::of(any_text())).prop_map(|(asked, answer, arguments)| {
        let mut turn: Vec<_> = asked
            .into_iter()
            .map(|(role, text)| Message {
                name: Some("f".to_owned()),
                tool_call_id: (role == Role::Tool).then(|| "call_1".to_owned()),
                ..Message::text(role, text)
            })
            .collect();
        let call = arguments.map(|arguments| ToolCall {
            id: "call_1".to_owned(),
            name: "f".to_owned(),
            arguments,
        });
        turn.push(Message {
            content: vec![ContentPart::Text { text: answer }],
            tool_calls: call.into_iter().collect(),
            ..Message::text(Role::Assistant, "")
        });
        turn
    })
}

proptest! {
    #[test]
    fn a_prefix_is_the_same_bytes_on_every_turn(
        initial in any_turn(),
        turns in proptest::collection::vec(any_turn(), 1..4),
        question in any_text(),
    ) {
        let rules = case().rules(NAME);
        let encode = |history: &[Message]| {
            GeminiUpstream.encode_prefix(
                &PrefixParts {
                    initial: &initial,
                    history,
                    previous_history: 0,
                    tools: &[],
                    markers: Markers::default(),
                    tenant_line: None,
                },
                &rules,
            )
            .unwrap()
        };
        let whole: Vec<Message> = turns.concat();
        let all = encode(&whole);
        for end in 0..=turns.len() {
            let earlier = encode(&turns[..end].concat());
            prop_assert_eq!(&earlier.initial, &all.initial);
            prop_assert_eq!(&earlier.system, &all.system);
            prop_assert!(
                all.history.starts_with(&earlier.history),
                "{:?} after {:?}",
                all.history,
                earlier.history
            );
        }
        let chat = Case { initial: initial.clone(), history: whole, new: vec![Message::text(Role::User, question)], ..case() };
        let sent = chat.encode(&GeminiUpstream, NAME).unwrap().unwrap();
        serde_json::from_slice::<Value>(&body_of(&sent)).unwrap();
        for part in [&all.initial, &all.history] {
            prop_assert!(part.is_empty() || sent.body.contains(part));
        }
    }

    #[test]
    fn ids_carry_back_what_they_were_given(
        given in proptest::option::of(".{1,20}"),
        response in proptest::option::of("[a-zA-Z0-9_~-]{1,20}"),
        number in any::<u32>(),
        signature in proptest::option::of(".{1,40}"),
    ) {
        let id = call_id::encode(given.as_deref(), response.as_deref(), number, signature.as_deref());
        let carried = call_id::decode(&id);
        prop_assert_eq!(carried.id, given.as_deref());
        prop_assert_eq!(carried.signature, signature);
    }

    #[test]
    fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let rules = case().rules(NAME);
        decode(&GeminiUpstream, &rules, &[&bytes]);
        decode(&GeminiUpstream, &rules, &[b"data: ", &bytes, b"\n\n"]);
        let _ = GeminiUpstream.decode_hold(&bytes, &rules);
        GeminiUpstream.failure(400, &|_| None, &bytes);
    }

    #[test]
    fn a_damaged_stream_ends_once_wherever_it_is_cut(
        at in 0..STREAM.len(),
        byte in any::<u8>(),
        cut in 0..STREAM.len(),
    ) {
        let mut stream = STREAM.to_vec();
        stream[at] = byte;
        let rules = case().rules(NAME);
        let events = decode(&GeminiUpstream, &rules, &[&stream]);
        let ends = events.iter().filter(|event| matches!(event, Err(_) | Ok(AnswerEvent::Done(_))));
        prop_assert_eq!(ends.count(), 1);
        let (first, second) = stream.split_at(cut);
        prop_assert_eq!(decode(&GeminiUpstream, &rules, &[first, second]), events);
    }
}

/// A large context costs a chat nothing: its bytes are shared, not copied.
#[test]
fn a_chat_shares_the_bytes_of_its_prefix() {
    let rules = case().rules(NAME);
    let composed_case = Case {
        new: vec![Message::text(Role::User, "Q")],
        ..case()
    };
    let prefix = GeminiUpstream
        .encode_prefix(
            &PrefixParts {
                initial: &composed_case.initial,
                history: &[],
                previous_history: 0,
                tools: &[],
                markers: Markers::default(),
                tenant_line: None,
            },
            &rules,
        )
        .unwrap();
    let composed = composed_case.composed();
    let call = GeminiUpstream
        .encode_chat(&ChatCall {
            model: "m",
            prefix: Some(&prefix),
            handle: None,
            chain: None,
            composed: &composed,
            max_tokens: None,
            cache_key: None,
            salt: None,
            tier_seconds: None,
            previous_answer: None,
            rules: &rules,
        })
        .unwrap();
    assert!(
        call.body
            .iter()
            .any(|piece| piece.as_ptr() == prefix.initial.as_ptr())
    );
}
