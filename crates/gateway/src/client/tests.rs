#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// A server that answers one request with these bytes and returns what it was asked.
async fn answer(response: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            request.push(char::from(stream.read_u8().await.unwrap()));
        }
        let length = request.lines().find_map(|line| {
            line.to_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        // Closing with unread bytes would reset the connection and take the answer with it.
        stream
            .read_exact(&mut vec![0; length.unwrap_or(0)])
            .await
            .unwrap();
        stream.write_all(response.as_bytes()).await.unwrap();
        request
    });
    (url, asked)
}

async fn get(url: &str, path: &[&str]) -> Result<Value, ClientError> {
    let client = Client::new(url, Some(Secret::new("hf-key"))).unwrap();
    client
        .call(
            Method::GET,
            path,
            &[("cursor", "a b")],
            None,
            Patience::Short,
        )
        .await
}

async fn chunks(url: &str) -> (Vec<Value>, Result<(), ClientError>) {
    let client = Client::new(url, None).unwrap();
    let mut stream = client
        .stream(&["v1", "chat", "completions"], &json!({}))
        .await
        .unwrap();
    let mut chunks = Vec::new();
    loop {
        match stream.next().await {
            Ok(Some(chunk)) => chunks.push(chunk),
            Ok(None) => return (chunks, Ok(())),
            Err(error) => return (chunks, Err(error)),
        }
    }
}

#[tokio::test]
async fn a_request_carries_the_key_and_escapes_what_users_typed() {
    let (url, asked) = answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    assert_eq!(
        get(&url, &["v1", "context", "../x?y"]).await.unwrap(),
        json!({})
    );
    let asked = asked.await.unwrap();
    assert!(
        asked.starts_with("GET /v1/context/..%2Fx%3Fy?cursor=a+b HTTP/1.1"),
        "{asked}"
    );
    assert!(
        asked
            .to_lowercase()
            .contains("authorization: bearer hf-key"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_refusal_carries_the_servers_own_words() {
    let (url, _) = answer(
        "HTTP/1.1 404 Not Found\r\nx-request-id: req-7\r\ncontent-length: 55\r\n\r\n\
         {\"error\":{\"message\":\"It is gone.\",\"code\":\"NotFound.X\"}}\n",
    )
    .await;
    match get(&url, &["v1"]).await.unwrap_err() {
        ClientError::Refused {
            status,
            message,
            code,
            request_id,
        } => {
            assert_eq!(
                (status, message.as_str(), code.as_str()),
                (404, "It is gone.", "NotFound.X")
            );
            assert_eq!(request_id.as_deref(), Some("req-7"));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_answer_that_is_not_ours_is_not_repeated() {
    let (url, _) = answer("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\n<html>").await;
    let error = get(&url, &["v1"]).await.unwrap_err();
    assert_eq!(error.to_string(), "the server answered 502 Bad Gateway");
}

#[tokio::test]
async fn a_stream_is_read_to_its_end_mark() {
    let (url, _) = answer(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
         data: {\"a\":1}\n\n: comment\n\ndata: {\"a\":2}\n\ndata: [DONE]\n\n",
    )
    .await;
    let (chunks, end) = chunks(&url).await;
    assert_eq!(chunks, [json!({"a": 1}), json!({"a": 2})]);
    end.unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error() {
    let (url, _) =
        answer("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"a\":1}\n\n")
            .await;
    let (chunks, end) = chunks(&url).await;
    assert_eq!(chunks.len(), 1);
    assert!(
        end.unwrap_err()
            .to_string()
            .contains("stopped before its end")
    );
}

#[tokio::test]
async fn an_error_inside_a_stream_is_one() {
    let (url, _) = answer(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"error\":{\"message\":\"Full.\"}}\n\n",
    )
    .await;
    let (_, end) = chunks(&url).await;
    assert_eq!(end.unwrap_err().to_string(), "Full.");
}

#[tokio::test]
async fn nobody_there_is_told_from_a_broken_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let closed = tokio::spawn(async move { listener.accept().await.map(drop) });
    let broken = get(&url, &["v1"]).await.unwrap_err();
    assert!(matches!(broken, ClientError::Broken { .. }), "{broken}");
    closed.await.unwrap().unwrap();
    let nobody = get(&url, &["v1"]).await.unwrap_err();
    assert!(
        matches!(nobody, ClientError::Unreachable { .. }),
        "{nobody}"
    );
}

#[test]
fn what_is_no_server_url_is_refused() {
    for bad in ["", "localhost:8080", "ftp://localhost", "http://"] {
        assert!(
            matches!(Client::new(bad, None), Err(ClientError::Url(_))),
            "{bad}"
        );
    }
    assert_eq!(
        Client::new("http://127.0.0.1:1/", None).unwrap().url(),
        "http://127.0.0.1:1"
    );
}
