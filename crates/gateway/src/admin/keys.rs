//! Keys: create, list, show, change, rotate, revoke.

use holdfast_protocol::{ApiError, UnixMillis};
use holdfast_store::{KeyRecord, KeyScope, StoreError};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::fields::{Fields, LIMITS};
use super::{
    ATTEMPTS_MAX, Admin, BudgetSettings, LimitsObject, PAGE_MAX, changes, key_not_found, seconds,
    store_error, wrong_cursor,
};
use crate::audit::{Act, not_noted};
use crate::keys;
use crate::serve::DEFAULT_PROJECT;

/// Longest time that a secret lives on after its rotation, seconds.
const OVERLAP_SECONDS_MAX: u64 = 90 * 86_400;

const KEY_FIELDS: &[&str] = &[
    "project",
    "label",
    "scopes",
    "expires_at",
    "expires_in",
    "models",
    "limits",
    "budgets",
];
const KEY_PATCH_FIELDS: &[&str] = &[
    "label",
    "scopes",
    "expires_at",
    "expires_in",
    "models",
    "limits",
    "budgets",
];

/// A key to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
pub(crate) struct KeyRequest {
    /// Lower-case letters, digits and `-`, at most 63; `default` when absent. Made if it is new.
    project: Option<String>,
    /// A name for people.
    label: Option<String>,
    /// `inference`, `contexts:read`, `contexts:write`, `usage:read`, `admin`; `inference` when absent.
    scopes: Option<Vec<String>>,
    /// When it ends by itself, Unix seconds; never when absent.
    expires_at: Option<i64>,
    /// The same as seconds from now.
    expires_in: Option<u64>,
    /// Models that it may use: names, or beginnings of names followed by `*`; all of its project's when absent.
    models: Option<Vec<String>>,
    /// Its own limits.
    limits: Option<LimitsObject>,
    /// What it may spend; its project's budgets hold as well.
    budgets: Option<Vec<BudgetSettings>>,
}

/// What is changed of a key; what is absent stays, and null takes away.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
pub(crate) struct KeyPatch {
    /// A name for people.
    label: Option<String>,
    /// What it may do.
    scopes: Option<Vec<String>>,
    /// When it ends by itself, Unix seconds.
    expires_at: Option<i64>,
    /// The same as seconds from now.
    expires_in: Option<u64>,
    /// Models that it may use.
    models: Option<Vec<String>>,
    /// Its own limits; those that are absent stay.
    limits: Option<LimitsObject>,
    /// What it may spend: all of them anew.
    budgets: Option<Vec<BudgetSettings>>,
}

/// How a key is rotated.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
pub(crate) struct RotateRequest {
    /// How long the secret so far may still be used, seconds; 0 when absent.
    overlap_seconds: Option<u64>,
}

/// A key as the operator sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyObject {
    /// Public id.
    pub(crate) id: String,
    /// `key`.
    #[schema(example = "key")]
    object: &'static str,
    /// The secret; only in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The tenant.
    pub(crate) project: String,
    /// A name for people.
    label: String,
    /// What it may do.
    scopes: Vec<&'static str>,
    /// The secret's first characters.
    hint: String,
    /// Unix seconds.
    created: i64,
    /// When it ends by itself, Unix seconds; null: never.
    expires_at: Option<i64>,
    /// Unix seconds; null while it is in force.
    revoked_at: Option<i64>,
    /// When it was last used, to about a minute, Unix seconds.
    last_used_at: Option<i64>,
    /// Until when the secret before the last rotation may be used, Unix seconds; null when there is none.
    previous_expires_at: Option<i64>,
    /// Models that it may use; empty: all of its project's.
    models: Vec<String>,
    /// Its own limits.
    limits: LimitsObject,
    /// What it may spend; GET /v1/budgets says what it has.
    budgets: Vec<BudgetSettings>,
}

impl KeyObject {
    fn of(record: KeyRecord, now: UnixMillis) -> Self {
        let previous = record.previous.filter(|previous| now < previous.expires_at);
        KeyObject {
            id: record.id,
            object: "key",
            key: None,
            project: record.project,
            label: record.label,
            scopes: record.scopes.iter().map(|scope| scope.as_str()).collect(),
            hint: record.hint,
            created: seconds(record.created_at),
            expires_at: record.expires_at.map(seconds),
            revoked_at: record.revoked_at.map(seconds),
            last_used_at: record.last_used_at.map(seconds),
            previous_expires_at: previous.map(|previous| seconds(previous.expires_at)),
            models: record.models,
            limits: record.limits.into(),
            budgets: record
                .budgets
                .into_iter()
                .map(BudgetSettings::from)
                .collect(),
        }
    }
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    /// `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Oldest first, revoked ones included.
    data: Vec<KeyObject>,
    /// Whether another page follows.
    has_more: bool,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<String>,
}

impl Admin<'_> {
    pub(crate) async fn create_key(&self, request: &Value) -> Result<KeyObject, ApiError> {
        let fields = Fields::of(request, KEY_FIELDS)?;
        let project = fields.project("project")?.unwrap_or(DEFAULT_PROJECT);
        let label = fields.label("label")?.unwrap_or_default();
        let scopes = fields.scopes("scopes")?;
        let scopes = scopes.unwrap_or_else(|| vec![KeyScope::Inference]);
        let (secret, record) = keys::new_key(project, &label, &scopes, self.now);
        let record = KeyRecord {
            expires_at: self.expiry(&fields)?.flatten(),
            models: fields.models("models")?.unwrap_or_default(),
            limits: fields.limits(LIMITS, record.limits)?,
            budgets: fields.budgets("budgets")?.unwrap_or_default(),
            ..record
        };
        let act = Act {
            name: "key.create",
            target: &record.id,
            project: Some(project),
        };
        let made = async {
            self.store.ensure_project(project, self.now).await?;
            self.store.insert_key(&record).await
        };
        let made = self.audit.around(act, changes(request), made).await;
        made.map_err(not_noted)?
            .map_err(|error| store_error(error, key_not_found))?;
        tracing::info!(key.id = record.id, project, "a key was made");
        Ok(KeyObject {
            key: Some(secret.expose().to_owned()),
            ..KeyObject::of(record, self.now)
        })
    }

    /// At most `limit` keys, of one project or of all, after the key of which `cursor` is the id.
    pub(crate) async fn list_keys(
        &self,
        project: Option<&str>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<KeyList, ApiError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let after = match cursor {
            // Keys are never removed, so that a key's id names a place in the list for good.
            Some(id) => Some(
                self.store
                    .key(id)
                    .await
                    .map_err(|error| store_error(error, wrong_cursor))?,
            ),
            None => None,
        };
        let mut records = self
            .store
            .page_keys(project, after.as_ref(), limit + 1)
            .await
            .map_err(|error| store_error(error, key_not_found))?;
        let has_more = records.len() > limit as usize;
        records.truncate(limit as usize);
        Ok(KeyList {
            object: "list",
            has_more,
            next_cursor: records
                .last()
                .filter(|_| has_more)
                .map(|record| record.id.clone()),
            data: records
                .into_iter()
                .map(|record| KeyObject::of(record, self.now))
                .collect(),
        })
    }

    pub(crate) async fn key(&self, id: &str) -> Result<KeyObject, ApiError> {
        let record = self.record(id).await?;
        Ok(KeyObject::of(record, self.now))
    }

    pub(crate) async fn update_key(
        &self,
        id: &str,
        request: &Value,
    ) -> Result<KeyObject, ApiError> {
        let fields = Fields::of(request, KEY_PATCH_FIELDS)?;
        let record = self
            .change("key.update", id, request, |record| {
                Ok(KeyRecord {
                    label: fields.label("label")?.unwrap_or(record.label),
                    scopes: fields.scopes("scopes")?.unwrap_or(record.scopes),
                    expires_at: self.expiry(&fields)?.unwrap_or(record.expires_at),
                    models: fields.models("models")?.unwrap_or(record.models),
                    limits: fields.limits(LIMITS, record.limits)?,
                    budgets: fields.budgets("budgets")?.unwrap_or(record.budgets),
                    ..record
                })
            })
            .await?;
        tracing::info!(key.id = record.id, "a key was changed");
        Ok(KeyObject::of(record, self.now))
    }

    /// Gives the key a new secret; the one so far lives on for the overlap.
    pub(crate) async fn rotate_key(
        &self,
        id: &str,
        request: &Value,
    ) -> Result<KeyObject, ApiError> {
        let fields = Fields::of(request, &["overlap_seconds"])?;
        let overlap_seconds = fields.number("overlap_seconds", 0)?.flatten().unwrap_or(0);
        if overlap_seconds > OVERLAP_SECONDS_MAX {
            return Err(ApiError::invalid(
                "overlap_seconds",
                format!("may be at most {OVERLAP_SECONDS_MAX}"),
            ));
        }
        let previous_expires_at = self.after(overlap_seconds);
        let mut secret = None;
        let record = self
            .change("key.rotate", id, request, |record| {
                if record.revoked_at.is_some() {
                    return Err(ApiError::invalid("id", "names a key that is revoked"));
                }
                let (fresh, record) = keys::rotated(record, previous_expires_at);
                secret = Some(fresh);
                Ok(record)
            })
            .await?;
        tracing::info!(key.id = record.id, "a key was rotated");
        Ok(KeyObject {
            key: secret.map(|secret| secret.expose().to_owned()),
            ..KeyObject::of(record, self.now)
        })
    }

    pub(crate) async fn revoke_key(&self, id: &str) -> Result<KeyObject, ApiError> {
        let record = self.record(id).await?;
        let act = Act {
            name: "key.revoke",
            target: &record.id,
            project: Some(&record.project),
        };
        let revoked = self.store.revoke_key(id, self.now);
        let revoked = self.audit.around(act, json!({}), revoked).await;
        let record = revoked
            .map_err(not_noted)?
            .map_err(|error| store_error(error, key_not_found))?;
        tracing::info!(key.id = record.id, "a key was revoked");
        Ok(KeyObject::of(record, self.now))
    }

    async fn record(&self, id: &str) -> Result<KeyRecord, ApiError> {
        let found = self.store.key(id).await;
        found.map_err(|error| store_error(error, key_not_found))
    }

    /// Changes a key, from what it is then, until nobody else was in between.
    async fn change(
        &self,
        act: &str,
        id: &str,
        request: &Value,
        mut change: impl FnMut(KeyRecord) -> Result<KeyRecord, ApiError>,
    ) -> Result<KeyRecord, ApiError> {
        let mut changed = change(self.record(id).await?)?;
        let (target, project) = (changed.id.clone(), changed.project.clone());
        let act = Act {
            name: act,
            target: &target,
            project: Some(&project),
        };
        let updated = async {
            let mut attempts = 1;
            loop {
                match self.store.update_key(&changed).await {
                    Err(StoreError::Conflict) if attempts < ATTEMPTS_MAX => attempts += 1,
                    updated => return updated.map_err(|error| store_error(error, key_not_found)),
                }
                changed = change(self.record(id).await?)?;
            }
        };
        let updated = self.audit.around(act, changes(request), updated).await;
        updated.map_err(not_noted)?
    }

    /// `None` when the request does not say, `Some(None)` when the key shall not end by itself.
    fn expiry(&self, fields: &Fields<'_>) -> Result<Option<Option<UnixMillis>>, ApiError> {
        if fields.has("expires_in") && fields.has("expires_at") {
            return Err(ApiError::invalid(
                "expires_in",
                "can't be given together with `expires_at`",
            ));
        }
        if let Some(span) = fields.number("expires_in", 1)?.flatten() {
            return Ok(Some(Some(self.after(span))));
        }
        let Some(expires_at) = fields.number("expires_at", 0)? else {
            // Null for the span alone takes the end away, too.
            let is_taken_away = fields.number("expires_in", 1)?.is_some();
            return Ok(is_taken_away.then_some(None));
        };
        let Some(expires_at) = expires_at else {
            return Ok(Some(None));
        };
        let expires_at = millis(expires_at);
        if expires_at <= self.now {
            return Err(ApiError::invalid("expires_at", "must be in the future"));
        }
        Ok(Some(Some(expires_at)))
    }

    fn after(&self, seconds: u64) -> UnixMillis {
        self.now.saturating_add(millis(seconds))
    }
}

fn millis(seconds: u64) -> UnixMillis {
    i64::try_from(seconds)
        .unwrap_or(i64::MAX)
        .saturating_mul(1000)
}
