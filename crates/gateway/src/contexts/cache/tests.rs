#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_engine::{Engine, EngineOptions};
use holdfast_protocol::context::{ContextContent, CreateContext, CreateSurface, ProfileKind};
use holdfast_protocol::{Context, ContextId, Message, Profile, Role};

use super::{ContextCache, Loaded};
use crate::backend::{PrefixState, PreparedPrefix};

struct Maker {
    engine: Engine,
}

impl Maker {
    fn new() -> Self {
        Maker {
            engine: Engine::start_tiny(EngineOptions::new(PathBuf::new())).unwrap(),
        }
    }

    fn make(&self, number: u8, text_bytes: usize) -> (Context, Loaded) {
        let messages = vec![Message::text(Role::User, "x".repeat(text_bytes))];
        let create = CreateContext {
            model: "m".into(),
            messages: messages.clone(),
            mode: None,
            ttl_seconds: None,
            truncation: None,
            tools: Vec::new(),
            tool_choice: None,
            display_name: None,
            metadata: Default::default(),
            policy: Default::default(),
        };
        let profile = Profile::of(ProfileKind::Native, 8192);
        let id = ContextId::new(0, [number; 16]);
        let context =
            Context::new(&create, CreateSurface::OpenAi, &profile, "p", "m", id, 0, 0).unwrap();
        let prefix = PreparedPrefix {
            tokens: 0,
            history_tokens: Vec::new(),
            state: PrefixState::Kv(self.engine.prefix("p", &[])),
        };
        let content = ContextContent {
            initial: messages,
            turns: Vec::new(),
        };
        (
            context,
            Loaded {
                content: Arc::new(content),
                prefix,
            },
        )
    }
}

#[test]
fn the_least_recently_used_go_when_there_are_too_many_bytes() {
    let maker = Maker::new();
    let mut cache = ContextCache::new(100_000);
    let made: Vec<_> = (0..3).map(|number| maker.make(number, 30_000)).collect();
    for (context, loaded) in &made {
        cache.insert(context, loaded);
    }
    assert!(cache.get(&made[0].0).is_some());
    let (context, loaded) = maker.make(3, 30_000);
    cache.insert(&context, &loaded);
    let kept: Vec<bool> = made
        .iter()
        .map(|(context, _)| cache.get(context).is_some())
        .collect();
    assert_eq!(kept, [true, false, true]);
    assert!(cache.get(&context).is_some());
}

#[test]
fn what_was_loaded_serves_its_own_version_only() {
    let maker = Maker::new();
    let mut cache = ContextCache::new(100_000);
    let (mut context, loaded) = maker.make(1, 10);
    cache.insert(&context, &loaded);
    context.version += 1;
    assert!(cache.get(&context).is_none());
    context.version -= 1;
    context.dropped_messages += 1;
    assert!(cache.get(&context).is_none());
}

#[test]
fn a_removed_context_gives_its_bytes_back() {
    let maker = Maker::new();
    let mut cache = ContextCache::new(100_000);
    let (context, loaded) = maker.make(1, 1000);
    cache.insert(&context, &loaded);
    cache.insert(&context, &loaded);
    assert!(cache.bytes > 1000 && cache.bytes < 3000);
    cache.remove(&context.id);
    assert_eq!(
        (cache.bytes, cache.by_use.len(), cache.entries.len()),
        (0, 0, 0)
    );
}
