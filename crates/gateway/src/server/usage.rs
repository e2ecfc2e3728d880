//! `/usage`: what was used and what it cost.

mod wire;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use holdfast_protocol::dialect::openai::wire::ErrorBody;
use holdfast_protocol::{ApiError, ContextId, UnixMillis};
use holdfast_store::{GroupBy, KeyScope, LedgerFilter, StoreError};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::reply::{self, Failure};
use crate::app::App;
use crate::auth::Principal;

pub(super) use wire::{RequestPage, UsagePage};
use wire::{RequestRow, UsageGroup, UsageTotals, rfc3339};

/// Groups or rows on a page when the request does not say, and at most.
const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1000;

/// How far back it goes when the request does not say: thirty days.
const FROM_DEFAULT_MS: i64 = 30 * 86_400_000;

/// Stands for all projects.
const ALL_PROJECTS: &str = "*";

type UsageParameters = Result<Query<UsageQuery>, axum::extract::rejection::QueryRejection>;

/// What is asked. Texts, so that what is wrong can be named.
#[derive(Debug, Deserialize)]
pub(super) struct UsageQuery {
    from: Option<String>,
    to: Option<String>,
    group_by: Option<String>,
    project: Option<String>,
    key: Option<String>,
    model: Option<String>,
    upstream: Option<String>,
    context: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// Sum up usage and cost
///
/// Of the key's own project with the scope `usage:read`, of the key itself with `inference`; a key with the scope `admin`
/// may name another project, or all. Requests count for the time when
/// they came. What has just been answered is included.
#[utoipa::path(
    get,
    path = "/v1/usage",
    tag = "usage",
    params(
        ("from" = Option<String>, Query, description = "RFC 3339, a day, or unix seconds; thirty days ago when absent"),
        ("to" = Option<String>, Query, description = "The same; requests that came then or later do not count"),
        ("group_by" = Option<String>, Query, description = "Any of `day`, `hour`, `project`, `key`, `model`, `upstream`, `context`, with commas between them; without it everything is one group"),
        ("project" = Option<String>, Query, description = "Another project, or `*` for all; needs the scope `admin`"),
        ("key" = Option<String>, Query, description = "Only this key's, by its public id"),
        ("model" = Option<String>, Query, description = "Only this model's"),
        ("upstream" = Option<String>, Query, description = "Only this upstream's"),
        ("context" = Option<String>, Query, description = "Only this context's"),
        ("limit" = Option<u32>, Query, description = "1 to 1000 groups; 100 when absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "Groups, and the sums over all of them", body = UsagePage),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
        (status = 403, description = "Another project's, without the scope `admin`", body = ErrorBody),
    )
)]
pub(super) async fn usage(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    query: UsageParameters,
) -> Result<Response, Failure> {
    let query = reply::query(query)?;
    let filter = filter(&query, &principal, app.now())?;
    let group_by = group_by(&query)?;
    let limit = limit(&query)?;
    app.ledger.flush().await;
    let cursor = query.cursor.as_deref().filter(|cursor| !cursor.is_empty());
    let page = app
        .store
        .query(&filter, &group_by, cursor, limit)
        .await
        .map_err(store_error)?;
    let totals = app
        .store
        .query(&filter, &[], None, 1)
        .await
        .map_err(store_error)?;
    let totals = totals.groups.into_iter().next().map(|group| group.totals);
    json(&UsagePage {
        object: "usage",
        from: rfc3339(filter.from.unwrap_or_default()),
        to: filter.to.map(rfc3339),
        group_by: group_by.iter().map(|by| by.as_str()).collect(),
        data: page
            .groups
            .into_iter()
            .map(|group| UsageGroup::of(&group_by, group))
            .collect(),
        totals: UsageTotals::of(&totals.unwrap_or_default()),
        has_more: page.next_cursor.is_some(),
        next_cursor: page.next_cursor,
    })
}

/// List single requests
///
/// The latest first, with everything that is known of each.
#[utoipa::path(
    get,
    path = "/v1/usage/requests",
    tag = "usage",
    params(
        ("from" = Option<String>, Query, description = "RFC 3339, a day, or unix seconds; thirty days ago when absent"),
        ("to" = Option<String>, Query, description = "The same; requests that came then or later are left out"),
        ("project" = Option<String>, Query, description = "Another project, or `*` for all; needs the scope `admin`"),
        ("key" = Option<String>, Query, description = "Only this key's, by its public id"),
        ("model" = Option<String>, Query, description = "Only this model's"),
        ("upstream" = Option<String>, Query, description = "Only this upstream's"),
        ("context" = Option<String>, Query, description = "Only this context's"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 100 when absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = RequestPage),
        (status = 400, description = "A parameter is wrong", body = ErrorBody),
        (status = 403, description = "Another project's, without the scope `admin`", body = ErrorBody),
    )
)]
pub(super) async fn requests(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    query: UsageParameters,
) -> Result<Response, Failure> {
    let query = reply::query(query)?;
    let filter = filter(&query, &principal, app.now())?;
    let limit = limit(&query)?;
    app.ledger.flush().await;
    let cursor = query.cursor.as_deref().filter(|cursor| !cursor.is_empty());
    let page = app
        .store
        .rows(&filter, cursor, limit)
        .await
        .map_err(store_error)?;
    json(&RequestPage {
        object: "list",
        data: page.rows.into_iter().map(RequestRow::of).collect(),
        has_more: page.next_cursor.is_some(),
        next_cursor: page.next_cursor,
    })
}

fn filter(
    query: &UsageQuery,
    principal: &Principal,
    now: UnixMillis,
) -> Result<LedgerFilter, ApiError> {
    let present = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let from = time("from", query.from.as_deref())?;
    let to = time("to", query.to.as_deref())?;
    let from = from.unwrap_or_else(|| to.unwrap_or(now) - FROM_DEFAULT_MS);
    if to.is_some_and(|to| to <= from) {
        return Err(ApiError::invalid("to", "must be later than `from`"));
    }
    let context = present(&query.context)
        // In any of its spellings. One that is none has no rows.
        .map(|text| text.parse().map_or(text, |id: ContextId| id.to_string()));
    Ok(LedgerFilter {
        from: Some(from),
        to,
        project: project(present(&query.project), principal)?,
        key_id: key(present(&query.key), principal)?,
        model: present(&query.model),
        upstream: present(&query.upstream),
        context,
    })
}

/// Whose usage is asked for; `None`: everybody's. What a key may not see it can't tell from what is not there.
fn project(named: Option<String>, principal: &Principal) -> Result<Option<String>, ApiError> {
    let named = named.unwrap_or_else(|| principal.project.clone());
    if named != principal.project {
        if !principal.may(KeyScope::Admin) {
            let message = "Only a key with the scope `admin` may see the usage of another project.";
            return Err(ApiError::permission_denied(message).with_param("project"));
        }
        if named == ALL_PROJECTS {
            return Ok(None);
        }
    }
    Ok(Some(named))
}

/// Whose keys' usage is asked for; `None`: all keys'. A key that only asks models sees its own.
fn key(named: Option<String>, principal: &Principal) -> Result<Option<String>, ApiError> {
    if principal.may(KeyScope::UsageRead) {
        return Ok(named);
    }
    principal
        .require(KeyScope::Inference)
        .map_err(|_| ApiError::permission_denied("This key lacks the scope `usage:read`."))?;
    match named {
        Some(named) if named != principal.key_id => {
            let message =
                "Only a key with the scope `usage:read` may see what other keys have used.";
            Err(ApiError::permission_denied(message).with_param("key"))
        }
        _ => Ok(Some(principal.key_id.clone())),
    }
}

fn group_by(query: &UsageQuery) -> Result<Vec<GroupBy>, ApiError> {
    let words = query.group_by.as_deref().unwrap_or_default();
    let mut group_by = Vec::new();
    for word in words
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        let by = GroupBy::parse(word).ok_or_else(|| {
            let known: Vec<&str> = GroupBy::ALL.iter().map(|by| by.as_str()).collect();
            let known = known.join("`, `");
            ApiError::invalid("group_by", format!("can have `{known}` only"))
        })?;
        if group_by.contains(&by) {
            return Err(ApiError::invalid("group_by", format!("has `{word}` twice")));
        }
        group_by.push(by);
    }
    Ok(group_by)
}

fn limit(query: &UsageQuery) -> Result<u32, ApiError> {
    let Some(limit) = query.limit.as_deref().filter(|limit| !limit.is_empty()) else {
        return Ok(LIMIT_DEFAULT);
    };
    limit
        .parse()
        .ok()
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| {
            let problem = format!("must be a whole number from 1 to {LIMIT_MAX}");
            ApiError::invalid("limit", problem)
        })
}

/// A time in one of the forms that people and programs write.
fn time(field: &str, text: Option<&str>) -> Result<Option<UnixMillis>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let of_seconds = || {
        let seconds = text.parse::<i64>().ok()?;
        Timestamp::from_second(seconds).ok()
    };
    let of_day = || {
        let day = text.parse::<Date>().ok().filter(|_| text.len() == 10)?;
        let midnight = day.to_zoned(TimeZone::UTC).ok()?;
        Some(midnight.timestamp())
    };
    of_seconds()
        .or_else(of_day)
        .or_else(|| text.parse::<Timestamp>().ok())
        .map(|time| Some(time.as_millisecond()))
        .filter(|time| *time >= Some(0))
        .ok_or_else(|| {
            ApiError::invalid(
                field,
                "must be a time such as `2026-11-30T05:00:00Z`, a day such as `2026-11-30`, or unix seconds",
            )
        })
}

fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::NotFound => ApiError::invalid(
            "cursor",
            "is not the `next_cursor` of an earlier page of this list",
        ),
        StoreError::Unavailable(_) => {
            tracing::warn!(%error, "the ledger can't be read");
            ApiError::unavailable("The store is away. Try again in a moment.")
        }
        StoreError::Conflict | StoreError::Corrupt(_) => {
            tracing::error!(%error, "the ledger can't be read");
            ApiError::internal()
        }
    }
}

fn json(value: &impl Serialize) -> Result<Response, Failure> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer can't be written as JSON");
        ApiError::internal()
    })?;
    Ok(reply::json(body.into()))
}
