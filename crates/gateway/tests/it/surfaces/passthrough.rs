//! What upstreams have beside chat: requests and answers pass through byte for byte. Text completions of the embedded
//! engine.

use std::time::Duration;

use holdfast::app::UpstreamOptions;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Emulator, Fault};
use holdfast_protocol::provider::RawPath;
use holdfast_store::KeyScope;
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::say;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(5);

const FORM: &str = "multipart/form-data; boundary=\"b 1\"";

/// Upstream models with the names that clients know them by.
const MODELS: &[(&str, &str)] = &[
    ("vectors", "text-embedding-3-small"),
    ("text", "gpt-3.5-turbo-instruct"),
    ("pictures", "gpt-image-1"),
    ("voice", "gpt-4o-mini-tts"),
    ("ears", "gpt-4o-transcribe"),
    ("translator", "whisper-1"),
];

/// A gateway before two upstreams that have everything; the second one is asked when the first one fails.
struct Scene {
    first: Emulator,
    second: Emulator,
    gateway: TestGateway,
    client: TestClient,
}

impl Scene {
    async fn new(change: impl Fn(&mut UpstreamOptions)) -> Scene {
        let first = Emulator::start(OpenAi::new()).await;
        let second = Emulator::start(OpenAi::new()).await;
        let mut builder = TestGateway::builder();
        for (name, emulator) in [("a", &first), ("b", &second)] {
            let mut options = upstream("openai", &format!("{}/v1", emulator.url), "key-1");
            options.name = name.to_owned();
            change(&mut options);
            builder = builder.upstream(options);
        }
        for (model, upstream_model) in MODELS {
            builder = builder.route(model, &[("a", upstream_model), ("b", upstream_model)]);
        }
        let gateway = builder.start().await;
        let client = gateway.client();
        Scene {
            first,
            second,
            gateway,
            client,
        }
    }

    /// Sends a body on its way through the gateway, and the body that the upstream should get straight to the second
    /// upstream. The first one must have got the same, and the two answers must be the same.
    async fn check(
        &self,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
        expected: Vec<u8>,
    ) -> Reply {
        let passed = self.client.post_text(path, content_type, body).await;
        let seen = self.first.requests().pop().unwrap();
        assert_eq!(seen.body, expected, "{path}: the request");
        let rest = path
            .strip_prefix("/v1")
            .or_else(|| path.strip_prefix("/api/v3"));
        assert_eq!(seen.path, format!("/v1{}", rest.unwrap()));
        assert_eq!(seen.header("content-type"), Some(content_type), "{path}");
        assert_eq!(seen.bearer(), Some("key-1"), "{path}");
        let length = expected.len().to_string();
        assert_eq!(
            seen.header("content-length"),
            Some(length.as_str()),
            "{path}"
        );

        let direct = reqwest::Client::new()
            .post(format!("{}{}", self.second.url, seen.path))
            .bearer_auth("key-1")
            .header("content-type", content_type)
            .body(expected);
        let direct = Reply::of(direct).await;
        assert_eq!(passed.status, direct.status, "{path}: {}", passed.text());
        assert_eq!(passed.header("content-type"), direct.header("content-type"));
        assert_eq!(passed.body, direct.body, "{path}: the answer");
        passed
    }

    fn asked(&self) -> (usize, usize) {
        (self.first.requests().len(), self.second.requests().len())
    }

    async fn embed(&self, model: &str) -> Reply {
        let body = json!({"model": model, "input": "Hello there."});
        self.client.post("/v1/embeddings", &body).await
    }
}

/// A form with the model before and after a file of all bytes, some of which look like borders.
fn form(model: &str, is_first: bool, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut file = b"--b 1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a \xc3\xa9.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n".to_vec();
    file.extend(0..=255);
    file.extend_from_slice(b"\r\n--b\r\n\r\nmodel\r\n-- b 1--\r\n");
    let mut fields: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| {
            format!("--b 1\r\ncontent-disposition: form-data; name={name}\r\n\r\n{value}\r\n")
                .into_bytes()
        })
        .collect();
    fields.extend_from_slice(
        format!("--b 1 \r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n")
            .as_bytes(),
    );
    let end = b"--b 1--\r\n".to_vec();
    if is_first {
        [fields, file, end].concat()
    } else {
        [file, fields, end].concat()
    }
}

#[tokio::test]
async fn json_passes_unchanged_but_for_the_models_name() {
    let scene = Scene::new(|_| {}).await;
    let body = |model: &str| {
        format!("{{ \"input\" : [\"a\",\t\"\\u00e9\"],\r\n\"dimensions\": 8 , \"model\":\"{model}\" ,\"user\":\"x\" }} \n").into_bytes()
    };
    for root in ["/v1", "/api/v3"] {
        let path = format!("{root}/embeddings");
        let (sent, expected) = (body("vectors"), body("text-embedding-3-small"));
        scene.check(&path, "application/json", sent, expected).await;
    }
    let body =
        |model: &str| format!("{{\"model\":\"{model}\",\"prompt\":\"a bolt\"}}").into_bytes();
    for root in ["/v1", "/api/v3"] {
        let path = format!("{root}/images/generations");
        let (sent, expected) = (body("pictures"), body("gpt-image-1"));
        scene.check(&path, "application/json", sent, expected).await;
    }
    assert_eq!(scene.asked(), (4, 4));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn sound_passes_unchanged_as_it_comes() {
    let scene = Scene::new(|_| {}).await;
    for more in [
        "",
        ",\"response_format\":\"wav\"",
        ",\"stream_format\":\"sse\"",
    ] {
        let body = |model: &str| {
            format!("{{\"model\":\"{model}\",\"input\":\"Hello there again\",\"voice\":\"alloy\"{more}}}").into_bytes()
        };
        let (sent, expected) = (body("voice"), body("gpt-4o-mini-tts"));
        scene.first.faults().next(Fault::Rechunked(7));
        let reply = scene
            .check("/v1/audio/speech", "application/json", sent, expected)
            .await;
        assert_eq!((reply.status, reply.body.len() > 512), (200, true));
    }
    scene.gateway.stop().await;
}

#[tokio::test]
async fn forms_pass_unchanged_but_for_the_models_name() {
    let scene = Scene::new(|_| {}).await;
    for is_first in [true, false] {
        for (path, model, upstream_model, fields) in [
            (
                "/v1/audio/transcriptions",
                "ears",
                "gpt-4o-transcribe",
                &[][..],
            ),
            (
                "/v1/audio/transcriptions",
                "ears",
                "gpt-4o-transcribe",
                &[("stream", "true")],
            ),
            (
                "/v1/audio/translations",
                "translator",
                "whisper-1",
                &[("response_format", "vtt")],
            ),
            // The file has another name there.
            (
                "/v1/images/edits",
                "pictures",
                "gpt-image-1",
                &[("prompt", "rounder")],
            ),
        ] {
            let (sent, expected) = (
                form(model, is_first, fields),
                form(upstream_model, is_first, fields),
            );
            if path == "/v1/images/edits" {
                let reply = scene.client.post_text(path, FORM, sent).await;
                assert_eq!(reply.error(400)["param"], "image");
                assert_eq!(scene.first.requests().pop().unwrap().body, expected);
                continue;
            }
            let reply = scene.check(path, FORM, sent, expected).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    }
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_stream_passes_unchanged_and_begins_before_it_ends() {
    let scene = Scene::new(|_| {}).await;
    // After two frames nothing comes any more: what the client sees by then it did not have to wait for.
    scene.first.faults().next(Fault::StallAfter(2));
    let body = json!({"model": "text", "prompt": "Go on", "stream": true});
    let request = scene
        .client
        .request(Method::POST, "/v1/completions")
        .json(&body);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut text = String::new();
    while text.matches("\n\n").count() < 2 {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(
        text.contains("\"model\":\"gpt-3.5-turbo-instruct\""),
        "{text}"
    );
    drop(response);

    let reply = scene.client.post("/v1/completions", &body).await;
    let chunks = reply.chunks();
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "text_completion")
    );
    assert_eq!(scene.asked(), (2, 0));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn what_comes_and_goes_is_tried_again_and_then_elsewhere() {
    for fault in [
        Fault::Status(500, None),
        Fault::Status(429, None),
        Fault::CloseBeforeHead,
        Fault::CutAfter(0),
    ] {
        let scene = Scene::new(|_| {}).await;
        scene.first.faults().next(fault.clone());
        scene.embed("vectors").await.ok();
        assert_eq!(scene.asked(), (2, 0), "{fault:?}");
        scene.gateway.stop().await;
    }
    let scene = Scene::new(|options| options.retry.breaker_failures = 4).await;
    scene.first.faults().always(Fault::Status(503, None));
    scene.embed("vectors").await.ok();
    assert_eq!(scene.asked(), (3, 1), "two retries, then the next one");
    scene.embed("vectors").await.ok();
    scene.embed("vectors").await.ok();
    assert_eq!(
        scene.asked(),
        (4, 3),
        "one that keeps failing is left alone"
    );
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_long_retry_after_is_told_where_there_is_nowhere_else() {
    let scene = Scene::new(|_| {}).await;
    for emulator in [&scene.first, &scene.second] {
        emulator.faults().always(Fault::Status(429, Some(60)));
    }
    let reply = scene.embed("vectors").await;
    assert_eq!(reply.error(429)["code"], "RateLimitExceeded");
    assert_eq!(reply.header("retry-after"), "60");
    assert_eq!(scene.asked(), (1, 1));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn an_upstreams_refusal_comes_in_the_gateways_words() {
    let scene = Scene::new(|_| {}).await;
    let body = json!({"model": "vectors"});
    let error = scene.client.post("/v1/embeddings", &body).await.error(400);
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("InvalidParameter.input"), &json!("input"))
    );
    assert_eq!(scene.asked(), (1, 0), "it is wrong in itself");
    scene.first.faults().always(Fault::Status(401, None));
    scene.second.faults().always(Fault::Status(401, None));
    let error = scene.embed("vectors").await.error(502);
    assert_eq!(error["code"], "UpstreamError");
    scene.gateway.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let scene = Scene::new(|_| {}).await;
    scene.first.faults().next(Fault::CutAfter(1));
    let body = json!({"model": "voice", "input": "Hello there again", "voice": "alloy"});
    let request = scene
        .client
        .request(Method::POST, "/v1/audio/speech")
        .json(&body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap_err();
    assert_eq!(
        scene.asked(),
        (1, 0),
        "nothing is tried again once it has begun"
    );
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_upstream() {
    let scene = Scene::new(|_| {}).await;
    let body = json!({"model": "voice", "input": "Hello there again", "voice": "alloy"});
    let request = || {
        scene
            .client
            .request(Method::POST, "/v1/audio/speech")
            .json(&body)
    };
    let mut aborted = scene.first.aborted();
    let mut in_flight = scene.first.in_flight();

    // In the middle of the answer.
    scene.first.faults().next(Fault::StallAfter(1));
    let mut response = request().send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    drop(response);
    let noticed = aborted.wait_for(|count| *count == 1);
    tokio::time::timeout(PATIENCE, noticed)
        .await
        .unwrap()
        .unwrap();

    // Before it has begun.
    scene
        .first
        .faults()
        .next(Fault::SlowStart(Duration::from_secs(30)));
    let request = tokio::spawn(request().send());
    let begun = in_flight.wait_for(|count| *count == 1);
    tokio::time::timeout(PATIENCE, begun)
        .await
        .unwrap()
        .unwrap();
    request.abort();
    let noticed = aborted.wait_for(|count| *count == 2);
    tokio::time::timeout(PATIENCE, noticed)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(scene.second.requests().len(), 0);
    scene.gateway.stop().await;
}

#[tokio::test]
async fn upstreams_without_the_endpoint_are_passed_over() {
    let without = Emulator::start(Compatible::deepseek()).await;
    let with = Emulator::start(OpenAi::new()).await;
    let mut limited = upstream("openai", &format!("{}/v1", with.url), "key-2");
    limited.name = "limited".to_owned();
    limited.raw = Some(vec![RawPath::AudioSpeech]);
    let mut extended = upstream("deepseek", &format!("{}/v1", with.url), "key-3");
    extended.name = "extended".to_owned();
    extended.raw = Some(vec![RawPath::Embeddings]);
    let model = "text-embedding-3-small";
    let gateway = TestGateway::builder()
        .upstream(upstream("deepseek", &without.url, "key-1"))
        .upstream(upstream("openai", &format!("{}/v1", with.url), "key-1"))
        .upstream(limited)
        .upstream(extended)
        .route("m", &[("deepseek", "deepseek-v4-pro"), ("openai", model)])
        .route("n", &[("limited", model), ("extended", model)])
        .route(
            "chat",
            &[("deepseek", "deepseek-v4-pro"), ("limited", "gpt-5.5")],
        )
        .start()
        .await;
    let client = gateway.client();
    let embed = async |model: &str| {
        let body = json!({"model": model, "input": "x"});
        client.post("/v1/embeddings", &body).await
    };
    embed("m").await.ok();
    embed("n").await.ok();
    let keys: Vec<String> = with
        .requests()
        .iter()
        .map(|request| request.bearer().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["key-1", "key-3"]);

    for model in ["chat", "tiny"] {
        let error = embed(model).await.error(400);
        assert_eq!(
            (&error["code"], &error["param"]),
            (
                &json!("InvalidParameter.UnsupportedParameter"),
                &json!("model")
            ),
            "{error}"
        );
        assert!(error["message"].as_str().unwrap().contains("`/embeddings`"));
    }
    assert!(without.requests().is_empty());
    let body = json!({"model": "chat", "messages": [say("user", "Hello?")]});
    client.post("/v1/chat/completions", &body).await.ok();
    gateway.stop().await;
}

#[tokio::test]
async fn a_request_needs_a_key_a_model_and_a_body() {
    let scene = Scene::new(|_| {}).await;
    let client = &scene.client;
    for path in RawPath::ALL {
        let path = format!("/v1{}", path.path());
        let body = json!({"model": "vectors", "input": "x"});
        client.without_key().post(&path, &body).await.error(401);
        let nobody = scene.gateway.client_of("default", &[]).await;
        nobody.post(&path, &body).await.error(403);
        let error = client
            .post(&path, &json!({"model": "nobody"}))
            .await
            .error(404);
        assert_eq!(error["code"], "InvalidEndpointOrModel.NotFound");
        let error = client.post(&path, &json!({"input": "x"})).await.error(400);
        assert_eq!(error["code"], "MissingParameter.model");
        let error = client
            .post_text(&path, "text/plain", "hello")
            .await
            .error(400);
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains("application/json")
        );
        let error = client.post_text(&path, FORM, "--b 1--").await.error(400);
        assert_eq!(error["code"], "MissingParameter.model");
        let error = client.post_text(&path, FORM, "hello").await.error(400);
        assert!(
            !error["message"]
                .as_str()
                .unwrap()
                .contains("application/json")
        );
        client.get(&path).await.error(405);
    }
    assert_eq!(scene.asked(), (0, 0));
    let other = scene
        .gateway
        .client_of("other", &[KeyScope::Inference])
        .await;
    let body = json!({"model": "vectors", "input": "x"});
    other.post("/v1/embeddings", &body).await.ok();
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let emulator = Emulator::start(OpenAi::new()).await;
    let gateway = TestGateway::builder()
        .limits(|limits| limits.body_bytes_max = 1_000)
        .upstream(upstream("openai", &format!("{}/v1", emulator.url), "key-1"))
        .route("ears", &[("openai", "whisper-1")])
        .start()
        .await;
    let body = form("ears", true, &[("prompt", &"x".repeat(1_000))]);
    let client = gateway.client();
    let reply = client
        .post_text("/v1/audio/transcriptions", FORM, body)
        .await;
    reply.error(413);
    assert!(emulator.requests().is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn an_answers_end_makes_room_for_the_next_request() {
    let scene = Scene::new(|options| options.concurrency_max = 1).await;
    let body = json!({"model": "voice", "input": "Hello", "voice": "alloy"});
    for _ in 0..3 {
        scene.embed("vectors").await.ok();
        let reply = scene.client.post("/v1/audio/speech", &body).await;
        assert_eq!(reply.status, 200);
    }
    scene.gateway.stop().await;
}

#[tokio::test]
async fn what_an_answer_says_it_used_is_counted() {
    let scene = Scene::new(|_| {}).await;
    let client = &scene.client;
    scene.embed("vectors").await.ok();
    let images = json!({"model": "pictures", "prompt": "a bolt of lightning"});
    client.post("/v1/images/generations", &images).await.ok();
    let text = json!({"model": "text", "prompt": "Go on", "stream": true, "stream_options": {"include_usage": true}});
    client.post("/v1/completions", &text).await.chunks();
    let speech =
        json!({"model": "voice", "input": "Hello there", "voice": "alloy", "stream_format": "sse"});
    assert_eq!(client.post("/v1/audio/speech", &speech).await.status, 200);
    let sound = form("ears", false, &[]);
    client
        .post_text("/v1/audio/transcriptions", FORM, sound)
        .await
        .ok();
    // Streams are counted when their bodies have gone, which their clients can't see.
    let expected: Vec<String> = scene
        .first
        .bill()
        .charges()
        .iter()
        .zip(["embeddings", "image_generations", "completions", "audio_speech", "audio_transcriptions"])
        .flat_map(|(charge, request)| {
            let (name, _) = MODELS.iter().find(|(_, model)| *model == charge.model).unwrap();
            [("fresh", charge.input()), ("output", charge.output)]
                .into_iter()
                .filter(|(_, tokens)| *tokens > 0)
                .flat_map(move |(kind, tokens)| {
                    let model = &charge.model;
                    [
                        format!("holdfast_upstream_tokens_total{{upstream=\"a\",model=\"{model}\",request=\"{request}\",kind=\"{kind}\",source=\"provider\"}} {tokens}\n"),
                        format!("holdfast_tokens_total{{model=\"{name}\",kind=\"{kind}\"}} {tokens}\n"),
                    ]
                })
        })
        .collect();
    assert_eq!(expected.len(), 2 * 9, "{expected:?}");
    let counted = async {
        loop {
            let metrics = client.get("/metrics").await.text();
            let missing: Vec<&String> = expected
                .iter()
                .filter(|line| !metrics.contains(*line))
                .collect();
            if missing.is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.unwrap();
    let metrics = client.get("/metrics").await.text();
    assert!(metrics.contains(
        "holdfast_upstream_requests_total{upstream=\"a\",model=\"gpt-image-1\",result=\"ok\"} 1\n"
    ));
    assert!(
        metrics.contains("route=\"/v1/embeddings\",status=\"200\"} 1\n"),
        "{metrics}"
    );
    scene.gateway.stop().await;
}

/// A user's message as the toy engine's template has it.
fn rendered(text: &str) -> String {
    format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")
}

async fn complete(client: &TestClient, prompt: Value, fields: Value) -> Reply {
    let mut body = json!({"model": "tiny", "prompt": prompt, "temperature": 0});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    client.post("/v1/completions", &body).await
}

#[tokio::test]
async fn the_engine_continues_a_prompt_as_it_is() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let chat = json!({"model": "tiny", "messages": [say("user", "hi")], "temperature": 0});
    let chat = client.post("/v1/chat/completions", &chat).await;
    let reply = complete(&client, json!(rendered("hi")), json!({"max_tokens": 64}))
        .await
        .ok();
    assert_eq!(reply["object"], "text_completion");
    assert!(reply["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(reply["model"], "tiny");
    assert_eq!(
        reply["choices"],
        json!([{"text": chat.answer(), "index": 0, "logprobs": null, "finish_reason": "stop"}])
    );
    assert_eq!(reply["usage"], chat.ok()["usage"]);

    let short = complete(&client, json!(rendered("hi")), json!({"max_tokens": 3}))
        .await
        .ok();
    assert_eq!(short["choices"][0]["text"], chat.answer()[..3]);
    assert_eq!(short["choices"][0]["finish_reason"], "length");
    assert_eq!(short["usage"]["completion_tokens"], 3);
    let stop = &chat.answer()[2..4];
    let stopped = complete(&client, json!(rendered("hi")), json!({"stop": stop}))
        .await
        .ok();
    assert_eq!(
        stopped["choices"][0]["text"],
        chat.answer()[..chat.answer().find(stop).unwrap()]
    );
    // Letters to the end: the toy model ends its turn sixteen letters after a template's last line.
    let bare = complete(&client, json!("x"), json!({})).await.ok();
    assert_eq!(bare["usage"]["completion_tokens"], 16, "the default");
    gateway.stop().await;
}

#[tokio::test]
async fn several_prompts_have_their_choices_numbered_through() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let prompts = [rendered("one"), rendered("two")];
    let mut alone = Vec::new();
    let mut tokens = (0, 0);
    for prompt in &prompts {
        let reply = complete(&client, json!(prompt), json!({})).await.ok();
        alone.push(reply["choices"][0]["text"].as_str().unwrap().to_owned());
        tokens.0 += reply["usage"]["prompt_tokens"].as_u64().unwrap();
        tokens.1 += 2 * reply["usage"]["completion_tokens"].as_u64().unwrap();
    }
    let reply = complete(&client, json!(prompts), json!({"n": 2, "echo": true}))
        .await
        .ok();
    let found: Vec<(u64, &str)> = reply["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| {
            (
                choice["index"].as_u64().unwrap(),
                choice["text"].as_str().unwrap(),
            )
        })
        .collect();
    let [one, two] = [0, 1].map(|index| format!("{}{}", prompts[index], alone[index]));
    assert_eq!(found, [(0, one.as_str()), (1, &one), (2, &two), (3, &two)]);
    assert_eq!(
        (
            &reply["usage"]["prompt_tokens"],
            &reply["usage"]["completion_tokens"]
        ),
        (&json!(tokens.0), &json!(tokens.1))
    );

    let fields = json!({"n": 2, "stream": true, "stream_options": {"include_usage": true}});
    let chunks = complete(&client, json!(prompts), fields).await.chunks();
    let mut texts = vec![String::new(); 4];
    let mut finished = vec![0; 4];
    let (last, chunks) = chunks.split_last().unwrap();
    for chunk in chunks {
        assert_eq!(
            (&chunk["object"], &chunk["usage"]),
            (&json!("text_completion"), &Value::Null)
        );
        let choice = &chunk["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        texts[index].push_str(choice["text"].as_str().unwrap());
        finished[index] += usize::from(choice["finish_reason"].is_string());
    }
    assert_eq!(
        texts,
        [0, 0, 1, 1].map(|prompt: usize| alone[prompt].as_str())
    );
    assert_eq!(finished, [1; 4]);
    assert_eq!(
        (&last["choices"], &last["usage"]),
        (&json!([]), &reply["usage"])
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_has_a_status() {
    let gateway = TestGateway::builder()
        .engine(|engine| engine.window_tokens = Some(100))
        .start()
        .await;
    let client = gateway.client();
    for stream in [false, true] {
        let prompts = json!(["short", "x".repeat(200)]);
        let error = complete(&client, prompts, json!({"stream": stream}))
            .await
            .error(400);
        assert_eq!(error["code"], "OutofContextError");
    }
    let error = complete(&client, json!("x"), json!({"suffix": "y"}))
        .await
        .error(400);
    assert_eq!(error["param"], "suffix");
    let error = client
        .post_text("/v1/completions", FORM, form("tiny", true, &[]))
        .await
        .error(400);
    assert_eq!(error["code"], "InvalidParameter");
    complete(&client, json!("short"), json!({})).await.ok();
    gateway.stop().await;
}

#[tokio::test]
async fn a_sampled_completion_is_the_same_for_the_same_seed() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let ask = async |seed: u64| {
        let fields = json!({"temperature": 2, "seed": seed, "n": 4});
        complete(&client, json!(rendered("hi")), fields).await.ok()["choices"].clone()
    };
    assert_eq!(ask(1).await, ask(1).await);
    assert_ne!(ask(1).await, ask(2).await);
    gateway.stop().await;
}
