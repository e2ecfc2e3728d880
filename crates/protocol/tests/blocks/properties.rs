//! What must hold for any conversation and any bytes.

use holdfast_protocol::chat::{ContentPart, Message, Role, Tool, ToolCall};
use holdfast_protocol::provider::UpstreamDialectName;
use holdfast_protocol::upstream::Markers;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::golden::streams;
use crate::support::{
    BEDROCK_CLAUDE, BEDROCK_NOVA, CLAUDE, Case, CaseContext, body_json, decode, frame,
};

const DIALECTS: [UpstreamDialectName; 2] = [
    UpstreamDialectName::Anthropic,
    UpstreamDialectName::BedrockConverse,
];

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just(" \n".to_owned()),
        Just("],\"role\":\"user\"}".to_owned()),
        Just("{\"content\":[".to_owned()),
        Just("\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}}]}".to_owned()),
        ".{0,12}",
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let image = || ContentPart::ImageUrl {
        url: "data:image/png;base64,iVBO".to_owned(),
        detail: None,
    };
    let part = any_text()
        .prop_map(|text| ContentPart::Text { text })
        .boxed();
    let user_part =
        prop_oneof![4 => part.clone(), 1 => Just(()).prop_map(move |()| image())].boxed();
    let call = (
        "[a-z.:]{1,8}",
        prop_oneof![
            Just(""),
            Just("{\"b\":1, \"a\":{\"content\":[]}}"),
            Just("{ }")
        ],
    )
        .prop_map(|(id, arguments)| ToolCall {
            id,
            name: "f".to_owned(),
            arguments: arguments.to_owned(),
        });
    let message = |role| {
        move |content| Message {
            content,
            ..Message::text(role, "")
        }
    };
    prop_oneof![
        prop::collection::vec(part.clone(), 1..3).prop_map(message(Role::System)),
        prop::collection::vec(part.clone(), 1..3).prop_map(message(Role::Developer)),
        prop::collection::vec(user_part.clone(), 1..4).prop_map(message(Role::User)),
        (
            prop::collection::vec(part, 0..3),
            prop::collection::vec(call, 0..3)
        )
            .prop_map(|(content, tool_calls)| Message {
                content,
                tool_calls,
                ..Message::text(Role::Assistant, "")
            }),
        ("[a-z.:]{1,8}", prop::collection::vec(user_part, 1..3)).prop_map(|(id, content)| {
            Message {
                content,
                tool_call_id: Some(id),
                ..Message::text(Role::Tool, "")
            }
        }),
    ]
}

fn any_messages(max: usize) -> impl Strategy<Value = Vec<Message>> {
    prop::collection::vec(any_message(), 0..max)
}

fn any_seconds() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![Just(None), Just(Some(300)), Just(Some(3_600))]
}

fn case(model: &str) -> Case {
    let provider = if model == CLAUDE {
        "anthropic"
    } else {
        "bedrock"
    };
    Case::from_json(&json!({"provider": provider, "model": model}))
}

/// Lifetimes of a body's markers in the order in which they are processed, seconds.
fn lifetimes(body: &Value) -> Vec<u32> {
    fn collect(value: &Value, out: &mut Vec<u32>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, out)),
            Value::Object(object) => {
                for (key, value) in object {
                    if key == "cache_control" || key == "cachePoint" {
                        out.push(if value["ttl"] == "1h" { 3_600 } else { 300 });
                    } else {
                        collect(value, out);
                    }
                }
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    for part in [
        &body["tools"],
        &body["toolConfig"],
        &body["system"],
        &body["messages"],
    ] {
        collect(part, &mut out);
    }
    out
}

proptest! {
    #[test]
    fn any_conversation_becomes_a_body_that_the_rules_allow(
        initial in any_messages(5),
        history in any_messages(6),
        previous_history in 0_usize..8,
        new in any_messages(3),
        initial_seconds in any_seconds(),
        history_seconds in any_seconds(),
        has_tools in any::<bool>(),
        has_tenant_line in any::<bool>(),
    ) {
        for model in [CLAUDE, BEDROCK_CLAUDE, BEDROCK_NOVA] {
            let mut case = case(model);
            case.composed.new.splice(0..0, new.iter().cloned());
            let tools = vec![Tool { name: "f".to_owned(), description: None, parameters: None, strict: None }];
            case.context = Some(CaseContext {
                initial: initial.clone(),
                tools: if has_tools { tools } else { Vec::new() },
                history: history.clone(),
                previous_history,
                markers: Markers { initial_seconds, history_seconds },
                tenant_line: has_tenant_line.then(|| "tenant".to_owned()),
            });
            let body = body_json(&case.chat().unwrap());
            check_body(&body, model)?;
            check_body(&body_json(&case.hold().unwrap()), model)?;

            let prefix = case.prefix().unwrap().unwrap();
            let context = case.context.as_mut().unwrap();
            let mut turns = 0;
            while context.history.pop().is_some() || turns == 0 {
                turns += 1;
                context.previous_history = context.history.len() / 2;
                let parts = holdfast_protocol::upstream::PrefixParts {
                    initial: &context.initial,
                    history: &context.history,
                    previous_history: context.previous_history,
                    tools: &context.tools,
                    markers: context.markers,
                    tenant_line: context.tenant_line.as_deref(),
                };
                let other_turn = case.dialect.encode_prefix(&parts, &case.rules).unwrap();
                prop_assert_eq!(&prefix.tools, &other_turn.tools);
                prop_assert_eq!(&prefix.system, &other_turn.system);
                prop_assert_eq!(&prefix.initial, &other_turn.initial);
            }
        }
    }

    /// What an upstream sees of a session, markers aside, only ever grows at its end.
    #[test]
    fn a_turn_that_is_remembered_is_what_was_sent(
        initial in any_messages(4),
        history in any_messages(5),
        turn in any_messages(3),
    ) {
        for model in [CLAUDE, BEDROCK_CLAUDE] {
            let blocks = |history: &[Message], new: &[Message]| {
                let mut case = case(model);
                case.composed.new.splice(0..0, new.iter().cloned());
                case.context = Some(CaseContext {
                    initial: initial.clone(),
                    history: history.to_vec(),
                    previous_history: history.len() / 2,
                    markers: Markers { initial_seconds: Some(3_600), history_seconds: Some(300) },
                    ..CaseContext::default()
                });
                let mut blocks = blocks_without_markers(&case.body());
                // The question that every case ends with.
                blocks.pop();
                blocks
            };
            let sent = blocks(&history, &turn);
            let remembered = blocks(&[&history[..], &turn].concat(), &[]);
            prop_assert_eq!(sent, remembered);
        }
    }

    #[test]
    fn any_bytes_decode_without_a_panic(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..6),
    ) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        for dialect in DIALECTS {
            let events = decode(dialect, &pieces);
            prop_assert!(events.iter().rev().skip(1).all(Result::is_ok));
        }
    }

    #[test]
    fn damaged_streams_decode_without_a_panic(
        chosen in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let streams = streams();
        let (_, dialect, mut bytes) = streams[chosen.index(streams.len())].clone();
        for (position, byte) in damage {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        let (first, second) = bytes.split_at(cut.index(bytes.len()));
        prop_assert_eq!(decode(dialect, &[first, second]), decode(dialect, &[&bytes]));
    }

    /// Checksums hide what is behind them from the tests above.
    #[test]
    fn frames_of_any_content_decode_without_a_panic(
        frames in prop::collection::vec(any_frame(), 0..8),
    ) {
        let mut bytes = Vec::new();
        for (kind, name, payload) in &frames {
            let name_header = match kind.as_str() {
                "event" => ":event-type",
                "exception" => ":exception-type",
                _ => ":error-code",
            };
            frame(&[(":message-type", kind), (name_header, name)], payload, &mut bytes);
        }
        let events = decode(UpstreamDialectName::BedrockConverse, &[&bytes]);
        prop_assert!(events.iter().rev().skip(1).all(Result::is_ok));
        prop_assert!(!events.is_empty());
    }
}

fn any_frame() -> impl Strategy<Value = (String, String, String)> {
    let kind =
        prop_oneof![8 => Just("event"), 1 => Just("exception"), 1 => Just("error"), 1 => Just("x")];
    let name = prop_oneof![
        Just("messageStart"),
        Just("contentBlockStart"),
        Just("contentBlockDelta"),
        Just("contentBlockStop"),
        Just("messageStop"),
        Just("metadata"),
        Just("throttlingException"),
    ];
    let payload = prop_oneof![
        Just("{}"),
        Just("[]"),
        Just("null"),
        Just("x"),
        Just(
            "{\"contentBlockIndex\":0,\"start\":{\"toolUse\":{\"toolUseId\":\"t\",\"name\":\"f\"}}}"
        ),
        Just("{\"contentBlockIndex\":0,\"delta\":{\"toolUse\":{\"input\":\"{\"}}}"),
        Just("{\"contentBlockIndex\":-1,\"delta\":{\"text\":7}}"),
        Just("{\"stopReason\":\"tool_use\"}"),
        Just(
            "{\"usage\":{\"inputTokens\":1e30,\"cacheDetails\":[{\"ttl\":\"1h\",\"inputTokens\":4294967295},7]}}"
        ),
    ];
    (kind, name, payload)
        .prop_map(|(kind, name, payload)| (kind.to_owned(), name.to_owned(), payload.to_owned()))
}

fn check_body(body: &Value, model: &str) -> Result<(), TestCaseError> {
    let lifetimes = lifetimes(body);
    prop_assert!(lifetimes.len() <= 4, "{lifetimes:?}");
    prop_assert!(
        lifetimes.is_sorted_by(|first, second| first >= second),
        "{lifetimes:?}"
    );
    if model == BEDROCK_NOVA {
        prop_assert!(!lifetimes.contains(&3_600));
    }
    let messages = body["messages"].as_array().unwrap();
    prop_assert!(!messages.is_empty());
    for message in messages {
        let content = message["content"].as_array().unwrap();
        prop_assert!(!content.is_empty());
        for block in content {
            if let Some(text) = block["text"].as_str() {
                prop_assert!(!text.trim().is_empty());
            }
        }
    }
    if model != CLAUDE {
        for pair in messages.windows(2) {
            prop_assert_ne!(&pair[0]["role"], &pair[1]["role"]);
        }
        // A point marks what is before it.
        for list in messages
            .iter()
            .map(|message| &message["content"])
            .chain([&body["system"]])
        {
            let is_point = |block: &Value| block.get("cachePoint").is_some();
            let blocks = list.as_array().map(Vec::as_slice).unwrap_or_default();
            prop_assert!(
                !blocks
                    .windows(2)
                    .any(|pair| is_point(&pair[0]) && is_point(&pair[1]))
            );
        }
    }
    Ok(())
}

/// The blocks of a body with their speakers, in order.
fn blocks_without_markers(body: &Value) -> Vec<(String, Value)> {
    let mut out = Vec::new();
    for block in body["system"].as_array().into_iter().flatten() {
        out.push(("system".to_owned(), block.clone()));
    }
    for message in body["messages"].as_array().unwrap() {
        for block in message["content"].as_array().unwrap() {
            out.push((message["role"].as_str().unwrap().to_owned(), block.clone()));
        }
    }
    out.retain(|(_, block)| block.get("cachePoint").is_none());
    for (_, block) in &mut out {
        block.as_object_mut().unwrap().shift_remove("cache_control");
    }
    out
}
