//! Answers as events.

use crate::chat::{ChatEvent, Delta, FinishReason, ReasoningSignature, TokenLogprob};

fn delta(delta: Delta) -> ChatEvent {
    ChatEvent::Delta { choice: 0, delta }
}

pub(super) fn text(text: &str) -> ChatEvent {
    said(0, text, Vec::new())
}

fn said(choice: u32, text: &str, logprobs: Vec<TokenLogprob>) -> ChatEvent {
    let text = text.to_owned();
    ChatEvent::Delta {
        choice,
        delta: Delta::Text { text, logprobs },
    }
}

fn thought(text: &str) -> ChatEvent {
    let text = text.to_owned();
    delta(Delta::Reasoning { text })
}

fn seal(dialect: &str) -> ChatEvent {
    delta(Delta::ReasoningSignature {
        signature: ReasoningSignature::new(dialect, "c2ln"),
    })
}

fn call(index: u32, id: &str, fragments: &[&str]) -> Vec<ChatEvent> {
    let start = Delta::ToolCallStart {
        index,
        id: id.to_owned(),
        name: "get_weather".to_owned(),
    };
    let fragments = fragments.iter().map(|fragment| Delta::ToolCallArguments {
        index,
        fragment: (*fragment).to_owned(),
    });
    [start].into_iter().chain(fragments).map(delta).collect()
}

pub(super) fn finish(reason: FinishReason) -> ChatEvent {
    ChatEvent::Finish { choice: 0, reason }
}

fn token(token: &str, logprob: f32) -> TokenLogprob {
    let entry = |token: &str, logprob| (token.to_owned(), token.as_bytes().to_vec(), logprob);
    TokenLogprob {
        token: token.to_owned(),
        bytes: token.as_bytes().to_vec(),
        logprob,
        top: vec![entry(token, logprob), entry("other", f32::NEG_INFINITY)],
    }
}

pub(super) fn answers() -> Vec<(&'static str, Vec<ChatEvent>)> {
    let stop = || vec![finish(FinishReason::Stop)];
    let tools = || vec![finish(FinishReason::ToolCalls)];
    vec![
        ("text", [vec![text("Hel"), text("lo.")], stop()].concat()),
        (
            "tools",
            [
                vec![text("I look.")],
                call(0, "toolu_1", &["{\"city\":", "\"Oslo\"}"]),
                call(1, "gem_fc-2~c2lnMg", &["{}"]),
                call(2, "call_r_2~c2lnMw", &[]),
                tools(),
            ]
            .concat(),
        ),
        (
            "cut_call",
            [
                call(0, "toolu_1", &["{\"city\": \"Os"]),
                vec![finish(FinishReason::Length)],
            ]
            .concat(),
        ),
        (
            "thinking",
            [
                vec![thought("Let me "), thought("see."), seal("gemini")],
                vec![text("F"), text("our"), text(".")],
                stop(),
            ]
            .concat(),
        ),
        (
            "hidden_thinking",
            [
                vec![thought("Let me see."), seal("anthropic"), text("Four.")],
                stop(),
            ]
            .concat(),
        ),
        (
            "foreign_seal",
            [
                vec![thought("Hm."), thought(" So"), seal("anthropic")],
                vec![text("Four.")],
                stop(),
            ]
            .concat(),
        ),
        (
            "foreign_seal_alone",
            [
                vec![seal("anthropic")],
                call(0, "toolu_1", &["{}"]),
                tools(),
            ]
            .concat(),
        ),
        (
            "seal_beside_signed_call",
            [
                vec![seal("gemini")],
                call(0, "gem_fc-1~c2lnMQ", &["{}"]),
                tools(),
            ]
            .concat(),
        ),
        (
            "seal_at_the_end",
            vec![thought("Hm."), seal("gemini"), finish(FinishReason::Length)],
        ),
        (
            "refusal",
            vec![
                delta(Delta::Refusal {
                    text: "I can't.".to_owned(),
                }),
                finish(FinishReason::ContentFilter),
            ],
        ),
        ("filtered", vec![finish(FinishReason::ContentFilter)]),
        ("nothing", stop()),
        (
            "stop_sequence",
            [
                vec![
                    text("One"),
                    delta(Delta::StopSequence {
                        text: "END".to_owned(),
                    }),
                ],
                stop(),
            ]
            .concat(),
        ),
        (
            "logprobs",
            [
                vec![
                    said(0, "Hi", vec![token("Hi", -0.1)]),
                    said(0, "", vec![token("\u{fffd}", -0.5)]),
                    said(0, "é", vec![token("\u{fffd}", 0.0)]),
                ],
                stop(),
            ]
            .concat(),
        ),
        (
            "two_choices",
            vec![
                said(0, "One", Vec::new()),
                said(1, "Eins", Vec::new()),
                finish(FinishReason::Stop),
                said(1, "!", Vec::new()),
                ChatEvent::Finish {
                    choice: 1,
                    reason: FinishReason::Length,
                },
            ],
        ),
        (
            "line_ends",
            [vec![text("a\u{2028}b\u{85}c\nd\u{2029}e")], stop()].concat(),
        ),
    ]
}
