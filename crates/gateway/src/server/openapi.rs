//! The OpenAPI document, generated from the handlers.

use std::sync::LazyLock;

use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use holdfast_protocol::dialect::openai::wire;

use super::{
    admin, budgets, chat, contexts, estimate, google, messages, models, passthrough, reload,
    responses, status, upstreams, usage,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Holdfast",
        description = "Contexts that are stored once and used by id, on any model.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        contexts::create_openai,
        contexts::create_ark,
        estimate::estimate,
        contexts::list,
        contexts::get,
        contexts::patch,
        contexts::delete,
        contexts::fork,
        chat::chat_completions,
        chat::context_chat_completions,
        messages::create,
        messages::count_tokens,
        google::call,
        responses::create,
        responses::create_ark,
        responses::get,
        responses::delete,
        responses::input_items,
        responses::input_tokens,
        responses::create_conversation,
        responses::get_conversation,
        responses::update_conversation,
        responses::delete_conversation,
        responses::list_items,
        responses::add_items,
        responses::get_item,
        responses::delete_item,
        passthrough::embeddings,
        passthrough::completions,
        passthrough::image_generations,
        passthrough::image_edits,
        passthrough::audio_speech,
        passthrough::audio_transcriptions,
        passthrough::audio_translations,
        usage::usage,
        usage::requests,
        budgets::budgets,
        models::list,
        models::get,
        admin::create_project,
        admin::list_projects,
        admin::get_project,
        admin::update_project,
        admin::create_key,
        admin::list_keys,
        admin::get_key,
        admin::update_key,
        admin::rotate_key,
        admin::revoke_key,
        admin::list_audit,
        reload::reload,
        upstreams::list_upstreams,
        upstreams::drain_worker,
        upstreams::undrain_worker,
        status::health,
        status::ready,
        status::metrics,
        status::openapi_document,
    ),
    components(schemas(wire::ChatCompletionChunk)),
    tags(
        (name = "contexts", description = "All paths below /v1 are also there below /api/v3, where Ark's SDKs look for them."),
        (name = "chat"),
        (name = "gemini"),
        (name = "responses"),
        (name = "passed through", description = "Sent to a model's upstream as they come, but for the model's name; the answer comes back as it is. What the fields are is the provider's business."),
        (name = "usage", description = "One row for each request, kept durably."),
        (name = "models"),
        (name = "admin", description = "Needs a key with the scope `admin`."),
        (name = "operations", description = "Needs no key."),
    ),
    security(("bearer" = []), ("x-api-key" = []), ("x-goog-api-key" = [])),
    modifiers(&Credentials),
)]
struct Api;

/// The three headers in which a key may come.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        for header in ["x-api-key", "x-goog-api-key"] {
            let scheme = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(header)));
            components.add_security_scheme(header, scheme);
        }
    }
}

/// The document.
pub fn openapi() -> Document {
    Api::openapi()
}

/// The document as it is served and committed.
pub(super) fn document() -> String {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let mut text = openapi()
            .to_pretty_json()
            .expect("the document has string keys only");
        text.push('\n');
        text
    });
    DOCUMENT.clone()
}
