//! What clients say, in every place where a store keeps it, with a mark that can be searched for.

use holdfast_protocol::chat::{Message, Role, ToolChoice};
use holdfast_protocol::context::{Context, ContextContent};
use holdfast_seal::{DataKey, Keyring};
use serde_json::json;

use super::responses::conversations::sample_conversation;
use super::responses::{sample_continuation, sample_response};
use super::{NOW, sample_append, sample_content, sample_context};
use crate::{Chain, ContextStore, ConversationRecord, ItemsChange, ResponseRecord, ResponseStore};

/// Stands in everything that is to be sealed, and nowhere else.
pub const MARK: &str = "the-customers-own-words";

/// A key with nothing but this byte.
pub fn data_key(byte: u8) -> DataKey {
    DataKey::new([byte; 32])
}

/// Keys of which the first seals.
pub fn keyring(bytes: &[u8]) -> Keyring {
    let mut keys = bytes.iter().map(|byte| data_key(*byte));
    let current = keys.next();
    Keyring::new(current, &keys.collect::<Vec<_>>())
}

/// What [`say`] has stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    context: Context,
    content: ContextContent,
    responses: Vec<ResponseRecord>,
    conversation: ConversationRecord,
}

/// Stores some of everything for `project`, which has nothing yet.
pub async fn say<S: ContextStore + ResponseStore>(store: &S, project: &str) -> Said {
    let mut context = sample_context(project, NOW);
    context.display_name = Some(MARK.to_owned());
    context.metadata.insert(MARK.to_owned(), json!(MARK));
    context.tools[0].name = MARK.to_owned();
    context.tool_choice = Some(ToolChoice::Named(MARK.to_owned()));
    context.implicit = Some(format!("digest-of-{MARK}"));
    let mut content = sample_content();
    content.initial.push(Message::text(Role::User, MARK));
    store.insert(&context, &content).await.expect("stored");
    for number in 1..=3 {
        let mut append = sample_append(number, NOW);
        append.turn.messages[0].message = Message::text(Role::User, MARK);
        let version = u64::from(number);
        let appended = store.append_turn(project, &context.id, version, &append, NOW);
        context = appended.await.expect("appended");
        content.turns.push(append.turn);
    }

    let text = format!("[\"{MARK}\"]").into_bytes();
    let mut responses = vec![sample_response(project, &format!("{project}-0"))];
    responses.push(sample_continuation(&responses[0], &format!("{project}-1")));
    for record in &mut responses {
        for part in [&mut record.input, &mut record.messages, &mut record.body] {
            part.clone_from(&text);
        }
        store.insert_response(record, None).await.expect("stored");
    }

    let mut conversation = sample_conversation(project, &format!("{project}-c"));
    let parts = [
        &mut conversation.metadata,
        &mut conversation.messages,
        &mut conversation.items,
    ];
    for part in parts {
        part.clone_from(&text);
    }
    store
        .insert_conversation(&conversation)
        .await
        .expect("stored");
    let change = ItemsChange {
        expected: text.clone(),
        items: format!("[1, \"{MARK}\"]").into_bytes(),
        messages: format!("[2, \"{MARK}\"]").into_bytes(),
    };
    let changed = store.set_conversation_items(project, &conversation.id, &change, NOW);
    changed.await.expect("changed");
    let metadata = format!("{{\"a\": \"{MARK}\"}}").into_bytes();
    let changed = store.set_conversation_metadata(project, &conversation.id, &metadata, NOW);
    conversation = changed.await.expect("changed");
    assert_eq!(conversation.items, change.items);
    Said {
        context,
        content,
        responses,
        conversation,
    }
}

/// Asserts that everything reads back as it was said.
pub async fn is_whole<S: ContextStore + ResponseStore>(store: &S, said: &Said) {
    let project = &said.context.project;
    let context = store.get(project, &said.context.id, NOW).await;
    assert_eq!(context.expect("there"), said.context);
    let content = store.content(project, &said.context.id).await;
    assert_eq!(content.expect("there"), said.content);
    let census = store.census(NOW).await.expect("counted");
    let living = census.iter().find(|living| living.id == said.context.id);
    assert_eq!(
        living.and_then(|living| living.implicit.clone()),
        said.context.implicit
    );
    let mut bytes = said.conversation.bytes();
    for record in &said.responses {
        bytes += record.bytes();
        let stored = store.response(project, &record.id, NOW).await;
        assert_eq!(&stored.expect("there"), record);
    }
    let length = said
        .responses
        .iter()
        .map(|record| record.messages.len() as u64)
        .sum();
    let last = &said.responses[said.responses.len() - 1].id;
    let chain = store.chain(project, last, NOW, 10, length).await;
    let Chain::Whole(links) = chain.expect("there") else {
        panic!("what sealing adds counts for nothing");
    };
    let messages = |record: &ResponseRecord| record.messages.clone();
    let expected: Vec<_> = said.responses.iter().map(messages).collect();
    assert!(links.into_iter().map(|link| link.messages).eq(expected));
    let stored = store
        .conversation(project, &said.conversation.id, NOW)
        .await;
    assert_eq!(stored.expect("there"), said.conversation);
    let usage = store.responses_usage(project).await.expect("counted");
    assert_eq!(usage.bytes, bytes);
}
