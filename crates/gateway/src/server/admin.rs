//! `/admin/v1`: projects and keys, for the operator. What a request means is in [`crate::admin`].

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use holdfast_protocol::{ApiError, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body::JsonBody;
use super::reply::{self, Failure};
use crate::admin::{
    Admin, KeyList, KeyObject, KeyPatch, KeyRequest, PAGE_MAX, ProjectList, ProjectObject,
    ProjectPatch, ProjectRequest, RotateRequest,
};
use crate::app::App;

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
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(decode)?;
    reply::object(&admin(&app).create_project(&request).await?)
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
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = known_query(query)?;
    let admin = admin(&app);
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
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    reply::object(&admin(&app).project(&known_path(name)).await?)
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
    name: Result<Path<String>, PathRejection>,
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(decode)?;
    let name = known_path(name);
    let changing = Arc::clone(&app);
    to_the_end(&app, async move {
        let updated = admin(&changing).update_project(&name, &request).await;
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
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(decode)?;
    reply::object(&admin(&app).create_key(&request).await?)
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
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let query = known_query(query)?;
    let (project, cursor, limit) = (query.project.as_deref(), query.cursor(), query.limit()?);
    reply::object(&admin(&app).list_keys(project, cursor, limit).await?)
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
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    reply::object(&admin(&app).key(&known_path(id)).await?)
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
    id: Result<Path<String>, PathRejection>,
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(decode)?;
    let id = known_path(id);
    let changing = Arc::clone(&app);
    to_the_end(&app, async move {
        let updated = admin(&changing).update_key(&id, &request).await;
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
        let rotated = admin(&changing).rotate_key(&id, &request).await;
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
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let id = known_path(id);
    let changing = Arc::clone(&app);
    to_the_end(&app, async move {
        let revoked = admin(&changing).revoke_key(&id).await;
        changing.authenticator.forget(&id);
        revoked
    })
    .await
}

fn admin(app: &App) -> Admin<'_> {
    Admin {
        store: &*app.store,
        now: app.now(),
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

fn known_query(query: Result<Query<ListQuery>, QueryRejection>) -> Result<ListQuery, ApiError> {
    query.map(|Query(query)| query).map_err(|_| {
        ApiError::new(
            ErrorKind::InvalidParameter,
            "The query of the URL is malformed.",
        )
    })
}

/// What can't be read is the name of nothing.
fn known_path(path: Result<Path<String>, PathRejection>) -> String {
    path.map(|Path(name)| name).unwrap_or_default()
}
