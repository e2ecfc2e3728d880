//! The list of models.

use bytes::Bytes;
use serde_json::{Value, json};

/// A model as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// What requests name it by.
    pub id: String,
    /// When it came, RFC 3339.
    pub created_at: String,
    /// Longest prompt, tokens.
    pub input_tokens_max: u32,
    /// Longest answer, tokens.
    pub output_tokens_max: u32,
}

/// `GET /v1/models`: all of them on one page.
pub fn encode_models(models: &[ModelInfo]) -> Bytes {
    let id = |model: Option<&ModelInfo>| model.map(|model| model.id.clone());
    let list = json!({
        "data": models.iter().map(model_body).collect::<Vec<Value>>(),
        "first_id": id(models.first()),
        "has_more": false,
        "last_id": id(models.last()),
    });
    Bytes::from(list.to_string())
}

/// `GET /v1/models/{id}`.
pub fn encode_model(model: &ModelInfo) -> Bytes {
    Bytes::from(model_body(model).to_string())
}

fn model_body(model: &ModelInfo) -> Value {
    json!({
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": model.created_at,
        "max_input_tokens": model.input_tokens_max,
        "max_tokens": model.output_tokens_max,
    })
}
