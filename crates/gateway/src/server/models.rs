//! `/models`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use holdfast_protocol::ApiError;
use holdfast_protocol::dialect::openai::{self, ModelInfo, wire};

use super::reply::{self, Failure};
use crate::app::{App, ModelEntry};
use crate::auth::Principal;

/// List models
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "models",
    responses((status = 200, description = "The models", body = wire::ModelList))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _principal: Extension<Principal>,
) -> Response {
    let models: Vec<ModelInfo> = app
        .models
        .iter()
        .map(|model| info(&model.entry, &model.entry.name))
        .collect();
    reply::json(openai::encode_models(&models))
}

/// Get a model
///
/// By its name or an alias.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "models",
    params(("id" = String, Path, description = "A model's name")),
    responses(
        (status = 200, description = "The model", body = wire::ModelObject),
        (status = 404, description = "There is no such model", body = wire::ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    _principal: Extension<Principal>,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Failure> {
    let Path(id) = id.map_err(|_| ApiError::not_found())?;
    let model = app.models.resolve(&id)?;
    let name = id.strip_prefix("models/").unwrap_or(&id);
    Ok(reply::json(openai::encode_model(&info(&model.entry, name))))
}

/// An alias is shown as it was asked for, so that a client finds the model it looks for.
fn info(entry: &ModelEntry, name: &str) -> ModelInfo {
    ModelInfo {
        id: name.to_owned(),
        created: entry.created,
        owned_by: entry.owned_by.clone(),
        supported_endpoint_types: vec!["openai".to_owned(), "context".to_owned()],
    }
}
