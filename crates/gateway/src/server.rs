//! The HTTP service: routes, and what every request passes through. The only part of the gateway that knows axum.
//!
//! A handler reads the request, calls into [`crate::contexts`] or a backend, and encodes the answer. Errors are
//! [`holdfast_protocol::ApiError`]s until they become a response in [`reply`].

mod access;
mod admin;
mod body;
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
use axum::routing::{any, delete, get, post};
use holdfast_protocol::ApiError;

use crate::app::App;

pub use listen::serve;
pub use openapi::openapi;

/// All routes. The same API is there twice, under the paths of OpenAI's and of Ark's SDKs.
pub fn router(app: Arc<App>) -> Router {
    let inference = Router::new()
        .nest(
            "/v1",
            api(contexts::create_openai)
                .merge(anthropic())
                .merge(openai()),
        )
        .nest(
            "/api/v3",
            api(contexts::create_ark).merge(stored_responses(responses::create_ark)),
        )
        .merge(google())
        .route_layer(from_fn_with_state(Arc::clone(&app), access::inference));

    let admin = Router::new()
        // Keys: make one, list them, revoke one.
        .route(
            "/admin/v1/keys",
            post(admin::create_key).get(admin::list_keys),
        )
        .route("/admin/v1/keys/{id}", delete(admin::revoke_key))
        .route("/admin/v1/config/reload", post(reload::reload))
        .merge(upstreams::routes())
        .route_layer(from_fn_with_state(Arc::clone(&app), access::admin));

    let open = Router::new()
        // For load balancers and monitoring.
        .route("/healthz", get(status::health))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(status::metrics))
        // For people and generators.
        .route("/openapi.json", get(status::openapi_document));

    inference
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

/// The API below its prefix. Create differs by surface: Ark's SDK leaves `mode` out and means `session`.
fn api<H, T>(create: H) -> Router<Arc<App>>
where
    H: axum::handler::Handler<T, Arc<App>>,
    T: 'static,
{
    let context = || {
        get(contexts::get)
            .patch(contexts::patch)
            .delete(contexts::delete)
    };
    Router::new()
        // Contexts. An id may also come in Google's long form, percent-encoded or not.
        .route("/context/create", post(create))
        .route("/context/estimate", post(estimate::estimate))
        .route("/context", get(contexts::list))
        .route("/context/{id}", context())
        .route("/context/{id}/fork", post(contexts::fork))
        .route("/context/cachedContents/{id}", context())
        .route("/context/cachedContents/{id}/fork", post(contexts::fork))
        .route(
            "/context/projects/{project}/locations/{location}/cachedContents/{id}",
            context(),
        )
        .route(
            "/context/projects/{project}/locations/{location}/cachedContents/{id}/fork",
            post(contexts::fork),
        )
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
        // What was used and what it cost.
        .route("/usage", get(usage::usage))
        .route("/usage/requests", get(usage::requests))
        // Models. Their names may have slashes.
        .route("/models", get(models::list))
}
