//! Server-sent events.

use holdfast_testkit::TestGateway;
use serde_json::{Value, json};

use crate::{ask, create, say};

#[tokio::test]
async fn a_stream_has_the_shape_of_openai_s() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({})).await;
    let whole = ask(&client, &id, "hi").await.answer();
    let body = json!({"model": "tiny", "context_id": id, "messages": [say("user", "hi")], "stream": true, "temperature": 0});
    let reply = client.post("/v1/chat/completions", &body).await;
    assert_eq!(reply.header("content-type"), "text/event-stream");
    assert_eq!(reply.header("cache-control"), "no-cache");
    assert_eq!(reply.header("x-accel-buffering"), "no");
    assert!(reply.header("x-context-cache").starts_with("hit"));

    let chunks = reply.chunks();
    let first = &chunks[0];
    assert!(first["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        for field in ["id", "created", "model"] {
            assert_eq!(chunk[field], first[field]);
        }
        assert!(chunk["usage"].is_null());
    }
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, whole);
    let reasons: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["finish_reason"])
        .collect();
    assert_eq!(reasons.last().unwrap(), &"stop");
    assert!(
        reasons[..reasons.len() - 1]
            .iter()
            .all(|reason| reason.is_null())
    );
}

#[tokio::test]
async fn usage_comes_in_an_extra_last_chunk_on_request() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({})).await;
    let body = json!({
        "context_id": id, "messages": [say("user", "hi")], "stream": true, "stream_options": {"include_usage": true},
    });
    let mut chunks = client
        .post("/v1/context/chat/completions", &body)
        .await
        .chunks();
    let last = chunks.pop().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert!(
        last["usage"]["prompt_tokens"].as_u64().unwrap()
            > last["usage"]["prompt_tokens_details"]["cached_tokens"]
                .as_u64()
                .unwrap()
    );
    assert_eq!(last["context_cache"]["status"], "hit");
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some())
    );
}

#[tokio::test]
async fn choices_are_told_apart_in_a_stream() {
    let gateway = TestGateway::start().await;
    let body = json!({"model": "tiny", "messages": [say("user", "hi")], "stream": true, "n": 3, "seed": 1, "temperature": 1.5});
    let client = gateway.client();
    let chunks = client.post("/v1/chat/completions", &body).await.chunks();
    let mut texts = vec![String::new(); 3];
    for choice in chunks
        .iter()
        .flat_map(|chunk| chunk["choices"].as_array().unwrap())
    {
        let text = &mut texts[choice["index"].as_u64().unwrap() as usize];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
    }
    let mut body = body;
    body["stream"] = json!(false);
    let whole = client.post("/v1/chat/completions", &body).await.ok();
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(whole["choices"][index]["message"]["content"], *text);
    }
}

#[tokio::test]
async fn an_error_before_the_first_token_has_a_status_of_its_own() {
    let gateway = TestGateway::start().await;
    let body =
        json!({"model": "tiny", "messages": [say("user", &"x".repeat(9000))], "stream": true});
    let reply = gateway.client().post("/v1/chat/completions", &body).await;
    assert_eq!(reply.error(400)["code"], "OutofContextError");
    assert_eq!(reply.header("content-type"), "application/json");
}
