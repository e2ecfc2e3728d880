//! Documents: names, formats, and with what they go.

use super::*;

fn named(name: &str) -> Value {
    json!({"document": {"name": name, "format": "pdf", "source": {"bytes": "aGVsbG8="}}})
}

fn asking(blocks: &[Value]) -> Value {
    let mut content = blocks.to_vec();
    content.push(json!({"text": "What is it?"}));
    json!({"messages": [user(json!(content))]})
}

#[tokio::test]
async fn documents_are_checked() {
    let desk = Desk::new().await;
    let changed = |field: &str, value: Value| {
        let mut block = named("a");
        block["document"][field] = value;
        block
    };
    let rule = "The document file name can only contain alphanumeric characters, whitespace characters, hyphens, \
                parentheses, and square brackets.";
    for (block, expected) in [
        (named("a.pdf"), rule),
        (named("a_b"), rule),
        (named("a  b"), rule),
        (named("a/b"), rule),
        (named("r\u{e9}sum\u{e9}"), rule),
        (named("a\tb"), rule),
        (
            named(""),
            "Member must have length greater than or equal to 1",
        ),
        (
            changed("name", Value::Null),
            "Member must have length greater than or equal to 1",
        ),
        (
            named(&"a".repeat(201)),
            "Member must have length less than or equal to 200",
        ),
        (
            changed("format", json!("application/pdf")),
            "Value 'application/pdf' at 'messages.0.content.0.document.format' failed to satisfy constraint: Member must \
             satisfy enum value set: [pdf, csv, doc, docx, xls, xlsx, html, txt, md]",
        ),
        (
            changed(
                "source",
                json!({"bytes": "data:application/pdf;base64,aGVsbG8="}),
            ),
            "messages.0.content.0.document.source.bytes must be bytes in base64",
        ),
        (
            changed("source", json!({"bytes": ""})),
            "must be bytes in base64",
        ),
        (
            changed("source", json!({"url": "https://x.test"})),
            "extraneous key [url]",
        ),
        (changed("source", json!({})), "exactly one member"),
        (changed("title", json!("a")), "extraneous key [title]"),
        (
            json!({"image": {"format": "pdf", "source": {"bytes": "aGVsbG8="}}}),
            "enum value set: [png, jpeg, gif, webp]",
        ),
        (
            json!({"audio": {"format": "audio/wav", "source": {"bytes": "aGVsbG8="}}}),
            "Value 'audio/wav' at 'messages.0.content.0.audio.format'",
        ),
    ] {
        let message = desk
            .refusal(CLAUDE, &asking(std::slice::from_ref(&block)))
            .await;
        assert!(message.contains(expected), "{block}: {message}");
    }
    for block in [
        named("Minutes (2) [of] last-year"),
        named(&"a".repeat(200)),
        changed("format", json!("md")),
        changed("context", json!("Of last year.")),
        changed("source", json!({"s3Location": {"uri": "s3://a/b"}})),
        json!({"audio": {"format": "mp3", "source": {"bytes": "aGVsbG8="}}}),
    ] {
        desk.ok(CLAUDE, &asking(&[block])).await;
    }
}

#[tokio::test]
async fn documents_go_with_a_text_and_have_names_of_their_own() {
    let desk = Desk::new().await;
    let duplicate = "Messages can't contain duplicate document names.";
    let alone = json!({"messages": [user(json!([named("a")]))]});
    assert!(
        desk.refusal(CLAUDE, &alone)
            .await
            .starts_with("A message with a document must also have a text block.")
    );
    assert!(
        desk.refusal(CLAUDE, &asking(&[named("a"), named("a")]))
            .await
            .starts_with(duplicate)
    );
    let mut later = asking(&[named("a")]);
    let messages = later["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": [{"text": "A file."}]}));
    messages.push(user(json!([named("a"), {"text": "And this?"}])));
    assert!(desk.refusal(CLAUDE, &later).await.starts_with(duplicate));
    let many: Vec<Value> = ["a", "b", "c", "d", "e", "f"].map(named).to_vec();
    assert!(
        desk.refusal(CLAUDE, &asking(&many))
            .await
            .starts_with("The request has 6 documents.")
    );
    desk.ok(CLAUDE, &asking(&many[..5])).await;
    later["messages"][1]["content"] = json!([named("b"), {"text": "x"}]);
    later["messages"][2]["content"] = json!([{"text": "x"}]);
    assert!(
        desk.refusal(CLAUDE, &later)
            .await
            .contains("Documents can only be sent by the user")
    );
}

#[tokio::test]
async fn documents_of_results_count_among_them() {
    let desk = Desk::new().await;
    let body = |content: Value| {
        json!({"toolConfig": {"tools": [tool("look")]}, "messages": [
            user(json!([named("a"), {"text": "x"}])),
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "look", "input": {}}}]},
            user(json!([{"toolResult": {"toolUseId": "t1", "content": content}}])),
        ]})
    };
    let seen = json!([{"text": "seen"}]);
    let plain = desk.counts(CLAUDE, &body(seen)).await.0;
    let filed = json!([{"text": "seen"}, named("b")]);
    assert_eq!(desk.counts(CLAUDE, &body(filed)).await.0, plain + 1500);
    assert!(
        desk.refusal(CLAUDE, &body(json!([named("a")])))
            .await
            .starts_with("Messages can't contain duplicate document names.")
    );
    assert!(
        desk.refusal(CLAUDE, &body(json!([named("b.pdf")])))
            .await
            .starts_with("The document file name can only contain")
    );
}

#[tokio::test]
async fn documents_are_cached_like_other_blocks() {
    let desk = Desk::new().await;
    let body = |name: &str| json!({"messages": [user(json!([named(name), {"text": "abcd"}, point("5m"), {"text": "Why?"}]))]});
    assert_eq!(desk.counts(CLAUDE, &body("a")).await, (1, 0, 1501));
    assert_eq!(desk.counts(CLAUDE, &body("a")).await, (1, 1501, 0));
    assert_eq!(desk.counts(CLAUDE, &body("b")).await.1, 0);
}
