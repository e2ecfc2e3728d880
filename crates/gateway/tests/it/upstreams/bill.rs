//! What the gateway counts against what the providers would have charged, over ten thousand requests with faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::families::bedrock::Bedrock;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Charge, Emulator, Family, Fault, UsageFault};
use holdfast_testkit::{TestClient, TestGateway, TestGatewayBuilder, upstream};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{document, say};

const REQUESTS: usize = 10_000;
const WORKERS: u64 = 32;
/// Above every provider's minimum.
const DOCUMENT_TOKENS: usize = 4_300;

/// A provider, how to reach it, and a model that it serves.
struct Place {
    name: &'static str,
    path: &'static str,
    model: &'static str,
    family: Box<dyn Family>,
}

fn places() -> Vec<Place> {
    let place = |name, path, model, family: Box<dyn Family>| Place {
        name,
        path,
        model,
        family,
    };
    vec![
        place(
            "anthropic",
            "",
            "claude-sonnet-5-5",
            Box::new(Anthropic::new()),
        ),
        place("openai", "/v1", "gpt-5.6", Box::new(OpenAi::new())),
        place(
            "gemini",
            "/v1beta",
            "gemini-3.8-flash",
            Box::new(Gemini::new()),
        ),
        place(
            "ark",
            "/api/v3",
            "doubao-seed-2-1-pro-260915",
            Box::new(Ark::new()),
        ),
        place(
            "bedrock",
            "",
            "us.anthropic.claude-opus-5-5",
            Box::new(Bedrock::new()),
        ),
        place(
            "qwen",
            "/compatible-mode/v1",
            "qwen3.7-max",
            Box::new(Compatible::qwen()),
        ),
        place("kimi", "/v1", "kimi-k3", Box::new(Compatible::kimi())),
        place("vllm", "/v1", "some-model", Box::new(Compatible::vllm())),
    ]
}

/// Token kinds that are charged at rates of their own: fresh, read, written, generated.
pub(super) type Tokens = [u64; 4];

pub(super) fn charged(charge: &Charge) -> Tokens {
    [
        charge.uncached_input,
        charge.cache_read,
        charge.cache_write.values().sum(),
        charge.output,
    ]
}

/// What the gateway says, by upstream, of tokens whose numbers come from `source`.
pub(super) fn counted(metrics: &str, source: &str) -> BTreeMap<String, Tokens> {
    let mut all: BTreeMap<String, Tokens> = BTreeMap::new();
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("holdfast_upstream_tokens_total{") else {
            continue;
        };
        let (labels, count) = rest.split_once("} ").unwrap();
        let label = |name: &str| {
            let start = labels.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
            labels[start..].split('"').next().unwrap()
        };
        if label("source") != source {
            continue;
        }
        let kind = match label("kind") {
            "fresh" => 0,
            "cache_read" => 1,
            "output" => 3,
            _ => 2,
        };
        all.entry(label("upstream").to_owned()).or_default()[kind] += count.parse::<u64>().unwrap();
    }
    all
}

/// What the ledger says, by upstream.
pub(super) async fn ledger(client: &TestClient) -> BTreeMap<String, Tokens> {
    let page = client
        .get("/v1/usage?group_by=upstream&limit=1000")
        .await
        .ok();
    let groups = page["data"].as_array().unwrap().iter();
    groups
        .filter_map(|group| {
            let name = group["upstream"].as_str()?.to_owned();
            let count = |field: &str| group[field].as_u64().unwrap();
            let tokens = [
                count("fresh_tokens"),
                count("cached_tokens"),
                count("cache_write_tokens"),
                count("output_tokens"),
            ];
            Some((name, tokens))
        })
        .collect()
}

/// One of the workers that share the requests among them.
struct Worker {
    client: TestClient,
    random: StdRng,
    /// Contexts by model, shared with the other workers; sessions are this worker's own.
    contexts: Arc<BTreeMap<&'static str, Vec<String>>>,
    sessions: BTreeMap<&'static str, String>,
}

impl Worker {
    async fn request(&mut self) {
        let models: Vec<&'static str> = self.contexts.keys().copied().collect();
        let model = models[self.random.random_range(0..models.len())];
        let question = format!("Question {}", self.random.random_range(0..50));
        let stream = self.random.random_bool(0.4);
        let mut body =
            json!({"model": model, "messages": [say("user", &question)], "stream": stream});
        match self.random.random_range(0..100) {
            0..60 => {
                let contexts = &self.contexts[model];
                body["context_id"] = contexts[self.random.random_range(0..contexts.len())]
                    .clone()
                    .into();
            }
            60..75 => body["context_id"] = self.session(model).await.into(),
            75..95 => {}
            _ => {
                // A context that nobody else uses: made, asked once, deleted.
                let Some(id) = self.create(model, json!({})).await else {
                    return;
                };
                body["context_id"] = id.clone().into();
                self.client.post("/v1/chat/completions", &body).await;
                self.client.delete(&format!("/v1/context/{id}")).await;
                return;
            }
        }
        // What comes of it is the other tests' business; a failed one is charged, too, where the provider did the work.
        self.client.post("/v1/chat/completions", &body).await;
    }

    async fn session(&mut self, model: &'static str) -> String {
        if let Some(id) = self.sessions.get(model) {
            return id.clone();
        }
        loop {
            if let Some(id) = self.create(model, json!({"mode": "session"})).await {
                self.sessions.insert(model, id.clone());
                return id;
            }
        }
    }

    async fn create(&mut self, model: &str, fields: Value) -> Option<String> {
        let seed = format!("{model}-{}", self.random.random_range(0..1_000_000));
        let mut body =
            json!({"model": model, "messages": [say("system", &document(DOCUMENT_TOKENS, &seed))]});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let reply = self.client.post("/v1/context/create", &body).await;
        (reply.status == 200).then(|| reply.json()["id"].as_str().unwrap().to_owned())
    }
}

async fn started() -> (Vec<(&'static str, Emulator)>, TestGateway) {
    let mut emulators = Vec::new();
    let mut builder: TestGatewayBuilder = TestGateway::builder();
    for place in places() {
        let emulator = Emulator::start(place.family).await;
        let url = format!("{}{}", emulator.url, place.path);
        let mut options = upstream(place.name, &url, "secret-key-1");
        options.region = "us-east-1".to_owned();
        // All of them go on being asked, however often they fail.
        options.retry.breaker_failures = u32::MAX;
        builder = builder
            .upstream(options)
            .route(place.name, &[(place.name, place.model)]);
        emulators.push((place.name, emulator));
    }
    let gateway = builder.start().await;
    gateway.clock.follow_system();
    (emulators, gateway)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_equals_the_bill_over_ten_thousand_requests_with_faults() {
    let (emulators, gateway) = started().await;
    let client = gateway.client();
    let mut contexts = BTreeMap::new();
    for (model, _) in &emulators {
        let mut ids = Vec::new();
        for number in 0..4 {
            let text = document(DOCUMENT_TOKENS, &format!("{model}-shared-{number}"));
            ids.push(super::hold(&client, model, &text, json!({})).await);
        }
        contexts.insert(*model, ids);
    }
    let contexts = Arc::new(contexts);
    for (seed, (_, emulator)) in (1..).zip(&emulators) {
        let faults = vec![
            Fault::Status(500, None),
            Fault::Status(429, None),
            Fault::CloseBeforeHead,
            Fault::CutAfter(2),
            Fault::ErrorInside(2),
            Fault::HalfFrame(2),
            Fault::Rechunked(3),
            Fault::Usage(UsageFault::Missing),
            Fault::Usage(UsageFault::Repeated),
        ];
        emulator.faults().random(seed, 0.05, faults);
    }

    let left = Arc::new(AtomicUsize::new(REQUESTS));
    let workers = (0..WORKERS).map(|seed| {
        let mut worker = Worker {
            client: client.clone(),
            random: StdRng::seed_from_u64(seed),
            contexts: Arc::clone(&contexts),
            sessions: BTreeMap::new(),
        };
        let left = Arc::clone(&left);
        tokio::spawn(async move {
            while left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .is_ok()
            {
                worker.request().await;
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    // Now and then a provider forgets everything.
    while left.load(Ordering::SeqCst) > 0 {
        for (_, emulator) in &emulators {
            let before = left.load(Ordering::SeqCst);
            while left.load(Ordering::SeqCst) > before.saturating_sub(300)
                && left.load(Ordering::SeqCst) > 0
            {
                tokio::task::yield_now().await;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            emulator.evict_all();
        }
    }
    for worker in workers {
        worker.await.unwrap();
    }
    for (_, emulator) in &emulators {
        emulator
            .in_flight()
            .wait_for(|count| *count == 0)
            .await
            .unwrap();
    }

    let metrics = client.get("/metrics").await.text();
    let reported = counted(&metrics, "provider");
    let estimated = counted(&metrics, "estimate");
    let ledger = ledger(&client).await;
    for (name, emulator) in &emulators {
        // The ledger has no token less and none more than were counted.
        let told = reported.get(*name).copied().unwrap_or_default();
        let guessed = estimated.get(*name).copied().unwrap_or_default();
        let sum: Tokens = std::array::from_fn(|kind| told[kind] + guessed[kind]);
        assert_eq!(ledger[*name], sum, "{name}: the ledger");
        let is_chat = |charge: &Charge| charge.kind != "storage";
        let bill = emulator
            .bill()
            .total(|charge| is_chat(charge) && charge.reported);
        assert_eq!(
            reported[*name],
            charged(&bill),
            "{name}: fresh, read, written, generated"
        );
        // The mix was what it was meant to be: many answers, most of them from the cache.
        let answered = emulator
            .bill()
            .charges()
            .iter()
            .filter(|charge| charge.reported)
            .count();
        assert!(answered > REQUESTS / 20, "{name}: {answered}");
        assert!(bill.cache_read > bill.uncached_input, "{name}: {bill:?}");
        // Tokens whose numbers the provider kept to itself are there, too, as estimates.
        let hidden = emulator
            .bill()
            .total(|charge| is_chat(charge) && !charge.reported);
        assert!(hidden.input() > 0, "{name}: the faults hid something");
        assert!(estimated[*name][0] > 0, "{name}: {estimated:?}");
    }
    gateway.stop().await;
}
