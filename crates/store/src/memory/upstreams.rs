//! Handles, accounts and leases in memory.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::context::ContextId;

use super::MemoryStore;
use crate::StoreError;
use crate::upstreams::{AccountChange, AccountRecord, HandleRecord, UpstreamStore};

#[async_trait]
impl UpstreamStore for MemoryStore {
    async fn put_handle(&self, handle: &HandleRecord) -> Result<(), StoreError> {
        let mut state = self.state();
        for (known, doomed) in state.handles.values_mut() {
            *doomed |=
                handle.turns == 0 && known.context == handle.context && known.place == handle.place;
        }
        let key = (handle.place.clone(), handle.name.clone());
        state.handles.insert(key, (handle.clone(), false));
        Ok(())
    }

    async fn handles(&self, context: &ContextId) -> Result<Vec<HandleRecord>, StoreError> {
        let state = self.state();
        let living = state
            .handles
            .values()
            .filter(|(handle, doomed)| !doomed && handle.context == *context);
        let mut living: Vec<HandleRecord> = living.map(|(handle, _)| handle.clone()).collect();
        living.sort_by(|a, b| {
            let later = b.turns.cmp(&a.turns).then(b.created_at.cmp(&a.created_at));
            a.place.cmp(&b.place).then(later)
        });
        Ok(living)
    }

    async fn remove_handle(&self, place: &str, name: &str) -> Result<(), StoreError> {
        let key = (place.to_owned(), name.to_owned());
        self.state().handles.remove(&key);
        Ok(())
    }

    async fn doom_handles(&self, context: &ContextId) -> Result<(), StoreError> {
        for (handle, doomed) in self.state().handles.values_mut() {
            *doomed |= handle.context == *context;
        }
        Ok(())
    }

    async fn tidy_handles(
        &self,
        made_before: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        let state = &mut *state;
        for (handle, doomed) in state.handles.values_mut() {
            *doomed |=
                handle.created_at < made_before && !state.contexts.contains_key(&handle.context);
        }
        state
            .handles
            .retain(|_, (handle, doomed)| !*doomed || handle.expires_at >= now);
        Ok(())
    }

    async fn doomed(
        &self,
        place: &str,
        now: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, StoreError> {
        let state = self.state();
        let doomed = state.handles.values().filter(|(handle, doomed)| {
            *doomed && handle.place == place && handle.expires_at >= now
        });
        Ok(soonest(doomed.map(|(handle, _)| handle.clone()), limit))
    }

    async fn expiring(
        &self,
        place: &str,
        now: UnixMillis,
        before: UnixMillis,
        limit: u32,
    ) -> Result<Vec<HandleRecord>, StoreError> {
        let state = self.state();
        let expiring = state.handles.values().filter(|(handle, doomed)| {
            !doomed
                && handle.place == place
                && handle.expires_at > now
                && handle.expires_at < before
        });
        Ok(soonest(expiring.map(|(handle, _)| handle.clone()), limit))
    }

    async fn change_accounts(&self, changes: &[AccountChange]) -> Result<(), StoreError> {
        let mut state = self.state();
        for change in changes {
            let Some(entry) = state.contexts.get_mut(&change.context) else {
                continue;
            };
            let account = &mut entry.account;
            account.totals = account.totals.plus(change.add);
            if account.currency.is_empty() {
                account.currency.clone_from(&change.currency);
            }
            if change.home.is_some() {
                account.home.clone_from(&change.home);
            }
            account.last_used_at = change.last_used_at.or(account.last_used_at);
        }
        Ok(())
    }

    async fn account(&self, context: &ContextId) -> Result<AccountRecord, StoreError> {
        let state = self.state();
        let entry = state.contexts.get(context);
        Ok(entry.map(|entry| entry.account.clone()).unwrap_or_default())
    }

    async fn acquire_lease(
        &self,
        name: &str,
        owner: &str,
        until: UnixMillis,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let mut state = self.state();
        if let Some((holder, held_until)) = state.leases.get(name)
            && holder != owner
            && *held_until > now
        {
            return Ok(false);
        }
        state
            .leases
            .insert(name.to_owned(), (owner.to_owned(), until));
        Ok(true)
    }

    async fn release_lease(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        let mut state = self.state();
        if state
            .leases
            .get(name)
            .is_some_and(|(holder, _)| holder == owner)
        {
            state.leases.remove(name);
        }
        Ok(())
    }
}

fn soonest(handles: impl Iterator<Item = HandleRecord>, limit: u32) -> Vec<HandleRecord> {
    let mut handles: Vec<HandleRecord> = handles.collect();
    handles.sort_by_key(|handle| handle.expires_at);
    handles.truncate(limit as usize);
    handles
}
