//! `models`.

use bytes::Bytes;
use serde_json::{Value, json};

/// A model as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// What requests name it by.
    pub id: String,
    /// Most tokens of a prompt.
    pub input_token_limit: u32,
    /// Most tokens of an answer.
    pub output_token_limit: u32,
}

/// The answer of `GET .../models`.
pub fn encode_models(models: &[ModelInfo]) -> Bytes {
    let models: Vec<Value> = models.iter().map(model_object).collect();
    json!({"models": models}).to_string().into()
}

/// The answer of `GET .../models/{id}`.
pub fn encode_model(model: &ModelInfo) -> Bytes {
    model_object(model).to_string().into()
}

fn model_object(model: &ModelInfo) -> Value {
    json!({
        "name": format!("models/{}", model.id),
        "baseModelId": model.id,
        "version": "001",
        "displayName": model.id,
        "inputTokenLimit": model.input_token_limit,
        "outputTokenLimit": model.output_token_limit,
        "supportedGenerationMethods": ["generateContent", "countTokens", "createCachedContent"],
    })
}
