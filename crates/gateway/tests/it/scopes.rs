//! Which scope opens which endpoint, as a table.

use holdfast_store::KeyScope;
use holdfast_testkit::{Reply, TestGateway};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{create, say};

/// Method, path and body of each kind of endpoint, and the scope it needs; `None`: any key.
fn endpoints() -> Vec<(Method, &'static str, Value, Option<KeyScope>)> {
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    let chat = || json!({"model": "tiny", "messages": [say("user", "hi")], "max_tokens": 1});
    let context = || json!({"model": "tiny", "messages": [say("user", "hi")]});
    let gemini = || {
        json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "model": "models/gemini-2.0-flash",
               "ttl": "60s"})
    };
    let inference = Some(KeyScope::Inference);
    let reads = Some(KeyScope::ContextsRead);
    let writes = Some(KeyScope::ContextsWrite);
    let admin = Some(KeyScope::Admin);
    vec![
        (post.clone(), "/v1/chat/completions", chat(), inference),
        (post.clone(), "/api/v3/chat/completions", chat(), inference),
        (
            post.clone(),
            "/v1/context/chat/completions",
            chat(),
            inference,
        ),
        (post.clone(), "/v1/messages", chat(), inference),
        (post.clone(), "/v1/messages/count_tokens", chat(), inference),
        (
            post.clone(),
            "/v1/responses",
            json!({"model": "tiny", "input": "hi"}),
            inference,
        ),
        (get.clone(), "/v1/responses/resp-1", Value::Null, inference),
        (post.clone(), "/v1/conversations", json!({}), inference),
        (
            post.clone(),
            "/v1/completions",
            json!({"model": "tiny", "prompt": "hi"}),
            inference,
        ),
        (post.clone(), "/v1/embeddings", chat(), inference),
        (
            post.clone(),
            "/v1beta/models/tiny:generateContent",
            gemini(),
            inference,
        ),
        (
            post.clone(),
            "/v1/models/tiny:countTokens",
            gemini(),
            inference,
        ),
        (post.clone(), "/v1/context/estimate", context(), reads),
        (get.clone(), "/v1/context", Value::Null, reads),
        (get.clone(), "/api/v3/context", Value::Null, reads),
        (get.clone(), "/v1/context/ID", Value::Null, reads),
        (
            get.clone(),
            "/v1/context/cachedContents/ID",
            Value::Null,
            reads,
        ),
        (get.clone(), "/v1beta/cachedContents", Value::Null, reads),
        (get.clone(), "/v1beta/cachedContents/ID", Value::Null, reads),
        (post.clone(), "/v1/context/create", context(), writes),
        (post.clone(), "/api/v3/context/create", context(), writes),
        (patch.clone(), "/v1/context/ID", json!({"ttl": 60}), writes),
        (post.clone(), "/v1/context/ID/fork", json!({}), writes),
        (post.clone(), "/v1beta/cachedContents", gemini(), writes),
        (
            patch.clone(),
            "/v1beta/cachedContents/ID",
            json!({"ttl": "60s"}),
            writes,
        ),
        (
            delete.clone(),
            "/v1beta/cachedContents/ctx-20261130000000-aaaaaaaaaaaaaaaa",
            Value::Null,
            writes,
        ),
        (delete, "/v1/context/unknown", Value::Null, writes),
        (get.clone(), "/v1/models", Value::Null, None),
        (get.clone(), "/v1/models/tiny", Value::Null, None),
        (get.clone(), "/v1beta/models", Value::Null, None),
        (get.clone(), "/v1beta/models/tiny", Value::Null, None),
        (get.clone(), "/admin/v1/projects", Value::Null, admin),
        (
            post.clone(),
            "/admin/v1/projects",
            json!({"name": ""}),
            admin,
        ),
        (
            get.clone(),
            "/admin/v1/projects/default",
            Value::Null,
            admin,
        ),
        (
            patch.clone(),
            "/admin/v1/projects/default",
            json!({}),
            admin,
        ),
        (get.clone(), "/admin/v1/keys", Value::Null, admin),
        (
            post.clone(),
            "/admin/v1/keys",
            json!({"scopes": ["none"]}),
            admin,
        ),
        (get, "/admin/v1/keys/key-1", Value::Null, admin),
        (patch, "/admin/v1/keys/key-1", json!({}), admin),
        (post, "/admin/v1/keys/key-1/rotate", json!({}), admin),
        (Method::DELETE, "/admin/v1/keys/key-1", Value::Null, admin),
    ]
}

#[tokio::test]
async fn each_scope_opens_its_own_endpoints_and_says_which_one_is_missing() {
    let gateway = TestGateway::start().await;
    let id = create(&gateway.client(), json!({"mode": "session"})).await;
    for scope in KeyScope::ALL {
        let client = gateway.client_of("default", &[scope]).await;
        for (method, path, body, needed) in endpoints() {
            let mut request = client.request(method.clone(), &path.replace("ID", &id));
            if !body.is_null() {
                request = request.json(&body);
            }
            let reply = Reply::of(request).await;
            let what = format!("{} on {method} {path}: {}", scope.as_str(), reply.text());
            let Some(needed) = needed.filter(|needed| !scope.includes(*needed)) else {
                assert!(!reply.text().contains("lacks the scope"), "{what}");
                continue;
            };
            assert_eq!(reply.status, 403, "{what}");
            let lacks = format!("lacks the scope `{}`", needed.as_str());
            assert!(reply.text().contains(&lacks), "{what}");
            // In the words of the path's dialect.
            let error = &reply.json()["error"];
            match path {
                path if path.starts_with("/v1beta") || path.ends_with(":countTokens") => {
                    assert_eq!(error["status"], "PERMISSION_DENIED", "{what}");
                }
                path if path.starts_with("/v1/messages") => {
                    assert_eq!(error["type"], "permission_error", "{what}");
                }
                _ => assert_eq!(error["code"], "AccessDenied", "{what}"),
            }
        }
    }
}

#[tokio::test]
async fn scopes_add_up() {
    let gateway = TestGateway::start().await;
    let both = [KeyScope::ContextsRead, KeyScope::ContextsWrite];
    let client = gateway.client_of("default", &both).await;
    let id = create(&client, json!({})).await;
    client.get(&format!("/v1/context/{id}")).await.ok();
    let chat = json!({"context_id": id, "messages": [say("user", "hi")]});
    client.post("/v1/chat/completions", &chat).await.error(403);
    client.delete(&format!("/v1/context/{id}")).await.ok();
}

#[tokio::test]
async fn a_key_sees_its_own_usage_and_with_the_scope_for_it_the_projects() {
    let gateway = TestGateway::start().await;
    let chat = json!({"model": "tiny", "messages": [say("user", "hi")], "max_tokens": 1});
    let one = gateway.client_of("default", &[KeyScope::Inference]).await;
    let other = gateway.client_of("default", &[KeyScope::Inference]).await;
    one.post("/v1/chat/completions", &chat).await.ok();
    for _ in 0..2 {
        other.post("/v1/chat/completions", &chat).await.ok();
    }
    let chats = async |client: &holdfast_testkit::TestClient| {
        let usage = client.get("/v1/usage?group_by=key&model=tiny").await.ok();
        let groups = usage["data"].as_array().cloned().unwrap_or_default();
        let requests: Vec<_> = groups
            .iter()
            .filter_map(|it| it["requests"].as_u64())
            .collect();
        requests
    };
    assert_eq!(chats(&one).await, [1]);
    assert_eq!(chats(&other).await, [2]);
    let reader = gateway.client_of("default", &[KeyScope::UsageRead]).await;
    let mut all = chats(&reader).await;
    all.sort_unstable();
    assert_eq!(all, [1, 2]);

    let rows = reader.get("/v1/usage/requests?model=tiny").await.ok();
    let key = rows["data"][0]["key"].as_str().expect("a key").to_owned();
    for client in [&one, &other] {
        let rows = client.get(&format!("/v1/usage/requests?key={key}")).await;
        if rows.status == 200 {
            let rows = rows.json();
            assert!(rows["data"].as_array().is_some_and(|rows| rows.len() == 2));
        } else {
            assert_eq!(rows.json()["error"]["param"], "key");
        }
    }
    let narrow = gateway
        .client_of("default", &[KeyScope::ContextsRead])
        .await;
    for path in ["/v1/usage", "/v1/usage/requests"] {
        let refused = narrow.get(path).await;
        assert_eq!(refused.status, 403);
        assert!(
            refused.text().contains("`usage:read`"),
            "{}",
            refused.text()
        );
    }
}
