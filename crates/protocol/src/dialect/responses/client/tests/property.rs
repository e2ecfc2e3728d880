//! What holds for any request and any answer.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::answers::{chat_head, collected, data_of, done, finish, head, streamed};
use super::{NOW, decoded, requests, surface_of};
use crate::chat::{CachePoint, ChatEvent, Delta, FinishReason, Message, ReasoningSignature, Role};
use crate::dialect::responses::client::{
    Surface, decode_request, messages_of_items, response_object, with_ids,
};

#[test]
fn input_that_is_listed_means_the_same_when_it_is_read_again() {
    let mut count = 0;
    for (name, body) in requests() {
        let Ok(request) = decode_request(&body, surface_of(&name), NOW) else {
            continue;
        };
        if request.chat.inexpressible().is_some() {
            continue;
        }
        count += 1;
        let new = &request.chat.messages[request.instructions_end..];
        let named = with_ids(request.input.clone(), "resp_1", 0);
        assert_eq!(messages_of_items(&named).unwrap(), new, "{name}");
        let again = json!({"model": "m", "input": named}).to_string();
        let again = decode_request(&again.into(), surface_of(&name), NOW);
        if let Ok(again) = again {
            let points = again.chat.cache.points.iter().map(|point| CachePoint {
                messages: point.messages + request.instructions_end,
                ..*point
            });
            let has_context = request.chat.context_id.is_some();
            assert!(
                has_context || points.eq(request.chat.cache.points),
                "{name}"
            );
            assert_eq!(again.input, named, "{name}");
        }
    }
    assert!(count > 20);
}

/// An answer as providers give them: thinking, then text, then calls one after the other.
fn any_answer() -> impl Strategy<Value = Vec<ChatEvent>> {
    let thinking = proptest::collection::vec(".{1,8}", 0..3);
    let texts = proptest::collection::vec(".{1,8}", 0..4);
    let call = (".{1,8}", proptest::collection::vec(".{1,8}", 0..3));
    let calls = proptest::collection::vec(call, 0..4);
    let refusals = proptest::collection::vec(".{1,8}", 0..2);
    let reason = prop_oneof![
        Just(FinishReason::Stop),
        Just(FinishReason::Length),
        Just(FinishReason::ContentFilter),
    ];
    (thinking, any::<bool>(), texts, refusals, calls, reason).prop_map(
        |(thinking, is_sealed, texts, refusals, calls, reason)| {
            let mut deltas = Vec::new();
            deltas.extend(thinking.into_iter().map(|text| Delta::Reasoning { text }));
            if is_sealed {
                let signature = ReasoningSignature::new("anthropic", "c2ln");
                deltas.push(Delta::ReasoningSignature { signature });
            }
            deltas.extend(texts.into_iter().map(|text| Delta::Text {
                text,
                logprobs: Vec::new(),
            }));
            deltas.extend(refusals.into_iter().map(|text| Delta::Refusal { text }));
            for (index, (name, fragments)) in (0..).zip(calls) {
                let id = format!("call_{index}");
                deltas.push(Delta::ToolCallStart { index, id, name });
                let fragments = fragments.into_iter();
                deltas
                    .extend(fragments.map(|fragment| Delta::ToolCallArguments { index, fragment }));
            }
            let deltas = deltas.into_iter();
            let mut events: Vec<ChatEvent> = deltas
                .map(|delta| ChatEvent::Delta { choice: 0, delta })
                .collect();
            events.push(finish(reason));
            events.push(done(None));
            events
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    let role = prop_oneof![Just(Role::User), Just(Role::Assistant), Just(Role::System)];
    (role, ".{0,8}").prop_map(|(role, text)| Message::text(role, text))
}

/// What the deltas of a stream add up to, by item.
fn sums(data: &[Value]) -> Vec<(String, String)> {
    let mut sums: Vec<(String, String)> = Vec::new();
    for event in data {
        if event["type"] == "response.output_item.added" {
            let id = event["item"]["id"].as_str().unwrap();
            assert_eq!(event["output_index"], sums.len());
            sums.push((id.to_owned(), String::new()));
        }
        if let Some(delta) = event.get("delta") {
            let index = event["output_index"].as_u64().unwrap() as usize;
            assert_eq!(event["item_id"], sums[index].0);
            sums[index].1.push_str(delta.as_str().unwrap());
        }
    }
    sums
}

proptest! {
    #[test]
    fn a_stream_adds_up_to_the_whole_answer(events in any_answer(), is_ark in any::<bool>()) {
        let request = if is_ark { "request_ark_text.json" } else { "request_text.json" };
        let head = head(decoded(request).echo);
        let data = data_of(&streamed(&head, &events));
        let whole = response_object(&head, &collected(&events));
        prop_assert_eq!(&data.last().unwrap()["response"], &whole);
        let count = |name: &str| data.iter().filter(|event| event["type"] == name).count();
        let output = whole["output"].as_array().unwrap();
        prop_assert_eq!(count("response.output_item.added"), output.len());
        prop_assert_eq!(count("response.output_item.done"), output.len());
        prop_assert_eq!(count("response.content_part.added"), count("response.content_part.done"));
        let sums = sums(&data);
        for (item, (id, sum)) in output.iter().zip(&sums) {
            prop_assert_eq!(&item["id"], id);
            let parts = item["content"].as_array().or(item["summary"].as_array());
            let words: String = match parts {
                None => item["arguments"].as_str().unwrap().to_owned(),
                Some(parts) => parts
                    .iter()
                    .filter_map(|part| part["text"].as_str().or(part["refusal"].as_str()))
                    .collect(),
            };
            // Where arguments are only white space, what makes them whole comes after it.
            let is_same = *sum == words || (words == "{}" && sum.trim() == words);
            prop_assert!(is_same, "{sum:?} and {words:?}");
        }
    }

    #[test]
    fn earlier_turns_go_between_instructions_and_input(
        history in proptest::collection::vec(any_message(), 0..5),
        has_instructions in any::<bool>(),
    ) {
        let marked = json!({"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}});
        let mut body = json!({
            "model": "m",
            "previous_response_id": "resp_1",
            "input": [{"role": "user", "content": [marked, {"type": "input_text", "text": "b"}]}],
        });
        if has_instructions {
            body["instructions"] = "Be brief.".into();
        }
        let request = decode_request(&body.to_string().into(), Surface::OpenAi, NOW).unwrap();
        let before = request.chat.messages.clone();
        let after = request.clone().after(history.clone()).chat;
        let (instructions, new) = before.split_at(request.instructions_end);
        prop_assert_eq!(instructions.len(), usize::from(has_instructions));
        prop_assert_eq!(&after.messages, &[instructions, &history, new].concat());
        // The marker stays behind the message it stood behind.
        let marked = after.cache.points[0].messages;
        prop_assert_eq!(&after.messages[marked - 1], &new[0]);
        prop_assert_eq!(after.cache.points.len(), 1);
    }

    #[test]
    fn markers_change_nothing_but_where_messages_end(
        texts in proptest::collection::vec((".{0,8}", any::<bool>()), 1..6),
    ) {
        let part = |text: &str| json!({"type": "input_text", "text": text});
        let plain: Vec<Value> = texts.iter().map(|(text, _)| part(text)).collect();
        let marked: Vec<Value> = texts
            .iter()
            .map(|(text, is_marked)| {
                let mut part = part(text);
                if *is_marked {
                    part["prompt_cache_breakpoint"] = json!({"mode": "explicit", "ttl": "30m"});
                }
                part
            })
            .collect();
        let read = |parts: Vec<Value>| {
            let body = json!({"model": "m", "input": [{"role": "user", "content": parts}]});
            decode_request(&body.to_string().into(), Surface::OpenAi, NOW).unwrap().chat
        };
        let (plain, marked) = (read(plain), read(marked));
        let content: Vec<_> = marked.messages.iter().flat_map(|message| message.content.clone()).collect();
        prop_assert_eq!(&plain.messages[0].content, &content);
        let markers = texts.iter().filter(|(_, is_marked)| *is_marked).count();
        prop_assert_eq!(marked.cache.points.len(), markers);
        for (index, point) in marked.cache.points.iter().enumerate() {
            prop_assert_eq!(point.messages, index + 1);
            prop_assert_eq!(point.ttl_seconds, Some(1_800));
        }
    }

    #[test]
    fn a_damaged_request_is_read_or_refused(
        number in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let requests = requests();
        let (name, body) = &requests[number.index(requests.len())];
        let mut body = body.to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        if let Err(error) = decode_request(&Bytes::from(body), surface_of(name), NOW) {
            prop_assert_eq!(error.kind.status() / 100, 4);
        }
    }
}

#[test]
fn the_model_is_told_as_the_caller_says() {
    let events = [finish(FinishReason::Stop), done(None)];
    let head = head(decoded("request_text.json").echo);
    let response = response_object(&head, &collected(&events));
    assert_eq!(response["model"], chat_head().model);
    assert_eq!(response["id"], head.id);
}
