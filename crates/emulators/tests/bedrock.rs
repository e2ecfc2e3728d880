//! Bedrock's rules, over real HTTP: what a gateway gets wrong must fail here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use holdfast_emulators::families::bedrock::Bedrock;
use holdfast_emulators::{Answer, Emulator, Fault, UsageFault};
use serde_json::{Value, json};

#[path = "bedrock/documents.rs"]
mod documents;
#[path = "bedrock/thinking.rs"]
mod thinking;

const CLAUDE: &str = "us.anthropic.claude-opus-5-5-v1%3A0";
const NOVA: &str = "amazon.nova-2-lite-v1:0";
const SIGNED_BODY: &str = r#"{"messages":[{"role":"user","content":[{"text":"Hello"}]}]}"#;
/// Signed by botocore 1.43 at 2026-11-22 09:30 for `SIGNED_BODY`.
const SIGNATURE: &str = "61505e80b9ab21676bac753c4d0e1ba0f2ffef35d4cbed2adb659df45f593a88";

struct Desk {
    emulator: Emulator,
    http: reqwest::Client,
}

impl Desk {
    async fn new() -> Self {
        Self::of(Bedrock::new().cache_tokens_min(100)).await
    }

    async fn of(family: Bedrock) -> Self {
        Desk {
            emulator: Emulator::start(family).await,
            http: reqwest::Client::new(),
        }
    }

    fn request(&self, model: &str, operation: &str, body: &Value) -> reqwest::RequestBuilder {
        self.http
            .post(format!("{}/model/{model}/{operation}", self.emulator.url))
            .bearer_auth("key-a")
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    async fn ok(&self, model: &str, body: &Value) -> Value {
        let (status, _, answer) = answer(self.request(model, "converse", body)).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn counts(&self, model: &str, body: &Value) -> (u64, u64, u64) {
        counts(&self.ok(model, body).await["usage"])
    }

    /// The message of a `ValidationException`.
    async fn refusal(&self, model: &str, body: &Value) -> String {
        let (status, kind, answer) = answer(self.request(model, "converse", body)).await;
        assert_eq!(
            (status, kind.as_str()),
            (400, "ValidationException"),
            "{answer}"
        );
        answer["message"].as_str().unwrap().to_owned()
    }

    async fn events(&self, body: &Value) -> Vec<(String, Value)> {
        let response = self
            .request(CLAUDE, "converse-stream", body)
            .send()
            .await
            .unwrap();
        assert_eq!(
            response.headers()["content-type"],
            "application/vnd.amazon.eventstream"
        );
        frames(&response.bytes().await.unwrap())
    }

    fn signed(&self, path: &str, signature: &str) -> reqwest::RequestBuilder {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/bedrock/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, Signature={signature}"
        );
        self.http
            .post(format!("{}{path}", self.emulator.url))
            .header("host", "bedrock-runtime.us-east-1.amazonaws.com")
            .header("content-type", "application/json")
            .header("x-amz-date", "20261122T093000Z")
            .header("authorization", authorization)
            .body(SIGNED_BODY)
    }
}

/// Status, kind of error (from the header, which goes on after a colon), body.
async fn answer(request: reqwest::RequestBuilder) -> (u16, String, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let kind = response
        .headers()
        .get("x-amzn-errortype")
        .map_or("", |kind| kind.to_str().unwrap());
    let kind = kind.split(':').next().unwrap().to_owned();
    (
        status,
        kind,
        serde_json::from_str(&response.text().await.unwrap()).unwrap(),
    )
}

fn counts(usage: &Value) -> (u64, u64, u64) {
    let count = |name: &str| usage[name].as_u64().unwrap();
    (
        count("inputTokens"),
        count("cacheReadInputTokens"),
        count("cacheWriteInputTokens"),
    )
}

/// CRC-32 bit by bit, so that the emulator's library isn't checked by itself.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
        crc
    })
}

/// Kind and payload of each frame, all checksums verified.
fn frames(mut bytes: &[u8]) -> Vec<(String, Value)> {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (total, head) = (number(&bytes[..4]) as usize, number(&bytes[4..8]) as usize);
        assert_eq!(crc32(&bytes[..8]), number(&bytes[8..12]));
        assert_eq!(crc32(&bytes[..total - 4]), number(&bytes[total - 4..total]));
        let mut headers = &bytes[12..12 + head];
        let mut kind = String::new();
        let mut names = Vec::new();
        while !headers.is_empty() {
            let (name, rest) = headers[1..].split_at(usize::from(headers[0]));
            assert_eq!(rest[0], 7, "a string");
            let length = usize::from(u16::from_be_bytes([rest[1], rest[2]]));
            let value = std::str::from_utf8(&rest[3..3 + length]).unwrap();
            names.push(std::str::from_utf8(name).unwrap());
            match name {
                b":event-type" | b":exception-type" => kind = value.to_owned(),
                b":content-type" => assert_eq!(value, "application/json"),
                _ => assert!(value == "event" || value == "exception"),
            }
            headers = &rest[3 + length..];
        }
        assert_eq!(names[1..], [":content-type", ":message-type"]);
        frames.push((
            kind,
            serde_json::from_slice(&bytes[12 + head..total - 4]).unwrap(),
        ));
        bytes = &bytes[total..];
    }
    frames
}

fn words(seed: &str, tokens: usize) -> String {
    seed.repeat(tokens * 4)[..tokens * 4].to_owned()
}

fn point(ttl: &str) -> Value {
    json!({"cachePoint": {"type": "default", "ttl": ttl}})
}

fn user(content: Value) -> Value {
    json!({"role": "user", "content": content})
}

fn tool(name: &str) -> Value {
    let schema = json!({"json": {"type": "object"}});
    json!({"toolSpec": {"name": name, "description": words("tool ", 100), "inputSchema": schema}})
}

fn with_system(question: &str) -> Value {
    json!({
        "system": [{"text": words("system ", 200)}, {"cachePoint": {"type": "default"}}],
        "messages": [user(json!([{"text": question}]))],
    })
}

#[tokio::test]
async fn a_signature_is_verified_from_what_arrived() {
    let desk = Desk::new().await;
    let path = format!("/model/{CLAUDE}/converse");
    assert_eq!(answer(desk.signed(&path, SIGNATURE)).await.0, 200);
    assert_eq!(desk.emulator.bill().charges()[0].account, "AKIDEXAMPLE");
    assert_eq!(
        desk.emulator.bill().charges()[0].model,
        "us.anthropic.claude-opus-5-5-v1:0"
    );
    let profile = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.anthropic.claude-opus-5-5-v1%3A0/converse-stream";
    let response = desk
        .signed(
            profile,
            "2a00c6d5a6f2c78904f9d2057ccaa6bdc54551e74e9b21be25da0defc245e397",
        )
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);

    let refusals = [
        desk.signed(&path, &SIGNATURE.replace('6', "7")),
        desk.signed(&path, SIGNATURE)
            .body(SIGNED_BODY.replace("Hello", "Hallo")),
        desk.signed(&path.replace("opus", "sonnet"), SIGNATURE),
        desk.signed(&format!("{path}?trace=1"), SIGNATURE),
        desk.signed(&path, SIGNATURE)
            .header("x-amz-security-token", "not signed"),
        desk.signed(profile, SIGNATURE),
    ];
    for refused in refusals {
        let (status, kind, error) = answer(refused).await;
        assert_eq!(
            (status, kind.as_str()),
            (403, "InvalidSignatureException"),
            "{error}"
        );
    }
    // Scoped for one region, sent to another.
    let desk = Desk::of(Bedrock::new().region("eu-west-1")).await;
    assert_eq!(
        answer(desk.signed(&path, SIGNATURE)).await.1,
        "InvalidSignatureException"
    );
    let desk = Desk::of(Bedrock::new().checking_dates()).await;
    desk.emulator
        .clock()
        .advance(Duration::from_secs(100_000_000));
    assert_eq!(
        answer(desk.signed(&path, SIGNATURE)).await.1,
        "InvalidSignatureException"
    );
}

#[tokio::test]
async fn requests_without_a_right_are_refused() {
    let desk = Desk::new().await;
    let post = || {
        desk.http
            .post(format!("{}/model/{CLAUDE}/converse", desk.emulator.url))
            .body(SIGNED_BODY)
    };
    let (status, kind, error) = answer(post()).await;
    assert_eq!(
        (status, kind.as_str()),
        (403, "MissingAuthenticationTokenException"),
        "{error}"
    );
    assert_eq!(answer(post().bearer_auth("invalid-key")).await.0, 403);
    let foreign = "AWS4-HMAC-SHA256 Credential=AKIDOTHER/20261122/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=00";
    let request = post()
        .header("x-amz-date", "20261122T093000Z")
        .header("authorization", foreign);
    assert_eq!(answer(request).await.1, "UnrecognizedClientException");
    assert_eq!(
        answer(post().header("authorization", "Basic eDp5")).await.1,
        "IncompleteSignatureException"
    );
    assert_eq!(answer(post().bearer_auth("key")).await.0, 200);
}

#[tokio::test]
async fn the_same_context_with_another_question_is_read() {
    let desk = Desk::new().await;
    let first = desk.ok(CLAUDE, &with_system("One?")).await;
    assert_eq!(counts(&first["usage"]), (1, 0, 200));
    assert_eq!(
        first["usage"]["cacheDetails"],
        json!([{"ttl": "5m", "inputTokens": 200}])
    );
    let second = desk.ok(CLAUDE, &with_system("Another?")).await;
    let usage = &second["usage"];
    assert_eq!(counts(usage), (2, 200, 0));
    assert_eq!(
        usage["totalTokens"],
        202 + usage["outputTokens"].as_u64().unwrap()
    );
    assert_eq!(usage["cacheDetails"], json!([]));
    assert_eq!(
        second["output"]["message"]["content"],
        json!([{"text": "You sent me 202 tokens."}])
    );
    let (_, _, other) = answer(
        desk.http
            .post(format!("{}/model/{CLAUDE}/converse", desk.emulator.url))
            .bearer_auth("key-b")
            .body(with_system("One?").to_string()),
    )
    .await;
    assert_eq!(counts(&other["usage"]), (1, 0, 200), "another account");
    desk.emulator.clock().advance(Duration::from_secs(300));
    assert_eq!(desk.counts(CLAUDE, &with_system("One?")).await, (1, 0, 200));
    let charges = desk.emulator.bill().charges();
    assert_eq!(
        (
            charges[1].cache_read,
            charges[1].uncached_input,
            charges[0].cache_write[&300]
        ),
        (200, 2, 200)
    );
}

#[tokio::test]
async fn parallel_first_calls_all_write() {
    let desk = Desk::new().await;
    desk.emulator
        .faults()
        .next(Fault::SlowStart(Duration::from_millis(300)));
    desk.emulator
        .faults()
        .next(Fault::SlowStart(Duration::from_millis(300)));
    let (first, second) = (with_system("One?"), with_system("Two?"));
    let both = tokio::join!(desk.counts(CLAUDE, &first), desk.counts(CLAUDE, &second));
    assert_eq!(both, ((1, 0, 200), (1, 0, 200)));
    assert_eq!(desk.counts(CLAUDE, &first).await, (1, 200, 0));
}

#[tokio::test]
async fn cache_points_stand_after_what_they_cache() {
    let desk = Desk::new().await;
    let body = json!({
        "messages": [user(json!([{"text": words("first ", 150)}, point("5m"), {"text": "Why?"}]))],
        "system": [{"text": words("system ", 200)}, point("1h")],
        "toolConfig": {"tools": [tool("look"), point("1h")]},
    });
    let usage = desk.ok(CLAUDE, &body).await["usage"].clone();
    let details = usage["cacheDetails"].as_array().unwrap();
    assert_eq!(
        (&details[0]["ttl"], &details[1]),
        (&json!("1h"), &json!({"ttl": "5m", "inputTokens": 150}))
    );
    let hour = details[0]["inputTokens"].as_u64().unwrap();
    assert_eq!(usage["cacheWriteInputTokens"], hour + 150);
    assert_eq!(desk.counts(CLAUDE, &body).await, (1, hour + 150, 0));

    let mut chosen = body.clone();
    chosen["toolConfig"]["toolChoice"] = json!({"any": {}});
    assert_eq!(
        desk.counts(CLAUDE, &chosen).await.1,
        hour,
        "the tool choice belongs to the messages"
    );
    let mut other = body.clone();
    other["system"][0]["text"] = json!("Another.");
    assert_eq!(desk.counts(CLAUDE, &other).await.1, hour - 200);

    let five: Vec<Value> = (0..5)
        .flat_map(|_| [json!({"text": "x"}), point("5m")])
        .collect();
    let message = desk
        .refusal(CLAUDE, &json!({"messages": [user(json!(five))]}))
        .await;
    assert!(
        message.ends_with("A maximum of 4 blocks with cache_control may be provided. Found 5.")
    );
    let mut valley = body.clone();
    valley["system"][1] = point("5m");
    valley["messages"][0]["content"][1] = point("1h");
    assert!(
        desk.refusal(CLAUDE, &valley)
            .await
            .contains("a ttl='1h' cache_control block must not come after")
    );
    assert!(
        desk.refusal(
            CLAUDE,
            &json!({"system": [point("5m")], "messages": [user(json!([{"text": "x"}]))]})
        )
        .await
        .contains("no content before")
    );
    desk.refusal(CLAUDE, &json!({"messages": [user(json!([point("5m")]))]}))
        .await;
    desk.refusal(
        CLAUDE,
        &json!({"messages": [user(json!([{"text": "x"}, {"cachePoint": {"type": "ephemeral"}}]))]}),
    )
    .await;
}

#[tokio::test]
async fn minimums_and_lifetimes_depend_on_the_model() {
    let desk = Desk::of(Bedrock::new()).await;
    let body = |ttl: &str| {
        let mut body = with_system("One?");
        body["system"] = json!([{"text": words("system ", 600)}, point(ttl)]);
        body
    };
    assert_eq!(desk.counts(CLAUDE, &body("1h")).await.2, 600);
    assert_eq!(
        desk.counts("anthropic.claude-sonnet-5-5-v1:0", &body("5m"))
            .await
            .2,
        600
    );
    assert_eq!(
        desk.counts("anthropic.claude-sonnet-5-v1:0", &body("5m"))
            .await,
        (601, 0, 0)
    );
    assert_eq!(
        desk.counts("anthropic.claude-haiku-4-5-20251001-v1:0", &body("5m"))
            .await,
        (601, 0, 0)
    );
    let extended = "Extended TTL prompt caching is only supported for Anthropic models";
    assert_eq!(desk.refusal(NOVA, &body("1h")).await, extended);
    desk.refusal("anthropic.claude-opus-4-1-20250805-v1:0", &body("1h"))
        .await;
    let (status, kind, _) = answer(desk.request("meta.llama4-v1:0", "converse", &body("5m"))).await;
    assert_eq!((status, kind.as_str()), (403, "AccessDeniedException"));
    let plain = desk
        .ok(
            "meta.llama4-v1:0",
            &json!({"messages": [user(json!([{"text": "x"}]))]}),
        )
        .await;
    assert!(plain["usage"].get("cacheReadInputTokens").is_none());
    assert_eq!(
        desk.refusal("nonsense", &body("5m")).await,
        "The provided model identifier is invalid."
    );
}

#[tokio::test]
async fn nova_caches_text_by_itself() {
    let desk = Desk::of(Bedrock::new()).await;
    let body = |question: &str| {
        json!({
            "system": [{"text": words("system ", 1200)}],
            "messages": [user(json!([{"text": question}]))],
        })
    };
    let first = desk.ok(NOVA, &body("One?")).await;
    assert_eq!(counts(&first["usage"]), (1201, 0, 0));
    assert!(first["usage"].get("cacheDetails").is_none());
    assert_eq!(desk.counts(NOVA, &body("Another?")).await, (2, 1200, 0));
    assert!(
        desk.emulator
            .bill()
            .charges()
            .iter()
            .all(|charge| charge.cache_write.is_empty())
    );
    let picture = json!({"image": {"format": "png", "source": {"bytes": "AAAA"}}});
    let mut pictured = body("One?");
    pictured["messages"][0]["content"]
        .as_array_mut()
        .unwrap()
        .push(picture);
    assert_eq!(desk.counts(NOVA, &pictured).await.1, 0);
    let mut explicit = body("One?");
    explicit["system"] = json!([{"text": words("other ", 1200)}, point("5m")]);
    assert_eq!(desk.counts(NOVA, &explicit).await, (1, 0, 1200));
    assert_eq!(desk.counts(NOVA, &explicit).await, (1, 1200, 0));
}

#[tokio::test]
async fn what_the_service_refuses() {
    let desk = Desk::new().await;
    let hello = || user(json!([{"text": "Hello"}]));
    let assistant = |content: Value| json!({"role": "assistant", "content": content});
    let call = |id: &str| json!({"toolUse": {"toolUseId": id, "name": "look", "input": {}}});
    let result =
        |id: &str, content: Value| json!({"toolResult": {"toolUseId": id, "content": content}});
    let seen = json!([{"text": "seen"}]);
    let tools = json!({"tools": [tool("look")]});
    let cases = [
        (
            json!({"messages": [hello()], "max_tokens": 5}),
            "extraneous key [max_tokens]",
        ),
        (
            json!({"messages": [hello()], "inferenceConfig": {"topK": 5}}),
            "extraneous key [topK]",
        ),
        (
            json!({"messages": [hello()], "inferenceConfig": {"temperature": 2}}),
            "inferenceConfig.temperature",
        ),
        (
            json!({"messages": [hello()], "inferenceConfig": {"maxTokens": 0}}),
            "greater than or equal to 1",
        ),
        (json!({"messages": []}), "at least one message"),
        (
            json!({"messages": [assistant(json!([{"text": "x"}]))]}),
            "must start with a user message",
        ),
        (
            json!({"messages": [hello(), hello()]}),
            "must alternate between user and assistant roles",
        ),
        (
            json!({"messages": [{"role": "system", "content": [{"text": "x"}]}]}),
            "enum value set: [user, assistant]",
        ),
        (
            json!({"messages": [user(json!([]))]}),
            "The content field in the Message object at messages.0 is empty",
        ),
        (
            json!({"messages": [user(json!("Hello"))]}),
            "messages.0.content must be a list",
        ),
        (
            json!({"messages": [user(json!([{"text": " "}]))]}),
            "The text field in the ContentBlock object",
        ),
        (
            json!({"messages": [hello()], "system": [{"text": ""}]}),
            "The text field in the SystemContentBlock object",
        ),
        (
            json!({"messages": [user(json!([{"type": "text", "text": "x"}]))]}),
            "extraneous key [type]",
        ),
        (
            json!({"messages": [user(json!([{"text": "x", "cachePoint": {"type": "default"}}]))]}),
            "exactly one member",
        ),
        (
            json!({"messages": [hello()], "toolConfig": {"tools": []}}),
            "at least one tool",
        ),
        (
            json!({"messages": [hello(), assistant(json!([call("t1")])), user(json!([result("t1", seen.clone())]))]}),
            "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
        ),
        (
            json!({"toolConfig": tools, "messages": [
                hello(), assistant(json!([call("t1"), call("t2")])), user(json!([result("t1", seen.clone())])),
            ]}),
            "Expected toolResult blocks at messages.2.content for the following Ids: t2",
        ),
        (
            json!({"toolConfig": tools, "messages": [user(json!([result("t1", seen.clone())]))]}),
            "exceeds the number of toolUse blocks of previous turn",
        ),
        (
            json!({"toolConfig": tools, "messages": [
                hello(), assistant(json!([call("t1")])),
                user(json!([result("t1", json!([{"text": "seen"}, {"cachePoint": {"type": "default"}}]))])),
            ]}),
            "extraneous key [cachePoint]",
        ),
        (
            json!({"messages": [hello(), assistant(json!([
                {"reasoningContent": {"reasoningText": {"text": "x", "signature": "made up"}}}, {"text": "y"}
            ])), hello()]}),
            "Invalid `signature` in `thinking` block",
        ),
    ];
    for (body, expected) in cases {
        let message = desk.refusal(CLAUDE, &body).await;
        assert!(message.contains(expected), "{body}: {message}");
    }
    assert!(desk.emulator.bill().charges().is_empty());
    // Beside the result it is right.
    let right = json!({"toolConfig": tools, "messages": [
        hello(), assistant(json!([call("t1")])), user(json!([result("t1", seen), point("5m")])),
    ]});
    assert!(desk.counts(CLAUDE, &right).await.2 > 100);
}

#[tokio::test]
async fn a_stream_is_binary_frames_with_usage_after_the_stop() {
    let desk = Desk::new().await;
    let script = Answer {
        text: "Well, yes.".into(),
        reasoning: "Hmm, so.".into(),
        ..Answer::call("look", r#"{"at":"it"}"#)
    };
    desk.emulator.script().next(script.clone());
    desk.emulator.script().next(script);
    let mut body = with_system("One?");
    body["toolConfig"] = json!({"tools": [tool("look")]});
    let whole = desk.ok(CLAUDE, &body).await;
    assert_eq!(whole["stopReason"], "tool_use");
    desk.emulator.evict_all();
    let events = desk.events(&body).await;
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    let delta = "contentBlockDelta";
    assert_eq!(
        kinds,
        [
            "messageStart",
            delta,
            delta,
            delta,
            "contentBlockStop",
            delta,
            delta,
            "contentBlockStop",
            "contentBlockStart",
            delta,
            delta,
            "contentBlockStop",
            "messageStop",
            "metadata",
        ]
    );
    let joined = |pointer: &str| -> String {
        events
            .iter()
            .filter_map(|(_, payload)| payload.pointer(pointer)?.as_str())
            .collect()
    };
    let content = &whole["output"]["message"]["content"];
    assert_eq!(joined("/delta/text"), content[1]["text"]);
    let reasoning = &content[0]["reasoningContent"]["reasoningText"];
    assert_eq!(joined("/delta/reasoningContent/text"), reasoning["text"]);
    assert_eq!(
        joined("/delta/reasoningContent/signature"),
        reasoning["signature"]
    );
    assert_eq!(joined("/delta/toolUse/input"), r#"{"at":"it"}"#);
    assert_eq!(content[2]["toolUse"]["input"], json!({"at": "it"}));
    let (_, start) = &events[8];
    assert_eq!(
        (
            &start["start"]["toolUse"]["name"],
            &start["contentBlockIndex"]
        ),
        (&json!("look"), &json!(2))
    );
    let (_, metadata) = events.last().unwrap();
    assert_eq!(metadata["usage"], whole["usage"]);
    assert!(
        events.iter().all(|(_, payload)| payload["p"].is_string()),
        "padding"
    );
}

#[tokio::test]
async fn limits_of_the_answer_are_kept() {
    let desk = Desk::new().await;
    for (config, reason, said) in [
        (json!({}), "end_turn", "One two three."),
        (json!({"maxTokens": 2}), "max_tokens", "One two "),
        (
            json!({"stopSequences": ["three"]}),
            "stop_sequence",
            "One two ",
        ),
    ] {
        desk.emulator.script().next(Answer::text("One two three."));
        let body = json!({"messages": [user(json!([{"text": "x"}]))], "inferenceConfig": config});
        let answer = desk.ok(CLAUDE, &body).await;
        assert_eq!(answer["stopReason"], reason);
        assert_eq!(answer["output"]["message"]["content"][0]["text"], said);
    }
    let forced = json!({
        "messages": [user(json!([{"text": "x"}]))],
        "toolConfig": {"tools": [tool("other"), tool("look")], "toolChoice": {"tool": {"name": "look"}}},
    });
    let answer = desk.ok(CLAUDE, &forced).await;
    assert_eq!(
        answer["output"]["message"]["content"][0]["toolUse"]["name"],
        "look"
    );
}

#[tokio::test]
async fn ordered_failures_come_in_the_envelope() {
    let desk = Desk::new().await;
    for (status, expected) in [
        (403, "AccessDeniedException"),
        (404, "ResourceNotFoundException"),
        (408, "ModelTimeoutException"),
        (424, "ModelErrorException"),
        (429, "ThrottlingException"),
        (500, "InternalServerException"),
        (503, "ServiceUnavailableException"),
    ] {
        desk.emulator.faults().next(Fault::Status(status, None));
        let (got, kind, error) =
            answer(desk.request(CLAUDE, "converse", &with_system("One?"))).await;
        assert_eq!((got, kind.as_str()), (status, expected));
        assert!(error["message"].is_string());
    }
    desk.emulator.faults().next(Fault::ErrorInside(2));
    let events = desk.events(&with_system("One?")).await;
    assert_eq!(events.len(), 3);
    assert_eq!(events[2].0, "throttlingException");
    assert!(!desk.emulator.bill().charges()[0].reported);

    // Borders of chunks are not borders of frames.
    desk.emulator.faults().next(Fault::Rechunked(7));
    assert_eq!(
        desk.events(&with_system("One?")).await.last().unwrap().0,
        "metadata"
    );
}

#[tokio::test]
async fn usage_can_be_missing_repeated_or_impossible() {
    let desk = Desk::new().await;
    let body = with_system("One?");
    desk.emulator
        .faults()
        .next(Fault::Usage(UsageFault::Missing));
    assert!(desk.ok(CLAUDE, &body).await.get("usage").is_none());
    desk.emulator
        .faults()
        .next(Fault::Usage(UsageFault::Missing));
    assert_eq!(desk.events(&body).await.last().unwrap().0, "messageStop");
    desk.emulator
        .faults()
        .next(Fault::Usage(UsageFault::Repeated));
    let events = desk.events(&body).await;
    assert_eq!(events[events.len() - 1], events[events.len() - 2]);
    desk.emulator
        .faults()
        .next(Fault::Usage(UsageFault::Impossible));
    let usage = desk.ok(CLAUDE, &body).await["usage"].clone();
    assert!(usage["cacheReadInputTokens"].as_u64() > usage["totalTokens"].as_u64());
    assert_eq!(desk.emulator.bill().charges()[3].cache_read, 200);
}
