#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixtures;

use holdfast_protocol::chat::ToolCall;
use serde_json::json;

use self::fixtures::{CHATML, FAMILIES, GEMMA, LLAMA, MISTRAL, PARTS, QWEN};
use super::*;
use crate::sampling::SplitMix64;

/// 2024-07-26, about noon.
const NOW: UnixMillis = 1_721_995_200_000;

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, "<s>", "</s>").unwrap()
}

fn system(text: &str) -> Message {
    Message::text(Role::System, text)
}

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}

fn assistant(text: &str) -> Message {
    Message::text(Role::Assistant, text)
}

fn calling(name: &str, arguments: &str) -> Message {
    let call = ToolCall {
        id: "call_0123456789abcdefghijklmn".into(),
        name: name.into(),
        arguments: arguments.into(),
    };
    Message {
        content: Vec::new(),
        tool_calls: vec![call],
        ..assistant("")
    }
}

fn result(text: &str) -> Message {
    Message {
        tool_call_id: Some("call_0123456789abcdefghijklmn".into()),
        ..Message::text(Role::Tool, text)
    }
}

fn weather() -> Vec<Tool> {
    vec![Tool {
        name: "weather".into(),
        description: Some("What's the weather <here>?".into()),
        parameters: Some(
            json!({"type": "object", "properties": {"z": {"type": "string"}, "a": {"const": 1.0}}}),
        ),
        strict: None,
    }]
}

/// Plans, checks what must hold for every plan, and gives the plan.
fn checked_plan(
    template: &ChatTemplate,
    initial: &[Message],
    history: &[Message],
    new: &[Message],
    tools: &[Tool],
) -> PromptPlan {
    let plan = template.plan(initial, history, new, tools, NOW).unwrap();
    let all: Vec<Message> = [initial, history, new].concat();
    let joined = plan.prefix.concat() + &plan.suffix.concat();
    assert_eq!(
        joined,
        template.render(&all, tools, NOW).unwrap(),
        "the plan is the full rendering"
    );
    let prefix = template.plan_prefix(initial, history, tools, NOW).unwrap();
    assert_eq!(
        prefix.segments[..plan.prefix.len()],
        plan.prefix[..],
        "the plan's prefix begins the context's"
    );
    let has_context = !initial.is_empty() || !history.is_empty();
    let whole = plan.prefix == prefix.segments && (!has_context || !prefix.segments.is_empty());
    assert_eq!(plan.prefix_stable, whole);
    assert!(
        plan.prefix
            .iter()
            .chain(&plan.suffix)
            .all(|segment| !segment.is_empty())
    );
    plan
}

#[test]
fn chatml_is_cut_behind_each_message() {
    let template = template(CHATML);
    let (initial, history) = ([user("doc"), user("more")], [user("q"), assistant("a")]);
    let plan = checked_plan(&template, &initial, &history, &[user("next")], &[]);
    assert!(plan.prefix_stable);
    assert_eq!(
        plan.prefix,
        [
            "<|im_start|>system\nYou are a test.<|im_end|>\n<|im_start|>user\ndoc<|im_end|>\n\
             <|im_start|>user\nmore<|im_end|>\n",
            "<|im_start|>user\nq<|im_end|>\n",
            "<|im_start|>assistant\na<|im_end|>\n",
        ]
    );
    assert_eq!(
        plan.suffix,
        [
            "<|im_start|>user\nnext<|im_end|>\n",
            "<|im_start|>assistant\n"
        ]
    );
}

#[test]
fn a_chat_without_a_context_is_all_suffix() {
    let plan = checked_plan(
        &template(CHATML),
        &[],
        &[],
        &[system("s"), user("q")],
        &weather(),
    );
    assert!(plan.prefix_stable && plan.prefix.is_empty());
    assert_eq!(plan.suffix.len(), 3);
}

#[test]
fn llama_trims_dates_and_shows_tools_as_python_would() {
    let template = template(LLAMA);
    let plan = checked_plan(
        &template,
        &[system(" s ")],
        &[],
        &[user("\nq ")],
        &weather(),
    );
    assert!(plan.prefix_stable);
    assert_eq!(
        plan.prefix.concat(),
        r#"<s><|start_header_id|>system<|end_header_id|>

Today Date: 26 Jul 2024

{
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What's the weather <here>?",
        "parameters": {
            "type": "object",
            "properties": {
                "z": {
                    "type": "string"
                },
                "a": {
                    "const": 1.0
                }
            }
        }
    }
}

s<|eot_id|>"#
    );
    assert_eq!(
        plan.suffix,
        [
            "<|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ]
    );
}

#[test]
fn the_date_is_the_one_passed_in() {
    let template = template(LLAMA);
    let prefix = |now| template.plan_prefix(&[system("s")], &[], &[], now).unwrap();
    assert_ne!(prefix(NOW), prefix(NOW + 86_400_000));
    assert_eq!(prefix(NOW), prefix(NOW));
}

#[test]
fn gemma_gets_the_system_message_in_the_first_question() {
    let template = template(GEMMA);
    let plan = checked_plan(&template, &[system("Be brief.")], &[], &[user("q")], &[]);
    assert!(plan.prefix_stable);
    assert_eq!(plan.prefix, ["<s><start_of_turn>user\nBe brief.\n\n"]);
    assert_eq!(plan.suffix, ["q<end_of_turn>\n", "<start_of_turn>model\n"]);
}

#[test]
fn gemma_gets_neighbouring_questions_as_one() {
    let template = template(GEMMA);
    let plan = checked_plan(
        &template,
        &[system("Be brief."), user("A long document.")],
        &[],
        &[user("q")],
        &[],
    );
    assert!(plan.prefix_stable);
    assert_eq!(
        plan.prefix,
        ["<s><start_of_turn>user\nBe brief.\n\nA long document.\n\n"]
    );
    let history = [user("q"), assistant("a")];
    let plan = checked_plan(
        &template,
        &[system("s"), user("doc")],
        &history,
        &[user("r")],
        &[],
    );
    assert!(plan.prefix_stable);
    assert_eq!(
        plan.prefix,
        [
            "<s><start_of_turn>user\ns\n\ndoc\n\n",
            "q<end_of_turn>\n",
            "<start_of_turn>model\na<end_of_turn>\n"
        ]
    );
}

#[test]
fn a_refusal_is_said_like_any_answer() {
    let template = template(QWEN);
    let refusing = |said: &str| Message {
        refusal: Some("No.".into()),
        ..assistant(said)
    };
    for (said, expected) in [("", "No."), ("Well.", "Well.\nNo.")] {
        let mut answer = refusing(said);
        answer.content.retain(|_| !said.is_empty());
        let history = [user("q"), answer];
        let plan = checked_plan(&template, &[], &history, &[user("r")], &[]);
        let said = format!("assistant\n{expected}<|im_end|>");
        assert!(plan.prefix.concat().contains(&said), "{:?}", plan.prefix);
    }
}

#[test]
fn qwen_drops_earlier_thoughts_and_the_prefix_says_what_remains() {
    let template = template(QWEN);
    let thinking = Message {
        reasoning: Some("hm".into()),
        ..assistant("a")
    };
    let history = [
        user("q"),
        thinking,
        user("r"),
        assistant("<think>\nho\n</think>\n\nb"),
    ];
    let plan = checked_plan(&template, &[system("s")], &history, &[user("t")], &[]);
    assert!(plan.prefix_stable);
    assert_eq!(
        plan.prefix.concat(),
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n\
         <|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\n"
    );
    assert_eq!(plan.suffix, ["t<|im_end|>\n", "<|im_start|>assistant\n"]);

    // The next turn extends this chain instead of starting over.
    let longer = [&history[..], &[user("t"), assistant("c")]].concat();
    let next = template
        .plan_prefix(&[system("s")], &longer, &[], NOW)
        .unwrap();
    assert!(next.segments.len() > plan.prefix.len());
    assert_eq!(next.segments[..plan.prefix.len()], plan.prefix);
}

#[test]
fn qwen_keeps_its_thoughts_while_it_waits_for_a_tool() {
    let template = template(QWEN);
    let call = Message {
        reasoning: Some("look".into()),
        ..calling("weather", "{\"z\": \"x\"}")
    };
    let history = [user("q"), call];
    let plan = checked_plan(
        &template,
        &[system("s")],
        &history,
        &[result("rain")],
        &weather(),
    );
    assert!(plan.prefix_stable);
    assert!(
        plan.prefix.concat().contains("<think>\nlook\n</think>"),
        "{:?}",
        plan.prefix
    );
}

#[test]
fn mistral_has_a_prefix_only_up_to_what_moves() {
    let template = template(MISTRAL);
    let history = [user("q"), assistant("a")];
    let plan = checked_plan(
        &template,
        &[system("Be brief."), user("doc")],
        &history,
        &[user("r")],
        &[],
    );
    assert!(plan.prefix_stable);
    assert_eq!(
        plan.prefix.concat(),
        "<s>[INST]doc\n\nq[/INST] a</s>[INST]Be brief.\n\n"
    );
    let plan = checked_plan(
        &template,
        &[system("s"), user("doc")],
        &[],
        &[user("r")],
        &weather(),
    );
    assert!(plan.prefix.concat().starts_with("<s>[AVAILABLE_TOOLS]") && plan.prefix_stable);
}

#[test]
fn a_prefix_that_does_not_hold_is_reported_and_its_beginning_used() {
    // Contexts are expected to be continued by a question; an answer makes Mistral's last question another one.
    let template = template(MISTRAL);
    let (initial, history) = ([system("s"), user("doc")], [assistant("a"), user("q")]);
    let plan = checked_plan(
        &template,
        &initial,
        &history,
        &[assistant("b"), user("r")],
        &[],
    );
    assert!(!plan.prefix_stable);
    let kept = plan.prefix.concat();
    assert!(kept.starts_with("<s>[INST]doc[/INST] a</s>"), "{kept}");
}

#[test]
fn contents_in_parts_are_given_to_templates_that_want_them() {
    let template = template(PARTS);
    let plan = checked_plan(&template, &[system("s")], &[], &[user("q")], &[]);
    assert!(plan.prefix_stable);
    assert_eq!(
        plan.prefix.concat() + &plan.suffix.concat(),
        "<|system|>s<|end|><|user|>q<|end|><|assistant|>"
    );
}

#[test]
fn tools_are_described_in_words_where_the_template_knows_none() {
    for source in [CHATML, GEMMA, PARTS] {
        let template = template(source);
        let conversation = [
            user("q"),
            calling("weather", "{\"z\": \"x\"}"),
            result("rain"),
            user("thanks"),
        ];
        let text = template.render(&conversation, &weather(), NOW).unwrap();
        assert!(
            text.contains("{\"name\":\"weather\",\"description\":"),
            "{text}"
        );
        assert!(
            text.contains(
                "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"z\": \"x\"}}\n</tool_call>"
            ),
            "{text}"
        );
        assert!(
            text.contains("<tool_response>\nrain\n</tool_response>"),
            "{text}"
        );
        let with_system = template
            .render(&[system("Be brief."), user("q")], &weather(), NOW)
            .unwrap();
        let (brief, tool) = (
            with_system.find("Be brief.").unwrap(),
            with_system.find("weather").unwrap(),
        );
        assert!(brief < tool && tool < with_system.find('q').unwrap().max(tool + 1));
    }
}

#[test]
fn tool_calls_are_given_in_the_form_a_template_understands() {
    let conversation = [
        user("q"),
        calling("weather", "{\"z\": \"é\"}"),
        result("rain"),
    ];
    for (source, call, answer) in [
        (
            LLAMA,
            "{\"name\": \"weather\", \"parameters\": {\"z\": \"é\"}}<|eot_id|>",
            "ipython<|end_header_id|>\n\nrain",
        ),
        (
            QWEN,
            "{\"name\": \"weather\", \"arguments\": {\"z\": \"é\"}}\n</tool_call>",
            "<tool_response>\nrain\n",
        ),
        (
            MISTRAL,
            "[{\"name\": \"weather\", \"arguments\": {\"z\": \"é\"}}]</s>",
            "\"call_id\": \"fghijklmn\"",
        ),
    ] {
        let text = template(source)
            .render(&conversation, &weather(), NOW)
            .unwrap();
        assert!(text.contains(call) && text.contains(answer), "{text}");
    }
    // Arguments that are no JSON object go in as they are.
    let text = template(QWEN)
        .render(&[user("q"), calling("weather", "{\"z")], &[], NOW)
        .unwrap();
    assert!(text.contains("\"arguments\": {\"z}"), "{text}");
}

#[test]
fn a_message_of_nothing_but_calls_has_no_content_where_that_matters() {
    let by_content = "{% for message in messages %}<{{ message.role }}>\
        {%- for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}\
        {%- if message.content is not none %}: {{ message.content }}{% endif %}{% endfor %}";
    let conversation = [user("q"), calling("weather", "{}"), result("rain")];
    let text = template(by_content)
        .render(&conversation, &[], NOW)
        .unwrap();
    assert_eq!(
        text,
        "<user>: q<assistant>{\"name\": \"weather\", \"arguments\": {}}<tool>: rain"
    );
    let joined = by_content.replace(": {{ message.content }}", "{{ ': ' + message.content }}");
    let always = joined.replace("message.content is not none", "true");
    assert!(
        template(&always)
            .render(&conversation, &[], NOW)
            .unwrap()
            .contains("{}}: <tool>")
    );
}

#[test]
fn a_template_with_windows_line_breaks_is_the_same_template() {
    let windows = QWEN.replace("\\n", "\n").replace('\n', "\r\n");
    let text = template(&windows)
        .render(&[system("s"), user("q")], &[], NOW)
        .unwrap();
    assert_eq!(
        text,
        template(QWEN)
            .render(&[system("s"), user("q")], &[], NOW)
            .unwrap()
    );
}

#[test]
fn developer_messages_are_system_messages() {
    let template = template(CHATML);
    let developer = Message::text(Role::Developer, "s");
    let render = |first| template.render(&[first, user("q")], &[], NOW).unwrap();
    assert_eq!(render(developer), render(system("s")));
}

#[test]
fn late_system_messages_become_questions_where_a_template_refuses_them() {
    let text = template(GEMMA)
        .render(
            &[user("q"), assistant("a"), system("s"), user("r")],
            &[],
            NOW,
        )
        .unwrap();
    assert!(
        text.contains("<start_of_turn>user\ns\n\nr<end_of_turn>"),
        "{text}"
    );
    let text = template(MISTRAL)
        .render(&[system("one"), system("two"), user("q")], &[], NOW)
        .unwrap();
    assert_eq!(text, "<s>[INST]one\n\ntwo\n\nq[/INST]");
}

#[test]
fn images_and_impossible_conversations_are_refused_in_the_templates_words() {
    let mut with_image = user("look");
    let url = "data:image/png;base64,AA==".to_owned();
    with_image
        .content
        .push(holdfast_protocol::chat::ContentPart::ImageUrl { url, detail: None });
    let why = template(CHATML)
        .plan_prefix(&[with_image], &[], &[], NOW)
        .unwrap_err()
        .to_string();
    assert!(why.contains("images"), "{why}");
    let why = template(GEMMA)
        .render(&[assistant("a")], &[], NOW)
        .unwrap_err();
    assert_eq!(
        why,
        EngineError::Template("Roles must alternate.".to_owned())
    );
}

#[test]
fn broken_and_hostile_templates_are_refused() {
    let refusal = |source: &str| {
        ChatTemplate::new(source, "", "")
            .err()
            .map(|error| error.to_string())
            .unwrap()
    };
    assert!(
        refusal("{% for message in messages %}").contains("line"),
        "a syntax error says where"
    );
    assert!(refusal("no messages at all").contains("does not render"));
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ] {
        refusal(source);
    }
}

#[test]
fn plans_hold_for_random_conversations_in_every_family() {
    let words = [
        "one",
        " two ",
        "\nthree\n",
        "<|im_end|>",
        "[/INST]",
        "é\n\nü",
        "a > b",
        "<think>\nx\n</think>\n\ny",
    ];
    let mut random = SplitMix64::new(4);
    for (family, source) in FAMILIES {
        let template = template(source);
        let (mut plans, mut stable, mut cut) = (0, 0, 0);
        for _ in 0..150 {
            let mut word = || words[(random.next_u64() % words.len() as u64) as usize];
            let mut messages = vec![system(word()), user(word())];
            for turn in 0..3 {
                messages.push(user(word()));
                if turn == 1 {
                    messages.extend([calling("weather", "{\"z\": \"x\"}"), result(word())]);
                }
                messages.push(assistant(word()));
            }
            messages.push(user(word()));
            let initial = 1 + (random.next_u64() % 2) as usize;
            // Contexts end behind an answer or before the first question, as sessions and documents do.
            let ends = [initial, 4, 8, 10].map(|end| end.max(initial));
            let context = ends[(random.next_u64() % 4) as usize];
            let tools = if random.next_u64().is_multiple_of(2) {
                weather()
            } else {
                Vec::new()
            };
            let (before, new) = messages.split_at(context);
            let plan = checked_plan(
                &template,
                &before[..initial],
                &before[initial..],
                new,
                &tools,
            );
            // Several questions move what Mistral puts into the last one.
            let questions = new
                .iter()
                .filter(|message| message.role == Role::User)
                .count();
            if family == "Mistral" && questions > 1 {
                continue;
            }
            plans += 1;
            stable += u32::from(plan.prefix_stable);
            cut += u32::from(plan.prefix.len() > 1 || context == initial);
        }
        assert!(
            stable * 10 >= plans * 9,
            "{family}: {stable} of {plans} prefixes are stable"
        );
        assert!(
            cut * 10 >= plans * 5,
            "{family}: {cut} of {plans} prefixes are cut"
        );
    }
}

#[test]
fn a_session_extends_its_chain_turn_by_turn() {
    for (family, source) in FAMILIES {
        let template = template(source);
        // Mistral's system message moves to each new question, and is a segment of its own for that reason.
        let moving = usize::from(family == "Mistral");
        let initial = [system("s"), user("doc")];
        let mut history = Vec::new();
        let mut before = template
            .plan_prefix(&initial, &history, &[], NOW)
            .unwrap()
            .segments;
        for turn in 0..5 {
            history.extend([user(&format!("q{turn}")), assistant(&format!("a{turn}"))]);
            let after = template
                .plan_prefix(&initial, &history, &[], NOW)
                .unwrap()
                .segments;
            let kept = before.len() - moving;
            assert_eq!(after[..kept], before[..kept], "{family}, turn {turn}");
            assert!(after.len() > before.len());
            before = after;
        }
    }
}

#[test]
fn remembered_borders_change_nothing() {
    let fresh = || template(QWEN);
    let used = fresh();
    let history: Vec<Message> = (0..20)
        .flat_map(|turn| [user(&format!("q{turn}")), assistant(&format!("a{turn}"))])
        .collect();
    for end in (0..=history.len()).step_by(2) {
        let plan = |template: &ChatTemplate| {
            template
                .plan(
                    &[system("s")],
                    &history[..end],
                    &[user("x")],
                    &weather(),
                    NOW,
                )
                .unwrap()
        };
        assert_eq!(plan(&used), plan(&used));
        assert_eq!(plan(&used), plan(&fresh()));
    }
}

#[test]
fn very_long_histories_are_cut_more_coarsely() {
    let history: Vec<Message> = (0..200)
        .flat_map(|turn| [user(&format!("q{turn}")), assistant(&format!("a{turn}"))])
        .collect();
    let plan = checked_plan(
        &template(CHATML),
        &[system("s")],
        &history,
        &[user("x")],
        &[],
    );
    assert!(plan.prefix_stable);
    // The borders behind messages 1 to 256, and those behind 264, 272 ... 400 and the end at 401.
    assert_eq!(plan.prefix.len(), 256 + 18 + 1);
}

#[test]
fn dates_are_written_as_python_writes_them() {
    let strftime = super::environment::strftime;
    // 2024-02-29T23:05:09Z, a Thursday.
    let leap_day = 1_709_247_909_000;
    assert_eq!(
        strftime(leap_day, "%A %a %d %B %b %Y %y %m %H:%M:%S %I %p %%"),
        "Thursday Thu 29 February Feb 2024 24 02 23:05:09 11 PM %"
    );
    assert_eq!(
        strftime(leap_day + 86_400_000, "%-d/%-m/%F %e %Q %"),
        "1/3/2024-03-01  1 %Q %"
    );
    assert_eq!(strftime(-1, "%F %T %A"), "1969-12-31 23:59:59 Wednesday");
    assert_eq!(strftime(951_782_400_000, "%F %A"), "2000-02-29 Tuesday");
}

#[test]
fn a_prefix_never_ends_inside_a_token() {
    let back = cuts::back_to_token_end;
    assert_eq!(back("a<|im_start|>us"), "a<|im_start|>");
    assert_eq!(back("a<|im_start|>user\n"), "a<|im_start|>user\n");
    assert_eq!(back("</s>[INST] wo"), "</s>[INST]");
    assert_eq!(back("line\n a > b wo"), "line\n");
    assert_eq!(back("see [1] wo"), "");
    assert_eq!(back("x</s>"), "x</s>");
    assert_eq!(cuts::common("aé1", "aè1"), "a");
}
