//! What goes wrong between the gateway and its upstreams, and what clients see of it.

use std::time::Duration;

use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Emulator, Fault};
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::{ask, document, hold, outcome, say};

/// A gateway whose model `m` is answered by `first`, and if that fails by `second`.
struct Scene {
    first: Emulator,
    second: Emulator,
    gateway: TestGateway,
    client: TestClient,
}

impl Scene {
    async fn new(change: impl FnOnce(&mut holdfast::app::UpstreamOptions)) -> Scene {
        let first = Emulator::start(OpenAi::new()).await;
        let second = Emulator::start(Anthropic::new()).await;
        let mut options = upstream("openai", &format!("{}/v1", first.url), "sk-1");
        change(&mut options);
        let gateway = TestGateway::builder()
            .upstream(options)
            .upstream(upstream("anthropic", &second.url, "sk-2"))
            .route(
                "m",
                &[("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5-5")],
            )
            .route("alone", &[("openai", "gpt-5.6")])
            .start()
            .await;
        gateway.clock.follow_system();
        let client = gateway.client();
        Scene {
            first,
            second,
            gateway,
            client,
        }
    }

    async fn chat(&self, model: &str, stream: bool) -> Reply {
        let body = json!({"model": model, "messages": [say("user", "Hello?")], "stream": stream});
        self.client.post("/v1/chat/completions", &body).await
    }

    fn asked(&self) -> (usize, usize) {
        (self.first.requests().len(), self.second.requests().len())
    }
}

/// The last event of a stream that broke off.
fn last_event(reply: &Reply) -> Value {
    let text = reply.text();
    let data = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .next_back();
    serde_json::from_str(data.unwrap()).unwrap()
}

#[tokio::test]
async fn what_comes_and_goes_is_tried_again_before_the_first_event() {
    let faults = [
        Fault::Status(500, None),
        Fault::Status(503, None),
        Fault::Status(429, None),
        Fault::CloseBeforeHead,
        Fault::CutAfter(0),
        Fault::ErrorInside(0),
        Fault::HalfFrame(0),
    ];
    for fault in faults {
        for stream in [false, true] {
            let scene = Scene::new(|_| {}).await;
            scene.first.faults().next(fault.clone());
            let reply = scene.chat("m", stream).await;
            assert_eq!(reply.status, 200, "{fault:?}: {}", reply.text());
            assert_eq!(scene.asked(), (2, 0), "{fault:?}");
            scene.gateway.stop().await;
        }
    }
}

#[tokio::test]
async fn after_the_first_event_nothing_is_tried_again() {
    for fault in [
        Fault::CutAfter(2),
        Fault::ErrorInside(2),
        Fault::HalfFrame(2),
        Fault::OversizedFrame(2, 17 * 1024 * 1024),
    ] {
        let scene = Scene::new(|_| {}).await;
        scene.first.faults().next(fault.clone());
        let reply = scene.chat("m", true).await;
        assert_eq!(reply.status, 200, "{fault:?}");
        let error = &last_event(&reply)["error"];
        assert!(error["message"].is_string(), "{fault:?}: {}", reply.text());
        assert!(!reply.text().contains("[DONE]"), "{fault:?}");
        assert_eq!(scene.asked(), (1, 0), "{fault:?}");
        scene.gateway.stop().await;
    }
}

#[tokio::test]
async fn a_request_that_is_wrong_in_itself_is_asked_once() {
    let scene = Scene::new(|_| {}).await;
    scene.first.faults().always(Fault::Status(400, None));
    let reply = scene.chat("m", false).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.json()["error"]["message"].is_string());
    assert_eq!(scene.asked(), (1, 0));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_key_that_is_not_accepted_is_the_operators_matter() {
    let scene = Scene::new(|_| {}).await;
    scene.first.faults().always(Fault::Status(401, None));
    let reply = scene.chat("alone", false).await;
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert_eq!(scene.asked(), (1, 0), "asking again does not help");
    let reply = scene.chat("m", false).await;
    assert_eq!(reply.status, 200, "another upstream may have a good key");
    assert_eq!(scene.asked(), (2, 1));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_long_retry_after_sends_the_request_elsewhere_and_is_told_where_there_is_nowhere_else() {
    let scene = Scene::new(|_| {}).await;
    scene.first.faults().always(Fault::Status(429, Some(60)));
    let reply = scene.chat("m", false).await;
    assert_eq!(reply.status, 200);
    assert_eq!(scene.asked(), (1, 1));
    let reply = scene.chat("alone", false).await;
    assert_eq!(
        scene.asked(),
        (1, 1),
        "it is left alone as long as it wanted"
    );
    assert_eq!(reply.status, 429, "{}", reply.text());
    let seconds: u64 = reply.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((50..=60).contains(&seconds), "{seconds}");
    scene.gateway.stop().await;
}

#[tokio::test]
async fn an_upstream_that_keeps_failing_is_left_alone() {
    let scene = Scene::new(|options| {
        options.retry.retries_max = 0;
        options.retry.breaker_failures = 3;
    })
    .await;
    scene.first.faults().always(Fault::Status(500, None));
    for _ in 0..6 {
        assert_eq!(scene.chat("m", false).await.status, 200);
    }
    assert_eq!(scene.asked(), (3, 6));
    let metrics = scene.client.get("/metrics").await.text();
    assert!(
        metrics.contains("holdfast_upstream_breaker_open{upstream=\"openai\",model=\"gpt-5.6\"} 1")
    );
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_slow_upstream_is_given_up_in_time() {
    let scene = Scene::new(|options| {
        options.retry.retries_max = 0;
        options.timeouts.first_byte = Duration::from_millis(50);
        options.timeouts.idle = Duration::from_millis(50);
    })
    .await;
    scene
        .first
        .faults()
        .next(Fault::SlowStart(Duration::from_secs(30)));
    assert_eq!(scene.chat("m", false).await.status, 200);
    assert_eq!(scene.asked(), (1, 1), "no head: the next one is asked");
    scene.first.faults().next(Fault::StallAfter(2));
    let reply = scene.chat("alone", true).await;
    assert!(last_event(&reply)["error"].is_object(), "{}", reply.text());
    scene.gateway.stop().await;
}

#[tokio::test]
async fn borders_of_chunks_mean_nothing() {
    let scene = Scene::new(|_| {}).await;
    let whole = scene.chat("m", false).await.answer();
    for size in 1..=7 {
        scene.first.faults().next(Fault::Rechunked(size));
        assert_eq!(scene.chat("m", false).await.answer(), whole);
    }
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_context_goes_along_to_the_next_upstream_and_stays_there() {
    let scene = Scene::new(|options| options.retry.retries_max = 0).await;
    let id = hold(&scene.client, "m", &document(3_000, "along"), json!({})).await;
    ask(&scene.client, &id, "One?").await.ok();
    assert_eq!(outcome(&ask(&scene.client, &id, "Two?").await).0, "hit");
    scene.first.faults().next(Fault::Status(500, None));
    let moved = ask(&scene.client, &id, "Three?").await;
    assert_eq!(outcome(&moved), ("rebuilt".into(), "failover".into()));
    let before = scene.asked().0;
    for question in ["Four?", "Five?"] {
        assert_eq!(outcome(&ask(&scene.client, &id, question).await).0, "hit");
    }
    assert_eq!(
        scene.asked().0,
        before,
        "the first one is back, and the context stays"
    );
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_upstream() {
    let scene = Scene::new(|_| {}).await;
    scene
        .first
        .faults()
        .next(Fault::SlowDrip(Duration::from_millis(100)));
    let mut aborted = scene.first.aborted();
    let body = json!({"model": "m", "messages": [say("user", "Hello?")], "stream": true});
    let request = scene
        .client
        .request(reqwest::Method::POST, "/v1/chat/completions")
        .json(&body);
    let mut response = request.send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    drop(response);
    let noticed = aborted.wait_for(|count| *count == 1);
    tokio::time::timeout(Duration::from_secs(5), noticed)
        .await
        .unwrap()
        .unwrap();
    scene.gateway.stop().await;
}

#[tokio::test]
async fn upstreams_of_one_priority_share_by_weight() {
    let [heavy, light] = [
        Emulator::start(OpenAi::new()).await,
        Emulator::start(OpenAi::new()).await,
    ];
    let named = |name: &str, emulator: &Emulator| {
        let mut options = upstream("openai", &format!("{}/v1", emulator.url), name);
        options.name = name.to_owned();
        options
    };
    let gateway = TestGateway::builder()
        .upstream(named("a", &heavy))
        .upstream(named("b", &light))
        .balanced("m", &[("a", "gpt-5.6"), ("b", "gpt-5.6")])
        .start()
        .await;
    let client = gateway.client();
    let body = json!({"model": "m", "messages": [say("user", "Hello?")]});
    for _ in 0..100 {
        client.post("/v1/chat/completions", &body).await.ok();
    }
    // Of a hundred fair throws less than twenty on one side come once in ten thousand million times.
    for emulator in [&heavy, &light] {
        assert!(
            emulator.requests().len() >= 20,
            "{}",
            emulator.requests().len()
        );
    }
    gateway.stop().await;
}
