//! What keeping copies costs, at a provider that charges for it.

use std::path::Path;
use std::time::Duration;

use holdfast_emulators::Emulator;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_testkit::{TestClient, TestClock, TestGateway, upstream};
use serde_json::{Value, json};

use super::{rows_after, rows_of};
use crate::say;

const HOUR: Duration = Duration::from_secs(3600);

/// Gemini 2.5 Pro: dollars for a million tokens and an hour (facts section 7).
const PRICE: f64 = 4.5;

async fn start(emulator: &Emulator, folder: &Path, clock: &TestClock) -> TestGateway {
    let url = format!("{}/v1beta", emulator.url);
    TestGateway::builder()
        .clock(clock)
        .data_dir(folder)
        .upstream(upstream("gemini", &url, "key-1"))
        .route("model", &[("gemini", "gemini-2.5-pro")])
        .start()
        .await
}

async fn stored(client: &TestClient) -> Vec<Value> {
    let mut rows = rows_of(client, "&upstream=gemini").await;
    rows.retain(|row| row["kind"] == "storage");
    rows
}

#[tokio::test]
async fn a_copy_costs_a_row_for_each_hour_and_one_for_its_last_part() {
    let emulator = Emulator::start(Gemini::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    clock.follow_system();
    let gateway = start(&emulator, folder.path(), &clock).await;
    let pass = async |gateway: &TestGateway, time: Duration| {
        clock.advance(time);
        emulator.clock().advance(time);
        gateway.app.tend_upstreams().await;
    };
    let client = gateway.client();
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(600);
    let body = json!({"model": "model", "messages": [say("system", &text)], "ttl": 86_400});
    let id = client.post("/v1/context/create", &body).await.ok()["id"].take();
    let id = id.as_str().unwrap();
    pass(&gateway, HOUR / 2).await;
    assert_eq!(stored(&client).await.len(), 0, "the hour is not over");
    pass(&gateway, HOUR / 2).await;
    pass(&gateway, Duration::ZERO).await;
    let rows = stored(&client).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["context_id"], id);
    assert_eq!(
        (&rows[0]["key"], &rows[0]["model"]),
        (&Value::Null, &json!("model"))
    );
    gateway.stop().await;

    // The next process finds the same hours and makes the same rows of them.
    let gateway = start(&emulator, folder.path(), &clock).await;
    let client = gateway.client();
    pass(&gateway, HOUR).await;
    assert_eq!(stored(&client).await.len(), 2);
    pass(&gateway, HOUR / 2).await;
    assert_eq!(stored(&client).await.len(), 2);
    client.delete(&format!("/v1/context/{id}")).await.ok();
    rows_after(&client, 4).await;
    let rows = stored(&client).await;
    assert_eq!(rows.len(), 3, "{rows:?}");

    let cost: f64 = (rows.iter())
        .map(|row| row["cost"].as_str().unwrap().parse::<f64>().unwrap())
        .sum();
    let billed: f64 = (emulator.bill().charges().iter())
        .filter(|charge| charge.kind == "storage")
        .map(|charge| charge.token_milliseconds as f64 / 1e6 / 3.6e6 * PRICE)
        .sum();
    assert!(
        (cost - billed).abs() < billed / 100.0,
        "{cost} for {billed}"
    );
    let totals = client.get("/v1/usage").await.ok()["totals"].take();
    let money = &totals["money"][0];
    let storage: f64 = money["storage_cost"].as_str().unwrap().parse().unwrap();
    assert!((storage - cost).abs() < 1e-9, "{money}");
    assert_eq!(totals["requests"], 1, "storage is nobody's request");
    gateway.stop().await;
}
