//! What `/usage` answers, and to whom.

use std::time::Duration;

use holdfast_store::KeyScope;
use holdfast_testkit::{TestClient, TestGateway};
use serde_json::{Value, json};

use super::{rows, rows_of};
use crate::say;

async fn chat(client: &TestClient, model: &str) {
    let body = json!({"model": model, "messages": [say("user", "hi")], "max_tokens": 2});
    client.post("/v1/chat/completions", &body).await.ok();
}

#[tokio::test]
async fn groups_days_models_and_keys() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let other = gateway.client_of("default", &[KeyScope::Inference]).await;
    for _ in 0..2 {
        chat(&client, "tiny").await;
        chat(&client, "gemini-2.0-flash").await;
        chat(&other, "tiny").await;
        gateway.clock.advance(Duration::from_secs(86_400));
    }
    let page = client.get("/v1/usage?group_by=day,model").await.ok();
    let data = page["data"].as_array().unwrap();
    let seen: Vec<(&Value, &Value, &Value)> = (data.iter())
        .map(|group| (&group["day"], &group["model"], &group["requests"]))
        .collect();
    let group = |day: &str, model: &str, requests: u64| (json!(day), json!(model), json!(requests));
    let expected = [
        group("2026-11-22", "gemini-2.0-flash", 1),
        group("2026-11-22", "tiny", 2),
        group("2026-11-23", "gemini-2.0-flash", 1),
        group("2026-11-23", "tiny", 2),
    ];
    let expected: Vec<_> = expected.iter().map(|(a, b, c)| (a, b, c)).collect();
    assert_eq!(seen, expected);
    assert!(data[0].get("key").is_none(), "only what was asked for");
    assert_eq!(page["totals"]["requests"], 6);
    assert_eq!(page["has_more"], false);

    let keys = client.get("/v1/usage?group_by=key").await.ok();
    let counts: Vec<&Value> = (keys["data"].as_array().unwrap().iter())
        .map(|group| &group["requests"])
        .collect();
    assert_eq!(counts.len(), 2);
    assert!(counts.contains(&&json!(4)) && counts.contains(&&json!(2)));
    let hours = client.get("/v1/usage?group_by=hour").await.ok();
    assert_eq!(hours["data"][0]["hour"], "2026-11-22T12:00:00Z");

    for (parameters, count) in [
        ("&from=2026-11-23", 3),
        ("&to=2026-11-23T00:00:00Z", 3),
        ("&from=1795348800&to=1795348801", 3),
        (
            "&from=2026-11-22T13:00:00%2B01:00&to=2026-11-22T12:00:01Z",
            3,
        ),
        ("&from=2026-11-24", 0),
        ("&model=tiny", 4),
        ("&model=nobody", 0),
        ("&context=nobody", 0),
    ] {
        let page = client
            .get(&format!("/v1/usage?limit=1{parameters}"))
            .await
            .ok();
        assert_eq!(page["totals"]["requests"], count, "{parameters}");
        assert_eq!(
            rows_of(&client, parameters).await.len(),
            count,
            "{parameters}"
        );
    }
}

#[tokio::test]
async fn pages_hold_everything_once() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for number in 0..7 {
        chat(&client, "tiny").await;
        if number % 2 == 0 {
            gateway.clock.advance(Duration::from_secs(3600));
        }
    }
    let all = rows(&client).await;
    assert_eq!(all.len(), 7);
    for (path, name, count) in [
        ("/v1/usage/requests?limit=2", "id", 7),
        ("/v1/usage?group_by=hour&limit=2", "hour", 4),
    ] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = client.get(&format!("{path}&cursor={cursor}")).await.ok();
            let data = page["data"].as_array().unwrap().clone();
            assert!(data.len() <= 2);
            seen.extend(
                data.iter()
                    .map(|item| item[name].as_str().unwrap().to_owned()),
            );
            if page["has_more"] == false {
                assert!(page["next_cursor"].is_null());
                break;
            }
            page["next_cursor"]
                .as_str()
                .unwrap()
                .clone_into(&mut cursor);
        }
        let mut distinct = seen.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!((seen.len(), distinct.len()), (count, count), "{path}");
    }
}

#[tokio::test]
async fn a_key_sees_its_own_project_and_an_admin_any() {
    let gateway = TestGateway::start().await;
    let admin = gateway.client();
    let scopes = [KeyScope::Inference, KeyScope::UsageRead];
    let a = gateway.client_of("a", &scopes).await;
    let b = gateway.client_of("b", &scopes).await;
    chat(&a, "tiny").await;
    chat(&a, "tiny").await;
    chat(&b, "tiny").await;
    let requests = async |client: &TestClient, parameters: &str| {
        let path = format!("/v1/usage?group_by=project{parameters}");
        client.get(&path).await.ok()["totals"]["requests"].take()
    };
    assert_eq!(requests(&a, "").await, 2);
    assert_eq!(requests(&a, "&project=a").await, 2);
    assert_eq!(requests(&b, "").await, 1);
    assert_eq!(rows(&b).await.len(), 1);
    // Whether there is such a project makes no difference.
    for project in ["b", "nobody", "*"] {
        for path in ["/v1/usage", "/v1/usage/requests"] {
            let refused = a.get(&format!("{path}?project={project}")).await;
            let error = refused.error(403);
            assert_eq!(error["param"], "project");
        }
    }
    // Another project's key and context are those of nobody.
    let key = rows(&b).await[0]["key"].as_str().unwrap().to_owned();
    assert_eq!(requests(&a, &format!("&key={key}")).await, 0);
    assert_eq!(requests(&admin, "").await, 0, "its own");
    assert_eq!(requests(&admin, "&project=b").await, 1);
    assert_eq!(requests(&admin, "&project=*").await, 3);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for (parameters, field) in [
        ("group_by=day,weather", "group_by"),
        ("group_by=day,day", "group_by"),
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("from=-5", "from"),
        ("from=2026-11-30&to=2026-11-29", "to"),
        ("limit=0", "limit"),
        ("limit=many", "limit"),
        ("cursor=nonsense", "cursor"),
    ] {
        let reply = client.get(&format!("/v1/usage?{parameters}")).await;
        assert_eq!(reply.error(400)["param"], field, "{parameters}");
    }
    client.without_key().get("/v1/usage").await.error(401);
    client.get("/api/v3/usage").await.ok();
}

#[tokio::test]
async fn rows_are_erased_when_they_are_old_enough() {
    let day = Duration::from_secs(86_400);
    let gateway = TestGateway::builder()
        .ledger(|ledger| ledger.retention_days = 2)
        .start()
        .await;
    let client = gateway.client();
    for _ in 0..4 {
        chat(&client, "tiny").await;
        gateway.clock.advance(day);
    }
    assert_eq!(rows(&client).await.len(), 4);
    assert_eq!(gateway.app.erase_ledger().await.unwrap(), 2);
    assert_eq!(gateway.app.erase_ledger().await.unwrap(), 0);
    assert_eq!(rows(&client).await.len(), 2);

    let keeper = TestGateway::builder()
        .ledger(|ledger| ledger.retention_days = 0)
        .start()
        .await;
    chat(&keeper.client(), "tiny").await;
    keeper.app.write_ledger().await.unwrap();
    keeper.clock.advance(day * 10_000);
    assert_eq!(keeper.app.erase_ledger().await.unwrap(), 0);
}
