//! OpenAI's `/responses` and `/conversations`, and Ark's `/responses`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::header::USER_AGENT;
use axum::response::Response;
use futures_util::FutureExt;
use holdfast_protocol::context::ContextMode;
use holdfast_protocol::dialect::AnswerWriter;
use holdfast_protocol::dialect::responses::client::{self, ResponseHead, Surface, Writer};
use holdfast_protocol::{ApiError, ChatResponse, Message, Usage};
use serde_json::{Map, Value};

use super::body::JsonBody;
use super::chat::{Caller, Keep, respond_and_keep};
use super::rates;
use super::reply::{self, Failure};
use crate::app::{App, ModelSource};
use crate::auth::Principal;
use crate::limits::Demand;
use crate::responses::{Earlier, NewResponse, new_id};

/// Items on a page when the request does not say, and at most.
const PAGE_DEFAULT: usize = 20;
const PAGE_MAX: usize = 100;

type PathId = Result<Path<String>, axum::extract::rejection::PathRejection>;
type PathIds = Result<Path<(String, String)>, axum::extract::rejection::PathRejection>;
type QueryMap = Result<Query<HashMap<String, String>>, axum::extract::rejection::QueryRejection>;

/// Create a response
///
/// `previous_response_id` and `conversation` continue what was stored, from any response and as often as you like;
/// `context_id` names a stored context.
#[utoipa::path(
    post,
    path = "/v1/responses",
    tag = "responses",
    request_body(content = Object, description = "OpenAI's Responses API; `context_id` is an addition"),
    responses(
        (status = 200, description = "The response; a stream of its events when `stream` is set", body = Object),
        (status = 400, description = "A field is missing or wrong, or the response before is not there", body = Object),
        (status = 404, description = "There is no such model, conversation or context", body = Object),
    )
)]
pub(super) async fn create(caller: Caller, body: JsonBody) -> Result<Response, Failure> {
    // Ark's SDKs work with either base URL, and fail on what only OpenAI's know.
    let agent = caller.headers.get(USER_AGENT);
    let is_ark = agent.is_some_and(|agent| agent.as_bytes().starts_with(b"volc-sdk"));
    let surface = match is_ark {
        true => Surface::Ark,
        false => Surface::OpenAi,
    };
    create_on(surface, caller, body).await
}

/// Create a response the way Ark's SDKs do
///
/// With `caching` and `expire_at`.
#[utoipa::path(
    post,
    path = "/api/v3/responses",
    tag = "responses",
    request_body(content = Object, description = "Ark's Responses API"),
    responses((status = 200, description = "The response", body = Object))
)]
pub(super) async fn create_ark(caller: Caller, body: JsonBody) -> Result<Response, Failure> {
    create_on(Surface::Ark, caller, body).await
}

async fn create_on(surface: Surface, caller: Caller, body: JsonBody) -> Result<Response, Failure> {
    let app = Arc::clone(&caller.app);
    let project = caller.principal.project.clone();
    let request = body.decode(|_| client::decode_request(&body.bytes, surface, app.now()))?;
    if let Some(name) = &request.chat.model {
        caller.trail.entry.set_requested_model(name);
    }
    let mut earlier = match (&request.previous_response_id, &request.conversation) {
        (Some(id), _) => app.responses.after_response(&project, id).await?,
        (None, Some(id)) => app.responses.after_conversation(&project, id).await?,
        (None, None) => Earlier::default(),
    };
    let continues = !earlier.is_empty();
    let instructions_end = request.instructions_end;
    let messages = request.chat.messages[instructions_end..].to_vec();
    let mut request = request.after(std::mem::take(&mut earlier.messages));
    request.chat.model = request.chat.model.or_else(|| earlier.model.clone());
    let named = request.chat.context_id.clone();
    request.chat.context_id = request
        .chat
        .context_id
        .or_else(|| earlier.context_id.clone());
    if request.chat.messages.is_empty() {
        return Err(ApiError::missing("input").into());
    }
    caller.principal.complete(&mut request.chat);

    let model = match (&request.chat.model, &request.chat.context_id) {
        (Some(name), _) => Arc::clone(caller.principal.model(&app.models, name)?),
        (None, Some(id)) => {
            let context = app.contexts.get(&project, id).await?;
            Arc::clone(caller.principal.model(&app.models, &context.model)?)
        }
        (None, None) => return Err(ApiError::missing("model").into()),
    };
    caller.trail.set_model(&model.entry.name);
    let is_embedded = matches!(model.entry.source, ModelSource::Engine(_));
    let cache = &mut request.chat.cache;
    if request.chat.context_id.is_some() {
        *cache = Default::default();
    } else if cache.points.is_empty()
        && cache.automatic.is_none()
        // What is said once may never be continued, and a provider's cache has its price.
        && (continues || (request.store && is_embedded))
    {
        cache.automatic = Some(None);
    }

    let mut echo = request.echo;
    let mut expires_at = None;
    if request.store {
        app.responses.check_room(&project).await?;
        if let Some(seconds) = request.expires_at {
            echo.set_expires_at(seconds);
            expires_at = Some(seconds.saturating_mul(1000));
        }
    }
    let head = ResponseHead {
        id: new_id("resp"),
        echo,
    };
    let keep = match request.store {
        false => None,
        true => {
            let context = match named {
                None => None,
                Some(id) => {
                    let mode = app.contexts.get(&project, &id).await?.mode;
                    Some((id, mode == ContextMode::Session))
                }
            };
            Some(NewResponse {
                project: project.clone(),
                model: model.entry.name.clone(),
                input: client::with_ids(request.input, &head.id, 0),
                messages,
                context,
                earlier,
                expires_at,
                head: head.clone(),
            })
        }
    };
    let mut writer = Writer::new(head);
    let is_prefix = request
        .caching
        .is_some_and(|caching| caching.enabled && caching.prefix);
    if is_prefix {
        let mut chat = request.chat;
        let name = chat
            .model
            .clone()
            .unwrap_or_else(|| model.entry.name.clone());
        let tokens = model
            .backend
            .count_tokens(
                &project,
                chat.messages.clone(),
                chat.tools.clone(),
                app.now(),
            )
            .await?;
        // A copy of the beginning is no answer, and nobody says what it cost.
        rates::reserve(&app, &caller.trail, &model.entry.name, Demand::of_input(0)).await?;
        app.contexts
            .keep_beginning(&project, &model, &mut chat)
            .await;
        let answer = Arc::new(no_answer(name, tokens, app.now().div_euclid(1000)));
        if let Some(new) = keep {
            Arc::clone(&app.responses)
                .keep(new, Arc::clone(&answer))
                .await?;
        }
        return Ok(reply::json(writer.whole(&answer)));
    }
    let keep = keep.map(|new| -> Keep {
        let responses = Arc::clone(&app.responses);
        Box::new(move |answer| responses.keep(new, answer).boxed())
    });
    respond_and_keep(caller, request.chat, &body.bytes, Box::new(writer), keep).await
}

/// The answer to a request that only wants its beginning cached.
fn no_answer(model: String, tokens: u64, created: i64) -> ChatResponse {
    ChatResponse {
        id: String::new(),
        created,
        model,
        choices: Vec::new(),
        usage: Usage {
            input_tokens: tokens,
            ..Usage::default()
        },
        receipt: None,
    }
}

/// Get a stored response
#[utoipa::path(
    get,
    path = "/v1/responses/{id}",
    tag = "responses",
    params(("id" = String, Path, description = "The response's id")),
    responses(
        (status = 200, description = "The response", body = Object),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = Object),
    )
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    id: PathId,
) -> Result<Response, Failure> {
    let id = path_id(id)?;
    let record = app.responses.get(&principal.project, &id).await?;
    Ok(reply::json(record.body.into()))
}

/// Delete a stored response
///
/// It can be neither read nor continued any more. Responses that continue from it stay.
#[utoipa::path(
    delete,
    path = "/v1/responses/{id}",
    tag = "responses",
    params(("id" = String, Path, description = "The response's id")),
    responses(
        (status = 200, description = "It is gone", body = Object),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = Object),
    )
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    id: PathId,
) -> Result<Response, Failure> {
    let id = path_id(id)?;
    let said = app.responses.delete(&principal.project, &id).await?;
    forget(&app, &principal.project, said).await;
    Ok(reply::json(client::encode_deleted(&id)))
}

/// List the items of a response's input
#[utoipa::path(
    get,
    path = "/v1/responses/{id}/input_items",
    tag = "responses",
    params(
        ("id" = String, Path, description = "The response's id"),
        ("limit" = Option<u32>, Query, description = "1 to 100; 20 when absent"),
        ("order" = Option<String>, Query, description = "`asc` or `desc` (the default)"),
        ("after" = Option<String>, Query, description = "The last item of the page before"),
    ),
    responses(
        (status = 200, description = "A page of items", body = Object),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = Object),
    )
)]
pub(super) async fn input_items(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    id: PathId,
    query: QueryMap,
) -> Result<Response, Failure> {
    let id = path_id(id)?;
    let record = app.responses.get(&principal.project, &id).await?;
    let items: Vec<Value> =
        serde_json::from_slice(&record.input).map_err(|_| ApiError::internal())?;
    Ok(page_of(&items, query)?)
}

/// Count a request's input tokens
#[utoipa::path(
    post,
    path = "/v1/responses/input_tokens",
    tag = "responses",
    request_body(content = Object, description = "Like a request for a response"),
    responses(
        (status = 200, description = "`input_tokens`", body = Object),
        (status = 404, description = "There is no such model", body = Object),
    )
)]
pub(super) async fn input_tokens(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    body: JsonBody,
) -> Result<Response, Failure> {
    let project = &principal.project;
    let request =
        body.decode(|_| client::decode_request(&body.bytes, Surface::OpenAi, app.now()))?;
    let earlier = match (&request.previous_response_id, &request.conversation) {
        (Some(id), _) => app.responses.after_response(project, id).await?,
        (None, Some(id)) => app.responses.after_conversation(project, id).await?,
        (None, None) => Earlier::default(),
    };
    let name = request.chat.model.clone().or(earlier.model);
    let mut held = 0;
    let mut context_model = None;
    if let Some(id) = request.chat.context_id.clone().or(earlier.context_id) {
        let context = app.contexts.get(project, &id).await?;
        held = context.prefix_tokens;
        context_model = Some(context.model);
    }
    let name = name
        .or(context_model)
        .or_else(|| principal.terms.project.default_model.clone())
        .ok_or_else(|| ApiError::missing("model"))?;
    let model = principal.model(&app.models, &name)?;
    let chat = request.after(earlier.messages).chat;
    let tokens = model
        .backend
        .count_tokens(project, chat.messages, chat.tools, app.now())
        .await?;
    Ok(reply::json(client::encode_input_tokens(tokens + held)))
}

/// Make a conversation
#[utoipa::path(
    post,
    path = "/v1/conversations",
    tag = "responses",
    request_body(content = Object, description = "`items` and `metadata`, both optional"),
    responses((status = 200, description = "The conversation", body = Object))
)]
pub(super) async fn create_conversation(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    body: JsonBody,
) -> Result<Response, Failure> {
    let new = body.decode(client::decode_conversation)?;
    let record = app
        .responses
        .create_conversation(&principal.project, new.items, &new.metadata)
        .await?;
    conversation(&record.id, record.created_at, &record.metadata)
}

/// Get a conversation
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}",
    tag = "responses",
    params(("id" = String, Path, description = "The conversation's id")),
    responses(
        (status = 200, description = "The conversation", body = Object),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = Object),
    )
)]
pub(super) async fn get_conversation(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    id: PathId,
) -> Result<Response, Failure> {
    let id = path_id(id)?;
    let record = app.responses.conversation(&principal.project, &id).await?;
    conversation(&record.id, record.created_at, &record.metadata)
}

/// Replace a conversation's metadata
#[utoipa::path(
    post,
    path = "/v1/conversations/{id}",
    tag = "responses",
    params(("id" = String, Path, description = "The conversation's id")),
    request_body(content = Object, description = "`metadata`"),
    responses(
        (status = 200, description = "The conversation", body = Object),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = Object),
    )
)]
pub(super) async fn update_conversation(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    id: PathId,
    body: JsonBody,
) -> Result<Response, Failure> {
    let id = path_id(id)?;
    let metadata = body.decode(client::decode_metadata)?;
    let record = app
        .responses
        .set_metadata(&principal.project, &id, &metadata)
        .await?;
    conversation(&record.id, record.created_at, &record.metadata)
}

/// Delete a conversation
///
/// Responses made in it stay.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{id}",
    tag = "responses",
    params(("id" = String, Path, description = "The conversation's id")),
    responses(
        (status = 200, description = "It is gone", body = Object),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = Object),
    )
)]
pub(super) async fn delete_conversation(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    id: PathId,
) -> Result<Response, Failure> {
    let id = path_id(id)?;
    let said = app
        .responses
        .delete_conversation(&principal.project, &id)
        .await?;
    forget(&app, &principal.project, said).await;
    Ok(reply::json(client::encode_conversation_deleted(&id)))
}

/// What was deleted is forgotten also where the gateway has kept it of its own accord, and also when the client has gone.
async fn forget(app: &Arc<App>, project: &str, said: Vec<Message>) {
    let (contexts, project) = (Arc::clone(&app.contexts), project.to_owned());
    let task = app.tasks.spawn(async move {
        contexts.delete_beginnings_with(&project, &said).await;
    });
    // It fails only when the gateway stops.
    let _ = task.await;
}

/// List a conversation's items
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}/items",
    tag = "responses",
    params(
        ("id" = String, Path, description = "The conversation's id"),
        ("limit" = Option<u32>, Query, description = "1 to 100; 20 when absent"),
        ("order" = Option<String>, Query, description = "`asc` or `desc` (the default)"),
        ("after" = Option<String>, Query, description = "The last item of the page before"),
    ),
    responses(
        (status = 200, description = "A page of items", body = Object),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = Object),
    )
)]
pub(super) async fn list_items(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    id: PathId,
    query: QueryMap,
) -> Result<Response, Failure> {
    let id = path_id(id)?;
    let items = app.responses.items(&principal.project, &id).await?;
    Ok(page_of(&items, query)?)
}

/// Add items to a conversation
#[utoipa::path(
    post,
    path = "/v1/conversations/{id}/items",
    tag = "responses",
    params(("id" = String, Path, description = "The conversation's id")),
    request_body(content = Object, description = "`items`"),
    responses(
        (status = 200, description = "The new items", body = Object),
        (status = 404, description = "Unknown, expired, deleted or another project's", body = Object),
    )
)]
pub(super) async fn add_items(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    id: PathId,
    body: JsonBody,
) -> Result<Response, Failure> {
    let id = path_id(id)?;
    let items = body.decode(client::decode_items)?;
    let items = app
        .responses
        .add_items(&principal.project, &id, items)
        .await?;
    Ok(reply::json(client::encode_items(&items, false)))
}

/// Get an item of a conversation
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}/items/{item}",
    tag = "responses",
    params(
        ("id" = String, Path, description = "The conversation's id"),
        ("item" = String, Path, description = "The item's id"),
    ),
    responses(
        (status = 200, description = "The item", body = Object),
        (status = 404, description = "There is no such conversation or item", body = Object),
    )
)]
pub(super) async fn get_item(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    ids: PathIds,
) -> Result<Response, Failure> {
    let Path((id, item)) = ids.map_err(|_| ApiError::not_found())?;
    let item = app.responses.item(&principal.project, &id, &item).await?;
    Ok(reply::json(item.to_string().into()))
}

/// Delete an item of a conversation
///
/// Later turns go on without it. Responses that were made with it stay as they were.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{id}/items/{item}",
    tag = "responses",
    params(
        ("id" = String, Path, description = "The conversation's id"),
        ("item" = String, Path, description = "The item's id"),
    ),
    responses(
        (status = 200, description = "The conversation", body = Object),
        (status = 404, description = "There is no such conversation or item", body = Object),
    )
)]
pub(super) async fn delete_item(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    ids: PathIds,
) -> Result<Response, Failure> {
    let Path((id, item)) = ids.map_err(|_| ApiError::not_found())?;
    let record = app
        .responses
        .delete_item(&principal.project, &id, &item)
        .await?;
    conversation(&record.id, record.created_at, &record.metadata)
}

fn conversation(id: &str, created_at: i64, metadata: &[u8]) -> Result<Response, Failure> {
    let metadata: Map<String, Value> =
        serde_json::from_slice(metadata).map_err(|_| ApiError::internal())?;
    let created = created_at.div_euclid(1000);
    Ok(reply::json(client::encode_conversation(
        id, created, &metadata,
    )))
}

fn path_id(id: PathId) -> Result<String, ApiError> {
    let Path(id) = id.map_err(|_| ApiError::not_found())?;
    Ok(id)
}

fn page_of(items: &[Value], query: QueryMap) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|_| ApiError::invalid("query", "of the URL is malformed"))?;
    let value = |name: &str| {
        query
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    };
    let limit = match value("limit") {
        None => PAGE_DEFAULT,
        Some(limit) => limit
            .parse()
            .ok()
            .filter(|limit| (1..=PAGE_MAX).contains(limit))
            .ok_or_else(|| {
                ApiError::invalid(
                    "limit",
                    format!("must be a whole number from 1 to {PAGE_MAX}"),
                )
            })?,
    };
    let newest_first = match value("order") {
        None | Some("desc") => true,
        Some("asc") => false,
        Some(_) => return Err(ApiError::invalid("order", "must be asc or desc")),
    };
    let (page, has_more) = client::page(items, value("after"), limit, newest_first);
    Ok(reply::json(client::encode_items(&page, has_more)))
}
