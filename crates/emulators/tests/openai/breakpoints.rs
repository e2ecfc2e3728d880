//! gpt-5.6 and later: paid entries at breakpoints.

use std::time::Duration;

use holdfast_emulators::Fault;
use holdfast_emulators::families::openai::OpenAi;
use serde_json::{Value, json};

use crate::{Client, Usage, marked, plain, text};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_same_context_with_another_question_misses_without_a_marker() {
    let client = Client::start(OpenAi::new()).await;
    let context = text("abcd", 2000);
    let first = client.chat(&plain("gpt-5.6", &context, "one?")).await;
    let second = client.chat(&plain("gpt-5.6", &context, "two?")).await;
    assert_eq!(
        first,
        Usage {
            input: 2001,
            read: 0,
            written: 2001
        }
    );
    assert_eq!(
        second, first,
        "both pay for an entry that ends with their question"
    );
    let again = client.chat(&plain("gpt-5.6", &context, "two?")).await;
    assert_eq!(
        again,
        Usage {
            input: 2001,
            read: 2001,
            written: 0
        }
    );
}

#[tokio::test]
async fn the_same_context_with_another_question_hits_at_its_marker() {
    let client = Client::start(OpenAi::new()).await;
    let context = text("abcd", 2000);
    let mut body = marked(&context, "one?");
    body["prompt_cache_options"] = json!({"mode": "explicit"});
    let first = client.chat(&body).await;
    body["messages"][1]["content"] = json!("another question");
    let second = client.chat(&body).await;
    assert_eq!(
        first,
        Usage {
            input: 2001,
            read: 0,
            written: 2000
        }
    );
    assert_eq!(
        second,
        Usage {
            input: 2004,
            read: 2000,
            written: 0
        }
    );

    let bill = client.emulator.bill().charges();
    assert_eq!(bill.len(), 2);
    assert_eq!(
        (
            bill[0].uncached_input,
            bill[0].cache_read,
            bill[0].cache_write[&1800]
        ),
        (1, 0, 2000)
    );
    assert_eq!(
        (
            bill[1].uncached_input,
            bill[1].cache_read,
            bill[1].cache_write.len()
        ),
        (4, 2000, 0)
    );
    assert_eq!(
        (
            bill[1].kind.as_str(),
            bill[1].account.as_str(),
            bill[1].reported
        ),
        ("chat", "key-1", true)
    );
}

#[tokio::test]
async fn the_implicit_breakpoint_is_paid_for_beside_the_explicit_ones() {
    let client = Client::start(OpenAi::new()).await;
    let context = text("abcd", 2000);
    assert_eq!(
        client.chat(&marked(&context, "one?")).await,
        Usage {
            input: 2001,
            read: 0,
            written: 2001
        }
    );
    let second = client.chat(&marked(&context, "two?")).await;
    assert_eq!(
        second,
        Usage {
            input: 2001,
            read: 2000,
            written: 1
        }
    );
}

#[tokio::test]
async fn a_string_and_a_part_of_the_same_text_are_the_same_and_a_marker_is_no_content() {
    let client = Client::start(OpenAi::new()).await;
    let context = text("abcd", 2000);
    client.chat(&plain("gpt-5.6", &context, "one?")).await;
    let usage = client.chat(&marked(&context, "one?")).await;
    assert_eq!(
        (usage.read, usage.written),
        (2001, 0),
        "the implicit entry of the string is found"
    );
}

#[tokio::test]
async fn a_conversation_reads_up_to_the_last_question() {
    let client = Client::start(OpenAi::new()).await;
    let mut body = plain("gpt-5.6", &text("abcd", 2000), "one?");
    client.chat(&body).await;
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "answer"}));
    messages.push(json!({"role": "user", "content": "two?"}));
    assert_eq!(
        client.chat(&body).await,
        Usage {
            input: 2004,
            read: 2001,
            written: 3
        }
    );
    // More text in an existing message is another message.
    body["messages"][1]["content"] = json!("one? And more.");
    body["messages"].as_array_mut().unwrap().truncate(2);
    assert_eq!(client.chat(&body).await.read, 0);
}

#[tokio::test]
async fn the_end_of_a_run_of_tool_results_is_a_breakpoint() {
    let client = Client::start(OpenAi::new()).await;
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let mut body = json!({
        "model": "gpt-5.6",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "messages": [
            {"role": "user", "content": text("abcd", 1500)},
            {"role": "assistant", "content": null, "tool_calls": [call("a"), call("b")]},
            {"role": "tool", "tool_call_id": "a", "content": "first"},
            {"role": "tool", "tool_call_id": "b", "content": "second"},
        ],
    });
    let whole = client.chat(&body).await;
    assert_eq!(whole.written, whole.input);
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "answer"}));
    messages.push(json!({"role": "user", "content": "thanks"}));
    assert_eq!(client.chat(&body).await.read, whole.input);
}

#[tokio::test]
async fn explicit_mode_without_markers_does_not_cache() {
    let client = Client::start(OpenAi::new()).await;
    let mut body = plain("gpt-6.1-sol", &text("abcd", 2000), "one?");
    client.chat(&body).await;
    body["prompt_cache_options"] = json!({"mode": "explicit"});
    for _ in 0..2 {
        let usage = client.chat(&body).await;
        assert_eq!(
            (usage.read, usage.written),
            (0, 0),
            "an implicit entry isn't found either"
        );
    }
}

#[tokio::test]
async fn below_the_minimum_nothing_is_written_and_nothing_is_refused() {
    let client = Client::start(OpenAi::new()).await;
    let mut body = marked(&text("abcd", 1023), "one?");
    body["prompt_cache_options"] = json!({"mode": "explicit"});
    for _ in 0..2 {
        assert_eq!(
            client.chat(&body).await,
            Usage {
                input: 1024,
                read: 0,
                written: 0
            }
        );
    }
    body["messages"][0]["content"][0]["text"] = json!(text("abcd", 1024));
    assert_eq!(client.chat(&body).await.written, 1024);
    assert_eq!(client.chat(&body).await.read, 1024);
}

/// A message of `count` marked blocks of 1024 tokens each.
fn blocks(count: usize) -> Value {
    let part = |index: usize| {
        json!({
            "type": "text",
            "text": text(&format!("{index:04}"), 1024),
            "prompt_cache_breakpoint": {"mode": "explicit"},
        })
    };
    let content: Vec<Value> = (0..count).map(part).collect();
    json!({
        "model": "gpt-5.6",
        "prompt_cache_options": {"mode": "explicit"},
        "messages": [{"role": "user", "content": content}],
    })
}

#[tokio::test]
async fn only_the_latest_markers_are_written() {
    for (mode, first_written) in [("explicit", 3), ("implicit", 4)] {
        let client = Client::start(OpenAi::new()).await;
        let with_mode = |mut body: Value| {
            body["prompt_cache_options"]["mode"] = json!(mode);
            body
        };
        let six = client.chat(&with_mode(blocks(6))).await;
        assert_eq!((six.input, six.written), (6 * 1024, 6 * 1024));
        let before = client.chat(&blocks(first_written - 1)).await;
        assert_eq!(
            before.read,
            0,
            "{mode}: marker {} wasn't written",
            first_written - 1
        );
        let client = Client::start(OpenAi::new()).await;
        client.chat(&with_mode(blocks(6))).await;
        let at = client.chat(&blocks(first_written)).await;
        assert_eq!(at.read, first_written as u64 * 1024, "{mode}");
    }
}

#[tokio::test]
async fn entries_are_looked_for_at_the_latest_eighty_breakpoints() {
    for (later, read) in [(79, 1024), (80, 0)] {
        let client = Client::start(OpenAi::new()).await;
        client.chat(&blocks(1)).await;
        let mut body = blocks(1);
        let content = body["messages"][0]["content"].as_array_mut().unwrap();
        for index in 0..later {
            content.push(json!({
                "type": "text",
                "text": format!("piece {index}"),
                "prompt_cache_breakpoint": {"mode": "explicit"},
            }));
        }
        assert_eq!(client.chat(&body).await.read, read, "{later} later ones");
    }
}

#[tokio::test]
async fn a_lifetime_slides_with_each_use() {
    let client = Client::start(OpenAi::new()).await;
    let mut body = marked(&text("abcd", 2000), "one?");
    body["prompt_cache_options"] = json!({"mode": "explicit", "ttl": "30m"});
    client.chat(&body).await;
    for _ in 0..3 {
        client.emulator.clock().advance(29 * MINUTE);
        assert_eq!(client.chat(&body).await.read, 2000);
    }
    client.emulator.clock().advance(30 * MINUTE);
    assert_eq!(
        client.chat(&body).await,
        Usage {
            input: 2001,
            read: 0,
            written: 2000
        }
    );
}

#[tokio::test]
async fn a_block_may_ask_for_twelve_hours_and_each_lifetime_is_billed_apart() {
    let client = Client::start(OpenAi::new()).await;
    let mut body = marked(&text("abcd", 2000), "one?");
    body["messages"][0]["content"][0]["prompt_cache_breakpoint"]["ttl"] = json!("12h");
    client.chat(&body).await;
    let bill = client.emulator.bill().charges();
    assert_eq!(
        (bill[0].cache_write[&43_200], bill[0].cache_write[&1800]),
        (2000, 1)
    );
    client.emulator.clock().advance(12 * 60 * MINUTE - MINUTE);
    body["messages"][1]["content"] = json!("two?");
    assert_eq!(client.chat(&body).await.read, 2000);
    client.emulator.clock().advance(12 * 60 * MINUTE);
    assert_eq!(client.chat(&body).await.read, 0);
}

#[tokio::test]
async fn all_that_must_match_must_match() {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    let mut base = marked(&text("abcd", 2000), "one?");
    base["tools"] = json!([tool("a"), tool("b")]);
    base["prompt_cache_key"] = json!("tenant-1");
    let mut other_schema = tool("a");
    other_schema["function"]["parameters"]["required"] = json!([]);
    let changes = [
        ("model", json!("gpt-5.6-luna")),
        ("tools", json!([tool("b"), tool("a")])),
        ("tools", json!([other_schema, tool("b")])),
        ("parallel_tool_calls", json!(false)),
        ("response_format", json!({"type": "json_object"})),
        ("reasoning_effort", json!("high")),
        ("verbosity", json!("low")),
        ("service_tier", json!("flex")),
        ("prompt_cache_key", json!("tenant-2")),
    ];
    for (field, value) in changes {
        let client = Client::start(OpenAi::new()).await;
        client.chat(&base).await;
        let mut body = base.clone();
        body[field] = value.clone();
        assert_eq!(client.chat(&body).await.read, 0, "{field}: {value}");
        assert!(
            client.chat(&base).await.read > 2000,
            "{field}: the first is there still"
        );
    }
    let client = Client::start(OpenAi::new()).await;
    client.chat(&base).await;
    for (field, value) in [
        ("temperature", json!(0.3)),
        ("seed", json!(7)),
        ("tool_choice", json!("none")),
        ("user", json!("u")),
    ] {
        let mut body = base.clone();
        body[field] = value;
        assert!(
            client.chat(&body).await.read > 2000,
            "{field} doesn't matter"
        );
    }
}

#[tokio::test]
async fn organizations_share_nothing() {
    let family = OpenAi::new()
        .organization("key-a", "acme")
        .organization("key-b", "acme");
    let client = Client::start(family).await;
    let body = marked(&text("abcd", 2000), "one?");
    client.chat_as("key-a", &body).await;
    assert_eq!(client.chat_as("key-c", &body).await.read, 0);
    assert!(
        client.chat_as("key-b", &body).await.read > 0,
        "another key of the same organization"
    );
}

#[tokio::test]
async fn eviction_forgets_everything_at_once() {
    let client = Client::start(OpenAi::new()).await;
    let body = marked(&text("abcd", 2000), "one?");
    client.chat(&body).await;
    client.emulator.evict_all();
    assert_eq!(
        client.chat(&body).await,
        Usage {
            input: 2001,
            read: 0,
            written: 2001
        }
    );
}

#[tokio::test]
async fn parallel_first_requests_each_write() {
    let client = Client::start(OpenAi::new()).await;
    let body = marked(&text("abcd", 2000), "one?");
    client
        .emulator
        .faults()
        .next(Fault::SlowStart(Duration::from_millis(300)));
    let mut in_flight = client.emulator.in_flight();
    let (slow, fast) = tokio::join!(client.chat(&body), async {
        in_flight.wait_for(|count| *count == 1).await.unwrap();
        // The record has the first request; its answer is being held back.
        client.chat(&marked(&text("abcd", 2000), "two?")).await
    });
    assert_eq!((slow.read, slow.written), (0, 2001));
    assert_eq!((fast.read, fast.written), (0, 2001));
    assert_eq!(client.chat(&body).await.read, 2001);
}

#[tokio::test]
async fn random_misses_are_the_same_for_the_same_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let client = Client::start(OpenAi::new().random_misses(3, 0.5)).await;
        let mut reads = Vec::new();
        for _ in 0..20 {
            reads.push(client.chat(&marked(&text("abcd", 2000), "one?")).await.read > 0);
        }
        runs.push(reads);
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].contains(&true) && runs[0][1..].contains(&false));
}
