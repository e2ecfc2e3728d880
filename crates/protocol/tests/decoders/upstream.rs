//! What upstreams send.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use holdfast_protocol::chat::{ChatEvent, ChatHead, Delta};
use holdfast_protocol::collect::ResponseBuilder;
use holdfast_protocol::dialect;
use holdfast_protocol::provider::{self, ModelRules, UpstreamDialectName};
use holdfast_protocol::upstream::{AnswerEvent, Failure, Held, UpstreamDialect};
use holdfast_protocol::usage::BilledUsage;

use crate::draw::{Draw, cuttings};

/// Models of families that providers treat differently.
const MODELS: &[&str] = &[
    "gpt-6.1-sol",
    "gpt-4.1",
    "claude-opus-5-5",
    "anthropic/claude-sonnet-4.6",
    "us.anthropic.claude-opus-5-5",
    "gemini-3-pro",
    "qwen3-max",
    "doubao-seed-1-6",
    "kimi-k2",
    "something-else",
];
/// The longest message of a failure, characters, and the longest name of a field in it, bytes.
const MESSAGE_MAX: usize = 600;
const PARAM_MAX: usize = 200;
/// Counts beyond 32 bits are nonsense; a total is a sum of few of them.
const TOKENS_MAX: u64 = 8 * u32::MAX as u64;

type Events = Vec<Result<AnswerEvent, Failure>>;

/// Streams, whole answers, answers to holds and errors of upstreams that speak `name`.
pub(crate) fn upstream(name: UpstreamDialectName, data: &[u8]) {
    stream(name, data);
    bodies(name, data);
}

/// What some provider that speaks `name` wants for some model.
pub(crate) fn rules(name: UpstreamDialectName, draw: &mut Draw) -> ModelRules {
    let speakers: Vec<_> = provider::ALL
        .iter()
        .filter(|provider| provider.speaks(name))
        .collect();
    (draw.of_these(&speakers).rules)(name, draw.of_these(MODELS))
}

/// A streamed answer means the same wherever its bytes are cut, and keeps to the order of [`AnswerEvent`].
pub(crate) fn stream(name: UpstreamDialectName, data: &[u8]) {
    let dialect = dialect::upstream(name);
    let rules = rules(name, &mut Draw::of(data));
    let whole = answer(dialect, &rules, &[data]);
    check_answer(&whole);
    for pieces in cuttings(data) {
        assert_eq!(answer(dialect, &rules, &pieces), whole);
    }
}

fn answer(dialect: &dyn UpstreamDialect, rules: &ModelRules, pieces: &[&[u8]]) -> Events {
    let mut decoder = dialect.decoder(rules);
    let mut events = Events::new();
    for piece in pieces {
        events.extend(decoder.push(piece));
    }
    events.extend(decoder.finish());
    check_usage(decoder.usage_so_far().as_ref());
    assert!(
        decoder.push(b"data: {}\n\n").is_empty(),
        "it goes on after its end"
    );
    assert!(decoder.finish().is_empty(), "it ends twice");
    events
}

fn check_answer(events: &Events) {
    let mut builder = ResponseBuilder::new(ChatHead {
        id: "chatcmpl-1".to_owned(),
        created: 0,
        model: "m".to_owned(),
    });
    let mut choices: BTreeMap<u32, Choice> = BTreeMap::new();
    let (last, before) = events.split_last().expect("an answer has an end");
    for event in before {
        let event = match event {
            Ok(AnswerEvent::Delta { choice, delta }) => {
                choices.entry(*choice).or_default().grow(delta);
                ChatEvent::Delta {
                    choice: *choice,
                    delta: delta.clone(),
                }
            }
            Ok(AnswerEvent::Finish { choice, reason }) => {
                choices.entry(*choice).or_default().finish();
                ChatEvent::Finish {
                    choice: *choice,
                    reason: *reason,
                }
            }
            Ok(AnswerEvent::Done(_)) => panic!("something follows the end"),
            Err(_) => panic!("something follows a failure"),
        };
        builder.event(&event);
    }
    match last {
        Ok(AnswerEvent::Done(end)) => {
            check_usage(end.usage.as_ref());
            builder.event(&ChatEvent::Done {
                usage: end.usage.unwrap_or_default().to_usage(),
                receipt: None,
            });
            let response = builder.finish().expect("all choices have finished");
            assert_eq!(response.choices.len(), choices.len());
            assert!(!choices.is_empty(), "an answer without a choice");
        }
        Ok(event) => panic!("the last event is {event:?}"),
        Err(failure) => check_failure(failure),
    }
}

#[derive(Default)]
struct Choice {
    has_finished: bool,
    calls: BTreeSet<u32>,
}

impl Choice {
    fn grow(&mut self, delta: &Delta) {
        assert!(!self.has_finished, "a choice goes on after its end");
        match delta {
            Delta::Text { text, logprobs } => {
                assert!(!text.is_empty() || !logprobs.is_empty());
                for token in logprobs {
                    assert!(token.logprob.is_finite());
                    assert!(token.top.iter().all(|(_, _, logprob)| logprob.is_finite()));
                }
            }
            Delta::Reasoning { text } | Delta::Refusal { text } => assert!(!text.is_empty()),
            Delta::ToolCallStart { index, .. } => {
                assert!(self.calls.insert(*index), "a call begins twice");
            }
            Delta::ToolCallArguments { index, .. } => {
                assert!(
                    self.calls.contains(index),
                    "arguments of a call that has not begun"
                );
            }
            Delta::ReasoningSignature { .. } | Delta::StopSequence { .. } => {}
        }
    }

    fn finish(&mut self) {
        assert!(!self.has_finished, "a choice ends twice");
        self.has_finished = true;
    }
}

/// Answers that are not streamed.
pub(crate) fn bodies(name: UpstreamDialectName, data: &[u8]) {
    let dialect = dialect::upstream(name);
    let mut draw = Draw::of(data);
    let rules = rules(name, &mut draw);

    match twice(|| dialect.decode_hold(data, &rules)) {
        Ok(Held {
            handle,
            prefix_tokens,
            usage,
            ..
        }) => {
            assert_ne!(handle.as_deref(), Some(""));
            assert!(prefix_tokens.unwrap_or_default() <= TOKENS_MAX);
            check_usage(usage.as_ref());
        }
        Err(failure) => check_failure(&failure),
    }
    match twice(|| dialect.decode_whole(data, &rules)) {
        Ok(end) => check_usage(end.usage.as_ref()),
        Err(failure) => check_failure(&failure),
    }
    // A header may hold anything, too.
    let first_line = data.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header = String::from_utf8_lossy(&first_line[..first_line.len().min(64)]);
    let status = draw.of_these(&[400, 403, 404, 408, 413, 422, 429, 500, 503, 529, 600]);
    let without = twice(|| dialect.failure(status, &|_| None, data));
    let with = twice(|| dialect.failure(status, &|_| Some(header.clone().into_owned()), data));
    for failure in [without, with] {
        check_failure(&failure);
        assert_eq!(failure.status, Some(status));
        let error = failure.to_api_error();
        assert!(error.message.chars().count() <= 2 * MESSAGE_MAX);
    }
}

/// The same answer for the same bytes.
pub(crate) fn twice<T: Debug + PartialEq>(decode: impl Fn() -> T) -> T {
    let first = decode();
    assert_eq!(decode(), first, "two answers for the same bytes");
    first
}

fn check_usage(usage: Option<&BilledUsage>) {
    let Some(usage) = usage else {
        return;
    };
    for tokens in [
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_writes.total(),
        usage.output_tokens,
        usage.reasoning_tokens,
    ] {
        assert!(tokens <= TOKENS_MAX, "{usage:?}");
    }
}

fn check_failure(failure: &Failure) {
    assert!(failure.message.chars().count() <= MESSAGE_MAX);
    assert!(failure.param.as_deref().unwrap_or_default().len() <= PARAM_MAX);
}
