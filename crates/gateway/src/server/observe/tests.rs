#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use holdfast_engine::{Engine, EngineOptions};
use holdfast_protocol::Profile;
use holdfast_protocol::context::ProfileKind;
use holdfast_store::MemoryStore;
use serde_json::Value;
use tower::ServiceExt;

use super::{catch_panics, observe};
use crate::app::{App, AppOptions, ModelEntry, ModelSource, system_clock};

fn app() -> Arc<App> {
    let model = ModelEntry {
        name: "tiny".into(),
        aliases: Vec::new(),
        profile: Profile::of(ProfileKind::Native, 8192),
        source: ModelSource::Engine(
            Engine::start_tiny(EngineOptions::new(PathBuf::new())).unwrap(),
        ),
        owned_by: "holdfast".into(),
        created: 0,
        max_output_tokens: 16,
        auto_context: false,
        temperature: Some(1.0),
        top_p: Some(1.0),
    };
    App::new(
        Arc::new(MemoryStore::new()),
        AppOptions::new(vec![model]),
        system_clock(),
    )
    .unwrap()
}

#[tokio::test]
async fn a_panic_in_a_handler_is_answered_and_counted_and_does_not_tell_what_it_said() {
    async fn handler() -> &'static str {
        panic!("secret words")
    }
    let app = app();
    let router = Router::new()
        .route("/", get(handler))
        .layer(from_fn_with_state(Arc::clone(&app), catch_panics))
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .with_state(Arc::clone(&app));
    let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.status(), 500);
    assert!(response.headers().contains_key("x-request-id"));
    let body = to_bytes(response.into_body(), 10_000).await.unwrap();
    assert!(!String::from_utf8_lossy(&body).contains("secret words"));
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(body["error"]["message"].is_string());
    let metrics = app
        .events
        .encode(&app.models, &app.upstreams, &app.admission);
    assert!(metrics.contains("holdfast_panics_total 1"));
    assert!(metrics.contains("holdfast_http_requests_in_flight 0"));
}
