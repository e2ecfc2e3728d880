//! Responses.

use axum::body::Body;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use holdfast_protocol::{ApiError, ErrorKind};
use serde::Serialize;

use super::surface::Surface;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An error on its way to the client; lets handlers use `?`.
#[derive(Debug)]
pub(super) struct Failure(ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        error(&self.0)
    }
}

/// 200 with a JSON body. Always 200: some SDKs take every other status for an error.
pub(super) fn json(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The same, of what can be written as JSON.
pub(super) fn object(value: &impl Serialize) -> Result<Response, Failure> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer can't be written as JSON");
        ApiError::internal()
    })?;
    Ok(json(body.into()))
}

/// The error in the envelope of OpenAI's API, which Ark shares. Other surfaces get theirs from [`in_dialect`].
pub(super) fn error(error: &ApiError) -> Response {
    let mut response = error_of(Surface::OpenAi, error);
    response.extensions_mut().insert(error.clone());
    response
}

/// The same answer as a surface's clients know it, if it is an error.
pub(super) fn in_dialect(surface: Surface, mut response: Response) -> Response {
    match response.extensions_mut().remove::<ApiError>() {
        Some(error) if surface != Surface::OpenAi => {
            let mut told = error_of(surface, &error);
            *told.extensions_mut() = std::mem::take(response.extensions_mut());
            told
        }
        _ => response,
    }
}

fn error_of(surface: Surface, error: &ApiError) -> Response {
    let (status, body) = surface.encode_error(error);
    let mut response = json(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Some(should_retry) = error.should_retry {
        headers.insert(
            "x-should-retry",
            HeaderValue::from_static(if should_retry { "true" } else { "false" }),
        );
    }
    if let Some(retry_after) = error.retry_after {
        let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if status == 401 {
        headers.insert("www-authenticate", HeaderValue::from_static("Bearer"));
    }
    response
}

/// The query of a URL, which can be malformed.
pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|Query(query)| query).map_err(|_| {
        ApiError::new(
            ErrorKind::InvalidParameter,
            "The query of the URL is malformed.",
        )
    })
}
