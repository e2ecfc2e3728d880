//! `/context`: create, look up, extend, fork, delete.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use holdfast_protocol::context::{CreateSurface, ProfileKind};
use holdfast_protocol::dialect::openai::{self, wire};
use holdfast_protocol::{ApiError, Context, ContextId};
use holdfast_store::AccountRecord;
use serde::Deserialize;
use serde_json::Value;

use super::body::JsonBody;
use super::observe::Trail;
use super::rates;
use super::reply::{self, Failure};
use crate::app::{App, CreateTotalTokens, ModelSource};
use crate::auth::Principal;
use crate::contexts::Created;
use crate::limits::Demand;
use crate::upstream::amount;

const LIST_LIMIT_DEFAULT: u32 = 20;
const LIST_LIMIT_MAX: u32 = 100;

/// The context a path names. A malformed id is answered like an unknown one.
pub(super) struct ContextPath(ContextId);

/// How a list is paged. Texts, so that a bad number can be named.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
    after: Option<String>,
}

/// Create a context
///
/// Computes and stores the messages' prefix. The answer comes when it is resident.
#[utoipa::path(
    post,
    path = "/v1/context/create",
    tag = "contexts",
    request_body = wire::ContextCreateRequest,
    responses(
        (status = 200, description = "The context", body = wire::ContextObject),
        (status = 400, description = "A field is missing or wrong", body = wire::ErrorBody),
        (status = 404, description = "There is no such model", body = wire::ErrorBody),
        (status = 429, description = "The engine's queue is full, or the project has as many contexts as it may", body = wire::ErrorBody),
    )
)]
pub(super) async fn create_openai(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    trail: Extension<Trail>,
    body: JsonBody,
) -> Result<Response, Failure> {
    create(state, principal, trail, CreateSurface::OpenAi, body).await
}

/// Create a context the way Ark's SDKs do
///
/// The same, but without `mode` the context is a session.
#[utoipa::path(
    post,
    path = "/api/v3/context/create",
    tag = "contexts",
    request_body = wire::ContextCreateRequest,
    responses(
        (status = 200, description = "The context", body = wire::ContextObject),
        (status = 400, description = "A field is missing or wrong", body = wire::ErrorBody),
    )
)]
pub(super) async fn create_ark(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    trail: Extension<Trail>,
    body: JsonBody,
) -> Result<Response, Failure> {
    create(state, principal, trail, CreateSurface::Ark, body).await
}

async fn create(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    surface: CreateSurface,
    body: JsonBody,
) -> Result<Response, Failure> {
    let create = body.decode(openai::decode_create)?;
    trail.entry.set_requested_model(&create.model);
    let model = principal.model(&app.models, &create.model)?;
    trail.set_model(&model.entry.name);
    let input = model.backend.estimate_tokens(&create.messages);
    let demand = Demand::of_input(input.into());
    rates::reserve(&app, &trail, &model.entry.name, demand).await?;
    let created = app
        .contexts
        .create(&principal.project, model, create, surface, &trail.entry)
        .await?;
    Ok(reply::json(encode_created(&app, &created)))
}

/// List contexts
///
/// Those of the key's project, newest first.
#[utoipa::path(
    get,
    path = "/v1/context",
    tag = "contexts",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 100; 20 when absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before; `after` is another name for it"),
    ),
    responses((status = 200, description = "A page", body = wire::ContextList))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Failure> {
    let query = reply::query(query)?;
    let limit = match query.limit.as_deref().filter(|limit| !limit.is_empty()) {
        None => LIST_LIMIT_DEFAULT,
        Some(limit) => limit
            .parse()
            .ok()
            .filter(|limit| (1..=LIST_LIMIT_MAX).contains(limit))
            .ok_or_else(|| {
                ApiError::invalid(
                    "limit",
                    format!("must be a whole number from 1 to {LIST_LIMIT_MAX}"),
                )
            })?,
    };
    let cursor = query
        .cursor
        .or(query.after)
        .filter(|cursor| !cursor.is_empty());
    let page = app
        .contexts
        .list(&principal.project, cursor.as_deref(), limit)
        .await?;
    Ok(reply::json(openai::encode_context_page(&page)))
}

/// Get a context
#[utoipa::path(
    get,
    path = "/v1/context/{id}",
    tag = "contexts",
    params(("id" = String, Path, description = "The context's id")),
    responses(
        (status = 200, description = "The context, without its messages", body = wire::ContextObject),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = wire::ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    ContextPath(id): ContextPath,
) -> Result<Response, Failure> {
    let context = app.contexts.get(&principal.project, &id).await?;
    let account = account(&app, &context).await;
    Ok(reply::json(openai::encode_context(&context, account)))
}

/// Change a context's time to live
///
/// Counted from now.
#[utoipa::path(
    patch,
    path = "/v1/context/{id}",
    tag = "contexts",
    params(("id" = String, Path, description = "The context's id")),
    request_body = wire::ContextPatchRequest,
    responses(
        (status = 200, description = "The context", body = wire::ContextObject),
        (status = 400, description = "The ttl is missing or out of range", body = wire::ErrorBody),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = wire::ErrorBody),
    )
)]
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    ContextPath(id): ContextPath,
    body: JsonBody,
) -> Result<Response, Failure> {
    let ttl_seconds = body.decode(openai::decode_patch)?;
    let context = app
        .contexts
        .set_ttl(&principal.project, &id, ttl_seconds)
        .await?;
    Ok(reply::json(openai::encode_context(&context, None)))
}

/// Delete a context
#[utoipa::path(
    delete,
    path = "/v1/context/{id}",
    tag = "contexts",
    params(("id" = String, Path, description = "The context's id")),
    responses(
        (status = 200, description = "It is gone", body = wire::ContextDeleted),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = wire::ErrorBody),
    )
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    ContextPath(id): ContextPath,
) -> Result<Response, Failure> {
    app.contexts.delete(&principal.project, &id).await?;
    Ok(reply::json(openai::encode_deleted(&id)))
}

/// Fork a context
///
/// A new context that starts with what this one holds and then goes its own way. Nothing is computed again.
#[utoipa::path(
    post,
    path = "/v1/context/{id}/fork",
    tag = "contexts",
    params(("id" = String, Path, description = "The parent's id")),
    request_body = Option<wire::ContextForkRequest>,
    responses(
        (status = 200, description = "The new context", body = wire::ContextObject),
        (status = 400, description = "A field is wrong", body = wire::ErrorBody),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = wire::ErrorBody),
    )
)]
pub(super) async fn fork(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    ContextPath(id): ContextPath,
    body: JsonBody,
) -> Result<Response, Failure> {
    let fork = body.decode(openai::decode_fork)?;
    let parent = app.contexts.get(&principal.project, &id).await?;
    let model = principal.model(&app.models, &parent.model)?;
    // What it begins with is probably there.
    rates::reserve(&app, &trail, &model.entry.name, Demand::of_input(0)).await?;
    let created = app
        .contexts
        .fork(&principal.project, &id, &fork, &trail.entry)
        .await?;
    Ok(reply::json(encode_created(&app, &created)))
}

/// What a context on upstreams has used and cost.
async fn account(app: &App, context: &Context) -> Option<wire::AccountBody> {
    let model = app.models.resolve(&context.model).ok()?;
    if matches!(model.entry.source, ModelSource::Engine(_)) {
        return None;
    }
    match app.upstreams.shared.accounts.of(&context.id).await {
        Ok(record) => Some(account_body(&record)),
        Err(error) => {
            tracing::warn!(%error, "a context's account can't be read");
            None
        }
    }
}

fn account_body(record: &AccountRecord) -> wire::AccountBody {
    let totals = &record.totals;
    let has_price = !record.currency.is_empty();
    let money = |trillionths| has_price.then(|| amount(trillionths).normalize().to_string());
    wire::AccountBody {
        requests: totals.requests,
        hits: totals.hits,
        rebuilds: totals.rebuilds,
        misses: totals.misses,
        degraded: totals.degraded,
        hit_rate: match totals.requests {
            0 => 0.0,
            requests => (totals.hits as f64 / requests as f64 * 10_000.0).round() / 10_000.0,
        },
        input_tokens: totals.input_tokens,
        cached_tokens: totals.cache_read_tokens,
        cache_write_tokens: totals.cache_write_tokens,
        output_tokens: totals.output_tokens,
        pings: totals.pings,
        cost: money(totals.cost),
        ping_cost: money(totals.ping_cost),
        storage_cost: money(totals.storage_cost),
        saved: money(totals.saved),
        currency: has_price.then(|| record.currency.clone()),
        // The rest of a place names account and region, which are the operator's own.
        upstream: record
            .home
            .as_ref()
            .and_then(|home| home.split('|').next())
            .map(str::to_owned),
        last_used_at: record.last_used_at.map(|at| at.div_euclid(1000)),
    }
}

fn encode_created(app: &App, created: &Created) -> Bytes {
    let Created {
        context,
        resident_tokens,
    } = created;
    let body = openai::encode_created(context, *resident_tokens);
    match app.create_total_tokens {
        CreateTotalTokens::Profile => body,
        CreateTotalTokens::Sum if context.profile != ProfileKind::Gemini => body,
        CreateTotalTokens::Sum => with_total_tokens(body, context, context.prefix_tokens),
        CreateTotalTokens::Zero => with_total_tokens(body, context, 0),
    }
}

fn with_total_tokens(body: Bytes, context: &Context, total_tokens: u64) -> Bytes {
    let patched = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|mut value| {
            *value.pointer_mut("/usage/total_tokens")? = total_tokens.into();
            Some(Bytes::from(value.to_string()))
        });
    patched.unwrap_or_else(|| {
        tracing::error!(context.id = %context.id, "the answer of create has no usage");
        body
    })
}

impl<S: Send + Sync> FromRequestParts<S> for ContextPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let id = path
            .ok()
            .and_then(|Path(mut parameters)| parameters.remove("id"));
        let id = id.ok_or_else(ApiError::context_not_found)?;
        Ok(ContextPath(id.parse()?))
    }
}
