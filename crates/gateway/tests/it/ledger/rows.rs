//! Requests on the embedded engine, on every surface.

use holdfast_testkit::TestGateway;
use reqwest::Method;
use serde_json::{Value, json};

use super::{rows, rows_after, totals};
use crate::{ask, create, say};

/// Path, body, and what the row says of them: kind and surface.
fn surfaces(stream: bool) -> Vec<(String, Value, &'static str, &'static str)> {
    let messages = json!([say("user", "hi")]);
    let chat = json!({"model": "tiny", "messages": messages, "stream": stream, "max_tokens": 4});
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let verb = match stream {
        true => "streamGenerateContent?alt=sse",
        false => "generateContent",
    };
    let google = format!("/v1beta/models/tiny:{verb}");
    let prompt = json!({"model": "tiny", "prompt": "hi", "stream": stream, "max_tokens": 4});
    let response = json!({"model": "tiny", "input": "hi", "stream": stream, "store": false});
    let chat_path = "/v1/chat/completions".to_owned();
    vec![
        (chat_path, chat.clone(), "chat", "openai"),
        (
            "/api/v3/chat/completions".to_owned(),
            chat.clone(),
            "chat",
            "ark",
        ),
        ("/v1/messages".to_owned(), chat, "chat", "anthropic"),
        ("/v1/responses".to_owned(), response, "chat", "responses"),
        (google, contents, "chat", "gemini"),
        (
            "/v1/completions".to_owned(),
            prompt,
            "completions",
            "openai",
        ),
    ]
}

#[tokio::test]
async fn every_surface_makes_one_row_for_each_answer() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let mut count = 0;
    for stream in [false, true] {
        for (path, body, kind, surface) in surfaces(stream) {
            let reply = client.post(&path, &body).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
            count += 1;
            let rows = rows(&client).await;
            assert_eq!(rows.len(), count, "{path} {stream}");
            let id = reply.header("x-request-id");
            let row = rows.iter().find(|row| row["request_id"] == id).unwrap();
            let expected = json!({
                "kind": kind, "surface": surface, "stream": stream, "outcome": "completed", "project": "default",
                "model": "tiny", "requested_model": "tiny", "usage_source": "engine", "upstream": null,
                "context_id": null, "error": null, "cost": null,
            });
            for (field, value) in expected.as_object().unwrap() {
                assert_eq!(&row[field], value, "`{field}` of {path} {stream}: {row}");
            }
            for field in ["key", "finish_reason", "answer_id", "first_token_ms"] {
                assert!(!row[field].is_null(), "`{field}` of {path} {stream}: {row}");
            }
            for field in ["input_tokens", "output_tokens"] {
                assert!(
                    row[field].as_u64().unwrap() > 0,
                    "`{field}` of {path}: {row}"
                );
            }
        }
    }
    let totals = totals(&client).await;
    assert_eq!(totals["requests"], count);
    assert_eq!(totals["completed"], count);
    assert_eq!(totals["money"], json!([]));
}

#[tokio::test]
async fn contexts_are_in_the_rows_with_what_their_caches_did() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({})).await;
    let usage = ask(&client, &id, "hi").await.ok()["usage"].take();
    let fork = client
        .post(&format!("/v1/context/{id}/fork"), &json!({}))
        .await;
    let cached = json!({
        "model": "models/gemini-2.0-flash", "contents": [{"role": "user", "parts": [{"text": "A text."}]}], "ttl": "300s",
    });
    let reply = client.post("/v1beta/cachedContents", &cached).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    // Looking up, counting and estimating are no use of a model.
    client.get(&format!("/v1/context/{id}")).await.ok();
    let counted = json!({"model": "tiny", "messages": [say("user", "hi")]});
    client
        .post("/v1/messages/count_tokens", &counted)
        .await
        .ok();
    client.post("/v1/context/estimate", &counted).await.ok();

    let mut rows = rows(&client).await;
    rows.reverse();
    let kinds: Vec<&Value> = rows.iter().map(|row| &row["kind"]).collect();
    assert_eq!(kinds, ["create", "chat", "create", "create"]);
    assert_eq!(rows[0]["context_id"], id.as_str());
    assert_eq!(rows[1]["context_id"], id.as_str());
    assert_eq!(rows[2]["context_id"], fork.ok()["id"]);
    assert_eq!(rows[3]["surface"], "gemini");
    assert_eq!(rows[1]["cache_status"], "hit");
    assert_eq!(rows[1]["input_tokens"], usage["prompt_tokens"]);
    assert_eq!(rows[1]["output_tokens"], usage["completion_tokens"]);
    assert_eq!(
        rows[1]["cached_tokens"],
        usage["prompt_tokens_details"]["cached_tokens"]
    );
    assert!(rows[0]["fresh_tokens"].as_u64().unwrap() > 0, "{}", rows[0]);
    assert_eq!(rows[2]["fresh_tokens"], 0, "a fork computes nothing");
    let totals = totals(&client).await;
    assert_eq!(
        (&totals["hits"], &totals["hit_rate"]),
        (&json!(1), &json!(1.0))
    );
}

#[tokio::test]
async fn refused_requests_have_rows_with_no_usage_unless_nobody_knows_whose_they_are() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let chat = |model: &str| json!({"model": model, "messages": [say("user", "hi")]});
    let path = "/v1/chat/completions";
    client
        .without_key()
        .post(path, &chat("tiny"))
        .await
        .error(401);
    client.post(path, &chat("nobody")).await.error(404);
    client
        .post(path, &json!({"model": "tiny"}))
        .await
        .error(400);
    client
        .post_text(path, "application/json", "{")
        .await
        .error(400);
    client
        .post("/v1/context/create", &chat("nobody"))
        .await
        .error(404);
    client
        .post("/v1/embeddings", &json!({"model": "tiny", "input": "hi"}))
        .await
        .error(400);
    client.get("/v1/context/nobody").await.error(404);
    let mut rows = rows(&client).await;
    rows.reverse();
    let seen: Vec<(&Value, &Value, &Value)> = (rows.iter())
        .map(|row| (&row["kind"], &row["error"], &row["requested_model"]))
        .collect();
    let row =
        |kind: &str, error: &str, model: Option<&str>| (json!(kind), json!(error), json!(model));
    let expected = [
        row("chat", "model_not_found", Some("nobody")),
        row("chat", "missing_parameter", None),
        row("chat", "invalid_json", None),
        row("create", "model_not_found", Some("nobody")),
        row("embeddings", "unsupported_parameter", Some("tiny")),
    ];
    let expected: Vec<_> = expected.iter().map(|(a, b, c)| (a, b, c)).collect();
    assert_eq!(seen, expected);
    for row in &rows {
        assert_eq!(row["outcome"], "refused", "{row}");
        assert_eq!(
            (&row["input_tokens"], &row["output_tokens"]),
            (&json!(0), &json!(0))
        );
    }
    assert_eq!(totals(&client).await["refused"], 5);
}

#[tokio::test]
async fn a_client_that_leaves_has_a_row_with_what_was_done_for_it() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let body =
        json!({"model": "tiny", "messages": [say("user", "hi")], "stream": true, "max_tokens": 60});
    let request = client
        .request(Method::POST, "/v1/chat/completions")
        .json(&body);
    let mut response = request.send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    drop(response);
    let rows = rows_after(&client, 1).await;
    // The toy engine may have been done before the server could notice.
    let outcome = rows[0]["outcome"].as_str().unwrap();
    assert!(["cancelled", "completed"].contains(&outcome), "{}", rows[0]);
    assert!(rows[0]["input_tokens"].as_u64().unwrap() > 0);
    assert_eq!(rows_after(&client, 1).await.len(), 1);
}

#[tokio::test]
async fn a_lost_answer_that_is_given_again_uses_nothing() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let body = json!({"context_id": id, "messages": [say("user", "hi")]});
    let send = || {
        let request = client.request(Method::POST, "/v1/chat/completions");
        request.header("idempotency-key", "once").json(&body)
    };
    let first = holdfast_testkit::Reply::of(send()).await.answer();
    let again = holdfast_testkit::Reply::of(send()).await.answer();
    assert_eq!(first, again);
    let rows = rows(&client).await;
    assert_eq!(rows.len(), 3);
    let replayed: Vec<&Value> = (rows.iter())
        .filter(|row| row["outcome"] == "replayed")
        .collect();
    assert_eq!(replayed.len(), 1, "{rows:?}");
    assert_eq!(replayed[0]["output_tokens"], 0);
}
