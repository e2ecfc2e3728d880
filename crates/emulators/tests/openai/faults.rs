//! Each switch of the core once, and what it does to the bill.

use std::time::{Duration, Instant};

use holdfast_emulators::families::openai::OpenAi;
use holdfast_emulators::{Answer, Family, Fault, families};
use serde_json::{Value, json};

use crate::{Client, plain};

const PATH: &str = "/v1/chat/completions";

fn streamed() -> Value {
    let mut body = plain("gpt-5.6", "context", "one?");
    body["stream"] = json!(true);
    body
}

/// What came before the end, and whether the end was a proper one.
async fn received(client: &Client, path: &str, body: &Value) -> (Vec<u8>, bool) {
    let mut response = client
        .post(path, body)
        .bearer_auth("key-1")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return (bytes, true),
            Err(_) => return (bytes, false),
        }
    }
}

fn frames(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).matches("\n\n").count()
}

async fn start(fault: Fault) -> Client {
    let client = Client::start(OpenAi::new()).await;
    client
        .emulator
        .script()
        .next(Answer::text("some words to send"));
    client.emulator.faults().next(fault);
    client
}

#[tokio::test]
async fn a_status_comes_in_the_envelope_and_costs_nothing() {
    let client = start(Fault::Status(429, Some(7))).await;
    let response = client
        .post(PATH, &streamed())
        .bearer_auth("key-1")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "7");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["error"]["code"], "rate_limit_exceeded");
    assert!(client.emulator.bill().charges().is_empty());
    assert!(
        received(&client, PATH, &streamed()).await.1,
        "only the next one"
    );
}

#[tokio::test]
async fn a_close_before_the_head_is_an_error_of_the_connection() {
    let client = start(Fault::CloseBeforeHead).await;
    let error = client
        .post(PATH, &streamed())
        .bearer_auth("key-1")
        .send()
        .await
        .unwrap_err();
    assert!(error.is_request() && error.status().is_none(), "{error:?}");
    assert!(client.emulator.bill().charges().is_empty());
    assert_eq!(client.emulator.requests().len(), 1);
}

#[tokio::test]
async fn slow_starts_and_drips_take_their_time() {
    let client = start(Fault::SlowStart(Duration::from_millis(150))).await;
    let before = Instant::now();
    client
        .post(PATH, &streamed())
        .bearer_auth("key-1")
        .send()
        .await
        .unwrap();
    assert!(before.elapsed() >= Duration::from_millis(150));

    let client = start(Fault::SlowDrip(Duration::from_millis(20))).await;
    let before = Instant::now();
    let (bytes, is_proper) = received(&client, PATH, &streamed()).await;
    // Role, four words, finish, [DONE]: six pauses.
    assert_eq!((frames(&bytes), is_proper), (7, true));
    assert!(before.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn a_cut_breaks_the_connection_after_so_many_frames() {
    let client = start(Fault::CutAfter(3)).await;
    let (bytes, is_proper) = received(&client, PATH, &streamed()).await;
    assert_eq!((frames(&bytes), is_proper), (3, false));
    let bill = client.emulator.bill().charges();
    assert_eq!((bill.len(), bill[0].reported), (1, false));

    client.emulator.faults().next(Fault::CutAfter(0));
    let (bytes, is_proper) = received(&client, PATH, &streamed()).await;
    assert_eq!((bytes.len(), is_proper), (0, false), "the head has come");
}

#[tokio::test]
async fn a_stall_ends_when_the_client_leaves() {
    let client = start(Fault::StallAfter(2)).await;
    let mut aborted = client.emulator.aborted();
    let mut in_flight = client.emulator.in_flight();
    let mut response = client
        .post(PATH, &streamed())
        .bearer_auth("key-1")
        .send()
        .await
        .unwrap();
    let mut seen = Vec::new();
    while frames(&seen) < 2 {
        seen.extend_from_slice(&response.chunk().await.unwrap().unwrap());
    }
    let silence = tokio::time::timeout(Duration::from_millis(100), response.chunk()).await;
    assert!(silence.is_err(), "nothing more comes, and no end either");
    assert_eq!(*aborted.borrow_and_update(), 0);
    drop(response);
    aborted.changed().await.unwrap();
    in_flight.wait_for(|count| *count == 0).await.unwrap();
}

#[tokio::test]
async fn half_a_frame_ends_properly() {
    let client = start(Fault::HalfFrame(2)).await;
    let (bytes, is_proper) = received(&client, PATH, &streamed()).await;
    assert_eq!((frames(&bytes), is_proper), (2, true));
    assert!(!bytes.ends_with(b"\n\n"));
}

#[tokio::test]
async fn an_error_inside_is_in_the_shape_of_its_surface() {
    let client = start(Fault::ErrorInside(2)).await;
    let (bytes, is_proper) = received(&client, PATH, &streamed()).await;
    let text = String::from_utf8(bytes).unwrap();
    let last: Value =
        serde_json::from_str(text.trim_end().rsplit_once("data: ").unwrap().1).unwrap();
    assert_eq!(
        (last["error"]["type"].as_str(), is_proper),
        (Some("server_error"), true)
    );
    assert!(!text.contains("[DONE]"));

    client.emulator.faults().next(Fault::ErrorInside(2));
    let body = json!({"model": "gpt-5.6", "input": "one?", "stream": true});
    let (bytes, _) = received(&client, "/v1/responses", &body).await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.rsplit_once("\n\n")
            .unwrap()
            .0
            .rsplit_once("\n\n")
            .unwrap()
            .1
            .starts_with("event: error\n"),
        "{text}"
    );
}

#[tokio::test]
async fn an_oversized_frame_has_no_end() {
    let client = start(Fault::OversizedFrame(1, 3_000_000)).await;
    let (bytes, _) = received(&client, PATH, &streamed()).await;
    assert_eq!(frames(&bytes), 1);
    assert!(bytes.len() >= 3_000_000);
}

#[tokio::test]
async fn rechunking_changes_nothing_but_the_borders() {
    let client = Client::start(OpenAi::new()).await;
    let choices = |text: String| -> Vec<Value> {
        let frames = text
            .split_terminator("\n\n")
            .map(|frame| frame.strip_prefix("data: ").unwrap());
        frames
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str::<Value>(data).unwrap()["choices"].clone())
            .collect()
    };
    let whole = received(&client, PATH, &streamed()).await.0;
    client.emulator.faults().next(Fault::Rechunked(7));
    let mut response = client
        .post(PATH, &streamed())
        .bearer_auth("key-1")
        .send()
        .await
        .unwrap();
    let mut rechunked = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        assert!(chunk.len() <= 7, "{chunk:?}");
        rechunked.extend_from_slice(&chunk);
    }
    assert_eq!(
        choices(String::from_utf8(whole).unwrap()),
        choices(String::from_utf8(rechunked).unwrap())
    );
}

#[tokio::test]
async fn switches_stay_end_and_repeat() {
    let client = Client::start(OpenAi::new()).await;
    let faults = client.emulator.faults();
    faults.always(Fault::Status(500, None));
    for _ in 0..2 {
        assert_eq!(client.send(PATH, &plain("gpt-4o", "c", "q")).await.0, 500);
    }
    let models = || {
        client
            .http
            .get(format!("{}/v1/models", client.emulator.url))
            .bearer_auth("key-1")
            .send()
    };
    assert_eq!(models().await.unwrap().status(), 200, "it is no chat");
    faults.next_any(Fault::Status(503, None));
    assert_eq!(models().await.unwrap().status(), 503);
    faults.clear();
    assert_eq!(client.send(PATH, &plain("gpt-4o", "c", "q")).await.0, 200);
    let mut runs = Vec::new();
    for _ in 0..2 {
        faults.random(
            5,
            0.5,
            vec![Fault::Status(500, None), Fault::Status(429, None)],
        );
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(client.send(PATH, &plain("gpt-4o", "c", "q")).await.0);
        }
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
    for status in [200, 429, 500] {
        assert!(runs[0].contains(&status), "{status}: {:?}", runs[0]);
    }
}

#[tokio::test]
async fn a_dropped_emulator_answers_nobody() {
    let Client { emulator, http } = start(Fault::StallAfter(2)).await;
    let url = format!("{}{PATH}", emulator.url);
    let mut stalled = http
        .post(&url)
        .bearer_auth("key-1")
        .json(&streamed())
        .send()
        .await
        .unwrap();
    // A connection that is idle afterwards, for the client to use again.
    let models = http
        .get(format!("{}/v1/models", emulator.url))
        .bearer_auth("key-1");
    models.send().await.unwrap().text().await.unwrap();
    drop(emulator);
    let end = loop {
        match stalled.chunk().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "the stalled stream breaks");
    let after = http
        .post(&url)
        .bearer_auth("key-1")
        .json(&streamed())
        .send()
        .await;
    assert!(after.is_err(), "{after:?}");
}

#[tokio::test]
async fn a_family_by_its_name_is_served_like_any_other() {
    let family: Box<dyn Family> = families::by_name("openai").unwrap();
    let client = Client::start(family).await;
    assert_eq!(client.send(PATH, &plain("gpt-4o", "c", "q")).await.0, 200);
    assert!(families::by_name("nonsense").is_none());
}
