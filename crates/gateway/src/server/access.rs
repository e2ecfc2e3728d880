//! Lets a request through to the routes its key opens.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::Response;
use holdfast_protocol::ApiError;
use holdfast_store::KeyScope;
use percent_encoding::percent_decode_str;

use super::observe::{BUSY_RETRY_AFTER, Trail};
use super::reply;
use super::surface::Surface;
use crate::app::App;
use crate::auth::Principal;
use crate::keys::Secret;
use crate::limits::Counted;

/// Longest credential that is looked up, bytes.
const CREDENTIAL_BYTES_MAX: usize = 512;

/// For routes that a scope opens.
pub(super) async fn scoped(
    State((app, scope)): State<(Arc<App>, KeyScope)>,
    request: Request,
    next: Next,
) -> Response {
    with_scope(&app, Some(scope), request, next).await
}

/// For routes that every key opens, or that find out themselves which scope they need.
pub(super) async fn keyed(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    with_scope(&app, None, request, next).await
}

async fn with_scope(app: &App, scope: Option<KeyScope>, request: Request, next: Next) -> Response {
    let mut request = request;
    if let Err(error) = let_in(app, scope, &mut request).await {
        return reply::error(&error);
    }
    if scope == Some(KeyScope::Admin) {
        // What manages the gateway does not wait in line: a full server is one that wants managing.
        return next.run(request).await;
    }
    let extensions = request.extensions();
    let who = (extensions.get().cloned(), extensions.get().cloned());
    let counted = match count(app, who).await {
        Ok(counted) => counted,
        Err(error) => return reply::error(&error),
    };
    // Projects share the server, so that who asks must be known before anybody waits in line.
    let project = request.extensions().get::<Principal>();
    let project = project.map_or("", |principal| &principal.project);
    let admitted = match app.admission.admit(project).await {
        Ok(admitted) => Arc::new(admitted),
        Err(shed) => {
            app.events.shed(shed.as_str());
            if let Some(counted) = counted {
                counted.void();
            }
            return reply::error(&ApiError::overloaded(BUSY_RETRY_AFTER));
        }
    };
    let mut response = next.run(request).await;
    let extensions = response.extensions_mut();
    extensions.insert(admitted);
    if let Some(counted) = counted {
        extensions.insert(counted);
    }
    response
}

/// Counts the request towards the limits of its key and project.
async fn count(
    app: &App,
    who: (Option<Principal>, Option<Trail>),
) -> Result<Option<Arc<Counted>>, ApiError> {
    let (Some(principal), Some(trail)) = who else {
        return Ok(None);
    };
    match app.rates.admit(&principal).await {
        Ok((counted, quotas)) => {
            trail.set_counted(&counted);
            trail.set_quotas(quotas);
            Ok(Some(counted))
        }
        Err(refused) => {
            trail.set_quotas(refused.quotas);
            app.events.limited(&refused.refusal);
            Err(refused.into())
        }
    }
}

/// Checks the key, and notes in the request who asks.
async fn let_in(app: &App, scope: Option<KeyScope>, request: &mut Request) -> Result<(), ApiError> {
    let credential = credential(request.headers())
        .map(Secret::new)
        .or_else(|| query_key(request.uri(), request.headers()));
    let trail = request.extensions().get::<Trail>().cloned();
    let principal = principal(app, scope, credential, trail).await?;
    request.extensions_mut().insert(principal);
    Ok(())
}

async fn principal(
    app: &App,
    scope: Option<KeyScope>,
    credential: Option<Secret>,
    trail: Option<Trail>,
) -> Result<Principal, ApiError> {
    let principal = app
        .authenticator
        .authenticate(credential.as_ref().map(Secret::expose), app.now())
        .await?;
    if let Some(trail) = trail {
        trail.set_principal(&principal);
    }
    if let Some(scope) = scope {
        principal.require(scope)?;
    }
    Ok(principal)
}

/// The secret from `Authorization: Bearer`, `x-api-key` or `x-goog-api-key`, in this order.
fn credential(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(secret)
    });
    bearer
        .or_else(|| text("x-api-key"))
        .or_else(|| text("x-goog-api-key"))
        .map(str::trim)
        .filter(|secret| !secret.is_empty() && secret.len() <= CREDENTIAL_BYTES_MAX)
}

/// The parameter `key` of the URL, as older clients of Google's send it. The log names routes, not URLs.
fn query_key(uri: &Uri, headers: &HeaderMap) -> Option<Secret> {
    if Surface::of(uri, headers) != Surface::Google {
        return None;
    }
    let key = uri
        .query()?
        .split('&')
        .find_map(|pair| pair.strip_prefix("key="))?;
    let key = percent_decode_str(key).decode_utf8().ok()?;
    (!key.is_empty() && key.len() <= CREDENTIAL_BYTES_MAX).then(|| Secret::new(key))
}

#[cfg(test)]
mod tests;
