//! Request bodies: read whole, bounded, and with a useful word when they are not JSON.

use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use holdfast_protocol::raw::RawBody;
use holdfast_protocol::{ApiError, ErrorKind};

use super::reply::Failure;
use crate::app::App;

/// What is read and thrown away of a body that is too large, so that a client that is still writing gets to read the
/// answer instead of a reset connection, bytes.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;

/// A request body that is meant to be JSON.
pub(super) struct JsonBody {
    /// All of it.
    pub(super) bytes: Bytes,
    says_json: bool,
}

impl JsonBody {
    /// Decodes it. What says it is something else is accepted if it is JSON all the same.
    pub(super) fn decode<T>(
        &self,
        decode: impl FnOnce(&[u8]) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        decode(&self.bytes).map_err(|mut error| {
            if error.kind == ErrorKind::InvalidJson && !self.says_json {
                error
                    .message
                    .push_str(" Send JSON with `Content-Type: application/json`.");
            }
            error
        })
    }
}

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        let limit = app.limits.body_bytes_max;
        let says_json = says_json(request.headers());
        let wait = Duration::from_secs(app.limits.body_seconds_max);
        let bytes = tokio::time::timeout(wait, read(request, limit))
            .await
            .unwrap_or_else(|_| Err(ApiError::body_timeout(wait)))?;
        Ok(JsonBody { bytes, says_json })
    }
}

/// A request body that is passed through: JSON or a form.
pub(super) struct PassedBody {
    content_type: String,
    body: JsonBody,
}

impl PassedBody {
    /// Finds out which model it is for.
    pub(super) fn read(&self) -> Result<RawBody, ApiError> {
        self.body
            .decode(|_| RawBody::read(&self.content_type, self.body.bytes.clone()))
    }
}

impl FromRequest<Arc<App>> for PassedBody {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        let content_type = request.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        Ok(PassedBody {
            content_type: content_type.unwrap_or_default().to_owned(),
            body: JsonBody::from_request(request, app).await?,
        })
    }
}

async fn read(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::payload_too_large(limit as u64);
    let announced = content_length(request.headers());
    let waits_for_us = request.headers().contains_key(EXPECT);
    if announced.is_some_and(|length| length > limit as u64) && waits_for_us {
        return Err(too_large());
    }
    let expected = request.body().size_hint().lower().min(limit as u64) as usize;
    let mut bytes = BytesMut::with_capacity(expected);
    let mut body = request.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| {
            ApiError::new(
                ErrorKind::InvalidJson,
                "The body of the request is incomplete.",
            )
        })?;
        if bytes.len() + chunk.len() > limit {
            let mut discarded = chunk.len();
            while discarded < DISCARDED_BYTES_MAX
                && let Some(Ok(more)) = body.next().await
            {
                discarded += more.len();
            }
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the media type is JSON, whatever parameters follow it.
fn says_json(headers: &HeaderMap) -> bool {
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| {
        let media_type = media_type.trim().to_ascii_lowercase();
        media_type == "application/json" || media_type.ends_with("+json")
    })
}
