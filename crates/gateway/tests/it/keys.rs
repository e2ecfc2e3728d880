//! What operators decide about keys: expiry, models, rotation, and when it counts.

use std::sync::Arc;
use std::time::Duration;

use holdfast::app::Store;
use holdfast_store::{KeyScope, MemoryStore};
use holdfast_testkit::{Reply, TestClient, TestClock, TestGateway};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{create, say};

/// Makes a key with these fields; gives what the API says and a client that uses it.
async fn make(gateway: &TestGateway, fields: Value) -> (Value, TestClient) {
    let made = gateway.client().post("/admin/v1/keys", &fields).await.ok();
    let client = using(gateway, made["key"].as_str().unwrap());
    (made, client)
}

fn using(gateway: &TestGateway, secret: &str) -> TestClient {
    TestClient::new(&gateway.url, Some(secret.to_owned()))
}

fn path_of(key: &Value) -> String {
    format!("/admin/v1/keys/{}", key["id"].as_str().unwrap())
}

fn names(list: &Value, entries: &str, name: &str) -> Vec<String> {
    let entries = list[entries].as_array().unwrap().iter();
    entries
        .map(|entry| entry[name].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_key_ends_at_the_very_instant() {
    let gateway = TestGateway::start().await;
    let (made, client) = make(&gateway, json!({"expires_in": 60})).await;
    let created = made["created"].as_i64().unwrap();
    assert_eq!(made["expires_at"], created + 60);
    gateway.clock.advance(Duration::from_millis(59_999));
    client.get("/v1/models").await.ok();
    gateway.clock.advance(Duration::from_millis(1));
    assert_eq!(
        client.get("/v1/models").await.error(401)["code"],
        "AuthenticationError"
    );

    // A later end lets it in again, and none keeps it.
    let admin = gateway.client();
    let path = path_of(&made);
    let later = json!({"expires_at": created + 100});
    assert_eq!(
        admin.patch(&path, &later).await.ok()["expires_at"],
        created + 100
    );
    client.get("/v1/models").await.ok();
    let never = json!({"expires_at": null});
    assert!(admin.patch(&path, &never).await.ok()["expires_at"].is_null());
    gateway.clock.advance(Duration::from_secs(1_000_000));
    client.get("/v1/models").await.ok();
}

#[tokio::test]
async fn a_model_that_is_not_allowed_does_not_exist() {
    let gateway = TestGateway::start().await;
    let everything = gateway.client();
    let foreign = create(&everything, json!({"model": "gemini-2.0-flash"})).await;
    let (_, client) = make(&gateway, json!({"models": ["tiny", "doubao-*"]})).await;

    let list = client.get("/v1/models").await.ok();
    assert_eq!(names(&list, "data", "id"), ["tiny", "doubao-pro-32k"]);
    let list = client.get("/v1beta/models").await.ok();
    assert_eq!(
        names(&list, "models", "name"),
        ["models/tiny", "models/doubao-pro-32k"]
    );
    for allowed in ["tiny", "doubao-pro-32k", "ep-20261122"] {
        client.get(&format!("/v1/models/{allowed}")).await.ok();
        let chat = json!({"model": allowed, "messages": [say("user", "hi")]});
        client.post("/v1/chat/completions", &chat).await.ok();
    }

    let chat =
        json!({"model": "gemini-2.0-flash", "messages": [say("user", "hi")], "max_tokens": 1});
    let response = json!({"model": "gemini-2.0-flash", "input": "hi"});
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}],
                          "model": "models/gemini-2.0-flash"});
    let held = json!({"context_id": foreign, "messages": [say("user", "hi")]});
    for (path, body) in [
        ("/v1/chat/completions", &chat),
        ("/v1/chat/completions", &held),
        ("/v1/context/create", &chat),
        ("/v1/context/estimate", &chat),
        (&format!("/v1/context/{foreign}/fork"), &json!({})),
        ("/v1/messages", &chat),
        ("/v1/messages/count_tokens", &chat),
        ("/v1/responses", &response),
        ("/v1/responses/input_tokens", &response),
        (
            "/v1/completions",
            &json!({"model": "gemini-2.0-flash", "prompt": "hi"}),
        ),
        ("/v1/embeddings", &response),
        ("/v1beta/models/gemini-2.0-flash:generateContent", &contents),
        ("/v1beta/models/gemini-2.0-flash:countTokens", &contents),
        ("/v1beta/cachedContents", &contents),
    ] {
        let refused = client.post(path, body).await;
        assert_eq!(refused.status, 404, "{path}: {}", refused.text());
    }
    // As one that nobody has heard of.
    let unknown = json!({"model": "gemini-2.0-flash-x", "messages": [say("user", "hi")]});
    let unknown = client
        .post("/v1/chat/completions", &unknown)
        .await
        .error(404);
    let refused = client.post("/v1/chat/completions", &chat).await.error(404);
    assert_eq!(refused["code"], unknown["code"]);
    let same = unknown["message"].as_str().unwrap();
    assert_eq!(refused["message"], same.replace("flash-x", "flash"));
}

#[tokio::test]
async fn the_projects_list_holds_for_all_its_keys() {
    let gateway = TestGateway::start().await;
    let admin = gateway.client();
    let project = json!({"name": "team", "models": ["tiny", "gemini-*"], "default_model": "tiny"});
    admin.post("/admin/v1/projects", &project).await.ok();
    let (_, all) = make(&gateway, json!({"project": "team"})).await;
    let (_, one) = make(
        &gateway,
        json!({"project": "team", "models": ["gemini-*", "doubao-*"]}),
    )
    .await;
    let models =
        async |client: &TestClient| names(&client.get("/v1/models").await.ok(), "data", "id");
    assert_eq!(models(&all).await, ["tiny", "gemini-2.0-flash"]);
    assert_eq!(models(&one).await, ["gemini-2.0-flash"]);

    // Chats that name no model get the project's.
    let chat = json!({"messages": [say("user", "hi")]});
    let answer = all.post("/v1/chat/completions", &chat).await.ok();
    assert_eq!(answer["model"], "tiny");
    all.post("/v1/responses", &json!({"input": "hi"}))
        .await
        .ok();
    one.post("/v1/chat/completions", &chat).await.error(404);

    // A change counts from the next request on.
    let change = json!({"models": null, "default_model": null});
    let changed = admin.patch("/admin/v1/projects/team", &change).await.ok();
    assert_eq!(changed["models"], json!([]));
    assert_eq!(models(&one).await, ["gemini-2.0-flash", "doubao-pro-32k"]);
    all.post("/v1/chat/completions", &chat).await.error(400);
}

#[tokio::test]
async fn a_rotated_secret_lives_on_for_the_overlap() {
    let gateway = TestGateway::start().await;
    let admin = gateway.client();
    let (made, old) = make(&gateway, json!({"label": "robot"})).await;
    let rotate = format!("{}/rotate", path_of(&made));
    let rotated = admin
        .post(&rotate, &json!({"overlap_seconds": 60}))
        .await
        .ok();
    assert_eq!(
        (&rotated["id"], &rotated["label"]),
        (&made["id"], &json!("robot"))
    );
    assert_ne!(rotated["key"], made["key"]);
    let new = using(&gateway, rotated["key"].as_str().unwrap());
    gateway.clock.advance(Duration::from_millis(59_999));
    old.get("/v1/models").await.ok();
    new.get("/v1/models").await.ok();
    let shown = admin.get(&path_of(&made)).await;
    assert!(!shown.text().contains(rotated["key"].as_str().unwrap()));
    assert!(shown.ok()["previous_expires_at"].is_i64());
    gateway.clock.advance(Duration::from_millis(1));
    old.get("/v1/models").await.error(401);
    new.get("/v1/models").await.ok();

    // Without an overlap the secret so far ends at once; a body is not needed.
    let again = admin.post_text(&rotate, "application/json", "").await.ok();
    new.get("/v1/models").await.error(401);
    let newest = using(&gateway, again["key"].as_str().unwrap());
    newest.get("/v1/models").await.ok();

    // Revoking ends both.
    let last = admin
        .post(&rotate, &json!({"overlap_seconds": 60}))
        .await
        .ok();
    admin.delete(&path_of(&made)).await.ok();
    newest.get("/v1/models").await.error(401);
    using(&gateway, last["key"].as_str().unwrap())
        .get("/v1/models")
        .await
        .error(401);
    admin.post(&rotate, &json!({})).await.error(400);
}

#[tokio::test]
async fn what_one_replica_is_told_counts_at_the_others_within_a_second() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = TestClock::default();
    let start = || TestGateway::builder().store(&store).clock(&clock).start();
    let (one, two) = (start().await, start().await);
    let (made, client) = make(&one, json!({})).await;
    let elsewhere = using(&two, client.key());
    elsewhere.get("/v1/models").await.ok();
    one.client().delete(&path_of(&made)).await.ok();
    client.get("/v1/models").await.error(401);
    clock.advance(Duration::from_secs(1));
    elsewhere.get("/v1/models").await.error(401);
}

#[tokio::test]
async fn the_last_use_is_written_in_the_background() {
    let gateway = TestGateway::start().await;
    let admin = gateway.client();
    let (made, client) = make(&gateway, json!({})).await;
    client.get("/v1/models").await.ok();
    assert!(admin.get(&path_of(&made)).await.ok()["last_used_at"].is_null());
    gateway.clock.advance(Duration::from_secs(5));
    client.get("/v1/models").await.ok();
    gateway.app.write_key_uses().await.unwrap();
    let used = &admin.get(&path_of(&made)).await.ok()["last_used_at"];
    assert_eq!(used.as_i64().unwrap(), gateway.clock.now() / 1000);
}

#[tokio::test]
async fn scopes_and_label_can_be_changed() {
    let gateway = TestGateway::start().await;
    let admin = gateway.client();
    let (made, client) = make(&gateway, json!({})).await;
    assert_eq!(made["scopes"], json!(["inference"]));
    client.get("/v1/context").await.ok();
    let change = json!({"scopes": ["usage:read", "usage:read"], "label": "new"});
    let changed = admin.patch(&path_of(&made), &change).await.ok();
    assert_eq!(
        (&changed["scopes"], &changed["label"]),
        (&json!(["usage:read"]), &json!("new"))
    );
    client.get("/v1/context").await.error(403);
    let parse = |word: &Value| KeyScope::parse(word.as_str().unwrap());
    assert_eq!(parse(&changed["scopes"][0]), Some(KeyScope::UsageRead));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let gateway = TestGateway::start().await;
    let admin = gateway.client();
    for number in 0..5 {
        let body = json!({"project": format!("team-{number}"), "label": "x"});
        admin.post("/admin/v1/keys", &body).await.ok();
        gateway.clock.advance(Duration::from_secs(1));
    }
    for (list, name, expected) in [("keys", "id", 6), ("projects", "name", 6)] {
        let whole = admin.get(&format!("/admin/v1/{list}")).await.ok();
        assert_eq!(whole["has_more"], false);
        let whole = names(&whole, "data", name);
        let mut paged = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/admin/v1/{list}?limit=2&cursor={cursor}");
            let page = admin.get(&path).await.ok();
            paged.extend(names(&page, "data", name));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert_eq!((paged.len(), &paged), (expected, &whole));
    }
    for (query, param) in [("limit=0", "limit"), ("cursor=key-none", "cursor")] {
        let wrong = admin.get(&format!("/admin/v1/keys?{query}")).await;
        assert_eq!(wrong.error(400)["param"], param);
    }
}

#[tokio::test]
async fn a_wrong_request_names_its_field_and_changes_nothing() {
    let gateway = TestGateway::start().await;
    let admin = gateway.client();
    let (made, _) = make(&gateway, json!({"expires_in": 60})).await;
    let keys = path_of(&made);
    let rotate = format!("{keys}/rotate");
    let before = admin.get(&keys).await.ok();
    for (method, path, body, param) in [
        ("POST", "/admin/v1/keys", json!({"label": 1}), "label"),
        (
            "POST",
            "/admin/v1/keys",
            json!({"expires_in": 0}),
            "expires_in",
        ),
        (
            "POST",
            "/admin/v1/keys",
            json!({"expires_at": 5}),
            "expires_at",
        ),
        (
            "POST",
            "/admin/v1/keys",
            json!({"expire_in": 5}),
            "expire_in",
        ),
        (
            "POST",
            "/admin/v1/keys",
            json!({"models": ["a*b"]}),
            "models[0]",
        ),
        ("POST", "/admin/v1/keys", json!({"models": "a"}), "models"),
        (
            "POST",
            "/admin/v1/keys",
            json!({"limits": {"requests": 1}}),
            "limits.requests",
        ),
        (
            "PATCH",
            &keys,
            json!({"limits": {"requests_per_minute": -1}}),
            "limits.requests_per_minute",
        ),
        ("PATCH", &keys, json!({"project": "other"}), "project"),
        (
            "PATCH",
            &keys,
            json!({"scopes": ["inference", "x"]}),
            "scopes[1]",
        ),
        (
            "PATCH",
            &keys,
            json!({"expires_in": 5, "expires_at": 5}),
            "expires_in",
        ),
        (
            "POST",
            &rotate,
            json!({"overlap_seconds": "1h"}),
            "overlap_seconds",
        ),
        ("POST", "/admin/v1/projects", json!({}), "name"),
        (
            "POST",
            "/admin/v1/projects",
            json!({"name": "Upper"}),
            "name",
        ),
        (
            "POST",
            "/admin/v1/projects",
            json!({"name": "default"}),
            "name",
        ),
        (
            "PATCH",
            "/admin/v1/projects/default",
            json!({"display_name": "x".repeat(101)}),
            "display_name",
        ),
    ] {
        let method: Method = method.parse().unwrap();
        let reply = Reply::of(admin.request(method, path).json(&body)).await;
        assert_eq!(reply.error(400)["param"], param, "{path} {body}");
    }
    assert_eq!(admin.get(&keys).await.ok(), before);
    for path in ["/admin/v1/keys/key-none", "/admin/v1/projects/none"] {
        admin.get(path).await.error(404);
        admin.patch(path, &json!({})).await.error(404);
    }
}
