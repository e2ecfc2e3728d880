//! Projects and keys in PostgreSQL.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;

use super::PostgresStore;
use super::failure::{Failure, insert_failure};
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
impl KeyStore for PostgresStore {
    async fn ensure_project(
        &self,
        name: &str,
        now: UnixMillis,
    ) -> Result<ProjectRecord, StoreError> {
        self.attempt(|| self.try_ensure_project(name, now)).await
    }

    async fn list_projects(&self) -> Result<Vec<ProjectRecord>, StoreError> {
        self.attempt(|| self.try_list_projects()).await
    }

    async fn insert_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        self.attempt(|| self.try_insert_key(key)).await
    }

    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<KeyRecord>, StoreError> {
        self.attempt(|| self.try_key_by_hash(hash)).await
    }

    async fn list_keys(&self, project: Option<&str>) -> Result<Vec<KeyRecord>, StoreError> {
        match self.attempt(|| self.try_list_keys(project)).await {
            // A name that PostgreSQL can't hold is no project's.
            Err(StoreError::NotFound) => Ok(Vec::new()),
            listed => listed,
        }
    }

    async fn revoke_key(&self, id: &str, now: UnixMillis) -> Result<KeyRecord, StoreError> {
        self.attempt(|| self.try_revoke_key(id, now)).await
    }
}

impl PostgresStore {
    async fn try_ensure_project(
        &self,
        name: &str,
        now: UnixMillis,
    ) -> Result<ProjectRecord, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        // The update changes nothing; without it an existing row would not be returned.
        let (name, created_at) = sqlx::query_as(
            "INSERT INTO projects (name, created_at) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET name = projects.name RETURNING name, created_at",
        )
        .bind(name)
        .bind(now)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(ProjectRecord { name, created_at })
    }

    async fn try_list_projects(&self) -> Result<Vec<ProjectRecord>, Failure> {
        let rows: Vec<(String, UnixMillis)> =
            sqlx::query_as("SELECT name, created_at FROM projects ORDER BY name")
                .fetch_all(&mut *self.connection().await?)
                .await?;
        Ok(rows
            .into_iter()
            .map(|(name, created_at)| ProjectRecord { name, created_at })
            .collect())
    }

    async fn try_insert_key(&self, key: &KeyRecord) -> Result<(), Failure> {
        // Selecting from the project makes its absence plain even where the id or hash exists too.
        let outcome = sqlx::query(concat!(
            "INSERT INTO keys (",
            key_columns!(),
            ") SELECT $1, name, $2, $3, $4, $5, $6, $7 FROM projects WHERE name = $8"
        ))
        .bind(&key.id)
        .bind(key.hash.as_slice())
        .bind(key.hint.as_bytes())
        .bind(key.label.as_bytes())
        .bind(scope_words(&key.scopes))
        .bind(key.created_at)
        .bind(key.revoked_at)
        .bind(&key.project)
        .execute(&mut *self.connection().await?)
        .await
        .map_err(insert_failure)?;
        match outcome.rows_affected() {
            0 => Err(StoreError::NotFound.into()),
            _ => Ok(()),
        }
    }

    async fn try_key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<KeyRecord>, Failure> {
        let row = sqlx::query(concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE hash = $1"
        ))
        .bind(hash.as_slice())
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(row.as_ref().map(rows::key).transpose()?)
    }

    async fn try_list_keys(&self, project: Option<&str>) -> Result<Vec<KeyRecord>, Failure> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE $1 IS NULL OR project = $1 ORDER BY created_at, id"
        ))
        .bind(project)
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows.iter().map(rows::key).collect::<Result<_, _>>()?)
    }

    async fn try_revoke_key(&self, id: &str, now: UnixMillis) -> Result<KeyRecord, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        let row = sqlx::query(concat!(
            "UPDATE keys SET revoked_at = coalesce(revoked_at, $1) WHERE id = $2 RETURNING ",
            key_columns!()
        ))
        .bind(now)
        .bind(id)
        .fetch_optional(&mut *transaction)
        .await?;
        let key = rows::key(&row.ok_or(StoreError::NotFound)?)?;
        transaction.commit().await?;
        Ok(key)
    }
}
