//! Sessions that forget.

use holdfast_testkit::{TestClient, TestGateway};
use serde_json::{Value, json};

use crate::{ask, create, expected, say, settle};

/// What the toy template and vocabulary make of a message.
fn tokens(message: &Value) -> usize {
    let length = |field: &str| message[field].as_str().unwrap().len();
    length("role") + length("content") + 4
}

fn initial() -> Vec<Value> {
    vec![say("system", "Be brief."), say("user", "The text.")]
}

async fn turns(client: &TestClient, id: &str) -> u64 {
    client.get(&format!("/v1/context/{id}")).await.ok()["turns"]
        .as_u64()
        .unwrap()
}

#[tokio::test]
async fn last_history_tokens_remembers_the_newest_that_fit() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let capacity = 80;
    let strategy = json!({"type": "last_history_tokens", "last_history_tokens": capacity});
    let id = create(
        &client,
        json!({"mode": "session", "truncation_strategy": strategy}),
    )
    .await;
    let mut history: Vec<Value> = Vec::new();
    let mut has_dropped = false;
    for turn in 1..=6 {
        let mut kept = history.clone();
        while kept.iter().map(tokens).sum::<usize>() > capacity {
            kept.remove(0);
        }
        has_dropped |= kept.len() < history.len();
        let question = say("user", &format!("Question {turn}"));
        let mut messages = initial();
        messages.extend(kept.iter().cloned().chain([question.clone()]));
        let reply = ask(&client, &id, &format!("Question {turn}")).await;
        assert_eq!(
            reply.answer(),
            expected(&client, &messages).await,
            "turn {turn}"
        );
        // What is kept was prepared when the turn before ended: nothing is computed again.
        let prefix = initial().iter().chain(&kept).map(tokens).sum::<usize>();
        assert_eq!(
            reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"],
            prefix,
            "turn {turn}"
        );
        history.extend([question, say("assistant", &reply.answer())]);
        settle(&client, &id).await;
    }
    assert!(has_dropped);
    assert_eq!(turns(&client, &id).await, 6);
}

#[tokio::test]
async fn rolling_tokens_drops_a_block_and_says_so() {
    let gateway = TestGateway::builder()
        .engine(|engine| engine.window_tokens = Some(400))
        .start()
        .await;
    let client = gateway.client();
    let strategy = json!({"type": "rolling_tokens", "rolling_tokens": true, "max_window_tokens": 200, "rolling_window_tokens": 60});
    let id = create(
        &client,
        json!({"mode": "session", "truncation_strategy": strategy}),
    )
    .await;
    let mut history: Vec<Value> = Vec::new();
    let mut trims = 0;
    for turn in 1..=9 {
        let initial_tokens: usize = initial().iter().map(tokens).sum();
        let mut is_trimmed = false;
        if initial_tokens + history.iter().map(tokens).sum::<usize>() >= 200 {
            let mut dropped = 0;
            while dropped < 60 {
                dropped += tokens(&history.remove(0));
            }
            is_trimmed = true;
            trims += 1;
        }
        let question = say("user", &format!("Question {turn}"));
        let mut messages = initial();
        messages.extend(history.iter().cloned().chain([question.clone()]));
        let body =
            json!({"context_id": id, "messages": [question], "temperature": 0, "max_tokens": 16});
        let reply = client.post("/v1/chat/completions", &body).await;
        let completion = reply.ok();
        let body =
            json!({"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 16});
        assert_eq!(
            reply.answer(),
            client.post("/v1/chat/completions", &body).await.answer(),
            "turn {turn}"
        );
        let cached = completion["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap();
        if is_trimmed {
            assert_eq!(cached, 0, "turn {turn}");
            assert!(reply.header("x-context-cache").contains("truncated"));
        } else {
            assert_eq!(
                cached as usize,
                initial_tokens + history.iter().map(tokens).sum::<usize>(),
                "turn {turn}"
            );
        }
        history.extend([question, say("assistant", &reply.answer())]);
    }
    assert!(trims >= 2, "{trims}");
    assert_eq!(turns(&client, &id).await, 9);
}

#[tokio::test]
async fn without_rolling_a_full_window_ends_the_answer() {
    let gateway = TestGateway::builder()
        .engine(|engine| engine.window_tokens = Some(120))
        .start()
        .await;
    let client = gateway.client();
    let strategy = json!({"type": "rolling_tokens", "rolling_tokens": false});
    let id = create(
        &client,
        json!({"mode": "session", "truncation_strategy": strategy}),
    )
    .await;
    ask(&client, &id, "Question 1").await.ok();
    let prefix = client.get(&format!("/v1/context/{id}")).await.ok()["prefix_tokens"]
        .as_u64()
        .unwrap() as usize;
    let room_for_five = "x".repeat(120 - prefix - 8 - 11 - 5);
    let completion = ask(&client, &id, &room_for_five).await.ok();
    assert_eq!(completion["choices"][0]["finish_reason"], "length");
    assert_eq!(completion["usage"]["completion_tokens"], 5);
    assert_eq!(
        ask(&client, &id, "one more").await.error(400)["code"],
        "OutofContextError"
    );
    assert_eq!(turns(&client, &id).await, 2);
}

#[tokio::test]
async fn strategies_that_make_no_sense_are_refused() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for (mode, strategy) in [
        ("common_prefix", json!({"type": "last_history_tokens"})),
        ("session", json!({"type": "nonsense"})),
        (
            "session",
            json!({"type": "last_history_tokens", "last_history_tokens": 32768}),
        ),
        (
            "session",
            json!({"type": "rolling_tokens", "max_window_tokens": 100, "rolling_window_tokens": 100}),
        ),
        (
            "session",
            json!({"type": "rolling_tokens", "max_window_tokens": 10_000}),
        ),
    ] {
        let body = json!({"model": "tiny", "mode": mode, "messages": [say("user", "hi")], "truncation_strategy": strategy});
        let error = client.post("/v1/context/create", &body).await.error(400);
        assert!(
            error["param"]
                .as_str()
                .unwrap()
                .starts_with("truncation_strategy"),
            "{error}"
        );
    }
}
