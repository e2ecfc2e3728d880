//! `/admin/v1/upstreams`: what requests are sent to, and draining a worker, for the operator.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use holdfast_protocol::{ApiError, ErrorKind};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::admin::Acting;
use super::body::JsonBody;
use super::reply::{self, Failure};
use crate::app::App;
use crate::audit::{Act, Actor, Audit, not_noted};
use crate::upstream::{Member, Upstream};

/// An upstream and its servers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UpstreamObject {
    /// `upstream`.
    #[schema(example = "upstream")]
    object: &'static str,
    /// As configured.
    name: String,
    /// The service.
    provider: &'static str,
    /// `up`, or `down` while all of its servers are left alone because they keep failing.
    #[schema(example = "up")]
    state: &'static str,
    /// One where it has a base URL.
    workers: Vec<WorkerObject>,
}

/// One server of an upstream.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkerObject {
    /// `upstream.worker`.
    #[schema(example = "upstream.worker")]
    object: &'static str,
    /// As configured, or host and port.
    name: String,
    /// Where its API begins.
    url: String,
    /// `healthy`, `unhealthy` (it keeps failing and gets no requests) or `draining` (it gets nothing new by the
    /// operator's wish).
    #[schema(example = "healthy")]
    state: &'static str,
    /// Requests under way.
    in_flight: u64,
    /// Its share.
    weight: f64,
}

/// All upstreams.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UpstreamList {
    /// `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// In the order of the configuration.
    data: Vec<UpstreamObject>,
}

/// The routes, below the scope `admin`.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/admin/v1/upstreams", get(list_upstreams))
        .route(
            "/admin/v1/upstreams/{upstream}/workers/{worker}/drain",
            post(drain_worker),
        )
        .route(
            "/admin/v1/upstreams/{upstream}/workers/{worker}/undrain",
            post(undrain_worker),
        )
}

/// List upstreams
///
/// With their workers, and how these fare as this server sees it.
#[utoipa::path(
    get,
    path = "/admin/v1/upstreams",
    tag = "admin",
    responses((status = 200, description = "The upstreams", body = UpstreamList))
)]
pub(super) async fn list_upstreams(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    reply::object(&UpstreamList {
        object: "list",
        data: app.upstreams.iter().map(|one| upstream(one)).collect(),
    })
}

/// Drain a worker
///
/// It gets nothing new; what runs there finishes. Holds on this server until it is undrained or the server ends, whatever
/// the configuration says.
#[utoipa::path(
    post,
    path = "/admin/v1/upstreams/{upstream}/workers/{worker}/drain",
    tag = "admin",
    params(
        ("upstream" = String, Path, description = "The upstream's name"),
        ("worker" = String, Path, description = "The worker's name"),
    ),
    responses(
        (status = 200, description = "The worker", body = WorkerObject),
        (status = 404, description = "There is no such upstream or worker"),
    )
)]
pub(super) async fn drain_worker(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    names: Result<Path<(String, String)>, PathRejection>,
    // Many clients send one, and the connection could not be used again if it were left unread.
    _body: JsonBody,
) -> Result<Response, Failure> {
    drain(&app, actor, names, true).await
}

/// Give a worker requests again
///
/// Also where the configuration says that it drains, until the server ends.
#[utoipa::path(
    post,
    path = "/admin/v1/upstreams/{upstream}/workers/{worker}/undrain",
    tag = "admin",
    params(
        ("upstream" = String, Path, description = "The upstream's name"),
        ("worker" = String, Path, description = "The worker's name"),
    ),
    responses(
        (status = 200, description = "The worker", body = WorkerObject),
        (status = 404, description = "There is no such upstream or worker"),
    )
)]
pub(super) async fn undrain_worker(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    names: Result<Path<(String, String)>, PathRejection>,
    // Many clients send one, and the connection could not be used again if it were left unread.
    _body: JsonBody,
) -> Result<Response, Failure> {
    drain(&app, actor, names, false).await
}

async fn drain(
    app: &App,
    actor: Actor,
    names: Result<Path<(String, String)>, PathRejection>,
    is_drained: bool,
) -> Result<Response, Failure> {
    let Path((upstream, name)) = names.map_err(|_| not_found())?;
    let known = app.upstreams.get(&upstream);
    let member = known.and_then(|known| known.pool.member(&name));
    let member = member.ok_or_else(not_found)?;
    let audit = Audit {
        log: &*app.store,
        actor,
        now: app.now(),
    };
    let act = Act {
        name: if is_drained {
            "worker.drain"
        } else {
            "worker.undrain"
        },
        target: &format!("{upstream}/{name}"),
        project: None,
    };
    let noted = audit.note(act, json!({})).await.map_err(not_noted)?;
    member.drain(is_drained);
    // It can't fail, so that there is nothing more to note.
    drop(noted);
    tracing::info!(
        upstream,
        worker = name,
        is_drained,
        "a worker's draining was changed"
    );
    reply::object(&worker(member))
}

fn upstream(upstream: &Upstream) -> UpstreamObject {
    UpstreamObject {
        object: "upstream",
        name: upstream.options.name.clone(),
        provider: upstream.options.provider.name,
        state: if upstream.pool.is_down() {
            "down"
        } else {
            "up"
        },
        workers: upstream.pool.members.iter().map(worker).collect(),
    }
}

fn worker(member: &Member) -> WorkerObject {
    WorkerObject {
        object: "upstream.worker",
        name: member.worker.name.clone(),
        url: member.worker.url.clone(),
        state: member.standing().as_str(),
        in_flight: member.worker.in_flight(),
        weight: member.weight,
    }
}

fn not_found() -> ApiError {
    ApiError::new(
        ErrorKind::NotFound,
        "There is no such upstream or worker. GET /admin/v1/upstreams lists them.",
    )
}
