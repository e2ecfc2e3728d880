//! Effort words, sealed reasoning, and what must follow it.

use holdfast_emulators::Answer;
use holdfast_emulators::families::openai::OpenAi;
use serde_json::{Value, json};

use crate::{Client, plain};

const RESPONSES: &str = "/v1/responses";
const CHAT: &str = "/v1/chat/completions";

fn thoughtful() -> Answer {
    Answer {
        reasoning: "Some thought".to_owned(),
        ..Answer::text("Two words")
    }
}

/// Status, message, parameter and code of a refusal.
async fn refusal(client: &Client, path: &str, body: &Value) -> (u16, String, Value, Value) {
    let (status, answer) = client.send(path, body).await;
    let error = &answer["error"];
    assert_eq!(error["type"], "invalid_request_error", "{body}: {answer}");
    let message = error["message"].as_str().unwrap().to_owned();
    (
        status,
        message,
        error["param"].clone(),
        error["code"].clone(),
    )
}

#[tokio::test]
async fn each_era_has_its_words_of_effort() {
    let client = Client::start(OpenAi::new()).await;
    for (model, right, wrong, listed) in [
        (
            "gpt-5",
            &["minimal", "low", "medium", "high"][..],
            &["none", "xhigh", "max"][..],
            "'minimal', 'low', 'medium', and 'high'",
        ),
        (
            "gpt-5.1",
            &["none", "low", "xhigh"],
            &["minimal"],
            "'none', 'low', 'medium', 'high', and 'xhigh'",
        ),
        (
            "gpt-5.6-luna",
            &["none", "medium", "high"],
            &["minimal", "max"],
            "'none', 'low', 'medium', 'high', and 'xhigh'",
        ),
        (
            "o4-mini",
            &["low", "medium", "high"],
            &["none", "minimal", "xhigh"],
            "'low', 'medium', and 'high'",
        ),
    ] {
        let asking = |word: &str| {
            let mut chat = plain(model, "context", "one?");
            chat["reasoning_effort"] = json!(word);
            let response = json!({"model": model, "input": "one?", "reasoning": {"effort": word}});
            [
                (CHAT, "reasoning_effort", chat),
                (RESPONSES, "reasoning.effort", response),
            ]
        };
        for word in right {
            for (path, _, body) in asking(word) {
                assert_eq!(client.send(path, &body).await.0, 200, "{body}");
            }
        }
        for word in wrong {
            for (path, param, body) in asking(word) {
                let expected = format!(
                    "Unsupported value: '{param}' does not support '{word}' with this model. Supported values are: {listed}."
                );
                assert_eq!(
                    refusal(&client, path, &body).await,
                    (400, expected, json!(param), json!("unsupported_value"))
                );
            }
        }
        for (path, param, body) in asking("utmost") {
            let (status, message, at, code) = refusal(&client, path, &body).await;
            assert!(message.starts_with("Invalid value: 'utmost'."), "{message}");
            assert_eq!(
                (status, at, code),
                (400, json!(param), json!("invalid_value"))
            );
        }
    }
}

#[tokio::test]
async fn models_that_do_not_reason_are_not_asked_to() {
    let client = Client::start(OpenAi::new()).await;
    let mut chat = plain("gpt-4o", "context", "one?");
    chat["reasoning_effort"] = json!("low");
    let response = |fields: Value| {
        let mut body = json!({"model": "gpt-4.1", "input": "one?"});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let unsupported = |param: &str| {
        let message = format!("Unsupported parameter: '{param}' is not supported with this model.");
        (400, message, json!(param), json!("unsupported_parameter"))
    };
    assert_eq!(
        refusal(&client, CHAT, &chat).await,
        unsupported("reasoning_effort")
    );
    for field in ["effort", "summary"] {
        let body = response(json!({"reasoning": {field: "auto"}}));
        assert_eq!(
            refusal(&client, RESPONSES, &body).await,
            unsupported(&format!("reasoning.{field}"))
        );
    }
    let body = response(json!({"include": ["reasoning.encrypted_content"]}));
    assert_eq!(
        refusal(&client, RESPONSES, &body).await,
        (
            400,
            "Encrypted content is not supported with this model.".to_owned(),
            json!("include"),
            Value::Null
        )
    );
    let item = json!({"type": "reasoning", "summary": [], "encrypted_content": "gAAA"});
    let body = response(json!({"input": [item, {"role": "assistant", "content": "x"}]}));
    assert!(
        refusal(&client, RESPONSES, &body)
            .await
            .1
            .starts_with("Reasoning input items can only be provided to a reasoning")
    );
    // Whatever is scripted, they don't think; nor do others where it is switched off.
    for body in [
        response(json!({"reasoning": {"effort": null, "summary": null}, "include": []})),
        response(json!({"model": "gpt-5.6", "reasoning": {"effort": "none"}})),
    ] {
        client.emulator.script().next(thoughtful());
        let answer = client.respond(&body).await;
        assert_eq!(answer["output"].as_array().unwrap().len(), 1);
        assert_eq!(
            answer["usage"]["output_tokens_details"]["reasoning_tokens"],
            0
        );
    }
    for (field, value, param) in [
        (
            "reasoning",
            json!({"effort": "low", "budget": 5}),
            "reasoning.budget",
        ),
        ("reasoning", json!({"summary": "long"}), "reasoning.summary"),
        ("include", json!(["thoughts"]), "include[0]"),
        ("include", json!("thoughts"), "include"),
    ] {
        let body = response(json!({"model": "gpt-5.6", field: value}));
        let (status, _, at, _) = refusal(&client, RESPONSES, &body).await;
        assert_eq!((status, at), (400, json!(param)));
    }
}

/// A first answer with its reasoning sealed, and the request for it.
async fn sealed(client: &Client, store: bool) -> (Value, Value) {
    client.emulator.script().next(thoughtful());
    let body = json!({
        "model": "gpt-5.6",
        "input": [{"role": "user", "content": "one?"}],
        "include": ["reasoning.encrypted_content"],
        "store": store,
    });
    (client.respond(&body).await, body)
}

/// The same with these items after the question, and another question.
fn continued(body: &Value, items: &[Value]) -> Value {
    let mut body = body.clone();
    let input = body["input"].as_array_mut().unwrap();
    input.extend(items.iter().cloned());
    input.push(json!({"role": "user", "content": "two?"}));
    body
}

#[tokio::test]
async fn reasoning_is_sealed_when_that_is_asked_for() {
    let client = Client::start(OpenAi::new()).await;
    let (answer, mut body) = sealed(&client, false).await;
    let item = &answer["output"][0];
    assert_eq!(
        (&item["type"], &item["summary"]),
        (&json!("reasoning"), &json!([]))
    );
    assert!(
        item["encrypted_content"]
            .as_str()
            .unwrap()
            .starts_with("gAAAAA")
    );
    // In a stream only the finished item has the whole of it.
    client.emulator.script().next(thoughtful());
    body["stream"] = json!(true);
    let frames = client.stream(RESPONSES, &body).await;
    let seals: Vec<String> = frames
        .iter()
        .filter_map(|frame| {
            let data: Value = serde_json::from_str(frame.split_once("data: ")?.1).ok()?;
            Some(data["item"]["encrypted_content"].as_str()?.to_owned())
        })
        .collect();
    assert_eq!(seals.len(), 2);
    assert!(seals[0].len() < seals[1].len() && seals[1].starts_with(&seals[0]));

    client.emulator.script().next(thoughtful());
    let unasked = client
        .respond(&json!({"model": "gpt-5.6", "input": "one?"}))
        .await;
    assert_eq!(unasked["output"][0].get("encrypted_content"), None);
}

#[tokio::test]
async fn sealed_reasoning_comes_back_as_it_went() {
    let client = Client::start(OpenAi::new()).await;
    let (answer, body) = sealed(&client, false).await;
    let (item, message) = (answer["output"][0].clone(), answer["output"][1].clone());
    let mut nameless = item.clone();
    nameless.as_object_mut().unwrap().remove("id");
    for item in [&item, &nameless] {
        client
            .respond(&continued(&body, &[item.clone(), message.clone()]))
            .await;
    }
    let mut changed = item.clone();
    changed["encrypted_content"] = json!("gAAAAAmadeup");
    assert_eq!(
        refusal(&client, RESPONSES, &continued(&body, &[changed, message.clone()])).await,
        (
            400,
            "The encrypted content gAAA...deup could not be verified. Reason: Encrypted content could not be decrypted \
             or parsed."
                .to_owned(),
            Value::Null,
            json!("invalid_encrypted_content")
        )
    );
    let (status, foreign) = client
        .send_as(
            "key-2",
            RESPONSES,
            &continued(&body, &[item.clone(), message.clone()]),
        )
        .await;
    assert_eq!(status, 400);
    assert!(
        foreign["error"]["message"]
            .as_str()
            .unwrap()
            .ends_with("organization_id did not match the target organization.")
    );
    let id = item["id"].as_str().unwrap();
    let alone = format!(
        "Item '{id}' of type 'reasoning' was provided without its required following item."
    );
    for rest in [vec![item.clone()], vec![message, item.clone()]] {
        assert_eq!(
            refusal(&client, RESPONSES, &continued(&body, &rest)).await,
            (400, alone.clone(), json!("input"), Value::Null)
        );
    }
    let mut last = body.clone();
    last["input"].as_array_mut().unwrap().push(item.clone());
    assert_eq!(refusal(&client, RESPONSES, &last).await.1, alone);

    for (field, value, param) in [
        ("summary", Value::Null, "input[1].summary"),
        ("summary", json!(["x"]), "input[1].summary"),
        ("signature", json!("x"), "input[1].signature"),
        ("encrypted_content", json!(7), "input[1].encrypted_content"),
    ] {
        let mut wrong = item.clone();
        wrong[field] = value;
        assert_eq!(
            refusal(&client, RESPONSES, &continued(&body, &[wrong]))
                .await
                .2,
            json!(param)
        );
    }
}

#[tokio::test]
async fn reasoning_without_a_seal_must_be_stored() {
    let client = Client::start(OpenAi::new()).await;
    for store in [true, false] {
        let (answer, body) = sealed(&client, store).await;
        let mut item = answer["output"][0].clone();
        item.as_object_mut().unwrap().remove("encrypted_content");
        let next = continued(&body, &[item.clone(), answer["output"][1].clone()]);
        if store {
            client.respond(&next).await;
            continue;
        }
        let (status, message, _, _) = refusal(&client, RESPONSES, &next).await;
        assert_eq!(status, 404);
        assert!(
            message.contains("not found. Items are not persisted when `store` is set to false."),
            "{message}"
        );
        let mut stored = next.clone();
        stored["store"] = json!(true);
        let (status, message, _, _) = refusal(&client, RESPONSES, &stored).await;
        assert_eq!(status, 404);
        assert!(message.ends_with("not found."), "{message}");
    }
}

#[tokio::test]
async fn a_call_may_follow_reasoning_and_a_chain_brings_its_own() {
    let client = Client::start(OpenAi::new()).await;
    client.emulator.script().next(Answer {
        reasoning: "Some thought".to_owned(),
        ..Answer::call("f", "{}")
    });
    let body = json!({
        "model": "gpt-5.6",
        "input": [{"role": "user", "content": "one?"}],
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": "f"}],
    });
    let answer = client.respond(&body).await;
    let call = &answer["output"][1];
    let returned =
        json!({"type": "function_call_output", "call_id": call["call_id"], "output": "x"});
    let items = [answer["output"][0].clone(), call.clone(), returned.clone()];
    client.respond(&continued(&body, &items)).await;
    let mut linked = body.clone();
    linked["previous_response_id"] = answer["id"].clone();
    linked["input"] = json!([returned]);
    client.respond(&linked).await;
}
