//! Markers, entries, lifetimes, prewarming, diagnostics.

use super::*;

#[tokio::test]
async fn the_same_context_with_another_question_is_read() {
    let desk = Desk::new().await;
    assert_eq!(desk.counts(&with_system("One?")).await, (1, 0, 200));
    assert_eq!(desk.counts(&with_system("Another?")).await, (2, 200, 0));
    let bill = desk.emulator.bill().charges();
    assert_eq!(bill.len(), 2);
    assert_eq!(
        (
            bill[0].uncached_input,
            bill[0].cache_read,
            bill[0].cache_write[&300]
        ),
        (1, 0, 200)
    );
    assert_eq!(
        (
            bill[1].uncached_input,
            bill[1].cache_read,
            bill[1].cache_write.len()
        ),
        (2, 200, 0)
    );
    assert!(
        bill.iter()
            .all(|charge| charge.reported && charge.kind == "chat" && charge.account == "key-a")
    );
    desk.emulator.evict_all();
    assert_eq!(desk.counts(&with_system("One?")).await, (1, 0, 200));
}

#[tokio::test]
async fn nothing_is_written_without_a_marker_nor_below_the_minimum() {
    let desk = Desk::new().await;
    let plain = request(json!({"system": words("system ", 200)}));
    assert_eq!(desk.counts(&plain).await, (202, 0, 0));
    // The marker of a later request looks back but finds nothing.
    assert_eq!(desk.counts(&with_system("One?")).await, (1, 0, 200));

    let small = request(json!({"system": [marked(text(words("small ", 99)), "5m")]}));
    assert_eq!(desk.counts(&small).await, (101, 0, 0));
    assert_eq!(desk.counts(&small).await, (101, 0, 0));

    // By model, where nothing else was said.
    let desk = Desk::of(Anthropic::new()).await;
    for (model, written) in [
        ("claude-opus-5-5", 600),
        ("claude-sonnet-4-5-20250929", 0),
        ("claude-haiku-4-5", 0),
    ] {
        let mut body = request(json!({"system": [marked(text(words("system ", 600)), "5m")]}));
        body["model"] = json!(model);
        assert_eq!(desk.counts(&body).await.2, written, "{model}");
    }
}

#[tokio::test]
async fn a_lifetime_counts_from_the_start_and_slides_on_reads() {
    let desk = Desk::new().await;
    desk.counts(&with_system("One?")).await;
    desk.emulator
        .clock()
        .advance(FIVE_MINUTES - Duration::from_secs(10));
    assert_eq!(desk.counts(&with_system("One?")).await.1, 200);
    desk.emulator
        .clock()
        .advance(FIVE_MINUTES - Duration::from_secs(10));
    assert_eq!(desk.counts(&with_system("One?")).await.1, 200);
    desk.emulator.clock().advance(FIVE_MINUTES);
    assert_eq!(desk.counts(&with_system("One?")).await, (1, 0, 200));
}

#[tokio::test]
async fn accounts_and_models_do_not_share() {
    let desk = Desk::new().await;
    desk.counts(&with_system("One?")).await;
    let (_, other) = answer(
        desk.http
            .post(format!("{}/v1/messages", desk.emulator.url))
            .header("x-api-key", "key-b")
            .header("anthropic-version", "2023-06-01")
            .body(with_system("One?").to_string()),
    )
    .await;
    assert_eq!(counts(&other["usage"]), (1, 0, 200));
    let mut body = with_system("One?");
    body["model"] = json!("claude-sonnet-5-5");
    assert_eq!(desk.counts(&body).await, (1, 0, 200));
}

#[tokio::test]
async fn the_prompt_is_rendered_tools_system_messages_whatever_the_order_in_the_json() {
    let desk = Desk::new().await;
    let system = marked(text(words("system ", 200)), "1h");
    let body = json!({
        "messages": [{"role": "user", "content": [marked(text(words("first ", 150)), "5m"), text("Why?")]}],
        "system": [system],
        "tools": [marked(tool("look"), "1h")],
        "max_tokens": 64,
        "model": "claude-opus-5-5",
    });
    let usage = desk.ok(&body).await["usage"].clone();
    let (five_minutes, hour) = by_ttl(&usage);
    assert_eq!(five_minutes, 150);
    assert!(hour > 300, "{usage}");
    assert_eq!(
        usage["cache_creation_input_tokens"].as_u64().unwrap(),
        five_minutes + hour
    );
    let (_, read, written) = desk.counts(&body).await;
    assert_eq!((read, written), (hour + 150, 0));

    // Another tool drops everything, another system text leaves the tools, another message leaves both.
    let tools_tokens = hour - 200;
    let mut changed = body.clone();
    changed["messages"][0]["content"][0]["text"] = json!(words("other ", 150));
    assert_eq!(desk.counts(&changed).await.1, hour);
    changed["system"][0]["text"] = json!(words("other ", 200));
    assert_eq!(desk.counts(&changed).await.1, tools_tokens);
    changed["tools"][0]["description"] = json!("Another.");
    assert_eq!(desk.counts(&changed).await.1, 0);
}

#[tokio::test]
async fn settings_drop_the_parts_that_depend_on_them() {
    let desk = Desk::new().await;
    let body = request(json!({
        "max_tokens": 4096,
        "tools": [marked(tool("look"), "5m")],
        "system": [marked(text(words("system ", 200)), "5m")],
        "messages": [{"role": "user", "content": [marked(text(words("first ", 300)), "5m"), text("Why?")]}],
    }));
    desk.counts(&body).await;
    let (_, all, _) = desk.counts(&body).await;
    let messages_dropped = [
        json!({"tool_choice": {"type": "any"}}),
        json!({"tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}),
        json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        json!({"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        json!({"output_config": {"effort": "low"}}),
    ];
    for change in messages_dropped {
        let mut changed = body.clone();
        changed
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        assert_eq!(desk.counts(&changed).await.1, all - 300, "{change}");
    }
    let mut pictured = body.clone();
    let picture = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}});
    pictured["messages"][0]["content"]
        .as_array_mut()
        .unwrap()
        .push(picture);
    assert_eq!(desk.counts(&pictured).await.1, all - 300);
    let mut fast = body.clone();
    fast["speed"] = json!("fast");
    assert_eq!(desk.counts(&fast).await.1, all - 500);
    let mut same = body.clone();
    same["tool_choice"] = json!({"type": "auto"});
    same["temperature"] = json!(0.5);
    assert_eq!(desk.counts(&same).await.1, all);
}

#[tokio::test]
async fn a_string_is_one_text_block_and_key_order_matters() {
    let desk = Desk::new().await;
    let conversation = |input: Value, last: Value| {
        request(json!({
            "tools": [tool("look")],
            "messages": [
                {"role": "user", "content": words("first ", 200)},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": input}]},
                {"role": "user", "content": [marked(result("t1"), "5m"), last]},
            ],
        }))
    };
    let (_, _, written) = desk
        .counts(&conversation(json!({"b": 1, "a": 2}), text("Why?")))
        .await;
    assert!(written > 200);
    let mut blocks = conversation(json!({"b": 1, "a": 2}), text("How?"));
    blocks["messages"][0]["content"] = json!([text(words("first ", 200))]);
    assert_eq!(desk.counts(&blocks).await.1, written);
    assert_eq!(
        desk.counts(&conversation(json!({"a": 2, "b": 1}), text("Why?")))
            .await
            .1,
        0
    );
}

#[tokio::test]
async fn a_marker_looks_back_twenty_positions_and_no_further() {
    let desk = Desk::new().await;
    let conversation = |count: usize| {
        let mut blocks: Vec<Value> = (0..count)
            .map(|index| text(format!("{index:0400}")))
            .collect();
        let last = blocks.pop().unwrap();
        blocks.push(marked(last, "5m"));
        request(json!({"messages": [{"role": "user", "content": blocks}]}))
    };
    assert_eq!(desk.counts(&conversation(5)).await, (0, 0, 500));
    // The entry ends 19 blocks before the marker: position 20.
    assert_eq!(desk.counts(&conversation(24)).await, (0, 500, 1900));
    desk.emulator.evict_all();
    desk.counts(&conversation(5)).await;
    assert_eq!(desk.counts(&conversation(25)).await, (0, 0, 2500));
}

#[tokio::test]
async fn a_run_of_calls_and_results_is_one_position() {
    let desk = Desk::new().await;
    let conversation = |rounds: usize| {
        let mut messages = vec![json!({"role": "user", "content": [text(words("first ", 200))]})];
        for round in 0..rounds {
            let id = format!("t{round}");
            messages.push(json!({"role": "assistant", "content": [call(&id)]}));
            messages.push(json!({"role": "user", "content": [result(&id)]}));
        }
        let last = messages.last_mut().unwrap()["content"]
            .as_array_mut()
            .unwrap()
            .last_mut()
            .unwrap();
        *last = marked(last.take(), "5m");
        request(json!({"messages": messages, "tools": [tool("look")]}))
    };
    let (_, _, first) = desk.counts(&conversation(0)).await;
    assert!(first > 200);
    // Sixty blocks later, all of them one run.
    assert_eq!(desk.counts(&conversation(30)).await.1, first);
}

#[tokio::test]
async fn at_most_four_markers_and_an_hour_before_five_minutes() {
    let desk = Desk::new().await;
    let with = |ttls: &[&str]| {
        let blocks: Vec<Value> = ttls
            .iter()
            .map(|ttl| marked(text(words("block ", 100)), ttl))
            .collect();
        request(json!({"messages": [{"role": "user", "content": blocks}]}))
    };
    assert_eq!(desk.counts(&with(&["5m"; 4])).await.2, 400);
    let message = desk.refusal(&with(&["5m"; 5])).await;
    assert_eq!(
        message,
        "A maximum of 4 blocks with cache_control may be provided. Found 5."
    );

    desk.emulator.evict_all();
    let usage = desk.ok(&with(&["1h", "1h", "5m"])).await["usage"].clone();
    assert_eq!(by_ttl(&usage), (100, 200));
    let message = desk.refusal(&with(&["1h", "5m", "1h"])).await;
    assert!(
        message.ends_with(
            "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. Note that blocks are \
             processed in the following order: tools, system, messages."
        ),
        "{message}"
    );
    // The order is the prompt's, not the JSON's.
    let mut valley = with(&["1h"]);
    valley["tools"] = json!([marked(tool("look"), "5m")]);
    desk.refusal(&valley).await;
    desk.emulator.clock().advance(FIVE_MINUTES * 2);
    assert_eq!(desk.counts(&with(&["1h", "1h", "5m"])).await, (0, 200, 100));
}

#[tokio::test]
async fn the_automatic_marker_moves_with_the_conversation() {
    let desk = Desk::new().await;
    let conversation = |turns: usize| {
        let mut messages = Vec::new();
        for turn in 0..turns {
            messages
                .push(json!({"role": "user", "content": words(&format!("question{turn} "), 100)}));
            messages.push(
                json!({"role": "assistant", "content": words(&format!("answer{turn} "), 50)}),
            );
        }
        messages.push(json!({"role": "user", "content": words("last ", 10)}));
        request(json!({"cache_control": {"type": "ephemeral"}, "messages": messages}))
    };
    assert_eq!(desk.counts(&conversation(1)).await, (0, 0, 160));
    // The written entry ended with another last question.
    assert_eq!(desk.counts(&conversation(1)).await, (0, 160, 0));
    let mut grown = conversation(1);
    let messages = grown["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": words("reply ", 20)}));
    messages.push(json!({"role": "user", "content": words("more ", 30)}));
    assert_eq!(desk.counts(&grown).await, (0, 160, 50));

    let mut conflict = conversation(0);
    conflict["messages"][0]["content"] = json!([marked(text(words("x", 100)), "1h")]);
    desk.refusal(&conflict).await;
    conflict["cache_control"] = json!({"type": "ephemeral", "ttl": "1h"});
    assert_eq!(desk.counts(&conflict).await, (0, 0, 100));
    let four: Vec<Value> = (0..4)
        .map(|_| marked(text(words("x", 100)), "5m"))
        .collect();
    desk.refusal(&request(json!({
        "cache_control": {"type": "ephemeral"},
        "messages": [{"role": "user", "content": four}],
    })))
    .await;
}

#[tokio::test]
async fn parallel_first_calls_all_write() {
    let desk = Desk::new().await;
    for _ in 0..3 {
        desk.emulator
            .faults()
            .next(Fault::SlowStart(Duration::from_millis(300)));
    }
    let (first, second, third) = (
        with_system("One?"),
        with_system("Two?"),
        with_system("Six?"),
    );
    let (first, second, third) = tokio::join!(
        desk.counts(&first),
        desk.counts(&second),
        desk.counts(&third)
    );
    assert_eq!([first, second, third], [(1, 0, 200); 3]);
    assert_eq!(desk.counts(&with_system("Two?")).await, (1, 200, 0));

    // As long as told, by the emulator's clock.
    let family = Anthropic::new()
        .cache_tokens_min(100)
        .write_visible_late(Duration::from_secs(60));
    let desk = Desk::of(family).await;
    desk.counts(&with_system("One?")).await;
    assert_eq!(desk.counts(&with_system("One?")).await.1, 0);
    desk.emulator.clock().advance(Duration::from_secs(61));
    assert_eq!(desk.counts(&with_system("One?")).await.1, 200);
}

#[tokio::test]
async fn an_hour_without_the_beta_header_can_become_five_minutes_silently() {
    let family = Anthropic::new()
        .cache_tokens_min(100)
        .ignoring_1h_without_beta();
    let desk = Desk::of(family).await;
    let body = request(json!({"system": [marked(text(words("system ", 200)), "1h")]}));
    assert_eq!(by_ttl(&desk.ok(&body).await["usage"]), (200, 0));
    desk.emulator.evict_all();
    let (_, with_beta) = answer(
        desk.request("/v1/messages", &body)
            .header("anthropic-beta", LONG_TTL_BETA),
    )
    .await;
    assert_eq!(by_ttl(&with_beta["usage"]), (0, 200));
}

#[tokio::test]
async fn a_prewarm_writes_and_says_nothing() {
    let desk = Desk::new().await;
    let mut body = with_system("x");
    body["max_tokens"] = json!(0);
    let answer = desk.ok(&body).await;
    assert_eq!(answer["content"], json!([]));
    assert_eq!(answer["usage"]["output_tokens"], 0);
    assert_eq!(desk.emulator.bill().charges()[0].kind, "prewarm");
    assert_eq!(desk.counts(&with_system("One?")).await, (1, 200, 0));
    for change in [
        json!({"stream": true}),
        json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        json!({"tools": [tool("look")], "tool_choice": {"type": "any"}}),
        json!({"output_config": {"format": {"type": "json_schema", "schema": {}}}}),
    ] {
        let mut refused = body.clone();
        refused
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        assert!(
            desk.refusal(&refused).await.starts_with("max_tokens: 0"),
            "{change}"
        );
    }
}

#[tokio::test]
async fn diagnostics_name_what_changed() {
    let desk = Desk::new().await;
    let mut body = request(json!({
        "diagnostics": {"previous_message_id": null},
        "tools": [tool("look")],
        "system": [marked(text(words("system ", 200)), "5m")],
    }));
    let first = desk.ok(&body).await;
    assert_eq!(first["diagnostics"], json!({"cache_miss_reason": null}));
    body["diagnostics"]["previous_message_id"] = first["id"].clone();
    assert_eq!(
        desk.ok(&body).await["diagnostics"]["cache_miss_reason"],
        Value::Null
    );
    let reason = async |change: Value| {
        let mut body = body.clone();
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        desk.ok(&body).await["diagnostics"]["cache_miss_reason"].clone()
    };
    let system = reason(json!({"system": "Another."})).await;
    assert_eq!(system["type"], "system_changed");
    assert!(system["cache_missed_input_tokens"].as_u64().unwrap() > 200);
    assert_eq!(
        reason(json!({"tools": [tool("other")]})).await["type"],
        "tools_changed"
    );
    assert_eq!(
        reason(json!({"model": "claude-sonnet-5-5"})).await["type"],
        "model_changed"
    );
    let messages = json!([{"role": "user", "content": "How?"}]);
    assert_eq!(
        reason(json!({"messages": messages})).await["type"],
        "messages_changed"
    );
    assert_eq!(
        reason(json!({"tool_choice": {"type": "none"}})).await["type"],
        "unavailable"
    );
    let unknown = json!({"previous_message_id": "msg_unknown"});
    assert_eq!(
        reason(json!({"diagnostics": unknown})).await["type"],
        "previous_message_not_found"
    );
}

#[tokio::test]
async fn older_models_drop_thinking_of_finished_turns() {
    let desk = Desk::new().await;
    desk.emulator.script().next(Answer {
        reasoning: words("hmm ", 50),
        ..Answer::call("look", "{}")
    });
    let mut body = request(json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 4096,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [tool("look")],
        "messages": [{"role": "user", "content": [text(words("first ", 200))]}],
    }));
    let content = desk.ok(&body).await["content"].clone();
    let id = content[1]["id"].as_str().unwrap().to_owned();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": content}));
    messages.push(json!({"role": "user", "content": [marked(result(&id), "5m")]}));
    let (_, _, written) = desk.counts(&body).await;
    assert!(written > 300);
    assert_eq!(desk.counts(&body).await.1, written);
    body["messages"]
        .as_array_mut()
        .unwrap()
        .push(json!({"role": "assistant", "content": "Seen."}));
    body["messages"]
        .as_array_mut()
        .unwrap()
        .push(json!({"role": "user", "content": "And?"}));
    assert_eq!(desk.counts(&body).await.1, 0);
    body["model"] = json!("claude-opus-5-5");
    desk.counts(&body).await;
    assert_eq!(desk.counts(&body).await.1, written);
}
