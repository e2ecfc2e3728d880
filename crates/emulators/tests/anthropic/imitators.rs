//! MiniMax, Qwen and Kimi on their Anthropic routes.

use super::*;

#[tokio::test]
async fn minimax_and_qwen_know_five_minutes_only() {
    let marked_twice = request(json!({
        "model": "some-model",
        "tools": [marked(tool("look"), "1h")],
        "system": [marked(text(words("system ", 2000)), "1h")],
        "unknown": true,
    }));
    for (family, path) in [
        (Anthropic::minimax(), "/anthropic/v1/messages"),
        (Anthropic::qwen(), "/apps/anthropic/v1/messages"),
    ] {
        let mut desk = Desk::of(family).await;
        desk.path = path;
        let usage = desk.ok(&marked_twice).await["usage"].clone();
        let (_, _, written) = counts(&usage);
        assert!(written > 2000);
        assert_eq!(
            desk.emulator.bill().charges()[0]
                .cache_write
                .keys()
                .collect::<Vec<_>>(),
            [&300]
        );
        assert_eq!(
            usage.get("cache_creation").is_some(),
            path.starts_with("/apps")
        );
        assert_eq!(desk.counts(&marked_twice).await.1, written);
        desk.emulator.clock().advance(FIVE_MINUTES);
        assert_eq!(desk.counts(&marked_twice).await.1, 0);
        let bearer = desk
            .http
            .post(format!("{}{path}", desk.emulator.url))
            .bearer_auth("key-a");
        assert_eq!(answer(bearer.body(marked_twice.to_string())).await.0, 200);
    }
    // Qwen ignores markers on tools.
    let desk = Desk::of(Anthropic::qwen()).await;
    let mut tools_only = marked_twice.clone();
    tools_only["tools"][0]["description"] = json!(words("tool ", 2000));
    tools_only["system"] = json!("Short.");
    assert_eq!(desk.counts(&tools_only).await.2, 0);
}

#[tokio::test]
async fn kimi_ignores_block_markers_and_caches_in_chunks() {
    let mut desk = Desk::of(Anthropic::kimi()).await;
    desk.path = "/anthropic/v1/messages";
    let body = |question: &str, ttl: &str| {
        request(json!({
            "model": "kimi-k3",
            "cache_control": {"type": "ephemeral", "ttl": ttl},
            "system": [marked(text(words("system ", 700)), "5m")],
            "messages": [{"role": "user", "content": question}],
        }))
    };
    let usage = desk.ok(&body("One?", "1h")).await["usage"].clone();
    assert_eq!(
        (counts(&usage), by_ttl(&usage)),
        ((701 - 512, 0, 512), (0, 512))
    );
    assert_eq!(
        desk.counts(&body("Another?", "1h")).await,
        (702 - 512, 512, 0)
    );
    desk.emulator.clock().advance(FIVE_MINUTES * 2);
    assert_eq!(desk.counts(&body("One?", "1h")).await.1, 512);
    // Without any marker it caches all the same.
    let mut plain = body("One?", "1h");
    plain.as_object_mut().unwrap().remove("cache_control");
    plain["system"] = json!(words("plain ", 700));
    assert_eq!(desk.counts(&plain).await.2, 512);
    assert_eq!(desk.counts(&plain).await.1, 512);
    plain["model"] = json!("kimi-k2.6");
    assert_eq!(desk.counts(&plain).await, (701, 0, 0));
    assert_eq!(desk.counts(&plain).await.1, 512);
}
