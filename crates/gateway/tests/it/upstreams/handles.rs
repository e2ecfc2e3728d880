//! The lives of handles: extended with their contexts, dropped with them, made once among replicas, and needed while the
//! store is away.

use std::sync::Arc;
use std::time::Duration;

use holdfast::app::Store;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::{Emulator, Fault, RawRequest};
use holdfast_store::MemoryStore;
use holdfast_testkit::{
    Action, Gate, Operation, Reply, TestClient, TestClock, TestGateway, TestGatewayBuilder,
    upstream,
};
use serde_json::{Value, json};

use super::acceptance::{count, hit, rebuilt};
use super::{ask, chats, document, handle_names, hold, outcome, until};

/// The background work looks far more often.
const STEP_SECONDS: u64 = 25;
const SEED: &str = "doubao-seed-2-1-pro-260915";

fn builder(emulator: &Emulator) -> TestGatewayBuilder {
    let base_url = format!("{}/v1beta", emulator.url);
    TestGateway::builder()
        .upstream(upstream("gemini", &base_url, "key-1"))
        .route("model", &[("gemini", "gemini-2.5-pro")])
}

/// A gateway in front of Gemini, whose clocks go together.
struct Scene {
    provider: Emulator,
    gateway: TestGateway,
    client: TestClient,
}

impl Scene {
    async fn new() -> Scene {
        let provider = Emulator::start(Gemini::new()).await;
        let gateway = builder(&provider).start().await;
        gateway.clock.follow_system();
        let client = gateway.client();
        Scene {
            provider,
            gateway,
            client,
        }
    }

    async fn context(&self, fields: Value) -> String {
        hold(&self.client, "model", &document(3000, "a"), fields).await
    }

    async fn ask(&self, id: &str) -> Reply {
        ask(&self.client, id, "What is on line 1?").await
    }

    /// Lets time pass, with the background work beside it.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds.div_ceil(STEP_SECONDS) {
            let time = Duration::from_secs(STEP_SECONDS.min(seconds));
            self.gateway.clock.advance(time);
            self.provider.clock().advance(time);
            self.gateway.app.tend_upstreams().await;
        }
    }

    fn count(&self, method: &str) -> usize {
        count(&self.provider, |request| of(request, method))
    }

    async fn until(&self, method: &str, times: usize) {
        until(&self.provider, method, |requests| {
            requests
                .iter()
                .filter(|request| of(request, method))
                .count()
                >= times
        })
        .await;
    }
}

/// Whether it is about copies, with this method.
fn of(request: &RawRequest, method: &str) -> bool {
    request.method == method && request.path.contains("/cachedContents")
}

#[tokio::test]
async fn a_handle_is_extended_before_it_ends_as_long_as_its_context_lives() {
    let scene = Scene::new().await;
    // A session's expiry slides, that of the copy does not.
    let id = scene.context(json!({"mode": "session", "ttl": 600})).await;
    for round in 0..6 {
        scene.pass(300).await;
        assert_eq!(outcome(&scene.ask(&id).await), hit(), "round {round}");
        scene.pass(250).await;
    }
    assert_eq!(scene.count("POST"), 1, "made once");
    let patches = scene.count("PATCH");
    assert!((3..=6).contains(&patches), "{patches} in an hour");

    scene.pass(601).await;
    scene.ask(&id).await.error(404);
    assert_eq!(scene.gateway.app.sweep().await.unwrap(), 1);
    scene.pass(600).await;
    assert_eq!(
        scene.count("PATCH"),
        patches,
        "none for a context that is gone"
    );
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_handle_that_lives_as_long_as_its_context_is_left_alone() {
    let scene = Scene::new().await;
    let id = scene.context(json!({"ttl": 600})).await;
    assert_eq!(outcome(&scene.ask(&id).await), hit());
    scene.pass(575).await;
    assert_eq!((scene.count("PATCH"), scene.count("POST")), (0, 1));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn an_extension_that_fails_is_tried_again() {
    let scene = Scene::new().await;
    let id = scene.context(json!({"mode": "session", "ttl": 600})).await;
    scene.pass(400).await;
    scene.ask(&id).await.ok();
    scene.provider.faults().next_any(Fault::Status(503, None));
    scene.pass(150).await;
    scene.pass(10).await;
    assert_eq!(scene.count("PATCH"), 2);
    scene.pass(300).await;
    assert_eq!(outcome(&scene.ask(&id).await), hit());
    assert_eq!(scene.count("POST"), 1);
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_longer_ttl_extends_the_handle_and_a_shorter_one_ends_it_with_the_context() {
    let scene = Scene::new().await;
    let id = scene.context(json!({"ttl": 600})).await;
    let path = format!("/v1/context/{id}");
    scene.client.patch(&path, &json!({"ttl": 7200})).await.ok();
    scene.until("PATCH", 1).await;
    scene.pass(3000).await;
    assert_eq!(outcome(&scene.ask(&id).await), hit());
    assert_eq!(scene.count("POST"), 1);

    scene.client.patch(&path, &json!({"ttl": 60})).await.ok();
    scene.pass(61).await;
    scene.ask(&id).await.error(404);
    assert_eq!(scene.count("DELETE"), 0);
    assert_eq!(scene.gateway.app.sweep().await.unwrap(), 1);
    scene.until("DELETE", 1).await;
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_deleted_contexts_handle_is_dropped_and_again_until_it_is_gone() {
    let scene = Scene::new().await;
    let id = scene.context(json!({})).await;
    let kept = scene.context(json!({})).await;
    for status in [503, 429] {
        scene
            .provider
            .faults()
            .next_any(Fault::Status(status, None));
    }
    scene.client.delete(&format!("/v1/context/{id}")).await.ok();
    scene.until("DELETE", 1).await;
    for _ in 0..4 {
        scene.pass(5).await;
    }
    assert_eq!(scene.count("DELETE"), 3, "two failed, and one was enough");
    let deleted: Vec<String> = scene
        .provider
        .requests()
        .into_iter()
        .filter(|request| request.method == "DELETE")
        .map(|request| request.path)
        .collect();
    assert_eq!(deleted[0], deleted[2]);
    assert_eq!(outcome(&scene.ask(&kept).await), hit());
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_handle_that_is_gone_already_is_dropped_once() {
    let scene = Scene::new().await;
    let id = scene.context(json!({})).await;
    scene.provider.evict_all();
    scene.client.delete(&format!("/v1/context/{id}")).await.ok();
    scene.until("DELETE", 1).await;
    for _ in 0..3 {
        scene.pass(5).await;
    }
    assert_eq!(scene.count("DELETE"), 1);
    scene.gateway.stop().await;
}

/// Whoever deletes a context while its copy is being made would leave the copy behind, paid for by the hour.
#[tokio::test]
async fn a_handle_that_is_made_while_its_context_is_deleted_is_dropped() {
    let scene = Scene::new().await;
    let id = scene.context(json!({"warm": "lazy"})).await;
    let slow = Fault::SlowStart(Duration::from_millis(300));
    scene.provider.faults().next_any(slow);
    let asking = tokio::spawn({
        let (client, id) = (scene.client.clone(), id.clone());
        async move { ask(&client, &id, "What is on line 1?").await }
    });
    scene.until("POST", 1).await;
    scene.client.delete(&format!("/v1/context/{id}")).await.ok();
    asking.await.unwrap();
    scene.gateway.app.tend_upstreams().await;
    assert_eq!((scene.count("POST"), scene.count("DELETE")), (1, 1));
    scene.gateway.stop().await;
}

/// A process that dies after it has removed a context and before it has dropped the copy: the next one drops it.
#[tokio::test]
async fn a_handle_orphaned_by_a_crash_is_dropped_at_the_next_start() {
    let provider = Emulator::start(Gemini::new()).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let gateway = builder(&provider).store(&store).start().await;
    gateway.clock.follow_system();
    let client = gateway.client();
    let text = document(3000, "a");
    let orphaned = hold(&client, "model", &text, json!({})).await;
    let kept = hold(&client, "model", &text, json!({})).await;
    gateway.store.break_down(&[Operation::DoomHandles]);
    client.delete(&format!("/v1/context/{orphaned}")).await.ok();
    let clock = gateway.clock.clone();
    gateway.stop().await;
    let deletes = |emulator: &Emulator| count(emulator, |request| of(request, "DELETE"));
    assert_eq!(deletes(&provider), 0);

    // A copy so young could belong to a context that another replica is creating.
    clock.advance(Duration::from_secs(601));
    let gateway = builder(&provider).store(&store).clock(&clock).start().await;
    gateway.app.tend_upstreams().await;
    assert_eq!(deletes(&provider), 1);
    let reply = ask(&gateway.client(), &kept, "What is on line 1?").await;
    assert_eq!(outcome(&reply), hit());
    assert_eq!(chats(&provider, "/cachedContents"), 2);
    gateway.stop().await;
}

/// Everything that handles need of the store.
const HANDLES: [Operation; 5] = [
    Operation::PutHandle,
    Operation::Handles,
    Operation::DoomHandles,
    Operation::AcquireLease,
    Operation::ChangeAccounts,
];

#[tokio::test]
async fn handles_go_on_from_memory_while_the_store_is_away_and_are_known_after_it() {
    let provider = Emulator::start(Gemini::new()).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let gateway = builder(&provider).store(&store).start().await;
    gateway.clock.follow_system();
    let client = gateway.client();
    let lazy = json!({"warm": "lazy"});
    let id = hold(&client, "model", &document(3000, "a"), lazy).await;

    gateway.store.break_down(&HANDLES);
    let reply = ask(&client, &id, "One?").await;
    assert_eq!(outcome(&reply), ("miss".into(), "first_use".into()));
    assert_eq!(outcome(&ask(&client, &id, "Two?").await), hit());
    provider.evict_all();
    let reply = ask(&client, &id, "Three?").await;
    assert_eq!(outcome(&reply), rebuilt("handle_gone"));
    assert_eq!(outcome(&ask(&client, &id, "Four?").await), hit());
    assert_eq!(chats(&provider, "/cachedContents"), 2);

    // What was made meanwhile is written down when the store is back: the next process finds it.
    gateway.store.mend();
    gateway.app.tend_upstreams().await;
    let clock = gateway.clock.clone();
    gateway.stop().await;
    let gateway = builder(&provider).store(&store).clock(&clock).start().await;
    let client = gateway.client();
    assert_eq!(outcome(&ask(&client, &id, "Five?").await), hit());
    assert_eq!(chats(&provider, "/cachedContents"), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn a_handle_that_the_store_never_saw_is_dropped_with_its_context() {
    let scene = Scene::new().await;
    let id = scene.context(json!({"warm": "lazy"})).await;
    scene.gateway.store.break_down(&HANDLES);
    scene.ask(&id).await.ok();
    scene.gateway.store.mend();
    scene.client.delete(&format!("/v1/context/{id}")).await.ok();
    scene.until("DELETE", 1).await;
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_deletion_that_the_store_missed_for_a_moment_still_drops_the_handle() {
    let scene = Scene::new().await;
    let id = scene.context(json!({})).await;
    scene.gateway.store.break_down(&HANDLES);
    scene.client.delete(&format!("/v1/context/{id}")).await.ok();
    scene.gateway.app.tend_upstreams().await;
    assert_eq!(scene.count("DELETE"), 0);
    scene.gateway.store.mend();
    scene.gateway.app.tend_upstreams().await;
    assert_eq!(scene.count("DELETE"), 1);
    scene.gateway.stop().await;
}

/// Two gateways over one store, and a context that neither has a copy of.
async fn replicas(provider: &Emulator) -> (TestGateway, TestGateway, String) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = TestClock::default();
    clock.follow_system();
    let one = builder(provider).store(&store).clock(&clock).start().await;
    let two = builder(provider).store(&store).clock(&clock).start().await;
    let lazy = json!({"warm": "lazy"});
    let id = hold(&one.client(), "model", &document(3000, "a"), lazy).await;
    (one, two, id)
}

async fn ask_both(one: &TestGateway, two: &TestGateway, id: &str, each: usize) -> Vec<Reply> {
    let asked = [one, two].into_iter().flat_map(|gateway| {
        let client = gateway.client();
        (0..each).map(move |number| {
            let (client, id) = (client.clone(), id.to_owned());
            async move { ask(&client, &id, &format!("Question {number}?")).await }
        })
    });
    futures_util::future::join_all(asked).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_make_one_handle_and_make_a_lost_one_again_once() {
    let provider = Emulator::start(Gemini::new()).await;
    let (one, two, id) = replicas(&provider).await;
    let slow = Fault::SlowStart(Duration::from_millis(300));
    provider.faults().next_any(slow.clone());
    for reply in ask_both(&one, &two, &id, 20).await {
        reply.ok();
    }
    assert_eq!(chats(&provider, "/cachedContents"), 1);
    assert_eq!(handle_names(&provider).len(), 1);

    provider.evict_all();
    for reply in ask_both(&one, &two, &id, 20).await {
        assert!(["hit", "rebuilt"].contains(&outcome(&reply).0.as_str()));
    }
    assert_eq!(chats(&provider, "/cachedContents"), 2);
    for reply in ask_both(&one, &two, &id, 2).await {
        assert_eq!(outcome(&reply), hit());
    }
    one.stop().await;
    two.stop().await;
}

/// Between looking for a handle and getting the lease another replica may have made one and gone.
#[tokio::test]
async fn a_replica_that_gets_the_lease_late_uses_what_the_other_one_has_made() {
    let provider = Emulator::start(Gemini::new()).await;
    let (one, two, id) = replicas(&provider).await;
    let gate = Gate::default();
    two.store
        .plan(Operation::AcquireLease, [Action::Wait(gate.clone())]);
    let late = tokio::spawn({
        let (client, id) = (two.client(), id.clone());
        async move { ask(&client, &id, "One?").await }
    });
    gate.reached().await;
    ask(&one.client(), &id, "One?").await.ok();
    gate.open();
    assert_eq!(outcome(&late.await.unwrap()), hit());
    assert_eq!(chats(&provider, "/cachedContents"), 1);
    one.stop().await;
    two.stop().await;
}

/// A replica that died holding the lease keeps the others waiting for a minute at most.
#[tokio::test]
async fn a_lease_of_a_dead_replica_runs_out() {
    let provider = Emulator::start(Gemini::new()).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let gateway = builder(&provider).store(&store).start().await;
    gateway.clock.follow_system();
    let client = gateway.client();
    let lazy = json!({"warm": "lazy"});
    let id = hold(&client, "model", &document(3000, "a"), lazy).await;
    // The place is the gateway's own name for account, region and model; seen from a first context's handle.
    let other = hold(&client, "model", &document(3000, "b"), json!({})).await;
    let handles = store.handles(&other.parse().unwrap()).await.unwrap();
    let lease = format!("handle/{id}/{}", handles[0].place);
    let now = gateway.clock.now();
    assert!(
        store
            .acquire_lease(&lease, "dead", now + 60_000, now)
            .await
            .unwrap()
    );

    let gate = Gate::default();
    let tries = [Action::Pass, Action::Wait(gate.clone())];
    gateway.store.plan(Operation::AcquireLease, tries);
    let waiting = tokio::spawn({
        let (client, id) = (client.clone(), id.clone());
        async move { ask(&client, &id, "One?").await }
    });
    // It was refused once and tries again.
    gate.reached().await;
    assert_eq!(chats(&provider, "/cachedContents"), 1);
    gateway.clock.advance(Duration::from_secs(61));
    gate.open();
    assert_eq!(waiting.await.unwrap().status, 200);
    assert_eq!(chats(&provider, "/cachedContents"), 2);
    gateway.stop().await;
}

/// Names in the order in which Ark was asked to continue from them.
fn continued(emulator: &Emulator) -> Vec<String> {
    emulator
        .requests()
        .iter()
        .filter_map(RawRequest::json)
        .filter_map(|body| body["previous_response_id"].as_str().map(str::to_owned))
        .collect()
}

async fn ark_session() -> (Emulator, TestGateway, TestClient, String) {
    let emulator = Emulator::start(Ark::new()).await;
    let gateway = super::gateway_for(&emulator, "ark", "/api/v3", SEED).await;
    let client = gateway.client();
    let fields = json!({"mode": "session", "ttl": 7200});
    let id = hold(&client, "model", &document(3000, "a"), fields).await;
    (emulator, gateway, client, id)
}

fn prompt_tokens(reply: &Reply) -> u64 {
    reply.json()["usage"]["prompt_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn each_turn_of_an_ark_session_continues_from_the_answer_before() {
    let (emulator, gateway, client, id) = ark_session().await;
    let mut prompt = 0;
    for turn in 0..6 {
        let reply = ask(&client, &id, &format!("This is turn {turn}.")).await;
        assert_eq!(outcome(&reply), hit(), "turn {turn}");
        assert!(prompt_tokens(&reply) > prompt, "turn {turn}");
        prompt = prompt_tokens(&reply);
        let cached = reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
        assert!(
            prompt - cached.as_u64().unwrap() < 30,
            "turn {turn}: {cached} of {prompt}"
        );
        let body = String::from_utf8(emulator.requests().last().unwrap().body.to_vec()).unwrap();
        assert_eq!(
            body.matches("This is turn").count(),
            1,
            "only what is new: {body}"
        );
    }
    let names = continued(&emulator);
    assert_eq!(names.len(), 6);
    assert_eq!(
        handle_names(&emulator).len(),
        6,
        "each from another: {names:?}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_turn_that_breaks_off_does_not_become_the_past_of_the_next() {
    let (emulator, gateway, client, id) = ark_session().await;
    ask(&client, &id, "I am Ada.").await.ok();
    let before = ask(&client, &id, "Who am I?").await;
    let says = |text: &str| {
        let message = super::say("user", text);
        json!({"context_id": id, "messages": [message], "stream": true})
    };
    let send = |body: Value| {
        let path = "/v1/chat/completions";
        client
            .request(reqwest::Method::POST, path)
            .json(&body)
            .send()
    };

    // The client leaves.
    let drip = Fault::SlowDrip(Duration::from_millis(50));
    emulator.faults().next(drip);
    let mut response = send(says("I am Bob.")).await.unwrap();
    response.chunk().await.unwrap().unwrap();
    drop(response);
    let mut aborted = emulator.aborted();
    aborted.wait_for(|count| *count == 1).await.unwrap();
    // The upstream breaks off.
    emulator.faults().next(Fault::CutAfter(5));
    let broken = client
        .post("/v1/chat/completions", &says("I am Carl."))
        .await;
    assert!(broken.text().contains("\"error\""), "{}", broken.text());
    // The answer came, and could not be kept.
    gateway.store.plan(Operation::AppendTurn, [Action::Fail]);
    ask(&client, &id, "I am Dora.").await.error(503);

    let after = ask(&client, &id, "Who am I?").await;
    assert_eq!(outcome(&after), hit());
    let names = continued(&emulator);
    assert_eq!(names.len(), 6);
    assert_eq!(names[2..], [&names[2]; 4].map(String::clone));
    // One question and its answer more than the last time, and nothing of the three others.
    let body = after.json();
    let longer = prompt_tokens(&after) - prompt_tokens(&before);
    assert!((1..30).contains(&longer), "{longer}: {body}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_lost_chain_is_replayed_once_with_all_its_turns_and_goes_on() {
    let (emulator, gateway, client, id) = ark_session().await;
    ask(&client, &id, "I am Ada.").await.ok();
    let before = ask(&client, &id, "Who am I?").await;
    for loss in ["evicted", "expired"] {
        if loss == "evicted" {
            emulator.evict_all();
        } else {
            let time = Duration::from_secs(7100);
            gateway.clock.advance(time);
            emulator.clock().advance(time);
            ask(&client, &id, "Still there?").await.ok();
            gateway.clock.advance(time);
            emulator.clock().advance(time);
        }
        emulator.clear_requests();
        let after = ask(&client, &id, "Who am I?").await;
        assert_eq!(outcome(&after).0, "rebuilt", "{loss}");
        assert!(prompt_tokens(&after) > prompt_tokens(&before), "{loss}");
        let replayed = count(&emulator, |request| {
            let body = String::from_utf8(request.body.to_vec()).unwrap();
            body.contains("I am Ada.")
        });
        // What was evicted is found out link by link: the copy of the beginning is tried with the turns first.
        let tries = if loss == "evicted" { 2 } else { 1 };
        assert_eq!(replayed, tries, "{loss}");
        let prefixes = count(&emulator, |request| {
            request.json().unwrap_or_default()["caching"]["prefix"] == true
        });
        assert_eq!(prefixes, 1, "{loss}");
        emulator.clear_requests();
        assert_eq!(
            outcome(&ask(&client, &id, "And now?").await),
            hit(),
            "{loss}"
        );
        let body = String::from_utf8(emulator.requests()[0].body.to_vec()).unwrap();
        assert!(!body.contains("I am Ada."), "{loss}: it is chained again");
    }
    gateway.stop().await;
}
