//! Files, sound and refusals in messages.

use holdfast_emulators::Answer;
use holdfast_emulators::families::openai::OpenAi;
use serde_json::{Value, json};

use crate::Client;

const PDF: &str = "data:application/pdf;base64,aGVsbG8=";

/// The parameter and the code of a refusal.
async fn refused(client: &Client, path: &str, body: &Value) -> (Value, Value) {
    let (status, answer) = client.send(path, body).await;
    assert_eq!(status, 400, "{body}: {answer}");
    let error = &answer["error"];
    (error["param"].clone(), error["code"].clone())
}

fn chat(role: &str, part: &Value) -> Value {
    json!({"model": "gpt-5.6", "messages": [
        {"role": "user", "content": "x"},
        {"role": role, "content": [part]},
    ]})
}

#[tokio::test]
async fn a_chat_takes_files_and_sound_of_users() {
    let client = Client::start(OpenAi::new()).await;
    let file = |fields: Value| json!({"type": "file", "file": fields});
    let audio = |fields: Value| json!({"type": "input_audio", "input_audio": fields});
    let at = "messages[1].content[0]";
    for (part, place, code) in [
        (
            file(json!({})),
            "file.file_data",
            "missing_required_parameter",
        ),
        (file(json!("x")), "file", "invalid_type"),
        (
            file(json!({"file_data": PDF})),
            "file.filename",
            "missing_required_parameter",
        ),
        (
            file(json!({"file_data": "aGVsbG8=", "filename": "a.pdf"})),
            "file.file_data",
            "invalid_value",
        ),
        (
            file(json!({"file_data": "data:application/pdf,hello", "filename": "a.pdf"})),
            "file.file_data",
            "invalid_value",
        ),
        (
            file(json!({"file_data": "data:application/pdf;base64,?", "filename": "a.pdf"})),
            "file.file_data",
            "invalid_value",
        ),
        (
            file(json!({"file_data": PDF, "file_id": "file-1", "filename": "a.pdf"})),
            "file.file_id",
            "mutually_exclusive_parameters",
        ),
        (
            file(json!({"file_url": "https://x.test/a.pdf"})),
            "file.file_url",
            "unknown_parameter",
        ),
        (
            audio(json!({"data": "aGVsbG8="})),
            "input_audio.format",
            "missing_required_parameter",
        ),
        (
            audio(json!({"format": "wav"})),
            "input_audio.data",
            "missing_required_parameter",
        ),
        (
            audio(json!({"data": "aGVsbG8=", "format": "ogg"})),
            "input_audio.format",
            "invalid_value",
        ),
        (
            audio(json!({"data": "data:audio/wav;base64,aGVsbG8=", "format": "wav"})),
            "input_audio.data",
            "invalid_value",
        ),
    ] {
        let expected = (json!(format!("{at}.{place}")), json!(code));
        let body = chat("user", &part);
        assert_eq!(
            refused(&client, "/v1/chat/completions", &body).await,
            expected,
            "{part}"
        );
    }
    assert!(client.emulator.bill().charges().is_empty());
    for part in [
        file(json!({"file_data": PDF, "filename": "a.pdf"})),
        file(json!({"file_id": "file-1"})),
        audio(json!({"data": "aGVsbG8=", "format": "mp3"})),
    ] {
        let body = chat("user", &part);
        let first = client.chat(&body).await;
        assert_eq!(client.chat(&body).await.input, first.input, "{part}");
    }
}

#[tokio::test]
async fn only_users_send_more_than_text() {
    let client = Client::start(OpenAi::new()).await;
    let picture = json!({"type": "image_url", "image_url": {"url": "https://x.test/a.png"}});
    let file = json!({"type": "file", "file": {"file_id": "file-1"}});
    let refusal = json!({"type": "refusal", "refusal": "No."});
    let text = json!({"type": "text", "text": "x"});
    let expected = (json!("messages[1].content[0].type"), json!("invalid_value"));
    for (role, part) in [
        ("system", &picture),
        ("developer", &file),
        ("assistant", &picture),
        ("assistant", &file),
        ("user", &refusal),
        ("system", &refusal),
    ] {
        assert_eq!(
            refused(&client, "/v1/chat/completions", &chat(role, part)).await,
            expected,
            "{role} {part}"
        );
    }
    let called = |part: &Value| {
        json!({"model": "gpt-5.6", "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": [part]},
        ]})
    };
    assert_eq!(
        refused(&client, "/v1/chat/completions", &called(&picture)).await,
        (json!("messages[2].content[0].type"), json!("invalid_value"))
    );
    client.chat(&called(&text)).await;
    client.chat(&chat("assistant", &refusal)).await;
    client.chat(&chat("developer", &text)).await;
}

#[tokio::test]
async fn responses_take_files_in_three_ways() {
    let client = Client::start(OpenAi::new()).await;
    let file = |fields: Value| {
        let mut part = json!({"type": "input_file"});
        for (name, value) in fields.as_object().unwrap() {
            part[name] = value.clone();
        }
        part
    };
    let body = |role: &str, part: &Value| json!({"model": "gpt-5.6", "input": [{"role": role, "content": [part]}]});
    let at = "input[0].content[0]";
    for (part, place, code) in [
        (file(json!({})), "file_data", "missing_required_parameter"),
        (
            file(json!({"file_data": PDF})),
            "filename",
            "missing_required_parameter",
        ),
        (
            file(json!({"file_data": "aGVsbG8=", "filename": "a.pdf"})),
            "file_data",
            "invalid_value",
        ),
        (
            file(json!({"file_url": "a.pdf"})),
            "file_url",
            "invalid_value",
        ),
        (
            file(json!({"file_url": "https://x.test/a.pdf", "file_id": "file-1"})),
            "file_id",
            "mutually_exclusive_parameters",
        ),
        (
            file(json!({"file_id": "file-1", "title": "x"})),
            "title",
            "unknown_parameter",
        ),
    ] {
        assert_eq!(
            refused(&client, "/v1/responses", &body("user", &part)).await,
            (json!(format!("{at}.{place}")), json!(code)),
            "{part}"
        );
    }
    let whole = file(json!({"file_data": PDF, "filename": "a.pdf", "detail": "low"}));
    let sound =
        json!({"type": "input_audio", "input_audio": {"data": "aGVsbG8=", "format": "wav"}});
    for (role, part) in [("assistant", &whole), ("user", &sound)] {
        assert_eq!(
            refused(&client, "/v1/responses", &body(role, part)).await.0,
            json!(format!("{at}.type"))
        );
    }
    for (role, part) in [
        ("user", whole.clone()),
        (
            "developer",
            file(json!({"file_url": "https://x.test/a.pdf"})),
        ),
        ("system", file(json!({"file_id": "file-1"}))),
    ] {
        client.respond(&body(role, &part)).await;
    }
    let returned = json!({"model": "gpt-5.6", "input": [
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": [whole]},
    ]});
    client.respond(&returned).await;
    let mut wrong = returned;
    wrong["input"][1]["output"][0]["filename"] = Value::Null;
    assert_eq!(
        refused(&client, "/v1/responses", &wrong).await.0,
        "input[1].output[0].filename"
    );
}

#[tokio::test]
async fn a_refusal_has_a_place_of_its_own() {
    let client = Client::start(OpenAi::new()).await;
    let mut body = json!({"model": "gpt-5.6", "messages": [{"role": "user", "content": "x"}]});
    let path = "/v1/chat/completions";
    client.emulator.script().next(Answer::refusal("No, never."));
    let whole = client.send(path, &body).await.1;
    let choice = &whole["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["message"]["refusal"]),
        (&Value::Null, &json!("No, never."))
    );
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(whole["usage"]["completion_tokens"], 3);
    client.emulator.script().next(Answer::refusal("No, never."));
    body["stream"] = json!(true);
    let frames = client.stream(path, &body).await;
    let deltas: String = frames
        .iter()
        .filter_map(|frame| {
            let chunk: Value = serde_json::from_str(frame.strip_prefix("data: ")?).ok()?;
            Some(chunk["choices"][0]["delta"]["refusal"].as_str()?.to_owned())
        })
        .collect();
    assert_eq!(deltas, "No, never.");
    // It goes back in the field it came in.
    body["stream"] = json!(false);
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": null, "refusal": "No, never."}));
    messages.push(json!({"role": "user", "content": "Why?"}));
    client.chat(&body).await;
}

#[tokio::test]
async fn a_refusal_is_a_part_with_events_of_its_own() {
    let client = Client::start(OpenAi::new()).await;
    let refusal = || Answer {
        text: "Hm.".to_owned(),
        ..Answer::refusal("No, never.")
    };
    let mut body = json!({"model": "gpt-5.6", "input": [{"role": "user", "content": "x"}]});
    client.emulator.script().next(refusal());
    let whole = client.respond(&body).await;
    let message = &whole["output"][0];
    assert_eq!(
        message["content"][1],
        json!({"type": "refusal", "refusal": "No, never."})
    );
    client.emulator.script().next(refusal());
    body["stream"] = json!(true);
    let frames = client.stream("/v1/responses", &body).await;
    let events: Vec<Value> = frames
        .iter()
        .map(|frame| serde_json::from_str(frame.split_once("data: ").unwrap().1).unwrap())
        .collect();
    let of = |kind: &str| -> Vec<&Value> {
        events
            .iter()
            .filter(|event| event["type"] == kind)
            .collect()
    };
    let deltas = of("response.refusal.delta");
    assert_eq!(deltas.len(), 2);
    assert_eq!(deltas[0]["content_index"], 1);
    let done = of("response.refusal.done");
    assert_eq!((done.len(), &done[0]["refusal"]), (1, &json!("No, never.")));
    assert_eq!(of("response.output_text.done")[0]["content_index"], 0);
    assert_eq!(of("response.content_part.done").len(), 2);
    // It goes back as it came.
    body["stream"] = json!(false);
    let input = body["input"].as_array_mut().unwrap();
    input.push(message.clone());
    input.push(json!({"role": "user", "content": "Why?"}));
    client.respond(&body).await;
}
