//! Contexts in use, in memory: least recently used go first when the bytes are more than the bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use holdfast_protocol::chat::{ContentPart, Message};
use holdfast_protocol::context::ContextContent;
use holdfast_protocol::{Context, ContextId};

use crate::backend::PreparedPrefix;

/// What a chat needs of a context beside its row.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    /// Its messages.
    pub(super) content: Arc<ContextContent>,
    /// Its prefix.
    pub(super) prefix: PreparedPrefix,
}

struct Entry {
    row: Context,
    loaded: Loaded,
    bytes: usize,
    used: u64,
}

/// A bounded map from id to what was last loaded. An entry serves only the version it was made for.
pub(super) struct ContextCache {
    entries: HashMap<ContextId, Entry>,
    by_use: BTreeMap<u64, ContextId>,
    uses: u64,
    bytes: usize,
    bytes_max: usize,
}

impl ContextCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        ContextCache {
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// What was loaded for exactly this state of the context. The row is taken over, for the time the store is away.
    pub(super) fn get(&mut self, row: &Context) -> Option<Loaded> {
        let entry = self.entries.get_mut(&row.id)?;
        if entry.row.version != row.version || entry.row.dropped_messages != row.dropped_messages {
            return None;
        }
        self.uses += 1;
        self.by_use.remove(&entry.used);
        self.by_use.insert(self.uses, row.id.clone());
        entry.used = self.uses;
        if entry.row.expires_at != row.expires_at || entry.row.ttl_seconds != row.ttl_seconds {
            entry.row.expires_at = row.expires_at;
            entry.row.ttl_seconds = row.ttl_seconds;
        }
        Some(entry.loaded.clone())
    }

    /// Keeps it, in place of any earlier version.
    pub(super) fn insert(&mut self, row: &Context, loaded: &Loaded) {
        let newest = self.entries.get(&row.id).map(|entry| entry.row.version);
        if newest.is_some_and(|newest| newest > row.version) {
            return;
        }
        self.remove(&row.id);
        let bytes = size(&loaded.content) + loaded.prefix.bytes();
        self.uses += 1;
        self.by_use.insert(self.uses, row.id.clone());
        self.entries.insert(
            row.id.clone(),
            Entry {
                row: row.clone(),
                loaded: loaded.clone(),
                bytes,
                used: self.uses,
            },
        );
        self.bytes += bytes;
        while self.bytes > self.bytes_max
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.remove(&oldest);
        }
    }

    /// The row last seen.
    pub(super) fn row(&self, id: &ContextId) -> Option<Context> {
        self.entries.get(id).map(|entry| entry.row.clone())
    }

    /// Takes over a changed expiry.
    pub(super) fn update_row(&mut self, row: &Context) {
        if let Some(entry) = self.entries.get_mut(&row.id) {
            entry.row.expires_at = row.expires_at;
            entry.row.ttl_seconds = row.ttl_seconds;
        }
    }

    /// Forgets a context.
    pub(super) fn remove(&mut self, id: &ContextId) {
        if let Some(entry) = self.entries.remove(id) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

pub(super) fn size(content: &ContextContent) -> usize {
    let messages = content.initial.iter().chain(
        content
            .turns
            .iter()
            .flat_map(|turn| turn.messages.iter().map(|m| &m.message)),
    );
    size_of::<Entry>() + messages.map(message_size).sum::<usize>()
}

fn message_size(message: &Message) -> usize {
    let parts = message.content.iter().map(|part| match part {
        ContentPart::Text { text } => text.len(),
        ContentPart::ImageUrl { url, .. } | ContentPart::File { url, .. } => url.len(),
    });
    let calls = message
        .tool_calls
        .iter()
        .map(|call| call.id.len() + call.name.len() + call.arguments.len());
    size_of::<Message>() + parts.sum::<usize>() + calls.sum::<usize>()
}

#[cfg(test)]
mod tests;
