//! Projects: create, list, show, change.

use holdfast_protocol::ApiError;
use holdfast_store::{ProjectRecord, ProjectSettings, StoreError};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::fields::{Fields, LIMITS};
use super::{
    ATTEMPTS_MAX, Admin, BudgetSettings, LimitsObject, PAGE_MAX, changes, project_not_found,
    seconds, store_error,
};
use crate::audit::{Act, not_noted};

const PROJECT_FIELDS: &[&str] = &[
    "name",
    "display_name",
    "models",
    "default_model",
    "limits",
    "budgets",
];
const PROJECT_PATCH_FIELDS: &[&str] = &[
    "display_name",
    "models",
    "default_model",
    "limits",
    "budgets",
];

/// A project to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
pub(crate) struct ProjectRequest {
    /// Lower-case letters, digits and `-`, at most 63.
    name: String,
    /// A name for people.
    display_name: Option<String>,
    /// Models that its keys may use: names, or beginnings of names followed by `*`; all when absent.
    models: Option<Vec<String>>,
    /// The model of chats that name none.
    default_model: Option<String>,
    /// Limits of all its keys together.
    limits: Option<LimitsObject>,
    /// What all its keys together may spend; a change sets all of them anew.
    budgets: Option<Vec<BudgetSettings>>,
}

/// What is changed of a project; what is absent stays, and null takes away.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
pub(crate) struct ProjectPatch {
    /// A name for people.
    display_name: Option<String>,
    /// Models that its keys may use.
    models: Option<Vec<String>>,
    /// The model of chats that name none.
    default_model: Option<String>,
    /// Limits of all its keys together; those that are absent stay.
    limits: Option<LimitsObject>,
    /// What all its keys together may spend; a change sets all of them anew.
    budgets: Option<Vec<BudgetSettings>>,
}

/// A project.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProjectObject {
    /// Its name, which is its id.
    pub(crate) name: String,
    /// `project`.
    #[schema(example = "project")]
    object: &'static str,
    /// A name for people.
    display_name: String,
    /// Unix seconds.
    created: i64,
    /// Models that its keys may use; empty: all.
    models: Vec<String>,
    /// The model of chats that name none.
    default_model: Option<String>,
    /// Limits of all its keys together.
    limits: LimitsObject,
    /// What all its keys together may spend; GET /v1/budgets says what they have.
    budgets: Vec<BudgetSettings>,
}

impl From<ProjectRecord> for ProjectObject {
    fn from(record: ProjectRecord) -> Self {
        let settings = record.settings;
        ProjectObject {
            name: record.name,
            object: "project",
            display_name: settings.display_name,
            created: seconds(record.created_at),
            models: settings.models,
            default_model: settings.default_model,
            limits: settings.limits.into(),
            budgets: settings
                .budgets
                .into_iter()
                .map(BudgetSettings::from)
                .collect(),
        }
    }
}

/// A page of projects.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProjectList {
    /// `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// By name.
    data: Vec<ProjectObject>,
    /// Whether another page follows.
    has_more: bool,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<String>,
}

impl Admin<'_> {
    pub(crate) async fn create_project(&self, request: &Value) -> Result<ProjectObject, ApiError> {
        let fields = Fields::of(request, PROJECT_FIELDS)?;
        let name = fields
            .project("name")?
            .ok_or_else(|| ApiError::missing("name"))?;
        let record = ProjectRecord {
            settings: settings(&fields, ProjectSettings::default())?,
            ..ProjectRecord::new(name, self.now)
        };
        let act = Act {
            name: "project.create",
            target: name,
            project: Some(name),
        };
        let made = self.store.insert_project(&record);
        let made = self.audit.around(act, changes(request), made).await;
        match made.map_err(not_noted)? {
            Ok(()) => {}
            Err(StoreError::Conflict) => {
                return Err(ApiError::invalid(
                    "name",
                    "is that of a project that exists",
                ));
            }
            Err(error) => return Err(store_error(error, project_not_found)),
        }
        tracing::info!(project = name, "a project was made");
        Ok(record.into())
    }

    /// At most `limit` projects, after the one that `cursor` names.
    pub(crate) async fn list_projects(
        &self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<ProjectList, ApiError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut records = self
            .store
            .page_projects(cursor, limit + 1)
            .await
            .map_err(|error| store_error(error, super::wrong_cursor))?;
        let has_more = records.len() > limit as usize;
        records.truncate(limit as usize);
        Ok(ProjectList {
            object: "list",
            has_more,
            next_cursor: records
                .last()
                .filter(|_| has_more)
                .map(|record| record.name.clone()),
            data: records.into_iter().map(ProjectObject::from).collect(),
        })
    }

    pub(crate) async fn project(&self, name: &str) -> Result<ProjectObject, ApiError> {
        Ok(self.project_record(name).await?.into())
    }

    pub(crate) async fn update_project(
        &self,
        name: &str,
        request: &Value,
    ) -> Result<ProjectObject, ApiError> {
        let fields = Fields::of(request, PROJECT_PATCH_FIELDS)?;
        let change = async || {
            let mut record = self.project_record(name).await?;
            record.settings = settings(&fields, record.settings)?;
            Ok::<_, ApiError>(record)
        };
        let mut record = change().await?;
        let act = Act {
            name: "project.update",
            target: name,
            project: Some(name),
        };
        let updated = async {
            let mut attempts = 1;
            loop {
                match self.store.update_project(&record).await {
                    Err(StoreError::Conflict) if attempts < ATTEMPTS_MAX => attempts += 1,
                    updated => {
                        return updated.map_err(|error| store_error(error, project_not_found));
                    }
                }
                record = change().await?;
            }
        };
        let updated = self.audit.around(act, changes(request), updated).await;
        let updated = updated.map_err(not_noted)??;
        tracing::info!(project = name, "a project was changed");
        Ok(updated.into())
    }

    async fn project_record(&self, name: &str) -> Result<ProjectRecord, ApiError> {
        let found = self.store.project(name).await;
        found.map_err(|error| store_error(error, project_not_found))
    }
}

fn settings(fields: &Fields<'_>, now: ProjectSettings) -> Result<ProjectSettings, ApiError> {
    Ok(ProjectSettings {
        display_name: fields.label("display_name")?.unwrap_or(now.display_name),
        models: fields.models("models")?.unwrap_or(now.models),
        default_model: fields.model("default_model")?.unwrap_or(now.default_model),
        limits: fields.limits(LIMITS, now.limits)?,
        budgets: fields.budgets("budgets")?.unwrap_or(now.budgets),
    })
}
