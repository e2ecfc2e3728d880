//! What all of them have in common.

use holdfast_emulators::families::{self, compatible::Compatible};
use holdfast_emulators::{Answer, Emulator, Fault, UsageFault};
use serde_json::{Value, json};

use crate::{Provider, question, text};

fn all() -> Vec<Compatible> {
    vec![
        Compatible::qwen(),
        Compatible::kimi(),
        Compatible::deepseek(),
        Compatible::zhipu(),
        Compatible::minimax(),
        Compatible::xai(),
        Compatible::mistral(),
        Compatible::groq(),
        Compatible::fireworks(),
        Compatible::together(),
        Compatible::openrouter(),
        Compatible::openai_compatible(),
        Compatible::vllm(),
        Compatible::sglang(),
        Compatible::llama_server(),
        Compatible::ollama(),
    ]
}

fn is_hosted(name: &str) -> bool {
    ![
        "openai-compatible",
        "vllm",
        "sglang",
        "llama-server",
        "ollama",
    ]
    .contains(&name)
}

fn name_of(family: &Compatible) -> &'static str {
    holdfast_emulators::Family::name(family)
}

#[tokio::test]
async fn each_is_on_the_list_with_the_base_path_it_serves() {
    for family in all() {
        let entry = families::entry_by_name(name_of(&family)).unwrap();
        assert_eq!(entry.base_path, family.base_path(), "{}", entry.name);
        let provider = Provider::start(family).await;
        let models = provider
            .send("GET", &format!("{}/models", provider.base), &[], None)
            .await;
        assert_eq!(models.status, 200, "{}", entry.name);
        let listed = models.json()["data"].as_array().unwrap().len();
        assert!(listed > 0, "{}", entry.name);
    }
}

#[tokio::test]
async fn hosted_ones_want_a_key_and_charge_nothing_without() {
    for family in all() {
        let name = name_of(&family);
        let provider = Provider::start(family).await;
        let got = provider
            .chat_with(&[("authorization", "")], &question("m", "s", "u"))
            .await;
        let expected = if is_hosted(name) { 401 } else { 200 };
        assert_eq!(got.status, expected, "{name}: {}", got.body);
        assert_eq!(
            provider.emulator.bill().charges().is_empty(),
            is_hosted(name),
            "{name}"
        );
    }
}

#[tokio::test]
async fn what_no_provider_takes_is_refused_and_not_charged() {
    for family in all() {
        let name = name_of(&family);
        let provider = Provider::start(family).await;
        let good = question("m", "s", "u");
        for (what, body) in [
            ("no model", json!({"messages": good["messages"]})),
            ("no messages", json!({"model": "m", "messages": []})),
            (
                "unknown role",
                json!({"model": "m", "messages": [{"role": "cache", "content": "x"}]}),
            ),
            (
                "part without type",
                json!({"model": "m", "messages": [{"role": "user", "content": [{"text": "x"}]}]}),
            ),
        ] {
            let got = provider.chat_with(&[], &body).await;
            assert_eq!(got.status, 400, "{name}, {what}: {}", got.body);
        }
        let wrong = format!("{}/elsewhere", provider.base);
        assert_eq!(
            provider.send("POST", &wrong, &[], Some(&good)).await.status,
            404,
            "{name}"
        );
        assert!(provider.emulator.bill().charges().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn an_answer_of_no_tokens_is_asked_of_llama_cpp_only() {
    for family in all() {
        let name = name_of(&family);
        let provider = Provider::start(family).await;
        let mut body = question("m", "s", "u");
        body["max_tokens"] = json!(0);
        let expected = if ["llama-server", "ollama"].contains(&name) {
            200
        } else {
            400
        };
        assert_eq!(
            provider.chat_with(&[], &body).await.status,
            expected,
            "{name}"
        );
    }
}

#[tokio::test]
async fn stream_and_whole_answer_say_and_cost_the_same() {
    for family in all() {
        let name = name_of(&family);
        let provider = Provider::start(family).await;
        let script = provider.emulator.script();
        let answer = Answer {
            text: "one two three".to_owned(),
            reasoning: "let me think about it".to_owned(),
            ..Answer::default()
        };
        script.next(answer.clone());
        script.next(answer);
        let mut body = question("m", &text("sys", 40), "what?");
        let whole = provider.chat_with(&[], &body).await.json();
        provider.emulator.evict_all();
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let stream = provider.chat_with(&[], &body).await;
        assert!(stream.body.ends_with("data: [DONE]\n\n"), "{name}");
        assert_eq!(stream.stream_usage().unwrap(), whole["usage"], "{name}");
        let said: String = stream
            .events()
            .iter()
            .filter_map(|event| {
                event["choices"][0]["delta"]["content"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        assert_eq!(said, "one two three", "{name}");
        let charges = provider.emulator.bill().charges();
        assert_eq!(charges[0], charges[1], "{name}");
        assert_eq!(
            charges[0].input(),
            whole["usage"]["prompt_tokens"].as_u64().unwrap(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn usage_in_a_stream_comes_when_asked_for_or_always() {
    for family in all() {
        let name = name_of(&family);
        let provider = Provider::start(family).await;
        let mut body = question("m", "s", "u");
        body["stream"] = json!(true);
        let got = provider.chat_with(&[], &body).await;
        let always = ["zhipu", "mistral", "openrouter"].contains(&name);
        assert_eq!(got.stream_usage().is_some(), always, "{name}");
    }
}

#[tokio::test]
async fn cached_tokens_are_counted_apart_on_the_bill() {
    for family in all() {
        let name = name_of(&family);
        let provider = Provider::start(family).await;
        let model = if name == "groq" {
            "openai/gpt-oss-120b"
        } else {
            "m"
        };
        let mut body = question(model, &text("sys", 2048), "what?");
        body["prompt_cache_key"] = json!("k");
        let affinity = [("x-grok-conv-id", "k")];
        provider.usage_with(&affinity, &body).await;
        provider.wait(60);
        let usage = provider.usage_with(&affinity, &body).await;
        let charge = provider.last_charge();
        assert_eq!(
            charge.input(),
            usage["prompt_tokens"].as_u64().unwrap(),
            "{name}"
        );
        if name == "openai-compatible" {
            assert_eq!(charge.cache_read, 0);
            continue;
        }
        assert!(charge.cache_read >= 1900, "{name}: {charge:?}");
        if name == "ollama" {
            assert_eq!(usage.get("prompt_tokens_details"), None);
        } else {
            assert_eq!(crate::cached(&usage), charge.cache_read, "{name}");
        }
    }
}

#[tokio::test]
async fn evicting_makes_the_next_request_a_miss() {
    for family in all() {
        let name = name_of(&family);
        let provider = Provider::start(family).await;
        let mut body = question("m", &text("sys", 2048), "what?");
        body["prompt_cache_key"] = json!("k");
        for _ in 0..2 {
            provider.usage(&body).await;
            provider.wait(60);
        }
        provider.emulator.evict_all();
        provider.usage(&body).await;
        assert_eq!(provider.last_charge().cache_read, 0, "{name}");
    }
}

#[tokio::test]
async fn ordered_failures_are_worded_as_the_provider_words_them() {
    for (family, pointer) in [
        (Compatible::qwen(), "/request_id"),
        (Compatible::kimi(), "/error/type"),
        (Compatible::zhipu(), "/error/code"),
        (Compatible::xai(), "/code"),
        (Compatible::mistral(), "/message"),
        (Compatible::fireworks(), "/error/object"),
        (Compatible::vllm(), "/error/type"),
        (Compatible::llama_server(), "/error/code"),
    ] {
        let name = name_of(&family);
        let provider = Provider::start(family).await;
        provider.emulator.faults().next(Fault::Status(429, Some(7)));
        let got = provider.chat_with(&[], &question("m", "s", "u")).await;
        assert_eq!(
            (got.status, got.header("retry-after")),
            (429, "7"),
            "{name}"
        );
        assert!(
            got.json()
                .pointer(pointer)
                .is_some_and(|value| !value.is_null()),
            "{name}: {}",
            got.body
        );
    }
}

#[tokio::test]
async fn a_spoilt_usage_leaves_the_bill_right() {
    let provider = Provider::start(Compatible::deepseek()).await;
    let body = question("m", &text("sys", 200), "what?");
    provider
        .emulator
        .faults()
        .next(Fault::Usage(UsageFault::Impossible));
    let usage = provider.usage(&body).await;
    assert!(usage["prompt_cache_hit_tokens"].as_u64() > usage["prompt_tokens"].as_u64());
    provider
        .emulator
        .faults()
        .next(Fault::Usage(UsageFault::Missing));
    let got = provider.chat_with(&[], &body).await;
    assert_eq!(got.json().get("usage"), None);
    for charge in provider.emulator.bill().charges() {
        assert!(!charge.reported);
        assert_eq!(charge.uncached_input, 202);
    }
}

#[tokio::test]
async fn writes_can_be_read_when_the_response_begins() {
    let provider = Provider::start(Compatible::minimax()).await;
    let body = question("m", &text("sys", 600), "what?");
    let pause = std::time::Duration::from_millis(500);
    provider.emulator.faults().next(Fault::SlowStart(pause));
    let mut in_flight = provider.emulator.in_flight();
    let (slow, quick) = tokio::join!(provider.cached(&body), async {
        in_flight.wait_for(|count| *count > 0).await.unwrap();
        provider.cached(&body).await
    });
    assert_eq!(
        (slow, quick),
        (0, 0),
        "a parallel request found what was not there yet"
    );
    assert!(provider.cached(&body).await >= 512);
}

#[tokio::test]
async fn random_misses_are_the_same_for_the_same_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let provider = Provider::start(Compatible::minimax().random_misses(7, 0.5)).await;
        let body = question("m", &text("sys", 600), "what?");
        let mut run = Vec::new();
        for _ in 0..20 {
            run.push(provider.cached(&body).await > 0);
        }
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
    let hits = runs[0].iter().filter(|hit| **hit).count();
    assert!((3..17).contains(&hits), "{hits} hits");
}

#[tokio::test]
async fn another_account_shares_nothing_with_hosted_providers() {
    for family in all() {
        let name = name_of(&family);
        if !is_hosted(name) {
            continue;
        }
        let provider = Provider::start(family).await;
        let mut body = question("m", &text("sys", 2048), "what?");
        body["prompt_cache_key"] = json!("k");
        let send = async |account: &str| {
            let headers = [("authorization", account), ("x-grok-conv-id", "k")];
            provider.usage_with(&headers, &body).await;
            provider.wait(60);
            provider.last_charge()
        };
        send("Bearer a").await;
        let foreign = send("Bearer b").await;
        assert_eq!(
            (foreign.account.as_str(), foreign.cache_read),
            ("b", 0),
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_list_makes_working_emulators() {
    let family = families::by_name("vllm").unwrap();
    let emulator = Emulator::start(family).await;
    let url = format!("{}/v1/chat/completions", emulator.url);
    let response = reqwest::Client::new()
        .post(url)
        .json(&question("m", "s", "u"))
        .send()
        .await
        .unwrap();
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "You sent me 2 tokens."
    );
}
