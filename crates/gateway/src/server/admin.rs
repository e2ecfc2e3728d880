//! `/admin/v1/keys`: for the operator.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use holdfast_protocol::{ApiError, ErrorKind};
use holdfast_store::{KeyRecord, KeyScope, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::JsonBody;
use super::reply::{self, Failure};
use crate::app::App;
use crate::keys;

const DEFAULT_PROJECT: &str = "default";
const PROJECT_BYTES_MAX: usize = 63;
const LABEL_CHARACTERS_MAX: usize = 100;

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct KeyRequest {
    /// Lower-case letters, digits and `-`, at most 63; `default` when absent. Made if it is new.
    project: Option<String>,
    /// A name for people.
    label: Option<String>,
    /// `admin`, `inference` or both; `inference` when absent.
    scopes: Option<Vec<String>>,
}

/// A key as the operator sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyObject {
    /// Public id.
    id: String,
    /// `key`.
    #[schema(example = "key")]
    object: &'static str,
    /// The secret; only in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The tenant.
    project: String,
    /// A name for people.
    label: String,
    /// What it may do.
    scopes: Vec<&'static str>,
    /// The secret's first characters.
    hint: String,
    /// Unix seconds.
    created: i64,
    /// Unix seconds; null while it is in force.
    revoked_at: Option<i64>,
}

/// All keys.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyList {
    /// `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Oldest first, revoked ones included.
    data: Vec<KeyObject>,
}

/// Which keys are listed.
#[derive(Debug, Deserialize)]
pub(super) struct KeyQuery {
    project: Option<String>,
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
    let request: KeyRequest = body.decode(decode)?;
    let project = request
        .project
        .as_deref()
        .filter(|project| !project.is_empty())
        .unwrap_or(DEFAULT_PROJECT);
    check_project(project)?;
    let label = request.label.unwrap_or_default();
    if label.chars().count() > LABEL_CHARACTERS_MAX {
        return Err(ApiError::invalid(
            "label",
            format!("may have at most {LABEL_CHARACTERS_MAX} characters"),
        )
        .into());
    }
    let scopes = scopes(request.scopes.as_deref())?;
    let now = app.now();
    let (secret, record) = keys::new_key(project, &label, &scopes, now);
    app.store
        .ensure_project(project, now)
        .await
        .map_err(store_error)?;
    app.store.insert_key(&record).await.map_err(store_error)?;
    tracing::info!(key.id = record.id, project, "a key was made");
    reply::object(&KeyObject {
        key: Some(secret.expose().to_owned()),
        ..object(&record)
    })
}

/// List keys
#[utoipa::path(
    get,
    path = "/admin/v1/keys",
    tag = "admin",
    params(("project" = Option<String>, Query, description = "Only this project's")),
    responses((status = 200, description = "The keys, without their secrets", body = KeyList))
)]
pub(super) async fn list_keys(
    State(app): State<Arc<App>>,
    query: Result<Query<KeyQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|_| {
        ApiError::new(
            ErrorKind::InvalidParameter,
            "The query of the URL is malformed.",
        )
    })?;
    let records = app
        .store
        .list_keys(query.project.as_deref())
        .await
        .map_err(store_error)?;
    reply::object(&KeyList {
        object: "list",
        data: records.iter().map(object).collect(),
    })
}

/// Revoke a key
///
/// It is refused from the next request on. Revoking it again changes nothing.
#[utoipa::path(
    delete,
    path = "/admin/v1/keys/{id}",
    tag = "admin",
    params(("id" = String, Path, description = "The key's public id")),
    responses((status = 200, description = "The revoked key", body = KeyObject))
)]
pub(super) async fn revoke_key(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Failure> {
    let Path(id) = id.map_err(|_| key_not_found())?;
    let revoking = Arc::clone(&app);
    // On a task of its own: the key must be forgotten also when the client has gone. Also when the store has failed, for
    // it may have done it all the same.
    let task = app.tasks.spawn(async move {
        let revoked = revoking.store.revoke_key(&id, revoking.now()).await;
        revoking.authenticator.forget(&id);
        revoked
    });
    let record = task
        .await
        .map_err(|_| ApiError::internal())?
        .map_err(store_error)?;
    tracing::info!(key.id = record.id, "a key was revoked");
    reply::object(&object(&record))
}

fn decode(body: &[u8]) -> Result<KeyRequest, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let kind = if error.is_data() {
            ErrorKind::InvalidParameter
        } else {
            ErrorKind::InvalidJson
        };
        ApiError::new(
            kind,
            format!("The body is not the JSON object that is expected here: {error}."),
        )
    })
}

fn check_project(project: &str) -> Result<(), ApiError> {
    let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if project.len() <= PROJECT_BYTES_MAX && project.bytes().all(is_fit) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "project",
        format!("must have only lower-case letters, digits and `-`, at most {PROJECT_BYTES_MAX}"),
    ))
}

fn scopes(words: Option<&[String]>) -> Result<Vec<KeyScope>, ApiError> {
    let Some(words) = words.filter(|words| !words.is_empty()) else {
        return Ok(vec![KeyScope::Inference]);
    };
    let scope = |(index, word): (usize, &String)| {
        KeyScope::parse(word).ok_or_else(|| {
            ApiError::invalid(
                &format!("scopes[{index}]"),
                "must be `admin` or `inference`",
            )
        })
    };
    words.iter().enumerate().map(scope).collect()
}

fn object(record: &KeyRecord) -> KeyObject {
    KeyObject {
        id: record.id.clone(),
        object: "key",
        key: None,
        project: record.project.clone(),
        label: record.label.clone(),
        scopes: record.scopes.iter().map(|scope| scope.as_str()).collect(),
        hint: record.hint.clone(),
        created: record.created_at.div_euclid(1000),
        revoked_at: record.revoked_at.map(|at| at.div_euclid(1000)),
    }
}

fn key_not_found() -> ApiError {
    ApiError::new(
        ErrorKind::NotFound,
        "There is no key with this id. GET /admin/v1/keys lists the keys.",
    )
}

fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound => key_not_found(),
        StoreError::Unavailable(_) => {
            tracing::error!(%error, "the key store failed");
            ApiError::unavailable("The key store is away. Try again in a moment.")
        }
        StoreError::Conflict | StoreError::Corrupt(_) => {
            tracing::error!(%error, "the key store failed");
            ApiError::internal()
        }
    }
}
