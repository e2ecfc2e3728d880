//! The ledger: one row for each request, whatever becomes of it, and what `/usage` makes of the rows.

mod cli;
mod crash;
mod outage;
mod queries;
mod rows;
mod storage;
mod upstreams;

use std::time::Duration;

use holdfast_testkit::TestClient;
use serde_json::Value;

/// How long a test waits for a row whose request nobody waits for any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that the ledger knows of the client's project, the latest first.
pub(crate) async fn rows(client: &TestClient) -> Vec<Value> {
    rows_of(client, "").await
}

/// The same with these parameters, from all pages.
async fn rows_of(client: &TestClient, parameters: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/usage/requests?limit=1000&cursor={cursor}{parameters}");
        let page = client.get(&path).await.ok();
        rows.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return rows,
        }
    }
}

/// The rows once there are so many.
async fn rows_after(client: &TestClient, count: usize) -> Vec<Value> {
    let waiting = async {
        loop {
            let rows = rows(client).await;
            if rows.len() >= count {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let rows = tokio::time::timeout(PATIENCE, waiting).await;
    rows.unwrap_or_else(|_| panic!("there are no {count} rows"))
}

/// Sums over everything of the client's project.
async fn totals(client: &TestClient) -> Value {
    client.get("/v1/usage").await.ok()["totals"].take()
}
