//! Content of contexts in use, for other replicas: in the Redis that they share, so that a context that moves to another
//! server is not read from the database again. The row in the store is asked in any case, so that what was deleted is gone,
//! and an entry serves only the version it was made for.

use std::sync::Arc;

use holdfast_protocol::context::ContextContent;
use holdfast_protocol::{Context, ContextId, UnixMillis};
use redis::Script;
use tokio_util::task::TaskTracker;

use super::cache::size;
use crate::events::Events;
use crate::shared::Shared;

/// Larger ones are read from the database: they would hold up what else Redis is asked.
const BYTES_MAX: usize = 1 << 20;

/// Nothing stays longer, milliseconds.
const LIFE_MS: UnixMillis = 5 * 60 * 1000;

/// The contexts in Redis.
pub(crate) struct Hot {
    shared: Arc<Shared>,
    put: Arc<Script>,
    events: Arc<Events>,
    tasks: TaskTracker,
}

impl Hot {
    pub(crate) fn new(shared: Arc<Shared>, events: Arc<Events>, tasks: TaskTracker) -> Self {
        Hot {
            shared,
            put: Arc::new(Script::new(include_str!("hot/put.lua"))),
            events,
            tasks,
        }
    }

    /// The content of exactly this version, if it is there.
    pub(super) async fn get(&self, context: &Context) -> Option<ContextContent> {
        let mut command = redis::cmd("HMGET");
        command
            .arg(self.key(&context.id))
            .arg("version")
            .arg("content");
        let (version, bytes): (Option<u64>, Option<Vec<u8>>) =
            self.shared.ask(&command).await.ok()?;
        let bytes = bytes.filter(|_| version == Some(context.version));
        let content = bytes.and_then(|bytes| decode(&bytes));
        self.events.shared_context_sought(content.is_some());
        content
    }

    /// Keeps the content of this version for others, in the background.
    pub(super) fn put(&self, context: &Context, content: &ContextContent, now: UnixMillis) {
        let last = content.turns.last().map_or(0, |turn| turn.number);
        let life = LIFE_MS.min(context.expires_at - now);
        // What was read beside the row may be newer than it.
        let is_sound = last == context.turn_count && life > 0 && size(content) <= BYTES_MAX;
        if !is_sound || !self.shared.is_up() {
            return;
        }
        let Some(bytes) = encode(content) else {
            return;
        };
        let (shared, put) = (Arc::clone(&self.shared), Arc::clone(&self.put));
        let (key, version) = (self.key(&context.id), context.version);
        // Bounded by the time that an answer may take, as is the other one.
        self.tasks.spawn(async move {
            let mut script = put.prepare_invoke();
            script.key(key).arg(version).arg(bytes).arg(life);
            let _ = shared.run::<i64>(&script).await;
        });
    }

    /// Takes out a context that is gone.
    pub(super) fn remove(&self, id: &ContextId) {
        let mut command = redis::cmd("DEL");
        command.arg(self.key(id));
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            // What is not taken out by this goes by itself.
            let _ = shared.ask::<i64>(&command).await;
        });
    }

    fn key(&self, id: &ContextId) -> String {
        self.shared.key("context", id.as_str())
    }
}

/// The one place where content becomes bytes for Redis.
fn encode(content: &ContextContent) -> Option<Vec<u8>> {
    serde_json::to_vec(content).ok()
}

fn decode(bytes: &[u8]) -> Option<ContextContent> {
    serde_json::from_slice(bytes).ok()
}
