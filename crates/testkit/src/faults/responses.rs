//! The switchboard's responses and conversations.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_store::{
    Chain, ConversationRecord, HeadChange, ItemsChange, ResponseRecord, ResponseStore,
    ResponseUsage, StoreError,
};

use super::{FaultyStore, Operation};

#[async_trait]
impl ResponseStore for FaultyStore {
    async fn insert_response(
        &self,
        record: &ResponseRecord,
        head: Option<&HeadChange>,
    ) -> Result<(), StoreError> {
        self.run(
            Operation::InsertResponse,
            self.inner.insert_response(record, head),
        )
        .await
    }

    async fn response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ResponseRecord, StoreError> {
        self.run(Operation::Response, self.inner.response(project, id, now))
            .await
    }

    async fn chain(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
        limit: u32,
        bytes_max: u64,
    ) -> Result<Chain, StoreError> {
        self.run(
            Operation::Chain,
            self.inner.chain(project, id, now, limit, bytes_max),
        )
        .await
    }

    async fn delete_response(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.run(
            Operation::DeleteResponse,
            self.inner.delete_response(project, id, now),
        )
        .await
    }

    async fn insert_conversation(&self, record: &ConversationRecord) -> Result<(), StoreError> {
        self.run(
            Operation::InsertConversation,
            self.inner.insert_conversation(record),
        )
        .await
    }

    async fn conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        self.run(
            Operation::Conversation,
            self.inner.conversation(project, id, now),
        )
        .await
    }

    async fn set_conversation_metadata(
        &self,
        project: &str,
        id: &str,
        metadata: &[u8],
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        self.inner
            .set_conversation_metadata(project, id, metadata, now)
            .await
    }

    async fn set_conversation_items(
        &self,
        project: &str,
        id: &str,
        change: &ItemsChange,
        now: UnixMillis,
    ) -> Result<ConversationRecord, StoreError> {
        self.inner
            .set_conversation_items(project, id, change, now)
            .await
    }

    async fn delete_conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        self.run(
            Operation::DeleteConversation,
            self.inner.delete_conversation(project, id, now),
        )
        .await
    }

    async fn sweep_responses(&self, now: UnixMillis, limit: u32) -> Result<u64, StoreError> {
        self.run(
            Operation::SweepResponses,
            self.inner.sweep_responses(now, limit),
        )
        .await
    }

    async fn responses_usage(&self, project: &str) -> Result<ResponseUsage, StoreError> {
        self.run(
            Operation::ResponsesUsage,
            self.inner.responses_usage(project),
        )
        .await
    }
}
