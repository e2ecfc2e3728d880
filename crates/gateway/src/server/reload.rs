//! `/admin/v1/config/reload`: the configuration once more, for the operator.

use std::sync::Arc;

use axum::Extension;
use axum::response::Response;
use holdfast_protocol::{ApiError, ErrorKind};
use serde::Serialize;
use utoipa::ToSchema;

use super::admin::Acting;
use super::body::JsonBody;
use super::reply::{self, Failure};
use crate::audit::not_noted;
use crate::service::{ReloadError, Service};

/// What a reload came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReloadObject {
    /// `config.reload`.
    #[schema(example = "config.reload")]
    object: &'static str,
    /// Keys that have changed in the configuration and are applied at the next start only.
    needs_restart: Vec<String>,
}

/// Read the configuration again
///
/// Models, routes, upstreams, prices, keys and limits apply from the next request on; requests that run finish as they
/// began. A configuration with an error changes nothing.
#[utoipa::path(
    post,
    path = "/admin/v1/config/reload",
    tag = "admin",
    responses(
        (status = 200, description = "It applies, but for what needs a restart", body = ReloadObject),
        (status = 400, description = "It is wrong, and nothing has changed; the message says where"),
    )
)]
pub(super) async fn reload(
    Extension(service): Extension<Arc<Service>>,
    Acting(actor): Acting,
    // Many clients send one, and the connection could not be used again if it were left unread.
    _body: JsonBody,
) -> Result<Response, Failure> {
    let needs_restart = service.reload(actor).await.map_err(told)?;
    reply::object(&ReloadObject {
        object: "config.reload",
        needs_restart,
    })
}

fn told(error: ReloadError) -> ApiError {
    if let ReloadError::NotNoted(error) = error {
        return not_noted(error);
    }
    ApiError::new(
        ErrorKind::InvalidParameter,
        format!("The configuration can't be reloaded, and nothing has changed: {error}"),
    )
}
