//! What monitoring asks. Needs no key; says nothing about any tenant.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::reply;
use crate::app::{App, ModelSource};
use crate::ledger::LedgerState;

/// The store has so long to answer.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// Whether the process answers
#[utoipa::path(get, path = "/healthz", tag = "operations", security(()), responses((status = 200, description = "It does")))]
pub(super) async fn health() -> Response {
    reply::json(json!({"status": "ok"}).to_string().into())
}

/// Whether requests can be served
///
/// The store answers, every engine runs, and the ledger has room.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    security(()),
    responses((status = 200, description = "They can"), (status = 503, description = "They can't; the body says what is missing"))
)]
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let store = match tokio::time::timeout(STORE_PATIENCE, app.store.page_projects(None, 1)).await {
        Ok(Ok(_)) => "ok",
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready: the store does not answer");
            "unavailable"
        }
        Err(_) => "slow",
    };
    let stopped: Vec<&str> = app
        .models
        .iter()
        .filter(|model| match &model.entry.source {
            ModelSource::Engine(engine) => !engine.is_running(),
            // Whether upstreams can be reached is theirs; the gateway serves other models all the same.
            ModelSource::Route(_) => false,
        })
        .map(|model| model.entry.name.as_str())
        .collect();
    let ledger = app.ledger.state();
    let is_ready = store == "ok" && stopped.is_empty() && ledger != LedgerState::Full;
    let body = json!({
        "status": if is_ready { "ok" } else { "not ready" },
        "store": store,
        "engines": if stopped.is_empty() { "ok" } else { "stopped" },
        "stopped_models": stopped,
        "ledger": match ledger {
            LedgerState::Ok => "ok",
            LedgerState::Behind => "behind",
            LedgerState::Full => "full",
        },
    });
    let mut response = reply::json(body.to_string().into());
    if !is_ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// Counters and gauges in the format of OpenMetrics
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    security(()),
    responses((status = 200, description = "The metrics", content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app
        .events
        .encode(&app.models, &app.upstreams, &app.admission);
    (
        [(
            CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "operations", security(()), responses((status = 200, description = "OpenAPI 3.1")))]
pub(super) async fn openapi_document() -> Response {
    reply::json(super::openapi::document().into())
}
