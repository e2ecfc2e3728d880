//! What contexts cost and save, as users see it: in receipts, on a context's account, in estimates, on the command line.
//! All amounts are worked out by hand from list prices (facts section 7).

use std::process::Command;

use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::{Charge, Emulator};
use holdfast_testkit::{TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::{ask, document, gateway_for, hold};

/// Trillionths in a unit of money; prices for a million tokens are trillionths for one when times this by a millionth.
const MILLION: i128 = 1_000_000;

/// An amount as the API writes it, in trillionths.
fn trillionths(amount: &Value) -> i128 {
    let amount = amount.as_str().unwrap();
    let (sign, digits) = match amount.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, amount),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    assert!(part.len() <= 12, "{amount}");
    let part = format!("{part:0<12}").parse::<i128>().unwrap();
    sign * (whole.parse::<i128>().unwrap() * MILLION * MILLION + part)
}

fn chats(emulator: &Emulator) -> Vec<Charge> {
    let charges = emulator.bill().charges().into_iter();
    charges.filter(|charge| charge.kind == "chat").collect()
}

async fn account(client: &TestClient, id: &str) -> Value {
    client.get(&format!("/v1/context/{id}")).await.ok()["account"].clone()
}

/// Claude Sonnet 4.6, dollars for a million tokens: 3 fresh, 0.3 read, 6 written for an hour, 15 generated.
#[tokio::test]
async fn receipts_and_accounts_add_up_to_the_cent_fraction() {
    let emulator = Emulator::start(Anthropic::new()).await;
    let gateway = gateway_for(&emulator, "anthropic", "", "claude-sonnet-4-6").await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({"ttl": 3600})).await;
    let (mut cost, mut saved) = (0, 0);
    for number in 0..3 {
        let body = ask(&client, &id, "What is on line 1?").await.ok();
        let receipt = &body["context_cache"];
        let charge = chats(&emulator).pop().unwrap();
        let tokens = |count: u64| i128::from(count);
        let written = tokens(charge.cache_write.values().sum());
        let (fresh, read) = (tokens(charge.uncached_input), tokens(charge.cache_read));
        let output = tokens(charge.output) * 15 * MILLION;
        let charged =
            fresh * 3 * MILLION + read * MILLION * 3 / 10 + written * 6 * MILLION + output;
        let plain = (fresh + read + written) * 3 * MILLION + output;
        assert_eq!(trillionths(&receipt["cost"]), charged, "{receipt}");
        assert_eq!(trillionths(&receipt["saved"]), plain - charged, "{receipt}");
        assert_eq!(plain < charged, number == 0, "the first use is a loss");
        assert_eq!(receipt["currency"], "USD");
        assert_eq!(receipt["money_source"], "estimate");
        assert_eq!(receipt["source"], "provider");
        cost += charged;
        saved += plain - charged;
    }
    let account = account(&client, &id).await;
    assert_eq!(account["requests"], 3);
    assert_eq!(
        (&account["hits"], &account["misses"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(trillionths(&account["cost"]), cost, "{account}");
    assert_eq!(trillionths(&account["saved"]), saved, "{account}");
    assert_eq!(account["currency"], "USD");
    gateway.stop().await;
}

/// Gemini 2.5 Pro: 1.25 fresh, 0.125 read, 10 generated, 4.5 for a million tokens and an hour of storage.
#[tokio::test]
async fn storage_is_on_the_account_and_taken_off_what_was_saved() {
    let emulator = Emulator::start(Gemini::new()).await;
    let gateway = gateway_for(&emulator, "gemini", "/v1beta", "gemini-2.5-pro").await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({"ttl": 7200})).await;
    let context = client.get(&format!("/v1/context/{id}")).await.ok();
    let tokens = i128::from(context["prefix_tokens"].as_u64().unwrap());
    let created = account(&client, &id).await;
    let made = tokens * MILLION * 125 / 100;
    assert_eq!(trillionths(&created["cost"]), made, "{created}");
    // Two hours, and the second by which the copy outlives its context.
    let storage = trillionths(&created["storage_cost"]);
    let second = tokens * MILLION * 45 / 10 / 3600;
    assert!((storage - 7200 * second).abs() <= 2 * second, "{created}");
    assert_eq!(trillionths(&created["saved"]), -made - storage, "{created}");

    ask(&client, &id, "What is on line 1?").await.ok();
    let charge = chats(&emulator).pop().unwrap();
    let read = i128::from(charge.cache_read);
    assert_eq!(read, tokens);
    let used = account(&client, &id).await;
    let saves = read * MILLION * (1250 - 125) / 1000;
    let saved = trillionths(&used["saved"]) - trillionths(&created["saved"]);
    assert_eq!(saved, saves, "{used}");
    assert_eq!(trillionths(&used["storage_cost"]), storage);
    gateway.stop().await;
}

/// OpenRouter says what it has charged, and that is what counts.
#[tokio::test]
async fn where_the_provider_names_the_amount_it_is_the_providers() {
    let emulator = Emulator::start(Compatible::openrouter()).await;
    let model = "anthropic/claude-sonnet-5-5";
    let gateway = gateway_for(&emulator, "openrouter", "/api/v1", model).await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    let body = ask(&client, &id, "What is on line 1?").await.ok();
    let receipt = &body["context_cache"];
    assert_eq!(receipt["money_source"], "provider", "{receipt}");
    assert!(trillionths(&receipt["cost"]) > 0);
    let account = account(&client, &id).await;
    assert_eq!(
        trillionths(&account["cost"]),
        trillionths(&receipt["cost"]),
        "{account}"
    );
    gateway.stop().await;
}

/// A model on three upstreams: with markers, with handles, and one that nobody knows a price of.
async fn three() -> (TestGateway, [Emulator; 3]) {
    let emulators = [
        Emulator::start(Anthropic::new()).await,
        Emulator::start(Gemini::new()).await,
        Emulator::start(Compatible::vllm()).await,
    ];
    let gateway = TestGateway::builder()
        .upstream(upstream("anthropic", &emulators[0].url, "key-1"))
        .upstream(upstream(
            "gemini",
            &format!("{}/v1beta", emulators[1].url),
            "key-2",
        ))
        .upstream(upstream(
            "vllm",
            &format!("{}/v1", emulators[2].url),
            "key-3",
        ))
        .route(
            "model",
            &[
                ("anthropic", "claude-sonnet-4-6"),
                ("gemini", "gemini-2.5-pro"),
                ("vllm", "model"),
            ],
        )
        .start()
        .await;
    gateway.clock.follow_system();
    (gateway, emulators)
}

#[tokio::test]
async fn an_estimate_tells_each_upstreams_price_before_anything_is_spent() {
    let (gateway, emulators) = three().await;
    let client = gateway.client();
    let estimate = |tokens: usize, ttl: u32| {
        let client = client.clone();
        async move {
            let body = json!({
                "model": "model",
                "messages": [super::say("system", &document(tokens, "a"))],
                "ttl": ttl,
                "question_tokens": 100,
                "answer_tokens": 200,
            });
            client.post("/v1/context/estimate", &body).await.ok()
        }
    };
    let all = estimate(10_000, 3600).await;
    let at = |number: usize| &all["upstreams"][number];
    let tokens = i128::from(at(0)["tokens"].as_u64().unwrap());
    assert!((9_000..11_000).contains(&tokens), "{all}");

    let claude = at(0);
    assert_eq!(claude["upstream"], "anthropic");
    assert_eq!(claude["caching"], "breakpoint");
    assert_eq!(claude["cacheable"], true);
    let turn = 100 * 3 * MILLION + 200 * 15 * MILLION;
    assert_eq!(trillionths(&claude["create"]), tokens * 6 * MILLION);
    assert_eq!(trillionths(&claude["hold_per_hour"]), 0);
    assert_eq!(
        trillionths(&claude["turn_with"]),
        turn + tokens * MILLION * 3 / 10
    );
    assert_eq!(
        trillionths(&claude["turn_without"]),
        turn + tokens * 3 * MILLION
    );

    let gemini = at(1);
    assert_eq!(gemini["caching"], "handle");
    let turn = 100 * MILLION * 125 / 100 + 200 * 10 * MILLION;
    assert_eq!(trillionths(&gemini["create"]), tokens * MILLION * 125 / 100);
    assert_eq!(
        trillionths(&gemini["hold_per_hour"]),
        tokens * MILLION * 45 / 10
    );
    assert_eq!(
        trillionths(&gemini["turn_with"]),
        turn + tokens * MILLION * 125 / 1000
    );
    assert_eq!(
        trillionths(&gemini["turn_without"]),
        turn + tokens * MILLION * 125 / 100
    );
    // An hour: 1.25 to make, 4.5 to keep, and each turn saves 1.125.
    let turns: f64 = gemini["pays_from_turns_per_hour"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let exact = 5.75 / 1.125;
    assert!(
        (exact..exact + 0.01).contains(&turns),
        "rounded up: {gemini}"
    );

    let vllm = at(2);
    assert_eq!(vllm["upstream"], "vllm");
    assert_eq!(vllm["create"], Value::Null, "{vllm}");
    assert_eq!(vllm["currency"], Value::Null, "{vllm}");

    let small = estimate(100, 3600).await;
    assert_eq!(small["upstreams"][0]["cacheable"], false, "{small}");
    assert_eq!(small["upstreams"][0]["reason"], "below_minimum", "{small}");
    for emulator in &emulators {
        assert_eq!(emulator.requests().len(), 0, "nothing was sent");
    }
    gateway.stop().await;
}

/// The command line, as a process of its own.
fn holdfast(gateway: &TestGateway, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(arguments)
        .env("HOLDFAST_URL", &gateway.url)
        .env("HOLDFAST_API_KEY", gateway.key())
        .env("COLUMNS", "200")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The line of a table that begins with this word.
fn row<'a>(table: &'a str, first: &str) -> &'a str {
    let is_wanted = |line: &&str| line.split_whitespace().next() == Some(first);
    let found = table.lines().find(is_wanted);
    found.unwrap_or_else(|| panic!("no line for {first}: {table}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_shows_what_the_api_says() {
    let (gateway, _emulators) = three().await;
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    for question in ["One?", "Two?"] {
        ask(&client, &id, question).await.ok();
    }
    let account = account(&client, &id).await;
    let shown = holdfast(&gateway, &["context", "show", &id]);
    assert!(row(&shown, "chats").contains("2 (1 hits, 0 rebuilt, 1 misses, 0 degraded)"));
    for (line, field) in [("cost", "cost"), ("saved", "saved")] {
        let amount = account[field].as_str().unwrap();
        assert!(
            row(&shown, line).contains(&format!("{amount} USD")),
            "{shown}"
        );
    }

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document(10_000, "a")).unwrap();
    let path = file.path().to_str().unwrap();
    let table = holdfast(
        &gateway,
        &["context", "estimate", "--file", path, "--model", "model"],
    );
    assert!(row(&table, "anthropic").contains("breakpoint"), "{table}");
    assert!(row(&table, "gemini").contains("turns an hour"), "{table}");
    assert!(row(&table, "vllm").contains('-'), "{table}");

    let prices = holdfast(
        &gateway,
        &["models", "prices", "--model", "claude-sonnet-4-6"],
    );
    let sonnet = row(&prices, "anthropic");
    for price in ["3", "0.3", "15"] {
        assert!(
            sonnet.split_whitespace().any(|cell| cell == price),
            "{sonnet}"
        );
    }
    gateway.stop().await;
}
