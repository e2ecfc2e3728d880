//! Faults of everything that a gateway stands on: what clients see, that traffic which can go on goes on, and that the
//! ledger adds up afterwards. `make chaos` runs these.

mod disk;
mod postgres;
mod replicas;
mod upstream;

use std::collections::HashSet;
use std::time::Duration;

use holdfast_testkit::{Reply, TestClient};
use serde_json::Value;

use crate::ledger::rows;

/// Beyond anything that a machine at work needs, and below what a defect would take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must come.
async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let came = tokio::time::timeout(PATIENCE, waiting).await;
    came.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// An amount of money as the API writes it.
fn amount(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

fn is_same(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-12
}

fn request_id(reply: &Reply) -> String {
    reply.header("x-request-id").to_owned()
}

/// The ledger once it has the rows of these requests: one for each, and no other.
async fn adds_up(client: &TestClient, requests: &[String]) -> Vec<Value> {
    eventually("a row for each request", async || {
        rows(client).await.len() >= requests.len()
    })
    .await;
    let rows = rows(client).await;
    let ids: HashSet<&str> = (rows.iter())
        .map(|row| row["request_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), rows.len(), "no request has two rows");
    let asked: HashSet<&str> = requests.iter().map(String::as_str).collect();
    assert_eq!(ids, asked, "each request has a row");
    rows
}

/// The row of one request among these.
fn row_of<'a>(rows: &'a [Value], request: &str) -> &'a Value {
    let row = rows.iter().find(|row| row["request_id"] == request);
    row.unwrap_or_else(|| panic!("{request} has no row"))
}

/// Whether budgets say what the rows say, with nothing held back.
async fn is_settled(client: &TestClient, rows: &[Value]) -> bool {
    let costs = rows.iter().map(|row| &row["cost"]);
    let cost: f64 = costs.filter(|it| it.is_string()).map(amount).sum();
    let budgets = client.get("/v1/budgets").await.ok();
    let budgets = budgets["data"].as_array().unwrap();
    assert!(!budgets.is_empty());
    budgets
        .iter()
        .all(|it| amount(&it["reserved"]) == 0.0 && is_same(amount(&it["spent"]), cost))
}
