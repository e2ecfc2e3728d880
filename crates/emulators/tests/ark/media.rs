//! Files and sound in messages.

use holdfast_emulators::families::ark::Ark;
use serde_json::{Value, json};

use super::*;

const PDF: &str = "data:application/pdf;base64,aGVsbG8=";

fn responses(role: &str, part: &Value) -> Value {
    json!({"model": MODEL, "input": [
        {"role": role, "content": [part]},
        {"role": "user", "content": "What is it?"},
    ]})
}

fn chat(role: &str, part: &Value) -> Value {
    json!({"model": MODEL, "messages": [
        {"role": role, "content": [part]},
        {"role": "user", "content": "What is it?"},
    ]})
}

#[tokio::test]
async fn responses_take_pdfs_and_sound_of_users() {
    let client = ark(Ark::new()).await;
    let address = json!("https://x.test/a.pdf");
    let invalid = "InvalidParameter";
    let missing = "MissingParameter";
    for (part, code, param) in [
        (json!({"type": "input_file"}), missing, "file_data"),
        (
            json!({"type": "input_file", "file_data": PDF}),
            missing,
            "filename",
        ),
        (
            json!({"type": "input_file", "file_data": "aGVsbG8=", "filename": "a.pdf"}),
            invalid,
            "file_data",
        ),
        (
            json!({"type": "input_file", "file_data": "data:text/plain;base64,aGVsbG8=", "filename": "a.txt"}),
            invalid,
            "file_data",
        ),
        (
            json!({"type": "input_file", "file_data": PDF, "file_url": address, "filename": "a.pdf"}),
            invalid,
            "file_data",
        ),
        (
            json!({"type": "input_file", "file_url": "a.pdf"}),
            invalid,
            "file_url",
        ),
        (json!({"type": "input_audio"}), missing, "audio_url"),
        (
            json!({"type": "input_audio", "audio_url": "aGVsbG8="}),
            invalid,
            "audio_url",
        ),
    ] {
        let answer = client.respond(&responses("user", &part)).await;
        assert_error(&answer, 400, code, &format!("input.content.{param}"));
    }
    let part = json!({"type": "input_file", "file_data": PDF, "filename": "a.pdf"});
    for role in ["system", "developer"] {
        assert_invalid(
            &client.respond(&responses(role, &part)).await,
            "input.content",
        );
    }
    let question = json!({"type": "input_text", "text": "abcdefgh"});
    let plain = client.ok("/responses", &responses("user", &question)).await;
    for part in [
        part,
        json!({"type": "input_file", "file_url": address, "filename": "a.pdf"}),
        json!({"type": "input_file", "file_url": address}),
        json!({"type": "input_audio", "audio_url": "data:audio/mpeg;base64,aGVsbG8="}),
    ] {
        let mut body = responses("user", &question);
        body["input"][0]["content"]
            .as_array_mut()
            .unwrap()
            .push(part);
        let answer = client.ok("/responses", &body).await;
        assert_eq!(
            answer["usage"]["input_tokens"].as_u64(),
            plain["usage"]["input_tokens"]
                .as_u64()
                .map(|plain| plain + 1000)
        );
    }
}

#[tokio::test]
async fn only_users_of_a_chat_send_more_than_text() {
    let client = ark(Ark::new()).await;
    let audio = |fields: Value| json!({"type": "input_audio", "input_audio": fields});
    let sound = audio(json!({"data": "aGVsbG8=", "format": "mp3"}));
    let picture = json!({"type": "image_url", "image_url": {"url": "https://x.test/a.png"}});
    for (role, part) in [
        ("system", &picture),
        ("system", &sound),
        ("assistant", &sound),
    ] {
        assert_invalid(
            &client.post("/chat/completions", &chat(role, part)).await,
            "messages.content.type",
        );
    }
    let file = json!({"type": "file"});
    assert_invalid(
        &client.post("/chat/completions", &chat("user", &file)).await,
        "messages.content.type",
    );
    for (fields, code, param) in [
        (json!({}), "MissingParameter", "data"),
        (json!({"data": "aGVsbG8="}), "MissingParameter", "format"),
        (
            json!({"data": "?", "format": "mp3"}),
            "InvalidParameter",
            "data",
        ),
        (json!({"url": "a.mp3"}), "InvalidParameter", "url"),
    ] {
        assert_error(
            &client
                .post("/chat/completions", &chat("user", &audio(fields)))
                .await,
            400,
            code,
            &format!("messages.content.input_audio.{param}"),
        );
    }
    let by_address = audio(json!({"url": "https://x.test/a.mp3"}));
    for part in [sound, by_address, picture] {
        client.ok("/chat/completions", &chat("user", &part)).await;
    }
    let text = json!({"type": "text", "text": "x"});
    for role in ["system", "assistant"] {
        client.ok("/chat/completions", &chat(role, &text)).await;
    }
}
