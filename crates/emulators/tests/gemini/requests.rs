//! What a request may hold, and in which order.

use holdfast_emulators::Answer;
use holdfast_emulators::families::gemini::Gemini;
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn unknown_fields_are_refused_wherever_they_are() {
    let client = gemini(Gemini::new()).await;
    let declared = |parameters: Value| {
        let function = json!({"name": "f", "parameters": parameters});
        json!({"contents": [user("x")], "tools": [{"functionDeclarations": [function]}]})
    };
    for (body, key, place) in [
        (
            json!({"contents": [user("x")], "prompt_cache_key": "k"}),
            "prompt_cache_key",
            "",
        ),
        (
            json!({"contents": [{"role": "user", "parts": [{"type": "text", "text": "x"}]}]}),
            "type",
            " at 'contents[0].parts[0]'",
        ),
        (
            json!({"contents": [user("x")], "generationConfig": {"max_tokens": 5}}),
            "max_tokens",
            " at 'generation_config'",
        ),
        (
            declared(json!({"type": "object", "additionalProperties": false})),
            "additionalProperties",
            " at 'tools[0].function_declarations[0].parameters'",
        ),
        (
            declared(json!({"type": "object", "properties": {"a": {"$ref": "#/x"}}})),
            "$ref",
            " at 'tools[0].function_declarations[0].parameters.properties[0].value'",
        ),
        (
            declared(json!({"type": ["string", "null"]})),
            "type",
            " at 'tools[0].function_declarations[0].parameters'",
        ),
    ] {
        let answer = client.generate(body).await;
        assert_invalid(
            &answer,
            &format!("Invalid JSON payload received. Unknown name \"{key}\"{place}: "),
        );
        assert!(answer.1["error"]["details"][0]["fieldViolations"].is_array());
    }
    let mut body = client.cache_body();
    body["generationConfig"] = json!({"temperature": 0});
    assert_invalid(
        &client.post("/cachedContents", body).await,
        "Unknown name \"generationConfig\" at 'cached_content': Cannot find field.",
    );
    for (body, part) in [
        (
            json!({"contents": [user("x")], "systemInstruction": "text"}),
            "Invalid value at 'system_instruction'",
        ),
        (
            json!({"contents": [user("x")], "generationConfig": {"maxOutputTokens": "many"}}),
            "(TYPE_INT32), \"many\"",
        ),
        (
            json!({"contents": [user("x")], "toolConfig": {"functionCallingConfig": {"mode": "required"}}}),
            "FunctionCallingConfig.Mode",
        ),
        (
            declared(json!({"type": "integer", "enum": [1, 2]})),
            "parameters.enum[0]' (TYPE_STRING), 1",
        ),
        (
            json!({"contents": [{"role": "user", "parts": [{"functionResponse": {"name": "f", "response": "text"}}]}]}),
            "function_response.response' (type.googleapis.com/google.protobuf.Struct), \"text\"",
        ),
    ] {
        assert_invalid(&client.generate(body).await, part);
    }
    let both = json!({
        "contents": [user("x")],
        "system_instruction": {"parts": [{"text": "x"}]},
        "generation_config": {"maxOutputTokens": "7", "stop_sequences": ["."]},
        "toolConfig": {"function_calling_config": {"mode": "none"}},
    });
    assert_eq!(client.generate(both).await.0, 200);
}

#[tokio::test]
async fn contents_follow_the_order_of_turns() {
    let client = gemini(Gemini::new()).await;
    let call = |name: &str| json!({"functionCall": {"name": name, "args": {}}});
    let result = |name: &str| json!({"functionResponse": {"name": name, "response": {"ok": true}}});
    let turn = |role: &str, parts: Vec<Value>| json!({"role": role, "parts": parts});
    let alternate = "multiturn requests alternate between user and model";
    let after_call = "function response turn comes immediately after a function call turn";
    let after_user = "function call turn comes immediately after a user turn";
    let count = "number of function response parts is equal to the number of function call parts";
    for (contents, part) in [
        (json!([]), "contents is not specified"),
        (
            json!([{"role": "assistant", "parts": [{"text": "x"}]}]),
            "Please use a valid role: user, model.",
        ),
        (
            json!([{"role": "system", "parts": [{"text": "x"}]}]),
            "Please use a valid role: user, model.",
        ),
        (
            json!([{"role": "user", "parts": []}]),
            "contents.parts must not be empty",
        ),
        (
            json!([{"role": "user", "parts": [{}]}]),
            "required oneof field 'data' must have one initialized field",
        ),
        (
            json!([{"role": "user", "parts": [{"text": "a", "functionCall": {"name": "f"}}]}]),
            "oneof field 'data' is already set",
        ),
        (json!([model("x"), user("y")]), alternate),
        (json!([user("x"), user("y")]), alternate),
        (
            json!([user("x"), model("a"), model("b"), user("y")]),
            alternate,
        ),
        (json!([user("x"), model("a")]), "end with a user role"),
        (
            json!([user("x"), turn("user", vec![result("f")])]),
            after_call,
        ),
        (
            json!([user("x"), turn("model", vec![call("f")]), user("y")]),
            count,
        ),
        (
            json!([
                user("x"),
                turn("model", vec![call("f"), call("g")]),
                turn("user", vec![result("f")])
            ]),
            count,
        ),
        (
            json!([
                user("x"),
                turn("model", vec![call("f"), call("g")]),
                turn("user", vec![result("f")]),
                turn("user", vec![result("g")])
            ]),
            count,
        ),
        (
            json!([
                user("x"),
                turn("model", vec![call("f")]),
                turn("user", vec![result("call_1")])
            ]),
            count,
        ),
        (
            json!([
                turn("model", vec![call("f")]),
                turn("user", vec![result("f")])
            ]),
            after_user,
        ),
    ] {
        assert_invalid(&client.generate(json!({"contents": contents})).await, part);
    }
    let loop_of_tools = json!([
        user("x"),
        turn("model", vec![call("f"), call("g")]),
        turn("user", vec![result("g"), result("f")]),
        user("and?"),
    ]);
    assert_eq!(
        client.generate(json!({"contents": loop_of_tools})).await.0,
        200
    );

    // Turns go on from the end of the cache.
    let ends_with_call = client
        .create(json!({"contents": [user("x"), turn("model", vec![call("f")])]}))
        .await;
    let mut body = question();
    body["cachedContent"] = ends_with_call["name"].clone();
    assert_invalid(&client.generate(body.clone()).await, count);
    body["contents"] = json!([turn("user", vec![result("f")])]);
    assert_eq!(client.generate(body).await.0, 200);
    let ends_with_model = client
        .create(json!({"contents": [user("x"), model("y")]}))
        .await;
    let body =
        json!({"cachedContent": ends_with_model["name"], "contents": [model("z"), user("?")]});
    assert_invalid(&client.generate(body).await, alternate);

    let client = gemini(Gemini::new().loose_turns()).await;
    let body = json!({"contents": [user("x"), user("y")]});
    assert_eq!(client.generate(body).await.0, 200);
}

#[tokio::test]
async fn creating_a_cache_is_stricter_about_tools_than_using_them() {
    let client = gemini(Gemini::new()).await;
    let tools = json!([{"functionDeclarations": [{
        "name": "f",
        "parameters": {"type": "OBJECT", "properties": {"level": {"type": "INTEGER", "enum": ["1", "2"]}}},
    }]}]);
    let body = json!({"contents": [user("x")], "tools": tools});
    assert_eq!(client.generate(body).await.0, 200);
    let mut body = client.cache_body();
    body["tools"] = tools;
    assert_invalid(
        &client.post("/cachedContents", body).await,
        "tools[0].function_declarations[0].parameters.properties[level].enum: only allowed for STRING type",
    );
    for (tools, part) in [
        (
            json!([{"functionDeclarations": [{"name": "1f"}]}]),
            "Invalid function name",
        ),
        (
            json!([{"functionDeclarations": [{"name": "f"}, {"name": "f"}]}]),
            "Duplicate function declaration found: f",
        ),
        (
            json!([{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT", "required": ["a"]}}]}]),
            "parameters.required[0]: property is not defined",
        ),
        (
            json!([{"functionDeclarations": [{"name": "f", "parameters": {"type": "ARRAY"}}]}]),
            "parameters.items: missing field",
        ),
    ] {
        assert_invalid(
            &client
                .generate(json!({"contents": [user("x")], "tools": tools}))
                .await,
            part,
        );
    }
}

#[tokio::test]
async fn a_signature_comes_back_as_it_went() {
    let client = gemini(Gemini::new().require_signatures()).await;
    client
        .emulator
        .script()
        .next(Answer::call("f", r#"{"a":1}"#));
    let tools = json!([{"functionDeclarations": [{"name": "f"}]}]);
    let (_, answer) = client
        .generate(json!({"contents": [user("x")], "tools": tools}))
        .await;
    let said = answer["candidates"][0]["content"].clone();
    let result =
        json!({"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]});
    let body = |said: &Value| json!({"contents": [user("x"), said, result], "tools": tools});
    assert_eq!(client.generate(body(&said)).await.0, 200);

    let mut changed = said.clone();
    changed["parts"][0]["thoughtSignature"] = json!("AAAA");
    assert_invalid(
        &client.generate(body(&changed)).await,
        "Corrupted thought signature.",
    );
    let mut foreign = said.clone();
    foreign["parts"][0]["thoughtSignature"] = json!("skip_thought_signature_validator");
    assert_eq!(client.generate(body(&foreign)).await.0, 200);
    let mut missing = said.clone();
    missing["parts"][0]
        .as_object_mut()
        .unwrap()
        .remove("thoughtSignature");
    assert_invalid(
        &client.generate(body(&missing)).await,
        "missing a thought_signature",
    );
    // Only the current turn needs them.
    let mut earlier = body(&missing);
    earlier["contents"]
        .as_array_mut()
        .unwrap()
        .extend([model("done"), user("next")]);
    assert_eq!(client.generate(earlier).await.0, 200);
    let older = "/models/gemini-2.5-flash:generateContent";
    assert_eq!(client.post(older, body(&missing)).await.0, 200);
}
