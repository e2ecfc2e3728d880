//! The wire to an upstream is cut, silent, slow, or gives half an answer.

use std::time::Duration;

use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Answer, Charge, Emulator, Fault};
use holdfast_store::KeyScope;
use holdfast_testkit::{Proxy, Reply, TestClient, TestGateway, Wire, upstream};
use serde_json::{Value, json};

use super::{adds_up, amount, is_same, is_settled, request_id, row_of};
use crate::say;

const OPENAI: &str = "/v1/chat/completions";
const ANTHROPIC: &str = "/v1/messages";

/// Bytes of an answer: less than its head.
const HALF_A_HEAD: u64 = 40;

/// More than its head, less than all of it, as a whole answer and as a stream.
const HALF: [u64; 2] = [600, 4000];

/// Bytes a second with which an answer is through well within the time limits.
const SLOW: u64 = 200_000;

/// And with which it is not.
const TOO_SLOW: u64 = 100;

/// For an upstream's answer to begin and to go on; much for a machine at work.
const WAIT: Duration = Duration::from_secs(3);

/// A gateway with the models `m` (behind the wire), `other` (beside it) and `both` (behind it, and else beside it).
struct Scene {
    emulator: Emulator,
    _beside: Emulator,
    proxy: Proxy,
    gateway: TestGateway,
    client: TestClient,
}

impl Scene {
    async fn new() -> Scene {
        let emulator = Emulator::start(OpenAi::new()).await;
        let beside = Emulator::start(OpenAi::new()).await;
        let proxy = Proxy::start(emulator.url.trim_start_matches("http://")).await;
        let mut behind = upstream("openai", &format!("http://{}/v1", proxy.address), "key-1");
        behind.timeouts.first_byte = WAIT;
        behind.timeouts.idle = WAIT;
        behind.timeouts.total = 2 * WAIT;
        behind.retry.retries_max = 0;
        behind.retry.breaker_failures = u32::MAX;
        let mut other = upstream("openai", &format!("{}/v1", beside.url), "key-2");
        other.name = "other".to_owned();
        let gateway = TestGateway::builder()
            .upstream(behind)
            .upstream(other)
            .route("m", &[("openai", "gpt-4.1")])
            .route("other", &[("other", "gpt-4.1")])
            .route("both", &[("openai", "gpt-4.1"), ("other", "gpt-4.1")])
            .start()
            .await;
        gateway.clock.follow_system();
        let project = json!({"name": "team", "budgets": [{"period": "total", "limit": 1000}]});
        let made = gateway.client().post("/admin/v1/projects", &project).await;
        made.ok();
        let scopes = [KeyScope::Inference, KeyScope::UsageRead];
        let client = gateway.client_of("team", &scopes).await;
        for _ in 0..100 {
            let answer = Answer::text("word ".repeat(120));
            emulator.script().next(answer);
        }
        Scene {
            emulator,
            _beside: beside,
            proxy,
            gateway,
            client,
        }
    }

    async fn ask(&self, surface: &str, model: &str, stream: bool) -> Reply {
        self.client.post(surface, &body(model, stream)).await
    }

    fn charges(&self) -> Vec<Charge> {
        self.emulator.bill().charges()
    }
}

fn body(model: &str, stream: bool) -> Value {
    json!({"model": model, "messages": [say("user", "Hello?")], "max_tokens": 200, "stream": stream})
}

/// gpt-4.1 takes 2 dollars for a million tokens of input, half of one for those that it has cached, 8 for output.
fn cost(charge: &Charge) -> f64 {
    let (fresh, read) = (charge.uncached_input as f64, charge.cache_read as f64);
    (fresh * 2.0 + read * 0.5 + charge.output as f64 * 8.0) / 1e6
}

/// The error that a client of this dialect finds: the body's, or the last event's in a stream that had begun.
#[track_caller]
fn error(surface: &str, reply: &Reply) -> Value {
    let text = reply.text();
    let mut events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let text = match reply.status {
        200 => events.next_back().unwrap(),
        _ => text.as_str(),
    };
    let body: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    if surface == ANTHROPIC {
        assert_eq!(body["type"], "error", "{body}");
    }
    for field in ["message", "type"] {
        assert!(body["error"][field].is_string(), "{body}");
    }
    body["error"].clone()
}

async fn check(surface: &'static str, stream: bool) {
    let scene = Scene::new().await;
    let half = Wire::Half(HALF[usize::from(stream)]);
    let mut requests = Vec::new();
    let mut expected = Vec::new();
    for (wire, status, outcome, is_charged) in [
        (Wire::Pass, 200, "completed", true),
        (Wire::Cut, 502, "failed", false),
        (Wire::Stall, 504, "failed", false),
        (Wire::Slow(SLOW), 200, "completed", true),
        (Wire::Slow(TOO_SLOW), 504, "failed", true),
        (Wire::Half(HALF_A_HEAD), 502, "failed", true),
        (half, 502, "failed", true),
        (Wire::Pass, 200, "completed", true),
    ] {
        let what = format!("{surface} {stream} {wire:?}");
        scene.proxy.set(wire);
        let before = scene.charges().len();
        let (reply, other) = tokio::join!(
            scene.ask(surface, "m", stream),
            scene.ask(surface, "other", stream)
        );
        assert_eq!(other.status, 200, "{what}: {}", other.text());
        // A stream may have begun before the fault, and whether one that is too slow has is a matter of luck.
        let is_begun = match wire {
            wire if wire == half => stream,
            Wire::Slow(TOO_SLOW) => stream && reply.status == 200,
            _ => false,
        };
        let status = if is_begun { 200 } else { status };
        assert_eq!(reply.status, status, "{what}: {}", reply.text());
        if outcome != "completed" {
            error(surface, &reply);
        }
        let charges = scene.charges().split_off(before);
        assert_eq!(charges.len(), usize::from(is_charged), "{what}");
        // What was sent and not answered in time may have been worked on, as far as anybody can tell. A connection that
        // ends without a head is taken for the end of a server that had not begun.
        let is_estimated = match wire {
            Wire::Stall | Wire::Slow(TOO_SLOW) => true,
            wire => wire == half,
        };
        expected.push((what, request_id(&reply), outcome, charges, is_estimated));
        requests.extend([request_id(&reply), request_id(&other)]);
    }
    let rows = adds_up(&scene.client, &requests).await;
    for (what, request, outcome, charges, is_estimated) in expected {
        let row = row_of(&rows, &request);
        assert_eq!(row["outcome"], outcome, "{what}: {row}");
        let told = row["cost"].as_str().map_or(0.0, |_| amount(&row["cost"]));
        if is_estimated {
            assert_eq!(row["usage_source"], "estimate", "{what}: {row}");
            assert!(told > 0.0, "{what}: {row}");
        } else if outcome == "completed" {
            let billed = charges.iter().map(cost).sum();
            assert_eq!(row["usage_source"], "provider", "{what}: {row}");
            assert!(is_same(told, billed), "{what}: {row}, not {billed}");
        } else {
            assert!(is_same(told, 0.0), "{what}: {row}");
        }
    }
    assert!(is_settled(&scene.client, &rows).await);
    scene.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_the_wire_clients_are_told_and_the_ledger_is_the_bill() {
    let all = [
        (OPENAI, false),
        (OPENAI, true),
        (ANTHROPIC, false),
        (ANTHROPIC, true),
    ];
    let checks = all.map(|(surface, stream)| check(surface, stream));
    futures_util::future::join_all(checks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wire_that_breaks_under_streams_ends_them_with_an_error_and_nothing_else() {
    let scene = Scene::new().await;
    let mut requests = Vec::new();
    let mut broken = Vec::new();
    for surface in [OPENAI, ANTHROPIC] {
        for wire in [Wire::Cut, Wire::Stall] {
            scene.proxy.set(Wire::Pass);
            let drip = Fault::SlowDrip(Duration::from_millis(15));
            scene.emulator.faults().next(drip);
            let request = scene.client.request(reqwest::Method::POST, surface);
            let mut response = request.json(&body("m", true)).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let head = response.headers().clone();
            let mut text = response.chunk().await.unwrap().unwrap().to_vec();
            scene.proxy.set(wire);
            while let Some(chunk) = response.chunk().await.unwrap() {
                text.extend_from_slice(&chunk);
            }
            let reply = Reply {
                status: 200,
                headers: head,
                body: text.into(),
            };
            error(surface, &reply);
            requests.push(request_id(&reply));
            broken.push(request_id(&reply));
            // Where a route has another upstream, that one answers meanwhile.
            let both = scene.ask(surface, "both", false).await;
            both.ok();
            requests.push(request_id(&both));
            scene.proxy.set(Wire::Pass);
            let after = scene.ask(surface, "m", true).await;
            assert_eq!(after.status, 200, "{}", after.text());
            requests.push(request_id(&after));
        }
    }
    let rows = adds_up(&scene.client, &requests).await;
    for row in &rows {
        let is_broken = broken.iter().any(|request| row["request_id"] == **request);
        let outcome = if is_broken { "failed" } else { "completed" };
        assert_eq!(row["outcome"], outcome, "{row}");
        assert!(amount(&row["cost"]) > 0.0, "{row}");
    }
    assert!(is_settled(&scene.client, &rows).await);
    scene.gateway.stop().await;
}
