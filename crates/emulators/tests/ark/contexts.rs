//! The Context API.

use std::time::Duration;

use futures_util::StreamExt;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::{Answer, Fault};
use reqwest::Method;
use serde_json::{Value, json};

use super::*;

/// A context of 100 tokens.
fn context(mode: &str) -> Value {
    json!({
        "model": "ep-20241211-abc",
        "mode": mode,
        "messages": [{"role": "system", "content": "s".repeat(400)}],
    })
}

fn context_turn(context: &Value, text: &str) -> Value {
    json!({
        "model": context["model"],
        "context_id": context["id"],
        "messages": [{"role": "user", "content": text}],
    })
}

const CREATE: &str = "/context/create";
const CHAT: &str = "/context/chat/completions";

fn counts(answer: &Value) -> (u64, u64) {
    let usage = &answer["usage"];
    (
        usage["prompt_tokens"].as_u64().unwrap(),
        usage["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap(),
    )
}

#[tokio::test]
async fn a_common_prefix_never_changes() {
    let client = ark(Ark::new()).await;
    let created = client.ok(CREATE, &context("common_prefix")).await;
    assert!(created["id"].as_str().unwrap().starts_with("ctx-"));
    assert_eq!(
        (&created["ttl"], &created["mode"]),
        (&json!(86_400), &json!("common_prefix"))
    );
    assert_eq!(created.get("truncation_strategy"), None);
    assert_eq!(counts(&created), (100, 0));
    for _ in 0..2 {
        let answer = client.ok(CHAT, &context_turn(&created, "aaaa")).await;
        assert_eq!(counts(&answer), (101, 100));
    }
    let create = &client.charges("create")[0];
    assert_eq!((create.uncached_input, create.cache_read), (100, 0));
    let chat = &client.charges("chat")[0];
    assert_eq!((chat.uncached_input, chat.cache_read), (1, 100));
}

#[tokio::test]
async fn a_session_appends_each_turn() {
    let client = ark(Ark::new()).await;
    let created = client.ok(CREATE, &context("session")).await;
    assert_eq!(
        created["truncation_strategy"],
        json!({"type": "rolling_tokens", "rolling_tokens": true})
    );
    client.emulator.script().next(Answer::text("12345678"));
    assert_eq!(
        counts(&client.ok(CHAT, &context_turn(&created, "aaaa")).await),
        (101, 100)
    );
    assert_eq!(
        counts(&client.ok(CHAT, &context_turn(&created, "bbbb")).await),
        (104, 103)
    );
}

#[tokio::test]
async fn a_session_is_truncated_by_its_strategy() {
    let client = ark(Ark::new().context_window(110)).await;
    let with_strategy = |strategy: Value| with(context("session"), "truncation_strategy", strategy);
    let say = |tokens: usize| {
        client
            .emulator
            .script()
            .next(Answer::text("x".repeat(tokens * 4)))
    };

    let rolling = client
        .ok(
            CREATE,
            &with_strategy(json!({"type": "rolling_tokens", "rolling_tokens": true})),
        )
        .await;
    say(3);
    client
        .ok(CHAT, &context_turn(&rolling, &"a".repeat(16)))
        .await;
    // 107 are stored; with 4 more the oldest turn's question has to go, and what follows it isn't cached any more.
    say(1);
    let answer = client
        .ok(CHAT, &context_turn(&rolling, &"b".repeat(16)))
        .await;
    assert_eq!(counts(&answer), (107, 100));

    let stopping = client
        .ok(
            CREATE,
            &with_strategy(json!({"type": "rolling_tokens", "rolling_tokens": false})),
        )
        .await;
    say(30);
    let answer = client
        .ok(CHAT, &context_turn(&stopping, &"a".repeat(16)))
        .await;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 6);

    let last = client
        .ok(
            CREATE,
            &with_strategy(json!({"type": "last_history_tokens", "last_history_tokens": 4})),
        )
        .await;
    say(3);
    client.ok(CHAT, &context_turn(&last, &"a".repeat(16))).await;
    let answer = client.ok(CHAT, &context_turn(&last, "bbbb")).await;
    assert_eq!(counts(&answer), (100 + 3 + 1, 100));

    for strategy in [
        json!({"type": "last_history_tokens"}),
        json!({"type": "rolling_tokens", "rolling_tokens": 4096}),
        json!({"type": "oldest"}),
    ] {
        assert_eq!(client.post(CREATE, &with_strategy(strategy)).await.0, 400);
    }
    let prefix = with(
        context("common_prefix"),
        "truncation_strategy",
        json!({"type": "rolling_tokens"}),
    );
    assert_invalid(&client.post(CREATE, &prefix).await, "truncation_strategy");
}

#[tokio::test]
async fn the_context_api_checks_its_requests() {
    let client = ark(Ark::new()).await;
    for (field, value) in [
        ("ttl", json!(3599)),
        ("ttl", json!(604_801)),
        ("ttl", json!(4000.5)),
        ("mode", json!("prefix")),
        ("model", json!(MODEL)),
    ] {
        assert_invalid(
            &client
                .post(CREATE, &with(context("session"), field, value))
                .await,
            field,
        );
    }
    let old = with(context("session"), "model", json!(OLD_MODEL));
    assert_eq!(client.post(CREATE, &old).await.0, 200);
    let created = client.ok(CREATE, &context("session")).await;
    let good = context_turn(&created, "x");
    for (field, value, param) in [
        ("tools", json!([]), "tools"),
        (
            "messages",
            json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]),
            "messages",
        ),
        ("model", json!("ep-other"), "model"),
    ] {
        assert_invalid(
            &client.post(CHAT, &with(good.clone(), field, value)).await,
            param,
        );
    }
    let missing = with(good, "context_id", Value::Null);
    assert_error(
        &client.post(CHAT, &missing).await,
        400,
        "MissingParameter",
        "context_id",
    );
}

#[tokio::test]
async fn use_extends_a_context_and_others_cannot_use_it() {
    let family = Ark::new().gone_is_400();
    let mut client = ark(family).await;
    let created = client
        .ok(CREATE, &with(context("common_prefix"), "ttl", json!(3600)))
        .await;
    let body = context_turn(&created, "aaaa");
    for _ in 0..3 {
        client.emulator.clock().advance(Duration::from_secs(3000));
        client.ok(CHAT, &body).await;
    }
    client.key = "mallory";
    let foreign = client.post(CHAT, &body).await;
    assert_error(
        &foreign,
        400,
        "InvalidParameter.ContextNotFound",
        "context_id",
    );
    client.key = "alice";
    client.emulator.clock().advance(Duration::from_secs(3601));
    assert_eq!(client.post(CHAT, &body).await, foreign);
    // Held for 3 times 3000 s and the 3600 s after the last use.
    let storage = client
        .emulator
        .bill()
        .total(|charge| charge.kind == "storage");
    let seconds = storage.token_milliseconds / 100 / 1000;
    assert!((12_600..12_610).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_session_takes_one_request_at_a_time() {
    let client = ark(Ark::new()).await;
    let session = client.ok(CREATE, &context("session")).await;
    let prefix = client.ok(CREATE, &context("common_prefix")).await;
    let endless = Fault::SlowDrip(Duration::from_secs(600));

    // An answer that is on its way keeps the session busy, until the client leaves.
    client.emulator.faults().next(endless.clone());
    let body = with(context_turn(&session, "aaaa"), "stream", json!(true));
    let open = client
        .request(Method::POST, CHAT)
        .json(&body)
        .send()
        .await
        .unwrap();
    let mut open = open.bytes_stream();
    open.next().await.unwrap().unwrap();
    let busy = client.post(CHAT, &context_turn(&session, "bbbb")).await;
    assert_error(&busy, 400, "OperationDenied.ContextInUse", "context_id");
    drop(open);
    let mut aborted = client.emulator.aborted();
    aborted.wait_for(|count| *count == 1).await.unwrap();
    client.ok(CHAT, &context_turn(&session, "bbbb")).await;

    // A prefix has no such limit.
    client.emulator.faults().next(endless);
    let body = with(context_turn(&prefix, "aaaa"), "stream", json!(true));
    let open = client
        .request(Method::POST, CHAT)
        .json(&body)
        .send()
        .await
        .unwrap();
    client.ok(CHAT, &context_turn(&prefix, "bbbb")).await;
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_is_free_when_its_answer_has_been_seen() {
    let mut client = ark(Ark::new().context_window(1_000_000)).await;
    let session = client.ok(CREATE, &context("session")).await;
    let whole = context_turn(&session, "aaaa");
    let streamed = with(whole.clone(), "stream", json!(true));
    for _ in 0..50 {
        // A new connection each time: the server may still be busy with the end of the last one.
        client.http = reqwest::Client::new();
        client.ok(CHAT, &whole).await;
        client.post_text(CHAT, &streamed).await;
    }
}
