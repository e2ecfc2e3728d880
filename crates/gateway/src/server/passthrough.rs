//! What upstreams have beside chat: requests go on as they come, but for the model's name, and answers come back as they
//! are. Text completions are answered by the embedded engine, too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use holdfast_protocol::ApiError;
use holdfast_protocol::chat::ChatHead;
use holdfast_protocol::dialect::openai::{self, wire};
use holdfast_protocol::provider::RawPath;
use holdfast_protocol::raw::RawBody;
use hyper::body::{Frame, SizeHint};

use super::body::PassedBody;
use super::chat::{self, Caller};
use super::rates;
use super::reply::Failure;
use crate::app::ModelSource;
use crate::backend::{RawAnswer, RawWork, TextWork};
use crate::limits::Demand;
use crate::routing::Model;

/// Headers that say what the bytes of an answer are. Everything else an upstream says is said to the gateway.
const HEADERS: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_DISPOSITION];

/// Embed text
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "passed through",
    request_body(content = Object, description = "As the model's provider has it; `model` is required"),
    responses(
        (status = 200, description = "The upstream's answer", body = Object),
        (status = 400, description = "The upstream refuses the request, or none of the model's upstreams has this endpoint", body = wire::ErrorBody),
        (status = 404, description = "There is no such model", body = wire::ErrorBody),
    )
)]
pub(super) async fn embeddings(caller: Caller, body: PassedBody) -> Result<Response, Failure> {
    pass(caller, RawPath::Embeddings, body).await
}

/// Continue text
///
/// The prompt is continued as it is, without a chat template.
#[utoipa::path(
    post,
    path = "/v1/completions",
    tag = "passed through",
    request_body = wire::TextCompletionRequest,
    responses(
        (status = 200, description = "The continuation; a stream of the same objects when `stream` is set", body = wire::TextCompletion),
        (status = 400, description = "A field is missing, wrong or not supported, or none of the model's upstreams has this endpoint", body = wire::ErrorBody),
        (status = 404, description = "There is no such model", body = wire::ErrorBody),
        (status = 429, description = "The engine's queue is full", body = wire::ErrorBody),
    )
)]
pub(super) async fn completions(caller: Caller, body: PassedBody) -> Result<Response, Failure> {
    let (model, body) = find(&caller, &body)?;
    Ok(match model.entry.source {
        ModelSource::Engine(_) => Box::pin(complete(caller, model, &body)).await?,
        ModelSource::Route(_) => send(caller, RawPath::Completions, model, body).await?,
    })
}

/// Make images
#[utoipa::path(
    post,
    path = "/v1/images/generations",
    tag = "passed through",
    request_body(content = Object, description = "As the model's provider has it; `model` is required"),
    responses(
        (status = 200, description = "The upstream's answer; a stream where the request asks for one", body = Object),
        (status = 400, description = "The upstream refuses the request, or none of the model's upstreams has this endpoint", body = wire::ErrorBody),
        (status = 404, description = "There is no such model", body = wire::ErrorBody),
    )
)]
pub(super) async fn image_generations(
    caller: Caller,
    body: PassedBody,
) -> Result<Response, Failure> {
    pass(caller, RawPath::ImageGenerations, body).await
}

/// Change images
#[utoipa::path(
    post,
    path = "/v1/images/edits",
    tag = "passed through",
    request_body(content = Object, description = "A form, or JSON where the provider takes it; `model` is required", content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The upstream's answer; a stream where the request asks for one", body = Object),
        (status = 400, description = "The upstream refuses the request, or none of the model's upstreams has this endpoint", body = wire::ErrorBody),
        (status = 404, description = "There is no such model", body = wire::ErrorBody),
    )
)]
pub(super) async fn image_edits(caller: Caller, body: PassedBody) -> Result<Response, Failure> {
    pass(caller, RawPath::ImageEdits, body).await
}

/// Speak text
#[utoipa::path(
    post,
    path = "/v1/audio/speech",
    tag = "passed through",
    request_body(content = Object, description = "As the model's provider has it; `model` is required"),
    responses(
        (status = 200, description = "Sound, as it comes, in the form that the request asks for", content_type = "audio/mpeg"),
        (status = 400, description = "The upstream refuses the request, or none of the model's upstreams has this endpoint", body = wire::ErrorBody),
        (status = 404, description = "There is no such model", body = wire::ErrorBody),
    )
)]
pub(super) async fn audio_speech(caller: Caller, body: PassedBody) -> Result<Response, Failure> {
    pass(caller, RawPath::AudioSpeech, body).await
}

/// Write speech down
#[utoipa::path(
    post,
    path = "/v1/audio/transcriptions",
    tag = "passed through",
    request_body(content = Object, description = "A form with a `file`; `model` is required", content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The upstream's answer, in the form that the request asks for; a stream where it asks for one", body = Object),
        (status = 400, description = "The upstream refuses the request, or none of the model's upstreams has this endpoint", body = wire::ErrorBody),
        (status = 404, description = "There is no such model", body = wire::ErrorBody),
    )
)]
pub(super) async fn audio_transcriptions(
    caller: Caller,
    body: PassedBody,
) -> Result<Response, Failure> {
    pass(caller, RawPath::AudioTranscriptions, body).await
}

/// Write speech down in English
#[utoipa::path(
    post,
    path = "/v1/audio/translations",
    tag = "passed through",
    request_body(content = Object, description = "A form with a `file`; `model` is required", content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The upstream's answer, in the form that the request asks for", body = Object),
        (status = 400, description = "The upstream refuses the request, or none of the model's upstreams has this endpoint", body = wire::ErrorBody),
        (status = 404, description = "There is no such model", body = wire::ErrorBody),
    )
)]
pub(super) async fn audio_translations(
    caller: Caller,
    body: PassedBody,
) -> Result<Response, Failure> {
    pass(caller, RawPath::AudioTranslations, body).await
}

async fn pass(caller: Caller, path: RawPath, body: PassedBody) -> Result<Response, Failure> {
    let (model, body) = find(&caller, &body)?;
    Ok(send(caller, path, model, body).await?)
}

/// The model that a request names, and the request.
fn find(caller: &Caller, body: &PassedBody) -> Result<(Arc<Model>, RawBody), ApiError> {
    let body = body.read()?;
    caller.trail.entry.set_requested_model(body.model());
    let model = Arc::clone(caller.principal.model(&caller.app.models, body.model())?);
    caller.trail.set_model(&model.entry.name);
    Ok((model, body))
}

async fn send(
    caller: Caller,
    path: RawPath,
    model: Arc<Model>,
    body: RawBody,
) -> Result<Response, ApiError> {
    let input = match path {
        RawPath::Embeddings | RawPath::Completions => rates::tokens_of(body.bytes().len()),
        // The size of a picture or a sound says nothing; the answer may tell what it used.
        _ => 0,
    };
    let demand = Demand::of_input(input);
    rates::reserve(&caller.app, &caller.trail, &model.entry.name, demand).await?;
    let work = RawWork {
        project: caller.principal.project.clone(),
        entry: caller.trail.entry.clone(),
        path,
        body,
        model: model.entry.name.clone(),
        deadline: caller.deadline.0,
    };
    let response = response(model.backend.pass_through(work).await?);
    caller.trail.entry.set_stream(is_stream(response.headers()));
    Ok(response)
}

/// Text completions of the embedded engine.
async fn complete(caller: Caller, model: Arc<Model>, body: &RawBody) -> Result<Response, ApiError> {
    let mut request = openai::decode_completion(body.bytes())?;
    let sampling = &mut request.sampling;
    sampling.temperature = sampling.temperature.or(model.entry.temperature);
    sampling.top_p = sampling.top_p.or(model.entry.top_p);
    let prompts = request.prompts.iter();
    let input: u64 = prompts.map(|prompt| rates::tokens_of(prompt.len())).sum();
    let answers = request.prompts.len() as u64 * u64::from(request.choices);
    let demand = Demand {
        input,
        output: answers.saturating_mul(request.max_tokens.into()),
        is_output_given: true,
    };
    rates::reserve(&caller.app, &caller.trail, &model.entry.name, demand).await?;
    let head = ChatHead {
        id: chat::new_id("cmpl-"),
        created: caller.app.now().div_euclid(1000),
        model: request.model.clone(),
    };
    let is_stream = request.stream;
    let writer = Box::new(openai::CompletionWriter::new(request.include_usage));
    let work = TextWork {
        project: caller.principal.project.clone(),
        request,
    };
    let answer = model.backend.complete(work).await?;
    chat::respond_with(&caller, model, head, answer, is_stream, writer).await
}

fn response(answer: RawAnswer) -> Response {
    let RawAnswer {
        status,
        headers,
        body,
    } = answer;
    let mut response = Response::new(Body::new(PassedOn {
        left: content_length(&headers),
        chunks: body,
    }));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let own = response.headers_mut();
    for name in HEADERS {
        if let Some(value) = headers.get(&name) {
            own.insert(name, value.clone());
        }
    }
    if is_stream(own) {
        chat::mark_stream(own);
    }
    response
}

fn is_stream(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// An upstream's bytes as a body that knows its length where the upstream told it, so that its end is known, too.
struct PassedOn {
    chunks: BoxStream<'static, Result<Bytes, ApiError>>,
    left: Option<u64>,
}

impl HttpBody for PassedOn {
    type Data = Bytes;
    type Error = ApiError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ApiError>>> {
        let polled = Pin::new(&mut self.chunks).poll_next(context);
        if let (Poll::Ready(Some(Ok(bytes))), Some(left)) = (&polled, &mut self.left) {
            *left = left.saturating_sub(bytes.len() as u64);
        }
        polled.map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests;
