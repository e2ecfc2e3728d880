//! Pitfalls that users of other gateways have reported (facts section 6), one test for each that can befall this one.
//! Those of a single dialect are tested beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::families::bedrock::Bedrock;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Answer, Emulator, Family, Fault, RawRequest};
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use serde_json::{Value, json};

mod handles;

use super::{account, ask, document, gateway_for, hold, outcome, post_stream};
use crate::say;

/// A provider: name, family, base path, model.
type Provider = (&'static str, Box<dyn Family>, &'static str, &'static str);

const SEED: &str = "doubao-seed-2-1-pro-260915";

async fn chat(client: &TestClient, body: Value) -> Reply {
    client.post("/v1/chat/completions", &body).await
}

fn weather() -> Value {
    json!({"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object",
        "properties": {"days": {"type": "integer", "enum": [1, 2, 3]}, "unit": {"type": ["string", "null"]}},
        "additionalProperties": false,
    }}})
}

fn bodies(emulator: &Emulator, path_end: &str) -> Vec<Value> {
    let requests = emulator.requests();
    let wanted = requests
        .iter()
        .filter(|request| request.method == "POST" && request.path.ends_with(path_end));
    wanted.map(|request| request.json().unwrap()).collect()
}

/// litellm #9812, #5443, #6575, #11364, #11789, #40006: writes billed twice or never, reads of streams at full price,
/// cached tokens added to a total that includes them.
#[tokio::test]
async fn every_token_is_billed_once_and_at_its_own_rate_streamed_or_not() {
    // Dollars for a million tokens: fresh, read, written by lifetime, output (facts section 7).
    type Rates = (i64, i64, &'static [(u64, i64)], i64);
    // In thousandths.
    let families: Vec<(Provider, Rates)> = vec![
        (
            ("openai", Box::new(OpenAi::new()), "/v1", "gpt-5.6"),
            (4000, 400, &[(1800, 5000), (43_200, 10_000)], 20_000),
        ),
        (
            ("openai", Box::new(OpenAi::new()), "/v1", "gpt-4.1"),
            (2000, 500, &[], 8000),
        ),
        (
            (
                "anthropic",
                Box::new(Anthropic::new()),
                "",
                "claude-sonnet-5-5",
            ),
            (2000, 100, &[(300, 2500), (3600, 4000)], 10_000),
        ),
        (
            ("kimi", Box::new(Compatible::kimi()), "/v1", "kimi-k3"),
            (3000, 300, &[(300, 3000), (3600, 6000)], 15_000),
        ),
        (
            (
                "deepseek",
                Box::new(Compatible::deepseek_with(Duration::ZERO)),
                "",
                "deepseek-v4-pro",
            ),
            (1320, 44, &[], 3960),
        ),
        (
            ("xai", Box::new(Compatible::xai()), "/v1", "grok-4.7"),
            (2000, 500, &[], 6000),
        ),
        (
            (
                "gemini",
                Box::new(Gemini::new()),
                "/v1beta",
                "gemini-2.5-flash",
            ),
            (300, 30, &[], 2500),
        ),
    ];
    for ((provider, family, base_path, model), rates) in families {
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, provider, base_path, model).await;
        let client = gateway.client();
        let fields = json!({"mode": "session", "ttl": 3600});
        let id = hold(&client, "model", &document(3000, "a"), fields).await;
        emulator.script().next(Answer {
            reasoning: "Thinking about it.".to_owned(),
            ..Answer::text("Aha.")
        });
        for question in ["One?", "Two?", "Three?"] {
            ask(&client, &id, question).await.ok();
            post_stream(&client, &id, question).await;
        }
        let totals = account(&gateway, &id, 6).await.totals;
        let bill = emulator.bill().total(|charge| charge.kind != "storage");
        let at = format!("{provider} {model}: {bill:?}");
        assert_eq!(totals.cache_read_tokens, bill.cache_read, "{at}");
        assert_eq!(totals.output_tokens, bill.output, "{at}");
        let written: u64 = bill.cache_write.values().sum();
        assert_eq!(
            totals.input_tokens,
            bill.uncached_input + bill.cache_read + written,
            "{at}"
        );
        let (fresh, read, writes, output) = rates;
        let cost = |tokens: u64, rate: i64| i64::try_from(tokens).unwrap() * rate * 1000;
        let of_writes: i64 = bill
            .cache_write
            .iter()
            .map(|(seconds, tokens)| {
                let rate = writes.iter().find(|(lifetime, _)| lifetime == seconds);
                cost(*tokens, rate.unwrap_or_else(|| panic!("{at}")).1)
            })
            .sum();
        let expected = cost(bill.uncached_input, fresh)
            + cost(bill.cache_read, read)
            + of_writes
            + cost(bill.output, output);
        assert_eq!(totals.cost, expected, "{at}");
        gateway.stop().await;
    }
}

/// litellm PR#26919: an exporter counted writes twice.
#[tokio::test]
async fn metrics_count_every_token_once() {
    let emulator = Emulator::start(Anthropic::new()).await;
    let gateway = gateway_for(&emulator, "anthropic", "", "claude-sonnet-5-5").await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    ask(&client, &id, "One?").await.ok();
    post_stream(&client, &id, "Two?").await;
    let metrics = client.get("/metrics").await.text();
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for line in metrics
        .lines()
        .filter(|line| line.starts_with("holdfast_upstream_tokens_total{"))
    {
        let kind = line
            .split("kind=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        let tokens: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        *counted.entry(kind.to_owned()).or_default() += tokens;
    }
    let bill = emulator.bill().total(|_| true);
    let billed = BTreeMap::from([
        ("fresh".to_owned(), bill.uncached_input),
        ("cache_read".to_owned(), bill.cache_read),
        ("cache_write_1h".to_owned(), bill.cache_write[&3600]),
        ("output".to_owned(), bill.output),
    ]);
    assert_eq!(counted, billed, "{metrics}");
    gateway.stop().await;
}

/// Portkey #1762: a cachePoint inside a tool's result is invalid.
#[tokio::test]
async fn a_context_that_ends_with_a_tools_result_is_marked_beside_it() {
    let families: Vec<Provider> = vec![
        (
            "bedrock",
            Box::new(Bedrock::new()),
            "",
            "anthropic.claude-opus-5-5",
        ),
        (
            "anthropic",
            Box::new(Anthropic::new()),
            "",
            "claude-opus-5-5",
        ),
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-5.6"),
        (
            "qwen",
            Box::new(Compatible::qwen()),
            "/compatible-mode/v1",
            "qwen3.8-max",
        ),
        (
            "gemini",
            Box::new(Gemini::new()),
            "/v1beta",
            "gemini-2.5-pro",
        ),
        ("ark", Box::new(Ark::new()), "/api/v3", SEED),
    ];
    for (provider, family, base_path, model) in families {
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, provider, base_path, model).await;
        let client = gateway.client();
        let call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"days\":1}"}});
        let messages = [
            say("system", "Be brief."),
            say("user", "What is the weather?"),
            json!({"role": "assistant", "content": null, "tool_calls": [call]}),
            json!({"role": "tool", "tool_call_id": "call_1", "content": document(3000, "a")}),
        ];
        let body =
            json!({"model": "model", "messages": messages, "tools": [weather()], "ttl": 3600});
        let created = client.post("/v1/context/create", &body).await.ok();
        let id = created["id"].as_str().unwrap();
        ask(&client, id, "So?").await.ok();
        let reply = ask(&client, id, "And tomorrow?").await;
        assert_eq!(outcome(&reply).0, "hit", "{provider} {model}");
        gateway.stop().await;
    }
}

/// timothy PR#756: an hour for Nova was a 400 that broke every fallback.
#[tokio::test]
async fn a_model_is_not_asked_for_a_lifetime_that_it_does_not_have() {
    let families: Vec<Provider> = vec![
        (
            "bedrock",
            Box::new(Bedrock::new()),
            "",
            "amazon.nova-pro-v1:0",
        ),
        (
            "bedrock",
            Box::new(Bedrock::new()),
            "",
            "anthropic.claude-3-7-sonnet-20250219-v1:0",
        ),
        ("azure", Box::new(OpenAi::azure()), "/openai/v1", "gpt-5.6"),
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-5.5"),
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-4o"),
        (
            "qwen",
            Box::new(Compatible::qwen()),
            "/compatible-mode/v1",
            "qwen3.7-max",
        ),
        (
            "minimax",
            Box::new(Anthropic::minimax()),
            "/anthropic",
            "MiniMax-M2.5",
        ),
    ];
    for (provider, family, base_path, model) in families {
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, provider, base_path, model).await;
        let client = gateway.client();
        let id = hold(
            &client,
            "model",
            &document(5000, "a"),
            json!({"ttl": 604_800}),
        )
        .await;
        ask(&client, &id, "One?").await.ok();
        assert_eq!(
            outcome(&ask(&client, &id, "Two?").await).0,
            "hit",
            "{provider} {model}"
        );
        assert_eq!(
            emulator.requests().len(),
            2,
            "{provider} {model}: nothing was refused"
        );
        gateway.stop().await;
    }
}

/// What an upstream refuses although its data says that it has it, is left out: the answer comes all the same.
#[tokio::test]
async fn refused_markers_are_left_out_and_the_receipt_says_so() {
    let emulator = Emulator::start(OpenAi::azure_ptu()).await;
    let gateway = gateway_for(&emulator, "azure", "/openai/v1", "gpt-5.6").await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    for question in ["One?", "Two?"] {
        let reply = ask(&client, &id, question).await;
        let expected = ("degraded".to_owned(), "marker_refused".to_owned());
        assert_eq!(outcome(&reply), expected);
        assert!(reply.answer().starts_with("You sent me"));
    }
    let receipt = super::receipt(&post_stream(&client, &id, "Three?").await);
    assert_eq!(receipt["reason"], "marker_refused");
    // It is not asked again and again.
    assert_eq!(super::chats(&emulator, "/chat/completions"), 4);
    gateway.clock.advance(Duration::from_secs(601));
    ask(&client, &id, "Four?").await.ok();
    assert_eq!(super::chats(&emulator, "/chat/completions"), 6);
    gateway.stop().await;
}

/// agent-afk #757: an hour without the beta header was silently five minutes.
#[tokio::test]
async fn an_hour_that_is_paid_for_is_an_hour() {
    let emulator = Emulator::start(Anthropic::new().ignoring_1h_without_beta()).await;
    let gateway = gateway_for(&emulator, "anthropic", "", "claude-opus-5-5").await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({"ttl": 3600})).await;
    ask(&client, &id, "One?").await.ok();
    let bill = emulator.bill().total(|_| true);
    assert!(bill.cache_write[&3600] > 2900, "{bill:?}");
    assert_eq!(bill.cache_write.get(&300), None, "{bill:?}");
    let wait = Duration::from_secs(50 * 60);
    emulator.clock().advance(wait);
    gateway.clock.advance(wait);
    assert_eq!(outcome(&ask(&client, &id, "Two?").await).0, "hit");
    gateway.stop().await;
}

/// OpenRouter ai-sdk-provider #35, #499, hermes-agent #71576: a provider that flips never reads what another wrote.
#[tokio::test]
async fn openrouter_is_told_which_requests_belong_together() {
    let flip = holdfast_emulators::families::compatible::ProviderFlip::default();
    let emulator = Emulator::start(Compatible::openrouter_with(&flip)).await;
    let gateway = gateway_for(
        &emulator,
        "openrouter",
        "/api/v1",
        "anthropic/claude-sonnet-5-5",
    )
    .await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    let other = hold(&client, "model", &document(3000, "b"), json!({})).await;
    ask(&client, &other, "One?").await.ok();
    ask(&client, &id, "One?").await.ok();
    for question in ["Two?", "Three?", "Four?"] {
        assert_eq!(outcome(&ask(&client, &id, question).await).0, "hit");
    }
    let sessions: Vec<Value> = bodies(&emulator, "/chat/completions")
        .iter()
        .map(|body| body["session_id"].clone())
        .collect();
    assert!(sessions[0].is_string() && sessions[1].is_string());
    assert_ne!(sessions[0], sessions[1]);
    assert!(sessions[1..].iter().all(|session| *session == sessions[1]));
    assert!(
        !sessions[1].as_str().unwrap().contains(&id),
        "the id is for the client only"
    );

    flip.next();
    assert_eq!(outcome(&ask(&client, &id, "Five?").await).0, "rebuilt");
    assert_eq!(outcome(&ask(&client, &id, "Six?").await).0, "hit");
    gateway.stop().await;
}

/// denkeeper PR#194, llm-memory-api PR#269: nothing cached when balanced, nearly everything when pinned. new-api #6897.
#[tokio::test]
async fn a_context_stays_with_one_of_several_keys() {
    let emulator = Emulator::start(Anthropic::new()).await;
    let keys = ["a", "b", "c", "d"];
    let mut builder = TestGateway::builder();
    for key in keys {
        let mut options = upstream("anthropic", &emulator.url, &format!("key-{key}"));
        options.name = key.to_owned();
        builder = builder.upstream(options);
    }
    let gateway = builder
        .balanced("model", &keys.map(|key| (key, "claude-opus-5-5")))
        .start()
        .await;
    let client = gateway.client();
    let mut used = std::collections::BTreeSet::new();
    for seed in 0..12 {
        emulator.clear_requests();
        let id = hold(
            &client,
            "model",
            &document(1000, &format!("{seed}")),
            json!({}),
        )
        .await;
        ask(&client, &id, "One?").await.ok();
        for question in ["Two?", "Three?", "Four?"] {
            assert_eq!(outcome(&ask(&client, &id, question).await).0, "hit");
        }
        let keys: std::collections::BTreeSet<String> = emulator
            .requests()
            .iter()
            .map(|request| request.header("x-api-key").unwrap().to_owned())
            .collect();
        assert_eq!(keys.len(), 1, "{keys:?}");
        used.extend(keys);
    }
    // Twelve draws of the same one of four have a chance of one to four millions.
    assert!(used.len() > 1, "contexts are spread");
    gateway.stop().await;
}

/// onyx #11659: caching was chosen by the name of the route.
#[tokio::test]
async fn caching_goes_by_the_models_family_not_by_who_sells_it() {
    for (model, is_marked) in [
        ("anthropic/claude-sonnet-5-5", true),
        ("openai/gpt-5.6", true),
        ("deepseek/deepseek-v4-pro", false),
        ("openai/gpt-4.1", false),
    ] {
        let emulator = Emulator::start(Compatible::openrouter()).await;
        let gateway = gateway_for(&emulator, "openrouter", "/api/v1", model).await;
        let client = gateway.client();
        let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
        ask(&client, &id, "One?").await.ok();
        let body = String::from_utf8(emulator.requests()[0].body.to_vec()).unwrap();
        assert_eq!(body.contains("cache_control"), is_marked, "{model}");
        assert_eq!(
            outcome(&ask(&client, &id, "Two?").await).0,
            "hit",
            "{model}"
        );
        gateway.stop().await;
    }
}

/// JSON map order, injected ids and dates, empty fields: what is before the question never changes.
#[tokio::test]
async fn the_prefix_is_the_same_bytes_on_every_turn() {
    let families: Vec<Provider> = vec![
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
            "anthropic.claude-opus-5-5",
        ),
        (
            "qwen",
            Box::new(Compatible::qwen()),
            "/compatible-mode/v1",
            "qwen3.8-max",
        ),
        (
            "deepseek",
            Box::new(Compatible::deepseek_with(Duration::ZERO)),
            "",
            "deepseek-v4-pro",
        ),
        ("vllm", Box::new(Compatible::vllm()), "/v1", "model"),
    ];
    let tool = json!({"type": "function", "function": {"name": "z", "description": "", "parameters": {
        "type": "object", "required": [], "properties": {"zeta": {"type": "number", "minimum": 1.0, "maximum": 1e5}, "alpha": {}},
    }}});
    for (provider, family, base_path, model) in families {
        let folder = tempfile::tempdir().unwrap();
        let emulator = Emulator::start(family).await;
        let base_url = format!("{}{base_path}", emulator.url);
        let start = || {
            TestGateway::builder()
                .data_dir(folder.path())
                .upstream(upstream(provider, &base_url, "key"))
                .route("model", &[(provider, model)])
        };
        let gateway = start().start().await;
        gateway.clock.follow_system();
        let clock = gateway.clock.clone();
        let client = gateway.client();
        let fields = json!({"tools": [tool], "ttl": 86_400});
        let id = hold(&client, "model", &document(3000, "a"), fields).await;
        ask(&client, &id, "QUESTION").await.ok();
        post_stream(&client, &id, "QUESTION").await;
        gateway.stop().await;
        clock.advance(Duration::from_secs(3600));
        let gateway = start().clock(&clock).start().await;
        ask(&gateway.client(), &id, "QUESTION").await.ok();
        gateway.stop().await;
        let requests = emulator.requests();
        let asked: Vec<&RawRequest> = requests
            .iter()
            .filter(|request| request.json().unwrap().to_string().contains("QUESTION"))
            .collect();
        assert_eq!(asked.len(), 3, "{provider}");
        // What names the answer before stands behind everything that is cached.
        let cached = |request: &RawRequest| {
            let body = String::from_utf8(request.body.to_vec()).unwrap();
            body.split(",\"diagnostics\"")
                .next()
                .unwrap()
                .trim_end_matches('}')
                .to_owned()
        };
        for request in &asked[1..] {
            assert!(cached(request) == cached(asked[0]), "{provider} {model}");
        }
    }
}

/// Turns with many blocks: the end of the turn before is marked, so that the entry written there is met again.
#[tokio::test]
async fn a_turn_of_many_blocks_still_finds_what_the_turn_before_wrote() {
    let families: Vec<Provider> = vec![
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
            "anthropic.claude-opus-5-5",
        ),
        (
            "qwen",
            Box::new(Compatible::qwen()),
            "/compatible-mode/v1",
            "qwen3.8-max",
        ),
    ];
    for (provider, family, base_path, model) in families {
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, provider, base_path, model).await;
        let client = gateway.client();
        let fields = json!({"mode": "session", "ttl": 300});
        let id = hold(&client, "model", &document(1500, "a"), fields).await;
        let long = document(4000, "b");
        ask(&client, &id, &long).await.ok();
        ask(&client, &id, "What was that?").await.ok();
        // Sixty messages in one turn.
        let mut messages = Vec::new();
        for index in 0..30 {
            messages.push(say("user", &format!("Fact {index}.")));
            messages.push(say("assistant", "Noted."));
        }
        messages.push(say("user", "How many facts?"));
        chat(&client, json!({"context_id": id, "messages": messages}))
            .await
            .ok();
        let reply = ask(&client, &id, "And now?").await;
        let usage = &reply.ok()["usage"];
        let cached = usage["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap();
        assert!(cached > 5400, "{provider}: {usage}");
        gateway.stop().await;
    }
}

/// `stream_options` that were not passed on left streams without usage.
#[tokio::test]
async fn usage_is_always_asked_for() {
    for family in [
        Compatible::vllm(),
        Compatible::qwen(),
        Compatible::openai_compatible(),
    ] {
        let name = Family::name(&family);
        let base_path = family.base_path();
        let emulator = Emulator::start(family).await;
        let gateway = gateway_for(&emulator, name, base_path, "qwen3.8-max").await;
        let client = gateway.client();
        for stream in [false, true] {
            let body =
                json!({"model": "model", "messages": [say("user", "Hello.")], "stream": stream});
            let reply = chat(&client, body).await;
            assert!(stream || reply.ok()["usage"]["prompt_tokens"].as_u64().unwrap() > 0);
        }
        for body in bodies(&emulator, "/chat/completions") {
            assert_eq!(body["stream"], true, "{name}");
            assert_eq!(body["stream_options"]["include_usage"], true, "{name}");
        }
        gateway.stop().await;
    }
}

/// A retry after a timeout may find that the first attempt had written: it must not be called a first use for ever, and
/// nothing is asked twice once the answer has begun.
#[tokio::test]
async fn nothing_is_tried_again_once_the_answer_has_begun() {
    let emulator = Emulator::start(Anthropic::new()).await;
    let gateway = gateway_for(&emulator, "anthropic", "", "claude-opus-5-5").await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    ask(&client, &id, "One?").await.ok();
    emulator
        .script()
        .next(Answer::text("one two three four five six seven eight"));
    emulator.faults().next(Fault::CutAfter(5));
    let body = json!({"context_id": id, "messages": [say("user", "Two?")], "stream": true});
    let reply = chat(&client, body).await;
    assert!(reply.text().contains("\"error\""), "{}", reply.text());
    assert!(!reply.text().contains("[DONE]"));
    assert_eq!(emulator.requests().len(), 2);
    // What it cost is on the account, by estimate where the upstream had not said it yet.
    let totals = account(&gateway, &id, 2).await.totals;
    let bill = emulator.bill().total(|_| true);
    assert_eq!(totals.cache_read_tokens, bill.cache_read);
    assert_eq!(outcome(&ask(&client, &id, "Three?").await).0, "hit");
    gateway.stop().await;
}
