//! A store in memory: for tests, trials and gateways that need nothing after they end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::chat::Message;
use holdfast_protocol::context::{Context, ContextContent, ContextId, ContextPage, Expiry, Turn};

mod audit;
mod budgets;
mod keys;
mod ledger;
mod responses;
mod upstreams;

use crate::budgets::{Running, Spending};
use crate::cursor::Cursor;
use crate::{
    AccountRecord, AppendTurn, ContextStore, HandleRecord, KeyRecord, LIST_LIMIT_MAX,
    LivingContext, ProjectRecord, StoreError,
};

/// Everything in memory; nothing survives the process.
#[derive(Default)]
pub struct MemoryStore {
    // A blocking mutex: it is held for a look-up or a change, never across an await.
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// No method panics half way through a change, so the state behind a poisoned lock is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct State {
    contexts: HashMap<ContextId, Entry>,
    by_age: BTreeMap<String, BTreeSet<(UnixMillis, ContextId)>>,
    by_expiry: BTreeSet<(UnixMillis, ContextId)>,
    projects: BTreeMap<String, ProjectRecord>,
    keys: HashMap<String, KeyRecord>,
    key_ids: HashMap<[u8; 32], String>,
    /// By the hash before the last rotation.
    previous_key_ids: HashMap<[u8; 32], String>,
    /// By place and name; whether it is to be dropped.
    handles: BTreeMap<(String, String), (HandleRecord, bool)>,
    /// Owner and end, by name.
    leases: HashMap<String, (String, UnixMillis)>,
    responses: responses::Responses,
    ledger: ledger::Ledger,
    /// Amounts by spender, day and currency.
    spending: BTreeMap<Spending, i64>,
    running: Running,
    /// When each was given.
    notices: HashMap<String, UnixMillis>,
    audit: Vec<crate::audit::AuditRecord>,
}

struct Entry {
    context: Context,
    // Shared, so that messages are copied for a caller after the lock is released.
    initial: Arc<Vec<Message>>,
    turns: Vec<Arc<Turn>>,
    account: AccountRecord,
}

impl State {
    fn living(
        &mut self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<&mut Entry, StoreError> {
        self.contexts
            .get_mut(id)
            .filter(|entry| entry.context.project == project && !entry.context.is_expired(now))
            .ok_or(StoreError::NotFound)
    }

    /// Changes a living context's expiry by `change` and keeps the index in step.
    fn reschedule(
        &mut self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
        change: impl FnOnce(&mut Context) -> Result<(), StoreError>,
    ) -> Result<Context, StoreError> {
        let context = &mut self.living(project, id, now)?.context;
        let before = context.expires_at;
        change(context)?;
        let context = context.clone();
        self.by_expiry.remove(&(before, id.clone()));
        self.by_expiry.insert((context.expires_at, id.clone()));
        Ok(context)
    }

    fn remove(&mut self, id: &ContextId) -> Option<Context> {
        let context = self.contexts.remove(id)?.context;
        self.by_expiry.remove(&(context.expires_at, id.clone()));
        if let Some(ids) = self.by_age.get_mut(&context.project) {
            ids.remove(&(context.created_at, id.clone()));
            if ids.is_empty() {
                self.by_age.remove(&context.project);
            }
        }
        Some(context)
    }
}

#[async_trait]
impl ContextStore for MemoryStore {
    fn is_shared(&self) -> bool {
        false
    }

    async fn insert(&self, context: &Context, content: &ContextContent) -> Result<(), StoreError> {
        let entry = Entry {
            context: context.clone(),
            initial: Arc::new(content.initial.clone()),
            turns: content.turns.iter().cloned().map(Arc::new).collect(),
            account: AccountRecord::default(),
        };
        let mut state = self.state();
        if state.contexts.contains_key(&context.id) {
            return Err(StoreError::Conflict);
        }
        state
            .by_age
            .entry(context.project.clone())
            .or_default()
            .insert((context.created_at, context.id.clone()));
        state
            .by_expiry
            .insert((context.expires_at, context.id.clone()));
        state.contexts.insert(context.id.clone(), entry);
        Ok(())
    }

    async fn get(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        Ok(self.state().living(project, id, now)?.context.clone())
    }

    async fn content(&self, project: &str, id: &ContextId) -> Result<ContextContent, StoreError> {
        let (initial, turns) = {
            let state = self.state();
            let entry = state
                .contexts
                .get(id)
                .filter(|entry| entry.context.project == project)
                .ok_or(StoreError::NotFound)?;
            (Arc::clone(&entry.initial), entry.turns.clone())
        };
        Ok(ContextContent {
            initial: (*initial).clone(),
            turns: turns.iter().map(|turn| (**turn).clone()).collect(),
        })
    }

    async fn touch(
        &self,
        project: &str,
        id: &ContextId,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        let context = &state.living(project, id, now)?.context;
        if context.expiry == Expiry::Sliding && context.expires_at < expires_at {
            state.reschedule(project, id, now, |context| {
                context.expires_at = expires_at;
                Ok(())
            })?;
        }
        Ok(())
    }

    async fn append_turn(
        &self,
        project: &str,
        id: &ContextId,
        expected_version: u64,
        append: &AppendTurn,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        let turn = Arc::new(append.turn.clone());
        let mut state = self.state();
        let context = state.reschedule(project, id, now, |context| {
            let number = context.turn_count.checked_add(1);
            if context.version != expected_version || number != Some(append.turn.number) {
                return Err(StoreError::Conflict);
            }
            context.version += 1;
            context.turn_count = append.turn.number;
            context.dropped_messages = append.dropped_messages;
            context.prefix_tokens = append.prefix_tokens;
            context.expires_at = context.expires_at.max(append.expires_at);
            Ok(())
        })?;
        if let Some(entry) = state.contexts.get_mut(id) {
            entry.turns.push(turn);
        }
        Ok(context)
    }

    async fn set_ttl(
        &self,
        project: &str,
        id: &ContextId,
        ttl_seconds: u32,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<Context, StoreError> {
        self.state().reschedule(project, id, now, |context| {
            context.ttl_seconds = ttl_seconds;
            context.expires_at = expires_at;
            Ok(())
        })
    }

    async fn list(
        &self,
        project: &str,
        cursor: Option<&str>,
        limit: u32,
        now: UnixMillis,
    ) -> Result<ContextPage, StoreError> {
        let cursor = cursor
            .map(|text| Cursor::decode(project, text))
            .transpose()?;
        let limit = limit.clamp(1, LIST_LIMIT_MAX) as usize;
        let state = self.state();
        let Some(ids) = state.by_age.get(project) else {
            return Ok(ContextPage {
                contexts: Vec::new(),
                next_cursor: None,
            });
        };
        let older = match cursor {
            Some(cursor) => ids.range(..(cursor.created_at, cursor.id)),
            None => ids.range::<(UnixMillis, ContextId), _>(..),
        };
        let contexts = older
            .rev()
            .filter_map(|(_, id)| Some(&state.contexts.get(id)?.context))
            .filter(|context| !context.is_expired(now) && context.implicit.is_none())
            .take(limit + 1)
            .cloned()
            .collect();
        Ok(crate::page(project, contexts, limit))
    }

    async fn delete(
        &self,
        project: &str,
        id: &ContextId,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        state.living(project, id, now)?;
        state.remove(id);
        Ok(())
    }

    async fn sweep(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, StoreError> {
        let mut state = self.state();
        let expired: Vec<ContextId> = state
            .by_expiry
            .iter()
            .take_while(|(expires_at, _)| *expires_at <= now)
            .take(limit as usize)
            .map(|(_, id)| id.clone())
            .collect();
        Ok(expired.iter().filter_map(|id| state.remove(id)).collect())
    }

    async fn living(&self, now: UnixMillis, limit: u32) -> Result<Vec<Context>, StoreError> {
        let state = self.state();
        let mut living: Vec<&Context> = state
            .contexts
            .values()
            .map(|entry| &entry.context)
            .filter(|context| !context.is_expired(now))
            .collect();
        living.sort_unstable_by(|left, right| {
            (right.created_at, &right.id).cmp(&(left.created_at, &left.id))
        });
        Ok(living.into_iter().take(limit as usize).cloned().collect())
    }

    async fn census(&self, now: UnixMillis) -> Result<Vec<LivingContext>, StoreError> {
        let state = self.state();
        let contexts = state.contexts.values().map(|entry| &entry.context);
        Ok(contexts
            .filter(|context| !context.is_expired(now))
            .map(LivingContext::from)
            .collect())
    }
}

#[cfg(test)]
mod tests;
