//! Budgets that bind: what keys and projects may spend, on every surface, and what becomes of what was reserved.

use std::time::Duration;

use holdfast::app::Rates;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Answer, Emulator, Fault};
use holdfast_store::KeyScope;
use holdfast_testkit::{Operation, Reply, TestClient, TestGateway, TestGatewayBuilder, upstream};
use serde_json::{Value, json};

use crate::say;

/// gpt-4.1 costs 2 dollars for a million tokens of input and 8 for one of output, so that a thousand of output are this.
const THOUSAND: f64 = 0.008;

/// Emulated OpenAI behind the model `m`; `free` is the embedded engine's.
async fn start(
    change: impl FnOnce(TestGatewayBuilder) -> TestGatewayBuilder,
) -> (Emulator, TestGateway) {
    let emulator = Emulator::start(OpenAi::new()).await;
    let builder = TestGateway::builder()
        .upstream(upstream("openai", &format!("{}/v1", emulator.url), "key-1"))
        .route("m", &[("openai", "gpt-4.1")]);
    (emulator, change(builder).start().await)
}

/// A project with these budgets, and a client with a key of it.
async fn member(gateway: &TestGateway, project: &str, budgets: Value) -> TestClient {
    let body = json!({"name": project, "budgets": budgets});
    gateway
        .client()
        .post("/admin/v1/projects", &body)
        .await
        .ok();
    gateway.client_of(project, &[KeyScope::Inference]).await
}

fn chat(max_tokens: u64) -> Value {
    json!({"model": "m", "messages": [say("user", "hi")], "max_tokens": max_tokens})
}

async fn ask(client: &TestClient, max_tokens: u64) -> Reply {
    client.post("/v1/chat/completions", &chat(max_tokens)).await
}

/// Spent and reserved of each budget that holds for the client.
async fn standing(client: &TestClient) -> Vec<(f64, f64)> {
    let budgets = client.get("/v1/budgets").await.ok();
    let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    let budgets = budgets["data"].as_array().unwrap().iter();
    budgets
        .map(|it| (number(&it["spent"]), number(&it["reserved"])))
        .collect()
}

#[tokio::test]
async fn a_request_that_could_cost_more_than_is_left_is_refused_in_its_dialect() {
    let (emulator, gateway) = start(|builder| builder).await;
    let budget = json!([{"period": "monthly", "limit": "0.01"}]);
    let client = member(&gateway, "team", budget).await;
    ask(&client, 1000).await.ok();
    let (spent, reserved) = standing(&client).await[0];
    assert!(spent > 0.0 && spent < THOUSAND, "{spent}");
    assert_eq!(reserved, 0.0, "settled with what it did cost");
    emulator.clear_requests();

    let refused = ask(&client, 2000).await;
    let error = refused.error(402);
    assert_eq!(error["code"], "BudgetExceeded");
    assert_eq!(error["type"], "PaymentRequired");
    let message = error["message"].as_str().unwrap();
    for part in [
        "up to 0.016",
        "project's monthly budget of 0.01 USD",
        "begins anew at 20",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(refused.header("x-should-retry"), "false");
    let body = json!({"model": "m", "messages": [say("user", "hi")], "max_tokens": 2000});
    let anthropic = client.post("/v1/messages", &body).await;
    assert_eq!(anthropic.status, 402);
    assert_eq!(anthropic.json()["error"]["type"], "billing_error");
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}],
                      "generationConfig": {"maxOutputTokens": 2000}});
    let google = client.post("/v1beta/models/m:generateContent", &body).await;
    assert_eq!(google.status, 402);
    assert_eq!(google.json()["error"]["status"], "RESOURCE_EXHAUSTED");
    let body = json!({"model": "m", "input": "hi", "max_output_tokens": 2000});
    let responses = client.post("/v1/responses", &body).await;
    assert_eq!(responses.status, 402);
    let body =
        json!({"model": "m", "messages": [say("user", "hi")], "max_tokens": 2000, "stream": true});
    client.post("/v1/chat/completions", &body).await.error(402);
    assert!(emulator.requests().is_empty(), "nothing is sent");

    // What fits is answered, and others are not concerned.
    ask(&client, 100).await.ok();
    ask(&gateway.client(), 2000).await.ok();
    assert_eq!(standing(&client).await[0].1, 0.0);
    let rows = client.get("/v1/usage/requests?limit=10").await.ok();
    let outcomes: Vec<_> = rows["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["error"].clone())
        .collect();
    assert!(
        outcomes.contains(&json!("budget_exhausted")),
        "{outcomes:?}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn many_at_once_never_spend_more_than_the_limit_and_leave_nothing_reserved() {
    let (emulator, gateway) = start(|builder| builder).await;
    let limit = 0.05;
    let client = member(
        &gateway,
        "crowd",
        json!([{"period": "daily", "limit": limit}]),
    )
    .await;
    emulator
        .faults()
        .always(Fault::SlowDrip(Duration::from_millis(30)));
    for _ in 0..40 {
        emulator.script().next(Answer::text("word ".repeat(40)));
    }
    let asking = (0..40).map(|_| ask(&client, 1000));
    let replies = futures_util::future::join_all(asking).await;
    let answered = replies.iter().filter(|reply| reply.status == 200).count();
    let refused = replies.iter().filter(|reply| reply.status == 402).count();
    assert_eq!(answered + refused, 40);
    // Six of them are reserved before the first one ends.
    assert!(answered >= 6 && refused > 0, "{answered} {refused}");
    let (spent, reserved) = standing(&client).await[0];
    assert!(spent <= limit, "{spent}");
    assert_eq!(reserved, 0.0);
    let usage = client.get("/v1/usage").await.ok();
    let cost = usage["totals"]["money"][0]["cost"].as_str().unwrap();
    assert!(
        (cost.parse::<f64>().unwrap() - spent).abs() < 1e-12,
        "{cost} {spent}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_request_that_comes_to_nothing_costs_nothing() {
    let (emulator, gateway) = start(|builder| builder).await;
    let client = member(
        &gateway,
        "unlucky",
        json!([{"period": "total", "limit": "0.01"}]),
    )
    .await;
    emulator.faults().always(Fault::Status(400, None));
    for _ in 0..5 {
        ask(&client, 1000).await.error(400);
    }
    emulator.faults().clear();
    assert_eq!(standing(&client).await, [(0.0, 0.0)]);
    // A client that leaves in the middle pays for what there was, and no more.
    emulator.faults().always(Fault::StallAfter(3));
    let body =
        json!({"model": "m", "messages": [say("user", "hi")], "max_tokens": 1000, "stream": true});
    let request = client
        .request(reqwest::Method::POST, "/v1/chat/completions")
        .json(&body);
    let mut response = request.send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    assert!(standing(&client).await[0].1 >= THOUSAND, "it runs");
    drop(response);
    let settled = async {
        while standing(&client).await[0].1 > 0.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), settled)
        .await
        .unwrap();
    emulator.faults().clear();
    ask(&client, 1000).await.ok();
    gateway.stop().await;
}

#[tokio::test]
async fn a_keys_budget_and_its_projects_both_hold() {
    let (_emulator, gateway) = start(|builder| builder).await;
    let admin = gateway.client();
    let project = json!({"name": "both", "budgets": [{"period": "monthly", "limit": "0.02"}]});
    admin.post("/admin/v1/projects", &project).await.ok();
    let key = json!({"project": "both", "budgets": [{"period": "daily", "limit": "0.01", "soft_limit": "0"}]});
    let made = admin.post("/admin/v1/keys", &key).await.ok();
    assert_eq!(
        made["budgets"][0],
        json!({"period": "daily", "currency": "USD", "limit": "0.01", "soft_limit": "0"})
    );
    let one = admin.with_key(made["key"].as_str().unwrap());
    let other = gateway.client_of("both", &[KeyScope::Inference]).await;

    let refused = ask(&one, 2000).await.error(402);
    assert!(
        refused["message"].as_str().unwrap().contains("key's daily"),
        "{refused}"
    );
    let answered = ask(&one, 1000).await;
    answered.ok();
    // From nothing on, and for every answer.
    assert!(
        answered
            .header("x-holdfast-budget-warning")
            .starts_with("key daily; currency=USD; spent=0")
    );
    let answered = ask(&other, 2000).await;
    answered.ok();
    assert!(answered.headers.get("x-holdfast-budget-warning").is_none());
    let refused = ask(&other, 2500).await.error(402);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("project's monthly"),
        "{refused}"
    );

    // Each sees what holds for it, and an operator everything.
    let sees = async |client: &TestClient, query: &str| {
        let budgets = client.get(&format!("/v1/budgets{query}")).await.ok();
        let budgets = budgets["data"].as_array().unwrap().clone();
        let words: Vec<String> = budgets
            .iter()
            .map(|it| it["period"].as_str().unwrap().to_owned())
            .collect();
        words
    };
    assert_eq!(sees(&one, "").await, ["daily", "monthly"]);
    assert_eq!(sees(&other, "").await, ["monthly"]);
    let id = made["id"].as_str().unwrap();
    assert_eq!(
        sees(&admin, &format!("?key={id}")).await,
        ["daily", "monthly"]
    );
    assert_eq!(sees(&admin, "?project=both").await, ["monthly"]);
    other.get("/v1/budgets?project=default").await.error(403);
    other.get(&format!("/v1/budgets?key={id}")).await.error(403);
    admin.get("/v1/budgets?project=nobody").await.error(404);

    // Changing them counts from the next request on.
    let patch = json!({"budgets": null});
    admin.patch("/admin/v1/projects/both", &patch).await.ok();
    ask(&other, 5000).await.ok();
    gateway.stop().await;
}

#[tokio::test]
async fn periods_begin_anew() {
    let (_emulator, gateway) = start(|builder| builder).await;
    let client = member(
        &gateway,
        "daily",
        json!([{"period": "daily", "limit": "0.00802"}]),
    )
    .await;
    ask(&client, 1000).await.ok();
    ask(&client, 1000).await.error(402);
    gateway.clock.advance(Duration::from_secs(86_400));
    ask(&client, 1000).await.ok();
    ask(&client, 1000).await.error(402);
    gateway.stop().await;
}

#[tokio::test]
async fn what_costs_nothing_needs_no_budget() {
    let (_emulator, gateway) = start(|builder| builder).await;
    let client = member(&gateway, "poor", json!([{"period": "total", "limit": 0}])).await;
    ask(&client, 1).await.error(402);
    let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
    client.post("/v1/chat/completions", &body).await.ok();
    gateway.stop().await;
}

#[tokio::test]
async fn creating_a_copy_is_paid_for() {
    let emulator = Emulator::start(holdfast_emulators::families::gemini::Gemini::new()).await;
    let gateway = TestGateway::builder()
        .upstream(upstream(
            "gemini",
            &format!("{}/v1beta", emulator.url),
            "key-1",
        ))
        .route("g", &[("gemini", "gemini-2.5-pro")])
        .start()
        .await;
    gateway.clock.follow_system();
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(300);
    let create = json!({"model": "g", "messages": [say("system", &text)], "ttl": 3600});
    let poor = member(
        &gateway,
        "poor",
        json!([{"period": "total", "limit": "0.001"}]),
    )
    .await;
    poor.post("/v1/context/create", &create).await.error(402);
    assert!(emulator.requests().is_empty());
    assert_eq!(standing(&poor).await, [(0.0, 0.0)]);
    let rich = member(&gateway, "rich", json!([{"period": "total", "limit": "1"}])).await;
    rich.post("/v1/context/create", &create).await.ok();
    let (spent, reserved) = standing(&rich).await[0];
    assert!(spent > 0.001 && reserved == 0.0, "{spent} {reserved}");
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_passed_through_counts() {
    let (_emulator, gateway) =
        start(|builder| builder.route("e", &[("openai", "text-embedding-3-small")])).await;
    let client = member(
        &gateway,
        "passing",
        json!([{"period": "total", "limit": "0.0000000001"}]),
    )
    .await;
    let body = json!({"model": "e", "input": "some words to embed"});
    let reply = client.post("/v1/embeddings", &body).await;
    let priced = gateway.client().post("/v1/embeddings", &body).await;
    priced.ok();
    let usage = gateway.client().get("/v1/usage?model=e").await.ok();
    // The catalog decides whether it has a price.
    match usage["totals"]["money"]
        .as_array()
        .is_some_and(|it| !it.is_empty())
    {
        true => drop(reply.error(402)),
        false => drop(reply.ok()),
    }
    gateway.stop().await;
}

#[tokio::test]
async fn another_currency_needs_a_rate() {
    let priced_in_yuan = |rates: Option<&str>| {
        let rates = rates.map(|rate| ("CNY".parse().unwrap(), rate.parse().unwrap()));
        Rates::new(rates)
    };
    for (rate, status) in [(None, 402), (Some("0.14"), 200), (Some("100000"), 402)] {
        let emulator = Emulator::start(Ark::new()).await;
        let gateway = TestGateway::builder()
            .upstream(upstream(
                "ark",
                &format!("{}/api/v3", emulator.url),
                "key-1",
            ))
            .route("m", &[("ark", "doubao-seed-2-1-pro-260915")])
            .exchange_rates(priced_in_yuan(rate))
            .start()
            .await;
        let client = member(
            &gateway,
            "team",
            json!([{"period": "monthly", "limit": "1"}]),
        )
        .await;
        let reply = ask(&client, 100).await;
        let currency = gateway.client().get("/v1/models").await;
        assert_eq!(
            reply.status,
            status,
            "{rate:?}: {} {}",
            reply.text(),
            currency.status
        );
        if rate.is_none() {
            assert!(reply.text().contains("exchange rate"), "{}", reply.text());
        }
        gateway.stop().await;
    }
}

/// The last that was seen counts while the store is away, and everything since as if it had cost all that it may.
#[tokio::test]
async fn budgets_bind_while_the_store_is_away() {
    let (_emulator, gateway) = start(|builder| builder).await;
    let client = member(
        &gateway,
        "away",
        json!([{"period": "total", "limit": "0.03"}]),
    )
    .await;
    let unseen = member(
        &gateway,
        "unseen",
        json!([{"period": "total", "limit": "1"}]),
    )
    .await;
    unseen.get("/v1/models").await.ok();
    ask(&client, 1000).await.ok();
    gateway
        .store
        .break_down(&[Operation::ReserveBudget, Operation::AppendLedger]);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(ask(&client, 1000).await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 402, 402]);
    ask(&unseen, 1000).await.error(503);
    gateway.store.mend();
    gateway.app.write_ledger().await.unwrap();
    // What they did cost counts now.
    ask(&client, 1000).await.ok();
    ask(&unseen, 1000).await.ok();
    gateway.stop().await;
}

#[tokio::test]
async fn wrong_budgets_are_refused_by_field() {
    let (_emulator, gateway) = start(|builder| builder).await;
    let admin = gateway.client();
    for (budgets, param) in [
        (json!(5), "budgets"),
        (json!([5]), "budgets[0]"),
        (
            json!([{"period": "weekly", "limit": 1}]),
            "budgets[0].period",
        ),
        (
            json!([{"period": "daily", "limit": 1, "currency": "dollars"}]),
            "budgets[0].currency",
        ),
        (
            json!([{"period": "daily", "limit": -1}]),
            "budgets[0].limit",
        ),
        (
            json!([{"period": "daily", "limit": "much"}]),
            "budgets[0].limit",
        ),
        (
            json!([{"period": "daily", "soft_limit": {}}]),
            "budgets[0].soft_limit",
        ),
        (json!([{"period": "daily"}]), "budgets[0]"),
        (
            json!([{"period": "daily", "limit": 1}, {"period": "daily", "limit": 2}]),
            "budgets[1]",
        ),
        (json!([{"period": "daily", "hard": 1}]), "budgets[0].hard"),
    ] {
        let body = json!({"name": "wrong", "budgets": budgets});
        let error = admin.post("/admin/v1/projects", &body).await.error(400);
        assert_eq!(error["param"], param, "{error}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn an_anthropic_upstream_reserves_its_writes() {
    let emulator = Emulator::start(Anthropic::new()).await;
    let gateway = TestGateway::builder()
        .upstream(upstream("anthropic", &emulator.url, "key-1"))
        .route("m", &[("anthropic", "claude-sonnet-4-6")])
        .start()
        .await;
    // A million tokens of input are 3 dollars fresh and 6 written for an hour; these are about 2,700.
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(240);
    let body = json!({"model": "m", "messages": [say("user", &text)], "max_tokens": 1});
    let fresh_only = member(
        &gateway,
        "fresh",
        json!([{"period": "total", "limit": "0.01"}]),
    )
    .await;
    fresh_only
        .post("/v1/chat/completions", &body)
        .await
        .error(402);
    let enough = member(
        &gateway,
        "enough",
        json!([{"period": "total", "limit": "0.02"}]),
    )
    .await;
    enough.post("/v1/chat/completions", &body).await.ok();
    gateway.stop().await;
}
