//! Answers, whole and streamed, failures and usage.

use futures_util::StreamExt;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::{Answer, Fault, UsageFault};
use reqwest::Method;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn tools_in_the_cache_are_called() {
    let client = gemini(Gemini::new()).await;
    let cache = client
        .create(json!({
            "tools": [{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["g"]}},
        }))
        .await;
    let mut body = question();
    body["cachedContent"] = cache["name"].clone();
    let (_, answer) = client.generate(body.clone()).await;
    let part = &answer["candidates"][0]["content"]["parts"][0];
    assert_eq!(part["functionCall"]["name"], "g");
    assert_eq!(part["functionCall"]["args"], json!({}));
    assert!(part["functionCall"]["id"].is_string() && part["thoughtSignature"].is_string());

    client
        .emulator
        .script()
        .next(Answer::call("f", "no object"));
    let (_, answer) = client.generate(body).await;
    assert_eq!(
        answer["candidates"][0]["finishReason"],
        "MALFORMED_FUNCTION_CALL"
    );
    assert_eq!(answer["candidates"][0].get("content"), None);
}

#[tokio::test]
async fn a_stream_carries_running_totals_and_no_end_marker() {
    let client = gemini(Gemini::new()).await;
    let cache = client.create(json!({})).await;
    let answer = Answer {
        text: "one two three".to_owned(),
        reasoning: "let me think".to_owned(),
        ..Answer::default()
    };
    client.emulator.script().next(answer.clone());
    let mut body = question();
    body["cachedContent"] = cache["name"].clone();
    body["generationConfig"] = json!({"thinkingConfig": {"includeThoughts": true}});
    let chunks = client.stream(body.clone()).await;
    let parts: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["candidates"][0]["content"]["parts"][0])
        .collect();
    let text = |thought: bool| -> String {
        parts
            .iter()
            .filter(|part| (part["thought"] == true) == thought)
            .filter_map(|part| part["text"].as_str())
            .collect()
    };
    assert_eq!(text(true), "let me think");
    assert_eq!(text(false), "one two three");
    let mut total = 0;
    for chunk in &chunks {
        let usage = &chunk["usageMetadata"];
        assert_eq!(usage["promptTokenCount"], 1106);
        assert_eq!(usage["cachedContentTokenCount"], 1104);
        assert!(usage["totalTokenCount"].as_u64().unwrap() >= total);
        total = usage["totalTokenCount"].as_u64().unwrap();
    }
    let last = chunks.last().unwrap();
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    assert!(parts.last().unwrap()["thoughtSignature"].is_string());
    assert!(chunks[0]["candidates"][0].get("finishReason").is_none());

    client.emulator.script().next(answer.clone());
    let (_, whole) = client.generate(body.clone()).await;
    assert_eq!(whole["usageMetadata"], last["usageMetadata"]);
    let charges = client.charges("chat");
    assert_eq!(
        (charges[0].cache_read, charges[0].output),
        (1104, charges[1].output)
    );
    assert_eq!(
        whole["usageMetadata"]["totalTokenCount"],
        charges[0].input() + charges[0].output
    );

    // Thoughts that aren't asked for are charged and not shown.
    client.emulator.script().next(answer);
    body["generationConfig"] = json!({});
    let (_, hidden) = client.generate(body).await;
    assert!(!hidden.to_string().contains("let me think"));
    assert_eq!(hidden["usageMetadata"]["thoughtsTokenCount"], 3);
}

#[tokio::test]
async fn without_alt_sse_a_stream_is_a_json_array() {
    let client = gemini(Gemini::new()).await;
    client.emulator.script().next(Answer::text("one two"));
    let (status, chunks) = client
        .post(&client.model_path("streamGenerateContent"), question())
        .await;
    assert_eq!(status, 200);
    let text: String = chunks
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|chunk| chunk["candidates"][0]["content"]["parts"][0]["text"].as_str())
        .collect();
    assert_eq!(text, "one two");

    client.emulator.faults().next(Fault::ErrorInside(1));
    let (_, chunks) = client
        .post(&client.model_path("streamGenerateContent"), question())
        .await;
    assert_eq!(chunks[1]["error"]["status"], "UNAVAILABLE");
}

#[tokio::test]
async fn answers_end_by_limit_and_by_filter() {
    let client = gemini(Gemini::new()).await;
    let mut body = question();
    body["generationConfig"] = json!({"maxOutputTokens": 1});
    let (_, answer) = client.generate(body).await;
    assert_eq!(answer["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert_eq!(answer["usageMetadata"]["candidatesTokenCount"], 1);

    let filtered = |text: &str| Answer {
        filtered: true,
        ..Answer::text(text)
    };
    client.emulator.script().next(filtered("some"));
    let chunks = client.stream(question()).await;
    let last = &chunks.last().unwrap()["candidates"][0];
    assert_eq!(last["finishReason"], "SAFETY");
    assert_eq!(last.get("content"), None);
    client.emulator.script().next(filtered(""));
    let (_, blocked) = client.generate(question()).await;
    assert_eq!(blocked.get("candidates"), None);
    assert_eq!(blocked["promptFeedback"]["blockReason"], "SAFETY");
    for (config, part) in [
        (json!({"temperature": 2.5}), "temperature"),
        (json!({"candidateCount": 2}), "Multiple candidates"),
        (
            json!({"responseSchema": {"type": "OBJECT"}}),
            "only allowed when response_mime_type",
        ),
        (json!({"maxOutputTokens": 0}), "max_output_tokens"),
    ] {
        let mut body = question();
        body["generationConfig"] = config;
        assert_invalid(&client.generate(body).await, part);
    }
}

#[tokio::test]
async fn failures_come_in_googles_envelope() {
    let client = gemini(Gemini::new()).await;
    for (status, name) in [
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ] {
        client.emulator.faults().next(Fault::Status(status, None));
        assert_error(&client.generate(question()).await, status, name, "");
    }
    let answer = client.generate(json!([1])).await;
    assert_invalid(&answer, "Invalid JSON payload received.");

    client.emulator.faults().next(Fault::ErrorInside(1));
    let path = format!("{}?alt=sse", client.model_path("streamGenerateContent"));
    let header = ("x-goog-api-key", "alice");
    let (status, text) = client
        .send_as(header, Method::POST, &path, Some(&question()))
        .await;
    assert_eq!(status, 200);
    let (first, error) = text.split_once("\r\n\r\n").unwrap();
    assert!(first.starts_with("data: "));
    let error: Value = serde_json::from_str(error).unwrap();
    assert_eq!(error["error"]["code"], 503);
    assert!(!client.charges("chat").last().unwrap().reported);

    let (status, text) = client
        .send_as(header, Method::POST, "/chat/completions", Some(&question()))
        .await;
    assert_eq!(status, 404);
    assert!(text.starts_with("<!DOCTYPE html>"));

    let client = gemini(Gemini::new().error_as_event()).await;
    client.emulator.faults().next(Fault::ErrorInside(1));
    let chunks = client.stream(question()).await;
    assert_eq!(chunks[1]["error"]["code"], 503);
}

#[tokio::test]
async fn usage_faults_spoil_what_is_reported_and_not_the_bill() {
    let client = gemini(Gemini::new()).await;
    client
        .emulator
        .faults()
        .next(Fault::Usage(UsageFault::Missing));
    for chunk in client.stream(question()).await {
        assert_eq!(chunk.get("usageMetadata"), None);
    }
    client
        .emulator
        .faults()
        .next(Fault::Usage(UsageFault::Impossible));
    let (_, answer) = client.generate(question()).await;
    let usage = &answer["usageMetadata"];
    assert!(usage["cachedContentTokenCount"].as_u64() > usage["promptTokenCount"].as_u64());
    for charge in client.charges("chat") {
        assert_eq!(
            (charge.uncached_input, charge.cache_read, charge.reported),
            (2, 0, false)
        );
    }
}

#[tokio::test]
async fn leaving_a_stream_early_is_seen() {
    let client = gemini(Gemini::new()).await;
    client.emulator.faults().next(Fault::StallAfter(1));
    let url = format!(
        "{}/v1beta{}?alt=sse",
        client.emulator.url,
        client.model_path("streamGenerateContent")
    );
    let request = client
        .http
        .post(url)
        .header("x-goog-api-key", "alice")
        .json(&question());
    let mut body = request.send().await.unwrap().bytes_stream();
    body.next().await.unwrap().unwrap();
    drop(body);
    let mut aborted = client.emulator.aborted();
    aborted.wait_for(|count| *count == 1).await.unwrap();
}
