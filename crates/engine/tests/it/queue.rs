//! Who is served when, and what happens to those who leave.

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use holdfast_engine::{EngineError, EngineOptions, GenerateEvent, GenerateRequest};
use holdfast_protocol::chat::FinishReason;

use crate::support::{ask, collect, options, prefix, question, request, tiny};

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let engine = tiny(EngineOptions {
        queue_max: 0,
        ..options()
    });
    let refused = engine
        .generate(request(None, question("what?")))
        .await
        .unwrap_err();
    assert!(matches!(refused, EngineError::QueueFull { retry_after } if !retry_after.is_zero()));
    assert_eq!(engine.status().queue_full_total, 1);
}

#[tokio::test]
async fn projects_are_served_in_turn() {
    let engine = tiny(EngineOptions {
        slots: 1,
        ..options()
    });
    // Long enough that all others are in line before it is done, and that readers see them end one by one.
    let lengthy = |project: &str| GenerateRequest {
        project: project.into(),
        choices: 60,
        ..request(None, question(&"x".repeat(4000)))
    };
    // One reader for all: whoever has something to read first is read first, however late the reader is.
    let running = FuturesUnordered::new();
    for project in ["blocker", "a", "a", "a", "a", "b"] {
        let generation = engine.generate(lengthy(project)).await.unwrap();
        running.push(async move {
            collect(generation).await;
            project
        });
    }
    let order: Vec<&str> = running.collect().await;
    assert_eq!(order[0], "blocker");
    let order = &order[1..];
    let place = order.iter().position(|project| *project == "b").unwrap();
    assert!(place <= 1, "project b waited behind project a: {order:?}");
}

#[tokio::test]
async fn a_dropped_answer_frees_its_slot_and_its_cells() {
    let engine = tiny(EngineOptions {
        slots: 1,
        ..options()
    });
    let mut abandoned = engine
        .generate(request(None, question("what?")))
        .await
        .unwrap();
    assert!(matches!(
        abandoned.next().await,
        Some(Ok(GenerateEvent::Started { .. }))
    ));
    drop(abandoned);
    ask(&engine, None, question("and now?")).await;
    engine.stop().await;
    assert_eq!(engine.status().kv_tokens_used, 0);
}

#[tokio::test]
async fn a_hold_that_is_dropped_and_released_is_forgotten_however_far_it_came() {
    let engine = tiny(options());
    let held = prefix(&engine, "p", &[&"x".repeat(4000)]);
    {
        let hold = engine.hold("p", "ctx", held.clone());
        tokio::pin!(hold);
        // Begun, and on a busy machine perhaps already done.
        let _ = hold.as_mut().now_or_never();
    }
    engine.release("ctx");
    engine.stop().await;
    assert_eq!(engine.status().kv_tokens_used, 0);
    assert_eq!(engine.status().pinned, 0);
}

#[tokio::test]
async fn more_choices_than_slots_are_answered_one_after_the_other() {
    let engine = tiny(EngineOptions {
        slots: 2,
        ..options()
    });
    let asked = GenerateRequest {
        choices: 5,
        ..request(None, question("what?"))
    };
    let answer = collect(engine.generate(asked).await.unwrap()).await;
    assert_eq!(answer.texts.len(), 5);
    assert!(
        answer
            .texts
            .iter()
            .all(|text| text == &answer.texts[0] && text.len() == 16)
    );
    assert_eq!(answer.reasons, vec![Some(FinishReason::Stop); 5]);
    assert_eq!(answer.output_tokens, 5 * 16);
}

#[tokio::test]
async fn limits_are_kept_to_the_token() {
    let engine = tiny(EngineOptions {
        window_tokens: Some(100),
        ..options()
    });
    let too_long = engine
        .generate(request(None, question(&"x".repeat(100))))
        .await;
    assert!(matches!(
        too_long,
        Err(EngineError::WindowExceeded { window: 100, .. })
    ));
    let too_long = engine
        .hold("p", "ctx", prefix(&engine, "p", &[&"x".repeat(100)]))
        .await;
    assert!(matches!(too_long, Err(EngineError::WindowExceeded { .. })));

    let asked = GenerateRequest {
        max_tokens: Some(3),
        ..request(None, question("what?"))
    };
    let short = collect(engine.generate(asked).await.unwrap()).await;
    assert_eq!(short.output_tokens, 3);
    assert_eq!(short.reasons, [Some(FinishReason::Length)]);

    // "<|im_start|>user\n...<|im_end|>\n<|im_start|>assistant\n" is 20 tokens: four are left for the answer.
    let asked = GenerateRequest {
        max_tokens: None,
        ..request(None, question(&"x".repeat(100 - 20 - 4)))
    };
    let full = collect(engine.generate(asked).await.unwrap()).await;
    assert_eq!(full.prompt_tokens + full.output_tokens, 100);
    assert_eq!(full.reasons, [Some(FinishReason::Length)]);
}

#[tokio::test]
async fn requests_wait_for_cells_instead_of_failing() {
    let engine = tiny(EngineOptions {
        kv_tokens: Some(400),
        window_tokens: Some(400),
        ..options()
    });
    let asked = (0..12).map(|n| {
        let engine = engine.clone();
        async move { ask(&engine, None, question(&format!("{n} {}", "x".repeat(120)))).await }
    });
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.text().len(), 16);
    }
}

#[tokio::test]
async fn stopping_ends_what_runs_with_an_error() {
    let engine = tiny(EngineOptions {
        slots: 1,
        ..options()
    });
    let mut running = Vec::new();
    for _ in 0..4 {
        let asked = GenerateRequest {
            max_tokens: None,
            ..request(None, question(&"x".repeat(2000)))
        };
        running.push(engine.generate(asked).await.unwrap());
    }
    engine.stop().await;
    let mut last = None;
    let mut waiting = running.pop().unwrap();
    while let Some(event) = waiting.next().await {
        last = Some(event);
    }
    assert_eq!(last, Some(Err(EngineError::Stopped)));
    let refused = engine.generate(request(None, question("what?"))).await;
    assert!(matches!(refused, Err(EngineError::Stopped)));
    assert!(!engine.is_running());
}

#[tokio::test]
async fn what_is_computed_ahead_makes_way_for_a_request_and_is_done_after_it() {
    let engine = tiny(options());
    let later = prefix(&engine, "p", &[&"x".repeat(6000)]);
    for n in 0..20 {
        engine.hold_later("p", "later", later.clone());
        let answer = ask(&engine, None, question(&format!("{n}"))).await;
        assert_eq!(answer.text().len(), 16);
    }
    let held = engine.hold("p", "later", later.clone()).await.unwrap();
    assert_eq!(held.prefix_tokens, later.tokens());
    engine.release("later");
    engine.stop().await;
    assert_eq!(engine.status().kv_tokens_used, 0);
    assert_eq!(engine.status().queued, 0);
}
