//! `holdfast usage`, the real program against a gateway in this process.

use holdfast_testkit::TestGateway;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::say;

async fn usage(gateway: &TestGateway, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["usage", "--url", &gateway.url])
        .args(arguments)
        .env("HOLDFAST_API_KEY", gateway.key())
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_shown_and_exported() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for _ in 0..3 {
        let body = json!({"model": "tiny", "messages": [say("user", "hi")], "max_tokens": 2});
        client.post("/v1/chat/completions", &body).await.ok();
    }
    // The program asks for the last thirty days of the server's clock.
    let shown = usage(&gateway, &[]).await;
    assert!(shown.contains("MODEL") && shown.contains("tiny"), "{shown}");
    let groups: Value =
        serde_json::from_str(&usage(&gateway, &["--by", "model", "--json"]).await).unwrap();
    assert_eq!(groups[0]["requests"], 3);
    let csv = usage(&gateway, &["--by", "day", "--csv"]).await;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 2, "{csv}");
    assert!(lines[0].starts_with("day,requests,") && lines[1].starts_with("2026-11-22,3,"));
    let rows = usage(&gateway, &["--requests", "--csv"]).await;
    assert_eq!(rows.lines().count(), 4, "{rows}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("usage.parquet");
    usage(
        &gateway,
        &["--requests", "--parquet", file.to_str().unwrap()],
    )
    .await;
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
}
