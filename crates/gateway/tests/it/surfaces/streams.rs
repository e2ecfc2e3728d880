//! Streams of every surface over an upstream of every family.

use std::time::Duration;

use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Emulator, Fault};
use holdfast_testkit::{TestGateway, upstream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::say;

/// Path and body of a streamed request for the model `m`, by the name of its dialect.
fn requests() -> [(&'static str, &'static str, Value); 5] {
    let hello = json!([say("user", "Hello?")]);
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "Hello?"}]}]});
    [
        (
            "OpenAI Chat",
            "/v1/chat/completions",
            json!({"model": "m", "messages": hello, "stream": true}),
        ),
        (
            "Responses",
            "/v1/responses",
            json!({"model": "m", "input": hello, "stream": true}),
        ),
        (
            "Anthropic",
            "/v1/messages",
            json!({"model": "m", "messages": hello, "stream": true, "max_tokens": 100}),
        ),
        (
            "Gemini",
            "/v1beta/models/m:streamGenerateContent?alt=sse",
            contents.clone(),
        ),
        (
            "Gemini, an array",
            "/v1beta/models/m:streamGenerateContent",
            contents,
        ),
    ]
}

#[tokio::test]
async fn text_comes_before_the_upstream_goes_on_and_who_leaves_is_noticed_there() {
    let openai = Emulator::start(OpenAi::new()).await;
    let anthropic = Emulator::start(Anthropic::new()).await;
    let gemini = Emulator::start(Gemini::new()).await;
    for (provider, emulator, base_path, model, frames) in [
        ("openai", &openai, "/v1", "gpt-5.6", 4),
        ("anthropic", &anthropic, "", "claude-sonnet-4-6", 5),
        ("gemini", &gemini, "/v1beta", "gemini-2.5-flash", 3),
    ] {
        let base_url = format!("{}{base_path}", emulator.url);
        let gateway = TestGateway::builder()
            .upstream(upstream(provider, &base_url, "key"))
            .route("m", &[(provider, model)])
            .start()
            .await;
        let client = gateway.client();
        let mut aborted = emulator.aborted();
        for (name, path, body) in requests() {
            // After these frames nothing comes any more: what is seen by then did not have to wait for the rest.
            emulator.faults().next(Fault::StallAfter(frames));
            let before = *aborted.borrow();
            let request = client.request(Method::POST, path).json(&body);
            let mut response = request.send().await.unwrap();
            assert_eq!(response.status(), 200, "{name} on {provider}");
            let mut seen = String::new();
            // Some writers hold the last letter back.
            let text = async {
                while !seen.contains("Yo") {
                    let chunk = response.chunk().await.unwrap().unwrap();
                    seen.push_str(std::str::from_utf8(&chunk).unwrap());
                }
            };
            tokio::time::timeout(Duration::from_secs(5), text)
                .await
                .unwrap_or_else(|_| panic!("{name} on {provider} brought no text: {seen}"));
            drop(response);
            let noticed = aborted.wait_for(|count| *count > before);
            tokio::time::timeout(Duration::from_secs(5), noticed)
                .await
                .unwrap_or_else(|_| panic!("{name} on {provider} went on"))
                .unwrap();
        }
        gateway.stop().await;
    }
}
