#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::{ComposedRequest, check_model, compose};
use crate::chat::{ChatRequest, Message, Role, Tool, ToolChoice};
use crate::context::{
    Context, ContextContent, ContextId, ContextMode, CreateContext, CreateSurface, Profile,
    ProfileKind, StoredMessage, Truncation, Turn,
};
use crate::error::{ApiError, ErrorFacts, ErrorKind};

const WINDOW: u32 = 1_000;
const RESERVE: u32 = 100;

fn request() -> ChatRequest {
    ChatRequest::new(None, vec![Message::text(Role::User, "new")])
}

fn context(profile: ProfileKind, mode: ContextMode) -> Context {
    let create = CreateContext {
        model: "Alias".to_owned(),
        messages: vec![Message::text(Role::System, "initial")],
        mode: Some(mode),
        ttl_seconds: None,
        truncation: None,
        tools: Vec::new(),
        tool_choice: None,
        display_name: None,
        metadata: Default::default(),
        policy: Default::default(),
    };
    let profile = Profile::of(profile, WINDOW);
    let id = ContextId::new(0, [0; 16]);
    Context::new(
        &create,
        CreateSurface::OpenAi,
        &profile,
        "p",
        "m",
        id,
        100,
        0,
    )
    .unwrap()
}

fn session(truncation: Truncation) -> Context {
    Context {
        truncation: Some(truncation),
        ..context(ProfileKind::Native, ContextMode::Session)
    }
}

/// One turn whose messages have these roles and sizes; each message's text is its position.
fn history_of(composed: &ComposedRequest) -> Vec<Message> {
    composed.history().cloned().collect()
}

fn content(history: &[(Role, u32)]) -> ContextContent {
    let messages = history
        .iter()
        .enumerate()
        .map(|(position, (role, tokens))| StoredMessage {
            message: Message::text(*role, position.to_string()),
            tokens: *tokens,
        })
        .collect();
    ContextContent {
        initial: vec![Message::text(Role::System, "initial")],
        turns: vec![Turn {
            number: 1,
            messages,
            committed_at: 0,
        }],
    }
}

fn users(tokens: &[u32]) -> ContextContent {
    let history: Vec<_> = tokens.iter().map(|tokens| (Role::User, *tokens)).collect();
    content(&history)
}

fn tool(name: &str) -> Tool {
    Tool {
        name: name.to_owned(),
        description: None,
        parameters: Some(json!({"type": "object"})),
        strict: None,
    }
}

fn composed(context: &Context, content: &ContextContent) -> ComposedRequest {
    compose(
        Some((context, &Arc::new(content.clone()))),
        request(),
        WINDOW,
        RESERVE,
    )
    .unwrap()
}

fn refusal(context: &Context, request: ChatRequest) -> ApiError {
    compose(
        Some((context, &Arc::new(users(&[])))),
        request,
        WINDOW,
        RESERVE,
    )
    .unwrap_err()
}

#[test]
fn without_a_context_the_request_is_all_there_is() {
    let request = ChatRequest {
        model: Some("m".to_owned()),
        tools: vec![tool("f")],
        tool_choice: Some(ToolChoice::Required),
        choices: 2,
        ..request()
    };
    let composed = compose(None, request.clone(), WINDOW, RESERVE).unwrap();
    assert_eq!(
        (composed.initial().len(), composed.history().count()),
        (0, 0)
    );
    assert_eq!(composed.new, request.messages);
    assert_eq!(composed.tools, request.tools);
    assert_eq!(composed.tool_choice, ToolChoice::Required);
    assert_eq!(composed.request.messages, []);
    assert_eq!(composed.request.choices, 2);
}

#[test]
fn the_prompt_is_initial_then_remembered_then_new() {
    let mut context = context(ProfileKind::Native, ContextMode::Session);
    context.dropped_messages = 1;
    let content = users(&[10, 10, 10]);
    let composed = composed(&context, &content);
    assert_eq!(composed.initial(), content.initial);
    assert_eq!(
        history_of(&composed),
        [
            Message::text(Role::User, "1"),
            Message::text(Role::User, "2")
        ]
    );
    assert_eq!(composed.new, request().messages);
    assert_eq!(
        (composed.dropped_messages, composed.rolling_trimmed),
        (1, false)
    );
    assert_eq!(composed.request.model.as_deref(), Some("Alias"));
}

#[test]
fn no_messages_and_an_answer_to_continue_are_refused_with_and_without_a_context() {
    let prefix = context(ProfileKind::Native, ContextMode::CommonPrefix);
    let stored = Arc::new(users(&[]));
    for messages in [vec![], vec![Message::text(Role::Assistant, "Sure, ")]] {
        for context in [None, Some((&prefix, &stored))] {
            let request = ChatRequest {
                messages: messages.clone(),
                ..request()
            };
            let error = compose(context, request, WINDOW, RESERVE).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidParameter);
            assert_eq!(error.param.as_deref(), Some("messages"));
        }
    }
}

#[test]
fn several_answers_are_refused_in_a_session_only() {
    let request = ChatRequest {
        choices: 2,
        ..request()
    };
    let session = context(ProfileKind::Native, ContextMode::Session);
    let error = refusal(&session, request.clone());
    assert_eq!(error.param.as_deref(), Some("n"));
    let prefix = context(ProfileKind::Native, ContextMode::CommonPrefix);
    assert!(
        compose(
            Some((&prefix, &Arc::new(users(&[])))),
            request,
            WINDOW,
            RESERVE
        )
        .is_ok()
    );
}

#[test]
fn tools_beside_a_context_follow_its_profile_and_its_own_tools() {
    let with_tools = |kind, names: &[&str]| Context {
        tools: names.iter().map(|name| tool(name)).collect(),
        ..context(kind, ContextMode::CommonPrefix)
    };
    type Names = &'static [&'static str];
    let table: [(ProfileKind, Names, Names, Option<Names>); 9] = [
        (ProfileKind::Gemini, &[], &[], Some(&[])),
        (ProfileKind::Gemini, &["a"], &[], Some(&["a"])),
        (ProfileKind::Gemini, &["a"], &["a"], Some(&["a"])),
        (ProfileKind::Gemini, &[], &["a"], None),
        (ProfileKind::Gemini, &["a"], &["b"], None),
        (ProfileKind::Native, &[], &["a"], Some(&["a"])),
        (ProfileKind::Ark, &[], &["a"], Some(&["a"])),
        (ProfileKind::Native, &["a"], &["a"], Some(&["a"])),
        (ProfileKind::Native, &["a"], &["a", "b"], None),
    ];
    for (kind, stored, given, expected) in table {
        let context = with_tools(kind, stored);
        let request = ChatRequest {
            tools: given.iter().map(|name| tool(name)).collect(),
            ..request()
        };
        let found = compose(
            Some((&context, &Arc::new(users(&[])))),
            request,
            WINDOW,
            RESERVE,
        );
        let case = format!("{kind:?} {stored:?} {given:?}");
        match (found, expected) {
            (Ok(composed), Some(expected)) => {
                let names: Vec<_> = composed.tools.iter().map(|tool| &tool.name).collect();
                assert_eq!(names, expected, "{case}");
            }
            (Err(error), None) => {
                assert_eq!(error.kind, ErrorKind::UnsupportedParameter, "{case}");
                assert_eq!(error.param.as_deref(), Some("tools"), "{case}");
            }
            (found, expected) => panic!("{case}: {found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn the_requests_tool_choice_comes_before_the_contexts_and_needs_a_tool() {
    let context = Context {
        tools: vec![tool("a")],
        tool_choice: Some(ToolChoice::Required),
        ..context(ProfileKind::Native, ContextMode::CommonPrefix)
    };
    assert_eq!(
        composed(&context, &users(&[])).tool_choice,
        ToolChoice::Required
    );
    let choose = |choice| ChatRequest {
        tool_choice: Some(choice),
        ..request()
    };
    let named = choose(ToolChoice::Named("a".to_owned()));
    let found = compose(
        Some((&context, &Arc::new(users(&[])))),
        named,
        WINDOW,
        RESERVE,
    )
    .unwrap();
    assert_eq!(found.tool_choice, ToolChoice::Named("a".to_owned()));

    let unknown = choose(ToolChoice::Named("b".to_owned()));
    assert_eq!(
        refusal(&context, unknown).param.as_deref(),
        Some("tool_choice")
    );
    let error = compose(None, choose(ToolChoice::Required), WINDOW, RESERVE).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("tool_choice"));
}

#[test]
fn another_model_is_refused_with_both_names() {
    let context = context(ProfileKind::Native, ContextMode::CommonPrefix);
    assert_eq!(check_model(&context, "m", "some other alias"), Ok(()));
    let error = check_model(&context, "m2", "Asked").unwrap_err();
    assert_eq!(error.param.as_deref(), Some("model"));
    assert!(error.message.contains("`Asked`") && error.message.contains("`Alias`"));
    assert_eq!(
        error.facts.as_deref(),
        Some(&ErrorFacts::OtherModel {
            requested: "Asked".to_owned(),
            held: "Alias".to_owned(),
        })
    );
}

#[test]
fn last_history_keeps_the_newest_whole_messages_that_fit() {
    // Capacity, sizes, messages dropped.
    let table: [(u32, &[u32], u32); 7] = [
        (30, &[10, 10, 10], 0),
        (29, &[10, 10, 10], 1),
        (20, &[10, 10, 10], 1),
        (9, &[10, 10, 10], 3),
        (25, &[1, 20, 10], 2),
        (5, &[], 0),
        (10, &[0, 10, 0], 0),
    ];
    for (last_history_tokens, sizes, dropped) in table {
        let context = session(Truncation::LastHistoryTokens {
            last_history_tokens,
        });
        let composed = composed(&context, &users(sizes));
        assert_eq!(
            composed.dropped_messages, dropped,
            "{last_history_tokens} {sizes:?}"
        );
        assert!(!composed.rolling_trimmed);
    }
}

#[test]
fn rolling_drops_a_block_once_the_window_is_reached() {
    let rolling = |max_window_tokens, rolling_window_tokens| Truncation::RollingTokens {
        rolling_tokens: true,
        max_window_tokens,
        rolling_window_tokens,
    };
    // The initial messages have 100 tokens; window less reserve is 900.
    let table: [(Truncation, &[u32], u32); 8] = [
        (rolling(None, None), &[400, 399], 0),
        (rolling(None, None), &[400, 400], 1),
        // By default a quarter of the window goes.
        (rolling(None, None), &[100, 100, 100, 500], 3),
        (rolling(Some(500), Some(100)), &[60, 60, 60, 60, 159], 0),
        (rolling(Some(500), Some(100)), &[60, 60, 60, 60, 160], 2),
        // A block may not be enough.
        (rolling(Some(500), Some(10)), &[60, 60, 60, 60, 260], 2),
        // The reserve counts even where the strategy's own window is larger.
        (rolling(Some(999), Some(1)), &[400, 400], 1),
        // What is left when nothing helps is the initial messages.
        (rolling(Some(50), Some(1)), &[10, 10], 2),
    ];
    for (truncation, sizes, dropped) in table {
        let composed = composed(&session(truncation), &users(sizes));
        assert_eq!(
            composed.dropped_messages, dropped,
            "{truncation:?} {sizes:?}"
        );
        assert_eq!(composed.rolling_trimmed, dropped > 0);
        assert_eq!(composed.history().count(), sizes.len() - dropped as usize);
    }
}

#[test]
fn rolling_off_and_prefixes_drop_nothing() {
    let off = Truncation::RollingTokens {
        rolling_tokens: false,
        max_window_tokens: None,
        rolling_window_tokens: None,
    };
    for context in [
        session(off),
        context(ProfileKind::Native, ContextMode::CommonPrefix),
    ] {
        let composed = composed(&context, &users(&[5_000, 5_000]));
        assert_eq!(
            (composed.dropped_messages, composed.history().count()),
            (0, 2)
        );
    }
}

#[test]
fn a_tools_result_goes_with_its_call() {
    let context = session(Truncation::LastHistoryTokens {
        last_history_tokens: 35,
    });
    let history = [
        (Role::User, 10),
        (Role::Assistant, 10),
        (Role::Tool, 10),
        (Role::Tool, 10),
        (Role::Assistant, 10),
    ];
    let composed = composed(&context, &content(&history));
    assert_eq!(composed.dropped_messages, 4);
    assert_eq!(history_of(&composed), [Message::text(Role::Assistant, "4")]);
}

fn any_truncation() -> impl Strategy<Value = Truncation> {
    prop_oneof![
        (1_u32..600).prop_map(|last_history_tokens| Truncation::LastHistoryTokens {
            last_history_tokens
        }),
        (
            any::<bool>(),
            proptest::option::of(2_u32..1_200),
            proptest::option::of(1_u32..600)
        )
            .prop_map(
                |(rolling_tokens, max_window_tokens, rolling_window_tokens)| {
                    Truncation::RollingTokens {
                        rolling_tokens,
                        max_window_tokens,
                        rolling_window_tokens,
                    }
                }
            ),
    ]
}

fn any_history() -> impl Strategy<Value = Vec<(Role, u32)>> {
    let role = prop_oneof![Just(Role::User), Just(Role::Assistant), Just(Role::Tool)];
    proptest::collection::vec((role, 0_u32..300), 0..12)
}

proptest! {
    #[test]
    fn truncation_only_shortens_history_from_its_old_end(
        truncation in any_truncation(),
        history in any_history(),
        dropped_before in 0_u32..14,
        reserve in 0_u32..1_200,
    ) {
        let content = content(&history);
        let mut context = session(truncation);
        context.dropped_messages = dropped_before.min(history.len() as u32);
        let composed = compose(Some((&context, &Arc::new(content.clone()))), request(), WINDOW, reserve).unwrap();

        prop_assert_eq!(composed.initial(), &content.initial[..]);
        prop_assert!(composed.dropped_messages >= context.dropped_messages);
        // What is kept is whole messages, the newest ones, in their order.
        let all: Vec<_> = content.remembered(0).map(|stored| stored.message.clone()).collect();
        prop_assert_eq!(&history_of(&composed)[..], &all[composed.dropped_messages as usize..]);

        // Room is made once: composing what is left drops no more.
        context.dropped_messages = composed.dropped_messages;
        let again = compose(Some((&context, &Arc::new(content.clone()))), request(), WINDOW, reserve).unwrap();
        let left: u64 = content.remembered(composed.dropped_messages).map(|stored| u64::from(stored.tokens)).sum();
        prop_assert_eq!(again.dropped_messages, composed.dropped_messages);
        if let Truncation::LastHistoryTokens { last_history_tokens } = truncation {
            prop_assert!(left <= u64::from(last_history_tokens));
        }
    }
}
