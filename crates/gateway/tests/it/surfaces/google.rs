//! Google's paths, on the engine and on upstreams.

use std::time::Duration;

use holdfast_emulators::Emulator;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_store::KeyScope;
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use reqwest::Method;
use serde_json::{Value, json};

use super::words;
use crate::{expected, say};

fn content(role: &str, text: &str) -> Value {
    json!({"role": role, "parts": [{"text": text}]})
}

fn asks(question: &str) -> Value {
    json!({"contents": [content("user", question)], "generationConfig": {"temperature": 0, "maxOutputTokens": 16}})
}

async fn generate(client: &TestClient, model: &str, body: &Value) -> Reply {
    client
        .post(&format!("/v1beta/models/{model}:generateContent"), body)
        .await
}

fn answer(body: &Value) -> String {
    let parts = body["candidates"][0]["content"]["parts"]
        .as_array()
        .unwrap();
    parts
        .iter()
        .filter_map(|part| part["text"].as_str())
        .collect()
}

async fn create(client: &TestClient, fields: Value) -> Value {
    let mut body = json!({"model": "models/tiny", "contents": [content("user", "The text.")], "systemInstruction": {"parts": [{"text": "Be brief."}]}});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    client.post("/v1beta/cachedContents", &body).await.ok()
}

#[tokio::test]
async fn the_model_sees_the_contents_whatever_the_path() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let mut body = asks("hi");
    body["systemInstruction"] = json!({"parts": [{"text": "Be brief."}]});
    let wanted = expected(&client, &[say("system", "Be brief."), say("user", "hi")]).await;
    for prefix in [
        "/v1beta",
        "/v1",
        "/v1beta1",
        "/v1/v1",
        "/v1/v1beta",
        "/v1/v1beta1",
        "/v1beta1/publishers/google",
        "/v1/projects/p/locations/l/publishers/google",
    ] {
        let reply = client
            .post(&format!("{prefix}/models/tiny:generateContent"), &body)
            .await;
        let body = reply.ok();
        assert!(wanted.starts_with(&answer(&body)), "{prefix}");
        assert_eq!(body["candidates"][0]["finishReason"], "MAX_TOKENS");
        let usage = &body["usageMetadata"];
        assert_eq!(usage["candidatesTokenCount"], 16);
        assert_eq!(
            usage["totalTokenCount"].as_u64(),
            usage["promptTokenCount"].as_u64().map(|tokens| tokens + 16)
        );
    }
    let counted = client
        .post("/v1beta/models/tiny:countTokens", &json!({"generateContentRequest": {"model": "models/tiny", "contents": body["contents"], "systemInstruction": body["systemInstruction"]}}))
        .await
        .ok();
    let usage = &generate(&client, "tiny", &body).await.ok()["usageMetadata"];
    assert_eq!(counted["totalTokens"], usage["promptTokenCount"]);
}

#[tokio::test]
async fn streams_are_events_or_an_array() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let whole = generate(&client, "tiny", &asks("hi")).await.ok();
    let path = "/v1beta/models/tiny:streamGenerateContent";

    let sse = client.post(&format!("{path}?alt=sse"), &asks("hi")).await;
    assert_eq!(sse.header("content-type"), "text/event-stream");
    let text = sse.text();
    let chunks: Vec<Value> = text
        .split("\r\n\r\n")
        .filter(|event| !event.is_empty())
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    assert!(chunks.len() > 2);
    let said: String = chunks
        .iter()
        .filter(|chunk| chunk["candidates"][0]["content"].is_object())
        .map(answer)
        .collect();
    assert_eq!(said, answer(&whole));
    assert_eq!(
        chunks.last().unwrap()["usageMetadata"],
        whole["usageMetadata"]
    );

    let array = client.post(path, &asks("hi")).await;
    assert!(array.header("content-type").starts_with("application/json"));
    let array = array.ok();
    let said: String = array
        .as_array()
        .unwrap()
        .iter()
        .filter(|chunk| chunk["candidates"][0]["content"].is_object())
        .map(answer)
        .collect();
    assert_eq!(said, answer(&whole));
}

#[tokio::test]
async fn cached_contents_are_contexts() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let made = create(&client, json!({"displayName": "text", "ttl": "300s"})).await;
    let name = made["name"].as_str().unwrap().to_owned();
    let id = name.strip_prefix("cachedContents/").unwrap();
    assert_eq!(
        (&made["model"], &made["displayName"]),
        (&json!("models/tiny"), &json!("text"))
    );
    let tokens = made["usageMetadata"]["totalTokenCount"].as_u64().unwrap();
    assert!(tokens > 0);
    for field in ["createTime", "updateTime", "expireTime"] {
        assert!(made[field].as_str().unwrap().ends_with('Z'), "{made}");
    }
    assert!(made.get("contents").is_none() && made.get("systemInstruction").is_none());

    // Used here, and by its id there.
    let mut body = asks("hi");
    body["cachedContent"] = json!(name);
    let reply = generate(&client, "tiny", &body).await;
    assert_eq!(reply.header("x-context-cache"), "hit; tier=kv");
    let here = reply.ok();
    assert_eq!(here["usageMetadata"]["cachedContentTokenCount"], tokens);
    let there = json!({"context_id": id, "messages": [say("user", "hi")], "temperature": 0, "max_tokens": 16});
    assert_eq!(
        client.post("/v1/chat/completions", &there).await.answer(),
        answer(&here)
    );
    let messages = json!({"context_id": id, "model": "tiny", "messages": [say("user", "hi")], "temperature": 0, "max_tokens": 16});
    assert_eq!(
        client.post("/v1/messages", &messages).await.ok()["content"][0]["text"],
        answer(&here)
    );

    // Listed, extended and deleted from everywhere.
    let list = client.get("/v1beta/cachedContents").await.ok();
    assert_eq!(list["cachedContents"][0]["name"], name);
    let longer = client
        .patch(&format!("/v1beta/{name}"), &json!({"ttl": "600s"}))
        .await
        .ok();
    assert!(longer["expireTime"].as_str() > made["expireTime"].as_str());
    assert_eq!(
        client.get(&format!("/v1/context/{id}")).await.ok()["ttl"],
        600
    );
    client
        .patch(&format!("/v1/context/{id}"), &json!({"ttl": 900}))
        .await
        .ok();
    let shown = client.get(&format!("/v1beta/{name}")).await.ok();
    assert!(shown["expireTime"].as_str() > longer["expireTime"].as_str());
    assert_eq!(
        client.delete(&format!("/v1/v1beta/{name}")).await.ok(),
        json!({})
    );
    client.get(&format!("/v1/context/{id}")).await.error(404);
    assert_eq!(client.get("/v1beta/cachedContents").await.ok(), json!({}));

    // And made there.
    let id = crate::create(&client, json!({})).await;
    body["cachedContent"] = json!(format!("cachedContents/{id}"));
    generate(&client, "tiny", &body).await.ok();
    let vertex = client
        .get(&format!(
            "/v1beta1/projects/p/locations/l/cachedContents/{id}"
        ))
        .await
        .ok();
    assert_eq!(
        vertex["name"],
        format!("projects/p/locations/l/cachedContents/{id}")
    );
    assert_eq!(
        vertex["model"],
        "projects/p/locations/l/publishers/google/models/tiny"
    );
}

#[tokio::test]
async fn a_cached_content_expires_when_it_says() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    // Whatever the model's own rules are: this one's contexts would slide and last an hour at least.
    let made = create(
        &client,
        json!({"model": "models/doubao-pro-32k", "ttl": "300s"}),
    )
    .await;
    let mut body = asks("hi");
    body["cachedContent"] = made["name"].clone();
    gateway.clock.advance(Duration::from_secs(200));
    generate(&client, "doubao-pro-32k", &body).await.ok();
    gateway.clock.advance(Duration::from_secs(101));
    let gone = generate(&client, "doubao-pro-32k", &body).await;
    assert_eq!(gone.status, 403);
}

#[tokio::test]
async fn pages_follow_each_other() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for number in 0..3 {
        create(&client, json!({"displayName": format!("{number}")})).await;
        gateway.clock.advance(Duration::from_secs(1));
    }
    let first = client.get("/v1beta/cachedContents?pageSize=2").await.ok();
    let names = |page: &Value| -> Vec<String> {
        let contents = page["cachedContents"].as_array().unwrap().clone();
        contents
            .iter()
            .map(|content| content["displayName"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&first), ["2", "1"]);
    let token = first["nextPageToken"].as_str().unwrap();
    let second = client
        .get(&format!(
            "/v1beta/cachedContents?pageSize=2&pageToken={token}"
        ))
        .await
        .ok();
    assert_eq!(names(&second), ["0"]);
    assert!(second.get("nextPageToken").is_none());
    let wrong = client.get("/v1beta/cachedContents?pageToken=x").await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn errors_are_in_the_dialect() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let stranger = gateway.client_of("other", &[KeyScope::Inference]).await;
    let name = create(&client, json!({})).await["name"].clone();
    let used = |fields: Value| {
        let mut body = asks("hi");
        body["cachedContent"] = name.clone();
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        body
    };
    let path = format!("/v1beta/{}", name.as_str().unwrap());
    let cases = [
        (
            generate(&client, "nobody", &asks("hi")).await,
            404,
            "NOT_FOUND",
            "",
        ),
        (
            generate(&client, "tiny", &json!({"contents": []})).await,
            400,
            "INVALID_ARGUMENT",
            "",
        ),
        (
            generate(
                &client,
                "tiny",
                &used(json!({"tools": [{"functionDeclarations": [{"name": "f"}]}]})),
            )
            .await,
            400,
            "INVALID_ARGUMENT",
            "CachedContent can not be used with GenerateContent request setting system_instruction, tools or tool_config",
        ),
        (
            generate(&client, "gemini-2.0-flash", &used(json!({}))).await,
            400,
            "INVALID_ARGUMENT",
            "Model used by GenerateContent request",
        ),
        (
            generate(
                &client,
                "tiny",
                &json!({"contents": [content("user", "hi")], "tools": [{"googleSearch": {}}]}),
            )
            .await,
            400,
            "INVALID_ARGUMENT",
            "oogleSearch",
        ),
        (
            stranger.get(&path).await,
            403,
            "PERMISSION_DENIED",
            "CachedContent not found (or permission denied)",
        ),
        (
            client.get("/v1beta/cachedContents/ctx-nothing").await,
            403,
            "PERMISSION_DENIED",
            "CachedContent not found (or permission denied)",
        ),
        (
            client.without_key().get("/v1beta/models").await,
            401,
            "UNAUTHENTICATED",
            "",
        ),
        (client.get("/v1beta/files").await, 404, "NOT_FOUND", ""),
        (
            client.patch(&path, &json!({"displayName": "x"})).await,
            400,
            "INVALID_ARGUMENT",
            "",
        ),
    ];
    for (reply, status, word, fragment) in cases {
        assert_eq!(reply.status, status, "{}", reply.text());
        let error = reply.json()["error"].clone();
        assert_eq!(
            (&error["code"], &error["status"]),
            (&json!(status), &json!(word)),
            "{error}"
        );
        assert!(
            error["message"].as_str().unwrap().contains(fragment),
            "{error}"
        );
    }
}

#[tokio::test]
async fn google_s_ways_of_sending_a_key_and_of_listing_models() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let key = client.key().to_owned();
    let nobody = client.without_key();
    let by_header = nobody
        .request(Method::GET, "/v1/models")
        .header("x-goog-api-key", &key);
    let models = Reply::of(by_header).await.ok();
    assert_eq!(models["models"][0]["name"], "models/tiny");
    assert!(models["models"][0]["inputTokenLimit"].as_u64().unwrap() > 0);
    let by_query = nobody
        .get(&format!("/v1beta/models/tiny?key={key}"))
        .await
        .ok();
    assert_eq!(by_query["name"], "models/tiny");
    // Elsewhere a key in the URL is none.
    nobody
        .get(&format!("/v1/context?key={key}"))
        .await
        .error(401);

    let anthropic = client
        .request(Method::GET, "/v1/models")
        .header("anthropic-version", "2023-06-01");
    let models = Reply::of(anthropic).await.ok();
    assert_eq!(
        (&models["data"][0]["type"], &models["first_id"]),
        (&json!("model"), &json!("tiny"))
    );
}

#[tokio::test]
async fn google_itself_gets_the_request_as_it_came() {
    let emulator = Emulator::start(Gemini::new()).await;
    let gateway = TestGateway::builder()
        .upstream(upstream(
            "gemini",
            &format!("{}/v1beta", emulator.url),
            "key",
        ))
        .route("flash", &[("gemini", "gemini-2.5-flash")])
        .start()
        .await;
    let client = gateway.client();
    let body = r#"{"contents":[{"role":"user","parts":[{"text":"h\u00e9"}]}],"generationConfig":{"temperature":1.0e0},"safetySettings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_NONE"}]}"#;
    let answered = client
        .post_text(
            "/v1beta/models/flash:generateContent",
            "application/json",
            body,
        )
        .await
        .ok();
    assert!(!answer(&answered).is_empty());
    let sent = emulator.requests();
    let sent = String::from_utf8(sent.last().unwrap().body.to_vec()).unwrap();
    for part in [r"h\u00e9", "1.0e0", "BLOCK_NONE"] {
        assert!(sent.contains(part), "{part}: {sent}");
    }
    let stream = client
        .post_text(
            "/v1beta/models/flash:streamGenerateContent?alt=sse",
            "application/json",
            body,
        )
        .await;
    assert!(stream.text().starts_with("data: "));
    let array = client
        .post_text(
            "/v1beta/models/flash:streamGenerateContent",
            "application/json",
            body,
        )
        .await;
    assert!(array.ok().is_array());
}

#[tokio::test]
async fn a_cached_content_works_on_another_provider_s_model() {
    let emulator = Emulator::start(Anthropic::new()).await;
    let gateway = TestGateway::builder()
        .upstream(upstream("anthropic", &emulator.url, "key"))
        .route("claude", &[("anthropic", "claude-sonnet-4-6")])
        .start()
        .await;
    let client = gateway.client();
    let made = create(
        &client,
        json!({"model": "models/claude", "contents": [content("user", &words(6000))]}),
    )
    .await;
    let mut body = asks("hi");
    body["cachedContent"] = made["name"].clone();
    generate(&client, "claude", &body).await.ok();
    let second = generate(&client, "claude", &body).await;
    assert!(
        second.header("x-context-cache").starts_with("hit"),
        "{}",
        second.header("x-context-cache")
    );
    let usage = second.ok()["usageMetadata"].clone();
    let cached = usage["cachedContentTokenCount"].as_u64().unwrap();
    assert!(
        cached * 10 > usage["promptTokenCount"].as_u64().unwrap() * 9,
        "{usage}"
    );
}
