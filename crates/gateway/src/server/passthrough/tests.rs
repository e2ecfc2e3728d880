#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::poll_fn;

use futures_util::StreamExt;
use futures_util::stream;

use super::*;

fn answer(headers: &[(&'static str, &'static str)]) -> RawAnswer {
    let headers = headers.iter().map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, value.parse().unwrap())
    });
    let chunks = ["he", "llo"].map(|chunk| Ok(Bytes::from(chunk)));
    RawAnswer {
        status: 201,
        headers: headers.collect(),
        body: stream::iter(chunks).boxed(),
    }
}

#[tokio::test]
async fn a_body_whose_length_is_told_ends_with_its_last_byte() {
    let mut body = response(answer(&[("content-length", "5")])).into_body();
    for left in [5, 3] {
        assert_eq!(body.size_hint().exact(), Some(left));
        assert!(!body.is_end_stream());
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        assert!(frame.unwrap().unwrap().is_data());
    }
    assert!(body.is_end_stream());

    let body = response(answer(&[])).into_body();
    assert_eq!(
        (body.size_hint().exact(), body.is_end_stream()),
        (None, false)
    );
    assert_eq!(axum::body::to_bytes(body, 9).await.unwrap(), "hello");
}

#[tokio::test]
async fn only_what_the_bytes_are_is_told() {
    let response = response(answer(&[
        ("content-type", "audio/mpeg"),
        ("content-encoding", "br"),
        ("content-disposition", "attachment"),
        ("set-cookie", "a=b"),
        ("openai-organization", "somebody"),
        ("x-request-id", "req_1"),
    ]));
    assert_eq!(response.status(), 201);
    let mut names: Vec<&str> = response.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["content-disposition", "content-encoding", "content-type"]
    );
}
