//! Bounds, at their edges.

use std::time::Duration;

use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::{Emulator, Fault};
use holdfast_store::KeyScope;
use holdfast_testkit::{Action, Gate, Operation, Reply, TestClient, TestGateway, upstream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::{ask, create, say};

/// A create request of exactly so many bytes.
fn body_of(bytes: usize) -> String {
    let frame = json!({"model": "tiny", "messages": [say("user", "")]}).to_string();
    json!({"model": "tiny", "messages": [say("user", &"x".repeat(bytes - frame.len()))]})
        .to_string()
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.body_bytes_max = 2000)
        .start()
        .await;
    let client = gateway.client();
    let post = |body: String| client.post_text("/v1/context/create", "application/json", body);
    post(body_of(2000)).await.ok();
    let error = post(body_of(2001)).await.error(413);
    assert!(
        error["message"].as_str().unwrap().contains("2000"),
        "{error}"
    );
    post(body_of(500_000)).await.error(413);

    // Without a length in the head.
    let chunks = |bytes: usize| {
        let body = body_of(bytes).into_bytes();
        reqwest::Body::wrap_stream(futures_util::stream::iter(
            body.chunks(700)
                .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
                .collect::<Vec<_>>(),
        ))
    };
    client
        .post_text("/v1/context/create", "application/json", chunks(2000))
        .await
        .ok();
    client
        .post_text("/v1/context/create", "application/json", chunks(2001))
        .await
        .error(413);
}

#[tokio::test]
async fn requests_beyond_the_bound_in_flight_are_refused_at_once() {
    let gateway = TestGateway::builder()
        .limits(|limits| {
            limits.connections_max = 1;
            limits.queue_max = 0;
        })
        .start()
        .await;
    let client = gateway.client();
    let gate = Gate::default();
    gateway
        .store
        .plan(Operation::Insert, [Action::Wait(gate.clone())]);
    let first = tokio::spawn({
        let client = client.clone();
        let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
        async move { client.post("/v1/context/create", &body).await }
    });
    gate.reached().await;
    let refused = client.get("/v1/models").await;
    refused.error(429);
    assert_eq!(refused.header("retry-after"), "1");
    // Monitoring must see a full server.
    client.get("/healthz").await.ok();
    client.get("/readyz").await.ok();
    gate.open();
    first.await.unwrap().ok();
    client.get("/v1/models").await.ok();
}

#[tokio::test]
async fn a_full_queue_is_a_429_and_a_failed_create_leaves_nothing() {
    let gateway = TestGateway::builder()
        .engine(|engine| engine.queue_max = 0)
        .start()
        .await;
    let client = gateway.client();
    let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
    for path in ["/v1/chat/completions", "/v1/context/create"] {
        let reply = client.post(path, &body).await;
        assert_eq!(reply.error(429)["code"], "ServerOverloaded", "{path}");
        assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
    assert_eq!(client.get("/v1/context").await.ok()["data"], json!([]));
    assert!(
        client
            .get("/metrics")
            .await
            .text()
            .contains("holdfast_contexts_living 0")
    );
}

#[tokio::test]
async fn a_project_has_a_bounded_number_of_contexts() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.contexts_per_project_max = 2)
        .start()
        .await;
    let client = gateway.client();
    let body = json!({"model": "tiny", "messages": [say("user", "hi")], "ttl": 60});
    let first = client.post("/v1/context/create", &body).await.ok();
    client.post("/v1/context/create", &body).await.ok();
    client.post("/v1/context/create", &body).await.error(429);
    client
        .post(
            &format!("/v1/context/{}/fork", first["id"].as_str().unwrap()),
            &json!({}),
        )
        .await
        .error(429);
    gateway
        .client_of("other", &[holdfast_store::KeyScope::Inference])
        .await
        .post("/v1/context/create", &body)
        .await
        .ok();

    client
        .delete(&format!("/v1/context/{}", first["id"].as_str().unwrap()))
        .await
        .ok();
    client.post("/v1/context/create", &body).await.ok();
    client.post("/v1/context/create", &body).await.error(429);
    // What has expired does not count, swept or not.
    gateway.clock.advance(Duration::from_secs(60));
    client.post("/v1/context/create", &body).await.ok();
}

#[tokio::test]
async fn a_project_has_a_bounded_number_of_tokens_in_contexts() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.context_tokens_per_project_max = 100)
        .start()
        .await;
    let client = gateway.client();
    // Eight tokens of frame.
    let body = |tokens: usize| json!({"model": "tiny", "messages": [say("user", &"x".repeat(tokens - 8))]});
    client.post("/v1/context/create", &body(60)).await.ok();
    client
        .post("/v1/context/create", &body(41))
        .await
        .error(429);
    client.post("/v1/context/create", &body(40)).await.ok();
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.request_seconds_max = 1)
        .start()
        .await;
    let client = gateway.client();
    let id = create(&client, json!({"mode": "session"})).await;
    let gate = Gate::default();
    gateway.clock.advance(Duration::from_secs(1));
    gateway.store.plan(Operation::Touch, [Action::Wait(gate)]);
    ask(&client, &id, "hi").await.error(504);
    ask(&client, &id, "hi").await.ok();
    assert_eq!(
        client.get(&format!("/v1/context/{id}")).await.ok()["turns"],
        Value::from(1)
    );
}

/// Sends a create on a task of its own.
fn creating(client: &TestClient) -> JoinHandle<Reply> {
    let client = client.clone();
    let body = json!({"model": "tiny", "messages": [say("user", "hi")]});
    tokio::spawn(async move { client.post("/v1/context/create", &body).await })
}

/// Waits until the metrics have this line.
async fn shown(client: &TestClient, line: &str) {
    let is_shown = async {
        while !client
            .get("/metrics")
            .await
            .text()
            .lines()
            .any(|shown| shown == line)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), is_shown).await;
    waited.unwrap_or_else(|_| panic!("no `{line}`"));
}

#[tokio::test]
async fn as_many_requests_wait_as_may_and_the_project_that_takes_most_makes_room() {
    let gateway = TestGateway::builder()
        .limits(|limits| {
            limits.connections_max = 1;
            limits.queue_max = 1;
            limits.queue_wait_ms = 60_000;
        })
        .start()
        .await;
    let greedy = gateway.client();
    let modest = gateway.client_of("modest", &[KeyScope::Inference]).await;
    let gate = Gate::default();
    gateway
        .store
        .plan(Operation::Insert, [Action::Wait(gate.clone())]);
    let running = creating(&greedy);
    gate.reached().await;
    let waiting = creating(&greedy);
    shown(&greedy, "holdfast_admission_waiting_requests 1").await;
    // The line is full, and nobody in it takes more than this one's project.
    let refused = greedy.get("/v1/models").await;
    refused.error(429);
    assert_eq!(refused.header("retry-after"), "1");
    // Managing the server is not for the line.
    greedy.get("/admin/v1/keys").await.ok();

    let other = creating(&modest);
    waiting.await.unwrap().error(429);
    assert!(!other.is_finished());
    gate.open();
    running.await.unwrap().ok();
    other.await.unwrap().ok();
    let metrics = greedy.get("/metrics").await.text();
    for reason in ["full", "displaced"] {
        let line = format!("holdfast_admission_refused_total{{reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn a_request_waits_no_longer_than_it_may() {
    let gateway = TestGateway::builder()
        .limits(|limits| {
            limits.connections_max = 1;
            limits.queue_wait_ms = 10;
        })
        .start()
        .await;
    let client = gateway.client();
    let gate = Gate::default();
    gateway
        .store
        .plan(Operation::Insert, [Action::Wait(gate.clone())]);
    let running = creating(&client);
    gate.reached().await;
    let body = json!({"model": "tiny", "max_tokens": 1, "messages": [say("user", "hi")]});
    let refused = client.post("/v1/messages", &body).await;
    // Anthropic's own status for it.
    assert_eq!(refused.status, 529);
    assert_eq!(refused.json()["error"]["type"], "overloaded_error");
    gate.open();
    running.await.unwrap().ok();
}

/// Sends the bytes of a request as they are; returns the status and the body.
async fn raw(gateway: &TestGateway, request: &str) -> (u16, Value) {
    let address = gateway.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// The head of a request with three fields.
fn head(gateway: &TestGateway, request_line: &str) -> String {
    let key = gateway.key();
    format!(
        "{request_line} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
    )
}

#[tokio::test]
async fn a_head_has_as_many_fields_as_may_be_and_no_more() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.header_fields_max = 20)
        .start()
        .await;
    let with_fields = async |request_line: &str, fields: usize| {
        let mut request = head(&gateway, request_line);
        for number in 3..fields {
            request.push_str(&format!("x-field-{number}: 1\r\n"));
        }
        raw(&gateway, &format!("{request}\r\n")).await
    };
    assert_eq!(with_fields("GET /v1/models", 20).await.0, 200);
    let (status, body) = with_fields("GET /v1/models", 21).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (431, &json!("RequestHeaderTooLarge"))
    );
    let (status, body) = with_fields("POST /v1/messages", 21).await;
    assert_eq!((status, &body["type"]), (431, &json!("error")));
    assert_eq!(body["error"]["type"], "request_too_large");
    let (status, body) = with_fields("POST /v1beta/models/tiny:generateContent", 21).await;
    assert_eq!(
        (status, &body["error"]["status"]),
        (431, &json!("INVALID_ARGUMENT"))
    );
    // What is far beyond is not even read.
    assert_eq!(with_fields("GET /v1/models", 60).await.0, 431);
}

#[tokio::test]
async fn a_head_is_as_large_as_may_be_and_no_larger() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.header_bytes_max = 8192)
        .start()
        .await;
    let with_bytes = async |bytes: usize| {
        let request_line = "GET /v1/models";
        let fields = head(&gateway, request_line);
        // Of each field its name, its value and four more; of the first line the path.
        let (_, fields) = fields.split_once("\r\n").unwrap();
        let own = fields.len() + "/v1/models".len();
        let filler = "x".repeat(bytes - own - "x-filler".len() - 4);
        let request = head(&gateway, request_line);
        raw(&gateway, &format!("{request}x-filler: {filler}\r\n\r\n")).await
    };
    assert_eq!(with_bytes(8192).await.0, 200);
    let (status, body) = with_bytes(8193).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (431, &json!("RequestHeaderTooLarge"))
    );
    assert_eq!(with_bytes(20_000).await.0, 431);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let gateway = TestGateway::builder()
        .limits(|limits| limits.body_seconds_max = 1)
        .start()
        .await;
    let mut request = head(&gateway, "POST /v1/chat/completions");
    request.push_str("content-type: application/json\r\ncontent-length: 100\r\n\r\n{");
    let (status, body) = raw(&gateway, &request).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (408, &json!("RequestBodyTimeout"))
    );
}

#[tokio::test]
async fn json_is_as_deep_as_may_be_and_no_deeper() {
    let gateway = TestGateway::start().await;
    let client = gateway.client();
    let with_depth = async |path: &str, depth: usize| {
        // The body itself is one level, and so are `metadata` and each list.
        let lists = depth - 1;
        let deep = format!("{}{}", "[".repeat(lists), "]".repeat(lists));
        let body = format!(
            r#"{{"model": "tiny", "max_tokens": 1, "messages": [{{"role": "user", "content": "hi"}}], "x-deep": {deep}}}"#
        );
        client.post_text(path, "application/json", body).await
    };
    with_depth("/v1/chat/completions", 127).await.ok();
    let refused = with_depth("/v1/chat/completions", 128).await;
    refused.error(400);
    let refused = with_depth("/v1/messages", 128).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn an_upstream_that_refuses_is_sent_fewer_at_once() {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let mut options = upstream("vllm", &format!("{}/v1", emulator.url), "key-1");
    options.retry.retries_max = 0;
    let gateway = TestGateway::builder()
        .upstream(options)
        .route("m", &[("vllm", "m")])
        .start()
        .await;
    let client = gateway.client();
    let limit =
        |limit: u64| format!("holdfast_upstream_concurrency_limit{{upstream=\"vllm\"}} {limit}");
    shown(&client, &limit(256)).await;
    emulator.faults().next(Fault::Status(429, None));
    let body = json!({"model": "m", "messages": [say("user", "hi")]});
    client.post("/v1/chat/completions", &body).await.error(429);
    shown(&client, &limit(11)).await;
    client.post("/v1/chat/completions", &body).await.ok();
}

/// Those of others in its project do not count, nor those that the gateway keeps of its own accord.
#[tokio::test]
async fn a_key_has_a_bounded_number_of_contexts_and_tokens() {
    let gateway = TestGateway::builder().start().await;
    let admin = gateway.client();
    let key = async |limits: Value| {
        let body = json!({"limits": limits});
        let made = admin.post("/admin/v1/keys", &body).await.ok();
        admin.with_key(made["key"].as_str().unwrap())
    };
    let body = |tokens: usize| json!({"model": "tiny", "messages": [say("user", &"x".repeat(tokens - 8))], "ttl": 60});
    let (one, other) = (
        key(json!({"contexts": 2})).await,
        key(json!({"context_tokens": 100})).await,
    );
    let first = one.post("/v1/context/create", &body(50)).await.ok();
    one.post("/v1/context/create", &body(50)).await.ok();
    let refused = one.post("/v1/context/create", &body(50)).await;
    let error = refused.error(429);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("This key has 2 living contexts"),
        "{error}"
    );
    assert_eq!(refused.header("x-should-retry"), "false");
    let path = format!("/v1/context/{}", first["id"].as_str().unwrap());
    one.post(&format!("{path}/fork"), &json!({}))
        .await
        .error(429);
    // Whoever forks pays for the fork.
    other.post(&format!("{path}/fork"), &json!({})).await.ok();
    other.post("/v1/context/create", &body(51)).await.error(429);
    other.post("/v1/context/create", &body(50)).await.ok();
    admin.post("/v1/context/create", &body(50)).await.ok();
    // Whoever deletes makes room for the one that has made it.
    other.delete(&path).await.ok();
    one.post("/v1/context/create", &body(50)).await.ok();
    one.post("/v1/context/create", &body(50)).await.error(429);
    gateway.clock.advance(Duration::from_secs(60));
    one.post("/v1/context/create", &body(50)).await.ok();
}

#[tokio::test]
async fn a_model_has_a_bounded_number_of_contexts_of_all_projects() {
    let gateway = TestGateway::builder()
        .limits(|limits| {
            let of_model = holdfast_store::LimitSettings {
                contexts: Some(2),
                ..Default::default()
            };
            limits.per_model.insert("tiny".to_owned(), of_model);
        })
        .start()
        .await;
    let client = gateway.client();
    let other = gateway
        .client_of("other", &[holdfast_store::KeyScope::Inference])
        .await;
    let body = |model: &str| json!({"model": model, "messages": [say("user", "hi")]});
    client.post("/v1/context/create", &body("tiny")).await.ok();
    other.post("/v1/context/create", &body("tiny")).await.ok();
    let error = client
        .post("/v1/context/create", &body("tiny"))
        .await
        .error(429);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("This model has 2"),
        "{error}"
    );
    client
        .post("/v1/context/create", &body("gemini-2.0-flash"))
        .await
        .ok();
}
