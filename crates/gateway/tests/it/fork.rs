//! Contexts made from contexts.

use holdfast_testkit::{TestClient, TestGateway};
use proptest::prelude::{Strategy, any, prop};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::{ask, create, expected, say};

fn initial() -> Vec<Value> {
    vec![say("system", "Be brief."), say("user", "The text.")]
}

async fn fork(client: &TestClient, id: &str, fields: Value) -> Value {
    client
        .post(&format!("/v1/context/{id}/fork"), &fields)
        .await
        .ok()
}

async fn turn(client: &TestClient, id: &str, messages: &mut Vec<Value>, question: &str) {
    messages.push(say("user", question));
    let answer = ask(client, id, question).await.answer();
    assert_eq!(answer, expected(client, messages).await);
    messages.push(say("assistant", &answer));
}

#[tokio::test]
async fn a_session_forks_from_any_turn() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let mut messages = initial();
    for question in ["one", "two", "three"] {
        turn(&client, &id, &mut messages, question).await;
    }
    for at_turn in 0..=3 {
        let child = fork(&client, &id, json!({"at_turn": at_turn})).await;
        assert_eq!(child["forked_from"], json!({"id": id, "at_turn": at_turn}));
        assert_eq!(child["mode"], "session");
        let usage = &child["usage"];
        assert_eq!(
            usage["cache_creation_input_tokens"], 0,
            "the parent's state is shared: {usage}"
        );
        let mut own = messages[..2 + 2 * at_turn].to_vec();
        turn(&client, child["id"].as_str().unwrap(), &mut own, "and now").await;
    }
    turn(&client, &id, &mut messages, "four").await;
    let error = client
        .post(&format!("/v1/context/{id}/fork"), &json!({"at_turn": 5}))
        .await
        .error(400);
    assert_eq!(error["param"], "at_turn");
}

#[tokio::test]
async fn a_prefix_forks_into_a_session() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({})).await;
    let reply = client.request(reqwest::Method::POST, &format!("/v1/context/{id}/fork"));
    let child = holdfast_testkit::Reply::of(reply).await.ok();
    assert_eq!(child["mode"], "session");
    assert_eq!(child["ttl"], 3600);
    let mut messages = initial();
    turn(&client, child["id"].as_str().unwrap(), &mut messages, "one").await;
    turn(&client, child["id"].as_str().unwrap(), &mut messages, "two").await;

    let child = fork(&client, &id, json!({"mode": "common_prefix", "ttl": 60})).await;
    assert_eq!(
        (&child["mode"], &child["ttl"]),
        (&json!("common_prefix"), &json!(60))
    );
}

#[tokio::test]
async fn a_fork_outlives_its_parent() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let mut messages = initial();
    turn(&client, &id, &mut messages, "one").await;
    let child = fork(&client, &id, json!({})).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    client.delete(&format!("/v1/context/{id}")).await.ok();
    turn(&client, &child, &mut messages, "two").await;
}

/// What may happen to a family of forks: `0` forks one of them, everything else is a turn in one of them.
fn operations() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0..4_u8, any::<u8>()), 1..10)
}

#[test]
fn what_happens_in_one_fork_never_shows_in_another() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let gateway = runtime.block_on(TestGateway::start());
    let client = gateway.client();
    let mut runner = TestRunner::new(Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&operations(), |operations| {
            runtime.block_on(async {
                let id = create(&client, json!({"mode": "session"})).await;
                let mut family = vec![(id, initial())];
                for (step, (operation, choice)) in operations.into_iter().enumerate() {
                    let index = usize::from(choice) % family.len();
                    if operation == 0 {
                        let (id, messages) = family[index].clone();
                        let turns = (messages.len() - 2) / 2;
                        let at_turn = usize::from(choice / 16) % (turns + 1);
                        let child = fork(&client, &id, json!({"at_turn": at_turn})).await;
                        family.push((
                            child["id"].as_str().unwrap().to_owned(),
                            messages[..2 + 2 * at_turn].to_vec(),
                        ));
                    } else {
                        let (id, messages) = &mut family[index];
                        let id = id.clone();
                        turn(&client, &id, messages, &format!("step {step}")).await;
                    }
                }
                for (id, messages) in &mut family {
                    let id = id.clone();
                    turn(&client, &id, messages, "last").await;
                }
            });
            Ok(())
        })
        .unwrap();
}
