#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

/// An answer with neighbouring pieces of one kind joined.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Reasoning(String),
    Call(String, String, String),
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn reasoning(text: &str) -> Part {
    Part::Reasoning(text.to_owned())
}

fn call(id: u32, name: &str, arguments: &str) -> Part {
    Part::Call(format!("id{id}"), name.to_owned(), arguments.to_owned())
}

fn parser(output: ToolOutput) -> ToolParser {
    let mut count = 0;
    ToolParser::new(
        output,
        Box::new(move || {
            count += 1;
            format!("id{}", count - 1)
        }),
    )
}

fn join(deltas: Vec<Delta>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut calls = 0;
    for delta in deltas {
        match (delta, parts.last_mut()) {
            (Delta::Text { text, .. }, Some(Part::Text(before))) => before.push_str(&text),
            (Delta::Text { text, .. }, _) => parts.push(Part::Text(text)),
            (Delta::Reasoning { text }, Some(Part::Reasoning(before))) => before.push_str(&text),
            (Delta::Reasoning { text }, _) => parts.push(Part::Reasoning(text)),
            (Delta::ToolCallStart { index, id, name }, _) => {
                assert_eq!(index, calls);
                calls += 1;
                parts.push(Part::Call(id, name, String::new()));
            }
            (Delta::ToolCallArguments { index, fragment }, Some(Part::Call(_, _, arguments))) => {
                assert_eq!(index + 1, calls);
                arguments.push_str(&fragment);
            }
            (delta, last) => panic!("{delta:?} after {last:?}"),
        }
    }
    parts
}

fn run(mut parser: ToolParser, pieces: &[&str]) -> Vec<Part> {
    let mut deltas: Vec<Delta> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    let (last, saw_calls) = parser.finish();
    deltas.extend(last);
    let parts = join(deltas);
    assert_eq!(
        saw_calls,
        parts.iter().any(|part| matches!(part, Part::Call(..)))
    );
    parts
}

/// Answers in each mode with what they mean.
fn cases() -> Vec<(ToolOutput, &'static str, Vec<Part>)> {
    use ToolOutput::{Auto, Forced, None, Raw};
    vec![
        (None, "", vec![]),
        (
            None,
            "Hello <tool_call> {\"name\"",
            vec![text("Hello <tool_call> {\"name\"")],
        ),
        (None, " \n text ", vec![text(" \n text ")]),
        (
            Raw,
            " <think>\nhm</think> <tool_call>{}</tool_call>",
            vec![text(" <think>\nhm</think> <tool_call>{}</tool_call>")],
        ),
        (
            None,
            "<think>\nhm, a < b\n</think>\n\nYes.",
            vec![reasoning("hm, a < b"), text("Yes.")],
        ),
        (None, "\n<think></think>ok", vec![text("ok")]),
        (
            None,
            "<think>never ends </thin",
            vec![reasoning("never ends </thin")],
        ),
        (None, "<thin", vec![text("<thin")]),
        (None, "  <thing>", vec![text("  <thing>")]),
        (None, "a <think>b</think>", vec![text("a <think>b</think>")]),
        (
            Auto,
            "Just text, 1 < 2.\n",
            vec![text("Just text, 1 < 2.\n")],
        ),
        (
            Auto,
            "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"a\":  \"}\\\"</tool_call>\"}}\n</tool_call>",
            vec![call(0, "get", "{\"a\":  \"}\\\"</tool_call>\"}")],
        ),
        (
            Auto,
            "Let me look.\n\n<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>\n<tool_call>\n{\"name\":\"b\",\
             \"parameters\":{\"x\":[1]}}\n</tool_call>\nDone.",
            vec![
                text("Let me look."),
                call(0, "a", "{}"),
                call(1, "b", "{\"x\":[1]}"),
                text("Done."),
            ],
        ),
        (
            Auto,
            "<think>which?</think>\n<tool_call>{\"name\":\"a\",\"arguments\":{}}",
            vec![reasoning("which?"), call(0, "a", "{}")],
        ),
        (
            Auto,
            "<tool_call>{\"name\":\"a\",\"argum",
            vec![text("<tool_call>{\"name\":\"a\",\"argum")],
        ),
        (
            Auto,
            "see <tool_call> is a tag",
            vec![text("see <tool_call> is a tag")],
        ),
        (
            Auto,
            "x \n<tool_call>{broken}</tool_call> <tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>",
            vec![
                text("x \n<tool_call>{broken}</tool_call>"),
                call(0, "a", "{}"),
            ],
        ),
        (
            Auto,
            "<tool_call>{\"name\":\"a\",\"arguments\":3}</tool_call>",
            vec![text(
                "<tool_call>{\"name\":\"a\",\"arguments\":3}</tool_call>",
            )],
        ),
        (
            Auto,
            "[TOOL_CALLS][{\"name\":\"a\",\"arguments\":{\"x\":1}}, {\"name\":\"b\",\"arguments\":{},\"id\":\"1\"}]",
            vec![call(0, "a", "{\"x\":1}"), call(1, "b", "{}")],
        ),
        (
            Auto,
            r#"<|python_tag|>{"type":"function","name":"a","parameters":{}}; {"name":"b","parameters":{}}"#,
            vec![call(0, "a", "{}"), call(1, "b", "{}")],
        ),
        (
            Auto,
            "<|python_tag|>print(1)",
            vec![text("<|python_tag|>print(1)")],
        ),
        (
            Auto,
            "{\"name\": \"a\", \"parameters\": {\"q\": \"é\"}}\n",
            vec![call(0, "a", "{\"q\": \"é\"}")],
        ),
        (
            Auto,
            "{\"name\":\"a\",\"arguments\":{}}\n{\"name\":\"b\",\"arguments\":{}}",
            vec![call(0, "a", "{}"), call(1, "b", "{}")],
        ),
        (
            Auto,
            "[{\"name\":\"a\",\"arguments\":\"{\\\"x\\\": 1}\"}]",
            vec![call(0, "a", "{\"x\": 1}")],
        ),
        (
            Auto,
            "{\"function\":{\"name\":\"a\",\"arguments\":{}}}",
            vec![call(0, "a", "{}")],
        ),
        (
            Auto,
            "{\"name\":\"a\",\"arguments\":{}} is what I would call",
            vec![text(
                "{\"name\":\"a\",\"arguments\":{}} is what I would call",
            )],
        ),
        (Auto, "{\"answer\": 4}", vec![text("{\"answer\": 4}")]),
        (
            Auto,
            "{\"name\": \"Ann\", \"age\": 4}",
            vec![text("{\"name\": \"Ann\", \"age\": 4}")],
        ),
        (Auto, "[1, 2]", vec![text("[1, 2]")]),
        (Auto, "[] {\"name", vec![text("[] {\"name")]),
        (Auto, "{\"name\": \"a", vec![text("{\"name\": \"a")]),
        (
            Forced,
            "{\"name\": \"get\", \"arguments\": {\"a\": {\"b\": \"}{\\\\\\\"\"}, \"c\": [1]}}",
            vec![call(
                0,
                "get",
                "{\"a\": {\"b\": \"}{\\\\\\\"\"}, \"c\": [1]}",
            )],
        ),
        (
            Forced,
            "{\"name\":\"g\\u00e9\",\"arguments\":{}}",
            vec![call(0, "gé", "{}")],
        ),
        (
            Forced,
            "{\"name\":\"get\",\"arguments\":{\"a\": 1",
            vec![call(0, "get", "{\"a\": 1")],
        ),
        (Forced, "{\"name\":\"ge", vec![text("{\"name\":\"ge")]),
        (Forced, "sorry", vec![text("sorry")]),
        (
            Forced,
            "{\"name\":\"get\",\"arguments\":[]}",
            vec![text("{\"name\":\"get\",\"arguments\":[]}")],
        ),
    ]
}

#[test]
fn answers_mean_the_same_however_they_are_cut() {
    for (output, answer, expected) in cases() {
        assert_eq!(
            run(parser(output), &[answer]),
            expected,
            "{output:?} {answer}"
        );
        let characters: Vec<String> = answer.chars().map(String::from).collect();
        let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
        assert_eq!(
            run(parser(output), &characters),
            expected,
            "{output:?} {answer}, by character"
        );
        let borders: Vec<usize> = (0..=answer.len())
            .filter(|at| answer.is_char_boundary(*at))
            .collect();
        for first in &borders {
            for second in borders.iter().filter(|second| *second >= first) {
                let pieces = [
                    &answer[..*first],
                    &answer[*first..*second],
                    &answer[*second..],
                ];
                assert_eq!(
                    run(parser(output), &pieces),
                    expected,
                    "{output:?} {pieces:?}"
                );
            }
        }
    }
}

#[test]
fn nothing_is_lost_or_invented_in_any_mixture_of_notation() {
    // Fragments that meet in every order; as text, all of it must come back.
    let words = [
        "<tool_call>",
        "{\"name\":",
        "\"a\"",
        "}",
        "</tool_call>",
        " ",
        "x",
        "[TOOL_CALLS]",
        "[",
        ";",
    ];
    let mut random = SplitMix64::new(11);
    for _ in 0..5000 {
        let pieces: Vec<&str> = (0..8)
            .map(|_| words[(random.next_u64() % 10) as usize])
            .collect();
        let answer = pieces.concat();
        let parts = run(parser(ToolOutput::Auto), &pieces);
        assert_eq!(
            parts,
            run(parser(ToolOutput::Auto), &[&answer]),
            "{pieces:?}"
        );
        assert_eq!(
            parts,
            if answer.is_empty() {
                vec![]
            } else {
                vec![Part::Text(answer)]
            }
        );
    }
}

#[test]
fn text_is_not_held_back_longer_than_needed() {
    let mut parser = parser(ToolOutput::Auto);
    assert_eq!(join(parser.push("Hello")), [text("Hello")]);
    assert_eq!(join(parser.push(" wor")), [text(" wor")]);
    assert_eq!(join(parser.push("ld <to")), [text("ld")]);
    assert_eq!(join(parser.push("ast>")), [text(" <toast>")]);
}

#[test]
fn an_ordinary_json_answer_streams() {
    let mut parser = parser(ToolOutput::Auto);
    assert_eq!(join(parser.push("{\"")), []);
    assert_eq!(join(parser.push("answer\"")), [text("{\"answer\"")]);
    assert_eq!(join(parser.push(": 1,")), [text(": 1,")]);
}

#[test]
fn arguments_of_a_forced_call_stream_once_the_name_is_known() {
    let mut parser = parser(ToolOutput::Forced);
    assert_eq!(parser.push("{\"name\": \"get\", \"argu"), []);
    assert_eq!(
        join(parser.push("ments\": {\"a\"")),
        [call(0, "get", "{\"a\"")]
    );
    assert_eq!(
        parser.push(": 1"),
        [Delta::ToolCallArguments {
            index: 0,
            fragment: ": 1".to_owned()
        }]
    );
    assert_eq!(
        parser.push("}}"),
        [Delta::ToolCallArguments {
            index: 0,
            fragment: "}".to_owned()
        }]
    );
    assert_eq!(parser.finish(), (vec![], true));
}

#[test]
fn thinking_may_have_been_opened_by_the_prompt() {
    assert!(opens_thinking("<|im_start|>assistant\n<think>\n"));
    assert!(!opens_thinking("<think>\n\n</think>\n\n"));
    let parts = run(
        parser(ToolOutput::None).thinking_already(true),
        &["\nso", " be it\n", "</think>\n", "ok"],
    );
    assert_eq!(parts, [reasoning("so be it"), text("ok")]);
    let parts = run(
        parser(ToolOutput::Raw).thinking_already(true),
        &["\nso", "</think>\n", "ok"],
    );
    assert_eq!(parts, [text("\nso</think>\nok")]);
}

#[test]
fn thoughts_stream() {
    let mut parser = parser(ToolOutput::Auto);
    assert_eq!(join(parser.push("<think>one ")), [reasoning("one")]);
    assert_eq!(join(parser.push("two</th")), [reasoning(" two")]);
    assert_eq!(join(parser.push("ree")), [reasoning("</three")]);
}

#[test]
fn call_ids_are_distinct_and_well_formed() {
    let ids: Vec<String> = [1, 2]
        .into_iter()
        .flat_map(|seed| {
            let mut new_id = call_ids(seed);
            [new_id(), new_id()]
        })
        .collect();
    let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), 4);
    for id in &ids {
        let random = id.strip_prefix("call_").unwrap();
        assert!(
            random.len() == 24
                && random
                    .chars()
                    .all(|character| character.is_ascii_alphanumeric())
        );
    }
}
