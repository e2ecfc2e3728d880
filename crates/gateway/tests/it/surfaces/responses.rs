//! OpenAI's Responses and conversations, and Ark's.

use std::time::Duration;

use holdfast_emulators::Emulator;
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_protocol::provider::UpstreamDialectName;
use holdfast_store::KeyScope;
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::words;
use crate::{expected, say};

async fn respond(client: &TestClient, fields: Value) -> Reply {
    let mut body = json!({"model": "tiny", "temperature": 0, "max_output_tokens": 16});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    client.post("/v1/responses", &body).await
}

fn text(response: &Value) -> String {
    response["output"][0]["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("{response}"))
        .to_owned()
}

fn id(response: &Value) -> &str {
    response["id"].as_str().unwrap()
}

fn cached(response: &Value) -> u64 {
    response["usage"]["input_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap()
}

#[tokio::test]
async fn a_response_continues_from_any_other() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let question = words(40);
    let first = respond(
        &client,
        json!({"input": question, "instructions": "Be brief."}),
    )
    .await
    .ok();
    assert!(
        expected(
            &client,
            &[say("system", "Be brief."), say("user", &question)]
        )
        .await
        .starts_with(&text(&first))
    );
    assert_eq!(
        (&first["object"], &first["status"]),
        (&json!("response"), &json!("incomplete"))
    );

    let second = json!({"input": "two", "previous_response_id": id(&first)});
    let second = respond(&client, second).await.ok();
    // Instructions are not carried on.
    let said = [
        say("user", &question),
        say("assistant", &text(&first)),
        say("user", "two"),
    ];
    assert!(expected(&client, &said).await.starts_with(&text(&second)));

    // Two branches from the same response, one of them streamed.
    let more = |question: &str| json!({"input": question, "previous_response_id": id(&second)});
    let third = respond(&client, more("three")).await.ok();
    let mut said = said.to_vec();
    said.extend([say("assistant", &text(&second)), say("user", "three")]);
    assert!(expected(&client, &said).await.starts_with(&text(&third)));
    assert!(cached(&third) > 100, "{}", third["usage"]);
    let mut other = more("four");
    other["stream"] = json!(true);
    let other = respond(&client, other).await;
    let last = other.text();
    let last = last.trim_end().rsplit("data: ").next().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["type"], "response.incomplete");
    let other = last["response"].clone();
    said.pop();
    said.push(say("user", "four"));
    assert!(expected(&client, &said).await.starts_with(&text(&other)));
    assert!(cached(&other) > 100);

    // What was sent is what is kept.
    let kept = client
        .get(&format!("/v1/responses/{}", id(&other)))
        .await
        .ok();
    assert_eq!(kept, other);
    let items = client
        .get(&format!("/v1/responses/{}/input_items", id(&other)))
        .await
        .ok();
    assert_eq!(items["data"][0]["content"][0]["text"], "four");
    let counted = json!({"model": "tiny", "input": "three", "previous_response_id": id(&second)});
    let counted = client
        .post("/v1/responses/input_tokens", &counted)
        .await
        .ok();
    assert_eq!(counted["input_tokens"], third["usage"]["input_tokens"]);
}

#[tokio::test]
async fn what_is_deleted_or_not_stored_is_gone() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let stranger = gateway.client_of("other", &[KeyScope::Inference]).await;
    let first = respond(&client, json!({"input": "one"})).await.ok();
    let second = respond(
        &client,
        json!({"input": "two", "previous_response_id": id(&first)}),
    )
    .await
    .ok();
    let unstored = respond(&client, json!({"input": "one", "store": false}))
        .await
        .ok();

    let gone = |error: Value| assert_eq!(error["code"], "previous_response_not_found", "{error}");
    let again = json!({"input": "x", "previous_response_id": id(&first)});
    gone(respond(&stranger, again.clone()).await.error(400));
    stranger
        .get(&format!("/v1/responses/{}", id(&first)))
        .await
        .error(404);
    stranger
        .delete(&format!("/v1/responses/{}", id(&first)))
        .await
        .error(404);
    gone(
        respond(
            &client,
            json!({"input": "x", "previous_response_id": id(&unstored)}),
        )
        .await
        .error(400),
    );
    client
        .get(&format!("/v1/responses/{}", id(&unstored)))
        .await
        .error(404);

    let deleted = client
        .delete(&format!("/v1/responses/{}", id(&first)))
        .await
        .ok();
    assert_eq!(
        deleted,
        json!({"id": id(&first), "object": "response", "deleted": true})
    );
    client
        .get(&format!("/v1/responses/{}", id(&first)))
        .await
        .error(404);
    gone(respond(&client, again).await.error(400));
    // What came after it has not forgotten it.
    let third = respond(
        &client,
        json!({"input": "three", "previous_response_id": id(&second)}),
    )
    .await
    .ok();
    let said = [
        say("user", "one"),
        say("assistant", &text(&first)),
        say("user", "two"),
        say("assistant", &text(&second)),
        say("user", "three"),
    ];
    assert!(expected(&client, &said).await.starts_with(&text(&third)));

    gateway.clock.advance(Duration::from_secs(31 * 86_400));
    client
        .get(&format!("/v1/responses/{}", id(&third)))
        .await
        .error(404);
    gateway.app.sweep().await.unwrap();
}

#[tokio::test]
async fn a_conversation_goes_on_by_its_own_id() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let made = client
        .post("/v1/conversations", &json!({"items": [say("user", "Hello."), say("assistant", "Yes?")], "metadata": {"k": "v"}}))
        .await
        .ok();
    assert_eq!(
        (&made["object"], &made["metadata"]["k"]),
        (&json!("conversation"), &json!("v"))
    );
    let first = respond(&client, json!({"input": "one", "conversation": id(&made)}))
        .await
        .ok();
    assert_eq!(first["conversation"]["id"], id(&made));
    let second = respond(
        &client,
        json!({"input": "two", "conversation": {"id": id(&made)}}),
    )
    .await
    .ok();
    let said = [
        say("user", "Hello."),
        say("assistant", "Yes?"),
        say("user", "one"),
        say("assistant", &text(&first)),
        say("user", "two"),
    ];
    assert!(expected(&client, &said).await.starts_with(&text(&second)));

    let items = client
        .get(&format!("/v1/conversations/{}/items?order=asc", id(&made)))
        .await
        .ok();
    assert_eq!(items["data"].as_array().unwrap().len(), 6, "{items}");
    let both =
        json!({"input": "x", "conversation": id(&made), "previous_response_id": id(&second)});
    respond(&client, both).await.error(400);
    client
        .delete(&format!("/v1/conversations/{}", id(&made)))
        .await
        .ok();
    respond(&client, json!({"input": "x", "conversation": id(&made)}))
        .await
        .error(404);
    client
        .get(&format!("/v1/responses/{}", id(&second)))
        .await
        .ok();
}

#[tokio::test]
async fn a_stored_context_can_be_what_everything_begins_with() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let context = crate::create(&client, json!({})).await;
    let first = respond(&client, json!({"input": "one", "context_id": context}))
        .await
        .ok();
    assert!(cached(&first) > 0);
    let second = respond(
        &client,
        json!({"input": "two", "previous_response_id": id(&first)}),
    )
    .await;
    assert!(second.header("x-context-cache").starts_with("hit"));
    let second = second.ok();
    let said = [
        say("system", "Be brief."),
        say("user", "The text."),
        say("user", "one"),
        say("assistant", &text(&first)),
        say("user", "two"),
    ];
    assert!(expected(&client, &said).await.starts_with(&text(&second)));

    let session = crate::create(&client, json!({"mode": "session"})).await;
    let first = respond(&client, json!({"input": "one", "context_id": session}))
        .await
        .ok();
    respond(
        &client,
        json!({"input": "two", "previous_response_id": id(&first)}),
    )
    .await
    .error(400);
    let second = respond(&client, json!({"input": "two", "context_id": session}))
        .await
        .ok();
    assert!(second["usage"]["input_tokens"].as_u64() > first["usage"]["input_tokens"].as_u64());
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = TestGateway::builder().data_dir(folder.path()).start().await;
    let first = respond(&gateway.client(), json!({"input": words(40)}))
        .await
        .ok();
    gateway.stop().await;
    let gateway = TestGateway::builder().data_dir(folder.path()).start().await;
    let client = gateway.client();
    let second = respond(
        &client,
        json!({"input": "two", "previous_response_id": id(&first)}),
    )
    .await
    .ok();
    let said = [
        say("user", &words(40)),
        say("assistant", &text(&first)),
        say("user", "two"),
    ];
    assert!(expected(&client, &said).await.starts_with(&text(&second)));
}

#[tokio::test]
async fn a_project_stores_as_much_as_it_may() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.responses_per_project_max = 2)
        .start()
        .await;
    let client = gateway.client();
    for _ in 0..2 {
        respond(&client, json!({"input": "one"})).await.ok();
    }
    let refused = respond(&client, json!({"input": "one"})).await.error(429);
    assert!(refused["message"].as_str().unwrap().contains("store"));
    respond(&client, json!({"input": "one", "store": false}))
        .await
        .ok();
}

#[tokio::test]
async fn turns_save_on_another_provider_s_model() {
    let emulator = Emulator::start(Anthropic::new()).await;
    let gateway = TestGateway::builder()
        .upstream(upstream("anthropic", &emulator.url, "key"))
        .route("claude", &[("anthropic", "claude-sonnet-4-6")])
        .start()
        .await;
    let client = gateway.client();
    let mut last = respond(&client, json!({"model": "claude", "input": words(6000)}))
        .await
        .ok();
    let mut read = Vec::new();
    for question in ["two", "three", "four"] {
        let next = json!({"model": "claude", "input": question, "previous_response_id": id(&last)});
        last = respond(&client, next).await.ok();
        read.push(cached(&last));
    }
    assert!(
        read[0] == 0 && read[1] > 5_000 && read[2] >= read[1],
        "{read:?}"
    );
}

#[tokio::test]
async fn ark_s_prefix_is_cached_and_not_answered() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let expires_at = gateway.clock.now() / 1000 + 4_000;
    let prefix = json!({
        "model": "doubao-pro-32k", "input": [say("system", &words(40))], "store": true, "expire_at": expires_at,
        "caching": {"type": "enabled", "prefix": true}, "thinking": {"type": "disabled"},
    });
    let prefix = client.post("/api/v3/responses", &prefix).await.ok();
    assert_eq!(
        (&prefix["output"], &prefix["expire_at"]),
        (&json!([]), &json!(expires_at))
    );
    let ask = |question: &str| {
        json!({
            "model": "doubao-pro-32k", "input": [say("user", question)], "previous_response_id": id(&prefix),
            "caching": {"type": "enabled"}, "thinking": {"type": "disabled"}, "max_output_tokens": 16, "temperature": 0,
        })
    };
    for question in ["one", "two"] {
        let answered = client.post("/api/v3/responses", &ask(question)).await.ok();
        assert!(cached(&answered) > 200, "{}", answered["usage"]);
        let said = [say("system", &words(40)), say("user", question)];
        assert!(expected(&client, &said).await.starts_with(&text(&answered)));
    }
    gateway.clock.advance(Duration::from_secs(4_001));
    let gone = client.post("/api/v3/responses", &ask("x")).await;
    assert_eq!(gone.status, 400, "{}", gone.text());
}

#[tokio::test]
async fn openai_itself_gets_the_request_as_it_came() {
    let emulator = Emulator::start(OpenAi::new()).await;
    let mut options = upstream("openai", &format!("{}/v1", emulator.url), "key");
    options.dialect = UpstreamDialectName::OpenaiResponses;
    let gateway = TestGateway::builder()
        .upstream(options)
        .route("gpt", &[("openai", "gpt-5.6")])
        .start()
        .await;
    let client = gateway.client();
    let body = r#"{"model":"gpt","store":false,"temperature":1.0e0,"input":[{"role":"user","content":[{"type":"input_text","text":"h\u00e9"}]}],"truncation":"auto"}"#;
    let answered = client
        .post_text("/v1/responses", "application/json", body)
        .await
        .ok();
    assert_eq!(answered["object"], "response");
    let sent = emulator.requests();
    let sent = String::from_utf8(sent.last().unwrap().body.to_vec()).unwrap();
    for part in [
        r"h\u00e9",
        "1.0e0",
        r#""truncation":"auto""#,
        r#""model":"gpt-5.6""#,
    ] {
        assert!(sent.contains(part), "{part}: {sent}");
    }

    // What is kept here can't go through.
    let kept = client
        .post_text(
            "/v1/responses",
            "application/json",
            body.replace("false", "true"),
        )
        .await
        .ok();
    assert!(id(&kept).starts_with("resp_"));
    client
        .get(&format!("/v1/responses/{}", id(&kept)))
        .await
        .ok();
    // A tool of OpenAI's own is for OpenAI only.
    let search = json!({"input": "x", "store": false, "tools": [{"type": "web_search"}]});
    let refused = respond(&client, search).await.error(400);
    assert_eq!(refused["param"], "tools[0].type");
}

#[tokio::test]
async fn items_come_and_go_in_a_conversation() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let made = client.post("/v1/conversations", &json!({})).await.ok();
    let items = format!("/v1/conversations/{}/items", id(&made));
    let add = async |text: &str| {
        let added = json!({"items": [{"type": "message", "role": "user", "content": text}]});
        client.post(&items, &added).await.ok()["data"][0]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let first = add("Before.").await;
    let one = respond(&client, json!({"input": "one", "conversation": id(&made)}))
        .await
        .ok();
    let second = add("Between.").await;
    let two = respond(&client, json!({"input": "two", "conversation": id(&made)}))
        .await
        .ok();
    let said = [
        say("user", "Before."),
        say("user", "one"),
        say("assistant", &text(&one)),
        say("user", "Between."),
        say("user", "two"),
    ];
    assert!(expected(&client, &said).await.starts_with(&text(&two)));
    let shown = client.get(&format!("{items}/{second}")).await.ok();
    assert_eq!(shown["content"][0]["text"], "Between.");

    for item in [&first, &second] {
        client.delete(&format!("{items}/{item}")).await.ok();
        client.get(&format!("{items}/{item}")).await.error(404);
    }
    client.delete(&format!("{items}/{first}")).await.error(404);
    let three = respond(
        &client,
        json!({"input": "three", "conversation": id(&made)}),
    )
    .await
    .ok();
    let said = [
        say("user", "one"),
        say("assistant", &text(&one)),
        say("user", "two"),
        say("assistant", &text(&two)),
        say("user", "three"),
    ];
    assert!(expected(&client, &said).await.starts_with(&text(&three)));
    let list = client
        .get(&format!("{items}?order=asc&limit=100"))
        .await
        .ok();
    assert_eq!(list["data"].as_array().unwrap().len(), 6);
    // The responses themselves are as they were.
    assert_eq!(
        client
            .get(&format!("/v1/responses/{}", id(&two)))
            .await
            .ok(),
        two
    );
}

#[tokio::test]
async fn a_conversation_that_grows_is_found_under_its_first_key() {
    let emulator = Emulator::start(OpenAi::new()).await;
    let gateway = TestGateway::builder()
        .upstream(upstream("openai", &format!("{}/v1", emulator.url), "key"))
        .route("gpt", &[("openai", "gpt-5.6")])
        .start()
        .await;
    let client = gateway.client();
    let mut last = respond(&client, json!({"model": "gpt", "input": words(6000)}))
        .await
        .ok();
    let mut read = Vec::new();
    for question in ["two", "three", "four"] {
        let next = json!({"model": "gpt", "input": question, "previous_response_id": id(&last)});
        last = respond(&client, next).await.ok();
        read.push(cached(&last));
    }
    assert!(read[1] > 5_000 && read[2] > read[1], "{read:?}");
}
