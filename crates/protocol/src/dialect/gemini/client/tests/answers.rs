mod cases;

use bytes::Bytes;
use serde_json::{Value, json};

use self::cases::{answers, finish, text};
use super::super::{StreamForm, Writer, decode_request};
use super::check;
use crate::chat::{ChatEvent, ChatHead, ContentPart, FinishReason};
use crate::collect::ResponseBuilder;
use crate::dialect::AnswerWriter;
use crate::error::ApiError;
use crate::sse;
use crate::usage::Usage;

fn head() -> ChatHead {
    ChatHead {
        id: "chatcmpl-1".to_owned(),
        created: 1_800_000_000,
        model: "gemini".to_owned(),
    }
}

fn usage() -> Usage {
    Usage {
        input_tokens: 1_000,
        cached_input_tokens: 700,
        cache_write_tokens: 200,
        output_tokens: 20,
        reasoning_tokens: 5,
    }
}

fn with_end(events: &[ChatEvent]) -> Vec<ChatEvent> {
    let done = ChatEvent::Done {
        usage: usage(),
        receipt: None,
    };
    [events, &[done]].concat()
}

fn writer(name: &str, form: StreamForm) -> Writer {
    Writer::new(form, name != "hidden_thinking")
}

fn streamed(mut writer: Writer, events: &[ChatEvent]) -> String {
    let known = Usage {
        input_tokens: 1_000,
        ..Usage::default()
    };
    let mut stream = writer.begin(&head(), &known).to_vec();
    for event in events {
        stream.extend_from_slice(&writer.event(event));
    }
    stream.extend_from_slice(&writer.end());
    String::from_utf8(stream).unwrap()
}

fn whole(mut writer: Writer, events: &[ChatEvent]) -> Value {
    let mut builder = ResponseBuilder::new(head());
    for event in events {
        builder.event(event);
    }
    let body = writer.whole(&builder.finish().unwrap());
    serde_json::from_slice(&body).unwrap()
}

fn chunks(stream: &str) -> Vec<Value> {
    let mut decoder = sse::Decoder::new(1 << 20);
    let events = decoder.push(stream.as_bytes()).unwrap();
    let events = events.into_iter();
    events
        .map(|event| serde_json::from_str(&event.data).unwrap())
        .collect()
}

/// All that the parts of a choice's chunks say.
fn parts(chunks: &[Value], choice: u32) -> Vec<Value> {
    let candidates = chunks
        .iter()
        .flat_map(|chunk| chunk["candidates"].as_array().unwrap());
    candidates
        .filter(|candidate| candidate["index"] == choice)
        .flat_map(|candidate| candidate["content"]["parts"].as_array().cloned())
        .flatten()
        .collect()
}

#[test]
fn answers_are_written() {
    for (name, events) in answers() {
        let events = with_end(&events);
        let stream = streamed(writer(name, StreamForm::Sse), &events);
        check(&format!("stream_{name}.sse"), &stream);
        let array = streamed(writer(name, StreamForm::Array), &events);
        check(&format!("array_{name}.json"), &array);
        let array: Vec<Value> = serde_json::from_str(&array).unwrap();
        assert_eq!(array, chunks(&stream), "{name}");
        let whole = whole(writer(name, StreamForm::Sse), &events);
        check(&format!("whole_{name}.json"), &format!("{whole:#}\n"));
    }
}

#[test]
fn a_stream_says_what_the_whole_answer_says() {
    for (name, events) in answers() {
        let events = with_end(&events);
        let chunks = chunks(&streamed(writer(name, StreamForm::Sse), &events));
        let whole = whole(writer(name, StreamForm::Sse), &events);
        for (index, candidate) in whole["candidates"].as_array().unwrap().iter().enumerate() {
            let joined = |parts: &[Value], is_thought: bool| -> String {
                let parts = parts.iter();
                parts
                    .filter(|part| part["thought"].is_boolean() == is_thought)
                    .filter_map(|part| part["text"].as_str())
                    .collect()
            };
            let rest = |parts: &[Value], key: &str| -> Vec<Value> {
                let values = parts.iter().map(|part| part[key].clone());
                values.filter(|value| !value.is_null()).collect()
            };
            let streamed = parts(&chunks, u32::try_from(index).unwrap());
            let at_once = parts(std::slice::from_ref(&whole), u32::try_from(index).unwrap());
            assert_eq!(joined(&streamed, true), joined(&at_once, true), "{name}");
            assert_eq!(joined(&streamed, false), joined(&at_once, false), "{name}");
            for key in ["functionCall", "thoughtSignature"] {
                assert_eq!(rest(&streamed, key), rest(&at_once, key), "{name}");
            }
            let finishes: Vec<_> = chunks
                .iter()
                .flat_map(|chunk| chunk["candidates"].as_array().unwrap())
                .filter(|piece| piece["index"] == index && !piece["finishReason"].is_null())
                .collect();
            assert_eq!(finishes.len(), 1, "{name}");
            assert_eq!(finishes[0]["finishReason"], candidate["finishReason"]);
            assert_eq!(finishes[0]["avgLogprobs"], candidate["avgLogprobs"]);
        }
        let last = chunks.last().unwrap();
        assert_eq!(last["usageMetadata"], whole["usageMetadata"], "{name}");
    }
}

#[test]
fn the_chunk_that_ends_an_answer_says_something() {
    for pieces in [vec!["O", "K"], vec!["OK."], vec!["é"], vec!["a", "", "b"]] {
        let mut events: Vec<_> = pieces.iter().map(|piece| text(piece)).collect();
        events.push(finish(FinishReason::Stop));
        let stream = streamed(Writer::new(StreamForm::Sse, false), &with_end(&events));
        for part in parts(&chunks(&stream), 0) {
            assert_ne!(part["text"], "", "{pieces:?}");
        }
    }
}

#[test]
fn an_end_waits_for_the_event_after_it() {
    let mut writer = Writer::new(StreamForm::Sse, false);
    writer.begin(&head(), &Usage::default());
    assert!(!writer.event(&text("Hello")).is_empty());
    assert!(writer.event(&finish(FinishReason::Stop)).is_empty());
    // The turn could not be committed: the client sees no end.
    let failed = writer.error(&ApiError::internal());
    let failed = String::from_utf8(failed.to_vec()).unwrap();
    assert!(failed.starts_with("data: {\"error\":"), "{failed}");
    assert!(!failed.contains("finishReason"));
}

#[test]
fn what_keeps_a_stream_alive_changes_nothing() {
    for form in [StreamForm::Sse, StreamForm::Array] {
        let mut writer = Writer::new(form, false);
        let mut stream = writer.begin(&head(), &Usage::default()).to_vec();
        stream.extend_from_slice(&writer.keep_alive());
        stream.extend_from_slice(&writer.event(&text("Hello")));
        stream.extend_from_slice(&writer.keep_alive());
        stream.extend_from_slice(&writer.event(&text(" you")));
        stream.extend_from_slice(&writer.end());
        stream.extend_from_slice(&writer.keep_alive());
        let stream = String::from_utf8(stream).unwrap();
        let found: Vec<Value> = match form {
            StreamForm::Sse => chunks(&stream),
            StreamForm::Array => serde_json::from_str(&stream).unwrap(),
        };
        assert_eq!(found.len(), 2, "{stream}");
    }
    assert_eq!(
        Writer::new(StreamForm::Array, false).stream_type(),
        "application/json"
    );
}

#[test]
fn an_answer_comes_back_as_it_was() {
    for (name, events) in answers() {
        if [
            "hidden_thinking",
            "two_choices",
            "cut_call",
            "seal_at_the_end",
        ]
        .contains(&name)
        {
            continue;
        }
        let events = with_end(&events);
        let mut builder = ResponseBuilder::new(head());
        for event in &events {
            builder.event(event);
        }
        let mut answer = builder.finish().unwrap().choices.remove(0).message;
        // In this dialect a refusal is text, and nothing is nothing.
        if let Some(refusal) = answer.refusal.take() {
            answer.content = vec![ContentPart::Text { text: refusal }];
        }
        for call in &mut answer.tool_calls {
            if call.arguments.is_empty() {
                call.arguments = "{}".to_owned();
            }
        }
        let chunks = chunks(&streamed(writer(name, StreamForm::Sse), &events));
        // As clients keep a stream: each piece is a content of its own.
        let mut contents: Vec<Value> = chunks
            .iter()
            .filter_map(|chunk| chunk["candidates"][0].get("content"))
            .cloned()
            .collect();
        contents.push(json!({"role": "user", "parts": [{"text": "And?"}]}));
        let body = Bytes::from(json!({"contents": contents}).to_string());
        let request = decode_request(&body, "m", false).unwrap();
        let mut messages = request.chat.messages;
        messages.pop();
        match answer.joined_text().is_empty() && answer.tool_calls.is_empty() {
            true => assert_eq!(messages, [], "{name}"),
            false => assert_eq!(messages, [answer], "{name}"),
        }
    }
}
