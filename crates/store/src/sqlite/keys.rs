//! Projects and keys in SQLite.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;

use super::SqliteStore;
use super::failure::{failure, insert_failure};
use super::rows;
use crate::columns::scope_words;
use crate::{KeyRecord, KeyStore, ProjectRecord, StoreError};

/// What [`rows::key`] reads, for `concat!`.
macro_rules! key_columns {
    () => {
        "id, project, hash, hint, label, scopes, created_at, revoked_at"
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
        let (name, created_at) = sqlx::query_as(
            "INSERT INTO projects (name, created_at) VALUES (?, ?) \
             ON CONFLICT (name) DO UPDATE SET name = name RETURNING name, created_at",
        )
        .bind(name)
        .bind(now)
        .fetch_one(&self.writer)
        .await
        .map_err(failure)?;
        Ok(ProjectRecord { name, created_at })
    }

    async fn list_projects(&self) -> Result<Vec<ProjectRecord>, StoreError> {
        let rows: Vec<(String, UnixMillis)> =
            sqlx::query_as("SELECT name, created_at FROM projects ORDER BY name")
                .fetch_all(&self.readers)
                .await
                .map_err(failure)?;
        Ok(rows
            .into_iter()
            .map(|(name, created_at)| ProjectRecord { name, created_at })
            .collect())
    }

    async fn insert_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        // Selecting from the project makes its absence plain even where the id or hash exists too.
        let outcome = sqlx::query(concat!(
            "INSERT INTO keys (",
            key_columns!(),
            ") SELECT ?, name, ?, ?, ?, ?, ?, ? FROM projects WHERE name = ?"
        ))
        .bind(&key.id)
        .bind(key.hash.as_slice())
        .bind(&key.hint)
        .bind(&key.label)
        .bind(scope_words(&key.scopes))
        .bind(key.created_at)
        .bind(key.revoked_at)
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
            " FROM keys WHERE hash = ?"
        ))
        .bind(hash.as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(failure)?;
        row.as_ref().map(rows::key).transpose()
    }

    async fn list_keys(&self, project: Option<&str>) -> Result<Vec<KeyRecord>, StoreError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE ?1 IS NULL OR project = ?1 ORDER BY created_at, id"
        ))
        .bind(project)
        .fetch_all(&self.readers)
        .await
        .map_err(failure)?;
        rows.iter().map(rows::key).collect()
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
