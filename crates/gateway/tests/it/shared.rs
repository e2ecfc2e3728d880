//! Two gateways over one Redis: limits hold for both together, and neither needs it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast::app::Store;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::{Emulator, Fault};
use holdfast_store::{ContextStore, LimitSettings, MemoryStore, PostgresOptions};
use holdfast_testkit::{
    Action, Gate, Operation, PostgresServer, Proxy, RedisServer, Reply, TestClient, TestClock,
    TestGateway, TestGatewayBuilder, Wire, upstream,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{ask, create, say};

/// Beyond anything that a machine at work needs, and below what a defect would take.
const LONG: Duration = Duration::from_secs(30);

fn builder(url: &str, change: fn(&mut LimitSettings)) -> TestGatewayBuilder {
    TestGateway::builder()
        .shared(url)
        .limits(|limits| change(&mut limits.per_key))
}

/// Two gateways over one store and one Redis, once each knows of the other; and clients of them with the same key.
async fn pair(
    url: &str,
    change: fn(&mut LimitSettings),
) -> ((TestGateway, TestClient), (TestGateway, TestClient)) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = TestClock::default();
    let start = async || {
        let builder = builder(url, change).store(&store).clock(&clock);
        builder.start().await
    };
    let (one, other) = (start().await, start().await);
    let (here, there) = (one.client(), one.client().at(&other));
    for client in [&here, &there] {
        shown(client, "holdfast_shared_replicas 2").await;
    }
    ((one, here), (other, there))
}

/// Waits until the metrics have this line.
async fn shown(client: &TestClient, line: &str) {
    let is_shown = async {
        while !has(client, line).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, is_shown).await;
    waited.unwrap_or_else(|_| panic!("no `{line}`"));
}

async fn has(client: &TestClient, line: &str) -> bool {
    let metrics = client.get("/metrics").await.text();
    metrics.lines().any(|shown| shown == line)
}

/// How many of so many requests to each of these are let in, all at once.
async fn let_in(clients: &[&TestClient], requests: usize) -> usize {
    let mut asking = JoinSet::new();
    for client in clients {
        for _ in 0..requests {
            let client = TestClient::clone(client);
            asking.spawn(async move { client.get("/v1/models").await });
        }
    }
    let replies: Vec<Reply> = asking.join_all().await;
    assert!(
        replies
            .iter()
            .all(|reply| [200, 429].contains(&reply.status))
    );
    replies.iter().filter(|reply| reply.status == 200).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_for_both_together() {
    let redis = RedisServer::start();
    let began = Instant::now();
    let ((one, here), (_other, there)) =
        pair(&redis.url(), |limits| limits.requests_per_minute = Some(10)).await;
    let let_in = let_in(&[&here, &there], 15).await;
    // Redis has a clock of its own, by which some may have run off.
    let room = 10 + usize::try_from(began.elapsed().as_secs() / 6).unwrap();
    assert!((10..=room).contains(&let_in), "{let_in} of {room}");
    let refused = there.get("/v1/models").await;
    if refused.status == 429 {
        assert_eq!(refused.header("x-ratelimit-limit-requests"), "10");
        assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=6).contains(&seconds));
    }

    // Nothing stays in Redis for ever, and no key of a client is in it.
    let keys = redis.ask("KEYS *");
    assert!(keys.contains("holdfast:used:key:key-"), "{keys}");
    assert!(!keys.contains(one.key()));
    for key in keys.lines().filter(|line| line.starts_with("holdfast:")) {
        let left = redis.ask(&format!("PTTL {key}"));
        let left: i64 = left.lines().next().unwrap()[1..].parse().unwrap();
        // It may have gone by now.
        assert!(left > 0 || left == -2, "{key}: {left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_here_counts_there_until_it_has_ended() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let redis = RedisServer::start();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let start = async || {
        builder(&redis.url(), |limits| limits.concurrent_requests = Some(1))
            .store(&store)
            .upstream(upstream("vllm", &format!("{}/v1", emulator.url), "key"))
            .route("routed", &[("vllm", "m")])
            .start()
            .await
    };
    let (one, other) = (start().await, start().await);
    let (here, there) = (one.client(), one.client().at(&other));
    emulator
        .faults()
        .next(Fault::SlowDrip(Duration::from_secs(2)));
    let body = json!({"model": "routed", "messages": [say("user", "hi")], "stream": true});
    let request = here.request(reqwest::Method::POST, "/v1/chat/completions");
    let running = request.json(&body).send().await.unwrap();
    assert_eq!(running.status(), 200);
    there.get("/v1/models").await.error(429);
    here.get("/v1/models").await.error(429);
    drop(running);
    let ended = async {
        while there.get("/v1/models").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, ended).await.unwrap();
    // One after the other there is always room, wherever they go.
    for _ in 0..10 {
        here.get("/v1/models").await.ok();
        there.get("/v1/models").await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_has_its_share_and_with_it_both_count_together_again() {
    let mut redis = RedisServer::start();
    let ((_one, here), (_other, there)) =
        pair(&redis.url(), |limits| limits.requests_per_minute = Some(10)).await;
    redis.stop();
    // The clock of the gateways stands still, so that nothing runs off here.
    assert_eq!(let_in(&[&here], 15).await, 5);
    assert_eq!(let_in(&[&there], 15).await, 5);
    assert!(has(&here, "holdfast_shared_up 0").await);
    here.get("/readyz").await.ok();
    redis.start_again();
    for client in [&here, &there] {
        shown(client, "holdfast_shared_up 1").await;
        shown(client, "holdfast_shared_replicas 2").await;
    }
    let began = Instant::now();
    let let_in = let_in(&[&here, &there], 15).await;
    let room = 10 + usize::try_from(began.elapsed().as_secs() / 6).unwrap();
    assert!((10..=room).contains(&let_in), "{let_in} of {room}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_the_wire_requests_go_on() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(&redis.address().to_string()).await;
    let url = format!("redis://{}", proxy.address);
    let gateway = builder(&url, |limits| limits.requests_per_minute = Some(100_000))
        .start()
        .await;
    let client = gateway.client();
    for wire in [
        Wire::Cut,
        Wire::Stall,
        Wire::Late(Duration::from_millis(400)),
        Wire::Half(3),
    ] {
        shown(&client, "holdfast_shared_up 1").await;
        client.get("/v1/models").await.ok();
        proxy.set(wire);
        for _ in 0..5 {
            client.get("/v1/models").await.ok();
        }
        shown(&client, "holdfast_shared_up 0").await;
        let began = Instant::now();
        for _ in 0..20 {
            client.get("/v1/models").await.ok();
        }
        // Nobody waits for what is known to be away.
        assert!(began.elapsed() < LONG / 3, "{wire:?}");
        proxy.set(Wire::Pass);
    }
    shown(&client, "holdfast_shared_up 1").await;
}

#[tokio::test]
async fn a_server_starts_without_redis_and_finds_it_later() {
    let mut redis = RedisServer::start();
    redis.stop();
    let gateway = builder(&redis.url(), |limits| limits.requests_per_minute = Some(2))
        .start()
        .await;
    let client = gateway.client();
    assert_eq!(let_in(&[&client], 5).await, 2);
    redis.start_again();
    shown(&client, "holdfast_shared_up 1").await;
    client.get("/v1/models").await.ok();
    gateway.stop().await;
    // It has said that it is gone.
    assert_eq!(
        redis.ask("ZCARD holdfast:replicas:alive").lines().next(),
        Some(":0")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_over_postgres_and_redis_stay_in_order_and_a_revoked_key_is_refused_everywhere() {
    let redis = RedisServer::start();
    let options = PostgresOptions::new(PostgresServer::shared().database().await);
    let clock = TestClock::default();
    let start = async || {
        let builder = builder(&redis.url(), |limits| {
            limits.concurrent_requests = Some(100)
        });
        let builder = builder.clock(&clock).postgres(&options).await;
        builder.start().await
    };
    let (one, other) = (start().await, start().await);
    let (here, there) = (one.client(), one.client().at(&other));
    let id = create(&here, json!({"mode": "session"})).await;
    let mut asking = JoinSet::new();
    for (name, client) in [("here", &here), ("there", &there)] {
        let (client, id) = (client.clone(), id.clone());
        asking.spawn(async move {
            for turn in 0..4 {
                while ask(&client, &id, &format!("{name} {turn}")).await.status != 200 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
    }
    asking.join_all().await;
    let path = format!("/v1/context/{id}");
    assert_eq!(here.get(&path).await.ok()["turns"], 8);
    assert_eq!(there.get(&path).await.ok()["turns"], 8);

    // A third one takes it up from what the others have left in Redis.
    let context = id.parse().unwrap();
    let row = one.store.get("default", &context, clock.now()).await;
    let version = row.unwrap().version.to_string();
    let is_there = async {
        let ask = format!("HGET holdfast:context:{id} version");
        while redis.ask(&ask).lines().nth(1) != Some(version.as_str()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, is_there).await.unwrap();
    let third = start().await;
    let elsewhere = here.at(&third);
    let answer = ask(&elsewhere, &id, "and now?").await.answer();
    let from_redis = elsewhere.get("/metrics").await.text();
    assert!(from_redis.contains(r#"holdfast_shared_contexts_total{result="hit"}"#));
    assert!(!answer.is_empty());
    assert!(
        redis
            .ask(&format!("EXISTS holdfast:context:{id}"))
            .starts_with(":1")
    );

    // Deleted here is gone there, though its messages were shared.
    here.delete(&path).await.ok();
    there.get(&path).await.error(404);
    let is_out = async {
        while redis
            .ask(&format!("EXISTS holdfast:context:{id}"))
            .starts_with(":1")
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, is_out).await.unwrap();
    ask(&there, &id, "hi").await.error(404);

    let made = here.post("/admin/v1/keys", &json!({})).await.ok();
    let used = there.with_key(made["key"].as_str().unwrap());
    used.get("/v1/models").await.ok();
    let key = format!("/admin/v1/keys/{}", made["id"].as_str().unwrap());
    here.delete(&key).await.ok();
    clock.advance(Duration::from_secs(1));
    used.get("/v1/models").await.error(401);
}

/// A turn's lease is in Redis. If Redis goes in the middle of a turn, another server may take the turn up: then one of the
/// two is refused, and none is lost or there by half.
#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_lease_is_in_redis_and_its_order_does_not_depend_on_it() {
    let mut redis = RedisServer::start();
    let options = PostgresOptions::new(PostgresServer::shared().database().await);
    let clock = TestClock::default();
    let start = async || {
        let builder = builder(&redis.url(), |limits| {
            limits.concurrent_requests = Some(100)
        });
        let builder = builder.clock(&clock).postgres(&options).await;
        builder.start().await
    };
    let (one, other) = (start().await, start().await);
    let (here, there) = (one.client(), one.client().at(&other));
    for client in [&here, &there] {
        shown(client, "holdfast_shared_up 1").await;
    }
    let id = create(&here, json!({"mode": "session"})).await;
    let begin = async |text: &'static str| {
        let gate = Gate::default();
        one.store
            .plan(Operation::AppendTurn, [Action::Wait(gate.clone())]);
        let (client, id) = (here.clone(), id.clone());
        let asking = tokio::spawn(async move { ask(&client, &id, text).await });
        gate.reached().await;
        (gate, asking)
    };

    let (gate, asking) = begin("one").await;
    let lease = format!("EXISTS holdfast:turn:{id}");
    assert!(redis.ask(&lease).starts_with(":1"));
    ask(&there, &id, "two").await.error(403);
    gate.open();
    asking.await.unwrap().ok();
    ask(&there, &id, "two").await.ok();
    assert!(redis.ask(&lease).starts_with(":0"), "given back");

    let (gate, asking) = begin("three").await;
    redis.stop();
    shown(&there, "holdfast_shared_up 0").await;
    ask(&there, &id, "four").await.ok();
    gate.open();
    let late = asking.await.unwrap();
    assert_eq!(late.status, 403, "{}", late.text());
    let path = format!("/v1/context/{id}");
    for client in [&here, &there] {
        assert_eq!(client.get(&path).await.ok()["turns"], 3);
    }
    ask(&here, &id, "five").await.ok();
    redis.start_again();
    shown(&here, "holdfast_shared_up 1").await;
    ask(&here, &id, "six").await.ok();
    assert_eq!(there.get(&path).await.ok()["turns"], 5);
}
