//! Errors that are not about one feature: one envelope for all of them.

use holdfast_testkit::{Reply, TestGateway};
use reqwest::Method;
use serde_json::json;

use crate::say;

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_the_envelope() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for path in [
        "/",
        "/v1",
        "/v1/nothing",
        "/v2/chat/completions",
        "/admin",
        "/api/v3/x/y",
    ] {
        client.get(path).await.error(404);
    }
    for (method, path) in [
        (Method::GET, "/v1/chat/completions"),
        (Method::GET, "/v1/context/create"),
        (Method::PUT, "/v1/context/x"),
        (Method::DELETE, "/v1/models"),
        (Method::POST, "/healthz"),
        (Method::PATCH, "/admin/v1/keys"),
    ] {
        let reply = Reply::of(client.request(method, path)).await;
        reply.error(405);
        assert_ne!(reply.header("allow"), "", "{path}");
    }
}

#[tokio::test]
async fn malformed_json_says_where() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for path in ["/v1/chat/completions", "/v1/context/create"] {
        let reply = client
            .post_text(
                path,
                "application/json",
                "{\n  \"model\": \"tiny\",\n  \"messages\": [}",
            )
            .await;
        let message = reply.error(400)["message"].as_str().unwrap().to_owned();
        assert!(message.contains("line 3"), "{message}");
        for body in ["", "[]", "null", "{\"model\": \"tiny\"", "\u{feff}"] {
            client
                .post_text(path, "application/json", body)
                .await
                .error(400);
        }
        client
            .post_text(path, "application/json", vec![b'{', 0xff, b'}'])
            .await
            .error(400);
    }
}

#[tokio::test]
async fn the_content_type_matters_only_when_the_body_is_not_json() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let body = json!({"model": "tiny", "messages": [say("user", "hi")]}).to_string();
    for content_type in [
        "application/json; charset=utf-8",
        "text/plain",
        "application/x-www-form-urlencoded",
    ] {
        assert_eq!(
            client
                .post_text("/v1/chat/completions", content_type, body.clone())
                .await
                .status,
            200
        );
    }
    let error = client
        .post_text("/v1/chat/completions", "text/plain", "model=tiny")
        .await
        .error(400);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("application/json"),
        "{error}"
    );
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for path in ["/v1/models", "/healthz", "/nothing"] {
        assert!(
            client
                .get(path)
                .await
                .header("x-request-id")
                .starts_with("req-"),
            "{path}"
        );
    }
    let with_ids = |id: &str| {
        Reply::of(
            client
                .request(Method::GET, "/v1/models")
                .header("x-request-id", id)
                .header("x-client-request-id", id),
        )
    };
    let reply = with_ids("abc-123").await;
    assert_eq!(
        (
            reply.header("x-request-id"),
            reply.header("x-client-request-id")
        ),
        ("abc-123", "abc-123")
    );
    for bad in ["with space", &"x".repeat(129), "caf\u{e9}"] {
        let reply = with_ids(bad).await;
        assert!(reply.header("x-request-id").starts_with("req-"), "{bad}");
        assert_eq!(reply.header("x-client-request-id"), "");
    }
    assert_eq!(
        with_ids(&"x".repeat(128))
            .await
            .header("x-request-id")
            .len(),
        128
    );
}
