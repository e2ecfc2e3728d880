//! `/budgets`: what a key and its project may spend, and have spent.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use holdfast_protocol::dialect::openai::wire::ErrorBody;
use holdfast_protocol::price::Decimal;
use holdfast_protocol::{ApiError, ErrorKind};
use holdfast_store::{Budget, KeyScope, Spender, StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::reply::{self, Failure};
use crate::admin::BudgetSettings;
use crate::app::App;
use crate::auth::{Principal, Terms};
use crate::budgets::{Payer, Standing};

/// Whose budgets.
#[derive(Debug, Deserialize)]
pub(super) struct BudgetQuery {
    project: Option<String>,
    key: Option<String>,
}

/// The budgets that hold together.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BudgetList {
    /// `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Those of the key first.
    data: Vec<BudgetObject>,
}

/// A budget and how it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BudgetObject {
    /// `budget`.
    #[schema(example = "budget")]
    object: &'static str,
    /// The project whose budget it is, or to which the key belongs.
    project: String,
    /// Public id of the key whose budget it is; null: the project's.
    key: Option<String>,
    /// As an operator has set it.
    #[serde(flatten)]
    settings: BudgetSettings,
    /// Of finished requests, storage and the like; null: something was charged in a currency without exchange rate.
    #[schema(example = "12.345")]
    spent: Option<String>,
    /// The most that running requests may still cost.
    #[schema(example = "0.5")]
    reserved: Option<String>,
    /// When it begins anew; null: never.
    #[schema(example = "2026-12-01T00:00:00Z")]
    resets_at: Option<String>,
}

/// Show budgets
///
/// Those that hold for the key: its own, and its project's. A key with the scope `admin` may ask for another project's, and
/// for another key's.
#[utoipa::path(
    get,
    path = "/v1/budgets",
    tag = "usage",
    params(
        ("project" = Option<String>, Query, description = "Another project; needs the scope `admin`"),
        ("key" = Option<String>, Query, description = "Another key, by its public id; needs the scope `admin`"),
    ),
    responses(
        (status = 200, description = "Budgets, and what is spent of them", body = BudgetList),
        (status = 403, description = "Another's, without the scope `admin`", body = ErrorBody),
        (status = 404, description = "There is no such project or key", body = ErrorBody),
    )
)]
pub(super) async fn budgets(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    query: Result<Query<BudgetQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Failure> {
    let query = reply::query(query)?;
    let payer = payer(&app, &principal, query).await?;
    app.ledger.flush().await;
    let standings = app.budgets.standings(&payer).await.map_err(store_error)?;
    let data = standings
        .into_iter()
        .map(|(standing, budget, spent, reserved)| {
            BudgetObject::of(&payer, &standing, budget, spent, reserved)
        })
        .collect();
    reply::object(&BudgetList {
        object: "list",
        data,
    })
}

async fn payer(app: &App, principal: &Principal, query: BudgetQuery) -> Result<Payer, ApiError> {
    let present = |text: Option<String>| text.filter(|text| !text.is_empty());
    let own = Payer {
        project: principal.project.clone(),
        key_id: principal.key_id.clone(),
        terms: Arc::clone(&principal.terms),
    };
    let (project, key) = (present(query.project), present(query.key));
    let is_foreign = |name: &Option<String>, own: &str| name.as_deref().is_some_and(|it| it != own);
    let asks_other = is_foreign(&project, &own.project) || is_foreign(&key, &own.key_id);
    if !principal.may(KeyScope::Inference) && !principal.may(KeyScope::UsageRead) {
        let message = "This key lacks the scope `usage:read`.";
        return Err(ApiError::permission_denied(message));
    }
    if !asks_other {
        return Ok(own);
    }
    if !principal.may(KeyScope::Admin) {
        let message = "Only a key with the scope `admin` may see other budgets than its own.";
        return Err(ApiError::permission_denied(message));
    }
    let key = match key {
        Some(id) => Some(app.store.key(&id).await.map_err(store_error)?),
        None => None,
    };
    let named = project.or_else(|| key.as_ref().map(|key| key.project.clone()));
    let project = named.unwrap_or_else(|| own.project.clone());
    let settings = app
        .store
        .project(&project)
        .await
        .map_err(store_error)?
        .settings;
    let key = key.filter(|key| key.project == project);
    Ok(Payer {
        project,
        key_id: key.as_ref().map(|key| key.id.clone()).unwrap_or_default(),
        terms: Arc::new(Terms {
            budgets: key.map(|key| key.budgets).unwrap_or_default(),
            project: settings,
            ..Terms::default()
        }),
    })
}

impl BudgetObject {
    fn of(
        payer: &Payer,
        standing: &Standing,
        budget: Budget,
        spent: Option<Decimal>,
        reserved: Option<Decimal>,
    ) -> Self {
        let text = |amount: Decimal| amount.normalize().to_string();
        let until = standing.until;
        let until = until.and_then(|until| Timestamp::from_millisecond(until).ok());
        BudgetObject {
            object: "budget",
            project: payer.project.clone(),
            key: match &standing.span.spender {
                Spender::Key(id) => Some(id.clone()),
                Spender::Project(_) => None,
            },
            settings: budget.into(),
            spent: spent.map(text),
            reserved: reserved.map(text),
            resets_at: until.map(|until| until.to_string()),
        }
    }
}

fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound => {
            ApiError::new(ErrorKind::NotFound, "There is no such project or key.")
        }
        StoreError::Unavailable(_) => {
            tracing::warn!(%error, "budgets can't be read");
            ApiError::unavailable("The store of budgets is away. Try again in a moment.")
        }
        StoreError::Conflict | StoreError::Corrupt(_) => {
            tracing::error!(%error, "budgets can't be read");
            ApiError::internal()
        }
    }
}
