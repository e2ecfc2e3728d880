//! Answers as they are written.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{check, decoded};
use crate::chat::{
    ChatEvent, ChatHead, ChatResponse, Delta, FinishReason, ReasoningSignature, TokenLogprob,
};
use crate::collect::ResponseBuilder;
use crate::dialect::AnswerWriter;
use crate::dialect::responses::client::{
    Echo, ResponseHead, Surface, Writer, messages_of_items, output_items, response_object,
};
use crate::error::{ApiError, ErrorKind};
use crate::sse;
use crate::usage::{CacheStatus, Receipt, Source, Usage};

fn delta(delta: Delta) -> ChatEvent {
    ChatEvent::Delta { choice: 0, delta }
}

fn text(text: &str) -> ChatEvent {
    delta(Delta::Text {
        text: text.to_owned(),
        logprobs: Vec::new(),
    })
}

fn thinking(text: &str) -> ChatEvent {
    let text = text.to_owned();
    delta(Delta::Reasoning { text })
}

fn seal(dialect: &str) -> ChatEvent {
    let signature = ReasoningSignature::new(dialect, "c2ln");
    delta(Delta::ReasoningSignature { signature })
}

fn refusal(text: &str) -> ChatEvent {
    let text = text.to_owned();
    delta(Delta::Refusal { text })
}

fn begins(index: u32, id: &str) -> ChatEvent {
    delta(Delta::ToolCallStart {
        index,
        id: id.to_owned(),
        name: "get_weather".to_owned(),
    })
}

fn goes_on(index: u32, fragment: &str) -> ChatEvent {
    let fragment = fragment.to_owned();
    delta(Delta::ToolCallArguments { index, fragment })
}

pub(super) fn finish(reason: FinishReason) -> ChatEvent {
    ChatEvent::Finish { choice: 0, reason }
}

fn unlikely() -> ChatEvent {
    let token = |text: &str, logprob| (text.to_owned(), text.as_bytes().to_vec(), logprob);
    delta(Delta::Text {
        text: "Hi".to_owned(),
        logprobs: vec![TokenLogprob {
            token: "Hi".to_owned(),
            bytes: b"Hi".to_vec(),
            logprob: -0.1,
            top: vec![token("Hi", -0.1), token("Ho", f32::NEG_INFINITY)],
        }],
    })
}

/// The request that is answered, and what happens.
fn answers() -> Vec<(&'static str, &'static str, Vec<ChatEvent>)> {
    use FinishReason::{ContentFilter, Length, Stop, ToolCalls};
    let plain = "request_text.json";
    let full = "request_everything.json";
    let ark = "request_ark_options.json";
    let two_calls = || {
        vec![
            text("I look."),
            begins(0, "c1"),
            goes_on(0, "{\"city\":"),
            goes_on(0, "\"Oslo\"}"),
            begins(1, "c2"),
            finish(ToolCalls),
        ]
    };
    let mixed_calls = vec![
        begins(0, "c1"),
        goes_on(0, "{\"city\":"),
        begins(1, "c2"),
        goes_on(1, "{}"),
        goes_on(0, "\"Oslo\"}"),
        begins(2, "c3"),
        goes_on(2, "{\"a"),
        finish(Length),
    ];
    let thoughts = |maker: &str| {
        vec![
            thinking("Let me "),
            thinking("see."),
            seal(maker),
            text("Four."),
            finish(Stop),
        ]
    };
    vec![
        ("text", plain, vec![text("Hel"), text("lo."), finish(Stop)]),
        (
            "full",
            full,
            vec![thinking("Hm."), text("{}"), finish(Stop)],
        ),
        ("tools", plain, two_calls()),
        ("mixed_calls", plain, mixed_calls),
        ("reasoning", plain, thoughts("responses")),
        ("foreign_seal", plain, thoughts("gemini")),
        (
            "seal_alone",
            plain,
            vec![seal("responses"), text("Four."), finish(Stop)],
        ),
        ("logprobs", full, vec![unlikely(), finish(Stop)]),
        ("cut", plain, vec![text("Once upon"), finish(Length)]),
        (
            "cut_thinking",
            plain,
            vec![thinking("Well"), finish(Length)],
        ),
        (
            "refusal",
            plain,
            vec![refusal("I "), refusal("can't."), finish(Stop)],
        ),
        (
            "filtered",
            plain,
            vec![text("So,"), refusal("no."), finish(ContentFilter)],
        ),
        ("nothing", plain, vec![finish(Stop)]),
        (
            "continued",
            "request_previous.json",
            vec![text("Yes."), finish(Stop)],
        ),
        (
            "conversation",
            "request_conversation.json",
            vec![text("Yes."), finish(Stop)],
        ),
        ("ark_text", ark, vec![text("Yes."), finish(Stop)]),
        ("ark_tools", ark, two_calls()),
        (
            "ark_cut",
            ark,
            vec![thinking("Well,"), text("so"), finish(Length)],
        ),
        (
            "ark_refusal",
            ark,
            vec![refusal("I can't."), finish(ContentFilter)],
        ),
        (
            "ark_cached",
            "request_ark_caching.json",
            vec![text("Yes."), finish(Stop)],
        ),
    ]
}

pub(super) fn chat_head() -> ChatHead {
    ChatHead {
        id: "chatcmpl-1".to_owned(),
        created: 1_800_000_000,
        model: "gpt-6".to_owned(),
    }
}

pub(super) fn head(echo: Echo) -> ResponseHead {
    ResponseHead {
        id: "resp_0123abcd".to_owned(),
        echo,
    }
}

pub(super) fn done(receipt: Option<Receipt>) -> ChatEvent {
    ChatEvent::Done {
        usage: Usage {
            input_tokens: 1_000,
            cached_input_tokens: 700,
            cache_write_tokens: 200,
            output_tokens: 20,
            reasoning_tokens: 5,
        },
        receipt,
    }
}

fn receipt() -> Receipt {
    Receipt {
        context_id: "ctx-20260101000000-aaaaaaaaaaaaaaaaaaaaaaaaaa"
            .parse()
            .unwrap(),
        status: CacheStatus::Hit,
        reason: None,
        tier: None,
        prefix_tokens: 700,
        cached_tokens: 700,
        written_tokens: 0,
        source: Source::Provider,
        first_token_ms: None,
        upstream: Some("main".to_owned()),
        money: None,
        origin: None,
    }
}

pub(super) fn collected(events: &[ChatEvent]) -> ChatResponse {
    let mut builder = ResponseBuilder::new(chat_head());
    for event in events {
        builder.event(event);
    }
    builder.finish().unwrap()
}

pub(super) fn streamed(head: &ResponseHead, events: &[ChatEvent]) -> Bytes {
    let mut writer = Writer::new(head.clone());
    let mut stream = writer.begin(&chat_head(), &Usage::default()).to_vec();
    for event in events {
        stream.extend_from_slice(&writer.event(event));
    }
    stream.extend_from_slice(&writer.end());
    stream.into()
}

/// The data of each event, after a look at its frame.
pub(super) fn data_of(stream: &[u8]) -> Vec<Value> {
    let mut decoder = sse::Decoder::new(1 << 20);
    let events = decoder.push(stream).unwrap();
    assert_eq!(decoder.finish(), None);
    let data = (0_u64..).zip(events).map(|(number, event)| {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(data["type"], event.event.unwrap());
        assert_eq!(data["sequence_number"], number);
        data
    });
    data.collect()
}

#[test]
fn answers_are_written() {
    for (name, request, mut events) in answers() {
        events.push(done(matches!(name, "continued").then(receipt)));
        let head = head(decoded(request).echo);
        let stream = streamed(&head, &events);
        check(
            &format!("stream_{name}.sse"),
            std::str::from_utf8(&stream).unwrap(),
        );
        let response = collected(&events);
        let whole = Writer::new(head.clone()).whole(&response);
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        check(&format!("whole_{name}.json"), &format!("{whole:#}\n"));
        let kept = response_object(&head, &response);
        assert_eq!(kept, whole);
        assert_eq!(
            whole["output"],
            Value::Array(output_items(&head, &response))
        );
        // What is sent as it comes ends as what is sent at once.
        let last = data_of(&stream).pop().unwrap();
        assert_eq!(last["response"], whole, "{name}");
    }
}

#[test]
fn an_answer_is_input_of_a_later_request() {
    for (name, request, mut events) in answers() {
        events.push(done(None));
        let response = collected(&events);
        let items = output_items(&head(decoded(request).echo), &response);
        let messages = messages_of_items(&items).unwrap();
        let said = &response.choices[0].message;
        let Some(message) = messages.first() else {
            assert_eq!(name, "cut_thinking");
            continue;
        };
        let mut words = said.joined_text();
        words.push_str(said.refusal.as_deref().unwrap_or_default());
        assert_eq!(message.joined_text(), words, "{name}");
        assert_eq!(message.reasoning, said.reasoning, "{name}");
        assert_eq!(message.reasoning_signature, said.reasoning_signature);
        assert_eq!(message.tool_calls.len(), said.tool_calls.len());
        assert_eq!(messages.len(), 1);
    }
}

#[test]
fn text_after_thinking_after_text_is_items_of_their_own() {
    let events = [
        text("One."),
        thinking("Hm."),
        text("Two."),
        finish(FinishReason::Stop),
        done(None),
    ];
    let head = head(decoded("request_text.json").echo);
    let data = data_of(&streamed(&head, &events));
    let output = data.last().unwrap()["response"]["output"].clone();
    let ids: Vec<_> = output
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["id"])
        .collect();
    assert_eq!(ids, ["msg_0123abcd", "rs_0123abcd", "msg_0123abcd_1"]);
    assert_eq!(output[2]["content"][0]["text"], "Two.");
}

#[test]
fn a_finish_waits_for_the_end() {
    let head = head(decoded("request_text.json").echo);
    let mut writer = Writer::new(head);
    writer.begin(&chat_head(), &Usage::default());
    writer.event(&text("Yes."));
    assert_eq!(writer.event(&finish(FinishReason::Stop)), Bytes::new());
    assert!(!writer.event(&done(None)).is_empty());
    assert_eq!(writer.end(), Bytes::new());
}

#[test]
fn a_failure_in_a_stream_ends_the_response() {
    let head = head(decoded("request_text.json").echo);
    let mut writer = Writer::new(head);
    let mut stream = writer.begin(&chat_head(), &Usage::default()).to_vec();
    stream.extend_from_slice(&writer.event(&text("Once")));
    stream.extend_from_slice(&writer.keep_alive());
    let error = ApiError::overloaded(std::time::Duration::from_secs(1));
    stream.extend_from_slice(&writer.error(&error));
    check("stream_failed.sse", std::str::from_utf8(&stream).unwrap());
    let data = data_of(&stream);
    let names: Vec<_> = data
        .iter()
        .map(|data| data["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        names[5..],
        ["response.in_progress", "response.failed"],
        "a quiet stream is kept open without a comment"
    );
    let response = &data.last().unwrap()["response"];
    assert_eq!(response["status"], "failed");
    assert_eq!(response["error"]["code"], "rate_limit_exceeded");
    assert_eq!(response["output"][0]["status"], "incomplete");
    assert_eq!(writer.keep_alive(), Bytes::new());
    let early = Writer::new(self::head(decoded("request_text.json").echo)).error(&error);
    assert_eq!(data_of(&early)[0]["type"], "error");
}

#[test]
fn failures_of_an_answer_have_codes_that_openai_knows() {
    for (kind, code) in [
        (ErrorKind::OutOfContext, "invalid_prompt"),
        (ErrorKind::InvalidMessage, "invalid_prompt"),
        (ErrorKind::RateLimited, "rate_limit_exceeded"),
        (ErrorKind::Overloaded, "rate_limit_exceeded"),
        (ErrorKind::ContextNotFound, "server_error"),
        (ErrorKind::Internal, "server_error"),
        (ErrorKind::Timeout, "server_error"),
    ] {
        let error = ApiError::new(kind, "What is wrong.");
        let event = Writer::new(head(Echo::new(Surface::OpenAi))).error(&error);
        let event = &data_of(&event)[0];
        assert_eq!(event["code"], code, "{kind:?}");
        assert_eq!(event["message"], "What is wrong.");
    }
}

#[test]
fn counts_never_add_up_to_more_than_the_input() {
    let mut response = collected(&[text("x"), finish(FinishReason::Stop), done(None)]);
    response.usage.cache_write_tokens = 900;
    let usage = |surface| response_object(&head(Echo::new(surface)), &response)["usage"].clone();
    assert_eq!(
        usage(Surface::OpenAi)["input_tokens_details"],
        json!({"cached_tokens": 700, "cache_write_tokens": 300})
    );
    assert_eq!(
        usage(Surface::Ark)["input_tokens_details"],
        json!({"cached_tokens": 700})
    );
}
