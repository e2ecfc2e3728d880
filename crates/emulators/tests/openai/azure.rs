//! Azure's differences.

use holdfast_emulators::families::openai::OpenAi;
use serde_json::{Value, json};

use crate::{Client, Usage, marked, plain, text};

const PATH: &str = "/openai/v1/chat/completions";

async fn send(client: &Client, path: &str, body: &Value) -> (u16, Value) {
    let response = client
        .post(path, body)
        .header("api-key", "key-1")
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn paths_and_keys_are_azures() {
    let client = Client::start(OpenAi::azure()).await;
    let body = plain("gpt-5.6", "context", "one?");
    assert_eq!(send(&client, PATH, &body).await.0, 200);
    let (status, answer) = client.send(PATH, &body).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (401, &json!("401")),
        "a bearer token is not the key"
    );
    assert_eq!(send(&client, "/v1/chat/completions", &body).await.0, 404);

    let deployed = "/openai/deployments/gpt-4.1/chat/completions";
    let mut body = body;
    body.as_object_mut().unwrap().remove("model");
    let (status, answer) = send(
        &client,
        &format!("{deployed}?api-version=2026-08-01"),
        &body,
    )
    .await;
    assert_eq!((status, &answer["model"]), (200, &json!("gpt-4.1")));
    assert_eq!(
        send(&client, deployed, &body).await.0,
        404,
        "without a version"
    );
}

#[tokio::test]
async fn half_an_hour_is_the_only_lifetime() {
    let client = Client::start(OpenAi::azure()).await;
    let mut body = marked(&text("abcd", 2000), "one?");
    for read in [0, 2001] {
        let (status, answer) = send(&client, PATH, &body).await;
        assert_eq!((status, Usage::of(&answer["usage"]).read), (200, read));
    }
    body["messages"][0]["content"][0]["prompt_cache_breakpoint"]["ttl"] = json!("12h");
    assert_eq!(send(&client, PATH, &body).await.0, 400);
    let response =
        json!({"model": "gpt-5.6", "input": "one?", "prompt_cache_options": {"ttl": "12h"}});
    assert_eq!(
        send(&client, "/openai/v1/responses", &response).await.0,
        400
    );
}

#[tokio::test]
async fn provisioned_throughput_has_no_breakpoints_and_no_write_counter() {
    let client = Client::start(OpenAi::azure_ptu()).await;
    assert_eq!(
        send(&client, PATH, &marked(&text("abcd", 2000), "one?"))
            .await
            .0,
        400
    );
    let body = plain("gpt-5.6", &text("abcd", 2000), "one?");
    let mut with_options = body.clone();
    with_options["prompt_cache_options"] = json!({"mode": "explicit"});
    assert_eq!(send(&client, PATH, &with_options).await.0, 400);
    let (_, first) = send(&client, PATH, &body).await;
    assert!(
        first["usage"]["prompt_tokens_details"]
            .get("cache_write_tokens")
            .is_none()
    );
    let (_, second) = send(&client, PATH, &body).await;
    assert_eq!(Usage::of(&second["usage"]).read, 2001);
    assert!(
        client
            .emulator
            .bill()
            .total(|_| true)
            .cache_write
            .is_empty()
    );
}

#[tokio::test]
async fn older_models_need_the_first_1024_tokens_identical() {
    let client = Client::start(OpenAi::azure()).await;
    let context = text("abcd", 2000);
    for (context, read) in [
        (context.clone(), 0),
        (context.clone(), 1920),
        (context.replacen("abcd", "abcX", 1), 0),
    ] {
        let (_, answer) = send(&client, PATH, &plain("gpt-4o", &context, "one?")).await;
        assert_eq!(Usage::of(&answer["usage"]).read, read);
    }
}

#[tokio::test]
async fn a_stream_begins_with_the_filter_results() {
    let client = Client::start(OpenAi::azure()).await;
    let mut body = plain("gpt-5.6", "context", "one?");
    body["stream"] = json!(true);
    let response = client
        .post(PATH, &body)
        .header("api-key", "key-1")
        .send()
        .await
        .unwrap();
    let text = response.text().await.unwrap();
    let first: Value =
        serde_json::from_str(text.lines().next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((&first["choices"], &first["id"]), (&json!([]), &json!("")));
    assert!(first["prompt_filter_results"].is_array());
}
