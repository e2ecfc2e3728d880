use bytes::Bytes;
use serde_json::{Value, json};

use super::super::request::model_name;
use super::super::{Request, decode_count, decode_request, encode_count};
use super::{check_all, shown};
use crate::chat::{Message, Role};
use crate::dialect::gemini::GeminiUpstream;
use crate::dialect::upstream_cases::{Case, body_of};
use crate::provider::UpstreamDialectName;

fn decode(body: &Value) -> Request {
    let body = Bytes::from(body.to_string());
    decode_request(&body, "gemini", false).unwrap()
}

#[test]
fn requests_are_understood() {
    check_all(
        "request_",
        90,
        |body| decode_request(body, "models/gemini-2.5-flash", true),
        |mut request, body| {
            let original = request.chat.original.take();
            assert!(
                original
                    .as_ref()
                    .is_none_or(|original| original.body == *body)
            );
            match original {
                None => format!("{request:#?}\nnever as it came\n"),
                Some(original) => match original.only {
                    None => format!("{request:#?}\n"),
                    Some(error) => format!("{request:#?}\nelsewhere {}", shown(&error)),
                },
            }
        },
    );
}

#[test]
fn counts_are_understood() {
    check_all(
        "count_",
        7,
        |body| decode_count(body, "m"),
        |request, _| format!("{request:#?}\n"),
    );
}

#[test]
fn counts_are_told() {
    let count: Value = serde_json::from_slice(&encode_count(7, None)).unwrap();
    let details = json!([{"modality": "TEXT", "tokenCount": 7}]);
    assert_eq!(
        count,
        json!({"totalTokens": 7, "promptTokensDetails": details})
    );
    let count: Value = serde_json::from_slice(&encode_count(7, Some(5))).unwrap();
    assert_eq!(count["cachedContentTokenCount"], 5);
}

#[test]
fn a_model_is_the_last_of_its_resource() {
    for (resource, name) in [
        ("gemini", "gemini"),
        ("models/gemini", "gemini"),
        ("models/org/model", "org/model"),
        ("publishers/google/models/gemini", "gemini"),
        ("projects/p/locations/l/models/gemini", "gemini"),
        (
            "projects/p/locations/l/publishers/google/models/gemini",
            "gemini",
        ),
        (
            "projects/None/locations/None/publishers/google/models/gemini",
            "gemini",
        ),
        ("org/model", "org/model"),
        ("tunedModels/mine", "tunedModels/mine"),
        (
            "projects/p/locations/l/endpoints/7",
            "projects/p/locations/l/endpoints/7",
        ),
        ("models", "models"),
        ("models/", "models/"),
        ("", ""),
    ] {
        assert_eq!(model_name(resource), name, "{resource}");
    }
}

#[test]
fn an_upstream_of_this_dialect_gets_signatures_and_ids_back() {
    let contents = json!([
        {"role": "user", "parts": [{"text": "Weather?"}]},
        {"role": "model", "parts": [
            {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "CpMB+/sig=="},
            {"functionCall": {"id": "fc-1", "name": "f", "args": {}}, "thoughtSignature": "AbC="},
            {"functionCall": {"id": "gem_fc-2~c2ln", "name": "g", "args": {}}},
        ]},
        {"role": "user", "parts": [
            {"functionResponse": {"name": "f", "response": {"result": "x"}}},
            {"functionResponse": {"id": "fc-1", "name": "f", "response": {"b": 2}}},
            {"functionResponse": {"id": "gem_fc-2~c2ln", "name": "g", "response": {"result": "y"}}},
        ]},
    ]);
    let case = Case {
        provider: "gemini".to_owned(),
        model: "gemini-3.8-flash".to_owned(),
        without_context: true,
        new: decode(&json!({"contents": contents})).chat.messages,
        ..Case::default()
    };
    let call = case
        .encode(&GeminiUpstream, UpstreamDialectName::Gemini)
        .unwrap()
        .unwrap();
    let sent: Value = serde_json::from_slice(&body_of(&call)).unwrap();
    let mut expected = contents;
    let parts = &mut expected[1]["parts"];
    parts[2]["functionCall"]["id"] = "fc-2".into();
    parts[2]["thoughtSignature"] = "sig".into();
    expected[2]["parts"][2]["functionResponse"]["id"] = "fc-2".into();
    assert_eq!(sent["contents"], expected);
}

#[test]
fn numbered_ids_do_not_change_when_a_conversation_grows_and_meet_no_other() {
    let turn = json!([
        {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
    ]);
    let turns = |count: usize| {
        let mut contents = vec![
            json!({"role": "model", "parts": [{"functionCall": {"id": "call_0", "name": "g"}}]}),
            json!({"role": "user", "parts": [{"functionResponse": {"name": "g", "response": {}}}]}),
        ];
        for _ in 0..count {
            contents.extend(turn.as_array().unwrap().clone());
        }
        decode(&json!({"contents": contents})).chat.messages
    };
    let long = turns(3);
    assert!(long.starts_with(&turns(2)));
    let ids = |messages: &[Message]| -> Vec<String> {
        let calls = messages.iter().flat_map(|message| &message.tool_calls);
        calls.map(|call| call.id.clone()).collect()
    };
    assert_eq!(ids(&long), ["call_0", "call_1", "call_2", "call_3"]);
    let answered: Vec<_> = long
        .iter()
        .filter(|message| message.role == Role::Tool)
        .filter_map(|message| message.tool_call_id.clone())
        .collect();
    assert_eq!(answered, ids(&long));
}

#[test]
fn errors_repeat_nothing_of_the_body() {
    let secret = "sesame";
    for body in [
        json!({"contents": [{"role": secret, "parts": [{"text": "x"}]}]}),
        json!({"contents": [{"parts": [{secret: {"a": 1}}]}], "systemInstruction": secret}),
        json!({"contents": [{"parts": [{"functionResponse": {"name": secret, "response": {}}}]}]}),
        json!({"contents": [{"parts": [{"text": "x"}]}], "tools": [{secret: {}}], "systemInstruction": secret}),
        json!({"contents": [{"parts": [{"text": "x"}]}], "cachedContent": secret}),
        json!({"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"responseMimeType": secret}}),
    ] {
        let body = Bytes::from(body.to_string());
        let error = decode_request(&body, "m", false).unwrap_err();
        assert!(!shown(&error).contains(secret), "{error:?}");
    }
}
