//! The same contexts under `/v1` and `/api/v3`, and the model list.

mod anthropic;
mod google;
mod implicit;
mod meaning;
mod passthrough;
mod responses;
mod streams;

use holdfast_testkit::TestGateway;
use serde_json::json;

use crate::say;

/// About so many tokens of text for an emulator, and a good deal more for the toy engine.
fn words(count: usize) -> String {
    (0..count)
        .map(|word| format!("word{word}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[tokio::test]
async fn a_context_made_on_one_surface_works_on_the_other() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for (made, used) in [("/v1", "/api/v3"), ("/api/v3", "/v1")] {
        let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
        let context = client
            .post(&format!("{made}/context/create"), &body)
            .await
            .ok();
        let id = context["id"].as_str().unwrap();
        for path in ["chat/completions", "context/chat/completions"] {
            let body = json!({"model": "tiny", "context_id": id, "messages": [say("user", "hi")]});
            client.post(&format!("{used}/{path}"), &body).await.ok();
        }
        assert_eq!(
            client.get(&format!("{used}/context/{id}")).await.ok()["id"],
            id
        );
    }
}

#[tokio::test]
async fn without_a_mode_ark_s_path_means_a_session() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
    for (path, mode) in [
        ("/v1/context/create", "common_prefix"),
        ("/api/v3/context/create", "session"),
    ] {
        assert_eq!(client.post(path, &body).await.ok()["mode"], mode, "{path}");
    }
}

#[tokio::test]
async fn models_are_listed_and_found() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for root in ["/v1", "/api/v3"] {
        let list = client.get(&format!("{root}/models")).await.ok();
        assert_eq!(
            (&list["object"], &list["success"]),
            (&json!("list"), &json!(true))
        );
        let ids: Vec<_> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["tiny", "gemini-2.0-flash", "doubao-pro-32k"]);
        let model = client
            .get(&format!("{root}/models/models/ep-20261122"))
            .await
            .ok();
        assert_eq!(
            model,
            json!({
                "id": "ep-20261122", "object": "model", "created": 1_795_000_000, "owned_by": "holdfast",
                "supported_endpoint_types": ["openai", "anthropic", "gemini", "context"],
            })
        );
        let error = client
            .get(&format!("{root}/models/nobody"))
            .await
            .error(404);
        assert_eq!(error["code"], "InvalidEndpointOrModel.NotFound");
    }
}
