//! What the gateway writes down of single requests against what the provider charges for them. `bill` has the sum over
//! very many.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast::app::UpstreamOptions;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::families::bedrock::Bedrock;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Charge, Emulator, Family, Fault, UsageFault};
use holdfast_testkit::{TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::bill::{Tokens, charged, counted, ledger};
use super::{account, ask, document, hold, say, until};

type Provider = (&'static str, Box<dyn Family>, &'static str, &'static str);

fn providers() -> Vec<Provider> {
    let seed = "doubao-seed-2-1-pro-260915";
    let deepseek = Compatible::deepseek_with(Duration::ZERO);
    vec![
        (
            "anthropic",
            Box::new(Anthropic::new()),
            "",
            "claude-sonnet-4-6",
        ),
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-5.6"),
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-4.1"),
        (
            "gemini",
            Box::new(Gemini::new()),
            "/v1beta",
            "gemini-2.5-pro",
        ),
        ("ark", Box::new(Ark::new()), "/api/v3", seed),
        (
            "bedrock",
            Box::new(Bedrock::new()),
            "",
            "us.anthropic.claude-opus-5-5",
        ),
        (
            "qwen",
            Box::new(Compatible::qwen()),
            "/compatible-mode/v1",
            "qwen3.7-max",
        ),
        ("kimi", Box::new(Compatible::kimi()), "/v1", "kimi-k3"),
        ("deepseek", Box::new(deepseek), "", "deepseek-v4-pro"),
        (
            "openrouter",
            Box::new(Compatible::openrouter()),
            "/api/v1",
            "anthropic/claude-sonnet-5-5",
        ),
    ]
}

/// What happens to one request.
#[derive(Debug, Clone)]
enum Accident {
    Fault(Fault),
    /// The client leaves in the middle.
    Leaves,
    /// The client leaves before there is anything to see.
    LeavesEarly,
    /// The upstream takes too long and is asked again.
    TooSlow,
}

fn accidents() -> Vec<Accident> {
    let fault = Accident::Fault;
    vec![
        fault(Fault::CutAfter(0)),
        fault(Fault::CutAfter(4)),
        fault(Fault::HalfFrame(0)),
        fault(Fault::HalfFrame(4)),
        fault(Fault::ErrorInside(4)),
        fault(Fault::StallAfter(4)),
        fault(Fault::OversizedFrame(4, 64 * 1024 * 1024)),
        fault(Fault::Usage(UsageFault::Missing)),
        fault(Fault::Usage(UsageFault::Repeated)),
        fault(Fault::Rechunked(3)),
        fault(Fault::Status(500, None)),
        fault(Fault::CloseBeforeHead),
        Accident::Leaves,
        Accident::LeavesEarly,
        Accident::TooSlow,
    ]
}

struct Scene {
    name: String,
    upstream: &'static str,
    emulator: Emulator,
    gateway: TestGateway,
    client: TestClient,
}

impl Scene {
    async fn new(provider: Provider, change: impl FnOnce(&mut UpstreamOptions)) -> Scene {
        let (upstream_name, family, base_path, model) = provider;
        let emulator = Emulator::start(family).await;
        let url = format!("{}{base_path}", emulator.url);
        let mut options = upstream(upstream_name, &url, "key-1");
        change(&mut options);
        let gateway = TestGateway::builder()
            .upstream(options)
            .route("model", &[(upstream_name, model)])
            .start()
            .await;
        gateway.clock.follow_system();
        let client = gateway.client();
        Scene {
            name: format!("{upstream_name} {model}"),
            upstream: upstream_name,
            emulator,
            gateway,
            client,
        }
    }

    /// The counts with this source once nothing is under way any more.
    async fn counted(&self) -> [Tokens; 2] {
        let mut in_flight = self.emulator.in_flight();
        in_flight.wait_for(|count| *count == 0).await.unwrap();
        let metrics = self.client.get("/metrics").await.text();
        ["provider", "estimate"].map(|source| {
            counted(&metrics, source)
                .remove(self.upstream)
                .unwrap_or_default()
        })
    }

    async fn meet(&self, accident: &Accident, body: &Value) {
        let faults = self.emulator.faults();
        let path = "/v1/chat/completions";
        let send = || {
            let request = self.client.request(reqwest::Method::POST, path);
            request.json(body).send()
        };
        match accident {
            Accident::Fault(fault) => {
                faults.next(fault.clone());
                self.client.post(path, body).await;
            }
            Accident::Leaves => {
                faults.next(Fault::SlowDrip(Duration::from_millis(30)));
                let mut response = send().await.unwrap();
                response.chunk().await.unwrap().unwrap();
                drop(response);
            }
            Accident::LeavesEarly => {
                let asked = self.emulator.requests().len();
                faults.next(Fault::SlowStart(Duration::from_secs(60)));
                let waiting = tokio::spawn(send());
                until(&self.emulator, "the request", |requests| {
                    requests.len() > asked
                })
                .await;
                waiting.abort();
            }
            Accident::TooSlow => {
                faults.next(Fault::SlowStart(Duration::from_secs(60)));
                self.client.post(path, body).await.chunks();
            }
        }
    }
}

fn minus(after: Tokens, before: Tokens) -> Tokens {
    std::array::from_fn(|kind| after[kind] - before[kind])
}

fn sum(charges: &[Charge]) -> Tokens {
    let mut sum = Tokens::default();
    for charge in charges.iter().filter(|charge| charge.kind != "storage") {
        for (sum, tokens) in sum.iter_mut().zip(charged(charge)) {
            *sum += tokens;
        }
    }
    sum
}

fn input(tokens: Tokens) -> u64 {
    tokens[0] + tokens[1] + tokens[2]
}

/// Each request that the provider charges for is counted once: with the provider's numbers where it has told them, else
/// by an estimate that says so; what is not charged for is not counted.
#[tokio::test]
async fn whatever_happens_to_a_request_it_is_counted_once() {
    let mut checks = tokio::task::JoinSet::new();
    for provider in providers() {
        checks.spawn(check_accidents(provider));
    }
    while let Some(check) = checks.join_next().await {
        check.unwrap();
    }
}

async fn check_accidents(provider: Provider) {
    let scene = Scene::new(provider, |options| {
        options.timeouts.first_byte = Duration::from_millis(1500);
        options.timeouts.idle = Duration::from_millis(1000);
        options.retry.breaker_failures = u32::MAX;
    })
    .await;
    let text = document(4300, "a");
    let id = hold(&scene.client, "model", &text, json!({"ttl": 3600})).await;
    // Thrice, because some caches learn only from a second request what is shared.
    for _ in 0..3 {
        ask(&scene.client, &id, "What is on line 1?").await.ok();
    }
    for accident in accidents() {
        for with_context in [true, false] {
            let what = format!("{} {accident:?} {with_context}", scene.name);
            let mut body = json!({"model": "model", "stream": true});
            let question = say("user", "What is on line 1?");
            if with_context {
                body["context_id"] = id.clone().into();
                body["messages"] = json!([question]);
            } else {
                body["messages"] = json!([say("system", &text), question]);
            }
            let before = scene.counted().await;
            let charges_before = scene.emulator.bill().charges().len();
            scene.meet(&accident, &body).await;
            let after = scene.counted().await;
            let charges = scene.emulator.bill().charges().split_off(charges_before);
            let [told, estimated] = [0, 1].map(|source| minus(after[source], before[source]));
            // What the emulator would have told, had anybody listened.
            let is_heard = |number: usize, charge: &Charge| match accident {
                Accident::Fault(_) => charge.reported,
                Accident::Leaves | Accident::LeavesEarly => false,
                Accident::TooSlow => number > 0,
            };
            let (heard, unheard): (Vec<_>, Vec<_>) = charges
                .into_iter()
                .enumerate()
                .partition(|(number, charge)| is_heard(*number, charge));
            let strip = |numbered: Vec<(usize, Charge)>| -> Vec<Charge> {
                numbered.into_iter().map(|(_, charge)| charge).collect()
            };
            let (heard, unheard) = (sum(&strip(heard)), sum(&strip(unheard)));
            assert_eq!(told, heard, "{what}: fresh, read, written, generated");
            if input(unheard) == 0 {
                assert_eq!(estimated, Tokens::default(), "{what}: estimated");
                continue;
            }
            let is_near = |estimate: u64, truth: u64| {
                let slack = 500 + truth / 4;
                estimate.abs_diff(truth) < slack
            };
            assert!(
                is_near(input(estimated), input(unheard)),
                "{what}: {estimated:?} for {unheard:?}"
            );
            if with_context {
                // What was read is not estimated as if it had been sent afresh, at ten times the price.
                assert!(
                    is_near(estimated[1], unheard[1]),
                    "{what}: {estimated:?} for {unheard:?}"
                );
            }
        }
    }
    // Whatever happened, the ledger's rows have exactly what was counted.
    let [told, estimated] = scene.counted().await;
    let sum: Tokens = std::array::from_fn(|kind| told[kind] + estimated[kind]);
    let ledger = ledger(&scene.client).await;
    assert_eq!(ledger[scene.upstream], sum, "{}: the ledger", scene.name);
    scene.gateway.stop().await;
}

/// Thousandths of a dollar for a million tokens (facts section 7): fresh, read, written by lifetime, generated.
struct Prices {
    fresh: u64,
    read: u64,
    written: BTreeMap<u64, u64>,
    output: u64,
}

impl Prices {
    /// Trillionths of a dollar.
    fn cost(&self, charge: &Charge) -> u64 {
        let written: u64 = charge
            .cache_write
            .iter()
            .map(|(seconds, tokens)| tokens * self.written[seconds])
            .sum();
        let read = charge.cache_read * self.read;
        let thousandths =
            charge.uncached_input * self.fresh + read + written + charge.output * self.output;
        thousandths * 1000
    }
}

fn prices(fresh: u64, read: u64, written: &[(u64, u64)], output: u64) -> Prices {
    Prices {
        fresh,
        read,
        written: written.iter().copied().collect(),
        output,
    }
}

/// What stands on a context's account is what its bill comes to at the published prices.
#[tokio::test]
async fn an_account_in_money_is_the_bill_at_the_list_prices() {
    let listed = [
        (
            "claude-sonnet-4-6",
            prices(3000, 300, &[(300, 3750), (3600, 6000)], 15_000),
        ),
        (
            "gpt-5.6",
            prices(4000, 400, &[(1800, 5000), (43_200, 10_000)], 20_000),
        ),
        ("gpt-4.1", prices(2000, 500, &[], 8000)),
        ("gemini-2.5-pro", prices(1250, 125, &[], 10_000)),
        (
            "us.anthropic.claude-opus-5-5",
            prices(4400, 220, &[(300, 5500), (3600, 8800)], 22_000),
        ),
        (
            "kimi-k3",
            prices(3000, 300, &[(300, 3000), (3600, 6000)], 15_000),
        ),
        ("deepseek-v4-pro", prices(1320, 44, &[], 3960)),
    ];
    for provider in providers() {
        let Some((_, prices)) = listed.iter().find(|(model, _)| *model == provider.3) else {
            continue;
        };
        for (mode, ttl) in [("common_prefix", 300), ("session", 3600)] {
            let (name, _, base_path, model) = provider;
            let family = providers()
                .into_iter()
                .find(|other| other.0 == name && other.3 == model)
                .unwrap()
                .1;
            let scene = Scene::new((name, family, base_path, model), |_| {}).await;
            let fields = json!({"ttl": ttl, "mode": mode});
            let id = hold(&scene.client, "model", &document(5000, "a"), fields).await;
            for number in 1..=12_u64 {
                if number == 7 {
                    scene.emulator.evict_all();
                }
                ask(&scene.client, &id, &format!("Question {number}?"))
                    .await
                    .ok();
                scene.gateway.clock.advance(Duration::from_secs(20));
                scene.emulator.clock().advance(Duration::from_secs(20));
            }
            let totals = account(&scene.gateway, &id, 12).await.totals;
            let charges = scene.emulator.bill().charges();
            let charges = charges.iter().filter(|charge| charge.kind != "storage");
            let cost: u64 = charges.map(|charge| prices.cost(charge)).sum();
            assert_eq!(
                u64::try_from(totals.cost).unwrap(),
                cost,
                "{} {mode}: {:#?}",
                scene.name,
                scene.emulator.bill().charges()
            );
            assert_eq!(totals.requests, 12);
            scene.gateway.stop().await;
        }
    }
}
