//! `/context/estimate`: what a context would cost, before there is one.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use holdfast_protocol::ApiError;
use holdfast_protocol::dialect::openai::{self, wire};
use holdfast_protocol::price::Decimal;
use rust_decimal::RoundingStrategy;
use serde_json::Value;

use super::body::JsonBody;
use super::observe::Trail;
use super::reply::{self, Failure};
use crate::app::App;
use crate::auth::Principal;
use crate::backend::{PrefixContent, PrefixEstimate, TurnSize};

/// Tokens of a question when the request does not say.
const QUESTION_TOKENS: u64 = 100;
/// Tokens of an answer when the request does not say.
const ANSWER_TOKENS: u64 = 300;
/// The largest of either.
const TOKENS_MAX: u64 = 1_000_000_000;

/// Estimate what a context would cost
///
/// The same body as create. Nothing is stored, and nothing is sent to an upstream.
#[utoipa::path(
    post,
    path = "/v1/context/estimate",
    tag = "contexts",
    request_body = wire::ContextEstimateRequest,
    responses(
        (status = 200, description = "One estimate for each upstream of the model", body = wire::ContextEstimate),
        (status = 400, description = "A field is missing or wrong", body = wire::ErrorBody),
        (status = 404, description = "There is no such model", body = wire::ErrorBody),
    )
)]
pub(super) async fn estimate(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    body: JsonBody,
) -> Result<Response, Failure> {
    let create = body.decode(openai::decode_create)?;
    let turn = body.decode(turn_size)?;
    let model = principal.model(&app.models, &create.model)?;
    trail.set_model(&model.entry.name);
    let ttl_seconds = model.entry.profile.checked_ttl(create.ttl_seconds)?;
    let prefix = model
        .backend
        .prepare(PrefixContent {
            project: principal.project.clone(),
            initial: create.messages,
            history: Vec::new(),
            previous_history: 0,
            tools: create.tools,
            tool_choice: create.tool_choice,
            rendered_at: app.now(),
        })
        .await?;
    let rows = model.backend.estimates(&prefix, ttl_seconds, turn);
    Ok(reply::json(encode(wire::ContextEstimate {
        object: "context.estimate",
        model: create.model,
        ttl: ttl_seconds,
        question_tokens: turn.question_tokens,
        answer_tokens: turn.answer_tokens,
        upstreams: rows.iter().map(row_body).collect(),
    })?))
}

fn encode(estimate: wire::ContextEstimate) -> Result<Bytes, ApiError> {
    serde_json::to_vec(&estimate)
        .map(Bytes::from)
        .map_err(|_| ApiError::internal())
}

/// The two fields that create does not have.
fn turn_size(body: &[u8]) -> Result<TurnSize, ApiError> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let tokens = |field: &str, default| match body.get(field) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .filter(|tokens| *tokens <= TOKENS_MAX)
            .ok_or_else(|| ApiError::invalid(field, "must be a whole number of tokens")),
    };
    Ok(TurnSize {
        question_tokens: tokens("question_tokens", QUESTION_TOKENS)?,
        answer_tokens: tokens("answer_tokens", ANSWER_TOKENS)?,
    })
}

fn row_body(row: &PrefixEstimate) -> wire::UpstreamEstimate {
    let money = row.money.as_ref();
    let text = |amount: Decimal| amount.normalize().to_string();
    wire::UpstreamEstimate {
        upstream: row.upstream.clone(),
        provider: row.provider,
        upstream_model: row.model.clone(),
        caching: row.caching,
        guarantee: row.guarantee,
        tokens: row.tokens,
        source: row.source,
        min_tokens: row.min_tokens,
        cacheable: row.reason.is_none(),
        reason: row.reason.clone(),
        create: money.map(|(_, estimate)| text(estimate.create)),
        hold_per_hour: money.map(|(_, estimate)| text(estimate.hold_per_hour)),
        turn_with: money.map(|(_, estimate)| text(estimate.turn_with)),
        turn_without: money.map(|(_, estimate)| text(estimate.turn_without)),
        pays_from_turns_per_hour: money
            .and_then(|(_, estimate)| estimate.pays_from_turns_per_hour)
            // Rounded upwards, so that what is said to pay does.
            .map(|turns| {
                text(turns.round_dp_with_strategy(2, RoundingStrategy::ToPositiveInfinity))
            }),
        currency: money.map(|(currency, _)| currency.clone()),
    }
}
