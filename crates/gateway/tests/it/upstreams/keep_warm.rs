//! Keep-warm at providers whose ways of refreshing differ; `warm` has the rules themselves on one of them.

use std::sync::Arc;
use std::time::Duration;

use holdfast::app::UpstreamOptions;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Charge, Emulator, Family, Fault};
use holdfast_protocol::provider::UpstreamDialectName;
use holdfast_testkit::{Operation, TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::acceptance::{count, hit, rebuilt};
use super::{ask, document, hold, outcome, until};

/// A ping is sent so long before the end of an entry.
const BEFORE: Duration = Duration::from_secs(30);
const DAY_SECONDS: u32 = 86_400;

/// A provider with its prices, in input tokens' (facts section 7).
struct Case {
    provider: &'static str,
    base_path: &'static str,
    model: &'static str,
    family: fn() -> Box<dyn Family>,
    change: fn(&mut UpstreamOptions),
    lifetime_seconds: u64,
    write: f64,
    read: f64,
}

fn cases() -> Vec<Case> {
    let case = Case {
        provider: "anthropic",
        base_path: "",
        model: "claude-sonnet-4-6",
        family: || Box::new(Anthropic::new()),
        change: |_| {},
        lifetime_seconds: 3600,
        write: 2.0,
        read: 0.1,
    };
    let openai = |change| Case {
        provider: "openai",
        base_path: "/v1",
        model: "gpt-5.6",
        family: || Box::new(OpenAi::new()),
        change,
        lifetime_seconds: 1800,
        write: 1.25,
        read: 0.1,
    };
    vec![
        case,
        openai(|options| options.cache.tiers_seconds = Some(vec![1800])),
        openai(|options| {
            options.dialect = UpstreamDialectName::OpenaiResponses;
            options.cache.tiers_seconds = Some(vec![1800]);
        }),
    ]
}

struct Scene {
    name: String,
    provider: Emulator,
    gateway: TestGateway,
    client: TestClient,
}

impl Scene {
    async fn new(case: &Case) -> Scene {
        let provider = Emulator::start((case.family)()).await;
        let base_url = format!("{}{}", provider.url, case.base_path);
        let mut options = upstream(case.provider, &base_url, "key-1");
        (case.change)(&mut options);
        let name = format!("{} {:?}", case.provider, options.dialect);
        let gateway = TestGateway::builder()
            .upstream(options)
            .route("model", &[(case.provider, case.model)])
            .start()
            .await;
        gateway.clock.follow_system();
        let client = gateway.client();
        Scene {
            name,
            provider,
            gateway,
            client,
        }
    }

    async fn context(&self, keep_warm: &str, fields: Value) -> String {
        let mut all = json!({"ttl": DAY_SECONDS, "keep_warm": keep_warm});
        all.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        hold(&self.client, "model", &document(3000, keep_warm), all).await
    }

    /// Lets time pass for both sides, and the gateway do what it does in the background.
    async fn pass(&self, time: Duration) {
        self.gateway.clock.advance(time);
        self.provider.clock().advance(time);
        self.gateway.app.tend_upstreams().await;
    }

    async fn pings(&self, id: &str) -> u64 {
        let context = self.client.get(&format!("/v1/context/{id}")).await.ok();
        context["account"]["pings"].as_u64().unwrap()
    }
}

fn written(charge: &Charge) -> u64 {
    charge.cache_write.values().sum()
}

#[tokio::test]
async fn auto_spends_at_most_what_writing_again_would_cost_at_any_lifetime() {
    for case in cases() {
        let scene = Scene::new(&case).await;
        let window = Duration::from_secs(case.lifetime_seconds) - BEFORE;
        let id = scene.context("auto", json!({})).await;
        for _ in 0..60 {
            ask(&scene.client, &id, "Busy?").await.ok();
            scene.pass(Duration::from_secs(10)).await;
        }
        assert_eq!(scene.pings(&id).await, 0, "{}", scene.name);
        // Until the first window without a ping.
        let mut pings = 0;
        loop {
            scene.pass(window).await;
            let now = scene.pings(&id).await;
            if now == pings {
                break;
            }
            assert_eq!(now, pings + 1, "{}", scene.name);
            pings = now;
        }
        let worth = ((case.write - case.read) / case.read + 1e-9).floor() as u64;
        assert_eq!(pings, worth, "{}", scene.name);

        let bill = scene.provider.bill().charges();
        let (first, rest) = bill.split_first().unwrap();
        assert!(written(first) > 2900, "{}: {first:?}", scene.name);
        assert!(
            rest.iter().all(|charge| written(charge) == 0),
            "{}: a ping reads and does not write: {rest:?}",
            scene.name
        );
        let silent = &rest[59..];
        assert_eq!(silent.len() as u64, pings, "{}", scene.name);
        let spent: f64 = silent
            .iter()
            .map(|charge| charge.cache_read as f64 * case.read)
            .sum();
        let saves = written(first) as f64 * (case.write - case.read);
        assert!(spent <= saves * 1.001, "{}: {spent} {saves}", scene.name);
        for charge in silent {
            assert!(
                charge.uncached_input < 20 && charge.output <= 1,
                "{charge:?}"
            );
        }
        scene.pass(BEFORE).await;
        let again = ask(&scene.client, &id, "Again?").await;
        assert_eq!(outcome(&again), rebuilt("expired"), "{}", scene.name);
        scene.gateway.stop().await;
    }
}

/// What pings take stands on the context's account to the last token, and at the catalog's prices.
#[tokio::test]
async fn what_pings_cost_is_on_the_account() {
    let case = &cases()[0];
    let scene = Scene::new(case).await;
    let id = scene.context("always", json!({})).await;
    ask(&scene.client, &id, "First?").await.ok();
    let window = Duration::from_secs(case.lifetime_seconds) - BEFORE;
    for _ in 0..5 {
        scene.pass(window).await;
    }
    let bill = scene
        .provider
        .bill()
        .total(|charge| charge.kind == "prewarm");
    assert!(bill.cache_read > 5 * 2900, "{bill:?}");
    let context = scene.client.get(&format!("/v1/context/{id}")).await.ok();
    let account = &context["account"];
    assert_eq!(account["pings"], 5);
    let told: f64 = account["ping_cost"].as_str().unwrap().parse().unwrap();
    // Dollars for a million tokens: 3 fresh, 0.3 read, 15 generated.
    let fresh = bill.uncached_input as f64;
    let cost = (fresh * 3.0 + bill.cache_read as f64 * 0.3 + bill.output as f64 * 15.0) / 1e6;
    assert!((told - cost).abs() < 1e-9, "{told} {cost}");
    scene.gateway.stop().await;
}

/// A copy with a name is not pinged: it lives as long as it was asked to, and is given longer while its context has it.
#[tokio::test]
async fn a_handle_is_kept_by_extending_it() {
    let case = Case {
        provider: "gemini",
        base_path: "/v1beta",
        model: "gemini-2.5-pro",
        family: || Box::new(Gemini::new()),
        change: |_| {},
        lifetime_seconds: 600,
        write: 1.0,
        read: 0.1,
    };
    let scene = Scene::new(&case).await;
    let fields = json!({"mode": "session", "ttl": 600});
    let id = scene.context("always", fields).await;
    for _ in 0..6 {
        ask(&scene.client, &id, "Still there?").await.ok();
        for _ in 0..22 {
            scene.pass(Duration::from_secs(25)).await;
        }
    }
    assert_eq!(outcome(&ask(&scene.client, &id, "Now?").await), hit());
    assert_eq!(scene.pings(&id).await, 0);
    let of = |method: &str| {
        count(&scene.provider, |request| {
            request.method == method && request.path.contains("/cachedContents")
        })
    };
    assert_eq!(of("POST"), 1);
    assert!(of("PATCH") >= 3, "{}", of("PATCH"));
    scene.gateway.stop().await;
}

/// The database is away for a moment just when a ping is due: the ping waits and is not given up.
#[tokio::test]
async fn a_ping_survives_a_moment_without_the_store() {
    let case = &cases()[0];
    let scene = Scene::new(case).await;
    let id = scene.context("always", json!({})).await;
    ask(&scene.client, &id, "First?").await.ok();
    scene.gateway.store.break_down(&[Operation::Get]);
    let window = Duration::from_secs(case.lifetime_seconds) - BEFORE;
    scene.pass(window).await;
    assert_eq!(scene.provider.requests().len(), 1);
    scene.gateway.store.mend();
    scene.pass(Duration::from_secs(1)).await;
    assert_eq!(scene.provider.requests().len(), 2);
    scene.gateway.stop().await;
}

/// One upstream that does not answer must not let the entries at the others run out.
#[tokio::test]
async fn an_upstream_that_hangs_does_not_keep_pings_from_the_others() {
    let hung = Emulator::start(Anthropic::new()).await;
    let sound = Emulator::start(Anthropic::new()).await;
    let mut builder = TestGateway::builder();
    for (name, emulator) in [("hung", &hung), ("sound", &sound)] {
        let mut options = upstream("anthropic", &emulator.url, "key-1");
        options.name = name.to_owned();
        options.timeouts.first_byte = Duration::from_secs(60);
        builder = builder
            .upstream(options)
            .route(name, &[(name, "claude-sonnet-4-6")]);
    }
    let gateway = builder.start().await;
    gateway.clock.follow_system();
    let client = gateway.client();
    let fields = json!({"ttl": DAY_SECONDS, "keep_warm": "always"});
    for (model, contexts) in [("hung", 6), ("sound", 1)] {
        for seed in 0..contexts {
            let text = document(3000, &format!("{model} {seed}"));
            let id = hold(&client, model, &text, fields.clone()).await;
            ask(&client, &id, "First?").await.ok();
        }
    }
    hung.faults()
        .always(Fault::SlowStart(Duration::from_secs(60)));
    let window = Duration::from_secs(3600) - BEFORE;
    gateway.clock.advance(window);
    for emulator in [&hung, &sound] {
        emulator.clock().advance(window);
    }
    let tending = tokio::spawn({
        let app = Arc::clone(&gateway.app);
        async move { app.tend_upstreams().await }
    });
    until(&sound, "a ping", |requests| requests.len() == 2).await;
    assert!(hung.requests().len() <= 12);
    tending.abort();
    drop(hung);
    gateway.stop().await;
}
