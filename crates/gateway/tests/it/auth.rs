//! Keys.

use holdfast_store::KeyScope;
use holdfast_testkit::{Reply, TestGateway};
use reqwest::Method;
use serde_json::json;

use crate::say;

#[tokio::test]
async fn a_key_is_taken_from_each_of_three_headers() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let key = client.key().to_owned();
    let anonymous = client.without_key();
    for (header, value) in [
        ("authorization", format!("Bearer {key}")),
        ("authorization", format!("bearer {key}")),
        ("x-api-key", key.clone()),
        ("x-goog-api-key", key.clone()),
    ] {
        let request = anonymous
            .request(Method::GET, "/v1/models")
            .header(header, value);
        assert_eq!(Reply::of(request).await.status, 200, "{header}");
    }
}

#[tokio::test]
async fn without_a_valid_key_nothing_is_served() {
    let gateway = TestGateway::start().await;
    let client = gateway.client().without_key();
    let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
    for path in [
        "/v1/context/create",
        "/v1/chat/completions",
        "/api/v3/context/chat/completions",
        "/admin/v1/keys",
    ] {
        assert_eq!(
            client.post(path, &body).await.error(401)["code"],
            "AuthenticationError",
            "{path}"
        );
    }
    for path in [
        "/v1/models",
        "/v1/context",
        "/v1/context/x",
        "/admin/v1/keys",
    ] {
        client.get(path).await.error(401);
        let wrong = client.request(Method::GET, path).bearer_auth("hf-wrong");
        Reply::of(wrong).await.error(401);
    }
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked_at_once() {
    let gateway = TestGateway::start().await;
    let admin = gateway.client();
    let body = json!({"project": "team-a", "label": "laptop", "scopes": ["inference"]});
    let made = admin.post("/admin/v1/keys", &body).await.ok();
    let secret = made["key"].as_str().unwrap();
    assert!(secret.len() > 40);
    assert_eq!(
        (&made["project"], &made["label"], &made["scopes"]),
        (&json!("team-a"), &json!("laptop"), &json!(["inference"]))
    );

    let list = admin.get("/admin/v1/keys?project=team-a").await;
    assert!(!list.text().contains(secret), "a secret is shown once");
    assert_eq!(list.ok()["data"][0]["id"], made["id"]);
    assert_eq!(
        admin.get("/admin/v1/keys").await.ok()["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let models = || {
        Reply::of(
            admin
                .without_key()
                .request(Method::GET, "/v1/models")
                .bearer_auth(secret),
        )
    };
    models().await.ok();
    let path = format!("/admin/v1/keys/{}", made["id"].as_str().unwrap());
    assert!(admin.delete(&path).await.ok()["revoked_at"].is_i64());
    models().await.error(401);
    admin.delete(&path).await.ok();
    admin.delete("/admin/v1/keys/key-nobody").await.error(404);
}

#[tokio::test]
async fn a_scope_opens_its_own_routes_only() {
    let gateway = TestGateway::start().await;
    let inference = gateway.client_of("default", &[KeyScope::Inference]).await;
    inference.get("/v1/models").await.ok();
    inference.get("/admin/v1/keys").await.error(403);
    inference
        .post("/admin/v1/keys", &json!({"scopes": ["admin"]}))
        .await
        .error(403);
    let admin = gateway.client_of("default", &[KeyScope::Admin]).await;
    admin.get("/admin/v1/keys").await.ok();
    admin.get("/v1/models").await.ok();
}

#[tokio::test]
async fn a_key_request_that_makes_no_sense_makes_no_key() {
    let gateway = TestGateway::start().await;
    let admin = gateway.client();
    for (body, param) in [
        (json!({"project": "Upper"}), json!("project")),
        (json!({"scopes": ["everything"]}), json!("scopes[0]")),
        (json!({"label": "x".repeat(101)}), json!("label")),
        (json!({"label": 1}), json!("label")),
    ] {
        assert_eq!(
            admin.post("/admin/v1/keys", &body).await.error(400)["param"],
            param
        );
    }
    assert_eq!(
        admin.get("/admin/v1/keys").await.ok()["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn where_no_key_is_needed_none_and_any_will_do() {
    let gateway = TestGateway::builder().open_to_all().start().await;
    let client = gateway.client();
    client.without_key().get("/v1/models").await.ok();
    let request = client
        .without_key()
        .request(Method::GET, "/v1/context")
        .bearer_auth("whatever");
    Reply::of(request).await.ok();
}
