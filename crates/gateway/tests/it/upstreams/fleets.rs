//! Upstreams of several workers: which of them a context goes to, and what happens when one is slow, drained or gone.

mod operator;
mod time;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast::app::UpstreamOptions;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Emulator, Fault, RawRequest};
use holdfast_store::KeyScope;
use holdfast_testkit::{TestClient, TestGateway, fleet, upstream};
use serde_json::{Value, json};

use super::{ask, chats, document, hold, outcome, say};

const UPSTREAMS: &str = "/admin/v1/upstreams";

/// How long anything that must come may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Three vLLMs, and a gateway that answers the model `m` with them.
struct Scene {
    /// `None`: it has died.
    workers: Vec<Option<Emulator>>,
    gateway: TestGateway,
    client: TestClient,
}

async fn vllms(count: usize) -> Vec<Option<Emulator>> {
    let mut workers = Vec::new();
    for _ in 0..count {
        workers.push(Some(Emulator::start(Compatible::vllm()).await));
    }
    workers
}

fn urls(workers: &[Option<Emulator>]) -> Vec<String> {
    let workers = workers.iter().flatten();
    workers.map(|worker| format!("{}/v1", worker.url)).collect()
}

async fn gateway_for(
    workers: &[Option<Emulator>],
    change: impl FnOnce(&mut UpstreamOptions),
) -> TestGateway {
    let urls = urls(workers);
    let mut options = fleet("vllm", urls.iter().map(String::as_str), "key-1");
    change(&mut options);
    let gateway = TestGateway::builder()
        .upstream(options)
        .route("m", &[("vllm", "model")])
        .start()
        .await;
    gateway.clock.follow_system();
    gateway
}

impl Scene {
    async fn new(change: impl FnOnce(&mut UpstreamOptions)) -> Scene {
        let workers = vllms(3).await;
        let gateway = gateway_for(&workers, change).await;
        let client = gateway.client();
        Scene {
            workers,
            gateway,
            client,
        }
    }

    /// Asks with a context; says which worker has answered.
    async fn ask(&self, context: &str) -> usize {
        let before = self.counts();
        ask(&self.client, context, "And?").await.ok();
        let after = self.counts();
        (0..after.len())
            .find(|at| after[*at] > before[*at])
            .unwrap()
    }

    /// Chats that each worker has seen; those that have died have seen none.
    fn counts(&self) -> Vec<usize> {
        let count = |worker: &Option<Emulator>| {
            worker
                .as_ref()
                .map_or(0, |worker| chats(worker, "/chat/completions"))
        };
        self.workers.iter().map(count).collect()
    }

    /// Waits until a worker is in this state.
    async fn until_is(&self, worker: usize, state: &str) {
        let name = format!("w{worker}");
        until_worker(&self.client, "vllm", &name, |worker| {
            worker["state"] == state
        })
        .await;
    }

    /// Starts a worker again where it was before, with nothing in its cache.
    async fn restart(&mut self, worker: usize, address: &str) {
        let address = address.trim_start_matches("http://").parse().unwrap();
        let started = async {
            loop {
                // The old one may still be about to let go of the port.
                match Emulator::start_on(address, Compatible::vllm()).await {
                    Ok(emulator) => return emulator,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let emulator = tokio::time::timeout(PATIENCE, started).await.unwrap();
        self.workers[worker] = Some(emulator);
    }
}

/// What the operator is told of a worker.
async fn worker(client: &TestClient, upstream: &str, name: &str) -> Value {
    let list = client.get(UPSTREAMS).await.ok();
    let mut upstreams = list["data"].as_array().unwrap().iter();
    let found = upstreams.find(|known| known["name"] == upstream).unwrap();
    let mut workers = found["workers"].as_array().unwrap().iter();
    let worker = workers.find(|worker| worker["name"] == name);
    worker.unwrap_or_else(|| panic!("{list}")).clone()
}

/// Waits until this holds of it.
async fn until_worker(
    client: &TestClient,
    upstream: &str,
    name: &str,
    holds: impl Fn(&Value) -> bool,
) {
    let is_so = async {
        while !holds(&worker(client, upstream, name).await) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, is_so).await.is_err() {
        panic!("waited in vain: {}", worker(client, upstream, name).await);
    }
}

/// The bodies of chats that an emulator has seen.
fn bodies(emulator: &Emulator) -> Vec<Value> {
    let requests = emulator.requests();
    let chats = requests
        .iter()
        .filter(|request| request.path.ends_with("/chat/completions"));
    chats.filter_map(RawRequest::json).collect()
}

/// The sum of a metric's series.
async fn metric(client: &TestClient, name: &str) -> f64 {
    let text = client.get("/metrics").await.text();
    let series = text.lines().filter(|line| line.starts_with(name));
    series
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[tokio::test]
async fn a_context_stays_with_one_worker_and_contexts_are_shared_out() {
    let scene = Scene::new(|_| {}).await;
    let mut used = BTreeSet::new();
    for number in 0..12 {
        let text = document(100, &format!("of context {number}"));
        let context = hold(&scene.client, "m", &text, json!({})).await;
        let first = scene.ask(&context).await;
        for _ in 0..2 {
            assert_eq!(scene.ask(&context).await, first);
        }
        let again = ask(&scene.client, &context, "Once more?").await;
        assert_eq!(outcome(&again).0, "hit", "its cache is there");
        let fork = format!("/v1/context/{context}/fork");
        let fork = scene.client.post(&fork, &json!({})).await.ok();
        let fork = fork["id"].as_str().unwrap();
        assert_eq!(scene.ask(fork).await, first, "a fork begins alike");
        used.insert(first);
    }
    assert!(used.len() > 1, "{used:?}");
}

#[tokio::test]
async fn every_gateway_of_an_installation_chooses_alike() {
    let scene = Scene::new(|_| {}).await;
    let other = gateway_for(&scene.workers, |options| {
        // Nor does the order of the configuration matter.
        options.pool.as_mut().unwrap().workers.reverse();
    })
    .await;
    let theirs = Scene {
        client: other.client(),
        gateway: other,
        workers: Vec::new(),
    };
    for number in 0..8 {
        let text = document(100, &format!("number {number}"));
        let ours = hold(&scene.client, "m", &text, json!({})).await;
        let worker = scene.ask(&ours).await;
        let before = scene.counts();
        let same = hold(&theirs.client, "m", &text, json!({})).await;
        ask(&theirs.client, &same, "And?").await.ok();
        assert_eq!(scene.counts()[worker], before[worker] + 1);
    }
}

#[tokio::test]
async fn a_dead_workers_contexts_are_rebuilt_on_the_next_one_and_come_back() {
    let mut scene = Scene::new(|_| {}).await;
    let context = hold(&scene.client, "m", &document(200, "d"), json!({})).await;
    let own = scene.ask(&context).await;
    let warm = ask(&scene.client, &context, "Warm?").await;
    assert_eq!(outcome(&warm).0, "hit");

    let dead = scene.workers[own].take().unwrap();
    let address = dead.url.clone();
    drop(dead);
    let moved = ask(&scene.client, &context, "Still there?").await;
    assert_eq!(
        outcome(&moved),
        ("rebuilt".to_owned(), "failover".to_owned())
    );
    let next = scene.ask(&context).await;
    assert_ne!(next, own);
    let warm = ask(&scene.client, &context, "Warm there?").await;
    assert_eq!(outcome(&warm).0, "hit");

    scene.until_is(own, "unhealthy").await;
    let failed = metric(&scene.client, "holdfast_upstream_retries_total").await;
    assert_eq!(scene.ask(&context).await, next);
    let now = metric(&scene.client, "holdfast_upstream_retries_total").await;
    assert_eq!(now, failed, "who is known to be dead is not asked");
    let up = metric(&scene.client, "holdfast_upstream_worker_up").await;
    assert_eq!(up, 2.0);

    scene.restart(own, &address).await;
    scene.until_is(own, "healthy").await;
    let back = ask(&scene.client, &context, "Back?").await;
    assert_eq!(
        outcome(&back),
        ("rebuilt".to_owned(), "failover".to_owned())
    );
    assert_eq!(scene.ask(&context).await, own);
    let warm = ask(&scene.client, &context, "Warm again?").await;
    assert_eq!(outcome(&warm).0, "hit");
}

#[tokio::test]
async fn whatever_fails_before_the_first_event_is_asked_of_the_next_worker_at_once() {
    let faults = [
        Fault::Status(500, None),
        Fault::Status(503, None),
        Fault::Status(429, Some(600)),
        Fault::CloseBeforeHead,
        Fault::CutAfter(0),
        Fault::StallAfter(0),
    ];
    for fault in faults {
        let scene = Scene::new(|options| {
            options.timeouts.first_byte = Duration::from_millis(500);
            // Nobody waits so long for the same worker, nor does anybody here.
            options.retry.backoff = Duration::from_secs(3600);
            options.retry.backoff_max = Duration::from_secs(3600);
        })
        .await;
        let context = hold(&scene.client, "m", &document(200, "d"), json!({})).await;
        let own = scene.ask(&context).await;
        scene.workers[own]
            .as_ref()
            .unwrap()
            .faults()
            .next(fault.clone());
        let moved = ask(&scene.client, &context, "And now?").await;
        let expected = ("rebuilt".to_owned(), "failover".to_owned());
        assert_eq!(outcome(&moved), expected, "{fault:?}");
    }
}

#[tokio::test]
async fn workers_are_tried_no_more_often_than_an_upstream_is() {
    let scene = Scene::new(|options| options.retry.retries_max = 1).await;
    for worker in scene.workers.iter().flatten() {
        worker.faults().always(Fault::Status(500, None));
    }
    let body = json!({"model": "m", "messages": [say("user", "Hello?")]});
    let reply = scene.client.post("/v1/chat/completions", &body).await;
    assert!(reply.status >= 500, "{}", reply.text());
    assert_eq!(scene.counts().iter().sum::<usize>(), 2);
    assert_eq!(scene.counts().iter().max(), Some(&1), "each of them once");
}

#[tokio::test]
async fn a_context_in_demand_spreads_within_the_bound() {
    let scene = Scene::new(|options| {
        options.pool.as_mut().unwrap().load_factor = 1.5;
    })
    .await;
    let context = hold(&scene.client, "m", &document(200, "hot"), json!({})).await;
    scene.ask(&context).await;
    for worker in scene.workers.iter().flatten() {
        worker.faults().always(Fault::StallAfter(1));
    }
    let asked = (0..9).map(|_| {
        let (client, context) = (scene.client.clone(), context.clone());
        tokio::spawn(async move { ask(&client, &context, "All at once").await })
    });
    let asked: Vec<_> = asked.collect();
    let spread = async {
        loop {
            let mut loads = Vec::new();
            for name in ["w0", "w1", "w2"] {
                let worker = worker(&scene.client, "vllm", name).await;
                loads.push(worker["in_flight"].as_u64().unwrap());
            }
            if loads.iter().sum::<u64>() == 9 {
                return loads;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut loads = tokio::time::timeout(PATIENCE, spread).await.unwrap();
    loads.sort_unstable();
    // Nine times one and a half, in three.
    assert!(loads[2] <= 5, "{loads:?}");
    assert!(
        loads[0] > 0 || loads[1] > 3,
        "the first two take what they may: {loads:?}"
    );
    let moved = metric(
        &scene.client,
        "holdfast_upstream_worker_requests_moved_total",
    )
    .await;
    assert!(moved >= 4.0, "{moved}");
    asked.iter().for_each(tokio::task::JoinHandle::abort);
    for name in ["w0", "w1", "w2"] {
        until_worker(&scene.client, "vllm", name, |worker| {
            worker["in_flight"] == 0
        })
        .await;
    }
}

#[tokio::test]
async fn with_no_worker_left_the_next_upstream_of_the_route_answers() {
    let mut workers = vllms(3).await;
    let beside = Emulator::start(Compatible::sglang()).await;
    let urls = urls(&workers);
    let gateway = TestGateway::builder()
        .upstream(fleet("vllm", urls.iter().map(String::as_str), "key-1"))
        .upstream(upstream("sglang", &format!("{}/v1", beside.url), "key-2"))
        .route("m", &[("vllm", "model"), ("sglang", "model")])
        .route("alone", &[("vllm", "model")])
        .start()
        .await;
    gateway.clock.follow_system();
    let client = gateway.client();
    let context = hold(&client, "m", &document(200, "d"), json!({})).await;
    ask(&client, &context, "Here?").await.ok();
    assert_eq!(chats(&beside, "/chat/completions"), 0);

    workers.clear();
    let moved = ask(&client, &context, "There?").await;
    assert_eq!(
        outcome(&moved),
        ("rebuilt".to_owned(), "failover".to_owned())
    );
    assert_eq!(moved.ok()["context_cache"]["upstream"], "sglang");
    for name in ["w0", "w1", "w2"] {
        until_worker(&client, "vllm", name, |worker| {
            worker["state"] == "unhealthy"
        })
        .await;
    }
    let list = client.get(UPSTREAMS).await.ok();
    assert_eq!(list["data"][0]["state"], "down");
    assert_eq!(list["data"][1]["state"], "up");
    let body = json!({"model": "alone", "messages": [say("user", "Anybody?")]});
    let refused = client.post("/v1/chat/completions", &body).await;
    refused.error(503);
    assert!(!refused.header("retry-after").is_empty());
}

#[tokio::test]
async fn projects_with_the_same_text_choose_by_themselves_and_have_salts_of_their_own() {
    let scene = Scene::new(|_| {}).await;
    let other = scene
        .gateway
        .client_of("other", &[KeyScope::Inference])
        .await;
    let mut differ = 0;
    for number in 0..10 {
        let text = document(100, &format!("number {number}"));
        let ours = hold(&scene.client, "m", &text, json!({})).await;
        let own = scene.ask(&ours).await;
        let theirs = hold(&other, "m", &text, json!({})).await;
        let before = scene.counts();
        let reply = ask(&other, &theirs, "And?").await;
        assert_eq!(
            outcome(&reply).0,
            "miss",
            "nobody reads another one's cache"
        );
        let after = scene.counts();
        differ += usize::from(after[own] == before[own]);
    }
    assert!(differ > 0, "both chose alike each time");
    let mut salts = BTreeSet::new();
    for worker in scene.workers.iter().flatten() {
        for body in bodies(worker) {
            salts.insert(body["cache_salt"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(salts.len(), 2);
}

#[tokio::test]
async fn a_fleet_without_a_field_for_salts_keeps_projects_apart_by_a_line() {
    let mut workers = Vec::new();
    for _ in 0..2 {
        workers.push(Some(Emulator::start(Compatible::llama_server()).await));
    }
    let urls = urls(&workers);
    let gateway = TestGateway::builder()
        .upstream(fleet(
            "llama-server",
            urls.iter().map(String::as_str),
            "key-1",
        ))
        .route("m", &[("llama-server", "model")])
        .start()
        .await;
    gateway.clock.follow_system();
    let other = gateway.client_of("other", &[KeyScope::Inference]).await;
    for client in [gateway.client(), other] {
        let context = hold(&client, "m", &document(100, "d"), json!({})).await;
        ask(&client, &context, "And?").await.ok();
    }
    let all: Vec<Value> = workers.iter().flatten().flat_map(bodies).collect();
    let lines: BTreeSet<String> = all
        .iter()
        .map(|body| {
            let text = body["messages"][0]["content"].to_string();
            let at = text.find("[workspace ").unwrap();
            text[at..at + 28].to_owned()
        })
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[tokio::test]
async fn chats_without_a_context_stay_where_they_began() {
    let scene = Scene::new(|_| {}).await;
    let mut used = BTreeSet::new();
    for number in 0..8 {
        let mut messages = vec![
            say("system", "Be brief."),
            say("user", &format!("What is {number}?")),
        ];
        let mut own = None;
        for _ in 0..3 {
            let before = scene.counts();
            let body = json!({"model": "m", "messages": messages});
            let reply = scene.client.post("/v1/chat/completions", &body).await;
            let after = scene.counts();
            let at = (0..3).find(|at| after[*at] > before[*at]).unwrap();
            assert_eq!(*own.get_or_insert(at), at);
            messages.push(say("assistant", &reply.answer()));
            messages.push(say("user", "Why?"));
        }
        used.extend(own);
    }
    assert!(used.len() > 1, "{used:?}");
}

#[tokio::test]
async fn what_is_passed_through_goes_to_whoever_has_least_to_do() {
    let mut workers = Vec::new();
    for _ in 0..3 {
        let worker = Emulator::start(OpenAi::new()).await;
        let slow = Fault::SlowStart(Duration::from_millis(500));
        worker.faults().always(slow);
        workers.push(Some(worker));
    }
    let urls = urls(&workers);
    let urls = urls.iter().map(String::as_str);
    let gateway = TestGateway::builder()
        .upstream(fleet("openai-compatible", urls, "sk-1"))
        .route("m", &[("openai-compatible", "text-embedding-3-small")])
        .start()
        .await;
    let client = gateway.client();
    let body = json!({"model": "m", "input": "text"});
    let sent = (0..6).map(|_| client.post("/v1/embeddings", &body));
    for reply in join_all(sent).await {
        reply.ok();
    }
    let workers = workers.iter().flatten();
    let counts: Vec<usize> = workers.map(|worker| chats(worker, "/embeddings")).collect();
    assert_eq!(counts.iter().sum::<usize>(), 6, "{counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
