#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::ResponseBuilder;
use crate::chat::{
    ChatEvent, ChatHead, ContentPart, Delta, FinishReason, Message, Role, TokenLogprob, ToolCall,
};
use crate::error::ErrorKind;
use crate::usage::Usage;

fn builder() -> ResponseBuilder {
    ResponseBuilder::new(ChatHead {
        id: "chatcmpl-1".to_owned(),
        created: 7,
        model: "m".to_owned(),
    })
}

fn delta(choice: u32, delta: Delta) -> ChatEvent {
    ChatEvent::Delta { choice, delta }
}

fn text(choice: u32, text: &str) -> ChatEvent {
    let logprobs = Vec::new();
    let text = text.to_owned();
    delta(choice, Delta::Text { text, logprobs })
}

fn finish(choice: u32, reason: FinishReason) -> ChatEvent {
    ChatEvent::Finish { choice, reason }
}

fn done() -> ChatEvent {
    ChatEvent::Done {
        usage: Usage {
            input_tokens: 5,
            output_tokens: 2,
            ..Usage::default()
        },
        receipt: None,
    }
}

#[test]
fn choices_that_come_interleaved_are_collected_each() {
    let mut builder = builder();
    for event in [
        text(1, "b"),
        text(0, "a"),
        delta(
            0,
            Delta::Reasoning {
                text: "h".to_owned(),
            },
        ),
        delta(
            0,
            Delta::Reasoning {
                text: "m".to_owned(),
            },
        ),
        text(0, "a"),
        finish(1, FinishReason::Length),
        finish(0, FinishReason::Stop),
        done(),
    ] {
        builder.event(&event);
    }
    let response = builder.finish().unwrap();
    assert_eq!((response.id.as_str(), response.created), ("chatcmpl-1", 7));
    assert_eq!(response.usage.total_tokens(), 7);
    let expected = Message {
        reasoning: Some("hm".to_owned()),
        ..Message::text(Role::Assistant, "aa")
    };
    assert_eq!(response.choices[0].message, expected);
    assert_eq!(response.choices[0].finish_reason, FinishReason::Stop);
    assert_eq!(
        response.choices[1].message,
        Message::text(Role::Assistant, "b")
    );
    assert_eq!(response.choices[1].finish_reason, FinishReason::Length);
}

#[test]
fn tool_calls_are_put_together_and_need_no_text() {
    let mut builder = builder();
    let start = |index: u32, name: &str| {
        let (id, name) = (format!("call_{index}"), name.to_owned());
        delta(0, Delta::ToolCallStart { index, id, name })
    };
    let more = |index: u32, fragment: &str| {
        let fragment = fragment.to_owned();
        delta(0, Delta::ToolCallArguments { index, fragment })
    };
    for event in [
        start(0, "f"),
        more(0, "{\"a\""),
        start(1, "g"),
        more(1, "{}"),
        more(0, ":1}"),
        more(9, "of a call that never began"),
        finish(0, FinishReason::ToolCalls),
    ] {
        builder.event(&event);
    }
    let message = builder.finished_choice(0).unwrap().message;
    let call = |id: &str, name: &str, arguments: &str| ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    };
    assert_eq!(message.content, []);
    assert_eq!(
        message.tool_calls,
        [call("call_0", "f", "{\"a\":1}"), call("call_1", "g", "{}")]
    );
}

#[test]
fn an_empty_answer_is_an_empty_text_and_logprobs_are_kept() {
    let mut builder = builder();
    let token = TokenLogprob {
        token: String::new(),
        bytes: Vec::new(),
        logprob: -1.0,
        top: Vec::new(),
    };
    let (text, logprobs) = (String::new(), vec![token.clone()]);
    builder.event(&delta(0, Delta::Text { text, logprobs }));
    assert_eq!(builder.finished_choice(0), None);
    builder.event(&finish(0, FinishReason::Stop));
    let choice = builder.finished_choice(0).unwrap();
    let text = String::new();
    assert_eq!(choice.message.content, [ContentPart::Text { text }]);
    assert_eq!(choice.logprobs, Some(vec![token]));
}

#[test]
fn an_answer_that_did_not_end_is_no_answer() {
    let mut without_done = builder();
    without_done.event(&text(0, "a"));
    without_done.event(&finish(0, FinishReason::Stop));
    assert_eq!(without_done.finish().unwrap_err().kind, ErrorKind::Internal);

    let mut without_finish = builder();
    without_finish.event(&text(0, "a"));
    without_finish.event(&done());
    assert_eq!(
        without_finish.finish().unwrap_err().kind,
        ErrorKind::Internal
    );
}
