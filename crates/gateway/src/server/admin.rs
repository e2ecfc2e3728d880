//! `/admin/v1`: projects and keys, for the operator. What a request means is in [`crate::admin`].

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::response::Response;
use holdfast_protocol::{ApiError, ErrorKind};
use holdfast_store::{AuditFilter, AuditOrder};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body::JsonBody;
use super::observe::Trail;
use super::reply::{self, Failure};
use crate::admin::{
    Admin, AuditList, KeyList, KeyObject, KeyPatch, KeyRequest, PAGE_MAX, ProjectList,
    ProjectObject, ProjectPatch, ProjectRequest, RotateRequest,
};
use crate::app::App;
use crate::audit::{Actor, Audit};
use crate::auth::Principal;

/// Who asks.
pub(super) struct Acting(pub(super) Actor);

impl<S: Sync> FromRequestParts<S> for Acting {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        // All routes that ask for it are behind the check of keys, which leaves a principal.
        let principal = parts.extensions.get::<Principal>();
        let trail = parts.extensions.get::<Trail>();
        Ok(Acting(Actor::key(
            principal.map_or("", |principal| &principal.key_id),
            trail.map(Trail::request_id),
        )))
    }
}

/// Which part of a list is meant.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    project: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
}

impl ListQuery {
    fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref().filter(|cursor| !cursor.is_empty())
    }

    fn limit(&self) -> Result<u32, ApiError> {
        let Some(limit) = self.limit.as_deref().filter(|limit| !limit.is_empty()) else {
            return Ok(PAGE_MAX);
        };
        let limit = limit.parse().ok();
        limit
            .filter(|limit| (1..=PAGE_MAX).contains(limit))
            .ok_or_else(|| {
                let problem = format!("must be a whole number from 1 to {PAGE_MAX}");
                ApiError::invalid("limit", problem)
            })
    }
}

/// Make a project
#[utoipa::path(
    post,
    path = "/admin/v1/projects",
    tag = "admin",
    request_body = ProjectRequest,
    responses((status = 200, description = "The project", body = ProjectObject))
)]
pub(super) async fn create_project(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(decode)?;
    reply::object(&admin(&app, actor).create_project(&request).await?)
}

/// List projects
#[utoipa::path(
    get,
    path = "/admin/v1/projects",
    tag = "admin",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 when absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page of projects, by name", body = ProjectList))
)]
pub(super) async fn list_projects(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = reply::query(query)?;
    let admin = admin(&app, actor);
    reply::object(&admin.list_projects(query.cursor(), query.limit()?).await?)
}

/// Get a project
#[utoipa::path(
    get,
    path = "/admin/v1/projects/{name}",
    tag = "admin",
    params(("name" = String, Path, description = "The project's name")),
    responses((status = 200, description = "The project", body = ProjectObject))
)]
pub(super) async fn get_project(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    reply::object(&admin(&app, actor).project(&known_path(name)).await?)
}

/// Change a project
///
/// Fields that are absent stay as they are; null takes a setting away.
#[utoipa::path(
    patch,
    path = "/admin/v1/projects/{name}",
    tag = "admin",
    params(("name" = String, Path, description = "The project's name")),
    request_body = ProjectPatch,
    responses((status = 200, description = "The project as it is now", body = ProjectObject))
)]
pub(super) async fn update_project(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    name: Result<Path<String>, PathRejection>,
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(decode)?;
    let name = known_path(name);
    let changing = Arc::clone(&app);
    to_the_end(&app, async move {
        let updated = admin(&changing, actor)
            .update_project(&name, &request)
            .await;
        changing.authenticator.forget_project(&name);
        updated
    })
    .await
}

/// Make a key
///
/// The secret is in this answer and nowhere else.
#[utoipa::path(
    post,
    path = "/admin/v1/keys",
    tag = "admin",
    request_body = KeyRequest,
    responses((status = 200, description = "The key, with its secret", body = KeyObject))
)]
pub(super) async fn create_key(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(decode)?;
    reply::object(&admin(&app, actor).create_key(&request).await?)
}

/// List keys
#[utoipa::path(
    get,
    path = "/admin/v1/keys",
    tag = "admin",
    params(
        ("project" = Option<String>, Query, description = "Only this project's"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 when absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page of keys, without their secrets", body = KeyList))
)]
pub(super) async fn list_keys(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = reply::query(query)?;
    let (project, cursor, limit) = (query.project.as_deref(), query.cursor(), query.limit()?);
    reply::object(&admin(&app, actor).list_keys(project, cursor, limit).await?)
}

/// Get a key
#[utoipa::path(
    get,
    path = "/admin/v1/keys/{id}",
    tag = "admin",
    params(("id" = String, Path, description = "The key's public id")),
    responses((status = 200, description = "The key, without its secret", body = KeyObject))
)]
pub(super) async fn get_key(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    reply::object(&admin(&app, actor).key(&known_path(id)).await?)
}

/// Change a key
///
/// Fields that are absent stay as they are; null takes a setting away. What was changed counts from the next request on.
#[utoipa::path(
    patch,
    path = "/admin/v1/keys/{id}",
    tag = "admin",
    params(("id" = String, Path, description = "The key's public id")),
    request_body = KeyPatch,
    responses((status = 200, description = "The key as it is now", body = KeyObject))
)]
pub(super) async fn update_key(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    id: Result<Path<String>, PathRejection>,
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(decode)?;
    let id = known_path(id);
    let changing = Arc::clone(&app);
    to_the_end(&app, async move {
        let updated = admin(&changing, actor).update_key(&id, &request).await;
        changing.authenticator.forget(&id);
        updated
    })
    .await
}

/// Rotate a key
///
/// It gets a new secret, which is in this answer and nowhere else. The one so far may be used for `overlap_seconds` more.
#[utoipa::path(
    post,
    path = "/admin/v1/keys/{id}/rotate",
    tag = "admin",
    params(("id" = String, Path, description = "The key's public id")),
    request_body = Option<RotateRequest>,
    responses((status = 200, description = "The key, with its new secret", body = KeyObject))
)]
pub(super) async fn rotate_key(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    id: Result<Path<String>, PathRejection>,
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = match body.bytes.is_empty() {
        true => json!({}),
        false => body.decode(decode)?,
    };
    let id = known_path(id);
    let changing = Arc::clone(&app);
    to_the_end(&app, async move {
        let rotated = admin(&changing, actor).rotate_key(&id, &request).await;
        changing.authenticator.forget(&id);
        rotated
    })
    .await
}

/// Revoke a key
///
/// It is refused from the next request on; at other replicas, within a second. Revoking it again changes nothing.
#[utoipa::path(
    delete,
    path = "/admin/v1/keys/{id}",
    tag = "admin",
    params(("id" = String, Path, description = "The key's public id")),
    responses((status = 200, description = "The revoked key", body = KeyObject))
)]
pub(super) async fn revoke_key(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let id = known_path(id);
    let changing = Arc::clone(&app);
    to_the_end(&app, async move {
        let revoked = admin(&changing, actor).revoke_key(&id).await;
        changing.authenticator.forget(&id);
        revoked
    })
    .await
}

/// Which entries of the audit log are meant.
#[derive(Debug, Deserialize)]
pub(super) struct AuditQuery {
    act: Option<String>,
    actor: Option<String>,
    order: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
}

/// Read the audit log
///
/// What was done to projects, keys, configuration and storage, and by whom. Each entry has the hash of the one before it
/// in its own: `holdfast audit verify` follows the chain.
#[utoipa::path(
    get,
    path = "/admin/v1/audit",
    tag = "admin",
    params(
        ("act" = Option<String>, Query, description = "Only this act, or those that begin so before a `*`"),
        ("actor" = Option<String>, Query, description = "Only what this key, or `local`, `signal`, `config`, `start` did"),
        ("order" = Option<String>, Query, description = "`newest` first, when absent, or `oldest`"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 1000 when absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page of entries", body = AuditList))
)]
pub(super) async fn list_audit(
    State(app): State<Arc<App>>,
    Acting(actor): Acting,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = reply::query(query)?;
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    let filter = AuditFilter {
        act: said(query.act),
        actor: said(query.actor),
    };
    let order = match query.order.as_deref().unwrap_or("newest") {
        "newest" | "" => AuditOrder::Newest,
        "oldest" => AuditOrder::Oldest,
        _ => return Err(ApiError::invalid("order", "must be `newest` or `oldest`").into()),
    };
    let part = ListQuery {
        project: None,
        cursor: query.cursor,
        limit: query.limit,
    };
    let admin = admin(&app, actor);
    let listed = admin.list_audit(&filter, order, part.cursor(), part.limit()?);
    reply::object(&listed.await?)
}

fn admin(app: &App, actor: Actor) -> Admin<'_> {
    let now = app.now();
    Admin {
        store: &*app.store,
        now,
        audit: Audit {
            log: &*app.store,
            actor,
            now,
        },
    }
}

/// Does it on a task of its own: what was seen of a key must be forgotten also when the client has gone. Also when the
/// store has failed, for it may have done it all the same.
async fn to_the_end<T: Serialize + Send + 'static>(
    app: &Arc<App>,
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<Response, Failure> {
    let done = app.tasks.spawn(change).await;
    reply::object(&done.map_err(|_| ApiError::internal())??)
}

fn decode(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(
            ErrorKind::InvalidJson,
            format!("The body is not the JSON object that is expected here: {error}."),
        )
    })
}

/// What can't be read is the name of nothing.
fn known_path(path: Result<Path<String>, PathRejection>) -> String {
    path.map(|Path(name)| name).unwrap_or_default()
}
