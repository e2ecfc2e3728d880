//! Contexts that nobody created by name: by markers, by cache keys, and of the gateway's own accord.

use std::time::Duration;

use holdfast_emulators::Emulator;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_store::KeyScope;
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::words;
use crate::say;

fn marked(text: &str, ttl: Option<&str>) -> Value {
    let mut marker = json!({"mode": "explicit"});
    if let Some(ttl) = ttl {
        marker["ttl"] = json!(ttl);
    }
    json!({"type": "text", "text": text, "prompt_cache_breakpoint": marker})
}

async fn chat(client: &TestClient, model: &str, messages: &[Value], fields: Value) -> Reply {
    let mut body =
        json!({"model": model, "messages": messages, "temperature": 0, "max_tokens": 16});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    client.post("/v1/chat/completions", &body).await
}

fn counts(reply: &Reply) -> (u64, u64, u64) {
    let usage = reply.ok()["usage"].clone();
    let number = |name: &str| usage[name].as_u64().unwrap();
    (
        number("prompt_tokens"),
        number("cache_read_input_tokens"),
        number("cache_creation_input_tokens"),
    )
}

#[tokio::test]
async fn a_marked_prefix_is_written_once_and_read_from_then_on() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let system = json!({"role": "system", "content": [marked(&words(40), None)]});
    let ask = async |question: &str| {
        chat(
            &client,
            "tiny",
            &[system.clone(), say("user", question)],
            json!({}),
        )
        .await
    };

    let first = ask("one").await;
    let (prompt, read, written) = counts(&first);
    assert_eq!(read, 0);
    assert!(written > 200 && written < prompt, "{written} of {prompt}");
    assert_eq!(
        first.header("x-context-cache"),
        "miss; reason=first_use; origin=marker"
    );

    let second = ask("two").await;
    assert_eq!(counts(&second), (prompt, written, 0));
    assert_eq!(
        second.header("x-context-cache"),
        "hit; tier=kv; origin=marker"
    );
    let plain = [say("system", &words(40)), say("user", "two")];
    assert_eq!(
        second.answer(),
        chat(&client, "tiny", &plain, json!({})).await.answer(),
        "the model sees the same either way"
    );

    // It is a context like others, though not listed.
    let id = second.ok()["context_cache"]["context_id"].clone();
    let id = id.as_str().unwrap();
    assert_eq!(client.get("/v1/context").await.ok()["data"], json!([]));
    let shown = client.get(&format!("/v1/context/{id}")).await.ok();
    assert_eq!(
        (&shown["ttl"], &shown["mode"]),
        (&json!(300), &json!("common_prefix"))
    );
    let by_id = json!({"model": "tiny", "context_id": id, "messages": [say("user", "two")], "temperature": 0, "max_tokens": 16});
    assert_eq!(
        client.post("/v1/chat/completions", &by_id).await.answer(),
        second.answer()
    );
    client.delete(&format!("/v1/context/{id}")).await.ok();
    assert_eq!(counts(&ask("three").await).1, 0, "gone means gone");
}

#[tokio::test]
async fn a_marker_in_the_middle_of_a_message_divides_it() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let ask = async |question: &str| {
        let parts = json!([marked(&words(40), None), {"type": "text", "text": question}]);
        let message = json!({"role": "user", "content": parts});
        chat(&client, "tiny", &[message], json!({})).await
    };
    let (_, _, written) = counts(&ask("one").await);
    assert!(written > 200);
    assert_eq!(counts(&ask("two").await).1, written);
}

#[tokio::test]
async fn it_lives_as_long_as_the_marker_says_after_each_use() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let context = async |ttl: Option<&str>, name: &str| {
        let text = format!("{name} {}", words(40));
        let system = json!({"role": "system", "content": [marked(&text, ttl)]});
        let reply = chat(&client, "tiny", &[system, say("user", "hi")], json!({})).await;
        reply.ok()["context_cache"]["context_id"].clone()
    };
    for (ttl, seconds, name) in [(None, 300, "a"), (Some("30m"), 1800, "b")] {
        let first = context(ttl, name).await;
        for _ in 0..3 {
            gateway.clock.advance(Duration::from_secs(seconds - 10));
            assert_eq!(context(ttl, name).await, first, "{name}");
        }
        gateway.clock.advance(Duration::from_secs(seconds));
        assert_ne!(context(ttl, name).await, first, "{name}");
    }
}

#[tokio::test]
async fn a_conversation_computes_only_what_is_new() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let mut messages = vec![say("system", &words(40))];
    let mut before = 0;
    for turn in 0..4 {
        messages
            .push(json!({"role": "user", "content": [marked(&format!("question {turn}"), None)]}));
        let reply = chat(&client, "tiny", &messages, json!({})).await;
        let (prompt, read, written) = counts(&reply);
        assert_eq!(read, before, "turn {turn}");
        assert!(
            prompt - read - written < 30,
            "turn {turn}: {prompt} {read} {written}"
        );
        before = read + written;
        *messages.last_mut().unwrap() = say("user", &format!("question {turn}"));
        messages.push(say("assistant", &reply.answer()));
    }
    assert!(before > 300);
}

#[tokio::test]
async fn no_project_meets_anothers_and_no_model_anothers() {
    let gateway = TestGateway::start().await;
    let mine = gateway.client();
    let theirs = gateway.client_of("other", &[KeyScope::Inference]).await;
    let system = json!({"role": "system", "content": [marked(&words(40), None)]});
    let messages = [system, say("user", "hi")];
    let first = chat(&mine, "tiny", &messages, json!({})).await;
    let id = first.ok()["context_cache"]["context_id"].clone();
    let foreign = chat(&theirs, "tiny", &messages, json!({})).await;
    assert_eq!(counts(&foreign).1, 0);
    assert_ne!(foreign.ok()["context_cache"]["context_id"], id);
    let other = chat(&mine, "doubao-pro-32k", &messages, json!({})).await;
    assert_ne!(other.ok()["context_cache"]["context_id"], id);
    theirs
        .get(&format!("/v1/context/{}", id.as_str().unwrap()))
        .await
        .error(404);
}

#[tokio::test]
async fn it_gives_way_to_contexts_with_names_and_is_found_again_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || {
        TestGateway::builder()
            .data_dir(folder.path())
            .limits(|limits| limits.contexts_per_project_max = 2)
    };
    let ask = async |client: &TestClient, name: &str| {
        let system = json!({"role": "system", "content": [marked(&format!("{name} {}", words(40)), Some("30m"))]});
        chat(client, "tiny", &[system, say("user", "hi")], json!({})).await
    };
    let gateway = builder().start().await;
    let client = gateway.client();
    for name in ["a", "b", "a", "c"] {
        ask(&client, name).await.ok();
    }
    assert!(counts(&ask(&client, "a").await).1 > 0, "used last but one");
    assert_eq!(
        counts(&ask(&client, "b").await).1,
        0,
        "the longest unused went"
    );
    crate::create(&client, json!({})).await;
    crate::create(&client, json!({})).await;
    let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
    client.post("/v1/context/create", &body).await.error(429);
    // No room: the request is answered all the same.
    assert_eq!(counts(&ask(&client, "d").await).1, 0);
    let id = client.get("/v1/context").await.ok()["data"][0]["id"].clone();
    client
        .delete(&format!("/v1/context/{}", id.as_str().unwrap()))
        .await
        .ok();
    ask(&client, "e").await.ok();
    gateway.stop().await;

    let gateway = builder().start().await;
    let client = gateway.client();
    let again = ask(&client, "e").await;
    assert!(counts(&again).1 > 0, "{}", again.header("x-context-cache"));
}

#[tokio::test]
async fn a_cache_key_keeps_what_comes_before_the_question() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let ask = async |question: &str| {
        let messages = [say("system", &words(40)), say("user", question)];
        chat(&client, "tiny", &messages, json!({"prompt_cache_key": "k"})).await
    };
    let (_, read, written) = counts(&ask("one").await);
    assert_eq!(read, 0);
    let second = ask("two").await;
    assert_eq!(counts(&second).1, written);
    assert_eq!(second.header("x-context-cache"), "hit; tier=kv; origin=key");
}

#[tokio::test]
async fn markers_of_another_dialect_work_on_every_kind_of_upstream() {
    let anthropic = Emulator::start(Anthropic::new()).await;
    let gemini = Emulator::start(Gemini::new()).await;
    let openai = Emulator::start(OpenAi::new()).await;
    let gateway = TestGateway::builder()
        .upstream(upstream("anthropic", &anthropic.url, "key"))
        .upstream(upstream("gemini", &format!("{}/v1beta", gemini.url), "key"))
        .upstream(upstream("openai", &format!("{}/v1", openai.url), "key"))
        .route("on-anthropic", &[("anthropic", "claude-sonnet-4-6")])
        .route("on-gemini", &[("gemini", "gemini-2.5-flash")])
        .route("on-openai", &[("openai", "gpt-5.6")])
        .start()
        .await;
    let client = gateway.client();
    let system = json!({"role": "system", "content": [marked(&words(6000), None)]});
    for model in ["on-anthropic", "on-gemini", "on-openai"] {
        let ask = async |question: &str| {
            chat(
                &client,
                model,
                &[system.clone(), say("user", question)],
                json!({}),
            )
            .await
        };
        ask("one").await.ok();
        let (prompt, read, _) = counts(&ask("two").await);
        assert!(read * 10 > prompt * 9, "{model}: {read} of {prompt}");
    }
}

#[tokio::test]
async fn the_gateway_notices_what_requests_begin_with() {
    let gateway = TestGateway::builder().auto_context().start().await;
    let client = gateway.client();
    let ask = async |question: &str| {
        let messages = [say("system", &words(800)), say("user", question)];
        chat(&client, "tiny", &messages, json!({})).await
    };
    let first = ask("one").await;
    assert_eq!((counts(&first).1, counts(&first).2), (0, 0));
    assert_eq!(first.header("x-context-cache"), "");
    let second = ask("two").await;
    assert!(
        counts(&second).2 > 1024,
        "the second one shows that it repeats"
    );
    assert_eq!(
        second.header("x-context-cache"),
        "miss; reason=first_use; origin=automatic"
    );
    let third = ask("three").await;
    assert_eq!(counts(&third).1, counts(&second).2);

    // What is small is left alone.
    for question in ["one", "two", "three"] {
        let messages = [say("system", &words(20)), say("user", question)];
        let reply = chat(&client, "tiny", &messages, json!({})).await;
        assert_eq!(reply.header("x-context-cache"), "");
    }
}

#[tokio::test]
async fn without_the_setting_it_notices_nothing() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    for question in ["one", "two", "three"] {
        let messages = [say("system", &words(800)), say("user", question)];
        let reply = chat(&client, "tiny", &messages, json!({})).await;
        assert_eq!(reply.header("x-context-cache"), "");
    }
}

#[tokio::test]
async fn many_at_once_write_it_once() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let system = json!({"role": "system", "content": [marked(&words(40), None)]});
    let asked = (0..20).map(|number| {
        let (client, system) = (client.clone(), system.clone());
        async move {
            let messages = [system, say("user", &format!("question {number}"))];
            counts(&chat(&client, "tiny", &messages, json!({})).await)
        }
    });
    let counted = futures_util::future::join_all(asked).await;
    assert_eq!(
        counted
            .iter()
            .filter(|(_, _, written)| *written > 0)
            .count(),
        1
    );
    assert_eq!(counted.iter().filter(|(_, read, _)| *read > 0).count(), 19);
}
