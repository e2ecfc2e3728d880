//! Contexts that remember.

use std::time::Duration;

use holdfast_protocol::ContextId;
use holdfast_store::ContextStore;
use holdfast_testkit::{Action, Gate, Operation, TestGateway};
use serde_json::{Value, json};

use crate::{ask, create, expected, say, settle};

fn initial() -> Vec<Value> {
    vec![say("system", "Be brief."), say("user", "The text.")]
}

#[tokio::test]
async fn each_turn_is_remembered() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let mut messages = initial();
    let mut prefix_tokens = client.get(&format!("/v1/context/{id}")).await.ok()["prefix_tokens"]
        .as_u64()
        .unwrap();
    for turn in 1..=4 {
        messages.push(say("user", &format!("Question {turn}")));
        let reply = ask(&client, &id, &format!("Question {turn}")).await;
        let answer = reply.answer();
        assert_eq!(answer, expected(&client, &messages).await, "turn {turn}");
        let completion = reply.json();
        let usage = &completion["usage"];
        assert_eq!(
            usage["prompt_tokens_details"]["cached_tokens"], prefix_tokens,
            "turn {turn}"
        );
        assert_eq!(completion["context_cache"]["prefix_tokens"], prefix_tokens);
        messages.push(say("assistant", &answer));

        let context = client.get(&format!("/v1/context/{id}")).await.ok();
        assert_eq!(context["turns"], turn);
        let grown = context["prefix_tokens"].as_u64().unwrap() - prefix_tokens;
        assert_eq!(usage["cache_creation_input_tokens"], grown);
        assert_eq!(completion["context_cache"]["written_tokens"], grown);
        prefix_tokens += grown;
        settle(&client, &id).await;
    }
}

#[tokio::test]
async fn a_prefix_context_remembers_nothing() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({})).await;
    let first = ask(&client, &id, "Question").await.answer();
    assert_eq!(ask(&client, &id, "Question").await.answer(), first);
    assert_eq!(
        client.get(&format!("/v1/context/{id}")).await.ok()["turns"],
        0
    );
}

#[tokio::test]
async fn several_messages_in_one_turn_and_a_streamed_turn_are_remembered() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let new = [
        say("user", "One."),
        say("assistant", "Two."),
        say("user", "Three."),
    ];
    let body = json!({"context_id": id, "messages": new, "temperature": 0, "stream": true});
    let chunks = client.post("/v1/chat/completions", &body).await.chunks();
    let answer: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();

    let mut messages = initial();
    messages.extend(new);
    messages.extend([say("assistant", &answer), say("user", "Next?")]);
    assert_eq!(
        ask(&client, &id, "Next?").await.answer(),
        expected(&client, &messages).await
    );
}

#[tokio::test]
async fn a_turn_that_ended_at_a_length_is_remembered() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let body = json!({"context_id": id, "messages": [say("user", "Go")], "temperature": 0, "max_tokens": 3});
    let answer = client.post("/v1/chat/completions", &body).await.answer();
    let mut messages = initial();
    messages.extend([
        say("user", "Go"),
        say("assistant", &answer),
        say("user", "On"),
    ]);
    assert_eq!(
        ask(&client, &id, "On").await.answer(),
        expected(&client, &messages).await
    );
}

#[tokio::test]
async fn a_second_request_on_a_busy_session_is_refused_and_sdks_are_told_to_retry() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let session = create(&client, json!({"mode": "session"})).await;
    let prefix = create(&client, json!({})).await;

    for id in [&session, &prefix] {
        let gate = Gate::default();
        gateway.clock.advance(Duration::from_secs(1));
        gateway
            .store
            .plan(Operation::Touch, [Action::Wait(gate.clone())]);
        let first = tokio::spawn({
            let (client, id) = (client.clone(), id.clone());
            async move { ask(&client, &id, "first").await }
        });
        gate.reached().await;
        let second = ask(&client, id, "second").await;
        if id == &session {
            assert_eq!(second.error(403)["code"], "OperationDenied.InvalidState");
            assert_eq!(second.header("x-should-retry"), "true");
            assert!(second.text().contains("InProgress"));
        } else {
            second.ok();
        }
        gate.open();
        first.await.unwrap().ok();
        ask(&client, id, "third").await.ok();
    }
    assert_eq!(
        client.get(&format!("/v1/context/{session}")).await.ok()["turns"],
        2
    );
}

#[tokio::test]
async fn turns_that_may_wait_follow_each_other_and_none_is_lost() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.session_wait_ms = 60_000)
        .start()
        .await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let turns: Vec<_> = (0..8)
        .map(|number| {
            let (client, id) = (client.clone(), id.clone());
            tokio::spawn(async move {
                (
                    number,
                    ask(&client, &id, &format!("m{number}")).await.answer(),
                )
            })
        })
        .collect();
    let mut answers = Vec::new();
    for turn in turns {
        answers.push(turn.await.unwrap());
    }

    let id: ContextId = id.parse().unwrap();
    let content = gateway.store.content("default", &id).await.unwrap();
    let mut messages = initial();
    for (index, turn) in content.turns.iter().enumerate() {
        assert_eq!(turn.number as usize, index + 1);
        let [question, answer] = &turn.messages[..] else {
            panic!("a turn has a question and an answer")
        };
        let question = question.message.joined_text();
        let answer = answer.message.joined_text();
        assert!(answers.contains(&(question[1..].parse().unwrap(), answer.clone())));
        messages.push(say("user", &question));
        assert_eq!(
            expected(&client, &messages).await,
            answer,
            "the model saw all turns before"
        );
        messages.push(say("assistant", &answer));
    }
    assert_eq!(content.turns.len(), 8);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_leaves_no_trace() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.session_wait_ms = 60_000)
        .start()
        .await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let gate = Gate::default();
    gateway.clock.advance(Duration::from_secs(1));
    gateway
        .store
        .plan(Operation::Touch, [Action::Wait(gate.clone())]);
    let first = tokio::spawn({
        let (client, id) = (client.clone(), id.clone());
        async move { ask(&client, &id, "abandoned").await }
    });
    gate.reached().await;
    first.abort();

    let mut messages = initial();
    messages.push(say("user", "next"));
    assert_eq!(
        ask(&client, &id, "next").await.answer(),
        expected(&client, &messages).await
    );
    assert_eq!(
        client.get(&format!("/v1/context/{id}")).await.ok()["turns"],
        1
    );
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_leaves_the_session_unchanged_and_free() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.session_wait_ms = 60_000)
        .start()
        .await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session", "ttl": 10})).await;
    // After admission so much time passes that the running stream must renew the context, and there it is held.
    let gate = Gate::default();
    let clock = gateway.clock.clone();
    gateway.store.plan(
        Operation::Touch,
        [
            Action::Then(Box::new(move || clock.advance(Duration::from_secs(6)))),
            Action::Wait(gate.clone()),
        ],
    );
    gateway.clock.advance(Duration::from_secs(1));
    let body = json!({"context_id": id, "messages": [say("user", "abandoned")], "stream": true});
    let response = client
        .request(reqwest::Method::POST, "/v1/chat/completions")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    gate.reached().await;
    drop(response);

    let mut messages = initial();
    messages.push(say("user", "next"));
    assert_eq!(
        ask(&client, &id, "next").await.answer(),
        expected(&client, &messages).await
    );
    assert_eq!(
        client.get(&format!("/v1/context/{id}")).await.ok()["turns"],
        1
    );
}

#[tokio::test]
async fn a_turn_that_can_t_be_stored_is_an_error_and_is_not_remembered() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    gateway
        .store
        .plan(Operation::AppendTurn, [Action::Fail, Action::Fail]);
    let reply = ask(&client, &id, "lost").await;
    reply.error(503);
    assert_eq!(
        reply.header("x-should-retry"),
        "false",
        "the database may have stored it after all"
    );

    let body = json!({"context_id": id, "messages": [say("user", "lost")], "stream": true});
    let text = client.post("/v1/chat/completions", &body).await.text();
    assert!(
        !text.contains("[DONE]") && !text.contains("finish_reason\":\"stop"),
        "{text}"
    );
    let last = text
        .trim_end()
        .rsplit("\n\n")
        .next()
        .unwrap()
        .strip_prefix("data: ")
        .unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert!(last["error"]["message"].is_string());

    let mut messages = initial();
    messages.push(say("user", "next"));
    assert_eq!(
        ask(&client, &id, "next").await.answer(),
        expected(&client, &messages).await
    );
}
