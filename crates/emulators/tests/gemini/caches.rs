//! `cachedContents`: names, ends, sizes, owners, storage.

use std::time::Duration;

use holdfast_emulators::families::gemini::Gemini;
use reqwest::Method;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn a_cache_is_a_prefix_of_later_requests_and_counts_as_input() {
    let client = gemini(Gemini::new()).await;
    let cache = client.create(json!({"displayName": "book"})).await;
    assert_eq!(cache["usageMetadata"]["totalTokenCount"], 1104);
    assert_eq!(cache["model"], format!("models/{MODEL}"));
    assert_eq!(cache["displayName"], "book");
    assert!(
        cache["name"]
            .as_str()
            .unwrap()
            .starts_with("cachedContents/")
    );
    assert_eq!(cache.get("systemInstruction"), None);

    let body = json!({"cachedContent": cache["name"], "contents": [user(&"q".repeat(40))]});
    let (status, answer) = client.generate(body.clone()).await;
    assert_eq!(status, 200);
    let usage = &answer["usageMetadata"];
    assert_eq!(usage["promptTokenCount"], 1114);
    assert_eq!(usage["cachedContentTokenCount"], 1104);
    let output = usage["candidatesTokenCount"].as_u64().unwrap();
    assert_eq!(usage["totalTokenCount"], 1114 + output);
    assert_eq!(
        usage["cacheTokensDetails"],
        json!([{"modality": "TEXT", "tokenCount": 1104}])
    );
    assert_eq!(answer["candidates"][0]["finishReason"], "STOP");
    assert_eq!(
        answer["candidates"][0]["content"]["parts"][0]["text"],
        "You sent me 1114 tokens."
    );

    let created = &client.charges("create")[0];
    assert_eq!((created.uncached_input, created.output), (1104, 0));
    let chat = &client.charges("chat")[0];
    assert_eq!(
        (chat.uncached_input, chat.cache_read, chat.output),
        (10, 1104, output)
    );
    assert_eq!(chat.account, "alice");

    let (_, counted) = client
        .post(
            &client.model_path("countTokens"),
            json!({"generateContentRequest": {
                "model": client.model_name(),
                "contents": body["contents"],
                "cachedContent": body["cachedContent"],
            }}),
        )
        .await;
    assert_eq!(counted["totalTokens"], 1114);
    assert_eq!(counted["cachedContentTokenCount"], 1104);
    let (_, counted) = client
        .post(&client.model_path("countTokens"), question())
        .await;
    assert_eq!(counted["totalTokens"], 2);
}

#[tokio::test]
async fn what_is_in_the_cache_must_not_be_beside_it() {
    let client = gemini(Gemini::new()).await;
    let cache = client.create(json!({})).await;
    let tools = json!([{"functionDeclarations": [{"name": "f"}]}]);
    for (name, value) in [
        (
            "systemInstruction",
            json!({"parts": [{"text": "Be brief."}]}),
        ),
        (
            "system_instruction",
            json!({"parts": [{"text": "Be brief."}]}),
        ),
        ("tools", tools.clone()),
        (
            "toolConfig",
            json!({"functionCallingConfig": {"mode": "AUTO"}}),
        ),
    ] {
        let mut body = question();
        body["cachedContent"] = cache["name"].clone();
        body[name] = value;
        assert_invalid(
            &client.generate(body).await,
            "CachedContent can not be used with GenerateContent request setting system_instruction, tools or \
             tool_config.",
        );
    }
    let mut body = question();
    body["cachedContent"] = cache["name"].clone();
    body["tools"] = json!([]);
    assert_eq!(client.generate(body).await.0, 200);

    let client = vertex(Gemini::vertex("test-token")).await;
    let cache = client.create(json!({})).await;
    let mut body = question();
    body["cachedContent"] = cache["name"].clone();
    body["tools"] = tools;
    assert_invalid(
        &client.generate(body).await,
        "Tool config, tools and system instruction should not be set in the request when using cached content.",
    );
    assert!(client.charges("chat").is_empty());
}

#[tokio::test]
async fn a_cache_is_for_its_model_only() {
    let client = gemini(Gemini::new()).await;
    let cache = client.create(json!({})).await;
    let mut body = question();
    body["cachedContent"] = cache["name"].clone();
    let answer = client
        .post("/models/gemini-2.5-pro:generateContent", body)
        .await;
    assert_invalid(
        &answer,
        "Model used by GenerateContent request (models/gemini-2.5-pro) and CachedContent \
         (models/gemini-3.5-flash-lite) has to be the same.",
    );
    let body = json!({"model": MODEL, "contents": [user("u")]});
    assert_invalid(
        &client.post("/cachedContents", body).await,
        "unexpected model name format",
    );
    let answer = client
        .post("/models/llama-3:generateContent", question())
        .await;
    assert_error(&answer, 404, "NOT_FOUND", "models/llama-3 is not found");
}

#[tokio::test]
async fn a_cache_has_a_least_size_by_model() {
    let client = gemini(Gemini::new()).await;
    let body = |model: &str, tokens: usize| {
        let text = "u".repeat(tokens * 4);
        json!({"model": format!("models/{model}"), "contents": [user(&text)]})
    };
    for (model, least) in [
        (MODEL, 1024),
        ("gemini-2.5-pro", 2048),
        ("gemini-3.8-flash", 4096),
    ] {
        assert_invalid(
            &client.post("/cachedContents", body(model, least - 1)).await,
            &format!(
                "Cached content is too small. total_token_count={}, min_total_token_count={least}",
                least - 1
            ),
        );
        assert_eq!(
            client.post("/cachedContents", body(model, least)).await.0,
            200
        );
    }
    assert_eq!(client.charges("create").len(), 3);

    let client = gemini(Gemini::new().min_tokens("gemini-2.5-pro", 10)).await;
    assert_eq!(
        client
            .post("/cachedContents", body("gemini-2.5-pro", 10))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn a_lifetime_is_fixed_and_patched() {
    let client = gemini(Gemini::new()).await;
    let cache = client.create(json!({})).await;
    let path = format!("/{}", cache["name"].as_str().unwrap());
    let seconds = |cache: &Value, field: &str| {
        cache[field]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
            .as_second()
    };
    assert_eq!(
        seconds(&cache, "expireTime") - seconds(&cache, "createTime"),
        3600
    );

    let mut body = question();
    body["cachedContent"] = cache["name"].clone();
    client.emulator.clock().advance(Duration::from_secs(3000));
    assert_eq!(client.generate(body.clone()).await.0, 200);
    // Use doesn't extend it; a patch does, from the patch on.
    let patch = json!({"ttl": "1200s"});
    let (status, patched) = client
        .send(
            Method::PATCH,
            &format!("{path}?updateMask=ttl"),
            Some(&patch),
        )
        .await;
    assert_eq!(status, 200);
    let extended = seconds(&patched, "expireTime") - seconds(&cache, "createTime");
    assert!((4200..4205).contains(&extended), "{extended}");
    client.emulator.clock().advance(Duration::from_secs(1100));
    assert_eq!(client.generate(body.clone()).await.0, 200);
    let expire_time = json!({"expireTime": "2100-01-01T00:00:00Z"});
    let (status, patched) = client.send(Method::PATCH, &path, Some(&expire_time)).await;
    assert_eq!(
        (status, &patched["expireTime"]),
        (200, &json!("2100-01-01T00:00:00Z"))
    );
    client
        .send(Method::PATCH, &path, Some(&json!({"ttl": "60s"})))
        .await;
    client.emulator.clock().advance(Duration::from_secs(61));
    let refused = "CachedContent not found (or permission denied)";
    assert_error(
        &client.generate(body).await,
        403,
        "PERMISSION_DENIED",
        refused,
    );
    let answer = client.send(Method::PATCH, &path, Some(&patch)).await;
    assert_error(&answer, 403, "PERMISSION_DENIED", refused);
    let answer = client.send(Method::DELETE, &path, None).await;
    assert_error(&answer, 403, "PERMISSION_DENIED", refused);
}

#[tokio::test]
async fn only_the_end_of_a_cache_can_be_changed() {
    let client = gemini(Gemini::new()).await;
    let cache = client.create(json!({})).await;
    let path = format!("/{}", cache["name"].as_str().unwrap());
    for (query, body) in [
        ("", json!({"displayName": "new"})),
        ("", json!({"ttl": "60s", "contents": [user("more")]})),
        ("?updateMask=displayName", json!({"displayName": "new"})),
        (
            "?updateMask=contents,ttl",
            json!({"ttl": "60s", "contents": []}),
        ),
        ("", json!({})),
    ] {
        let answer = client
            .send(Method::PATCH, &format!("{path}{query}"), Some(&body))
            .await;
        assert_invalid(
            &answer,
            "Only expiration (ttl or expire_time) can be updated",
        );
    }
    for body in [
        json!({"ttl": "60"}),
        json!({"ttl": 60}),
        json!({"expireTime": "tomorrow"}),
    ] {
        assert_invalid(
            &client.send(Method::PATCH, &path, Some(&body)).await,
            "Invalid value at 'cached_content.",
        );
    }
    for body in [
        json!({"ttl": "0s"}),
        json!({"expire_time": "2000-01-01T00:00:00Z"}),
    ] {
        assert_invalid(
            &client.send(Method::PATCH, &path, Some(&body)).await,
            "must be in the future",
        );
    }
    let both = json!({"ttl": "60s", "expireTime": "2100-01-01T00:00:00Z"});
    assert_invalid(
        &client.send(Method::PATCH, &path, Some(&both)).await,
        "oneof field 'expiration'",
    );
}

#[tokio::test]
async fn contents_of_a_cache_cannot_be_read_back() {
    let client = gemini(Gemini::new()).await;
    let cache = client
        .create(json!({"contents": [user("very secret")]}))
        .await;
    let path = format!("/{}", cache["name"].as_str().unwrap());
    let (status, read) = client.send(Method::GET, &path, None).await;
    assert_eq!((status, &read), (200, &cache));
    assert!(!read.to_string().contains("secret"));
    let (status, empty) = client.send(Method::DELETE, &path, None).await;
    assert_eq!((status, empty), (200, json!({})));
    assert_eq!(client.send(Method::GET, &path, None).await.0, 403);
}

#[tokio::test]
async fn caches_are_listed_by_pages_and_belong_to_a_project() {
    let client = gemini(Gemini::new().key("alice", "p1").key("bob", "p1")).await;
    let (_, empty) = client.send(Method::GET, "/cachedContents", None).await;
    assert_eq!(empty, json!({}));
    let mut names = Vec::new();
    for _ in 0..5 {
        names.push(client.create(json!({})).await["name"].clone());
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    let mut pages = 0;
    loop {
        let path = format!("/cachedContents?pageSize=2&pageToken={token}");
        let (_, page) = client.send(Method::GET, &path, None).await;
        pages += 1;
        seen.extend(
            page["cachedContents"]
                .as_array()
                .unwrap()
                .iter()
                .map(|cache| cache["name"].clone()),
        );
        match page["nextPageToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!((seen, pages), (names.clone(), 3));

    let mut body = question();
    body["cachedContent"] = names[0].clone();
    let path = client.model_path("generateContent");
    let (status, _) = client
        .send_as(("x-goog-api-key", "bob"), Method::POST, &path, Some(&body))
        .await;
    assert_eq!(status, 200);
    let (status, text) = client
        .send_as(
            ("x-goog-api-key", "mallory"),
            Method::POST,
            &path,
            Some(&body),
        )
        .await;
    assert_eq!(status, 403);
    assert!(text.contains("CachedContent not found (or permission denied)"));
    let (_, text) = client
        .send_as(
            ("x-goog-api-key", "mallory"),
            Method::GET,
            "/cachedContents",
            None,
        )
        .await;
    assert_eq!(text, "{}");
    assert_eq!(client.charges("chat")[0].account, "p1");
}

#[tokio::test]
async fn storage_is_charged_for_the_time_a_cache_lived() {
    let family = Gemini::new();
    let client = gemini(family.clone()).await;
    let deleted = client.create(json!({"ttl": "7200s"})).await;
    client.create(json!({"ttl": "1800s"})).await;
    client.emulator.clock().advance(Duration::from_secs(3600));
    let path = format!("/{}", deleted["name"].as_str().unwrap());
    client.send(Method::DELETE, &path, None).await;
    let mut held: Vec<u64> = client
        .charges("storage")
        .iter()
        .map(|charge| charge.token_milliseconds / 1104 / 1000)
        .collect();
    held.sort_unstable();
    // The one that expired is charged for its lifetime; deleting the other stops the charge.
    assert_eq!(held[0], 1800);
    assert!((3600..3605).contains(&held[1]), "{held:?}");

    client.emulator.bill().clear();
    client.create(json!({"ttl": "7200s"})).await;
    client.emulator.clock().advance(Duration::from_secs(600));
    family.settle_storage(client.emulator.bill(), client.emulator.clock().now_ms());
    client.emulator.clock().advance(Duration::from_secs(100));
    client.emulator.evict_all();
    family.settle_storage(client.emulator.bill(), client.emulator.clock().now_ms());
    let held: Vec<u64> = client
        .charges("storage")
        .iter()
        .map(|charge| charge.token_milliseconds / 1104 / 1000)
        .collect();
    assert_eq!(held.len(), 2);
    assert!(
        (600..605).contains(&held[0]) && (100..105).contains(&held[1]),
        "{held:?}"
    );
}

#[tokio::test]
async fn an_evicted_cache_is_gone() {
    let client = gemini(Gemini::new()).await;
    let cache = client.create(json!({})).await;
    client.emulator.evict_all();
    let mut body = question();
    body["cachedContent"] = cache["name"].clone();
    assert_eq!(client.generate(body).await.0, 403);
}

#[tokio::test]
async fn implicit_caching_is_a_switch() {
    let long = "x".repeat(4096 * 4);
    let body = |question: &str| json!({"systemInstruction": {"parts": [{"text": long}]}, "contents": [user(question)]});
    let client = gemini(Gemini::new()).await;
    client.generate(body("a")).await;
    let (_, answer) = client.generate(body("a")).await;
    assert_eq!(answer["usageMetadata"].get("cachedContentTokenCount"), None);

    let client = gemini(Gemini::new().implicit()).await;
    client.generate(body("a")).await;
    let (_, answer) = client.generate(body("b")).await;
    assert_eq!(answer["usageMetadata"]["cachedContentTokenCount"], 4096);
    let path = client.model_path("generateContent");
    client
        .send_as(
            ("x-goog-api-key", "bob"),
            Method::POST,
            &path,
            Some(&body("b")),
        )
        .await;
    assert_eq!(client.charges("chat").last().unwrap().cache_read, 0);
}
