//! Pictures and documents: which source goes with which.

use super::*;

/// `hello` in base64.
const DATA: &str = "aGVsbG8=";

fn pdf() -> Value {
    json!({"type": "base64", "media_type": "application/pdf", "data": DATA})
}

fn block(kind: &str, source: Value) -> Value {
    json!({"type": kind, "source": source})
}

fn asking(block: Value) -> Value {
    request(json!({"messages": [{"role": "user", "content": [block, text("What is it?")]}]}))
}

#[tokio::test]
async fn sources_fit_their_blocks() {
    let desk = Desk::new().await;
    let base64 =
        |media_type: &str| json!({"type": "base64", "media_type": media_type, "data": DATA});
    let plain = |media_type: &str, data: &str| json!({"type": "text", "media_type": media_type, "data": data});
    let url = |url: &str| json!({"type": "url", "url": url});
    let at = "messages.0.content.0";
    let mut titled = block("document", pdf());
    titled["title"] = json!(7);
    let mut named = block("document", pdf());
    named["filename"] = json!("a.pdf");
    for (block, expected) in [
        (
            block("document", base64("image/png")),
            "document.source.base64.media_type: Input should be 'application/pdf'",
        ),
        (
            block("document", base64("text/plain")),
            "document.source.base64.media_type: Input should be 'application/pdf'",
        ),
        (
            block("image", pdf()),
            "image.source.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'",
        ),
        (
            block("image", plain("text/plain", "x")),
            "image.source.text: Input tag 'text' found using 'type'",
        ),
        (
            block(
                "document",
                json!({"type": "base64", "media_type": "application/pdf", "data": "?"}),
            ),
            "document.source.base64.data: Invalid base64 data",
        ),
        (
            block("document", plain("text/markdown", "x")),
            "document.source.text.media_type: Input should be 'text/plain'",
        ),
        (
            block("document", plain("text/plain", "")),
            "document.source.text.data: String should have at least 1 character",
        ),
        (
            block("document", url("http://example.test/a.pdf")),
            "document.source.url.url: Only HTTPS URLs are supported.",
        ),
        (
            block("document", json!({"type": "file"})),
            "document.source.file.file_id: Field required",
        ),
        (titled, "document.title: Input should be a valid string"),
        (named, "document.filename: Extra inputs are not permitted"),
        (
            json!({"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}),
            ": Input tag 'input_audio' found using 'type'",
        ),
    ] {
        let message = desk.refusal(&asking(block.clone())).await;
        let expected = if expected.starts_with(':') {
            format!("{at}{expected}")
        } else {
            format!("{at}.{expected}")
        };
        assert!(message.starts_with(&expected), "{block}: {message}");
    }
    let mut right = block("document", pdf());
    right["title"] = json!("Minutes");
    right["context"] = json!("Of last year.");
    for block in [
        right,
        block("document", plain("text/plain", "x")),
        block("document", url("https://example.test/a.pdf")),
        block("image", base64("image/webp")),
    ] {
        desk.ok(&asking(block)).await;
    }
    let answered = request(json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [block("document", pdf())]},
    ]}));
    assert!(
        desk.refusal(&answered)
            .await
            .contains("`document` blocks are not permitted within `assistant` turns")
    );
}

#[tokio::test]
async fn documents_are_cached_like_other_blocks() {
    let desk = Desk::new().await;
    let body = |title: &str| {
        let mut document = marked(block("document", pdf()), "5m");
        document["title"] = json!(title);
        asking(document)
    };
    assert_eq!(desk.counts(&body("a")).await, (3, 0, 1500));
    assert_eq!(desk.counts(&body("a")).await, (3, 1500, 0));
    assert_eq!(desk.counts(&body("b")).await.1, 0);
    let spelt = block(
        "document",
        json!({"type": "text", "media_type": "text/plain", "data": words("page ", 200)}),
    );
    assert_eq!(desk.counts(&asking(spelt)).await.0, 203);
}

#[tokio::test]
async fn a_document_within_a_result_counts_as_one() {
    let desk = Desk::new().await;
    let mut returned = result("t1");
    returned["content"] = json!([
        text("seen"),
        block("document", pdf()),
        block("document", pdf())
    ]);
    let body = request(json!({
        "tools": [tool("look")],
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [call("t1")]},
            {"role": "user", "content": [returned]},
        ],
    }));
    let mut plain = body.clone();
    plain["messages"][2]["content"] = json!([result("t1")]);
    assert_eq!(
        desk.counts(&body).await.0,
        desk.counts(&plain).await.0 + 2 * 1500
    );
}
