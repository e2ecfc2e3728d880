//! Responses and conversations in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;

mod trees;

use super::MemoryStore;
use crate::StoreError;
use crate::responses::{
    Chain, ChainLink, ConversationRecord, HeadChange, ItemsChange, ResponseRecord, ResponseStore,
    ResponseUsage,
};
pub(super) use trees::Responses;

#[async_trait]
impl ResponseStore for MemoryStore {
    async fn insert_response(
        &self,
        record: &ResponseRecord,
        head: Option<&HeadChange>,
    ) -> Result<(), StoreError> {
        let record = Arc::new(record.clone());
        self.state().responses.insert(record, head)
    }

    async fn response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ResponseRecord, StoreError> {
        let record = Arc::clone(&self.state().responses.living(project, id, now)?.record);
        Ok((*record).clone())
    }

    async fn chain(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
        limit: u32,
        bytes_max: u64,
    ) -> Result<Chain, StoreError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        {
            let state = self.state();
            let mut next = Some(state.responses.living(project, id, now)?);
            while let Some(node) = next {
                bytes += node.record.messages.len() as u64;
                if records.len() == limit as usize || bytes > bytes_max {
                    return Ok(Chain::TooLong);
                }
                records.push(Arc::clone(&node.record));
                let previous = node.record.previous.as_ref();
                next = previous.and_then(|id| state.responses.nodes.get(id));
            }
        }
        let links = records.into_iter().rev().map(|record| ChainLink {
            id: record.id.clone(),
            model: record.model.clone(),
            messages: record.messages.clone(),
        });
        Ok(Chain::Whole(links.collect()))
    }

    async fn delete_response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        state.responses.living(project, id, now)?;
        let mut ending = state.responses.expired_in_tree(id, now);
        ending.push(id.to_owned());
        state.responses.end(ending, now);
        Ok(())
    }

    async fn insert_conversation(&self, record: &ConversationRecord) -> Result<(), StoreError> {
        let record = Arc::new(record.clone());
        let mut state = self.state();
        let responses = &mut state.responses;
        if let Some(head) = &record.head {
            responses.living(&record.project, head, record.created_at)?;
        }
        if responses.conversations.contains_key(&record.id) {
            return Err(StoreError::Conflict);
        }
        responses
            .conversations_by_expiry
            .insert((record.expires_at, record.id.clone()));
        responses.count(&record.project, |usage| {
            usage.conversations += 1;
            usage.bytes += record.bytes();
        });
        responses.conversations.insert(record.id.clone(), record);
        Ok(())
    }

    async fn conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        let record = Arc::clone(self.state().responses.conversation(project, id, now)?);
        Ok((*record).clone())
    }

    async fn set_conversation_metadata(
        &self,
        project: &str,
        id: &str,
        metadata: &[u8],
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        let mut state = self.state();
        state.responses.conversation(project, id, now)?;
        state.responses.change_conversation(id, |conversation| {
            conversation.metadata = metadata.to_vec();
        });
        Ok((**state.responses.conversation(project, id, now)?).clone())
    }

    async fn set_conversation_items(
        &self,
        project: &str,
        id: &str,
        change: &ItemsChange,
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        let mut state = self.state();
        if state.responses.conversation(project, id, now)?.items != change.expected {
            return Err(StoreError::Conflict);
        }
        state.responses.change_conversation(id, |conversation| {
            conversation.items = change.items.clone();
            conversation.messages = change.messages.clone();
        });
        Ok((**state.responses.conversation(project, id, now)?).clone())
    }

    async fn delete_conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        state.responses.conversation(project, id, now)?;
        state.responses.remove_conversation(id);
        Ok(())
    }

    async fn sweep_responses(&self, now: UnixMillis, limit: u32) -> Result<u64, StoreError> {
        let expired = |by_expiry: &BTreeSet<(UnixMillis, String)>, limit| -> Vec<String> {
            let expired = by_expiry.iter().take_while(|(end, _)| *end <= now);
            expired.take(limit).map(|(_, id)| id.clone()).collect()
        };
        let mut state = self.state();
        let responses = &mut state.responses;
        let conversations = expired(&responses.conversations_by_expiry, limit as usize);
        for id in &conversations {
            responses.remove_conversation(id);
        }
        let ending = expired(&responses.by_expiry, limit as usize - conversations.len());
        let swept = conversations.len() + ending.len();
        responses.end(ending, now);
        Ok(swept as u64)
    }

    async fn responses_usage(&self, project: &str) -> Result<ResponseUsage, StoreError> {
        let state = self.state();
        let usage = state.responses.usage.get(project);
        Ok(usage.copied().unwrap_or_default())
    }
}
