//! What holds for every context and every stream.

use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, json};

use super::{Scene, decode, request_of};
use crate::chat::{ContentPart, Message, Role, ToolCall};
use crate::upstream::Markers;

const UPSTREAMS: &[(&str, &str)] = &[
    ("openai", "gpt-6.1-sol"),
    ("openai", "gpt-4.1"),
    ("azure", "gpt-5.6"),
    ("qwen", "qwen4-max"),
    ("kimi", "kimi-k3"),
    ("openrouter", "anthropic/claude-opus-5-5"),
    ("openrouter", "openai/gpt-6-luna"),
    ("vllm", "m"),
    ("ollama", "m"),
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z \"{}\\\\\u{1f600}]{1,12}",
        Just("\"prompt_cache_breakpoint\":{\"mode\":\"explicit\"}".to_owned()),
        Just("\"cache_control\":{\"type\":\"ephemeral\"}".to_owned()),
    ]
}

fn part() -> impl Strategy<Value = ContentPart> {
    prop_oneof![
        3 => text().prop_map(|text| ContentPart::Text { text }),
        1 => Just(ContentPart::ImageUrl { url: "data:image/png;base64,AA".to_owned(), detail: None }),
    ]
}

fn question() -> impl Strategy<Value = Message> {
    (
        prop_oneof![
            Just(Role::User),
            Just(Role::System),
            Just(Role::Developer),
            Just(Role::Tool)
        ],
        vec(part(), 1..3),
    )
        .prop_map(|(role, content)| Message {
            content,
            tool_call_id: (role == Role::Tool).then(|| "c".to_owned()),
            ..Message::text(role, "")
        })
}

fn answer() -> impl Strategy<Value = Message> {
    (text(), any::<bool>()).prop_map(|(text, calls)| {
        let mut message = Message::text(Role::Assistant, text);
        if calls {
            message.content.clear();
            message.tool_calls.push(ToolCall {
                id: "c".to_owned(),
                name: "f".to_owned(),
                arguments: "{}".to_owned(),
            });
        }
        message
    })
}

fn seconds() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![
        Just(None),
        Just(Some(300)),
        Just(Some(1_800)),
        Just(Some(3_600)),
        Just(Some(43_200))
    ]
}

fn scene() -> impl Strategy<Value = Scene> {
    (
        0..UPSTREAMS.len(),
        vec(prop_oneof![question(), answer()], 1..5),
        vec((vec(question(), 1..3), answer()), 0..5),
        (seconds(), seconds()),
        (any::<bool>(), 1_u8..=4),
    )
        .prop_map(
            |(upstream, initial, turns, markers, (has_line, markers_max))| {
                let (provider, model) = UPSTREAMS[upstream];
                let mut rules = super::rules(provider, model);
                rules.cache.markers_max = rules.cache.markers_max.min(markers_max);
                Scene {
                    rules,
                    turns: turns
                        .into_iter()
                        .map(|(mut turn, answer)| {
                            turn.push(answer);
                            turn
                        })
                        .collect(),
                    markers: Markers {
                        initial_seconds: markers.0,
                        history_seconds: markers.1,
                    },
                    tenant_line: has_line.then(|| "tenant".to_owned()),
                    cache_key: Some("k".to_owned()),
                    ..Scene::with_context(provider, model, &initial)
                }
            },
        )
}

/// The messages of a body, markers taken out and texts that were expanded for them put back.
fn without_markers(body: &Value) -> Vec<Value> {
    let mut messages = body["messages"].as_array().unwrap().clone();
    for message in &mut messages {
        let Some(parts) = message["content"].as_array_mut() else {
            continue;
        };
        for part in parts.iter_mut() {
            let part = part.as_object_mut().unwrap();
            part.shift_remove("cache_control");
            part.shift_remove("prompt_cache_breakpoint");
        }
        if let [part] = &parts[..]
            && part["type"] == "text"
        {
            message["content"] = part["text"].clone();
        }
    }
    messages
}

/// Index of the message and lifetime of each marker, in order.
fn markers(body: &Value) -> Vec<(usize, u32)> {
    let mut found = Vec::new();
    for (index, message) in body["messages"].as_array().unwrap().iter().enumerate() {
        for part in message["content"].as_array().into_iter().flatten() {
            for (field, default) in [("cache_control", 300), ("prompt_cache_breakpoint", 1_800)] {
                let Some(marker) = part.get(field) else {
                    continue;
                };
                let seconds = match marker["ttl"].as_str() {
                    None => default,
                    Some("1h") => 3_600,
                    Some("12h") => 43_200,
                    Some(other) => panic!("{other}"),
                };
                found.push((index, seconds));
            }
        }
    }
    found
}

/// The names of an object's fields, repeated ones repeatedly.
struct Names(Vec<String>);

impl<'de> serde::Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Names;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

const FRAGMENTS: &[&str] = &[
    r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#,
    r#"{"choices":[{"index":1,"delta":{"reasoning":"b"},"finish_reason":"stop"}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[{"index":3,"function":{"arguments":"{"}}]}}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[{"id":"c","function":{"name":"f","arguments":{}}}, {}]}}]}"#,
    r#"{"choices":[{"delta":{"tool_calls":[7]}}]}"#,
    r#"{"choices":[{"finish_reason":"tool_calls","logprobs":{"content":[{"token":"a","bytes":[1,999],"logprob":null}]}}]}"#,
    r#"{"choices":[{"index":4294967295}]}"#,
    r#"{"choices":[null]}"#,
    r#"{"choices":{},"usage":7}"#,
    r#"{"usage":{"prompt_tokens":4294967295,"completion_tokens":4294967295,"cost":-1,"completion_tokens_details":{"reasoning_tokens":4294967295}}}"#,
    r#"{"timings":{"cache_n":4294967295,"prompt_n":4294967295}}"#,
    r#"{"error":{"code":429}}"#,
    r#"{"error":[]}"#,
    "[DONE]",
    "",
    "[]",
];

proptest! {
    #[test]
    fn a_prefix_is_the_same_on_every_turn(mut scene in scene(), question in question(), answer in answer()) {
        let prefix = scene.prefix().unwrap().unwrap();
        let again = scene.prefix().unwrap().unwrap();
        prop_assert_eq!(&again, &prefix);
        let before = scene.ask("?");

        scene.turns.push(vec![question, answer]);
        let longer = scene.prefix().unwrap().unwrap();
        prop_assert_eq!(&longer.initial, &prefix.initial);
        prop_assert_eq!(&longer.tools, &prefix.tools);
        if scene.rules.cache.marker.is_none() {
            prop_assert!(longer.history.starts_with(&prefix.history));
        }
        let after = without_markers(&scene.ask("?"));
        let mut before = without_markers(&before);
        before.pop();
        prop_assert_eq!(&after[..before.len()], &before[..]);
    }

    #[test]
    fn what_is_sent_holds_the_prefix_as_it_was_rendered(scene in scene()) {
        let prefix = scene.prefix().unwrap().unwrap();
        let chat = json!({"messages": [{"role": "user", "content": "?"}]});
        let call = scene.chat(request_of(&chat, "m")).unwrap();
        prop_assert!(call.body.contains(&prefix.initial));
        prop_assert!(prefix.history.is_empty() || call.body.contains(&prefix.history));
        prop_assert_eq!(call.body_bytes() as usize, call.body.concat().len());
    }

    #[test]
    fn markers_stay_within_their_number_and_before_the_question(scene in scene()) {
        let body = scene.ask("?");
        let found = markers(&body);
        prop_assert!(found.len() <= usize::from(scene.rules.cache.markers_max));
        let question = body["messages"].as_array().unwrap().len() - 1;
        for pair in found.windows(2) {
            prop_assert!(pair[0].0 < pair[1].0, "two on a message or out of order");
            prop_assert!(pair[0].1 >= pair[1].1, "lifetimes grow: {:?}", found);
        }
        prop_assert!(found.iter().all(|(index, _)| *index < question));
        let is_openai = body["messages"].to_string().contains("\"prompt_cache_breakpoint\":{\"mode\"");
        let is_explicit = body["prompt_cache_options"]["mode"] == "explicit";
        prop_assert_eq!(is_openai, is_explicit);
        if scene.rules.cache.marker.is_none() {
            prop_assert!(found.is_empty());
        }
    }

    #[test]
    fn an_earlier_end_is_marked_again(mut scene in scene(), turn in (question(), answer())) {
        scene.markers = Markers { initial_seconds: Some(300), history_seconds: Some(300) };
        let before = markers(&scene.ask("?"));
        scene.turns.push(vec![turn.0, turn.1]);
        let after = markers(&scene.ask("?"));
        // The longest entry that the earlier request wrote ends at its last marker.
        if let Some(last) = before.last() && scene.rules.cache.markers_max >= 3 {
            prop_assert!(after.contains(last), "{before:?} {after:?}");
        }
    }

    #[test]
    fn no_field_is_written_twice(scene in scene(), unknown in vec("[a-z_]{1,8}", 0..4), tier in seconds()) {
        let mut chat = json!({"messages": [{"role": "user", "content": "?"}]});
        for name in unknown.iter().map(String::as_str).chain([
            "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_control", "cache_salt",
            "session_id", "prompt_cache_breakpoint",
        ]) {
            chat[name] = json!({"theirs": 1});
        }
        chat["messages"] = json!([{"role": "user", "content": "?"}]);
        let scene = Scene { tier_seconds: tier, salt: Some("s".to_owned()), ..scene };
        let Ok(request) = crate::dialect::openai::decode_request(chat.to_string().as_bytes()) else {
            return Ok(());
        };
        let call = scene.chat(request).unwrap();
        let Names(names) = serde_json::from_slice(&call.body.concat()).unwrap();
        let mut once = names.clone();
        once.sort();
        once.dedup();
        prop_assert_eq!(once.len(), names.len(), "{:?}", names);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(pieces in vec(vec(any::<u8>(), 0..40), 0..6), upstream in 0..UPSTREAMS.len()) {
        let (provider, model) = UPSTREAMS[upstream];
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let events = decode(&super::rules(provider, model), &pieces);
        prop_assert!(events.last().is_some_and(Result::is_err));
    }

    #[test]
    fn any_chunks_end_in_one_end(
        chunks in vec(0..FRAGMENTS.len(), 0..8),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
        upstream in 0..UPSTREAMS.len(),
    ) {
        let (provider, model) = UPSTREAMS[upstream];
        let rules = super::rules(provider, model);
        let stream: String = chunks.iter().map(|chunk| format!("data: {}\r\n\r\n", FRAGMENTS[*chunk])).collect();
        let whole = decode(&rules, &[stream.as_bytes()]);
        let ends = whole.iter().filter(|event| matches!(event, Err(_) | Ok(crate::upstream::AnswerEvent::Done(_)))).count();
        prop_assert_eq!(ends, 1);

        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream.as_bytes()[pair[0]..pair[1]]).collect();
        prop_assert_eq!(decode(&rules, &pieces), whole);
    }
}
