//! The OpenAPI document: served, committed, and the same.

use std::path::Path;

use holdfast_testkit::TestGateway;
use serde_json::Value;

#[tokio::test]
async fn the_committed_document_is_the_served_one() {
    let gateway = TestGateway::start().await;
    let served = gateway
        .client()
        .without_key()
        .get("/openapi.json")
        .await
        .text();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == served,
        "docs/openapi.json is not up to date: run the tests once with UPDATE_OPENAPI=1"
    );
}

#[tokio::test]
async fn the_document_describes_the_api() {
    let gateway = TestGateway::start().await;
    let document = gateway.client().get("/openapi.json").await.ok();
    for (path, method) in [
        ("/v1/context/create", "post"),
        ("/api/v3/context/create", "post"),
        ("/v1/context", "get"),
        ("/v1/context/{id}", "get"),
        ("/v1/context/{id}", "patch"),
        ("/v1/context/{id}", "delete"),
        ("/v1/context/{id}/fork", "post"),
        ("/v1/chat/completions", "post"),
        ("/v1/context/chat/completions", "post"),
        ("/v1/usage", "get"),
        ("/v1/usage/requests", "get"),
        ("/v1/models", "get"),
        ("/admin/v1/keys", "post"),
        ("/metrics", "get"),
    ] {
        assert!(
            document["paths"][path][method]["responses"]["200"].is_object(),
            "{method} {path}"
        );
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(
            document.pointer(pointer).is_some(),
            "{reference} leads nowhere"
        );
    }
}

fn collect_references(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, member)| match member {
            Value::String(target) if key == "$ref" => references.push(target.clone()),
            member => collect_references(member, references),
        }),
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect_references(item, references)),
        _ => {}
    }
}
