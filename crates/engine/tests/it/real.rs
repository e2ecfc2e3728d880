//! On the real model: whatever tier a prefix comes from, the answer is that of a cold run, token for token.
//!
//! `HOLDFAST_TEST_MODEL` names the model file; `make test` sets it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_engine::constraint::Grammar;
use holdfast_engine::tools::ToolOutput;
use holdfast_engine::{Engine, EngineError, EngineOptions, GenerateEvent, GenerateRequest, Prefix};
use holdfast_protocol::chat::{Delta, FinishReason, Message, Role, Sampling, Tool};
use holdfast_protocol::usage::{CacheStatus, CacheTier};
use serde_json::json;

use crate::support::{Answer, collect, request};

/// One real engine at a time: two would fight over the cores and both crawl.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn model_path() -> PathBuf {
    std::env::var_os("HOLDFAST_TEST_MODEL")
        .expect("HOLDFAST_TEST_MODEL names the GGUF file to test with; `make test` sets it")
        .into()
}

fn options(folder: &std::path::Path) -> EngineOptions {
    EngineOptions {
        window_tokens: Some(2048),
        kv_tokens: Some(4096),
        state_dir: Some(folder.to_owned()),
        ..EngineOptions::new(model_path())
    }
}

fn document() -> Message {
    let text = (1..=40)
        .map(|n| {
            format!(
                "Rule {n}: a valve of type {n} opens at {} degrees and is checked every {} days.",
                n * 3,
                n + 4
            )
        })
        .collect::<Vec<_>>()
        .join("\n");
    Message::text(Role::System, text)
}

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}

async fn chat(
    engine: &Engine,
    initial: &[Message],
    history: &[Message],
    new: &[Message],
) -> (Answer, Arc<Prefix>) {
    let plan = engine
        .template()
        .plan(initial, history, new, &[], 0)
        .unwrap();
    assert!(plan.prefix_stable);
    let prefix = engine.prefix("p", &plan.prefix);
    let asked = request(Some(&prefix), vec![plan.suffix.concat()]);
    (collect(engine.generate(asked).await.unwrap()).await, prefix)
}

fn prefix_of(engine: &Engine, initial: &[Message], history: &[Message]) -> Arc<Prefix> {
    let plan = engine
        .template()
        .plan_prefix(initial, history, &[], 0)
        .unwrap();
    engine.prefix("p", &plan.segments)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tier_a_fork_and_a_session_answer_like_a_cold_run() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(options(folder.path())).unwrap();
    let initial = [document()];
    let questions = [user("At what temperature does a valve of type 7 open?")];

    // Cold: nothing is held, so the prefix is computed by the request itself and forgotten after it.
    let (cold, prefix) = chat(&engine, &initial, &[], &questions).await;
    assert_eq!(cold.prefix.as_ref().unwrap().status, CacheStatus::Miss);
    assert_eq!(cold.prefix.as_ref().unwrap().cached_tokens, 0);
    assert!(!cold.text().is_empty());

    let held = engine.hold("p", "ctx", prefix.clone()).await.unwrap();
    assert_eq!(held.computed_tokens, prefix.tokens());
    for (tier, demote) in [
        (CacheTier::Kv, None),
        (CacheTier::Ram, Some(false)),
        (CacheTier::Disk, Some(true)),
    ] {
        if let Some(to_disk) = demote {
            engine.demote_all(to_disk).await;
        }
        let (warm, _) = chat(&engine, &initial, &[], &questions).await;
        let usage = warm.prefix.clone().unwrap();
        assert_eq!((usage.status, usage.tier), (CacheStatus::Hit, Some(tier)));
        assert_eq!(warm.texts, cold.texts, "from {tier:?}");
    }

    // A session of three turns, its state taken from another tier before each; the cold run replays the same turns.
    let mut history = Vec::new();
    let mut warm_answers = Vec::new();
    for (text, to_disk) in [
        ("How often is it checked?", false),
        ("And type 9?", true),
        ("Thank you. And type 11?", false),
    ] {
        engine.demote_all(to_disk).await;
        let (answer, _) = chat(&engine, &initial, &history, &[user(text)]).await;
        let usage = answer.prefix.clone().unwrap();
        assert_eq!(usage.status, CacheStatus::Hit);
        assert_eq!(usage.cached_tokens, usage.tokens);
        history.push(user(text));
        history.push(Message::text(Role::Assistant, answer.text()));
        engine
            .hold("p", "ctx", prefix_of(&engine, &initial, &history))
            .await
            .unwrap();
        warm_answers.push(answer.text().to_owned());
    }
    // A fork after the first turn.
    let fork = &history[..2];
    engine
        .hold("p", "fork", prefix_of(&engine, &initial, fork))
        .await
        .unwrap();
    let (forked, _) = chat(&engine, &initial, fork, &[user("And type 13?")]).await;
    assert_eq!(forked.prefix.as_ref().unwrap().status, CacheStatus::Hit);

    engine.release("ctx");
    engine.release("fork");
    for (turn, expected) in warm_answers.iter().enumerate() {
        let (again, _) = chat(
            &engine,
            &initial,
            &history[..2 * turn],
            &history[2 * turn..=2 * turn],
        )
        .await;
        assert_eq!(again.prefix.as_ref().unwrap().cached_tokens, 0);
        assert_eq!(again.text(), expected, "turn {turn}");
    }
    let (cold_fork, _) = chat(&engine, &initial, fork, &[user("And type 13?")]).await;
    assert_eq!(cold_fork.prefix.as_ref().unwrap().cached_tokens, 0);
    assert_eq!(cold_fork.texts, forked.texts);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_state_and_state_of_another_layout_is_not_trusted() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(options(folder.path())).unwrap();
    let initial = [document()];
    let prefix = prefix_of(&engine, &initial, &[]);
    engine.hold("p", "ctx", prefix).await.unwrap();
    let (before, _) = chat(&engine, &initial, &[], &[user("What opens at 30 degrees?")]).await;
    engine.stop().await;

    let engine = Engine::start(options(folder.path())).unwrap();
    let (after, _) = chat(&engine, &initial, &[], &[user("What opens at 30 degrees?")]).await;
    let usage = after.prefix.clone().unwrap();
    assert_eq!(
        (usage.status, usage.tier),
        (CacheStatus::Hit, Some(CacheTier::Disk))
    );
    assert_eq!(before.texts, after.texts);
    engine.stop().await;

    let other_layout = EngineOptions {
        flash_attention: true,
        ..options(folder.path())
    };
    let engine = Engine::start(other_layout).unwrap();
    let (fused, _) = chat(&engine, &initial, &[], &[user("What opens at 30 degrees?")]).await;
    assert_eq!(fused.prefix.unwrap().cached_tokens, 0);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_keep_to_a_schema_and_forced_calls_name_the_tool() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(options(folder.path())).unwrap();
    let schema = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "degrees": {"type": "integer"}},
        "required": ["city", "degrees"],
        "additionalProperties": false,
    });
    let plan = engine
        .template()
        .plan(
            &[],
            &[],
            &[user("It is 21 degrees in Paris. Answer in JSON.")],
            &[],
            0,
        )
        .unwrap();
    let prompt = vec![plan.prefix.concat() + &plan.suffix.concat()];
    let asked = GenerateRequest {
        constraint: Some(Grammar::JsonSchema(schema.clone())),
        max_tokens: Some(80),
        ..request(None, prompt.clone())
    };
    let answer = collect(engine.generate(asked).await.unwrap()).await;
    let value: serde_json::Value = serde_json::from_str(answer.text()).unwrap();
    assert!(
        value["city"].is_string() && value["degrees"].is_i64(),
        "{value}"
    );
    assert_eq!(answer.reasons, [Some(FinishReason::Stop)]);

    let tool = Tool {
        name: "get_weather".into(),
        description: Some("Weather of a city".into()),
        parameters: Some(json!({
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": false,
        })),
        strict: None,
    };
    let asked = GenerateRequest {
        constraint: Some(Grammar::ToolCalls {
            tools: vec![tool],
            named: Some("get_weather".into()),
            parallel: false,
        }),
        tools: ToolOutput::Forced,
        max_tokens: Some(80),
        ..request(None, prompt.clone())
    };
    let answer = collect(engine.generate(asked).await.unwrap()).await;
    assert_eq!(answer.reasons, [Some(FinishReason::ToolCalls)]);
    let arguments = answer.text().strip_prefix("get_weather:").unwrap();
    let arguments: serde_json::Value = serde_json::from_str(arguments).unwrap();
    assert!(arguments["city"].is_string());

    let impossible = GenerateRequest {
        constraint: Some(Grammar::JsonSchema(json!({"type": "no such type"}))),
        ..request(None, prompt)
    };
    assert!(matches!(
        engine.generate(impossible).await,
        Err(EngineError::Grammar(_))
    ));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_gives_the_same_answer_and_clients_in_parallel_share_one_prefix() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(options(folder.path())).unwrap();
    let initial = [document()];
    let prefix = prefix_of(&engine, &initial, &[]);
    engine.hold("p", "ctx", prefix.clone()).await.unwrap();
    let plan = engine
        .template()
        .plan(&initial, &[], &[user("Tell me about valves.")], &[], 0)
        .unwrap();
    let seeded = || GenerateRequest {
        sampling: Sampling {
            temperature: Some(0.9),
            seed: Some(7),
            ..Sampling::default()
        },
        max_tokens: Some(24),
        ..request(Some(&prefix), vec![plan.suffix.concat()])
    };
    let first = collect(engine.generate(seeded()).await.unwrap()).await;
    let second = collect(engine.generate(seeded()).await.unwrap()).await;
    assert_eq!(first.texts, second.texts);

    let mut parallel = Vec::new();
    for _ in 0..8 {
        parallel.push(engine.generate(seeded()).await.unwrap());
    }
    let used = engine.status().kv_tokens_max;
    for generation in parallel {
        let answer = collect(generation).await;
        assert_eq!(answer.prefix.unwrap().status, CacheStatus::Hit);
    }
    // Eight copies of the prefix would not have fitted.
    assert!(prefix.tokens() * 8 > u64::from(used));
    engine.stop().await;
}

#[test]
fn a_bad_model_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let good = fs::read(model_path()).unwrap();
    for (bytes, why) in [
        (b"not a model".to_vec(), "magic"),
        (b"GG".to_vec(), "short"),
        (good[..good.len() / 2].to_vec(), "truncated"),
        (good[..100].to_vec(), "header only"),
    ] {
        fs::write(&path, bytes).unwrap();
        let failed = Engine::start(EngineOptions::new(path.clone()));
        assert!(matches!(failed, Err(EngineError::Model(_))), "{why}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        Engine::start(EngineOptions::new(path)),
        Err(EngineError::Model(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_computed_ahead_for_later_changes_no_bit_of_an_answer() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(options(folder.path())).unwrap();
    let initial = [document()];
    let history = [
        user("Good morning."),
        Message::text(Role::Assistant, "Good morning. Which valve is it about?"),
    ];
    let held = prefix_of(&engine, &initial, &history);
    engine.hold("p", "ctx", held).await.unwrap();
    let first = logprobs(&engine, &initial, &history).await;
    assert_eq!(first.len(), 12);
    for n in 0..4 {
        let mut sibling = history.to_vec();
        sibling.push(user(&format!(
            "{n}: tell me everything about all of them. {}",
            "Please. ".repeat(60)
        )));
        let later = prefix_of(&engine, &initial, &sibling);
        engine.hold_later("p", &format!("sibling-{n}"), later.clone());
        if n % 2 == 1 {
            engine
                .hold("p", &format!("sibling-{n}"), later)
                .await
                .unwrap();
        }
        assert_eq!(
            logprobs(&engine, &initial, &history).await,
            first,
            "sibling {n}"
        );
    }
    engine.stop().await;
}

async fn logprobs(engine: &Engine, initial: &[Message], history: &[Message]) -> Vec<f32> {
    let new = [user("When is a valve of type 3 checked?")];
    let plan = engine
        .template()
        .plan(initial, history, &new, &[], 0)
        .unwrap();
    let asked = GenerateRequest {
        logprobs: Some(0),
        max_tokens: Some(12),
        ..request(
            Some(&engine.prefix("p", &plan.prefix)),
            vec![plan.suffix.concat()],
        )
    };
    let mut generation = engine.generate(asked).await.unwrap();
    let mut found = Vec::new();
    while let Some(event) = generation.next().await {
        if let GenerateEvent::Delta {
            delta: Delta::Text { logprobs, .. },
            ..
        } = event.unwrap()
        {
            found.extend(logprobs.iter().map(|token| token.logprob));
        }
    }
    found
}
