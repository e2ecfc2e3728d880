//! The ten acceptance tests of facts section 5.5, and what a context outlives.

use std::time::Duration;

use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::families::bedrock::Bedrock;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Charge, Emulator, Family, Fault, RawRequest};
use holdfast_protocol::provider::UpstreamDialectName;
use holdfast_store::KeyScope;
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::{account, ask, chats, document, gateway_for, hold, outcome, post_stream};
use crate::say;

pub(super) fn hit() -> (String, String) {
    ("hit".to_owned(), String::new())
}

pub(super) fn rebuilt(reason: &str) -> (String, String) {
    ("rebuilt".to_owned(), reason.to_owned())
}

/// A provider with markers: name, family, base path, model.
pub(super) type Marked = (&'static str, Box<dyn Family>, &'static str, &'static str);

fn with_markers() -> Vec<Marked> {
    vec![
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-5.6"),
        ("azure", Box::new(OpenAi::azure()), "/openai/v1", "gpt-5.6"),
        (
            "anthropic",
            Box::new(Anthropic::new()),
            "",
            "claude-opus-5-5",
        ),
        (
            "bedrock",
            Box::new(Bedrock::new()),
            "",
            "anthropic.claude-sonnet-5-5",
        ),
        (
            "qwen",
            Box::new(Compatible::qwen()),
            "/compatible-mode/v1",
            "qwen3.8-max",
        ),
        (
            "minimax",
            Box::new(Anthropic::minimax()),
            "/anthropic",
            "MiniMax-M2.5",
        ),
        (
            "openrouter",
            Box::new(Compatible::openrouter()),
            "/api/v1",
            "anthropic/claude-sonnet-5-5",
        ),
        (
            "openrouter",
            Box::new(Compatible::openrouter()),
            "/api/v1",
            "openai/gpt-5.6",
        ),
    ]
}

fn chat_charges(emulator: &Emulator) -> Vec<Charge> {
    let charges = emulator.bill().charges();
    charges
        .into_iter()
        .filter(|charge| charge.kind == "chat")
        .collect()
}

fn written(charge: &Charge) -> u64 {
    charge.cache_write.values().sum()
}

#[tokio::test]
async fn acceptance_1_the_same_context_with_a_different_question_hits_on_every_marker_provider() {
    for (provider, family, base_path, model) in with_markers() {
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, provider, base_path, model).await;
        let client = gateway.client();
        let id = hold(&client, "model", &document(5000, "a"), json!({"ttl": 300})).await;
        let first = ask(&client, &id, "What is on line 1?").await;
        assert_eq!(outcome(&first).0, "miss", "{provider}");
        for question in ["And on line 2?", "Is that all there is to say about foxes?"] {
            assert_eq!(
                outcome(&ask(&client, &id, question).await),
                hit(),
                "{provider} {model}"
            );
        }
        let charges = chat_charges(&emulator);
        let prefix = written(&charges[0]);
        assert!(prefix >= 4900, "{provider} {model}: {charges:?}");
        for charge in &charges[1..] {
            if (provider, model) == ("openrouter", "openai/gpt-5.6") {
                // Nobody can turn OpenAI's own breakpoint at the end of the question off there.
                assert!(
                    charge.cache_read >= 4900 && written(charge) < 100,
                    "{charge:?}"
                );
            } else {
                assert_eq!(
                    (charge.cache_read, written(charge)),
                    (prefix, 0),
                    "{provider} {model}"
                );
            }
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn acceptance_2_a_stream_costs_what_a_whole_answer_costs() {
    let families: Vec<Marked> = vec![
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-5.6"),
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-4.1"),
        (
            "anthropic",
            Box::new(Anthropic::new()),
            "",
            "claude-opus-5-5",
        ),
        (
            "bedrock",
            Box::new(Bedrock::new()),
            "",
            "us.anthropic.claude-opus-5-5",
        ),
        (
            "gemini",
            Box::new(Gemini::new()),
            "/v1beta",
            "gemini-2.5-pro",
        ),
        (
            "deepseek",
            Box::new(Compatible::deepseek_with(Duration::ZERO)),
            "",
            "deepseek-v4-pro",
        ),
        ("kimi", Box::new(Compatible::kimi()), "/v1", "kimi-k3"),
        ("xai", Box::new(Compatible::xai()), "/v1", "grok-4.7"),
    ];
    let mut checks = tokio::task::JoinSet::new();
    for family in families {
        checks.spawn(check_stream_cost(family));
    }
    while let Some(check) = checks.join_next().await {
        check.unwrap();
    }
}

async fn check_stream_cost((provider, family, base_path, model): Marked) {
    let emulator = Emulator::start(family).await;
    let gateway = gateway_for(&emulator, provider, base_path, model).await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(5000, "a"), json!({"ttl": 300})).await;
    let mut costs = Vec::new();
    for request in 0..5 {
        // The first ones write what the later ones find.
        if request < 4 {
            ask(&client, &id, "What is on line 1?").await.ok();
        } else {
            post_stream(&client, &id, "What is on line 1?").await;
        }
        costs.push(account(&gateway, &id, request + 1).await.totals.cost);
    }
    let whole = costs[3] - costs[2];
    let streamed = costs[4] - costs[3];
    assert!(whole > 0, "{provider} {model} has no price");
    assert_eq!(streamed, whole, "{provider} {model}");
    let charges = chat_charges(&emulator);
    let [.., before, last] = charges.as_slice() else {
        panic!()
    };
    assert_eq!(before, last, "{provider} {model}");
    gateway.stop().await;
}

/// Families with handles: name, family, base path, model, dialect, and the path that makes a handle.
type WithHandles = (
    &'static str,
    Box<dyn Family>,
    &'static str,
    &'static str,
    Option<UpstreamDialectName>,
    fn(&RawRequest) -> bool,
);

fn with_handles() -> Vec<WithHandles> {
    fn cached_contents(request: &RawRequest) -> bool {
        request.method == "POST" && request.path.ends_with("/cachedContents")
    }
    fn prefix(request: &RawRequest) -> bool {
        request.json().unwrap_or_default()["caching"]["prefix"] == true
    }
    fn context(request: &RawRequest) -> bool {
        request.path.ends_with("/context/create")
    }
    let seed = "doubao-seed-2-1-pro-260915";
    let context_api = Some(UpstreamDialectName::ArkContext);
    vec![
        (
            "gemini",
            Box::new(Gemini::new()),
            "/v1beta",
            "gemini-2.5-pro",
            None,
            cached_contents,
        ),
        (
            "vertex",
            Box::new(Gemini::vertex("token")),
            "/v1/projects/p/locations/l",
            "gemini-2.5-pro",
            None,
            cached_contents,
        ),
        ("ark", Box::new(Ark::new()), "/api/v3", seed, None, prefix),
        (
            "ark",
            Box::new(Ark::new().gone_is_400()),
            "/api/v3",
            seed,
            None,
            prefix,
        ),
        (
            "ark",
            Box::new(Ark::new()),
            "/api/v3",
            "ep-20261122",
            context_api,
            context,
        ),
        (
            "ark",
            Box::new(Ark::new().gone_is_400()),
            "/api/v3",
            "ep-20261122",
            context_api,
            context,
        ),
    ]
}

async fn gateway_with_handles(
    case: WithHandles,
) -> (Emulator, TestGateway, fn(&RawRequest) -> bool) {
    let (provider, family, base_path, model, dialect, makes) = case;
    let emulator = Emulator::start(family).await;
    let base_url = format!("{}{base_path}", emulator.url);
    let mut options = upstream(provider, &base_url, "token");
    options.dialect = dialect.unwrap_or(options.dialect);
    if provider == "vertex" {
        // A token that the operator got by other means is sent as a bearer token by way of a header.
        options.credentials = holdfast::app::Credentials::None;
        options.headers = vec![("authorization".to_owned(), "Bearer token".to_owned())];
        options.region = "l".to_owned();
        options.project = "p".to_owned();
    }
    let gateway = TestGateway::builder()
        .upstream(options)
        .route("model", &[(provider, model)])
        .start()
        .await;
    gateway.clock.follow_system();
    (emulator, gateway, makes)
}

pub(super) fn count(emulator: &Emulator, wanted: impl Fn(&RawRequest) -> bool) -> usize {
    emulator
        .requests()
        .iter()
        .filter(|request| wanted(request))
        .count()
}

#[tokio::test]
async fn acceptance_3_a_lost_handle_is_made_again_once_and_the_receipt_says_so() {
    for case in with_handles() {
        let name = format!("{} {}", case.0, case.3);
        let (emulator, gateway, makes) = gateway_with_handles(case).await;
        let client = gateway.client();
        let id = hold(&client, "model", &document(5000, "a"), json!({})).await;
        assert_eq!(outcome(&ask(&client, &id, "One?").await), hit(), "{name}");

        emulator.evict_all();
        let reply = ask(&client, &id, "Two?").await;
        assert_eq!(outcome(&reply), rebuilt("handle_gone"), "{name}");
        assert!(reply.answer().starts_with("You sent me"), "{name}");
        assert_eq!(outcome(&ask(&client, &id, "Three?").await), hit(), "{name}");
        assert_eq!(count(&emulator, makes), 2, "{name}");

        // Ark is told the time of the end, and would refuse one that is over by its clock.
        if name.starts_with("ark doubao") {
            emulator.evict_all();
        } else {
            // Their clock runs ahead of ours, so that the end comes sooner than was asked for.
            emulator.clock().advance(Duration::from_secs(2 * 86_400));
        }
        let chunks = post_stream(&client, &id, "Four?").await;
        let receipt = super::receipt(&chunks);
        assert_eq!(receipt["status"], "rebuilt", "{name}: {receipt}");
        assert_eq!(receipt["reason"], "handle_gone", "{name}");
        assert_eq!(count(&emulator, makes), 3, "{name}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn acceptance_4_a_foreign_id_is_not_found_and_nothing_goes_upstream() {
    let emulator = Emulator::start(Gemini::new()).await;
    let gateway = gateway_for(&emulator, "gemini", "/v1beta", "gemini-2.5-pro").await;
    let other = gateway.client_of("other", &[KeyScope::Inference]).await;
    let id = hold(&gateway.client(), "model", &document(3000, "a"), json!({})).await;
    emulator.clear_requests();
    let foreign = ask(&other, &id, "What is it?").await.error(404);
    let unknown = format!("{}x", &id[..id.len() - 1]);
    assert_eq!(
        foreign,
        ask(&other, &unknown, "What is it?").await.error(404)
    );
    other.delete(&format!("/v1/context/{id}")).await.error(404);
    assert_eq!(emulator.requests().len(), 0);
    gateway.stop().await;
}

/// Ark's handles end when they were told to, however much they are used; the session lives on.
#[tokio::test]
async fn acceptance_3_a_session_outlives_a_handle_that_does_not_slide() {
    let emulator = Emulator::start(Ark::new()).await;
    let gateway = gateway_for(&emulator, "ark", "/api/v3", "doubao-seed-2-1-pro-260915").await;
    let client = gateway.client();
    let fields = json!({"mode": "session", "ttl": 3600});
    let id = hold(&client, "model", &document(3000, "a"), fields).await;
    assert_eq!(outcome(&ask(&client, &id, "I am Ada.").await), hit());
    let pass = |minutes: u64| {
        gateway.clock.advance(Duration::from_secs(minutes * 60));
        emulator.clock().advance(Duration::from_secs(minutes * 60));
    };
    pass(50);
    let before = ask(&client, &id, "Who am I?").await;
    assert_eq!(outcome(&before), hit());
    pass(20);
    let after = ask(&client, &id, "And now?").await;
    assert_eq!(outcome(&after), rebuilt("expired"));
    let prompt = |reply: &Reply| reply.json()["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(
        prompt(&after) > prompt(&before),
        "the earlier turns are in it"
    );
    assert_eq!(outcome(&ask(&client, &id, "And then?").await), hit());
    gateway.stop().await;
}

async fn ask_all(client: &TestClient, id: &str, callers: usize) -> Vec<Reply> {
    let chats = (0..callers).map(|caller| {
        let (client, id) = (client.clone(), id.to_owned());
        tokio::spawn(async move { ask(&client, &id, &format!("Question {caller}?")).await })
    });
    let chats: Vec<_> = chats.collect();
    let mut replies = Vec::new();
    for chat in chats {
        let reply = chat.await.unwrap();
        assert!(reply.answer().starts_with("You sent me"));
        replies.push(reply);
    }
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acceptance_5_a_hundred_first_calls_at_once_make_one_write() {
    for (provider, family, base_path, model) in with_markers() {
        if (provider, model) == ("openrouter", "openai/gpt-5.6") {
            continue;
        }
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, provider, base_path, model).await;
        let client = gateway.client();
        let id = hold(&client, "model", &document(3000, "a"), json!({"ttl": 300})).await;
        // An entry can be read once the answer that writes it has begun.
        emulator
            .faults()
            .next(Fault::SlowStart(Duration::from_millis(300)));
        let replies = ask_all(&client, &id, 100).await;
        let charges = chat_charges(&emulator);
        assert_eq!(charges.len(), 100, "{provider}");
        let writes = charges.iter().filter(|charge| written(charge) > 0).count();
        assert_eq!(writes, 1, "{provider} {model}");
        let hits = replies
            .iter()
            .filter(|reply| outcome(reply) == hit())
            .count();
        assert_eq!(hits, 99, "{provider} {model}");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acceptance_5_a_hundred_first_calls_at_once_make_one_handle_also_after_it_was_lost() {
    for case in with_handles() {
        let name = format!("{} {}", case.0, case.3);
        let (emulator, gateway, makes) = gateway_with_handles(case).await;
        let client = gateway.client();
        let lazy = json!({"warm": "lazy"});
        let id = hold(&client, "model", &document(3000, "a"), lazy).await;
        assert_eq!(count(&emulator, makes), 0, "{name}");
        ask_all(&client, &id, 100).await;
        assert_eq!(count(&emulator, makes), 1, "{name}");
        emulator.evict_all();
        ask_all(&client, &id, 100).await;
        assert_eq!(count(&emulator, makes), 2, "{name}");
        gateway.stop().await;
    }
}

/// Lifetimes of all markers of a request in the order in which the provider reads them, seconds.
fn marker_seconds(request: &RawRequest) -> Vec<u64> {
    fn collect(value: &Value, found: &mut Vec<u64>) {
        let seconds = |ttl: &Value| if ttl == "1h" { 3600 } else { 300 };
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    match name.as_str() {
                        "cache_control" | "cachePoint" => found.push(seconds(&value["ttl"])),
                        _ => collect(value, found),
                    }
                }
            }
            _ => {}
        }
    }
    let body = request.json().unwrap();
    let mut found = Vec::new();
    for part in [
        &body["tools"],
        &body["toolConfig"],
        &body["system"],
        &body["messages"],
    ] {
        collect(part, &mut found);
    }
    found
}

#[tokio::test]
async fn acceptance_6_lifetimes_of_markers_never_grow_and_there_are_four_at_most() {
    let tool = json!({"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}});
    for (provider, family, base_path, model) in with_markers() {
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, provider, base_path, model).await;
        let client = gateway.client();
        for ttl in [300, 3600, 86_400] {
            let fields = json!({"ttl": ttl, "mode": "session", "tools": [tool]});
            let id = hold(&client, "model", &document(2000, "a"), fields).await;
            for question in ["One?", "Two?", "Three?", "Four?", "Five?", "Six?"] {
                ask(&client, &id, question).await.ok();
            }
        }
        let requests = emulator.requests();
        assert_eq!(requests.len(), 18, "{provider}");
        for request in &requests {
            let seconds = marker_seconds(request);
            assert!(seconds.len() <= 4, "{provider}: {seconds:?}");
            assert!(
                seconds.is_sorted_by(|a, b| a >= b),
                "{provider}: {seconds:?}"
            );
        }
        if ["anthropic", "bedrock"].contains(&provider) {
            let last = marker_seconds(&requests[17]);
            assert_eq!(
                (last[0], *last.last().unwrap()),
                (3600, 300),
                "{provider}: {last:?}"
            );
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn acceptance_7_a_context_that_is_too_small_is_refused_or_replayed_with_the_reason() {
    let families: Vec<Marked> = vec![
        (
            "gemini",
            Box::new(Gemini::new()),
            "/v1beta",
            "gemini-3.8-flash",
        ),
        (
            "anthropic",
            Box::new(Anthropic::new()),
            "",
            "claude-haiku-4-5",
        ),
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-5.6"),
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-4.1"),
        (
            "qwen",
            Box::new(Compatible::qwen()),
            "/compatible-mode/v1",
            "qwen3.8-max",
        ),
        (
            "bedrock",
            Box::new(Bedrock::new()),
            "",
            "anthropic.claude-haiku-4-5",
        ),
        (
            "ark",
            Box::new(Ark::new()),
            "/api/v3",
            "doubao-seed-2-1-pro-260915",
        ),
    ];
    for (provider, family, base_path, model) in families {
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, provider, base_path, model).await;
        let client = gateway.client();
        let small = document(150, "a");
        let body = json!({"model": "model", "messages": [say("system", &small)]});
        let error = client.post("/v1/context/create", &body).await.error(400);
        assert_eq!(error["param"], "messages", "{provider}: {error}");
        assert_eq!(emulator.requests().len(), 0, "{provider}");

        let id = hold(&client, "model", &small, json!({"on_too_small": "replay"})).await;
        for question in ["One?", "Two?", "Three?"] {
            let reply = ask(&client, &id, question).await;
            let expected = ("degraded".to_owned(), "below_minimum".to_owned());
            assert_eq!(outcome(&reply), expected, "{provider} {model}");
            assert!(reply.answer().starts_with("You sent me"), "{provider}");
        }
        // What was refused once is not tried with every chat.
        assert!(
            emulator.requests().len() <= 4,
            "{provider}: {}",
            emulator.requests().len()
        );
        gateway.stop().await;
    }
}

/// The gateway's estimate says that it is large enough, the provider's count that it is not.
#[tokio::test]
async fn acceptance_7_the_providers_own_word_decides_on_what_is_too_small() {
    let emulator = Emulator::start(Gemini::new()).await;
    let gateway = gateway_for(&emulator, "gemini", "/v1beta", "gemini-3.8-flash").await;
    let client = gateway.client();
    let text = document(3600, "a");
    let body = json!({"model": "model", "messages": [say("system", &text)]});
    let error = client.post("/v1/context/create", &body).await.error(400);
    assert_eq!(error["param"], "messages", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("too small"),
        "{error}"
    );
    let fields = json!({"on_too_small": "replay"});
    let id = hold(&client, "model", &text, fields).await;
    for question in ["One?", "Two?"] {
        let expected = ("degraded".to_owned(), "below_minimum".to_owned());
        assert_eq!(outcome(&ask(&client, &id, question).await), expected);
    }
    assert!(chats(&emulator, "/cachedContents") <= 3);
    gateway.stop().await;
}

#[tokio::test]
async fn acceptance_8_a_fallback_writes_once_and_then_the_context_stays_there() {
    let (a, b) = (
        Emulator::start(Anthropic::new()).await,
        Emulator::start(Anthropic::new()).await,
    );
    let mut second = upstream("anthropic", &b.url, "key-b");
    second.name = "second".to_owned();
    let gateway = TestGateway::builder()
        .upstream(upstream("anthropic", &a.url, "key-a"))
        .upstream(second)
        .route(
            "model",
            &[
                ("anthropic", "claude-opus-5-5"),
                ("second", "claude-opus-5-5"),
            ],
        )
        .start()
        .await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    ask(&client, &id, "One?").await.ok();
    assert_eq!(outcome(&ask(&client, &id, "Two?").await), hit());

    a.faults().always(Fault::Status(529, None));
    let reply = ask(&client, &id, "Three?").await;
    assert_eq!(outcome(&reply), rebuilt("failover"));
    assert_eq!(outcome(&ask(&client, &id, "Four?").await), hit());
    a.faults().clear();
    let asked = a.requests().len();
    for question in ["Five?", "Six?"] {
        assert_eq!(outcome(&ask(&client, &id, question).await), hit());
    }
    assert_eq!(
        a.requests().len(),
        asked,
        "it went back to where its cache is not"
    );
    let writes: Vec<u64> = chat_charges(&b).iter().map(written).collect();
    assert!(
        writes[0] > 3000 && writes[1..].iter().all(|tokens| *tokens == 0),
        "{writes:?}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn acceptance_9_pings_stop_at_the_break_even() {
    const WINDOWS: usize = 60;
    let emulator = Emulator::start(Anthropic::new()).await;
    let gateway = gateway_for(&emulator, "anthropic", "", "claude-opus-5-5").await;
    let client = gateway.client();
    let fields = json!({"ttl": 400_000, "keep_warm": "auto"});
    let id = hold(&client, "model", &document(3000, "a"), fields).await;
    ask(&client, &id, "One?").await.ok();
    let mut pings = Vec::new();
    for _ in 0..WINDOWS {
        let before = emulator.requests().len();
        let window = Duration::from_secs(3_580);
        gateway.clock.advance(window);
        emulator.clock().advance(window);
        gateway.app.tend_upstreams().await;
        pings.push(emulator.requests().len() - before);
    }
    let sent: usize = pings.iter().sum();
    let stopped = pings.iter().position(|pings| *pings == 0).unwrap();
    assert!(
        pings[stopped..].iter().all(|pings| *pings == 0),
        "{pings:?}"
    );
    // A ping costs 0.05 and saves at most 2 - 0.05, so that 39 of them cost what they can save.
    assert!((10..=39).contains(&sent), "{sent} pings");
    // They read and never write.
    let charges = emulator.bill().charges();
    for ping in &charges[1..] {
        assert_eq!((written(ping), ping.output), (0, 0), "{ping:?}");
        assert!(ping.cache_read > 2900);
    }
    // What the pings cost is written with the next chat at the latest.
    ask(&client, &id, "Two?").await.ok();
    let totals = account(&gateway, &id, 2).await.totals;
    assert_eq!(totals.pings, sent as u64);
    assert!(totals.ping_cost > 0);
    gateway.stop().await;
}

#[tokio::test]
async fn acceptance_10_a_loss_is_shown_as_a_loss() {
    let emulator = Emulator::start(Anthropic::new()).await;
    let gateway = gateway_for(&emulator, "anthropic", "", "claude-opus-5-5").await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    ask(&client, &id, "One?").await.ok();
    let totals = account(&gateway, &id, 1).await.totals;
    let tokens = i64::try_from(written(&chat_charges(&emulator)[0])).unwrap();
    // Dollars for a million input tokens: 4 fresh, 8 written for an hour; a trillionth of a dollar is the unit.
    assert_eq!(totals.saved, tokens * (4 - 8) * 1_000_000);
    ask(&client, &id, "Two?").await.ok();
    ask(&client, &id, "Three?").await.ok();
    let totals = account(&gateway, &id, 3).await.totals;
    // Read for 0.2 in place of 4, twice.
    let saved = -tokens * 4_000_000 + 2 * tokens * 3_800_000;
    assert_eq!(totals.saved, saved);
    gateway.stop().await;

    // One that is only stored costs money, too.
    let emulator = Emulator::start(Gemini::new()).await;
    let gateway = gateway_for(&emulator, "gemini", "/v1beta", "gemini-2.5-pro").await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    let totals = account(&gateway, &id, 0).await.totals;
    assert!(totals.storage_cost > 0, "{totals:?}");
    assert!(totals.saved < 0, "{totals:?}");
    gateway.stop().await;
}
