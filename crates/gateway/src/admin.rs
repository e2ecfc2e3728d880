//! What operators do with projects and keys, whichever way they come: by the HTTP API, or by the command line where no
//! server runs. Requests are JSON objects here, and answers are what the API shows.

mod audit;
mod fields;
mod keys;
mod projects;

use holdfast_protocol::{ApiError, ErrorKind, UnixMillis};
use holdfast_store::{Budget, KeyStore, LimitSettings, StoreError};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::audit::Audit;

pub(crate) use audit::AuditList;
pub(crate) use keys::{KeyList, KeyObject, KeyPatch, KeyRequest, RotateRequest};
pub(crate) use projects::{ProjectList, ProjectObject, ProjectPatch, ProjectRequest};

/// Most entries of a page, and how many it has when the request does not say.
pub(crate) const PAGE_MAX: u32 = 1000;

/// How often a change is made anew when somebody else has changed the same thing first.
const ATTEMPTS_MAX: u32 = 8;

/// Projects and keys in a store, at a time.
pub(crate) struct Admin<'a> {
    /// Where they are kept.
    pub(crate) store: &'a dyn KeyStore,
    /// The time of what is done.
    pub(crate) now: UnixMillis,
    /// Where it is noted.
    pub(crate) audit: Audit<'a>,
}

/// Limits of a key or a project; what is null is decided by the configuration.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct LimitsObject {
    /// Requests that may begin within a minute.
    requests_per_minute: Option<u64>,
    /// Tokens of input and output within a minute.
    tokens_per_minute: Option<u64>,
    /// Requests that may run at the same time.
    concurrent_requests: Option<u64>,
    /// Living contexts.
    contexts: Option<u64>,
    /// Tokens in living contexts.
    context_tokens: Option<u64>,
}

impl From<LimitSettings> for LimitsObject {
    fn from(limits: LimitSettings) -> Self {
        let LimitSettings {
            requests_per_minute,
            tokens_per_minute,
            concurrent_requests,
            contexts,
            context_tokens,
        } = limits;
        LimitsObject {
            requests_per_minute,
            tokens_per_minute,
            concurrent_requests,
            contexts,
            context_tokens,
        }
    }
}

/// A budget as operators set it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct BudgetSettings {
    /// `daily`, `monthly` or `total`; days and months of UTC.
    period: &'static str,
    /// ISO 4217 code; `USD` when absent.
    #[schema(example = "USD")]
    currency: String,
    /// Nothing that could cost more is begun; a decimal number as a string.
    #[schema(example = "100")]
    limit: Option<String>,
    /// Beyond it answers carry a warning.
    #[schema(example = "80")]
    soft_limit: Option<String>,
}

impl From<Budget> for BudgetSettings {
    fn from(budget: Budget) -> Self {
        let text = |amount: holdfast_protocol::price::Decimal| amount.normalize().to_string();
        BudgetSettings {
            period: budget.period.as_str(),
            currency: budget.currency.to_string(),
            limit: budget.hard.map(text),
            soft_limit: budget.soft.map(text),
        }
    }
}

fn store_error(error: StoreError, missing: fn() -> ApiError) -> ApiError {
    match error {
        StoreError::NotFound => missing(),
        StoreError::Unavailable(_) => {
            tracing::error!(%error, "the key store failed");
            ApiError::unavailable("The key store is away. Try again in a moment.")
        }
        StoreError::Conflict => ApiError::unavailable(
            "Others have changed the same thing at the same time. Try again in a moment.",
        ),
        StoreError::Corrupt(_) => {
            tracing::error!(%error, "the key store failed");
            ApiError::internal()
        }
    }
}

/// What a request changes, for the audit log: all of it, since no request has a secret in it.
fn changes(request: &Value) -> Value {
    json!({"set": request})
}

fn key_not_found() -> ApiError {
    ApiError::new(
        ErrorKind::NotFound,
        "There is no key with this id. GET /admin/v1/keys lists the keys.",
    )
}

fn project_not_found() -> ApiError {
    ApiError::new(
        ErrorKind::NotFound,
        "There is no project of this name. GET /admin/v1/projects lists the projects.",
    )
}

fn wrong_cursor() -> ApiError {
    ApiError::invalid("cursor", "is not the `next_cursor` of a page before")
}

fn seconds(time: UnixMillis) -> i64 {
    time.div_euclid(1000)
}
