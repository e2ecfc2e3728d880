//! The list of models (contract section 5.1).

use bytes::Bytes;

use super::to_json;
use super::wire::{ModelList, ModelObject};

/// A model as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// What requests name it by.
    pub id: String,
    /// Unix seconds.
    pub created: i64,
    /// Who serves it.
    pub owned_by: String,
    /// `openai`, `gemini`, `anthropic` and `context`.
    pub supported_endpoint_types: Vec<String>,
}

/// The answer of `GET /v1/models`.
pub fn encode_models(models: &[ModelInfo]) -> Bytes {
    to_json(&ModelList {
        data: models.iter().map(model_object).collect(),
        object: "list",
        success: true,
    })
}

/// The answer of `GET /v1/models/{id}`.
pub fn encode_model(model: &ModelInfo) -> Bytes {
    to_json(&model_object(model))
}

fn model_object(model: &ModelInfo) -> ModelObject {
    ModelObject {
        id: model.id.clone(),
        object: "model",
        created: model.created,
        owned_by: model.owned_by.clone(),
        supported_endpoint_types: model.supported_endpoint_types.clone(),
    }
}
