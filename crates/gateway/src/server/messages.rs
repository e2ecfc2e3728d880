//! Anthropic's `/messages` and `/messages/count_tokens`.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use holdfast_protocol::ApiError;
use holdfast_protocol::chat::Original;
use holdfast_protocol::dialect::anthropic::client;
use std::sync::Arc;

use super::body::JsonBody;
use super::chat::{Caller, respond};
use super::observe::Trail;
use super::reply::{self, Failure};
use crate::app::App;
use crate::auth::Principal;

/// Names features that a client opts into; an upstream of the same dialect is told of them, too.
const BETA: &str = "anthropic-beta";
const BETA_BYTES_MAX: usize = 4096;

/// Create a message the way Anthropic's SDKs do
///
/// `cache_control` makes implicit contexts on every model; `context_id` names a stored one.
#[utoipa::path(
    post,
    path = "/v1/messages",
    tag = "chat",
    request_body(content = Object, description = "Anthropic's Messages API; `context_id` is an addition"),
    params(("anthropic-beta" = Option<String>, Header, description = "Passed on to Anthropic where it answers itself")),
    responses(
        (status = 200, description = "A message; a stream of its events when `stream` is set", body = Object),
        (status = 400, description = "A field is missing or wrong", body = Object),
        (status = 404, description = "There is no such model or context", body = Object),
    )
)]
pub(super) async fn create(caller: Caller, body: JsonBody) -> Result<Response, Failure> {
    let mut request = body.decode(|_| client::decode_request(&body.bytes))?;
    if let Some(Original { headers, .. }) = &mut request.chat.original {
        headers.extend(betas(&caller).map(|betas| (BETA, betas)));
    }
    let writer = client::Writer::new(request.writes_for_hour);
    respond(caller, request.chat, &body.bytes, Box::new(writer)).await
}

/// Count tokens the way Anthropic's SDKs do
///
/// Nothing is generated. Exact on the embedded engine, an estimate elsewhere.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    tag = "chat",
    request_body(content = Object, description = "Like a request for a message, without `max_tokens`"),
    responses(
        (status = 200, description = "`input_tokens`", body = Object),
        (status = 400, description = "A field is missing or wrong", body = Object),
        (status = 404, description = "There is no such model", body = Object),
    )
)]
pub(super) async fn count_tokens(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    body: JsonBody,
) -> Result<Response, Failure> {
    let request = body.decode(client::decode_count)?;
    let name = request
        .model
        .as_deref()
        .or(principal.terms.project.default_model.as_deref())
        .ok_or_else(|| ApiError::missing("model"))?;
    let model = Arc::clone(principal.model(&app.models, name)?);
    trail.set_model(&model.entry.name);
    let tokens = model
        .backend
        .count_tokens(
            &principal.project,
            request.messages,
            request.tools,
            app.now(),
        )
        .await?;
    Ok(reply::json(client::encode_count(tokens)))
}

/// All `anthropic-beta` headers as one value.
fn betas(caller: &Caller) -> Option<String> {
    let values = caller.headers.get_all(BETA).iter();
    let betas: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    Some(betas.join(",")).filter(|betas| !betas.is_empty() && betas.len() <= BETA_BYTES_MAX)
}
