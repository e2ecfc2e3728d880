//! Embeddings, text completions, images and speech: shapes, refusals, charges.

use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Answer, Charge};
use serde_json::{Value, json};

use crate::Client;

/// A form with text fields, and a file where one is given.
fn form(fields: &[(&str, &str)], file: Option<(&str, &str, &[u8])>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend_from_slice(
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                .as_bytes(),
        );
    }
    if let Some((name, file_name, content)) = file {
        body.extend_from_slice(
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\nContent-Type: application/octet-stream\r\n\r\n")
                .as_bytes(),
        );
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b--\r\n");
    body
}

async fn send_form(client: &Client, path: &str, body: Vec<u8>) -> (u16, String, String) {
    let response = client
        .http
        .post(format!("{}{path}", client.emulator.url))
        .bearer_auth("key-1")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(body)
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    let content_type = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    (status, content_type, response.text().await.unwrap())
}

fn charged(client: &Client) -> Charge {
    client.emulator.bill().charges().pop().unwrap()
}

#[tokio::test]
async fn equal_texts_have_equal_vectors_of_length_one() {
    let client = Client::start(OpenAi::new()).await;
    let body = json!({"model": "text-embedding-3-small", "input": ["aaaa", "bbbb", "aaaa"], "dimensions": 256});
    let (status, answer) = client.send("/v1/embeddings", &body).await;
    assert_eq!(status, 200, "{answer}");
    let vector = |index: usize| -> Vec<f64> {
        serde_json::from_value(answer["data"][index]["embedding"].clone()).unwrap()
    };
    assert_eq!(vector(0), vector(2));
    assert_ne!(vector(0), vector(1));
    assert_eq!(vector(0).len(), 256);
    let norm: f64 = vector(0).iter().map(|number| number * number).sum();
    assert!((norm - 1.0).abs() < 1e-3);
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 3, "total_tokens": 3})
    );
    let charge = charged(&client);
    assert_eq!(
        (charge.kind.as_str(), charge.input(), charge.output),
        ("embeddings", 3, 0)
    );
}

#[tokio::test]
async fn text_is_completed_whole_and_in_pieces() {
    let client = Client::start(OpenAi::new()).await;
    let answer_text = "one two three";
    let mut body = json!({"model": "gpt-3.5-turbo-instruct", "prompt": "count:", "n": 2});
    client.emulator.script().next(Answer::text(answer_text));
    let (status, whole) = client.send("/v1/completions", &body).await;
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["object"], "text_completion");
    assert_eq!(
        whole["choices"][1],
        json!({"text": answer_text, "index": 1, "logprobs": null, "finish_reason": "stop"})
    );
    assert_eq!(
        whole["usage"],
        json!({"prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10})
    );

    client.emulator.script().next(Answer::text(answer_text));
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let mut frames = client.stream("/v1/completions", &body).await;
    assert_eq!(frames.pop().unwrap(), "data: [DONE]");
    let chunks: Vec<Value> = frames
        .iter()
        .map(|frame| serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    let text: String = chunks
        .iter()
        .filter(|chunk| chunk["choices"][0]["index"] == 1)
        .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(text, answer_text);
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
    assert_eq!(charged(&client).output, 8);
}

#[tokio::test]
async fn images_are_pictures() {
    let client = Client::start(OpenAi::new()).await;
    let body = json!({"model": "gpt-image-1", "prompt": "a bolt", "n": 2});
    let (status, answer) = client.send("/v1/images/generations", &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert!(
        answer["data"][0]["b64_json"]
            .as_str()
            .unwrap()
            .starts_with("iVBORw0KGgo")
    );
    assert_eq!(answer["usage"]["input_tokens"], 2);

    let body = form(
        &[
            ("model", "gpt-image-1"),
            ("prompt", "rounder"),
            ("stream", "true"),
        ],
        Some(("image[]", "bolt.png", b"\x89PNG\r\n-b- \0")),
    );
    let (status, content_type, text) = send_form(&client, "/v1/images/edits", body).await;
    assert_eq!((status, content_type.as_str()), (200, "text/event-stream"));
    assert!(text.contains("event: image_edit.completed\n"), "{text}");
    let charge = charged(&client);
    assert_eq!((charge.kind.as_str(), charge.input()), ("images", 2 + 3));
}

#[tokio::test]
async fn speech_is_bytes_and_bytes_are_speech() {
    let client = Client::start(OpenAi::new()).await;
    let body = json!({"model": "tts-1", "input": "Hello there", "voice": "alloy"});
    let response = client
        .post("/v1/audio/speech", &body)
        .bearer_auth("key-1")
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "audio/mpeg");
    let sound = response.bytes().await.unwrap();
    assert!(sound.len() > 512 && std::str::from_utf8(&sound).is_err());

    let file = Some(("file", "hello.mp3", sound.as_ref()));
    let ask = |model, format| form(&[("model", model), ("response_format", format)], file);
    let path = "/v1/audio/transcriptions";
    let (status, _, text) = send_form(&client, path, ask("gpt-4o-transcribe", "json")).await;
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        answer["text"],
        format!("hello.mp3 has {} bytes.", sound.len())
    );
    assert_eq!(answer["usage"]["type"], "tokens");
    let (_, content_type, text) = send_form(&client, path, ask("whisper-1", "text")).await;
    assert_eq!(content_type, "text/plain; charset=utf-8");
    assert_eq!(text, format!("hello.mp3 has {} bytes.\n", sound.len()));
    let (status, ..) = send_form(&client, "/v1/audio/translations", ask("whisper-1", "srt")).await;
    assert_eq!(status, 200);
    assert_eq!(charged(&client).kind, "transcription");
}

#[tokio::test]
async fn what_is_missing_is_named_and_costs_nothing() {
    let client = Client::start(OpenAi::new()).await;
    for (path, body, status, param) in [
        (
            "embeddings",
            json!({"model": "text-embedding-3-small"}),
            400,
            Some("input"),
        ),
        (
            "embeddings",
            json!({"model": "gpt-5.5", "input": "x"}),
            404,
            None,
        ),
        (
            "embeddings",
            json!({"model": "text-embedding-3-small", "input": "x", "context_id": "y"}),
            400,
            Some("context_id"),
        ),
        ("embeddings", json!({"input": "x"}), 400, None),
        (
            "completions",
            json!({"model": "gpt-3.5-turbo-instruct"}),
            400,
            Some("prompt"),
        ),
        (
            "completions",
            json!({"model": "gpt-5.5", "prompt": "x"}),
            404,
            Some("model"),
        ),
        (
            "images/generations",
            json!({"model": "gpt-image-1"}),
            400,
            Some("prompt"),
        ),
        (
            "images/edits",
            json!({"model": "gpt-image-1", "prompt": "x"}),
            400,
            Some("image"),
        ),
        (
            "audio/speech",
            json!({"model": "tts-1", "input": "x"}),
            400,
            Some("voice"),
        ),
        (
            "audio/transcriptions",
            json!({"model": "whisper-1"}),
            400,
            Some("file"),
        ),
        (
            "audio/translations",
            json!({"model": "gpt-4o-transcribe"}),
            404,
            None,
        ),
    ] {
        let (found, answer) = client.send(&format!("/v1/{path}"), &body).await;
        assert_eq!(found, status, "{path} {body}: {answer}");
        assert_eq!(
            answer["error"]["param"].as_str(),
            param,
            "{path} {body}: {answer}"
        );
    }
    let (status, _, _) = send_form(&client, "/v1/audio/translations", b"--b".to_vec()).await;
    assert_eq!(status, 400);
    assert!(client.emulator.bill().charges().is_empty());
}
