//! The HTTP service: routes, and what every request passes through. The only part of the gateway that knows axum.
//!
//! A handler reads the request, calls into [`crate::contexts`] or a backend, and encodes the answer. Errors are
//! [`holdfast_protocol::ApiError`]s until they become a response in [`reply`].

mod access;
mod admin;
mod body;
mod budgets;
mod chat;
mod contexts;
mod estimate;
mod google;
mod kinds;
mod listen;
mod messages;
mod models;
mod observe;
mod openapi;
mod passthrough;
mod rates;
mod reload;
mod reply;
mod responses;
mod status;
mod surface;
mod upstreams;
mod usage;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post};
use holdfast_protocol::ApiError;
use holdfast_store::KeyScope;

use crate::app::App;

pub use listen::serve;
pub use openapi::openapi;

/// All routes. The same API is there twice, under the paths of OpenAI's and of Ark's SDKs.
pub fn router(app: Arc<App>) -> Router {
    let opened_by = |scope: KeyScope, routes: Router<Arc<App>>| {
        routes.route_layer(from_fn_with_state(
            (Arc::clone(&app), scope),
            access::scoped,
        ))
    };
    let opened_by_any_key = |routes: Router<Arc<App>>| {
        routes.route_layer(from_fn_with_state(Arc::clone(&app), access::keyed))
    };
    let api = |context_writes: Router<Arc<App>>| {
        opened_by(KeyScope::Inference, chats())
            .merge(opened_by(KeyScope::ContextsRead, context_reads()))
            .merge(opened_by(KeyScope::ContextsWrite, context_writes))
            .merge(opened_by_any_key(key_reads()))
    };
    let inference = |routes| opened_by(KeyScope::Inference, routes);
    let client_routes = Router::new()
        .nest(
            "/v1",
            api(context_writes(contexts::create_openai))
                .merge(inference(anthropic()))
                .merge(inference(openai())),
        )
        .nest(
            "/api/v3",
            api(context_writes(contexts::create_ark))
                .merge(inference(stored_responses(responses::create_ark))),
        )
        .merge(opened_by_any_key(google()));

    let admin = opened_by(KeyScope::Admin, administration());

    let open = Router::new()
        // For load balancers and monitoring.
        .route("/healthz", get(status::health))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(status::metrics))
        // For people and generators.
        .route("/openapi.json", get(status::openapi_document));

    client_routes
        .merge(admin)
        .route_layer(from_fn_with_state(
            Arc::clone(&app),
            observe::limit_in_flight,
        ))
        .merge(open)
        .fallback(async || reply::error(&ApiError::not_found()))
        .method_not_allowed_fallback(async || reply::error(&ApiError::method_not_allowed()))
        .layer(from_fn_with_state(Arc::clone(&app), observe::catch_panics))
        .layer(from_fn_with_state(Arc::clone(&app), observe::observe))
        .with_state(app)
}

/// OpenAI's own paths.
fn openai() -> Router<Arc<App>> {
    stored_responses(responses::create)
        .route("/responses/input_tokens", post(responses::input_tokens))
        .route("/conversations", post(responses::create_conversation))
        .route(
            "/conversations/{id}",
            get(responses::get_conversation)
                .post(responses::update_conversation)
                .delete(responses::delete_conversation),
        )
        .route(
            "/conversations/{id}/items",
            get(responses::list_items).post(responses::add_items),
        )
        .route(
            "/conversations/{id}/items/{item}",
            get(responses::get_item).delete(responses::delete_item),
        )
}

/// Responses, which Ark has, too.
fn stored_responses<H, T>(create: H) -> Router<Arc<App>>
where
    H: axum::handler::Handler<T, Arc<App>>,
    T: 'static,
{
    Router::new()
        .route("/responses", post(create))
        .route(
            "/responses/{id}",
            get(responses::get).delete(responses::delete),
        )
        .route("/responses/{id}/input_items", get(responses::input_items))
}

/// Anthropic's own paths.
fn anthropic() -> Router<Arc<App>> {
    Router::new()
        .route("/messages", post(messages::create))
        .route("/messages/count_tokens", post(messages::count_tokens))
}

/// Names of models may have slashes. Google's paths, which one handler reads. Google's SDKs put a version of their own behind any base URL.
fn google() -> Router<Arc<App>> {
    let mut router = Router::new()
        .route("/v1/models/{*id}", get(models::get).post(google::call))
        .route("/api/v3/models/{*id}", get(models::get))
        .route("/v1/cachedContents", any(google::call))
        .route("/v1/cachedContents/{id}", any(google::call))
        .route("/v1/publishers/{*rest}", any(google::call))
        .route("/v1/projects/{*rest}", any(google::call));
    for prefix in ["/v1beta", "/v1beta1", "/v1/v1", "/v1/v1beta", "/v1/v1beta1"] {
        router = router.route(&format!("{prefix}/{{*rest}}"), any(google::call));
    }
    router
}

/// What operators do.
fn administration() -> Router<Arc<App>> {
    upstreams::routes()
        .route(
            "/admin/v1/projects",
            post(admin::create_project).get(admin::list_projects),
        )
        .route(
            "/admin/v1/projects/{name}",
            get(admin::get_project).patch(admin::update_project),
        )
        .route(
            "/admin/v1/keys",
            post(admin::create_key).get(admin::list_keys),
        )
        .route(
            "/admin/v1/keys/{id}",
            get(admin::get_key)
                .patch(admin::update_key)
                .delete(admin::revoke_key),
        )
        .route("/admin/v1/keys/{id}/rotate", post(admin::rotate_key))
        .route("/admin/v1/audit", get(admin::list_audit))
        .route("/admin/v1/config/reload", post(reload::reload))
}

/// Looking at contexts. An id may also come in Google's long form, percent-encoded or not.
fn context_reads() -> Router<Arc<App>> {
    Router::new()
        .route("/context/estimate", post(estimate::estimate))
        .route("/context", get(contexts::list))
        .route("/context/{id}", get(contexts::get))
        .route("/context/cachedContents/{id}", get(contexts::get))
        .route(
            "/context/projects/{project}/locations/{location}/cachedContents/{id}",
            get(contexts::get),
        )
}

/// Changing contexts. Create differs by surface: Ark's SDK leaves `mode` out and means `session`.
fn context_writes<H, T>(create: H) -> Router<Arc<App>>
where
    H: axum::handler::Handler<T, Arc<App>>,
    T: 'static,
{
    let change = || axum::routing::patch(contexts::patch).delete(contexts::delete);
    Router::new()
        .route("/context/create", post(create))
        .route("/context/{id}", change())
        .route("/context/{id}/fork", post(contexts::fork))
        .route("/context/cachedContents/{id}", change())
        .route("/context/cachedContents/{id}/fork", post(contexts::fork))
        .route(
            "/context/projects/{project}/locations/{location}/cachedContents/{id}",
            change(),
        )
        .route(
            "/context/projects/{project}/locations/{location}/cachedContents/{id}/fork",
            post(contexts::fork),
        )
}

/// What every key may look at, each as much of it as is its own.
fn key_reads() -> Router<Arc<App>> {
    Router::new()
        // Models. Their names may have slashes.
        .route("/models", get(models::list))
        // What was used and what it cost.
        .route("/usage", get(usage::usage))
        .route("/usage/requests", get(usage::requests))
        // What may be spent.
        .route("/budgets", get(budgets::budgets))
}

/// What asks a model.
fn chats() -> Router<Arc<App>> {
    Router::new()
        // Chat. Both take any context; the second one needs one.
        .route("/chat/completions", post(chat::chat_completions))
        .route(
            "/context/chat/completions",
            post(chat::context_chat_completions),
        )
        // What upstreams have beside chat: passed through. The embedded engine continues text, too.
        .route("/embeddings", post(passthrough::embeddings))
        .route("/completions", post(passthrough::completions))
        .route("/images/generations", post(passthrough::image_generations))
        .route("/images/edits", post(passthrough::image_edits))
        .route("/audio/speech", post(passthrough::audio_speech))
        .route(
            "/audio/transcriptions",
            post(passthrough::audio_transcriptions),
        )
        .route("/audio/translations", post(passthrough::audio_translations))
}
