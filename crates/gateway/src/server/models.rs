//! `/models`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{OriginalUri, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use holdfast_protocol::ApiError;
use holdfast_protocol::dialect::openai::{self, ModelInfo, wire};
use holdfast_protocol::dialect::{anthropic, gemini};

use super::reply::{self, Failure};
use super::surface::Surface;
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
    Extension(principal): Extension<Principal>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let models = principal
        .models(&app.models)
        .map(|model| (&model.entry, model.entry.name.as_str()));
    reply::json(match Surface::of(&uri, &headers) {
        Surface::OpenAi => {
            let models: Vec<_> = models.map(|(entry, name)| info(entry, name)).collect();
            openai::encode_models(&models)
        }
        Surface::Anthropic => {
            let models: Vec<_> = models
                .map(|(entry, name)| anthropic_info(entry, name))
                .collect();
            anthropic::client::encode_models(&models)
        }
        Surface::Google => {
            let models: Vec<_> = models
                .map(|(entry, name)| google_info(entry, name))
                .collect();
            gemini::client::encode_models(&models)
        }
    })
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
    Extension(principal): Extension<Principal>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Failure> {
    let Path(id) = id.map_err(|_| ApiError::not_found())?;
    let model = principal.model(&app.models, &id)?;
    let name = id.strip_prefix("models/").unwrap_or(&id);
    let entry = &model.entry;
    Ok(reply::json(match Surface::of(&uri, &headers) {
        Surface::OpenAi => openai::encode_model(&info(entry, name)),
        Surface::Anthropic => anthropic::client::encode_model(&anthropic_info(entry, name)),
        Surface::Google => gemini::client::encode_model(&google_info(entry, name)),
    }))
}

/// An alias is shown as it was asked for, so that a client finds the model it looks for.
fn info(entry: &ModelEntry, name: &str) -> ModelInfo {
    let types = ["openai", "anthropic", "gemini", "context"];
    ModelInfo {
        id: name.to_owned(),
        created: entry.created,
        owned_by: entry.owned_by.clone(),
        supported_endpoint_types: types.map(str::to_owned).to_vec(),
    }
}

fn anthropic_info(entry: &ModelEntry, name: &str) -> anthropic::client::ModelInfo {
    let created = jiff::Timestamp::from_second(entry.created).unwrap_or_default();
    anthropic::client::ModelInfo {
        id: name.to_owned(),
        created_at: created.to_string(),
        input_tokens_max: entry.profile.window_tokens,
        output_tokens_max: entry.max_output_tokens,
    }
}

/// As Google's list shows a model.
pub(super) fn google_info(entry: &ModelEntry, name: &str) -> gemini::client::ModelInfo {
    gemini::client::ModelInfo {
        id: name.to_owned(),
        input_token_limit: entry.profile.window_tokens,
        output_token_limit: entry.max_output_tokens,
    }
}
