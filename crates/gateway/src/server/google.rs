//! Google's paths: `generateContent`, `countTokens`, models, and `cachedContents` as another view of the same contexts.
//!
//! What a path means is in its resource names (`models/NAME:METHOD`, `cachedContents/ID`, all of it below
//! `projects/P/locations/L/` on Vertex AI), so these routes share one handler, and [`path`] reads them.

mod path;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{OriginalUri, Query};
use axum::http::Method;
use axum::response::Response;
use holdfast_protocol::ApiError;
use holdfast_protocol::context::CreateSurface;
use holdfast_protocol::dialect::gemini::client::{self, StreamForm};
use holdfast_store::KeyScope;

use super::body::JsonBody;
use super::chat::{Caller, respond};
use super::models::google_info;
use super::rates;
use super::reply::{self, Failure};
use crate::limits::Demand;
use path::{Call, Target};

/// Contexts on a page when the request does not say: as many as Google's own services give.
const PAGE_SIZE_DEFAULT: u32 = 100;
/// Larger page sizes count as this one.
const PAGE_SIZE_MAX: u32 = 1_000;

type QueryMap = Result<Query<HashMap<String, String>>, axum::extract::rejection::QueryRejection>;

/// Google's Gemini API and Vertex AI
///
/// `models/{model}:generateContent`, `:streamGenerateContent` (server-sent events with `alt=sse`, else a JSON array) and
/// `:countTokens`, the lists of models, and create, list, get, patch and delete of `cachedContents`, which are contexts.
/// The same below `/v1`, `/v1beta1`, `/v1/v1beta` and, for Vertex AI, `projects/{project}/locations/{location}`.
#[utoipa::path(
    post,
    path = "/v1beta/{resource}",
    tag = "gemini",
    params(("resource" = String, Path, description = "A model with a method, or a resource")),
    request_body(content = Object, description = "As Google documents it"),
    responses(
        (status = 200, description = "As Google documents it", body = Object),
        (status = 400, description = "A field is missing or wrong", body = Object),
        (status = 403, description = "There is no such context", body = Object),
        (status = 404, description = "There is no such model", body = Object),
    )
)]
pub(super) async fn call(
    method: Method,
    OriginalUri(uri): OriginalUri,
    query: QueryMap,
    caller: Caller,
    body: JsonBody,
) -> Result<Response, Failure> {
    let Query(query) = query.map_err(|_| ApiError::invalid("query", "of the URL is malformed"))?;
    let call = Call::of(&method, uri.path())?;
    let app = Arc::clone(&caller.app);
    let principal = caller.principal.clone();
    let project = principal.project.clone();
    if let Some(scope) = scope_of(&call.target) {
        principal.require(scope)?;
    }
    match call.target {
        Target::Generate { model, streams } => {
            let form = match query.get("alt").map(String::as_str) {
                Some("sse") => StreamForm::Sse,
                _ => StreamForm::Array,
            };
            let mut request =
                body.decode(|_| client::decode_request(&body.bytes, &model, streams))?;
            if streams && form == StreamForm::Array {
                // Upstreams are asked for events, whose bytes are no array.
                if let Some(error) = request.chat.inexpressible() {
                    return Err(error.clone().into());
                }
                request.chat.original = None;
            }
            let writer = client::Writer::new(form, request.shows_thoughts);
            respond(caller, request.chat, &body.bytes, Box::new(writer)).await
        }
        Target::Count { model } => {
            let request = body.decode(|bytes| client::decode_count(bytes, &model))?;
            let model = Arc::clone(principal.model(&app.models, &model)?);
            caller.trail.set_model(&model.entry.name);
            let held = match &request.context_id {
                Some(id) => Some(app.contexts.get(&project, id).await?.prefix_tokens),
                None => None,
            };
            let tokens = model
                .backend
                .count_tokens(&project, request.messages, request.tools, app.now())
                .await?;
            let total = tokens + held.unwrap_or(0);
            Ok(reply::json(client::encode_count(total, held)))
        }
        Target::Models => {
            let models: Vec<_> = principal
                .models(&app.models)
                .map(|model| google_info(&model.entry, &model.entry.name))
                .collect();
            Ok(reply::json(client::encode_models(&models)))
        }
        Target::Model { name } => {
            let model = principal.model(&app.models, &name)?;
            Ok(reply::json(client::encode_model(&google_info(
                &model.entry,
                &name,
            ))))
        }
        Target::CreateCached => {
            let create = body.decode(|bytes| client::decode_create(bytes, app.now()))?;
            caller.trail.entry.set_requested_model(&create.model);
            let model = principal.model(&app.models, &create.model)?;
            caller.trail.set_model(&model.entry.name);
            let input = model.backend.estimate_tokens(&create.messages);
            let demand = Demand::of_input(input.into());
            rates::reserve(&app, &caller.trail, &model.entry.name, demand).await?;
            let created = app
                .contexts
                .create(
                    &project,
                    model,
                    create,
                    CreateSurface::Google,
                    &caller.trail.entry,
                )
                .await?;
            Ok(reply::json(client::encode_cached_content(
                &created.context,
                &call.form,
            )))
        }
        Target::ListCached => {
            let limit = match query.get("pageSize").or_else(|| query.get("page_size")) {
                None => PAGE_SIZE_DEFAULT,
                Some(size) => size
                    .parse::<u32>()
                    .map_err(|_| ApiError::invalid("pageSize", "must be a whole number"))?,
            };
            let limit = match limit {
                0 => PAGE_SIZE_DEFAULT,
                limit => limit.min(PAGE_SIZE_MAX),
            };
            let cursor = query
                .get("pageToken")
                .or_else(|| query.get("page_token"))
                .filter(|token| !token.is_empty());
            let page = app
                .contexts
                .list(&project, cursor.map(String::as_str), limit)
                .await?;
            Ok(reply::json(client::encode_cached_page(&page, &call.form)))
        }
        Target::GetCached { id } => {
            let context = app.contexts.get(&project, &id).await?;
            Ok(reply::json(client::encode_cached_content(
                &context, &call.form,
            )))
        }
        Target::PatchCached { id } => {
            let mask = query.get("updateMask").or_else(|| query.get("update_mask"));
            let ttl_seconds = body
                .decode(|bytes| client::decode_patch(bytes, mask.map(String::as_str), app.now()))?;
            let context = app.contexts.set_ttl(&project, &id, ttl_seconds).await?;
            Ok(reply::json(client::encode_cached_content(
                &context, &call.form,
            )))
        }
        Target::DeleteCached { id } => {
            app.contexts.delete(&project, &id).await?;
            Ok(reply::json("{}".into()))
        }
    }
}

/// What a key needs; every key may look at models.
fn scope_of(target: &Target) -> Option<KeyScope> {
    match target {
        Target::Generate { .. } | Target::Count { .. } => Some(KeyScope::Inference),
        Target::Models | Target::Model { .. } => None,
        Target::ListCached | Target::GetCached { .. } => Some(KeyScope::ContextsRead),
        Target::CreateCached | Target::PatchCached { .. } | Target::DeleteCached { .. } => {
            Some(KeyScope::ContextsWrite)
        }
    }
}
