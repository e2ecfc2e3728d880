#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ArkResponses, OpenAiResponses};
use crate::chat::{Message, ResponseFormat, Role, Tool, ToolChoice};
use crate::dialect::upstream_cases::{Case, body_of, decode, run};
use crate::provider::{Caching, UpstreamDialectName};
use crate::upstream::{AnswerEvent, FailureKind, Markers, Method, PrefixParts, UpstreamDialect};

const OPENAI: UpstreamDialectName = UpstreamDialectName::OpenaiResponses;
const ARK: UpstreamDialectName = UpstreamDialectName::ArkResponses;
const STREAM: &[u8] = include_bytes!("../../../fixtures/upstream/responses/stream_tool_calls.sse");

/// Fields that Ark's Responses API knows; any other fails the request (its own SDK's list).
const ARK_FIELDS: &[&str] = &[
    "input",
    "model",
    "max_output_tokens",
    "parallel_tool_calls",
    "previous_response_id",
    "thinking",
    "store",
    "caching",
    "stream",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "expire_at",
    "reasoning",
];

fn openai_case() -> Case {
    Case {
        provider: "openai".to_owned(),
        model: "gpt-5.6".to_owned(),
        initial: vec![
            Message::text(Role::System, "Be short."),
            Message::text(Role::User, "The document."),
        ],
        new: vec![Message::text(Role::User, "Q")],
        initial_marker: Some(43_200),
        history_marker: Some(1_800),
        ..Case::default()
    }
}

fn ark_case() -> Case {
    Case {
        provider: "ark".to_owned(),
        model: "doubao-seed-2-1-pro-260915".to_owned(),
        ..openai_case()
    }
}

fn body(dialect: &dyn UpstreamDialect, name: UpstreamDialectName, case: &Case) -> Value {
    let call = case.encode(dialect, name).unwrap().unwrap();
    serde_json::from_slice(&body_of(&call)).unwrap()
}

/// Texts of the blocks that carry a breakpoint, with its lifetime.
fn marked(body: &Value) -> Vec<(String, String)> {
    let items = body["input"].as_array().unwrap();
    items
        .iter()
        .flat_map(|item| {
            item["content"]
                .as_array()
                .into_iter()
                .chain(item["output"].as_array())
                .flatten()
        })
        .filter(|block| block.get("prompt_cache_breakpoint").is_some())
        .map(|block| {
            let ttl = &block["prompt_cache_breakpoint"]["ttl"];
            (
                block["text"].as_str().unwrap().to_owned(),
                ttl.as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

#[test]
fn openai_fixtures() {
    run(&OpenAiResponses, OPENAI, "responses", "openai", "gpt-5.6");
}

#[test]
fn ark_fixtures() {
    run(
        &ArkResponses,
        ARK,
        "ark",
        "ark",
        "doubao-seed-2-1-pro-260915",
    );
}

/// Facts section 0: the provider's own breakpoint stands at the end of the question, so that another question over the
/// same document would not hit.
#[test]
fn a_breakpoint_stands_at_the_end_of_the_context() {
    let other = Case {
        new: vec![Message::text(Role::User, "Another question")],
        ..openai_case()
    };
    for case in [openai_case(), other] {
        let body = body(&OpenAiResponses, OPENAI, &case);
        assert_eq!(
            marked(&body),
            [("The document.".to_owned(), "12h".to_owned())]
        );
        assert_eq!(body["prompt_cache_options"]["mode"], "explicit");
    }
    let without = Case {
        without_context: true,
        ..openai_case()
    };
    let body = body(&OpenAiResponses, OPENAI, &without);
    assert!(body.get("prompt_cache_options").is_none());
}

#[test]
fn a_turn_meets_the_breakpoint_that_the_turn_before_it_wrote() {
    let turn = |question: &str| {
        [
            Message::text(Role::User, question),
            Message::text(Role::Assistant, "answer"),
        ]
    };
    let history = [turn("one"), turn("two"), turn("three")].concat();
    let marks = |turns: usize| {
        let case = Case {
            history: history[..turns * 2].to_vec(),
            previous_history: (turns * 2).saturating_sub(2),
            ..openai_case()
        };
        let texts: Vec<_> = marked(&body(&OpenAiResponses, OPENAI, &case));
        texts.into_iter().map(|(text, _)| text).collect::<Vec<_>>()
    };
    assert_eq!(marks(0), ["The document."]);
    assert_eq!(marks(1), ["The document.", "one"]);
    assert_eq!(marks(2), ["The document.", "one", "two"]);
    assert_eq!(marks(3), ["The document.", "two", "three"]);
}

/// strands-agents PR#3571: lifetimes never grow towards the end.
#[test]
fn lifetimes_never_grow_towards_the_end() {
    let case = Case {
        history: vec![
            Message::text(Role::User, "one"),
            Message::text(Role::Assistant, "1"),
        ],
        initial_marker: Some(1_800),
        history_marker: Some(43_200),
        ..openai_case()
    };
    let lifetimes: Vec<_> = marked(&body(&OpenAiResponses, OPENAI, &case))
        .into_iter()
        .map(|(_, ttl)| ttl)
        .collect();
    assert_eq!(lifetimes, ["30m", "30m"]);
}

/// ding113/claude-code-hub#1023: `json: unknown field "prompt_cache_key"`.
#[test]
fn ark_is_sent_no_field_that_it_does_not_know() {
    let tool = Tool {
        name: "f".to_owned(),
        description: None,
        parameters: None,
        strict: Some(true),
    };
    let extra = json!({"prompt_cache_key": "k", "prompt_cache_options": {}, "metadata": {}, "seed": 1, "thinking": {"type": "auto"}});
    let everything = Case {
        cache_key: Some("k".to_owned()),
        tier_seconds: Some(1_800),
        tenant_line: Some("t".to_owned()),
        chain_until: Some(1_764_000_300),
        tools: vec![tool],
        own_tool_choice: Some(ToolChoice::Required),
        parallel_tool_calls: Some(false),
        temperature: Some(0.5),
        top_p: Some(0.5),
        max_tokens: Some(5),
        response_format: ResponseFormat::JsonObject,
        extra: extra.as_object().unwrap().clone(),
        ..ark_case()
    };
    let with_handle = Case {
        handle: Some("resp_1".to_owned()),
        ..everything.clone()
    };
    let hold = Case {
        new: Vec::new(),
        ..everything.clone()
    };
    for case in [everything, with_handle, hold] {
        let body = body(&ArkResponses, ARK, &case);
        for field in body.as_object().unwrap().keys() {
            assert!(ARK_FIELDS.contains(&field.as_str()), "{field}");
        }
        assert!(!body.to_string().contains("prompt_cache"));
        assert!(!body.to_string().contains("strict"));
    }
}

/// cloudwego/eino-ext#770: `caching` beside `json_schema` fails even when it says `disabled`.
#[test]
fn json_schema_goes_to_ark_without_any_caching() {
    let schema = Case {
        response_format: ResponseFormat::JsonSchema {
            name: "n".to_owned(),
            schema: json!({"type": "object"}),
            strict: true,
        },
        ..ark_case()
    };
    let body = body(&ArkResponses, ARK, &schema);
    assert!(body.get("caching").is_none());
    assert_eq!(body["text"]["format"]["type"], "json_schema");
    let chained = Case {
        chain_until: Some(1),
        ..schema
    };
    let error = chained.encode(&ArkResponses, ARK).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("response_format"));
}

/// volcengine/veadk-python PR#443: the expiry is of the moment of sending, and an answer that is not kept has none.
#[test]
fn ark_is_told_the_expiry_of_each_call() {
    for until in [1_764_000_300, 1_764_000_900] {
        let chained = Case {
            handle: Some("resp_1".to_owned()),
            chain_until: Some(until),
            ..ark_case()
        };
        let body = body(&ArkResponses, ARK, &chained);
        assert_eq!(body["expire_at"], until);
        assert_eq!(body["store"], true);
    }
    let branch = Case {
        handle: Some("resp_1".to_owned()),
        ..ark_case()
    };
    let with_handle = body(&ArkResponses, ARK, &branch);
    assert!(with_handle.get("expire_at").is_none());
    assert_eq!(with_handle["caching"], json!({"type": "enabled"}));
    assert_eq!(body(&ArkResponses, ARK, &ark_case())["store"], false);
}

#[test]
fn rules_of_ark_go_by_model_and_interface() {
    for provider in ["ark", "byteplus"] {
        let caching = |model: &str, name| {
            let case = Case {
                provider: provider.to_owned(),
                model: model.to_owned(),
                ..Case::default()
            };
            let cache = case.rules(name).cache;
            (cache.caching, cache.is_sliding)
        };
        let chat = UpstreamDialectName::OpenaiChat;
        let context = UpstreamDialectName::ArkContext;
        let (seed, older, endpoint) = (
            "doubao-seed-2-1-pro-260915",
            "doubao-1-5-pro-32k-250115",
            "ep-2026-x",
        );
        assert_eq!(caching(seed, ARK), (Caching::Handle, false));
        assert_eq!(caching(endpoint, ARK), (Caching::Handle, false));
        assert_eq!(caching(older, ARK).0, Caching::Replay);
        assert_eq!(caching(older, context), (Caching::Handle, true));
        assert_eq!(caching(seed, chat).0, Caching::Automatic);
        assert_eq!(caching("doubao-seed-1-6-250615", chat).0, Caching::Replay);
    }
}

#[test]
fn ark_responses_are_dropped_by_their_id() {
    let drop = ArkResponses.encode_drop("resp_/../1").unwrap();
    assert_eq!(drop.method, Method::Delete);
    assert_eq!(drop.path, "/responses/resp_%2F..%2F1");
    assert!(ArkResponses.encode_extend("resp_1", 60).is_none());
    assert!(OpenAiResponses.encode_drop("resp_1").is_none());
}

fn kind(
    dialect: &dyn UpstreamDialect,
    status: u16,
    code: &str,
    message: &str,
    param: Option<&str>,
) -> FailureKind {
    let body =
        json!({"error": {"code": code, "message": message, "param": param, "type": "BadRequest"}});
    let failure = dialect.failure(status, &|_| None, body.to_string().as_bytes());
    assert_eq!(failure.status, Some(status));
    assert_eq!(failure.param.as_deref(), param);
    failure.kind
}

#[test]
fn errors_of_ark_have_their_kinds() {
    use FailureKind::*;
    for (status, code, message, param, expected) in [
        (
            404,
            "NotFound",
            "The response does not exist.",
            None,
            HandleGone,
        ),
        (
            400,
            "InvalidParameter.PreviousResponseNotFound",
            "",
            Some("previous_response_id"),
            HandleGone,
        ),
        (
            400,
            "InvalidParameter",
            "The previous response has expired.",
            None,
            HandleGone,
        ),
        (
            404,
            "InvalidEndpointOrModel.NotFound",
            "The model does not exist.",
            None,
            ModelNotFound,
        ),
        (404, "ModelNotOpen", "", None, ModelNotFound),
        (
            400,
            "InvalidParameter",
            "caching.prefix needs at least 256 tokens",
            Some("caching"),
            PrefixTooSmall,
        ),
        (
            400,
            "InvalidParameter",
            "The prefix is too small to be cached.",
            None,
            PrefixTooSmall,
        ),
        (
            400,
            "InvalidParameter",
            "json: unknown field \"caching\"",
            None,
            MarkerRefused,
        ),
        (
            400,
            "InvalidParameter",
            "caching: expire_at must be less than 604800 seconds away",
            Some("expire_at"),
            MarkerRefused,
        ),
        (
            400,
            "InvalidParameter",
            "The parameter `thinking` must not change.",
            Some("thinking"),
            MarkerRefused,
        ),
        (
            400,
            "InvalidParameter",
            "`temperature` must be at least 0.",
            Some("temperature"),
            InvalidRequest,
        ),
        (400, "OutofContextError", "", None, PromptTooLong),
        (400, "InputTextSensitiveContentDetected", "", None, Filtered),
        (401, "AuthenticationError", "", None, Unauthorized),
        (403, "AccountOverdueError", "", None, Unauthorized),
        (429, "ServerOverloaded", "", None, Overloaded),
        (
            429,
            "RateLimitExceeded.EndpointTPMExceeded",
            "",
            None,
            RateLimited,
        ),
        (500, "InternalServiceError", "", None, ServerError),
    ] {
        assert_eq!(
            kind(&ArkResponses, status, code, message, param),
            expected,
            "{code}: {message}"
        );
    }
}

#[test]
fn errors_of_openai_have_their_kinds() {
    use FailureKind::*;
    for (status, code, message, param, expected) in [
        (
            400,
            "context_length_exceeded",
            "",
            Some("input"),
            PromptTooLong,
        ),
        (
            400,
            "unknown_parameter",
            "Unknown parameter: 'prompt_cache_options'.",
            Some("prompt_cache_options"),
            MarkerRefused,
        ),
        (
            400,
            "",
            "Unknown parameter: 'input[0].content[0].prompt_cache_breakpoint'.",
            None,
            MarkerRefused,
        ),
        (
            400,
            "previous_response_not_found",
            "",
            Some("previous_response_id"),
            HandleGone,
        ),
        (400, "invalid_prompt", "", None, Filtered),
        (
            400,
            "invalid_value",
            "The caching of thinking is bad.",
            Some("input"),
            InvalidRequest,
        ),
        (404, "model_not_found", "", None, ModelNotFound),
        (401, "invalid_api_key", "", None, Unauthorized),
        (429, "insufficient_quota", "", None, RateLimited),
        (503, "", "", None, Overloaded),
    ] {
        assert_eq!(
            kind(&OpenAiResponses, status, code, message, param),
            expected,
            "{code}: {message}"
        );
    }
    let html = OpenAiResponses.failure(502, &|_| None, b"<html>secret words");
    assert_eq!((html.kind, html.message.as_str()), (ServerError, ""));
}

fn any_turn() -> impl Strategy<Value = Vec<Message>> {
    let role = prop_oneof![Just(Role::User), Just(Role::Developer), Just(Role::Tool)];
    let asked = proptest::collection::vec((role, ".{0,12}"), 1..4);
    (asked, ".{0,12}").prop_map(|(asked, answer)| {
        let asked = asked.into_iter().map(|(role, text)| Message {
            tool_call_id: (role == Role::Tool).then(|| "call_1".to_owned()),
            ..Message::text(role, text)
        });
        asked
            .chain([Message::text(Role::Assistant, answer)])
            .collect()
    })
}

proptest! {
    #[test]
    fn a_prefix_is_the_same_bytes_on_every_turn(
        initial in any_turn(),
        turns in proptest::collection::vec(any_turn(), 1..4),
        is_ark in any::<bool>(),
    ) {
        let (dialect, name, case): (&dyn UpstreamDialect, _, _) = if is_ark {
            (&ArkResponses, ARK, ark_case())
        } else {
            (&OpenAiResponses, OPENAI, openai_case())
        };
        let rules = case.rules(name);
        let encode = |history: &[Message], markers| {
            let parts = PrefixParts {
                initial: &initial,
                history,
                previous_history: 0,
                tools: &[],
                markers,
                tenant_line: None,
            };
            dialect.encode_prefix(&parts, &rules).unwrap()
        };
        let marked = Markers { initial_seconds: Some(1_800), history_seconds: Some(1_800) };
        let whole = turns.concat();
        let all = encode(&whole, Markers::default());
        for end in 0..=turns.len() {
            let earlier = turns[..end].concat();
            let unmarked = encode(&earlier, Markers::default());
            prop_assert_eq!(&unmarked.initial, &all.initial);
            prop_assert!(all.history.starts_with(&unmarked.history));
            // A marker at the end of the history leaves the initial messages alone.
            prop_assert_eq!(encode(&earlier, marked).initial, encode(&whole, marked).initial);
        }
        let chat = Case { initial: initial.clone(), history: whole, initial_marker: None, history_marker: None, ..case };
        let sent = chat.encode(dialect, name).unwrap().unwrap();
        serde_json::from_slice::<Value>(&body_of(&sent)).unwrap();
        for part in [&all.initial, &all.history] {
            prop_assert!(part.is_empty() || sent.body.contains(part));
        }
    }

    #[test]
    fn markers_change_nothing_but_themselves(
        initial in any_turn(),
        turns in proptest::collection::vec(any_turn(), 1..4),
        previous in 0..4_usize,
    ) {
        let history = turns.concat();
        let previous_history = turns.iter().take(previous).map(Vec::len).sum();
        let marked_case = Case { initial, history, previous_history, ..openai_case() };
        let plain_case = Case { initial_marker: None, history_marker: None, ..marked_case.clone() };
        let mut found = body(&OpenAiResponses, OPENAI, &marked_case);
        prop_assert!(found.to_string().matches("prompt_cache_breakpoint").count() <= 3);
        for item in found["input"].as_array_mut().unwrap() {
            for key in ["content", "output"] {
                let blocks = item.get_mut(key).and_then(Value::as_array_mut);
                for block in blocks.into_iter().flatten() {
                    block.as_object_mut().unwrap().shift_remove("prompt_cache_breakpoint");
                }
            }
        }
        let plain = body(&OpenAiResponses, OPENAI, &plain_case);
        prop_assert_eq!(found["input"].to_string(), plain["input"].to_string());
    }

    #[test]
    fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        for (dialect, rules) in [
            (&OpenAiResponses as &dyn UpstreamDialect, openai_case().rules(OPENAI)),
            (&ArkResponses, ark_case().rules(ARK)),
        ] {
            decode(dialect, &rules, &[&bytes]);
            decode(dialect, &rules, &[b"data: ", &bytes, b"\n\n"]);
            let _ = dialect.decode_hold(&bytes, &rules);
            dialect.failure(400, &|_| None, &bytes);
        }
    }

    #[test]
    fn a_damaged_stream_ends_once_wherever_it_is_cut(
        at in 0..STREAM.len(),
        byte in any::<u8>(),
        cut in 0..STREAM.len(),
    ) {
        let mut stream = STREAM.to_vec();
        stream[at] = byte;
        let rules = openai_case().rules(OPENAI);
        let events = decode(&OpenAiResponses, &rules, &[&stream]);
        let ends = events.iter().filter(|event| matches!(event, Err(_) | Ok(AnswerEvent::Done(_))));
        prop_assert_eq!(ends.count(), 1);
        let (first, second) = stream.split_at(cut);
        prop_assert_eq!(decode(&OpenAiResponses, &rules, &[first, second]), events);
    }
}
