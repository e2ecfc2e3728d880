//! Projects and keys in SQLite.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;

use super::SqliteStore;
use super::failure::{failure, insert_failure};
use super::rows;
use crate::columns::{integer, json, scope_words};
use crate::{KeyRecord, KeyStore, ProjectRecord, StoreError};

/// What [`rows::key`] reads, for `concat!`.
macro_rules! key_columns {
    () => {
        "id, project, hash, hint, label, scopes, created_at, revoked_at, expires_at, last_used_at, previous_hash, \
         previous_expires_at, version, models, limits, budgets"
    };
}

/// What [`rows::project`] reads, for `concat!`.
macro_rules! project_columns {
    () => {
        "name, created_at, version, settings"
    };
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn ensure_project(
        &self,
        name: &str,
        now: UnixMillis,
    ) -> Result<ProjectRecord, StoreError> {
        // The update changes nothing; without it an existing row would not be returned.
        let row = sqlx::query(concat!(
            "INSERT INTO projects (name, created_at) VALUES (?, ?) \
             ON CONFLICT (name) DO UPDATE SET name = name RETURNING ",
            project_columns!()
        ))
        .bind(name)
        .bind(now)
        .fetch_one(&self.writer)
        .await
        .map_err(failure)?;
        rows::project(&row)
    }

    async fn project(&self, name: &str) -> Result<ProjectRecord, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            project_columns!(),
            " FROM projects WHERE name = ?"
        ))
        .bind(name)
        .fetch_optional(&self.readers)
        .await
        .map_err(failure)?;
        rows::project(&row.ok_or(StoreError::NotFound)?)
    }

    async fn insert_project(&self, project: &ProjectRecord) -> Result<(), StoreError> {
        sqlx::query(concat!(
            "INSERT INTO projects (",
            project_columns!(),
            ") VALUES (?, ?, ?, ?)"
        ))
        .bind(&project.name)
        .bind(project.created_at)
        .bind(integer("version", project.version)?)
        .bind(json("settings", serde_json::to_string(&project.settings))?)
        .execute(&self.writer)
        .await
        .map_err(insert_failure)?;
        Ok(())
    }

    async fn update_project(&self, project: &ProjectRecord) -> Result<ProjectRecord, StoreError> {
        let row = sqlx::query(concat!(
            "UPDATE projects SET settings = ?, version = version + 1 WHERE name = ? AND version = ? RETURNING ",
            project_columns!()
        ))
        .bind(json("settings", serde_json::to_string(&project.settings))?)
        .bind(&project.name)
        .bind(integer("version", project.version)?)
        .fetch_optional(&self.writer)
        .await
        .map_err(failure)?;
        match row {
            Some(row) => rows::project(&row),
            None => Err(self
                .project(&project.name)
                .await
                .err()
                .unwrap_or(StoreError::Conflict)),
        }
    }

    async fn page_projects(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ProjectRecord>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            project_columns!(),
            " FROM projects WHERE ?1 IS NULL OR name > ?1 ORDER BY name LIMIT ?2"
        ))
        .bind(after)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(failure)?;
        rows.iter().map(rows::project).collect()
    }

    async fn insert_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        // Selecting from the project makes its absence plain even where the id or hash exists too.
        let outcome = sqlx::query(concat!(
            "INSERT INTO keys (",
            key_columns!(),
            ") SELECT ?, name, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM projects WHERE name = ?"
        ))
        .bind(&key.id)
        .bind(key.hash.as_slice())
        .bind(&key.hint)
        .bind(&key.label)
        .bind(scope_words(&key.scopes))
        .bind(key.created_at)
        .bind(key.revoked_at)
        .bind(key.expires_at)
        .bind(key.last_used_at)
        .bind(key.previous.map(|previous| previous.hash.to_vec()))
        .bind(key.previous.map(|previous| previous.expires_at))
        .bind(integer("version", key.version)?)
        .bind(json("models", serde_json::to_string(&key.models))?)
        .bind(json("limits", serde_json::to_string(&key.limits))?)
        .bind(json("budgets", serde_json::to_string(&key.budgets))?)
        .bind(&key.project)
        .execute(&self.writer)
        .await
        .map_err(insert_failure)?;
        match outcome.rows_affected() {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }

    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<KeyRecord>, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE hash = ?1 OR previous_hash = ?1 ORDER BY hash = ?1 DESC LIMIT 1"
        ))
        .bind(hash.as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(failure)?;
        row.as_ref().map(rows::key).transpose()
    }

    async fn key(&self, id: &str) -> Result<KeyRecord, StoreError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE id = ?"
        ))
        .bind(id)
        .fetch_optional(&self.readers)
        .await
        .map_err(failure)?;
        rows::key(&row.ok_or(StoreError::NotFound)?)
    }

    async fn page_keys(
        &self,
        project: Option<&str>,
        after: Option<&KeyRecord>,
        limit: u32,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE (?1 IS NULL OR project = ?1) AND (?2 IS NULL OR (created_at, id) > (?3, ?2)) \
             ORDER BY created_at, id LIMIT ?4"
        ))
        .bind(project)
        .bind(after.map(|key| &key.id))
        .bind(after.map(|key| key.created_at))
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(failure)?;
        rows.iter().map(rows::key).collect()
    }

    async fn update_key(&self, key: &KeyRecord) -> Result<KeyRecord, StoreError> {
        let row = sqlx::query(concat!(
            "UPDATE keys SET hash = ?, hint = ?, previous_hash = ?, previous_expires_at = ?, label = ?, scopes = ?, \
             expires_at = ?, models = ?, limits = ?, budgets = ?, version = version + 1 WHERE id = ? AND version = ? RETURNING ",
            key_columns!()
        ))
        .bind(key.hash.as_slice())
        .bind(&key.hint)
        .bind(key.previous.map(|previous| previous.hash.to_vec()))
        .bind(key.previous.map(|previous| previous.expires_at))
        .bind(&key.label)
        .bind(scope_words(&key.scopes))
        .bind(key.expires_at)
        .bind(json("models", serde_json::to_string(&key.models))?)
        .bind(json("limits", serde_json::to_string(&key.limits))?)
        .bind(json("budgets", serde_json::to_string(&key.budgets))?)
        .bind(&key.id)
        .bind(integer("version", key.version)?)
        .fetch_optional(&self.writer)
        .await
        .map_err(insert_failure)?;
        match row {
            Some(row) => rows::key(&row),
            None => Err(self
                .key(&key.id)
                .await
                .err()
                .unwrap_or(StoreError::Conflict)),
        }
    }

    async fn touch_keys(&self, uses: &[(String, UnixMillis)]) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin().await.map_err(failure)?;
        for (id, used_at) in uses {
            sqlx::query(
                "UPDATE keys SET last_used_at = max(coalesce(last_used_at, ?1), ?1) WHERE id = ?2",
            )
            .bind(used_at)
            .bind(id)
            .execute(&mut *transaction)
            .await
            .map_err(failure)?;
        }
        transaction.commit().await.map_err(failure)
    }

    async fn revoke_key(&self, id: &str, now: UnixMillis) -> Result<KeyRecord, StoreError> {
        let row = sqlx::query(concat!(
            "UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ? RETURNING ",
            key_columns!()
        ))
        .bind(now)
        .bind(id)
        .fetch_optional(&self.writer)
        .await
        .map_err(failure)?;
        rows::key(&row.ok_or(StoreError::NotFound)?)
    }
}
