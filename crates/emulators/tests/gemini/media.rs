//! Pictures, documents, sound and films.

use holdfast_emulators::families::gemini::Gemini;
use serde_json::{Value, json};

use super::*;

fn asking(part: Value) -> Value {
    json!({"contents": [{"role": "user", "parts": [part, {"text": "What?"}]}]})
}

fn inline(media_type: &str) -> Value {
    json!({"inlineData": {"mimeType": media_type, "data": "aGVsbG8="}})
}

#[tokio::test]
async fn media_have_a_type_that_models_take() {
    let client = gemini(Gemini::new()).await;
    let place = "contents[0].parts[0]";
    let address = json!("https://example.test/a.pdf");
    for (part, expected) in [
        (
            json!({"inlineData": {"data": "aGVsbG8="}}),
            format!("{place}.inline_data.mime_type: mime_type must not be empty."),
        ),
        (
            json!({"fileData": {"fileUri": address}}),
            format!("{place}.file_data.mime_type: mime_type must not be empty."),
        ),
        (
            json!({"inlineData": {"mimeType": "application/pdf"}}),
            format!("{place}.inline_data.data: data must not be empty."),
        ),
        (
            json!({"fileData": {"mimeType": "application/pdf"}}),
            format!("{place}.file_data.file_uri: file_uri must not be empty."),
        ),
        (
            inline("application/msword"),
            "Unsupported MIME type: application/msword".to_owned(),
        ),
        (inline("pdf"), "Unsupported MIME type: pdf".to_owned()),
        (
            json!({"inlineData": {"mimeType": "application/pdf", "data": "?"}}),
            "(TYPE_BYTES)".to_owned(),
        ),
        (
            json!({"inlineData": {"mimeType": "application/pdf", "data": "aGVsbG8=", "displayName": "a.pdf"}}),
            "Unknown name \"displayName\"".to_owned(),
        ),
    ] {
        assert_invalid(&client.generate(asking(part)).await, &expected);
    }
    assert!(client.charges("chat").is_empty());
    for media_type in [
        "application/pdf",
        "text/csv",
        "image/webp",
        "audio/mp3",
        "audio/ogg; codecs=opus",
        "video/mp4",
    ] {
        let (status, answer) = client.generate(asking(inline(media_type))).await;
        assert_eq!(status, 200, "{media_type}: {answer}");
        assert_eq!(answer["usageMetadata"]["promptTokenCount"], 258 + 2);
    }
    let by_address = json!({"fileData": {"mimeType": "application/pdf", "fileUri": address}});
    assert_eq!(client.generate(asking(by_address)).await.0, 200);
}

#[tokio::test]
async fn names_of_files_are_for_vertex() {
    let client = vertex(Gemini::vertex("test-token")).await;
    let mut part = inline("application/pdf");
    part["inlineData"]["displayName"] = json!("a.pdf");
    assert_eq!(client.generate(asking(part)).await.0, 200);
    assert_invalid(
        &client.generate(asking(inline("application/zip"))).await,
        "Unsupported MIME type: application/zip",
    );
}

#[tokio::test]
async fn media_in_a_cache_are_checked_too() {
    let client = gemini(Gemini::new()).await;
    let mut body = client.cache_body();
    body["contents"][0]["parts"] = json!([inline("application/zip")]);
    assert_invalid(
        &client.post("/cachedContents", body.clone()).await,
        "Unsupported MIME type: application/zip",
    );
    body["contents"][0]["parts"] = json!([inline("application/pdf")]);
    let (status, cache) = client.post("/cachedContents", body).await;
    assert_eq!(status, 200, "{cache}");
    assert_eq!(cache["usageMetadata"]["totalTokenCount"], 1100 + 258);
}
