//! Projects and keys in PostgreSQL.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;

use super::PostgresStore;
use super::failure::{Failure, insert_failure};
use super::rows;
use crate::columns::{integer, scope_words};
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
impl KeyStore for PostgresStore {
    async fn ensure_project(
        &self,
        name: &str,
        now: UnixMillis,
    ) -> Result<ProjectRecord, StoreError> {
        self.attempt(|| self.try_ensure_project(name, now)).await
    }

    async fn project(&self, name: &str) -> Result<ProjectRecord, StoreError> {
        self.attempt(|| self.try_project(name)).await
    }

    async fn insert_project(&self, project: &ProjectRecord) -> Result<(), StoreError> {
        self.attempt(|| self.try_insert_project(project)).await
    }

    async fn update_project(&self, project: &ProjectRecord) -> Result<ProjectRecord, StoreError> {
        self.attempt(|| self.try_update_project(project)).await
    }

    async fn page_projects(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ProjectRecord>, StoreError> {
        self.attempt(|| self.try_page_projects(after, limit)).await
    }

    async fn insert_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        self.attempt(|| self.try_insert_key(key)).await
    }

    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<KeyRecord>, StoreError> {
        self.attempt(|| self.try_key_by_hash(hash)).await
    }

    async fn key(&self, id: &str) -> Result<KeyRecord, StoreError> {
        self.attempt(|| self.try_key(id)).await
    }

    async fn page_keys(
        &self,
        project: Option<&str>,
        after: Option<&KeyRecord>,
        limit: u32,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        match self
            .attempt(|| self.try_page_keys(project, after, limit))
            .await
        {
            // A name that PostgreSQL can't hold is no project's.
            Err(StoreError::NotFound) => Ok(Vec::new()),
            listed => listed,
        }
    }

    async fn update_key(&self, key: &KeyRecord) -> Result<KeyRecord, StoreError> {
        self.attempt(|| self.try_update_key(key)).await
    }

    async fn touch_keys(&self, uses: &[(String, UnixMillis)]) -> Result<(), StoreError> {
        self.attempt(|| self.try_touch_keys(uses)).await
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
        let row = sqlx::query(concat!(
            "INSERT INTO projects (name, created_at) VALUES ($1, $2) \
             ON CONFLICT (name) DO UPDATE SET name = projects.name RETURNING ",
            project_columns!()
        ))
        .bind(name)
        .bind(now)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(rows::project(&row)?)
    }

    async fn try_project(&self, name: &str) -> Result<ProjectRecord, Failure> {
        let row = sqlx::query(concat!(
            "SELECT ",
            project_columns!(),
            " FROM projects WHERE name = $1"
        ))
        .bind(name)
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(rows::project(&row.ok_or(StoreError::NotFound)?)?)
    }

    async fn try_insert_project(&self, project: &ProjectRecord) -> Result<(), Failure> {
        sqlx::query(concat!(
            "INSERT INTO projects (",
            project_columns!(),
            ") VALUES ($1, $2, $3, $4)"
        ))
        .bind(&project.name)
        .bind(project.created_at)
        .bind(integer("version", project.version)?)
        .bind(rows::to_json("settings", &project.settings)?)
        .execute(&mut *self.connection().await?)
        .await
        .map_err(insert_failure)?;
        Ok(())
    }

    async fn try_update_project(&self, project: &ProjectRecord) -> Result<ProjectRecord, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        let row = sqlx::query(concat!(
            "UPDATE projects SET settings = $1, version = version + 1 WHERE name = $2 AND version = $3 RETURNING ",
            project_columns!()
        ))
        .bind(rows::to_json("settings", &project.settings)?)
        .bind(&project.name)
        .bind(integer("version", project.version)?)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else {
            let known: Option<i32> = sqlx::query_scalar("SELECT 1 FROM projects WHERE name = $1")
                .bind(&project.name)
                .fetch_optional(&mut *transaction)
                .await?;
            return Err(changed_or_gone(known).into());
        };
        transaction.commit().await?;
        Ok(rows::project(&row)?)
    }

    async fn try_page_projects(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ProjectRecord>, Failure> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            project_columns!(),
            " FROM projects WHERE $1::text IS NULL OR name > $1 ORDER BY name LIMIT $2"
        ))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows.iter().map(rows::project).collect::<Result<_, _>>()?)
    }

    async fn try_insert_key(&self, key: &KeyRecord) -> Result<(), Failure> {
        // Selecting from the project makes its absence plain even where the id or hash exists too.
        let outcome = sqlx::query(concat!(
            "INSERT INTO keys (",
            key_columns!(),
            ") SELECT $1, name, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15 FROM projects WHERE name = $16"
        ))
        .bind(&key.id)
        .bind(key.hash.as_slice())
        .bind(key.hint.as_bytes())
        .bind(key.label.as_bytes())
        .bind(scope_words(&key.scopes))
        .bind(key.created_at)
        .bind(key.revoked_at)
        .bind(key.expires_at)
        .bind(key.last_used_at)
        .bind(key.previous.map(|previous| previous.hash.to_vec()))
        .bind(key.previous.map(|previous| previous.expires_at))
        .bind(integer("version", key.version)?)
        .bind(rows::to_json("models", &key.models)?)
        .bind(rows::to_json("limits", &key.limits)?)
        .bind(rows::to_json("budgets", &key.budgets)?)
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
            " FROM keys WHERE hash = $1 OR previous_hash = $1 ORDER BY hash = $1 DESC LIMIT 1"
        ))
        .bind(hash.as_slice())
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(row.as_ref().map(rows::key).transpose()?)
    }

    async fn try_key(&self, id: &str) -> Result<KeyRecord, Failure> {
        let row = sqlx::query(concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE id = $1"
        ))
        .bind(id)
        .fetch_optional(&mut *self.connection().await?)
        .await?;
        Ok(rows::key(&row.ok_or(StoreError::NotFound)?)?)
    }

    async fn try_page_keys(
        &self,
        project: Option<&str>,
        after: Option<&KeyRecord>,
        limit: u32,
    ) -> Result<Vec<KeyRecord>, Failure> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE ($1::text IS NULL OR project = $1) \
             AND ($2::text IS NULL OR (created_at, id) > ($3::bigint, $2)) ORDER BY created_at, id LIMIT $4"
        ))
        .bind(project)
        .bind(after.map(|key| &key.id))
        .bind(after.map(|key| key.created_at))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.connection().await?)
        .await?;
        Ok(rows.iter().map(rows::key).collect::<Result<_, _>>()?)
    }

    async fn try_update_key(&self, key: &KeyRecord) -> Result<KeyRecord, Failure> {
        let mut connection = self.connection().await?;
        let mut transaction = Self::begin(&mut connection).await?;
        let row = sqlx::query(concat!(
            "UPDATE keys SET hash = $1, hint = $2, previous_hash = $3, previous_expires_at = $4, label = $5, \
             scopes = $6, expires_at = $7, models = $8, limits = $9, budgets = $10, \
             version = version + 1 WHERE id = $11 AND version = $12 RETURNING ",
            key_columns!()
        ))
        .bind(key.hash.as_slice())
        .bind(key.hint.as_bytes())
        .bind(key.previous.map(|previous| previous.hash.to_vec()))
        .bind(key.previous.map(|previous| previous.expires_at))
        .bind(key.label.as_bytes())
        .bind(scope_words(&key.scopes))
        .bind(key.expires_at)
        .bind(rows::to_json("models", &key.models)?)
        .bind(rows::to_json("limits", &key.limits)?)
        .bind(rows::to_json("budgets", &key.budgets)?)
        .bind(&key.id)
        .bind(integer("version", key.version)?)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(insert_failure)?;
        let Some(row) = row else {
            let known: Option<i32> = sqlx::query_scalar("SELECT 1 FROM keys WHERE id = $1")
                .bind(&key.id)
                .fetch_optional(&mut *transaction)
                .await?;
            return Err(changed_or_gone(known).into());
        };
        transaction.commit().await?;
        Ok(rows::key(&row)?)
    }

    async fn try_touch_keys(&self, uses: &[(String, UnixMillis)]) -> Result<(), Failure> {
        let (ids, times): (Vec<&str>, Vec<UnixMillis>) = uses
            .iter()
            .map(|(id, used_at)| (id.as_str(), *used_at))
            .unzip();
        sqlx::query(
            "UPDATE keys SET last_used_at = greatest(last_used_at, uses.used_at) \
             FROM unnest($1::text[], $2::bigint[]) AS uses (id, used_at) WHERE keys.id = uses.id",
        )
        .bind(ids)
        .bind(times)
        .execute(&mut *self.connection().await?)
        .await?;
        Ok(())
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

/// Why a guarded update has found no row.
fn changed_or_gone(known: Option<i32>) -> StoreError {
    match known {
        Some(_) => StoreError::Conflict,
        None => StoreError::NotFound,
    }
}
