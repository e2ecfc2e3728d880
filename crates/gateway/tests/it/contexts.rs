//! Looking up, listing, extending and deleting.

use std::collections::HashSet;
use std::time::Duration;

use holdfast_testkit::TestGateway;
use serde_json::json;

use crate::{ask, create};

#[tokio::test]
async fn a_context_can_be_read_extended_and_deleted() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(
        &client,
        json!({"display_name": "manual", "metadata": {"z": 1, "a": 2}}),
    )
    .await;
    let path = format!("/v1/context/{id}");

    let context = client.get(&path).await.ok();
    assert_eq!(context["id"], id);
    assert_eq!(context["display_name"], "manual");
    assert_eq!(context["metadata"].to_string(), r#"{"z":1,"a":2}"#);
    assert!(context.get("usage").is_none());
    assert!(context.get("messages").is_none());

    gateway.clock.advance(Duration::from_secs(100));
    let context = client.patch(&path, &json!({"ttl": 600})).await.ok();
    assert_eq!(context["ttl"], 600);
    assert_eq!(
        context["expires_at"].as_i64().unwrap(),
        gateway.clock.now() / 1000 + 600
    );
    assert_eq!(
        client.patch(&path, &json!({"ttl": 0})).await.error(400)["param"],
        "ttl"
    );
    assert_eq!(
        client.patch(&path, &json!({})).await.error(400)["param"],
        "ttl"
    );

    let deleted = client.delete(&path).await.ok();
    assert_eq!(
        (&deleted["id"], &deleted["deleted"]),
        (&json!(id), &json!(true))
    );
    for reply in [
        client.get(&path).await,
        client.delete(&path).await,
        ask(&client, &id, "hi").await,
    ] {
        assert_eq!(reply.error(404)["code"], "NotFound.context_id");
    }
}

#[tokio::test]
async fn ids_are_accepted_in_all_their_forms() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({})).await;
    for path in [
        format!("/v1/context/{id}"),
        format!("/v1/context/cachedContents/{id}"),
        format!("/v1/context/cachedContents%2F{id}"),
        format!("/v1/context/projects/p/locations/global/cachedContents/{id}"),
        format!("/v1/context/projects%2Fp%2Flocations%2Fglobal%2FcachedContents%2F{id}"),
        format!("/api/v3/context/projects/p/locations/l/cachedContents/{id}"),
    ] {
        assert_eq!(client.get(&path).await.ok()["id"], id, "{path}");
    }
    for form in [
        id.clone(),
        format!("cachedContents/{id}"),
        format!("projects/1/locations/l/cachedContents/{id}"),
    ] {
        assert_eq!(ask(&client, &form, "hi").await.status, 200, "{form}");
    }
    let path = format!("/v1/context/projects/p/locations/global/cachedContents/{id}/fork");
    assert_eq!(
        client.post(&path, &json!({})).await.ok()["forked_from"]["id"],
        id
    );
}

#[tokio::test]
async fn a_list_is_paged_newest_first() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let mut newest_first = Vec::new();
    for _ in 0..7 {
        gateway.clock.advance(Duration::from_secs(1));
        newest_first.insert(0, create(&client, json!({})).await);
    }
    for cursor_name in ["cursor", "after"] {
        let mut seen = Vec::new();
        let mut path = "/v1/context?limit=3".to_owned();
        loop {
            let page = client.get(&path).await.ok();
            assert_eq!(page["object"], "list");
            seen.extend(
                page["data"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|context| context["id"].as_str().unwrap().to_owned()),
            );
            assert_eq!(page["has_more"], !page["next_cursor"].is_null());
            let Some(cursor) = page["next_cursor"].as_str() else {
                break;
            };
            path = format!("/v1/context?limit=3&{cursor_name}={cursor}");
            // A newcomer does not disturb the pages that are still to come.
            if cursor_name == "after" && seen.len() == 3 {
                create(&client, json!({})).await;
            }
        }
        assert_eq!(seen, newest_first, "{cursor_name}");
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 7);
    }
    for query in ["limit=0", "limit=101", "limit=x", "limit=-1"] {
        assert_eq!(
            client.get(&format!("/v1/context?{query}")).await.error(400)["param"],
            "limit",
            "{query}"
        );
    }
    assert_eq!(
        client.get("/v1/context?cursor=nonsense").await.error(400)["param"],
        "cursor"
    );
}
