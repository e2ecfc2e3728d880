//! Projects and keys in memory.

use std::ops::Bound;

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;

use super::MemoryStore;
use crate::{KeyRecord, KeyStore, ProjectRecord, StoreError};

impl MemoryStore {
    /// Keys of a project, or of all, oldest first.
    fn sorted_keys(&self, project: Option<&str>) -> Vec<KeyRecord> {
        let state = self.state();
        let mut keys: Vec<KeyRecord> = state
            .keys
            .values()
            .filter(|key| project.is_none_or(|project| key.project == project))
            .cloned()
            .collect();
        keys.sort_unstable_by(|left, right| {
            (left.created_at, &left.id).cmp(&(right.created_at, &right.id))
        });
        keys
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn ensure_project(
        &self,
        name: &str,
        now: UnixMillis,
    ) -> Result<ProjectRecord, StoreError> {
        let mut state = self.state();
        let project = state
            .projects
            .entry(name.to_owned())
            .or_insert_with(|| ProjectRecord::new(name, now));
        Ok(project.clone())
    }

    async fn project(&self, name: &str) -> Result<ProjectRecord, StoreError> {
        let state = self.state();
        state
            .projects
            .get(name)
            .cloned()
            .ok_or(StoreError::NotFound)
    }

    async fn insert_project(&self, project: &ProjectRecord) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.projects.contains_key(&project.name) {
            return Err(StoreError::Conflict);
        }
        state.projects.insert(project.name.clone(), project.clone());
        Ok(())
    }

    async fn update_project(&self, project: &ProjectRecord) -> Result<ProjectRecord, StoreError> {
        let mut state = self.state();
        let stored = state
            .projects
            .get_mut(&project.name)
            .ok_or(StoreError::NotFound)?;
        if stored.version != project.version {
            return Err(StoreError::Conflict);
        }
        stored.version += 1;
        stored.settings = project.settings.clone();
        Ok(stored.clone())
    }

    async fn page_projects(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ProjectRecord>, StoreError> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state();
        let later = state.projects.range::<str, _>((after, Bound::Unbounded));
        Ok(later
            .take(limit as usize)
            .map(|(_, project)| project.clone())
            .collect())
    }

    async fn insert_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        let mut state = self.state();
        if !state.projects.contains_key(&key.project) {
            return Err(StoreError::NotFound);
        }
        if state.keys.contains_key(&key.id) || state.key_ids.contains_key(&key.hash) {
            return Err(StoreError::Conflict);
        }
        state.key_ids.insert(key.hash, key.id.clone());
        if let Some(previous) = key.previous {
            state.previous_key_ids.insert(previous.hash, key.id.clone());
        }
        state.keys.insert(key.id.clone(), key.clone());
        Ok(())
    }

    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<KeyRecord>, StoreError> {
        let state = self.state();
        let id = state
            .key_ids
            .get(hash)
            .or_else(|| state.previous_key_ids.get(hash));
        Ok(id.and_then(|id| state.keys.get(id)).cloned())
    }

    async fn key(&self, id: &str) -> Result<KeyRecord, StoreError> {
        let state = self.state();
        state.keys.get(id).cloned().ok_or(StoreError::NotFound)
    }

    async fn page_keys(
        &self,
        project: Option<&str>,
        after: Option<&KeyRecord>,
        limit: u32,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        let mut keys = self.sorted_keys(project);
        if let Some(after) = after {
            keys.retain(|key| (key.created_at, &key.id) > (after.created_at, &after.id));
        }
        keys.truncate(limit as usize);
        Ok(keys)
    }

    async fn update_key(&self, key: &KeyRecord) -> Result<KeyRecord, StoreError> {
        let mut state = self.state();
        let stored = state.keys.get(&key.id).ok_or(StoreError::NotFound)?;
        let owner = state.key_ids.get(&key.hash);
        if stored.version != key.version || owner.is_some_and(|owner| *owner != key.id) {
            return Err(StoreError::Conflict);
        }
        let (hash, previous) = (stored.hash, stored.previous);
        let updated = KeyRecord {
            project: stored.project.clone(),
            created_at: stored.created_at,
            revoked_at: stored.revoked_at,
            last_used_at: stored.last_used_at,
            version: stored.version + 1,
            ..key.clone()
        };
        state.key_ids.remove(&hash);
        state.key_ids.insert(updated.hash, updated.id.clone());
        if let Some(previous) = previous {
            state.previous_key_ids.remove(&previous.hash);
        }
        if let Some(previous) = updated.previous {
            let id = updated.id.clone();
            state.previous_key_ids.insert(previous.hash, id);
        }
        state.keys.insert(updated.id.clone(), updated.clone());
        Ok(updated)
    }

    async fn touch_keys(&self, uses: &[(String, UnixMillis)]) -> Result<(), StoreError> {
        let mut state = self.state();
        for (id, used_at) in uses {
            if let Some(key) = state.keys.get_mut(id) {
                key.last_used_at = key.last_used_at.max(Some(*used_at));
            }
        }
        Ok(())
    }

    async fn revoke_key(&self, id: &str, now: UnixMillis) -> Result<KeyRecord, StoreError> {
        let mut state = self.state();
        let key = state.keys.get_mut(id).ok_or(StoreError::NotFound)?;
        key.revoked_at.get_or_insert(now);
        Ok(key.clone())
    }
}
