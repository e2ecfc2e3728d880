//! vLLM, SGLang, llama-server, Ollama.

use holdfast_emulators::families::compatible::{Compatible, EngineOptions, LlamaServerOptions};
use serde_json::{Value, json};

use crate::{Got, Provider, cached, question, text, with};

#[tokio::test]
async fn vllm_shares_full_blocks_and_computes_the_last_token_again() {
    let provider = Provider::start(Compatible::vllm()).await;
    let system = text("sys", 100);
    provider.usage(&question("m", &system, "one?")).await;
    assert_eq!(provider.cached(&question("m", &system, "two?")).await, 96);
    let whole = json!({"model": "m", "messages": [{"role": "user", "content": text("usr", 160)}]});
    provider.usage(&whole).await;
    assert_eq!(provider.cached(&whole).await, 144, "all but the last block");
}

#[tokio::test]
async fn vllm_reads_its_own_answers() {
    let provider = Provider::start(Compatible::vllm()).await;
    let first = question("m", &text("sys", 96), &text("one", 15));
    let answer = provider.chat_with(&[], &first).await.json();
    let mut next = first;
    let messages = next["messages"].as_array_mut().unwrap();
    messages
        .push(json!({"role": "assistant", "content": answer["choices"][0]["message"]["content"]}));
    messages.push(json!({"role": "user", "content": text("two", 32)}));
    // 96 + 15 tokens asked, 6 answered: seven blocks.
    assert_eq!(provider.cached(&next).await, 112);
}

#[tokio::test]
async fn a_salt_separates_tenants_and_an_empty_one_is_refused() {
    for family in [Compatible::vllm(), Compatible::sglang()] {
        let provider = Provider::start(family).await;
        let body = question("m", &text("sys", 160), "one?");
        let salted = with(&body, "cache_salt", json!("tenant a"));
        provider.usage(&salted).await;
        assert_eq!(provider.cached(&body).await, 0);
        assert_eq!(
            provider
                .cached(&with(&body, "cache_salt", json!("tenant b")))
                .await,
            0
        );
        assert_eq!(provider.cached(&salted).await, 160);
        assert_eq!(
            provider
                .chat_with(&[], &with(&body, "cache_salt", json!("")))
                .await
                .status,
            400
        );
    }
}

#[tokio::test]
async fn without_the_flag_nobody_knows() {
    let silent = EngineOptions {
        reports_cached_tokens: false,
        ..EngineOptions::vllm()
    };
    for family in [
        Compatible::vllm_with(silent.clone()),
        Compatible::sglang_with(silent),
    ] {
        let provider = Provider::start(family).await;
        let body = question("m", &text("sys", 160), "one?");
        provider.usage(&body).await;
        let usage = provider.usage(&body).await;
        assert_eq!(usage.get("prompt_tokens_details"), Some(&Value::Null));
        assert!(provider.last_charge().cache_read > 0);
    }
}

#[tokio::test]
async fn continuous_usage_is_in_every_chunk() {
    let provider = Provider::start(Compatible::vllm()).await;
    let mut body = with(&question("m", "s", "u"), "stream", json!(true));
    body["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
    let events = provider.chat_with(&[], &body).await.events();
    assert!(events.len() > 3);
    assert!(
        events
            .iter()
            .all(|event| event["usage"]["prompt_tokens"] == 2)
    );
}

#[tokio::test]
async fn resets_are_for_dev_mode() {
    for (family, path) in [
        (Compatible::vllm(), "/reset_prefix_cache"),
        (Compatible::sglang(), "/flush_cache"),
    ] {
        let provider = Provider::start(family).await;
        let body = question("m", &text("sys", 160), "one?");
        provider.usage(&body).await;
        let url = format!("{}{path}", provider.emulator.url);
        assert_eq!(provider.send("POST", &url, &[], None).await.status, 200);
        assert_eq!(provider.cached(&body).await, 0);
    }
    let production = EngineOptions {
        allows_reset: false,
        ..EngineOptions::vllm()
    };
    let provider = Provider::start(Compatible::vllm_with(production)).await;
    let url = format!("{}/reset_prefix_cache", provider.emulator.url);
    assert_eq!(provider.send("POST", &url, &[], None).await.status, 404);
}

#[tokio::test]
async fn the_longest_unused_blocks_make_room_from_their_end() {
    let small = EngineOptions {
        blocks_max: 15,
        ..EngineOptions::vllm()
    };
    let provider = Provider::start(Compatible::vllm_with(small)).await;
    let body = |name: &str| {
        let body =
            json!({"model": "m", "messages": [{"role": "user", "content": text(name, 160)}]});
        with(&body, "max_tokens", json!(1))
    };
    provider.usage(&body("first")).await;
    provider.usage(&body("second")).await;
    assert_eq!(
        provider.cached(&body("first")).await,
        80,
        "five of ten blocks were left"
    );
}

fn timings(got: &Got) -> (u64, u64) {
    let timings = &got.json()["timings"];
    (
        timings["cache_n"].as_u64().unwrap(),
        timings["prompt_n"].as_u64().unwrap(),
    )
}

/// One slot and nothing beside it.
fn bare(slots: usize) -> LlamaServerOptions {
    LlamaServerOptions {
        slots,
        ram_cache: false,
        ..LlamaServerOptions::default()
    }
}

async fn act(provider: &Provider, slot: usize, action: &str, name: &str) -> Got {
    let url = format!("{}/slots/{slot}?action={action}", provider.emulator.url);
    provider
        .send("POST", &url, &[], Some(&json!({"filename": name})))
        .await
}

#[tokio::test]
async fn a_slot_reuses_what_the_prompt_shares_with_it() {
    let provider = Provider::start(Compatible::llama_server_with(bare(1))).await;
    let system = text("sys", 101);
    let got = provider
        .chat_with(&[], &question("m", &system, "one?"))
        .await;
    assert_eq!(timings(&got), (0, 102));
    let got = provider
        .chat_with(&[], &question("m", &system, "two?"))
        .await;
    assert_eq!(timings(&got), (101, 1));
    assert_eq!(cached(&got.json()["usage"]), 101);
    let again = provider
        .chat_with(&[], &question("m", &system, "two?"))
        .await;
    assert_eq!(
        timings(&again),
        (101, 1),
        "the last token is computed always"
    );
    let off = with(
        &question("m", &system, "two?"),
        "cache_prompt",
        json!(false),
    );
    assert_eq!(timings(&provider.chat_with(&[], &off).await), (0, 102));
}

#[tokio::test]
async fn timings_are_on_the_last_chunk() {
    let provider = Provider::start(Compatible::llama_server()).await;
    let mut body = with(
        &question("m", &text("sys", 100), "one?"),
        "stream",
        json!(true),
    );
    let events = provider.chat_with(&[], &body).await.events();
    let last = events.last().unwrap();
    assert_eq!(last["timings"]["prompt_n"], 101);
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    body["stream_options"] = json!({"include_usage": true});
    let events = provider.chat_with(&[], &body).await.events();
    let last = events.last().unwrap();
    assert_eq!(
        (&last["timings"]["cache_n"], &last["timings"]["prompt_n"]),
        (&json!(100), &json!(1))
    );
    assert_eq!(last["usage"]["prompt_tokens_details"]["cached_tokens"], 100);
    assert_eq!(
        events
            .iter()
            .filter(|event| event.get("timings").is_some())
            .count(),
        1
    );
}

#[tokio::test]
async fn another_request_on_the_slot_overwrites_it_and_a_file_brings_it_back() {
    let provider = Provider::start(Compatible::llama_server_with(bare(2))).await;
    let mine = with(
        &question("m", &text("mine", 200), "one?"),
        "id_slot",
        json!(1),
    );
    let other = with(
        &question("m", &text("other", 200), "one?"),
        "id_slot",
        json!(1),
    );
    let once = with(&mine, "max_tokens", json!(1));
    provider.chat_with(&[], &once).await;
    let saved = act(&provider, 1, "save", "ctx_x.bin").await.json();
    assert_eq!(
        (&saved["id_slot"], &saved["n_saved"]),
        (&json!(1), &json!(202))
    );
    provider.chat_with(&[], &other).await;
    assert_eq!(timings(&provider.chat_with(&[], &once).await).0, 0);
    provider.chat_with(&[], &other).await;
    let restored = act(&provider, 0, "restore", "ctx_x.bin").await.json();
    assert_eq!(
        (&restored["id_slot"], &restored["n_restored"]),
        (&json!(0), &json!(202))
    );
    let there = with(&once, "id_slot", json!(0));
    assert_eq!(timings(&provider.chat_with(&[], &there).await).0, 200);
    assert_eq!(act(&provider, 0, "erase", "").await.json()["n_erased"], 202);
    assert_eq!(timings(&provider.chat_with(&[], &there).await).0, 0);
}

#[tokio::test]
async fn slot_files_have_bare_names_and_must_exist() {
    let provider = Provider::start(Compatible::llama_server()).await;
    for name in ["../x.bin", "a/b", "", "a\\b"] {
        assert_eq!(act(&provider, 0, "save", name).await.status, 400, "{name}");
    }
    assert_eq!(act(&provider, 0, "restore", "none.bin").await.status, 400);
    assert_eq!(act(&provider, 0, "dance", "x.bin").await.status, 400);
    let closed = LlamaServerOptions {
        saves_slots: false,
        shows_slots: false,
        ..bare(1)
    };
    let provider = Provider::start(Compatible::llama_server_with(closed)).await;
    assert_eq!(act(&provider, 0, "save", "x.bin").await.status, 501);
    let url = format!("{}/slots", provider.emulator.url);
    assert_eq!(provider.send("GET", &url, &[], None).await.status, 501);
}

#[tokio::test]
async fn prompts_choose_the_slot_they_resemble_and_else_the_oldest() {
    let provider = Provider::start(Compatible::llama_server_with(bare(2))).await;
    let chat = async |name: &str| {
        let body = with(
            &question("m", &text(name, 200), "one?"),
            "max_tokens",
            json!(1),
        );
        timings(&provider.chat_with(&[], &body).await).0
    };
    assert_eq!(chat("a").await, 0);
    assert_eq!(chat("b").await, 0);
    assert_eq!(chat("a").await, 200);
    assert_eq!(chat("c").await, 0, "takes b's slot");
    assert_eq!(chat("a").await, 200);
    assert_eq!(chat("b").await, 0);
}

#[tokio::test]
async fn evicted_prompts_come_back_from_ram_where_that_is_on() {
    let options = LlamaServerOptions {
        slots: 1,
        ..LlamaServerOptions::default()
    };
    let provider = Provider::start(Compatible::llama_server_with(options)).await;
    let chat = async |name: &str| {
        let body = question("m", &text(name, 200), "one?");
        timings(&provider.chat_with(&[], &body).await).0
    };
    chat("a").await;
    chat("b").await;
    assert_eq!(chat("a").await, 200);
}

#[tokio::test]
async fn ollama_reuses_and_says_nothing() {
    let provider = Provider::start(Compatible::ollama()).await;
    let body = question("m", &text("sys", 200), "one?");
    provider.usage(&body).await;
    let usage = provider.usage(&body).await;
    assert_eq!(usage.get("prompt_tokens_details"), None);
    assert_eq!(provider.last_charge().cache_read, 200);
}
