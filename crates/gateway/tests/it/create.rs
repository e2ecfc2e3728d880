//! `POST /v1/context/create`.

use holdfast_testkit::TestGateway;
use serde_json::{Value, json};

use crate::say;

fn seed_messages() -> Value {
    json!([say("system", "请扮演一位友好的客服。"), say("user", "你好")])
}

#[tokio::test]
async fn the_seed_request_works_unchanged() {
    let gateway = TestGateway::start().await;
    let body = json!({"model": "gemini-2.0-flash", "messages": seed_messages(), "ttl": 300});
    let reply = gateway.client().post("/v1/context/create", &body).await;
    let context = reply.ok();
    assert_eq!(context["ttl"], 300);
    assert!(
        context["id"]
            .as_str()
            .unwrap()
            .starts_with("ctx-20261122120000-")
    );
    let usage = &context["usage"];
    let tokens = usage["prompt_tokens"].as_u64().unwrap();
    assert!(tokens > 0);
    assert_eq!(usage["completion_tokens"], 0);
    assert_eq!(usage["total_tokens"], 0);
    assert_eq!(usage["cache_creation_input_tokens"], tokens);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(context["mode"], "common_prefix");
    assert_eq!(context["object"], "context");
    assert_eq!(context["model"], "gemini-2.0-flash");
    assert_eq!(
        context["expires_at"].as_i64().unwrap() - context["created"].as_i64().unwrap(),
        300
    );
    assert!(context.get("truncation_strategy").is_none());
    assert_eq!(reply.header("content-type"), "application/json");
}

#[tokio::test]
async fn the_seed_session_works_unchanged() {
    let gateway = TestGateway::start().await;
    let body = json!({"model": "gemini-2.0-flash", "messages": seed_messages(), "mode": "session", "ttl": 3600});
    let context = gateway
        .client()
        .post("/v1/context/create", &body)
        .await
        .ok();
    assert_eq!(
        (&context["mode"], &context["ttl"]),
        (&json!("session"), &json!(3600))
    );
    assert!(context["truncation_strategy"]["type"].is_string());
}

#[tokio::test]
async fn what_the_ark_sdks_send_for_unset_fields_means_unset() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for (model, mode, expected_mode) in [
        ("doubao-pro-32k", Value::Null, "session"),
        ("doubao-pro-32k", json!(""), "session"),
        ("ep-20261122", json!("session"), "session"),
        ("tiny", json!(""), "common_prefix"),
        ("tiny", Value::Null, "common_prefix"),
    ] {
        let body = json!({
            "model": model, "mode": mode, "messages": [say("user", "hi")], "ttl": null, "truncation_strategy": null,
            "some_future_field": {"a": 1},
        });
        let context = client.post("/v1/context/create", &body).await.ok();
        assert_eq!(context["mode"], expected_mode, "{model} {mode}");
        assert_eq!(context["ttl"], if model == "tiny" { 3600 } else { 86_400 });
        assert_eq!(
            context["model"], model,
            "the model is echoed as it was sent"
        );
    }
}

#[tokio::test]
async fn the_total_is_the_sum_but_for_the_gemini_profile() {
    let gateway = TestGateway::start().await;
    for (model, is_sum) in [
        ("tiny", true),
        ("doubao-pro-32k", true),
        ("gemini-2.0-flash", false),
    ] {
        let body = json!({"model": model, "messages": [say("user", "hi")]});
        let usage = gateway
            .client()
            .post("/v1/context/create", &body)
            .await
            .ok()["usage"]
            .take();
        let total = if is_sum {
            usage["prompt_tokens"].clone()
        } else {
            json!(0)
        };
        assert_eq!(usage["total_tokens"], total, "{model}");
    }
}

#[tokio::test]
async fn an_identical_prefix_is_computed_once() {
    let gateway = TestGateway::start().await;
    let body = json!({"model": "tiny", "messages": seed_messages()});
    let client = gateway.client();
    let first = client.post("/v1/context/create", &body).await.ok();
    let second = client.post("/v1/context/create", &body).await.ok();
    assert_ne!(first["id"], second["id"]);
    let tokens = &first["usage"]["prompt_tokens"];
    assert_eq!(&first["usage"]["cache_creation_input_tokens"], tokens);
    assert_eq!(&second["usage"]["cache_read_input_tokens"], tokens);
    assert_eq!(second["usage"]["cache_creation_input_tokens"], 0);
    assert_eq!(
        &second["usage"]["prompt_tokens_details"]["cached_tokens"],
        tokens
    );
}

#[tokio::test]
async fn a_ttl_may_be_written_in_four_ways() {
    let gateway = TestGateway::start().await;
    for ttl in [json!(300), json!(300.0), json!("300"), json!("300s")] {
        let body = json!({"model": "tiny", "messages": [say("user", "hi")], "ttl": ttl});
        let context = gateway
            .client()
            .post("/v1/context/create", &body)
            .await
            .ok();
        assert_eq!(context["ttl"], json!(300), "{ttl}");
    }
}

#[tokio::test]
async fn bad_fields_are_named() {
    let gateway = TestGateway::start().await;
    let hello = json!([say("user", "hi")]);
    for (body, status, param) in [
        (json!({"messages": hello}), 400, "model"),
        (json!({"model": "tiny"}), 400, "messages"),
        (json!({"model": "tiny", "messages": []}), 400, "messages"),
        (
            json!({"model": "no-such-model", "messages": hello}),
            404,
            "model",
        ),
        (
            json!({"model": "tiny", "messages": hello, "ttl": 0}),
            400,
            "ttl",
        ),
        (
            json!({"model": "tiny", "messages": hello, "ttl": 604_801}),
            400,
            "ttl",
        ),
        (
            json!({"model": "doubao-pro-32k", "messages": hello, "ttl": 3599}),
            400,
            "ttl",
        ),
        (
            json!({"model": "tiny", "messages": hello, "mode": "sesion"}),
            400,
            "mode",
        ),
        (
            json!({"model": "tiny", "messages": [{"role": "user", "content": [
                {"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
            ]}]}),
            400,
            "messages[0].content[1]",
        ),
    ] {
        let error = gateway
            .client()
            .post("/v1/context/create", &body)
            .await
            .error(status);
        assert_eq!(error["param"], param, "{error}");
    }
    let list = gateway.client().get("/v1/context").await.ok();
    assert_eq!(list["data"], json!([]), "nothing is left of what failed");
}

#[tokio::test]
async fn a_prefix_beyond_the_window_is_refused() {
    let gateway = TestGateway::start().await;
    let body = json!({"model": "tiny", "messages": [say("user", &"x".repeat(9000))]});
    let error = gateway
        .client()
        .post("/v1/context/create", &body)
        .await
        .error(400);
    assert_eq!(error["code"], "OutofContextError");
}
