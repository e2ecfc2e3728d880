//! Which upstream is asked, how often, and what clients see of it: by every dialect's own rules. `failures` has what is
//! the same everywhere.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use holdfast::app::{TargetOptions, UpstreamOptions};
use holdfast_emulators::families::anthropic::Anthropic;
use holdfast_emulators::families::ark::Ark;
use holdfast_emulators::families::bedrock::Bedrock;
use holdfast_emulators::families::compatible::Compatible;
use holdfast_emulators::families::gemini::Gemini;
use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Answer, Emulator, Family, Fault};
use holdfast_protocol::provider::UpstreamDialectName;
use holdfast_testkit::{Reply, TestClient, TestGateway, upstream};
use serde_json::{Value, json};

use super::{ask, chats, document, handle_names, hold, outcome, say, until};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(5);

/// A wire format: name, family, base path, model, dialect where it is not the provider's first.
type Wire = (
    &'static str,
    Box<dyn Family>,
    &'static str,
    &'static str,
    Option<UpstreamDialectName>,
);

fn wires() -> Vec<Wire> {
    let responses = Some(UpstreamDialectName::OpenaiResponses);
    let seed = "doubao-seed-2-1-pro-260915";
    vec![
        ("openai", Box::new(OpenAi::new()), "/v1", "gpt-5.6", None),
        (
            "openai",
            Box::new(OpenAi::new()),
            "/v1",
            "gpt-5.6",
            responses,
        ),
        (
            "anthropic",
            Box::new(Anthropic::new()),
            "",
            "claude-sonnet-5-5",
            None,
        ),
        (
            "gemini",
            Box::new(Gemini::new()),
            "/v1beta",
            "gemini-2.5-pro",
            None,
        ),
        (
            "bedrock",
            Box::new(Bedrock::new()),
            "",
            "anthropic.claude-sonnet-5-5",
            None,
        ),
        ("ark", Box::new(Ark::new()), "/api/v3", seed, None),
        (
            "ark",
            Box::new(Ark::new()),
            "/api/v3",
            "ep-20261122",
            Some(UpstreamDialectName::ArkContext),
        ),
    ]
}

/// A gateway whose model `alone` is answered by one upstream, and `m` by a sound one if that fails.
struct Scene {
    name: String,
    first: Emulator,
    second: Emulator,
    gateway: TestGateway,
    client: TestClient,
}

impl Scene {
    async fn new(wire: Wire, change: impl FnOnce(&mut UpstreamOptions)) -> Scene {
        let (provider, family, base_path, model, dialect) = wire;
        let first = Emulator::start(family).await;
        let second = Emulator::start(Compatible::vllm()).await;
        let mut options = upstream(provider, &format!("{}{base_path}", first.url), "key-1");
        options.dialect = dialect.unwrap_or(options.dialect);
        let name = format!("{provider} {:?}", options.dialect);
        change(&mut options);
        let gateway = TestGateway::builder()
            .upstream(options)
            .upstream(upstream("vllm", &format!("{}/v1", second.url), "key-2"))
            .route("alone", &[(provider, model)])
            .route("m", &[(provider, model), ("vllm", "model")])
            .start()
            .await;
        gateway.clock.follow_system();
        let client = gateway.client();
        Scene {
            name,
            first,
            second,
            gateway,
            client,
        }
    }

    async fn openai(change: impl FnOnce(&mut UpstreamOptions)) -> Scene {
        Scene::new(wires().remove(0), change).await
    }

    async fn chat(&self, model: &str, stream: bool) -> Reply {
        self.client
            .post("/v1/chat/completions", &request(model, stream))
            .await
    }

    /// Begins a stream, and reads its first piece.
    async fn stream(&self, model: &str) -> reqwest::Response {
        let mut response = self.send(model, true).await.unwrap();
        response.chunk().await.unwrap().unwrap();
        response
    }

    fn send(
        &self,
        model: &str,
        stream: bool,
    ) -> impl Future<Output = reqwest::Result<reqwest::Response>> + Send + use<> {
        let path = "/v1/chat/completions";
        let body = request(model, stream);
        self.client
            .request(reqwest::Method::POST, path)
            .json(&body)
            .send()
    }

    /// After how many frames a client has seen the beginning of an answer.
    async fn frames_until_seen(&self) -> usize {
        for frames in 1..60 {
            self.first.faults().next(Fault::CutAfter(frames));
            if seen(&self.chat("alone", true).await).errors > 0 {
                return frames;
            }
        }
        panic!("{}: no break is seen", self.name);
    }

    fn asked(&self) -> (usize, usize) {
        (self.first.requests().len(), self.second.requests().len())
    }

    fn clear(&self) {
        self.first.clear_requests();
        self.second.clear_requests();
    }
}

fn request(model: &str, stream: bool) -> Value {
    json!({"model": model, "messages": [say("user", "Hello?")], "stream": stream})
}

/// What a client has seen of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    text: String,
    errors: usize,
    is_ended: bool,
}

fn seen(reply: &Reply) -> Seen {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let mut seen = Seen {
        text: String::new(),
        errors: 0,
        is_ended: false,
    };
    for line in reply.text().lines() {
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        assert!(!seen.is_ended && seen.errors == 0, "{}", reply.text());
        if data == "[DONE]" {
            seen.is_ended = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(data).unwrap();
        if chunk["error"].is_object() {
            for field in ["message", "type", "code"] {
                assert!(chunk["error"][field].is_string(), "{chunk}");
            }
            seen.errors += 1;
        }
        let delta = &chunk["choices"][0]["delta"]["content"];
        seen.text.push_str(delta.as_str().unwrap_or_default());
    }
    seen
}

/// Wherever an answer breaks: before the first event it is asked for again, behind it never, and the client gets either
/// the whole answer or the beginning of it with an error.
#[tokio::test]
async fn a_stream_that_breaks_at_any_frame_is_whole_or_an_error_and_never_said_twice() {
    let breaks: [fn(usize) -> Fault; 3] = [Fault::CutAfter, Fault::HalfFrame, Fault::ErrorInside];
    for wire in wires() {
        let scene = Scene::new(wire, |_| {}).await;
        let whole = seen(&scene.chat("alone", true).await);
        assert!(whole.is_ended && !whole.text.is_empty());
        for fault in breaks {
            let (mut retried, mut broken) = (0, 0);
            for frames in 0..60 {
                let what = format!("{} {:?}", scene.name, fault(frames));
                scene.clear();
                scene.first.faults().next(fault(frames));
                let seen = seen(&scene.chat("alone", true).await);
                let requests = scene.asked().0;
                if seen.errors > 0 {
                    assert_eq!(requests, 1, "{what}");
                    assert!(!seen.is_ended, "{what}");
                    assert!(whole.text.starts_with(&seen.text), "{what}: {seen:?}");
                    broken += 1;
                    continue;
                }
                assert_eq!(seen, whole, "{what}");
                match requests {
                    // All frames had gone before the break.
                    1 => break,
                    2 => retried += 1,
                    more => panic!("{what}: {more} requests"),
                }
                assert_eq!(broken, 0, "{what}: tried again after the first event");
            }
            assert!(
                retried > 0 && broken > 0,
                "{}: {retried} {broken}",
                scene.name
            );
        }
        scene.gateway.stop().await;
    }
}

/// Whoever asked for a whole answer gets an error with a status instead, and it is not asked for again either.
#[tokio::test]
async fn a_whole_answer_that_breaks_off_is_an_error_with_a_status() {
    for wire in wires() {
        let scene = Scene::new(wire, |options| {
            options.timeouts.idle = Duration::from_millis(100);
            options.retry.breaker_failures = u32::MAX;
        })
        .await;
        let frames = scene.frames_until_seen().await;
        for (fault, status) in [
            (Fault::CutAfter(frames), 502),
            (Fault::HalfFrame(frames), 502),
            (Fault::StallAfter(frames), 504),
        ] {
            scene.clear();
            scene.first.faults().next(fault.clone());
            let reply = scene.chat("m", false).await;
            reply.error(status);
            assert_eq!(scene.asked(), (1, 0), "{} {fault:?}", scene.name);
        }
        scene.clear();
        scene.first.faults().next(Fault::ErrorInside(frames));
        let reply = scene.chat("m", false).await;
        assert!(
            [429, 502, 503, 504].contains(&reply.status),
            "{}",
            reply.text()
        );
        reply.error(reply.status);
        assert_eq!(scene.asked(), (1, 0), "{}", scene.name);
        scene.gateway.stop().await;
    }
}

/// Status by status in each provider's own envelope: what the client is told where there is no other upstream, how often
/// it is asked, and whether another one is.
#[tokio::test]
async fn each_status_means_the_same_in_every_dialect() {
    let statuses = [
        (400, 400, 1, false),
        (401, 502, 1, true),
        (404, 502, 1, true),
        (413, 400, 1, false),
        (429, 429, 3, true),
        (500, 502, 3, true),
        (502, 502, 3, true),
        (503, 503, 3, true),
        (504, 504, 3, true),
        (529, 503, 3, true),
    ];
    for wire in wires() {
        let scene = Scene::new(wire, |options| {
            options.retry.breaker_failures = u32::MAX;
        })
        .await;
        for (status, told, times, falls_back) in statuses {
            let what = format!("{} {status}", scene.name);
            // Google says how long to wait, and the upstream is left alone for so long.
            if status == 429 && scene.name.starts_with("gemini") {
                continue;
            }
            scene.first.faults().clear();
            scene.first.faults().always(Fault::Status(status, None));
            for stream in [false, true] {
                scene.clear();
                let reply = scene.chat("alone", stream).await;
                assert_eq!(reply.status, told, "{what}: {}", reply.text());
                let text = reply.error(told).to_string();
                assert!(!text.contains("key-1"), "{what}: {text}");
                assert_eq!(scene.asked(), (times, 0), "{what}");
                scene.clear();
                let reply = scene.chat("m", stream).await;
                let (status, second) = if falls_back { (200, 1) } else { (told, 0) };
                assert_eq!(reply.status, status, "{what}: {}", reply.text());
                assert_eq!(scene.asked(), (times, second), "{what}");
            }
        }
        scene.gateway.stop().await;
    }
}

#[tokio::test]
async fn an_endless_event_is_refused_and_not_collected() {
    for wire in wires() {
        let scene = Scene::new(wire, |_| {}).await;
        let frames = scene.frames_until_seen().await;
        scene.clear();
        let endless = 1024 * 1024 * 1024;
        scene.first.faults().next(Fault::OversizedFrame(0, endless));
        let started = Instant::now();
        let reply = scene.chat("alone", false).await;
        assert_eq!(reply.status, 200, "{}: {}", scene.name, reply.text());
        assert_eq!(scene.asked(), (2, 0), "{}", scene.name);
        assert!(started.elapsed() < PATIENCE, "{}", scene.name);
        scene
            .first
            .faults()
            .next(Fault::OversizedFrame(frames, endless));
        scene.chat("alone", false).await.error(502);
        scene.gateway.stop().await;
    }
}

#[tokio::test]
async fn borders_of_chunks_mean_nothing_in_any_dialect() {
    for wire in wires() {
        let scene = Scene::new(wire, |_| {}).await;
        let whole = seen(&scene.chat("alone", true).await);
        for size in 1..=7 {
            scene.first.faults().next(Fault::Rechunked(size));
            let rechunked = seen(&scene.chat("alone", true).await);
            assert_eq!(rechunked, whole, "{} {size}", scene.name);
        }
        assert_eq!(scene.asked().0, 8, "{}", scene.name);
        scene.gateway.stop().await;
    }
}

#[tokio::test]
async fn a_slow_drip_arrives_as_it_comes() {
    let scene = Scene::openai(|options| options.timeouts.idle = Duration::from_millis(500)).await;
    let whole = seen(&scene.chat("alone", true).await);
    let drip = Duration::from_millis(100);
    scene.first.faults().next(Fault::SlowDrip(drip));
    let started = Instant::now();
    let mut response = scene.send("alone", true).await.unwrap();
    let mut arrivals = Vec::new();
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        arrivals.push(started.elapsed());
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    // Were it collected, all of it would come at the end.
    let spread = *arrivals.last().unwrap() - arrivals[0];
    assert!(spread >= drip * 4, "{arrivals:?}");
    assert!(!whole.text.is_empty());
    scene.gateway.stop().await;
}

/// The time to the first event is one time, whatever parts it has: the head comes late, and the first event later still.
#[tokio::test]
async fn the_first_event_has_one_time_and_not_one_for_each_part() {
    let scene = Scene::openai(|options| {
        options.timeouts.first_byte = Duration::from_millis(1000);
        options.retry.retries_max = 0;
    })
    .await;
    let faults = scene.first.faults();
    faults.always(Fault::StallAfter(0));
    faults.always(Fault::SlowStart(Duration::from_millis(700)));
    let started = Instant::now();
    scene.chat("alone", false).await.error(504);
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(1000), "{elapsed:?}");
    assert!(elapsed < Duration::from_millis(1500), "{elapsed:?}");
    scene.gateway.stop().await;
}

/// A model may think for long before it says anything: that is not silence between events.
#[tokio::test]
async fn silence_before_the_first_event_is_measured_by_the_time_to_it() {
    let scene = Scene::openai(|options| {
        options.timeouts.first_byte = Duration::from_millis(600);
        options.timeouts.idle = Duration::from_millis(50);
        options.retry.retries_max = 0;
    })
    .await;
    scene.first.faults().next(Fault::StallAfter(0));
    let started = Instant::now();
    scene.chat("alone", false).await.error(504);
    assert!(started.elapsed() >= Duration::from_millis(600));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_whole_answer_has_a_time_too() {
    let scene = Scene::openai(|options| options.timeouts.total = Duration::from_millis(300)).await;
    let drip = Duration::from_millis(120);
    scene.first.faults().next(Fault::SlowDrip(drip));
    let mut aborted = scene.first.aborted();
    let broken = seen(&scene.chat("alone", true).await);
    assert_eq!(broken.errors, 1, "{broken:?}");
    tokio::time::timeout(PATIENCE, aborted.wait_for(|count| *count == 1))
        .await
        .unwrap()
        .unwrap();
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_short_retry_after_is_waited_for() {
    let scene = Scene::openai(|_| {}).await;
    scene.first.faults().next(Fault::Status(429, Some(1)));
    let started = Instant::now();
    scene.chat("alone", false).await.ok();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(scene.asked(), (2, 0));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_retry_after_beyond_the_bound_is_not_waited_for() {
    for status in [429, 503] {
        let scene =
            Scene::openai(|options| options.retry.backoff_max = Duration::from_millis(900)).await;
        scene.first.faults().next(Fault::Status(status, Some(1)));
        let started = Instant::now();
        scene.chat("m", false).await.ok();
        assert!(started.elapsed() < Duration::from_millis(900), "{status}");
        assert_eq!(scene.asked(), (1, 1), "{status}");
        scene.gateway.stop().await;
    }
}

/// Of the requests that come when an open breaker's time is over, one tries the upstream. The others are answered
/// elsewhere until it has been.
#[tokio::test]
async fn after_a_pause_one_request_tries_a_failed_upstream_again() {
    let scene = Scene::openai(|options| {
        options.retry.retries_max = 0;
        options.retry.breaker_failures = 2;
        options.retry.breaker_open = Duration::from_millis(400);
    })
    .await;
    scene.first.faults().always(Fault::CloseBeforeHead);
    for _ in 0..4 {
        scene.chat("m", false).await.ok();
    }
    assert_eq!(scene.asked(), (2, 4));
    let failing = scene.client.get("/metrics").await.text();
    assert!(failing.contains("holdfast_upstream_requests_total{upstream=\"openai\",model=\"gpt-5.6\",result=\"connection\"} 2"), "{failing}");

    scene.first.faults().clear();
    let slow = Duration::from_millis(200);
    scene.first.faults().always(Fault::SlowStart(slow));
    scene.clear();
    while scene.asked().0 == 0 {
        let eight = (0..8).map(|_| scene.chat("m", false));
        for reply in futures_util::future::join_all(eight).await {
            reply.ok();
        }
    }
    assert_eq!(scene.asked().0, 1);
    scene.first.faults().clear();
    scene.clear();
    scene.chat("m", false).await.ok();
    assert_eq!(scene.asked(), (1, 0), "it is as good as ever");
    scene.gateway.stop().await;
}

#[tokio::test]
async fn no_more_requests_are_sent_at_once_than_the_upstream_may_have() {
    let scene = Scene::openai(|options| options.concurrency_max = 2).await;
    let slow = Duration::from_millis(100);
    scene.first.faults().always(Fault::SlowStart(slow));
    let started = Instant::now();
    let eight = (0..8).map(|_| scene.chat("alone", false));
    for reply in futures_util::future::join_all(eight).await {
        reply.ok();
    }
    assert!(started.elapsed() >= slow * 4, "four times two");
    assert_eq!(scene.asked(), (8, 0));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn where_no_turn_comes_in_time_the_next_upstream_is_asked_at_once() {
    let scene = Scene::openai(|options| {
        options.concurrency_max = 1;
        options.timeouts.first_byte = Duration::from_millis(200);
        options.timeouts.idle = Duration::from_secs(30);
    })
    .await;
    scene.first.faults().next(Fault::StallAfter(3));
    let running = scene.stream("alone").await;
    let started = Instant::now();
    scene.chat("m", false).await.ok();
    assert_eq!(scene.asked(), (1, 1));
    let elapsed = started.elapsed();
    assert!(
        elapsed < Duration::from_millis(400),
        "waits once: {elapsed:?}"
    );
    scene.chat("alone", false).await.error(429);
    assert_eq!(scene.asked(), (1, 1));
    // Who leaves makes room.
    drop(running);
    let mut aborted = scene.first.aborted();
    aborted.wait_for(|count| *count == 1).await.unwrap();
    scene.chat("alone", false).await.ok();
    scene.gateway.stop().await;
}

/// Long before there is anything to pass on, a client that leaves takes its request along.
#[tokio::test]
async fn a_client_that_leaves_before_the_first_event_is_noticed_upstream() {
    for stream in [false, true] {
        for fault in [
            Fault::SlowStart(Duration::from_secs(60)),
            Fault::StallAfter(0),
        ] {
            let scene = Scene::openai(|_| {}).await;
            let mut aborted = scene.first.aborted();
            scene.first.faults().next(fault.clone());
            let waiting = tokio::spawn(scene.send("m", stream));
            until(&scene.first, "the request", |requests| requests.len() == 1).await;
            waiting.abort();
            tokio::time::timeout(PATIENCE, aborted.wait_for(|count| *count == 1))
                .await
                .unwrap_or_else(|_| panic!("{fault:?}, stream: {stream}"))
                .unwrap();
            assert_eq!(scene.asked(), (1, 0));
            scene.gateway.stop().await;
        }
    }
}

/// What a client does not read the gateway does not fetch.
#[tokio::test]
async fn a_slow_client_slows_the_upstream_down() {
    const WORDS: usize = 800;
    const WORD_BYTES: usize = 128 * 1024;
    let scene = Scene::openai(|_| {}).await;
    let word = format!(" {}", "x".repeat(WORD_BYTES - 1));
    scene.first.script().next(Answer::text(word.repeat(WORDS)));
    let mut in_flight = scene.first.in_flight();
    let mut response = scene.stream("alone").await;
    // A hundred megabytes do not fit into the sockets between; without a bound they would be here in a moment.
    let all = in_flight.wait_for(|count| *count == 0);
    let waited = tokio::time::timeout(Duration::from_secs(2), all).await;
    assert!(waited.is_err(), "the gateway took all of it");
    let mut bytes = 0;
    let mut tail = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        bytes += chunk.len();
        tail.extend_from_slice(&chunk);
        let keep = tail.len().saturating_sub(64);
        tail.drain(..keep);
    }
    assert!(bytes > (WORDS - 1) * WORD_BYTES, "{bytes}");
    assert!(tail.ends_with(b"data: [DONE]\n\n"));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_gateway_that_stops_finishes_what_it_has_begun() {
    let Scene {
        first,
        client,
        gateway,
        ..
    } = Scene::openai(|_| {}).await;
    let drip = Duration::from_millis(100);
    first.faults().always(Fault::SlowDrip(drip));
    let send = |stream| {
        let client = client.clone();
        tokio::spawn(async move {
            client
                .post("/v1/chat/completions", &request("alone", stream))
                .await
        })
    };
    let (stream, whole) = (send(true), send(false));
    until(&first, "both", |requests| requests.len() == 2).await;
    gateway.stop().await;
    assert!(seen(&stream.await.unwrap()).is_ended);
    whole.await.unwrap().ok();
    let late = client
        .request(reqwest::Method::GET, "/healthz")
        .send()
        .await;
    assert!(late.is_err());
}

#[tokio::test]
async fn upstreams_of_one_priority_share_by_their_weights_and_the_next_priority_waits() {
    let emulators = [
        Emulator::start(OpenAi::new()).await,
        Emulator::start(OpenAi::new()).await,
        Emulator::start(OpenAi::new()).await,
    ];
    let names = ["heavy", "light", "spare"];
    let mut builder = TestGateway::builder();
    for (name, emulator) in names.iter().zip(&emulators) {
        let mut options = upstream("openai", &format!("{}/v1", emulator.url), name);
        options.name = (*name).to_owned();
        options.retry.retries_max = 0;
        options.retry.breaker_failures = u32::MAX;
        builder = builder.upstream(options);
    }
    let target = |(name, priority, weight): (&str, u32, u32)| TargetOptions {
        upstream: name.to_owned(),
        model: "gpt-5.6".to_owned(),
        priority,
        weight,
    };
    let targets = [("heavy", 0, 9), ("light", 0, 1), ("spare", 1, 100)];
    let gateway = builder
        .routed("m", targets.map(target).into())
        .start()
        .await;
    let client = gateway.client();
    for _ in 0..400 {
        client
            .post("/v1/chat/completions", &request("m", false))
            .await
            .ok();
    }
    let counts = emulators
        .each_ref()
        .map(|emulator| emulator.requests().len());
    // Forty are expected, with a deviation of six: beyond these bounds it is one in ten thousand millions.
    assert!((5..=85).contains(&counts[1]), "{counts:?}");
    assert_eq!((counts[0] + counts[1], counts[2]), (400, 0));

    for emulator in &emulators[..2] {
        emulator.faults().always(Fault::Status(503, None));
        emulator.clear_requests();
    }
    for number in 1..=20 {
        client
            .post("/v1/chat/completions", &request("m", false))
            .await
            .ok();
        let counts = emulators
            .each_ref()
            .map(|emulator| emulator.requests().len());
        assert_eq!(
            counts, [number; 3],
            "each of them is asked once, the spare one last"
        );
    }
    gateway.stop().await;
}

/// What one key has made the other can't see: after a failover the context has a copy of its own there and stays.
#[tokio::test]
async fn two_keys_of_one_provider_are_two_places() {
    let emulator = Emulator::start(Gemini::new()).await;
    let mut builder = TestGateway::builder();
    for key in ["a", "b"] {
        let mut options = upstream(
            "gemini",
            &format!("{}/v1beta", emulator.url),
            &format!("key-{key}"),
        );
        options.name = key.to_owned();
        builder = builder.upstream(options);
    }
    let gateway = builder
        .route("model", &[("a", "gemini-2.5-pro"), ("b", "gemini-2.5-pro")])
        .start()
        .await;
    gateway.clock.follow_system();
    let client = gateway.client();
    let id = hold(&client, "model", &document(3000, "a"), json!({})).await;
    assert_eq!(outcome(&ask(&client, &id, "One?").await).0, "hit");
    emulator.faults().next(Fault::Status(429, Some(3600)));
    let moved = ask(&client, &id, "Two?").await;
    assert_eq!(outcome(&moved), ("rebuilt".into(), "failover".into()));
    for question in ["Three?", "Four?"] {
        assert_eq!(outcome(&ask(&client, &id, question).await).0, "hit");
    }
    assert_eq!(chats(&emulator, "/cachedContents"), 2);
    assert_eq!(handle_names(&emulator).len(), 2);
    let keys_by_request: Vec<String> = emulator
        .requests()
        .iter()
        .map(|request| request.header("x-goog-api-key").unwrap().to_owned())
        .collect();
    let with_b: BTreeSet<&String> = keys_by_request[3..].iter().collect();
    assert_eq!(keys_by_request[..3], ["key-a", "key-a", "key-a"]);
    assert_eq!(with_b.into_iter().collect::<Vec<_>>(), ["key-b"]);
    gateway.stop().await;
}

/// Another vendor's model gets the whole session, its earlier turns included, and keeps it.
#[tokio::test]
async fn a_session_goes_along_with_all_its_turns() {
    let openai = Emulator::start(OpenAi::new()).await;
    let anthropic = Emulator::start(Anthropic::new()).await;
    let mut first = upstream("openai", &format!("{}/v1", openai.url), "sk-1");
    first.retry.retries_max = 0;
    let gateway = TestGateway::builder()
        .upstream(first)
        .upstream(upstream("anthropic", &anthropic.url, "sk-2"))
        .route(
            "m",
            &[("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5-5")],
        )
        .start()
        .await;
    gateway.clock.follow_system();
    let client = gateway.client();
    let id = hold(
        &client,
        "m",
        &document(3000, "a"),
        json!({"mode": "session"}),
    )
    .await;
    openai
        .script()
        .next(Answer::text("Pleased to meet you, Ada."));
    ask(&client, &id, "I am Ada.").await.ok();
    openai.faults().next(Fault::Status(500, None));
    let moved = ask(&client, &id, "Who am I?").await;
    assert_eq!(outcome(&moved), ("rebuilt".into(), "failover".into()));
    let body = String::from_utf8(anthropic.requests()[0].body.to_vec()).unwrap();
    for part in ["I am Ada.", "Pleased to meet you, Ada.", "Who am I?"] {
        assert_eq!(body.matches(part).count(), 1, "{part}");
    }
    assert_eq!(outcome(&ask(&client, &id, "And now?").await).0, "hit");
    let body = String::from_utf8(anthropic.requests()[1].body.to_vec()).unwrap();
    for part in ["I am Ada.", "Who am I?", "And now?"] {
        assert_eq!(body.matches(part).count(), 1, "{part}");
    }
    assert_eq!(openai.requests().len(), 2);
    gateway.stop().await;
}
