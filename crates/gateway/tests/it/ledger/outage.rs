//! The store goes away: rows wait on disk, and are there exactly once when it is back.

use std::path::Path;
use std::time::Duration;

use holdfast_testkit::{Action, Gate, Operation, TestClient, TestGateway};
use serde_json::json;

use super::rows;
use crate::say;

async fn chats(client: &TestClient, count: usize) {
    for _ in 0..count {
        let body = json!({"model": "tiny", "messages": [say("user", "hi")], "max_tokens": 2});
        client.post("/v1/chat/completions", &body).await.ok();
    }
}

fn spooled(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("spool")).unwrap().count()
}

/// Waits until the ledger says so at `/readyz`.
async fn until_state(client: &TestClient, state: &str) -> u16 {
    let waiting = async {
        loop {
            let reply = client.get("/readyz").await;
            if reply.json()["ledger"] == state {
                return reply.status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let status = tokio::time::timeout(super::PATIENCE, waiting).await;
    status.unwrap_or_else(|_| panic!("the ledger never was {state}"))
}

#[tokio::test]
async fn rows_wait_on_disk_and_come_back_once() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = TestGateway::builder().data_dir(folder.path()).start().await;
    let client = gateway.client();
    chats(&client, 2).await;
    assert_eq!(rows(&client).await.len(), 2);
    gateway.store.break_down(&[Operation::AppendLedger]);
    chats(&client, 3).await;
    assert_eq!(until_state(&client, "behind").await, 200);
    assert!(spooled(folder.path()) > 0);
    assert_eq!(rows(&client).await.len(), 2, "what is stored can be read");
    gateway.store.mend();
    gateway.app.write_ledger().await.unwrap();
    assert_eq!(rows(&client).await.len(), 5);
    assert_eq!(until_state(&client, "ok").await, 200);
    assert_eq!(spooled(folder.path()), 0, "files whose rows are stored go");
    gateway.stop().await;
}

#[tokio::test]
async fn the_next_process_finds_what_the_last_one_left() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = TestGateway::builder().data_dir(folder.path()).start().await;
    gateway.store.break_down(&[Operation::AppendLedger]);
    chats(&gateway.client(), 3).await;
    gateway.stop().await;
    assert!(spooled(folder.path()) > 0);
    let kept = folder.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    for file in std::fs::read_dir(folder.path().join("spool")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), kept.join(file.file_name())).unwrap();
    }
    for _ in 0..2 {
        let gateway = TestGateway::builder().data_dir(folder.path()).start().await;
        gateway.app.write_ledger().await.unwrap();
        assert_eq!(rows(&gateway.client()).await.len(), 3);
        gateway.stop().await;
        // As if the process had been killed between giving the rows to the store and removing the file.
        for file in std::fs::read_dir(&kept).unwrap() {
            let file = file.unwrap();
            let spool = folder.path().join("spool");
            std::fs::copy(file.path(), spool.join(file.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn no_answer_waits_for_the_store() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let gate = Gate::default();
    gateway
        .store
        .plan(Operation::AppendLedger, [Action::Wait(gate.clone())]);
    chats(&client, 1).await;
    gate.reached().await;
    chats(&client, 20).await;
    gate.open();
    gateway.app.write_ledger().await.unwrap();
    assert_eq!(rows(&client).await.len(), 21);
}

#[tokio::test]
async fn a_full_spool_is_said_and_loses_nothing_that_memory_can_hold() {
    let gateway = TestGateway::builder()
        .ledger(|ledger| ledger.spool_bytes_max = 1500)
        .start()
        .await;
    let client = gateway.client();
    gateway.store.break_down(&[Operation::AppendLedger]);
    chats(&client, 5).await;
    assert_eq!(until_state(&client, "full").await, 503);
    let metrics = client.without_key().get("/metrics").await.text();
    assert!(
        metrics.contains("\nholdfast_ledger_rows_waiting 5\n"),
        "{metrics}"
    );
    assert!(metrics.contains("\nholdfast_ledger_rows_lost_total 0\n"));
    gateway.store.mend();
    gateway.app.write_ledger().await.unwrap();
    assert_eq!(rows(&client).await.len(), 5);
    assert_eq!(until_state(&client, "ok").await, 200);
}
