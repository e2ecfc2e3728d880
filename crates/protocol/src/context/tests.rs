#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::{
    Context, ContextContent, ContextId, ContextMode, CreateContext, CreateSurface, Expiry,
    ForkContext, Profile, ProfileKind, StoredMessage, Truncation, TruncationKind,
    TruncationRequest, Turn,
};
use crate::chat::{Message, Role};
use crate::error::{ApiError, ErrorFacts, ErrorKind};

const NOW: i64 = 1_795_375_800_123;
const WINDOW: u32 = 32_768;
const ROLLING: Truncation = Truncation::RollingTokens {
    rolling_tokens: true,
    max_window_tokens: None,
    rolling_window_tokens: None,
};

fn id(seed: u8) -> ContextId {
    ContextId::new(NOW, [seed; 16])
}

fn create() -> CreateContext {
    CreateContext {
        model: "Alias".to_owned(),
        messages: vec![Message::text(Role::System, "x")],
        mode: None,
        ttl_seconds: None,
        truncation: None,
        tools: Vec::new(),
        tool_choice: None,
        display_name: None,
        metadata: Default::default(),
        policy: Default::default(),
    }
}

fn new_with(
    create: &CreateContext,
    surface: CreateSurface,
    profile: &Profile,
    tokens: u64,
) -> Result<Context, ApiError> {
    Context::new(create, surface, profile, "default", "m", id(1), tokens, NOW)
}

fn session_with(truncation: TruncationRequest) -> Result<Context, ApiError> {
    let create = CreateContext {
        mode: Some(ContextMode::Session),
        truncation: Some(truncation),
        ..create()
    };
    let profile = Profile::of(ProfileKind::Native, WINDOW);
    new_with(&create, CreateSurface::OpenAi, &profile, 10)
}

/// `turns` turns of one user and one assistant message, each of `tokens` tokens.
fn content(turns: u32, tokens: u32) -> ContextContent {
    let stored = |role, turn| StoredMessage {
        message: Message::text(role, format!("{turn}")),
        tokens,
    };
    ContextContent {
        initial: vec![Message::text(Role::System, "x")],
        turns: (1..=turns)
            .map(|number| Turn {
                number,
                messages: vec![stored(Role::User, number), stored(Role::Assistant, number)],
                committed_at: NOW,
            })
            .collect(),
    }
}

/// A session of `turns` turns of twice 10 tokens, of which `dropped` messages are forgotten.
fn session(turns: u32, dropped: u32) -> Context {
    let mut context = session_with(TruncationRequest::default()).unwrap();
    context.turn_count = turns;
    context.version = u64::from(turns) + 1;
    context.dropped_messages = dropped;
    context.prefix_tokens = 10 + 10 * u64::from(2 * turns - dropped);
    context
}

#[test]
fn ids_say_when_and_are_as_long_as_their_randomness() {
    assert_eq!(
        ContextId::new(NOW, [0; 16]).as_str(),
        format!("ctx-20261122193000-{}", "a".repeat(26))
    );
    assert_eq!(
        ContextId::new(NOW, [0xff; 16]).as_str(),
        format!("ctx-20261122193000-{}4", "7".repeat(25))
    );
    // Clocks that are off by ages still make ids that parse.
    for now in [i64::MIN, -1, i64::MAX] {
        let id = ContextId::new(now, [7; 16]);
        assert_eq!(id.as_str().parse(), Ok(id));
    }
}

#[test]
fn malformed_ids_are_unknown_contexts() {
    let good = id(1).to_string();
    let long_project = format!(
        "projects/{}/locations/global/cachedContents/{good}",
        "p".repeat(600)
    );
    for text in [
        "",
        "create",
        "chat",
        "cachedContents/create",
        "ctx-",
        "ctx-20261122193000-",
        "ctx-20261122193000-k3x9q",
        "ctx-2026112219300x-aaaaaaaaaaaaaaaaaaaaaaaaaa",
        "ctx-20261122193000-aaaaaaaaaaaaaaaaaaaaaaaa/a",
        &good.to_uppercase(),
        &format!(" {good}"),
        &format!("{good}\n"),
        &format!("{good}{}", "a".repeat(64)),
        &format!("/{good}"),
        &format!("contexts/{good}"),
        &format!("cachedContents/{good}/"),
        &format!("projects//locations/global/cachedContents/{good}"),
        &format!("projects/1/locations//cachedContents/{good}"),
        &format!("projects/1/cachedContents/{good}"),
        &long_project,
    ] {
        assert_eq!(
            text.parse::<ContextId>(),
            Err(ApiError::context_not_found()),
            "{text:?}"
        );
    }
}

#[test]
fn mode_and_expiry_follow_profile_and_surface() {
    use ContextMode::{CommonPrefix, Session};
    use CreateSurface::{Ark, OpenAi};
    use Expiry::{Fixed, Sliding};
    let table = [
        (ProfileKind::Gemini, OpenAi, None, CommonPrefix, Fixed),
        (ProfileKind::Gemini, Ark, None, CommonPrefix, Fixed),
        (ProfileKind::Gemini, OpenAi, Some(Session), Session, Sliding),
        (ProfileKind::Ark, OpenAi, None, Session, Sliding),
        (ProfileKind::Ark, Ark, None, Session, Sliding),
        (
            ProfileKind::Ark,
            Ark,
            Some(CommonPrefix),
            CommonPrefix,
            Sliding,
        ),
        (ProfileKind::Native, OpenAi, None, CommonPrefix, Sliding),
        (ProfileKind::Native, Ark, None, Session, Sliding),
        (ProfileKind::Native, OpenAi, Some(Session), Session, Sliding),
        (
            ProfileKind::Native,
            Ark,
            Some(CommonPrefix),
            CommonPrefix,
            Sliding,
        ),
    ];
    for (kind, surface, requested, mode, expiry) in table {
        let create = CreateContext {
            mode: requested,
            ..create()
        };
        let context = new_with(&create, surface, &Profile::of(kind, WINDOW), 10).unwrap();
        let case = format!("{kind:?} {surface:?} {requested:?}");
        assert_eq!((context.mode, context.expiry), (mode, expiry), "{case}");
        let truncation = (mode == Session).then_some(ROLLING);
        assert_eq!(context.truncation, truncation, "{case}");
    }
}

#[test]
fn ttls_default_and_range_by_profile() {
    let table = [
        (ProfileKind::Gemini, 3_600, 1),
        (ProfileKind::Native, 3_600, 1),
        (ProfileKind::Ark, 86_400, 3_600),
    ];
    for (kind, default, minimum) in table {
        let profile = Profile::of(kind, WINDOW);
        assert_eq!(profile.checked_ttl(None), Ok(default));
        assert_eq!(profile.checked_ttl(Some(u64::from(minimum))), Ok(minimum));
        assert_eq!(profile.checked_ttl(Some(604_800)), Ok(604_800));
        for bad in [u64::from(minimum) - 1, 604_801, u64::MAX] {
            let error = profile.checked_ttl(Some(bad)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidParameter);
            assert_eq!(error.param.as_deref(), Some("ttl"));
            assert!(error.message.contains(&format!("{minimum} to 604800")));
        }
    }
}

#[test]
fn the_seeds_requests_work_on_every_profile_and_surface_but_for_arks_shortest_ttl() {
    for kind in [ProfileKind::Gemini, ProfileKind::Native, ProfileKind::Ark] {
        for surface in [CreateSurface::OpenAi, CreateSurface::Ark] {
            let profile = Profile::of(kind, WINDOW);
            let short = CreateContext {
                ttl_seconds: Some(300),
                ..create()
            };
            let short = new_with(&short, surface, &profile, 10);
            assert_eq!(short.is_ok(), kind != ProfileKind::Ark, "{kind:?}");

            let session = CreateContext {
                mode: Some(ContextMode::Session),
                ttl_seconds: Some(3_600),
                ..create()
            };
            let session = new_with(&session, surface, &profile, 10).unwrap();
            assert_eq!(session.mode, ContextMode::Session);
            assert_eq!(session.expires_at, NOW + 3_600_000);
        }
    }
}

#[test]
fn prefixes_must_be_neither_too_small_nor_as_large_as_the_window() {
    let profile = Profile {
        min_context_tokens: 1_024,
        ..Profile::of(ProfileKind::Gemini, 4_096)
    };
    let new = |tokens| new_with(&create(), CreateSurface::OpenAi, &profile, tokens);
    let error = new(1_023).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidParameter);
    assert_eq!(error.param.as_deref(), Some("messages"));
    for fragment in [
        "Cached content is too small",
        "total_token_count=1023,",
        "min_total_token_count=1024.",
    ] {
        assert!(error.message.contains(fragment), "{}", error.message);
    }
    assert_eq!(
        error.facts.as_deref(),
        Some(&ErrorFacts::TooSmall {
            tokens: Some(1_023),
            min_tokens: Some(1_024),
        })
    );
    assert!(new(1_024).is_ok());
    assert!(new(4_095).is_ok());
    for tokens in [4_096, u64::MAX] {
        assert_eq!(new(tokens).unwrap_err().kind, ErrorKind::OutOfContext);
    }
}

#[test]
fn truncation_is_for_sessions() {
    let profile = Profile::of(ProfileKind::Native, WINDOW);
    let new = |truncation| {
        let create = CreateContext {
            truncation: Some(truncation),
            ..create()
        };
        new_with(&create, CreateSurface::OpenAi, &profile, 10)
    };
    assert_eq!(new(TruncationRequest::default()).unwrap().truncation, None);
    let real = TruncationRequest {
        rolling_tokens: Some(true),
        ..TruncationRequest::default()
    };
    let error = new(real).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidParameter);
    assert_eq!(error.param.as_deref(), Some("truncation_strategy"));
}

#[test]
fn truncation_takes_defaults_and_keeps_bounds() {
    let request = |kind, last, max, rolling| TruncationRequest {
        kind,
        last_history_tokens: last,
        rolling_tokens: None,
        max_window_tokens: max,
        rolling_window_tokens: rolling,
    };
    let last = |last_history_tokens| Truncation::LastHistoryTokens {
        last_history_tokens,
    };
    let rolling = |max_window_tokens, rolling_window_tokens| Truncation::RollingTokens {
        rolling_tokens: true,
        max_window_tokens,
        rolling_window_tokens,
    };
    let by_last = Some(TruncationKind::LastHistoryTokens);
    let by_rolling = Some(TruncationKind::RollingTokens);
    let accepted = [
        (request(by_last, None, None, None), last(4_096)),
        (request(by_last, Some(1), None, None), last(1)),
        (request(by_last, Some(32_767), Some(1), None), last(32_767)),
        (request(None, Some(7), None, None), last(7)),
        (
            request(by_rolling, Some(7), None, None),
            rolling(None, None),
        ),
        (
            request(None, None, Some(2), Some(1)),
            rolling(Some(2), Some(1)),
        ),
        (
            request(by_rolling, None, Some(32_767), Some(32_766)),
            rolling(Some(32_767), Some(32_766)),
        ),
        (
            request(by_rolling, None, None, Some(32_767)),
            rolling(None, Some(32_767)),
        ),
    ];
    for (request, expected) in accepted {
        let context = session_with(request.clone()).unwrap();
        assert_eq!(context.truncation, Some(expected), "{request:?}");
    }
    let refused = [
        (request(by_last, Some(0), None, None), "last_history_tokens"),
        (
            request(by_last, Some(32_768), None, None),
            "last_history_tokens",
        ),
        (
            request(by_rolling, None, Some(0), None),
            "max_window_tokens",
        ),
        (
            request(by_rolling, None, Some(1), None),
            "max_window_tokens",
        ),
        (
            request(by_rolling, None, Some(WINDOW), None),
            "max_window_tokens",
        ),
        (
            request(by_rolling, None, None, Some(0)),
            "rolling_window_tokens",
        ),
        (
            request(by_rolling, None, None, Some(WINDOW)),
            "rolling_window_tokens",
        ),
        (
            request(by_rolling, None, Some(9), Some(9)),
            "rolling_window_tokens",
        ),
        (request(None, Some(7), Some(9), None), "type"),
    ];
    for (request, field) in refused {
        let error = session_with(request.clone()).unwrap_err();
        let param = format!("truncation_strategy.{field}");
        assert_eq!(error.param, Some(param), "{request:?}");
    }
}

#[test]
fn use_moves_only_sliding_expiries_and_never_back() {
    let create = create();
    let new = |kind| {
        new_with(
            &create,
            CreateSurface::OpenAi,
            &Profile::of(kind, WINDOW),
            10,
        )
        .unwrap()
    };
    let later = NOW + 60_000;
    let fixed = new(ProfileKind::Gemini);
    assert_eq!(fixed.expires_after_use(later), fixed.expires_at);
    let mut sliding = new(ProfileKind::Native);
    assert_eq!(sliding.expires_after_use(later), later + 3_600_000);
    assert_eq!(sliding.expires_after_use(NOW - 1), sliding.expires_at);
    assert_eq!(sliding.expires_after_use(i64::MAX), i64::MAX);
    assert!(!sliding.is_expired(sliding.expires_at - 1));
    assert!(sliding.is_expired(sliding.expires_at));

    let profile = Profile::of(ProfileKind::Native, WINDOW);
    sliding.set_ttl(60, &profile, later).unwrap();
    assert_eq!(
        (sliding.ttl_seconds, sliding.expires_at),
        (60, later + 60_000)
    );
    let before = sliding.clone();
    assert!(sliding.set_ttl(0, &profile, later).is_err());
    assert_eq!(sliding, before);
}

fn fork_of(
    parent: &Context,
    content: &ContextContent,
    fork: &ForkContext,
) -> Result<Context, ApiError> {
    let profile = Profile::of(ProfileKind::Native, WINDOW);
    parent.fork(content, fork, &profile, id(9), NOW + 5_000)
}

#[test]
fn a_prefix_forks_into_a_session_that_names_its_parent() {
    let create = CreateContext {
        ttl_seconds: Some(300),
        ..create()
    };
    let profile = Profile::of(ProfileKind::Native, WINDOW);
    let parent = new_with(&create, CreateSurface::OpenAi, &profile, 10).unwrap();
    let child = fork_of(&parent, &content(0, 0), &ForkContext::default()).unwrap();
    let expected = Context {
        id: id(9),
        mode: ContextMode::Session,
        created_at: NOW + 5_000,
        expires_at: NOW + 305_000,
        truncation: Some(ROLLING),
        forked_from: Some((id(1), 0)),
        ..parent.clone()
    };
    assert_eq!(child, expected);

    let beyond = ForkContext {
        at_turn: Some(1),
        ..ForkContext::default()
    };
    let error = fork_of(&parent, &content(0, 0), &beyond).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("at_turn"));
    assert_eq!(error.kind, ErrorKind::InvalidParameter);
}

#[test]
fn a_session_forks_at_any_of_its_turns() {
    let (parent, content) = (session(3, 0), content(3, 10));
    let at = |at_turn| ForkContext {
        at_turn,
        ttl_seconds: Some(60),
        mode: None,
    };
    for (at_turn, turns) in [(None, 3), (Some(3), 3), (Some(1), 1), (Some(0), 0)] {
        let child = fork_of(&parent, &content, &at(at_turn)).unwrap();
        assert_eq!(child.turn_count, turns);
        assert_eq!(child.prefix_tokens, 10 + 20 * u64::from(turns));
        assert_eq!(child.forked_from, Some((id(1), turns)));
        assert_eq!((child.version, child.ttl_seconds), (1, 60));
        let kept = content.first_turns(child.turn_count);
        assert_eq!(kept.turns.len(), turns as usize);
        assert_eq!(kept.initial, content.initial);
    }
    assert!(fork_of(&parent, &content, &at(Some(4))).is_err());
}

#[test]
fn a_fork_forgets_what_its_parent_forgot_only_where_it_must() {
    let (parent, content) = (session(3, 3), content(3, 10));
    let at = |turn| ForkContext {
        at_turn: Some(turn),
        ..ForkContext::default()
    };
    let last = fork_of(&parent, &content, &at(3)).unwrap();
    assert_eq!((last.dropped_messages, last.prefix_tokens), (3, 10 + 30));
    let early = fork_of(&parent, &content, &at(2)).unwrap();
    assert_eq!((early.dropped_messages, early.prefix_tokens), (0, 10 + 40));

    let narrow = Context {
        truncation: Some(Truncation::LastHistoryTokens {
            last_history_tokens: 25,
        }),
        ..parent
    };
    let early = fork_of(&narrow, &content, &at(2)).unwrap();
    assert_eq!((early.dropped_messages, early.prefix_tokens), (2, 10 + 20));
}

#[test]
fn a_session_may_be_frozen_as_a_prefix() {
    let freeze = ForkContext {
        mode: Some(ContextMode::CommonPrefix),
        ..ForkContext::default()
    };
    let child = fork_of(&session(2, 1), &content(2, 10), &freeze).unwrap();
    assert_eq!(child.mode, ContextMode::CommonPrefix);
    assert_eq!(child.truncation, None);
    assert_eq!((child.turn_count, child.dropped_messages), (2, 1));
}

proptest! {
    #[test]
    fn ids_survive_all_three_forms(now in any::<i64>(), random in any::<[u8; 16]>(), project in "[^/]{1,20}") {
        let id = ContextId::new(now, random);
        for form in [
            id.to_string(),
            format!("cachedContents/{id}"),
            format!("projects/{project}/locations/global/cachedContents/{id}"),
        ] {
            prop_assert_eq!(form.parse::<ContextId>().unwrap(), id.clone());
        }
        let json = serde_json::to_string(&id).unwrap();
        prop_assert_eq!(serde_json::from_str::<ContextId>(&json).unwrap(), id);
    }

    #[test]
    fn any_text_parses_to_an_id_or_an_error(text in ".{0,80}") {
        if let Ok(id) = text.parse::<ContextId>() {
            prop_assert!(text.ends_with(id.as_str()));
        }
    }

    #[test]
    fn a_fork_counts_what_it_holds_and_leaves_its_parent_alone(
        turns in 1_u32..8,
        tokens in 1_u32..40,
        dropped in 0_u32..8,
        at in 0_u32..10,
        last_history_tokens in 1_u32..200,
    ) {
        let content = content(turns, tokens);
        let mut parent = session(turns, dropped.min(2 * turns));
        parent.truncation = Some(Truncation::LastHistoryTokens { last_history_tokens });
        let before = (parent.clone(), content.clone());
        let fork = ForkContext { at_turn: Some(at), ..ForkContext::default() };
        let child = fork_of(&parent, &content, &fork);
        prop_assert_eq!(child.is_ok(), at <= turns);
        if let Ok(child) = child {
            let mut own = content.first_turns(child.turn_count);
            let held: u64 = own.remembered(child.dropped_messages).map(|stored| u64::from(stored.tokens)).sum();
            prop_assert_eq!(child.prefix_tokens, child.initial_tokens + held);
            prop_assert!(child.dropped_messages <= 2 * child.turn_count);
            // The child's next turn is its own.
            own.turns.push(Turn { number: child.turn_count + 1, messages: Vec::new(), committed_at: NOW });
            own.initial.clear();
        }
        prop_assert_eq!((parent, content), before);
    }
}
