//! Models before gpt-5.6: free, best effort, on the machine a prompt is routed to.

use std::time::Duration;

use holdfast_emulators::families::openai::OpenAi;
use serde_json::json;

use crate::{Client, plain, text};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn reads_are_free_and_rounded_down_to_128() {
    let client = Client::start(OpenAi::new()).await;
    let context = text("abcd", 2000);
    let first = client.chat(&plain("gpt-4o", &context, "one?")).await;
    let second = client.chat(&plain("gpt-4o", &context, "two?")).await;
    assert_eq!((first.input, first.read, first.written), (2001, 0, 0));
    assert_eq!((second.read, second.written), (1920, 0));
    let bill = client.emulator.bill().charges();
    assert_eq!(
        (
            bill[1].uncached_input,
            bill[1].cache_read,
            bill[1].cache_write.len()
        ),
        (81, 1920, 0)
    );
}

#[tokio::test]
async fn blocks_do_not_matter_but_every_token_does() {
    let client = Client::start(OpenAi::new()).await;
    let context = text("abcd", 2000);
    client.chat(&plain("gpt-4o", &context, "one?")).await;
    let longer = format!("{}{}", &context[..1500 * 4], text("wxyz", 700));
    assert_eq!(
        client.chat(&plain("gpt-4o", &longer, "one?")).await.read,
        1408,
        "up to the first difference"
    );
    let mut changed = context.clone();
    changed.replace_range(2000..2001, "X");
    assert_eq!(
        client.chat(&plain("gpt-4o", &changed, "one?")).await.read,
        0,
        "a difference within 1024 tokens"
    );
}

#[tokio::test]
async fn small_prompts_and_models_without_a_cached_price_report_nothing() {
    let client = Client::start(OpenAi::new()).await;
    for (model, tokens) in [
        ("gpt-4o", 1020),
        ("gpt-5-pro", 3000),
        ("gpt-3.5-turbo", 3000),
    ] {
        let body = plain(model, &text("abcd", tokens), "one?");
        client.chat(&body).await;
        assert_eq!(client.chat(&body).await.read, 0, "{model}");
    }
}

#[tokio::test]
async fn gpt_5_5_keeps_an_entry_for_every_2048_tokens() {
    let client = Client::start(OpenAi::new()).await;
    for (tokens, read) in [(2000, 0), (5000, 4096)] {
        let body = plain("gpt-5.5", &text("abcd", tokens), "one?");
        client.chat(&body).await;
        assert_eq!(client.chat(&body).await.read, read, "{tokens}");
    }
}

#[tokio::test]
async fn a_whole_prompt_is_never_read_to_its_last_token() {
    let client = Client::start(OpenAi::new()).await;
    let body =
        json!({"model": "gpt-4o", "messages": [{"role": "user", "content": text("abcd", 2048)}]});
    client.chat(&body).await;
    assert_eq!(client.chat(&body).await.read, 1920);
}

#[tokio::test]
async fn the_sixteenth_request_of_a_minute_meets_a_cold_machine() {
    let client = Client::start(OpenAi::new()).await;
    let mut body = plain("gpt-4o", &text("abcd", 2000), "one?");
    body["prompt_cache_key"] = json!("ctx-1");
    let mut reads = Vec::new();
    for _ in 0..17 {
        reads.push(client.chat(&body).await.read);
    }
    let cold: Vec<usize> = (0..17).filter(|index| reads[*index] == 0).collect();
    assert_eq!(cold, [0, 15]);
    client.emulator.clock().advance(MINUTE);
    assert_eq!(client.chat(&body).await.read, 1920, "back home");
}

#[tokio::test]
async fn the_key_is_a_part_of_the_route() {
    let client = Client::start(OpenAi::new()).await;
    let mut body = plain("gpt-4o", &text("abcd", 2000), "one?");
    let mut cold = 0;
    for key in 0..8 {
        body["prompt_cache_key"] = json!(format!("ctx-{key}"));
        cold += u32::from(client.chat(&body).await.read == 0);
    }
    assert!(cold > 4, "{cold} of 8 keys met a machine of their own");
    assert_eq!(
        client.chat_as("key-2", &body).await.read,
        0,
        "another account never shares"
    );
}

#[tokio::test]
async fn memory_lasts_five_idle_minutes_and_an_hour_in_all() {
    let client = Client::start(OpenAi::new().zero_retention()).await;
    let body = plain("gpt-4.1", &text("abcd", 2000), "one?");
    client.chat(&body).await;
    for _ in 0..14 {
        client.emulator.clock().advance(4 * MINUTE);
        assert_eq!(client.chat(&body).await.read, 1920);
    }
    client.emulator.clock().advance(4 * MINUTE);
    assert_eq!(client.chat(&body).await.read, 0, "an hour old");
    client.emulator.clock().advance(5 * MINUTE);
    assert_eq!(client.chat(&body).await.read, 0, "five minutes idle");
}

#[tokio::test]
async fn retention_of_a_day_is_the_default_where_the_model_has_it() {
    for (model, retention, read) in [
        ("gpt-4.1", None, 1920),
        ("gpt-4.1", Some("in_memory"), 0),
        ("gpt-5.1-codex", Some("24h"), 1920),
        ("gpt-4o", None, 0),
    ] {
        let client = Client::start(OpenAi::new()).await;
        let mut body = plain(model, &text("abcd", 2000), "one?");
        if let Some(retention) = retention {
            body["prompt_cache_retention"] = json!(retention);
        }
        client.chat(&body).await;
        client.emulator.clock().advance(23 * 60 * MINUTE);
        assert_eq!(client.chat(&body).await.read, read, "{model} {retention:?}");
    }
}
