//! `POST /v1/chat/completions`, not streamed.

use holdfast_testkit::TestGateway;
use serde_json::{Value, json};

use crate::{ask, create, expected, say};

#[tokio::test]
async fn without_a_context_it_is_an_ordinary_chat() {
    let gateway = TestGateway::start().await;
    let body = json!({"model": "tiny", "messages": [say("user", "hi")], "temperature": 0});
    let reply = gateway.client().post("/v1/chat/completions", &body).await;
    let completion = reply.ok();
    assert_eq!(completion["object"], "chat.completion");
    assert!(completion["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(
        completion["created"].as_i64().unwrap(),
        gateway.clock.now() / 1000
    );
    assert_eq!(completion["model"], "tiny");
    assert_eq!(completion["choices"][0]["finish_reason"], "stop");
    assert_eq!(completion["choices"][0]["message"]["role"], "assistant");
    assert_eq!(reply.answer().len(), 16);
    let usage = &completion["usage"];
    // Marker, "user", newline, text, marker, newline; marker, "assistant", newline.
    assert_eq!(usage["prompt_tokens"], 1 + 4 + 1 + 2 + 1 + 1 + 1 + 9 + 1);
    assert_eq!(
        usage["total_tokens"].as_u64(),
        Some(
            usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
        )
    );
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 0);
    assert_eq!(reply.header("x-context-cache"), "");
    assert!(completion.get("context_cache").is_none());
}

#[tokio::test]
async fn a_context_answers_like_its_messages_in_the_request() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let initial = [say("system", "Be brief."), say("user", "The text.")];
    let id = create(&client, json!({})).await;
    for question in ["What?", "Why?"] {
        let reply = ask(&client, &id, question).await;
        let mut messages = initial.to_vec();
        messages.push(say("user", question));
        assert_eq!(reply.answer(), expected(&client, &messages).await);
        let completion = reply.json();
        let cached = completion["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap();
        let prefix = client.get(&format!("/v1/context/{id}")).await.ok()["prefix_tokens"]
            .as_u64()
            .unwrap();
        assert_eq!(cached, prefix);
        assert_eq!(completion["usage"]["cache_read_input_tokens"], cached);
        assert_eq!(completion["usage"]["cache_creation_input_tokens"], 0);
        assert_eq!(completion["context_cache"]["status"], "hit");
        assert!(
            reply.header("x-context-cache").starts_with("hit"),
            "{}",
            reply.header("x-context-cache")
        );
    }
}

#[tokio::test]
async fn every_unset_field_may_be_null() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({})).await;
    let mut body =
        json!({"model": "tiny", "context_id": id, "messages": [say("user", "hi")], "mode": ""});
    for field in [
        "frequency_penalty",
        "function_call",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "repetition_penalty",
        "response_format",
        "service_tier",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "metadata",
        "thinking",
        "max_completion_tokens",
        "seed",
    ] {
        body[field] = Value::Null;
    }
    for path in [
        "/v1/context/chat/completions",
        "/api/v3/context/chat/completions",
        "/v1/chat/completions",
    ] {
        // How long it is, the default temperature decides anew each time.
        assert!(
            !client.post(path, &body).await.answer().is_empty(),
            "{path}"
        );
    }
    for unset in [Value::Null, json!("")] {
        body["context_id"] = unset;
        assert!(
            client
                .post("/v1/chat/completions", &body)
                .await
                .ok()
                .get("context_cache")
                .is_none()
        );
        let error = client
            .post("/v1/context/chat/completions", &body)
            .await
            .error(400);
        assert_eq!(error["param"], "context_id");
        assert_eq!(error["code"], "MissingParameter.context_id");
    }
}

#[tokio::test]
async fn the_model_must_be_the_context_s_own_and_may_be_left_out() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let body = json!({"model": "ep-20261122", "messages": [say("user", "hi")]});
    let id = client.post("/v1/context/create", &body).await.ok()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let chat =
        |model: Value| json!({"model": model, "context_id": id, "messages": [say("user", "hi")]});
    for (model, echoed) in [
        (json!("ep-20261122"), "ep-20261122"),
        (json!("doubao-pro-32k"), "doubao-pro-32k"),
        (json!("models/doubao-pro-32k"), "doubao-pro-32k"),
        (Value::Null, "ep-20261122"),
    ] {
        let completion = client.post("/v1/chat/completions", &chat(model)).await.ok();
        assert_eq!(completion["model"], echoed);
    }
    let error = client
        .post("/v1/chat/completions", &chat(json!("tiny")))
        .await
        .error(400);
    assert_eq!(error["param"], "model");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("tiny") && message.contains("ep-20261122"),
        "{message}"
    );
    let error = client
        .post("/v1/chat/completions", &chat(json!("nobody")))
        .await
        .error(404);
    assert_eq!(error["code"], "InvalidEndpointOrModel.NotFound");
}

#[tokio::test]
async fn answers_end_where_the_request_says() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let ask = |fields: Value| {
        let mut body = json!({"model": "tiny", "messages": [say("user", "hi")], "temperature": 0});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let client = client.clone();
        async move { client.post("/v1/chat/completions", &body).await }
    };
    let whole = ask(json!({})).await.answer();

    for field in ["max_tokens", "max_completion_tokens"] {
        let reply = ask(json!({field: 5})).await;
        assert_eq!(reply.answer(), whole[..5]);
        assert_eq!(reply.json()["choices"][0]["finish_reason"], "length");
        assert_eq!(reply.json()["usage"]["completion_tokens"], 5);
    }

    let stop = &whole[6..8];
    for stop_field in [json!(stop), json!(["never", stop])] {
        let reply = ask(json!({"stop": stop_field})).await;
        assert_eq!(reply.answer(), whole[..whole.find(stop).unwrap()]);
        assert_eq!(reply.json()["choices"][0]["finish_reason"], "stop");
    }
    assert_eq!(
        ask(json!({"stop": ["a", "b", "c", "d", "e"]}))
            .await
            .error(400)["param"],
        "stop"
    );
}

#[tokio::test]
async fn several_choices_and_seeds() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({})).await;
    let body = json!({"context_id": id, "messages": [say("user", "hi")], "n": 3, "seed": 7, "temperature": 1.5});
    let texts = |completion: Value| -> Vec<String> {
        let choices = completion["choices"].as_array().unwrap().clone();
        for (index, choice) in choices.iter().enumerate() {
            assert_eq!(choice["index"], index);
        }
        choices
            .iter()
            .map(|choice| choice["message"]["content"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = texts(client.post("/v1/chat/completions", &body).await.ok());
    let second = texts(client.post("/v1/chat/completions", &body).await.ok());
    assert_eq!(first.len(), 3);
    assert_eq!(first, second, "the same seed gives the same answers");
    assert!(
        first.iter().any(|text| *text != first[0]),
        "choices differ from each other"
    );

    let session = create(&client, json!({"mode": "session"})).await;
    let body = json!({"context_id": session, "messages": [say("user", "hi")], "n": 2});
    assert_eq!(
        client.post("/v1/chat/completions", &body).await.error(400)["param"],
        "n"
    );
}

#[tokio::test]
async fn log_probabilities_come_when_asked_for() {
    let gateway = TestGateway::start().await;
    let body = json!({"model": "tiny", "messages": [say("user", "hi")], "logprobs": true, "top_logprobs": 2, "temperature": 0});
    let completion = gateway
        .client()
        .post("/v1/chat/completions", &body)
        .await
        .ok();
    let choice = &completion["choices"][0];
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    let text: String = tokens
        .iter()
        .map(|token| token["token"].as_str().unwrap())
        .collect();
    assert_eq!(choice["message"]["content"], text);
    assert!(
        tokens
            .iter()
            .all(|token| token["top_logprobs"].as_array().unwrap().len() == 2)
    );
    assert!(
        tokens
            .iter()
            .all(|token| token["logprob"].as_f64().unwrap() <= 0.0)
    );
}

#[tokio::test]
async fn what_the_model_can_t_do_is_refused_by_name() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let tools =
        json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let hello = json!([say("user", "hi")]);
    for (body, param) in [
        (
            json!({"model": "tiny", "messages": hello, "response_format": {"type": "json_object"}}),
            "response_format",
        ),
        (
            json!({"model": "tiny", "messages": hello, "response_format":
                {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}}),
            "response_format",
        ),
        (
            json!({"model": "tiny", "messages": hello, "tools": tools, "tool_choice": "required"}),
            "tools",
        ),
        (
            json!({"model": "tiny", "messages": hello, "tools": tools,
                "tool_choice": {"type": "function", "function": {"name": "f"}}}),
            "tools",
        ),
        (
            json!({"model": "tiny", "messages": [say("assistant", "I")]}),
            "messages",
        ),
        (
            json!({"model": "tiny", "messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]}),
            "messages[0].content[0]",
        ),
    ] {
        let error = client.post("/v1/chat/completions", &body).await.error(400);
        assert_eq!(error["param"], param, "{error}");
    }
    let body = json!({"model": "tiny", "messages": hello, "tools": tools, "tool_choice": "none", "temperature": 0});
    assert_eq!(
        client.post("/v1/chat/completions", &body).await.answer(),
        expected(&client, &[say("user", "hi")]).await
    );
}

#[tokio::test]
async fn tools_beside_a_gemini_context_are_refused() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let id = create(&client, json!({"model": "gemini-2.0-flash"})).await;
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let mut body = json!({"context_id": id, "messages": [say("user", "hi")], "tools": tools});
    assert_eq!(
        client.post("/v1/chat/completions", &body).await.error(400)["param"],
        "tools"
    );
    body["tools"] = json!([]);
    client.post("/v1/chat/completions", &body).await.ok();
}

#[tokio::test]
async fn a_prompt_beyond_the_window_is_refused_and_an_answer_ends_at_it() {
    let gateway = TestGateway::builder()
        .engine(|engine| engine.window_tokens = Some(100))
        .start()
        .await;
    let client = gateway.client();
    let ask =
        |text: String| json!({"model": "tiny", "messages": [say("user", &text)], "max_tokens": 50});
    let error = client
        .post("/v1/chat/completions", &ask("x".repeat(100)))
        .await
        .error(400);
    assert_eq!(error["code"], "OutofContextError");
    // The frame takes 19 tokens, so that 11 are left for the answer.
    let completion = client
        .post("/v1/chat/completions", &ask("x".repeat(70)))
        .await
        .ok();
    assert_eq!(completion["choices"][0]["finish_reason"], "length");
    assert_eq!(completion["usage"]["total_tokens"], 100);
}
