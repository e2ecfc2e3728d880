//! Two gateways over one PostgreSQL: whatever one does, the other one knows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use holdfast_protocol::ContextId;
use holdfast_store::{ContextStore, KeyScope, PostgresOptions};
use holdfast_testkit::{
    Action, Gate, Operation, PostgresServer, Reply, TestClient, TestClock, TestGateway,
};
use serde_json::{Value, json};

use crate::{ask, create, expected, say};

/// Beyond anything that a machine at work needs, and below what a defect would take.
const LONG: Duration = Duration::from_secs(30);

async fn options() -> PostgresOptions {
    PostgresOptions::new(PostgresServer::shared().database().await)
}

async fn start(options: &PostgresOptions, clock: &TestClock) -> TestGateway {
    let builder = TestGateway::builder().clock(clock);
    builder.postgres(options).await.start().await
}

async fn pair(options: &PostgresOptions) -> (TestGateway, TestGateway) {
    let clock = TestClock::default();
    (start(options, &clock).await, start(options, &clock).await)
}

/// One key at two gateways.
fn clients(one: &TestGateway, other: &TestGateway) -> (TestClient, TestClient) {
    (one.client(), one.client().at(other))
}

fn initial() -> Vec<Value> {
    vec![say("system", "Be brief."), say("user", "The text.")]
}

fn metric(client_metrics: &str, line: &str) -> bool {
    client_metrics.lines().any(|found| found == line)
}

#[tokio::test]
async fn a_context_made_on_one_is_used_extended_and_deleted_on_the_other() {
    let (one, other) = pair(&options().await).await;
    let (here, there) = clients(&one, &other);
    let id = create(&here, json!({"ttl": 60})).await;
    let path = format!("/v1/context/{id}");

    let mut messages = initial();
    messages.push(say("user", "hi"));
    let answer = expected(&here, &messages).await;
    assert_eq!(ask(&there, &id, "hi").await.answer(), answer);
    assert_eq!(ask(&here, &id, "hi").await.answer(), answer);

    there.patch(&path, &json!({"ttl": 120})).await.ok();
    assert_eq!(here.get(&path).await.ok()["ttl"], 120);
    one.clock.advance(Duration::from_secs(90));
    assert_eq!(ask(&here, &id, "hi").await.answer(), answer);

    // Both have it in memory, and the one that did not delete it must not answer from there.
    there.delete(&path).await.ok();
    let unknown = ask(&here, &ContextId::new(1, [7; 16]).to_string(), "hi").await;
    let gone = ask(&here, &id, "hi").await;
    assert_eq!(gone.error(404)["message"], unknown.error(404)["message"]);
    here.get(&path).await.error(404);
    here.patch(&path, &json!({"ttl": 60})).await.error(404);
    here.delete(&path).await.error(404);
    let fork = here.post(&format!("{path}/fork"), &json!({})).await;
    fork.error(404);
    assert_eq!(here.get("/v1/context").await.ok()["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_of_a_session_from_both_stay_in_order_and_none_is_lost() {
    const TURNS: usize = 6;
    let (one, other) = pair(&options().await).await;
    let (here, there) = clients(&one, &other);
    let id = create(&here, json!({"mode": "session"})).await;

    let mut asking = tokio::task::JoinSet::new();
    for (name, client) in [("here", &here), ("there", &there), ("here too", &here)] {
        let (client, id) = (client.clone(), id.clone());
        asking.spawn(async move {
            for turn in 0..TURNS {
                let question = format!("{name} {turn}");
                // As SDKs do: what is busy is asked again.
                loop {
                    let reply = ask(&client, &id, &question).await;
                    if reply.status == 200 {
                        break;
                    }
                    let code = reply.error(403)["code"].clone();
                    assert_eq!(code, "OperationDenied.InvalidState");
                    assert_eq!(reply.header("x-should-retry"), "true");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
    }
    while let Some(done) = asking.join_next().await {
        done.unwrap();
    }

    let content = one
        .store
        .content("default", &id.parse().unwrap())
        .await
        .unwrap();
    let mut messages = initial();
    let mut questions = BTreeSet::new();
    for (number, turn) in (1..).zip(&content.turns) {
        assert_eq!(turn.number, number);
        let [question, answer] = turn.messages.as_slice() else {
            panic!("a question and its answer")
        };
        let text = |stored: &holdfast_protocol::context::StoredMessage| {
            let message = serde_json::to_value(&stored.message).unwrap();
            message["content"][0]["text"].as_str().unwrap().to_owned()
        };
        messages.push(say("user", &text(question)));
        // Each answer was made from exactly the turns before it.
        assert_eq!(text(answer), expected(&there, &messages).await);
        messages.push(say("assistant", &text(answer)));
        assert!(questions.insert(text(question)), "none twice");
    }
    assert_eq!(questions.len(), 3 * TURNS, "none is lost");

    messages.push(say("user", "last"));
    for client in [&here, &there] {
        let path = format!("/v1/context/{id}");
        assert_eq!(client.get(&path).await.ok()["turns"], 3 * TURNS);
    }
    let last = ask(&there, &id, "last").await;
    assert_eq!(last.answer(), expected(&there, &messages).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_busy_on_one_while_a_turn_runs_on_the_other() {
    let options = options().await;
    let clock = TestClock::default();
    let one = start(&options, &clock).await;
    let patient = TestGateway::builder()
        .clock(&clock)
        .limits(|limits| limits.session_wait_ms = 20_000);
    let patient = patient.postgres(&options).await.start().await;
    let other = start(&options, &clock).await;
    let (here, there) = clients(&one, &other);
    let id = create(&here, json!({"mode": "session"})).await;

    let gate = Gate::default();
    one.store
        .plan(Operation::AppendTurn, [Action::Wait(gate.clone())]);
    let running = tokio::spawn({
        let (here, id) = (here.clone(), id.clone());
        async move { ask(&here, &id, "one").await }
    });
    gate.reached().await;
    let refused = ask(&there, &id, "two").await;
    let code = refused.error(403)["code"].clone();
    assert_eq!(code, "OperationDenied.InvalidState");
    assert_eq!(refused.header("x-should-retry"), "true");
    // Or it waits, where it may.
    let waiting = tokio::spawn({
        let (client, id) = (here.at(&patient), id.clone());
        async move { ask(&client, &id, "two").await }
    });
    gate.open();
    let first = running.await.unwrap().answer();
    let second = waiting.await.unwrap().answer();
    let mut messages = initial();
    messages.extend([
        say("user", "one"),
        say("assistant", &first),
        say("user", "two"),
    ]);
    assert_eq!(second, expected(&there, &messages).await);
    // Nothing is held up afterwards, not even by turns that come to nothing.
    ask(&there, &id, "three").await.ok();
    one.store.plan(Operation::AppendTurn, [Action::Fail]);
    ask(&here, &id, "four").await.error(503);
    ask(&here, &id, "four").await.ok();
    ask(&there, &id, "five").await.ok();
}

#[tokio::test]
async fn a_key_revoked_on_one_is_refused_on_the_other() {
    let (one, other) = pair(&options().await).await;
    let (here, there) = clients(&one, &other);
    let made = here
        .post(
            "/admin/v1/keys",
            &json!({"project": "default", "label": "x"}),
        )
        .await
        .ok();
    let with_key = here.with_key(made["key"].as_str().unwrap());
    let clients = [&one, &other].map(|gateway| with_key.at(gateway));
    for client in &clients {
        client.get("/v1/models").await.ok();
    }
    let id = made["id"].as_str().unwrap();
    there.delete(&format!("/admin/v1/keys/{id}")).await.ok();
    clients[1].get("/v1/models").await.error(401);
    // The others know it for a second.
    one.clock.advance(Duration::from_secs(1));
    for client in &clients {
        client.get("/v1/models").await.error(401);
    }
    // That it was revoked is known while the database is away.
    for gateway in [&one, &other] {
        gateway.store.break_down(&[Operation::KeyByHash]);
    }
    for client in &clients {
        client.get("/v1/models").await.error(401);
    }
    here.get("/v1/models").await.ok();
}

#[tokio::test]
async fn a_response_stored_by_one_is_continued_by_the_other() {
    let (one, other) = pair(&options().await).await;
    let (here, there) = clients(&one, &other);
    let ask = async |client: &TestClient, input: &str, previous: Option<&Value>| {
        let body = json!({"model": "tiny", "input": input, "previous_response_id": previous});
        client.post("/v1/responses", &body).await.ok()["id"].clone()
    };
    let first = ask(&here, "one", None).await;
    let second = ask(&there, "two", Some(&first)).await;
    let third = ask(&here, "three", Some(&second)).await;
    let path = |id: &Value| format!("/v1/responses/{}", id.as_str().unwrap());
    there.delete(&path(&third)).await.ok();
    here.get(&path(&third)).await.error(404);
    here.get(&path(&second)).await.ok();
}

#[tokio::test]
async fn a_restart_of_one_loses_nothing() {
    let options = options().await;
    let (one, other) = pair(&options).await;
    let (here, there) = clients(&one, &other);
    let prefix = create(&here, json!({})).await;
    let session = create(&here, json!({"mode": "session"})).await;
    let first = ask(&here, &session, "one").await.answer();
    let clock = one.clock.clone();
    one.stop().await;

    let second = ask(&there, &session, "two").await.answer();
    ask(&there, &prefix, "hi").await.ok();

    let one = start(&options, &clock).await;
    let here = there.at(&one);
    let metrics = here.get("/metrics").await.text();
    assert!(metric(&metrics, "holdfast_contexts_living 2"), "{metrics}");
    let mut messages = initial();
    messages.extend([
        say("user", "one"),
        say("assistant", &first),
        say("user", "two"),
        say("assistant", &second),
        say("user", "three"),
    ]);
    let third = ask(&here, &session, "three").await;
    assert_eq!(third.answer(), expected(&here, &messages).await);
    ask(&here, &prefix, "hi").await.ok();
}

#[tokio::test]
async fn what_one_makes_and_removes_counts_on_the_other() {
    let options = options().await;
    let clock = TestClock::default();
    let limited = || {
        let builder = TestGateway::builder().clock(&clock);
        builder.limits(|limits| limits.contexts_per_project_max = 3)
    };
    let one = limited().postgres(&options).await.start().await;
    let other = limited().postgres(&options).await.start().await;
    let (here, there) = clients(&one, &other);
    let living = async |client: &TestClient, expected: u64| {
        let metrics = client.get("/metrics").await.text();
        let line = format!("holdfast_contexts_living {expected}");
        assert!(metric(&metrics, &line), "{metrics}");
    };
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(create(&here, json!({"ttl": 60})).await);
    }
    living(&there, 0).await;
    other.app.take_census().await.unwrap();
    living(&there, 3).await;
    let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
    there.post("/v1/context/create", &body).await.error(429);

    there.delete(&format!("/v1/context/{}", made[0])).await.ok();
    living(&here, 3).await;
    one.app.take_census().await.unwrap();
    living(&here, 2).await;
    create(&here, json!({"ttl": 60})).await;
    here.post("/v1/context/create", &body).await.error(429);

    // All expire, and one of the two sweeps them.
    clock.advance(Duration::from_secs(61));
    one.app.sweep().await.unwrap();
    other.app.take_census().await.unwrap();
    living(&there, 0).await;
    create(&there, json!({})).await;
}

#[tokio::test]
async fn a_context_that_the_other_removed_does_not_come_back_while_the_database_is_away() {
    let (one, other) = pair(&options().await).await;
    let (here, there) = clients(&one, &other);
    let removed = create(&here, json!({})).await;
    let kept = create(&here, json!({})).await;
    there.delete(&format!("/v1/context/{removed}")).await.ok();
    ask(&here, &removed, "hi").await.error(404);
    one.store
        .break_down(&[Operation::Get, Operation::Content, Operation::KeyByHash]);
    ask(&here, &kept, "hi").await.ok();
    ask(&here, &removed, "hi").await.error(503);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_requests_that_need_it_are_told_so_and_go_on_when_it_is_back() {
    let mut server = PostgresServer::start();
    let mut options = PostgresOptions::new(server.database().await);
    options.connection_wait = Duration::from_secs(3);
    let (one, other) = pair(&options).await;
    let (here, there) = clients(&one, &other);
    let stranger = one.client_of("default", &[KeyScope::Inference]).await;
    there.get("/v1/models").await.ok();
    let prefix = create(&here, json!({})).await;
    let session = create(&here, json!({"mode": "session"})).await;
    let answer = ask(&here, &session, "one").await.answer();

    server.stop();
    let create_body = json!({"model": "tiny", "messages": [say("user", "hi")]});
    let began = Instant::now();
    let refused = here.post("/v1/context/create", &create_body).await;
    assert!(began.elapsed() < LONG);
    let message = refused.error(503)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("store"), "{message}");
    assert!(!message.contains("postgres"), "{message}");
    ask(&here, &session, "two").await.error(503);
    // In the dialect of whoever asks.
    let message = json!({"model": "tiny", "max_tokens": 5, "messages": [say("user", "hi")]});
    let refused = stranger.post("/v1/messages", &message).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["type"], "error");
    let google = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let path = "/v1beta/models/tiny:generateContent";
    let refused = stranger.post(path, &google).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error"]["status"], "UNAVAILABLE");
    assert_eq!(here.get("/readyz").await.status, 503);
    // What needs nothing of it goes on, and does not wait for it.
    let began = Instant::now();
    for _ in 0..50 {
        here.post("/v1/chat/completions", &create_body).await.ok();
        ask(&here, &prefix, "hi").await.ok();
    }
    assert!(began.elapsed() < LONG);

    server.start_again();
    let began = Instant::now();
    for client in [&here, &there] {
        while client.get("/v1/context").await.status != 200 {
            assert!(began.elapsed() < LONG, "it is found again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    create(&there, json!({})).await;
    let mut messages = initial();
    messages.extend([
        say("user", "one"),
        say("assistant", &answer),
        say("user", "two"),
    ]);
    let reply: Reply = ask(&there, &session, "two").await;
    assert_eq!(reply.answer(), expected(&there, &messages).await);
    stranger.get("/v1/models").await.ok();
}
