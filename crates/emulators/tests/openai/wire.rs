//! The shape of chat completions, whole and streamed.

use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Answer, Fault, UsageFault};
use serde_json::{Value, json};

use crate::{Client, plain};

const PATH: &str = "/v1/chat/completions";

async fn chunks(client: &Client, body: &Value) -> Vec<Value> {
    let mut frames = client.stream(PATH, body).await;
    assert_eq!(frames.pop().unwrap(), "data: [DONE]");
    frames
        .iter()
        .map(|frame| serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap())
        .collect()
}

fn streamed(include_usage: bool) -> Value {
    let mut body = plain("gpt-5.6", "context", "one?");
    body["stream"] = json!(true);
    if include_usage {
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

#[tokio::test]
async fn a_stream_is_role_pieces_finish_and_usage() {
    let client = Client::start(OpenAi::new()).await;
    client
        .emulator
        .script()
        .next(Answer::text("Three words here"));
    let chunks = chunks(&client, &streamed(true)).await;
    let deltas: Vec<&Value> = chunks[..5]
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"])
        .collect();
    let expected = json!([
        {"role": "assistant", "content": ""},
        {"content": "Three"},
        {"content": " words"},
        {"content": " here"},
        {},
    ]);
    assert_eq!(json!(deltas), expected);
    assert_eq!(chunks.len(), 6);
    for chunk in &chunks[..5] {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(
            (chunk.get("usage"), &chunk["id"]),
            (Some(&Value::Null), &chunks[0]["id"])
        );
    }
    assert_eq!(
        (
            &chunks[3]["choices"][0]["finish_reason"],
            &chunks[4]["choices"][0]["finish_reason"]
        ),
        (&Value::Null, &json!("stop"))
    );
    assert_eq!(chunks[5]["choices"], json!([]));
    assert_eq!(chunks[5]["usage"]["total_tokens"], 3 + 4);
}

#[tokio::test]
async fn a_stream_has_no_usage_unless_asked() {
    let client = Client::start(OpenAi::new()).await;
    for chunk in chunks(&client, &streamed(false)).await {
        assert!(chunk.get("usage").is_none(), "{chunk}");
        assert_eq!(chunk["choices"].as_array().unwrap().len(), 1);
    }
    assert_eq!(
        client.emulator.bill().charges()[0].uncached_input,
        3,
        "it is charged all the same"
    );
}

#[tokio::test]
async fn stream_and_whole_say_and_cost_the_same() {
    let client = Client::start(OpenAi::new()).await;
    let (_, whole) = client
        .send(PATH, &plain("gpt-5.6", "context", "one?"))
        .await;
    let chunks = chunks(&client, &streamed(true)).await;
    let said: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(whole["choices"][0]["message"]["content"], said.as_str());
    assert_eq!(whole["usage"], chunks.last().unwrap()["usage"]);
    let bill = client.emulator.bill().charges();
    assert_eq!(bill[0], bill[1]);
}

#[tokio::test]
async fn a_forced_tool_is_called_in_two_pieces() {
    let client = Client::start(OpenAi::new()).await;
    let mut body = streamed(false);
    body["tools"] = json!([{"type": "function", "function": {"name": "weather"}}]);
    body["tool_choice"] = json!("required");
    let chunks = chunks(&client, &body).await;
    let calls: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0))
        .collect();
    assert_eq!(calls.len(), 3);
    assert_eq!(
        (&calls[0]["type"], &calls[0]["function"]),
        (
            &json!("function"),
            &json!({"name": "weather", "arguments": ""})
        )
    );
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
    assert!(calls[1].get("id").is_none());
    assert_eq!(
        (
            &calls[1]["function"]["arguments"],
            &calls[2]["function"]["arguments"]
        ),
        (&json!("{"), &json!("}"))
    );
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "tool_calls"
    );
    body["stream"] = json!(false);
    let (_, whole) = client.send(PATH, &body).await;
    let message = &whole["choices"][0]["message"];
    assert!(message["content"].is_null());
    assert_eq!(
        message["tool_calls"][0]["function"],
        json!({"name": "weather", "arguments": "{}"})
    );
}

#[tokio::test]
async fn limits_choices_and_filters() {
    let client = Client::start(OpenAi::new()).await;
    client
        .emulator
        .script()
        .next(Answer::text("word ".repeat(10)));
    let mut body = plain("gpt-5.6", "context", "one?");
    body["max_completion_tokens"] = json!(1);
    body["n"] = json!(2);
    let (_, answer) = client.send(PATH, &body).await;
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 2);
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(
            (&choice["index"], &choice["finish_reason"]),
            (&json!(index), &json!("length"))
        );
        assert_eq!(choice["message"]["content"], "word");
    }
    assert_eq!(answer["usage"]["completion_tokens"], 2);
    client.emulator.script().next(Answer {
        filtered: true,
        ..Answer::text("no")
    });
    let (_, answer) = client
        .send(PATH, &plain("gpt-5.6", "context", "one?"))
        .await;
    assert_eq!(answer["choices"][0]["finish_reason"], "content_filter");
}

#[tokio::test]
async fn ordered_faults_of_the_usage() {
    let client = Client::start(OpenAi::new()).await;
    let faults = client.emulator.faults();
    faults.next(Fault::Usage(UsageFault::Missing));
    let missing = chunks(&client, &streamed(true)).await;
    assert!(missing.iter().all(|chunk| chunk.get("usage").is_none()));
    assert!(!client.emulator.bill().charges()[0].reported);

    faults.next(Fault::Usage(UsageFault::Repeated));
    let repeated = chunks(&client, &streamed(false)).await;
    let totals: Vec<u64> = repeated
        .iter()
        .map(|chunk| chunk["usage"]["total_tokens"].as_u64().unwrap())
        .collect();
    assert!(
        totals.is_sorted() && totals[0] < totals[totals.len() - 1],
        "{totals:?}"
    );
    let charge = &client.emulator.bill().charges()[1];
    assert_eq!(totals[totals.len() - 1], charge.input() + charge.output);

    faults.next(Fault::Usage(UsageFault::Impossible));
    let (_, impossible) = client
        .send(PATH, &plain("gpt-5.6", "context", "one?"))
        .await;
    let usage = &impossible["usage"];
    assert!(
        usage["prompt_tokens_details"]["cached_tokens"].as_u64() > usage["prompt_tokens"].as_u64()
    );
    assert_eq!(
        client.emulator.bill().charges()[2].input(),
        3,
        "the bill is right"
    );

    faults.next(Fault::Usage(UsageFault::Missing));
    let response = client
        .respond(&json!({"model": "gpt-5.6", "input": "one?"}))
        .await;
    assert!(response["usage"].is_null());
}
