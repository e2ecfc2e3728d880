//! What users of other gateways reported (facts section 6), so that it is not reported of this one.

use serde_json::{Value, json};

use super::{Scene, body_of, decode, request_of, rules};
use crate::chat::{Message, Role};
use crate::dialect::openai::upstream::OpenAiUpstream;
use crate::provider::{ALL, Caching, Marker, UpstreamDialectName};
use crate::upstream::{AnswerEvent, Markers, UpstreamDialect};
use crate::usage::BilledUsage;

fn context(provider: &str, model: &str) -> Scene {
    let initial = [
        Message::text(Role::System, "Be brief."),
        Message::text(Role::User, "The manual."),
    ];
    Scene {
        markers: Markers {
            initial_seconds: Some(1_800),
            history_seconds: Some(1_800),
        },
        ..Scene::with_context(provider, model, &initial)
    }
}

fn end_usage(provider: &str, model: &str, usage: &Value) -> BilledUsage {
    let finish = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let last = json!({"choices": [], "usage": usage});
    let stream = format!("data: {finish}\n\ndata: {last}\n\ndata: [DONE]\n\n");
    match decode(&rules(provider, model), &[stream.as_bytes()]).last() {
        Some(Ok(AnswerEvent::Done(end))) => end.usage.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn fact_0_2_another_question_to_the_same_context_hits_on_gpt_5_6() {
    let scene = context("openai", "gpt-5.6");
    let [first, second] = ["What is M8?", "And M10?"].map(|question| scene.ask(question));
    for body in [&first, &second] {
        assert_eq!(body["prompt_cache_options"], json!({"mode": "explicit"}));
        assert_eq!(
            body["messages"][1]["content"][0]["prompt_cache_breakpoint"],
            json!({"mode": "explicit"})
        );
        assert_eq!(
            body.to_string().matches("prompt_cache_breakpoint").count(),
            1
        );
    }
    assert_eq!(first["messages"][0], second["messages"][0]);
    assert_eq!(first["messages"][1], second["messages"][1]);
}

#[test]
fn fact_0_4_kimi_is_told_the_lifetime_and_never_sent_a_breakpoint() {
    let mut scene = context("kimi", "kimi-k3");
    scene.tier_seconds = Some(300);
    let body = scene.ask("?");
    assert_eq!(
        body["prompt_cache_options"],
        json!({"mode": "implicit", "ttl": "5m"})
    );
    assert!(!body.to_string().contains("breakpoint"));
}

#[test]
fn fact_2_1_ttl_and_retention_are_never_sent_together() {
    for provider in ALL {
        for model in [
            "gpt-5.6",
            "gpt-5.5",
            "gpt-4.1",
            "gpt-4o",
            "kimi-k3",
            "claude-opus-5-5",
        ] {
            if !provider.speaks(UpstreamDialectName::OpenaiChat) {
                continue;
            }
            let mut scene = context(provider.name, model);
            scene.tier_seconds = Some(86_400);
            let chat = json!({
                "messages": [{"role": "user", "content": "?"}],
                "prompt_cache_retention": "24h",
                "prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
            });
            let body = body_of(&scene.chat(request_of(&chat, model)).unwrap());
            assert!(
                body.get("prompt_cache_options").is_none()
                    || body.get("prompt_cache_retention").is_none(),
                "{} {model}: {body}",
                provider.name
            );
        }
    }
}

#[test]
fn litellm_11364_a_stream_and_a_whole_answer_cost_the_same() {
    let reports = [
        (
            "openai",
            "gpt-5.6",
            json!({"prompt_tokens": 2_006, "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 1_000, "cache_write_tokens": 900}}),
        ),
        (
            "deepseek",
            "deepseek-v4-pro",
            json!({"prompt_tokens": 900, "completion_tokens": 3,
            "prompt_cache_hit_tokens": 832, "prompt_cache_miss_tokens": 68}),
        ),
        (
            "kimi",
            "kimi-k2.6",
            json!({"prompt_tokens": 900, "completion_tokens": 3, "cached_tokens": 768}),
        ),
        (
            "qwen",
            "qwen4-max",
            json!({"prompt_tokens": 3_000, "completion_tokens": 3, "prompt_tokens_details":
            {"cached_tokens": 9, "cache_creation_input_tokens": 50, "cache_creation": {"ephemeral_1h_input_tokens": 50}}}),
        ),
        (
            "xai",
            "grok-4.7",
            json!({"prompt_tokens": 640, "completion_tokens": 3,
            "completion_tokens_details": {"reasoning_tokens": 40}, "prompt_tokens_details": {"cached_tokens": 640}}),
        ),
    ];
    for (provider, model, usage) in reports {
        let body = json!({"choices": [{"index": 0, "finish_reason": "stop"}], "usage": usage});
        let whole = OpenAiUpstream
            .decode_hold(body.to_string().as_bytes(), &rules(provider, model))
            .unwrap();
        let streamed = end_usage(provider, model, &usage);
        assert_eq!(whole.usage, Some(streamed), "{provider}");
        assert!(streamed.cache_read_tokens > 0, "{provider}");
    }
}

#[test]
fn litellm_40006_totals_that_include_cached_tokens_are_not_added_to() {
    let usage = json!({"prompt_tokens": 2_006, "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 1_000, "cache_write_tokens": 900}});
    let billed = end_usage("openai", "gpt-6.1-sol", &usage);
    assert_eq!(billed.input_tokens, 2_006);
    assert_eq!(billed.fresh_tokens(), Some(106));
    assert_eq!(billed.cache_writes.m30, 900);
}

#[test]
fn xai_reasoning_is_billed_once_and_others_are_not_billed_for_it_twice() {
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 90}});
    assert_eq!(end_usage("xai", "grok-4.7", &usage).output_tokens, 100);
    assert_eq!(
        end_usage("deepseek", "deepseek-v4-pro", &usage).output_tokens,
        10
    );
}

#[test]
fn usage_is_asked_for_whether_or_not_the_client_does() {
    for provider in ALL {
        if !provider.speaks(UpstreamDialectName::OpenaiChat) {
            continue;
        }
        let scene = Scene::new(provider.name, "m");
        let body = scene.ask("?");
        assert_eq!(body["stream"], true);
        assert_eq!(
            body["stream_options"]["include_usage"] == true,
            scene.rules.quirks.stream_options,
            "{}",
            provider.name
        );
    }
}

#[test]
fn strands_agents_3571_lifetimes_never_grow_towards_the_end() {
    let mut scene = context("openrouter", "anthropic/claude-opus-5-5");
    scene.markers = Markers {
        initial_seconds: Some(300),
        history_seconds: Some(3_600),
    };
    scene.turns = vec![vec![
        Message::text(Role::User, "q"),
        Message::text(Role::Assistant, "a"),
    ]];
    let body = scene.ask("?").to_string();
    assert_eq!(body.matches("cache_control").count(), 2);
    assert!(!body.contains("\"ttl\""), "{body}");
}

#[test]
fn onyx_11659_caching_goes_by_the_models_family_not_by_the_route() {
    let marker = |model: &str| rules("openrouter", model).cache.marker;
    for model in [
        "anthropic/claude-opus-5-5",
        "qwen/qwen3.7-max",
        "openai/gpt-5.6",
        "openai/gpt-6.1-sol:nitro",
    ] {
        assert_eq!(marker(model), Some(Marker::CacheControl), "{model}");
    }
    for model in [
        "deepseek/deepseek-v4-pro",
        "openai/gpt-4o",
        "x-ai/grok-4.7",
        "google/gemini-3.8-flash",
    ] {
        assert_eq!(marker(model), None, "{model}");
        assert_eq!(
            rules("openrouter", model).cache.caching,
            Caching::Automatic,
            "{model}"
        );
    }
}

#[test]
fn openrouter_35_a_context_stays_with_one_provider() {
    let mut scene = context("openrouter", "anthropic/claude-opus-5-5");
    scene.cache_key = Some("ctx-1".to_owned());
    let first = scene.ask("one");
    scene.turns.push(vec![
        Message::text(Role::User, "one"),
        Message::text(Role::Assistant, "1"),
    ]);
    assert_eq!(first["session_id"], "ctx-1");
    assert_eq!(scene.ask("two")["session_id"], "ctx-1");
}

#[test]
fn claude_code_hub_1023_unknown_fields_stay_here_where_they_are_refused() {
    let mut scene = context("openai", "gpt-5.6");
    scene.rules.quirks.passes_unknown_fields = false;
    let chat = json!({"messages": [{"role": "user", "content": "?"}], "prompt_cache_key": "x", "thinking": {}});
    let body = body_of(&scene.chat(request_of(&chat, "gpt-5.6")).unwrap());
    assert_eq!(body.get("prompt_cache_key"), None);
    assert_eq!(body.get("thinking"), None);
}

#[test]
fn a_client_never_chooses_another_tenants_salt() {
    let chat = json!({"messages": [{"role": "user", "content": "?"}], "cache_salt": "theirs"});
    for provider in ["vllm", "sglang"] {
        for salt in [None, Some("ours")] {
            let mut scene = Scene::new(provider, "m");
            scene.salt = salt.map(str::to_owned);
            let body = body_of(&scene.chat(request_of(&chat, "m")).unwrap());
            assert_eq!(body.get("cache_salt").and_then(Value::as_str), salt);
        }
    }
}

#[test]
fn markers_that_were_refused_can_be_left_out() {
    use crate::provider::CacheRules;
    let mut scene = context("openai", "gpt-5.6");
    scene.cache_key = Some("k".to_owned());
    scene.rules.cache = CacheRules::replay();
    let body = scene.ask("?").to_string();
    assert!(!body.contains("prompt_cache"), "{body}");
}
