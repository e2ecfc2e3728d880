//! Answers written from values, for what no upstream sends: contexts, receipts, models.

use bytes::Bytes;
use serde_json::json;

use crate::chat::{
    ChatEvent, ChatHead, ChatResponse, Choice, Delta, FinishReason, Message, Role, TokenLogprob,
    ToolCall,
};
use crate::context::{
    Context, ContextId, ContextMode, ContextPage, CreateContext, CreateSurface, ForkContext,
    Profile, ProfileKind, TruncationKind, TruncationRequest,
};
use crate::dialect::openai::{
    ModelInfo, StreamEncoder, encode_context, encode_context_page, encode_created, encode_deleted,
    encode_model, encode_models, encode_response,
};
use crate::error::ApiError;
use crate::usage::{CacheStatus, CacheTier, Receipt, Source, Usage};

const NOW: i64 = 1_795_375_800_999;

pub(super) fn all() -> Vec<(&'static str, Bytes)> {
    let seed = context(ProfileKind::Gemini, None, None);
    let prefix = context(ProfileKind::Native, None, None);
    let session = context(ProfileKind::Ark, Some(ContextMode::Session), None);
    let windows = TruncationRequest {
        kind: Some(TruncationKind::RollingTokens),
        rolling_tokens: Some(false),
        max_window_tokens: Some(8_000),
        rolling_window_tokens: Some(2_000),
        ..TruncationRequest::default()
    };
    let windows = context(
        ProfileKind::Native,
        Some(ContextMode::Session),
        Some(windows),
    );
    let last = TruncationRequest {
        last_history_tokens: Some(2_048),
        ..TruncationRequest::default()
    };
    let last = context(ProfileKind::Native, Some(ContextMode::Session), Some(last));
    let fork = prefix
        .fork(
            &Default::default(),
            &ForkContext::default(),
            &Profile::of(ProfileKind::Native, 32_768),
            ContextId::new(NOW, [3; 16]),
            NOW,
        )
        .unwrap();
    let page = ContextPage {
        contexts: vec![session.clone(), prefix.clone()],
        next_cursor: Some("opaque".to_owned()),
    };
    let last_page = ContextPage {
        contexts: Vec::new(),
        next_cursor: None,
    };
    vec![
        ("written_created_gemini.json", encode_created(&seed, 0)),
        ("written_created_prefix.json", encode_created(&prefix, 0)),
        (
            "written_created_prefix_resident.json",
            encode_created(&prefix, 9_999),
        ),
        ("written_created_session.json", encode_created(&session, 0)),
        ("written_created_windows.json", encode_created(&windows, 0)),
        (
            "written_created_last_history.json",
            encode_created(&last, 0),
        ),
        ("written_forked.json", encode_created(&fork, 4_375)),
        ("written_context.json", encode_context(&fork, None)),
        ("written_list.json", encode_context_page(&page)),
        (
            "written_list_last_page.json",
            encode_context_page(&last_page),
        ),
        ("written_deleted.json", encode_deleted(&prefix.id)),
        ("written_models.json", encode_models(&[model()])),
        ("written_models_none.json", encode_models(&[])),
        ("written_model.json", encode_model(&model())),
        (
            "written_response_receipt.json",
            encode_response(&response()),
        ),
        (
            "written_response_tools.json",
            encode_response(&tools_response()),
        ),
        ("written_stream_usage.sse", stream(true)),
        ("written_stream_no_usage.sse", stream(false)),
        ("written_stream_error.sse", failing_stream()),
    ]
}

fn context(
    profile: ProfileKind,
    mode: Option<ContextMode>,
    truncation: Option<TruncationRequest>,
) -> Context {
    let create = CreateContext {
        model: "gemini-2.0-flash".to_owned(),
        messages: vec![Message::text(Role::System, "Be brief.")],
        mode,
        ttl_seconds: (profile == ProfileKind::Gemini).then_some(300),
        truncation,
        tools: Vec::new(),
        tool_choice: None,
        display_name: Some("manual".to_owned()),
        metadata: json!({"z": 1, "a": {"b": null}})
            .as_object()
            .cloned()
            .unwrap(),
        policy: Default::default(),
    };
    Context::new(
        &create,
        CreateSurface::OpenAi,
        &Profile::of(profile, 32_768),
        "default",
        "smollm2-135m-instruct",
        ContextId::new(NOW, [1; 16]),
        4_375,
        NOW,
    )
    .unwrap()
}

fn model() -> ModelInfo {
    ModelInfo {
        id: "default".to_owned(),
        created: 1_732_304_000,
        owned_by: "holdfast".to_owned(),
        supported_endpoint_types: vec!["openai".to_owned(), "context".to_owned()],
    }
}

fn head() -> ChatHead {
    ChatHead {
        id: "chatcmpl-1".to_owned(),
        created: 1_732_304_000,
        model: "m".to_owned(),
    }
}

fn usage() -> Usage {
    Usage {
        input_tokens: 4_400,
        cached_input_tokens: 4_375,
        cache_write_tokens: 32,
        output_tokens: 7,
        reasoning_tokens: 2,
    }
}

fn receipt() -> Receipt {
    Receipt {
        context_id: ContextId::new(NOW, [1; 16]),
        status: CacheStatus::Rebuilt,
        reason: Some("state_lost".to_owned()),
        tier: Some(CacheTier::Disk),
        prefix_tokens: 4_375,
        cached_tokens: 4_375,
        written_tokens: 32,
        source: Source::Engine,
        first_token_ms: Some(41),
        upstream: None,
        money: None,
        origin: None,
    }
}

fn logprobs() -> Vec<TokenLogprob> {
    vec![TokenLogprob {
        token: "\u{fffd}".to_owned(),
        bytes: vec![0xe4, 0xbd],
        logprob: -0.1,
        top: vec![("b".to_owned(), b"b".to_vec(), f32::NEG_INFINITY)],
    }]
}

fn response() -> ChatResponse {
    ChatResponse {
        id: head().id,
        created: head().created,
        model: head().model,
        choices: vec![Choice {
            index: 0,
            message: Message {
                reasoning: Some("Hm.".to_owned()),
                ..Message::text(Role::Assistant, "The M8 one.")
            },
            finish_reason: FinishReason::ContentFilter,
            logprobs: Some(logprobs()),
            stop_sequence: None,
        }],
        usage: usage(),
        receipt: Some(Receipt {
            status: CacheStatus::Hit,
            reason: None,
            tier: None,
            first_token_ms: None,
            upstream: None,
            money: None,
            source: Source::Provider,
            ..receipt()
        }),
    }
}

fn tools_response() -> ChatResponse {
    let calls = Message {
        content: Vec::new(),
        reasoning: Some("Hm.".to_owned()),
        tool_calls: vec![ToolCall {
            id: "call_1".to_owned(),
            name: "look_up".to_owned(),
            arguments: "{\"part\":\"bolt\"}".to_owned(),
        }],
        ..Message::text(Role::Assistant, "")
    };
    let choice = |index, message, finish_reason| Choice {
        index,
        message,
        finish_reason,
        logprobs: None,
        stop_sequence: None,
    };
    ChatResponse {
        choices: vec![
            choice(0, calls, FinishReason::ToolCalls),
            choice(1, Message::text(Role::Assistant, ""), FinishReason::Length),
        ],
        receipt: None,
        ..response()
    }
}

fn text(choice: u32, text: &str, logprobs: Vec<TokenLogprob>) -> ChatEvent {
    let delta = Delta::Text {
        text: text.to_owned(),
        logprobs,
    };
    ChatEvent::Delta { choice, delta }
}

fn finish(choice: u32, reason: FinishReason) -> ChatEvent {
    ChatEvent::Finish { choice, reason }
}

fn stream(include_usage: bool) -> Bytes {
    let mut encoder = StreamEncoder::new(head(), include_usage);
    let mut bytes = Vec::new();
    for event in [
        text(0, "你", logprobs()),
        text(1, "data: [DONE]\n\n", Vec::new()),
        finish(1, FinishReason::Length),
        text(0, "好", Vec::new()),
        finish(0, FinishReason::Stop),
        finish(2, FinishReason::Stop),
        ChatEvent::Done {
            usage: usage(),
            receipt: Some(receipt()),
        },
    ] {
        bytes.extend_from_slice(&encoder.event(&event));
    }
    bytes.extend_from_slice(&encoder.end());
    bytes.into()
}

fn failing_stream() -> Bytes {
    let mut encoder = StreamEncoder::new(head(), false);
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&encoder.event(&text(0, "a", Vec::new())));
    bytes.extend_from_slice(&encoder.event(&finish(0, FinishReason::Stop)));
    bytes.extend_from_slice(&encoder.error(&ApiError::internal()));
    bytes.into()
}
