//! What is kept, as it is listed, changed and deleted: responses, their input, conversations.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::input::Input;
use super::options;
use super::output::bare;
use crate::chat::Message;
use crate::dialect::fields::Fields;
use crate::error::ApiError;

const ITEMS_MAX: usize = 100_000;
/// The longest id of an item that is kept as a client gave it, bytes.
const ITEM_ID_MAX: usize = 128;

/// A conversation to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewConversation {
    /// Its first items, each in its full form.
    pub items: Vec<Value>,
    /// What its owner keeps with it.
    pub metadata: Map<String, Value>,
}

/// Decodes `POST /v1/conversations`; no body at all makes an empty one.
///
/// # Errors
/// Not JSON, an item that is malformed or that only OpenAI itself knows, too much metadata.
pub fn decode_conversation(body: &[u8]) -> Result<NewConversation, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    let mut fields = Fields::of_body(body)?;
    Ok(NewConversation {
        items: items(&mut fields)?.unwrap_or_default(),
        metadata: options::metadata(&mut fields)?,
    })
}

/// Decodes `POST /v1/conversations/{id}`: the metadata that takes the place of what was there.
///
/// # Errors
/// Not JSON, or too much of it.
pub fn decode_metadata(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    options::metadata(&mut Fields::of_body(body)?)
}

/// Decodes `POST /v1/conversations/{id}/items`.
///
/// # Errors
/// Not JSON, no items, or one that is malformed or that only OpenAI itself knows.
pub fn decode_items(body: &[u8]) -> Result<Vec<Value>, ApiError> {
    let mut fields = Fields::of_body(body)?;
    items(&mut fields)?.ok_or_else(|| fields.missing("items"))
}

fn items(fields: &mut Fields) -> Result<Option<Vec<Value>>, ApiError> {
    let Some(items) = fields.array("items", ITEMS_MAX)? else {
        return Ok(None);
    };
    Ok(Some(read(items)?.items))
}

/// The messages that items mean, as they are in a request whose input the items are.
///
/// # Errors
/// An item is malformed, or only OpenAI itself knows it. Items that were decoded or written here are neither.
pub fn messages_of_items(items: &[Value]) -> Result<Vec<Message>, ApiError> {
    Ok(read(items.to_vec())?.messages)
}

fn read(items: Vec<Value>) -> Result<Input, ApiError> {
    let mut input = Input::default();
    for (index, item) in items.into_iter().enumerate() {
        input.item(item, format!("items[{index}]"))?;
    }
    input.end();
    match input.only.0.take() {
        None => Ok(input),
        Some(error) => Err(error),
    }
}

/// Names the items of a response or conversation, the first of which is number `first` of all that it ever had. An id
/// that a client gave is kept if it can be one and is the first of its kind among them.
pub fn with_ids(items: Vec<Value>, owner_id: &str, first: usize) -> Vec<Value> {
    let mut seen = HashSet::new();
    let mut named = Vec::with_capacity(items.len());
    for (number, item) in (first..).zip(items) {
        let Value::Object(mut item) = item else {
            continue;
        };
        let given = match item.shift_remove("id") {
            Some(Value::String(id)) if is_id(&id) && seen.insert(id.clone()) => Some(id),
            _ => None,
        };
        let id = given.unwrap_or_else(|| {
            let kind = match item.get("type").and_then(Value::as_str) {
                Some("reasoning") => "rs",
                Some("function_call") => "fc",
                Some("function_call_output") => "fco",
                _ => "msg",
            };
            format!("{kind}_{}_in_{number}", bare(owner_id))
        });
        let mut with_id = Map::from_iter([("id".to_owned(), Value::from(id))]);
        with_id.extend(item);
        named.push(Value::Object(with_id));
    }
    named
}

fn is_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=ITEM_ID_MAX).contains(&id.len()) && id.bytes().all(is_plain)
}

/// A page of `items`: at most `limit` of those after the item `after`, oldest or newest first, and whether there are
/// more. An unknown `after` is the beginning.
pub fn page(
    items: &[Value],
    after: Option<&str>,
    limit: usize,
    newest_first: bool,
) -> (Vec<Value>, bool) {
    let mut ordered: Vec<&Value> = items.iter().collect();
    if newest_first {
        ordered.reverse();
    }
    let place = after.and_then(|after| {
        let mut ordered = ordered.iter();
        ordered.position(|item| id_of(item) == after)
    });
    let start = place.map_or(0, |place| place + 1);
    let left = &ordered[start..];
    let page = left.iter().take(limit).map(|item| (*item).clone());
    (page.collect(), left.len() > limit)
}

/// A list of items that have ids.
pub fn encode_items(items: &[Value], has_more: bool) -> Bytes {
    // Without items there are no ids, and clients want text all the same.
    let id = |item: Option<&Value>| item.map(id_of).unwrap_or_default().to_owned();
    let list = json!({
        "object": "list",
        "data": items,
        "first_id": id(items.first()),
        "last_id": id(items.last()),
        "has_more": has_more,
    });
    list.to_string().into()
}

fn id_of(item: &Value) -> &str {
    item.get("id").and_then(Value::as_str).unwrap_or_default()
}

/// The answer to deleting a response.
pub fn encode_deleted(id: &str) -> Bytes {
    let deleted = json!({"id": id, "object": "response", "deleted": true});
    deleted.to_string().into()
}

/// How many tokens a request's input has.
pub fn encode_input_tokens(input_tokens: u64) -> Bytes {
    let count = json!({"object": "response.input_tokens", "input_tokens": input_tokens});
    count.to_string().into()
}

/// A conversation.
pub fn encode_conversation(id: &str, created_at: i64, metadata: &Map<String, Value>) -> Bytes {
    let conversation = json!({
        "id": id,
        "object": "conversation",
        "created_at": created_at,
        "metadata": metadata,
    });
    conversation.to_string().into()
}

/// The answer to deleting a conversation.
pub fn encode_conversation_deleted(id: &str) -> Bytes {
    let deleted = json!({"id": id, "object": "conversation.deleted", "deleted": true});
    deleted.to_string().into()
}
