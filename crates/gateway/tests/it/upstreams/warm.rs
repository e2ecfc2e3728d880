//! Contexts that are kept warm, and for how long that pays.

use std::time::Duration;

use holdfast_emulators::Emulator;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_testkit::{TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::{ask, document, hold, outcome};

/// Claude with entries of five minutes: writing costs 1.25 of input and reading 0.1 (the catalog), so that at most
/// eleven pings in a row pay (facts section 5.4).
const MODEL: &str = "claude-sonnet-4-6";
const LIFETIME: Duration = Duration::from_secs(300);
const PINGS_MAX: u64 = 11;
/// So long before the end of an entry a ping is sent.
const BEFORE: Duration = Duration::from_secs(30);

struct Scene {
    provider: Emulator,
    gateway: TestGateway,
    client: TestClient,
}

impl Scene {
    async fn new() -> Scene {
        let provider = Emulator::start(Anthropic::new()).await;
        let mut options = upstream("anthropic", &provider.url, "sk-ant-1");
        options.cache.tiers_seconds = Some(vec![300]);
        let gateway = TestGateway::builder()
            .upstream(options)
            .route("claude", &[("anthropic", MODEL)])
            .start()
            .await;
        gateway.clock.follow_system();
        let client = gateway.client();
        Scene {
            provider,
            gateway,
            client,
        }
    }

    async fn context(&self, keep_warm: &str) -> String {
        let fields = json!({"ttl": 86_400, "keep_warm": keep_warm});
        hold(&self.client, "claude", &document(3_000, keep_warm), fields).await
    }

    /// Lets time pass for both sides, and the gateway do what it does in the background.
    async fn pass(&self, time: Duration) {
        self.gateway.clock.advance(time);
        self.provider.clock().advance(time);
        self.gateway.app.tend_upstreams().await;
    }

    fn pings(&self) -> usize {
        let bill = self.provider.bill().charges();
        bill.iter()
            .filter(|charge| charge.kind == "prewarm")
            .count()
    }

    async fn account(&self, id: &str) -> Value {
        let context = self.client.get(&format!("/v1/context/{id}")).await.ok();
        context["account"].clone()
    }
}

#[tokio::test]
async fn always_refreshes_a_copy_shortly_before_each_end_and_never_writes_again() {
    let scene = Scene::new().await;
    let id = scene.context("always").await;
    ask(&scene.client, &id, "First?").await.ok();
    scene.pass(LIFETIME - BEFORE - Duration::from_secs(5)).await;
    assert_eq!(scene.pings(), 0, "not before it is time");
    scene.pass(Duration::from_secs(5)).await;
    assert_eq!(scene.pings(), 1);
    for ping in 2..=20 {
        scene.pass(LIFETIME - BEFORE).await;
        assert_eq!(scene.pings(), ping);
    }
    let reply = ask(&scene.client, &id, "Still there?").await;
    assert_eq!(outcome(&reply), ("hit".into(), String::new()));
    let bill = scene.provider.bill().charges();
    let written: Vec<u64> = bill
        .iter()
        .map(|charge| charge.cache_write.values().sum())
        .collect();
    assert!(
        written[0] > 0 && written[1..].iter().all(|tokens| *tokens == 0),
        "{written:?}"
    );
    let account = scene.account(&id).await;
    assert_eq!(account["pings"], 20);
    assert!(
        account["ping_cost"]
            .as_str()
            .unwrap()
            .parse::<f64>()
            .unwrap()
            > 0.0,
        "{account}"
    );
    scene.client.delete(&format!("/v1/context/{id}")).await.ok();
    scene.pass(LIFETIME).await;
    assert_eq!(scene.pings(), 20, "none for a context that is gone");
    scene.gateway.stop().await;
}

#[tokio::test]
async fn off_lets_it_go() {
    let scene = Scene::new().await;
    let id = scene.context("off").await;
    ask(&scene.client, &id, "First?").await.ok();
    for _ in 0..3 {
        scene.pass(LIFETIME / 2).await;
    }
    assert_eq!(scene.pings(), 0);
    let reply = ask(&scene.client, &id, "Still there?").await;
    assert_eq!(outcome(&reply), ("rebuilt".into(), "expired".into()));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn auto_stops_at_the_break_even_and_begins_again_with_the_next_use() {
    let scene = Scene::new().await;
    let id = scene.context("auto").await;
    // Busy: once in ten seconds, for ten minutes.
    for _ in 0..60 {
        ask(&scene.client, &id, "Busy?").await.ok();
        scene.pass(Duration::from_secs(10)).await;
    }
    assert_eq!(scene.pings(), 0, "a copy in use needs none");
    // Silence for two hours.
    for _ in 0..26 {
        scene.pass(LIFETIME - BEFORE).await;
    }
    assert_eq!(
        scene.pings() as u64,
        PINGS_MAX,
        "one more would cost more than writing again"
    );
    let reply = ask(&scene.client, &id, "Again?").await;
    assert_eq!(outcome(&reply), ("rebuilt".into(), "expired".into()));
    scene.pass(LIFETIME - BEFORE).await;
    assert_eq!(scene.pings() as u64, PINGS_MAX + 1);
    scene.gateway.stop().await;
}

#[tokio::test]
async fn auto_does_not_wait_for_a_rare_visitor() {
    let scene = Scene::new().await;
    let id = scene.context("auto").await;
    // Twice in two hours: a use in the next five minutes is less likely than the 8.7 % from which a ping pays.
    ask(&scene.client, &id, "First?").await.ok();
    scene.pass(Duration::from_secs(7_000)).await;
    ask(&scene.client, &id, "Second?").await.ok();
    let before = scene.pings();
    for _ in 0..5 {
        scene.pass(LIFETIME - BEFORE).await;
    }
    assert_eq!(scene.pings(), before);
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_copy_that_outlives_its_context_is_left_alone() {
    let scene = Scene::new().await;
    let id = hold(
        &scene.client,
        "claude",
        &document(3_000, "short"),
        json!({"ttl": 290, "keep_warm": "always"}),
    )
    .await;
    ask(&scene.client, &id, "First?").await.ok();
    scene.pass(LIFETIME - BEFORE).await;
    assert_eq!(scene.pings(), 0);
    scene.gateway.stop().await;
}
