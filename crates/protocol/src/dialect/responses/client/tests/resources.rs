//! What is kept, as it is listed, changed and deleted.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{check, decoded, shown};
use crate::dialect::responses::client::{
    decode_conversation, decode_items, decode_metadata, encode_conversation,
    encode_conversation_deleted, encode_deleted, encode_items, messages_of_items, page, with_ids,
};
use crate::error::{ApiError, ErrorKind};

fn written(name: &str, body: &Bytes) {
    let body: Value = serde_json::from_slice(body).unwrap();
    check(name, &format!("{body:#}\n"));
}

#[test]
fn input_is_listed_with_ids() {
    for name in ["tool_turn", "reasoning", "parts", "markers"] {
        let input = decoded(&format!("request_{name}.json")).input;
        let items = with_ids(input, "resp_0123abcd", 0);
        written(&format!("items_{name}.json"), &encode_items(&items, false));
    }
    written("items_none.json", &encode_items(&[], false));
}

#[test]
fn ids_are_stable_and_no_two_are_the_same() {
    let item = |id: Value| json!({"type": "message", "id": id});
    let long = "x".repeat(129);
    let given = ["msg_1", "msg_1", "no id", "", long.as_str()].map(Value::from);
    let items: Vec<Value> = given
        .into_iter()
        .chain([7.into(), Value::Null])
        .map(item)
        .collect();
    let named = with_ids(items.clone(), "conv_9", 3);
    let ids: Vec<&str> = named
        .iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            "msg_1",
            "msg_9_in_4",
            "msg_9_in_5",
            "msg_9_in_6",
            "msg_9_in_7",
            "msg_9_in_8",
            "msg_9_in_9"
        ]
    );
    assert_eq!(with_ids(items, "conv_9", 3), named);
    let kinds = ["reasoning", "function_call", "function_call_output"];
    let items = kinds.map(|kind| json!({"type": kind})).to_vec();
    let named = with_ids(items, "resp_1", 0);
    let ids: Vec<&str> = named
        .iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["rs_1_in_0", "fc_1_in_1", "fco_1_in_2"]);
}

#[test]
fn pages_follow_each_other_in_either_order() {
    let items: Vec<Value> = (0..5)
        .map(|number| json!({"id": format!("i{number}")}))
        .collect();
    for newest_first in [false, true] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let (page, has_more) = page(&items, after.as_deref(), 2, newest_first);
            after = page
                .last()
                .map(|item| item["id"].as_str().unwrap().to_owned());
            seen.extend(page);
            if !has_more {
                break;
            }
        }
        if newest_first {
            seen.reverse();
        }
        assert_eq!(seen, items);
    }
    assert_eq!(page(&items, Some("i4"), 2, false), (Vec::new(), false));
    assert_eq!(
        page(&items, Some("unknown"), 9, false),
        (items.clone(), false)
    );
}

#[test]
fn conversations_are_made_of_items() {
    let body = json!({
        "items": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}],
        "metadata": {"topic": "x"},
    });
    let new = decode_conversation(body.to_string().as_bytes()).unwrap();
    let messages = messages_of_items(&new.items).unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1].joined_text(), "Yes?");
    written(
        "conversation.json",
        &encode_conversation("conv_9", 1_800_000_000, &new.metadata),
    );
    let items = with_ids(new.items, "conv_9", 0);
    written("conversation_items.json", &encode_items(&items, true));
    for empty in [&b""[..], b"{}", br#"{"items": null}"#] {
        let new = decode_conversation(empty).unwrap();
        assert_eq!((new.items, new.metadata), (Vec::new(), Map::new()));
    }
    let metadata = decode_metadata(br#"{"metadata": {"a": "b"}}"#).unwrap();
    assert_eq!(Value::Object(metadata), json!({"a": "b"}));
}

#[test]
fn conversations_refuse_what_requests_refuse() {
    let refused = |items: Value| {
        let body = json!({"items": items}).to_string();
        shown(&decode_items(body.as_bytes()).unwrap_err())
    };
    assert_eq!(
        refused(json!([{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}])),
        "UnknownRole items[1].role\n`items[1].role` must be user, assistant, system or developer\n"
    );
    let only = refused(json!([{"type": "web_search_call", "id": "ws_1"}]));
    assert!(
        only.starts_with("UnsupportedParameter items[0].type\n"),
        "{only}"
    );
    assert!(refused(Value::Null).starts_with("MissingParameter items\n"));
    let many: Map<String, Value> = (0..17).map(|n| (n.to_string(), "x".into())).collect();
    let body = json!({"metadata": many}).to_string();
    let error = decode_metadata(body.as_bytes()).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("metadata"));
}

#[test]
fn what_is_deleted_says_so() {
    written("deleted.json", &encode_deleted("resp_1"));
    written(
        "conversation_deleted.json",
        &encode_conversation_deleted("conv_1"),
    );
}

#[test]
fn what_is_not_there_is_told_with_its_id_where_that_can_be_one() {
    let error = ApiError::previous_response_not_found("resp_1");
    assert_eq!(error.kind, ErrorKind::PreviousResponseNotFound);
    assert_eq!(error.kind.status(), 400);
    assert_eq!(
        error.message,
        "Previous response with id 'resp_1' not found."
    );
    assert_eq!(error.param.as_deref(), Some("previous_response_id"));
    for text in ["", "a secret prompt", &"x".repeat(129)] {
        let error = ApiError::previous_response_not_found(text);
        assert_eq!(error.message, "Previous response not found.");
    }
    let error = ApiError::response_not_found("resp_1");
    assert_eq!(
        (error.kind.status(), error.message.as_str()),
        (404, "Response with id 'resp_1' not found.")
    );
    let error = ApiError::conversation_not_found("conv_1");
    assert_eq!(error.kind.status(), 404);
    assert_eq!(error.param.as_deref(), Some("conversation"));
}
