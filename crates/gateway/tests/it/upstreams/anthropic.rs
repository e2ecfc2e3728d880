//! Breakpoints: Anthropic.

use holdfast_emulators::Emulator;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_testkit::{TestGateway, upstream};
use serde_json::json;

use super::{ask, document, hold, outcome};

#[tokio::test]
async fn the_same_context_with_a_different_question_hits() {
    let provider = Emulator::start(Anthropic::new()).await;
    let gateway = TestGateway::builder()
        .upstream(upstream("anthropic", &provider.url, "sk-ant-1"))
        .route("claude", &[("anthropic", "claude-opus-5-5")])
        .start()
        .await;
    let client = gateway.client();
    let id = hold(&client, "claude", &document(3000, "a"), json!({})).await;
    let first = ask(&client, &id, "What is on line 1?").await;
    assert_eq!(outcome(&first), ("miss".into(), "first_use".into()));
    for question in ["And on line 2?", "And what is a fox?"] {
        let reply = ask(&client, &id, question).await;
        assert_eq!(outcome(&reply), ("hit".into(), String::new()));
        let cached = reply.ok()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
        assert!(cached.unwrap() >= 3000, "{cached:?}");
    }
    let bill = provider.bill().total(|charge| charge.kind == "chat");
    assert_eq!(bill.cache_write.values().sum::<u64>() * 2, bill.cache_read);
    gateway.stop().await;
}
