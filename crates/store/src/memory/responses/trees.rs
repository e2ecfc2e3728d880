//! The trees that responses form, and conversations as pointers into them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use holdfast_protocol::UnixMillis;

use crate::StoreError;
use crate::responses::{ConversationRecord, HeadChange, ResponseRecord, ResponseUsage};

#[derive(Default)]
pub(in crate::memory) struct Responses {
    pub(super) nodes: HashMap<String, Node>,
    /// Of nodes that are not `kept`.
    pub(super) by_expiry: BTreeSet<(UnixMillis, String)>,
    // Shared, as in `Node`.
    pub(super) conversations: HashMap<String, Arc<ConversationRecord>>,
    pub(super) conversations_by_expiry: BTreeSet<(UnixMillis, String)>,
    pub(super) usage: HashMap<String, ResponseUsage>,
}

pub(super) struct Node {
    // Shared, so that it is copied for a caller after the lock is released.
    pub(super) record: Arc<ResponseRecord>,
    continued_by: HashSet<String>,
    /// Whether it has ended, and only its messages are left for those that continue from it.
    kept: bool,
}

impl Node {
    fn is_living(&self, now: UnixMillis) -> bool {
        !self.kept && self.record.expires_at > now
    }
}

impl Responses {
    #[cfg(test)]
    pub(in crate::memory) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
            && self.by_expiry.is_empty()
            && self.conversations.is_empty()
            && self.conversations_by_expiry.is_empty()
            && self.usage.is_empty()
    }

    pub(super) fn living(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<&Node, StoreError> {
        self.nodes
            .get(id)
            .filter(|node| node.record.project == project && node.is_living(now))
            .ok_or(StoreError::NotFound)
    }

    pub(super) fn conversation(
        &self,
        project: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<&Arc<ConversationRecord>, StoreError> {
        self.conversations
            .get(id)
            .filter(|record| record.project == project && record.expires_at > now)
            .ok_or(StoreError::NotFound)
    }

    pub(super) fn count(&mut self, project: &str, change: impl FnOnce(&mut ResponseUsage)) {
        let usage = self.usage.entry(project.to_owned()).or_default();
        change(usage);
        if *usage == ResponseUsage::default() {
            self.usage.remove(project);
        }
    }

    pub(super) fn insert(
        &mut self,
        record: Arc<ResponseRecord>,
        head: Option<&HeadChange>,
    ) -> Result<(), StoreError> {
        if let Some(change) = head {
            let conversation =
                self.conversation(&record.project, &change.conversation, change.now)?;
            if conversation.head != change.expected {
                return Err(StoreError::Conflict);
            }
        }
        if let Some(previous) = &record.previous {
            self.living(&record.project, previous, record.created_at)?;
        }
        if self.nodes.contains_key(&record.id) {
            return Err(StoreError::Conflict);
        }
        if let Some(previous) = record
            .previous
            .as_ref()
            .and_then(|id| self.nodes.get_mut(id))
        {
            previous.continued_by.insert(record.id.clone());
        }
        if let Some(change) = head {
            self.change_conversation(&change.conversation, |conversation| {
                conversation.head = Some(record.id.clone());
                conversation.expires_at = conversation.expires_at.max(record.expires_at);
            });
        }
        self.by_expiry
            .insert((record.expires_at, record.id.clone()));
        self.count(&record.project, |usage| {
            usage.responses += 1;
            usage.bytes += record.bytes();
        });
        let node = Node {
            record: Arc::clone(&record),
            continued_by: HashSet::new(),
            kept: false,
        };
        self.nodes.insert(record.id.clone(), node);
        Ok(())
    }

    /// Changes a conversation that is there and keeps index and counts in step.
    pub(super) fn change_conversation(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut ConversationRecord),
    ) {
        let Some(record) = self.conversations.get_mut(id) else {
            return;
        };
        let record = Arc::make_mut(record);
        let (expires_at, bytes) = (record.expires_at, record.bytes());
        change(record);
        self.conversations_by_expiry
            .remove(&(expires_at, id.to_owned()));
        self.conversations_by_expiry
            .insert((record.expires_at, id.to_owned()));
        let (project, after) = (record.project.clone(), record.bytes());
        self.count(&project, |usage| usage.bytes = usage.bytes + after - bytes);
    }

    pub(super) fn remove_conversation(&mut self, id: &str) {
        let Some(record) = self.conversations.remove(id) else {
            return;
        };
        self.conversations_by_expiry
            .remove(&(record.expires_at, record.id.clone()));
        self.count(&record.project, |usage| {
            usage.conversations -= 1;
            usage.bytes -= record.bytes();
        });
    }

    /// Those in the tree of `id` that have expired and wait for the sweep.
    pub(super) fn expired_in_tree(&self, id: &str, now: UnixMillis) -> Vec<String> {
        let before = |id: &String| self.nodes.get(id)?.record.previous.clone();
        let first = std::iter::successors(Some(id.to_owned()), before).last();
        let mut expired = Vec::new();
        let mut left: Vec<String> = first.into_iter().collect();
        while let Some(id) = left.pop() {
            if let Some(node) = self.nodes.get(&id) {
                left.extend(node.continued_by.iter().cloned());
                if !node.kept && !node.is_living(now) {
                    expired.push(id);
                }
            }
        }
        expired
    }

    /// Ends responses: what no living one continues from is removed, of the others only the messages stay.
    pub(super) fn end(&mut self, ids: Vec<String>, now: UnixMillis) {
        for id in &ids {
            self.keep_messages_only(id);
        }
        self.move_heads(&ids, now);
        let mut left = ids;
        while let Some(id) = left.pop() {
            let Some(node) = self.remove_unneeded(&id) else {
                continue;
            };
            self.count(&node.record.project, |usage| {
                usage.responses -= 1;
                usage.bytes -= node.record.bytes();
            });
            if let Some(previous) = &node.record.previous {
                if let Some(node) = self.nodes.get_mut(previous) {
                    node.continued_by.remove(&id);
                }
                left.push(previous.clone());
            }
        }
    }

    fn remove_unneeded(&mut self, id: &str) -> Option<Node> {
        let node = self.nodes.get(id)?;
        match node.kept && node.continued_by.is_empty() {
            true => self.nodes.remove(id),
            false => None,
        }
    }

    fn keep_messages_only(&mut self, id: &str) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        node.kept = true;
        let record = Arc::make_mut(&mut node.record);
        let before = record.bytes();
        record.input = Vec::new();
        record.body = Vec::new();
        let after = record.bytes();
        let (project, expires_at) = (record.project.clone(), record.expires_at);
        self.by_expiry.remove(&(expires_at, id.to_owned()));
        self.count(&project, |usage| usage.bytes = usage.bytes + after - before);
    }

    /// Conversations whose head is among `ended` go back to the nearest response before it that lives.
    fn move_heads(&mut self, ended: &[String], now: UnixMillis) {
        let ended: HashSet<&String> = ended.iter().collect();
        let moved: Vec<(String, Option<String>)> = self
            .conversations
            .values()
            .filter_map(|conversation| {
                let head = conversation.head.as_ref()?;
                let before = |id: &String| self.nodes.get(id)?.record.previous.clone();
                let living = |id: &String| self.nodes.get(id).is_some_and(|n| n.is_living(now));
                ended.contains(head).then(|| {
                    let head = std::iter::successors(Some(head.clone()), before).find(living);
                    (conversation.id.clone(), head)
                })
            })
            .collect();
        for (id, head) in moved {
            self.change_conversation(&id, |conversation| conversation.head = head);
        }
    }
}
